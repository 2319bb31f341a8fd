/* pipeline/bench.c: a compiled pipeline run piece by piece and timed, with silent loggers in place of the script's.  Must not know what is compared. */
#include "pipeline/internal.h"

#include <string.h>

struct _HeddleBench { HeddlePipeline *p; Run *run; HeddleRunResult result; };

/* ---- silent loggers ---- */

typedef struct { gint64 interval; } Silent;

static gboolean
silent_event (gpointer self, const HeddleEvent *event, GError **error)
{
  (void) self;
  (void) event;
  (void) error;
  return TRUE;
}

static guint
silent_interval (gpointer self)
{
  return (guint) ((Silent *) self)->interval;
}

static const HeddleLoggerIface silent_iface = { sizeof silent_iface, NULL, silent_event, NULL, silent_interval };
static const HeddlePlugin silent_plugin = { .abi = HEDDLE_ABI, .size = sizeof (HeddlePlugin), .kind = "logger", .name = "silent", .version = "1", .summary = "Nothing", .license = "MIT",
                                            .iface_size = sizeof silent_iface, .instance_size = sizeof (Silent), .iface = &silent_iface };
static const HeddleRegistryEntry silent_entry = { .file = (char *) "", .plugin = &silent_plugin };

/* The script's loggers are neither opened nor asked: one that has an integer option "interval" is called so often. */
static gboolean
add_silent (HeddleBench *bench, HeddleEvents *events, const HeddleInstance *logger, GError **error)
{
  HeddleInstance *instance = heddle_instance_new (&silent_entry);
  HeddleOption option;
  if (heddle_options_find (logger->entry->options, "interval", &option) && option.type == HEDDLE_OPTION_INT)
    ((Silent *) instance->self)->interval = *(const gint64 *) ((const char *) logger->self + option.offset);
  return heddle_events_add (events, instance, &bench->p->core, error);
}

static gboolean
add_loggers (HeddleBench *bench, HeddleEvents *events, GError **error)
{
  HeddleNode *root = bench->p->graph->root;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < root->named->len; i++)
    {
      const HeddleLink *link = root->named->pdata[i];
      if (g_str_has_prefix (link->key, "log.") && link->ref.node->stage->plugin)
        ok = add_silent (bench, events, link->ref.node->stage->plugin, error);
    }
  return ok;
}

/* ---- running ---- */

HeddleBench *
heddle_bench_new (HeddlePipeline *pipeline, GError **error)
{
  HeddleBench *bench = g_new0 (HeddleBench, 1);
  HeddleEvents *events = heddle_events_new ();
  bench->p = pipeline;
  gboolean ok = add_loggers (bench, events, error);
  bench->run = heddle_run_new (pipeline, events, &bench->result);
  if (!ok || !heddle_run_begin (bench->run, error))
    g_clear_pointer (&bench, heddle_bench_free);
  return bench;
}

void
heddle_bench_free (HeddleBench *bench)
{
  if (bench)
    {
      heddle_run_free (bench->run);
      g_free (bench);
    }
}

gboolean
heddle_bench_run (HeddleBench *bench, gint64 steps, gint64 *samples, double *seconds, GError **error)
{
  gint64 before = heddle_run_samples (bench->run), start = heddle_trace_clock ();
  gboolean ok = heddle_run_batches (bench->run, steps, error) && bench->p->device->iface->sync (bench->p->device, error);      /* what was only handed over is not done */
  *seconds += (double) (heddle_trace_clock () - start) * 1e-9;
  *samples += heddle_run_samples (bench->run) - before;
  return ok;
}

gboolean
heddle_bench_split (HeddleBench *bench, gint64 steps, double part[HEDDLE_TIME_PARTS], double *seconds, GError **error)
{
  HeddleProfile *profile = heddle_run_profile (bench->run);
  HeddleDevice *device = bench->p->device;
  gint64 samples = 0;
  guint64 copied = device->iface->counter (device, HEDDLE_COUNTER_COPY);
  memset (profile->seconds, 0, sizeof profile->seconds);
  *seconds = 0;
  heddle_run_timing (bench->run, TRUE);
  profile->on = TRUE;
  gboolean ok = heddle_bench_run (bench, steps, &samples, seconds, error);
  profile->on = FALSE;
  heddle_run_timing (bench->run, FALSE);
  memcpy (part, profile->seconds, sizeof profile->seconds);
  part[HEDDLE_TIME_COPY] = (double) (device->iface->counter (device, HEDDLE_COUNTER_COPY) - copied) * 1e-9;
  return ok;
}
