/* cuda/custom.h: kernels that plugins bring as source: the text that stands around it, and what such a kernel is given.
 * Must not know devices, plans or CUDA's libraries. */
#ifndef HEDDLE_BACKEND_CUDA_CUSTOM_H
#define HEDDLE_BACKEND_CUDA_CUSTOM_H

#include "program/build.h"

/* One text for the host and, in front of every source, for the device: build.h shows it to authors. */
#define CUDA_CUSTOM_TYPES \
  typedef struct { void *data; int dtype, rank; long long size[HEDDLE_MAX_RANK], count; } heddle_tensor; \
  typedef struct { heddle_tensor in[HEDDLE_CUSTOM_INPUTS], out[HEDDLE_CUSTOM_OUTPUTS]; unsigned n_in, n_out; unsigned long long attr[HEDDLE_CUSTOM_ATTR / 8]; } heddle_run;
CUDA_CUSTOM_TYPES

const char *cuda_custom_prelude (void);
/* (transfer full) The source, and after it what refuses a kernel that takes anything but a heddle_run: it would read arguments that are not there. */
char       *cuda_custom_source  (const HeddleCustomCuda *cuda);
/* Can this be launched?  TEXT (transfer full) says what is asked for otherwise. */
gboolean    cuda_custom_grid    (const guint grid[3], const guint block[3], char **text);

#endif
