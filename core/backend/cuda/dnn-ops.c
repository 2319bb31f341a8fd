/* cuda/dnn-ops.c: operations of a program, alone or with those that read their result, as one graph.
 * Must not know how programs are compiled into steps, nor whether cuDNN has a plan. */
#include "dnn-ops.h"
#include "program/rules.h"

typedef struct
{
  const HeddleProgram *program;
  guint                i, most;
  const HeddleFlags   *flags;
  const HeddleOp      *op;             /* the first */
  CudaDnnMatch        *m;
} Match;

void
cuda_dnn_match_clear (CudaDnnMatch *match)
{
  g_clear_pointer (&match->graph, g_free);
}

static void
bind (Match *m, CudaDnnUid uid, const HeddleValue *value)
{
  m->m->value[uid] = value;
}

static gboolean
done (Match *m, CudaDnnGraph *graph)
{
  m->m->graph = graph;
  return graph != NULL;
}

static void
take (Match *m, const HeddleOp *op)
{
  m->m->op[m->m->n_ops++] = op;
}

static gboolean
reads (const HeddleOp *op, const HeddleValue *value)
{
  gboolean hit = FALSE;
  for (guint k = 0; k < op->n_in; k++)
    hit = hit || op->in[k] == value;
  return hit;
}

/* The first operation after the I-th that reads VALUE, if it is CODE */
static const HeddleOp *
reader_after (const HeddleProgram *p, guint i, HeddleOpCode code, const HeddleValue *value)
{
  const HeddleOp *op = NULL;
  for (i++; !op && i < p->ops->len; i++)
    op = reads (p->ops->pdata[i], value) ? p->ops->pdata[i] : NULL;
  return op && op->info->code == code ? op : NULL;
}

/* The first operation that reads VALUE, if it is CODE and may join. */
static const HeddleOp *
reader (const Match *m, HeddleOpCode code, const HeddleValue *value)
{
  return m->flags->fusion && m->m->n_ops < m->most ? reader_after (m->program, m->i, code, value) : NULL;
}

static const HeddleOp *
only_reader (const Match *m, HeddleOpCode code, const HeddleValue *value)
{
  return value->n_uses == 1 ? reader (m, code, value) : NULL;
}

/* Is VALUE there, unchanged, when the first operation runs? */
static gboolean
is_there (const Match *m, const HeddleValue *value)
{
  return value->kind == HEDDLE_VALUE_INPUT || (value->kind == HEDDLE_VALUE_TEMP && value->producer->id < m->op->id);
}

/* What is added to VALUE by the only operation that reads it, when that needs no broadcast. */
static const HeddleValue *
addend (const Match *m, const HeddleOp *add, const HeddleValue *value)
{
  const HeddleValue *other = !add ? NULL : add->in[0] == value ? add->in[1] : add->in[0];
  return other && other != value && other->dtype == value->dtype && heddle_shape_equal (&other->shape, &value->shape) && is_there (m, other) ? other : NULL;
}

/* What is added to *VALUE and relu of the sum, as far as they can join.  Moves *VALUE on. */
static void
epilogue (Match *m, const HeddleValue **value, gboolean *residual, gboolean *relu)
{
  const HeddleOp *add = only_reader (m, HEDDLE_OP_ADD, *value);
  const HeddleValue *other = addend (m, add, *value);
  if ((*residual = other != NULL))
    {
      take (m, add);
      bind (m, CUDA_DNN_RESIDUAL, other);
      *value = add->out[0];
    }
  const HeddleOp *last = only_reader (m, HEDDLE_OP_RELU, *value);
  if ((*relu = last != NULL))
    {
      take (m, last);
      *value = last->out[0];
    }
}

/* ---- convolutions ---- */

static CudaDnnConv
conv_of (const Match *m, CudaDnnDirection direction, const HeddleValue *data)
{
  return (CudaDnnConv) { .direction = direction, .dtype = data->dtype, .layout = m->m->layout, .attr = *(const HeddleConvAttr *) m->op->attr };
}

