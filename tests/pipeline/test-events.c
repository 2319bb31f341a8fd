/* test-events.c: the queues between the run and its loggers: order, copies, full queues, a logger that fails, one that is slow. */
#include <pthread.h>
#include <string.h>

#include "pipeline/events.h"

typedef struct { gint64 unused; } Fake;
static gint opened, closed, delivered, fail_at, hold;      /* atomic */
static gint64 last_step[2];
static gboolean in_order;
static char last_text[64], last_name[32];

static gboolean
fake_open (gpointer self, const HeddleCore *core, GError **error)
{
  gboolean ok = fail_at != -2;
  g_atomic_int_inc (&opened);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "the pen is dry");
  return ok;
}

static gboolean
fake_event (gpointer self, const HeddleEvent *e, GError **error)
{
  while (g_atomic_int_get (&hold))
    g_usleep (500);
  in_order &= e->step > last_step[0];
  last_step[0] = e->step;
  if (e->text)
    g_strlcpy (last_text, e->text, sizeof last_text);
  if (e->n_values)
    g_strlcpy (last_name, e->values[0].name, sizeof last_name);
  gboolean ok = g_atomic_int_get (&fail_at) != g_atomic_int_add (&delivered, 1);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "the paper is full");
  return ok;
}

static void fake_close (gpointer self) { g_atomic_int_inc (&closed); }
static guint fake_interval (gpointer self) { return 7; }

static const HeddleLoggerIface iface = { sizeof iface, fake_open, fake_event, fake_close, fake_interval };
static const HeddlePlugin plugin = { .kind = "logger", .name = "fake", .instance_size = sizeof (Fake), .iface = &iface, .iface_size = sizeof iface };
static HeddleRegistryEntry entry = { .plugin = &plugin };
static const HeddleCore core = { .size = sizeof core };

static HeddleEvents *
begin (void)
{
  GError *error = NULL;
  HeddleEvents *events = heddle_events_new ();
  opened = closed = delivered = hold = 0;
  fail_at = -1;
  last_step[0] = 0;
  in_order = TRUE;
  g_assert_true (heddle_events_add (events, heddle_instance_new (&entry), &core, &error));
  g_assert_no_error (error);
  return events;
}

static void
send (HeddleEvents *events, HeddleEventType type, gint64 step)
{
  char text[32], name[8] = "loss";
  g_snprintf (text, sizeof text, "text %d", (int) step);
  HeddleEvent e = { .size = sizeof e, .type = type, .step = step, .text = text, .n_values = 1, .values = { { name, NULL, 1 } } };
  heddle_events_send (events, G_MAXUINT, &e);
  memset (text, 'x', sizeof text);                /* the queue has copies */
  memset (name, 'x', sizeof name);
}

/* All events that must arrive do, in order, however slow the logger; what was copied is what was sent. */
static void
test_order (void)
{
  HeddleEvents *events = begin ();
  g_assert_cmpuint (heddle_events_count (events), ==, 1);
  g_assert_cmpuint (heddle_events_interval (events, 0), ==, 7);
  for (gint64 i = 1; i <= 1000; i++)
    send (events, HEDDLE_EVENT_EVAL, i);
  heddle_events_free (events);
  g_assert_cmpint (delivered, ==, 1000);
  g_assert_true (in_order);
  g_assert_cmpstr (last_text, ==, "text 1000");
  g_assert_cmpstr (last_name, ==, "loss");
  g_assert_cmpint (opened, ==, 1);
  g_assert_cmpint (closed, ==, 1);
}

/* A logger that stands still costs batch lines, never the run's time, and nothing else. */
static void
test_full (void)
{
  HeddleEvents *events = begin ();
  g_atomic_int_set (&hold, 1);
  for (gint64 i = 1; i <= 1000; i++)
    send (events, HEDDLE_EVENT_BATCH, i);         /* returns: nothing waits */
  guint64 dropped = heddle_events_dropped (events);
  g_assert_cmpuint (dropped, >, 0);
  g_atomic_int_set (&hold, 0);
  send (events, HEDDLE_EVENT_RUN_END, 2000);
  heddle_events_free (events);
  g_assert_cmpint (delivered + (gint) dropped, ==, 1001);
  g_assert_cmpstr (last_text, ==, "text 2000");
  g_assert_true (in_order);
}

/* Detached with one warning; closed all the same. */
static void
test_failure (void)
{
  HeddleEvents *events = begin ();
  fail_at = 3;
  g_test_expect_message ("heddle", G_LOG_LEVEL_WARNING, "*logger-fake is detached: the paper is full*");
  for (gint64 i = 1; i <= 500; i++)
    send (events, HEDDLE_EVENT_EVAL, i);
  heddle_events_free (events);
  g_test_assert_expected_messages ();
  g_assert_cmpint (delivered, ==, 4);
  g_assert_cmpint (closed, ==, 1);
}

static void
test_open_failure (void)
{
  GError *error = NULL;
  HeddleEvents *events = heddle_events_new ();
  closed = 0;
  fail_at = -2;
  g_assert_false (heddle_events_add (events, heddle_instance_new (&entry), &core, &error));
  g_assert_cmpstr (error->message, ==, "logger-fake: the pen is dry");
  g_clear_error (&error);
  g_assert_cmpuint (heddle_events_count (events), ==, 0);
  heddle_events_free (events);
  g_assert_cmpint (closed, ==, 0);                /* what did not open is not closed */
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/events/order", test_order);
  g_test_add_func ("/events/full", test_full);
  g_test_add_func ("/events/failure", test_failure);
  g_test_add_func ("/events/open-failure", test_open_failure);
  return g_test_run ();
}
