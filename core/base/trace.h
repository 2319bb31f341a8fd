/* base/trace.h: spans of time, noted by threads into buffers of their own: what `run --profile` writes.
 * Must not know what the spans mean or how they are written. */
#ifndef HEDDLE_BASE_TRACE_H
#define HEDDLE_BASE_TRACE_H

#include <glib.h>
#include <time.h>

G_BEGIN_DECLS

/* Strings are borrowed and outlive the trace; DETAIL and NOTE may be NULL. */
typedef struct
{
  const char *name, *category;     /* "conv2d", "op" */
  gint64      start, end;          /* ns of heddle_trace_clock () */
  gint64      number;              /* what people count it by: step, batch, operation */
  const char *detail, *note;       /* "layer1.conv1", the kernel's name */
} HeddleSpan;

typedef struct _HeddleTrace HeddleTrace;

/* One thread's buffer: one writer, allocated before the writer starts.  A NULL track takes nothing: that test is all that tracing costs when it is off. */
typedef struct
{
  char        *name;               /* "main", "worker 1", "logger progress" */
  HeddleTrace *trace;
  HeddleSpan  *spans;
  guint        capacity, count;    /* COUNT is atomic: spans below it do not change any more */
  guint        lost;               /* spans that found the buffer full */
} HeddleTrack;

HeddleTrace *heddle_trace_new   (void);
void         heddle_trace_free  (HeddleTrace *trace);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleTrace, heddle_trace_free)
/* A track of the trace, which owns it; NULL when TRACE is.  [main] */
HeddleTrack *heddle_trace_track (HeddleTrace *trace, guint capacity, const char *name_format, ...) G_GNUC_PRINTF (3, 4);
guint        heddle_trace_count (HeddleTrace *trace);
HeddleTrack *heddle_trace_nth   (HeddleTrace *trace, guint i);
/* From now on no track takes anything.  [any thread] */
void         heddle_trace_stop  (HeddleTrace *trace);
gboolean     heddle_trace_on    (const HeddleTrack *track);   /* FALSE for NULL */

static inline gint64
heddle_trace_clock (void)
{
  struct timespec t;
  clock_gettime (CLOCK_MONOTONIC, &t);
  return (gint64) t.tv_sec * 1000000000 + t.tv_nsec;
}

/* No allocation, no lock. */
void         heddle_track_add   (HeddleTrack *track, const HeddleSpan *span);

G_END_DECLS

#endif
