/* cpu/waiting.h: whether threads of a parallel region spin for a moment before they sleep.  Private to the module. */
#ifndef HEDDLE_BACKEND_CPU_WAITING_H
#define HEDDLE_BACKEND_CPU_WAITING_H

#include <glib.h>

/* A network of short operations has a parallel region every 20 to 200 us; to put a thread to sleep and wake it again takes as long.  A thread that spins
 * until its next region is ready at once (MLP 784-512-256-10, two threads: 1.7 times as many samples), but where other work wants the CPU it burns the time in
 * which the one it waits for would run (half the samples, or fewer).  So: spin, until the threads of the team have waited for a CPU; then sleep at once for a while, and try again.
 *
 * What is measured is the kernel's own count of the time that each thread of the team was ready to run and did not (/proc/PID/task/TID/schedstat). */

/* The rule alone, from times and counts: no threads, no clock.  All zero at the start. */
typedef struct
{
  gint64   looked;        /* ns: when the last window began; 0: never */
  gint64   delay;         /* ns: all threads' delays then */
  gint64   until;         /* ns: they sleep until then; 0: they spin */
  gint64   patience;      /* ns: how long they slept the last time, doubled each time */
} CpuWaitingRule;
#define CPU_WAITING_WINDOW   ((gint64) 20000000)          /* ns between two looks */
#define CPU_WAITING_SHARED   0.25                         /* CPUs that others took in a window, from which on this counts as shared */
#define CPU_WAITING_SHORTEST ((gint64) 250000000)
#define CPU_WAITING_LONGEST  ((gint64) 8000000000)
/* Whether threads should spin from NOW on.  DELAY: ns, the sum over the team since it began. */
gboolean    cpu_waiting_rule (CpuWaitingRule *rule, gint64 now, gint64 delay);

typedef struct _CpuWaiting CpuWaiting;
/* For the team of THREADS that the calling thread leads.  NULL if there is nothing to choose: one thread, or a policy set by the user.  Where the kernel does not count they sleep at once always. */
CpuWaiting *cpu_waiting_new  (guint threads);
void        cpu_waiting_free (CpuWaiting *waiting);
/* Before a run of a plan, by the thread that leads the team: at most once in a window it looks and decides.  Neither waits nor allocates. */
void        cpu_waiting_look (CpuWaiting *waiting, gint64 now);
/* Spin or sleep from now on, or as soon as the thread that switches gets to it; settle waits for that.  For cpu_waiting_look and tests. */
void        cpu_waiting_spin (CpuWaiting *waiting, gboolean spin);
void        cpu_waiting_settle (CpuWaiting *waiting);

#endif
