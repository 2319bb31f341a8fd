/* tests/cuda-sim/test-train.c: whole runs on the simulated CUDA device: against the same runs on the cpu device, and against themselves under other
 * schedules of streams, without graphs, on a second device, and with every call failing in turn.  Must not know the backend's insides. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cuda-sim/fake.h"
#include "run.h"

#define LENET "nn.conv2d { 6, kernel = 5, padding = 2 }, nn.relu {}, nn.max_pool { kernel = 2 }, nn.conv2d { 8, kernel = 3 }, nn.relu {}, nn.max_pool { kernel = 2 }, nn.flatten {}, " \
              "nn.linear { 20 }, nn.relu {}, nn.dropout { 0.2 }, nn.linear { 4 }"
#define RESNET "resnet 20"      /* the plugin, on images of 12 x 12 */
#define NORMED "nn.conv2d { 8, kernel = 3 }, nn.batch_norm {}, nn.relu {}, nn.flatten {}, nn.linear { 4 }"

static char *folder;
static const char *prefetch = "";      /* options after shuffle */
static guint classes = 4;
static const char *optimizer = "lr = 0.05, momentum = 0.9";

/* A control of the simulated device: it is there once the backend's module is. */
static gpointer
control (const char *name)
{
  static gpointer runtime;
  if (!runtime)
    runtime = dlopen (g_getenv ("HEDDLE_SIM_CUDART"), RTLD_NOW | RTLD_GLOBAL);
  g_assert_nonnull (runtime);
  return dlsym (runtime, name);
}
#define SIM(name) ((__typeof__ (&name)) control (#name))

/* OPTIONS are those of the train stage; AMP wraps the loss. */
static void
run (TestRun *r, const char *device, const char *layers, const char *flags, const char *amp, const char *options)
{
  g_autofree char *loss = g_strdup_printf (amp ? "h.amp { h.loss 'cross_entropy' { logits, batch.label }, %s }" : "h.loss 'cross_entropy' { logits, batch.label }%s", amp ? amp : "");
  g_autofree char *model = g_strcmp0 (layers, RESNET) == 0 ? g_strdup ("h.model 'resnet' { batch.image, classes = 4, depth = 20 }")
                                                           : g_strdup_printf ("h.model 'sequential' { batch.image, layers = { %s } }", layers);
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal data = h.dataset 'synthetic' { shape = { 2, 12, 12 }, classes = %u, length = %d, noise = 1 }\n"
                                           "h.flags { threads = 1, %s }\nlocal batch = h.prefetch { data, batch_size = 8, shuffle = true%s }\nlocal nn = require 'heddle.layers'\n"
                                           "local logits = %s\nlocal loss = %s\n"
                                           "return h.train { h.optimizer 'sgd' { loss, %s }, device = '%s', %s }\n", classes, g_strcmp0 (layers, RESNET) == 0 ? 17 : 37, flags, prefetch, model, loss, optimizer, device, options);
  *r = test_run (folder, text, TEST_RAN);
}

static guint64
hash_of (const char *layers, const char *flags, const char *amp)
{
  TestRun r;
  guint64 hash = 0;
  run (&r, "cuda", layers, flags, amp, "epochs = 2");
  g_assert_no_error (r.error);
  g_assert_true (heddle_pipeline_hash (r.pipeline, &hash, NULL));
  test_run_clear (&r);
  return hash;
}

/* Parameters and running statistics; windows of a flat buffer may lie in it channels last, so that the buffers themselves differ. */
static gboolean
is_trained (const HeddleVariable *v)
{
  return v->role == HEDDLE_ROLE_STATE || (v->role == HEDDLE_ROLE_PARAM && v->flat);
}

static double
distance (TestRun *a, TestRun *b)
{
  return test_distance (test_run_variables (a), test_run_variables (b), is_trained);
}

/* LOSS: relative; TOLERANCE: of a tensor's largest number.  10 steps of f32 sums in another order, amplified by training.  ResNet-20 with seeds 0 to 7, by own kernels and
 * through cuDNN's graphs: 4e-6 to 1.3e-5, the bound is twice the worst; but 0.29 with own kernels and seed 2, where an activation lies within rounding of relu's corner. */
