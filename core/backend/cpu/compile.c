/* cpu/compile.c: from a program to steps with layouts and one arena.  Must not know what a kernel computes. */
#include "cpu.h"
#include "base/memory.h"
#include "tensor/tensors.h"

#include <omp.h>
#include <string.h>

#define ARENA_ALIGN 64

/* ---- building blocks ---- */

guint
cpu_buffer_new (CpuPlan *plan, gsize bytes)
{
  HeddleRegion buffer = { MAX (bytes, 4), 0, G_MAXINT, -1 };
  g_array_append_val (plan->buffers, buffer);
  return plan->buffers->len - 1;
}

Operand
cpu_temp (CpuPlan *plan, HeddleDtype dtype, const HeddleShape *shape, const Layout *layout)
{
  Operand o = { .where = IN_ARENA, .dtype = dtype, .shape = *shape, .layout = layout };
  o.buffer = cpu_buffer_new (plan, heddle_tensor_bytes (dtype, shape));
  return o;
}

static void
step_free (gpointer data)
{
  Step *step = data;
  if (step->data_free)
    step->data_free (step->data);
  g_free (step);
}

Step *
cpu_step_new (CpuPlan *plan, const HeddleOp *op, const char *what, StepRun run)
{
  Step *step = g_new0 (Step, 1);
  step->op = op;
  step->what = what;
  step->run = run;
  g_ptr_array_add (plan->steps, step);
  return step;
}

void
cpu_may_share (CpuPlan *plan, const Operand *in, const Operand *out)
{
  if (in->where == IN_ARENA && out->where == IN_ARENA && in->buffer != out->buffer)
    g_array_append_val (plan->sharing, ((HeddleTakeOver) { plan->steps->len - 1, in->buffer, out->buffer }));
}

gpointer
cpu_pointer (CpuPlan *plan, const Operand *o)
{
  gpointer p = NULL;
  switch (o->where)
    {
    case IN_NONE: break;
    case IN_ARENA: p = plan->device->arena + g_array_index (plan->buffers, HeddleRegion, o->buffer).offset; break;
    case IN_VARIABLE: p = o->variable->data; break;
    case IN_INPUT: p = (gpointer) plan->inputs[o->buffer]; break;
    case IN_CONSTANT: p = &g_array_index (plan->constants, float, o->buffer); break;
    }
  return p;
}

const Layout *
cpu_keep_layout (CpuPlan *plan, const Layout *layout)
{
  const Layout *kept = layout->kind == LAYOUT_PLAIN ? &cpu_plain : layout->kind == LAYOUT_BLOCKED ? &cpu_blocked : NULL;
  for (guint i = 0; !kept && i < plan->layouts->len; i++)
    if (cpu_layout_equal (plan->layouts->pdata[i], layout))
      kept = plan->layouts->pdata[i];
  if (!kept)
    {
      kept = heddle_memdup (layout, sizeof *layout);
      g_ptr_array_add (plan->layouts, (gpointer) kept);
    }
  return kept;
}

/* ---- forms: one value in several layouts and dtypes ---- */

static const Layout *
variable_layout (const HeddleVariable *v)
{
  return v->layout ? v->layout : &cpu_plain;
}

void
cpu_adopt_layout (CpuCompiler *c, HeddleVariable *v, const Layout *layout)
{
  if (v->role == HEDDLE_ROLE_PARAM && !v->layout && !v->data && layout && layout->kind != LAYOUT_BLOCKED)
    {
      const Layout *own = layout == &cpu_plain ? layout : heddle_memdup (layout, sizeof *layout);
      if (own != &cpu_plain)
        g_ptr_array_add (c->device->layouts, (gpointer) own);
      v->layout = (gpointer) own;
      if (v->grad)
        v->grad->layout = v->layout;
    }
}

static void
add_form (CpuCompiler *c, const HeddleValue *v, Operand o)
{
  o.made = c->plan->steps->len;
  if (!c->forms[v->id])
    c->forms[v->id] = g_array_new (FALSE, FALSE, sizeof (Operand));
  g_array_append_val (c->forms[v->id], o);
}

