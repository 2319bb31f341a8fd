/* base/trace.c: tracks and their spans.  Must not know what the spans mean or how they are written. */
#include "base/trace.h"

struct _HeddleTrace { GPtrArray *tracks; gint stopped; };

static void
track_free (gpointer data)
{
  HeddleTrack *track = data;
  g_free (track->name);
  g_free (track->spans);
  g_free (track);
}

HeddleTrace *
heddle_trace_new (void)
{
  HeddleTrace *trace = g_new0 (HeddleTrace, 1);
  trace->tracks = g_ptr_array_new_with_free_func (track_free);
  return trace;
}

void
heddle_trace_free (HeddleTrace *trace)
{
  if (trace)
    {
      g_ptr_array_unref (trace->tracks);
      g_free (trace);
    }
}

HeddleTrack *
heddle_trace_track (HeddleTrace *trace, guint capacity, const char *name_format, ...)
{
  HeddleTrack *track = NULL;
  if (trace)
    {
      va_list args;
      va_start (args, name_format);
      track = g_new0 (HeddleTrack, 1);
      track->name = g_strdup_vprintf (name_format, args);
      track->trace = trace;
      track->capacity = capacity;
      track->spans = g_new0 (HeddleSpan, MAX (capacity, 1));
      g_ptr_array_add (trace->tracks, track);
      va_end (args);
    }
  return track;
}

guint
heddle_trace_count (HeddleTrace *trace)
{
  return trace->tracks->len;
}

HeddleTrack *
heddle_trace_nth (HeddleTrace *trace, guint i)
{
  return trace->tracks->pdata[i];
}

void
heddle_trace_stop (HeddleTrace *trace)
{
  g_atomic_int_set (&trace->stopped, 1);
}

gboolean
heddle_trace_on (const HeddleTrack *track)
{
  return track && !g_atomic_int_get (&track->trace->stopped);
}

/* Full means full: spans that are there stay, so that a reader may look at any time. */
void
heddle_track_add (HeddleTrack *track, const HeddleSpan *span)
{
  gboolean on = heddle_trace_on (track);
  if (on && track->count == track->capacity)
    track->lost++;
  else if (on)
    {
      track->spans[track->count] = *span;
      g_atomic_int_set (&track->count, track->count + 1);
    }
}
