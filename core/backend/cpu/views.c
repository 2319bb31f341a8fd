/* cpu/views.c: tensors read and written where they lie in others: which slices, reshapes, permutations and their gradients need not be copies, because those
 * who read or make their numbers take strides.  Must not know what is computed with them. */
#include "cpu.h"
#include "program/rules.h"

/* ---- how an operation that only moves numbers changes strides ---- */

static void
contiguous (const HeddleShape *s, CpuView *view)
{
  gint64 running = 1;
  view->offset = 0;
  for (gint32 i = s->rank - 1; i >= 0; running *= s->size[i--])
    view->stride[i] = running;
}

static gboolean
slice_view (const HeddleOp *op, CpuView *view)
{
  for (gint32 i = 0; i < op->in[0]->shape.rank; i++)
    {
      gint64 begin, step, count;
      heddle_slice_axis (op->attr, i, op->in[0]->shape.size[i], &begin, &step, &count);
      view->offset += begin * view->stride[i];
      view->stride[i] *= step;
    }
  return TRUE;
}

static gboolean
permute_view (const HeddleOp *op, CpuView *view)
{
  const HeddlePermuteAttr *a = op->attr;
  CpuView old = *view;
  for (gint32 i = 0; i < op->out[0]->shape.rank; i++)
    view->stride[i] = old.stride[a->axes[i]];
  return TRUE;
}

/* From the last axis on: axes that are one run of numbers are joined and split anew; FALSE where a new axis would reach beyond such a run. */
static gboolean
reshape_view (const HeddleOp *op, CpuView *view)
{
  const HeddleShape *from = &op->in[0]->shape, *to = &op->out[0]->shape;
  CpuView old = *view;
  gint32 t = to->rank - 1;
  gboolean ok = from->rank > 0;
  for (gint32 i = from->rank - 1; ok && i >= 0; i--)
    {
      gint64 unit = old.stride[i], run = from->size[i], made = 1;
      while (i > 0 && (from->size[i - 1] == 1 || old.stride[i - 1] == unit * run))
        run *= from->size[--i];
      for (; t >= 0 && (made < run || to->size[t] == 1); made *= to->size[t--])
        view->stride[t] = unit * made;
      ok = made == run;
    }
  return ok && t < 0;
}

static gboolean
moved (const HeddleOp *op, CpuView *view)
{
  gboolean ok = FALSE;
  switch (op->info->code)
    {
    case HEDDLE_OP_SLICE: ok = slice_view (op, view); break;
    case HEDDLE_OP_PERMUTE: ok = permute_view (op, view); break;
    case HEDDLE_OP_RESHAPE: ok = reshape_view (op, view); break;
    default: break;
    }
  return ok;
}

/* ---- reading ---- */

static gboolean
takes_views (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_ATTENTION || op->info->code == HEDDLE_OP_ATTENTION_GRAD;
}

static gboolean
rows_are_whole (const HeddleShape *s, const CpuView *view)
{
  return s->rank == 4 && view->stride[3] == 1;
}

/* Do all who read V, which would lie as VIEW says, take it so? */
static gboolean
readers_take (const CpuCompiler *c, const HeddleValue *v, const CpuView *view)
{
  const GPtrArray *users = c->users[v->id];
  gboolean ok = users && users->len == v->n_uses;
  for (guint i = 0; ok && i < users->len; i++)
    {
      const HeddleOp *op = users->pdata[i];
      CpuView next = *view;
      ok = takes_views (op) ? rows_are_whole (&v->shape, view) : moved (op, &next) && readers_take (c, op->out[0], &next);
    }
  return ok;
}

/* The permutation that the maker of V has written instead of V, or NULL. */
static const HeddleOp *
written_instead (const CpuCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  const HeddleOp *found = NULL;
  for (guint i = 0; !found && users && !c->forms[v->id] && i < users->len; i++)
    {
      const HeddleOp *op = users->pdata[i];
      found = op->info->code == HEDDLE_OP_PERMUTE && c->done[op->id] && c->forms[op->out[0]->id] ? op : NULL;
    }
  return found;
}