const Operand *
cpu_made (CpuCompiler *c, const HeddleValue *v)
{
  if (!c->forms[v->id])
    {
      Operand o = { .dtype = v->dtype, .shape = v->shape, .layout = &cpu_plain };
      if (v->kind == HEDDLE_VALUE_VARIABLE)
        {
          cpu_adopt_layout (c, v->variable, &cpu_plain);
          o.where = IN_VARIABLE;
          o.variable = v->variable;
          o.layout = variable_layout (v->variable);
        }
      else if (v->kind == HEDDLE_VALUE_INPUT)
        {
          o.where = IN_INPUT;
          o.buffer = v->input;
        }
      else if (v->kind == HEDDLE_VALUE_CONSTANT)
        {
          float number = (float) v->constant;
          o.where = IN_CONSTANT;
          o.buffer = c->plan->constants->len;
          g_array_append_val (c->plan->constants, number);
        }
      else
        o = cpu_temp (c->plan, v->dtype, &v->shape, &cpu_plain);   /* an output nobody made: never read */
      add_form (c, v, o);
    }
  return &g_array_index (c->forms[v->id], Operand, 0);
}

static void
run_convert (CpuPlan *plan, Step *step)
{
  gsize n = (gsize) heddle_shape_count (&step->in[0].shape), chunk = 4096;
  const char *src = IN (0);
  char *dst = OUT (0);
  HeddleDtype from = step->in[0].dtype, to = step->out[0].dtype;
  gsize a = heddle_dtype_size (from), b = heddle_dtype_size (to);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
  for (gsize i = 0; i < n; i += chunk)
    cpu_convert (to, dst + i * b, from, src + i * a, MIN (chunk, n - i));
}

void
cpu_emit_convert (CpuCompiler *c, const Operand *from, const Operand *to)
{
  Step *step = cpu_step_new (c->plan, NULL, "convert", run_convert);
  step->in[step->n_in++] = *from;
  step->out[step->n_out++] = *to;
}

static Operand
convert (CpuCompiler *c, const Operand *from, HeddleDtype dtype)
{
  Operand to = cpu_temp (c->plan, dtype, &from->shape, from->layout);
  cpu_emit_convert (c, from, &to);
  return to;
}

/* An f32 copy of an image in 16 bits is made anew rather than kept from the forward pass to the backward: half the memory is what 16 bits are for. */
#define COPY_KEPT 16      /* steps */

static gboolean
is_stale (const CpuCompiler *c, const HeddleValue *v, const Operand *copy)
{
  return copy->dtype != v->dtype && v->shape.rank > 1 && v->kind == HEDDLE_VALUE_TEMP && c->plan->steps->len - copy->made > COPY_KEPT;
}

Operand
cpu_form (CpuCompiler *c, const HeddleValue *v, HeddleDtype dtype, const Layout *layout)
{
  Operand result = *cpu_made (c, v);
  const GArray *forms = c->forms[v->id];
  gboolean found = FALSE;
  for (guint i = 0; !found && i < forms->len; i++)
    {
      const Operand *o = &g_array_index (forms, Operand, i);
      found = o->dtype == dtype && cpu_same_bytes (o->layout, layout, &v->shape) && !(i && is_stale (c, v, o));
      if (found)
        result = *o;
    }
  if (!found)
    {
      if (result.dtype != dtype)
        result = convert (c, &result, dtype);
      if (!cpu_same_bytes (result.layout, layout, &v->shape))
        {
          Operand to = cpu_temp (c->plan, dtype, &v->shape, cpu_keep_layout (c->plan, layout));
          cpu_emit_reorder (c, &result, &to);
          result = to;
        }
      add_form (c, v, result);
    }
  return result;
}

Operand
cpu_target (CpuCompiler *c, const HeddleValue *v, HeddleDtype dtype, const Layout *layout)
{
  HeddleVariable *variable = c->forward[v->id];
  Operand o;
  if (variable && dtype == v->dtype && cpu_layout_equal (variable_layout (variable), layout))
    o = (Operand) { .where = IN_VARIABLE, .variable = variable, .dtype = dtype, .shape = v->shape, .layout = variable_layout (variable) };
  else
    {
      c->forward[v->id] = NULL;
      o = cpu_temp (c->plan, dtype, &v->shape, cpu_keep_layout (c->plan, layout));
    }
  return o;
}

