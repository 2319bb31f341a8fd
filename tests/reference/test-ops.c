/* tests/reference/test-ops.c: every operation: a backend (HEDDLE_TEST_DEVICE, the cpu's by default) against the double-precision reference, forward and backward, and the
 * reference's gradients against finite differences of itself.  Shapes are multiples of nothing, and multiples of a block too.
 * HEDDLE_TEST_DTYPE=f16 or bf16: every operation in that dtype instead, between casts of what enters and leaves. */
#include "backend/backend.h"
#include "base/memory.h"
#include "base/random.h"
#include "plugins/swish.h"
#include "device.h"
#include "reference.h"
#include "swish-reference.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define MAX_INPUTS 6

typedef struct
{
  HeddleBuilder *b;
  HeddleValue   *in[MAX_INPUTS];
  HeddleValue   *extra[2];           /* further outputs to compare forward only */
} Case;

typedef HeddleValue *(*Build) (Case *c);

typedef struct { HeddleDtype dtype; HeddleShape shape; double low, high; } Input;

static HeddleDevice *device;
static HeddleDtype low = HEDDLE_F32;     /* what every case computes in */
static gboolean covered[256];

/* ---- numbers ---- */

static double
draw (HeddleRandom *random, const Input *in)
{
  double x = in->low + (in->high - in->low) * heddle_random_double (random);
  return heddle_dtype_is_float (in->dtype) ? (float) x : floor (x);
}

static void
fill (double **numbers, const Input *in, guint n, guint64 seed)
{
  for (guint i = 0; i < n; i++)
    {
      HeddleRandom random = heddle_random (seed, HEDDLE_STREAM_USER, i, 0);
      gint64 count = heddle_shape_count (&in[i].shape);
      numbers[i] = g_new (double, (gsize) count);
      for (gint64 k = 0; k < count; k++)
        numbers[i][k] = draw (&random, &in[i]);
    }
}

static gpointer
as_dtype (HeddleDtype dtype, const double *x, gint64 n)
{
  char *bytes = g_malloc0 ((gsize) n * heddle_dtype_size (dtype) + 64);
  for (gint64 i = 0; i < n; i++)
    switch (dtype)
      {
      case HEDDLE_F32: ((float *) bytes)[i] = (float) x[i]; break;
      case HEDDLE_F16: ((guint16 *) bytes)[i] = heddle_f16_from_f32 ((float) x[i]); break;
      case HEDDLE_BF16: ((guint16 *) bytes)[i] = heddle_bf16_from_f32 ((float) x[i]); break;
      case HEDDLE_U8: ((guint8 *) bytes)[i] = (guint8) x[i]; break;
      case HEDDLE_I32: ((gint32 *) bytes)[i] = (gint32) x[i]; break;
      case HEDDLE_I64: ((gint64 *) bytes)[i] = (gint64) x[i]; break;
      }
  return bytes;
}

/* ---- programs: forward, and forward with the gradient of sum (y r) by every floating input ---- */

typedef struct { const char *name; Build build; guint n; Input in[MAX_INPUTS]; gboolean no_gradient; guint whole; } Entry;     /* WHOLE: bits of inputs that are f32 in any dtype */
typedef struct { HeddleProgram *program; guint n_out, input_of[MAX_INPUTS + 1]; } Built;   /* input_of: which input an output is the gradient by */

static HeddleValue *
cast_float (HeddleBuilder *b, HeddleValue *x, HeddleDtype dtype)
{
  return x && heddle_dtype_is_float (heddle_dtype_of (b, x)) && heddle_dtype_of (b, x) != dtype ? heddle_cast (b, x, dtype) : x;
}

static Built
build (const Entry *e, gboolean gradients, HeddleVariables *vars)
{
  GError *error = NULL;
  Case c = { .b = heddle_builder_new ("test", vars, TRUE, 7) };
  const Input *in = e->in;
  HeddleValue *whole[MAX_INPUTS];
  Built built = { 0 };
  for (guint i = 0; i < e->n; i++)
    {
      g_autofree char *name = g_strdup_printf ("in%u", i);
      whole[i] = heddle_builder_input (c.b, name, in[i].dtype, &in[i].shape);
      c.in[i] = e->whole & 1u << i ? whole[i] : cast_float (c.b, whole[i], low);
    }
  HeddleValue *y = cast_float (c.b, e->build (&c), HEDDLE_F32);
  g_assert_no_error (heddle_builder_error (c.b));
  if (!gradients)
    {
      heddle_builder_output (c.b, y);
      built.n_out = 1;
      for (guint i = 0; i < 2; i++)
        if (c.extra[i])
          {
            heddle_builder_output (c.b, c.extra[i]);
            built.n_out++;
          }
    }
  else
    {
      HeddleShape shape = heddle_shape_of (c.b, y);
      HeddleValue *r = heddle_builder_input (c.b, "r", HEDDLE_F32, &shape), *wrt[MAX_INPUTS], *grads[MAX_INPUTS] = { NULL };
      HeddleValue *product = heddle_mul (c.b, y, r), *loss = shape.rank ? heddle_sum (c.b, product, 0, FALSE) : product;
      guint n_wrt = 0, number[MAX_INPUTS];
      for (guint i = 0; i < e->n; i++)
        if (heddle_dtype_is_float (in[i].dtype))
          {
            number[n_wrt] = i;
            wrt[n_wrt++] = whole[i];
          }
      heddle_builder_gradients (c.b, loss, heddle_constant (c.b, 1), wrt, n_wrt, grads, &error);
      g_assert_no_error (error);
      for (guint i = 0; i < n_wrt; i++)
        if (grads[i])
          {
            heddle_builder_output (c.b, grads[i]);
            built.input_of[built.n_out++] = number[i];
          }
      heddle_builder_output (c.b, loss);
      built.n_out++;
    }
  built.program = heddle_builder_finish (c.b, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < built.program->ops->len; i++)
    covered[((HeddleOp *) built.program->ops->pdata[i])->info->code] = TRUE;
  return built;
}

/* ---- comparing ---- */

/* A few roundings of the shortest floating dtype that the program computes in.  Attention's gradients are what is left of rounded numbers up to four times as large: p (dp - sum (dy y)). */
static double
tolerance_of (const HeddleProgram *p)
{
  double tolerance = 4e-5;
  gboolean cancels = FALSE;
  for (guint i = 0; i < p->values->len; i++)
    {
      HeddleDtype dtype = ((const HeddleValue *) p->values->pdata[i])->dtype;
      tolerance = MAX (tolerance, dtype == HEDDLE_BF16 ? 2e-2 : dtype == HEDDLE_F16 ? 3e-3 : 0);
    }
  for (guint i = 0; i < p->ops->len; i++)
    cancels |= ((const HeddleOp *) p->ops->pdata[i])->info->code == HEDDLE_OP_ATTENTION_GRAD;
  return cancels && low != HEDDLE_F32 ? 4 * tolerance : tolerance;
}

static void
compare (const char *what, guint output, const HeddleValue *v, double tolerance, const double *expected, const float *got)
{
  gint64 n = heddle_shape_count (&v->shape);
  guint wrong = 0;
  double largest = 0;
  for (gint64 i = 0; i < n; i++)
    largest = fmax (largest, isfinite (expected[i]) ? fabs (expected[i]) : 0);
  for (gint64 i = 0; i < n; i++)
    {
      gboolean same = (isnan (expected[i]) && isnan (got[i])) || expected[i] == (double) got[i]
                      || fabs (expected[i] - (double) got[i]) <= tolerance * (fabs (expected[i]) + 0.1 * largest + 1e-3);
      if (!same && wrong++ < 3)
        g_test_message ("%s: output %u, element %d: expected %.9g, got %.9g", what, output, (int) i, expected[i], got[i]);
    }
  if (wrong)
    g_test_fail ();
}

