/* cuda/lower.c: which lowerings there are and in which order they are asked.  Must not know what they do. */
#include "cuda.h"
#include "chain-steps.h"

const CudaLowering cuda_lowerings_library[] = {
  cuda_lower_chain,
  NULL,
};

const CudaLowering cuda_lowerings_own[] = {
  NULL,
};
