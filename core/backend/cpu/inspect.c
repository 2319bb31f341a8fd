/* cpu/inspect.c: what people may see of a plan: when its steps ran, what its arena holds, which layouts it converts.  Must not change how it runs. */
#include "cpu.h"
#include "tensor/tensors.h"

#define PLAN(p) ((CpuPlan *) (p))

/* ---- steps ---- */

/* A conversion belongs to the operation it is made for: the next one. */
static const HeddleOp *
op_of (const CpuPlan *plan, guint i)
{
  const HeddleOp *op = NULL;
  for (guint k = i; !op && k < plan->steps->len; k++)
    op = ((const Step *) plan->steps->pdata[k])->op;
  for (guint k = i; !op && k-- > 0;)
    op = ((const Step *) plan->steps->pdata[k])->op;
  return op;
}

gboolean
cpu_plan_step (HeddlePlan *base, guint i, HeddlePlanStep *step)
{
  const CpuPlan *plan = PLAN (base);
  gboolean there = i < plan->steps->len;
  if (there)
    {
      const Step *s = plan->steps->pdata[i];
      *step = (HeddlePlanStep) { .op = op_of (plan, i), .what = s->what, .conversion = s->op == NULL, .start = s->start, .end = s->end };
    }
  return there;
}

void
cpu_plan_timing (HeddlePlan *base, gboolean on)
{
  PLAN (base)->timed = on || PLAN (base)->profile;
}

/* ---- the arena ---- */

static void
owner_clear (gpointer data)
{
  g_free (((Owner *) data)->form);
}

static void
note_form (CpuPlan *plan, const HeddleValue *v, guint i, const Operand *o)
{
  Owner *owner = o->where == IN_ARENA && o->buffer < plan->owners->len ? &g_array_index (plan->owners, Owner, o->buffer) : NULL;
  if (owner && !owner->value)
    {
      g_autofree char *layout = cpu_layout_name (plan->device, o->layout);
      owner->value = v;
      owner->form = i == 0 ? g_strdup ("") : g_strdup_printf ("as %s %s", heddle_dtype_name (o->dtype), layout);
    }
}

void
cpu_note_owners (CpuCompiler *c)
{
  CpuPlan *plan = c->plan;
  plan->owners = g_array_sized_new (FALSE, TRUE, sizeof (Owner), plan->buffers->len);
  g_array_set_clear_func (plan->owners, owner_clear);
  g_array_set_size (plan->owners, plan->buffers->len);
  for (guint v = 0; v < plan->program->values->len; v++)
    for (guint i = 0; c->forms[v] && i < c->forms[v]->len; i++)
      note_form (plan, plan->program->values->pdata[v], i, &g_array_index (c->forms[v], Operand, i));
}

static gboolean
uses (const Step *step, guint buffer)
{
  gboolean found = FALSE;
  for (guint i = 0; i < step->n_in; i++)
    found |= step->in[i].where == IN_ARENA && step->in[i].buffer == buffer;
  for (guint i = 0; i < step->n_out; i++)
    found |= step->out[i].where == IN_ARENA && step->out[i].buffer == buffer;
  return found;
}

/* The kernel that a region without a value works for. */
static const char *
scratch_of (const CpuPlan *plan, guint buffer)
{
  const char *what = "scratch";
  for (guint i = plan->steps->len; i-- > 0;)
    if (uses (plan->steps->pdata[i], buffer))
      what = ((const Step *) plan->steps->pdata[i])->what;
  return what;
}

gboolean
cpu_plan_buffer (HeddlePlan *base, guint i, HeddlePlanBuffer *buffer)
{
  const CpuPlan *plan = PLAN (base);
  gboolean there = i < plan->buffers->len;
  if (there)
    {
      const HeddleRegion *b = &g_array_index (plan->buffers, HeddleRegion, i);
      const Owner *owner = &g_array_index (plan->owners, Owner, i);
      *buffer = (HeddlePlanBuffer) { .value = owner->value, .form = owner->value ? owner->form : scratch_of (plan, i), .offset = b->offset, .bytes = b->bytes, .first = b->first, .last = b->last };
    }
  return there;
}

/* ---- layouts ---- */

static void
append_operand (GString *text, const CpuPlan *plan, const Operand *o)
{
  const HeddleValue *v = o->where == IN_ARENA && o->buffer < plan->owners->len ? g_array_index (plan->owners, Owner, o->buffer).value : NULL;
  if (o->where == IN_VARIABLE)
    g_string_append (text, o->variable->name);
  else if (o->where == IN_INPUT)
    g_string_append_printf (text, "input %u", o->buffer);
  else if (v)
    g_string_append_printf (text, "%%%u", v->id);
  else
    g_string_append (text, "scratch");
}

GPtrArray *
cpu_plan_reorders (HeddlePlan *base)
{
  const CpuPlan *plan = PLAN (base);
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const Step *s = plan->steps->pdata[i];
      if (!s->op && s->n_in == 1 && s->n_out == 1 && !cpu_layout_equal (s->in[0].layout, s->out[0].layout))
        {
          const HeddleOp *op = op_of (plan, i);
          g_autofree char *from = cpu_layout_name (plan->device, s->in[0].layout), *to = cpu_layout_name (plan->device, s->out[0].layout);
          GString *text = g_string_new (NULL);
          append_operand (text, plan, &s->in[0]);
          g_string_append_printf (text, " %s -> %s, %" G_GSIZE_FORMAT " bytes, for %s", from, to, heddle_tensor_bytes (s->in[0].dtype, &s->in[0].shape), op ? op->name : "-");
          g_ptr_array_add (lines, g_string_free (text, FALSE));
        }
    }
  return lines;
}
