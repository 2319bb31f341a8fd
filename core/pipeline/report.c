/* pipeline/report.c: what is known before the first step, as lines for people.  Must not know loggers. */
#include "pipeline/internal.h"

static void
append_bytes (GString *text, const char *name, gsize bytes)
{
  if (bytes >= 10 << 20)
    g_string_append_printf (text, "%s%s %.1f MiB", text->len && text->str[text->len - 1] != ' ' ? ", " : "", name, (double) bytes / 1048576);
  else
    g_string_append_printf (text, "%s%s %.0f KiB", text->len && text->str[text->len - 1] != ' ' ? ", " : "", name, (double) bytes / 1024);
}

void
heddle_pipeline_plans (HeddlePipeline *p, HeddlePlan *plans[7])
{
  for (guint i = 0; i < 4; i++)
    plans[i] = p->train[i / 2][i % 2].plan;
  plans[4] = p->update;
  plans[5] = p->eval[0].plan;
  plans[6] = p->eval[1].plan;
}

/* The plan whose arena is the largest: all share one. */
static HeddlePlan *
largest_plan (HeddlePipeline *p, HeddleMemory *memory)
{
  HeddlePlan *plans[7], *largest = NULL;
  HeddleMemory each;
  heddle_pipeline_plans (p, plans);
  for (guint i = 0; i < G_N_ELEMENTS (plans); i++)
    if (plans[i])
      {
        p->device->iface->memory (plans[i], &each);
        if (!largest || each.arena > memory->arena)
          {
            largest = plans[i];
            *memory = each;
          }
      }
  return largest;
}

void
heddle_pipeline_memory (HeddlePipeline *p, HeddlePipelineMemory *memory)
{
  HeddleMemory m = { 0 };
  largest_plan (p, &m);
  *memory = (HeddlePipelineMemory) { m.arena, m.params, m.grads, m.slots, m.states, heddle_loader_bytes (p->loader) + (p->eval_loader ? heddle_loader_bytes (p->eval_loader) : 0) };
}

/* ---- the arena, as planned ---- */

