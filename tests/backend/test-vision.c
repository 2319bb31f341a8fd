/* test-vision.c: what the cpu device promises of vision networks beyond their numbers: depthwise convolutions of MobileNet-v2 have kernels made for them,
 * and resampling, transposed convolution and the losses over elements give the same bits for any number of threads. */
#include <string.h>

#include "backend/backend.h"
#include "base/random.h"

static HeddleDevice *
open_cpu (gint64 threads)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = threads;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  HeddleDevice *device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  return device;
}

/* ---- depthwise ---- */

/* x (2, channels, side, side) -> sum of squares, and both gradients */
static HeddleProgram *
depthwise (HeddleVariables *vars, gint64 channels, gint64 side, gint64 stride)
{
  GError *error = NULL;
  HeddleShape image = heddle_shape (2, channels, side, side), weight = heddle_shape (channels, 1, 3, 3);
  HeddleBuilder *b = heddle_builder_new ("depthwise", vars, TRUE, 1);
  HeddleConvAttr a = { .stride = { stride, stride }, .padding = { 1, 1 }, .dilation = { 1, 1 }, .groups = channels };
  HeddleValue *in[] = { heddle_builder_input (b, "x", HEDDLE_F32, &image), heddle_builder_input (b, "w", HEDDLE_F32, &weight) }, *grads[2];
  HeddleValue *y = heddle_emit (b, HEDDLE_OP_CONV2D, "dw", in, 2, &a, sizeof a);
  g_assert_true (heddle_builder_gradients (b, heddle_sum (b, heddle_square (b, y), 0, FALSE), heddle_constant (b, 1), in, 2, grads, &error));
  heddle_builder_output (b, y);
  heddle_builder_output (b, grads[0]);
  heddle_builder_output (b, grads[1]);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return program;
}

static guint
check_kernels (HeddleDevice *device, gint64 channels, gint64 side, gint64 stride)
{
  GError *error = NULL;
  guint found = 0;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleProgram *program = depthwise (vars, channels, side, stride);
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < program->ops->len; i++)
    if (g_str_has_prefix (((HeddleOp *) program->ops->pdata[i])->info->name, "conv2d"))
      {
        g_autofree char *text = device->iface->describe (plan, i);
        const char *name = ((HeddleOp *) program->ops->pdata[i])->info->name;
        g_test_message ("%d channels, %dx%d, stride %d: %s: %s", (int) channels, (int) side, (int) side, (int) stride, name, text);
        if (!strstr (text, "jit") || strstr (text, "ref") || strstr (text, "gemm"))
          g_error ("%s of %d channels, stride %d, is made by \"%s\"", name, (int) channels, (int) stride, text);
        found++;
      }
  return found;
}

/* Table 2 of arXiv 1801.04381 at 224x224: every depthwise shape. */
static void
test_depthwise (void)
{
  static const gint64 shapes[][3] = { { 32, 112, 1 }, { 96, 112, 2 }, { 144, 56, 1 }, { 144, 56, 2 }, { 192, 28, 1 }, { 192, 28, 2 }, { 384, 14, 1 }, { 576, 14, 1 }, { 576, 14, 2 }, { 960, 7, 1 } };
  gboolean able = FALSE;
#ifdef __x86_64__
  able = __builtin_cpu_supports ("avx2") != 0;
#endif
  if (!able)
    g_test_skip ("this CPU has no AVX2, for which the kernels are made");
  HeddleDevice *device = open_cpu (1);
  for (guint i = 0; able && i < G_N_ELEMENTS (shapes); i++)
    g_assert_cmpuint (check_kernels (device, shapes[i][0], shapes[i][1], shapes[i][2]), ==, 3);
  heddle_device_close (device);
}

/* ---- threads ---- */

#define ELEMENTS (4 * 48 * 24 * 24)

typedef HeddleValue *(*Build) (HeddleBuilder *b, HeddleValue *x, HeddleValue *t);

static HeddleValue *nearest (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_upsample (b, x, 31, 47, FALSE); }
static HeddleValue *bilinear (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_upsample (b, x, 47, 31, TRUE); }
static HeddleValue *smaller (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_upsample (b, x, 13, 11, TRUE); }
static HeddleValue *bce (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_bce_with_logits (b, x, t); }
static HeddleValue *l1 (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_l1 (b, x, t); }
static HeddleValue *smooth_l1 (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_smooth_l1 (b, x, t, 0.3); }
static HeddleValue *kl_div (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_kl_div (b, x, t, FALSE, TRUE); }
static HeddleValue *kl_div_log (HeddleBuilder *b, HeddleValue *x, HeddleValue *t) { return heddle_kl_div (b, x, t, TRUE, FALSE); }

