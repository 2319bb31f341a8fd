/* cuda/lower.c: which lowerings there are and in which order they are asked.  Must not know what they do. */
#include "cuda.h"

const CudaLowering cuda_lowerings_library[] = {
  NULL,
};

const CudaLowering cuda_lowerings_own[] = {
  NULL,
};
