/* pipeline/readings.c: numbers on their way from the device, which is asked and not waited for: log lines, the watch over losses and skipped updates.
 * Must not know when batches run. */
#include "pipeline/run.h"

#include <math.h>

/* ---- events, from what the run knows ---- */

HeddleEvent
heddle_run_event (const Run *r, HeddleEventType type)
{
  return (HeddleEvent) { .size = sizeof (HeddleEvent), .type = type, .epoch = r->epoch, .epochs = r->p->options->epochs, .batch = r->batch, .batches = r->p->steps_per_epoch, .step = r->step,
                         .updates = r->updates, .samples = r->samples, .skipped = (gint64) r->skipped, .seconds = now () - r->start, .scale = r->scale };
}

void
heddle_run_add_value (HeddleEvent *e, const char *name, double value)
{
  if (e->n_values < HEDDLE_MAX_EVENT_VALUES)
    e->values[e->n_values++] = (HeddleEventValue) { name, g_str_equal (name, "accuracy") ? "acc" : name, value };
}

void
heddle_run_add_means (const Run *r, HeddleEvent *e, const double *sum, const double *weight)
{
  heddle_run_add_value (e, "loss", weight[0] > 0 ? sum[0] / weight[0] : NAN);
  for (guint i = 0; i < r->p->n_metrics; i++)
    heddle_run_add_value (e, r->p->metric_names[i], weight[i + 1] > 0 ? sum[i + 1] / weight[i + 1] : NAN);
}

HeddleScheduleFactors
heddle_run_schedule_at (const Run *r, gint64 update)
{
  return heddle_schedule_at (r->p->schedule->stage, MIN (update, r->planned_updates - 1), r->planned_updates, r->base_lr);
}

Waited
heddle_run_waited (const Run *r)
{
  Waited w;
  heddle_loader_waited (r->p->loader, w.part);
  w.part[HEDDLE_WAIT_COPY] = (double) r->p->device->iface->counter (r->p->device, HEDDLE_COUNTER_COPY) * 1e-9;
  return w;
}

void
heddle_run_add_wait (HeddleEvent *e, const Waited *before, const Waited *after, double elapsed)
{
  for (guint i = 0; i < HEDDLE_WAIT_PARTS; i++)
    {
      e->wait_part[i] = elapsed > 0 ? CLAMP ((after->part[i] - before->part[i]) / elapsed, 0, 1 - e->wait_share) : 0;
      e->wait_share += e->wait_part[i];
    }
}

/* The host may ask long before the device is there, and be told of several batches at once: the longer of the two intervals is the one that the batches took. */
static void
tell_batch (Run *r, guint k, const Reading *g)
{
  HeddleEvent e = heddle_run_event (r, HEDDLE_EVENT_BATCH);
  double sum[1 + MAX_METRICS], weight[1 + MAX_METRICS], t = now (), elapsed = MAX (t - r->told[k].seconds, g->asked - r->told[k].asked);
  e.epoch = g->epoch;
  e.batch = g->batch;
  e.step = g->step;
  e.updates = g->total_updates - e.skipped;
  e.samples = g->samples;
  for (guint i = 0; i <= r->p->n_metrics; i++)
    {
      sum[i] = r->epoch_sum[i] - r->told[k].sum[i];
      weight[i] = r->epoch_weight[i] - r->told[k].weight[i];
      r->told[k].sum[i] = r->epoch_sum[i];
      r->told[k].weight[i] = r->epoch_weight[i];
    }
  heddle_run_add_means (r, &e, sum, weight);
  heddle_run_add_value (&e, "lr", g->lr);
  e.samples_per_second = elapsed > 0 ? (double) (g->samples - r->told[k].samples) / elapsed : 0;
  heddle_run_add_wait (&e, &r->told[k].waited, &g->waited, elapsed);
  r->told[k].seconds = t;
  r->told[k].asked = g->asked;
  r->told[k].waited = g->waited;
  r->told[k].samples = g->samples;
  heddle_events_send (r->events, k, &e);
}

static gboolean
line_is_due (const Run *r, guint k, gint64 batch)
{
  guint interval = heddle_events_interval (r->events, k);
  return interval && batch % interval == 0;
}

/* ---- readings: the device is asked and not waited for ---- */

static void
log_variables (const HeddlePipeline *p, HeddleSnapshot *s)
{
  s->variable[s->n++] = p->running_loss.sum;
  s->variable[s->n++] = p->running_loss.weight;
  for (guint i = 0; i < p->n_metrics; i++)
    {
      s->variable[s->n++] = p->running_metric[i].sum;
      s->variable[s->n++] = p->running_metric[i].weight;
    }
  if (p->amp_choice.scaling)
    {
      s->variable[s->n++] = p->update_state.skipped;
      s->variable[s->n++] = p->update_state.scale;
      s->variable[s->n++] = p->update_state.updates;
      s->variable[s->n++] = p->update_state.skip;
    }
}

