/* cuda/forms.c: one value in several dtypes and layouts, and the conversions between them.  Must not know what operations compute. */
#include "cuda.h"
#include "launch.h"
#include "tensor/tensors.h"

/* ---- layouts ---- */

gboolean
cuda_is_image (const HeddleShape *shape)
{
  return shape->rank == 4;
}

gint64
cuda_pitch (const HeddleShape *shape, CudaLayout layout)
{
  gint64 last = shape->rank ? shape->size[shape->rank - 1] : 1, unit = layout == CUDA_PADDED ? CUDA_PAD : layout == CUDA_SIGNS ? CUDA_SIGN_PAD : 1;
  return (last + unit - 1) / unit * unit;
}

/* What LAYOUT comes to for SHAPE. */
static CudaLayout
layout_for (const HeddleShape *shape, CudaLayout layout)
{
  return (layout == CUDA_CHANNELS_LAST || layout == CUDA_HEADS) && !cuda_is_image (shape) ? CUDA_ROWS : layout;
}

static gboolean
same_as_rows (CudaLayout layout, const HeddleShape *s)
{
  gboolean same = TRUE;
  switch (layout_for (s, layout))
    {
    case CUDA_ROWS: break;
    case CUDA_CHANNELS_LAST: same = s->size[1] == 1 || s->size[2] * s->size[3] == 1; break;
    case CUDA_HEADS: same = s->size[1] == 1 || s->size[2] == 1; break;
    case CUDA_PADDED: same = cuda_pitch (s, CUDA_PADDED) == cuda_pitch (s, CUDA_ROWS); break;
    case CUDA_SIGNS: same = FALSE; break;
    }
  return same;
}

gboolean
cuda_same_bytes (CudaLayout a, CudaLayout b, const HeddleShape *s)
{
  return a == b || (same_as_rows (a, s) && same_as_rows (b, s));
}

void
cuda_strides (const HeddleShape *shape, CudaLayout layout, gint64 *strides)
{
  static const gint axes[][4] = { [CUDA_CHANNELS_LAST] = { 1, 3, 2, 0 }, [CUDA_HEADS] = { 3, 1, 2, 0 } };     /* from the innermost axis: C, W, H, N; D, H, T, B */
  gboolean turned = cuda_is_image (shape) && (layout == CUDA_CHANNELS_LAST || layout == CUDA_HEADS);
  gint64 next = 1;
  for (gint i = 0; i < shape->rank; i++)
    {
      gint axis = turned ? axes[layout][i] : shape->rank - 1 - i;
      strides[axis] = next;
      next *= i ? shape->size[axis] : layout == CUDA_PADDED ? cuda_pitch (shape, layout) : shape->size[axis];
    }
}

gsize
cuda_bytes (const CudaOperand *o)
{
  gsize bytes = heddle_tensor_bytes (o->dtype, &o->shape) / (gsize) MAX (cuda_pitch (&o->shape, CUDA_ROWS), 1) * (gsize) cuda_pitch (&o->shape, o->layout);
  return o->layout == CUDA_SIGNS ? bytes / 8 : bytes;
}

/* ---- conversions on a queue ---- */

gboolean
cuda_convert (CudaQueue *queue, gpointer dst, HeddleDtype to, gconstpointer src, HeddleDtype from, gint64 n, GError **error)
{
  HkElementwise args = { .op = HK_CAST, .n_in = 1, .rank = 1, .out_dtype = to, .n = n, .size = { n }, .in = { { src, from, { 1 } } }, .out = dst };
  return cuda_launch_elementwise (queue, &args, error);
}

/* A window's rows: the last axis of (B, T, W), the last two of (B, T, H, D) with its heads inside. */
static void
strides_of (const CudaOperand *o, gint64 *strides)
{
  gint32 row = o->layout == CUDA_HEADS ? 2 : o->shape.rank - 2;
  cuda_strides (&o->shape, o->layout, strides);
  if (o->pitch)
    {
      strides[row] = o->pitch;
      strides[0] = o->pitch * o->shape.size[row];
    }
}