static void
agree (const char *layers, const char *options, double loss, double tolerance)
{
  TestRun cpu, cuda;
  run (&cpu, "cpu", layers, "winograd = false", NULL, options);
  g_assert_no_error (cpu.error);
  run (&cuda, "cuda", layers, "", NULL, options);
  g_assert_no_error (cuda.error);
  double most = distance (&cpu, &cuda);
  g_test_message ("loss %.6f on the cpu, %.6f on the simulated device; parameters differ by %.3g", cpu.result.loss, cuda.result.loss, most);
  g_assert_cmpint (cuda.result.steps, ==, cpu.result.steps);
  g_assert_cmpint (cuda.result.skipped, ==, cpu.result.skipped);
  g_assert_cmpfloat_with_epsilon (cuda.result.loss, cpu.result.loss, loss * cpu.result.loss);
  g_assert_cmpfloat (most, <, tolerance);
  test_run_clear (&cpu);
  test_run_clear (&cuda);
}

static void test_lenet (void) { agree (LENET, "epochs = 2", 1e-5, 2e-5); }
static void test_normed (void) { agree (NORMED, "epochs = 2", 1e-5, 2e-5); }
static void test_resnet (void) { agree (RESNET, "epochs = 1, seed = 0", 1e-5, 2.6e-5); }

/* The cpu runs each operation for itself, so that it rounds to 16 bits where own kernels do: the two are far closer to each other than to f32. */
static void
agree_in_16_bits (const char *layers, const char *amp, const char *options)
{
  TestRun wide, cpu, cuda;
  run (&wide, "cpu", layers, "winograd = false", NULL, options);
  run (&cpu, "cpu", layers, "winograd = false, fusion = false", amp, options);
  run (&cuda, "cuda", layers, "", amp, options);
  g_assert_no_error (cuda.error);
  double of_16_bits = distance (&wide, &cpu), between = distance (&cpu, &cuda);
  g_test_message ("loss %.6f in f32, %.6f on the cpu, %.6f on the simulated device; 16 bits cost %.3g, the devices differ by %.3g", wide.result.loss, cpu.result.loss, cuda.result.loss, of_16_bits,
                  between);
  g_assert_cmpint (cuda.result.skipped, ==, cpu.result.skipped);
  g_assert_cmpfloat (of_16_bits, >, 1e-3);
  g_assert_cmpfloat (between, <, 0.1 * of_16_bits);
  test_run_clear (&wide);
  test_run_clear (&cpu);
  test_run_clear (&cuda);
}

static void test_bf16 (void) { agree_in_16_bits (LENET, "dtype = 'bf16'", "epochs = 2"); }
static void test_f16 (void) { agree_in_16_bits (NORMED, "dtype = 'f16', init_scale = 256", "epochs = 2"); }
/* Casts around a loss that are not computed change no bit. */
static void
test_logits (void)
{
  static const char *const amps[] = { "dtype = 'f16'", "dtype = 'bf16'" };
  for (guint i = 0; i < G_N_ELEMENTS (amps); i++)
    g_assert_cmphex (hash_of (LENET, "", amps[i]), ==, hash_of (LENET, "fusion = false", amps[i]));
}

/* Logits of 1001 classes, and their gradient, lie in padded rows: every product of the network is one that tensor cores like, evaluation too; a last layer with a bias covers the padding with its
 * input's gradient alone.  What is multiplied there, or left there, changes nothing: the cpu pads nothing.  Without fusion nothing is padded: the counter counts. */
static void
test_padded (void)
{
  static const char *const layers[] = { "nn.flatten {}, nn.linear { 64 }, nn.relu {}, nn.linear { 1001, bias = false }", "nn.flatten {}, nn.linear { 64 }, nn.relu {}, nn.linear { 1001 }" };
  static const char *const options = "epochs = 2, eval = { data = data, accuracy = h.metric 'accuracy' { logits, batch.label } }", *const amp = "dtype = 'bf16'";
  gboolean libraries = !g_str_equal (g_getenv ("HEDDLE_CUDA_PATH"), "own");
  classes = 1001;
  for (guint i = 0; i < G_N_ELEMENTS (layers); i++)
    {
      TestRun r;
      long before = SIM (heddle_sim_counter) ("unaligned"), padded, plain;
      agree_in_16_bits (layers[i], amp, options);
      padded = SIM (heddle_sim_counter) ("unaligned") - before;
      run (&r, "cuda", layers[i], "fusion = false", amp, options);
      test_run_clear (&r);
      plain = SIM (heddle_sim_counter) ("unaligned") - before - padded;
      g_test_message ("%ld products are not aligned, without fusion %ld", padded, plain);
      g_assert_true (!libraries || (i ? padded < plain : padded == 0 && plain > 0));
    }
  classes = 4;
}

