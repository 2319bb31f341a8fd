/* cuda/ops-image.c: pooling, resampling and batch norm by own kernels, in whatever layout an image was made.  Must not know what kernels look like inside. */
#include "backend/cuda/ops.h"

/* ---- pooling and resampling: X is the larger tensor of pooling, the one before upsampling ---- */

static HkPool
pool_of (const CudaOperand *x, const CudaOperand *y)
{
  HkPool a = { .N = (gint32) x->shape.size[0], .C = (gint32) x->shape.size[1], .H = (gint32) x->shape.size[2], .W = (gint32) x->shape.size[3], .I = (gint32) y->shape.size[2],
               .J = (gint32) y->shape.size[3] };
  cuda_operand_strides (x, a.xs);
  cuda_operand_strides (y, a.ys);
  return a;
}

static void
windows_of (HkPool *a, const HeddlePoolAttr *attr)
{
  for (gint i = 0; i < 2; i++)
    {
      a->kernel[i] = (gint32) attr->kernel[i];
      a->stride[i] = (gint32) attr->stride[i];
      a->padding[i] = (gint32) attr->padding[i];
    }
  a->exclude_padding = attr->exclude_padding;
}

static gboolean
run_pool (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkPool a = pool_of (&step->in[0], &step->out[0]);
  windows_of (&a, step->op->attr);
  a.x = IN (0);
  a.y = OUT (0);
  a.index = step->n_out > 1 ? OUT (1) : NULL;
  return (step->op->info->code == HEDDLE_OP_MAX_POOL ? cuda_launch_max_pool : cuda_launch_avg_pool) (queue, step->in[0].dtype, &a, error);
}

static gboolean
run_pool_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkPool a = pool_of (&step->out[0], &step->in[0]);
  windows_of (&a, step->op->attr);
  a.x = IN (0);
  a.y = OUT (0);
  a.index = step->n_in > 1 ? IN (1) : NULL;
  return (step->op->info->code == HEDDLE_OP_MAX_POOL_GRAD ? cuda_launch_max_pool_grad : cuda_launch_avg_pool_grad) (queue, step->in[0].dtype, &a, error);
}

static gboolean
run_upsample (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  gboolean forward = step->op->info->code == HEDDLE_OP_UPSAMPLE;
  HkPool a = forward ? pool_of (&step->in[0], &step->out[0]) : pool_of (&step->out[0], &step->in[0]);
  a.bilinear = ((const HeddleUpsampleAttr *) step->op->attr)->bilinear != 0;
  a.x = IN (0);
  a.y = OUT (0);
  return (forward ? cuda_launch_upsample : cuda_launch_upsample_grad) (queue, step->in[0].dtype, &a, error);
}

/* ---- batch norm: (N, C, ...) as (N, C, P) ---- */

static HkBatchNorm
batch_norm_of (const HeddleOp *op, const CudaOperand *x)
{
  const HeddleBatchNormAttr *attr = op->attr;
  gint64 strides[HEDDLE_MAX_RANK] = { 0 };
  cuda_operand_strides (x, strides);
  HkBatchNorm a = { .N = x->shape.size[0], .C = x->shape.size[1], .P = 1, .sn = strides[0], .sc = strides[1], .sp = x->shape.rank > 2 ? strides[x->shape.rank - 1] : 1,
                    .eps = (float) attr->eps, .momentum = (float) attr->momentum, .training = attr->training };
  for (gint i = 2; i < x->shape.rank; i++)
    a.P *= x->shape.size[i];
  return a;
}

static gboolean
run_batch_norm (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkBatchNorm a = batch_norm_of (step->op, &step->in[0]);
  a.x = IN (0);
  a.scale = IN (1);
  a.shift = IN (2);
  a.mean = IN (3);
  a.variance = IN (4);
  a.y = OUT (0);
  a.out_mean = OUT (1);
  a.out_rstd = OUT (2);
  a.new_mean = OUT (3);
  a.new_variance = OUT (4);
  return cuda_launch_batch_norm (queue, step->in[0].dtype, &a, error);
}

static gboolean
run_batch_norm_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkBatchNorm a = batch_norm_of (step->op, &step->in[1]);
  a.dy = IN (0);
  a.x = IN (1);
  a.scale = IN (2);
  a.mean = IN (3);
  a.rstd = IN (4);
  a.y = OUT (0);
  a.dscale = OUT (1);
  a.dshift = OUT (2);
  return cuda_launch_batch_norm_grad (queue, step->in[0].dtype, &a, error);
}

/* The image operands in one dtype and layout, what there is per channel in f32 */
static void
lower_batch_norm (CudaCompiler *c, const HeddleOp *op, guint images, CudaRun run)
{
  CudaLayout layout = cuda_own_layout (c, op->in[images - 1]);
  CudaOperand in[5];
  for (guint i = 0; i < op->n_in; i++)
    in[i] = i < images ? cuda_form (c, op->in[i], op->out[0]->dtype, layout) : cuda_form (c, op->in[i], HEDDLE_F32, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    cuda_step_out (c, step, op->out[i], op->out[i]->dtype, i ? CUDA_ROWS : layout, i == 1 || i == 2);
}

gboolean
cuda_lower_image (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean mine = TRUE;
  HeddleDtype dtype = op->n_out ? op->out[0]->dtype : HEDDLE_F32;
  switch (op->info->code)
    {
    case HEDDLE_OP_MAX_POOL: case HEDDLE_OP_AVG_POOL: cuda_own_step (c, op, op->info->name, run_pool, dtype, cuda_own_layout (c, op->in[0]), 1); break;
    case HEDDLE_OP_MAX_POOL_GRAD: case HEDDLE_OP_AVG_POOL_GRAD: cuda_own_step (c, op, op->info->name, run_pool_grad, dtype, cuda_own_layout (c, op->in[0]), 1); break;
    case HEDDLE_OP_UPSAMPLE: case HEDDLE_OP_UPSAMPLE_GRAD: cuda_own_step (c, op, op->info->name, run_upsample, dtype, cuda_own_layout (c, op->in[0]), 1); break;
    case HEDDLE_OP_BATCH_NORM: lower_batch_norm (c, op, 1, run_batch_norm); break;
    case HEDDLE_OP_BATCH_NORM_GRAD: lower_batch_norm (c, op, 2, run_batch_norm_grad); break;
    default: mine = FALSE; break;
    }
  return mine;
}
