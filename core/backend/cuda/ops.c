/* cuda/ops.c: what the lowerings to own kernels share.  Must not know any operation. */
#include "backend/cuda/ops.h"

CudaLayout
cuda_own_layout (CudaCompiler *c, const HeddleValue *image)
{
  return cuda_made (c, image)->layout;
}

CudaStep *
cuda_own_step (CudaCompiler *c, const HeddleOp *op, const char *what, CudaRun run, HeddleDtype dtype, CudaLayout layout, guint needed)
{
  CudaOperand in[HEDDLE_MAX_CONCAT];
  g_assert (op->n_in <= G_N_ELEMENTS (in));
  for (guint i = 0; i < op->n_in; i++)
    in[i] = cuda_form (c, op->in[i], dtype && heddle_dtype_is_float (op->in[i]->dtype) ? dtype : op->in[i]->dtype, layout);
  CudaStep *step = cuda_step_new (c, op, what, run);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    cuda_step_out (c, step, op->out[i], op->out[i]->dtype, layout, needed >> i & 1);
  return step;
}
