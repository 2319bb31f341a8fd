/* test-trace.c: tracks take what they have room for, count what they have not, and nothing once the trace is stopped. */
#include "base/trace.h"

static void
test_track (void)
{
  g_autoptr (HeddleTrace) trace = heddle_trace_new ();
  HeddleTrack *track = heddle_trace_track (trace, 3, "worker %d", 7);
  g_assert_cmpstr (track->name, ==, "worker 7");
  g_assert_true (heddle_trace_on (track));
  for (gint64 i = 0; i < 5; i++)
    heddle_track_add (track, &(HeddleSpan) { .name = "x", .category = "op", .start = i, .end = i + 1, .number = i });
  g_assert_cmpuint (track->count, ==, 3);
  g_assert_cmpuint (track->lost, ==, 2);
  for (gint64 i = 0; i < 3; i++)
    g_assert_cmpint (track->spans[i].number, ==, i);        /* full means full: what is there stays */
}

static void
test_stop (void)
{
  g_autoptr (HeddleTrace) trace = heddle_trace_new ();
  HeddleTrack *track = heddle_trace_track (trace, 3, "a");
  heddle_trace_stop (trace);
  heddle_track_add (track, &(HeddleSpan) { .name = "x" });
  g_assert_false (heddle_trace_on (track));
  g_assert_cmpuint (track->count + track->lost, ==, 0);
  heddle_track_add (NULL, &(HeddleSpan) { .name = "x" });   /* off */
  g_assert_null (heddle_trace_track (NULL, 3, "b"));
  g_assert_cmpuint (heddle_trace_count (trace), ==, 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/trace/track", test_track);
  g_test_add_func ("/trace/stop", test_stop);
  return g_test_run ();
}
