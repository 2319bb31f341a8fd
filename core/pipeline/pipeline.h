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

/* Parts of a step's time.  COPY: waiting for inputs to reach the device; LOG: sums read back and events sent. */
typedef enum { HEDDLE_TIME_WAIT = 0, HEDDLE_TIME_COPY, HEDDLE_TIME_FORWARD, HEDDLE_TIME_BACKWARD, HEDDLE_TIME_UPDATE, HEDDLE_TIME_LOG, HEDDLE_TIME_PARTS } HeddleTimePart;

/* Bytes by owner of everything compiled. */
typedef struct { gsize arena, params, grads, slots, states, batches; } HeddlePipelineMemory;
void            heddle_pipeline_memory  (HeddlePipeline *pipeline, HeddlePipelineMemory *memory);

/* The next run writes a timeline of its first STEPS steps to PATH. */
void            heddle_pipeline_set_profile (HeddlePipeline *pipeline, const char *path, gint64 steps);

/* ---- bench.c: a pipeline run piece by piece: no evaluation, no end, silent loggers in place of the script's (same intervals) ---- */
typedef struct _HeddleBench HeddleBench;
HeddleBench    *heddle_bench_new        (HeddlePipeline *pipeline, GError **error);      /* PIPELINE is compiled and borrowed */
void            heddle_bench_free       (HeddleBench *bench);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleBench, heddle_bench_free)
/* Trains STEPS batches more; adds samples and seconds. */
gboolean        heddle_bench_run        (HeddleBench *bench, gint64 steps, gint64 *samples, double *seconds, GError **error);
/* The same with each operation timed: seconds of each part, and of the whole. */
gboolean        heddle_bench_split      (HeddleBench *bench, gint64 steps, double part[HEDDLE_TIME_PARTS], double *seconds, GError **error);

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
