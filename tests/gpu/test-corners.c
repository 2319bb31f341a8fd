/* tests/gpu/test-corners.c: on a GPU (or a simulated one): where libraries and kernels might do otherwise than the cpu device: an activation and its gradient computed along with the products beside
 * them, what a library lacks, NaN, ties, one token.  Must not know the backend's insides. */
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "base/random.h"
#include "variables.h"

#define ROWS 11
#define WIDE 20
#define KINDS 5
#define SIDE 6

typedef struct
{
  const char *name;
  gboolean    gelu, no_bias;
  gint64      width;             /* of the hidden layers: cuBLASLt's bits come 128 to a row at least */
} Case;

static const Case cases[] = { { "relu/narrow", .width = 24 }, { "relu/a row of bits", .width = 128 }, { "relu/beyond a row", .width = 136 }, { "relu/without bias", .no_bias = TRUE, .width = 40 },
                              { "gelu", .gelu = TRUE, .width = 24 } };

typedef HeddleValue *(*Build) (HeddleBuilder *b, const Case *what);
typedef struct { HeddleDevice *device; HeddleVariables *vars; HeddlePlan *plan; } Net;

static const char *device_name;

static HeddleDevice *
open_device (const char *name, gboolean fusion, gboolean benchmark)
{
  HeddleFlags flags = { 0 };
  g_autoptr (GError) error = NULL;
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = 1;
  flags.fusion = fusion;
  flags.cudnn_benchmark = benchmark;
  flags.tf32_matmul = flags.tf32_conv = FALSE;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  HeddleDevice *device = heddle_device_open (name, &flags, NULL, &error);
  g_assert_no_error (error);
  return device;
}

static HeddleValue *
layer (HeddleBuilder *b, const Case *what, const char *name, HeddleValue *x)
{
  x = heddle_linear (b, name, x, .features = what->width, .no_bias = what->no_bias);
  return what->gelu ? heddle_gelu_tanh (b, x) : heddle_relu (b, x);
}

static HeddleValue *
loss_of (HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape label = heddle_shape (ROWS);
  HeddleCrossEntropyAttr attr = { 0, -100 };
  HeddleValue *in[] = { heddle_linear (b, "head", x, .features = KINDS), heddle_builder_input (b, "label", HEDDLE_I64, &label) };
  return heddle_emit (b, HEDDLE_OP_CROSS_ENTROPY, "loss", in, 2, &attr, sizeof attr);
}

static HeddleValue *
perceptron (HeddleBuilder *b, const Case *what)
{
  HeddleShape shape = heddle_shape (ROWS, WIDE);
  return loss_of (b, layer (b, what, "two", layer (b, what, "one", heddle_builder_input (b, "x", HEDDLE_F32, &shape))));
}

static gboolean
net_open (Net *n, HeddleDevice *device, Build build, const Case *what, HeddleDtype dtype, gboolean train)
{
  GError *error = NULL;
  *n = (Net) { device, heddle_variables_new (), NULL };
  HeddleBuilder *b = heddle_builder_new ("net", n->vars, train, 1);
  if (dtype != HEDDLE_F32)
    heddle_builder_set_autocast (b, dtype);
  HeddleValue *loss = build (b, what);
  heddle_variables_group (n->vars, FALSE);
  g_assert_true (!train || heddle_builder_backward (b, loss, heddle_constant (b, 1), FALSE, &error));
  heddle_builder_output (b, loss);
  n->plan = device->iface->compile (device, heddle_builder_finish (b, &error), &error);
  g_assert_no_error (error);
  return device->iface->allocate (device, n->vars, NULL) && heddle_device_initialise (device, n->vars, 7, NULL);
}

static void
net_close (Net *n)
{
  heddle_plan_free (n->plan);
  heddle_variables_free (n->vars);
}

