/* test-script.c: the language seen from outside: a script's text in, a graph or an error out.  No data is opened, no device touched. */
#include <glib/gstdio.h>
#include <string.h>

#include "script/script.h"

static HeddleRegistry *registry;
static char *folder;

static HeddleGraph *
load (const char *text, gssize length, HeddleScriptOptions *options, GError **error)
{
  g_autofree char *file = g_build_filename (folder, "s.lua", NULL);
  HeddleScriptOptions few = { .instructions = 2000000, .bytes = 8 << 20 };
  g_assert_true (g_file_set_contents (file, text, length, NULL));
  return heddle_script_load (file, registry, options ? options : &few, NULL, error);
}

static void
refused (const char *text, const char *place, const char *says)
{
  GError *error = NULL;
  HeddleGraph *graph = load (text, -1, NULL, &error);
  if (graph || !error)
    g_error ("taken: %s", text);
  if (!strstr (error->message, place) || !strstr (error->message, says))
    g_error ("expected \"%s\" and \"%s\" in: %s", place, says, error->message);
  g_error_free (error);
}

#define HEAD "local h = require 'heddle'\nlocal data = h.dataset 'synthetic' {}\nlocal batch = h.prefetch { data, batch_size = 8 }\n"
#define TAIL "local logits = h.model 'mlp' { batch.image, classes = 10 }\nlocal step = h.optimizer 'sgd' { h.loss 'cross_entropy' { logits, batch.label }, lr = 0.1 }\n" \
             "return h.train { step, epochs = 1 }\n"

static void
test_graph (void)
{
  GError *error = NULL;
  g_autoptr (HeddleGraph) g = load (HEAD TAIL, -1, NULL, &error);
  static const char *const verbs[] = { "dataset", "prefetch", "model", "loss", "optimizer", "train" };
  g_assert_no_error (error);
  g_assert_cmpuint (g->nodes->len, ==, G_N_ELEMENTS (verbs));
  for (guint i = 0; i < g->nodes->len; i++)
    {
      HeddleNode *n = g->nodes->pdata[i];
      g_assert_cmpstr (n->stage->class->verb, ==, verbs[i]);
      g_assert_cmpstr (n->id, ==, verbs[i]);
    }
  g_assert_true (g->root == g->nodes->pdata[5]);
  g_assert_cmpint (((HeddleNode *) g->nodes->pdata[1])->line, ==, 3);
  g_assert_cmpint (((HeddleNode *) g->nodes->pdata[3])->line, ==, 5);
}

