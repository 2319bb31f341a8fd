/* cuda/ops-movement.c: permutations, slices, padding, embeddings, dropout, bytes to numbers, the loss scale.  Must not know what kernels look like inside. */
#include "backend/cuda/ops.h"
#include "base/random.h"
#include "program/rules.h"

/* ---- copies between strided views ---- */

static HkCopy
copy_of (const HeddleShape *s, HeddleDtype dtype, const gint64 *src, const gint64 *dst, gint64 from, gint64 to)
{
  HkCopy a = { .bytes = (gint32) heddle_dtype_size (dtype), .n = heddle_shape_count (s), .from = from, .to = to };
  for (gint32 i = 0; i < s->rank; i++)
    {
      gint32 last = a.rank - 1;
      if (last >= 0 && a.src[last] == src[i] * s->size[i] && a.dst[last] == dst[i] * s->size[i])
        {
          a.size[last] *= s->size[i];
          a.src[last] = src[i];
          a.dst[last] = dst[i];
        }
      else if (s->size[i] != 1)
        {
          a.size[a.rank] = s->size[i];
          a.src[a.rank] = src[i];
          a.dst[a.rank++] = dst[i];
        }
    }
  return a;
}

static void
permute_copy (const HeddleOp *op, HkCopy *copy)
{
  const HeddlePermuteAttr *attr = op->attr;
  const HeddleShape *x = &op->in[0]->shape, *y = &op->out[0]->shape;
  gint64 in[HEDDLE_MAX_RANK] = { 0 }, src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 };
  cuda_strides (x, CUDA_ROWS, in);
  cuda_strides (y, CUDA_ROWS, dst);
  for (gint32 i = 0; i < y->rank; i++)
    src[i] = in[attr->axes[i]];
  *copy = copy_of (y, op->in[0]->dtype, src, dst, 0, 0);
}

static void
concat_copies (const HeddleOp *op, HkCopy *copies)
{
  const HeddleShape *y = &op->out[0]->shape;
  gint32 axis = heddle_axis_index (((const HeddleAxisAttr *) op->attr)->axis, y->rank);
  gint64 src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 }, at = 0;
  cuda_strides (y, CUDA_ROWS, dst);
  for (guint i = 0; i < op->n_in; i++)
    {
      cuda_strides (&op->in[i]->shape, CUDA_ROWS, src);
      copies[i] = copy_of (&op->in[i]->shape, op->in[i]->dtype, src, dst, 0, at * dst[axis]);
      at += op->in[i]->shape.size[axis];
    }
}

/* SLICE reads what is taken; SLICE_GRAD writes it. */
static void
slice_copy (const HeddleOp *op, HkCopy *copy)
{
  gboolean backward = op->info->code == HEDDLE_OP_SLICE_GRAD;
  const HeddleShape *whole = backward ? &op->out[0]->shape : &op->in[0]->shape, *part = backward ? &op->in[0]->shape : &op->out[0]->shape;
  gint64 taken[HEDDLE_MAX_RANK] = { 0 }, own[HEDDLE_MAX_RANK] = { 0 }, first = 0;
  cuda_strides (whole, CUDA_ROWS, taken);
  cuda_strides (part, CUDA_ROWS, own);
  for (gint32 i = 0; i < whole->rank; i++)
    {
      gint64 begin, step, count;
      heddle_slice_axis (op->attr, i, whole->size[i], &begin, &step, &count);
      first += begin * taken[i];
      taken[i] *= step;
    }
  *copy = backward ? copy_of (part, op->in[0]->dtype, own, taken, 0, first) : copy_of (part, op->in[0]->dtype, taken, own, first, 0);
}

static void
pad_copy (const HeddleOp *op, HkCopy *copy)
{
  const HeddlePadAttr *attr = op->attr;
  const HeddleShape *x = &op->in[0]->shape;
  gint64 src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 }, first = 0;
  cuda_strides (x, CUDA_ROWS, src);
  cuda_strides (&op->out[0]->shape, CUDA_ROWS, dst);
  for (gint32 i = 0; i < x->rank; i++)
    first += attr->before[i] * dst[i];
  *copy = copy_of (x, op->in[0]->dtype, src, dst, 0, first);
}

