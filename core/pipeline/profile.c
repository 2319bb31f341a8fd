/* pipeline/profile.c: sums, spans and the trace file (Chrome's trace event format, which Perfetto reads).  Must not know the run loop. */
#include "pipeline/profile.h"
#include "base/memory.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>

/* ---- taking times ---- */

gboolean
heddle_profile_open (HeddleProfile *profile, const char *path, gint64 limit, guint spans_per_step, GError **error)
{
  profile->file = g_fopen (path, "w");
  if (profile->file)
    {
      profile->path = g_strdup (path);
      profile->limit = limit;
      profile->trace = heddle_trace_new ();
      profile->track = heddle_trace_track (profile->trace, (guint) MIN (limit * spans_per_step, 50000000), "training");
      profile->on = TRUE;
    }
  else
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "profile: %s cannot be written: %s\nhint: the folder must exist and be writable", path, g_strerror (errno));
  return profile->file != NULL;
}

void
heddle_profile_ranges (HeddleProfile *profile, HeddleDevice *device)
{
  profile->device = device;
  profile->push = HEDDLE_BACKEND_SLOT (device, range_push);
  profile->pop = HEDDLE_BACKEND_SLOT (device, range_pop);
}

void
heddle_profile_end (HeddleProfile *profile, HeddleTimePart part, const char *name, gint64 start, gint64 step)
{
  if (profile->on)
    {
      gint64 end = heddle_trace_clock ();
      if (part != HEDDLE_TIME_PARTS)
        profile->seconds[part] += (double) (end - start) * 1e-9;
      if (profile->track)
        heddle_track_add (profile->track, &(HeddleSpan) { .name = name, .category = "stage", .start = start, .end = end, .number = step });
    }
  if (profile->pop)
    profile->pop (profile->device, name);
}

static const struct { const char *name; HeddleTimePart part; } phases[] = {
  [HEDDLE_PHASE_FORWARD] = { "forward", HEDDLE_TIME_FORWARD }, [HEDDLE_PHASE_BACKWARD] = { "backward", HEDDLE_TIME_BACKWARD }, [HEDDLE_PHASE_UPDATE] = { "update", HEDDLE_TIME_UPDATE },
};

static void
add_op (HeddleProfile *profile, const HeddlePlanStep *s)
{
  HeddleSpan span = { .name = s->conversion ? s->what : s->op->info->name, .category = s->conversion ? "conversion" : "op", .start = s->start, .end = s->end, .number = s->op->id,
                      .detail = s->op->name, .note = s->what };
  heddle_track_add (profile->track, &span);
}

static void
add_phase (HeddleProfile *profile, const HeddlePlanStep *s, gint64 start, gint64 step)
{
  heddle_track_add (profile->track, &(HeddleSpan) { .name = phases[s->op->phase].name, .category = "phase", .start = start, .end = s->end, .number = step });
}

void
heddle_profile_plan (HeddleProfile *profile, HeddlePlan *plan, gint64 step)
{
  gboolean (*read) (HeddlePlan *, guint, HeddlePlanStep *) = profile->on ? HEDDLE_BACKEND_SLOT (plan->device, step) : NULL;
  HeddlePlanStep s, last = { 0 };
  gint64 start = 0;
  for (guint i = 0; read && read (plan, i, &s); i++)
    {
      profile->seconds[phases[s.op->phase].part] += (double) (s.end - s.start) * 1e-9;
      if (profile->track && last.op && last.op->phase != s.op->phase)
        add_phase (profile, &last, start, step);
      if (!last.op || last.op->phase != s.op->phase)
        start = s.start;
      if (profile->track)
        add_op (profile, &s);
      last = s;
    }
  if (profile->track && last.op)
    add_phase (profile, &last, start, step);
}

void
heddle_profile_timing (HeddlePlan *plan, gboolean on)
{
  void (*timing) (HeddlePlan *, gboolean) = plan ? HEDDLE_BACKEND_SLOT (plan->device, timing) : NULL;
  if (timing)
    timing (plan, on);
}

guint
heddle_profile_n_steps (HeddlePlan *plan)
{
  gboolean (*read) (HeddlePlan *, guint, HeddlePlanStep *) = plan ? HEDDLE_BACKEND_SLOT (plan->device, step) : NULL;
  HeddlePlanStep s;
  guint n = 0;
  while (read && read (plan, n, &s))
    n++;
  return n;
}

