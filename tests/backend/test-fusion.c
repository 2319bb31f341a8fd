/* test-fusion.c: chains that the cpu device makes in one step, against the double-precision reference of the same chain in single operations: what is
 * joined, that it computes the same, that threads change no bit, and what Winograd's convolution costs in digits. */
#include "backend/backend.h"
#include "base/random.h"
#include "reference/reference.h"

#include <math.h>
#include <string.h>

#define MAX_INPUTS 16

static HeddleDevice *
open_cpu (gint64 threads, gboolean fusion, gboolean winograd)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = threads;
  flags.fusion = fusion;
  flags.winograd = winograd;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  HeddleDevice *device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  return device;
}

/* ---- a network over inputs, weights and statistics alike ---- */

typedef struct
{
  HeddleBuilder *b;
  gboolean       apart;               /* give away every value between, so that nothing can be joined or moved */
  guint          n_in;
  HeddleValue   *in[MAX_INPUTS];
  HeddleShape    shape[MAX_INPUTS];
  HeddleValue   *between[16];
  guint          n_between;
} Net;

typedef HeddleValue *(*Build) (Net *n);

static HeddleValue *
input (Net *n, HeddleShape shape)
{
  g_autofree char *name = g_strdup_printf ("in%u", n->n_in);
  n->shape[n->n_in] = shape;
  return n->in[n->n_in++] = heddle_builder_input (n->b, name, HEDDLE_F32, &shape);
}

static HeddleValue *
between (Net *n, HeddleValue *v)
{
  return n->between[n->n_between++] = v;
}

static HeddleValue *
conv (Net *n, HeddleValue *x, gint64 channels, gint64 kernel, gint64 padding, gboolean bias)
{
  HeddleShape s = heddle_shape_of (n->b, x);
  HeddleConvAttr a = { .stride = { 1, 1 }, .padding = { padding, padding }, .dilation = { 1, 1 }, .groups = 1 };
  HeddleValue *in[] = { x, input (n, heddle_shape (channels, s.size[1], kernel, kernel)), bias ? input (n, heddle_shape (channels)) : NULL };
  return between (n, heddle_emit (n->b, HEDDLE_OP_CONV2D, "conv", in, bias ? 3 : 2, &a, sizeof a));
}

static HeddleValue *
norm (Net *n, HeddleValue *x)
{
  HeddleShape c = heddle_shape (heddle_shape_of (n->b, x).size[1]);
  HeddleBatchNormAttr a = { .eps = 1e-5, .momentum = 0.1, .training = TRUE };
  HeddleValue *in[] = { x, input (n, c), input (n, c), input (n, c), input (n, c) };
  return between (n, heddle_emit (n->b, HEDDLE_OP_BATCH_NORM, "norm", in, 5, &a, sizeof a));
}

static HeddleValue *relu (Net *n, HeddleValue *x) { return between (n, heddle_relu (n->b, x)); }
static HeddleValue *clamp (Net *n, HeddleValue *x) { return between (n, heddle_clamp (n->b, x, -0.25, 1.5)); }

static HeddleValue *
pool (Net *n, HeddleValue *x)
{
  HeddlePoolAttr a = { .kernel = { 2, 2 }, .stride = { 2, 2 } };
  return between (n, heddle_emit (n->b, HEDDLE_OP_MAX_POOL, "pool", &x, 1, &a, sizeof a));
}

/* ---- networks ---- */

static gint64 kernel, channels, height, width;

static HeddleValue *
lenet_like (Net *n)
{
  HeddleValue *x = pool (n, relu (n, conv (n, input (n, heddle_shape (5, 2, height, width)), channels, kernel, kernel / 2, TRUE)));
  return pool (n, relu (n, conv (n, x, 9, 3, 1, TRUE)));
}

static HeddleValue *
without_pool (Net *n)
{
  return relu (n, conv (n, relu (n, conv (n, input (n, heddle_shape (3, 3, height, width)), channels, kernel, kernel / 2, FALSE)), 5, 3, 0, TRUE));
}

static HeddleValue *
residual (Net *n)
{
  HeddleValue *x = relu (n, norm (n, conv (n, input (n, heddle_shape (3, 16, height, width)), 16, 3, 1, FALSE)));
  HeddleValue *y = norm (n, conv (n, relu (n, norm (n, conv (n, x, 16, 3, 1, FALSE))), 16, 3, 1, FALSE));
  return relu (n, between (n, heddle_add (n->b, y, x)));
}

