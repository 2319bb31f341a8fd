/* cuda/run.c: plans run: inputs uploaded on a stream of their own, steps put on the compute stream or replayed as a graph.  Must not know what steps compute.
 * The host waits only where it must read something, or before it hands memory of a batch back whose copy is not done. */
#include "cuda.h"
#include "base/trace.h"
#include "ranges.h"
#include "tensor/tensors.h"

#include <string.h>

/* ---- what a plan needs before its first run ---- */

/* On the stream that reads them: cudaMemcpy () returns when it has read pageable memory, and nothing orders what is left of it before a stream that is not the legacy one's. */
static gboolean
upload_constants (CudaPlan *plan, GError **error)
{
  gsize n = plan->constants->len, faults = plan->faults->len;
  gboolean ok = TRUE;
  if (n && !plan->constant_memory)
    {
      plan->constant_memory = cuda_malloc (plan->device, n * sizeof (float), "a plan's constants", error);
      ok = plan->constant_memory && CUDA (cudaMemcpyAsync (plan->constant_memory, plan->constants->data, n * sizeof (float), cudaMemcpyHostToDevice, plan->device->compute), NULL, error);
    }
  if (ok && faults && !plan->fault_memory)
    {
      plan->fault_memory = cuda_malloc (plan->device, faults * sizeof (guint32), "a plan's faults", error);
      ok = plan->fault_memory && CUDA (cudaMemsetAsync (plan->fault_memory, 0, faults * sizeof (guint32), plan->device->compute), NULL, error);
    }
  return ok;
}

static gboolean
make_shadows (CudaPlan *plan, const GPtrArray *shadows, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < shadows->len; i++)
    {
      CudaShadow *s = shadows->pdata[i];
      if (!s->data)
        {
          g_autofree char *what = g_strdup_printf ("the %s copy of %s", heddle_dtype_name (s->dtype), s->flat->name);
          s->data = cuda_malloc (plan->device, cuda_shadow_bytes (s), what, error);
          ok = s->data && CUDA (cudaMemsetAsync (s->data, 0, cuda_shadow_bytes (s), plan->device->compute), NULL, error);
        }
    }
  return ok;
}

/* ---- inputs ---- */

/* The batch goes to the slot whose turn it is; the copy waits for the run that read the slot, the run for the copy. */
static gboolean
upload (CudaPlan *plan, const gpointer *inputs, GError **error)
{
  CudaDevice *device = plan->device;
  CudaSlot *slot = &device->slots[plan->slot];
  const GPtrArray *values = plan->program->inputs;
  gboolean ok = CUDA (cudaStreamWaitEvent (device->copy, slot->released, 0), NULL, error);
  for (guint i = 0; ok && i < values->len; i++)
    {
      const HeddleValue *v = values->pdata[i];
      ok = CUDA (cudaMemcpyAsync (slot->memory + plan->input_offset[i], inputs[i], heddle_tensor_bytes (v->dtype, &v->shape), cudaMemcpyHostToDevice, device->copy), NULL, error);
    }
  return ok && CUDA (cudaEventRecord (slot->uploaded, device->copy), NULL, error) && CUDA (cudaStreamWaitEvent (device->compute, slot->uploaded, 0), NULL, error);
}

/* The host's memory of the last run that had inputs may be written again when this returns.  That copy was put a whole step ago; it is waited for when the device is
 * behind, two runs at most, or the copy takes longer than the host's part of a step. */
static gboolean
wait_for_upload (CudaDevice *device, GError **error)
{
  gboolean ok = TRUE;
  if (device->pending)
    {
      cudaError_t status = cudaEventQuery (device->pending);
      if (status == cudaErrorNotReady)
        {
          gint64 from = heddle_trace_clock ();
          cudaGetLastError ();
          status = cudaEventSynchronize (device->pending);
          device->waited += (guint64) (heddle_trace_clock () - from);
        }
      ok = cuda_check (status, "cudaEventSynchronize", NULL, error);
      device->pending = NULL;
    }
  return ok;
}

/* ---- steps ---- */

static gboolean
put_step (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  queue->op = step->op;
  cuda_range_push (step->range);
  gboolean ok = step->run (plan, step, queue, error);
  cuda_range_pop (step->range);
  return ok;
}

