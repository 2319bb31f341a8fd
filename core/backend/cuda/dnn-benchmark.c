/* cuda/dnn-benchmark.c: plans of one graph timed on the device, for flags.cudnn_benchmark.
 * Must not know how plans are proposed or kept. */
#include "dnn-private.h"

#include <cuda_runtime_api.h>

/* Runs per sample are doubled until a sample takes this long, so that launches are not what is compared; the least of three samples counts. */
#define SAMPLE_MS 1.0f
#define MOST_RUNS 64

typedef struct { CudaDnn *dnn; cudaStream_t stream; cudaEvent_t start, stop; gpointer memory, workspace, pointers[CUDA_DNN_N_UIDS]; } Bench;

#define ALIGN(n) (((n) + 255) & ~(gsize) 255)

/* One allocation for all tensors and the largest workspace.  Bytes 0x3c make ordinary numbers in every float format: 0.011 in f32, 1.06 in f16, 0.011 in bf16; places in windows are the first. */
static gboolean
bench_open (Bench *b, const CudaDnnGraph *graph, CudaDnnPlan *const *plans, guint n)
{
  gsize offset[DNN_MAX_TENSORS], total = 0, workspace = 0;
  for (gint32 i = 0; i < graph->n_tensors; i++)
    {
      offset[i] = total;
      total += graph->tensor[i].kind == DNN_TENSOR_BOUND ? ALIGN (dnn_tensor_bytes (&graph->tensor[i])) : 0;
    }
  for (guint i = 0; i < n; i++)
    workspace = MAX (workspace, cuda_dnn_workspace (plans[i]));
  gboolean ok = cudaMalloc (&b->memory, total + workspace + 256) == cudaSuccess && cudaMemset (b->memory, 0x3c, total + workspace) == cudaSuccess
                && cudaStreamCreateWithFlags (&b->stream, cudaStreamNonBlocking) == cudaSuccess && cudaEventCreate (&b->start) == cudaSuccess && cudaEventCreate (&b->stop) == cudaSuccess
                && cudaDeviceSynchronize () == cudaSuccess;
  for (gint32 i = 0; ok && i < graph->n_tensors; i++)
    if (graph->tensor[i].kind == DNN_TENSOR_BOUND)
      {
        const DnnTensor *t = &graph->tensor[i];
        b->pointers[t->uid] = (char *) b->memory + offset[i];
        ok = t->dtype != DNN_DTYPE_I8 || cudaMemsetAsync (b->pointers[t->uid], 0, dnn_tensor_bytes (t), b->stream) == cudaSuccess;
      }
  b->workspace = (char *) b->memory + total;
  return ok;
}

static void
bench_close (Bench *b)
{
  if (b->start)
    cudaEventDestroy (b->start);
  if (b->stop)
    cudaEventDestroy (b->stop);
  if (b->stream)
    {
      cudaStreamSynchronize (b->stream);
      cudaStreamDestroy (b->stream);
    }
  cudaFree (b->memory);
  cudaGetLastError ();                 /* a refused cudaMalloc () is no failure of the run */
  b->dnn->stream = NULL;
  cudnnSetStream (b->dnn->handle, NULL);
}

/* Milliseconds of N runs; below 0: it does not run. */
static float
sample (Bench *b, CudaDnnPlan *plan, guint n)
{
  float ms = -1;
  gboolean ok = cudaEventRecord (b->start, b->stream) == cudaSuccess;
  for (guint i = 0; ok && i < n; i++)
    ok = cuda_dnn_run (b->dnn, plan, b->stream, b->pointers, b->workspace, NULL);
  ok = ok && cudaEventRecord (b->stop, b->stream) == cudaSuccess && cudaEventSynchronize (b->stop) == cudaSuccess;
  return ok && cudaEventElapsedTime (&ms, b->start, b->stop) == cudaSuccess ? ms : -1;
}

static double
microseconds (Bench *b, CudaDnnPlan *plan)
{
  guint n = 1;
  float ms = sample (b, plan, 1);      /* loads the kernels */
  for (ms = ms < 0 ? ms : sample (b, plan, n); ms >= 0 && ms < SAMPLE_MS && n < MOST_RUNS; ms = sample (b, plan, n))
    n *= 2;
  for (guint i = 0; i < 2 && ms >= 0; i++)
    {
      float again = sample (b, plan, n);
      ms = again < 0 ? again : MIN (ms, again);
    }
  return ms < 0 ? -1 : ms * 1000.0 / n;
}

gint
dnn_fastest (CudaDnn *dnn, const CudaDnnGraph *graph, CudaDnnPlan *const *plans, guint n, double *us, GError **error)
{
  Bench b = { .dnn = dnn };
  gint best = 0;
  *us = 0;
  if (bench_open (&b, graph, plans, n))
    for (guint i = 0; i < n; i++)
      {
        double t = microseconds (&b, plans[i]);
        if (t > 0 && (*us == 0 || t < *us))
          {
            best = (gint) i;
            *us = t;
          }
      }
  bench_close (&b);
  cudaError_t status = cudaDeviceSynchronize ();
  if (status != cudaSuccess)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "timing cuDNN's candidates for %s: %s\nhint: run without cudnn_benchmark", graph->name, cudaGetErrorString (status));
  return status == cudaSuccess ? best : -1;
}