static gboolean
match_conv (Match *m)
{
  const HeddleOp *op = m->op;
  CudaDnnConv c = conv_of (m, CUDA_DNN_FORWARD, op->in[0]);
  const HeddleValue *y = op->out[0];
  gboolean relu = FALSE;
  c.x = op->in[0]->shape, c.w = op->in[1]->shape, c.y = y->shape;
  c.bias = op->n_in > 2;
  epilogue (m, &y, &c.residual, &relu);
  c.activation = relu ? CUDA_DNN_RELU : CUDA_DNN_LINEAR;
  bind (m, CUDA_DNN_X, op->in[0]);
  bind (m, CUDA_DNN_W, op->in[1]);
  bind (m, CUDA_DNN_BIAS, c.bias ? op->in[2] : NULL);
  bind (m, CUDA_DNN_Y, y);
  return (!c.bias || op->in[2]->dtype == c.dtype) && op->in[1]->dtype == c.dtype && done (m, cuda_dnn_graph_conv (&c));
}

static gboolean
match_conv_grad_input (Match *m)
{
  const HeddleOp *op = m->op;
  CudaDnnConv c = conv_of (m, CUDA_DNN_GRAD_INPUT, op->in[0]);
  c.x = op->out[0]->shape, c.w = op->in[1]->shape, c.y = op->in[0]->shape;
  bind (m, CUDA_DNN_DY, op->in[0]);
  bind (m, CUDA_DNN_W, op->in[1]);
  bind (m, CUDA_DNN_DX, op->out[0]);
  return op->n_in == 2 && op->in[1]->dtype == c.dtype && done (m, cuda_dnn_graph_conv (&c));
}

static gboolean
match_conv_grad_weight (Match *m)
{
  const HeddleOp *op = m->op;
  CudaDnnConv c = conv_of (m, CUDA_DNN_GRAD_WEIGHT, op->in[0]);
  c.x = op->in[1]->shape, c.w = op->out[0]->shape, c.y = op->in[0]->shape;
  bind (m, CUDA_DNN_DY, op->in[0]);
  bind (m, CUDA_DNN_X, op->in[1]);
  bind (m, CUDA_DNN_DW, op->out[0]);
  m->m->bias_grad = c.attr.bias ? op->out[1] : NULL;
  return op->in[1]->dtype == c.dtype && op->out[0]->dtype == c.dtype && done (m, cuda_dnn_graph_conv (&c));
}

/* ---- batch norm.  In NCHW cuDNN turns the images around and back in 100 MB of workspace: own kernels read them as they lie. ---- */

static CudaDnnBatchNorm
batch_norm_of (const Match *m, const HeddleOp *op, const HeddleValue *x)
{
  const HeddleBatchNormAttr *a = op->attr;
  return (CudaDnnBatchNorm) { .dtype = x->dtype, .layout = m->m->layout, .x = x->shape, .eps = a->eps, .momentum = a->momentum };
}

static gboolean
suits (const Match *m, const HeddleValue *x)
{
  return m->m->layout == CUDA_DNN_NHWC && x->shape.rank == 4;
}

static gboolean
match_batch_norm (Match *m)
{
  static const CudaDnnUid in[] = { CUDA_DNN_X, CUDA_DNN_SCALE, CUDA_DNN_SHIFT, CUDA_DNN_RUNNING_MEAN, CUDA_DNN_RUNNING_VARIANCE };
  static const CudaDnnUid out[] = { CUDA_DNN_Y, CUDA_DNN_MEAN, CUDA_DNN_RSTD, CUDA_DNN_NEW_MEAN, CUDA_DNN_NEW_VARIANCE };
  const HeddleOp *op = m->op;
  const HeddleBatchNormAttr *a = op->attr;
  CudaDnnBatchNorm b = batch_norm_of (m, op, op->in[0]);
  const HeddleValue *y = op->out[0];
  epilogue (m, &y, &b.residual, &b.relu);
  if (a->training && b.residual && !b.relu)      /* cuDNN has no kernel for the sum alone */
    {
      m->m->n_ops = 1;
      y = op->out[0];
      b.residual = FALSE;
      bind (m, CUDA_DNN_RESIDUAL, NULL);
    }
  for (guint i = 0; i < G_N_ELEMENTS (in); i++)
    {
      bind (m, in[i], op->in[i]);
      bind (m, out[i], i == 0 ? y : a->training ? op->out[i] : NULL);
    }
  /* with given statistics [1..4] pass them through: no graph does that, so somebody reading them wants an own kernel */
  gboolean read = FALSE;
  for (guint i = 1; i < op->n_out; i++)
    read = read || op->out[i]->n_uses > 0;
  return suits (m, op->in[0]) && (a->training || !read) && done (m, a->training ? cuda_dnn_graph_batch_norm (&b) : cuda_dnn_graph_batch_norm_eval (&b));
}