typedef struct { HkCopy copies[HEDDLE_MAX_CONCAT]; gboolean fill; double value; } Movement;

static gboolean
run_movement (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const Movement *m = step->data;
  gboolean ok = !m->fill || cuda_fill (queue, OUT (0), step->out[0].dtype, heddle_shape_count (&step->out[0].shape), m->value, error);
  for (guint i = 0; ok && i < step->n_in; i++)
    {
      HkCopy a = m->copies[i];
      a.x = IN (i);
      a.y = OUT (0);
      ok = cuda_launch_copy (queue, &a, error);
    }
  return ok;
}

static void
lower_copies (CudaCompiler *c, const HeddleOp *op, void (*copies) (const HeddleOp *, HkCopy *), gboolean fill, double value)
{
  Movement *m = g_new0 (Movement, 1);
  m->fill = fill;
  m->value = value;
  copies (op, m->copies);
  cuda_step_data (cuda_own_step (c, op, "copy", run_movement, 0, CUDA_ROWS, 1), m, g_free);
}

/* ---- gradients of slices that make up a whole: zeros around each, and their sum, are one copy of each ---- */

typedef struct { const HeddleOp *part[HEDDLE_MAX_CONCAT], *root; guint n; } Parts;

/* V's memory is no variable's, which may be assigned before the whole is made. */
static gboolean
is_kept (const HeddleValue *v)
{
  while (v->kind == HEDDLE_VALUE_TEMP && (v->producer->info->flags & HEDDLE_OP_VIEW))
    v = v->producer->in[0];
  return v->kind != HEDDLE_VALUE_VARIABLE;
}

/* Appends the parts that V is the sum of; FALSE if it is the sum of anything else too. */
static gboolean
collect (const CudaCompiler *c, const HeddleValue *v, const HeddleShape *whole, Parts *p)
{
  const HeddleOp *op = v->kind == HEDDLE_VALUE_TEMP && v->dtype == p->root->out[0]->dtype && heddle_shape_equal (&v->shape, whole) && (p->root->out[0] == v || cuda_only_user (c, v)) ? v->producer : NULL;
  gboolean part = op && op->info->code == HEDDLE_OP_SLICE_GRAD, ok = part && p->n < HEDDLE_MAX_CONCAT && is_kept (op->in[0]);
  if (ok)
    p->part[p->n++] = op;
  return part ? ok : op && op->info->code == HEDDLE_OP_ADD && collect (c, op->in[0], whole, p) && collect (c, op->in[1], whole, p);
}

/* The stretch of AXIS that PART is; FALSE if that skips elements. */
static gboolean
stretch_of (const HeddleOp *part, gint32 axis, gint64 *begin, gint64 *end)
{
  gint64 step, count;
  heddle_slice_axis (part->attr, axis, part->out[0]->shape.size[axis], begin, &step, &count);
  *end = *begin + count;
  return step == 1;
}

/* No two parts overlap along AXIS, and together they fill it: or each is all of it. */
static gboolean
tiles (const Parts *p, gint32 axis, gboolean *whole)
{
  gint64 size = p->root->out[0]->shape.size[axis], sum = 0, from[2], to[2];
  gboolean ok = TRUE, apart = TRUE;
  *whole = TRUE;
  for (guint i = 0; i < p->n; i++)
    {
      ok &= stretch_of (p->part[i], axis, &from[0], &to[0]);
      sum += to[0] - from[0];
      *whole &= to[0] - from[0] == size;
      for (guint j = 0; j < i; j++)
        apart &= stretch_of (p->part[j], axis, &from[1], &to[1]) && (to[0] <= from[1] || to[1] <= from[0]);
    }
  return ok && (*whole || (apart && sum == size));
}

