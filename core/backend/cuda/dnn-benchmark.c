/* cuda/dnn-benchmark.c: plans of one graph timed on the device, for flags.cudnn_benchmark.
 * Must not know how plans are proposed or kept. */
#include "dnn-private.h"
#include "timing.h"

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

typedef struct { Bench *bench; CudaDnnPlan *plan; } Candidate;

static gboolean
run_candidate (gpointer data)
{
  const Candidate *c = data;
  return cuda_dnn_run (c->bench->dnn, c->plan, c->bench->stream, c->bench->pointers, c->bench->workspace, NULL);
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
        Candidate c = { &b, plans[i] };
        double t = cuda_timing_microseconds (&(CudaTiming) { b.stream, b.start, b.stop, run_candidate, &c });
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