static void
unpermute (const HeddleOp *permute, CpuView *view)
{
  const HeddlePermuteAttr *a = permute->attr;
  CpuView old = *view;
  for (gint32 i = 0; i < permute->out[0]->shape.rank; i++)
    view->stride[a->axes[i]] = old.stride[i];
}

/* The value in whose memory V lies, and how */
static const HeddleValue *
base_of (const CpuCompiler *c, const HeddleValue *v, CpuView *view)
{
  const HeddleOp *left_out = cpu_left_out (c, v), *instead = left_out ? NULL : written_instead (c, v);
  const HeddleValue *base = v;
  if (left_out)
    {
      base = base_of (c, left_out->in[0], view);
      moved (left_out, view);
    }
  else if (instead)
    {
      base = instead->out[0];
      contiguous (&base->shape, view);
      unpermute (instead, view);
    }
  else
    contiguous (&v->shape, view);
  return base;
}

gboolean
cpu_view_instead (CpuCompiler *c, const HeddleOp *op)
{
  gboolean moves = op->info->code == HEDDLE_OP_SLICE || op->info->code == HEDDLE_OP_PERMUTE || op->info->code == HEDDLE_OP_RESHAPE, ok = FALSE;
  if (c->device->flags.fusion && moves && op->in[0]->kind == HEDDLE_VALUE_TEMP)
    {
      CpuView view;
      const HeddleValue *base = base_of (c, op->in[0], &view);
      /* a variable's numbers may be others by the time they are read */
      ok = cpu_made (c, base)->where == IN_ARENA && moved (op, &view) && readers_take (c, op->out[0], &view);
    }
  return ok;
}

Operand
cpu_view_of (CpuCompiler *c, const HeddleValue *v, CpuView *view)
{
  const HeddleValue *base = base_of (c, v, view);
  return cpu_form (c, base, HEDDLE_F32, &cpu_plain);
}

/* ---- writing ---- */

/* The permutation that V's maker can write instead of V: all others who read V take strides. */
static const HeddleOp *
permuted_target (const CpuCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  const HeddleOp *found = NULL;
  gboolean ok = c->device->flags.fusion && users && users->len == v->n_uses && v->shape.rank == 4;
  for (guint i = 0; ok && i < users->len; i++)
    {
      const HeddleOp *op = users->pdata[i];
      gboolean permute = op->info->code == HEDDLE_OP_PERMUTE && ((const HeddlePermuteAttr *) op->attr)->axes[3] == 3 && !c->done[op->id];
      ok = permute ? !found : takes_views (op);
      found = permute ? op : found;
    }
  return ok ? found : NULL;
}

CpuTarget
cpu_view_target (CpuCompiler *c, const HeddleValue *v)
{
  const HeddleOp *permute = permuted_target (c, v);
  CpuTarget t = { .value = permute ? permute->out[0] : v };
  contiguous (&t.value->shape, &t.view);
  if (permute)
    {
      unpermute (permute, &t.view);
      cpu_mark_done (c, permute);
      c->forward[t.value->id] = NULL;           /* a variable could be read between here and there */
    }
  t.operand = cpu_target (c, t.value, HEDDLE_F32, &cpu_plain);
  return t;
}

/* ---- writing the parts of one tensor: v -> permute -> reshape -> slice_grad, and the sum of those is the whole ---- */

typedef struct { const HeddleOp *permute, *reshape, *slice; } Part;

static const HeddleOp *
next_if (const CpuCompiler *c, const HeddleOp *op, const HeddleValue *v, HeddleOpCode code)
{
  const HeddleOp *user = op || v->producer ? cpu_only_user (c, op ? op->out[0] : v) : NULL;
  return user && user->info->code == code ? user : NULL;
}

static gboolean
part_of (const CpuCompiler *c, const HeddleValue *v, Part *p)
{
  p->permute = next_if (c, NULL, v, HEDDLE_OP_PERMUTE);
  p->reshape = p->permute && ((const HeddlePermuteAttr *) p->permute->attr)->axes[3] == 3 ? next_if (c, p->permute, v, HEDDLE_OP_RESHAPE) : NULL;
  p->slice = p->reshape ? next_if (c, p->reshape, v, HEDDLE_OP_SLICE_GRAD) : NULL;
  return p->slice != NULL;
}

