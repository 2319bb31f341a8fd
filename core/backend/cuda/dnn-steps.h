/* cuda/dnn-steps.h: operations through cuDNN.  Private to the module; must not know graphs. */
#ifndef HEDDLE_BACKEND_CUDA_DNN_STEPS_H
#define HEDDLE_BACKEND_CUDA_DNN_STEPS_H

#include "backend/cuda/cuda.h"

/* A CudaLowering: convolutions, norms, pooling and attention, and what can be fused with them. */
gboolean cuda_lower_dnn (CudaCompiler *c, const HeddleOp *op, GError **error);
/* Another, that the first leaves alone: a linear layer and the relu behind it. */
gboolean cuda_lower_dnn_linear_relu (CudaCompiler *c, const HeddleOp *op, GError **error);

#endif