static gboolean
put_steps (CudaPlan *plan, GError **error)
{
  CudaQueue queue = { .device = plan->device, .stream = plan->device->compute };
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < plan->steps->len; i++)
    ok = put_step (plan, plan->steps->pdata[i], &queue, error);
  return ok;
}

static gboolean
event_at (cudaEvent_t *event, cudaStream_t stream, GError **error)
{
  return (*event || CUDA (cudaEventCreate (event), NULL, error)) && CUDA (cudaEventRecord (*event, stream), NULL, error);
}

static gboolean
put_timed (CudaPlan *plan, GError **error)
{
  CudaQueue queue = { .device = plan->device, .stream = plan->device->compute };
  gboolean ok = cuda_settle (plan->device, error) && event_at (&plan->timed_from, queue.stream, error);
  plan->timed_at = heddle_trace_clock ();
  for (guint i = 0; ok && i < plan->steps->len; i++)
    {
      CudaStep *step = plan->steps->pdata[i];
      ok = event_at (&step->begin, queue.stream, error) && put_step (plan, step, &queue, error) && event_at (&step->finish, queue.stream, error);
    }
  return ok;
}

static void
drop_graphs (CudaPlan *plan)
{
  for (guint i = 0; i < CUDA_SLOTS; i++)
    if (plan->graphs[i])
      {
        cudaGraphExecDestroy (plan->graphs[i]);
        plan->graphs[i] = NULL;
      }
}

static gboolean
capture (CudaPlan *plan, guint slot, GError **error)
{
  cudaStream_t stream = plan->device->compute;
  cudaGraph_t graph = NULL;
  guint in_hand = plan->slot;
  gboolean ok = CUDA (cudaStreamBeginCapture (stream, cudaStreamCaptureModeThreadLocal), NULL, error);
  if (ok)
    {
      plan->slot = slot;
      ok = put_steps (plan, error);
      plan->slot = in_hand;
      cudaError_t status = cudaStreamEndCapture (stream, &graph);     /* also when a step failed: the stream must come out of capture */
      ok = ok && cuda_check (status, "cudaStreamEndCapture", NULL, error);
      ok = ok && CUDA (cudaGraphInstantiateWithFlags (&plan->graphs[slot], graph, 0), NULL, error);
      if (graph)
        cudaGraphDestroy (graph);
    }
  return ok;
}

/* One graph per slot, as the addresses of inputs are part of it. */
static gboolean
capture_all (CudaPlan *plan, GError **error)
{
  guint n = plan->program->inputs->len ? CUDA_SLOTS : 1;
  gboolean ok = TRUE;
  drop_graphs (plan);
  cuda_range_push ("capture");
  for (guint i = 0; ok && i < n; i++)
    ok = capture (plan, i, error);
  cuda_range_pop ("capture");
  plan->graph_epoch = plan->device->epoch;
  return ok;
}

/* Whatever a library or a driver will not have captured costs speed, not the run, unless the device itself is broken. */
static gboolean
capture_if_possible (CudaPlan *plan, GError **error)
{
  g_autoptr (GError) met = NULL;
  gboolean ok = capture_all (plan, &met);
  if (!ok)
    {
      drop_graphs (plan);
      cudaGetLastError ();
      plan->uncaptured = TRUE;
      ok = cuda_settle (plan->device, error);
    }
  if (ok && met)
    g_printerr ("heddle: \"%s\" does not become a CUDA graph, its steps are launched one by one: %s\n", plan->program->name, met->message);
  return ok;
}

/* The first run puts its steps one by one, so that libraries and the driver have made all that they make lazily before anything is captured. */
static gboolean
execute (CudaPlan *plan, GError **error)
{
  CudaDevice *device = plan->device;
  gboolean graphs = device->flags.cuda_graphs && !plan->timed && !plan->uncaptured && plan->steps->len > 0, first = plan->runs == 0;
  gboolean ok = TRUE;
  if (plan->timed)
    ok = put_timed (plan, error);
  else if (first || !graphs)
    ok = put_steps (plan, error);
  if (ok && graphs && (!plan->graphs[0] || plan->graph_epoch != device->epoch))
    ok = capture_if_possible (plan, error);
  if (ok && graphs && !first && plan->uncaptured)
    ok = put_steps (plan, error);
  else if (ok && graphs && !first)
    ok = CUDA (cudaGraphLaunch (plan->graphs[plan->program->inputs->len ? plan->slot : 0], device->compute), NULL, error);
  return ok;
}