/* The loss of numbers that are the same each time */
static float
net_run (Net *n)
{
  static float x[ROWS * 3 * SIDE * SIDE];
  gint64 label[ROWS];
  float loss = 0;
  GError *error = NULL;
  HeddleRandom random = heddle_random (3, HEDDLE_STREAM_USER, 0, 0);
  HeddleTensor t = { HEDDLE_F32, heddle_scalar_shape (), &loss };
  for (guint i = 0; i < G_N_ELEMENTS (x); i++)
    x[i] = 2 * heddle_random_float (&random) - 1;
  for (guint i = 0; i < ROWS; i++)
    label[i] = i % KINDS;
  n->device->iface->run (n->plan, (const gpointer[]) { x, label }, &error);
  g_assert_no_error (error);
  n->device->iface->fetch (n->plan, 0, &t, &error);
  g_assert_no_error (error);
  return loss;
}

/* Steps of PLAN that compute NAME as an epilogue, and that do nothing but NAME */
typedef struct { guint with, alone; } Count;

static Count
count_steps (HeddlePlan *plan, const char *name)
{
  g_autofree char *epilogue = g_strconcat ("cublasLt+", name, NULL);
  HeddlePlanStep step;
  Count c = { 0 };
  for (guint i = 0; plan->device->iface->step (plan, i, &step); i++)
    {
      gboolean with = g_str_has_prefix (step.what, epilogue) && strchr (" ", step.what[strlen (epilogue)]);
      c.with += with;
      c.alone += !with && step.op && g_str_equal (step.op->info->name, name);
    }
  return c;
}

/* Bytes that PLAN's arena keeps of signs */
static gsize
bytes_of_signs (HeddlePlan *plan)
{
  HeddlePlanBuffer buffer;
  gsize bytes = 0;
  for (guint i = 0; plan->device->iface->buffer (plan, i, &buffer); i++)
    bytes += buffer.form && strstr (buffer.form, "signs") ? buffer.bytes : 0;
  return bytes;
}

static gboolean is_simulated (void) { return g_getenv ("HEDDLE_SIM_KERNELS") && (!g_getenv ("HEDDLE_CUDA_PATH") || !*g_getenv ("HEDDLE_CUDA_PATH")); }

/* Steps of PLAN that one operation CODE takes */
static guint
steps_of (HeddlePlan *plan, HeddleOpCode code)
{
  HeddlePlanStep step;
  guint n = 0;
  for (guint i = 0; plan->device->iface->step (plan, i, &step); i++)
    n += step.op && step.op->info->code == code;
  return n;
}

/* A real library may lack an algorithm: how many epilogues there are is shown; the simulated one has them all. */
static void
check_steps (HeddlePlan *plan, const Case *what, gboolean train, gboolean fusion)
{
  Count forward = count_steps (plan, what->gelu ? "gelu" : "relu"), backward = count_steps (plan, what->gelu ? "gelu_grad" : "relu_grad");
  guint with = fusion ? 2 : 0;
  gsize signs = bytes_of_signs (plan), row = (gsize) (what->width + 127) / 128 * 16;
  g_test_message ("%u of 2 activations and %u of 2 gradients are epilogues; %" G_GSIZE_FORMAT " bytes of signs", forward.with, backward.with, signs);
  if (is_simulated ())
    {
      g_assert_cmpuint (forward.with, ==, with);
      g_assert_cmpuint (forward.alone, ==, 2 - with);
      g_assert_cmpuint (backward.with, ==, train ? with : 0);
      g_assert_cmpuint (backward.alone, ==, train ? 2 - with : 0);
      g_assert_cmpuint (signs, ==, train && fusion && !what->gelu ? 2 * ROWS * row : 0);
    }
}

static gboolean is_gradient (const HeddleVariable *v) { return v->role == HEDDLE_ROLE_GRAD && v->flat; }

/* Loss and gradients are the cpu's. */
static void
compare (HeddleDevice *cpu, Build build, const Case *what, HeddleDtype dtype, double tolerance, Net *b, gboolean train)
{
  Net a;
  g_assert_true (net_open (&a, cpu, build, what, dtype, train));
  g_assert_cmpfloat_with_epsilon (net_run (b), net_run (&a), tolerance);
  if (train)
    g_assert_cmpfloat (test_distance ((TestVariables) { cpu, a.vars }, (TestVariables) { b->device, b->vars }, is_gradient), <, tolerance);
  net_close (&a);
}

