/* cuda/ops-row.c: what works row by row: softmax, cross entropy, top-k, layer, RMS and group norm, attention.  Must not know what kernels look like inside. */
#include "backend/cuda/ops.h"

#include <math.h>

/* ---- softmax ---- */

static gboolean
run_softmax (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleShape *s = &step->in[0].shape;
  gint32 axis = ((const HeddleAxisAttr *) step->op->attr)->axis;
  HkSoftmax a = { .x = IN (0), .y = step->n_in > 1 ? IN (1) : NULL, .out = OUT (0), .inner = 1 };
  axis = axis < 0 ? axis + s->rank : axis;
  for (gint32 i = axis + 1; i < s->rank; i++)
    a.inner *= s->size[i];
  a.length = s->size[axis];
  a.rows = heddle_shape_count (s) / MAX (a.length, 1);
  switch (step->op->info->code)
    {
    case HEDDLE_OP_SOFTMAX: a.what = HK_SOFTMAX; break;
    case HEDDLE_OP_LOG_SOFTMAX: a.what = HK_LOG_SOFTMAX; break;
    case HEDDLE_OP_SOFTMAX_GRAD: a.what = HK_SOFTMAX_GRAD; break;
    default: a.what = HK_LOG_SOFTMAX_GRAD; break;
    }
  return cuda_launch_softmax (queue, step->in[0].dtype, &a, error);
}

/* ---- cross entropy and top-k: (logits, labels[, weights]) from input FIRST on ---- */

static HkCrossEntropy
cross_entropy_of (CudaPlan *plan, CudaStep *step, guint first)
{
  const CudaOperand *x = &step->in[first], *labels = &step->in[first + 1];
  return (HkCrossEntropy) { .x = IN (first), .labels = IN (first + 1), .label_dtype = (gint32) labels->dtype, .rows = x->shape.size[0], .classes = x->shape.size[1], .pitch = cuda_pitch (&x->shape, x->layout), .ignore = G_MININT64,
                            .fault = cuda_fault_word (plan, step) };
}

static void
attribute_of (const HeddleOp *op, HkCrossEntropy *a)
{
  const HeddleCrossEntropyAttr *attr = op->attr;
  a->ignore = attr->ignore_index;
  a->smoothing = (float) attr->label_smoothing;
}

static gboolean
run_cross_entropy (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkCrossEntropy a = cross_entropy_of (plan, step, 0);
  attribute_of (step->op, &a);
  a.class_weights = step->n_in > 2 ? IN (2) : NULL;
  a.weights_dtype = step->n_in > 2 ? (gint32) step->in[2].dtype : 0;
  a.loss = SCRATCH (0);
  a.weight = SCRATCH (1);
  HkFinish f = { .a = a.loss, .b = a.weight, .out0 = OUT (0), .out1 = OUT (1), .n = a.rows };
  return cuda_launch_cross_entropy (queue, step->in[0].dtype, &a, error) && cuda_launch_finish (queue, &f, error);
}

static gboolean
run_cross_entropy_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkCrossEntropy a = cross_entropy_of (plan, step, 1);
  attribute_of (step->op, &a);
  a.g = IN (0);
  a.denominator = IN (3);
  a.class_weights = step->n_in > 4 ? IN (4) : NULL;
  a.weights_dtype = step->n_in > 4 ? (gint32) step->in[4].dtype : 0;
  a.dx = OUT (0);
  return cuda_launch_cross_entropy_grad (queue, step->in[1].dtype, &a, error);
}

static gboolean
run_top_k (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkCrossEntropy a = cross_entropy_of (plan, step, 0);
  a.k = ((const HeddleTopKAttr *) step->op->attr)->k;
  a.loss = SCRATCH (0);
  HkFinish f = { .a = a.loss, .out0 = OUT (0), .out1 = OUT (1), .n = a.rows, .divisor = 1, .count = (float) a.rows };
  return cuda_launch_top_k (queue, step->in[0].dtype, &a, error) && cuda_launch_finish (queue, &f, error);
}