static void test_accumulating (void) { agree_in_16_bits (NORMED, "dtype = 'bf16'", "epochs = 4, accumulate = 3"); }

/* What streams do first is no business of the numbers: the same bits under every schedule. */
static void
test_schedules (void)
{
  static const char *const schedules[] = { "eager", "greedy", "random:1", "random:2", "random:3" };
  SIM (heddle_sim_schedule) ("lazy");
  guint64 first = hash_of (LENET, "", NULL), amp = hash_of (NORMED, "", "dtype = 'f16'");
  for (guint i = 0; i < G_N_ELEMENTS (schedules); i++)
    {
      SIM (heddle_sim_schedule) (schedules[i]);
      g_assert_cmphex (hash_of (LENET, "", NULL), ==, first);
      g_assert_cmphex (hash_of (NORMED, "", "dtype = 'f16'"), ==, amp);
    }
  SIM (heddle_sim_schedule) ("lazy");
}

/* Batches that the device copies from where the loader writes the next ones: none is written before it was read. */
static void
test_pinned (void)
{
  static const char *const schedules[] = { "lazy", "greedy", "random:1" };
  static const char *const loaders[] = { ", pin_memory = true, num_workers = 0", ", pin_memory = true, num_workers = 1, prefetch_factor = 1", ", pin_memory = true, num_workers = 2" };
  guint64 first = hash_of (LENET, "", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (schedules); i++)
    for (guint k = 0; k < G_N_ELEMENTS (loaders); k++)
      {
        SIM (heddle_sim_schedule) (schedules[i]);
        prefetch = loaders[k];
        g_assert_cmphex (hash_of (LENET, "", NULL), ==, first);
      }
  prefetch = "";
  SIM (heddle_sim_schedule) ("lazy");
}

/* Captured and replayed, or put piece by piece: the same bits; and replayed it is. */
static void
test_graphs (void)
{
  long before = SIM (heddle_sim_counter) ("graph_launches");
  guint64 plain = hash_of (LENET, "cuda_graphs = false", NULL), amp = hash_of (NORMED, "cuda_graphs = false", "dtype = 'f16'");
  g_assert_cmpint (SIM (heddle_sim_counter) ("graph_launches"), ==, before);
  g_assert_cmphex (hash_of (LENET, "", NULL), ==, plain);
  g_assert_cmphex (hash_of (NORMED, "", "dtype = 'f16'"), ==, amp);
  g_assert_cmpint (SIM (heddle_sim_counter) ("graph_launches"), >, before);
}

/* Nothing can be captured: that is said, and everything is launched piece by piece instead, with the same bits. */
static void
test_uncaptured (void)
{
  if (g_test_subprocess ())
    {
      guint64 hash = hash_of (LENET, "", NULL);
      long before = SIM (heddle_sim_counter) ("graph_launches");
      SIM (heddle_sim_no_captures) (1);
      g_assert_cmphex (hash_of (LENET, "", NULL), ==, hash);
      g_assert_cmpint (SIM (heddle_sim_counter) ("graph_launches"), ==, before);
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("*heddle: \"train\" does not become a CUDA graph, its steps are launched one by one: ?*");
}

/* y = 2 x + 1 of N numbers in three steps at least, whose results lie in the arena */
static HeddlePlan *
plan_new (HeddleDevice *device, HeddleVariables *vars, const char *name, gint64 n)
{
  g_autoptr (GError) error = NULL;
  HeddleShape shape = heddle_shape (n);
  HeddleBuilder *b = heddle_builder_new (name, vars, TRUE, 0);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape);
  heddle_builder_output (b, heddle_offset (b, heddle_add (b, x, heddle_relu (b, x)), 1));
  HeddlePlan *plan = device->iface->compile (device, heddle_builder_finish (b, &error), &error);
  g_assert_no_error (error);
  return plan;
}