void
cpu_made_as (CpuCompiler *c, const HeddleValue *v, Operand operand)
{
  add_form (c, v, operand.dtype == v->dtype ? operand : convert (c, &operand, v->dtype));
}

/* ---- results written straight into the variable they are assigned to ---- */

static gboolean
touches (const HeddleOp *op, const HeddleVariable *v)
{
  gboolean hit = FALSE;
  for (guint i = 0; i < op->n_in; i++)
    {
      const HeddleVariable *other = op->in[i]->kind == HEDDLE_VALUE_VARIABLE ? op->in[i]->variable : NULL;
      hit |= other && (other == v || other->flat == v || v->flat == other);
    }
  return hit;
}

/* Is VARIABLE written again behind operation I, while the value assigned there may still be read from it? */
static gboolean
assigned_again (const HeddleProgram *p, guint i, const HeddleVariable *variable)
{
  gboolean again = FALSE;
  for (guint j = i + 1; j < p->ops->len; j++)
    {
      const HeddleOp *op = p->ops->pdata[j];
      again |= op->info->code == HEDDLE_OP_ASSIGN && touches (op, variable);
    }
  return again;
}

static void
find_forwards (CpuCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      const HeddleValue *v = op->info->code == HEDDLE_OP_ASSIGN && op->n_in == 2 ? op->in[1] : NULL;
      gboolean ok = v && v->kind == HEDDLE_VALUE_TEMP && !(v->producer->info->flags & HEDDLE_OP_VIEW) && (v->n_uses == 1 || !assigned_again (p, i, op->in[0]->variable));
      /* an elementwise producer may read the variable it is made in: each element before it is written */
      ok = ok && (v->producer->info->flags & HEDDLE_OP_ELEMENTWISE || !touches (v->producer, op->in[0]->variable));
      for (guint j = ok ? v->producer->id + 1 : i; ok && j < i; j++)
        ok = !touches (p->ops->pdata[j], op->in[0]->variable);
      if (ok)
        c->forward[v->id] = op->in[0]->variable;
    }
}

/* ---- what can be made together ---- */

const HeddleOp *
cpu_only_user (const CpuCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  return c->device->flags.fusion && users && users->len == 1 && v->n_uses == 1 ? users->pdata[0] : NULL;
}

void
cpu_mark_done (CpuCompiler *c, const HeddleOp *op)
{
  c->done[op->id] = TRUE;
}

const HeddleOp *
cpu_left_out (const CpuCompiler *c, const HeddleValue *v)
{
  return v->producer && c->done[v->producer->id] && !c->forms[v->id] ? v->producer : NULL;
}

/* ---- operations that move or rename ---- */

static void
emit_view (CpuCompiler *c, const HeddleOp *op)
{
  Operand o = cpu_form (c, op->in[0], op->in[0]->dtype, &cpu_plain);
  o.shape = op->out[0]->shape;
  add_form (c, op->out[0], o);
}

static gboolean
emit_op (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean ok = TRUE;
  if (cpu_view_instead (c, op))
    cpu_mark_done (c, op);
  else if (op->info->flags & HEDDLE_OP_VIEW)
    emit_view (c, op);
  else if (op->info->code == HEDDLE_OP_CONV2D || op->info->code == HEDDLE_OP_CONV2D_GRAD_INPUT || op->info->code == HEDDLE_OP_CONV2D_GRAD_WEIGHT)
    ok = cpu_emit_conv (c, op, error);
  else if (op->info->flags & HEDDLE_OP_ELEMENTWISE || op->info->code == HEDDLE_OP_ASSIGN)
    cpu_emit_cluster (c, op->id, op->id + 1);
  else
    ok = cpu_emit_kernel (c, op, error);
  return ok;
}

/* ---- the arena ---- */

static void
touch (CpuPlan *plan, const Operand *o, gint at)
{
  if (o->where == IN_ARENA)
    {
      HeddleRegion *b = &g_array_index (plan->buffers, HeddleRegion, o->buffer);
      b->first = MIN (b->first, at);
      b->last = MAX (b->last, at);
    }
}

