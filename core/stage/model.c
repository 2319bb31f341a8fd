/* stage/model.c: h.model "NAME" { inputs..., options }: a network from a plugin.  Must not know losses or optimizers. */
#include "stage/classes.h"

static gboolean
check_model (HeddleStage *stage, GError **error)
{
  const HeddleModelIface *iface = stage->plugin->entry->plugin->iface;
  gboolean (*check) (gpointer, GError **) = HEDDLE_SLOT (iface, HeddleModelIface, check);
  GError *local = NULL;
  gboolean ok = !check || check (stage->plugin->self, &local);
  if (!ok && !local)
    g_set_error (&local, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "check failed and set no error");
  if (!ok)
    g_propagate_error (error, local);
  return ok;
}

static gboolean
emit_model (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  static const char *const one[] = { "output", NULL };
  const HeddleModelIface *iface = stage->plugin->entry->plugin->iface;
  const char *const *names = iface->outputs ? iface->outputs : one;
  guint n_out = g_strv_length ((char **) names);
  g_autofree HeddleValue **inputs = g_new0 (HeddleValue *, n_in + 1), **outputs = g_new0 (HeddleValue *, n_out + 1);
  GError *local = NULL;
  for (guint i = 0; i < n_in; i++)
    inputs[i] = in[i]->value;
  gboolean ok = check_model (stage, error) && (iface->build (stage->plugin->self, emit->builder, inputs, n_in, outputs, &local) || local || heddle_builder_error (emit->builder));
  if (local)
    {
      const GError *what = heddle_builder_error (emit->builder);
      if (what)               /* the plugin says where, the builder what */
        g_set_error (error, what->domain, what->code, "%s: %s", local->message, what->message);
      else
        g_propagate_error (error, g_steal_pointer (&local));
      g_clear_error (&local);
      ok = FALSE;
    }
  ok = ok && heddle_emit_ok (emit, error);
  for (guint i = 0; ok && i < n_out; i++)
    {
      ok = outputs[i] != NULL;
      if (ok)
        heddle_port_add (out, HEDDLE_PORT_TENSOR, names[i])->value = outputs[i];
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "model-%s made no output \"%s\"", stage->plugin->entry->plugin->name, names[i]);
    }
  if (!ok && error && !*error)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "model-%s: build failed and set no error", stage->plugin->entry->plugin->name);
  return ok;
}

#define T HEDDLE_PORT_TENSOR
static const HeddlePortKind inputs[] = { T, T, T, T, T, T, T, T };

const HeddleStageClass heddle_stage_model = {
  .verb = "model", .summary = "A network, from a model plugin", .plugin_kind = "model", .min_inputs = 1, .max_inputs = G_N_ELEMENTS (inputs), .input_kinds = inputs,
  .output = HEDDLE_PORT_TENSOR, .emit = emit_model,
};
