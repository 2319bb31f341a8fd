/* cuda/timing.h: how long something takes that is put on a stream, for the choice between algorithms.  Private to the module.  Must not know what it is. */
#ifndef HEDDLE_CUDA_TIMING_H
#define HEDDLE_CUDA_TIMING_H

#include <cuda_runtime_api.h>
#include <glib.h>

/* Runs per sample are doubled until a sample takes this long, so that launches are not what is compared; the least of three samples counts. */
#define CUDA_SAMPLE_MS 1.0f
#define CUDA_MOST_RUNS 64

/* RUN puts it on STREAM once. */
typedef struct { cudaStream_t stream; cudaEvent_t from, to; gboolean (*run) (gpointer data); gpointer data; } CudaTiming;

/* Milliseconds of N runs; below 0: it does not run. */
static inline float
cuda_timing_sample (const CudaTiming *t, guint n)
{
  float ms = -1;
  gboolean ok = cudaEventRecord (t->from, t->stream) == cudaSuccess;
  for (guint i = 0; ok && i < n; i++)
    ok = t->run (t->data);
  ok = ok && cudaEventRecord (t->to, t->stream) == cudaSuccess && cudaEventSynchronize (t->to) == cudaSuccess;
  return ok && cudaEventElapsedTime (&ms, t->from, t->to) == cudaSuccess ? ms : -1;
}

/* Of one run; below 0: it does not run. */
static inline double
cuda_timing_microseconds (const CudaTiming *t)
{
  guint n = 1;
  float ms = cuda_timing_sample (t, 1);      /* loads the kernels */
  for (ms = ms < 0 ? ms : cuda_timing_sample (t, n); ms >= 0 && ms < CUDA_SAMPLE_MS && n < CUDA_MOST_RUNS; ms = cuda_timing_sample (t, n))
    n *= 2;
  for (guint i = 0; i < 2 && ms >= 0; i++)
    {
      float again = cuda_timing_sample (t, n);
      ms = again < 0 ? again : MIN (ms, again);
    }
  return ms < 0 ? -1 : ms * 1000.0 / n;
}

#endif
