/* cpu/waiting.c: spinning while the CPUs are ours, sleeping while they are shared.  Must not know plans or operations.
 * libgomp reads how long a thread spins once, when it is loaded (GOMP_SPINCOUNT, which core/backend/backend.c sets), but asks at each wait whether it manages more
 * threads than there are CPUs, and with OMP_WAIT_POLICY=passive does not spin at all then.  That is the switch: a team of sleeping threads on the side, one more
 * than there are CPUs, held for as long as the machine is shared.  A thread of its own leads it, so that the training thread neither waits nor allocates. */
#include "waiting.h"

#include <fcntl.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct _CpuWaiting
{
  CpuWaitingRule rule;
  guint    threads;
  int     *counts;        /* file of each thread of the team */
  gboolean counted;       /* the kernel counts */
  GThread *holder;        /* leads the team of sleepers; NULL if it could not be started: then threads always spin, slower and nothing worse */
  pthread_mutex_t mutex;
  pthread_cond_t  changed;
  gboolean sleep, over;   /* what the holder is told */
  gboolean asleep;        /* what it has done */
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

/* A team is kept by the thread that led it, until that gives it back. */
static void
keep_team (gboolean keep)
{
  if (keep)
    {
#pragma omp parallel
      __asm__ volatile ("");                     /* a region that does nothing would be dropped */
    }
  else
    omp_pause_resource_all (omp_pause_soft);     /* not the host alone by its number: libgomp would look for accelerators first */
}

static gpointer
hold (gpointer data)
{
  CpuWaiting *w = data;
  omp_set_num_threads (omp_get_num_procs () + 1);
  pthread_mutex_lock (&w->mutex);
  while (!w->over)
    {
      if (w->asleep != w->sleep)
        {
          gboolean sleep = w->sleep;
          pthread_mutex_unlock (&w->mutex);
          keep_team (sleep);
          pthread_mutex_lock (&w->mutex);
          w->asleep = sleep;
          pthread_cond_broadcast (&w->changed);
        }
      else
        pthread_cond_wait (&w->changed, &w->mutex);
    }
  pthread_mutex_unlock (&w->mutex);
  return NULL;
}

static void
tell_holder (CpuWaiting *w, gboolean sleep, gboolean over)
{
  pthread_mutex_lock (&w->mutex);
  if (w->sleep != sleep || w->over != over)
    pthread_cond_broadcast (&w->changed);
  w->sleep = sleep;
  w->over = over;
  pthread_mutex_unlock (&w->mutex);
}

void
cpu_waiting_spin (CpuWaiting *w, gboolean spin)
{
  tell_holder (w, !spin, FALSE);
}

void
cpu_waiting_settle (CpuWaiting *w)
{
  pthread_mutex_lock (&w->mutex);
  while (w->holder && w->asleep != w->sleep)
    pthread_cond_wait (&w->changed, &w->mutex);
  pthread_mutex_unlock (&w->mutex);
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
      pthread_mutex_init (&w->mutex, NULL);
      pthread_cond_init (&w->changed, NULL);
      w->counted = open_counts (w);
      w->holder = g_thread_try_new ("heddle-idle", hold, w, NULL);
      cpu_waiting_spin (w, w->counted);          /* blind, the safe side is to sleep */
    }
  return w;
}

void
cpu_waiting_free (CpuWaiting *w)
{
  if (w)
    {
      tell_holder (w, FALSE, TRUE);
      if (w->holder)
        g_thread_join (w->holder);
      for (guint i = 0; i < w->threads; i++)
        if (w->counts[i] >= 0)
          close (w->counts[i]);
      pthread_mutex_destroy (&w->mutex);
      pthread_cond_destroy (&w->changed);
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