/* ---- 16-bit copies ---- */

static gboolean
refresh (CudaPlan *plan, GError **error)
{
  CudaQueue queue = { .device = plan->device, .stream = plan->device->compute };
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < plan->reads->len; i++)
    {
      CudaShadow *s = plan->reads->pdata[i];
      if (s->stale)
        ok = cuda_convert (&queue, s->data, s->dtype, s->flat->data, s->flat->dtype, heddle_shape_count (&s->flat->shape), error);
      s->stale &= !ok;
    }
  return ok;
}

static void
make_stale (CudaPlan *plan)
{
  for (guint i = 0; i < plan->device->shadows->len; i++)
    {
      CudaShadow *s = plan->device->shadows->pdata[i];
      s->stale |= g_ptr_array_find (plan->writes, s->flat, NULL) && !g_ptr_array_find (plan->refreshes, s, NULL);
    }
}

/* ---- running ---- */

/* A later plan may have failed for want of memory when it had given back what was there. */
static gboolean
has_memory (const CudaPlan *plan, GError **error)
{
  gboolean ok = plan->device->arena_bytes >= plan->arena_bytes && plan->device->slot_bytes >= plan->input_bytes;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: program \"%s\" has no memory any more: another program ran out of it\nhint: a smaller batch, or one program fewer", plan->device->base.name,
                 plan->program->name);
  return ok;
}

gboolean
cuda_run (HeddlePlan *base, const gpointer *inputs, GError **error)
{
  CudaPlan *plan = (CudaPlan *) base;
  CudaDevice *device = plan->device;
  gboolean feeds = plan->program->inputs->len > 0;
  CudaSlot *slot = &device->slots[device->turn];
  plan->slot = device->turn;
  plan->fetched = FALSE;
  gboolean ok = cuda_use (device, error) && has_memory (plan, error) && (plan->runs || (upload_constants (plan, error) && make_shadows (plan, plan->reads, error) && make_shadows (plan, plan->refreshes, error)));
  ok = ok && (!feeds || upload (plan, inputs, error)) && refresh (plan, error) && execute (plan, error);
  ok = ok && (!feeds || (CUDA (cudaEventRecord (slot->released, device->compute), NULL, error) && wait_for_upload (device, error)));
  if (ok && feeds)
    {
      device->pending = slot->uploaded;
      device->turn = (device->turn + 1) % CUDA_SLOTS;
    }
  if (ok)
    make_stale (plan);
  plan->runs += ok;
  return ok;
}

/* ---- what the host reads ---- */

gpointer
cuda_staging (CudaDevice *device, gsize bytes, GError **error)
{
  if (device->staging_bytes < bytes)
    {
      void *memory = NULL;
      gsize size = MAX (bytes, 65536);
      if (CUDA (cudaHostAlloc (&memory, size, cudaHostAllocDefault), NULL, error))
        {
          cudaFreeHost (device->staging);
          device->staging = memory;
          device->staging_bytes = size;
          device->allocations++;
        }
    }
  return device->staging_bytes >= bytes ? device->staging : NULL;
}

/* The first fault found in WORDS; they are cleared on the device. */
static gboolean
look_at_faults (CudaPlan *plan, GError **error)
{
  gsize n = plan->faults->len;
  g_autofree guint32 *words = g_new0 (guint32, n + 1);
  gboolean ok = CUDA (cudaMemcpy (words, plan->fault_memory, n * sizeof *words, cudaMemcpyDeviceToHost), NULL, error);
  for (gsize i = 0; ok && i < n; i++)
    if (words[i])
      {
        const CudaFault *f = &g_array_index (plan->faults, CudaFault, i);
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s \"%s\": %s, at position %u", f->op->info->name, f->op->name, f->what, words[i] - 1);
        cudaMemsetAsync (plan->fault_memory, 0, n * sizeof *words, plan->device->compute);
        ok = FALSE;
      }
  return ok;
}