static void
bind_batch_norm_grad (Match *m, const HeddleOp *op)
{
  static const CudaDnnUid in[] = { CUDA_DNN_DY, CUDA_DNN_X, CUDA_DNN_SCALE, CUDA_DNN_MEAN, CUDA_DNN_RSTD }, out[] = { CUDA_DNN_DX, CUDA_DNN_DSCALE, CUDA_DNN_DSHIFT };
  for (guint i = 0; i < G_N_ELEMENTS (in); i++)
    bind (m, in[i], op->in[i]);
  for (guint i = 0; i < G_N_ELEMENTS (out); i++)
    bind (m, out[i], op->out[i]);
}

static gboolean
match_batch_norm_grad (Match *m)
{
  CudaDnnBatchNorm b = batch_norm_of (m, m->op, m->op->in[1]);
  bind_batch_norm_grad (m, m->op);
  return suits (m, m->op->in[1]) && ((const HeddleBatchNormAttr *) m->op->attr)->training && m->op->in[0]->dtype == b.dtype && done (m, cuda_dnn_graph_batch_norm_grad (&b));
}

/* relu_grad (dy, y) and the batch norm's gradient behind it.  Where the gradient behind relu has other readers it is the residual's gradient too.
 * Where a chain made dy right before, it has taken relu_grad along and only the norm's own gradient is left for cuDNN: as many launches, and one pass over the image less or more.
 * In images read and written, the norm in one pass over its inputs: a chain add + relu_grad 3 + 1 and norm 2 + 1 against add 2 + 1 and relu_grad + norm 3 + 1, or 3 + 2 with the
 * residual's gradient; broadcast + relu_grad 1 + 1 and norm 2 + 1 against 0 + 1 and 3 + 1.  A norm that reads its inputs twice reads one image more where it masks.  So chains go first. */
static gboolean
match_relu_grad (Match *m)
{
  const HeddleOp *relu = m->op, *op = reader (m, HEDDLE_OP_BATCH_NORM_GRAD, relu->out[0]);
  gboolean ok = op && op->in[0] == relu->out[0] && is_there (m, op->in[1]) && is_there (m, op->in[3]) && is_there (m, op->in[4]) && ((const HeddleBatchNormAttr *) op->attr)->training && suits (m, op->in[1])
                && relu->in[0]->dtype == op->in[1]->dtype && relu->in[1]->dtype == op->in[1]->dtype;
  if (ok)
    {
      CudaDnnBatchNorm b = batch_norm_of (m, op, op->in[1]);
      take (m, op);
      b.relu = TRUE;
      b.residual = relu->out[0]->n_uses > 1;
      bind_batch_norm_grad (m, op);
      bind (m, CUDA_DNN_DY, relu->in[0]);
      bind (m, CUDA_DNN_Y, relu->in[1]);
      bind (m, CUDA_DNN_DRESIDUAL, b.residual ? relu->out[0] : NULL);
      ok = done (m, cuda_dnn_graph_batch_norm_grad (&b));
    }
  return ok;
}

/* ---- layer norm and RMS norm ---- */

static CudaDnnRowNorm
row_norm_of (const HeddleOp *op, const HeddleValue *x, gboolean rms)
{
  const HeddleLayerNormAttr *a = op->attr;
  gint32 axes = a->axes ? a->axes : 1;
  CudaDnnRowNorm n = { .dtype = x->dtype, .y = x->dtype, .width = 1, .eps = a->eps, .rms = rms };
  for (gint32 i = x->shape.rank - axes; i < x->shape.rank; i++)
    n.width *= x->shape.size[i];
  n.rows = heddle_shape_count (&x->shape) / n.width;
  return n;
}

static gboolean
all_f32 (HeddleValue *const *value, guint n)
{
  gboolean f32 = TRUE;
  for (guint i = 0; i < n; i++)
    f32 = f32 && value[i]->dtype == HEDDLE_F32;
  return f32;
}

/* The cast to 16 bits that alone reads f32 numbers VALUE, as autocast writes it: cuDNN computes in f32 and rounds what it stores, which is the same. */
static const HeddleOp *
narrowing (const Match *m, const HeddleValue *value)
{
  const HeddleOp *cast = value->dtype == HEDDLE_F32 ? only_reader (m, HEDDLE_OP_CAST, value) : NULL;
  return cast && heddle_dtype_is_16_bits (cast->out[0]->dtype) ? cast : NULL;
}

