/* test-bf16.c: products of bf16 numbers on the cpu device, whichever instructions make them (HEDDLE_CPU_ISA), against double precision within a stated bound; conversions to
 * the last bit; a residual block under autocast: what is joined, that nothing is reordered but weights, and that its numbers are the reference's. */
#include "backend/backend.h"
#include "base/random.h"
#include "reference/reference.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define MAX_INPUTS 12

static HeddleDevice *device;

/* Products of bf16 numbers are made as such: the device says so, and the steps that make them are called so. */
static gboolean
native (void)
{
  return device->iface->computes (device, HEDDLE_BF16);
}

/* ---- conversions ---- */

/* INPUT's bytes cast from FROM to TO by a program */
static gpointer
cast (HeddleDtype from, HeddleDtype to, gpointer numbers, gint64 n)
{
  GError *error = NULL;
  HeddleShape shape = heddle_shape (n);
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("cast", vars, TRUE, 1);
  heddle_builder_output (b, heddle_cast (b, heddle_builder_input (b, "x", from, &shape), to));
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  HeddleTensor t = { to, shape, g_malloc ((gsize) n * heddle_dtype_size (to)) };
  g_assert_true (device->iface->run (plan, (gpointer[]) { numbers }, &error) && device->iface->fetch (plan, 0, &t, &error));
  return t.data;
}

static void
check_casts (HeddleDtype low, guint16 (*narrow) (float), float (*widen) (guint16))
{
  const gint64 n = 1 << 20;
  g_autofree guint32 *floats = g_new (guint32, (gsize) n);
  g_autofree guint16 *halves = g_new (guint16, 65536);
  for (gint64 i = 0; i < n; i++)
    floats[i] = (guint32) i * 4099u + (i % 7 == 0 ? 0x1000u : i % 7 == 1 ? 0x8000u : 0) - (guint32) (i % 3);      /* every exponent, ties, NaN, infinities, subnormals */
  for (guint i = 0; i < 65536; i++)
    halves[i] = (guint16) i;
  g_autofree guint16 *down = cast (HEDDLE_F32, low, floats, n);
  g_autofree guint32 *up = cast (low, HEDDLE_F32, halves, 65536);
  for (gint64 i = 0; i < n; i++)
    {
      float x;
      memcpy (&x, &floats[i], sizeof x);
      if (down[i] != narrow (x))
        g_error ("%08x: got %04x, expected %04x", floats[i], down[i], narrow (x));
    }
  for (guint i = 0; i < 65536; i++)
    {
      float x = widen ((guint16) i);
      g_assert_cmpmem (&x, 4, &up[i], 4);
    }
}

static void
test_convert (void)
{
  check_casts (HEDDLE_BF16, heddle_bf16_from_f32, heddle_f32_from_bf16);
  check_casts (HEDDLE_F16, heddle_f16_from_f32, heddle_f32_from_f16);
}

/* ---- one operation and its gradients ---- */

typedef struct { const char *name; HeddleOpCode code; HeddleShape x, w; gint64 bias, stride, padding, groups; gboolean ta, tb; gint64 terms; } Product;