/* The rate of the last update, which counts as applied unless it was skipped, from what the device has counted. */
static void
take_rate (Run *r, Reading *g, double applied, double skip)
{
  if (r->p->update_state.window && g->total_updates != r->rated)
    r->lr = heddle_run_schedule_at (r, (gint64) applied - (skip == 0)).lr * r->base_lr;
  r->rated = g->total_updates;
  g->lr = r->p->update_state.window ? r->lr : g->lr;
}

static void
take_sums (Run *r, Reading *g)
{
  const float *value = g->snapshot.value + 1;
  for (guint i = 0; i <= r->p->n_metrics; i++)
    {
      r->epoch_sum[i] = *value++;
      r->epoch_weight[i] = *value++;
    }
  if (r->p->amp_choice.scaling)
    {
      r->skipped = value[0];
      r->scale = value[1];
      r->updates = r->total_updates - (gint64) r->skipped;
      take_rate (r, g, value[2], value[3]);
    }
}

/* With a loss scaler updates that were skipped, else losses that were not finite: so many in a row end the run. */
static gint64
watch_limit (const HeddlePipeline *p)
{
  return p->amp_choice.scaling ? p->amp_choice.options->max_skips : p->options->stop_on_nonfinite;
}

static gboolean
check_row (const Run *r, const Reading *g, GError **error)
{
  double row = g->snapshot.value[0];
  gboolean ok = row < (double) watch_limit (r->p);
  if (!ok && r->p->amp_choice.scaling)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "%g updates in a row were skipped because gradients were not finite (epoch %" G_GINT64_FORMAT ", batch %" G_GINT64_FORMAT ")\n"
                 "hint: lower the learning rate, clip_norm, or amp dtype = \"bf16\"", row, g->epoch, g->batch);
  else if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "the loss is not finite since batch %" G_GINT64_FORMAT " of epoch %" G_GINT64_FORMAT " (%g batches in a row, learning rate %g)\n"
                 "hint: lower the learning rate or set clip_norm; stop_on_nonfinite = 0 goes on all the same", MAX (1, g->batch - (gint64) row + 1), g->epoch, row, g->lr);
  return ok;
}

static gboolean
take_reading (Run *r, Reading *g, GError **error)
{
  gboolean ok = !g->watch || check_row (r, g, error);
  if (ok && g->log)
    take_sums (r, g);
  for (guint k = 0; ok && g->lines && k < heddle_events_count (r->events); k++)
    if (line_is_due (r, k, g->batch))
      tell_batch (r, k, g);
  return ok;
}

gboolean
heddle_run_take_readings (Run *r, gboolean wait, GError **error)
{
  gboolean ok = TRUE, arrived = TRUE;
  while (ok && arrived && r->n_readings)
    {
      Reading *g = &r->readings[r->first_reading];
      ok = heddle_device_arrive (r->p->device, &g->snapshot, wait, error);
      arrived = g->snapshot.arrived;
      if (ok && arrived)
        {
          ok = take_reading (r, g, error);
          r->first_reading = (r->first_reading + 1) % READINGS;
          r->n_readings--;
        }
    }
  r->n_readings = ok ? r->n_readings : 0;
  return ok;
}

static gboolean
ask (Run *r, gboolean log, gboolean lines, gboolean watch, GError **error)
{
  HeddlePipeline *p = r->p;
  gboolean ok = r->n_readings < READINGS || heddle_run_take_readings (r, TRUE, error);
  Reading *g = &r->readings[(r->first_reading + r->n_readings) % READINGS];
  if (ok)
    {
      g->log = log;
      g->lines = lines;
      g->watch = watch;
      g->epoch = r->epoch;
      g->batch = r->batch;
      g->step = r->step;
      g->samples = r->samples;
      g->total_updates = r->total_updates;
      g->asked = now ();
      g->lr = r->lr;
      g->waited = heddle_run_waited (r);
      g->snapshot.variable[0] = p->amp_choice.scaling ? p->update_state.consecutive : p->nonfinite;
      g->snapshot.n = 1;
      if (log)
        log_variables (p, &g->snapshot);
      ok = heddle_device_snapshot (p->device, &g->snapshot, error);
      r->n_readings += ok;
    }
  return ok;
}

gboolean
heddle_run_read_sums (Run *r, GError **error)
{
  return ask (r, TRUE, FALSE, FALSE, error) && heddle_run_take_readings (r, TRUE, error);
}

gboolean
heddle_run_ask (Run *r, gboolean updated, gboolean last, GError **error)
{
  gint64 limit = watch_limit (r->p), every = MIN (limit, WATCH_EVERY), count = r->p->amp_choice.scaling ? r->total_updates : r->step;
  gboolean lines = FALSE, watch = limit > 0 && (updated || !r->p->amp_choice.scaling) && (last || count % every == 0);
  for (guint k = 0; k < heddle_events_count (r->events); k++)
    lines |= line_is_due (r, k, r->batch);
  return (!lines && !watch) || ask (r, lines, lines, watch, error);
}