static void
check_case (const Case *what, HeddleDtype dtype, double tolerance, gboolean fusion)
{
  HeddleDevice *cuda = open_device (device_name, fusion, FALSE), *cpu = open_device ("cpu", TRUE, FALSE);
  for (guint train = 0; train < 2; train++)
    {
      Net n;
      g_assert_true (net_open (&n, cuda, perceptron, what, dtype, train));
      check_steps (n.plan, what, train, fusion);
      compare (cpu, perceptron, what, dtype, tolerance, &n, train);
      net_close (&n);
    }
  heddle_device_close (cuda);
  heddle_device_close (cpu);
}

static void
test_case (gconstpointer data)
{
  static const struct { HeddleDtype dtype; double tolerance; } dtypes[] = { { HEDDLE_F32, 1e-5 }, { HEDDLE_F16, 4e-3 }, { HEDDLE_BF16, 3e-2 } };
  for (guint i = 0; i < G_N_ELEMENTS (dtypes); i++)
    for (guint fusion = 0; fusion < 2; fusion++)
      check_case (data, dtypes[i].dtype, dtypes[i].tolerance, fusion);
}

/* ---- NaN ---- */

static HeddleValue *
images (HeddleBuilder *b)
{
  HeddleShape shape = heddle_shape (ROWS, 3, SIDE, SIDE);
  return heddle_builder_input (b, "x", HEDDLE_F32, &shape);
}

static HeddleValue *
convolved (HeddleBuilder *b, const Case *what)
{
  return loss_of (b, heddle_flatten (b, heddle_relu (b, heddle_conv2d (b, "one", images (b), .channels = 8, .kernel = 3))));
}

static HeddleValue *
normalised (HeddleBuilder *b, const Case *what)
{
  return loss_of (b, heddle_flatten (b, heddle_relu (b, heddle_batch_norm (b, "norm", heddle_conv2d (b, "one", images (b), .channels = 8, .kernel = 3, .no_bias = TRUE)))));
}

/* A parameter that has become NaN makes the loss NaN, behind a relu as before it. */
static void
check_nan (HeddleDevice *device, Build build, const char *parameter, HeddleDtype dtype, gboolean train)
{
  Net n;
  g_assert_true (net_open (&n, device, build, &cases[0], dtype, train));
  g_assert_true (isfinite (net_run (&n)));
  HeddleVariable *v = heddle_variables_lookup (n.vars, parameter);
  gsize count = (gsize) heddle_shape_count (&v->shape);
  g_autofree float *x = g_new (float, count);
  for (gsize i = 0; i < count; i++)
    x[i] = NAN;
  HeddleTensor t = { HEDDLE_F32, v->shape, x };
  g_assert_true (device->iface->write (device, v, &t, NULL));
  float loss = net_run (&n);
  g_test_message ("%s in %s, %s: %g", parameter, heddle_dtype_name (dtype), train ? "training" : "evaluation", (double) loss);
  g_assert_true (isnan (loss));
  net_close (&n);
}

static void
check_all_nan (Build build, const char *parameter)
{
  for (guint benchmark = 0; benchmark < 2; benchmark++)
    {
      HeddleDevice *device = open_device (device_name, TRUE, benchmark);
      for (guint train = 0; train < 2; train++)
        {
          check_nan (device, build, parameter, HEDDLE_F32, train);
          check_nan (device, build, parameter, HEDDLE_F16, train);
          check_nan (device, build, parameter, HEDDLE_BF16, train);
        }
      heddle_device_close (device);
    }
}

static void test_nan_linear (void) { check_all_nan (perceptron, "one.weight"); }
static void test_nan_conv (void)   { check_all_nan (convolved, "one.weight"); }
static void test_nan_norm (void)   { check_all_nan (normalised, "norm.weight"); }

/* ---- other corners ---- */

/* A head of one output behind relu, and a layer behind that */
static HeddleValue *
one_output (HeddleBuilder *b, const Case *what)
{
  HeddleShape shape = heddle_shape (ROWS, WIDE);
  HeddleValue *x = layer (b, what, "one", heddle_builder_input (b, "x", HEDDLE_F32, &shape));
  x = layer (b, what, "narrow", heddle_linear (b, "single", x, .features = 1));
  return loss_of (b, x);
}

