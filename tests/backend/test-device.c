/* test-device.c: flags and their contradictions; devices by name; a trained plan's runs: no allocation, no new primitive, the same bytes again;
 * variables read back in row-major order whatever layout the device chose. */
#include <string.h>

#include "backend/backend.h"
#include "base/random.h"

static HeddleDevice *
open_cpu (gint64 threads, gboolean winograd)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = threads;
  flags.winograd = winograd;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  HeddleDevice *device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  return device;
}

/* ---- flags ---- */

static gboolean
resolve (HeddleFlags *flags, const char *names, GError **error)
{
  g_autoptr (GHashTable) set = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_auto (GStrv) assignments = g_strsplit (names, " ", -1);
  memset (flags, 0, sizeof *flags);
  heddle_options_init (heddle_flags_options (), flags);
  for (guint i = 0; assignments[i] && *assignments[i]; i++)
    {
      g_auto (GStrv) pair = g_strsplit (assignments[i], "=", 2);
      g_assert_true (heddle_options_set_text (heddle_flags_options (), flags, pair[0], pair[1], NULL, NULL));
      g_hash_table_add (set, g_strdup (pair[0]));
    }
  return heddle_flags_resolve (flags, set, error);
}

static void
check_flags (const char *names, gboolean matmul, gboolean conv, int precision)
{
  HeddleFlags f;
  GError *error = NULL;
  resolve (&f, names, &error);
  g_assert_no_error (error);
  g_assert_true (f.tf32_matmul == matmul && f.tf32_conv == conv && f.matmul_precision == precision && f.tf32 == (matmul && conv));
}