/* The batch is given back before anybody has waited. */
static void
run_plan (HeddlePlan *plan, gint64 n, float number)
{
  g_autoptr (GError) error = NULL;
  HeddleDevice *device = plan->device;
  g_autofree float *y = g_new (float, n);
  HeddleTensor tensor = { HEDDLE_F32, heddle_shape (n), y };
  float *x = device->iface->host_alloc (device, (gsize) n * sizeof (float), &error);
  g_assert_no_error (error);
  for (gint64 i = 0; i < n; i++)
    x[i] = number + (float) i;
  gpointer inputs[] = { x };
  g_assert_true (device->iface->run (plan, inputs, &error));
  device->iface->host_free (device, x, (gsize) n * sizeof (float));
  g_assert_true (device->iface->fetch (plan, 0, &tensor, &error));
  for (gint64 i = 0; i < n; i++)
    g_assert_cmpfloat (y[i], ==, 2 * (number + (float) i) + 1);
}

/* A plan that needs more memory moves everybody's: what was captured of others before is captured anew, or if it cannot be launched piece by piece. */
static void
moved (gboolean captured)
{
  g_autoptr (GError) error = NULL;
  HeddleFlags flags = { .cuda_graphs = TRUE };
  HeddleDevice *device = heddle_device_open ("cuda", &flags, NULL, &error);
  g_assert_no_error (error);
  HeddleVariables *vars = heddle_variables_new ();
  HeddlePlan *small = plan_new (device, vars, "small", 5);
  for (int i = 0; i < 3; i++)
    run_plan (small, 5, (float) i);
  HeddlePlan *large = plan_new (device, vars, "large", 5000);
  SIM (heddle_sim_no_captures) (!captured);
  for (int i = 0; i < 3; i++)
    {
      run_plan (large, 5000, (float) i);
      run_plan (small, 5, (float) (i + 7));
    }
  SIM (heddle_sim_no_captures) (FALSE);
  heddle_plan_free (small);
  heddle_plan_free (large);
  heddle_variables_free (vars);
  heddle_device_close (device);
}

static void
test_moved (void)
{
  moved (TRUE);
  moved (FALSE);
}

static gpointer
finish_elsewhere (gpointer data)
{
  test_run_clear (data);
  return NULL;
}

/* A run on the second device asks nothing of the first, not even of a thread that has never chosen one.  In a process of its own, where nobody else has. */
static void
test_second_device (void)
{
  if (g_test_subprocess ())
    {
      TestRun r;
      g_setenv ("HEDDLE_SIM_DEVICES", "2", TRUE);
      prefetch = ", pin_memory = true, num_workers = 2";
      run (&r, "cuda:1", LENET, "", NULL, "epochs = 2");
      g_assert_no_error (r.error);
      g_thread_join (g_thread_new ("finish", finish_elsewhere, &r));
      g_assert_cmpint (SIM (heddle_sim_counter) ("contexts"), ==, 1 << 1);
      return;
    }
  g_test_trap_subprocess (NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
  g_test_trap_assert_passed ();
}

/* Gradients that are never finite: every update is skipped on the device, the parameters stay, the run stops with a diagnosis. */
static void
test_skips (void)
{
  TestRun r;
  run (&r, "cuda", NORMED, "", "dtype = 'f16', init_scale = 1e30, backoff_factor = 0.999, max_skips = 7", "epochs = 5");
  g_assert_error (r.error, HEDDLE_ERROR, HEDDLE_ERROR_RUN);
  g_assert_nonnull (strstr (r.error->message, "7 updates in a row were skipped because gradients were not finite"));
  HeddleVariables *vars = heddle_pipeline_variables (r.pipeline);
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      gsize n = (gsize) heddle_shape_count (&v->shape);
      if (v->role != HEDDLE_ROLE_PARAM || !v->flat)
        continue;
      g_autofree float *now = test_numbers (test_run_variables (&r), v->name), *first = g_new (float, n);
      heddle_variable_initial (v, 0, first);
      g_assert_cmpmem (now, n * sizeof (float), first, n * sizeof (float));
    }
  test_run_clear (&r);
}