static gboolean
relayout (CudaQueue *queue, gpointer dst, const CudaOperand *to, gconstpointer src, const CudaOperand *from, GError **error)
{
  const HeddleShape *shape = &from->shape;
  HkCopy args = { .x = src, .y = dst, .rank = shape->rank, .bytes = (int32_t) heddle_dtype_size (from->dtype), .n = heddle_shape_count (shape) };
  gint64 read[HEDDLE_MAX_RANK] = { 0 }, write[HEDDLE_MAX_RANK] = { 0 };
  strides_of (from, read);
  strides_of (to, write);
  for (gint i = 0; i < shape->rank; i++)
    {
      args.size[i] = shape->size[i];
      args.src[i] = read[i];
      args.dst[i] = write[i];
    }
  return cuda_launch_copy (queue, &args, error);
}

gboolean
cuda_fill (CudaQueue *queue, gpointer dst, HeddleDtype dtype, gint64 n, double value, GError **error)
{
  HkFill args = { .y = dst, .n = n, .bytes = (int32_t) heddle_dtype_size (dtype) };
  heddle_convert (dtype, &args.pattern, HEDDLE_F32, &(float) { (float) value }, 1);
  return cuda_launch_fill (queue, &args, error);
}

/* ---- forms ---- */

static void
add_form (CudaCompiler *c, const HeddleValue *v, CudaOperand o)
{
  if (!c->forms[v->id])
    c->forms[v->id] = g_array_new (FALSE, FALSE, sizeof (CudaOperand));
  g_array_append_val (c->forms[v->id], o);
}

static guint
buffer_new (CudaPlan *plan, gsize bytes)
{
  HeddleRegion buffer = { MAX (bytes, 4), 0, G_MAXINT, -1 };
  g_array_append_val (plan->buffers, buffer);
  return plan->buffers->len - 1;
}

CudaOperand
cuda_temporary (CudaCompiler *c, HeddleDtype dtype, const HeddleShape *shape, CudaLayout layout)
{
  CudaOperand o = { .where = CUDA_ARENA, .dtype = dtype, .shape = *shape, .layout = layout_for (shape, layout) };
  o.index = buffer_new (c->plan, cuda_bytes (&o));
  return o;
}

/* The addresses are what a variable's layout is, once a plan has chosen: rows too are a choice that later plans must keep to. */
static char rows, channels_last;

CudaLayout
cuda_variable_layout (const HeddleVariable *v)
{
  return v->layout == &channels_last ? CUDA_CHANNELS_LAST : CUDA_ROWS;
}

void
cuda_prefer_layout (HeddleVariable *v, CudaLayout layout)
{
  if (v->role == HEDDLE_ROLE_PARAM && !v->data && !v->layout && cuda_is_image (&v->shape))
    {
      v->layout = layout == CUDA_CHANNELS_LAST ? &channels_last : &rows;
      if (v->grad)
        v->grad->layout = v->layout;
    }
}

static CudaOperand
constant (CudaCompiler *c, const HeddleValue *v)
{
  float number = (float) v->constant;
  g_array_append_val (c->plan->constants, number);
  return (CudaOperand) { .where = CUDA_CONSTANT, .index = c->plan->constants->len - 1, .constant = v->constant, .dtype = v->dtype, .shape = v->shape };
}

const CudaOperand *
cuda_made (CudaCompiler *c, const HeddleValue *v)
{
  if (!c->forms[v->id])
    {
      CudaOperand o = { .dtype = v->dtype, .shape = v->shape };
      if (v->kind == HEDDLE_VALUE_VARIABLE)
        {
          o.where = CUDA_VARIABLE;
          o.variable = v->variable;
          o.layout = cuda_variable_layout (v->variable);
        }
      else if (v->kind == HEDDLE_VALUE_INPUT)
        {
          o.where = CUDA_INPUT;
          o.index = v->input;
        }
      else if (v->kind == HEDDLE_VALUE_CONSTANT)
        o = constant (c, v);
      else
        o = cuda_temporary (c, v->dtype, &v->shape, CUDA_ROWS);   /* an output nobody made: never read */
      add_form (c, v, o);
    }
  return &g_array_index (c->forms[v->id], CudaOperand, 0);
}

static void
add_operand (CudaOperand **list, guint *n, CudaOperand o)
{
  *list = g_renew (CudaOperand, *list, *n + 1);
  (*list)[(*n)++] = o;
}

static gboolean
run_convert (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const CudaOperand *in = &step->in[0], *out = &step->out[0];
  return cuda_convert (queue, OUT (0), out->dtype, IN (0), in->dtype, heddle_shape_count (&in->shape), error);
}

static gboolean
run_relayout (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  return relayout (queue, OUT (0), &step->out[0], IN (0), &step->in[0], error);
}

