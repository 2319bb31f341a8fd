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

static void
append_memory (GString *text, HeddlePipeline *p)
{
  HeddleMemory m = { 0 }, each;
  HeddlePlan *plans[] = { p->train[0][0].plan, p->train[0][1].plan, p->train[1][0].plan, p->train[1][1].plan, p->eval[0].plan, p->eval[1].plan, p->update };
  gsize arena = 0;
  for (guint i = 0; i < G_N_ELEMENTS (plans); i++)
    if (plans[i])
      {
        p->device->iface->memory (plans[i], &each);
        if (each.arena >= arena)
          m = each;
        arena = MAX (arena, each.arena);
      }
  g_string_append (text, "memory: ");
  append_bytes (text, "activations", arena);
  append_bytes (text, "parameters", m.params);
  append_bytes (text, "gradients", m.grads);
  append_bytes (text, "optimizer", m.slots);
  append_bytes (text, "other state", m.states);
  append_bytes (text, "batches", heddle_loader_bytes (p->loader) + (p->eval_loader ? heddle_loader_bytes (p->eval_loader) : 0));
  g_string_append_printf (text, "; fullest at %s\n", m.peak ? m.peak : "-");
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
