/* cuda/disk-cache.h: what was dear to make (compiled kernels, plans) is kept in the user's cache folder.  Must not know what the bytes mean.
 * A cache never fails: what cannot be read is made again, what cannot be written is told once and made again next time. */
#ifndef HEDDLE_BACKEND_CUDA_DISK_CACHE_H
#define HEDDLE_BACKEND_CUDA_DISK_CACHE_H

#include <glib.h>

/* Most that all files together take, in MiB, unless HEDDLE_CUDA_CACHE_MIB says otherwise (0: nothing is kept).  Beyond it the least recently used go first. */
#define CUDA_CACHE_MIB 256

/* (transfer full) The key of PARTS (NULL-terminated texts): everything the bytes depend on, the makers' versions too. */
char   *cuda_cache_key   (const char *const *parts);
/* (transfer full) What was kept under KEY in the folder KIND ("kernels"); NULL: nothing, or something damaged. */
GBytes *cuda_cache_read  (const char *kind, const char *key);
/* FALSE when it could not be kept, which the first time in a process is told on standard error, or when it is too large for the cap.  Any thread, any number of processes. */
gboolean cuda_cache_write (const char *kind, const char *key, GBytes *bytes);

#endif
