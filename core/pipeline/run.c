/* pipeline/run.c: the run loop: batches, updates, schedule, evaluation, events, stopping.  Must not know Lua or the command line. */
#include "pipeline/run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds since this process started: /proc/self/stat's 22nd field, in clock ticks since boot. */
static double
process_age (void)
{
  g_autofree char *text = NULL;
  double age = 0;
  const char *at = g_file_get_contents ("/proc/self/stat", &text, NULL, NULL) ? strrchr (text, ')') : NULL;
  unsigned long long ticks = 0;
  struct timespec t;
  if (at && sscanf (at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) == 1 && clock_gettime (CLOCK_BOOTTIME, &t) == 0)
    age = (double) t.tv_sec + (double) t.tv_nsec * 1e-9 - (double) ticks / (double) sysconf (_SC_CLK_TCK);
  return age;
}

/* ---- events ---- */

static void
send_text (Run *r, HeddleEventType type, GLogLevelFlags level, const char *text)
{
  HeddleEvent e = heddle_run_event (r, type);
  e.text = text;
  e.level = level;
  heddle_events_send (r->events, G_MAXUINT, &e);
}

static gboolean
fill_rates (Run *r, GError **error)
{
  gint64 window = r->p->update_state.window;
  r->rates_left = window;
  return window == 0 || heddle_rates_fill (r->p, r->planned_updates, r->base_lr, error);
}

/* An epoch begins: intervals do too, so that none contains an evaluation. */
static gboolean
reset_running (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  gboolean ok = heddle_run_take_readings (r, TRUE, error) && fill_rates (r, error) && heddle_device_write_scalar (p->device, p->running_loss.sum, 0, error) && heddle_device_write_scalar (p->device, p->running_loss.weight, 0, error);
  for (guint i = 0; ok && i < p->n_metrics; i++)
    ok = heddle_device_write_scalar (p->device, p->running_metric[i].sum, 0, error) && heddle_device_write_scalar (p->device, p->running_metric[i].weight, 0, error);
  memset (r->told, 0, heddle_events_count (r->events) * sizeof *r->told);
  for (guint k = 0; k < heddle_events_count (r->events); k++)
    {
      r->told[k].seconds = r->told[k].asked = now ();
      r->told[k].waited = heddle_run_waited (r);
      r->told[k].samples = r->samples;
    }
  return ok;
}

/* ---- one batch, one update ---- */

static gboolean
run_plan (HeddlePipeline *p, const Compiled *compiled, const HeddleBatch *batch, GError **error)
{
  gpointer inputs[HEDDLE_MAX_FIELDS];
  for (guint i = 0; i < compiled->n_fields; i++)
    inputs[i] = batch->field[i];
  return p->device->iface->run (compiled->plan, inputs, error);
}

/* The stage's span encloses its operations', whose times come from the plan. */
static void
note_plan (Run *r, HeddlePlan *plan, const char *name, gint64 began)
{
  heddle_profile_plan (&r->profile, plan, r->step);
  heddle_profile_end (&r->profile, HEDDLE_TIME_PARTS, name, began, r->step);
}

/* The host's count, or tables for the device's. */
static gboolean
apply_schedule (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  gboolean ok = TRUE;
  if (p->update_state.window > 0)
    {
      ok = r->rates_left > 0 || fill_rates (r, error);
      r->rates_left--;
    }
  else if (p->schedule)
    {
      HeddleScheduleFactors f = heddle_run_schedule_at (r, r->total_updates);
      if (f.lr * r->base_lr != r->lr)
        ok = heddle_device_write_scalar (p->device, r->lr_variable, f.lr * r->base_lr, error);
      if (ok && !isnan (f.momentum) && r->momentum_variable)
        ok = heddle_device_write_scalar (p->device, r->momentum_variable, f.momentum, error);
      r->lr = f.lr * r->base_lr;
    }
  return ok;
}