/* Which of the parts V is the sum of, as bits; 0 when something else is in it. */
static guint
parts_in (const CpuCompiler *c, const HeddleValue *v, const Part *parts, guint n)
{
  const HeddleOp *op = v->producer;
  guint bits = 0;
  for (guint i = 0; i < n; i++)
    bits |= op == parts[i].slice ? 1u << i : 0;
  if (!bits && op && op->info->code == HEDDLE_OP_ADD)
    {
      guint a = parts_in (c, op->in[0], parts, n), b = parts_in (c, op->in[1], parts, n);
      bits = a && b && !(a & b) ? a | b : 0;
    }
  return bits;
}

/* No number of the whole is in two parts, and each is in one: they cut one axis only. */
static gboolean
parts_tile (const Part *parts, guint n)
{
  const HeddleShape *whole = &parts[0].slice->out[0]->shape;
  gint64 from[CPU_VIEW_PARTS][2] = { 0 }, sum = 0;
  gint32 cut = -1;
  gboolean ok = TRUE;
  for (guint i = 0; i < n; i++)
    for (gint32 axis = 0; ok && axis < whole->rank; axis++)
      {
        gint64 begin, step, count;
        heddle_slice_axis (parts[i].slice->attr, axis, whole->size[axis], &begin, &step, &count);
        gboolean partial = count != whole->size[axis];
        ok = step == 1 && heddle_shape_equal (whole, &parts[i].slice->out[0]->shape) && (!partial || cut < 0 || cut == axis);
        cut = partial ? axis : cut;
        from[i][0] = partial ? begin : from[i][0];
        from[i][1] = partial ? begin + count : from[i][1];
        sum += partial ? count : 0;
      }
  for (guint i = 0; ok && i < n; i++)
    for (guint j = 0; ok && j < i; j++)
      ok = from[i][1] <= from[j][0] || from[j][1] <= from[i][0];
  return ok && cut >= 0 && sum == whole->size[cut];
}

static void
leave_out_sum (CpuCompiler *c, const HeddleOp *op)
{
  for (guint i = 0; op->info->code == HEDDLE_OP_ADD && i < 2; i++)
    leave_out_sum (c, op->in[i]->producer);
  cpu_mark_done (c, op);
}

/* Where a part's numbers go in the whole, as the maker of the part before all movements sees it */
static gboolean
part_view (const Part *p, CpuView *view)
{
  const HeddleOp *slice = p->slice, *reshape = p->reshape;
  HeddleValue *whole = slice->out[0], *part = slice->in[0], *heads = reshape->in[0];
  HeddleOp taken = { .in = &whole, .out = &part, .attr = slice->attr }, split = { .in = &part, .out = &heads };
  contiguous (&whole->shape, view);
  gboolean ok = slice_view (&taken, view) && reshape_view (&split, view);
  unpermute (p->permute, view);
  return ok;
}

gboolean
cpu_view_parts (CpuCompiler *c, HeddleValue *const *v, guint n, CpuTarget *targets)
{
  Part parts[CPU_VIEW_PARTS] = { 0 };
  gboolean ok = n <= CPU_VIEW_PARTS;
  for (guint i = 0; ok && i < n; i++)
    ok = part_of (c, v[i], &parts[i]) && part_view (&parts[i], &targets[i].view) && rows_are_whole (&v[i]->shape, &targets[i].view);
  const HeddleOp *sum = ok && parts_tile (parts, n) ? parts[0].slice : NULL;
  while (sum && parts_in (c, sum->out[0], parts, n) != (1u << n) - 1)
    sum = next_if (c, sum, NULL, HEDDLE_OP_ADD);
  if (sum)
    {
      c->forward[sum->out[0]->id] = NULL;
      Operand operand = cpu_target (c, sum->out[0], HEDDLE_F32, &cpu_plain);
      for (guint i = 0; i < n; i++)
        {
          targets[i].value = sum->out[0];
          targets[i].operand = operand;
          cpu_mark_done (c, parts[i].permute);
          cpu_mark_done (c, parts[i].reshape);
        }
      leave_out_sum (c, sum);
    }
  return sum != NULL;
}