static CudaOperand
conversion (CudaCompiler *c, const CudaOperand *from, HeddleDtype dtype, CudaLayout layout)
{
  const CudaStep *last = c->plan->steps->len ? c->plan->steps->pdata[c->plan->steps->len - 1] : NULL;
  g_assert (!last || last->n_in + last->n_out > 0);       /* else this conversion would come too late for the step that is being made; one that writes variables alone has no outputs */
  CudaOperand to = cuda_temporary (c, dtype, &from->shape, layout);
  gboolean moves = dtype == from->dtype;
  CudaStep *step = cuda_step_new (c, NULL, moves ? "reorder" : "convert", moves ? run_relayout : run_convert);
  cuda_step_in (step, *from);
  cuda_step_out_at (step, to);
  c->plan->n_reorders += moves;
  return to;
}

const CudaOperand *
cuda_find_form (const CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout)
{
  const GArray *forms = c->forms[v->id];
  const CudaOperand *found = NULL;
  for (guint i = 0; forms && !found && i < forms->len; i++)
    {
      const CudaOperand *o = &g_array_index (forms, CudaOperand, i);
      found = o->dtype == dtype && !o->pitch && cuda_same_bytes (o->layout, layout, &v->shape) ? o : NULL;
    }
  return found;
}

CudaOperand
cuda_form (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout)
{
  CudaOperand result = *cuda_made (c, v);
  const CudaOperand *found = cuda_find_form (c, v, dtype, layout);
  if (found)
    result = *found;
  else
    {
      if ((result.layout == CUDA_PADDED || result.pitch) && result.dtype != dtype)      /* numbers are converted one after the other */
        result = conversion (c, &result, result.dtype, CUDA_ROWS);
      if (result.dtype != dtype)
        result = conversion (c, &result, dtype, result.layout);
      if (result.pitch || !cuda_same_bytes (result.layout, layout, &v->shape))
        result = conversion (c, &result, dtype, layout);
      add_form (c, v, result);
    }
  result.layout = layout_for (&v->shape, layout);
  return result;
}

CudaOperand
cuda_target (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout)
{
  HeddleVariable *variable = c->forward[v->id];
  CudaOperand o;
  if (variable && dtype == v->dtype && cuda_same_bytes (cuda_variable_layout (variable), layout, &v->shape))
    o = (CudaOperand) { .where = CUDA_VARIABLE, .variable = variable, .dtype = dtype, .shape = v->shape, .layout = layout };
  else
    {
      c->forward[v->id] = NULL;
      o = cuda_temporary (c, dtype, &v->shape, layout);
    }
  return o;
}

void
cuda_made_as (CudaCompiler *c, const HeddleValue *v, CudaOperand o)
{
  add_form (c, v, o.dtype == v->dtype ? o : conversion (c, &o, v->dtype, o.layout));
}

void
cuda_stands_for (CudaCompiler *c, const HeddleValue *v, CudaOperand o)
{
  add_form (c, v, o);
}

/* ---- steps ---- */

CudaStep *
cuda_step_new (CudaCompiler *c, const HeddleOp *op, const char *what, CudaRun run)
{
  CudaStep *step = g_new0 (CudaStep, 1);
  step->op = op;
  step->what = what;
  step->run = run;
  g_ptr_array_add (c->plan->steps, step);
  return step;
}

void
cuda_step_in (CudaStep *step, CudaOperand o)
{
  add_operand (&step->in, &step->n_in, o);
}

void
cuda_step_out_at (CudaStep *step, CudaOperand o)
{
  add_operand (&step->out, &step->n_out, o);
}

void
cuda_step_out (CudaCompiler *c, CudaStep *step, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout, gboolean needed)
{
  CudaOperand o = { .where = CUDA_NOWHERE, .dtype = dtype, .shape = v->shape };
  if (needed || c->wanted[v->id])
    o = cuda_target (c, v, dtype, layout);
  add_operand (&step->out, &step->n_out, o);
  if (o.where != CUDA_NOWHERE)
    cuda_made_as (c, v, o);
}

void
cuda_step_form (CudaCompiler *c, CudaStep *step, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout)
{
  CudaOperand o = cuda_temporary (c, dtype, &v->shape, layout);
  add_operand (&step->out, &step->n_out, o);
  add_form (c, v, o);
}

