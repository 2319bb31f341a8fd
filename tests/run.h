/* tests/run.h: a script's text made into a pipeline, compiled or run, as heddle run does it; with what it leaves.  Must not know what the script says. */
#ifndef HEDDLE_TESTS_RUN_H
#define HEDDLE_TESTS_RUN_H

#include <glib/gstdio.h>

#include "pipeline/pipeline.h"
#include "script/script.h"
#include "variables.h"

typedef enum { TEST_BUILT, TEST_COMPILED, TEST_RAN } TestUntil;

typedef struct
{
  HeddleRegistry *registry;
  HeddleGraph    *graph;         /* NULL, as the pipeline, when it could not be made */
  HeddlePipeline *pipeline;
  HeddleRunResult result;        /* of a run that was one */
  GError         *error;         /* the first, where one step failed */
} TestRun;

/* The script is FOLDER/run.lua while it is read: errors name it. */
static inline TestRun
test_run (const char *folder, const char *text, TestUntil until)
{
  TestRun r = { .registry = heddle_registry_new (NULL) };
  g_autofree char *file = g_build_filename (folder, "run.lua", NULL);
  g_assert_true (g_file_set_contents (file, text, -1, NULL));
  r.graph = heddle_script_load (file, r.registry, NULL, NULL, &r.error);
  g_assert_cmpint (g_remove (file), ==, 0);
  r.pipeline = r.graph ? heddle_pipeline_new (r.graph, &r.error) : NULL;
  if (r.pipeline && until >= TEST_COMPILED && heddle_pipeline_compile (r.pipeline, &r.error) && until >= TEST_RAN)
    heddle_pipeline_run (r.pipeline, &r.result, &r.error);
  return r;
}

static inline TestVariables
test_run_variables (TestRun *r)
{
  return (TestVariables) { heddle_pipeline_device (r->pipeline), heddle_pipeline_variables (r->pipeline) };
}

static inline void
test_run_clear (TestRun *r)
{
  g_clear_error (&r->error);
  heddle_pipeline_free (r->pipeline);
  heddle_graph_free (r->graph);
  heddle_registry_free (r->registry);
}

#endif
