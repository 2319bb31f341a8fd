/* plugins/logger-csv/csv.c: batches, evaluations and epochs as rows of a CSV file (RFC 4180).
 * Owns the columns: the fixed ones below, then one per value in the order in which names first turn up; a name that turns up
 * later (an evaluation's) widens the file, so that the header always tells the truth.
 * Must not know how the numbers came about. */
#include <heddle/plugin.h>

#include <errno.h>
#include <stdio.h>

typedef struct
{
  char      *path;
  gint64     interval;
  /* once open */
  FILE      *file;
  GPtrArray *names;   /* char *, owned: the value columns */
} Csv;

static const HeddleOption options[] = {
  HEDDLE_STRING (Csv, path, NULL, "File to write; an existing one is replaced", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Csv, interval, 50, 0, G_MAXINT32, "Batches from one batch row to the next; 0 for none", .unit = "batches"),
  HEDDLE_OPTIONS_END
};

static const char fixed[] = "event,epoch,batch,step,updates,samples,skipped,seconds,samples_per_second,scale";

static gboolean
fail (Csv *self, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "%s: cannot be written: %s\nhint: the folder must exist and be writable", self->path, g_strerror (errno));
  return FALSE;
}

static void
write_header (Csv *self)
{
  fputs (fixed, self->file);
  for (guint i = 0; i < self->names->len; i++)
    fprintf (self->file, ",%s", (char *) self->names->pdata[i]);
  fputc ('\n', self->file);
}

static gboolean
open_file (gpointer data, const HeddleCore *core, GError **error)
{
  Csv *self = data;
  self->file = fopen (self->path, "w");
  gboolean ok = self->file ? TRUE : fail (self, error);
  if (ok)
    {
      self->names = g_ptr_array_new_with_free_func (g_free);
      write_header (self);
      ok = fflush (self->file) == 0 ? TRUE : fail (self, error);
    }
  if (!ok && self->file)
    {
      fclose (self->file);
      g_ptr_array_unref (self->names);
    }
  return ok;
}

/* Column of NAME, or -1. */
static int
column_of (Csv *self, const char *name)
{
  int found = -1;
  for (guint i = 0; found < 0 && i < self->names->len; i++)
    if (g_str_equal (self->names->pdata[i], name))
      found = (int) i;
  return found;
}

/* Rewrites the file with EXTRA more empty columns.  Happens once or twice a run, on the logger's own thread. */
static gboolean
widen (Csv *self, guint extra, GError **error)
{
  g_autofree char *old = NULL, *commas = g_strnfill (extra, ',');
  gboolean ok = fflush (self->file) == 0 && g_file_get_contents (self->path, &old, NULL, error);
  FILE *file = ok ? freopen (self->path, "w", self->file) : self->file;
  if (ok && file)
    {
      g_auto (GStrv) lines = g_strsplit (old, "\n", -1);
      write_header (self);
      for (guint i = 1; lines[i] && *lines[i]; i++)
        fprintf (self->file, "%s%s\n", lines[i], commas);
    }
  self->file = file;
  return ok && file ? TRUE : error && *error ? FALSE : fail (self, error);
}

static gboolean
add_names (Csv *self, const HeddleEvent *e, GError **error)
{
  guint before = self->names->len;
  for (guint i = 0; i < e->n_values; i++)
    if (column_of (self, e->values[i].name) < 0)
      g_ptr_array_add (self->names, g_strdup (e->values[i].name));
  return self->names->len == before || widen (self, self->names->len - before, error);
}

static void
write_row (Csv *self, const HeddleEvent *e, const char *event)
{
  fprintf (self->file, "%s,%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT ",%.6f,%.1f,%g",
           event, e->epoch, e->batch, e->step, e->updates, e->samples, e->skipped, e->seconds, e->samples_per_second, e->scale);
  for (guint c = 0; c < self->names->len; c++)
    {
      fputc (',', self->file);
      for (guint i = 0; i < e->n_values; i++)
        if (g_str_equal (e->values[i].name, self->names->pdata[c]))
          fprintf (self->file, "%.9g", e->values[i].value);
    }
  fputc ('\n', self->file);
}

static gboolean
on_event (gpointer data, const HeddleEvent *e, GError **error)
{
  Csv *self = data;
  const char *event = e->type == HEDDLE_EVENT_BATCH ? "batch" : e->type == HEDDLE_EVENT_EVAL ? "eval" : e->type == HEDDLE_EVENT_EPOCH_END ? "epoch" : NULL;
  gboolean ok = !event || (self->file && add_names (self, e, error));
  if (ok && event)
    {
      write_row (self, e, event);
      ok = fflush (self->file) == 0 ? TRUE : fail (self, error);
    }
  return ok;
}

static void
close_file (gpointer data)
{
  Csv *self = data;
  if (self->file)
    fclose (self->file);
  g_ptr_array_unref (self->names);
}

static guint
interval_of (gpointer data)
{
  return (guint) ((Csv *) data)->interval;
}

static const HeddleLoggerIface iface = { sizeof iface, open_file, on_event, close_file, interval_of };

HEDDLE_PLUGIN ("logger", HeddleLoggerIface, iface, Csv, options, .name = "csv", .version = "1.0",
               .summary = "Batches, evaluations and epochs as rows of a CSV file", .license = "MIT");
