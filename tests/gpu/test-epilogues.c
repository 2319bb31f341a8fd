/* tests/gpu/test-epilogues.c: on a GPU (or a simulated one): an activation and its gradient computed along with the products beside them, against the cpu device; NaN that passes through relu, however
 * it is computed.  Must not know the backend's insides. */
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
check_case (const Case *what, HeddleDtype dtype, double tolerance, gboolean fusion)
{
  HeddleDevice *cuda = open_device (device_name, fusion, FALSE), *cpu = open_device ("cpu", TRUE, FALSE);
  for (guint train = 0; train < 2; train++)
    {
      Net a, b;
      g_assert_true (net_open (&a, cpu, perceptron, what, dtype, train) && net_open (&b, cuda, perceptron, what, dtype, train));
      check_steps (b.plan, what, train, fusion);
      g_assert_cmpfloat_with_epsilon (net_run (&b), net_run (&a), tolerance);
      if (train)
        g_assert_cmpfloat (test_distance ((TestVariables) { cpu, a.vars }, (TestVariables) { cuda, b.vars }, is_gradient), <, tolerance);
      net_close (&a);
      net_close (&b);
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

/* A library that makes 0 of NaN by one of its algorithms is asked for another; by all, and relu is computed apart. */
static void
test_hidden (void)
{
  for (guint hiding = 1; hiding <= 2; hiding++)
    for (guint benchmark = 0; benchmark < 2; benchmark++)
      {
        g_autofree char *number = g_strdup_printf ("%u", hiding);
        g_setenv ("HEDDLE_SIM_HIDE_NAN", number, TRUE);
        HeddleDevice *device = open_device (device_name, TRUE, benchmark);
        Net n;
        g_assert_true (net_open (&n, device, perceptron, &cases[0], HEDDLE_F32, TRUE));
        Count forward = count_steps (n.plan, "relu"), backward = count_steps (n.plan, "relu_grad");
        g_assert_cmpuint (forward.with, ==, hiding == 1 ? 2 : 0);
        g_assert_cmpuint (forward.alone, ==, hiding == 1 ? 0 : 2);
        g_assert_cmpuint (backward.with, ==, hiding == 1 ? 2 : 0);
        g_assert_cmpuint (bytes_of_signs (n.plan) > 0, ==, hiding == 1);
        net_close (&n);
        check_nan (device, perceptron, "one.weight", HEDDLE_F32, TRUE);
        check_nan (device, perceptron, "two.bias", HEDDLE_F16, FALSE);
        heddle_device_close (device);
        g_unsetenv ("HEDDLE_SIM_HIDE_NAN");
      }
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
    g_test_add_data_func ("/gpu/epilogues", none->message, test_none);
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
    }
  if (device && is_simulated ())
    g_test_add_func ("/gpu/nan/hidden", test_hidden);
  return g_test_run ();
}
