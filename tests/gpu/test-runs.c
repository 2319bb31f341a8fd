/* tests/gpu/test-runs.c: whole trainings on a GPU (HEDDLE_TEST_DEVICE, cuda by default): graphs on and off bit for bit, curves and AMP beside strict f32 on the cpu, a thousand steps
 * that take no more memory, AMP's memory.  HEDDLE_TEST_SMALL=1: images, batches and steps that a simulated device gets through.  Must not know the backend. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

#define MIB 1048576.0
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED TRUE
#else
#define SANITIZED FALSE
#endif

typedef struct { const char *name, *data, *fields, *model, *optimizer; } Model;

#define IMAGES(dtype, noise) "h.dataset 'synthetic' { shape = { 3, SIDE, SIDE }, classes = 4, length = LENGTH, noise = " noise ", dtype = '" dtype "' }"
static const Model models[] = {
  { "lenet", IMAGES ("f32", "2"), "batch.image, batch.label",
    "h.model 'sequential' { x, layers = { nn.conv2d { 6, kernel = 5, padding = 2 }, nn.relu {}, nn.max_pool { kernel = 2 }, nn.conv2d { 16, kernel = 5 }, nn.relu {}, nn.flatten {}, "
    "nn.linear { 40 }, nn.relu {}, nn.dropout { 0.2 }, nn.linear { 4 } } }", "'sgd' { loss, lr = 0.006, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }" },
  { "resnet", IMAGES ("u8", "0.5"), "batch.image, batch.label", "h.model 'resnet' { x, classes = 4, depth = 20 }", "'sgd' { loss, lr = 0.01, momentum = 0.9, weight_decay = 5e-4 }" },
  { "gpt", "h.dataset 'text' { file = 'TEXT', units = 'bytes', window = WINDOW }", "batch.tokens, batch.targets",
    "h.model 'gpt' { x, classes = 256, layers = 2, heads = 2, width = 4 * WINDOW, context = WINDOW, dropout = 0 }", "'adamw' { loss, lr = 3e-3, weight_decay = 0.1 }" },
};

static char *folder;
static const char *device_name;
static gboolean small;

static const char *const exact = "deterministic = true, cudnn_benchmark = false, tf32 = false";

/* The template's words become this run's sizes. */
static char *
fill_in (const char *text)
{
  g_autoptr (GString) s = g_string_new (text);
  const struct { const char *word; char *value; } words[] = { { "SIDE", g_strdup (small ? "12" : "32") }, { "LENGTH", g_strdup (small ? "13" : "517") }, { "WINDOW", g_strdup (small ? "8" : "64") },
                                                              { "TEXT", g_build_filename (folder, "text", NULL) } };
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    {
      g_auto (GStrv) parts = g_strsplit (s->str, words[i].word, -1);
      g_autofree char *joined = g_strjoinv (words[i].value, parts);
      g_string_assign (s, joined);
      g_free (words[i].value);
    }
  return g_strdup (s->str);
}

/* M on DEVICE: AMP is a dtype of h.amp, OPTIONS are the train stage's. */
static TestRun
run (const Model *m, const char *device, const char *flags, const char *amp, const char *options, TestUntil until)
{
  g_autofree char *data = fill_in (m->data), *model = fill_in (m->model);
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal nn = require 'heddle.layers'\nh.flags { %s }\nlocal batch = h.prefetch { %s, batch_size = %d, shuffle = true, pin_memory = true }\n"
                                           "local x, y = %s\nlocal loss = h.amp { h.loss 'cross_entropy' { %s, y }, dtype = '%s', init_scale = 256 }\n"
                                           "return h.train { h.optimizer %s, device = '%s', seed = 1, %s }\n", flags, data, small ? 8 : 32, m->fields, model, amp, m->optimizer, device, options);
  TestRun r = test_run (folder, text, until);
  g_assert_no_error (r.error);
  return r;
}

static TestRun
train (const Model *m, const char *device, const char *flags, const char *amp)
{
  return run (m, device, flags, amp, small ? "epochs = 1" : "epochs = 2", TEST_RAN);
}

static guint64
hash_of (const Model *m, const char *flags, const char *amp)
{
  TestRun r = train (m, device_name, flags, amp);
  guint64 hash = 0;
  GError *error = NULL;
  g_assert_true (heddle_pipeline_hash (r.pipeline, &hash, &error));
  g_assert_no_error (error);
  test_run_clear (&r);
  return hash;
}