static gboolean
update (Run *r, GError **error)
{
  gint64 began = heddle_profile_begin (&r->profile, r->p->optimizer->id);
  gboolean ok = apply_schedule (r, error) && r->p->device->iface->run (r->p->update, NULL, error);
  note_plan (r, r->p->update, r->p->optimizer->id, began);
  r->window = 0;
  r->total_updates++;
  r->updates = r->total_updates - (gint64) r->skipped;
  return ok;
}

static const HeddleBatch *
next_batch (Run *r, GError **error)
{
  gint64 began = heddle_profile_begin (&r->profile, r->p->prefetch->id);
  const HeddleBatch *batch = heddle_loader_next (r->p->loader, error);
  heddle_profile_end (&r->profile, HEDDLE_TIME_WAIT, r->p->prefetch->id, began, r->step);
  return batch;
}

static gboolean
forward_backward (Run *r, const HeddleBatch *batch, GError **error)
{
  gint64 began = heddle_profile_begin (&r->profile, "train");
  const Compiled *compiled = &r->p->train[(gint64) batch->n != r->p->batch_size][r->window > 0];
  gboolean ok = run_plan (r->p, compiled, batch, error);
  note_plan (r, compiled->plan, "train", began);
  return ok;
}

/* The profile ends with its last step; training goes on. */
static gboolean
end_profile (Run *r, GError **error)
{
  HeddleProfile *profile = &r->profile;
  gboolean ok = TRUE;
  if (profile->on && profile->track && r->step >= profile->limit)
    {
      heddle_run_timing (r, FALSE);
      profile->on = FALSE;
      ok = heddle_run_take_readings (r, TRUE, error);
      heddle_events_drain (r->events);      /* what the loggers did with these steps belongs to them */
      ok = ok && heddle_profile_write (profile, r->p->graph->script, error);
    }
  return ok;
}

static gboolean
tell (Run *r, gboolean updated, gboolean last, GError **error)
{
  gint64 began = heddle_profile_begin (&r->profile, "log");
  gboolean ok = heddle_run_ask (r, updated, last, error) && heddle_run_take_readings (r, FALSE, error);
  heddle_profile_end (&r->profile, HEDDLE_TIME_LOG, "log", began, r->step - 1);
  return ok;
}

/* The device may read a batch until it has been given the next: HELD is the last one. */
static void
hold (HeddleLoader *loader, const HeddleBatch **held, const HeddleBatch *batch)
{
  if (*held)
    heddle_loader_release (loader, *held);
  *held = batch;
}

static gboolean
one_batch (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  gint64 began = heddle_profile_begin (&r->profile, "step");
  const HeddleBatch *batch = next_batch (r, error);
  gboolean ok = batch != NULL;
  if (ok)
    {
      ok = forward_backward (r, batch, error);
      hold (p->loader, &r->held, batch);
      r->samples += batch->n;
      r->step++;
      r->batch++;
      r->window++;
      gboolean last = r->batch == p->steps_per_epoch || r->step == r->total_steps, updates = r->window == p->options->accumulate || last;
      if (ok && updates)
        ok = update (r, error);
      if (r->step == 1)
        {
          ok = ok && p->device->iface->sync (p->device, error);
          r->result->first_step_seconds = process_age ();
        }
      ok = ok && tell (r, updates, last, error);
    }
  else if (error && !*error)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "the data ended before the run did");
  heddle_profile_end (&r->profile, HEDDLE_TIME_PARTS, "step", began, r->step - 1);
  return ok && end_profile (r, error);
}

/* ---- evaluation ---- */

/* Higher is better for every built-in metric. */
static void
keep_best (Run *r, guint i, double value)
{
  gboolean first = r->result->n_metrics <= i;
  g_strlcpy (r->result->metric[i].name, r->p->metric_names[i], sizeof r->result->metric[i].name);
  r->result->metric[i].value = value;
  if (first || value > r->result->metric[i].best)
    {
      r->result->metric[i].best = value;
      r->result->metric[i].best_epoch = r->epoch;
    }
}