/* ---- the file ---- */

static char *
quoted (const char *text)
{
  g_autoptr (JsonNode) node = json_node_init_string (json_node_alloc (), text);
  return json_to_string (node, FALSE);
}

/* Enclosing spans before what they enclose. */
static int
by_start (const void *a, const void *b)
{
  const HeddleSpan *x = a, *y = b;
  return x->start != y->start ? (x->start < y->start ? -1 : 1) : x->end != y->end ? (x->end > y->end ? -1 : 1) : 0;
}

static void
write_meta (FILE *file, guint tid, const char *kind, const char *name)
{
  g_autofree char *text = quoted (name);
  fprintf (file, "%s{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"%s\",\"args\":{\"name\":%s}}", tid ? ",\n" : "", tid, kind, text);
}

static void
write_span (FILE *file, guint tid, const HeddleSpan *s, gint64 origin)
{
  g_autofree char *name = quoted (s->name), *detail = s->detail ? quoted (s->detail) : NULL, *note = s->note ? quoted (s->note) : NULL;
  gint64 at = s->start - origin, length = MAX (s->end - s->start, 0);
  const char *key = g_str_equal (s->category, "op") || g_str_equal (s->category, "conversion") ? "op" : g_str_equal (s->category, "read") ? "batch" : "step";
  fprintf (file, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%u,\"cat\":\"%s\",\"name\":%s,\"ts\":%" G_GINT64_FORMAT ".%03d,\"dur\":%" G_GINT64_FORMAT ".%03d,\"args\":{\"%s\":%" G_GINT64_FORMAT "%s%s%s%s}}", tid,
           s->category, name, at / 1000, (int) (at % 1000), length / 1000, (int) (length % 1000), key, s->number, detail ? ",\"of\":" : "", detail ? detail : "", note ? ",\"kernel\":" : "", note ? note : "");
}

typedef struct { HeddleSpan *spans; guint n; } Copy;

/* A snapshot of what each thread has noted so far, in order of time. */
static Copy *
snapshot (HeddleTrace *trace, gint64 *origin, guint *lost)
{
  guint n = heddle_trace_count (trace);
  Copy *copies = g_new0 (Copy, MAX (n, 1));
  *origin = G_MAXINT64;
  for (guint i = 0; i < n; i++)
    {
      const HeddleTrack *track = heddle_trace_nth (trace, i);
      copies[i].n = (guint) g_atomic_int_get (&track->count);
      copies[i].spans = heddle_memdup (track->spans, copies[i].n * sizeof (HeddleSpan));
      *lost += track->lost;
      if (copies[i].n)
        {
          qsort (copies[i].spans, copies[i].n, sizeof (HeddleSpan), by_start);
          *origin = MIN (*origin, copies[i].spans[0].start);
        }
    }
  return copies;
}

gboolean
heddle_profile_write (HeddleProfile *profile, const char *title, GError **error)
{
  FILE *file = g_steal_pointer (&profile->file);
  gboolean ok = TRUE;
  if (file)
    {
      gint64 origin;
      guint lost = 0, n = heddle_trace_count (profile->trace);
      heddle_trace_stop (profile->trace);
      Copy *copies = snapshot (profile->trace, &origin, &lost);
      fprintf (file, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"heddle\":\"%s\",\"lost_spans\":%u},\"traceEvents\":[\n", HEDDLE_VERSION, lost);
      write_meta (file, 0, "process_name", title);
      for (guint i = 0; i < n; i++)
        {
          write_meta (file, i + 1, "thread_name", heddle_trace_nth (profile->trace, i)->name);
          for (guint k = 0; k < copies[i].n; k++)
            write_span (file, i + 1, &copies[i].spans[k], origin);
          g_free (copies[i].spans);
        }
      g_free (copies);
      ok = fprintf (file, "\n]}\n") > 0 && !ferror (file);
      ok = fclose (file) == 0 && ok;
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "profile: %s cannot be written: %s", profile->path, g_strerror (errno));
    }
  return ok;
}

void
heddle_profile_clear (HeddleProfile *profile)
{
  if (profile->file)
    fclose (profile->file);
  heddle_trace_free (profile->trace);
  g_free (profile->path);
  *profile = (HeddleProfile) { 0 };
}