/* TERMS: most products in one sum, forward or backward */
static const Product products[] = {
  { "conv2d", HEDDLE_OP_CONV2D, { 4, { 3, 16, 9, 7 } }, { 4, { 32, 16, 3, 3 } }, 32, 1, 1, 1, FALSE, FALSE, 288 },
  { "conv2d/first", HEDDLE_OP_CONV2D, { 4, { 3, 3, 9, 12 } }, { 4, { 16, 3, 3, 3 } }, 0, 1, 1, 1, FALSE, FALSE, 324 },
  { "conv2d/stride", HEDDLE_OP_CONV2D, { 4, { 2, 16, 9, 8 } }, { 4, { 48, 16, 3, 3 } }, 0, 2, 1, 1, FALSE, FALSE, 432 },
  { "conv2d/1x1", HEDDLE_OP_CONV2D, { 4, { 2, 32, 6, 5 } }, { 4, { 16, 32, 1, 1 } }, 16, 1, 0, 1, FALSE, FALSE, 60 },
  { "conv2d/odd", HEDDLE_OP_CONV2D, { 4, { 2, 5, 9, 7 } }, { 4, { 7, 5, 3, 3 } }, 7, 1, 1, 1, FALSE, FALSE, 126 },
  { "conv2d/lenet", HEDDLE_OP_CONV2D, { 4, { 3, 6, 12, 12 } }, { 4, { 16, 6, 5, 5 } }, 16, 1, 0, 1, FALSE, FALSE, 400 },
  { "conv2d/depthwise", HEDDLE_OP_CONV2D, { 4, { 2, 32, 9, 7 } }, { 4, { 32, 1, 3, 3 } }, 0, 1, 1, 32, FALSE, FALSE, 126 },
  { "conv2d/groups", HEDDLE_OP_CONV2D, { 4, { 2, 32, 9, 7 } }, { 4, { 64, 16, 3, 3 } }, 0, 1, 1, 2, FALSE, FALSE, 288 },
  { "conv_transpose2d", HEDDLE_OP_CONV_TRANSPOSE2D, { 4, { 2, 32, 5, 6 } }, { 4, { 32, 16, 3, 3 } }, 16, 2, 1, 1, FALSE, FALSE, 400 },
  { "linear", HEDDLE_OP_LINEAR, { 2, { 37, 33 } }, { 2, { 19, 33 } }, 19, 0, 0, 0, FALSE, FALSE, 37 },
  { "linear/large", HEDDLE_OP_LINEAR, { 3, { 4, 70, 256 } }, { 2, { 384, 256 } }, 384, 0, 0, 0, FALSE, FALSE, 384 },
  { "linear/no bias", HEDDLE_OP_LINEAR, { 2, { 1, 16 } }, { 2, { 3, 16 } }, 0, 0, 0, 0, FALSE, FALSE, 16 },
  { "matmul", HEDDLE_OP_MATMUL, { 2, { 19, 33 } }, { 2, { 33, 21 } }, 0, 0, 0, 0, FALSE, FALSE, 33 },
  { "matmul/batch", HEDDLE_OP_MATMUL, { 4, { 2, 3, 19, 33 } }, { 4, { 2, 3, 33, 21 } }, 0, 0, 0, 0, FALSE, FALSE, 33 },
  { "matmul/tt", HEDDLE_OP_MATMUL, { 3, { 3, 33, 19 } }, { 3, { 3, 21, 33 } }, 0, 0, 0, 0, TRUE, TRUE, 33 },
  { "matmul/shared", HEDDLE_OP_MATMUL, { 3, { 3, 19, 33 } }, { 2, { 33, 21 } }, 0, 0, 0, 0, FALSE, FALSE, 57 },
  { "matmul/shared tt", HEDDLE_OP_MATMUL, { 3, { 3, 33, 19 } }, { 2, { 21, 33 } }, 0, 0, 0, 0, TRUE, TRUE, 57 },
};

/* Outputs: y, then its gradients by every input, of bf16 all, where R, the last input, is the gradient of y */
static HeddleProgram *
product_program (const Product *p, HeddleVariables *vars)
{
  GError *error = NULL;
  HeddleBuilder *b = heddle_builder_new ("product", vars, TRUE, 1);
  HeddleShape of_bias = heddle_shape (p->bias);
  HeddleValue *in[3] = { heddle_builder_input (b, "x", HEDDLE_BF16, &p->x), heddle_builder_input (b, "w", HEDDLE_BF16, &p->w) }, *grads[3] = { NULL };
  HeddleConvAttr conv = { .stride = { p->stride, p->stride }, .padding = { p->padding, p->padding }, .dilation = { 1, 1 }, .groups = p->groups };
  HeddleMatmulAttr matmul = { .transpose_a = p->ta, .transpose_b = p->tb };
  guint n = p->bias ? 3 : 2;
  if (p->bias)
    in[2] = heddle_builder_input (b, "bias", HEDDLE_BF16, &of_bias);
  gboolean image = p->x.rank == 4 && p->code != HEDDLE_OP_MATMUL;
  HeddleValue *y = heddle_emit (b, p->code, "y", in, n, image ? (gpointer) &conv : p->code == HEDDLE_OP_MATMUL ? &matmul : NULL,
                                image ? sizeof conv : p->code == HEDDLE_OP_MATMUL ? sizeof matmul : 0);
  g_assert_no_error (heddle_builder_error (b));
  HeddleShape shape = heddle_shape_of (b, y);
  HeddleValue *r = heddle_builder_input (b, "r", HEDDLE_BF16, &shape);
  heddle_builder_output (b, y);
  HeddleValue *loss = heddle_sum (b, heddle_mul (b, y, r), 0, FALSE);
  g_assert_true (heddle_builder_gradients (b, loss, heddle_constant (b, 1), in, n, grads, &error));
  for (guint i = 0; i < n; i++)
    heddle_builder_output (b, grads[i]);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return program;
}

