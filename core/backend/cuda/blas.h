/* cuda/blas.h: matrix products through cuBLASLt.  Private to the module. */
#ifndef HEDDLE_BACKEND_CUDA_BLAS_H
#define HEDDLE_BACKEND_CUDA_BLAS_H

#include "cuda.h"

/* A CudaLowering: matmul, linear and its gradients, with bias, relu and gelu where cuBLASLt has an epilogue for them. */
gboolean cuda_lower_blas (CudaCompiler *c, const HeddleOp *op, GError **error);

#endif
