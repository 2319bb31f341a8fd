/* pipeline/pipeline.h: a graph made ready and run: datasets opened, contracts checked, programs built, planned, trained.
 * Must not know Lua or the command line. */
#ifndef HEDDLE_PIPELINE_PIPELINE_H
#define HEDDLE_PIPELINE_PIPELINE_H

#include "pipeline/graph.h"

G_BEGIN_DECLS

typedef struct _HeddlePipeline HeddlePipeline;

/* Opens the datasets, resolves deferred facts, emits the training program with a description only: shapes and contracts of every port are checked.
 * No device is touched.  GRAPH is borrowed. */
HeddlePipeline *heddle_pipeline_new     (HeddleGraph *graph, GError **error);
void            heddle_pipeline_free    (HeddlePipeline *pipeline);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddlePipeline, heddle_pipeline_free)
/* (transfer full) The table of stages with shapes, dtypes, parameters: what `check` prints. */
char           *heddle_pipeline_describe (HeddlePipeline *pipeline);
/* Opens the device, compiles every program, allocates, initialises. */
gboolean        heddle_pipeline_compile (HeddlePipeline *pipeline, GError **error);
/* (transfer full) Operations of all programs with shapes, dtypes, layouts and arena offsets: `graph --program`. */
char           *heddle_pipeline_print_programs (HeddlePipeline *pipeline);

typedef struct
{
  gint64   epochs, steps, updates, skipped, samples;
  double   seconds;
  double   first_step_seconds;     /* from process start to the end of the first step */
  double   loss;                   /* weighted mean over the last epoch */
  guint    n_metrics;              /* of the last evaluation */
  struct { char name[32]; double value, best; gint64 best_epoch; } metric[HEDDLE_MAX_EVENT_VALUES];
  gboolean interrupted;
} HeddleRunResult;

/* Trains.  QUIET_LOGGERS: run without the script's loggers.  A first SIGINT or SIGTERM ends after the batch in hand: the state is printed, result.interrupted
 * set and HEDDLE_ERROR_INTERRUPTED returned; a second exits at once (130). */
gboolean        heddle_pipeline_run     (HeddlePipeline *pipeline, HeddleRunResult *result, GError **error);
/* Parameters and states by name, row-major f32, after a run (tests, verify): borrowed set, read through the device. */
HeddleVariables *heddle_pipeline_variables (HeddlePipeline *pipeline);
HeddleDevice    *heddle_pipeline_device    (HeddlePipeline *pipeline);
/* FNV-1a 64 over all saved variables' bytes in order of declaration: equal runs have equal hashes. */
gboolean        heddle_pipeline_hash    (HeddlePipeline *pipeline, guint64 *hash, GError **error);

G_END_DECLS

#endif