static HeddleValue *
residual_without_relu (Net *n)
{
  HeddleValue *x = conv (n, input (n, heddle_shape (3, 16, height, width)), 16, 1, 0, FALSE);
  return conv (n, between (n, heddle_add (n->b, x, norm (n, conv (n, x, 16, 3, 1, FALSE)))), 16, 1, 0, FALSE);
}

/* residual blocks without norms */
static HeddleValue *leaky (Net *n, HeddleValue *x) { return between (n, heddle_leaky_relu (n->b, x, 0.125)); }

static HeddleValue *
sums_of_convs (Net *n)
{
  HeddleValue *x = leaky (n, conv (n, input (n, heddle_shape (3, channels, height, width)), channels, 3, 1, TRUE));
  HeddleValue *y = leaky (n, between (n, heddle_add (n->b, conv (n, leaky (n, conv (n, x, channels, 3, 1, FALSE)), channels, 3, 1, TRUE), x)));
  return between (n, heddle_add (n->b, y, conv (n, y, channels, 1, 0, TRUE)));
}

static HeddleValue *
normalised_pool (Net *n)
{
  HeddleValue *x = pool (n, relu (n, norm (n, conv (n, input (n, heddle_shape (3, 16, height, width)), 32, 3, 1, FALSE))));
  return pool (n, norm (n, conv (n, x, 16, 3, 1, FALSE)));
}

/* an inverted residual's order: clamps inside, none behind the sum */
static HeddleValue *
clamped (Net *n)
{
  HeddleValue *x = clamp (n, norm (n, conv (n, input (n, heddle_shape (3, 16, height, width)), 16, 3, 1, FALSE)));
  HeddleValue *y = norm (n, conv (n, clamp (n, norm (n, conv (n, x, 32, 1, 0, FALSE))), 16, 3, 1, FALSE));
  return clamp (n, between (n, heddle_add (n->b, y, x)));
}

static HeddleValue *
clamped_pool (Net *n)
{
  return clamp (n, pool (n, norm (n, conv (n, input (n, heddle_shape (3, 16, height, width)), 32, 3, 1, FALSE))));
}

static HeddleValue *
row_major_clamp (Net *n)
{
  HeddleValue *x = clamp (n, norm (n, input (n, heddle_shape (3, 5, height, width))));
  return clamp (n, between (n, heddle_add (n->b, norm (n, x), x)));
}

static HeddleValue *
row_major_norm (Net *n)
{
  HeddleValue *x = relu (n, norm (n, input (n, heddle_shape (3, 5, height, width))));
  return relu (n, between (n, heddle_add (n->b, norm (n, x), x)));
}

/* ---- transformers ---- */

static gboolean causal;

static HeddleValue *
linear (Net *n, HeddleValue *x, gint64 features)
{
  HeddleShape s = heddle_shape_of (n->b, x);
  HeddleValue *in[] = { x, input (n, heddle_shape (features, s.size[s.rank - 1])), input (n, heddle_shape (features)) };
  return between (n, heddle_emit (n->b, HEDDLE_OP_LINEAR, "linear", in, 3, NULL, 0));
}

static HeddleValue *
row_norm (Net *n, HeddleValue *x, HeddleOpCode code)
{
  HeddleShape s = heddle_shape_of (n->b, x), last = heddle_shape (s.size[s.rank - 1]);
  HeddleLayerNormAttr a = { 1e-5, 1 };
  HeddleValue *in[] = { x, input (n, last), code == HEDDLE_OP_LAYER_NORM ? input (n, last) : NULL };
  return between (n, heddle_emit (n->b, code, "norm", in, code == HEDDLE_OP_LAYER_NORM ? 3 : 2, &a, sizeof a));
}

static HeddleValue *layer_norm (Net *n, HeddleValue *x) { return row_norm (n, x, HEDDLE_OP_LAYER_NORM); }
static HeddleValue *sum (Net *n, HeddleValue *x, HeddleValue *y) { return between (n, heddle_add (n->b, x, y)); }

/* One block of GPT-2 or, without the mask, of a vision transformer; products that are not small */
static HeddleValue *
block (Net *n)
{
  HeddleValue *x = layer_norm (n, input (n, heddle_shape (3, height, 128))), *y = linear (n, x, 3 * 128);
  x = sum (n, x, linear (n, between (n, heddle_self_attention (n->b, y, 4, causal)), 128));
  y = linear (n, layer_norm (n, x), 512);
  return layer_norm (n, sum (n, x, linear (n, between (n, causal ? heddle_gelu_tanh (n->b, y) : heddle_gelu (n->b, y)), 128)));
}

