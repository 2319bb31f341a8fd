/* cuda/ops-product.c: products of matrices and convolutions by own kernels.  Must not know what kernels look like inside. */
#include "backend/cuda/ops.h"

/* ---- matrices ---- */

/* rows x columns in memory; transposed: read across */
static void
left (HkMatmul *m, gconstpointer a, gint64 rows, gint64 columns, gboolean transposed)
{
  m->a = a;
  m->m = transposed ? columns : rows;
  m->k = transposed ? rows : columns;
  m->a_row = transposed ? 1 : columns;
  m->a_column = transposed ? columns : 1;
}

static void
right (HkMatmul *m, gconstpointer b, gint64 rows, gint64 columns, gboolean transposed)
{
  m->b = b;
  m->n = transposed ? rows : columns;
  m->b_row = transposed ? 1 : columns;
  m->b_column = transposed ? columns : 1;
}

static gboolean
run_matmul (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleMatmulAttr *attr = step->op->attr;
  const HeddleShape *a = &step->in[0].shape, *b = &step->in[1].shape;
  gint64 rows = a->size[a->rank - 2], depth = b->size[b->rank - 2];
  HkMatmul m = { .c = OUT (0), .batch = heddle_shape_count (a) / MAX (rows * cuda_last (a), 1), .a_batch = rows * cuda_last (a), .b_batch = b->rank == 2 ? 0 : depth * cuda_last (b) };
  left (&m, IN (0), rows, cuda_last (a), attr->transpose_a);
  right (&m, IN (1), depth, cuda_last (b), attr->transpose_b);
  return cuda_launch_matmul (queue, step->out[0].dtype, &m, error);
}

/* x w^T + bias; dy w; dy^T x and the column sums of dy */
static gboolean
run_linear (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleShape *a = &step->in[0].shape, *b = &step->in[1].shape;
  HkMatmul m = { .c = OUT (0), .batch = 1 };
  gboolean weight = step->op->info->code == HEDDLE_OP_LINEAR_GRAD_WEIGHT, ok = TRUE;
  left (&m, IN (0), cuda_height (a), cuda_last (a), weight);
  right (&m, IN (1), cuda_height (b), cuda_last (b), step->op->info->code == HEDDLE_OP_LINEAR);
  m.bias = step->n_in > 2 ? IN (2) : NULL;
  if (m.c)
    ok = cuda_launch_matmul (queue, step->out[0].dtype, &m, error);
  if (ok && weight && OUT (1))
    {
      HkReduce r = cuda_column_sum (a, CUDA_ROWS);
      r.x = IN (0);
      r.y = OUT (1);
      ok = cuda_launch_reduce (queue, step->in[0].dtype, &r, step->n_scratch ? SCRATCH (0) : NULL, error);
    }
  return ok;
}

/* ---- convolutions ---- */

static HkConv
conv_of (const HeddleConvAttr *a, const HeddleShape *x, const HeddleShape *w, const HeddleShape *y, CudaLayout images, CudaLayout weight)
{
  HkConv k = { .N = (gint32) x->size[0], .C = (gint32) x->size[1], .H = (gint32) x->size[2], .W = (gint32) x->size[3], .O = (gint32) y->size[1], .I = (gint32) y->size[2],
               .J = (gint32) y->size[3], .P = (gint32) w->size[2], .Q = (gint32) w->size[3], .groups = (gint32) a->groups };
  for (gint i = 0; i < 2; i++)
    {
      k.stride[i] = (gint32) a->stride[i];
      k.padding[i] = (gint32) a->padding[i];
      k.dilation[i] = (gint32) a->dilation[i];
    }
  cuda_strides (x, images, k.xs);
  cuda_strides (w, weight, k.ws);
  cuda_strides (y, images, k.ys);
  return k;
}

static gboolean
run_conv (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkConv k = conv_of (step->op->attr, &step->in[0].shape, &step->in[1].shape, &step->out[0].shape, step->out[0].layout, step->in[1].layout);
  k.x = IN (0);
  k.w = IN (1);
  k.bias = step->n_in > 2 ? IN (2) : NULL;
  k.out = OUT (0);
  return cuda_launch_conv_forward (queue, step->out[0].dtype, &k, error);
}