static guint16 *
draw (const HeddleValue *v, guint i)
{
  gint64 n = heddle_shape_count (&v->shape);
  guint16 *x = g_new (guint16, (gsize) n);
  HeddleRandom random = heddle_random (5, HEDDLE_STREAM_USER, i, 0);
  for (gint64 k = 0; k < n; k++)
    x[k] = heddle_bf16_from_f32 ((float) (heddle_random_double (&random) * 4 - 2));
  return x;
}

/* The program run in double precision on these numbers, or on their magnitudes: the sums of |a| |b| */
static Reference *
exact (const HeddleProgram *program, guint16 **numbers, gboolean magnitudes)
{
  Reference *r = reference_new (program);
  for (guint i = 0; i < program->inputs->len; i++)
    for (gint64 k = 0; k < heddle_shape_count (&((HeddleValue *) program->inputs->pdata[i])->shape); k++)
      {
        double x = heddle_f32_from_bf16 (numbers[i][k]);
        reference_input (r, i)[k] = magnitudes ? fabs (x) : x;
      }
  reference_run (r);
  return r;
}

static gboolean
described (HeddlePlan *plan, guint n_ops, const char *word)
{
  gboolean found = FALSE;
  for (guint i = 0; !found && i < n_ops; i++)
    {
      g_autofree char *text = device->iface->describe (plan, i);
      found = text && strstr (text, word);
    }
  return found;
}

/* Products of bf16 numbers are exact in f32, so what is lost is n f32 roundings of partial sums, each at most 2^-24 sum |a b|, and those to bf16, 2^-8 each: the result's
 * and the reference's.  A transposed convolution's result is rounded once more before the bias, which is below 2, is added. */
static void
test_product (gconstpointer data)
{
  const Product *p = data;
  GError *error = NULL;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddlePlan) plan = NULL;       /* owns the program, and goes after the references that look into it */
  HeddleProgram *program = product_program (p, vars);
  guint16 *numbers[4] = { NULL };
  for (guint i = 0; i < program->inputs->len; i++)
    numbers[i] = draw (program->inputs->pdata[i], i);
  g_autoptr (Reference) want = exact (program, numbers, FALSE), sums = exact (program, numbers, TRUE);
  plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  if (native () && p->groups <= 1 && !g_str_has_suffix (p->name, "odd") && !g_str_has_suffix (p->name, "lenet"))
    g_assert_true (described (plan, program->ops->len, "bf16"));
  else if (!native ())
    g_assert_false (described (plan, program->ops->len, "bf16"));
  g_assert_true (device->iface->run (plan, (const gpointer *) numbers, &error));
  for (guint i = 0; i < program->outputs->len; i++)
    {
      const HeddleValue *v = program->outputs->pdata[i];
      gint64 n = heddle_shape_count (&v->shape);
      gboolean twice = p->code == HEDDLE_OP_CONV_TRANSPOSE2D && i == 0;
      g_autofree float *got = g_new (float, (gsize) n);
      HeddleTensor t = { HEDDLE_F32, v->shape, got };
      g_assert_cmpint (v->dtype, ==, HEDDLE_BF16);
      g_assert_true (device->iface->fetch (plan, i, &t, &error));
      for (gint64 k = 0; k < n; k++)
        {
          double w = reference_value (want, v)[k], bound = 0x1p-7 * fabs (w) + (twice ? 0x1p-8 * (fabs (w) + 2) : 0) + (double) p->terms * 0x1p-24 * reference_value (sums, v)[k];
          if (!(fabs (got[k] - w) <= bound))
            g_error ("%s, output %u, element %d: got %.9g, expected %.9g within %.3g", p->name, i, (int) k, got[k], w, bound);
        }
    }
  for (guint i = 0; i < program->inputs->len; i++)
    g_free (numbers[i]);
}

