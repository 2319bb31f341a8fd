/* cli/run.c: heddle run SCRIPT: trains.  Must not know how. */
#include "cli/cli.h"

#include <string.h>

static char *device, *profile;
static gint64 profile_steps = 50;

static const GOptionEntry entries[] = {
  { "device", 'd', 0, G_OPTION_ARG_STRING, &device, "Short for --set train.device=DEVICE", "DEVICE" },
  { "profile", 0, 0, G_OPTION_ARG_FILENAME, &profile, "Write a timeline of the first steps, for Perfetto or chrome://tracing", "FILE.json" },
  { "profile-steps", 0, 0, G_OPTION_ARG_INT64, &profile_steps, "Steps in the timeline; 50 unless given", "N" },
  { 0 },
};

static void
print_result (const HeddleRunResult *r)
{
  printf ("%" G_GINT64_FORMAT " epochs, %" G_GINT64_FORMAT " updates, %" G_GINT64_FORMAT " samples in %.1f s", r->epochs, r->updates, r->samples, r->seconds);
  if (r->skipped)
    printf (", %" G_GINT64_FORMAT " updates skipped", r->skipped);
  for (guint i = 0; i < r->n_metrics; i++)
    printf ("; %s %.4f, best %.4f after epoch %" G_GINT64_FORMAT, r->metric[i].name, r->metric[i].value, r->metric[i].best, r->metric[i].best_epoch);
  printf ("\n");
}

static gboolean
train (HeddleScriptCommand *c, GError **error)
{
  g_autoptr (HeddleGraph) graph = heddle_script_graph (c, error);
  g_autofree char *set = device ? g_strconcat (graph && graph->root ? graph->root->id : "train", ".device=", device, NULL) : NULL;
  gboolean ok = graph && (!set || heddle_graph_override (graph, set, error));
  g_autoptr (HeddlePipeline) pipeline = ok ? heddle_pipeline_new (graph, error) : NULL;
  HeddleRunResult result;
  if (pipeline && profile)
    heddle_pipeline_set_profile (pipeline, profile, profile_steps);
  ok = pipeline && heddle_pipeline_compile (pipeline, error) && heddle_pipeline_run (pipeline, &result, error);
  if (ok)
    print_result (&result);
  if (pipeline && g_getenv ("HEDDLE_FIRST_STEP"))
    g_printerr ("first_step_seconds %.3f\n", result.first_step_seconds);
  return ok;
}

static int
run (int argc, char **argv)
{
  HeddleScriptCommand c = { 0 };
  GError *error = NULL;
  int status;
  if (heddle_script_command (&c, &heddle_verb_run, argc, argv, entries, &status))
    {
      if (profile_steps < 1 || profile_steps > 1000000)
        status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "run: --profile-steps must be 1..1000000"));
      else if (!train (&c, &error))
        status = heddle_cli_fail (error);
    }
  heddle_script_clear (&c);
  return status;
}

const HeddleVerb heddle_verb_run = { "run", "SCRIPT", "Train what a script describes; SCRIPT --help lists its arguments and options", run, entries };