static int
by_bytes (const void *a, const void *b)
{
  const HeddlePlanBuffer *x = a, *y = b;
  return x->bytes != y->bytes ? (x->bytes > y->bytes ? -1 : 1) : x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int
by_life (const void *a, const void *b)
{
  const HeddlePlanBuffer *x = a, *y = b;
  return x->first != y->first ? x->first - y->first : x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* (transfer full) The regions that are ever used, HeddlePlanBuffer. */
static GArray *
buffers_of (HeddlePlan *plan)
{
  gboolean (*read) (HeddlePlan *, guint, HeddlePlanBuffer *) = HEDDLE_BACKEND_SLOT (plan->device, buffer);
  GArray *all = g_array_new (FALSE, FALSE, sizeof (HeddlePlanBuffer));
  HeddlePlanBuffer b;
  for (guint i = 0; read && read (plan, i, &b); i++)
    if (b.first <= b.last)
      g_array_append_val (all, b);
  return all;
}

/* (transfer full) What lives at the step where the arena is fullest, largest first. */
static GArray *
peak_of (const GArray *all, gint *at, gsize *bytes)
{
  GArray *live = g_array_new (FALSE, FALSE, sizeof (HeddlePlanBuffer));
  *bytes = 0;
  *at = -1;
  for (guint k = 0; k < all->len; k++)          /* the fullest step is one at which something begins */
    {
      gint step = g_array_index (all, HeddlePlanBuffer, k).first;
      gsize sum = 0;
      for (guint i = 0; i < all->len; i++)
        {
          const HeddlePlanBuffer *b = &g_array_index (all, HeddlePlanBuffer, i);
          sum += b->first <= step && step <= b->last ? b->bytes : 0;
        }
      if (sum > *bytes || (sum == *bytes && step < *at))
        {
          *bytes = sum;
          *at = step;
        }
    }
  for (guint i = 0; i < all->len; i++)
    {
      const HeddlePlanBuffer *b = &g_array_index (all, HeddlePlanBuffer, i);
      if (b->first <= *at && *at <= b->last)
        g_array_append_val (live, *b);
    }
  g_array_sort (live, by_bytes);
  return live;
}

static void
append_owner (GString *text, const HeddlePlanBuffer *b)
{
  const HeddleOp *op = b->value ? b->value->producer : NULL;
  if (b->value)
    g_string_append_printf (text, "%%%u%s%s%s%s", b->value->id, op && op->name && *op->name ? " " : "", op && op->name ? op->name : "", *b->form ? " " : "", b->form);
  else
    g_string_append_printf (text, "scratch of %s", b->form);
}

/* The number of the operation at STEP; past the end: the number of operations. */
static guint
op_at (HeddlePlan *plan, gint step)
{
  gboolean (*read) (HeddlePlan *, guint, HeddlePlanStep *) = HEDDLE_BACKEND_SLOT (plan->device, step);
  HeddlePlanStep s;
  return read && read (plan, (guint) step, &s) ? s.op->id : plan->device->iface->program (plan)->ops->len;
}

static void
print_arena (GString *text, HeddlePlan *plan)
{
  g_autoptr (GArray) all = buffers_of (plan);
  gint at;
  gsize bytes;
  g_autoptr (GArray) live = peak_of (all, &at, &bytes);
  g_array_sort (all, by_life);
  g_string_append (text, "  arena: offset, bytes, operations during which it is kept, whose it is\n");
  for (guint i = 0; i < all->len; i++)
    {
      const HeddlePlanBuffer *b = &g_array_index (all, HeddlePlanBuffer, i);
      g_string_append_printf (text, "    @%-10" G_GSIZE_FORMAT " %10" G_GSIZE_FORMAT "  %4u..%-4u ", b->offset, b->bytes, op_at (plan, b->first), op_at (plan, b->last));
      append_owner (text, b);
      g_string_append_c (text, '\n');
    }
  if (live->len)
    g_string_append_printf (text, "  peak: %" G_GSIZE_FORMAT " bytes live at operation %u\n", bytes, op_at (plan, at));
  for (guint i = 0; i < live->len; i++)
    {
      const HeddlePlanBuffer *b = &g_array_index (live, HeddlePlanBuffer, i);
      g_string_append_printf (text, "    %10" G_GSIZE_FORMAT "  %4.1f %%  ", b->bytes, 100 * (double) b->bytes / (double) bytes);
      append_owner (text, b);
      g_string_append_c (text, '\n');
    }
}

static void
print_reorders (GString *text, HeddlePlan *plan)
{
  GPtrArray *(*reorders) (HeddlePlan *) = HEDDLE_BACKEND_SLOT (plan->device, reorders);
  g_autoptr (GPtrArray) lines = reorders ? reorders (plan) : NULL;
  if (lines)
    g_string_append_printf (text, "  reorders: %u\n", lines->len);
  for (guint i = 0; lines && i < lines->len; i++)
    g_string_append_printf (text, "    %s\n", (const char *) lines->pdata[i]);
}

static void
print_plan (GString *text, HeddlePlan *plan)
{
  const HeddleProgram *program = plan->device->iface->program (plan);
  HeddleMemory memory;
  plan->device->iface->memory (plan, &memory);
  g_string_append_printf (text, "program %s: %u operations, arena %" G_GSIZE_FORMAT " bytes, fullest at %s\n", program->name, program->ops->len, memory.arena, memory.peak ? memory.peak : "-");
  for (guint i = 0; i < program->ops->len; i++)
    {
      g_autofree char *line = heddle_op_print (program->ops->pdata[i]), *more = plan->device->iface->describe (plan, i);
      g_string_append_printf (text, "  %4u  %s%s%s%s\n", i, line, more && *more ? "   [" : "", more ? more : "", more && *more ? "]" : "");
    }
  print_arena (text, plan);
  print_reorders (text, plan);
}

/* What PRINT has to say of each plan */
static GString *
print_all (HeddlePipeline *p, void (*print) (GString *text, HeddlePlan *plan))
{
  GString *text = g_string_new (NULL);
  HeddlePlan *plans[7];
  heddle_pipeline_plans (p, plans);
  for (guint i = 0; i < G_N_ELEMENTS (plans); i++)
    if (plans[i])
      print (text, plans[i]);
  return text;
}

char *
heddle_pipeline_print_programs (HeddlePipeline *p)
{
  return g_string_free (print_all (p, print_plan), FALSE);
}

/* ---- the header ---- */

static void
append_peak (GString *text, HeddlePlan *plan)
{
  g_autoptr (GArray) all = buffers_of (plan);
  gint at;
  gsize bytes;
  g_autoptr (GArray) live = peak_of (all, &at, &bytes);
  if (live->len)
    {
      g_string_append (text, ", most of it ");
      append_owner (text, &g_array_index (live, HeddlePlanBuffer, 0));
    }
}

static void
append_memory (GString *text, HeddlePipeline *p)
{
  HeddlePipelineMemory m;
  HeddleMemory peak = { 0 };
  HeddlePlan *plan = largest_plan (p, &peak);
  heddle_pipeline_memory (p, &m);
  g_string_append (text, "memory: ");
  append_bytes (text, "activations", m.arena);
  append_bytes (text, "parameters", m.params);
  append_bytes (text, "gradients", m.grads);
  append_bytes (text, "optimizer", m.slots);
  append_bytes (text, "other state", m.states);
  append_bytes (text, "batches", m.batches);
  g_string_append_printf (text, "; fullest at %s", peak.peak ? peak.peak : "-");
  append_peak (text, plan);
  g_string_append_c (text, '\n');
}

char *
heddle_pipeline_header (HeddlePipeline *p)
{
  GString *text = g_string_new (NULL);
  g_autoptr (GPtrArray) flags = p->device->iface->report (p->device);
  g_string_append_printf (text, "heddle %s: %s on %s%s%s\n", HEDDLE_VERSION, p->graph->script, p->device->name, p->device_why ? ": " : "", p->device_why ? p->device_why : "");
  g_string_append (text, "flags: ");
  for (guint i = 0; i < flags->len; i++)
    g_string_append_printf (text, "%s%s", i ? "; " : "", (const char *) flags->pdata[i]);
  g_string_append_c (text, '\n');
  if (p->amp)
    g_string_append_printf (text, "amp: %s\n", p->amp_choice.why);
  g_string_append_printf (text, "data: %s; %u workers\n", p->sampler_text, heddle_loader_n_workers (p->loader));
  g_string_append_printf (text, "model: %" G_GINT64_FORMAT " parameters; seed %" G_GUINT64_FORMAT "\n", heddle_variables_n_params (p->vars), p->core.seed);
  append_memory (text, p);
  g_string_truncate (text, text->len - 1);
  return g_string_free (text, FALSE);
}

/* ---- algorithms ---- */

static void
print_algorithms (GString *text, HeddlePlan *plan)
{
  HeddlePlanStep step;
  for (guint i = 0; plan->device->iface->step (plan, i, &step); i++)
    if (step.chosen && step.op)
      g_string_append_printf (text, "\n%s: %s %s: %s", plan->device->iface->program (plan)->name, step.op->info->name, step.op->name, step.what);
}

char *
heddle_pipeline_algorithms (HeddlePipeline *p)
{
  GString *text = print_all (p, print_algorithms);
  if (text->len)
    g_string_prepend (text, "algorithms:");
  return g_string_free (text, text->len == 0);
}
