/* pipeline/run.h: a run's state, for the files of the run loop.  Private to core/pipeline; must not know Lua or the command line. */
#ifndef HEDDLE_PIPELINE_RUN_H
#define HEDDLE_PIPELINE_RUN_H

#include "pipeline/internal.h"

/* Seconds waited for input so far, by part. */
typedef struct { double part[HEDDLE_WAIT_PARTS]; } Waited;

/* Numbers on their way from the device, and where the run was when it asked for them. */
typedef struct
{
  HeddleSnapshot snapshot;                   /* [0] the watched count; with LOG what log_variables () adds */
  gboolean       log, lines, watch;          /* sums are read; BATCH events are due; the watched count is looked at */
  gint64         epoch, batch, step, samples, total_updates;
  double         asked, lr;                  /* ASKED: s */
  Waited         waited;
} Reading;

#define READINGS 8              /* on their way; the device is never so many batches behind */
#define WATCH_EVERY 12          /* batches or updates at most from one look at the watched count to the next: with those that the device is behind, below 16 */

struct _Run
{
  HeddlePipeline  *p;
  HeddleEvents    *events;
  HeddleRunResult *result;
  const HeddleBatch *held;        /* read by the device, perhaps still; or NULL */
  gint64           epoch, batch, step, updates, samples, total_steps, total_updates, planned_updates;
  gint64           window;                 /* batches in the accumulation window so far */
  gint64           rates_left, rated;      /* updates that the device has rates for; total_updates whose LR is known */
  double           start, base_lr, lr;
  HeddleVariable  *lr_variable, *momentum_variable;
  double           skipped, scale;
  Reading          readings[READINGS];       /* a queue */
  guint            first_reading, n_readings;
  /* per logger: what it was told last */
  struct { double sum[1 + MAX_METRICS], weight[1 + MAX_METRICS], seconds, asked; Waited waited; gint64 samples; } *told;
  double           epoch_sum[1 + MAX_METRICS], epoch_weight[1 + MAX_METRICS];     /* read last, over this epoch */
  HeddleProfile    profile;
};

static inline double
now (void)
{
  return (double) g_get_monotonic_time () * 1e-6;
}

/* ---- readings.c: what the device has counted, and events with it ---- */
HeddleEvent heddle_run_event     (const Run *r, HeddleEventType type);
void        heddle_run_add_value (HeddleEvent *e, const char *name, double value);
/* Of the loss and each metric: SUM over WEIGHT. */
void        heddle_run_add_means (const Run *r, HeddleEvent *e, const double *sum, const double *weight);
Waited      heddle_run_waited    (const Run *r);
/* What share of ELAPSED was waiting, up to AFTER, since BEFORE, and what for. */
void        heddle_run_add_wait  (HeddleEvent *e, const Waited *before, const Waited *after, double elapsed);
HeddleScheduleFactors heddle_run_schedule_at (const Run *r, gint64 update);
/* After a batch, which UPDATED or not, LAST of an epoch or of the run: asks the device for what a log line or the watch is due for. */
gboolean    heddle_run_ask       (Run *r, gboolean updated, gboolean last, GError **error);
/* Tells the loggers, and looks at the watched count, for what has arrived, in order; with WAIT for all.  What comes after an error is not looked at. */
gboolean    heddle_run_take_readings (Run *r, gboolean wait, GError **error);
/* Waits for the sums of the epoch so far. */
gboolean    heddle_run_read_sums (Run *r, GError **error);

#endif