static gboolean
match_row_norm (Match *m)
{
  const HeddleOp *op = m->op;
  gboolean rms = op->info->code == HEDDLE_OP_RMS_NORM, ok = op->n_in == (rms ? 2 : 3) && all_f32 (op->in + 1, op->n_in - 1);
  if (ok)
    {
      CudaDnnRowNorm n = row_norm_of (op, op->in[0], rms);
      const HeddleOp *cast = narrowing (m, op->out[0]);
      bind (m, CUDA_DNN_X, op->in[0]);
      bind (m, CUDA_DNN_SCALE, op->in[1]);
      bind (m, CUDA_DNN_SHIFT, rms ? NULL : op->in[2]);
      if (cast)
        {
          take (m, cast);
          n.y = cast->out[0]->dtype;
        }
      bind (m, CUDA_DNN_Y, cast ? cast->out[0] : op->out[0]);
      bind (m, CUDA_DNN_MEAN, rms ? NULL : op->out[1]);
      bind (m, CUDA_DNN_RSTD, op->out[rms ? 1 : 2]);
      ok = op->out[0]->dtype == n.dtype && done (m, cuda_dnn_graph_row_norm (&n));
    }
  return ok;
}

/* OP's graph, which takes its gradient from DY: its own input, or 16 bits that were to be widened to it. */
static gboolean
row_norm_grad (Match *m, const HeddleOp *op, const HeddleValue *dy)
{
  gboolean rms = op->info->code == HEDDLE_OP_RMS_NORM_GRAD, ok = op->n_in == (rms ? 4 : 5) && all_f32 (op->in + 2, op->n_in - 2);
  if (ok)
    {
      CudaDnnRowNorm n = row_norm_of (op, op->in[1], rms);
      n.y = dy->dtype;
      bind (m, CUDA_DNN_DY, dy);
      bind (m, CUDA_DNN_X, op->in[1]);
      bind (m, CUDA_DNN_MEAN, rms ? NULL : op->in[2]);
      bind (m, CUDA_DNN_RSTD, op->in[rms ? 2 : 3]);
      bind (m, CUDA_DNN_SCALE, op->in[rms ? 3 : 4]);
      bind (m, CUDA_DNN_DX, op->out[0]);
      bind (m, CUDA_DNN_DSCALE, op->out[1]);
      bind (m, CUDA_DNN_DSHIFT, rms ? NULL : op->out[2]);
      ok = op->in[0]->dtype == n.dtype && all_f32 (op->out + 1, op->n_out - 1) && done (m, cuda_dnn_graph_row_norm_grad (&n));
    }
  return ok;
}

static gboolean
match_row_norm_grad (Match *m)
{
  return row_norm_grad (m, m->op, m->op->in[0]);
}

/* A cast from 16 bits and the norm's gradient that alone reads it: the rest of what that reads is there, or a parameter. */
static gboolean
match_cast (Match *m)
{
  const HeddleValue *wide = m->op->out[0];
  gboolean widens = heddle_dtype_is_16_bits (m->op->in[0]->dtype) && wide->dtype == HEDDLE_F32;
  const HeddleOp *layer = widens ? only_reader (m, HEDDLE_OP_LAYER_NORM_GRAD, wide) : NULL, *rms = widens ? only_reader (m, HEDDLE_OP_RMS_NORM_GRAD, wide) : NULL, *op = layer ? layer : rms;
  gboolean ok = op && op->in[0] == wide;
  for (guint i = 1; ok && i < op->n_in; i++)
    ok = is_there (m, op->in[i]) || op->in[i]->kind == HEDDLE_VALUE_VARIABLE;
  if (ok)
    {
      take (m, op);
      ok = row_norm_grad (m, op, m->op->in[0]);
    }
  return ok;
}

/* ---- pooling.  cuDNN has no max pooling with an index both ways in NCHW, and an index belongs to the library that made it. ---- */