/* conv2d_grad_input (dy, w), and conv_transpose2d (x, w, bias), which is the same with a bias */
static gboolean
run_conv_input (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkConv k = conv_of (step->op->attr, &step->out[0].shape, &step->in[1].shape, &step->in[0].shape, step->out[0].layout, step->in[1].layout);
  k.y = IN (0);
  k.w = IN (1);
  k.bias = step->n_in > 2 ? IN (2) : NULL;
  k.out = OUT (0);
  return cuda_launch_conv_grad_input (queue, step->out[0].dtype, &k, error);
}

static gboolean
run_conv_weight (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const CudaOperand *dy = &step->in[0];
  HkConv k = conv_of (step->op->attr, &step->in[1].shape, &((const HeddleConvAttr *) step->op->attr)->weight, &dy->shape, dy->layout, step->out[0].layout);
  gboolean ok = TRUE;
  k.y = IN (0);
  k.x = IN (1);
  k.out = OUT (0);
  if (k.out)
    ok = cuda_launch_conv_grad_weight (queue, dy->dtype, &k, error);
  if (ok && OUT (1))
    {
      HkReduce r = cuda_channel_sum (&dy->shape, dy->layout);
      r.x = IN (0);
      r.y = OUT (1);
      ok = cuda_launch_reduce (queue, dy->dtype, &r, step->n_scratch ? SCRATCH (0) : NULL, error);
    }
  return ok;
}

/* Images as the first of them was made, the weight as it is kept, and its gradient as weights are where images are channels last */
static void
lower_conv (CudaCompiler *c, const HeddleOp *op, CudaRun run)
{
  HeddleDtype dtype = op->out[0]->dtype;
  CudaLayout layout = cuda_own_layout (c, op->in[0]);
  gboolean gradient = op->info->code == HEDDLE_OP_CONV2D_GRAD_WEIGHT;
  CudaOperand first = cuda_form (c, op->in[0], dtype, layout), second = cuda_form (c, op->in[1], dtype, gradient ? layout : cuda_own_layout (c, op->in[1])), bias = { 0 };
  if (op->n_in > 2)
    bias = cuda_form (c, op->in[2], dtype, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run);
  cuda_step_in (step, first);
  cuda_step_in (step, second);
  if (op->n_in > 2)
    cuda_step_in (step, bias);
  cuda_step_out (c, step, op->out[0], dtype, gradient ? c->images : layout, !gradient);
  if (gradient)
    {
      HkReduce r = cuda_channel_sum (&first.shape, layout);
      cuda_step_out (c, step, op->out[1], dtype, CUDA_ROWS, FALSE);
      if (cuda_reduce_scratch (&r))
        cuda_step_scratch (c, step, cuda_reduce_scratch (&r) * sizeof (float));
    }
}

static void
lower_linear (CudaCompiler *c, const HeddleOp *op)
{
  gboolean weight = op->info->code == HEDDLE_OP_LINEAR_GRAD_WEIGHT;
  CudaStep *step = cuda_own_step (c, op, op->info->name, run_linear, op->out[0]->dtype, CUDA_ROWS, weight ? 0 : 1);
  HkReduce r = cuda_column_sum (&op->in[0]->shape, CUDA_ROWS);
  if (weight && cuda_reduce_scratch (&r))
    cuda_step_scratch (c, step, cuda_reduce_scratch (&r) * sizeof (float));
}

gboolean
cuda_lower_product (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean mine = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_MATMUL: cuda_own_step (c, op, "matmul", run_matmul, op->out[0]->dtype, CUDA_ROWS, 1); break;
    case HEDDLE_OP_LINEAR: case HEDDLE_OP_LINEAR_GRAD_INPUT: case HEDDLE_OP_LINEAR_GRAD_WEIGHT: lower_linear (c, op); break;
    case HEDDLE_OP_CONV2D: lower_conv (c, op, run_conv); break;
    case HEDDLE_OP_CONV2D_GRAD_INPUT: case HEDDLE_OP_CONV_TRANSPOSE2D: lower_conv (c, op, run_conv_input); break;
    case HEDDLE_OP_CONV2D_GRAD_WEIGHT: lower_conv (c, op, run_conv_weight); break;
    default: mine = FALSE; break;
    }
  return mine;
}
