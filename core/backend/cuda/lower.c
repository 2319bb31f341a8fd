/* cuda/lower.c: which lowerings there are and in which order they are asked.  Must not know what they do. */
#include "blas.h"
#include "chain-steps.h"
#include "custom-steps.h"
#include "dnn-steps.h"
#include "ops.h"

const CudaLowering cuda_lowerings_library[] = {
  cuda_lower_dnn,
  cuda_lower_blas,
  cuda_lower_chain,
  NULL,
};

const CudaLowering cuda_lowerings_own[] = {
  cuda_lower_elementwise, cuda_lower_reduction, cuda_lower_product, cuda_lower_image, cuda_lower_row, cuda_lower_movement, cuda_lower_custom,
  NULL,
};
