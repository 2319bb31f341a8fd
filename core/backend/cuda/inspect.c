/* cuda/inspect.c: what people may see of a plan: when its steps ran, what its arena holds, which layouts it converts.  Must not change how it runs. */
#include "cuda.h"
#include "base/trace.h"
#include "tensor/tensors.h"

#define PLAN(p) ((CudaPlan *) (p))

/* ---- steps ---- */

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

static gint64
moment (const CudaPlan *plan, cudaEvent_t event)
{
  float ms = 0;
  return event && cudaEventElapsedTime (&ms, plan->timed_from, event) == cudaSuccess ? plan->timed_at + (gint64) ((double) ms * 1e6) : 0;
}

/* Events carry the device's clock; the host's is read where the device was known to be idle. */
static void
take_times (CudaPlan *plan)
{
  if (plan->timed_at && cuda_use (plan->device, NULL) && cuda_settle (plan->device, NULL))
    for (guint i = 0; i < plan->steps->len; i++)
      {
        CudaStep *step = plan->steps->pdata[i];
        step->start = moment (plan, step->begin);
        step->end = moment (plan, step->finish);
      }
  plan->timed_at = 0;
}

gboolean
cuda_plan_step (HeddlePlan *base, guint i, HeddlePlanStep *step)
{
  CudaPlan *plan = PLAN (base);
  gboolean there = i < plan->steps->len;
  take_times (plan);
  if (there)
    {
      const CudaStep *s = plan->steps->pdata[i];
      *step = (HeddlePlanStep) { .op = op_of (plan, i), .what = s->what, .conversion = s->op == NULL, .chosen = s->chosen, .start = s->start, .end = s->end };
    }
  return there;
}

void
cuda_plan_timing (HeddlePlan *base, gboolean on)
{
  PLAN (base)->timed = on;
}

/* ---- memory ---- */

void
cuda_plan_memory (HeddlePlan *base, HeddleMemory *memory)
{
  CudaPlan *plan = PLAN (base);
  HeddleVariables *vars = plan->program->vars;
  *memory = (HeddleMemory) { .arena = plan->arena_bytes + CUDA_SLOTS * plan->input_bytes, .peak = plan->peak };
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      const HeddleVariable *v = heddle_variables_nth (vars, i);
      gsize bytes = v->flat ? 0 : heddle_tensor_bytes (v->dtype, &v->shape);
      gsize *owner = v->role == HEDDLE_ROLE_PARAM ? &memory->params : v->role == HEDDLE_ROLE_GRAD ? &memory->grads : v->role == HEDDLE_ROLE_SLOT ? &memory->slots : &memory->states;
      *owner += bytes;
    }
  for (guint i = 0; i < plan->device->shadows->len; i++)
    memory->params += cuda_shadow_bytes (plan->device->shadows->pdata[i]);
}

static const char *
layout_name (CudaLayout layout)
{
  static const char *const names[] = { [CUDA_ROWS] = "rows", [CUDA_CHANNELS_LAST] = "nhwc", [CUDA_HEADS] = "heads inside", [CUDA_PADDED] = "padded", [CUDA_SIGNS] = "signs" };
  return names[layout];
}

static void
owner_clear (gpointer data)
{
  g_free (((CudaOwner *) data)->form);
}

static void
note_form (CudaPlan *plan, const HeddleValue *v, guint i, const CudaOperand *o)
{
  CudaOwner *owner = o->where == CUDA_ARENA && o->index < plan->owners->len ? &g_array_index (plan->owners, CudaOwner, o->index) : NULL;
  if (owner && !owner->value)
    {
      owner->value = v;
      owner->form = i == 0 ? g_strdup ("") : g_strdup_printf ("as %s %s", heddle_dtype_name (o->dtype), layout_name (o->layout));
    }
}

void
cuda_note_owners (CudaCompiler *c)
{
  CudaPlan *plan = c->plan;
  plan->owners = g_array_sized_new (FALSE, TRUE, sizeof (CudaOwner), plan->buffers->len);
  g_array_set_clear_func (plan->owners, owner_clear);
  g_array_set_size (plan->owners, plan->buffers->len);
  for (guint v = 0; v < plan->program->values->len; v++)
    for (guint i = 0; c->forms[v] && i < c->forms[v]->len; i++)
      note_form (plan, plan->program->values->pdata[v], i, &g_array_index (c->forms[v], CudaOperand, i));
}

