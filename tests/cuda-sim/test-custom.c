/* tests/cuda-sim/test-custom.c: operations that plugins bring, on the simulated CUDA device against the cpu device: a plugin's training, several inputs and outputs,
 * a grid of the author's own, layouts, and every refusal.  The names of kernels are all different: the simulated device has one list.  Must not know the backend's insides. */
#include <math.h>
#include <string.h>

#include "run.h"
#include "plugins/swish.h"

static char *folder;
static HeddleDevice *devices[2];        /* cpu, cuda */

/* ---- the example plugin ---- */

static double
train (const char *device, const char *loss, char **programs)
{
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal data = h.dataset 'synthetic' { shape = { 2, 5, 5 }, classes = 4, length = 100, noise = 0.5 }\n"
                                           "local batch = h.prefetch { data, batch_size = 20, shuffle = true, num_workers = 0 }\n"
                                           "local logits = h.model 'swish' { batch.image, classes = 4, beta = 1.5 }\nlocal loss = h.loss 'cross_entropy' { logits, batch.label }\n"
                                           "return h.train { h.optimizer 'sgd' { %s, lr = 0.1 }, epochs = 4, seed = 2, device = '%s' }\n", loss, device);
  TestRun r = test_run (folder, text, TEST_RAN);
  g_assert_no_error (r.error);
  double loss_after = r.result.loss;
  *programs = heddle_pipeline_print_programs (r.pipeline);
  test_run_clear (&r);
  return loss_after;
}

static void
test_training (void)
{
  static const struct { const char *loss; double near; } cases[] = { { "loss", 1e-5 }, { "h.amp { loss, dtype = 'bf16' }", 5e-3 } };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *on_cpu = NULL, *on_cuda = NULL;
      double cpu = train ("cpu", cases[i].loss, &on_cpu), cuda = train ("cuda", cases[i].loss, &on_cuda);
      g_test_message ("%.7f on the cpu, %.7f on the simulated device", cpu, cuda);
      g_assert_cmpfloat_with_epsilon (cuda, cpu, cases[i].near);
      g_assert_nonnull (strstr (on_cuda, "model-swish:swish beta=1.5   # act"));
    }
}

/* ---- two inputs, two outputs, a block for each row ---- */

static gboolean
pick_shape (const HeddleTensor *in, guint n, gconstpointer attr, HeddleTensor *out, GError **error)
{
  out[0].shape = out[1].shape = heddle_shape (in[0].shape.size[0]);
  out[1].dtype = HEDDLE_I32;
  return TRUE;
}

/* x (N, C), index i64 (N): x[n, index[n]], and where the row is largest */
static void
pick_cpu (HeddleCustomRun *run)
{
  const float *x = run->in[0].data;
  const gint64 *index = run->in[1].data;
  gint64 columns = run->in[0].shape.size[1];
  for (gint64 n = 0; n < run->in[0].shape.size[0]; n++)
    {
      gint32 best = 0;
      for (gint32 c = 1; c < columns; c++)
        best = x[n * columns + c] > x[n * columns + best] ? c : best;
      if (run->out[0].data)
        ((float *) run->out[0].data)[n] = x[n * columns + index[n]];
      if (run->out[1].data)
        ((gint32 *) run->out[1].data)[n] = best;
    }
}

static void
pick_launch (const HeddleTensor *in, guint n_in, const HeddleTensor *out, guint n_out, gconstpointer attr, guint grid[3], guint block[3])
{
  g_assert_cmpuint (n_in, ==, 2);
  g_assert_cmpuint (n_out, ==, 2);
  g_assert_cmpint (in[1].dtype, ==, HEDDLE_I64);
  grid[0] = (guint) in[0].shape.size[0];
  block[0] = 32;
}

