/* cuda/ops-dnn.h: the lowering of operations to cuDNN's plans.  Private to the module. */
#ifndef HEDDLE_BACKEND_CUDA_OPS_DNN_H
#define HEDDLE_BACKEND_CUDA_OPS_DNN_H

#include "cuda.h"

/* A CudaLowering: convolutions, norms, pooling and attention, several operations at once where one graph computes them. */
gboolean cuda_lower_dnn (CudaCompiler *c, const HeddleOp *op, GError **error);

#endif