static void
run_both (const char *what, Built built, HeddleVariables *vars, double **numbers)
{
  GError *error = NULL;
  g_autoptr (HeddlePlan) plan = NULL;       /* owns the program: freed after the reference */
  g_autoptr (Reference) reference = reference_new (built.program);
  gpointer inputs[MAX_INPUTS + 1] = { NULL };
  for (guint i = 0; i < built.program->inputs->len; i++)
    {
      HeddleValue *v = built.program->inputs->pdata[i];
      gint64 count = heddle_shape_count (&v->shape);
      memcpy (reference_input (reference, i), numbers[i], (gsize) count * sizeof (double));
      inputs[i] = as_dtype (v->dtype, numbers[i], count);
    }
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      gint64 count = heddle_shape_count (&v->shape);
      g_autofree float *first = g_new (float, (gsize) count);
      heddle_variable_initial (v, 3, first);
      for (gint64 k = 0; k < count; k++)
        reference_variable (reference, v)[k] = first[k];
    }
  reference_run (reference);
  plan = device->iface->compile (device, built.program, &error);
  g_assert_no_error (error);
  device->iface->allocate (device, vars, &error);
  g_assert_no_error (error);
  heddle_device_initialise (device, vars, 3, &error);
  g_assert_no_error (error);
  device->iface->run (plan, inputs, &error);
  g_assert_no_error (error);
  for (guint k = 0; k < built.n_out; k++)
    {
      HeddleValue *v = built.program->outputs->pdata[k];
      g_autofree float *got = g_new (float, (gsize) MAX (heddle_shape_count (&v->shape), 1));
      HeddleTensor tensor = { HEDDLE_F32, v->shape, got };
      device->iface->fetch (plan, k, &tensor, &error);
      g_assert_no_error (error);
      compare (what, k, v, tolerance_of (built.program), reference_value (reference, v), got);
    }
  for (guint i = 0; i < built.program->inputs->len; i++)
    g_free (inputs[i]);
}

/* d sum (y r) / dx by central differences of the reference, for some elements of each input. */
static void
check_differences (const char *what, Built built, double **numbers, const Input *in)
{
  g_autoptr (Reference) reference = reference_new (built.program);
  const HeddleProgram *p = built.program;
  HeddleValue *loss = p->outputs->pdata[built.n_out - 1];
  for (guint i = 0; i < p->inputs->len; i++)
    memcpy (reference_input (reference, i), numbers[i], (gsize) heddle_shape_count (&((HeddleValue *) p->inputs->pdata[i])->shape) * sizeof (double));
  reference_run (reference);
  for (guint output = 0; output + 1 < built.n_out; output++)
    {
      guint i = built.input_of[output];
      gint64 count = heddle_shape_count (&in[i].shape);
      HeddleValue *v = p->outputs->pdata[output];
      g_assert_true (heddle_shape_equal (&v->shape, &in[i].shape));
      g_autofree double *gradient = heddle_memdup (reference_value (reference, v), (gsize) count * sizeof (double));
      for (gint64 k = 0; k < count; k += MAX (1, count / 23))
        {
          const double h = 1e-5;
          double sides[2];
          for (int s = 0; s < 2; s++)
            {
              reference_input (reference, i)[k] = numbers[i][k] + (s ? h : -h);
              reference_run (reference);
              sides[s] = reference_value (reference, loss)[0];
            }
          reference_input (reference, i)[k] = numbers[i][k];
          double slope = (sides[1] - sides[0]) / (2 * h);
          if (fabs (slope - gradient[k]) > 1e-5 * (fabs (slope) + fabs (gradient[k])) + 1e-6)
            {
              g_test_message ("%s: input %u, element %d: gradient %.9g, finite difference %.9g", what, i, (int) k, gradient[k], slope);
              g_test_fail ();
            }
        }
      reference_run (reference);
    }
}

/* ---- the driver ---- */


static void
check_entry (const Entry *e)
{
  double *numbers[MAX_INPUTS + 1] = { NULL };
  fill (numbers, e->in, e->n, heddle_random_hash (e->name));
  {
    g_autoptr (HeddleVariables) vars = heddle_variables_new ();
    run_both (e->name, build (e, FALSE, vars), vars, numbers);
  }
  if (!e->no_gradient)
    {
      gboolean wide = TRUE;
      g_autoptr (HeddleVariables) vars = heddle_variables_new (), again = heddle_variables_new ();
      Built built = build (e, TRUE, vars);
      Input r = { HEDDLE_F32, ((HeddleValue *) built.program->inputs->pdata[e->n])->shape, -1, 1 };
      fill (&numbers[e->n], &r, 1, 99);
      for (guint i = 0; i < built.program->values->len; i++)
        {
          HeddleDtype dtype = ((HeddleValue *) built.program->values->pdata[i])->dtype;
          wide &= dtype != HEDDLE_F16 && dtype != HEDDLE_BF16;
        }
      if (wide && g_str_equal (device->backend->kind, "cpu"))     /* rounding to 16 bits has no useful differences; once is enough */
        {
          Built other = build (e, TRUE, again);
          check_differences (e->name, other, numbers, e->in);
          heddle_program_free (other.program);
        }
      run_both (e->name, built, vars, numbers);
    }
  for (guint i = 0; i <= e->n; i++)
    g_free (numbers[i]);
}

static void
test_entry (gconstpointer data)
{
  check_entry (data);
}

/* ---- the cases ---- */