/* ---- a residual network's body under autocast ---- */

static HeddleValue *
body (HeddleBuilder *b, HeddleValue *x)
{
  for (guint i = 0; i < 2; i++)
    {
      g_autofree char *one = g_strdup_printf ("conv%ua", i), *two = g_strdup_printf ("conv%ub", i), *n1 = g_strdup_printf ("bn%ua", i), *n2 = g_strdup_printf ("bn%ub", i);
      HeddleValue *y = heddle_relu (b, heddle_batch_norm (b, n1, heddle_conv2d (b, one, x, .channels = 16, .kernel = 3, .padding = 1, .no_bias = TRUE)));
      y = heddle_batch_norm (b, n2, heddle_conv2d (b, two, y, .channels = 16, .kernel = 3, .padding = 1, .no_bias = TRUE));
      x = heddle_relu (b, heddle_add (b, y, x));
    }
  return x;
}

static HeddleProgram *
residual_program (HeddleDtype low, HeddleVariables *vars)
{
  GError *error = NULL;
  HeddleShape image = heddle_shape (4, 3, 10, 9);
  HeddleBuilder *b = heddle_builder_new ("residual", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "image", HEDDLE_F32, &image);
  heddle_builder_set_autocast (b, low);
  x = heddle_relu (b, heddle_batch_norm (b, "bn", heddle_conv2d (b, "conv", x, .channels = 16, .kernel = 3, .padding = 1, .no_bias = TRUE)));
  x = heddle_linear (b, "fc", heddle_mean (b, body (b, x), 1u << 2 | 1u << 3, FALSE), .features = 5);
  heddle_builder_set_autocast (b, 0);
  HeddleValue *wrt[16], *grads[16], *loss = heddle_sum (b, heddle_square (b, x), 0, FALSE);
  guint n = 0;
  for (guint i = 0; i < heddle_variables_count (vars) && n < G_N_ELEMENTS (wrt); i++)
    if (heddle_variables_nth (vars, i)->role == HEDDLE_ROLE_PARAM)
      wrt[n++] = heddle_builder_variable (b, heddle_variables_nth (vars, i));
  heddle_builder_output (b, x);
  g_assert_true (heddle_builder_gradients (b, loss, heddle_constant (b, 1), wrt, n, grads, &error));
  for (guint i = 0; i < n; i++)
    if (grads[i])
      heddle_builder_output (b, grads[i]);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return program;
}

static double
distance (const double *want, const float *got, gint64 n)
{
  double error = 0, size = 0;
  for (gint64 k = 0; k < n; k++)
    {
      error += (got[k] - want[k]) * (got[k] - want[k]);
      size += want[k] * want[k];
    }
  return sqrt (error / MAX (size, 1e-30));
}

/* Activations go from convolution to batch norm and back as they are: only weights change their layout, which they do once a step. */
static void
check_reorders (HeddlePlan *plan)
{
  g_autoptr (GPtrArray) lines = device->iface->reorders (plan);
  for (guint i = 0; i < lines->len; i++)
    if (strstr (lines->pdata[i], "nChw"))
      g_error ("an image is reordered: %s", (const char *) lines->pdata[i]);
}