/* Attention of one token, or of five */
static HeddleValue *
attend (HeddleBuilder *b, gint64 tokens)
{
  HeddleShape shape = heddle_shape (ROWS, tokens, 16);
  HeddleValue *x = heddle_linear (b, "qkv", heddle_builder_input (b, "x", HEDDLE_F32, &shape), .features = 48, .last_axis = TRUE);
  return loss_of (b, heddle_flatten (b, heddle_self_attention (b, x, 2, TRUE)));
}

static HeddleValue *one_token (HeddleBuilder *b, const Case *what)   { return attend (b, 1); }
static HeddleValue *five_tokens (HeddleBuilder *b, const Case *what) { return attend (b, 5); }

static void
check_build (Build build)
{
  static const struct { HeddleDtype dtype; double tolerance; } dtypes[] = { { HEDDLE_F32, 1e-5 }, { HEDDLE_F16, 4e-3 }, { HEDDLE_BF16, 3e-2 } };
  HeddleDevice *cuda = open_device (device_name, TRUE, FALSE), *cpu = open_device ("cpu", TRUE, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (dtypes); i++)
    {
      Net n;
      g_assert_true (net_open (&n, cuda, build, &cases[0], dtypes[i].dtype, TRUE));
      compare (cpu, build, &cases[0], dtypes[i].dtype, dtypes[i].tolerance, &n, TRUE);
      net_close (&n);
    }
  heddle_device_close (cuda);
  heddle_device_close (cpu);
}

static void test_one_output (void)  { check_build (one_output); }
static void test_one_token (void)   { check_build (one_token); }
static void test_five_tokens (void) { check_build (five_tokens); }

/* What DEVICE makes of an operation on X (N numbers) and LABELS: its first two outputs, in f32 */
static void
operate (const char *device, HeddleOpCode code, gconstpointer attr, gsize size, const HeddleShape *shape, const float *x, const gint64 *labels, float *first, float *second)
{
  HeddleDevice *d = open_device (device, TRUE, FALSE);
  HeddleVariables *vars = heddle_variables_new ();
  GError *error = NULL;
  HeddleBuilder *b = heddle_builder_new ("corner", vars, FALSE, 0);
  HeddleShape rows = heddle_shape (shape->size[0]);
  HeddleValue *in[2] = { heddle_builder_input (b, "x", HEDDLE_F32, shape) }, *out[2];
  if (labels)
    in[1] = heddle_builder_input (b, "label", HEDDLE_I64, &rows);
  b->iface->emit (b, code, "it", in, labels ? 2 : 1, attr, size, out, 2);
  for (guint i = 0; i < 2; i++)
    heddle_builder_output (b, heddle_cast (b, out[i], HEDDLE_F32));
  HeddleShape made[] = { heddle_shape_of (b, out[0]), heddle_shape_of (b, out[1]) };
  HeddlePlan *plan = d->iface->compile (d, heddle_builder_finish (b, &error), &error);
  g_assert_no_error (error);
  d->iface->run (plan, (const gpointer[]) { (gpointer) x, (gpointer) labels }, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < 2; i++)
    {
      HeddleTensor t = { HEDDLE_F32, made[i], i ? second : first };
      g_assert_true (d->iface->fetch (plan, i, &t, &error));
    }
  heddle_plan_free (plan);
  heddle_variables_free (vars);
  heddle_device_close (d);
}

/* A row whose own logit is NaN is no hit; one whose other logits are is. */
static void
test_accuracy (void)
{
  const float x[] = { NAN, 1, 2,  1, NAN, 0,  0, 3, 1,  5, 0, 1,  NAN, NAN, NAN };
  const gint64 labels[] = { 0, 0, 1, 1, 2 };
  const HeddleShape shape = heddle_shape (5, 3);
  const HeddleTopKAttr attr = { 1 };
  float hits, rows;
  operate ("cpu", HEDDLE_OP_TOP_K, &attr, sizeof attr, &shape, x, labels, &hits, &rows);
  g_assert_cmpfloat (hits, ==, 2);
  operate (device_name, HEDDLE_OP_TOP_K, &attr, sizeof attr, &shape, x, labels, &hits, &rows);
  g_assert_cmpfloat (hits, ==, 2);
  g_assert_cmpfloat (rows, ==, 5);
}

