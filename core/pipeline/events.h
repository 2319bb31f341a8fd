/* pipeline/events.h: from the run loop to the loggers: one bounded queue and one thread per logger, no allocation on the training path.
 * Must not know what is logged or why. */
#ifndef HEDDLE_PIPELINE_EVENTS_H
#define HEDDLE_PIPELINE_EVENTS_H

#include "base/trace.h"
#include "plugin/registry.h"

G_BEGIN_DECLS

typedef struct _HeddleEvents HeddleEvents;

HeddleEvents *heddle_events_new    (void);
/* Before loggers are added: each notes what it delivers, CAPACITY events, on a track "logger NAME" of TRACE. */
void          heddle_events_set_trace (HeddleEvents *events, HeddleTrace *trace, guint capacity);
/* Takes INSTANCE, opens it and starts its thread. */
gboolean      heddle_events_add    (HeddleEvents *events, HeddleInstance *instance, const HeddleCore *core, GError **error);
guint         heddle_events_count  (HeddleEvents *events);
guint         heddle_events_interval (HeddleEvents *events, guint i);   /* batches between BATCH events of logger I; 0 = none */
/* Copies EVENT (and its text) into the queue of logger I, or of all (I = G_MAXUINT).  When a queue is full, BATCH and MESSAGE events are dropped and counted;
 * others wait.  [any thread]  A logger that failed is detached with one warning. */
void          heddle_events_send   (HeddleEvents *events, guint i, const HeddleEvent *event);
/* Waits until everything sent so far is delivered. */
void          heddle_events_drain  (HeddleEvents *events);
guint64       heddle_events_dropped (HeddleEvents *events);
/* Delivers what is queued, closes the loggers, joins the threads. */
void          heddle_events_free   (HeddleEvents *events);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleEvents, heddle_events_free)

G_END_DECLS

#endif