/* Ids, second stages of a verb, arguments, overrides by id. */
static void
test_names (void)
{
  GError *error = NULL;
  static const char *const args[] = { "rate=0.5", "deep=true", NULL };
  HeddleScriptOptions options = { .args = args };
  g_autoptr (HeddleGraph) g = load ("local h = require 'heddle'\nlocal rate, deep, n = h.arg ('rate', 0.1, 'learning rate'), h.arg ('deep', false), h.arg ('n', 3)\n"
                                    "assert (rate == 0.5 and deep == true and n == 3)\n"
                                    "local a, b = h.dataset 'synthetic' {}, h.dataset 'synthetic' { id = 'test-set' }\nlocal batch = h.prefetch { a, batch_size = 8, workers = 2 }\n"
                                    "local logits = h.model 'mlp' { batch.image, classes = batch.label.classes }\nlocal l = h.loss 'cross_entropy' { logits, batch.label }\n"
                                    "return h.train { h.optimizer 'sgd' { l, lr = rate }, eval = { data = b, acc = h.metric 'accuracy' { logits, batch.label } } }\n", -1, &options, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (((HeddleNode *) g->nodes->pdata[1])->id, ==, "test-set");
  g_assert_true (heddle_graph_override (g, "prefetch.batch_size=16", &error));
  g_assert_true (heddle_graph_override (g, "optimizer.lr=0.25", &error));
  g_assert_true (heddle_graph_override (g, "flags.threads=1", &error));
  g_assert_no_error (error);
  const HeddlePrefetchOptions *p = ((HeddleNode *) g->nodes->pdata[2])->stage->self;
  g_assert_cmpint (p->batch_size, ==, 16);
  g_assert_cmpint (p->num_workers, ==, 2);
  g_assert_cmpint (g->flags.threads, ==, 1);
  g_assert_false (heddle_graph_override (g, "optimiser.lr=0.25", &error));
  g_assert_nonnull (strstr (error->message, "did you mean \"optimizer\"?"));
  g_clear_error (&error);
  g_assert_false (heddle_graph_override (g, "optimizer=0.25", &error));
  g_assert_nonnull (strstr (error->message, "STAGE.OPTION=VALUE"));
  g_clear_error (&error);
}

static void
test_arguments (void)
{
  static const char *const wrong_type[] = { "n=many", NULL }, *const unknown[] = { "m=1", NULL };
  GError *error = NULL;
  HeddleScriptOptions options = { .args = wrong_type };
  const char *script = "local h = require 'heddle'\nlocal n = h.arg ('n', 3, 'how many')\n" "local data = h.dataset 'synthetic' {}\nlocal batch = h.prefetch { data, batch_size = 8 }\n" TAIL;
  g_assert_null (load (script, -1, &options, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_USAGE);
  g_assert_nonnull (strstr (error->message, "s.lua:2: argument \"n\": expected a number, got \"many\""));
  g_clear_error (&error);
  options.args = unknown;
  g_assert_null (load (script, -1, &options, &error));
  g_assert_nonnull (strstr (error->message, "declares no argument \"m\"; did you mean \"n\"?"));
  g_clear_error (&error);
  refused ("local h = require 'heddle'\nlocal n = h.arg ('n', nil, 'how many')\n" TAIL, "s.lua:2: ", "argument \"n\" is required: how many");
}

/* Both ends of a wrong wire, and the line of each. */
static void
test_wiring (void)
{
  refused (HEAD "h.model 'mlp' { data, classes = 10 }", "s.lua:4: model \"mlp\"", "s.lua:2: dataset \"synthetic\" gives a dataset");
  refused (HEAD "h.model 'mlp' { batch, classes = 10 }", "s.lua:4: ", "batch.image");
  refused (HEAD "h.loss 'cross_entropy' { batch.image }", "s.lua:4: loss \"cross_entropy\": input 2 is missing", "tensor");
  refused (HEAD "h.loss 'cross_entropy' { batch.image, batch.label, batch.label, batch.label }", "s.lua:4: ", "takes");
  refused (HEAD "h.prefetch { data, bach_size = 3 }", "s.lua:4: prefetch", "did you mean \"batch_size\"?");
  refused (HEAD "h.prefetch { data, batch_size = 0 }", "s.lua:4: prefetch", "out of range");
  refused (HEAD "h.prefetch { data, batch_size = 'x' }", "s.lua:4: prefetch", "expected an integer");
  refused (HEAD "h.prefetch { id = 'a', data, batch_size = 1 }\nh.prefetch { id = 'a', data, batch_size = 1 }", "s.lua:5: prefetch", "taken by s.lua:4: prefetch");
  refused (HEAD "h.model 'lenett' { batch.image, classes = 10 }", "s.lua:4: ", "did you mean \"lenet\"?");
  refused (HEAD "h.modle 'lenet' { batch.image, classes = 10 }", "s.lua:4: ", "did you mean \"model\"?");
  refused (HEAD "local x = h.model 'lenet'\nh.loss 'mse' { x, batch.label }", "s.lua:5: ", "not finished");
  refused (HEAD "local y = batch.image + 1", "s.lua:4: ", "cannot calculate");
  refused (HEAD "batch.size = 3", "s.lua:4: ", "cannot be changed");
  refused (HEAD "h.optimizer 'sgd' { h.loss 'mse' { batch.image, batch.image }, lr = batch.label.clases }", "s.lua:4: ", "did you mean \"classes\"?");
  refused (HEAD, "s.lua: ", "returns nothing");
  refused (HEAD "return data", "s.lua:2: ", "must return a train stage");
}

static void
test_globals (void)
{
  refused (HEAD "print (bacth)", "s.lua:4: undefined variable \"bacth\"", "did you mean \"batch\"?");
  refused (HEAD "logits = 3", "s.lua:4: assignment to the undefined variable \"logits\"", "hint: local logits");
  refused ("x = = 3", "s.lua:1:", "unexpected symbol");
  refused ("error ('mine')", "s.lua:1: mine", "");
  refused ("error ({})", "", "not text");
  refused ("require 'os'", "s.lua:1: ", "no module \"os\"");
  refused ("require 'heddle.../x'", "s.lua:1: ", "no module");
}

/* The doors: none of these names exists. */
static void
test_no_doors (void)
{
  static const char *const names[] = { "os", "io", "debug", "package", "dofile", "loadfile", "collectgarbage", NULL };
  for (guint i = 0; names[i]; i++)
    {
      g_autofree char *text = g_strdup_printf ("return %s", names[i]);
      refused (text, "s.lua:1: undefined variable", names[i]);
    }
  refused ("assert (string.dump == nil and string.match == nil and string.gsub == nil and string.gmatch == nil); error 'none'", "", "none");
  refused ("local f, why = load (string.char (27) .. 'Lua'); assert (f == nil); error ('no: ' .. why)", "", "attempt to load a binary chunk");
  refused ("local f = load 'return 6 * 7'; error ('got ' .. f ())", "", "got 42");
  refused ("assert (('a.b'):find ('.', 1) == 2 and not ('abc'):find ('%a')); error 'plain'", "", "plain");
}

/* Whatever loops is stopped, whatever eats memory too; pcall and coroutines are no shelter. */
static void
test_budgets (void)
{
  refused ("local i = 0\nwhile true do i = i + 1 end", "s.lua:2: ", "budget of 2 million instructions is spent");
  refused ("while true do\npcall (function () while true do end end)\nend", "", "instructions is spent");
  refused ("local c = coroutine.wrap (function ()\nwhile true do end end)\nc ()", "s.lua:2: ", "instructions is spent");
  refused ("local s = 'x'\nwhile true do s = s .. s end", "", "memory budget of 8 MiB is spent");
  refused ("local t = {}\nfor i = 1, 1e9 do t[i] = i end", "", "memory budget");
  refused ("pcall (string.rep, 'x', 1 << 40)\npcall (string.rep, 'x', 1 << 25)\nlocal t = {}\nfor i = 1, 10000 do t[i] = {} end\nerror 'went on'", "", "budget");
  refused ("return string.rep ('', 1 << 50)", "s.lua: ", "");
  refused ("table.move ({}, 1, 1 << 50, 2)", "s.lua:1: ", "table.move");
  refused ("setmetatable ({}, { __gc = function () while true do end end })", "s.lua:1: ", "__gc is not available");
  refused ("local x <close> = setmetatable ({}, { __close = function () while true do end end })", "s.lua:1: ", "__close is not available");
  refused ("table.insert (setmetatable ({}, { __len = function () return 1 << 50 end }), 1, 2)", "s.lua:1: ", "__len is not available");
  refused ("for i = 1, 1e9 do local s = ('x'):rep (100000) end", "", "spent");
  refused ("local function f () return f () + 1 end\nf ()", "", "memory budget");
}

static void
test_bytecode (void)
{
  GError *error = NULL;
  g_assert_null (load ("\x1bLua\x54\x00", 6, NULL, &error));
  g_assert_nonnull (strstr (error->message, "s.lua: compiled Lua is not accepted"));
  g_clear_error (&error);
  g_assert_null (heddle_script_load ("/nonexistent/x.lua", registry, NULL, NULL, &error));
  g_assert_nonnull (error);
  g_clear_error (&error);
}

/* Scripts are reproducible: the same random numbers every time. */
static void
test_random (void)
{
  GError *first = NULL, *second = NULL;
  load ("error (math.random () .. '')", -1, NULL, &first);
  load ("error (math.random () .. '')", -1, NULL, &second);
  g_assert_cmpstr (first->message, ==, second->message);
  g_error_free (first);
  g_error_free (second);
}

static void
test_shebang (void)
{
  GError *error = NULL;
  g_autoptr (HeddleGraph) g = load ("#!/usr/bin/env -S heddle run\n" HEAD TAIL, -1, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpint (((HeddleNode *) g->nodes->pdata[0])->line, ==, 3);
}

static void
test_drawings (void)
{
  GError *error = NULL;
  g_autoptr (HeddleGraph) g = load (HEAD TAIL, -1, NULL, &error);
  g_autofree char *text = heddle_graph_print (g), *dot = heddle_graph_dot (g), *json = heddle_graph_json (g);
  static const char *const verbs[] = { "dataset", "prefetch", "model", "loss", "optimizer", "train" };
  for (guint i = 0; i < G_N_ELEMENTS (verbs); i++)
    g_assert_true (strstr (text, verbs[i]) && strstr (dot, verbs[i]) && strstr (json, verbs[i]));
  g_assert_true (g_str_has_prefix (dot, "digraph"));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  registry = heddle_registry_new (NULL);
  folder = g_dir_make_tmp ("heddle-script-XXXXXX", NULL);
  g_test_add_func ("/script/graph", test_graph);
  g_test_add_func ("/script/names", test_names);
  g_test_add_func ("/script/arguments", test_arguments);
  g_test_add_func ("/script/wiring", test_wiring);
  g_test_add_func ("/script/globals", test_globals);
  g_test_add_func ("/script/no-doors", test_no_doors);
  g_test_add_func ("/script/budgets", test_budgets);
  g_test_add_func ("/script/bytecode", test_bytecode);
  g_test_add_func ("/script/random", test_random);
  g_test_add_func ("/script/shebang", test_shebang);
  g_test_add_func ("/script/drawings", test_drawings);
  int status = g_test_run ();
  g_autofree char *file = g_build_filename (folder, "s.lua", NULL);
  g_remove (file);
  g_rmdir (folder);
  g_free (folder);
  heddle_registry_free (registry);
  return status;
}
