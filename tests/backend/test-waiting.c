/* test-waiting.c: when threads of a team spin and when they sleep: the rule from times and counts alone, and that the switch switches. */
#include <omp.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "backend/cpu/waiting.h"

#define MS ((gint64) 1000000)

/* N windows in which others took the share SHARED of one CPU; the last answer. */
static gboolean
windows (CpuWaitingRule *rule, guint n, double shared, gint64 *now, gint64 *delay)
{
  gboolean spin = FALSE;
  for (guint i = 0; i < n; i++)
    {
      *now += CPU_WAITING_WINDOW;
      *delay += (gint64) (shared * (double) CPU_WAITING_WINDOW);
      spin = cpu_waiting_rule (rule, *now, *delay);
    }
  return spin;
}

static void
test_rule (void)
{
  CpuWaitingRule rule = { 0 };
  gint64 now = 5 * MS, delay = 1000 * MS;                          /* what was counted before the first look says nothing */
  g_assert_true (cpu_waiting_rule (&rule, now, delay));
  g_assert_true (windows (&rule, 50, 0.0, &now, &delay));
  g_assert_true (windows (&rule, 50, CPU_WAITING_SHARED * 0.9, &now, &delay));
  g_assert_false (windows (&rule, 1, 0.5, &now, &delay));          /* one busy window is enough */
}

/* How long they sleep after each try, while the machine stays shared. */
static gint64
sleep_of (CpuWaitingRule *rule, gint64 *now, gint64 *delay)
{
  gint64 began = *now;
  while (!windows (rule, 1, 0.5, now, delay))
    ;
  return *now - began;
}

static void
test_patience (void)
{
  CpuWaitingRule rule = { 0 };
  gint64 now = MS, delay = 0, expected = CPU_WAITING_SHORTEST;
  cpu_waiting_rule (&rule, now, delay);
  for (guint i = 0; i < 12; i++)
    {
      g_assert_false (windows (&rule, 1, 0.5, &now, &delay));
      gint64 slept = sleep_of (&rule, &now, &delay);
      g_assert_cmpint (slept, >=, expected);
      g_assert_cmpint (slept, <, expected + 2 * CPU_WAITING_WINDOW);
      expected = MIN (2 * expected, CPU_WAITING_LONGEST);
    }
  g_assert_true (windows (&rule, 100, 0.0, &now, &delay));          /* two quiet seconds, and it is forgotten */
  g_assert_false (windows (&rule, 1, 0.5, &now, &delay));
  g_assert_cmpint (sleep_of (&rule, &now, &delay), <, CPU_WAITING_SHORTEST + 2 * CPU_WAITING_WINDOW);
}

static gint64
cpu_time (void)
{
  struct timespec t;
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return (gint64) t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The CPU time of 20 regions with pauses between them, in which the other thread spins or sleeps. */
static gint64
burn (void)
{
  gint64 began = cpu_time ();
  for (guint i = 0; i < 20; i++)
    {
#pragma omp parallel num_threads (2)
      __asm__ volatile ("");
      g_usleep (20000);
    }
  return cpu_time () - began;
}

static void
test_switch (void)
{
  CpuWaiting *w = cpu_waiting_new (2);
  g_assert_nonnull (w);
  if (omp_get_num_procs () < 2)
    g_test_skip ("one CPU: libgomp never spins");
  else
    for (guint i = 0; i < 3; i++)
      {
        cpu_waiting_spin (w, FALSE);
        cpu_waiting_settle (w);
        gint64 asleep = burn ();
        cpu_waiting_spin (w, TRUE);
        cpu_waiting_settle (w);
        gint64 spinning = burn ();
        g_test_message ("asleep %.3f ms, spinning %.3f ms", (double) asleep * 1e-6, (double) spinning * 1e-6);
        g_assert_cmpint (spinning, >, 2 * asleep);
      }
  cpu_waiting_free (w);
}

static void
test_nothing_to_choose (void)
{
  g_assert_null (cpu_waiting_new (1));
  g_setenv ("OMP_WAIT_POLICY", "active", TRUE);
  g_assert_null (cpu_waiting_new (2));
  g_setenv ("OMP_WAIT_POLICY", "passive", TRUE);
  g_setenv ("GOMP_SPINCOUNT", "0", TRUE);
  g_assert_null (cpu_waiting_new (2));
}

int
main (int argc, char **argv)
{
  if (!g_getenv ("GOMP_SPINCOUNT"))              /* libgomp has read its environment already: once more from the start */
    {
      g_setenv ("OMP_WAIT_POLICY", "passive", TRUE);
      g_setenv ("GOMP_SPINCOUNT", "20000", TRUE);
      execv ("/proc/self/exe", argv);
      return EXIT_FAILURE;
    }
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cpu/waiting/rule", test_rule);
  g_test_add_func ("/cpu/waiting/patience", test_patience);
  g_test_add_func ("/cpu/waiting/switch", test_switch);
  g_test_add_func ("/cpu/waiting/nothing-to-choose", test_nothing_to_choose);
  return g_test_run ();
}
