/* cuda/run.c: runs plans: inputs travel on a stream of their own into one of two places, the step's work is captured once and replayed as a graph.
 * Must not know what a step computes. */
#include "cuda.h"
#include "base/trace.h"
#include "tensor/tensors.h"

#define PLAN(p) ((CudaPlan *) (p))

/* ---- the steps ---- */

static gboolean
run_steps (CudaPlan *plan, gboolean timed, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < plan->steps->len; i++)
    {
      CudaStep *step = plan->steps->pdata[i];
      CudaQueue queue = { plan->device, plan->device->compute, step->op };
      ok = !timed || cuda_check (cudaEventRecord (step->begin, queue.stream), "cudaEventRecord", step->op, error);
      ok = ok && step->run (plan, step, &queue, error);
      ok = ok && (!timed || cuda_check (cudaEventRecord (step->end, queue.stream), "cudaEventRecord", step->op, error));
    }
  return ok;
}

/* ---- graphs: one for each place of the inputs, because their addresses are part of it ---- */

static gboolean
capture (CudaPlan *plan, cudaGraphExec_t *graph, GError **error)
{
  cudaGraph_t captured = NULL;
  gboolean ok = cuda_check (cudaStreamBeginCapture (plan->device->compute, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture", NULL, error);
  if (ok)
    {
      ok = run_steps (plan, FALSE, error);
      /* a capture that was begun is ended, whatever happened: else the stream stays unusable */
      ok = cuda_check (cudaStreamEndCapture (plan->device->compute, &captured), "cudaStreamEndCapture", NULL, ok ? error : NULL) && ok;
    }
  ok = ok && cuda_check (cudaGraphInstantiateWithFlags (graph, captured, 0), "cudaGraphInstantiateWithFlags", NULL, error);
  if (captured)
    cudaGraphDestroy (captured);
  return ok;
}

static void
drop_graphs (CudaPlan *plan)
{
  for (guint i = 0; i < 2; i++)
    {
      if (plan->graph[i])
        cudaGraphExecDestroy (plan->graph[i]);
      plan->graph[i] = NULL;
    }
}

/* The first run has been launched step by step, so that all code is loaded; what follows replays. */
static gboolean
make_graphs (CudaPlan *plan, GError **error)
{
  guint turn = plan->turn;
  gboolean ok = TRUE;
  drop_graphs (plan);
  for (guint i = 0; ok && i < 2; i++)
    {
      plan->turn = i;
      ok = capture (plan, &plan->graph[i], error);
    }
  plan->turn = turn;
  plan->graph_version = plan->device->arena_version;
  return ok;
}

static gboolean
launch (CudaPlan *plan, GError **error)
{
  CudaDevice *device = plan->device;
  gboolean replay = device->graphs && !plan->timed && plan->steps->len > 0, ok;
  if (replay && plan->graph[plan->turn] && plan->graph_version == device->arena_version)
    ok = cuda_check (cudaGraphLaunch (plan->graph[plan->turn], device->compute), "cudaGraphLaunch", NULL, error);
  else
    ok = run_steps (plan, plan->timed, error) && (!replay || make_graphs (plan, error));
  return ok;
}

/* ---- a run ---- */

static gboolean
upload (CudaPlan *plan, const gpointer *inputs, cudaEvent_t sent, GError **error)
{
  CudaDevice *device = plan->device;
  gboolean ok = cuda_check (cudaStreamWaitEvent (device->copy, plan->consumed[plan->turn], 0), "cudaStreamWaitEvent", NULL, error);
  for (guint i = 0; ok && i < plan->program->inputs->len; i++)
    {
      const HeddleValue *v = plan->program->inputs->pdata[i];
      ok = cuda_check (cudaMemcpyAsync (plan->staging[plan->turn] + plan->input_offset[i], inputs[i], heddle_tensor_bytes (v->dtype, &v->shape), cudaMemcpyHostToDevice, device->copy),
                       "cudaMemcpyAsync (batch)", NULL, error);
    }
  return ok && cuda_check (cudaEventRecord (sent, device->copy), "cudaEventRecord", NULL, error)
         && cuda_check (cudaStreamWaitEvent (device->compute, sent, 0), "cudaStreamWaitEvent", NULL, error);
}

/* The caller may now overwrite what the run before this one was given: its copy must be over.  It nearly always is. */
static gboolean
release_inputs (CudaDevice *device, cudaEvent_t sent, GError **error)
{
  cudaError_t code = cudaEventQuery (sent);
  if (code == cudaErrorNotReady)
    {
      gint64 start = heddle_trace_clock ();
      code = cudaEventSynchronize (sent);
      device->copy_ns += heddle_trace_clock () - start;
    }
  return cuda_check (code, "cudaEventSynchronize (batch)", NULL, error);
}

gboolean
cuda_plan_run (HeddlePlan *base, const gpointer *inputs, GError **error)
{
  CudaPlan *plan = PLAN (base);
  CudaDevice *device = plan->device;
  gboolean with_inputs = plan->program->inputs->len > 0, ok = TRUE;
  plan->turn ^= 1;
  device->last = plan;
  if (with_inputs)
    {
      device->sent_turn ^= 1;
      ok = upload (plan, inputs, device->sent[device->sent_turn], error);
    }
  ok = ok && launch (plan, error) && cuda_check (cudaEventRecord (plan->consumed[plan->turn], device->compute), "cudaEventRecord", NULL, error);
  ok = ok && (!with_inputs || release_inputs (device, device->sent[1 - device->sent_turn], error));
  plan->runs++;
  return ok;
}

/* ---- results ---- */

gboolean
cuda_plan_fetch (HeddlePlan *base, guint index, HeddleTensor *tensor, GError **error)
{
  CudaPlan *plan = PLAN (base);
  gboolean ok = index < plan->program->outputs->len && heddle_shape_count (&plan->outputs[index].shape) == heddle_shape_count (&tensor->shape);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "output %u has another number of elements", index);
  else
    {
      const CudaOperand *o = &plan->outputs[index];
      gsize n = (gsize) heddle_shape_count (&o->shape), bytes = heddle_tensor_bytes (o->dtype, &o->shape);
      gboolean swapped = o->order == CUDA_CHANNELS_LAST && o->shape.rank == 4;
      g_autofree char *host = g_malloc (MAX (bytes, 1)), *rows = swapped ? g_malloc (bytes) : NULL;
      ok = cuda_copy_out (plan->device, host, cuda_pointer (plan, o), bytes, error);
      if (ok && swapped)
        cuda_swap_order (&o->shape, heddle_dtype_size (o->dtype), TRUE, host, rows);
      if (ok)
        heddle_convert (tensor->dtype, tensor->data, o->dtype, rows ? rows : host, n);
    }
  return ok;
}
