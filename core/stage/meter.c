/* stage/meter.c: reads a thread's clocks.  Must not know what the thread did. */
#include "stage/meter.h"
#include "base/trace.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* Below this a stretch is measured one time in SKIP: the clocks would cost more than they tell. */
#define SHORT_NS 100000
#define SKIP 16

void
heddle_meter_open (HeddleMeter *m, gboolean scheduler)
{
  *m = (HeddleMeter) { .file = scheduler ? open ("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC) : -1, .share = { [HEDDLE_METER_COMPUTING] = 1 }, .skipped = SKIP };
}

void
heddle_meter_close (HeddleMeter *m)
{
  if (m->file >= 0)
    close (m->file);
  m->file = -1;
}

/* schedstat: ns on a core, ns ready without one, time slices. */
static gint64
without_core (const HeddleMeter *m)
{
  char text[96];
  ssize_t n = m->file >= 0 ? pread (m->file, text, sizeof text - 1, 0) : 0;
  long long on = 0, waiting = 0;
  text[MAX (n, 0)] = 0;
  return n > 0 && sscanf (text, "%lld %lld", &on, &waiting) == 2 ? waiting : 0;
}

static gint64
cpu_clock (void)
{
  struct timespec t;
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
  return (gint64) t.tv_sec * 1000000000 + t.tv_nsec;
}

void
heddle_meter_start (HeddleMeter *m)
{
  m->looking = m->length >= SHORT_NS || ++m->skipped >= SKIP;
  if (m->looking)
    {
      m->skipped = 0;
      m->no_core = without_core (m);
      m->cpu = cpu_clock ();
    }
  m->wall = heddle_trace_clock ();
}

void
heddle_meter_stop (HeddleMeter *m)
{
  m->length = heddle_trace_clock () - m->wall;
  if (m->looking && m->length > 0)
    {
      double wall = (double) m->length, busy = MIN (1, (double) (cpu_clock () - m->cpu) / wall), no_core = CLAMP ((double) (without_core (m) - m->no_core) / wall, 0, 1 - busy);
      m->share[HEDDLE_METER_COMPUTING] = busy;
      m->share[HEDDLE_METER_NO_CORE] = no_core;
      m->share[HEDDLE_METER_BLOCKED] = 1 - busy - no_core;
    }
}
