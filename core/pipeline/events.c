/* pipeline/events.c: one bounded queue and one thread per logger.  Must not know what is logged or why. */
#include "pipeline/events.h"

#include <pthread.h>
#include <string.h>

#define QUEUE 128

typedef struct { HeddleEvent event; char *text; char names[HEDDLE_MAX_EVENT_VALUES][2][32]; } Item;

typedef struct
{
  HeddleInstance *instance;
  pthread_t       thread;
  pthread_mutex_t lock;
  pthread_cond_t  changed;
  Item            items[QUEUE];
  guint           first, count;    /* of the ring; under LOCK */
  gboolean        closing, detached;
  guint64         dropped;
  guint           interval;
  HeddleTrack    *track;
} Logger;

struct _HeddleEvents { GPtrArray *loggers; HeddleTrace *trace; guint capacity; };

HeddleEvents *
heddle_events_new (void)
{
  HeddleEvents *events = g_new0 (HeddleEvents, 1);
  events->loggers = g_ptr_array_new ();
  return events;
}

void
heddle_events_set_trace (HeddleEvents *events, HeddleTrace *trace, guint capacity)
{
  events->trace = trace;
  events->capacity = capacity;
}

/* ---- the logger's thread ---- */

static void
note (Logger *l, const HeddleEvent *event, gint64 start)
{
  static const char *const names[] = { "event", "run_start", "epoch_start", "batch", "eval", "epoch_end", "run_end", "message" };
  const char *name = event->type < G_N_ELEMENTS (names) ? names[event->type] : names[0];
  heddle_track_add (l->track, &(HeddleSpan) { .name = name, .category = "log", .start = start, .end = heddle_trace_clock (), .number = event->step });
}

static void
deliver (Logger *l, const HeddleEvent *event)
{
  const HeddleLoggerIface *iface = l->instance->entry->plugin->iface;
  g_autoptr (GError) error = NULL;
  gint64 start = l->track ? heddle_trace_clock () : 0;
  if (!iface->event (l->instance->self, event, &error))
    {
      g_warning ("logger-%s is detached: %s", l->instance->entry->plugin->name, error ? error->message : "it failed and set no error");
      pthread_mutex_lock (&l->lock);
      l->detached = TRUE;
      pthread_mutex_unlock (&l->lock);
    }
  if (l->track)
    note (l, event, start);
}

static void *
logger_thread (void *data)
{
  Logger *l = data;
  pthread_mutex_lock (&l->lock);
  while (l->count || !l->closing)
    if (l->count == 0)
      pthread_cond_wait (&l->changed, &l->lock);
    else
      {
        /* the item stays in its place until it is delivered: senders only write behind it */
        Item *item = &l->items[l->first];
        gboolean silent = l->detached;
        pthread_mutex_unlock (&l->lock);
        if (!silent)
          deliver (l, &item->event);
        pthread_mutex_lock (&l->lock);
        g_clear_pointer (&item->text, g_free);
        l->first = (l->first + 1) % QUEUE;
        l->count--;
        pthread_cond_broadcast (&l->changed);
      }
  pthread_mutex_unlock (&l->lock);
  return NULL;
}

/* ---- the sender ---- */

gboolean
heddle_events_add (HeddleEvents *events, HeddleInstance *instance, const HeddleCore *core, GError **error)
{
  const HeddleLoggerIface *iface = instance->entry->plugin->iface;
  guint (*interval) (gpointer) = HEDDLE_SLOT (iface, HeddleLoggerIface, interval);
  gboolean ok = heddle_instance_open_logger (instance, core, error);
  if (ok)
    {
      Logger *l = g_new0 (Logger, 1);
      l->instance = instance;
      l->track = heddle_trace_track (events->trace, events->capacity, "logger %s", instance->entry->plugin->name);
      l->interval = interval ? interval (instance->self) : 0;
      pthread_mutex_init (&l->lock, NULL);
      pthread_cond_init (&l->changed, NULL);
      int code = pthread_create (&l->thread, NULL, logger_thread, l);
      ok = code == 0;
      if (ok)
        g_ptr_array_add (events->loggers, l);
      else
        {
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "logger thread cannot be started: %s", g_strerror (code));
          g_free (l);
        }
    }
  if (!ok)
    heddle_instance_free (instance);
  return ok;
}

guint
heddle_events_count (HeddleEvents *events)
{
  return events->loggers->len;
}

guint
heddle_events_interval (HeddleEvents *events, guint i)
{
  return ((Logger *) events->loggers->pdata[i])->interval;
}

/* Copies names too: the sender's need not outlive the call. */
static void
put (Item *item, const HeddleEvent *event)
{
  item->event = *event;
  item->text = g_strdup (event->text);
  item->event.text = item->text;
  for (guint i = 0; i < event->n_values; i++)
    {
      g_strlcpy (item->names[i][0], event->values[i].name, sizeof item->names[i][0]);
      g_strlcpy (item->names[i][1], event->values[i].brief ? event->values[i].brief : event->values[i].name, sizeof item->names[i][1]);
      item->event.values[i].name = item->names[i][0];
      item->event.values[i].brief = item->names[i][1];
    }
}

static void
send_one (Logger *l, const HeddleEvent *event)
{
  pthread_mutex_lock (&l->lock);
  if (event->type != HEDDLE_EVENT_BATCH && event->type != HEDDLE_EVENT_MESSAGE)
    while (l->count == QUEUE)
      pthread_cond_wait (&l->changed, &l->lock);
  if (l->count == QUEUE)
    l->dropped++;
  else if (!l->detached)
    {
      put (&l->items[(l->first + l->count) % QUEUE], event);
      l->count++;
      pthread_cond_broadcast (&l->changed);
    }
  pthread_mutex_unlock (&l->lock);
}

void
heddle_events_send (HeddleEvents *events, guint i, const HeddleEvent *event)
{
  for (guint k = 0; k < events->loggers->len; k++)
    if (i == G_MAXUINT || i == k)
      send_one (events->loggers->pdata[k], event);
}

void
heddle_events_drain (HeddleEvents *events)
{
  for (guint k = 0; k < events->loggers->len; k++)
    {
      Logger *l = events->loggers->pdata[k];
      pthread_mutex_lock (&l->lock);
      while (l->count)
        pthread_cond_wait (&l->changed, &l->lock);
      pthread_mutex_unlock (&l->lock);
    }
}

guint64
heddle_events_dropped (HeddleEvents *events)
{
  guint64 n = 0;
  for (guint k = 0; k < events->loggers->len; k++)
    {
      Logger *l = events->loggers->pdata[k];
      pthread_mutex_lock (&l->lock);
      n += l->dropped;
      pthread_mutex_unlock (&l->lock);
    }
  return n;
}

void
heddle_events_free (HeddleEvents *events)
{
  for (guint k = 0; events && k < events->loggers->len; k++)
    {
      Logger *l = events->loggers->pdata[k];
      pthread_mutex_lock (&l->lock);
      l->closing = TRUE;
      pthread_cond_broadcast (&l->changed);
      pthread_mutex_unlock (&l->lock);
      pthread_join (l->thread, NULL);
      heddle_instance_free (l->instance);
      pthread_mutex_destroy (&l->lock);
      pthread_cond_destroy (&l->changed);
      g_free (l);
    }
  if (events)
    {
      g_ptr_array_unref (events->loggers);
      g_free (events);
    }
}
