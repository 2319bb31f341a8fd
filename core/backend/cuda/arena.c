/* cuda/arena.c: where each buffer of a plan lies: lifetimes, memory taken over, the device's one arena.  Must not know operations. */
#include "cuda.h"
#include "tensor/tensors.h"

#define ALIGN 256       /* what cudaMalloc promises, and what vector loads and tensor cores like */

static void
touch (CudaPlan *plan, const CudaOperand *operands, guint n, gint at)
{
  for (guint i = 0; i < n; i++)
    if (operands[i].where == CUDA_ARENA)
      {
        HeddleRegion *b = &g_array_index (plan->buffers, HeddleRegion, operands[i].index);
        b->first = MIN (b->first, at);
        b->last = MAX (b->last, at);
      }
}

static void
name_peak (CudaPlan *plan)
{
  gint at = heddle_memory_peak ((const HeddleRegion *) plan->buffers->data, plan->buffers->len, plan->steps->len);
  const CudaStep *step = at >= 0 ? plan->steps->pdata[at] : NULL;
  if (step)
    plan->peak = step->op ? step->op->name : step->what;
}

static void
find_lifetimes (CudaPlan *plan)
{
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const CudaStep *step = plan->steps->pdata[i];
      touch (plan, step->in, step->n_in, (gint) i);
      touch (plan, step->out, step->n_out, (gint) i);
      touch (plan, step->scratch, step->n_scratch, (gint) i);
    }
  touch (plan, plan->outputs, plan->program->outputs->len, (gint) plan->steps->len);
}

static void
place_inputs (CudaPlan *plan)
{
  const GPtrArray *inputs = plan->program->inputs;
  for (guint i = 0; i < inputs->len; i++)
    {
      const HeddleValue *v = inputs->pdata[i];
      plan->input_offset[i] = plan->input_bytes;
      plan->input_bytes += (heddle_tensor_bytes (v->dtype, &v->shape) + ALIGN - 1) / ALIGN * ALIGN;
    }
}

/* Memory that was too small is given back before the larger is asked for; graphs that point to it are made anew. */
static gboolean
grow (CudaDevice *device, char **memory, gsize bytes, const char *what, GError **error)
{
  cudaFree (*memory);
  device->epoch++;
  *memory = cuda_malloc (device, bytes, what, error);
  return *memory != NULL;
}

/* Plans of one device take turns, so the largest need is enough for all. */
gboolean
cuda_place (CudaPlan *plan, GError **error)
{
  CudaDevice *device = plan->device;
  gboolean ok = TRUE;
  find_lifetimes (plan);
  plan->arena_bytes = heddle_memory_place ((HeddleRegion *) plan->buffers->data, plan->buffers->len, (const HeddleTakeOver *) plan->sharing->data,
                                           device->flags.fusion ? plan->sharing->len : 0, ALIGN);
  place_inputs (plan);
  name_peak (plan);
  if (device->arena_bytes < plan->arena_bytes)
    {
      g_autofree char *what = g_strdup_printf ("the arena of \"%s\", fullest at \"%s\",", plan->program->name, plan->peak);
      ok = cuda_settle (device, error) && grow (device, &device->arena, plan->arena_bytes, what, error);
      device->arena_bytes = ok ? plan->arena_bytes : 0;
    }
  if (ok && device->slot_bytes < plan->input_bytes)
    {
      g_autofree char *what = g_strdup_printf ("a batch of \"%s\"", plan->program->name);
      ok = cuda_settle (device, error);
      for (guint i = 0; ok && i < CUDA_SLOTS; i++)
        ok = grow (device, &device->slots[i].memory, plan->input_bytes, what, error);
      device->slot_bytes = ok ? plan->input_bytes : 0;
    }
  return ok;
}