static guint
best_index (const HeddlePipeline *p)
{
  guint index = 0;
  for (guint i = 0; i < p->n_metrics; i++)
    if (g_strcmp0 (p->options->eval_best, p->metric_names[i]) == 0)
      index = i;
  return index;
}

static gboolean
interrupted (Run *r, GError **error)
{
  gboolean yes = heddle_signals_pending ();
  if (yes)
    {
      r->result->interrupted = TRUE;
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_INTERRUPTED, "stopped by a signal after batch %" G_GINT64_FORMAT " of epoch %" G_GINT64_FORMAT ": %" G_GINT64_FORMAT " batches, %" G_GINT64_FORMAT
                   " updates, %" G_GINT64_FORMAT " samples; this version writes no checkpoint", r->batch, r->epoch, r->step, r->updates, r->samples);
    }
  return yes;
}

static gboolean
evaluate (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  double sum[1 + MAX_METRICS], weight[1 + MAX_METRICS];
  const HeddleBatch *held = NULL;      /* read by the device, perhaps still */
  guint64 batches = (p->eval_info.length + (guint64) p->eval_batch_size - 1) / (guint64) p->eval_batch_size;
  gint64 began = heddle_profile_begin (&r->profile, "evaluate");
  gboolean ok = heddle_loader_start (p->eval_loader, 0, batches, error) && heddle_evaluation_begin (p, error);
  for (guint64 j = 0; ok && j < batches; j++)
    {
      const HeddleBatch *batch = heddle_loader_next (p->eval_loader, error);
      ok = batch && run_plan (p, &p->eval[(gint64) batch->n != p->eval_batch_size], batch, error) && !interrupted (r, error);
      hold (p->eval_loader, &held, batch);
    }
  ok = ok && heddle_evaluation_end (p, sum, weight, error);
  hold (p->eval_loader, &held, NULL);
  heddle_profile_end (&r->profile, HEDDLE_TIME_PARTS, "evaluate", began, r->step);
  if (ok)
    {
      HeddleEvent e = heddle_run_event (r, HEDDLE_EVENT_EVAL);
      heddle_run_add_means (r, &e, sum, weight);
      for (guint i = 0; i < p->n_metrics; i++)
        keep_best (r, i, weight[i + 1] > 0 ? sum[i + 1] / weight[i + 1] : NAN);
      r->result->n_metrics = p->n_metrics;
      heddle_events_send (r->events, G_MAXUINT, &e);
      if (p->schedule)
        heddle_schedule_report (p->schedule->stage, p->n_metrics ? r->result->metric[best_index (p)].value : sum[0] / weight[0]);
    }
  return ok;
}

/* ---- epochs ---- */

static gboolean
end_epoch (Run *r, double started, gint64 before, const Waited *waited, GError **error)
{
  HeddlePipeline *p = r->p;
  gboolean ok = heddle_run_read_sums (r, error);
  if (ok)
    {
      HeddleEvent e = heddle_run_event (r, HEDDLE_EVENT_EPOCH_END);
      Waited after = heddle_run_waited (r);
      double elapsed = now () - started;
      heddle_run_add_means (r, &e, r->epoch_sum, r->epoch_weight);
      heddle_run_add_value (&e, "lr", r->lr);
      e.samples_per_second = elapsed > 0 ? (double) (r->samples - before) / elapsed : 0;
      heddle_run_add_wait (&e, waited, &after, elapsed);
      r->result->loss = r->epoch_weight[0] > 0 ? r->epoch_sum[0] / r->epoch_weight[0] : NAN;
      heddle_events_send (r->events, G_MAXUINT, &e);
      if (p->eval_data && (r->epoch % p->options->eval_every == 0 || r->step == r->total_steps))
        ok = evaluate (r, error);
      else if (p->schedule && !p->eval_data)
        heddle_schedule_report (p->schedule->stage, r->result->loss);
    }
  return ok;
}