guint
cuda_step_scratch (CudaCompiler *c, CudaStep *step, gsize bytes)
{
  CudaOperand o = { .where = CUDA_ARENA, .dtype = HEDDLE_U8, .shape = heddle_shape ((gint64) bytes) };
  o.index = buffer_new (c->plan, bytes);
  add_operand (&step->scratch, &step->n_scratch, o);
  return step->n_scratch - 1;
}

void
cuda_step_data (CudaStep *step, gpointer data, GDestroyNotify data_free)
{
  step->data = data;
  step->data_free = data_free;
}

void
cuda_step_fault (CudaCompiler *c, CudaStep *step, const char *what)
{
  CudaFault fault = { step->op, what };
  g_array_append_val (c->plan->faults, fault);
  step->fault = c->plan->faults->len;
}

void
cuda_may_share (CudaCompiler *c, const CudaStep *step, guint in, guint out)
{
  const CudaOperand *a = &step->in[in], *b = &step->out[out];
  if (a->where == CUDA_ARENA && b->where == CUDA_ARENA && a->index != b->index)
    g_array_append_val (c->plan->sharing, ((HeddleTakeOver) { c->plan->steps->len - 1, a->index, b->index }));
}

const char *
cuda_keep (CudaPlan *plan, char *text)
{
  g_ptr_array_add (plan->strings, text);
  return text;
}

/* ---- 16-bit copies of parameters ---- */

CudaShadow *
cuda_shadow (CudaDevice *device, const HeddleVariable *v, HeddleDtype dtype, gboolean make)
{
  HeddleVariable *flat = v->flat ? v->flat : (HeddleVariable *) v;
  CudaShadow *shadow = NULL;
  for (guint i = 0; !shadow && i < device->shadows->len; i++)
    {
      CudaShadow *s = device->shadows->pdata[i];
      shadow = s->flat == flat && s->dtype == dtype ? s : NULL;
    }
  if (!shadow && make)
    {
      shadow = g_new0 (CudaShadow, 1);
      *shadow = (CudaShadow) { .flat = flat, .dtype = dtype, .stale = TRUE };
      g_ptr_array_add (device->shadows, shadow);
    }
  return shadow;
}

CudaOperand
cuda_shadow_target (CudaCompiler *c, HeddleVariable *v, HeddleDtype dtype)
{
  CudaShadow *shadow = cuda_shadow (c->device, v, dtype, FALSE);
  CudaOperand o = { .where = shadow ? CUDA_SHADOW : CUDA_NOWHERE, .variable = v, .shadow = shadow, .dtype = dtype, .shape = v->shape };
  if (shadow && v == shadow->flat && !g_ptr_array_find (c->plan->refreshes, shadow, NULL))
    g_ptr_array_add (c->plan->refreshes, shadow);
  return o;
}

gsize
cuda_shadow_bytes (const CudaShadow *shadow)
{
  const GPtrArray *params = shadow->flat->group ? shadow->flat->group->params : NULL;
  gint64 row = 0;
  for (guint i = 0; params && i < params->len; i++)
    {
      const HeddleShape *shape = &((const HeddleVariable *) params->pdata[i])->shape;
      row = shape->rank == 2 ? MAX (row, shape->size[1]) : row;
    }
  return (gsize) (heddle_shape_count (&shadow->flat->shape) + (CUDA_PAD - 1) * row) * heddle_dtype_size (shadow->dtype);
}

/* ---- addresses ---- */

gpointer
cuda_pointer (CudaPlan *plan, const CudaOperand *o)
{
  gpointer p = NULL;
  switch (o->where)
    {
    case CUDA_NOWHERE: break;
    case CUDA_ARENA: p = plan->device->arena + g_array_index (plan->buffers, HeddleRegion, o->index).offset; break;
    case CUDA_VARIABLE: p = o->variable->data; break;
    case CUDA_INPUT: p = plan->device->slots[plan->slot].memory + plan->input_offset[o->index]; break;
    case CUDA_CONSTANT: p = plan->constant_memory + o->index; break;
    case CUDA_SHADOW: p = (char *) o->shadow->data + (gsize) (o->variable->flat ? o->variable->offset : 0) * heddle_dtype_size (o->dtype); break;
    }
  return p ? (char *) p + (gsize) o->first * heddle_dtype_size (o->dtype) : NULL;
}

guint32 *
cuda_fault_word (CudaPlan *plan, const CudaStep *step)
{
  return step->fault ? plan->fault_memory + step->fault - 1 : NULL;
}
