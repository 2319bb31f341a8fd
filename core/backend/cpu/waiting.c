/* cpu/waiting.c: spinning while the CPUs are ours, sleeping while they are shared.  Must not know plans or operations.
 * libgomp reads how long a thread spins once, when it is loaded (GOMP_SPINCOUNT, which core/backend/backend.c sets), but asks at each wait whether it manages more
 * threads than there are CPUs, and with OMP_WAIT_POLICY=passive does not spin at all then.  That is the switch: a team of sleeping threads on the side, one more
 * than there are CPUs, held for as long as the machine is shared. */
#include "waiting.h"

#include <fcntl.h>
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

struct _CpuWaiting
{
  CpuWaitingRule rule;
  guint    threads;
  int     *counts;        /* file of each thread of the team */
  GThread *holder;        /* leads the team of sleepers; NULL: there is none, threads spin */
  GMutex   mutex;
  GCond    changed;
  gboolean ready, over;
  gboolean counted;       /* the kernel counts */
};

gboolean
cpu_waiting_rule (CpuWaitingRule *rule, gint64 now, gint64 delay)
{
  double shared = rule->looked > 0 && now > rule->looked ? (double) (delay - rule->delay) / (double) (now - rule->looked) : 0;
  if (rule->until > 0 && now >= rule->until)
    rule->until = 0;
  else if (rule->until == 0 && shared >= CPU_WAITING_SHARED)
    {
      rule->patience = CLAMP (2 * rule->patience, CPU_WAITING_SHORTEST, CPU_WAITING_LONGEST);
      rule->until = now + rule->patience;
    }
  else if (rule->until == 0 && shared < CPU_WAITING_SHARED / 2)
    rule->patience -= rule->patience / 8;      /* forgotten by and by: a busy moment now and then is not a busy machine */
  rule->looked = now;
  rule->delay = delay;
  return rule->until == 0;
}

/* ---- what the kernel counted ---- */

static gboolean
open_counts (CpuWaiting *w)
{
  for (guint i = 0; i < w->threads; i++)
    w->counts[i] = -1;
#pragma omp parallel num_threads ((int) w->threads)
  w->counts[omp_get_thread_num ()] = open ("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  return w->counts[0] >= 0;                      /* a team may be smaller than asked for (OMP_THREAD_LIMIT) */
}

/* "ran waited timeslices", ns */
static gint64
read_delay (const CpuWaiting *w)
{
  gint64 sum = 0;
  for (guint i = 0; i < w->threads && w->counts[i] >= 0; i++)
    {
      char text[96], *end;
      ssize_t n = pread (w->counts[i], text, sizeof text - 1, 0);
      text[MAX (n, 0)] = '\0';
      g_ascii_strtoull (text, &end, 10);
      sum += (gint64) g_ascii_strtoull (end, NULL, 10);
    }
  return sum;
}

/* ---- the switch ---- */

static gpointer
hold (gpointer data)
{
  CpuWaiting *w = data;
#pragma omp parallel num_threads (omp_get_num_procs () + 1)
  __asm__ volatile ("");                         /* a region that does nothing would be dropped */
  g_mutex_lock (&w->mutex);
  w->ready = TRUE;
  g_cond_broadcast (&w->changed);
  while (!w->over)
    g_cond_wait (&w->changed, &w->mutex);
  g_mutex_unlock (&w->mutex);
  return NULL;                                   /* its team ends with it */
}

static void
start_holder (CpuWaiting *w)
{
  w->ready = w->over = FALSE;
  w->holder = g_thread_try_new ("heddle-idle", hold, w, NULL);      /* without it threads go on spinning: slower, nothing worse */
  g_mutex_lock (&w->mutex);
  while (w->holder && !w->ready)
    g_cond_wait (&w->changed, &w->mutex);
  g_mutex_unlock (&w->mutex);
}

static void
end_holder (CpuWaiting *w)
{
  g_mutex_lock (&w->mutex);
  w->over = TRUE;
  g_cond_broadcast (&w->changed);
  g_mutex_unlock (&w->mutex);
  g_thread_join (w->holder);
  w->holder = NULL;
}

void
cpu_waiting_spin (CpuWaiting *w, gboolean spin)
{
  if (spin && w->holder)
    end_holder (w);
  else if (!spin && !w->holder)
    start_holder (w);
}

/* ---- life ---- */

CpuWaiting *
cpu_waiting_new (guint threads)
{
  CpuWaiting *w = NULL;
  const char *policy = g_getenv ("OMP_WAIT_POLICY"), *spin = g_getenv ("GOMP_SPINCOUNT");
  if (threads > 1 && policy && g_ascii_strcasecmp (policy, "passive") == 0 && spin && !g_str_equal (spin, "0"))
    {
      w = g_new0 (CpuWaiting, 1);
      w->threads = threads;
      w->counts = g_new (int, threads);
      g_mutex_init (&w->mutex);
      g_cond_init (&w->changed);
      w->counted = open_counts (w);
      cpu_waiting_spin (w, w->counted);          /* blind, the safe side is to sleep */
    }
  return w;
}

void
cpu_waiting_free (CpuWaiting *w)
{
  if (w)
    {
      cpu_waiting_spin (w, TRUE);
      for (guint i = 0; i < w->threads; i++)
        if (w->counts[i] >= 0)
          close (w->counts[i]);
      g_mutex_clear (&w->mutex);
      g_cond_clear (&w->changed);
      g_free (w->counts);
      g_free (w);
    }
}

void
cpu_waiting_look (CpuWaiting *w, gint64 now)
{
  if (w->counted && now - w->rule.looked >= CPU_WAITING_WINDOW)
    cpu_waiting_spin (w, cpu_waiting_rule (&w->rule, now, read_delay (w)));
}
