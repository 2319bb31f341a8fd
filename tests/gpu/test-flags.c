/* tests/gpu/test-flags.c: on a real GPU: each flag changes the arithmetic it is said to change, 16 bits are summed in f32, and the loop keeps its promises over a thousand steps.
 * 1 + 2^-12 needs 13 bits of significand.  f32 has 24; TF32 has 11 (NVIDIA, "TensorFloat-32"), f16 11, bf16 8: there it is 1. */
#include "backend/backend.h"
#include "tensor/tensors.h"

#include <math.h>

#define N 256
#define C 64

static HeddleDevice *
open_device (gboolean matmul, gboolean conv, gboolean graphs)
{
  HeddleFlags flags = { 0 };
  g_autoptr (GError) error = NULL;
  heddle_options_init (heddle_flags_options (), &flags);
  flags.tf32_matmul = matmul;
  flags.tf32_conv = conv;
  flags.matmul_precision = matmul ? HEDDLE_PRECISION_HIGH : HEDDLE_PRECISION_HIGHEST;
  flags.cuda_graphs = graphs;
  HeddleDevice *device = heddle_device_open ("cuda", &flags, NULL, &error);
  if (!device)
    g_test_skip (error->message);
  return device;
}

static HeddleProgram *
product (HeddleVariables *vars, gboolean conv)
{
  GError *error = NULL;
  HeddleBuilder *b = heddle_builder_new ("probe", vars, FALSE, 0);
  HeddleShape x = conv ? heddle_shape (8, C, 16, 16) : heddle_shape (N, N), w = conv ? heddle_shape (C, C, 1, 1) : heddle_shape (N, N);
  HeddleValue *in[] = { heddle_builder_input (b, "x", HEDDLE_F32, &x), heddle_builder_input (b, "w", HEDDLE_F32, &w) };
  HeddleConvAttr attr = { .stride = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1 };
  HeddleValue *y = conv ? heddle_emit (b, HEDDLE_OP_CONV2D, "conv", in, 2, &attr, sizeof attr) : heddle_matmul (b, in[0], in[1], FALSE, FALSE);
  heddle_builder_output (b, y);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return program;
}

/* The first number of the product of matrices, or of a 1x1 convolution, of 1 + 2^-12 everywhere, over the number of terms */
static double
probe (HeddleDevice *device, gboolean conv)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (GError) error = NULL;
  HeddlePlan *plan = device->iface->compile (device, product (vars, conv), &error);
  g_assert_no_error (error);
  gsize n = conv ? 8 * C * 256 : N * N;
  g_autofree float *x = g_new (float, n), *y = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    x[i] = 1 + 0x1p-12f;
  const gpointer inputs[] = { x, x };
  HeddleTensor result = { .dtype = HEDDLE_F32, .shape = conv ? heddle_shape (8, C, 16, 16) : heddle_shape (N, N), .data = y };
  g_assert_true (device->iface->run (plan, inputs, &error));
  g_assert_true (device->iface->fetch (plan, 0, &result, &error));
  heddle_plan_free (plan);
  return (double) y[0] / (conv ? C : N);
}

/* Exact: (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24; in TF32 1. */
static void
check_probe (gboolean matmul, gboolean conv)
{
  HeddleDevice *device = open_device (matmul, conv, TRUE);
  if (device)
    {
      double by_matmul = probe (device, FALSE) - 1, by_conv = probe (device, TRUE) - 1;
      g_test_message ("matmul %g, convolution %g over 1", by_matmul, by_conv);
      g_assert_cmpfloat (fabs (by_matmul - (matmul ? 0 : 0x1p-11)), <, 0x1p-13);
      g_assert_cmpfloat (fabs (by_conv - (conv ? 0 : 0x1p-11)), <, 0x1p-13);
      heddle_device_close (device);
    }
}