gboolean
cuda_settle (CudaDevice *device, GError **error)
{
  gboolean ok = CUDA (cudaStreamSynchronize (device->copy), NULL, error) && CUDA (cudaStreamSynchronize (device->compute), NULL, error);
  device->syncs++;
  device->pending = NULL;
  for (guint i = 0; ok && i < device->plans->len; i++)
    {
      CudaPlan *plan = device->plans->pdata[i];
      ok = !plan->fault_memory || look_at_faults (plan, error);
      plan->looked = plan->runs;
    }
  return ok;
}

gboolean
cuda_sync (HeddleDevice *base, GError **error)
{
  CudaDevice *device = (CudaDevice *) base;
  return cuda_use (device, error) && cuda_settle (device, error);
}

/* ---- what the host reads without waiting ---- */

/* The words of plans that have run since they were last looked at; those that find no room are looked at with the next wait. */
static gboolean
mail_faults (CudaDevice *device, guint mail, GError **error)
{
  gboolean ok = TRUE;
  guint used = 0;
  for (guint i = 0; ok && i < device->plans->len; i++)
    {
      CudaPlan *plan = device->plans->pdata[i];
      if (plan->fault_memory && plan->looked != plan->runs && used + plan->faults->len <= CUDA_FAULTS)
        {
          ok = CUDA (cudaMemcpyAsync (device->mails[mail].fault + used, plan->fault_memory, plan->faults->len * sizeof (guint32), cudaMemcpyDeviceToHost, device->compute), NULL, error);
          used += plan->faults->len;
          plan->looked = plan->runs;
        }
    }
  device->mail_faults[mail] = used;
  return ok;
}

gboolean
cuda_snapshot (HeddleDevice *base, HeddleSnapshot *snapshot, GError **error)
{
  CudaDevice *device = (CudaDevice *) base;
  guint mail = (guint) (device->tickets % CUDA_MAILS);
  gboolean ok = cuda_use (device, error);
  snapshot->ticket = device->tickets++;
  for (guint i = 0; ok && i < snapshot->n; i++)
    ok = CUDA (cudaMemcpyAsync (&device->mails[mail].value[i], snapshot->variable[i]->data, sizeof (float), cudaMemcpyDeviceToHost, device->compute), NULL, error);
  return ok && mail_faults (device, mail, error) && CUDA (cudaEventRecord (device->delivered[mail], device->compute), NULL, error);
}

/* Words that are not 0 are read again with a wait, which tells whose they are. */
static gboolean
open_mail (CudaDevice *device, HeddleSnapshot *snapshot, GError **error)
{
  guint mail = (guint) (snapshot->ticket % CUDA_MAILS);
  gboolean fault = FALSE;
  memcpy (snapshot->value, device->mails[mail].value, snapshot->n * sizeof (float));
  for (guint i = 0; i < device->mail_faults[mail]; i++)
    fault |= device->mails[mail].fault[i] != 0;
  snapshot->arrived = TRUE;
  return !fault || cuda_settle (device, error);
}

gboolean
cuda_arrive (HeddleDevice *base, HeddleSnapshot *snapshot, gboolean wait, GError **error)
{
  CudaDevice *device = (CudaDevice *) base;
  gboolean ok = cuda_use (device, error);
  if (ok && device->tickets - snapshot->ticket > CUDA_MAILS)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "a snapshot older than the last %d", CUDA_MAILS);
      ok = FALSE;
    }
  if (ok)
    {
      cudaError_t status = cudaEventQuery (device->delivered[snapshot->ticket % CUDA_MAILS]);
      gboolean late = status == cudaErrorNotReady;
      if (late)
        cudaGetLastError ();
      ok = (late || cuda_check (status, "cudaEventQuery", NULL, error)) && (!late || !wait || cuda_settle (device, error));
      if (ok && (wait || !late))
        ok = open_mail (device, snapshot, error);
    }
  return ok;
}

