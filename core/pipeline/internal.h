/* pipeline/internal.h: what the files of this folder share.  Private to core/pipeline. */
#ifndef HEDDLE_PIPELINE_INTERNAL_H
#define HEDDLE_PIPELINE_INTERNAL_H

#include "pipeline/events.h"
#include "pipeline/pipeline.h"
#include "pipeline/profile.h"

#define MAX_METRICS 8

/* A compiled program; what it counts it adds to variables. */
typedef struct
{
  HeddlePlan *plan;
  guint       fields[HEDDLE_MAX_FIELDS];      /* program input i is this field of the batch */
  guint       n_fields;
} Compiled;

/* A running sum kept on the device over an epoch: value and weight. */
typedef struct { HeddleVariable *sum, *weight; } Running;
/* A sum over a whole evaluation: HIGH is f32, LOW what its rounding lost. */
typedef struct { HeddleVariable *high, *low; } Exact;

struct _HeddlePipeline
{
  HeddleGraph        *graph;
  HeddleTrainOptions *options;
  HeddleCore          core;                    /* its message () finds the pipeline by this member */
  GMutex              messages;                /* guards EVENTS, which any thread of a plugin may want */
  HeddleEvents       *events;                  /* borrowed: of the run in hand, where messages go too */
  gint64              events_start;            /* us, when they were set */
  HeddleNode         *prefetch, *optimizer, *amp, *schedule, *eval_data;
  HeddleLink         *loss;                    /* the optimizer's input */
  guint               n_metrics;
  HeddleLink         *metrics[MAX_METRICS];
  char               *metric_names[MAX_METRICS + 1];   /* ends with NULL */
  HeddleDatasetInfo   train_info, eval_info;
  char               *description;
  /* compiled */
  HeddleFlags         flags;
  HeddleDevice       *device;
  char               *device_why;
  HeddleAmp           amp_choice;
  HeddleVariables    *vars;
  HeddleUpdateState   update_state;
  Running             running_loss, running_metric[MAX_METRICS];
  HeddleVariable     *nonfinite;               /* losses in a row that were not finite */
  Exact               eval_sum[1 + MAX_METRICS], eval_weight[1 + MAX_METRICS];     /* of the loss, of each metric */
  gint64              batch_size, short_size, eval_batch_size, eval_short_size;
  Compiled            train[2][2];             /* [short][accumulate] */
  Compiled            eval[2];                 /* [short] */
  HeddlePlan         *update;
  HeddleLoader       *loader, *eval_loader;
  char               *sampler_text;
  gint64              steps_per_epoch;
  char               *profile_path;            /* of the next run, or NULL */
  gint64              profile_steps;
  HeddleTrace        *trace;                   /* of a run that is over */
};

/* ---- emit.c ---- */
typedef struct { HeddlePort loss; HeddlePort metric[MAX_METRICS]; } Emitted;

/* Emits everything the loss and the metrics need, for one batch of BATCH_SIZE samples of INFO.  DESCRIPTION (or NULL) gets a line per stage. */
gboolean heddle_pipeline_emit (HeddlePipeline *p, HeddleBuilder *b, gboolean training, gint64 batch_size, const HeddleDatasetInfo *info, HeddleDtype low, GString *description,
                               Emitted *emitted, GError **error);
/* A variable of the run's own, which no checkpoint holds. */
HeddleVariable *heddle_pipeline_scalar (HeddlePipeline *p, const char *name);
/* Sets the options that waited for facts of the open data sets. */
gboolean heddle_pipeline_resolve_facts (HeddlePipeline *p, GError **error);

/* Where messages of plugins go beside standard error, from now on; NULL: nowhere. */
void     heddle_pipeline_set_events (HeddlePipeline *p, HeddleEvents *events);

/* ---- evaluation.c: sums that the device keeps over an evaluation ---- */
void     heddle_evaluation_emit  (HeddlePipeline *p, HeddleBuilder *b, const Emitted *emitted);
gboolean heddle_evaluation_begin (HeddlePipeline *p, GError **error);
/* Waits for the device; room for the loss and each metric. */
gboolean heddle_evaluation_end   (HeddlePipeline *p, double *sum, double *weight, GError **error);

/* ---- rates.c: a schedule that counts applied updates under a loss scaler, whose count only the device knows ---- */
/* Before the update program is made: sets update_state.window, which stays 0 for every other schedule. */
void     heddle_rates_prepare (HeddlePipeline *p);
/* Writes the rates of the next update_state.window updates; waits for the device.  PLANNED: updates of the whole run. */
gboolean heddle_rates_fill    (HeddlePipeline *p, gint64 planned, double base_lr, GError **error);

/* ---- signals.c ---- */
void     heddle_signals_install (void);
void     heddle_signals_restore (void);
gboolean heddle_signals_pending (void);

/* ---- run.c, for bench.c ---- */
typedef struct _Run Run;
/* EVENTS is taken.  */
Run           *heddle_run_new    (HeddlePipeline *p, HeddleEvents *events, HeddleRunResult *result);
void           heddle_run_free   (Run *run);
/* Starts the loader without end; then N batches at a time, across epochs. */
gboolean       heddle_run_begin  (Run *run, GError **error);
gboolean       heddle_run_batches (Run *run, gint64 n, GError **error);
gint64         heddle_run_samples (const Run *run);
HeddleProfile *heddle_run_profile (Run *run);
void           heddle_run_timing (Run *run, gboolean on);      /* of every plan */

/* ---- report.c ---- */
void     heddle_pipeline_plans (HeddlePipeline *p, HeddlePlan *plans[7]);      /* NULL: not compiled */
char    *heddle_pipeline_header (HeddlePipeline *p);        /* lines for RUN_START */
char    *heddle_pipeline_algorithms (HeddlePipeline *p);    /* lines for a MESSAGE: what a library computes which operation with; or NULL */

#endif
