/* plugins/logger-jsonl/jsonl.c: every event as one JSON object on a line of its own.
 * Owns the schema; a number that JSON cannot hold (NaN, infinity) is written as null.  Must not know how the numbers came about.
 * The schema, every event and field with its unit, is in docs/loggers.md. */
#include <heddle/plugin.h>

#include <errno.h>
#include <json-glib/json-glib.h>
#include <stdio.h>

typedef struct
{
  char  *path;
  gint64 interval;
  bool   append;
  FILE  *file;
} Jsonl;

static const HeddleOption options[] = {
  HEDDLE_STRING (Jsonl, path, NULL, "File to write; an existing one is replaced", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Jsonl, interval, 50, 0, G_MAXINT32, "Batches from one batch event to the next; 0 for none", .unit = "batches"),
  HEDDLE_BOOL (Jsonl, append, false, "Keep what the file holds and write behind it"),
  HEDDLE_OPTIONS_END
};

static const char *const event_names[] = {
  [HEDDLE_EVENT_RUN_START] = "run_start", [HEDDLE_EVENT_EPOCH_START] = "epoch_start", [HEDDLE_EVENT_BATCH] = "batch", [HEDDLE_EVENT_EVAL] = "eval",
  [HEDDLE_EVENT_EPOCH_END] = "epoch_end", [HEDDLE_EVENT_RUN_END] = "run_end", [HEDDLE_EVENT_MESSAGE] = "message"
};

static gboolean
open_file (gpointer data, const HeddleCore *core, GError **error)
{
  Jsonl *self = data;
  self->file = fopen (self->path, self->append ? "a" : "w");
  if (!self->file)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "%s: cannot be written: %s\nhint: the folder must exist and be writable", self->path, g_strerror (errno));
  return self->file != NULL;
}

static void
add_int (JsonBuilder *b, const char *name, gint64 value)
{
  json_builder_set_member_name (b, name);
  json_builder_add_int_value (b, value);
}

static void
add_double (JsonBuilder *b, const char *name, double value)
{
  json_builder_set_member_name (b, name);
  if (isfinite (value))
    json_builder_add_double_value (b, value);
  else
    json_builder_add_null_value (b);
}

static void
add_counts (JsonBuilder *b, const HeddleEvent *e)
{
  add_double (b, "seconds", e->seconds);
  add_int (b, "epoch", e->epoch);
  add_int (b, "epochs", e->epochs);
  add_int (b, "batch", e->batch);
  add_int (b, "batches", e->batches);
  add_int (b, "step", e->step);
  add_int (b, "updates", e->updates);
  add_int (b, "samples", e->samples);
  add_int (b, "skipped", e->skipped);
}

static void
add_wait (JsonBuilder *b, const HeddleEvent *e)
{
  static const char *const names[HEDDLE_WAIT_PARTS] = { [HEDDLE_WAIT_READ] = "wait_read", [HEDDLE_WAIT_CONVERT] = "wait_convert", [HEDDLE_WAIT_CPU] = "wait_cpu", [HEDDLE_WAIT_COPY] = "wait_copy" };
  add_double (b, "wait_share", e->wait_share);
  for (guint i = 0; i < HEDDLE_WAIT_PARTS; i++)
    add_double (b, names[i], e->wait_part[i]);
}

static void
add_measures (JsonBuilder *b, const HeddleEvent *e)
{
  if (e->samples_per_second > 0)
    add_double (b, "samples_per_second", e->samples_per_second);
  if (e->type == HEDDLE_EVENT_BATCH || e->type == HEDDLE_EVENT_EPOCH_END)
    add_wait (b, e);
  if (e->scale > 0)
    add_double (b, "scale", e->scale);
  for (guint i = 0; i < e->n_values; i++)
    add_double (b, e->values[i].name, e->values[i].value);
  if (e->text)
    {
      json_builder_set_member_name (b, "text");
      json_builder_add_string_value (b, e->text);
    }
}

static gboolean
on_event (gpointer data, const HeddleEvent *e, GError **error)
{
  Jsonl *self = data;
  g_autoptr (JsonBuilder) b = json_builder_new ();
  json_builder_begin_object (b);
  json_builder_set_member_name (b, "event");
  json_builder_add_string_value (b, e->type < G_N_ELEMENTS (event_names) ? event_names[e->type] : "unknown");
  add_counts (b, e);
  add_measures (b, e);
  json_builder_end_object (b);
  g_autoptr (JsonNode) root = json_builder_get_root (b);
  g_autofree char *line = json_to_string (root, FALSE);
  gboolean ok = fprintf (self->file, "%s\n", line) > 0 && fflush (self->file) == 0;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "%s: cannot be written: %s", self->path, g_strerror (errno));
  return ok;
}

static void
close_file (gpointer data)
{
  Jsonl *self = data;
  fclose (self->file);
}

static guint
interval_of (gpointer data)
{
  return (guint) ((Jsonl *) data)->interval;
}

static const HeddleLoggerIface iface = { sizeof iface, open_file, on_event, close_file, interval_of };

HEDDLE_PLUGIN ("logger", HeddleLoggerIface, iface, Jsonl, options, .name = "jsonl", .version = "1.0",
               .summary = "Every event as one JSON object per line", .license = "MIT");