static void
name_peak (CpuPlan *plan)
{
  gint at = heddle_memory_peak ((const HeddleRegion *) plan->buffers->data, plan->buffers->len, plan->steps->len);
  const Step *step = at >= 0 ? plan->steps->pdata[at] : NULL;
  if (step)
    plan->peak = step->op ? step->op->name : step->what;
}

/* Plans of one device take turns, so the largest need is enough for all. */
static gboolean
grow_arena (CpuPlan *plan, GError **error)
{
  CpuDevice *device = plan->device;
  gboolean ok = TRUE;
  if (!device->arena || device->arena_bytes < plan->arena_bytes)
    {
      void *arena = cpu_memory (plan->arena_bytes);
      ok = arena != NULL;
      if (ok)
        {
          free (device->arena);
          device->arena = arena;
          device->arena_bytes = plan->arena_bytes;
          device->allocations++;
        }
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: out of memory: the arena needs %" G_GSIZE_FORMAT " MiB\nhint: use a smaller batch", plan->program->name, plan->arena_bytes >> 20);
    }
  return ok;
}

static gboolean
make_arena (CpuPlan *plan, GError **error)
{
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const Step *step = plan->steps->pdata[i];
      for (guint j = 0; j < step->n_in; j++)
        touch (plan, &step->in[j], (gint) i);
      for (guint j = 0; j < step->n_out; j++)
        touch (plan, &step->out[j], (gint) i);
      for (guint j = 0; step->more && j < step->more->len; j++)
        touch (plan, step->more->pdata[j], (gint) i);
    }
  for (guint i = 0; i < plan->program->outputs->len; i++)
    touch (plan, &plan->outputs[i], (gint) plan->steps->len);
  plan->arena_bytes = heddle_memory_place ((HeddleRegion *) plan->buffers->data, plan->buffers->len, (const HeddleTakeOver *) plan->sharing->data,
                                           plan->device->flags.fusion ? plan->sharing->len : 0, ARENA_ALIGN);
  gboolean ok = grow_arena (plan, error);
  name_peak (plan);
  return ok;
}

/* ---- descriptions ---- */

static void
describe_op (CpuCompiler *c, guint i)
{
  CpuPlan *plan = c->plan;
  const HeddleOp *op = plan->program->ops->pdata[i];
  const char *what = NULL;
  for (guint s = 0; s < plan->steps->len; s++)
    {
      const Step *step = plan->steps->pdata[s];
      if (step->op == op || (!what && c->cluster[i] >= 0 && step->op && c->cluster[step->op->id] == c->cluster[i]))
        what = step->what;
    }
  const GArray *forms = op->n_out ? c->forms[op->out[0]->id] : NULL;
  const Operand *o = forms && forms->len ? &g_array_index (forms, Operand, 0) : NULL;
  g_autofree char *layout = o ? cpu_layout_name (c->device, o->layout) : g_strdup ("");
  GString *text = g_string_new (layout);
  if (o && o->where == IN_ARENA)
    g_string_append_printf (text, " @%" G_GSIZE_FORMAT, g_array_index (plan->buffers, HeddleRegion, o->buffer).offset);
  else if (o && o->where == IN_VARIABLE)
    g_string_append_printf (text, " in %s", o->variable->name);
  if (c->cluster[i] >= 0)
    g_string_append_printf (text, "%sloop %d", text->len ? " " : "", c->cluster[i]);
  else if (what)
    g_string_append_printf (text, "%s%s", text->len ? " " : "", what);
  plan->described[i] = g_string_free (text, FALSE);
}

/* ---- compile ---- */