static void
refuse_flags (const char *names, const char *says)
{
  HeddleFlags f;
  GError *error = NULL;
  g_assert_false (resolve (&f, names, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION);
  g_assert_nonnull (strstr (error->message, says));
  g_error_free (error);
}

static void
test_flags (void)
{
  check_flags ("", FALSE, FALSE, HEDDLE_PRECISION_HIGHEST);
  check_flags ("tf32=true", TRUE, TRUE, HEDDLE_PRECISION_HIGH);
  check_flags ("tf32_conv=true", FALSE, TRUE, HEDDLE_PRECISION_HIGHEST);
  check_flags ("matmul_precision=high", TRUE, FALSE, HEDDLE_PRECISION_HIGH);
  check_flags ("matmul_precision=medium tf32=true", TRUE, TRUE, HEDDLE_PRECISION_MEDIUM);
  check_flags ("tf32_matmul=true tf32_conv=true", TRUE, TRUE, HEDDLE_PRECISION_HIGH);
  refuse_flags ("tf32=true tf32_conv=false", "tf32 contradicts tf32_conv");
  refuse_flags ("tf32=true matmul_precision=highest", "matmul_precision = \"highest\" contradicts tf32 = true");
  refuse_flags ("matmul_precision=high tf32_matmul=false", "tf32_matmul = false");
  g_assert_cmpuint (heddle_flags_cpus (), >=, 1);
  g_assert_cmpuint (heddle_flags_cpus (), <=, g_get_num_processors ());
}

/* Every flag appears once in the header; one that a CPU cannot honour says so. */
static void
test_report (void)
{
  GError *error = NULL;
  HeddleFlags f;
  g_assert_true (resolve (&f, "tf32=true cudnn_benchmark=true threads=1", &error));
  g_autoptr (HeddleDevice) device = heddle_device_open ("cpu", &f, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (GPtrArray) lines = device->iface->report (device);
  static const char *const names[] = { "threads", "deterministic", "fusion", "winograd", "cudnn_benchmark", "tf32_matmul", "tf32_conv", "matmul_precision" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      guint met = 0;
      g_autofree char *start = g_strconcat (names[i], " = ", NULL);
      for (guint k = 0; k < lines->len; k++)
        if (g_str_has_prefix (lines->pdata[k], start))
          {
            met++;
            if (i >= 4)
              g_assert_nonnull (strstr (lines->pdata[k], "not honoured"));
          }
      g_assert_cmpuint (met, ==, 1);
    }
}

static void
refuse_device (const char *spec, const char *says)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  g_assert_null (heddle_device_open (spec, &flags, NULL, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE);
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_error_free (error);
}

static void
test_devices (void)
{
  refuse_device ("gpu", "no such device: \"gpu\"");
  refuse_device ("cpuu", "did you mean \"cpu\"?");
  refuse_device ("cuda:x", "no such device");
  refuse_device ("cuda:", "no such device");
  refuse_device ("cpu:7", "cpu:7");
  g_autoptr (HeddleDevice) device = open_cpu (1, TRUE);
  g_assert_cmpstr (device->name, ==, "cpu");
  g_assert_true (device->iface->computes (device, HEDDLE_F32));
}

/* ---- a small training program ---- */

typedef struct { HeddleDevice *device; HeddleVariables *vars; HeddlePlan *plan; float *image; gint64 *label; gpointer inputs[2]; } Net;

static void
net_open (Net *n, gint64 threads, HeddleDtype low)
{
  GError *error = NULL;
  HeddleShape image = heddle_shape (6, 3, 12, 12), label = heddle_shape (6);
  HeddleRandom random = heddle_random (5, HEDDLE_STREAM_USER, 0, 0);
  *n = (Net) { .device = open_cpu (threads, TRUE), .vars = heddle_variables_new (), .image = g_new (float, 6 * 3 * 144), .label = g_new (gint64, 6) };
  for (guint i = 0; i < 6 * 3 * 144; i++)
    n->image[i] = heddle_random_float (&random);
  for (guint i = 0; i < 6; i++)
    n->label[i] = i % 4;
  n->inputs[0] = n->image;
  n->inputs[1] = n->label;
  HeddleBuilder *b = heddle_builder_new ("train", n->vars, TRUE, 1);
  heddle_builder_set_autocast (b, low);
  HeddleValue *x = heddle_builder_input (b, "image", HEDDLE_F32, &image), *y = heddle_builder_input (b, "label", HEDDLE_I64, &label);
  x = heddle_relu (b, heddle_batch_norm (b, "bn", heddle_conv2d (b, "c1", x, .channels = 16, .kernel = 3, .padding = 1)));
  x = heddle_max_pool (b, heddle_relu (b, heddle_conv2d (b, "c2", x, .channels = 24, .kernel = 3)), .kernel = 2);
  x = heddle_linear (b, "fc", heddle_dropout (b, "drop", x, 0.25), .features = 4);
  HeddleCrossEntropyAttr attr = { 0.1, -100 };
  HeddleValue *loss = heddle_emit (b, HEDDLE_OP_CROSS_ENTROPY, "loss", (HeddleValue *[]) { x, y }, 2, &attr, sizeof attr);
  heddle_variables_group (n->vars, FALSE);
  g_assert_true (heddle_builder_backward (b, loss, heddle_constant (b, 1), FALSE, &error));
  heddle_builder_output (b, loss);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  n->plan = n->device->iface->compile (n->device, program, &error);
  g_assert_no_error (error);
  g_assert_true (n->device->iface->allocate (n->device, n->vars, &error));
  g_assert_true (heddle_device_initialise (n->device, n->vars, 1, &error));
}

static void
net_close (Net *n)
{
  heddle_plan_free (n->plan);
  heddle_device_close (n->device);
  heddle_variables_free (n->vars);
  g_free (n->image);
  g_free (n->label);
}

static float *
read_all (Net *n, const char *name, gsize *count)
{
  HeddleVariable *v = heddle_variables_lookup (n->vars, name);
  *count = (gsize) heddle_shape_count (&v->shape);
  float *numbers = g_new (float, *count);
  HeddleTensor t = { HEDDLE_F32, v->shape, numbers };
  g_assert_true (n->device->iface->read (n->device, v, &t, NULL));
  return numbers;
}

static double
loss_of (Net *n)
{
  float loss = 0;
  HeddleTensor t = { HEDDLE_F32, heddle_scalar_shape (), &loss };
  g_assert_true (n->device->iface->run (n->plan, n->inputs, NULL) && n->device->iface->fetch (n->plan, 0, &t, NULL));
  return loss;
}

static void
test_steady (void)
{
  static const HeddleDtype lows[] = { 0, HEDDLE_F16, HEDDLE_BF16 };
  for (guint i = 0; i < G_N_ELEMENTS (lows); i++)
    {
      Net n;
      net_open (&n, 1, lows[i]);
      loss_of (&n);
      guint64 allocations = n.device->iface->counter (n.device, HEDDLE_COUNTER_ALLOCATIONS), primitives = n.device->iface->counter (n.device, HEDDLE_COUNTER_PRIMITIVES);
      g_assert_cmpuint (allocations, >, 0);
      g_assert_cmpuint (primitives, >, 0);
      for (guint k = 0; k < 5; k++)
        loss_of (&n);
      g_assert_cmpuint (n.device->iface->counter (n.device, HEDDLE_COUNTER_ALLOCATIONS), ==, allocations);
      g_assert_cmpuint (n.device->iface->counter (n.device, HEDDLE_COUNTER_PRIMITIVES), ==, primitives);
      net_close (&n);
    }
}

/* The same run twice gives the same bytes; two threads give nearly those of one. */
static void
test_repeats (void)
{
  Net a, b, c;
  gsize count;
  net_open (&a, 1, 0);
  net_open (&b, 1, 0);
  net_open (&c, 2, 0);
  double x = loss_of (&a), y = loss_of (&b), z = loss_of (&c);
  g_assert_true (x == y);
  g_assert_cmpfloat_with_epsilon (x, z, 1e-5);
  static const char *const names[] = { "c1.weight/grad", "c2.weight/grad", "bn.weight/grad", "fc.weight/grad", "fc.bias/grad", "bn.running_mean" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autofree float *p = read_all (&a, names[i], &count), *q = read_all (&b, names[i], &count), *r = read_all (&c, names[i], &count);
      g_assert_cmpmem (p, count * 4, q, count * 4);
      for (gsize k = 0; k < count; k++)
        g_assert_cmpfloat_with_epsilon (p[k], r[k], 1e-5);
    }
  net_close (&a);
  net_close (&b);
  net_close (&c);
}

/* What is written in row-major order comes back so, through any layout and dtype; a flat buffer is its windows, each of them so. */
static void
test_variables (void)
{
  Net n;
  GError *error = NULL;
  net_open (&n, 1, 0);
  static const char *const names[] = { "c1.weight", "c2.weight", "fc.weight", "bn.weight", "bn.running_var" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      HeddleVariable *v = heddle_variables_lookup (n.vars, names[i]);
      gsize count = (gsize) heddle_shape_count (&v->shape), again;
      g_autofree float *numbers = g_new (float, count);
      g_autofree gint64 *whole = g_new (gint64, count);
      for (gsize k = 0; k < count; k++)
        numbers[k] = (float) k + 1;
      HeddleTensor t = { HEDDLE_F32, v->shape, numbers }, w = { HEDDLE_I64, v->shape, whole };
      g_assert_true (n.device->iface->write (n.device, v, &t, &error));
      g_autofree float *back = read_all (&n, names[i], &again);
      g_assert_cmpmem (numbers, count * 4, back, again * 4);
      g_assert_true (n.device->iface->read (n.device, v, &w, &error));
      for (gsize k = 0; k < count; k++)
        g_assert_cmpint (whole[k], ==, (gint64) k + 1);
      if (v->flat)
        {
          g_autofree float *flat = read_all (&n, v->flat->name, &again);
          HeddleTensor all = { HEDDLE_F32, v->flat->shape, flat };
          g_assert_cmpmem (flat + v->offset, count * 4, numbers, count * 4);
          flat[v->offset + (gint64) count / 3] = -7;
          g_assert_true (n.device->iface->write (n.device, v->flat, &all, &error));
          g_autofree float *changed = read_all (&n, names[i], &again);
          numbers[count / 3] = -7;
          g_assert_cmpmem (changed, count * 4, numbers, count * 4);
        }
    }
  HeddleVariable *v = heddle_variables_lookup (n.vars, "fc.bias");
  HeddleShape wrong = heddle_shape (5);
  float five[5];
  HeddleTensor t = { HEDDLE_F32, wrong, five };
  g_assert_false (n.device->iface->write (n.device, v, &t, &error));
  g_assert_nonnull (error);
  g_clear_error (&error);
  net_close (&n);
}

/* Training computes the loss that evaluation computes, though it reads the weight of a transposed convolution twice, for which the device likes two layouts. */
static void
test_transposed (void)
{
  GError *error = NULL;
  float loss[2], image[6 * 3 * 144];
  g_autoptr (HeddleDevice) device = open_cpu (1, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (image); i++)
    image[i] = (float) (i % 11) - 5;
  for (guint training = 0; training < 2; training++)
    {
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      HeddleShape shape = heddle_shape (6, 3, 12, 12);
      gpointer inputs[] = { image };
      HeddleBuilder *b = heddle_builder_new ("test", vars, TRUE, 1);
      HeddleValue *x = heddle_conv2d (b, "c1", heddle_builder_input (b, "image", HEDDLE_F32, &shape), .channels = 32, .kernel = 3, .stride = 4);
      HeddleValue *y = heddle_mean (b, heddle_relu (b, heddle_conv_transpose2d (b, "up", x, .channels = 16, .kernel = 3)), 15u, FALSE);
      heddle_variables_group (vars, FALSE);
      g_assert_true (!training || heddle_builder_backward (b, y, heddle_constant (b, 1), FALSE, &error));
      heddle_builder_output (b, y);
      HeddlePlan *plan = device->iface->compile (device, heddle_builder_finish (b, &error), &error);
      g_assert_no_error (error);
      g_assert_true (device->iface->allocate (device, vars, NULL) && heddle_device_initialise (device, vars, 1, NULL) && device->iface->run (plan, inputs, NULL));
      HeddleTensor t = { HEDDLE_F32, heddle_scalar_shape (), &loss[training] };
      g_assert_true (device->iface->fetch (plan, 0, &t, NULL));
      heddle_plan_free (plan);
    }
  g_assert_cmpfloat (loss[0], >, 0.01);
  g_assert_cmpfloat_with_epsilon (loss[0], loss[1], 1e-6 * loss[0]);
}

/* The memory line adds up: every byte of the variables has an owner. */
static void
test_memory (void)
{
  Net n;
  HeddleMemory m;
  net_open (&n, 1, 0);
  n.device->iface->memory (n.plan, &m);
  gint64 params = heddle_variables_n_params (n.vars);
  g_assert_cmpuint (m.params, >=, (gsize) params * 4);
  g_assert_cmpuint (m.params, <=, (gsize) params * 4 + 8 * HEDDLE_FLAT_ALIGN * 4);
  g_assert_cmpuint (m.grads, ==, m.params);
  g_assert_cmpuint (m.arena, >=, 6 * 16 * 144 * 4);
  g_assert_true (m.peak && *m.peak);
  net_close (&n);
}

/* Evaluation programs compiled after training follow the layouts that training chose, and compute the same. */
static void
test_second_plan (void)
{
  Net n;
  GError *error = NULL;
  float y[24];
  net_open (&n, 1, 0);
  HeddleShape image = heddle_shape (6, 3, 12, 12);
  HeddleBuilder *b = heddle_builder_new ("eval", n.vars, FALSE, 1);
  HeddleValue *x = heddle_builder_input (b, "image", HEDDLE_F32, &image);
  x = heddle_conv2d (b, "c1", x, .channels = 16, .kernel = 3, .padding = 1);
  heddle_builder_output (b, heddle_sum (b, x, 2u | 4u | 8u, FALSE));
  HeddlePlan *plan = n.device->iface->compile (n.device, heddle_builder_finish (b, &error), &error);
  g_assert_no_error (error);
  g_assert_true (n.device->iface->run (plan, n.inputs, &error));
  HeddleTensor t = { HEDDLE_F32, heddle_shape (6), y };
  g_assert_true (n.device->iface->fetch (plan, 0, &t, &error));
  gsize count;
  g_autofree float *w = read_all (&n, "c1.weight", &count), *bias = read_all (&n, "c1.bias", &count);
  for (guint s = 0; s < 6; s++)
    {
      double sum = 0;
      for (int o = 0; o < 16; o++)
        for (int i = 0; i < 12; i++)
          for (int j = 0; j < 12; j++)
            {
              sum += bias[o];
              for (int c = 0; c < 3; c++)
                for (int u = 0; u < 3; u++)
                  for (int v = 0; v < 3; v++)
                    if (i + u >= 1 && i + u <= 12 && j + v >= 1 && j + v <= 12)
                      sum += (double) w[((o * 3 + c) * 3 + u) * 3 + v] * n.image[((s * 3 + (guint) c) * 12 + (guint) (i + u - 1)) * 12 + (guint) (j + v - 1)];
            }
      g_assert_cmpfloat_with_epsilon (y[s], sum, 2e-3);
    }
  heddle_plan_free (plan);
  net_close (&n);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/flags/resolve", test_flags);
  g_test_add_func ("/flags/report", test_report);
  g_test_add_func ("/device/names", test_devices);
  g_test_add_func ("/device/steady", test_steady);
  g_test_add_func ("/device/repeats", test_repeats);
  g_test_add_func ("/device/variables", test_variables);
  g_test_add_func ("/device/memory", test_memory);
  g_test_add_func ("/device/second-plan", test_second_plan);
  g_test_add_func ("/device/transposed", test_transposed);
  return g_test_run ();
}