static void
test_scale_settles (void)
{
  TestRun r;
  run (&r, "cuda", NORMED, "", "dtype = 'f16', init_scale = 16777216", "epochs = 6");
  g_assert_no_error (r.error);
  g_assert_cmpint (r.result.skipped, >, 0);
  g_assert_cmpint (r.result.skipped, <, 20);
  g_assert_cmpint (r.result.updates, ==, r.result.steps - r.result.skipped);
  test_run_clear (&r);
}

/* ---- what the host waits for ---- */

typedef struct { guint64 syncs, allocations, primitives; } Counts;

static Counts
count (const char *amp, guint steps, const char *more)
{
  TestRun r;
  Counts c;
  g_autofree char *options = g_strdup_printf ("epochs = 1, steps_per_epoch = %u, %s", steps, more);
  run (&r, "cuda", NORMED, "", amp, options);
  g_assert_no_error (r.error);
  g_assert_cmpint (r.result.steps, ==, steps);
  HeddleDevice *device = heddle_pipeline_device (r.pipeline);
  c.syncs = device->iface->counter (device, HEDDLE_COUNTER_SYNCS);
  c.allocations = device->iface->counter (device, HEDDLE_COUNTER_ALLOCATIONS);
  c.primitives = device->iface->counter (device, HEDDLE_COUNTER_PRIMITIVES);
  test_run_clear (&r);
  return c;
}

/* Forty more steps wait for the device not once more, allocate nothing and create nothing: whatever the host looks at while they run. */
static void
steady (const char *amp, const char *options)
{
  Counts few = count (amp, 12, options), many = count (amp, 52, options);
  g_test_message ("%u waits", (guint) few.syncs);
  g_assert_cmpuint (few.syncs, ==, many.syncs);
  g_assert_cmpuint (few.allocations, ==, many.allocations);
  g_assert_cmpuint (few.primitives, ==, many.primitives);
}

#define LOG "log = { h.logger 'jsonl' { path = '%s', interval = %d } }"

static void
test_steady (void)
{
  g_autofree char *log = g_strdup_printf (LOG, "steady.jsonl", 1);
  steady (NULL, "stop_on_nonfinite = 1");
  steady ("dtype = 'bf16'", "stop_on_nonfinite = 5");
  steady ("dtype = 'f16'", "schedule = h.schedule 'cosine' {}, schedule_on = 'applied'");
  steady ("dtype = 'f16', max_skips = 1000", "accumulate = 2, schedule = h.schedule 'one_cycle' { cycle_momentum = true }");
  steady (NULL, log);
  steady ("dtype = 'f16'", log);
}

/* Rates that the device looks up by its own count of applied updates are those that the host would write. */
static void
test_looked_up (void)
{
  guint64 hash[2];
  for (guint k = 0; k < 2; k++)
    {
      TestRun r;
      g_autofree char *options = g_strdup_printf ("epochs = 3, schedule = h.schedule 'one_cycle' { cycle_momentum = true }, schedule_on = '%s'", k ? "applied" : "all");
      run (&r, "cuda", NORMED, "", "dtype = 'f16', init_scale = 256", options);
      g_assert_no_error (r.error);
      g_assert_true (heddle_pipeline_hash (r.pipeline, &hash[k], NULL));
      test_run_clear (&r);
    }
  g_assert_cmphex (hash[0], ==, hash[1]);
}