/* LISTS: how many numbers a row the kernel leaves for the sum */
static void
lower_labels (CudaCompiler *c, const HeddleOp *op, CudaRun run, guint lists)
{
  gboolean gradient = lists == 0;
  guint logits = cuda_logits_of (op);
  const HeddleValue *first;
  CudaOperand in[5];
  in[logits] = cuda_take_logits (c, op, &first);
  for (guint i = 0; i < op->n_in; i++)     /* scalars come in f32 */
    if (i != logits)
      in[i] = gradient && (i == 0 || i == 3) ? cuda_form (c, op->in[i], HEDDLE_F32, CUDA_ROWS) : cuda_rows (c, op->in[i]);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    cuda_step_out (c, step, i ? op->out[i] : first, i ? op->out[i]->dtype : first->dtype, gradient ? in[logits].layout : CUDA_ROWS, gradient);
  for (guint i = 0; i < lists; i++)
    cuda_step_scratch (c, step, (gsize) op->in[0]->shape.size[0] * sizeof (float));
  cuda_step_fault (c, step, "label out of range");
}

/* ---- norms ---- */

/* Rows of the last axes, or the groups of channels of X */
static HkNorm
norm_of (const HeddleOp *op, const HeddleShape *x, gboolean grouped)
{
  HkNorm a = { .rows = 1, .length = 1, .pixels = 1, .groups = 1, .centred = op->info->code != HEDDLE_OP_RMS_NORM && op->info->code != HEDDLE_OP_RMS_NORM_GRAD };
  gint64 count = heddle_shape_count (x);
  if (grouped)
    {
      const HeddleGroupNormAttr *attr = op->attr;
      a.eps = (float) attr->eps;
      a.groups = attr->groups;
      a.rows = x->size[0] * attr->groups;
      for (gint i = 2; i < x->rank; i++)
        a.pixels *= x->size[i];
      a.params = x->size[1];
    }
  else
    {
      const HeddleLayerNormAttr *attr = op->attr;
      a.eps = (float) attr->eps;
      for (gint i = 0; i < x->rank - MAX (attr->axes, 1); i++)
        a.rows *= x->size[i];
      a.params = count / MAX (a.rows, 1);
    }
  a.length = count / MAX (a.rows, 1);
  return a;
}

static gboolean
run_norm (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkNorm a = norm_of (step->op, &step->in[0].shape, step->op->info->code == HEDDLE_OP_GROUP_NORM);
  a.x = IN (0);
  a.scale = step->n_in > 1 ? IN (1) : NULL;
  a.shift = step->n_in > 2 ? IN (2) : NULL;
  a.y = OUT (0);
  a.mean = a.centred ? OUT (1) : NULL;
  a.rstd = OUT (a.centred ? 2 : 1);
  return cuda_launch_norm (queue, step->in[0].dtype, &a, error);
}

/* (dy, x[, mean], rstd[, scale]) */
static gboolean
run_norm_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkNorm a = norm_of (step->op, &step->in[1].shape, step->op->info->code == HEDDLE_OP_GROUP_NORM_GRAD);
  guint rstd = a.centred ? 3 : 2;
  a.dy = IN (0);
  a.x = IN (1);
  a.mean = a.centred ? IN (2) : NULL;
  a.rstd = IN (rstd);
  a.scale = step->n_in > rstd + 1 ? IN (rstd + 1) : NULL;
  a.y = OUT (0);
  a.dscale = OUT (1);
  a.dshift = step->n_out > 2 ? OUT (2) : NULL;
  return cuda_launch_norm_grad (queue, step->in[0].dtype, &a, error);
}