static gboolean
among (const CudaOperand *operands, guint n, guint buffer)
{
  gboolean found = FALSE;
  for (guint i = 0; i < n; i++)
    found |= operands[i].where == CUDA_ARENA && operands[i].index == buffer;
  return found;
}

/* The kernel that a region without a value works for. */
static const char *
scratch_of (const CudaPlan *plan, guint buffer)
{
  const char *what = "scratch";
  for (guint i = plan->steps->len; i-- > 0;)
    {
      const CudaStep *s = plan->steps->pdata[i];
      if (among (s->in, s->n_in, buffer) || among (s->out, s->n_out, buffer) || among (s->scratch, s->n_scratch, buffer))
        what = s->what;
    }
  return what;
}

gboolean
cuda_plan_buffer (HeddlePlan *base, guint i, HeddlePlanBuffer *buffer)
{
  const CudaPlan *plan = PLAN (base);
  gboolean there = i < plan->buffers->len;
  if (there)
    {
      const HeddleRegion *b = &g_array_index (plan->buffers, HeddleRegion, i);
      const CudaOwner *owner = &g_array_index (plan->owners, CudaOwner, i);
      *buffer = (HeddlePlanBuffer) { .value = owner->value, .form = owner->value ? owner->form : scratch_of (plan, i), .offset = b->offset, .bytes = b->bytes, .first = b->first, .last = b->last };
    }
  return there;
}

/* ---- layouts ---- */

static void
append_operand (GString *text, const CudaPlan *plan, const CudaOperand *o)
{
  const HeddleValue *v = o->where == CUDA_ARENA && o->index < plan->owners->len ? g_array_index (plan->owners, CudaOwner, o->index).value : NULL;
  if (o->where == CUDA_VARIABLE || o->where == CUDA_SHADOW)
    g_string_append (text, o->variable->name);
  else if (o->where == CUDA_INPUT)
    g_string_append_printf (text, "input %u", o->index);
  else if (v)
    g_string_append_printf (text, "%%%u", v->id);
  else
    g_string_append (text, "scratch");
}

GPtrArray *
cuda_plan_reorders (HeddlePlan *base)
{
  const CudaPlan *plan = PLAN (base);
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const CudaStep *s = plan->steps->pdata[i];
      if (!s->op && s->n_in == 1 && s->n_out == 1 && s->in[0].layout != s->out[0].layout)
        {
          const HeddleOp *op = op_of (plan, i);
          GString *text = g_string_new (NULL);
          append_operand (text, plan, &s->in[0]);
          g_string_append_printf (text, " %s -> %s, %" G_GSIZE_FORMAT " bytes, for %s", layout_name (s->in[0].layout), layout_name (s->out[0].layout), cuda_bytes (&s->in[0]), op ? op->name : "-");
          g_ptr_array_add (lines, g_string_free (text, FALSE));
        }
    }
  return lines;
}

/* ---- descriptions ---- */

static const char *
kernel_of (const CudaPlan *plan, const HeddleOp *op)
{
  const char *what = NULL;
  for (guint i = 0; !what && i < plan->steps->len; i++)
    {
      const CudaStep *s = plan->steps->pdata[i];
      what = s->op == op ? s->what : NULL;
    }
  return what;
}

void
cuda_describe (CudaCompiler *c)
{
  CudaPlan *plan = c->plan;
  plan->described = g_new0 (char *, plan->program->ops->len + 1);
  for (guint i = 0; i < plan->program->ops->len; i++)
    {
      const HeddleOp *op = plan->program->ops->pdata[i];
      const GArray *forms = op->n_out ? c->forms[op->out[0]->id] : NULL;
      const CudaOperand *o = forms && forms->len ? &g_array_index (forms, CudaOperand, 0) : NULL;
      const char *what = kernel_of (plan, op);
      GString *text = g_string_new (o && o->layout != CUDA_ROWS ? layout_name (o->layout) : "");
      if (o && o->where == CUDA_ARENA)
        g_string_append_printf (text, " @%" G_GSIZE_FORMAT, g_array_index (plan->buffers, HeddleRegion, o->index).offset);
      else if (o && o->where == CUDA_VARIABLE)
        g_string_append_printf (text, " in %s", o->variable->name);
      else if (o && o->where == CUDA_SHADOW)
        g_string_append_printf (text, " copy of %s", o->variable->name);
      if (what)
        g_string_append_printf (text, "%s%s", text->len ? " " : "", what);
      plan->described[i] = g_strchug (g_string_free (text, FALSE));
    }
}

char *
cuda_plan_describe (HeddlePlan *base, guint op)
{
  return g_strdup (PLAN (base)->described[op]);
}