static const HeddleCustomCuda pick_cuda = { sizeof (HeddleCustomCuda),
  "extern \"C\" __global__ void\n"
  "pick_rows (heddle_run run)\n"
  "{\n"
  "  __shared__ int best[32];\n"
  "  const long long columns = run.in[0].size[1], n = blockIdx.x;\n"
  "  const float *row = (const float *) run.in[0].data + n * columns;\n"
  "  int mine = -1;\n"
  "  for (int c = threadIdx.x; c < columns; c += 32)\n"
  "    mine = mine < 0 || row[c] > row[mine] ? c : mine;\n"
  "  best[threadIdx.x] = mine;\n"
  "  __syncthreads ();\n"
  "  if (threadIdx.x == 0)\n"
  "    {\n"
  "      for (int t = 1; t < 32; t++)\n"
  "        if (best[t] >= 0 && (row[best[t]] > row[mine] || (row[best[t]] == row[mine] && best[t] < mine)))\n"
  "          mine = best[t];\n"
  "      if (run.out[0].data)\n"
  "        ((float *) run.out[0].data)[n] = row[((const long long *) run.in[1].data)[n]];\n"
  "      if (run.out[1].data)\n"
  "        ((int *) run.out[1].data)[n] = mine;\n"
  "    }\n"
  "}\n", "pick_rows", pick_launch };
static const HeddleCustomOp pick = { .size = sizeof (HeddleCustomOp), .plugin = "model-test", .name = "pick", .min_in = 2, .max_in = 2, .n_out = 2, .amp = HEDDLE_CUSTOM_KEEP, .shape = pick_shape,
                                     .cpu = pick_cpu, .cuda = &pick_cuda };

/* Compiles and runs PROGRAM; the outputs as f32.  How many layouts are converted. */
static guint
run (HeddleDevice *device, HeddleProgram *program, HeddleVariables *vars, const gpointer *inputs, float *numbers, gsize each)
{
  GError *error = NULL;
  guint n = program->outputs->len;
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  if (device->iface->allocate (device, vars, &error))
    heddle_device_initialise (device, vars, 3, &error);
  g_assert_no_error (error);
  g_autoptr (GPtrArray) reorders = device->iface->reorders (plan);
  for (guint times = 0; times < 3; times++)           /* put, captured, replayed */
    g_assert_true (device->iface->run (plan, inputs, &error));
  for (guint i = 0; i < n; i++)
    {
      const HeddleValue *v = program->outputs->pdata[i];
      HeddleTensor t = { HEDDLE_F32, v->shape, numbers + i * each };
      g_assert_cmpint (heddle_shape_count (&v->shape), <=, each);
      g_assert_true (device->iface->fetch (plan, i, &t, &error));
      g_assert_no_error (error);
    }
  return reorders->len;
}

#define ROWS 5
#define COLUMNS 70

/* WANTED: which outputs are read; the other gets no memory */
static void
pick_on (HeddleDevice *device, guint wanted, float *numbers)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape wide = heddle_shape (ROWS, COLUMNS), rows = heddle_shape (ROWS);
  HeddleValue *in[] = { heddle_builder_input (b, "x", HEDDLE_F32, &wide), heddle_builder_input (b, "index", HEDDLE_I64, &rows) }, *out[2] = { NULL };
  static float x[ROWS * COLUMNS];
  static gint64 index[ROWS] = { 3, 0, COLUMNS - 1, 31, 32 };
  for (guint i = 0; i < G_N_ELEMENTS (x); i++)
    x[i] = sinf ((float) (i * i % 97));                 /* with ties */
  g_assert_true (heddle_custom (b, "rows", &pick, in, 2, NULL, 0, out, 2));
  for (guint i = 0; i < 2; i++)
    if (wanted >> i & 1)
      heddle_builder_output (b, i ? heddle_cast (b, out[i], HEDDLE_F32) : out[i]);
  GError *error = NULL;
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  run (device, program, vars, (gpointer[]) { x, index }, numbers, ROWS);
}

static void
test_outputs (void)
{
  for (guint wanted = 1; wanted < 4; wanted++)
    {
      float numbers[2][2 * ROWS] = { { 0 } };
      for (guint d = 0; d < 2; d++)
        pick_on (devices[d], wanted, numbers[d]);
      g_assert_cmpmem (numbers[1], sizeof numbers[1], numbers[0], sizeof numbers[0]);
      g_assert_cmpfloat (fabsf (numbers[0][0]) + fabsf (numbers[0][1]), >, 0);
    }
}

/* ---- tensors are row-major whatever lies around the operation, and f32 whatever the program stores ---- */