static gboolean
match_pool (Match *m)
{
  const HeddleOp *op = m->op;
  CudaDnnPool p = { .dtype = op->in[0]->dtype, .layout = m->m->layout, .x = op->in[0]->shape, .y = op->out[0]->shape, .attr = *(const HeddlePoolAttr *) op->attr,
                    .average = op->info->code == HEDDLE_OP_AVG_POOL };
  bind (m, CUDA_DNN_X, op->in[0]);
  bind (m, CUDA_DNN_Y, op->out[0]);
  bind (m, CUDA_DNN_INDEX, p.average ? NULL : op->out[1]);
  return (p.average || (suits (m, op->in[0]) && p.attr.kernel[0] * p.attr.kernel[1] <= G_MAXINT8)) && done (m, cuda_dnn_graph_pool (&p));
}

static gboolean
match_pool_grad (Match *m)
{
  const HeddleOp *op = m->op;
  CudaDnnPool p = { .dtype = op->in[0]->dtype, .layout = m->m->layout, .x = op->out[0]->shape, .y = op->in[0]->shape, .attr = *(const HeddlePoolAttr *) op->attr,
                    .average = op->info->code == HEDDLE_OP_AVG_POOL_GRAD };
  bind (m, CUDA_DNN_DY, op->in[0]);
  bind (m, CUDA_DNN_INDEX, p.average ? NULL : op->in[1]);
  bind (m, CUDA_DNN_DX, op->out[0]);
  return (p.average || (suits (m, op->in[0]) && p.attr.kernel[0] * p.attr.kernel[1] <= G_MAXINT8)) && done (m, cuda_dnn_graph_pool_grad (&p));
}

/* ---- attention ---- */

/* The one operation, CODE, that reads V */
static const HeddleOp *
sole_reader (const HeddleProgram *p, const HeddleValue *v, HeddleOpCode code)
{
  return v->n_uses == 1 ? reader_after (p, v->producer->id, code, v) : NULL;
}

static gboolean
only_attention_reads (const HeddleProgram *p, const HeddleValue *v)
{
  guint n = 0;
  for (guint i = v->producer->id + 1; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint k = 0; k < op->n_in && (op->info->code == HEDDLE_OP_ATTENTION || op->info->code == HEDDLE_OP_ATTENTION_GRAD); k++)
        n += op->in[k] == v;
    }
  return n == v->n_uses;
}

/* PART (B, T, W) is columns of WHOLE (B, T, N), by SLICE or its gradient, and tensor cores can load them: 16 bytes of 16 bits. */
static gboolean
takes_columns (const HeddleOp *slice, const HeddleValue *whole, const HeddleValue *part, CudaWindow *w)
{
  gboolean ok = whole->shape.rank == 3 && part->shape.rank == 3 && heddle_dtype_is_16_bits (whole->dtype) && whole->kind == HEDDLE_VALUE_TEMP;
  gint64 begin = 0, step = 1, count;
  for (gint32 i = 0; ok && i < 3; i++)
    {
      heddle_slice_axis (slice->attr, i, whole->shape.size[i], &begin, &step, &count);
      ok = step == 1 && (i == 2 || count == whole->shape.size[i]);
    }
  *w = (CudaWindow) { .slice = slice, .whole = whole, .first = begin, .pitch = ok ? whole->shape.size[2] : 0 };
  return ok && begin % 8 == 0 && w->pitch % 8 == 0;
}

/* VIEW brings (B, T, W) to heads (B, T, H, D), or back. */
static gboolean
splits_heads (const HeddleShape *flat, const HeddleShape *heads)
{
  return flat->rank == 3 && heads->rank == 4 && flat->size[0] == heads->size[0] && flat->size[1] == heads->size[1];
}

gboolean
cuda_window_of (const HeddleProgram *p, const HeddleValue *v, CudaWindow *w)
{
  const HeddleOp *permute = v->kind == HEDDLE_VALUE_TEMP && cuda_swaps_heads (v->producer) ? v->producer : NULL;
  const HeddleValue *heads = permute ? permute->in[0] : NULL;
  const HeddleOp *view = heads && heads->kind == HEDDLE_VALUE_TEMP && heads->n_uses == 1 && heads->producer->info->code == HEDDLE_OP_RESHAPE ? heads->producer : NULL;
  const HeddleValue *part = view && splits_heads (&view->in[0]->shape, &heads->shape) ? view->in[0] : NULL;
  const HeddleOp *slice = part && part->kind == HEDDLE_VALUE_TEMP && part->n_uses == 1 && part->producer->info->code == HEDDLE_OP_SLICE ? part->producer : NULL;
  gboolean ok = slice && takes_columns (slice, slice->in[0], part, w) && slice->in[0]->producer->info->code == HEDDLE_OP_LINEAR && only_attention_reads (p, v);
  w->view = view;
  w->permute = permute;
  return ok;
}