static gboolean
emit_all (CpuCompiler *c, GError **error)
{
  const HeddleProgram *p = c->plan->program;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < p->ops->len;)
    {
      guint end = i + 1;
      while (c->cluster[i] >= 0 && !c->done[i] && end < p->ops->len && c->cluster[end] == c->cluster[i] && !c->done[end])
        end++;
      const HeddleOp *op = p->ops->pdata[i];
      gboolean bound = op->info->code == HEDDLE_OP_RELU_GRAD || op->info->code == HEDDLE_OP_CLAMP_GRAD;
      if (!c->done[i] && end == i + 1 && bound && cpu_norm_takes (c, op))
        cpu_mark_done (c, op);
      else if (!c->done[i] && end == i + 1 && op->info->code == HEDDLE_OP_ADD && cpu_emit_sum_norm (c, op))
        cpu_mark_done (c, op);
      else if (!c->done[i] && c->cluster[i] >= 0)
        cpu_emit_cluster (c, i, end);
      else if (!c->done[i])
        ok = emit_op (c, p->ops->pdata[i], error);
      i = end;
      if (ok && c->error)
        {
          g_propagate_error (error, g_steal_pointer (&c->error));
          ok = FALSE;
        }
    }
  return ok;
}

static void
plan_free (HeddlePlan *base)
{
  CpuPlan *plan = (CpuPlan *) base;
  if (plan->profile && plan->runs)
    for (guint i = 0; i < plan->steps->len; i++)
      {
        const Step *s = plan->steps->pdata[i];
        g_printerr ("%s %4u %10.3f ms  %-14s %-18s %s\n", plan->program->name, i, s->seconds / (double) plan->runs * 1e3, s->what, s->op ? s->op->info->name : "-", s->op ? s->op->name : "");
      }
  for (guint i = 0; plan->described && i < plan->program->ops->len; i++)
    g_free (plan->described[i]);
  g_free (plan->described);
  g_ptr_array_unref (plan->steps);
  g_array_unref (plan->buffers);
  g_array_unref (plan->sharing);
  g_clear_pointer (&plan->owners, g_array_unref);
  g_array_unref (plan->constants);
  g_ptr_array_unref (plan->layouts);
  g_free (plan->outputs);
  heddle_program_free (plan->program);
  g_free (plan);
}

HeddlePlan *cpu_compile (HeddleDevice *device, HeddleProgram *program, GError **error);
void cpu_plan_free (HeddlePlan *plan) { plan_free (plan); }

HeddlePlan *
cpu_compile (HeddleDevice *device, HeddleProgram *program, GError **error)
{
  CpuPlan *plan = g_new0 (CpuPlan, 1);
  guint n = program->values->len;
  plan->base.device = device;
  plan->device = (CpuDevice *) device;
  plan->program = program;
  plan->steps = g_ptr_array_new_with_free_func (step_free);
  plan->buffers = g_array_new (FALSE, FALSE, sizeof (HeddleRegion));
  plan->sharing = g_array_new (FALSE, FALSE, sizeof (HeddleTakeOver));
  plan->constants = g_array_new (FALSE, FALSE, sizeof (float));
  plan->layouts = g_ptr_array_new_with_free_func (g_free);
  plan->profile = plan->timed = g_getenv ("HEDDLE_CPU_PROFILE") != NULL;
  CpuCompiler c = { .device = plan->device, .plan = plan, .forms = g_new0 (GArray *, n + 1), .forward = g_new0 (HeddleVariable *, n + 1), .cluster = g_new (gint, program->ops->len + 1),
                    .users = heddle_program_users (program), .done = g_new0 (gboolean, program->ops->len + 1) };
  omp_set_num_threads ((int) plan->device->threads);
  heddle_program_clusters (program, c.cluster);
  find_forwards (&c);
  gboolean ok = emit_all (&c, error);
  plan->outputs = g_new0 (Operand, program->outputs->len + 1);
  for (guint i = 0; ok && i < program->outputs->len; i++)
    plan->outputs[i] = *cpu_made (&c, program->outputs->pdata[i]);
  ok = ok && make_arena (plan, error);
  cpu_note_owners (&c);
  plan->described = g_new0 (char *, program->ops->len + 1);
  for (guint i = 0; ok && i < program->ops->len; i++)
    describe_op (&c, i);
  plan->device->reorders = plan->n_reorders;
  for (guint i = 0; i < n; i++)
    g_clear_pointer (&c.forms[i], g_array_unref);
  g_free (c.forms);
  g_free (c.forward);
  g_free (c.cluster);
  heddle_users_free (c.users, program);
  g_free (c.done);
  g_clear_error (&c.error);
  if (!ok)
    {
      plan_free (&plan->base);
      plan = NULL;
    }
  return plan ? &plan->base : NULL;
}
