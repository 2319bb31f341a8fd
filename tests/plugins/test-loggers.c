/* test-loggers.c: the logger plugins, fed events by hand: what stands in their files, and what a file that cannot be written does. */
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#include "plugin/registry.h"

static HeddleRegistry *registry;
static char *file;
static const HeddleCore core = { .size = sizeof core };

static HeddleInstance *
make (const char *name, const char *path)
{
  HeddleInstance *logger = heddle_instance_new (heddle_registry_find (registry, "logger", name, NULL));
  g_assert_true (heddle_options_set_text (logger->entry->options, logger->self, "path", path, NULL, NULL));
  return logger;
}

static HeddleEvent
event (HeddleEventType type)
{
  return (HeddleEvent) { .size = sizeof (HeddleEvent), .type = type, .epoch = 2, .epochs = 3, .batch = 50, .batches = 937, .step = 987, .updates = 985, .samples = 63168, .skipped = 2,
                         .seconds = 1.5, .samples_per_second = 1234.5, .wait_share = 0.25, .scale = 32768, .n_values = 2, .values = { { "loss", "loss", 0.5 }, { "accuracy", "acc", 0.75 } }, .wait_part = { [HEDDLE_WAIT_READ] = 0.05, [HEDDLE_WAIT_CONVERT] = 0.2 } };
}

static gboolean
send (HeddleInstance *logger, HeddleEvent e)
{
  return ((const HeddleLoggerIface *) logger->entry->plugin->iface)->event (logger->self, &e, NULL);
}

static void
test_jsonl (void)
{
  g_autofree char *text = NULL;
  g_autoptr (HeddleInstance) logger = make ("jsonl", file);
  HeddleEvent start = event (HEDDLE_EVENT_RUN_START), nan = event (HEDDLE_EVENT_EVAL);
  g_assert_true (heddle_instance_open_logger (logger, &core, NULL));
  start.text = "a \"quoted\"\nline \x01";
  nan.values[0].value = NAN;
  nan.scale = 0;
  g_assert_true (send (logger, start) && send (logger, event (HEDDLE_EVENT_BATCH)) && send (logger, nan));
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));       /* every line is there at once */
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  g_assert_cmpuint (g_strv_length (lines), ==, 4);
  JsonObject *o[3];
  g_autoptr (JsonNode) a = json_from_string (lines[0], NULL), b = json_from_string (lines[1], NULL), c = json_from_string (lines[2], NULL);
  o[0] = json_node_get_object (a);
  o[1] = json_node_get_object (b);
  o[2] = json_node_get_object (c);
  g_assert_cmpstr (json_object_get_string_member (o[0], "text"), ==, start.text);
  g_assert_cmpstr (json_object_get_string_member (o[1], "event"), ==, "batch");
  g_assert_cmpint (json_object_get_int_member (o[1], "step"), ==, 987);
  g_assert_cmpint (json_object_get_int_member (o[1], "skipped"), ==, 2);
  g_assert_true (json_object_get_double_member (o[1], "accuracy") == 0.75 && json_object_get_double_member (o[1], "scale") == 32768);
  g_assert_true (json_object_get_double_member (o[1], "wait_share") == 0.25);
  g_assert_true (json_object_get_double_member (o[1], "wait_read") == 0.05 && json_object_get_double_member (o[1], "wait_convert") == 0.2);
  g_assert_true (json_object_get_double_member (o[1], "wait_cpu") == 0 && json_object_get_double_member (o[1], "wait_copy") == 0);
  g_assert_true (json_object_get_null_member (o[2], "loss"));
  g_assert_false (json_object_has_member (o[2], "scale"));
}