/* the bias of a transposed convolution; its weights' gradient is oneDNN's and not promised */
static HeddleValue *
transposed (HeddleBuilder *b, HeddleValue *x, HeddleValue *t)
{
  HeddleConvAttr a = { .stride = { 2, 2 }, .padding = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1, .output_padding = { 1, 1 } };
  HeddleShape shape = heddle_shape_of (b, x);
  HeddleValue *w = heddle_reshape (b, heddle_slice (b, heddle_reshape (b, t, heddle_shape (-1)), 0, 0, shape.size[1] * 16 * 9), heddle_shape (shape.size[1], 16, 3, 3));
  HeddleValue *in[] = { x, w, heddle_slice (b, heddle_reshape (b, t, heddle_shape (-1)), 0, 0, 16) };
  return heddle_emit (b, HEDDLE_OP_CONV_TRANSPOSE2D, "up", in, 3, &a, sizeof a);
}

static const struct { const char *name; Build build; } kernels[] = {
  { "upsample nearest", nearest }, { "upsample bilinear", bilinear }, { "upsample smaller", smaller }, { "transposed", transposed }, { "bce_with_logits", bce },
  { "l1", l1 }, { "smooth_l1", smooth_l1 }, { "kl_div", kl_div }, { "kl_div, logarithms", kl_div_log },
};

/* y and the gradient by x; x comes in blocks when CHANNELS allows and a convolution is before it */
static GArray *
bits_of (Build f, gint64 channels, gint64 threads)
{
  GError *error = NULL;
  HeddleShape shape = heddle_shape (4, channels, 24, 24), weight = heddle_shape (channels, channels, 1, 1);
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleDevice *device = open_cpu (threads);
  HeddleBuilder *b = heddle_builder_new ("threads", vars, TRUE, 1);
  HeddleValue *in[] = { heddle_builder_input (b, "x", HEDDLE_F32, &shape), heddle_builder_input (b, "t", HEDDLE_F32, &shape), heddle_builder_input (b, "w", HEDDLE_F32, &weight) }, *grad;
  HeddleConvAttr a = { .stride = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1 };
  HeddleValue *conv[] = { in[0], in[2] }, *x = heddle_emit (b, HEDDLE_OP_CONV2D, "before", conv, 2, &a, sizeof a), *y = f (b, x, in[1]);
  g_assert_true (heddle_builder_gradients (b, heddle_sum (b, heddle_square (b, y), 0, FALSE), heddle_constant (b, 1), &x, 1, &grad, &error));
  heddle_builder_output (b, y);
  heddle_builder_output (b, grad);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  g_autofree float *numbers = g_new (float, ELEMENTS * 2);
  HeddleRandom r = heddle_random (5, HEDDLE_STREAM_USER, 0, 0);
  for (guint i = 0; i < ELEMENTS * 2; i++)
    numbers[i] = (float) heddle_random_double (&r);
  gpointer inputs[] = { numbers, numbers + ELEMENTS, numbers };
  g_assert_true (device->iface->run (plan, inputs, &error));
  GArray *bits = g_array_new (FALSE, FALSE, sizeof (float));
  for (guint i = 0; i < 2; i++)
    {
      const HeddleValue *v = program->outputs->pdata[i];
      guint at = bits->len;
      g_array_set_size (bits, at + (guint) heddle_shape_count (&v->shape));
      HeddleTensor t = { HEDDLE_F32, v->shape, &g_array_index (bits, float, at) };
      g_assert_true (device->iface->fetch (plan, i, &t, &error));
    }
  g_clear_pointer (&plan, heddle_plan_free);
  heddle_device_close (device);
  return bits;
}

static void
test_threads (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (kernels); i++)
    for (gint64 channels = 45; channels <= 48; channels += 3)
      {
        g_autoptr (GArray) one = bits_of (kernels[i].build, channels, 1), two = bits_of (kernels[i].build, channels, 2), three = bits_of (kernels[i].build, channels, 3);
        g_test_message ("%s, %d channels", kernels[i].name, (int) channels);
        g_assert_cmpuint (one->len, >, 4 * 45 * 24 * 24);
        g_assert_cmpmem (one->data, one->len * sizeof (float), two->data, two->len * sizeof (float));
        g_assert_cmpmem (one->data, one->len * sizeof (float), three->data, three->len * sizeof (float));
      }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/vision/depthwise", test_depthwise);
  g_test_add_func ("/vision/threads", test_threads);
  return g_test_run ();
}