#define X(i) (c->in[i])
#define CASE(name, expression) static HeddleValue *build_##name (Case *c) { HeddleBuilder *b = c->b; (void) b; return (expression); }
CASE (add, heddle_add (b, X (0), X (1)))
CASE (sub, heddle_sub (b, X (0), X (1)))
CASE (mul, heddle_mul (b, X (0), X (1)))
CASE (div, heddle_div (b, X (0), X (1)))
CASE (max, heddle_max (b, X (0), X (1)))
CASE (min, heddle_min (b, X (0), X (1)))
CASE (greater, heddle_greater (b, X (0), X (1)))
CASE (select, heddle_select (b, heddle_greater (b, X (0), heddle_constant (b, 0)), X (1), X (2)))
CASE (neg, heddle_neg (b, X (0)))
CASE (abs, heddle_abs (b, X (0)))
CASE (sign, heddle_sign (b, X (0)))
CASE (exp, heddle_exp (b, X (0)))
CASE (expm1, heddle_expm1 (b, X (0)))
CASE (log, heddle_log (b, X (0)))
CASE (sqrt, heddle_sqrt (b, X (0)))
CASE (rsqrt, heddle_rsqrt (b, X (0)))
CASE (square, heddle_square (b, X (0)))
CASE (reciprocal, heddle_reciprocal (b, X (0)))
CASE (relu, heddle_relu (b, X (0)))
CASE (sigmoid, heddle_sigmoid (b, X (0)))
CASE (tanh, heddle_tanh (b, X (0)))
CASE (gelu, heddle_gelu (b, X (0)))
CASE (gelu_tanh, heddle_gelu_tanh (b, X (0)))
CASE (silu, heddle_silu (b, X (0)))
CASE (hardswish, heddle_hardswish (b, X (0)))
CASE (leaky_relu, heddle_leaky_relu (b, X (0), 0.125))
CASE (clamp, heddle_clamp (b, X (0), -0.75, 1.25))
CASE (relu6_chain, heddle_silu (b, heddle_relu6 (b, heddle_mul (b, heddle_leaky_relu (b, heddle_hardswish (b, X (0)), 0.2), X (1)))))
CASE (cast16, heddle_cast (b, heddle_cast (b, X (0), HEDDLE_F16), HEDDLE_F32))
CASE (castb16, heddle_mul (b, heddle_cast (b, X (0), HEDDLE_BF16), heddle_cast (b, X (0), HEDDLE_BF16)))
CASE (cast_int, heddle_cast (b, X (0), HEDDLE_F32))
CASE (chain, heddle_relu (b, heddle_add (b, heddle_mul (b, heddle_tanh (b, X (0)), heddle_constant (b, 1.5)), heddle_mul (b, X (0), X (1)))))
CASE (reshape, heddle_mul (b, heddle_reshape (b, X (0), heddle_shape (6, -1)), X (1)))
CASE (flatten_blocked, heddle_linear (b, "fc", heddle_relu (b, X (0)), .features = 3))
CASE (sum_all, heddle_sum (b, X (0), 0, FALSE))
CASE (sum_1, heddle_sum (b, X (0), 1u << 1, FALSE))
CASE (sum_02, heddle_sum (b, X (0), 1u << 0 | 1u << 2, TRUE))
CASE (mean_23, heddle_global_avg_pool (b, X (0)))
CASE (mean_all, heddle_mean (b, heddle_square (b, X (0)), 0, FALSE))
CASE (matmul, heddle_matmul (b, X (0), X (1), FALSE, FALSE))
CASE (matmul_ta, heddle_matmul (b, X (0), X (1), TRUE, FALSE))
CASE (matmul_tb, heddle_matmul (b, X (0), X (1), FALSE, TRUE))
CASE (matmul_tt, heddle_matmul (b, X (0), X (1), TRUE, TRUE))
CASE (linear, heddle_emit (b, HEDDLE_OP_LINEAR, "fc", c->in, 3, NULL, 0))
CASE (linear_no_bias, heddle_emit (b, HEDDLE_OP_LINEAR, "fc", c->in, 2, NULL, 0))
CASE (softmax, heddle_softmax (b, X (0), -1))
CASE (softmax_1, heddle_softmax (b, X (0), 1))
CASE (log_softmax, heddle_log_softmax (b, X (0), -1))
CASE (log_softmax_0, heddle_log_softmax (b, X (0), 0))
CASE (max_pool, heddle_max_pool (b, X (0), .kernel = 2))
CASE (max_pool_3, heddle_max_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1))
CASE (avg_pool, heddle_avg_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1))
CASE (avg_pool_inside, heddle_avg_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1, .exclude_padding = TRUE))
CASE (dropout, heddle_dropout (b, "drop", X (0), 0.3))

static HeddleValue *
conv (Case *c, gint64 stride, gint64 padding, gint64 dilation, gint64 groups, guint n)
{
  HeddleConvAttr attr = { { stride, stride }, { padding, padding }, { dilation, dilation }, groups, { 0 }, { 0 }, 0 };
  return heddle_emit (c->b, HEDDLE_OP_CONV2D, "conv", c->in, n, &attr, sizeof attr);
}
CASE (conv_3, conv (c, 1, 1, 1, 1, 3))
CASE (conv_relu, heddle_relu (b, conv (c, 1, 1, 1, 1, 3)))
CASE (conv_add_relu, heddle_relu (b, heddle_add (b, conv (c, 1, 1, 1, 1, 3), X (3))))
CASE (conv_0, conv (c, 1, 0, 1, 1, 3))
CASE (conv_2, conv (c, 1, 2, 1, 1, 3))
CASE (conv_s2, conv (c, 2, 1, 1, 1, 2))
CASE (conv_s2p0, conv (c, 2, 0, 1, 1, 2))
CASE (conv_d2, conv (c, 1, 2, 2, 1, 3))
CASE (conv_g2, conv (c, 1, 1, 1, 2, 3))
CASE (conv_g32, conv (c, 1, 1, 1, 32, 2))
CASE (conv_g32_s2, conv (c, 2, 1, 1, 32, 2))
CASE (conv_g6, conv (c, 1, 1, 1, 6, 2))
static HeddleValue *
conv_t (Case *c, gint64 stride, gint64 padding, gint64 output_padding, gint64 dilation, gint64 groups, guint n)
{
  HeddleConvAttr attr = { .stride = { stride, stride }, .padding = { padding, padding }, .dilation = { dilation, dilation }, .groups = groups,
                          .output_padding = { output_padding, output_padding } };
  return heddle_emit (c->b, HEDDLE_OP_CONV_TRANSPOSE2D, "up", c->in, n, &attr, sizeof attr);
}
CASE (conv_t, conv_t (c, 1, 1, 0, 1, 1, 3))
CASE (conv_t_s2, conv_t (c, 2, 1, 1, 1, 1, 3))
CASE (conv_t_s2_bare, conv_t (c, 2, 0, 0, 1, 1, 2))
CASE (conv_t_d2, conv_t (c, 3, 2, 2, 2, 1, 3))
CASE (conv_t_g2, conv_t (c, 2, 1, 0, 1, 2, 3))
CASE (nearest, heddle_upsample (b, X (0), 14, 9, FALSE))
CASE (nearest_blocked, heddle_upsample (b, conv (c, 1, 1, 1, 1, 3), 15, 11, FALSE))
CASE (bilinear, heddle_upsample (b, X (0), 10, 13, TRUE))
CASE (bilinear_down, heddle_upsample (b, X (0), 4, 3, TRUE))
CASE (bilinear_blocked, heddle_upsample (b, conv (c, 1, 1, 1, 1, 3), 14, 18, TRUE))