/* Places of maxima are counted alike by whoever pools, with ties and NaN too; of several NaN a library may name another than PyTorch's last. */
static void
test_places (void)
{
  enum { C = 8, H = 9, W = 6, WINDOWS = C * 3 * 3 };
  const HeddleShape shape = heddle_shape (1, C, H, W);
  const HeddlePoolAttr attr = { .kernel = { 3, 2 }, .stride = { 3, 2 } };
  const char *path = g_getenv ("HEDDLE_CUDA_PATH");
  gboolean own = g_getenv ("HEDDLE_SIM_KERNELS") || g_strcmp0 (path, "own") == 0;
  float x[C * H * W], y[2][WINDOWS], place[2][WINDOWS];
  HeddleRandom random = heddle_random (11, HEDDLE_STREAM_USER, 0, 0);
  for (guint i = 0; i < G_N_ELEMENTS (x); i++)
    x[i] = floorf (heddle_random_float (&random) * 8);
  x[0] = x[H * W + W + 1] = NAN;      /* one in a window */
  x[2 * H * W + 1] = x[2 * H * W + W] = NAN;
  operate ("cpu", HEDDLE_OP_MAX_POOL, &attr, sizeof attr, &shape, x, NULL, y[0], place[0]);
  operate (device_name, HEDDLE_OP_MAX_POOL, &attr, sizeof attr, &shape, x, NULL, y[1], place[1]);
  g_assert_true (isnan (y[0][0]) && isnan (y[0][9]) && isnan (y[0][18]));
  g_assert_cmpfloat (place[0][18], ==, 2);
  for (guint i = 0; i < WINDOWS; i++)
    {
      g_assert_true (y[0][i] == y[1][i] || (isnan (y[0][i]) && isnan (y[1][i])));
      if (i != 18 || own)
        g_assert_cmpfloat (place[0][i], ==, place[1][i]);
    }
}

/* ---- what only a simulated library does ---- */

/* In 16 bits cuDNN's products have a relu that keeps NaN. */
static void
check_cudnn_relu (HeddleDevice *device)
{
  HeddleDevice *cpu = open_device ("cpu", TRUE, FALSE);
  Net n;
  g_assert_true (net_open (&n, device, perceptron, &cases[0], HEDDLE_BF16, TRUE));
  g_assert_cmpuint (count_steps (n.plan, "relu").alone, ==, 0);
  g_assert_cmpuint (count_steps (n.plan, "relu").with, ==, 0);
  compare (cpu, perceptron, &cases[0], HEDDLE_BF16, 3e-2, &n, TRUE);
  net_close (&n);
  heddle_device_close (cpu);
  check_nan (device, perceptron, "one.weight", HEDDLE_BF16, TRUE);
}

/* A library that makes 0 of NaN, or calls 0 positive, by one of its algorithms is asked for another; by all, and relu is computed apart, or its gradient. */
static void
check_dishonest (const char *variable, gboolean nan)
{
  for (guint hiding = 1; hiding <= 2; hiding++)
    for (guint benchmark = 0; benchmark < 2; benchmark++)
      {
        g_autofree char *number = g_strdup_printf ("%u", hiding);
        g_setenv (variable, number, TRUE);
        HeddleDevice *device = open_device (device_name, TRUE, benchmark);
        Net n;
        g_assert_true (net_open (&n, device, perceptron, &cases[0], HEDDLE_F32, TRUE));
        Count forward = count_steps (n.plan, "relu"), backward = count_steps (n.plan, "relu_grad");
        g_assert_cmpuint (forward.with, ==, hiding == 1 || !nan ? 2 : 0);
        g_assert_cmpuint (forward.alone, ==, hiding == 1 || !nan ? 0 : 2);
        g_assert_cmpuint (backward.with, ==, hiding == 1 ? 2 : 0);
        g_assert_cmpuint (bytes_of_signs (n.plan) > 0, ==, hiding == 1);
        net_close (&n);
        if (nan && hiding == 2 && g_getenv ("HEDDLE_FAKE_CUDNN"))
          check_cudnn_relu (device);
        check_nan (device, perceptron, "one.weight", HEDDLE_F32, TRUE);
        check_nan (device, perceptron, "two.bias", HEDDLE_F16, FALSE);
        heddle_device_close (device);
        g_unsetenv (variable);
      }
}