/* In double precision, rounded where the program's values are in 16 bits */
static Reference *
exact_residual (const HeddleProgram *program, HeddleVariables *vars, const float *image, gint64 n)
{
  Reference *r = reference_new (program);
  for (gint64 i = 0; i < n; i++)
    reference_input (r, 0)[i] = image[i];
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      g_autofree float *first = g_new (float, (gsize) heddle_shape_count (&v->shape));
      heddle_variable_initial (v, 3, first);
      for (gint64 k = 0; k < heddle_shape_count (&v->shape); k++)
        reference_variable (r, v)[k] = first[k];
    }
  reference_run (r);
  return r;
}

/* The result and each gradient are no further from the exact numbers than the reference is that rounds after every single operation, by half as much again:
 * joined operations round less often.  With LOW 0 both are f32's. */
static void
check_residual (HeddleDtype low, gboolean blocked)
{
  enum { COUNT = 4 * 3 * 90 };
  static const char *const joined[] = { "batch norm+add+relu", "batch norm+relu", "batch norm, relu" };
  GError *error = NULL;
  g_autoptr (HeddleVariables) vars = heddle_variables_new (), again = heddle_variables_new ();
  HeddleProgram *program = residual_program (low, vars);
  g_autoptr (HeddleProgram) wide = residual_program (0, again);
  g_autoptr (HeddlePlan) plan = NULL;       /* owns PROGRAM, and goes after the references that look into it */
  float image[COUNT];
  HeddleRandom random = heddle_random (5, HEDDLE_STREAM_USER, 9, 0);
  for (guint i = 0; i < COUNT; i++)
    image[i] = (float) (heddle_random_double (&random) * 2 - 1);
  g_autoptr (Reference) rounded = exact_residual (program, vars, image, COUNT), exact = exact_residual (wide, again, image, COUNT);
  plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  g_assert_true (device->iface->allocate (device, vars, &error) && heddle_device_initialise (device, vars, 3, &error));
  for (guint i = 0; i < G_N_ELEMENTS (joined); i++)
    if (!described (plan, program->ops->len, joined[i]))
      g_error ("no step \"%s\"", joined[i]);
  if (blocked)
    check_reorders (plan);
  g_assert_true (device->iface->run (plan, (gpointer[]) { image }, &error));
  for (guint i = 0; i < program->outputs->len; i++)
    {
      const HeddleValue *v = program->outputs->pdata[i], *w = wide->outputs->pdata[i];
      gint64 n = heddle_shape_count (&v->shape);
      g_autofree float *got = g_new (float, (gsize) n), *single = g_new (float, (gsize) n);
      HeddleTensor t = { HEDDLE_F32, v->shape, got };
      g_assert_true (device->iface->fetch (plan, i, &t, &error));
      for (gint64 k = 0; k < n; k++)
        single[k] = (float) reference_value (rounded, v)[k];
      double ours = distance (reference_value (exact, w), got, n), theirs = distance (reference_value (exact, w), single, n);
      g_test_message ("output %u: %.3g from exact, the reference %.3g", i, ours, theirs);
      g_assert_cmpfloat (ours, <=, 1.5 * theirs + 1e-5);
    }
}

/* SSE4.1 has no gradients of convolutions in blocks. */
static void
test_residual (void)
{
  g_autoptr (GPtrArray) lines = device->iface->report (device);
  gboolean blocked = TRUE;
  for (guint i = 0; i < lines->len; i++)
    blocked &= !g_str_has_prefix (lines->pdata[i], "instructions = SSE");
  check_residual (0, blocked);
  check_residual (HEDDLE_BF16, blocked);
  check_residual (HEDDLE_F16, blocked);
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = 2;
  device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  g_test_add_func ("/bf16/convert", test_convert);
  for (guint i = 0; i < G_N_ELEMENTS (products); i++)
    {
      g_autofree char *path = g_strconcat ("/bf16/products/", products[i].name, NULL);
      g_test_add_data_func (path, &products[i], test_product);
    }
  g_test_add_func ("/bf16/residual", test_residual);
  int status = g_test_run ();
  heddle_device_close (device);
  return status;
}