/* Statistics are f32, everything else the result's dtype. */
static void
lower_norm (CudaCompiler *c, const HeddleOp *op, gboolean gradient, CudaRun run)
{
  guint statistics = gradient ? (op->info->code == HEDDLE_OP_RMS_NORM_GRAD ? 3 : 4) : 0;
  CudaOperand in[5];
  for (guint i = 0; i < op->n_in; i++)
    in[i] = cuda_form (c, op->in[i], i >= 2 && i < statistics ? HEDDLE_F32 : op->out[0]->dtype, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    cuda_step_out (c, step, op->out[i], op->out[i]->dtype, CUDA_ROWS, !gradient && i == 0);
}

/* ---- attention: q, k, v are inputs FIRST on ---- */

static HkAttention
attention_of (const HeddleOp *op, guint first)
{
  const HeddleShape *q = &op->in[first]->shape, *v = &op->in[first + 2]->shape;
  const HeddleAttentionAttr *attr = op->attr;
  return (HkAttention) { .heads = q->size[0] * q->size[1], .T = q->size[2], .S = v->size[2], .D = q->size[3], .E = v->size[3],
                         .scale = (float) (attr->scale != 0 ? attr->scale : 1 / sqrt ((double) q->size[3])), .causal = attr->causal != 0 };
}

static gboolean
run_attention (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkAttention a = attention_of (step->op, 0);
  a.q = IN (0);
  a.k = IN (1);
  a.v = IN (2);
  a.out = OUT (0);
  a.log_sum = OUT (1);
  return cuda_launch_attention (queue, step->in[0].dtype, &a, error);
}

/* (dy, q, k, v, y, log sum) */
static gboolean
run_attention_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkAttention a = attention_of (step->op, 1);
  a.dy = IN (0);
  a.q = IN (1);
  a.k = IN (2);
  a.v = IN (3);
  a.y = IN (4);
  a.log_sum = IN (5);
  a.dq = OUT (0);
  a.dk = OUT (1);
  a.dv = OUT (2);
  return cuda_launch_attention_grad (queue, step->in[0].dtype, &a, error);
}

static void
lower_attention_grad (CudaCompiler *c, const HeddleOp *op)
{
  CudaOperand in[6];
  for (guint i = 0; i < 6; i++)
    in[i] = cuda_form (c, op->in[i], i == 5 ? HEDDLE_F32 : op->out[0]->dtype, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run_attention_grad);
  for (guint i = 0; i < 6; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < 3; i++)
    cuda_step_out (c, step, op->out[i], op->out[i]->dtype, CUDA_ROWS, FALSE);
}

gboolean
cuda_lower_row (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean mine = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_SOFTMAX: case HEDDLE_OP_LOG_SOFTMAX: case HEDDLE_OP_SOFTMAX_GRAD: case HEDDLE_OP_LOG_SOFTMAX_GRAD:
      cuda_own_step (c, op, op->info->name, run_softmax, op->out[0]->dtype, CUDA_ROWS, 1);
      break;
    case HEDDLE_OP_CROSS_ENTROPY: lower_labels (c, op, run_cross_entropy, 2); break;
    case HEDDLE_OP_CROSS_ENTROPY_GRAD: lower_labels (c, op, run_cross_entropy_grad, 0); break;
    case HEDDLE_OP_TOP_K: lower_labels (c, op, run_top_k, 1); break;
    case HEDDLE_OP_LAYER_NORM: case HEDDLE_OP_RMS_NORM: case HEDDLE_OP_GROUP_NORM: lower_norm (c, op, FALSE, run_norm); break;
    case HEDDLE_OP_LAYER_NORM_GRAD: case HEDDLE_OP_RMS_NORM_GRAD: case HEDDLE_OP_GROUP_NORM_GRAD: lower_norm (c, op, TRUE, run_norm_grad); break;
    case HEDDLE_OP_ATTENTION: cuda_own_step (c, op, "attention", run_attention, op->out[0]->dtype, CUDA_ROWS, 1); break;
    case HEDDLE_OP_ATTENTION_GRAD: lower_attention_grad (c, op); break;
    default: mine = FALSE; break;
    }
  return mine;
}