static gboolean
one_epoch (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  double started = now ();
  gint64 before = r->samples;
  Waited waited = heddle_run_waited (r);
  r->epoch++;
  r->batch = 0;
  gboolean ok = reset_running (r, error);
  HeddleEvent e = heddle_run_event (r, HEDDLE_EVENT_EPOCH_START);
  heddle_events_send (r->events, G_MAXUINT, &e);
  while (ok && r->batch < p->steps_per_epoch && r->step < r->total_steps)
    ok = one_batch (r, error) && !interrupted (r, error);
  return ok && end_epoch (r, started, before, &waited, error);
}

/* ---- setting up ---- */

static gboolean
open_loggers (Run *r, GError **error)
{
  HeddleNode *root = r->p->graph->root;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < root->named->len; i++)
    {
      HeddleLink *link = root->named->pdata[i];
      HeddleStage *stage = g_str_has_prefix (link->key, "log.") ? link->ref.node->stage : NULL;
      if (stage && stage->plugin)
        {
          ok = heddle_events_add (r->events, g_steal_pointer (&stage->plugin), &r->p->core, error);
          if (!ok)
            g_prefix_error (error, "%s: ", stage->place);
        }
    }
  r->told = g_malloc0_n (MAX (1, heddle_events_count (r->events)), sizeof *r->told);
  return ok;
}

static void
find_hypers (Run *r)
{
  const HeddleInstance *plugin = r->p->optimizer->stage->plugin;
  HeddleOption option;
  heddle_options_find (plugin->entry->options, "lr", &option);
  r->base_lr = r->lr = *(const double *) ((const char *) plugin->self + option.offset);
  r->lr_variable = heddle_variables_lookup (r->p->vars, "hyper/lr");
  r->momentum_variable = heddle_variables_lookup (r->p->vars, "hyper/momentum");
}

static void
fill_result (Run *r)
{
  HeddleRunResult *x = r->result;
  x->epochs = r->epoch;
  x->steps = r->step;
  x->skipped = (gint64) r->skipped;
  x->updates = r->total_updates - x->skipped;
  x->samples = r->samples;
  x->seconds = now () - r->start;
}

static void
plan_length (Run *r)
{
  HeddlePipeline *p = r->p;
  gint64 per_epoch = (p->steps_per_epoch + p->options->accumulate - 1) / p->options->accumulate;
  r->planned_updates = p->options->epochs * per_epoch;
  r->total_steps = p->options->epochs * p->steps_per_epoch;
  if (p->options->max_steps > 0)
    r->total_steps = MIN (r->total_steps, p->options->max_steps);
}

static gboolean
run_epochs (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  plan_length (r);
  gboolean ok = heddle_loader_start (p->loader, 0, (guint64) r->total_steps, error);
  while (ok && r->epoch < p->options->epochs && r->step < r->total_steps)
    ok = one_epoch (r, error);
  if (!ok)
    {
      heddle_run_take_readings (r, TRUE, NULL);      /* batches before what ended the run are told of */
      p->device->iface->sync (p->device, NULL);
    }
  hold (p->loader, &r->held, NULL);
  return ok;
}

/* ---- profile ---- */

void
heddle_run_timing (Run *r, gboolean on)
{
  HeddlePlan *plans[7];
  heddle_pipeline_plans (r->p, plans);
  for (guint i = 0; i < G_N_ELEMENTS (plans); i++)
    heddle_profile_timing (plans[i], on);
}