/* V, a gradient (B, H, T, D), goes nowhere but into one. */
static gboolean
window_for (const HeddleProgram *p, const HeddleValue *v, CudaWindow *w)
{
  const HeddleOp *permute = sole_reader (p, v, HEDDLE_OP_PERMUTE), *view = permute && cuda_swaps_heads (permute) ? sole_reader (p, permute->out[0], HEDDLE_OP_RESHAPE) : NULL;
  const HeddleOp *slice = view && splits_heads (&view->out[0]->shape, &view->in[0]->shape) ? sole_reader (p, view->out[0], HEDDLE_OP_SLICE_GRAD) : NULL;
  gboolean ok = slice && takes_columns (slice, slice->out[0], slice->in[0], w);
  w->view = view;
  w->permute = permute;
  return ok;
}

static gint64 row_of (const HeddleValue *heads) { return heads->shape.size[1] * heads->shape.size[3]; }

/* The pitch of three windows W that can be told to cuDNN, or 0.  GRADIENT: they are made, and must not overlap. */
static gint64
pitch_of (const HeddleProgram *p, HeddleValue *const *three, gboolean gradient, CudaWindow w[3])
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < 3; i++)
    {
      ok = gradient ? window_for (p, three[i], &w[i]) : cuda_window_of (p, three[i], &w[i]);
      ok = ok && w[i].pitch == w[0].pitch && w[i].whole->shape.size[1] == w[0].whole->shape.size[1];
      for (guint k = 0; ok && gradient && k < i; k++)
        ok = w[i].first + row_of (three[i]) <= w[k].first || w[k].first + row_of (three[k]) <= w[i].first;
    }
  return ok ? w[0].pitch : 0;
}

/* Its heads were brought outside for attention alone, which need not be done. */
static gboolean
has_heads_inside (const HeddleValue *v)
{
  return v->kind == HEDDLE_VALUE_TEMP && cuda_swaps_heads (v->producer);
}

static gboolean
match_attention (Match *m)
{
  const HeddleOp *op = m->op;
  gboolean grad = op->info->code == HEDDLE_OP_ATTENTION_GRAD;
  static const CudaDnnUid forward[] = { CUDA_DNN_Q, CUDA_DNN_K, CUDA_DNN_V }, backward[] = { CUDA_DNN_DY, CUDA_DNN_Q, CUDA_DNN_K, CUDA_DNN_V, CUDA_DNN_Y, CUDA_DNN_LSE };
  static const CudaDnnUid results[] = { CUDA_DNN_Y, CUDA_DNN_LSE }, gradients[] = { CUDA_DNN_DQ, CUDA_DNN_DK, CUDA_DNN_DV };
  const HeddleAttentionAttr *attr = op->attr;
  HeddleValue *const *q = op->in + (grad ? 1 : 0);
  CudaDnnAttention a = { .dtype = q[0]->dtype, .batch = q[0]->shape.size[0], .heads = q[0]->shape.size[1], .queries = q[0]->shape.size[2], .keys = q[1]->shape.size[2],
                         .width = q[0]->shape.size[3], .value_width = q[2]->shape.size[3], .scale = attr->scale, .causal = attr->causal, .deterministic = m->flags->deterministic,
                         .heads_inside = m->flags->fusion && has_heads_inside (q[0]) && has_heads_inside (q[1]) && has_heads_inside (q[2]) };
  if (a.heads_inside)
    {
      CudaWindow from[3];
      a.pitch = pitch_of (m->program, q, FALSE, from);
      a.grad_pitch = grad ? pitch_of (m->program, op->out, TRUE, m->m->into) : 0;
    }
  m->m->windows = a.pitch != 0;
  m->m->grad_windows = a.grad_pitch != 0;
  m->m->layout = a.heads_inside ? CUDA_DNN_BTHD : CUDA_DNN_NCHW;
  for (guint i = 0; i < op->n_in; i++)
    bind (m, grad ? backward[i] : forward[i], op->in[i]);
  for (guint i = 0; i < op->n_out; i++)
    bind (m, grad ? gradients[i] : results[i], op->out[i]);
  gboolean single = grad && a.queries == 1 && a.keys == 1;      /* cuDNN makes plans for it, and does not support it (release notes of 9.18.1) */
  return a.dtype != HEDDLE_F32 && !single && done (m, grad ? cuda_dnn_graph_attention_grad (&a) : cuda_dnn_graph_attention (&a));
}