/* The sum that OP, a part or an addition of parts, belongs to, if its parts tile it along one axis. */
static gboolean
parts_of (const CudaCompiler *c, const HeddleOp *op, Parts *p)
{
  const HeddleOp *user = op;
  guint split = 0;
  gboolean ok = op->info->code == HEDDLE_OP_SLICE_GRAD || op->info->code == HEDDLE_OP_ADD, whole;
  *p = (Parts) { .root = op };
  while (ok && (user = cuda_only_user (c, p->root->out[0])) && user->info->code == HEDDLE_OP_ADD)
    p->root = user;
  ok = ok && c->device->flags.fusion && p->root->info->code == HEDDLE_OP_ADD && collect (c, p->root->out[0], &p->root->out[0]->shape, p);
  for (gint32 axis = 0; ok && axis < p->root->out[0]->shape.rank; axis++)
    {
      ok = tiles (p, axis, &whole);
      split += !whole;
    }
  return ok && split == 1;
}

gboolean
cuda_is_part (const CudaCompiler *c, const HeddleOp *op)
{
  Parts p;
  return parts_of (c, op, &p);
}

/* The memory in which all parts were made where they belong, or NULL. */
static const CudaOperand *
made_in_place (CudaCompiler *c, const Parts *p)
{
  const CudaOperand *first = cuda_made (c, p->part[0]->in[0]);
  gboolean ok = first->pitch != 0;
  for (guint i = 0; ok && i < p->n; i++)
    {
      const CudaOperand *o = cuda_made (c, p->part[i]->in[0]);
      HkCopy copy;
      slice_copy (p->part[i], &copy);
      ok = o->pitch == cuda_last (&p->root->out[0]->shape) && o->index == first->index && o->first == copy.to;
    }
  return ok ? first : NULL;
}

gboolean
cuda_lower_part (CudaCompiler *c, const HeddleOp *op)
{
  Parts p;
  gboolean mine = parts_of (c, op, &p);
  const CudaOperand *whole = mine && op == p.root ? made_in_place (c, &p) : NULL;
  if (whole)
    {
      CudaOperand o = *whole;
      o.shape = op->out[0]->shape;
      o.first = o.pitch = 0;
      c->forward[op->out[0]->id] = NULL;
      cuda_made_as (c, op->out[0], o);
    }
  else if (mine && op == p.root)
    {
      CudaOperand in[HEDDLE_MAX_CONCAT];
      Movement *m = g_new0 (Movement, 1);
      for (guint i = 0; i < p.n; i++)
        {
          slice_copy (p.part[i], &m->copies[i]);
          in[i] = cuda_rows (c, p.part[i]->in[0]);
        }
      CudaStep *step = cuda_step_new (c, op, "copy", run_movement);
      for (guint i = 0; i < p.n; i++)
        cuda_step_in (step, in[i]);
      cuda_step_out (c, step, op->out[0], op->out[0]->dtype, CUDA_ROWS, TRUE);
      cuda_step_data (step, m, g_free);
    }
  return mine;
}

/* ---- embedding ---- */

static gboolean
run_embedding (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  gboolean gradient = step->op->info->code == HEDDLE_OP_EMBEDDING_GRAD;
  guint index = gradient ? 1 : 0, numbers = gradient ? 0 : 1;
  const HeddleShape *table = gradient ? &step->out[0].shape : &step->in[1].shape;
  HkEmbedding a = { .index = IN (index), .index_dtype = (gint32) step->in[index].dtype, .x = IN (numbers), .y = OUT (0), .n = heddle_shape_count (&step->in[index].shape),
                    .rows = table->size[0], .width = table->size[1], .fault = cuda_fault_word (plan, step) };
  return (gradient ? cuda_launch_embedding_grad : cuda_launch_embedding) (queue, step->out[0].dtype, &a, error);
}