/* Features FROM..TO of X (B, T, W) as 4 heads (B, 4, T, D) */
static HeddleValue *
heads (Net *n, HeddleValue *x, gint64 from, gint64 to)
{
  HeddleShape s = heddle_shape_of (n->b, x);
  return heddle_permute (n->b, heddle_reshape (n->b, heddle_slice (n->b, x, -1, from, to), heddle_shape (s.size[0], s.size[1], 4, (to - from) / 4)), 0, 2, 1, 3);
}

static HeddleValue *
attend (Net *n, HeddleValue *q, HeddleValue *k, HeddleValue *v)
{
  HeddleShape s = heddle_shape_of (n->b, v), t = heddle_shape_of (n->b, q);
  HeddleValue *y = heddle_permute (n->b, heddle_scaled_dot_product_attention (n->b, q, k, v, causal, 0), 0, 2, 1, 3);
  return between (n, heddle_reshape (n->b, y, heddle_shape (t.size[0], t.size[2], 4 * s.size[3])));
}

/* Queries of one tensor, keys and values of another; values are wider than keys */
static HeddleValue *
cross (Net *n)
{
  HeddleValue *x = linear (n, input (n, heddle_shape (3, height, 24)), 32), *z = linear (n, input (n, heddle_shape (3, width, 20)), 32 + 48);
  return linear (n, attend (n, heads (n, x, 0, 32), heads (n, z, 0, 32), heads (n, z, 32, 80)), 16);
}

/* Parts that leave some of the tensor over, one of them read twice, and a tensor that others read as well */
static HeddleValue *
odd_parts (Net *n)
{
  HeddleValue *x = linear (n, input (n, heddle_shape (3, height, 24)), 4 * 32), *k = heads (n, x, 64, 96);
  HeddleValue *y = attend (n, heads (n, x, 0, 32), k, k);
  return sum (n, linear (n, y, 16), linear (n, x, 16));
}

/* Heads that lie one after the other need no permutation. */
static HeddleValue *
split_rows (Net *n)
{
  HeddleValue *x = linear (n, input (n, heddle_shape (3, 4 * height, 24)), 32), *h = heddle_reshape (n->b, x, heddle_shape (3, 4, height, 32));
  HeddleValue *y = between (n, heddle_scaled_dot_product_attention (n->b, h, heddle_slice (n->b, h, -1, 0, 32), h, causal, 0));
  return linear (n, heddle_reshape (n->b, y, heddle_shape (3, 4 * height, 32)), 8);
}

/* Sums between norms, no product near */
static HeddleValue *
summed_norms (Net *n)
{
  HeddleValue *x = layer_norm (n, input (n, heddle_shape (3, height, width)));
  x = sum (n, x, layer_norm (n, x));
  x = sum (n, row_norm (n, x, HEDDLE_OP_RMS_NORM), x);
  return layer_norm (n, x);
}

/* ---- running ---- */

typedef struct { HeddleProgram *program; guint n_in; HeddleShape shape[MAX_INPUTS]; guint n_out; } Built;

/* Outputs: y, then the gradients of sum (y^2) / 2 by every input that has one. */
static Built
build (Build f, gboolean apart, HeddleVariables *vars)
{
  Net n = { .b = heddle_builder_new ("fusion", vars, TRUE, 1), .apart = apart };
  GError *error = NULL;
  HeddleValue *grads[MAX_INPUTS], *y = f (&n), *loss = heddle_scale (n.b, heddle_sum (n.b, heddle_square (n.b, y), 0, FALSE), 0.5);
  Built built = { .n_in = n.n_in };
  memcpy (built.shape, n.shape, sizeof n.shape);
  heddle_builder_output (n.b, y);
  for (guint i = 0; apart && i < n.n_between; i++)
    heddle_builder_output (n.b, n.between[i]);
  g_assert_true (heddle_builder_gradients (n.b, loss, heddle_constant (n.b, 1), n.in, n.n_in, grads, &error));
  g_assert_no_error (error);
  guint between = apart ? n.n_between : 0;
  for (guint i = 0; i < n.n_in; i++)
    if (grads[i])
      heddle_builder_output (n.b, grads[i]);
  built.program = heddle_builder_finish (n.b, &error);
  g_assert_no_error (error);
  built.n_out = built.program->outputs->len - between;
  return built;
}

