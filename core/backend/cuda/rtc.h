/* cuda/rtc.h: NVRTC, opened at run time: generated sources become code for one architecture.  Must not know programs, plans or what kernels do.
 * Needs no GPU and no driver. */
#ifndef HEDDLE_BACKEND_CUDA_RTC_H
#define HEDDLE_BACKEND_CUDA_RTC_H

#include <glib.h>

typedef struct _CudaRtc CudaRtc;

/* NULL where there is no usable libnvrtc: the caller goes on without generated kernels and says so.  FOLDERS (NULL-terminated, or NULL) are searched first, then
 * HEDDLE_CUDA_LIBPATH, the folder given at configure, and where the loader looks. */
CudaRtc    *cuda_rtc_open    (const char *const *folders, GError **error);
void        cuda_rtc_close   (CudaRtc *rtc);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CudaRtc, cuda_rtc_close)

/* "13.0", and the file it was loaded from */
const char *cuda_rtc_version (const CudaRtc *rtc);
const char *cuda_rtc_path    (const CudaRtc *rtc);
/* Architectures it makes code for, ascending: 75, 80, ... */
const int  *cuda_rtc_archs   (const CudaRtc *rtc, guint *n);

/* (transfer full) SOURCE, behind kernels/common.cuh and kernels/elementwise.cuh, compiled for ARCH (90): a cubin, or PTX where NVRTC does not know ARCH yet.  NAME is for
 * messages.  The error quotes the line that the compiler refused. */
GBytes     *cuda_rtc_compile (CudaRtc *rtc, const char *name, const char *source, int arch, GError **error);
/* The same through the cache on disk; COMPILED (may be NULL) is set to whether it was not there. */
GBytes     *cuda_rtc_get     (CudaRtc *rtc, const char *name, const char *source, int arch, gboolean *compiled, GError **error);
/* The same two behind PRELUDE instead of those files: for sources that are not the backend's own. */
GBytes     *cuda_rtc_compile_behind (CudaRtc *rtc, const char *prelude, const char *name, const char *source, int arch, GError **error);
GBytes     *cuda_rtc_get_behind     (CudaRtc *rtc, const char *prelude, const char *name, const char *source, int arch, GError **error);
/* The text in front of the backend's own sources */
const char *cuda_rtc_prelude (void);

#endif