/* What a library has no algorithm for is computed apart, and comes out the same: EPILOGUE is the number of one in cublasLt.h.  A product beside it stays the library's. */
static void
check_lack (const char *epilogue, guint forward, guint backward, guint weights)
{
  g_setenv ("HEDDLE_SIM_REFUSE", epilogue, TRUE);
  HeddleDevice *cuda = open_device (device_name, TRUE, FALSE), *cpu = open_device ("cpu", TRUE, FALSE);
  Net n;
  g_assert_true (net_open (&n, cuda, perceptron, &cases[1], HEDDLE_F32, TRUE));
  g_assert_cmpuint (count_steps (n.plan, "relu").with, ==, forward);
  g_assert_cmpuint (count_steps (n.plan, "relu_grad").with, ==, backward);
  g_assert_cmpuint (steps_of (n.plan, HEDDLE_OP_LINEAR_GRAD_WEIGHT), ==, weights);
  g_assert_cmpuint (count_steps (n.plan, "linear_grad_weight").alone, ==, weights);
  compare (cpu, perceptron, &cases[1], HEDDLE_F32, 1e-5, &n, TRUE);
  net_close (&n);
  heddle_device_close (cuda);
  heddle_device_close (cpu);
  g_unsetenv ("HEDDLE_SIM_REFUSE");
}

static void
test_lacks (void)
{
  check_lack ("0", 2, 2, 3);
  check_lack ("134", 2, 0, 3);      /* RELU_AUX_BIAS: relu is an epilogue still */
  check_lack ("136", 2, 0, 3);      /* DRELU */
  check_lack ("512", 2, 2, 6);      /* BGRADB: sums are steps of their own */
}

static void
test_dishonest (void)
{
  check_dishonest ("HEDDLE_SIM_HIDE_NAN", TRUE);
  check_dishonest ("HEDDLE_SIM_MARK_ZERO", FALSE);
}

static void
test_none (gconstpointer reason)
{
  g_test_skip (reason);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) none = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  device_name = g_getenv ("HEDDLE_TEST_DEVICE") ? g_getenv ("HEDDLE_TEST_DEVICE") : "cuda";
  heddle_options_init (heddle_flags_options (), &flags);
  HeddleDevice *device = heddle_device_open (device_name, &flags, NULL, &none);
  if (device)
    heddle_device_close (device);
  else
    g_test_add_data_func ("/gpu/corners", none->message, test_none);
  for (guint i = 0; device && i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *path = g_strconcat ("/gpu/epilogues/", cases[i].name, NULL);
      g_test_add_data_func (path, &cases[i], test_case);
    }
  if (device)
    {
      g_test_add_func ("/gpu/nan/linear", test_nan_linear);
      g_test_add_func ("/gpu/nan/conv", test_nan_conv);
      g_test_add_func ("/gpu/nan/norm", test_nan_norm);
      g_test_add_func ("/gpu/nan/accuracy", test_accuracy);
      g_test_add_func ("/gpu/corners/places of maxima", test_places);
      g_test_add_func ("/gpu/corners/one output", test_one_output);
      g_test_add_func ("/gpu/corners/one token", test_one_token);
      g_test_add_func ("/gpu/corners/five tokens", test_five_tokens);
    }
  if (device && is_simulated ())
    {
      g_test_add_func ("/gpu/nan/a library that hides it", test_dishonest);
      g_test_add_func ("/gpu/epilogues/a library that lacks one", test_lacks);
    }
  return g_test_run ();
}