/* SRC (of DTYPE, in LAYOUT) to row-major DST. */
static void
to_rows (const HeddleShape *s, CudaLayout layout, gsize size, const char *src, char *dst)
{
  gint64 from[HEDDLE_MAX_RANK] = { 0 }, at = 0;
  cuda_strides (s, layout, from);
  for (gint64 n = 0; n < s->size[0]; n++)
    for (gint64 c = 0; c < s->size[1]; c++)
      for (gint64 h = 0; h < s->size[2]; h++)
        for (gint64 w = 0; w < s->size[3]; w++)
          memcpy (dst + (gsize) at++ * size, src + (gsize) (n * from[0] + c * from[1] + h * from[2] + w * from[3]) * size, size);
}

static void
deliver (const CudaOperand *o, const char *numbers, HeddleTensor *tensor)
{
  gsize n = (gsize) heddle_shape_count (&o->shape), size = heddle_dtype_size (o->dtype);
  if (cuda_same_bytes (o->layout, CUDA_ROWS, &o->shape))
    heddle_convert (tensor->dtype, tensor->data, o->dtype, numbers, n);
  else
    {
      g_autofree char *rows = g_malloc (n * size);
      to_rows (&o->shape, o->layout, size, numbers, rows);
      heddle_convert (tensor->dtype, tensor->data, o->dtype, rows, n);
    }
}

/* Losses and metrics: all of them in one wait, whichever is asked for first. */
static gboolean
fetch_small (CudaPlan *plan, GError **error)
{
  CudaDevice *device = plan->device;
  guint n = plan->program->outputs->len;
  char *staging = cuda_staging (device, (gsize) n * CUDA_SMALL, error);
  gboolean ok = staging != NULL;
  for (guint i = 0; ok && i < n; i++)
    {
      const CudaOperand *o = &plan->outputs[i];
      if (cuda_bytes (o) <= CUDA_SMALL)
        ok = CUDA (cudaMemcpyAsync (staging + i * CUDA_SMALL, cuda_pointer (plan, o), cuda_bytes (o), cudaMemcpyDeviceToHost, device->compute), NULL, error);
    }
  ok = ok && cuda_settle (device, error);
  if (ok)
    memcpy (plan->numbers, staging, (gsize) n * CUDA_SMALL);
  plan->fetched = ok;
  return ok;
}

static gboolean
fetch_large (CudaPlan *plan, const CudaOperand *o, HeddleTensor *tensor, GError **error)
{
  CudaDevice *device = plan->device;
  char *staging = cuda_staging (device, cuda_bytes (o), error);
  gboolean ok = staging && CUDA (cudaMemcpyAsync (staging, cuda_pointer (plan, o), cuda_bytes (o), cudaMemcpyDeviceToHost, device->compute), NULL, error) && cuda_settle (device, error);
  if (ok)
    deliver (o, staging, tensor);
  return ok;
}

gboolean
cuda_fetch (HeddlePlan *base, guint index, HeddleTensor *tensor, GError **error)
{
  CudaPlan *plan = (CudaPlan *) base;
  const CudaOperand *o = &plan->outputs[index];
  gboolean ok = index < plan->program->outputs->len && heddle_shape_count (&o->shape) == heddle_shape_count (&tensor->shape);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "output %u has another number of elements", index);
  else if (!cuda_use (plan->device, error))
    ok = FALSE;
  else if (cuda_bytes (o) > CUDA_SMALL)
    ok = fetch_large (plan, o, tensor, error);
  else if ((ok = plan->fetched || fetch_small (plan, error)))
    deliver (o, plan->numbers + index * CUDA_SMALL, tensor);
  return ok;
}

/* ---- the end ---- */

void
cuda_plan_drop (CudaPlan *plan)
{
  cuda_use (plan->device, NULL);
  cudaStreamSynchronize (plan->device->compute);
  drop_graphs (plan);
  for (guint i = 0; i < plan->steps->len; i++)
    {
      CudaStep *step = plan->steps->pdata[i];
      if (step->begin)
        cudaEventDestroy (step->begin);
      if (step->finish)
        cudaEventDestroy (step->finish);
    }
  if (plan->timed_from)
    cudaEventDestroy (plan->timed_from);
  cudaFree (plan->constant_memory);
  cudaFree (plan->fault_memory);
}