static void
test_csv (void)
{
  g_autofree char *text = NULL;
  {
    g_autoptr (HeddleInstance) logger = make ("csv", file);
    HeddleEvent wide = event (HEDDLE_EVENT_EVAL);
    wide.values[wide.n_values++] = (HeddleEventValue) { "top5", "top5", 0.99 };
    g_assert_true (heddle_instance_open_logger (logger, &core, NULL));
    g_assert_true (send (logger, event (HEDDLE_EVENT_BATCH)) && send (logger, event (HEDDLE_EVENT_EPOCH_START)) && send (logger, wide) && send (logger, event (HEDDLE_EVENT_EPOCH_END)));
  }
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));
  g_assert_cmpstr (text, ==, "event,epoch,batch,step,updates,samples,skipped,seconds,samples_per_second,scale,loss,accuracy,top5\n"
                   "batch,2,50,987,985,63168,2,1.500000,1234.5,32768,0.5,0.75,\n"
                   "eval,2,50,987,985,63168,2,1.500000,1234.5,32768,0.5,0.75,0.99\n"
                   "epoch,2,50,987,985,63168,2,1.500000,1234.5,32768,0.5,0.75,\n");
}

static void
test_no_folder (void)
{
  static const char *const names[] = { "jsonl", "csv" };
  for (guint i = 0; i < 2; i++)
    {
      GError *error = NULL;
      g_autoptr (HeddleInstance) logger = make (names[i], "/nonexistent/folder/log");
      g_assert_false (heddle_instance_open_logger (logger, &core, &error));
      g_assert_nonnull (strstr (error->message, "/nonexistent/folder/log: cannot be written"));
      g_error_free (error);
    }
}

static void
test_full_disk (void)
{
  static const char *const names[] = { "jsonl", "csv" };
  if (!g_file_test ("/dev/full", G_FILE_TEST_EXISTS))
    g_test_skip ("there is no /dev/full");
  else
    for (guint i = 0; i < 2; i++)
      {
        g_autoptr (HeddleInstance) logger = make (names[i], "/dev/full");
        g_assert_false (heddle_instance_open_logger (logger, &core, NULL) && send (logger, event (HEDDLE_EVENT_BATCH)));
      }
}

/* What the progress logger prints where there is no terminal: caught in a child process. */
static void
test_progress (void)
{
  if (g_test_subprocess ())
    {
      g_autoptr (HeddleInstance) logger = heddle_instance_new (heddle_registry_find (registry, "logger", "progress", NULL));
      HeddleEvent quiet = event (HEDDLE_EVENT_BATCH), start = event (HEDDLE_EVENT_RUN_START), end = event (HEDDLE_EVENT_RUN_END), lr = event (HEDDLE_EVENT_EPOCH_END);
      const HeddleLoggerIface *iface = logger->entry->plugin->iface;
      heddle_instance_open_logger (logger, &core, NULL);
      g_assert_cmpuint (iface->interval (logger->self), ==, 50);
      quiet.skipped = 0;
      quiet.wait_share = 0;
      start.text = "the header";
      end.text = "finished";
      lr.values[1] = (HeddleEventValue) { "lr", "lr", 0.05 };
      lr.scale = 65536;
      send (logger, start);
      send (logger, quiet);
      send (logger, event (HEDDLE_EVENT_BATCH));
      send (logger, lr);
      send (logger, end);
    }
  else
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_passed ();
      g_test_trap_assert_stdout ("*the header\n?E2 B50? loss=0.5000 acc=0.750 1234 samples/s\n?E2 B50? loss=0.5000 acc=0.750 1234 samples/s skip=2 wait=25% (convert)\n"
                                 "?E2 end? loss=0.5000 lr=0.05 1234 samples/s skip=2 scale=65536 wait=25% (convert) after 2s\n*");
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  registry = heddle_registry_new (NULL);
  g_autofree char *folder = g_dir_make_tmp ("heddle-log-XXXXXX", NULL);
  file = g_build_filename (folder, "log", NULL);
  g_test_add_func ("/logger/jsonl", test_jsonl);
  g_test_add_func ("/logger/csv", test_csv);
  g_test_add_func ("/logger/no-folder", test_no_folder);
  g_test_add_func ("/logger/full-disk", test_full_disk);
  g_test_add_func ("/logger/progress", test_progress);
  int status = g_test_run ();
  g_remove (file);
  g_rmdir (folder);
  g_free (file);
  heddle_registry_free (registry);
  return status;
}