static guint poisoned_input = G_MAXUINT;      /* which has POISON in its middle */
static float poison;

static float *
numbers (const HeddleShape *shape, guint i)
{
  gint64 count = heddle_shape_count (shape);
  float *x = g_new (float, (gsize) count);
  HeddleRandom r = heddle_random (11, HEDDLE_STREAM_USER, i, 0);
  double scale = shape->rank % 2 == 0 && i ? 1 / sqrt ((double) (count / shape->size[0])) : 1;
  for (gint64 k = 0; k < count; k++)
    x[k] = (float) ((heddle_random_double (&r) * 2 - 1) * scale + (shape->rank == 1 ? 1.2 : 0));      /* scales and variances are positive */
  if (i == poisoned_input)
    x[count / 2] = poison;
  return x;
}

/* (transfer full) every output of the program on DEVICE, one after the other; WHAT: how its operations were made */
static GArray *
run_on (HeddleDevice *device, Build f, GString *what)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  Built built = build (f, FALSE, vars);
  GError *error = NULL;
  gpointer inputs[MAX_INPUTS];
  GArray *all = g_array_new (FALSE, FALSE, sizeof (float));
  for (guint i = 0; i < built.n_in; i++)
    inputs[i] = numbers (&built.shape[i], i);
  guint n_ops = built.program->ops->len;
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, built.program, &error);
  g_assert_no_error (error);
  for (guint i = 0; what && i < n_ops; i++)
    {
      g_autofree char *text = device->iface->describe (plan, i);
      g_string_append_printf (what, "%s\n", text ? text : "");
    }
  g_assert_true (device->iface->run (plan, inputs, &error));
  for (guint i = 0; i < built.n_out; i++)
    {
      const HeddleValue *v = built.program->outputs->pdata[i];
      guint at = all->len;
      g_array_set_size (all, at + (guint) heddle_shape_count (&v->shape));
      HeddleTensor t = { HEDDLE_F32, v->shape, &g_array_index (all, float, at) };
      g_assert_true (device->iface->fetch (plan, i, &t, &error));
    }
  for (guint i = 0; i < built.n_in; i++)
    g_free (inputs[i]);
  return all;
}

static GArray *
run_reference (Build f)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  Built built = build (f, TRUE, vars);
  g_autoptr (HeddleProgram) program = built.program;
  g_autoptr (Reference) r = reference_new (program);
  GArray *all = g_array_new (FALSE, FALSE, sizeof (double));
  for (guint i = 0; i < built.n_in; i++)
    {
      g_autofree float *x = numbers (&built.shape[i], i);
      for (gint64 k = 0; k < heddle_shape_count (&built.shape[i]); k++)
        reference_input (r, i)[k] = x[k];
    }
  reference_run (r);
  for (guint i = 0; i < program->outputs->len; i++)
    {
      const HeddleValue *v = program->outputs->pdata[i];
      gboolean among = i > 0 && i <= program->outputs->len - built.n_out;
      if (!among)
        g_array_append_vals (all, reference_value (r, v), (guint) heddle_shape_count (&v->shape));
    }
  return all;
}

static double
largest_error (const GArray *got, const GArray *want)
{
  double worst = 0;
  g_assert_cmpuint (got->len, ==, want->len);
  for (guint i = 0; i < got->len; i++)
    {
      double w = g_array_index (want, double, i), error = fabs (g_array_index (got, float, i) - w) / MAX (1, fabs (w));
      worst = error > worst || isnan (error) ? error : worst;
    }
  return worst;
}

/* Against the reference, with and without joining, with one and two threads; JOINED: what must be among the steps ("-": what must not, though it is without joining).
 * Loops of ours give the same bits with any number of threads; oneDNN's gradients of weights are only promised for the same number. */