static void
ramp_part (HeddleCustomRun *run, gint64 from, gint64 to)
{
  for (gint64 i = from; i < to; i++)
    ((float *) run->out[0].data)[i] = ((const float *) run->in[0].data)[i] + 0.0625f * (float) (i % 32);
}

static void ramp_cpu (HeddleCustomRun *run) { run->parallel (run, heddle_shape_count (&run->in[0].shape), ramp_part); }

static const HeddleCustomCuda ramp_cuda = { sizeof (HeddleCustomCuda),
  "extern \"C\" __global__ void __launch_bounds__ (256)\n"
  "ramp_up (heddle_run run)\n"
  "{\n"
  "  for (long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x; i < run.out[0].count; i += (long long) gridDim.x * blockDim.x)\n"
  "    ((float *) run.out[0].data)[i] = ((const float *) run.in[0].data)[i] + 0.0625f * (float) (i % 32);\n"
  "}\n", "ramp_up", NULL };
static const HeddleCustomOp ramp = { .size = sizeof (HeddleCustomOp), .plugin = "model-test", .name = "ramp", .min_in = 1, .max_in = 1, .n_out = 1, .amp = HEDDLE_CUSTOM_KEEP, .cpu = ramp_cpu,
                                     .cuda = &ramp_cuda };

#define IMAGES (2 * 4 * 6 * 6)

static HeddleValue *
pointwise (HeddleBuilder *b, const char *weight, HeddleValue *x)
{
  HeddleValue *w = heddle_param (b, weight, heddle_shape (4, 4, 1, 1), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.5 });
  HeddleConvAttr attr = { .stride = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1 };
  return heddle_emit (b, HEDDLE_OP_CONV2D, weight, (HeddleValue *[]) { x, heddle_cast (b, w, heddle_dtype_of (b, x)) }, 2, &attr, sizeof attr);
}

/* bytes -> images -> convolution -> ramp -> convolution, in DTYPE; outputs: both */
static guint
ramp_on (HeddleDevice *device, HeddleDtype dtype, float *numbers)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (2, 4, 6, 6);
  static guint8 x[IMAGES];
  for (guint i = 0; i < IMAGES; i++)
    x[i] = (guint8) (i % 13);
  HeddleDequantizeAttr pixels = { 0.25, 1, { 1 }, { 1 } };
  HeddleValue *bytes = heddle_builder_input (b, "x", HEDDLE_U8, &shape), *v = heddle_cast (b, heddle_emit (b, HEDDLE_OP_DEQUANTIZE, NULL, &bytes, 1, &pixels, sizeof pixels), dtype), *y = NULL;
  v = pointwise (b, "w1", v);
  g_assert_true (heddle_custom (b, "ramp", &ramp, &v, 1, NULL, 0, &y, 1));
  heddle_builder_output (b, heddle_cast (b, y, HEDDLE_F32));
  heddle_builder_output (b, heddle_cast (b, pointwise (b, "w2", y), HEDDLE_F32));
  GError *error = NULL;
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return run (device, program, vars, (gpointer[]) { x }, numbers, IMAGES);
}

static void
test_layouts (void)
{
  static const struct { const char *layout; HeddleDtype dtype; float near; } cases[] = { { "rows", HEDDLE_F32, 1e-5f }, { "nhwc", HEDDLE_F32, 1e-5f }, { "nhwc", HEDDLE_F16, 0.02f }, { "nhwc", HEDDLE_BF16, 0.15f } };
  g_autofree float *cpu = g_new0 (float, 2 * IMAGES), *cuda = g_new0 (float, 2 * IMAGES);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      float most = 0, sum = 0;
      g_setenv ("HEDDLE_CUDA_LAYOUT", cases[i].layout, TRUE);
      ramp_on (devices[0], cases[i].dtype, cpu);
      guint reorders = ramp_on (devices[1], cases[i].dtype, cuda);
      g_assert_true ((reorders > 0) == g_str_equal (cases[i].layout, "nhwc"));
      for (guint k = 0; k < 2 * IMAGES; k++)
        {
          most = fmaxf (most, fabsf (cpu[k] - cuda[k]));
          sum += fabsf (cpu[k]);
        }
      g_assert_cmpfloat (sum, >, 10);
      g_test_message ("%s %s: %g", cases[i].layout, heddle_dtype_name (cases[i].dtype), (double) most);
      g_assert_cmpfloat (most, <=, cases[i].near);
    }
  g_unsetenv ("HEDDLE_CUDA_LAYOUT");
}

