/* test-options.c: the option reader: defaults, every type set from values and from text, every refusal, what is printed; near names; exit codes. */
#include <math.h>
#include <string.h>

#include "base/options.h"
#include "base/paths.h"

typedef struct
{
  bool            flag;
  gint64          count, automatic;
  double          rate;
  char           *file, *label;
  int             mode;
  HeddleIntList   sizes;
  HeddleFloatList betas;
  GVariant       *layers;
} Thing;

enum { SLOW = 1, FAST };
static const HeddleEnumValue modes[] = { { SLOW, "slow", "s" }, { FAST, "fast", "f" }, { 0, NULL, NULL } };

static const HeddleOption options[] = {
  HEDDLE_BOOL (Thing, flag, TRUE, "a flag"),
  HEDDLE_INT (Thing, count, 64, 1, 65536, "a count", .unit = "samples"),
  HEDDLE_INT (Thing, automatic, -1, 0, 64, "or auto", .word = "auto", .word_value = -1),
  HEDDLE_FLOAT (Thing, rate, 0.001, 0, 10, "a rate", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_STRING (Thing, file, NULL, "a file", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_STRING (Thing, label, "none", "a label"),
  HEDDLE_ENUM (Thing, mode, SLOW, modes, "a mode"),
  HEDDLE_INT_LIST (Thing, sizes, "3, 5", 1, 100, "sizes"),
  HEDDLE_FLOAT_LIST (Thing, betas, "0.9, 0.999", 0, 1, "betas"),
  HEDDLE_VALUE (Thing, layers, "layers"),
  HEDDLE_OPTIONS_END
};
static const HeddleOptionTable table = { options, sizeof (HeddleOption) };

static void
check_text (Thing *t, const char *name, const char *expected)
{
  g_autofree char *text = heddle_options_print (table, t, name);
  g_assert_cmpstr (text, ==, expected);
}

static void
test_defaults (void)
{
  Thing t = { 0 };
  heddle_options_init (table, &t);
  check_text (&t, "flag", "true");
  check_text (&t, "count", "64");
  check_text (&t, "automatic", "\"auto\"");
  check_text (&t, "rate", "0.001");
  check_text (&t, "file", "unset");
  check_text (&t, "label", "\"none\"");
  check_text (&t, "mode", "\"slow\"");
  check_text (&t, "sizes", "{3, 5}");
  check_text (&t, "betas", "{0.9, 0.999}");
  check_text (&t, "layers", "unset");
  heddle_options_clear (table, &t);
  g_assert_null (t.label);
}

static void
test_values (void)
{
  Thing t = { 0 };
  GError *error = NULL;
  heddle_options_init (table, &t);
  g_assert_true (heddle_options_set (table, &t, "count", g_variant_new_double (128), NULL, &error));      /* a float with an integral value */
  g_assert_true (heddle_options_set (table, &t, "rate", g_variant_new_int64 (2), NULL, &error));
  g_assert_true (heddle_options_set (table, &t, "automatic", g_variant_new_string ("auto"), NULL, &error));
  g_assert_true (heddle_options_set (table, &t, "sizes", g_variant_new_int64 (7), NULL, &error));          /* a list of one */
  g_assert_true (heddle_options_set (table, &t, "file", g_variant_new_string ("a/b"), "/base", &error));
  g_assert_true (heddle_options_set (table, &t, "layers", g_variant_new_parsed ("[<1>, <'x'>]"), NULL, &error));
  g_assert_no_error (error);
  g_assert_cmpint (t.count, ==, 128);
  g_assert_cmpfloat (t.rate, ==, 2);
  g_assert_cmpint (t.automatic, ==, -1);
  g_assert_cmpuint (t.sizes.n, ==, 1);
  g_assert_cmpint (t.sizes.items[0], ==, 7);
  g_assert_cmpstr (t.file, ==, "/base/a/b");
  g_assert_cmpuint (g_variant_n_children (t.layers), ==, 2);
  g_assert_true (heddle_options_set (table, &t, "file", g_variant_new_string ("/abs"), "/base", &error));
  g_assert_cmpstr (t.file, ==, "/abs");
  heddle_options_clear (table, &t);
}

static void
test_text (void)
{
  static const char *const good[][3] = {
    { "flag", "false", "false" }, { "count", "7", "7" }, { "automatic", "auto", "\"auto\"" }, { "automatic", "3", "3" }, { "rate", "1e-3", "0.001" }, { "mode", "fast", "\"fast\"" },
    { "sizes", "1,2,3", "{1, 2, 3}" }, { "betas", "0.5, 0.25", "{0.5, 0.25}" }, { "label", "x y", "\"x y\"" },
  };
  Thing t = { 0 };
  GError *error = NULL;
  heddle_options_init (table, &t);
  for (guint i = 0; i < G_N_ELEMENTS (good); i++)
    {
      heddle_options_set_text (table, &t, good[i][0], good[i][1], NULL, &error);
      g_assert_no_error (error);
      check_text (&t, good[i][0], good[i][2]);
    }
  heddle_options_clear (table, &t);
}

/* Refused, said why, and the old value kept. */
static void
refused (const char *name, const char *text, const char *value, const char *expected)
{
  Thing t = { 0 };
  GError *error = NULL;
  heddle_options_init (table, &t);
  HeddleOption option;
  g_autofree char *before = heddle_options_find (table, name, &option) ? heddle_options_print (table, &t, name) : NULL;
  if (text)
    {
      if (heddle_options_set_text (table, &t, name, text, NULL, &error))
        g_error ("%s = \"%s\" was taken", name, text);
    }
  else
    g_assert_false (heddle_options_set (table, &t, name, g_variant_new_parsed (value), NULL, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION);
  if (!strstr (error->message, expected))
    g_error ("expected \"%s\" in: %s", expected, error->message);
  if (before)
    check_text (&t, name, before);
  g_error_free (error);
  heddle_options_clear (table, &t);
}

static void
test_refusals (void)
{
  refused ("cuont", NULL, "int64 3", "no option \"cuont\"; did you mean \"count\"?");
  refused ("zzz", NULL, "int64 3", "no option \"zzz\"");
  refused ("count", NULL, "'many'", "option \"count\": expected an integer 1..65536, samples, got the string \"many\"");
  refused ("count", NULL, "int64 0", "option \"count\": 0 is out of range 1..65536 (samples)");
  refused ("count", NULL, "2.5", "option \"count\"");
  refused ("count", NULL, "true", "got true");
  refused ("count", "12x", NULL, "option \"count\"");
  refused ("count", "99999999999999999999", NULL, "option \"count\"");
  refused ("count", "", NULL, "option \"count\"");
  refused ("automatic", "outo", NULL, "option \"automatic\"");
  refused ("rate", "nan", NULL, "option \"rate\"");
  refused ("rate", NULL, "10.5", "option \"rate\": 10.5 is out of range 0..10");
  refused ("flag", "maybe", NULL, "option \"flag\"");
  refused ("flag", NULL, "int64 1", "option \"flag\"");
  refused ("mode", "fats", NULL, "did you mean \"fast\"?");
  refused ("sizes", "3,0", NULL, "0 is out of range 1..100");
  refused ("sizes", "3,,4", NULL, "option \"sizes\"");
  refused ("betas", "0.5,1.5", NULL, "1.5 is out of range 0..1");
  refused ("label", NULL, "int64 3", "option \"label\"");
}

static void
test_missing (void)
{
  g_autoptr (GHashTable) set = g_hash_table_new (g_str_hash, g_str_equal);
  g_assert_cmpstr (heddle_options_missing (table, set), ==, "file");
  g_hash_table_add (set, (gpointer) "file");
  g_assert_null (heddle_options_missing (table, set));
}

static void
check_unsound (const HeddleOption *option, gsize instance)
{
  HeddleOption two[] = { *option, HEDDLE_OPTIONS_END };
  GError *error = NULL;
  g_assert_false (heddle_options_validate (HEDDLE_OPTION_TABLE (two), instance, &error));
  g_assert_nonnull (error);
  g_error_free (error);
}

static void
test_validate (void)
{
  GError *error = NULL;
  g_assert_true (heddle_options_validate (table, sizeof (Thing), &error));
  check_unsound (&(HeddleOption) HEDDLE_INT (Thing, count, 0, 1, 10, "default outside the range"), sizeof (Thing));
  check_unsound (&(HeddleOption) HEDDLE_INT (Thing, count, 5, 10, 1, "empty range"), sizeof (Thing));
  check_unsound (&(HeddleOption) HEDDLE_FLOAT (Thing, rate, 5, 0, 1, "default outside the range"), sizeof (Thing));
  check_unsound (&(HeddleOption) HEDDLE_ENUM (Thing, mode, 7, modes, "no such value"), sizeof (Thing));
  check_unsound (&(HeddleOption) HEDDLE_INT (Thing, count, 5, 1, 10, NULL), sizeof (Thing));
  check_unsound (&(HeddleOption) HEDDLE_INT (Thing, count, 5, 1, 10, "member outside the instance"), 8);
  HeddleOption twice[] = { HEDDLE_INT (Thing, count, 5, 1, 10, "a"), HEDDLE_INT (Thing, count, 5, 1, 10, "a"), HEDDLE_OPTIONS_END };
  g_assert_false (heddle_options_validate (HEDDLE_OPTION_TABLE (twice), sizeof (Thing), &error));
  g_clear_error (&error);
}

/* A plugin built when a line of the table was shorter. */
static void
test_older_table (void)
{
  gsize stride = sizeof (HeddleOption) - sizeof (gpointer);
  g_autofree char *old = g_malloc0 (3 * stride);
  memcpy (old, &options[1], stride);
  memcpy (old + stride, &options[3], stride);
  HeddleOptionTable older = { (const HeddleOption *) (gpointer) old, stride };
  HeddleOption found;
  g_assert_cmpuint (heddle_options_count (older), ==, 2);
  g_assert_true (heddle_options_find (older, "rate", &found));
  g_assert_cmpfloat (found.float_max, ==, 10);
  g_assert_null (found.help);
}

static void
test_suggest (void)
{
  static const char *const words[] = { "batch_size", "shuffle", "num_workers", "seed", NULL };
  g_assert_cmpstr (heddle_suggest ("bach_size", words), ==, "batch_size");
  g_assert_cmpstr (heddle_suggest ("batchsize", words), ==, "batch_size");
  g_assert_cmpstr (heddle_suggest ("sede", words), ==, "seed");          /* transposition: one edit */
  g_assert_cmpstr (heddle_suggest ("suffle", words), ==, "shuffle");
  g_assert_null (heddle_suggest ("momentum", words));
  g_assert_null (heddle_suggest ("", words));
  g_assert_null (heddle_suggest ("x", NULL));
}

static void
test_exit_codes (void)
{
  static const int codes[][2] = { { HEDDLE_ERROR_OPTION, 1 }, { HEDDLE_ERROR_SCRIPT, 1 }, { HEDDLE_ERROR_PLUGIN, 1 }, { HEDDLE_ERROR_GRAPH, 1 }, { HEDDLE_ERROR_PROGRAM, 1 },
                                  { HEDDLE_ERROR_DATA, 1 }, { HEDDLE_ERROR_USAGE, 2 }, { HEDDLE_ERROR_DEVICE, 3 }, { HEDDLE_ERROR_RUN, 3 }, { HEDDLE_ERROR_INTERRUPTED, 130 } };
  for (guint i = 0; i < G_N_ELEMENTS (codes); i++)
    {
      g_autoptr (GError) error = g_error_new (HEDDLE_ERROR, codes[i][0], "x");
      g_assert_cmpint (heddle_error_exit_code (error), ==, codes[i][1]);
    }
  g_assert_cmpint (heddle_error_exit_code (NULL), ==, 0);
}

static void
test_paths (void)
{
  g_assert_nonnull (heddle_paths_build_root ());         /* tests run in the build tree */
  g_assert_true (g_file_test (heddle_paths_source_root (), G_FILE_TEST_IS_DIR));
  g_assert_nonnull (heddle_paths_plugins ()[0]);
  for (guint i = 0; heddle_paths_plugins ()[i]; i++)
    g_assert_true (g_path_is_absolute (heddle_paths_plugins ()[i]));
  for (guint i = 0; heddle_paths_backends ()[i]; i++)
    g_assert_true (g_path_is_absolute (heddle_paths_backends ()[i]));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/options/defaults", test_defaults);
  g_test_add_func ("/options/values", test_values);
  g_test_add_func ("/options/text", test_text);
  g_test_add_func ("/options/refusals", test_refusals);
  g_test_add_func ("/options/missing", test_missing);
  g_test_add_func ("/options/validate", test_validate);
  g_test_add_func ("/options/older-table", test_older_table);
  g_test_add_func ("/suggest", test_suggest);
  g_test_add_func ("/exit-codes", test_exit_codes);
  g_test_add_func ("/paths", test_paths);
  return g_test_run ();
}
