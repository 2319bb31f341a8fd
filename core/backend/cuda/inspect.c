/* cuda/inspect.c: what people may see of a plan: memory by owner, steps with their times, the arena.  Must not change how it runs. */
#include "cuda.h"
#include "base/trace.h"
#include "tensor/tensors.h"

#define PLAN(p) ((CudaPlan *) (p))

void
cuda_plan_memory (HeddlePlan *base, HeddleMemory *memory)
{
  CudaPlan *plan = PLAN (base);
  HeddleVariables *vars = plan->program->vars;
  *memory = (HeddleMemory) { .arena = plan->arena_bytes, .peak = plan->peak };
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      const HeddleVariable *v = heddle_variables_nth (vars, i);
      gsize bytes = v->flat ? 0 : heddle_tensor_bytes (v->dtype, &v->shape);
      gsize *owner = v->role == HEDDLE_ROLE_PARAM ? &memory->params : v->role == HEDDLE_ROLE_GRAD ? &memory->grads : v->role == HEDDLE_ROLE_SLOT ? &memory->slots : &memory->states;
      *owner += bytes;
    }
}

char *
cuda_plan_describe (HeddlePlan *base, guint op)
{
  return g_strdup (PLAN (base)->described[op]);
}

void
cuda_plan_timing (HeddlePlan *base, gboolean on)
{
  CudaPlan *plan = PLAN (base);
  plan->timed = on;
  for (guint i = 0; i < plan->steps->len; i++)
    {
      CudaStep *s = plan->steps->pdata[i];
      if (on && !s->begin && (cudaEventCreate (&s->begin) != cudaSuccess || cudaEventCreate (&s->end) != cudaSuccess))
        plan->timed = FALSE;      /* no events, no times: a run never fails because it is watched */
    }
}

/* A conversion belongs to the operation it is made for: the next one. */
static const HeddleOp *
op_of (const CudaPlan *plan, guint i)
{
  const HeddleOp *op = NULL;
  for (guint k = i; !op && k < plan->steps->len; k++)
    op = ((const CudaStep *) plan->steps->pdata[k])->op;
  for (guint k = i; !op && k-- > 0;)
    op = ((const CudaStep *) plan->steps->pdata[k])->op;
  return op;
}

/* Events know differences alone: times are placed so that the last step ends now. */
static void
read_times (const CudaPlan *plan, const CudaStep *s, HeddlePlanStep *step)
{
  const CudaStep *last = plan->steps->pdata[plan->steps->len - 1];
  float length = 0, before = 0;
  if (s->end && plan->runs && cudaEventSynchronize (last->end) == cudaSuccess && cudaEventElapsedTime (&length, s->begin, s->end) == cudaSuccess
      && cudaEventElapsedTime (&before, s->begin, last->end) == cudaSuccess)
    {
      gint64 now = heddle_trace_clock ();
      step->start = now - (gint64) ((double) before * 1e6);
      step->end = step->start + (gint64) ((double) length * 1e6);
    }
}

gboolean
cuda_plan_step (HeddlePlan *base, guint i, HeddlePlanStep *step)
{
  const CudaPlan *plan = PLAN (base);
  gboolean there = i < plan->steps->len;
  if (there)
    {
      const CudaStep *s = plan->steps->pdata[i];
      *step = (HeddlePlanStep) { .op = op_of (plan, i), .what = s->what, .conversion = s->op == NULL };
      read_times (plan, s, step);
    }
  return there;
}

static gboolean
uses (const CudaStep *step, guint buffer)
{
  gboolean found = FALSE;
  for (guint i = 0; i < step->n_in; i++)
    found |= step->in[i].where == CUDA_ARENA && step->in[i].buffer == buffer;
  for (guint i = 0; i < step->n_out; i++)
    found |= step->out[i].where == CUDA_ARENA && step->out[i].buffer == buffer;
  return found;
}

static const char *
scratch_of (const CudaPlan *plan, guint buffer)
{
  const char *what = "scratch";
  for (guint i = plan->steps->len; i-- > 0;)
    if (uses (plan->steps->pdata[i], buffer))
      what = ((const CudaStep *) plan->steps->pdata[i])->what;
  return what;
}

gboolean
cuda_plan_buffer (HeddlePlan *base, guint i, HeddlePlanBuffer *buffer)
{
  const CudaPlan *plan = PLAN (base);
  gboolean there = i < plan->buffers->len;
  if (there)
    {
      const CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, i);
      const HeddleValue *v = i < plan->owners->len ? plan->owners->pdata[i] : NULL;
      *buffer = (HeddlePlanBuffer) { .value = v, .form = v ? "" : scratch_of (plan, i), .offset = b->offset, .bytes = b->bytes, .first = b->first, .last = b->last };
    }
  return there;
}
