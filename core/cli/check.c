/* cli/check.c: heddle check SCRIPT: contracts and shapes, without training, or with a few steps.  Must not know how. */
#include "cli/cli.h"

static gint64 steps;

static const GOptionEntry entries[] = {
  { "steps", 'n', 0, G_OPTION_ARG_INT64, &steps, "Also train N batches, without loggers", "N" },
  { 0 },
};

static void
drop_loggers (HeddleGraph *graph)
{
  for (guint i = graph->root->named->len; i-- > 0;)
    if (g_str_has_prefix (((HeddleLink *) graph->root->named->pdata[i])->key, "log."))
      g_ptr_array_remove_index (graph->root->named, i);
}

static gboolean
train_some (HeddleGraph *graph, HeddlePipeline *pipeline, GError **error)
{
  HeddleRunResult result;
  drop_loggers (graph);
  gboolean ok = heddle_pipeline_compile (pipeline, error) && heddle_pipeline_run (pipeline, &result, error);
  if (ok)
    printf ("  trained %" G_GINT64_FORMAT " batches: loss %.4f\n", result.steps, result.loss);
  return ok;
}

static gboolean
check (HeddleScriptCommand *c, GError **error)
{
  g_autoptr (HeddleGraph) graph = heddle_script_graph (c, error);
  g_autofree char *limit = graph && steps > 0 ? g_strdup_printf ("%s.max_steps=%" G_GINT64_FORMAT, graph->root->id, steps) : NULL;
  gboolean ok = graph && (!limit || heddle_graph_override (graph, limit, error));
  g_autoptr (HeddlePipeline) pipeline = ok ? heddle_pipeline_new (graph, error) : NULL;
  if (pipeline)
    {
      g_autofree char *text = heddle_pipeline_describe (pipeline);
      fputs (text, stdout);
      ok = steps <= 0 || train_some (graph, pipeline, error);
    }
  return pipeline && ok;
}

static int
run (int argc, char **argv)
{
  HeddleScriptCommand c = { 0 };
  GError *error = NULL;
  int status;
  if (heddle_script_command (&c, &heddle_verb_check, argc, argv, entries, &status) && !check (&c, &error))
    status = heddle_cli_fail (error);
  heddle_script_clear (&c);
  return status;
}

const HeddleVerb heddle_verb_check = { "check", "SCRIPT", "Open the data, check every contract and shape, and train nothing", run, entries };
