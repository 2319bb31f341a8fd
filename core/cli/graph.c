/* cli/graph.c: heddle graph SCRIPT: draws the stages or lists the operations.  Must not know how. */
#include "cli/cli.h"

static gboolean dot, json, program;

static const GOptionEntry entries[] = {
  { "dot", 0, 0, G_OPTION_ARG_NONE, &dot, "For Graphviz: heddle graph SCRIPT --dot | dot -Tsvg", NULL },
  { "json", 0, 0, G_OPTION_ARG_NONE, &json, "As JSON", NULL },
  { "program", 0, 0, G_OPTION_ARG_NONE, &program, "The compiled operations with shapes, dtypes, layouts and arena offsets", NULL },
  { 0 },
};

static gboolean
draw (HeddleScriptCommand *c, GError **error)
{
  g_autoptr (HeddleGraph) graph = heddle_script_graph (c, error);
  g_autoptr (HeddlePipeline) pipeline = graph && program ? heddle_pipeline_new (graph, error) : NULL;
  gboolean ok = graph && (!program || (pipeline && heddle_pipeline_compile (pipeline, error)));
  if (ok)
    {
      g_autofree char *text = program ? heddle_pipeline_print_programs (pipeline) : dot ? heddle_graph_dot (graph) : json ? heddle_graph_json (graph) : heddle_graph_print (graph);
      fputs (text, stdout);
    }
  return ok;
}

static int
run (int argc, char **argv)
{
  HeddleScriptCommand c = { 0 };
  GError *error = NULL;
  int status;
  if (heddle_script_command (&c, &heddle_verb_graph, argc, argv, entries, &status))
    {
      if (dot + json + program > 1)
        status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "graph: one of --dot, --json and --program"));
      else if (!draw (&c, &error))
        status = heddle_cli_fail (error);
    }
  heddle_script_clear (&c);
  return status;
}

const HeddleVerb heddle_verb_graph = { "graph", "SCRIPT", "Draw the stages a script describes, or the operations they become", run, entries };