/* the denominator is compared too */
static HeddleValue *
mean_loss (Case *c, HeddleOpCode op, gconstpointer attr, gsize size, guint n)
{
  HeddleValue *out[2];
  c->b->iface->emit (c->b, op, "loss", c->in, n, attr, size, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
#define KL(...) mean_loss (c, HEDDLE_OP_KL_DIV, &(HeddleKlDivAttr) { __VA_ARGS__ }, sizeof (HeddleKlDivAttr), 2)
#define SMOOTH(beta) mean_loss (c, HEDDLE_OP_SMOOTH_L1, &(HeddleSmoothL1Attr) { beta }, sizeof (HeddleSmoothL1Attr), 2)
CASE (bce, mean_loss (c, HEDDLE_OP_BCE_WITH_LOGITS, NULL, 0, 2))
CASE (bce_weight, mean_loss (c, HEDDLE_OP_BCE_WITH_LOGITS, NULL, 0, 3))
CASE (l1, mean_loss (c, HEDDLE_OP_L1, NULL, 0, 2))
CASE (smooth_l1, SMOOTH (0.7))
CASE (smooth_l1_0, SMOOTH (0))
CASE (kl, KL (0, 0))
CASE (kl_batch, KL (0, 1))
CASE (kl_log, KL (1, 1))
CASE (conv_relu_pool, heddle_max_pool (b, heddle_relu (b, conv (c, 1, 1, 1, 1, 3)), .kernel = 2))

static HeddleValue *
batch_norm (Case *c, gboolean training)
{
  HeddleBatchNormAttr attr = { 1e-5, 0.1, training };
  HeddleValue *out[5];
  c->b->iface->emit (c->b, HEDDLE_OP_BATCH_NORM, "bn", c->in, 5, &attr, sizeof attr, out, 5);
  c->extra[0] = out[3];
  c->extra[1] = out[4];
  return out[0];
}
CASE (bn, batch_norm (c, TRUE))
CASE (bn_eval, batch_norm (c, FALSE))
CASE (bn_relu, heddle_relu (b, batch_norm (c, TRUE)))
CASE (bn_relu_pool, heddle_avg_pool (b, heddle_relu (b, batch_norm (c, TRUE)), .kernel = 2))
CASE (bn_add_relu_pool, heddle_avg_pool (b, heddle_relu (b, heddle_add (b, batch_norm (c, TRUE), X (5))), .kernel = 2))

static HeddleValue *
cross_entropy (Case *c, double smoothing, gint64 ignore, guint n)
{
  HeddleCrossEntropyAttr attr = { smoothing, ignore };
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_CROSS_ENTROPY, "loss", c->in, n, &attr, sizeof attr, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
CASE (ce, cross_entropy (c, 0, -100, 2))
CASE (ce_smooth, cross_entropy (c, 0.1, -100, 2))
CASE (ce_ignore, cross_entropy (c, 0.1, 2, 2))
CASE (ce_all_ignored, cross_entropy (c, 0, 0, 2))
static HeddleValue *
build_ce_weights (Case *c)
{
  /* the class weights are data, not something to differentiate by: cut their gradient */
  c->in[2] = heddle_cast (c->b, heddle_cast (c->b, c->in[2], HEDDLE_I32), HEDDLE_F32);
  return cross_entropy (c, 0.1, 2, 3);
}
static HeddleValue *
build_mse (Case *c)
{
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_MSE, "loss", c->in, 2, NULL, 0, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
static HeddleValue *
top_k (Case *c, gint64 k)
{
  HeddleTopKAttr attr = { k };
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_TOP_K, "top", c->in, 2, &attr, sizeof attr, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
CASE (top_1, top_k (c, 1))
CASE (top_3, top_k (c, 3))
static HeddleValue *
build_norm_stats (Case *c)
{
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_NORM_STATS, "norm", c->in, 1, NULL, 0, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
/* parameters of 5, 3 x 17 and 70001 elements: two gaps, which X is not 0 in, and more than one block */
#define GROUP_N (16 + 64 + 70016)
static HeddleValue *
group_param (Case *c)
{
  HeddleVariables *vars = heddle_builder_variables (c->b);
  HeddleInit init = { HEDDLE_INIT_DEFAULT, 0, 0 };
  heddle_param (c->b, "five", heddle_shape (5), init);
  heddle_param (c->b, "matrix", heddle_shape (3, 17), init);
  heddle_param (c->b, "long", heddle_shape (70001), init);
  heddle_variables_group (vars, FALSE);
  g_assert_cmpint (heddle_variables_nth_group (vars, 0)->n, ==, GROUP_N);
  return heddle_builder_variable (c->b, heddle_variables_nth_group (vars, 0)->param);
}
static HeddleValue *
param_sum (Case *c, gboolean squares)
{
  HeddleParamSumAttr attr = { squares };
  HeddleValue *in[] = { c->in[0], group_param (c) };
  return heddle_emit (c->b, HEDDLE_OP_PARAM_SUM, "sum", in, 2, &attr, sizeof attr);
}
CASE (param_sum, param_sum (c, FALSE))
CASE (param_squares, param_sum (c, TRUE))
static HeddleValue *
build_param_spread (Case *c)
{
  HeddleValue *in[] = { c->in[0], group_param (c) };
  return heddle_mul (c->b, heddle_emit (c->b, HEDDLE_OP_PARAM_SPREAD, "spread", in, 2, NULL, 0), heddle_constant (c->b, 1));
}
static HeddleValue *
build_dequantize (Case *c)
{
  HeddleDequantizeAttr attr = { 1 / 255.0, 3, { 0.1, 0.2, 0.3 }, { 0.5, 0.6, 0.7 } };
  return heddle_emit (c->b, HEDDLE_OP_DEQUANTIZE, "image", c->in, 1, &attr, sizeof attr);
}
static HeddleValue *
build_scaler (Case *c)
{
  HeddleScalerAttr attr = { 2, 0.5, 3, 1 };
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_SCALER_UPDATE, "scale", c->in, 3, &attr, sizeof attr, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
/* reads of a variable before an ASSIGN see the old numbers, later ones the new; a skipped one changes nothing */
static HeddleValue *
build_assign (Case *c)
{
  HeddleValue *v = heddle_state (c->b, "counter", heddle_shape_of (c->b, X (0)), 0), *old = heddle_add (c->b, v, X (0));
  heddle_assign (c->b, v, old);
  HeddleValue *twice = heddle_add (c->b, v, v);
  heddle_builder_assign (c->b, v, X (1), heddle_constant (c->b, 1));
  HeddleValue *kept = heddle_add (c->b, v, twice);
  heddle_builder_assign (c->b, v, X (1), heddle_constant (c->b, 0));
  c->extra[0] = heddle_mul (c->b, v, heddle_constant (c->b, 1));
  return kept;
}
/* ---- sequences ---- */

static HeddleValue *
norm (Case *c, HeddleOpCode op, gint32 axes, guint n)
{
  HeddleLayerNormAttr attr = { 1e-5, axes };
  HeddleValue *out[3] = { NULL };
  c->b->iface->emit (c->b, op, "norm", c->in, n, &attr, sizeof attr, out, 3);
  c->extra[0] = out[1];
  c->extra[1] = out[2];
  return out[0];
}
CASE (layer_norm, norm (c, HEDDLE_OP_LAYER_NORM, 1, 3))
CASE (layer_norm_2, norm (c, HEDDLE_OP_LAYER_NORM, 2, 3))
CASE (layer_norm_no_shift, norm (c, HEDDLE_OP_LAYER_NORM, 1, 2))
CASE (layer_norm_plain, norm (c, HEDDLE_OP_LAYER_NORM, 1, 1))
CASE (rms_norm, norm (c, HEDDLE_OP_RMS_NORM, 1, 2))
CASE (rms_norm_plain, norm (c, HEDDLE_OP_RMS_NORM, 2, 1))
static HeddleValue *
group_norm (Case *c, gint64 groups, guint n)
{
  HeddleGroupNormAttr attr = { 1e-5, groups };
  HeddleValue *out[3] = { NULL };
  c->b->iface->emit (c->b, HEDDLE_OP_GROUP_NORM, "norm", c->in, n, &attr, sizeof attr, out, 3);
  c->extra[0] = out[1];
  c->extra[1] = out[2];
  return out[0];
}
CASE (group_norm, group_norm (c, 3, 3))
CASE (group_norm_1, group_norm (c, 1, 1))
CASE (group_norm_conv, heddle_relu (b, heddle_group_norm (b, "gn", heddle_conv2d (b, "conv", X (0), .channels = 16, .kernel = 3), .groups = 4)))
CASE (embedding, heddle_embedding_op (b, X (0), X (1)))
CASE (linear_last, heddle_emit (b, HEDDLE_OP_LINEAR, "fc", c->in, 3, NULL, 0))
CASE (permute, heddle_permute (b, X (0), 0, 2, 1, 3))
CASE (permute_last, heddle_permute (b, X (0), 2, 0, 1))
CASE (transpose, heddle_transpose (b, X (0), -1, 0))
CASE (permute_blocked, heddle_permute (b, heddle_relu (b, heddle_conv2d (b, "conv", X (0), .channels = 16, .kernel = 3)), 0, 2, 3, 1))
CASE (permute_u8, heddle_cast (b, heddle_permute (b, X (0), 0, 3, 1, 2), HEDDLE_F32))
CASE (concat, heddle_concat (b, c->in, 3, 1))
CASE (concat_last, heddle_concat (b, c->in, 2, -1))
CASE (concat_twice, heddle_concat (b, (HeddleValue *[]) { X (0), X (0), X (1) }, 3, 0))
CASE (slice, heddle_slice (b, X (0), 1, 2, -1))
CASE (slice_rest, heddle_slice (b, X (0), -1, -3, 0))
CASE (slice_step, heddle_slice_step (b, heddle_slice_step (b, X (0), 2, 1, 0, 3), 0, 0, 0, 2))
CASE (pad, heddle_pad (b, heddle_pad (b, X (0), 1, 2, 1, 0.75), -1, 0, 3, 0))
static HeddleValue *
attention (Case *c, gboolean causal, double scale)
{
  HeddleAttentionAttr attr = { scale, causal };
  HeddleValue *out[2];
  c->b->iface->emit (c->b, HEDDLE_OP_ATTENTION, "attention", c->in, 3, &attr, sizeof attr, out, 2);
  c->extra[0] = out[1];
  return out[0];
}
CASE (attention, attention (c, FALSE, 0))
CASE (attention_causal, attention (c, TRUE, 0))
CASE (attention_scale, attention (c, FALSE, 1.75))
/* one input that is query, key and value: its gradient is a sum of three */
CASE (attention_self, heddle_scaled_dot_product_attention (b, X (0), X (0), X (0), TRUE, 0))
CASE (attention_f16, heddle_cast (b, heddle_scaled_dot_product_attention (b, heddle_cast (b, X (0), HEDDLE_F16), heddle_cast (b, X (1), HEDDLE_F16),
                                                                          heddle_cast (b, X (2), HEDDLE_F16), TRUE, 0), HEDDLE_F32))
CASE (layer_norm_bf16, heddle_cast (b, heddle_layer_norm (b, "ln", heddle_cast (b, X (0), HEDDLE_BF16), .no_affine = TRUE), HEDDLE_F32))
/* a transformer block as a model writes it, every layer form; weights are tied */
static HeddleValue *
build_block (Case *c)
{
  HeddleBuilder *b = c->b;
  HeddleShape s = heddle_shape (2, 7, 2, 5);                          /* (B, T, H, D) */
  HeddleValue *x = heddle_embedding (b, "wte", X (0), .count = 11, .features = 10, .init = { HEDDLE_INIT_NORMAL, 0, 0.5 }), *heads[3];
  HeddleValue *table = heddle_param (b, "wte.weight", heddle_shape (11, 10), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.5 });
  HeddleValue *qkv = heddle_linear (b, "qkv", heddle_layer_norm (b, "ln_1", x), .features = 30, .last_axis = TRUE);
  for (guint i = 0; i < 3; i++)
    heads[i] = heddle_permute (b, heddle_reshape (b, heddle_slice (b, qkv, -1, 10 * i, 10 * i + 10), s), 0, 2, 1, 3);
  HeddleValue *y = heddle_permute (b, heddle_scaled_dot_product_attention (b, heads[0], heads[1], heads[2], TRUE, 0), 0, 2, 1, 3);
  x = heddle_add (b, x, heddle_linear (b, "proj", heddle_reshape (b, y, heddle_shape (2, 7, 10)), .features = 10, .last_axis = TRUE));
  x = heddle_add (b, x, heddle_linear (b, "fc", heddle_gelu_tanh (b, heddle_rms_norm (b, "ln_2", x)), .features = 10, .last_axis = TRUE));
  return heddle_mul (b, heddle_linear_op (b, x, table, NULL), X (1));
}
/* an operation that a plugin brings: the harness needs its builder call and its formula in double precision, no more */
static HeddleValue *
build_custom (Case *c)
{
  SwishAttr attr = { 1.5 };
  HeddleValue *y = NULL;
  heddle_custom (c->b, "act", &swish, c->in, 1, &attr, sizeof attr, &y, 1);
  return y;
}
static HeddleValue *
custom_in (Case *c, HeddleDtype dtype)
{
  SwishAttr attr = { 0.75 };
  HeddleValue *x = heddle_cast (c->b, c->in[0], dtype), *y = NULL;
  heddle_custom (c->b, "act", &swish, &x, 1, &attr, sizeof attr, &y, 1);
  return heddle_cast (c->b, y, HEDDLE_F32);
}
static HeddleValue *build_custom_f16 (Case *c) { return custom_in (c, HEDDLE_F16); }
static HeddleValue *build_custom_bf16 (Case *c) { return custom_in (c, HEDDLE_BF16); }
/* autocast: matrix products and convolutions in 16 bits, norms of rows between them and the loss in f32 */
static HeddleValue *
low_network (Case *c, HeddleDtype low)
{
  heddle_builder_set_autocast (c->b, low);
  HeddleValue *x = heddle_conv2d (c->b, "conv", X (0), .channels = 8, .kernel = 3, .padding = 1);
  x = heddle_batch_norm (c->b, "bn", x);
  x = heddle_linear (c->b, "fc", heddle_max_pool (c->b, heddle_relu (c->b, x), .kernel = 2), .features = 6);
  x = heddle_linear (c->b, "fc3", heddle_rms_norm (c->b, "rms", heddle_linear (c->b, "fc2", heddle_layer_norm (c->b, "ln", x), .features = 6)), .features = 5);
  heddle_builder_set_autocast (c->b, 0);
  return x;
}
CASE (low_f16, low_network (c, HEDDLE_F16))
CASE (low_bf16, low_network (c, HEDDLE_BF16))

#define F(...) { HEDDLE_F32, heddle_shape (__VA_ARGS__), -2, 2 }
#define UNIT(...) { HEDDLE_F32, heddle_shape (__VA_ARGS__), 0.05, 0.95 }
#define WIDE(...) { HEDDLE_F32, heddle_shape (__VA_ARGS__), -6, 6 }
#define POSITIVE(...) { HEDDLE_F32, heddle_shape (__VA_ARGS__), 0.3, 3 }
#define LABELS(n, k) { HEDDLE_I64, heddle_shape (n), 0, k }
#define SCALAR(lo, hi) { HEDDLE_F32, { 0 }, lo, hi }

static const Entry entries[] = {
  { "add", build_add, 2, { F (3, 5, 7), F (3, 5, 7) } }, { "add/broadcast", build_add, 2, { F (3, 1, 7), F (5, 1) } }, { "add/scalar", build_add, 2, { F (3, 5), SCALAR (-1, 1) } },
  { "sub", build_sub, 2, { F (37), F (37) } }, { "sub/broadcast", build_sub, 2, { F (7), F (3, 5, 7) } }, { "mul", build_mul, 2, { F (2, 3, 4, 5), F (2, 3, 4, 5) } },
  { "mul/broadcast", build_mul, 2, { F (2, 3, 4, 5), F (3, 1, 1) } }, { "mul/large", build_mul, 2, { F (41, 1009), F (41, 1009) } }, { "div", build_div, 2, { F (11, 13), POSITIVE (11, 13) } },
  { "div/broadcast", build_div, 2, { F (11, 13), POSITIVE (13) } }, { "max", build_max, 2, { F (29), F (29) } }, { "max/broadcast", build_max, 2, { F (4, 29), F (29) } },
  { "min", build_min, 2, { F (29), F (29) } }, { "greater", build_greater, 2, { F (29), F (29) }, TRUE }, { "select", build_select, 3, { F (31), F (31), F (31) } },
  { "select/broadcast", build_select, 3, { F (3, 31), F (31), SCALAR (1, 2) } }, { "neg", build_neg, 1, { F (17) } }, { "abs", build_abs, 1, { F (17) } }, { "sign", build_sign, 1, { F (17) }, TRUE },
  { "exp", build_exp, 1, { F (17) } }, { "expm1", build_expm1, 1, { F (17) } }, { "log", build_log, 1, { POSITIVE (17) } }, { "sqrt", build_sqrt, 1, { POSITIVE (17) } },
  { "rsqrt", build_rsqrt, 1, { POSITIVE (17) } }, { "square", build_square, 1, { F (17) } }, { "reciprocal", build_reciprocal, 1, { POSITIVE (17) } }, { "relu", build_relu, 1, { F (3, 17) } },
  { "sigmoid", build_sigmoid, 1, { F (17) } }, { "tanh", build_tanh, 1, { F (17) } }, { "gelu", build_gelu, 1, { F (17) } }, { "gelu/tanh", build_gelu_tanh, 1, { F (17) } },
  { "silu", build_silu, 1, { WIDE (3, 17) } }, { "hardswish", build_hardswish, 1, { WIDE (7, 17) } }, { "leaky_relu", build_leaky_relu, 1, { F (3, 17) } }, { "clamp", build_clamp, 1, { F (3, 17) } },
  { "relu6/chain", build_relu6_chain, 2, { WIDE (5, 7, 11), WIDE (5, 7, 11) } }, { "relu6/blocks", build_relu6_chain, 2, { WIDE (2, 16, 32), WIDE (2, 16, 32) } },
  { "conv_transpose2d", build_conv_t, 3, { F (2, 3, 5, 7), F (3, 5, 3, 3), F (5) } }, { "conv_transpose2d/wide", build_conv_t, 3, { F (2, 33, 5, 7), F (33, 17, 3, 3), F (17) } },
  { "conv_transpose2d/blocked", build_conv_t_s2, 3, { F (2, 32, 5, 7), F (32, 16, 3, 3), F (16) } }, { "conv_transpose2d/stride", build_conv_t_s2, 3, { F (2, 5, 4, 3), F (5, 3, 4, 4), F (3) } },
  { "conv_transpose2d/bare", build_conv_t_s2_bare, 2, { F (2, 16, 4, 5), F (16, 16, 2, 2) } }, { "conv_transpose2d/dilated", build_conv_t_d2, 3, { F (2, 5, 4, 3), F (5, 7, 3, 3), F (7) } },
  { "conv_transpose2d/groups", build_conv_t_g2, 3, { F (2, 6, 5, 4), F (6, 5, 3, 3), F (10) } }, { "conv_transpose2d/groups blocked", build_conv_t_g2, 3, { F (2, 32, 5, 4), F (32, 16, 3, 3), F (32) } },
  { "conv2d/depthwise blocked", build_conv_g32, 2, { F (2, 32, 9, 11), F (32, 1, 3, 3) } }, { "conv2d/depthwise stride", build_conv_g32_s2, 2, { F (2, 32, 9, 12), F (32, 1, 3, 3) } },
  { "upsample/nearest", build_nearest, 1, { F (2, 3, 7, 4) } }, { "upsample/nearest blocked", build_nearest_blocked, 3, { F (2, 16, 5, 7), F (16, 16, 3, 3), F (16) } },
  { "upsample/bilinear", build_bilinear, 1, { F (2, 3, 5, 7) } }, { "upsample/smaller", build_bilinear_down, 1, { F (2, 3, 7, 8) } }, { "upsample/one pixel", build_bilinear, 1, { F (2, 3, 1, 1) } },
  { "upsample/bilinear blocked", build_bilinear_blocked, 3, { F (2, 16, 7, 9), F (16, 16, 3, 3), F (16) } },
  { "bce_with_logits", build_bce, 2, { WIDE (5, 7), UNIT (5, 7) } }, { "bce_with_logits/large", build_bce, 2, { WIDE (11, 4099), UNIT (11, 4099) } },
  { "bce_with_logits/far", build_bce, 2, { { HEDDLE_F32, heddle_shape (31), -90, 90 }, UNIT (31) } },
  { "bce_with_logits/weights", build_bce_weight, 3, { WIDE (5, 16), UNIT (5, 16), POSITIVE (16) } }, { "bce_with_logits/one weight", build_bce_weight, 3, { WIDE (5, 7), UNIT (5, 7), SCALAR (2, 3) } },
  { "l1", build_l1, 2, { F (5, 7), F (5, 7) } }, { "l1/large", build_l1, 2, { F (3, 3, 61, 67), F (3, 3, 61, 67) } },
  { "smooth_l1", build_smooth_l1, 2, { F (5, 7), F (5, 7) } }, { "smooth_l1/beta 0", build_smooth_l1_0, 2, { F (16, 16), F (16, 16) } },
  { "kl_div", build_kl, 2, { WIDE (5, 7), UNIT (5, 7) } }, { "kl_div/batch", build_kl_batch, 2, { WIDE (5, 3, 7), UNIT (5, 3, 7) } }, { "kl_div/log", build_kl_log, 2, { WIDE (16, 16), F (16, 16) } },
  { "cast/f16", build_cast16, 1, { F (3001) } }, { "cast/bf16", build_castb16, 1, { F (3001) } }, { "cast/i64", build_cast_int, 1, { LABELS (13, 100) }, TRUE },
  { "chain", build_chain, 2, { F (5, 7, 11), F (5, 7, 11) } }, { "chain/large", build_chain, 2, { F (50021), F (50021) } },
  { "reshape", build_reshape, 2, { F (3, 4, 5), F (6, 10) } }, { "flatten/blocked", build_flatten_blocked, 1, { F (2, 8, 3, 5) } },
  { "sum", build_sum_all, 1, { F (3, 5, 7) } }, { "sum/1", build_sum_1, 1, { F (3, 5, 7) } }, { "sum/1 of wide", build_sum_1, 1, { F (3, 37, 65) } }, { "sum/1 of long", build_sum_1, 1, { F (2, 1100, 33) } },
  { "sum/0,2", build_sum_02, 1, { F (3, 5, 7) } }, { "mean/2,3", build_mean_23, 1, { F (3, 16, 5, 7) } },
  { "mean/plain", build_mean_23, 1, { F (3, 5, 5, 7) } }, { "mean", build_mean_all, 1, { F (3, 5) } },
  { "matmul", build_matmul, 2, { F (5, 7), F (7, 3) } }, { "matmul/ta", build_matmul_ta, 2, { F (7, 5), F (7, 3) } }, { "matmul/tb", build_matmul_tb, 2, { F (5, 7), F (3, 7) } },
  { "matmul/tt", build_matmul_tt, 2, { F (7, 5), F (3, 7) } }, { "linear", build_linear, 3, { F (5, 7), F (3, 7), F (3) } }, { "linear/1", build_linear, 3, { F (1, 33), F (17, 33), F (17) } },
  { "linear/many rows", build_linear, 3, { F (1100, 3), F (40, 3), F (40) } }, { "linear/no bias", build_linear_no_bias, 2, { F (5, 7), F (3, 7) } },
  { "linear/last axis", build_linear_last, 3, { F (2, 3, 7), F (5, 7), F (5) } }, { "linear/last axis, 4-d", build_linear_last, 3, { F (2, 16, 3, 16), F (32, 16), F (32) } },
  { "linear/large", build_linear_last, 3, { F (2, 150, 33), F (130, 33), F (130) } },
  { "matmul/batch", build_matmul, 2, { F (2, 3, 5, 7), F (2, 3, 7, 4) } }, { "matmul/batch ta", build_matmul_ta, 2, { F (3, 7, 5), F (3, 7, 4) } },
  { "matmul/batch tb", build_matmul_tb, 2, { F (3, 5, 7), F (3, 4, 7) } }, { "matmul/batch tt", build_matmul_tt, 2, { F (3, 7, 5), F (3, 4, 7) } },
  { "matmul/shared", build_matmul, 2, { F (2, 3, 5, 7), F (7, 4) } }, { "matmul/shared ta", build_matmul_ta, 2, { F (3, 7, 5), F (7, 4) } },
  { "matmul/shared tb", build_matmul_tb, 2, { F (3, 5, 7), F (4, 7) } }, { "matmul/shared tt", build_matmul_tt, 2, { F (3, 7, 5), F (4, 7) } },
  { "matmul/batch large", build_matmul, 2, { F (8, 48, 64), F (8, 64, 96) } },
  { "layer_norm", build_layer_norm, 3, { F (3, 5, 7), F (7), F (7) } }, { "layer_norm/blocks", build_layer_norm, 3, { F (160, 256), F (256), F (256) } },
  { "layer_norm/long", build_layer_norm, 3, { F (3, 9001), F (9001), F (9001) } }, { "layer_norm/two axes", build_layer_norm_2, 3, { F (37, 5, 7), F (5, 7), F (5, 7) } },
  { "layer_norm/no shift", build_layer_norm_no_shift, 2, { F (17, 33), F (33) } }, { "layer_norm/plain", build_layer_norm_plain, 1, { F (17, 32) } },
  { "layer_norm/4-d", build_layer_norm, 3, { F (2, 16, 3, 16), F (16), F (16) } }, { "layer_norm/bf16", build_layer_norm_bf16, 1, { F (17, 33) } },
  { "layer_norm/vector", build_layer_norm_plain, 1, { F (19) } }, { "rms_norm", build_rms_norm, 2, { F (3, 5, 7), F (7) } }, { "rms_norm/blocks", build_rms_norm, 2, { F (160, 256), F (256) } },
  { "rms_norm/plain", build_rms_norm_plain, 1, { F (5, 3, 11) } }, { "group_norm", build_group_norm, 3, { F (3, 6, 5, 7), F (6), F (6) } },
  { "group_norm/large", build_group_norm, 3, { F (4, 48, 16, 16), F (48), F (48) } }, { "group_norm/2-d", build_group_norm, 3, { F (13, 12), F (12), F (12) } },
  { "group_norm/one", build_group_norm_1, 1, { F (3, 5, 7) } }, { "group_norm/blocked", build_group_norm_conv, 1, { F (2, 8, 7, 9) } },
  { "embedding", build_embedding, 2, { LABELS (13, 7), F (7, 5) } }, { "embedding/2-d", build_embedding, 2, { { HEDDLE_I32, heddle_shape (3, 5), 0, 9 }, F (9, 16) } },
  { "embedding/u8", build_embedding, 2, { { HEDDLE_U8, heddle_shape (8, 64), 0, 200 }, F (200, 130) } }, { "embedding/many", build_embedding, 2, { { HEDDLE_I32, heddle_shape (5, 257), 0, 9 }, F (9, 516) } }, { "embedding/scalar", build_embedding, 2, { { HEDDLE_I64, { 0 }, 0, 7 }, F (7, 5) } },
  { "permute", build_permute, 1, { F (2, 3, 5, 7) } }, { "permute/heads", build_permute, 1, { F (2, 64, 16, 32) } }, { "permute/pairs", build_permute, 1, { F (2, 3, 5, 6) } }, { "permute/last", build_permute_last, 1, { F (5, 7, 11) } },
  { "permute/large", build_permute_last, 1, { F (33, 40, 50) } }, { "permute/blocked", build_permute_blocked, 1, { F (2, 8, 7, 9) } },
  { "permute/u8", build_permute_u8, 1, { { HEDDLE_U8, heddle_shape (2, 3, 5, 7), 0, 256 } }, TRUE }, { "transpose", build_transpose, 1, { F (37, 50) } },
  { "transpose/3-d", build_transpose, 1, { F (5, 7, 11) } }, { "concat", build_concat, 3, { F (2, 3, 5), F (2, 1, 5), F (2, 7, 5) } }, { "concat/last", build_concat_last, 2, { F (2, 3, 5), F (2, 3, 4) } },
  { "concat/twice", build_concat_twice, 2, { F (2, 3), F (4, 3) } }, { "slice", build_slice, 1, { F (3, 7, 5) } }, { "slice/fours", build_slice, 1, { F (3, 7, 12) } }, { "slice/rest", build_slice_rest, 1, { F (3, 7, 5) } },
  { "slice/step", build_slice_step, 1, { F (5, 3, 11) } }, { "pad", build_pad, 1, { F (3, 5, 7) } },
  { "attention", build_attention, 3, { F (2, 3, 7, 5), F (2, 3, 7, 5), F (2, 3, 7, 5) } }, { "attention/causal", build_attention_causal, 3, { F (2, 3, 7, 5), F (2, 3, 7, 5), F (2, 3, 7, 5) } },
  { "attention/cross", build_attention, 3, { F (1, 2, 5, 3), F (1, 2, 9, 3), F (1, 2, 9, 6) } }, { "attention/scale", build_attention_scale, 3, { F (2, 1, 5, 3), F (2, 1, 5, 3), F (2, 1, 5, 3) } },
  { "attention/tiles", build_attention, 3, { F (1, 2, 133, 9), F (1, 2, 70, 9), F (1, 2, 70, 17) } }, { "attention/causal tiles", build_attention_causal, 3, { F (1, 2, 133, 9), F (1, 2, 133, 9), F (1, 2, 133, 9) } },
  { "attention/causal, more keys", build_attention_causal, 3, { F (1, 1, 5, 4), F (1, 1, 150, 4), F (1, 1, 150, 4) } }, { "attention/causal, more queries", build_attention_causal, 3, { F (1, 1, 150, 4), F (1, 1, 70, 4), F (1, 1, 70, 4) } },
  { "attention/whole tiles", build_attention_causal, 3, { F (2, 2, 128, 16), F (2, 2, 128, 16), F (2, 2, 128, 16) } }, { "attention/self", build_attention_self, 1, { F (1, 2, 6, 4) } },
  { "attention/one", build_attention_causal, 3, { F (1, 1, 1, 1), F (1, 1, 1, 1), F (1, 1, 1, 1) } }, { "attention/f16", build_attention_f16, 3, { F (1, 2, 9, 8), F (1, 2, 9, 8), F (1, 2, 9, 8) } },
  { "transformer block", build_block, 2, { { HEDDLE_I64, heddle_shape (2, 7), 0, 11 }, F (2, 7, 11) } },
  { "softmax", build_softmax, 1, { F (5, 7) } }, { "softmax/1", build_softmax_1, 1, { F (3, 5, 7) } }, { "log_softmax", build_log_softmax, 1, { F (5, 7) } },
  { "log_softmax/0", build_log_softmax_0, 1, { F (5, 7) } },
  { "max_pool", build_max_pool, 1, { F (2, 3, 7, 9) } }, { "max_pool/blocked", build_conv_relu_pool, 3, { F (2, 8, 7, 9), F (16, 8, 3, 3), F (16) } },
  { "max_pool/even", build_conv_relu_pool, 3, { F (2, 8, 8, 10), F (16, 8, 3, 3), F (16) } }, { "max_pool/3", build_max_pool_3, 1, { F (2, 3, 7, 9) } },
  { "avg_pool", build_avg_pool, 1, { F (2, 3, 7, 9) } }, { "avg_pool/inside", build_avg_pool_inside, 1, { F (2, 3, 7, 9) } },
  { "conv2d/relu", build_conv_relu, 3, { F (2, 3, 5, 7), F (4, 3, 3, 3), F (4) } },
  { "conv2d/add, relu", build_conv_add_relu, 4, { F (2, 3, 5, 7), F (4, 3, 3, 3), F (4), F (2, 4, 5, 7) } },
  { "conv2d/small", build_conv_3, 3, { F (2, 3, 7, 9), F (5, 3, 3, 3), F (5) } }, { "conv2d/lenet", build_conv_2, 3, { F (3, 1, 28, 28), F (6, 1, 5, 5), F (6) } },
  { "conv2d/lenet 2", build_conv_0, 3, { F (3, 6, 14, 14), F (16, 6, 5, 5), F (16) } }, { "conv2d/wide", build_conv_0, 3, { F (2, 2, 5, 37), F (3, 2, 2, 7), F (3) } },
  { "conv2d/7", build_conv_2, 3, { F (2, 3, 11, 9), F (7, 3, 7, 7), F (7) } }, { "conv2d/1x1", build_conv_0, 3, { F (2, 5, 6, 7), F (9, 5, 1, 1), F (9) } },
  { "conv2d/blocked", build_conv_3, 3, { F (2, 16, 7, 9), F (8, 16, 3, 3), F (8) } }, { "conv2d/first", build_conv_3, 3, { F (2, 3, 9, 9), F (16, 3, 3, 3), F (16) } },
  { "conv2d/stride", build_conv_s2, 2, { F (2, 8, 9, 11), F (16, 8, 3, 3) } }, { "conv2d/stride odd", build_conv_s2, 2, { F (2, 5, 10, 12), F (7, 5, 3, 3) } },
  { "conv2d/stride, rest", build_conv_s2p0, 2, { F (2, 8, 10, 12), F (8, 8, 3, 3) } }, { "conv2d/1x1 stride", build_conv_s2p0, 2, { F (2, 8, 9, 9), F (16, 8, 1, 1) } },
  { "conv2d/dilated", build_conv_d2, 3, { F (2, 5, 9, 11), F (7, 5, 3, 3), F (7) } }, { "conv2d/groups", build_conv_g2, 3, { F (2, 6, 7, 9), F (10, 3, 3, 3), F (10) } },
  { "conv2d/groups blocked", build_conv_g2, 3, { F (2, 16, 7, 9), F (32, 8, 3, 3), F (32) } }, { "conv2d/depthwise", build_conv_g6, 2, { F (2, 6, 7, 9), F (6, 1, 3, 3) } },
  { "batch_norm", build_bn, 5, { F (3, 5, 7, 9), F (5), F (5), F (5), POSITIVE (5) }, .whole = 0x1e }, { "batch_norm/2-d", build_bn, 5, { F (13, 5), F (5), F (5), F (5), POSITIVE (5) }, .whole = 0x1e },
  { "batch_norm/relu", build_bn_relu, 5, { F (3, 5, 7, 9), F (5), F (5), F (5), POSITIVE (5) }, .whole = 0x1e },
  { "batch_norm/relu, pool", build_bn_relu_pool, 5, { F (3, 5, 6, 8), F (5), F (5), F (5), POSITIVE (5) }, .whole = 0x1e },
  { "batch_norm/add, relu, pool", build_bn_add_relu_pool, 6, { F (3, 5, 7, 9), F (5), F (5), F (5), POSITIVE (5), F (3, 5, 7, 9) }, .whole = 0x1e },
  { "batch_norm/eval", build_bn_eval, 5, { F (3, 5, 7, 9), F (5), F (5), F (5), POSITIVE (5) }, TRUE, 0x1e },
  { "cross_entropy", build_ce, 2, { F (11, 7), LABELS (11, 7) } }, { "cross_entropy/smoothing", build_ce_smooth, 2, { F (11, 7), LABELS (11, 7) } },
  { "cross_entropy/many classes", build_ce, 2, { F (5, 1100), LABELS (5, 1100) } },
  { "cross_entropy/ignore", build_ce_ignore, 2, { F (31, 4), LABELS (31, 4) } }, { "cross_entropy/all ignored", build_ce_all_ignored, 2, { F (5, 4), LABELS (5, 1) } },
  { "cross_entropy/weights", build_ce_weights, 3, { F (31, 4), LABELS (31, 4), { HEDDLE_F32, heddle_shape (4), 1, 9 } }, TRUE },
  { "mse", build_mse, 2, { F (5, 7), F (5, 7) } }, { "top_k/1", build_top_1, 2, { F (53, 7), LABELS (53, 7) }, TRUE }, { "top_k/3", build_top_3, 2, { F (53, 7), LABELS (53, 7) }, TRUE },
  { "norm_stats", build_norm_stats, 1, { F (300007) }, TRUE }, { "dequantize", build_dequantize, 1, { { HEDDLE_U8, heddle_shape (3, 3, 5, 7), 0, 256 } }, TRUE },
  { "dropout", build_dropout, 1, { F (3, 1009) } }, { "scaler/good", build_scaler, 3, { SCALAR (64, 64), SCALAR (2, 2), SCALAR (0, 0) }, TRUE },
  { "scaler/bad", build_scaler, 3, { SCALAR (64, 64), SCALAR (2, 2), SCALAR (1, 1) }, TRUE }, { "scaler/beyond", build_scaler, 3, { SCALAR (64, 64), SCALAR (7, 7), SCALAR (0, 0) }, TRUE }, { "scaler/floor", build_scaler, 3, { SCALAR (1, 1), SCALAR (0, 0), SCALAR (1, 1) }, TRUE },
  { "custom", build_custom, 1, { F (3, 5, 1009) } },
  { "custom f16", build_custom_f16, 1, { F (3, 5, 7, 9) } },
  { "custom bf16", build_custom_bf16, 1, { F (201) } },
  { "param_sum", build_param_sum, 1, { F (GROUP_N) }, TRUE, ~0u }, { "param_sum/squares", build_param_squares, 1, { F (GROUP_N) }, TRUE, ~0u },
  { "param_spread", build_param_spread, 1, { F (3) }, TRUE, ~0u }, { "assign", build_assign, 2, { F (37), F (37) }, TRUE, ~0u }, { "autocast/f16", build_low_f16, 1, { F (4, 3, 8, 8) } }, { "autocast/bf16", build_low_bf16, 1, { F (4, 3, 8, 8) } },
};

static void
check_covered (const HeddleOpInfo *info, gpointer data)
{
  guint *missing = data;
  if (!covered[info->code])
    {
      g_test_message ("no case covers %s", info->name);
      (*missing)++;
    }
}

static void
test_coverage (void)
{
  guint missing = 0;
  heddle_op_each (check_covered, &missing);
  g_assert_cmpuint (missing, ==, 0);
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  heddle_options_init (heddle_flags_options (), &flags);
  device = heddle_device_open (test_device (), &flags, NULL, &error);
  g_assert_no_error (error);
  const char *dtype = g_getenv ("HEDDLE_TEST_DTYPE") ? g_getenv ("HEDDLE_TEST_DTYPE") : "f32";
  low = g_str_equal (dtype, "f16") ? HEDDLE_F16 : g_str_equal (dtype, "bf16") ? HEDDLE_BF16 : HEDDLE_F32;
  g_assert_true (low != HEDDLE_F32 || g_str_equal (dtype, "f32"));
  reference_custom ("swish", reference_swish);
  reference_custom ("swish_grad", reference_swish_grad);
  for (guint i = 0; i < G_N_ELEMENTS (entries); i++)
    {
      g_autofree char *path = g_strconcat ("/ops/", entries[i].name, NULL);
      g_test_add_data_func (path, &entries[i], test_entry);
    }
  g_test_add_func ("/ops covered/every operation", test_coverage);
  int status = g_test_run ();
  heddle_device_close (device);
  return status;
}