/* What a step finds wrong with its input is told with the next snapshot that arrives, without a wait: here an index that a table has no row for. */
static void
test_fault (void)
{
  g_autoptr (GError) error = NULL;
  HeddleFlags flags = { .cuda_graphs = TRUE };
  HeddleDevice *device = heddle_device_open ("cuda", &flags, NULL, &error);
  g_assert_no_error (error);
  HeddleVariables *vars = heddle_variables_new ();
  HeddleShape shape = heddle_shape (3), table = heddle_shape (5, 2), scalar = heddle_scalar_shape ();
  HeddleVariable *count = heddle_variables_declare (vars, "count", HEDDLE_ROLE_SCALAR, HEDDLE_F32, &scalar, NULL, NULL);
  HeddleBuilder *b = heddle_builder_new ("rows", vars, TRUE, 0);
  HeddleValue *v = heddle_builder_variable (b, count), *rows = heddle_embedding_op (b, heddle_builder_input (b, "index", HEDDLE_I64, &shape), heddle_builder_variable (b, heddle_variables_declare (vars, "table", HEDDLE_ROLE_STATE, HEDDLE_F32, &table, NULL, NULL)));
  heddle_builder_assign (b, v, heddle_add (b, heddle_offset (b, v, 1), heddle_sum (b, rows, 0, FALSE)), NULL);
  HeddlePlan *plan = device->iface->compile (device, heddle_builder_finish (b, &error), &error);
  g_assert_no_error (error);
  g_assert_true (device->iface->allocate (device, vars, NULL) && heddle_device_initialise (device, vars, 0, NULL));
  gint64 index[4][3] = { { 0, 4, 2 }, { 1, 1, 1 }, { 0, 1, 5 }, { 3, 2, 1 } };
  for (guint i = 0; i < 4; i++)
    {
      HeddleSnapshot s = { .n = 1, .variable = { count } };
      gpointer input = index[i];
      guint64 syncs = device->iface->counter (device, HEDDLE_COUNTER_SYNCS);
      g_assert_true (device->iface->run (plan, &input, &error) && heddle_device_snapshot (device, &s, &error));
      for (guint k = 0; k < 1000 && !s.arrived && !error; k++)
        heddle_device_arrive (device, &s, FALSE, &error);
      if (i != 2)
        {
          g_assert_no_error (error);
          g_assert_cmpfloat (s.value[0], ==, i + 1);
          g_assert_cmpuint (device->iface->counter (device, HEDDLE_COUNTER_SYNCS), ==, syncs);
        }
      else
        {
          g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA);
          g_assert_nonnull (strstr (error->message, "out of range, at position 2"));
          g_clear_error (&error);      /* told once: the next run is as good as the first */
        }
    }
  heddle_plan_free (plan);
  heddle_variables_free (vars);
  heddle_device_close (device);
}

/* (transfer full) VALUE of every line of a log that tells of EVENT. */
static GArray *
logged (const char *file, const char *event, const char *value)
{
  g_autofree char *path = g_build_filename (folder, file, NULL), *text = NULL, *key = g_strdup_printf ("\"%s\":", value), *which = g_strdup_printf ("\"event\":\"%s\"", event);
  GArray *numbers = g_array_new (FALSE, FALSE, sizeof (double));
  g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i]; i++)
    if (strstr (lines[i], which))
      {
        const char *at = strstr (lines[i], key);
        double x = at ? g_ascii_strtod (at + strlen (key), NULL) : NAN;
        g_array_append_val (numbers, x);
      }
  return numbers;
}

static void
same_logged (const char *value, guint n, double epsilon)
{
  g_autoptr (GArray) a = logged ("cpu.jsonl", "batch", value), b = logged ("cuda.jsonl", "batch", value);
  g_assert_cmpuint (a->len, ==, n);
  g_assert_cmpuint (b->len, ==, n);
  for (guint i = 0; i < n; i++)
    if (!(fabs (g_array_index (a, double, i) - g_array_index (b, double, i)) <= epsilon * fabs (g_array_index (a, double, i))))
      g_error ("line %u: %s %.17g on the cpu, %.17g on the simulated device", i, value, g_array_index (a, double, i), g_array_index (b, double, i));
}

