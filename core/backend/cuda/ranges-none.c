/* cuda/ranges-none.c: what stands for ranges.c where configure left NVTX out.  Must not know what is named. */
#include "ranges.h"

void cuda_ranges_open (void) { }
void cuda_ranges_name (CudaPlan *plan) { (void) plan; }
void cuda_range_push (const char *name) { (void) name; }
void cuda_range_pop (const char *name) { (void) name; }
const char *cuda_ranges_describe (void) { return "no (configure --enable-nvtx)"; }