static void
check (const char *name, Build f, const char *const *joined, gboolean same_bits)
{
  g_autoptr (GArray) want = run_reference (f);
  g_autoptr (GString) what = g_string_new (NULL), alone = g_string_new (NULL);
  HeddleDevice *one = open_cpu (1, TRUE, FALSE), *two = open_cpu (2, TRUE, FALSE), *off = open_cpu (1, FALSE, FALSE);
  g_autoptr (GArray) a = run_on (one, f, what), b = run_on (two, f, NULL), c = run_on (off, f, alone);
  double error = largest_error (a, want), error_off = largest_error (c, want);
  g_test_message ("%s: largest error %.2g, without joining %.2g", name, error, error_off);
  g_assert_cmpfloat (error_off, <, 1e-3);                   /* gradients through batch norm cancel: sums of hundreds leave little */
  g_assert_cmpfloat (error, <, 4 * error_off + 1e-5);
  g_assert_cmpfloat (largest_error (b, want), <, 4 * error_off + 1e-5);
  if (same_bits)
    g_assert_cmpmem (a->data, a->len * 4, b->data, b->len * 4);
  for (guint i = 0; joined[i]; i++)
    {
      gboolean gone = joined[i][0] == '-';
      if ((strstr (what->str, joined[i] + gone) == NULL) != gone)
        g_error ("%s: %s step \"%s\" in\n%s", name, gone ? "a" : "no", joined[i] + gone, what->str);
      g_assert_true ((strstr (alone->str, joined[i] + gone) != NULL) == gone);
    }
  heddle_device_close (one);
  heddle_device_close (two);
  heddle_device_close (off);
}

static void
test_direct (void)
{
  static const gint64 sizes[][2] = { { 12, 10 }, { 13, 17 }, { 9, 34 }, { 28, 28 } };
  static const char *const joined[] = { "direct+max pool", "direct, pooled", NULL }, *const none[] = { NULL };
  for (kernel = 1; kernel <= 7; kernel += 2)
    for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
      {
        static const gint64 counts[] = { 1, 6, 7, 16, 19 };
        height = sizes[s][0];
        width = sizes[s][1];
        channels = counts[(s + (guint) kernel / 2) % G_N_ELEMENTS (counts)];
        g_autofree char *name = g_strdup_printf ("%dx%d, %d channels, kernel %d", (int) height, (int) width, (int) channels, (int) kernel);
        check (name, lenet_like, channels % 16 ? joined : none, channels % 16 != 0);        /* 16 channels in blocks leave the direct path behind them */
        check (name, without_pool, none, channels % 16 != 0);
      }
}

static void
test_norm (void)
{
  static const gint64 sizes[][2] = { { 8, 8 }, { 9, 7 }, { 1, 5 } };
  static const char *const relu[] = { "batch norm+relu", "batch norm+add+relu", "batch norm, relu", NULL }, *const add[] = { "batch norm+add", NULL };
  static const char *const pooled[] = { "batch norm+max pool+relu", "batch norm+max pool", "batch norm, pooled", NULL }, *const rows[] = { "batch norm+relu", "batch norm+add+relu", NULL };
  static const char *const clamps[] = { "batch norm+clamp", "batch norm+add+clamp", "batch norm, clamp", NULL }, *const pooled_clamp[] = { "batch norm+max pool+clamp", NULL };
  static const char *const row_clamps[] = { "batch norm+clamp", "batch norm+add+clamp", NULL };
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    {
      height = sizes[s][0];
      width = sizes[s][1];
      check ("residual", residual, relu, FALSE);
      check ("residual without relu", residual_without_relu, add, FALSE);
      check ("row-major", row_major_norm, rows, TRUE);
      check ("clamped", clamped, clamps, FALSE);
      check ("row-major, clamped", row_major_clamp, row_clamps, TRUE);
      height += 4;
      width += 4;
      check ("pool", normalised_pool, pooled, FALSE);
      check ("pool, clamped", clamped_pool, pooled_clamp, FALSE);
    }
}

static void
test_conv (void)
{
  static const gint64 sizes[][2] = { { 8, 8 }, { 9, 7 }, { 1, 5 } };
  static const char *const joined[] = { "+add", "+leaky_relu", "+add+leaky_relu", NULL };
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (channels = 16; channels <= 48; channels += 16)
      {
        height = sizes[s][0];
        width = sizes[s][1];
        check ("sums of convolutions", sums_of_convs, joined, FALSE);
      }
}

static gboolean
has_avx512 (void)
{
  HeddleDevice *device = open_cpu (1, TRUE, TRUE);
  g_autoptr (GPtrArray) lines = device->iface->report (device);
  gboolean found = FALSE;
  for (guint i = 0; i < lines->len; i++)
    found |= g_str_equal (lines->pdata[i], "winograd = true");
  heddle_device_close (device);
  return found;
}