static void test_strict (void) { check_probe (FALSE, FALSE); }
static void test_matmul (void) { check_probe (TRUE, FALSE); }
static void test_conv (void)   { check_probe (FALSE, TRUE); }
static void test_both (void)   { check_probe (TRUE, TRUE); }

/* 2049 ones and 2048 times -1, summed in f32, are 1; where a sum, or a part of it, is kept in 16 bits, 2049 is 2048 (f16 and bf16: to even) and that makes 0. */
static void
check_sums (HeddleDtype dtype)
{
  HeddleDevice *device = open_device (FALSE, FALSE, TRUE);
  if (device)
    {
      enum { K = 4097, M = 16 };
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      g_autoptr (GError) error = NULL;
      HeddleBuilder *b = heddle_builder_new ("sums", vars, FALSE, 0);
      HeddleShape wide = heddle_shape (M, K), result = heddle_shape (M, M);
      HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &wide), *w = heddle_builder_input (b, "w", HEDDLE_F32, &wide);
      heddle_builder_output (b, heddle_cast (b, heddle_matmul (b, heddle_cast (b, x, dtype), heddle_cast (b, w, dtype), FALSE, TRUE), HEDDLE_F32));
      HeddlePlan *plan = device->iface->compile (device, heddle_builder_finish (b, &error), &error);
      g_assert_no_error (error);
      g_autofree float *numbers = g_new (float, M * K), *ones = g_new (float, M * K);
      float y[M * M];
      for (gsize i = 0; i < M * K; i++)
        {
          numbers[i] = i % K < 2049 ? 1 : -1;
          ones[i] = 1;
        }
      HeddleTensor t = { .dtype = HEDDLE_F32, .shape = result, .data = y };
      g_assert_true (device->iface->run (plan, (const gpointer[]) { numbers, ones }, &error));
      g_assert_true (device->iface->fetch (plan, 0, &t, &error));
      for (gsize i = 0; i < M * M; i++)
        g_assert_cmpfloat (y[i], ==, 1);
      heddle_plan_free (plan);
      heddle_device_close (device);
    }
}

static void test_sums_f16 (void)  { check_sums (HEDDLE_F16); }
static void test_sums_bf16 (void) { check_sums (HEDDLE_BF16); }

/* 1000 runs: no allocation, no library object, no waiting after the first two. */
static void
test_steady (void)
{
  HeddleDevice *device = open_device (FALSE, FALSE, TRUE);
  if (device)
    {
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      g_autoptr (GError) error = NULL;
      HeddlePlan *plan = device->iface->compile (device, product (vars, FALSE), &error);
      g_assert_no_error (error);
      g_autofree float *x = g_new0 (float, N * N);
      const gpointer inputs[] = { x, x };
      guint64 before[3] = { 0 };
      const HeddleCounter counters[] = { HEDDLE_COUNTER_ALLOCATIONS, HEDDLE_COUNTER_PRIMITIVES, HEDDLE_COUNTER_SYNCS };
      for (guint i = 0; i < 1000; i++)
        {
          g_assert_true (device->iface->run (plan, inputs, &error));
          for (guint k = 0; k < 3 && i == 1; k++)
            before[k] = device->iface->counter (device, counters[k]);
        }
      for (guint k = 0; k < 3; k++)
        g_assert_cmpuint (device->iface->counter (device, counters[k]), ==, before[k]);
      heddle_plan_free (plan);
      heddle_device_close (device);
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/gpu/flags/strict f32", test_strict);
  g_test_add_func ("/gpu/flags/tf32 in matmul alone", test_matmul);
  g_test_add_func ("/gpu/flags/tf32 in convolution alone", test_conv);
  g_test_add_func ("/gpu/flags/tf32 in both", test_both);
  g_test_add_func ("/gpu/sums/f16", test_sums_f16);
  g_test_add_func ("/gpu/sums/bf16", test_sums_bf16);
  g_test_add_func ("/gpu/steady", test_steady);
  return g_test_run ();
}
