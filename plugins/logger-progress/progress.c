/* plugins/logger-progress/progress.c: what a person watches: a bar on a terminal, plain greppable lines anywhere else.
 * Owns the wording of progress lines; knows nothing of how the numbers came about. */
#include <heddle/plugin.h>

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct
{
  gint64   interval;
  int      form;
  /* once open */
  gboolean bar, drawn;      /* drawn: the cursor stands behind an unfinished bar */
  double   first_scale;
} Progress;

enum { AUTO = 1, BAR, LINES };

static const HeddleEnumValue forms[] = {
  { AUTO, "auto", "a bar on a terminal, lines elsewhere" }, { BAR, "bar", "a bar that is redrawn in place" }, { LINES, "lines", "one line per interval" },
  { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_INT (Progress, interval, 50, 1, G_MAXINT32, "Batches from one line to the next", .unit = "batches"),
  HEDDLE_ENUM (Progress, form, AUTO, forms, "How progress is shown"),
  HEDDLE_OPTIONS_END
};

/* ---- pieces of a line ------------------------------------------------------------------------------------------------ */

static void
add_values (GString *line, const HeddleEvent *e)
{
  for (guint i = 0; i < e->n_values; i++)
    {
      const HeddleEventValue *v = &e->values[i];
      gboolean rate = g_str_equal (v->name, "lr"), loss = g_str_has_suffix (v->name, "loss");
      g_string_append_printf (line, rate ? " %s=%.4g" : loss || e->type != HEDDLE_EVENT_BATCH ? " %s=%.4f" : " %s=%.3f", v->brief ? v->brief : v->name, v->value);
    }
}

/* What most of the wait was for. */
static const char *
wait_reason (const HeddleEvent *e)
{
  static const char *const names[HEDDLE_WAIT_PARTS] = { [HEDDLE_WAIT_READ] = "read", [HEDDLE_WAIT_CONVERT] = "convert", [HEDDLE_WAIT_CPU] = "no core", [HEDDLE_WAIT_COPY] = "copy" };
  guint most = 0;
  for (guint i = 1; i < HEDDLE_WAIT_PARTS; i++)
    if (e->wait_part[i] > e->wait_part[most])
      most = i;
  return names[most];
}

/* Only what says something: updates skipped, a scale that moved, input that was waited for. */
static void
add_extras (Progress *self, GString *line, const HeddleEvent *e)
{
  if (e->skipped > 0)
    g_string_append_printf (line, " skip=%" G_GINT64_FORMAT, e->skipped);
  if (e->scale > 0 && self->first_scale == 0)
    self->first_scale = e->scale;
  if (e->scale > 0 && e->scale != self->first_scale)
    g_string_append_printf (line, " scale=%g", e->scale);
  if (e->wait_share > 0.05)
    g_string_append_printf (line, " wait=%.0f%% (%s)", 100 * e->wait_share, wait_reason (e));
}

static void
add_duration (GString *line, double seconds)
{
  guint64 s = (guint64) (seconds + 0.5);
  if (s >= 3600)
    g_string_append_printf (line, "%" G_GUINT64_FORMAT "h%02um", s / 3600, (guint) (s / 60 % 60));
  else if (s >= 60)
    g_string_append_printf (line, "%um%02us", (guint) (s / 60), (guint) (s % 60));
  else
    g_string_append_printf (line, "%us", (guint) s);
}

static void
add_speed (GString *line, const HeddleEvent *e)
{
  if (e->samples_per_second > 0)
    g_string_append_printf (line, " %.0f samples/s", e->samples_per_second);
}

/* ---- drawing --------------------------------------------------------------------------------------------------------- */

static gsize
columns (void)
{
  struct winsize size = { 0 };
  return ioctl (STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

/* A line of its own: a bar that stands there is finished first. */
static void
print_line (Progress *self, const char *text)
{
  if (self->drawn)
    fputs ("\r\033[K", stdout);
  self->drawn = FALSE;
  puts (text);
  fflush (stdout);
}

static void
draw_bar (Progress *self, const HeddleEvent *e)
{
  g_autoptr (GString) line = g_string_new (NULL);
  double share = e->batches > 0 ? (double) e->batch / (double) e->batches : 0;
  const int width = 20, full = (int) (share * width);
  g_string_append_printf (line, "E%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " [", e->epoch, e->epochs);
  for (int i = 0; i < width; i++)
    g_string_append_c (line, i < full ? '=' : i == full ? '>' : ' ');
  g_string_append_printf (line, "] %3.0f%%", 100 * share);
  add_values (line, e);
  add_speed (line, e);
  if (share > 0 && e->samples_per_second > 0 && e->step > 0)
    {
      double per_batch = (double) e->samples / (double) e->step / e->samples_per_second;
      g_string_append (line, " eta=");
      add_duration (line, (double) (e->batches - e->batch) * per_batch);
    }
  add_extras (self, line, e);
  g_string_truncate (line, MIN (line->len, columns () - 1));
  printf ("\r\033[K%s", line->str);
  fflush (stdout);
  self->drawn = TRUE;
}

static void
batch_line (Progress *self, const HeddleEvent *e)
{
  g_autoptr (GString) line = g_string_new (NULL);
  g_string_append_printf (line, "[E%" G_GINT64_FORMAT " B%" G_GINT64_FORMAT "]", e->epoch, e->batch);
  add_values (line, e);
  add_speed (line, e);
  add_extras (self, line, e);
  print_line (self, line->str);
}

static void
epoch_line (Progress *self, const HeddleEvent *e, const char *what)
{
  g_autoptr (GString) line = g_string_new (NULL);
  g_string_append_printf (line, "[E%" G_GINT64_FORMAT " %s]", e->epoch, what);
  add_values (line, e);
  add_speed (line, e);
  add_extras (self, line, e);
  g_string_append (line, " after ");
  add_duration (line, e->seconds);
  print_line (self, line->str);
}

/* ---- slots ----------------------------------------------------------------------------------------------------------- */

static gboolean
open_progress (gpointer data, const HeddleCore *core, GError **error)
{
  Progress *self = data;
  self->bar = self->form == BAR || (self->form == AUTO && isatty (STDOUT_FILENO));
  return TRUE;
}

static gboolean
on_event (gpointer data, const HeddleEvent *e, GError **error)
{
  Progress *self = data;
  switch (e->type)
    {
    case HEDDLE_EVENT_RUN_START:
      if (e->text)
        print_line (self, e->text);
      break;
    case HEDDLE_EVENT_BATCH:
      if (self->bar)
        draw_bar (self, e);
      else
        batch_line (self, e);
      break;
    case HEDDLE_EVENT_EVAL:
      epoch_line (self, e, "eval");
      break;
    case HEDDLE_EVENT_EPOCH_END:
      epoch_line (self, e, "end");
      break;
    case HEDDLE_EVENT_RUN_END:
      if (e->text && !g_str_equal (e->text, "finished"))
        print_line (self, e->text);
      break;
    case HEDDLE_EVENT_EPOCH_START:
    case HEDDLE_EVENT_MESSAGE:        /* on standard error already */
      break;
    }
  if (ferror (stdout))
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "standard output cannot be written: %s", g_strerror (errno));
  return !ferror (stdout);
}

static void
close_progress (gpointer data)
{
  Progress *self = data;
  if (self->drawn)
    putchar ('\n');
  fflush (stdout);
}

static guint
interval_of (gpointer data)
{
  return (guint) ((Progress *) data)->interval;
}

static const HeddleLoggerIface iface = { sizeof iface, open_progress, on_event, close_progress, interval_of };

HEDDLE_PLUGIN ("logger", HeddleLoggerIface, iface, Progress, options, .name = "progress", .version = "1.0",
               .summary = "Progress for people: a bar on a terminal, lines elsewhere", .license = "MIT");
