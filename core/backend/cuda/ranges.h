/* cuda/ranges.h: named ranges for NVIDIA's profilers (NVTX).  Private to the module; must not know what is named. */
#ifndef HEDDLE_BACKEND_CUDA_RANGES_H
#define HEDDLE_BACKEND_CUDA_RANGES_H

#include "cuda.h"

/* Looks for a profiler, once per process. */
void        cuda_ranges_open (void);
/* Names the steps of PLAN, if there is a profiler: else step->range stays NULL and nothing is pushed for them. */
void        cuda_ranges_name (CudaPlan *plan);
/* Each push has its pop, on the same thread.  NAME may be NULL: no range; pop is told the same. */
void        cuda_range_push  (const char *name);
void        cuda_range_pop   (const char *name);
/* For `doctor`. */
const char *cuda_ranges_describe (void);

#endif