/* A replayed graph is what was captured: every bit of the parameters, optimizer state and running statistics is the same; and so it is the second time. */
static void
graphs (const Model *m, const char *amp)
{
  g_autofree char *off = g_strconcat (exact, ", cuda_graphs = false", NULL);
  guint64 with = hash_of (m, exact, amp), without = hash_of (m, off, amp), again = hash_of (m, exact, amp);
  g_test_message ("%s, %s: graphs on %016" G_GINT64_MODIFIER "x, off %016" G_GINT64_MODIFIER "x, on again %016" G_GINT64_MODIFIER "x", m->name, amp, with, without, again);
  g_assert_cmphex (without, ==, with);
  g_assert_cmphex (again, ==, with);
}

static void test_graphs_f32 (gconstpointer m)  { graphs (m, "f32"); }
static void test_graphs_f16 (gconstpointer m)  { graphs (m, "f16"); }
static void test_graphs_bf16 (gconstpointer m) { graphs (m, "bf16"); }

/* Strict f32 against the cpu: sums in another order, amplified by training: on the cpu, the residual network with and without winograd differs by 1.1e-3.
 * 16 bits against the same f32 of the cpu: a few per cent; another arithmetic, so never the same. */
static void
test_curve (gconstpointer data)
{
  static const struct { const char *amp; double tolerance; } sides[] = { { "f32", 5e-3 }, { "f16", 0.05 }, { "bf16", 0.05 } };
  const Model *m = data;
  TestRun cpu = train (m, "cpu", "winograd = false", "f32");
  g_test_message ("%s: mean loss of the last epoch on the cpu in f32 %.6f", m->name, cpu.result.loss);
  g_assert_true (small || cpu.result.loss < 0.9 * log (g_str_equal (m->name, "gpt") ? 256 : 4));      /* it learns: a curve, not a line */
  for (guint i = 0; i < G_N_ELEMENTS (sides); i++)
    {
      TestRun other = train (m, device_name, exact, sides[i].amp);
      g_test_message ("%s, %s: mean loss of the last epoch %.6f, on the cpu in f32 %.6f", m->name, sides[i].amp, other.result.loss, cpu.result.loss);
      g_assert_cmpfloat_with_epsilon (other.result.loss, cpu.result.loss, sides[i].tolerance * MAX (cpu.result.loss, 0.2));
      g_assert_true (i == 0 || other.result.loss != cpu.result.loss);
      g_assert_cmpint (other.result.steps, ==, cpu.result.steps);
      test_run_clear (&other);
    }
  test_run_clear (&cpu);
}

/* ---- memory ---- */

/* cudaMemGetInfo of the runtime that the backend brought into this process, whatever its version. */
static gboolean
device_free (gsize *left)
{
  typedef int (*MemGetInfo) (gsize *, gsize *);
  g_autofree char *maps = NULL;
  gsize total;
  MemGetInfo info = NULL;
  g_assert_true (g_file_get_contents ("/proc/self/maps", &maps, NULL, NULL));
  const char *name = strstr (maps, "libcudart.so");
  if (name)
    {
      const char *start = name, *end = strchr (name, '\n');
      while (start > maps && start[-1] != ' ')
        start--;
      g_autofree char *path = g_strndup (start, (gsize) (end - start));
      gpointer runtime = dlopen (path, RTLD_NOW | RTLD_NOLOAD);
      info = runtime ? (MemGetInfo) dlsym (runtime, "cudaMemGetInfo") : NULL;
    }
  return info && info (left, &total) == 0;
}

static gsize
resident (void)
{
  g_autofree char *text = NULL;
  g_assert_true (g_file_get_contents ("/proc/self/statm", &text, NULL, NULL));
  return (gsize) g_ascii_strtoull (strchr (text, ' '), NULL, 10) * (gsize) sysconf (_SC_PAGESIZE);
}

typedef struct { gsize device, host; guint64 counter[2]; } Usage;

static void
look (TestRun *r, Usage *usage)
{
  HeddleDevice *device = heddle_pipeline_device (r->pipeline);
  g_assert_true (device->iface->sync (device, NULL));
  if (!device_free (&usage->device))
    usage->device = 0;
  usage->host = resident ();
  usage->counter[0] = device->iface->counter (device, HEDDLE_COUNTER_ALLOCATIONS);
  usage->counter[1] = device->iface->counter (device, HEDDLE_COUNTER_PRIMITIVES);
}