/* A line that is written when its numbers have arrived says what one that was waited for says. */
static void
test_log (void)
{
  static const char *const amps[] = { NULL, "dtype = 'f16', init_scale = 16777216, growth_interval = 5" }, *const exact[] = { "epoch", "batch", "step", "updates", "samples", "lr" };
  for (guint k = 0; k < G_N_ELEMENTS (amps); k++)
    {
      TestRun r[2];
      for (guint i = 0; i < 2; i++)
        {
          g_autofree char *options = g_strdup_printf ("epochs = 2, steps_per_epoch = 11, accumulate = %d, schedule = h.schedule 'cosine' {}, " LOG, k ? 1 : 3, i ? "cuda.jsonl" : "cpu.jsonl", k ? 1 : 2);
          run (&r[i], i ? "cuda" : "cpu", NORMED, "", amps[k], options);
          g_assert_no_error (r[i].error);
          test_run_clear (&r[i]);
        }
      g_assert_cmpint (r[0].result.skipped, ==, r[1].result.skipped);
      g_assert_true (k == 0 || r[1].result.skipped > 3);
      for (guint i = 0; i < G_N_ELEMENTS (exact); i++)
        same_logged (exact[i], k ? 22 : 10, 0);
      same_logged ("loss", k ? 22 : 10, k ? 1e-2 : 1e-4);
    }
}

#define EVAL "eval = { batch_size = %d, data = h.dataset 'synthetic' { shape = { 2, 12, 12 }, classes = 4, length = %d, noise = 1, split = 'test' }, accuracy = h.metric 'accuracy' { logits, batch.label } }"

/* An evaluation waits once, however many batches it has, and finds what one on the cpu finds. */
static void
test_evaluation (void)
{
  static const int lengths[] = { 7, 61 };
  guint64 syncs[2], none = count (NULL, 5, "stop_on_nonfinite = 0").syncs;
  for (guint i = 0; i < 2; i++)
    {
      TestRun cpu, cuda;
      g_autofree char *here = g_strdup_printf ("epochs = 1, " LOG ", " EVAL, "cpu.jsonl", 0, 8, lengths[i]), *there = g_strdup_printf ("epochs = 1, " LOG ", " EVAL, "cuda.jsonl", 0, 8, lengths[i]);
      run (&cpu, "cpu", NORMED, "", NULL, here);
      run (&cuda, "cuda", NORMED, "", NULL, there);
      g_assert_no_error (cpu.error);
      g_assert_no_error (cuda.error);
      HeddleDevice *device = heddle_pipeline_device (cuda.pipeline);
      syncs[i] = device->iface->counter (device, HEDDLE_COUNTER_SYNCS);
      g_autoptr (GArray) a = logged ("cpu.jsonl", "eval", "loss"), b = logged ("cuda.jsonl", "eval", "loss");
      g_test_message ("%u waits; loss %.7f on the cpu, %.7f on the simulated device", (guint) syncs[i], g_array_index (a, double, 0), g_array_index (b, double, 0));
      g_assert_cmpuint (b->len, ==, 1);
      g_assert_cmpfloat_with_epsilon (g_array_index (a, double, 0), g_array_index (b, double, 0), 1e-5);
      g_assert_cmpfloat (cuda.result.metric[0].value, ==, cpu.result.metric[0].value);
      test_run_clear (&cpu);
      test_run_clear (&cuda);
    }
  g_assert_cmpuint (syncs[0], ==, none + 1);
  g_assert_cmpuint (syncs[1], ==, none + 1);
}

/* A loss that is not finite is found some batches later, and named as exactly as by a device that is waited for. */
static void
test_nonfinite (void)
{
  static const char *const options[] = { "epochs = 20, stop_on_nonfinite = 1", "epochs = 20", "epochs = 20, stop_on_nonfinite = 30, steps_per_epoch = 90" };
  static const gint64 limits[] = { 1, 5, 30 };
  optimizer = "lr = 1e6, maximize = true";
  for (guint i = 0; i < G_N_ELEMENTS (options); i++)
    {
      TestRun cpu, cuda;
      long epoch = 0, batch = 0;
      run (&cpu, "cpu", "nn.flatten {}, nn.linear { 4 }, nn.relu {}, nn.linear { 4 }", "", NULL, options[i]);
      run (&cuda, "cuda", "nn.flatten {}, nn.linear { 4 }, nn.relu {}, nn.linear { 4 }", "", NULL, options[i]);
      g_assert_error (cuda.error, HEDDLE_ERROR, HEDDLE_ERROR_RUN);
      g_assert_cmpstr (cuda.error->message, ==, cpu.error->message);
      g_assert_cmpint (sscanf (strstr (cuda.error->message, "since batch"), "since batch %ld of epoch %ld", &batch, &epoch), ==, 2);
      g_test_message ("since batch %ld of epoch %ld: stopped after %d on the cpu, %d on the simulated device", batch, epoch, (int) cpu.result.steps, (int) cuda.result.steps);
      g_assert_cmpint (cuda.result.steps - ((epoch - 1) * (i == 2 ? 90 : 5) + batch + limits[i] - 1), <, 16);
      test_run_clear (&cpu);
      test_run_clear (&cuda);
    }
  optimizer = "lr = 0.05, momentum = 0.9";
}