static void
lower_embedding (CudaCompiler *c, const HeddleOp *op)
{
  CudaStep *step = cuda_own_step (c, op, op->info->name, run_embedding, 0, CUDA_ROWS, 1);
  if (op->info->code == HEDDLE_OP_EMBEDDING)
    cuda_step_fault (c, step, "index out of range");
}

/* ---- element by element ---- */

static gboolean
run_dropout (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleDropoutAttr *attr = step->op->attr;
  HeddleRandom stream = heddle_random (attr->seed, HEDDLE_STREAM_DROPOUT, attr->key, 0);
  HkDropout a = { .x = IN (0), .y = OUT (0), .step = IN (1), .n = heddle_shape_count (&step->in[0].shape), .keep = (float) (1 / (1 - attr->probability)),
                  .threshold = (guint32) MIN (attr->probability * 4294967296.0, 4294967295.0), .key = { stream.key[0], stream.key[1] }, .counter1 = stream.counter[1], .counter2 = stream.counter[2] };
  return cuda_launch_dropout (queue, step->in[0].dtype, &a, error);
}

static void
lower_dropout (CudaCompiler *c, const HeddleOp *op)
{
  CudaOperand x = cuda_form (c, op->in[0], op->out[0]->dtype, CUDA_ROWS), number = cuda_form (c, op->in[1], HEDDLE_F32, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, "dropout", run_dropout);
  cuda_step_in (step, x);
  cuda_step_in (step, number);
  cuda_step_out (c, step, op->out[0], op->out[0]->dtype, CUDA_ROWS, TRUE);
  cuda_may_share (c, step, 0, 0);
}

static gboolean
run_dequantize (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleDequantizeAttr *attr = step->op->attr;
  const HeddleShape *s = &step->in[0].shape;
  HkDequantize a = { .x = IN (0), .y = OUT (0), .dtype = (gint32) step->in[0].dtype, .channels = MAX (attr->channels, 1), .n = heddle_shape_count (s), .pixels = 1 };
  for (gint i = 2; i < s->rank; i++)
    a.pixels *= s->size[i];
  for (gint c = 0; c < a.channels; c++)
    {
      a.a[c] = (float) (attr->scale / attr->std[c]);
      a.b[c] = (float) (-attr->mean[c] / attr->std[c]);
    }
  return cuda_launch_dequantize (queue, &a, error);
}

static gboolean
run_scaler (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleScalerAttr *attr = step->op->attr;
  HkScaler a = { IN (0), IN (1), IN (2), OUT (0), OUT (1), (float) attr->growth_factor, (float) attr->backoff_factor, (float) attr->growth_interval, (float) attr->min_scale };
  return cuda_launch_scaler (queue, &a, error);
}

gboolean
cuda_lower_movement (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean mine = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_PERMUTE: lower_copies (c, op, permute_copy, FALSE, 0); break;
    case HEDDLE_OP_CONCAT: lower_copies (c, op, concat_copies, FALSE, 0); break;
    case HEDDLE_OP_SLICE: lower_copies (c, op, slice_copy, FALSE, 0); break;
    case HEDDLE_OP_SLICE_GRAD: lower_copies (c, op, slice_copy, TRUE, 0); break;
    case HEDDLE_OP_PAD: lower_copies (c, op, pad_copy, TRUE, ((const HeddlePadAttr *) op->attr)->value); break;
    case HEDDLE_OP_EMBEDDING: case HEDDLE_OP_EMBEDDING_GRAD: lower_embedding (c, op); break;
    case HEDDLE_OP_DROPOUT: lower_dropout (c, op); break;
    case HEDDLE_OP_DEQUANTIZE: cuda_own_step (c, op, "dequantize", run_dequantize, 0, CUDA_ROWS, 1); break;
    case HEDDLE_OP_SCALER_UPDATE: cuda_own_step (c, op, "scaler_update", run_scaler, HEDDLE_F32, CUDA_ROWS, 0); break;
    default: mine = FALSE; break;
    }
  return mine;
}