/* oneDNN has products with an epilogue for AVX-512 alone. */
static void
test_transformer (void)
{
  static const char *const wide[] = { "brgemm+add", "layer_norm_grad+add", "-copy", NULL }, *const plain[] = { "layer_norm_grad+add", "-copy", NULL }, *const none[] = { NULL };
  static const char *const norms[] = { "add+layer_norm", "add+rms_norm", "layer_norm_grad+add", "rms_norm_grad+add", NULL };
  static const gint64 lengths[] = { 64, 70, 131 };
  for (guint i = 0; i < 2 * G_N_ELEMENTS (lengths); i++)
    {
      causal = i % 2;
      height = lengths[i / 2];
      width = 50;
      check (causal ? "block of GPT-2" : "block of a vision transformer", block, has_avx512 () ? wide : plain, FALSE);
      check ("cross attention", cross, none, TRUE);
      check ("odd parts", odd_parts, none, TRUE);
      check ("rows split into heads", split_rows, none, TRUE);
      check ("norms", summed_norms, norms, TRUE);
    }
}

/* What is not finite stays so, and comes to nothing that it did not come to before. */
static void
same_faults (Build f)
{
  HeddleDevice *on = open_cpu (1, TRUE, FALSE), *off = open_cpu (1, FALSE, FALSE);
  g_autoptr (GArray) a = run_on (on, f, NULL), b = run_on (off, f, NULL);
  guint faults = 0;
  for (guint i = 0; i < a->len; i++)
    {
      float x = g_array_index (a, float, i), y = g_array_index (b, float, i);
      g_assert_true (isfinite (x) == isfinite (y));
      faults += !isfinite (x);
    }
  g_assert_cmpuint (faults, >, 0);
  g_assert_cmpuint (faults, <, a->len);
  heddle_device_close (on);
  heddle_device_close (off);
}

static void
test_nonfinite (void)
{
  static const float poisons[] = { NAN, INFINITY, -INFINITY };
  static const Build builds[] = { block, cross, odd_parts, split_rows, summed_norms, sums_of_convs };
  height = 70;
  width = 50;
  causal = TRUE;
  channels = 16;
  for (guint k = 0; k < G_N_ELEMENTS (poisons) * G_N_ELEMENTS (builds); k++)
    {
      poison = poisons[k / G_N_ELEMENTS (builds)];
      poisoned_input = 0;
      same_faults (builds[k % G_N_ELEMENTS (builds)]);
    }
  poisoned_input = G_MAXUINT;
}

/* ---- Winograd ---- */

static HeddleValue *
one_conv (Net *n)
{
  return conv (n, input (n, heddle_shape (8, 64, height, width)), 32, 3, 1, FALSE);
}

/* F(4x4, 3x3)'s matrices multiply rounding errors by some ten; bounded here by 32 times those of a direct convolution plus one unit in the last place. */
static void
test_winograd (void)
{
  HeddleDevice *direct = open_cpu (1, TRUE, FALSE), *winograd = open_cpu (1, TRUE, TRUE);
  g_autoptr (GPtrArray) lines = direct->iface->report (winograd);
  gboolean honoured = FALSE;
  for (guint i = 0; i < lines->len; i++)
    honoured |= g_str_equal (lines->pdata[i], "winograd = true");
  if (!honoured)
    g_test_skip ("this CPU has no Winograd convolution (it needs AVX-512)");
  for (height = 11; honoured && height <= 14; height++)
    {
      width = height + 1;
      g_autoptr (GString) what = g_string_new (NULL);
      g_autoptr (GArray) want = run_reference (one_conv), a = run_on (direct, one_conv, NULL), b = run_on (winograd, one_conv, what);
      double plain = largest_error (a, want), coarse = largest_error (b, want);
      g_test_message ("largest error: direct %.2g, Winograd %.2g (%.1f times)", plain, coarse, coarse / plain);
      g_assert_nonnull (strstr (what->str, "wino"));
      g_assert_cmpfloat (coarse, <, 32 * (plain + 6e-8));
    }
  heddle_device_close (direct);
  heddle_device_close (winograd);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/fusion/direct", test_direct);
  g_test_add_func ("/fusion/conv", test_conv);
  g_test_add_func ("/fusion/norm", test_norm);
  g_test_add_func ("/fusion/transformer", test_transformer);
  g_test_add_func ("/fusion/nonfinite", test_nonfinite);
  g_test_add_func ("/fusion/winograd", test_winograd);
  return g_test_run ();
}