/* ---- linear with an activation that cuBLASLt has no epilogue for, or, relu, none that is ours.  cuDNN's fused products of f32 are TF32. ---- */

static gboolean
match_linear (Match *m)
{
  static const struct { HeddleOpCode code; CudaDnnActivation activation; } activations[] = {
    { HEDDLE_OP_RELU, CUDA_DNN_RELU }, { HEDDLE_OP_SIGMOID, CUDA_DNN_SIGMOID }, { HEDDLE_OP_TANH, CUDA_DNN_TANH }, { HEDDLE_OP_SILU, CUDA_DNN_SILU }
  };
  const HeddleOp *op = m->op, *last = NULL;
  gint64 n = op->in[1]->shape.size[0], k = op->in[1]->shape.size[1];
  CudaDnnMatmul a = { .dtype = op->in[0]->dtype, .m = heddle_shape_count (&op->in[0]->shape) / k, .n = n, .k = k, .bias = op->n_in > 2 };
  for (guint i = 0; i < G_N_ELEMENTS (activations) && !last; i++)
    if ((last = only_reader (m, activations[i].code, op->out[0])))
      {
        take (m, last);
        a.activation = activations[i].activation;
      }
  bind (m, CUDA_DNN_X, op->in[0]);
  bind (m, CUDA_DNN_W, op->in[1]);
  bind (m, CUDA_DNN_BIAS, a.bias ? op->in[2] : NULL);
  bind (m, CUDA_DNN_Y, last ? last->out[0] : NULL);
  return last && (a.dtype != HEDDLE_F32 || m->flags->tf32_matmul) && op->in[1]->dtype == a.dtype && (!a.bias || op->in[2]->dtype == a.dtype) && done (m, cuda_dnn_graph_matmul (&a));
}

static gboolean (*
matcher (HeddleOpCode code)) (Match *m)
{
  switch (code)
    {
    case HEDDLE_OP_CONV2D: return match_conv;
    case HEDDLE_OP_CONV2D_GRAD_INPUT: case HEDDLE_OP_CONV_TRANSPOSE2D: return match_conv_grad_input;
    case HEDDLE_OP_CONV2D_GRAD_WEIGHT: return match_conv_grad_weight;
    case HEDDLE_OP_BATCH_NORM: return match_batch_norm;
    case HEDDLE_OP_BATCH_NORM_GRAD: return match_batch_norm_grad;
    case HEDDLE_OP_RELU_GRAD: return match_relu_grad;
    case HEDDLE_OP_LAYER_NORM: case HEDDLE_OP_RMS_NORM: return match_row_norm;
    case HEDDLE_OP_LAYER_NORM_GRAD: case HEDDLE_OP_RMS_NORM_GRAD: return match_row_norm_grad;
    case HEDDLE_OP_CAST: return match_cast;
    case HEDDLE_OP_MAX_POOL: case HEDDLE_OP_AVG_POOL: return match_pool;
    case HEDDLE_OP_MAX_POOL_GRAD: case HEDDLE_OP_AVG_POOL_GRAD: return match_pool_grad;
    case HEDDLE_OP_ATTENTION: case HEDDLE_OP_ATTENTION_GRAD: return match_attention;
    case HEDDLE_OP_LINEAR: return match_linear;
    default: return NULL;
    }
}

/* The other graphs read rows: their tensors of rank 4 are no images. */
static gboolean
is_image (HeddleOpCode code)
{
  gboolean (*f) (Match *m) = matcher (code);
  return f != match_row_norm && f != match_row_norm_grad && f != match_cast && f != match_attention && f != match_linear;
}

gboolean
cuda_dnn_match (const HeddleProgram *program, guint i, guint most, CudaDnnLayout layout, const HeddleFlags *flags, CudaDnnMatch *match)
{
  const HeddleOp *op = program->ops->pdata[i];
  gboolean (*f) (Match *m) = matcher (op->info->code);
  Match m = { program, i, most, flags, op, match };
  *match = (CudaDnnMatch) { .layout = is_image (op->info->code) ? layout : CUDA_DNN_NCHW };
  take (&m, op);
  return f && most > 0 && f (&m);
}
