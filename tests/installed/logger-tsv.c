/* logger-tsv.c: one line per value: event, step, name, number, separated by tabs. */
#include <heddle/plugin.h>

#include <errno.h>
#include <stdio.h>

typedef struct
{
  char  *path;
  gint64 interval;
  FILE  *file;        /* once open */
} Tsv;

static const HeddleOption options[] = {
  HEDDLE_STRING (Tsv, path, NULL, "File to write", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Tsv, interval, 10, 0, G_MAXINT32, "Batches from one batch event to the next; 0 for none", .unit = "batches"),
  HEDDLE_OPTIONS_END
};

static gboolean
fail (const Tsv *self, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "%s: cannot be written: %s\nhint: the folder must exist and be writable", self->path, g_strerror (errno));
  return FALSE;
}

static gboolean
open_file (gpointer data, const HeddleCore *core, GError **error)
{
  Tsv *self = data;
  self->file = fopen (self->path, "w");
  return self->file ? TRUE : fail (self, error);
}

static gboolean
on_event (gpointer data, const HeddleEvent *e, GError **error)
{
  Tsv *self = data;
  for (guint i = 0; i < e->n_values; i++)
    fprintf (self->file, "%d\t%" G_GINT64_FORMAT "\t%s\t%.9g\n", (int) e->type, e->step, e->values[i].name, e->values[i].value);
  return fflush (self->file) == 0 ? TRUE : fail (self, error);
}

static void
close_file (gpointer data)
{
  fclose (((Tsv *) data)->file);
}

static guint
interval (gpointer data)
{
  return (guint) ((Tsv *) data)->interval;
}

static const HeddleLoggerIface iface = { sizeof iface, .open = open_file, .event = on_event, .close = close_file, .interval = interval };

HEDDLE_PLUGIN ("logger", HeddleLoggerIface, iface, Tsv, options, .name = "tsv", .version = "1.0",
               .summary = "Every value on a line of its own", .license = "MIT");