/* ---- refusals ---- */

static void
refuse (const HeddleCustomOp *op, const char *const *says)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (GError) error = NULL;
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (3, 4);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *y = NULL;
  SwishAttr attr = { 1 };
  g_assert_true (heddle_custom (b, "act", op, &x, 1, &attr, sizeof attr, &y, 1));
  heddle_builder_output (b, y);
  HeddlePlan *plan = devices[1]->iface->compile (devices[1], heddle_builder_finish (b, NULL), &error);
  g_assert_null (plan);
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE);
  for (guint i = 0; says[i]; i++)
    if (!strstr (error->message, says[i]))
      g_error ("expected \"%s\" in: %s", says[i], error->message);
}

static void
large_blocks (const HeddleTensor *in, guint n_in, const HeddleTensor *out, guint n_out, gconstpointer attr, guint grid[3], guint block[3])
{
  block[0] = 64;
  block[1] = 32;
}

static void
no_blocks (const HeddleTensor *in, guint n_in, const HeddleTensor *out, guint n_out, gconstpointer attr, guint grid[3], guint block[3])
{
  grid[1] = 0;
}

static void
test_refusals (void)
{
#define CUDA(...) ({ HeddleCustomCuda cuda = swish_cuda; __VA_ARGS__; cuda; })
#define SAYS(...) ((const char *const[]) { __VA_ARGS__, NULL })
  HeddleCustomOp op = swish;
  HeddleCustomCuda large = CUDA (cuda.launch = large_blocks), none = CUDA (cuda.launch = no_blocks), absent = CUDA (cuda.kernel = "absent"),
                   wrong = CUDA (cuda.kernel = "wrong", cuda.source = "extern \"C\" __global__ void\nwrong (heddle_run run)\n{\n  nothing (run);\n}\n"),
                   two = CUDA (cuda.kernel = "two", cuda.source = "extern \"C\" __global__ void two (const float *x, float *y) { *y = *x; }\n");
  op.cuda = NULL;
  refuse (&op, SAYS ("custom \"act\": \"swish\" of model-swish has no kernel for CUDA devices\nhint: use device = \"cpu\"; its author can bring one as source, docs/custom-operations.md says how"));
  op.cuda = &large;
  refuse (&op, SAYS ("custom \"act\": \"swish\" of model-swish asks for 1 x 1 x 1 blocks of 64 x 32 x 1 threads\nhint: "));
  op.cuda = &none;
  refuse (&op, SAYS ("asks for 1 x 0 x 1 blocks of 256 x 1 x 1 threads"));
  op.cuda = &wrong;
  refuse (&op, SAYS ("custom \"act\": \"swish\" of model-swish: kernel wrong: NVRTC ", "nothing"));
  op.cuda = &absent;
  refuse (&op, SAYS ("custom \"act\": \"swish\" of model-swish: kernel absent: NVRTC "));
  op.cuda = &two;
  refuse (&op, SAYS ("two is to return void and to take one heddle_run"));
}

static void
open_device (guint i, const char *name)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  devices[i] = heddle_device_open (name, &flags, NULL, &error);
  g_assert_no_error (error);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *plugins = g_build_filename (g_getenv ("HEDDLE_BUILD"), "tests", "plugins", ".libs", NULL);
  g_setenv ("HEDDLE_PLUGIN_PATH", plugins, TRUE);
  folder = g_dir_make_tmp ("heddle-custom-XXXXXX", NULL);
  open_device (0, "cpu");
  open_device (1, "cuda");
  g_test_add_func ("/cuda-sim/custom/training", test_training);
  g_test_add_func ("/cuda-sim/custom/inputs and outputs", test_outputs);
  g_test_add_func ("/cuda-sim/custom/layouts", test_layouts);
  g_test_add_func ("/cuda-sim/custom/refusals", test_refusals);
  int status = g_test_run ();
  for (guint i = 0; i < 2; i++)
    heddle_device_close (devices[i]);
  g_rmdir (folder);
  g_free (folder);
  return status;
}
