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
        CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, operands[i].index);
        b->first = MIN (b->first, at);
        b->last = MAX (b->last, at);
      }
}

static void
name_peak (CudaPlan *plan)
{
  gsize best = 0;
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const CudaStep *step = plan->steps->pdata[i];
      gsize live = 0;
      for (guint j = 0; j < plan->buffers->len; j++)
        {
          const CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, j);
          live += b->first <= (gint) i && b->last >= (gint) i ? b->bytes : 0;
        }
      if (live > best)
        {
          best = live;
          plan->peak = step->op ? step->op->name : step->what;
        }
    }
}

static guint
root_of (const guint *same_as, guint buffer)
{
  while (same_as[buffer] != buffer)
    buffer = same_as[buffer];
  return buffer;
}

/* Results that take over the memory of what they are made from: SAME_AS[buffer] leads to the buffer whose place it gets, whose lifetime grows. */
static void
share_memory (const CudaPlan *plan, HeddleLifetime *lives, gsize *sizes, guint *same_as)
{
  for (guint i = 0; i < plan->buffers->len; i++)
    same_as[i] = i;
  for (guint i = 0; plan->device->flags.fusion && i < plan->sharing->len; i++)
    {
      const CudaSharing *s = &g_array_index (plan->sharing, CudaSharing, i);
      guint root = root_of (same_as, s->in);
      gboolean ends = lives[root].last == (gint) s->step, begins = lives[s->out].first == (gint) s->step && same_as[s->out] == s->out;
      if (ends && begins && root != s->out && sizes[s->out] <= sizes[root])
        {
          same_as[s->out] = root;
          lives[root].last = lives[s->out].last;
          sizes[s->out] = 0;
        }
    }
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
place_buffers (CudaPlan *plan)
{
  guint n = plan->buffers->len;
  g_autofree gsize *sizes = g_new (gsize, n + 1), *offsets = g_new0 (gsize, n + 1);
  g_autofree HeddleLifetime *lives = g_new (HeddleLifetime, n + 1);
  g_autofree guint *same_as = g_new (guint, n + 1);
  for (guint i = 0; i < n; i++)
    {
      const CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, i);
      sizes[i] = b->bytes;
      lives[i] = (HeddleLifetime) { b->first, b->last };
    }
  share_memory (plan, lives, sizes, same_as);
  plan->arena_bytes = heddle_memory_plan (sizes, lives, n, ALIGN, offsets);
  for (guint i = 0; i < n; i++)
    {
      CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, i);
      b->offset = offsets[root_of (same_as, i)];
      b->first += same_as[i] != i && b->first < b->last;      /* during that step the place still counts for what it takes over */
    }
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
  place_buffers (plan);
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
