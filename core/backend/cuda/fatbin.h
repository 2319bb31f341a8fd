/* cuda/fatbin.h: the device code of the module's own kernels, one image per file of kernels/.  Must not know what is in it. */
#ifndef HEDDLE_BACKEND_CUDA_FATBIN_H
#define HEDDLE_BACKEND_CUDA_FATBIN_H

typedef struct { const char *name; const unsigned char *data; } CudaImage;
extern const CudaImage cuda_images[];      /* ended by a NULL name */

#endif
