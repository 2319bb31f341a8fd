/* cuda/chain-steps.h: the lowering that turns runs of elementwise operations into generated kernels.  Private to the module. */
#ifndef HEDDLE_BACKEND_CUDA_CHAIN_STEPS_H
#define HEDDLE_BACKEND_CUDA_CHAIN_STEPS_H

#include "cuda.h"
#include "rtc.h"

/* A CudaLowering: OP and what follows it as one kernel.  Not for it when the flag "fusion" is off, or when there is no NVRTC (told once). */
gboolean cuda_lower_chain (CudaCompiler *c, const HeddleOp *op, GError **error);
/* The device's NVRTC, opened when first asked for; NULL with an error where there is none. */
CudaRtc *cuda_rtc_of      (CudaDevice *device, GError **error);
/* (transfer full) For `doctor`: "13.0 from /usr/lib/...", or why there is none; one line. */
char    *cuda_chain_doctor (void);

#endif