/* Memory that runs out at the n-th allocation, for every n: an error that says so, and nothing left behind (the simulated device looks at its end). */
static void
test_allocations (void)
{
  gboolean whole = FALSE;
  guint n = 0;
  while (!whole)
    {
      TestRun r;
      SIM (heddle_sim_fail_allocation) (++n);
      run (&r, "cuda", NORMED, "", NULL, "epochs = 1");
      whole = r.error == NULL && SIM (heddle_sim_counter) ("failing_allocation") > 0;      /* it was never reached */
      if (r.error && !g_error_matches (r.error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE))
        g_error ("allocation %u: %s", n, r.error->message);
      test_run_clear (&r);
      g_assert_cmpint (SIM (heddle_sim_counter) ("live"), ==, 0);
      g_assert_cmpuint (n, <, 200);
    }
  SIM (heddle_sim_fail_allocation) (0);
  g_test_message ("%u allocations failed in turn", n - 1);
  g_assert_cmpuint (n, >, 3);
}

/* Any other call that fails: every 7th, so that it takes no minute. */
static void
test_calls (void)
{
  gboolean whole = FALSE;
  guint n = 1;
  for (; !whole; n += 7)
    {
      TestRun r;
      SIM (heddle_sim_fail_call) (n);
      run (&r, "cuda", "nn.flatten {}, nn.linear { 4 }", "", NULL, "epochs = 1");
      whole = r.error == NULL && SIM (heddle_sim_counter) ("failing") > 0;      /* it was never reached */
      if (r.error && !g_error_matches (r.error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE))
        g_error ("call %u: %s", n, r.error->message);
      test_run_clear (&r);
      whole |= n > 4000;
    }
  SIM (heddle_sim_fail_call) (0);
  g_test_message ("calls up to number %u failed in turn", n);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("heddle-sim-XXXXXX", NULL);
  g_test_add_func ("/sim/train/lenet", test_lenet);
  g_test_add_func ("/sim/train/batch norm", test_normed);
  g_test_add_func ("/sim/train/resnet", test_resnet);
  g_test_add_func ("/sim/train/bf16", test_bf16);
  g_test_add_func ("/sim/train/f16", test_f16);
  g_test_add_func ("/sim/train/16-bit gradients added up", test_accumulating);
  g_test_add_func ("/sim/train/16-bit logits", test_logits);
  g_test_add_func ("/sim/train/padded logits", test_padded);
  g_test_add_func ("/sim/train/schedules", test_schedules);
  g_test_add_func ("/sim/train/pinned", test_pinned);
  g_test_add_func ("/sim/train/graphs", test_graphs);
  g_test_add_func ("/sim/train/nothing captured", test_uncaptured);
  g_test_add_func ("/sim/train/memory moved", test_moved);
  g_test_add_func ("/sim/train/second device", test_second_device);
  g_test_add_func ("/sim/train/every update skipped", test_skips);
  g_test_add_func ("/sim/train/the scale settles", test_scale_settles);
  g_test_add_func ("/sim/waits/steady", test_steady);
  g_test_add_func ("/sim/waits/looked up", test_looked_up);
  g_test_add_func ("/sim/waits/fault", test_fault);
  g_test_add_func ("/sim/waits/log", test_log);
  g_test_add_func ("/sim/waits/evaluation", test_evaluation);
  g_test_add_func ("/sim/waits/not finite", test_nonfinite);
  g_test_add_func ("/sim/failures/allocations", test_allocations);
  g_test_add_func ("/sim/failures/calls", test_calls);
  return g_test_run ();
}