/* What the driver says is free must not shrink while the loop runs, loader, copies, log and updates included; a driver gives out 2 MiB at a time.  A leak of 8 KiB a step is seen on the host. */
static void
steady (const Model *m, const char *amp)
{
  TestRun r = run (m, device_name, "cudnn_benchmark = true", amp, "epochs = 1000000, log = { h.logger 'progress' { interval = 10 } }", TEST_COMPILED);
  Usage before, after;
  GError *error = NULL;
  gint64 samples = 0, steps = small ? 20 : 1000;
  double seconds = 0;
  g_autoptr (HeddleBench) bench = heddle_bench_new (r.pipeline, &error);
  g_assert_no_error (error);
  g_assert_true (heddle_bench_run (bench, steps / 2, &samples, &seconds, &error));
  look (&r, &before);
  g_assert_true (heddle_bench_run (bench, steps, &samples, &seconds, &error));
  g_assert_no_error (error);
  look (&r, &after);
  g_test_message ("%s, %s, %d steps: device free %.1f MiB, then %.1f; resident %.1f MiB, then %.1f", m->name, amp, (int) steps, (double) before.device / MIB, (double) after.device / MIB,
                  (double) before.host / MIB, (double) after.host / MIB);
  g_assert_true (before.device > 0 || g_str_equal (device_name, "cpu"));
  g_assert_cmpuint (after.device + (2 << 20), >=, before.device);
  if (!SANITIZED)      /* which keeps what is freed */
    g_assert_cmpuint (after.host, <=, before.host + (8 << 20));
  for (guint i = 0; i < G_N_ELEMENTS (after.counter); i++)
    g_assert_cmpuint (after.counter[i], ==, before.counter[i]);
  g_clear_pointer (&bench, heddle_bench_free);
  test_run_clear (&r);
}

static void test_steady_f32 (gconstpointer m) { steady (m, "f32"); }
static void test_steady_f16 (gconstpointer m) { steady (m, "f16"); }

/* Activations in 16 bits are half as large, and what is f32 in both is little of them. */
static void
test_amp_memory (gconstpointer m)
{
  HeddlePipelineMemory memory[2];
  for (guint i = 0; i < 2; i++)
    {
      TestRun r = run (m, device_name, "", i ? "bf16" : "f32", "epochs = 1", TEST_COMPILED);
      heddle_pipeline_memory (r.pipeline, &memory[i]);
      test_run_clear (&r);
    }
  g_test_message ("activations: %.2f MiB in f32, %.2f in bf16", (double) memory[0].arena / MIB, (double) memory[1].arena / MIB);
  g_assert_cmpfloat ((double) memory[1].arena, <, 0.75 * (double) memory[0].arena);
}

static void
write_text (void)
{
  g_autofree char *file = g_build_filename (folder, "text", NULL);
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint i = 0; i < (small ? 8u : 2000u); i++)
    g_string_append_printf (text, "%u times %u are %u; ", i % 37, i % 41, i % 37 * (i % 41));
  g_assert_true (g_file_set_contents (file, text->str, -1, NULL));
}

static void
test_none (gconstpointer reason)
{
  g_test_skip (reason);
}

/* Why DEVICE_NAME cannot be opened; NULL: it can. */
static char *
refusal (void)
{
  g_autoptr (GError) error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  HeddleDevice *device = heddle_device_open (device_name, &flags, NULL, &error);
  if (device)
    heddle_device_close (device);
  return error ? g_strdup (error->message) : NULL;
}

static void
add (const char *path, const Model *m, GTestDataFunc f)
{
  g_autofree char *full = g_strdup_printf ("/gpu/%s/%s", path, m->name);
  g_test_add_data_func (full, m, f);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  device_name = g_getenv ("HEDDLE_TEST_DEVICE") ? g_getenv ("HEDDLE_TEST_DEVICE") : "cuda";
  small = g_getenv ("HEDDLE_TEST_SMALL") != NULL;
  folder = g_dir_make_tmp ("heddle-runs-XXXXXX", NULL);
  write_text ();
  g_autofree char *none = refusal ();
  if (none)
    g_test_add_data_func ("/gpu/runs", none, test_none);
  for (guint i = 0; i < (none ? 0 : G_N_ELEMENTS (models)); i++)
    {
      add ("graphs/f32", &models[i], test_graphs_f32);
      add ("graphs/f16", &models[i], test_graphs_f16);
      add ("graphs/bf16", &models[i], test_graphs_bf16);
      add ("curve", &models[i], test_curve);
      add ("steady/f32", &models[i], test_steady_f32);
      add ("steady/f16", &models[i], test_steady_f16);
    }
  if (!none)
    add ("amp memory", &models[1], test_amp_memory);
  return g_test_run ();
}