static gboolean
open_profile (Run *r, GError **error)
{
  HeddlePipeline *p = r->p;
  gint64 steps = p->profile_steps;
  guint most = 0;
  for (guint i = 0; i < 4; i++)
    most = MAX (most, heddle_profile_n_steps (p->train[i / 2][i % 2].plan));
  gboolean ok = heddle_profile_open (&r->profile, p->profile_path, steps, most + heddle_profile_n_steps (p->update) + 16, error);
  if (ok)
    {
      heddle_events_set_trace (r->events, r->profile.trace, (guint) MIN (4 * steps + 64, 1000000));
      heddle_loader_set_trace (p->loader, r->profile.trace, p->prefetch->id, (guint) MIN (steps + 1024, 1000000));
      heddle_run_timing (r, TRUE);
    }
  return ok;
}

/* ---- a run, whole or in pieces ---- */

Run *
heddle_run_new (HeddlePipeline *p, HeddleEvents *events, HeddleRunResult *result)
{
  Run *r = g_new0 (Run, 1);
  *r = (Run) { .p = p, .events = events, .result = result, .start = now () };
  heddle_profile_ranges (&r->profile, p->device);
  memset (result, 0, sizeof *result);
  return r;
}

void
heddle_run_free (Run *r)
{
  heddle_events_free (r->events);
  /* workers may still look at their tracks: the trace stays as long as the loader */
  if (r->profile.trace)
    r->p->trace = g_steal_pointer (&r->profile.trace);
  heddle_profile_clear (&r->profile);
  g_free (r->told);
  g_free (r);
}

gint64
heddle_run_samples (const Run *r)
{
  return r->samples;
}

HeddleProfile *
heddle_run_profile (Run *r)
{
  return &r->profile;
}

gboolean
heddle_run_begin (Run *r, GError **error)
{
  r->told = g_malloc0_n (MAX (1, heddle_events_count (r->events)), sizeof *r->told);
  find_hypers (r);
  plan_length (r);
  r->total_steps = G_MAXINT64;
  r->epoch = 1;
  return heddle_loader_start (r->p->loader, 0, 0, error) && reset_running (r, error);
}

gboolean
heddle_run_batches (Run *r, gint64 n, GError **error)
{
  gboolean ok = TRUE;
  for (gint64 i = 0; ok && i < n; i++)
    {
      if (r->batch == r->p->steps_per_epoch)
        {
          r->epoch++;
          r->batch = 0;
          ok = reset_running (r, error);
        }
      ok = ok && one_batch (r, error);
    }
  return ok;
}

gboolean
heddle_pipeline_run (HeddlePipeline *p, HeddleRunResult *result, GError **error)
{
  Run *r = heddle_run_new (p, heddle_events_new (), result);
  GError *local = NULL;
  gboolean ok = (!p->profile_path || open_profile (r, &local)) && open_loggers (r, &local);
  if (ok)
    {
      g_autofree char *header = heddle_pipeline_header (p), *algorithms = heddle_pipeline_algorithms (p);
      heddle_pipeline_set_events (p, r->events);
      send_text (r, HEDDLE_EVENT_RUN_START, G_LOG_LEVEL_MESSAGE, header);
      if (algorithms)
        send_text (r, HEDDLE_EVENT_MESSAGE, G_LOG_LEVEL_INFO, algorithms);
      find_hypers (r);
      heddle_signals_install ();
      ok = run_epochs (r, &local);
      heddle_signals_restore ();
      send_text (r, HEDDLE_EVENT_RUN_END, ok ? G_LOG_LEVEL_MESSAGE : G_LOG_LEVEL_WARNING, ok ? "finished" : local->message);
    }
  fill_result (r);
  heddle_pipeline_set_events (p, NULL);
  g_clear_pointer (&r->events, heddle_events_free);
  ok = heddle_profile_write (&r->profile, p->graph->script, local ? NULL : &local) && ok;
  heddle_run_timing (r, FALSE);
  heddle_run_free (r);
  if (local)
    g_propagate_error (error, local);
  return ok;
}

void
heddle_pipeline_set_profile (HeddlePipeline *p, const char *path, gint64 steps)
{
  g_free (p->profile_path);
  p->profile_path = g_strdup (path);
  p->profile_steps = steps;
}
