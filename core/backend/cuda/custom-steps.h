/* cuda/custom-steps.h: the lowering of operations that plugins bring.  Private to the module; must not know what they compute. */
#ifndef HEDDLE_BACKEND_CUDA_CUSTOM_STEPS_H
#define HEDDLE_BACKEND_CUDA_CUSTOM_STEPS_H

#include "cuda.h"

/* A CudaLowering: every custom operation, by its own kernel; an error when it has none. */
gboolean cuda_lower_custom (CudaCompiler *c, const HeddleOp *op, GError **error);

#endif
