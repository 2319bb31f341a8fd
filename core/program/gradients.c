/* program/gradients.c: the backward rule of each operation, emitted as operations.  Must not know backends. */
#include "program/rules.h"

#define RULE(name) void heddle_gradient_rule_##name (HeddleBuilder *b, HeddleOp *op, HeddleGradients dy, const gboolean *want, HeddleValue **dx)
#define X(i) (op->in[i])
#define Y (op->out[0])
#define UNUSED (void) b; (void) op; (void) dy; (void) want; (void) dx

/* Sums G over what broadcasting had expanded, so that it has the shape of X. */
static HeddleValue *
unbroadcast (HeddleBuilder *b, HeddleValue *g, HeddleValue *x)
{
  HeddleShape from = heddle_shape_of (b, g), to = heddle_shape_of (b, x);
  HeddleShapeAttr attr = { to };
  return !g || heddle_shape_equal (&from, &to) ? g : heddle_emit (b, HEDDLE_OP_SUM_TO, NULL, &g, 1, &attr, sizeof attr);
}

static HeddleValue *
emit2 (HeddleBuilder *b, HeddleOpCode code, HeddleValue *x, HeddleValue *y, gconstpointer attr, gsize size)
{
  HeddleValue *in[] = { x, y };
  return heddle_emit (b, code, NULL, in, 2, attr, size);
}

RULE (zero) { UNUSED; }

RULE (add)
{
  for (guint i = 0; i < 2; i++)
    dx[i] = want[i] ? unbroadcast (b, dy[0], X (i)) : NULL;
}

RULE (sub)
{
  dx[0] = want[0] ? unbroadcast (b, dy[0], X (0)) : NULL;
  dx[1] = want[1] ? heddle_neg (b, unbroadcast (b, dy[0], X (1))) : NULL;
}

RULE (mul)
{
  for (guint i = 0; i < 2; i++)
    dx[i] = want[i] ? unbroadcast (b, heddle_mul (b, dy[0], X (1 - i)), X (i)) : NULL;
}

RULE (div)
{
  dx[0] = want[0] ? unbroadcast (b, heddle_div (b, dy[0], X (1)), X (0)) : NULL;
  dx[1] = want[1] ? unbroadcast (b, heddle_neg (b, heddle_div (b, heddle_mul (b, dy[0], Y), X (1))), X (1)) : NULL;
}

/* Input 0's share: 1 where it wins, 1/2 on ties. */
static void
extremum (HeddleBuilder *b, HeddleOp *op, HeddleGradients dy, const gboolean *want, HeddleValue **dx, HeddleValue *above, HeddleValue *below)
{
  HeddleValue *share = heddle_scale (b, heddle_offset (b, heddle_sub (b, above, below), 1), 0.5);
  dx[0] = want[0] ? unbroadcast (b, heddle_mul (b, dy[0], share), X (0)) : NULL;
  dx[1] = want[1] ? unbroadcast (b, heddle_mul (b, dy[0], heddle_offset (b, heddle_neg (b, share), 1)), X (1)) : NULL;
}

RULE (max) { extremum (b, op, dy, want, dx, heddle_greater (b, X (0), X (1)), heddle_greater (b, X (1), X (0))); }
RULE (min) { extremum (b, op, dy, want, dx, heddle_greater (b, X (1), X (0)), heddle_greater (b, X (0), X (1))); }

RULE (select)
{
  HeddleValue *zero = heddle_constant (b, 0);
  dx[1] = want[1] ? unbroadcast (b, heddle_select (b, X (0), dy[0], zero), X (1)) : NULL;
  dx[2] = want[2] ? unbroadcast (b, heddle_select (b, X (0), zero, dy[0]), X (2)) : NULL;
}

#define SIMPLE(name, expression) RULE (name) { (void) want; (void) op; dx[0] = (expression); }
SIMPLE (neg, heddle_neg (b, dy[0]))
SIMPLE (abs, heddle_mul (b, dy[0], heddle_sign (b, X (0))))
SIMPLE (exp, heddle_mul (b, dy[0], Y))
SIMPLE (expm1, heddle_mul (b, dy[0], heddle_offset (b, Y, 1)))
SIMPLE (log, heddle_div (b, dy[0], X (0)))
SIMPLE (sqrt, heddle_div (b, heddle_scale (b, dy[0], 0.5), Y))
SIMPLE (rsqrt, heddle_mul (b, heddle_scale (b, dy[0], -0.5), heddle_mul (b, Y, heddle_mul (b, Y, Y))))
SIMPLE (square, heddle_mul (b, heddle_scale (b, dy[0], 2), X (0)))
SIMPLE (reciprocal, heddle_neg (b, heddle_mul (b, dy[0], heddle_mul (b, Y, Y))))
SIMPLE (relu, emit2 (b, HEDDLE_OP_RELU_GRAD, dy[0], Y, NULL, 0))
SIMPLE (sigmoid, emit2 (b, HEDDLE_OP_SIGMOID_GRAD, dy[0], Y, NULL, 0))
SIMPLE (tanh, emit2 (b, HEDDLE_OP_TANH_GRAD, dy[0], Y, NULL, 0))
SIMPLE (gelu, emit2 (b, HEDDLE_OP_GELU_GRAD, dy[0], X (0), op->attr, op->info->attr_size))
SIMPLE (silu, emit2 (b, HEDDLE_OP_SILU_GRAD, dy[0], X (0), NULL, 0))
SIMPLE (hardswish, emit2 (b, HEDDLE_OP_HARDSWISH_GRAD, dy[0], X (0), NULL, 0))
SIMPLE (leaky_relu, emit2 (b, HEDDLE_OP_LEAKY_RELU_GRAD, dy[0], Y, op->attr, op->info->attr_size))
SIMPLE (clamp, emit2 (b, HEDDLE_OP_CLAMP_GRAD, dy[0], Y, op->attr, op->info->attr_size))
SIMPLE (cast, heddle_dtype_is_float (X (0)->dtype) ? heddle_cast (b, dy[0], X (0)->dtype) : NULL)
SIMPLE (dropout, emit2 (b, HEDDLE_OP_DROPOUT, dy[0], X (1), op->attr, op->info->attr_size))
SIMPLE (reshape, heddle_reshape (b, dy[0], X (0)->shape))
SIMPLE (broadcast, unbroadcast (b, dy[0], X (0)))

/* Spreads a reduction's gradient back over the reduced axes. */
static HeddleValue *
spread (HeddleBuilder *b, HeddleOp *op, HeddleValue *g)
{
  const HeddleReduceAttr *a = op->attr;
  HeddleShape kept = X (0)->shape;
  guint32 axes = a->axes ? a->axes : (1u << kept.rank) - 1;
  for (gint32 i = 0; i < kept.rank; i++)
    if (axes >> i & 1)
      kept.size[i] = 1;
  g = heddle_reshape (b, g, kept);
  HeddleShapeAttr full = { X (0)->shape };
  return heddle_emit (b, HEDDLE_OP_BROADCAST, NULL, &g, 1, &full, sizeof full);
}

SIMPLE (sum, spread (b, op, dy[0]))

RULE (mean)
{
  (void) want;
  double n = (double) heddle_shape_count (&X (0)->shape) / (double) heddle_shape_count (&Y->shape);
  dx[0] = spread (b, op, heddle_scale (b, dy[0], 1 / n));
}

/* X's leading axes joined into rows: (..., M, N) -> (rows, N) */
static HeddleValue *
as_rows (HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape s = heddle_shape_of (b, x);
  return s.rank == 2 ? x : heddle_reshape (b, x, heddle_shape (-1, s.size[MAX (s.rank, 1) - 1]));
}

/* A matrix that served a whole batch takes the gradients of all, as one product of joined rows. */
static HeddleValue *
shared_matrix_gradient (HeddleBuilder *b, HeddleValue *a, HeddleValue *dy, gboolean ta, gboolean tb)
{
  HeddleValue *rows = as_rows (b, ta ? heddle_transpose (b, a, -1, -2) : a), *out = as_rows (b, dy);
  return tb ? heddle_matmul (b, out, rows, TRUE, FALSE) : heddle_matmul (b, rows, out, TRUE, FALSE);
}

RULE (matmul)
{
  const HeddleMatmulAttr *a = op->attr;
  gboolean ta = a->transpose_a, tb = a->transpose_b, shared = X (1)->shape.rank < X (0)->shape.rank;
  if (want[0] && ta && shared)
    dx[0] = heddle_transpose (b, heddle_matmul (b, dy[0], X (1), FALSE, !tb), -1, -2);
  else if (want[0])
    dx[0] = ta ? heddle_matmul (b, X (1), dy[0], tb, TRUE) : heddle_matmul (b, dy[0], X (1), FALSE, !tb);
  if (want[1] && shared)
    dx[1] = shared_matrix_gradient (b, X (0), dy[0], ta, tb);
  else if (want[1])
    dx[1] = tb ? heddle_matmul (b, dy[0], X (0), TRUE, ta) : heddle_matmul (b, X (0), dy[0], !ta, FALSE);
}

/* Weight and bias gradients come from one operation. */
static void
weight_gradients (HeddleBuilder *b, HeddleOp *op, HeddleOpCode code, HeddleGradients dy, const gboolean *want, HeddleConvAttr attr, HeddleValue **dx)
{
  HeddleValue *in[] = { dy[0], X (0) }, *out[2] = { NULL };
  attr.bias = op->n_in > 2 && want[2];
  if (want[1] || attr.bias)
    b->iface->emit (b, code, op->name, in, 2, &attr, sizeof attr, out, 2);
  dx[1] = want[1] ? out[0] : NULL;
  if (attr.bias)
    dx[2] = out[1];
}

RULE (linear)
{
  if (want[0])
    dx[0] = emit2 (b, HEDDLE_OP_LINEAR_GRAD_INPUT, dy[0], X (1), NULL, 0);
  weight_gradients (b, op, HEDDLE_OP_LINEAR_GRAD_WEIGHT, dy, want, (HeddleConvAttr) { 0 }, dx);
}

RULE (conv2d)
{
  HeddleConvAttr attr = *(const HeddleConvAttr *) op->attr;
  attr.input = X (0)->shape;
  attr.weight = X (1)->shape;
  if (want[0])
    dx[0] = emit2 (b, HEDDLE_OP_CONV2D_GRAD_INPUT, dy[0], X (1), &attr, sizeof attr);
  weight_gradients (b, op, HEDDLE_OP_CONV2D_GRAD_WEIGHT, dy, want, attr, dx);
}

static HeddlePoolAttr
pool_attr (HeddleOp *op)
{
  HeddlePoolAttr attr = *(const HeddlePoolAttr *) op->attr;
  attr.input = X (0)->shape;
  return attr;
}

RULE (max_pool)
{
  (void) want;
  HeddlePoolAttr attr = pool_attr (op);
  if (dy[0])
    dx[0] = emit2 (b, HEDDLE_OP_MAX_POOL_GRAD, dy[0], op->out[1], &attr, sizeof attr);
}

RULE (avg_pool)
{
  (void) want;
  HeddlePoolAttr attr = pool_attr (op);
  dx[0] = heddle_emit (b, HEDDLE_OP_AVG_POOL_GRAD, NULL, (HeddleValue *[]) { dy[0] }, 1, &attr, sizeof attr);
}

RULE (batch_norm)
{
  HeddleValue *in[] = { dy[0], X (0), X (1), op->out[1], op->out[2] }, *out[3] = { NULL };
  if (dy[0])
    b->iface->emit (b, HEDDLE_OP_BATCH_NORM_GRAD, op->name, in, 5, op->attr, op->info->attr_size, out, 3);
  for (guint i = 0; i < 3; i++)
    dx[i] = want[i] ? out[i] : NULL;
}

SIMPLE (softmax, emit2 (b, HEDDLE_OP_SOFTMAX_GRAD, dy[0], Y, op->attr, op->info->attr_size))
SIMPLE (log_softmax, emit2 (b, HEDDLE_OP_LOG_SOFTMAX_GRAD, dy[0], Y, op->attr, op->info->attr_size))

RULE (cross_entropy)
{
  (void) want;
  HeddleValue *in[] = { dy[0], X (0), X (1), op->out[1], op->n_in > 2 ? X (2) : NULL };
  if (dy[0])
    dx[0] = heddle_emit (b, HEDDLE_OP_CROSS_ENTROPY_GRAD, op->name, in, op->n_in + 2, op->attr, op->info->attr_size);
}

RULE (mse)
{
  if (dy[0])
    {
      double n = (double) heddle_shape_count (&X (0)->shape);
      HeddleValue *d = heddle_mul (b, heddle_sub (b, X (0), X (1)), heddle_scale (b, dy[0], 2 / n));
      dx[0] = d;
      dx[1] = want[1] ? heddle_neg (b, d) : NULL;
    }
}

/* Its gradients are convolutions again: x by conv2d, the weight by conv2d_grad_weight with image and gradient in each other's place. */
RULE (conv_transpose2d)
{
  HeddleConvAttr attr = *(const HeddleConvAttr *) op->attr;
  HeddleValue *in[] = { X (0), dy[0] };
  attr.weight = X (1)->shape;
  if (want[0])
    dx[0] = emit2 (b, HEDDLE_OP_CONV2D, dy[0], X (1), &attr, sizeof attr);
  if (want[1])
    dx[1] = heddle_emit (b, HEDDLE_OP_CONV2D_GRAD_WEIGHT, op->name, in, 2, &attr, sizeof attr);
  if (op->n_in > 2 && want[2])
    dx[2] = heddle_sum (b, dy[0], 1u << 0 | 1u << 2 | 1u << 3, FALSE);
}

RULE (upsample)
{
  (void) want;
  HeddleUpsampleAttr attr = *(const HeddleUpsampleAttr *) op->attr;
  attr.input = X (0)->shape;
  dx[0] = heddle_emit (b, HEDDLE_OP_UPSAMPLE_GRAD, NULL, (HeddleValue *[]) { dy[0] }, 1, &attr, sizeof attr);
}

/* G over the number of elements, or of samples */
static HeddleValue *
share_of (HeddleBuilder *b, HeddleOp *op, HeddleValue *g, gboolean samples)
{
  return heddle_scale (b, g, 1 / (double) (samples ? X (0)->shape.size[0] : heddle_shape_count (&X (0)->shape)));
}

/* log (1 + e^-x) without overflow */
static HeddleValue *
softplus_of_minus (HeddleBuilder *b, HeddleValue *x)
{
  HeddleValue *far = heddle_relu (b, heddle_neg (b, x)), *near = heddle_exp (b, heddle_neg (b, heddle_abs (b, x)));
  return heddle_add (b, far, heddle_log (b, heddle_offset (b, near, 1)));
}

/* by x: (1 - t) - (1 + (p - 1) t) (1 - s (x)), which is s (x) - t without p */
RULE (bce_with_logits)
{
  HeddleValue *p = op->n_in > 2 ? X (2) : NULL, *t = X (1);
  HeddleValue *share = dy[0] ? share_of (b, op, dy[0], FALSE) : NULL, *soft = share && p && (want[1] || want[2]) ? softplus_of_minus (b, X (0)) : NULL;
  if (share && want[0])
    {
      HeddleValue *s = heddle_sigmoid (b, X (0)), *d = heddle_sub (b, s, t);
      if (p)
        d = heddle_add (b, d, heddle_mul (b, heddle_mul (b, heddle_offset (b, p, -1), t), heddle_offset (b, s, -1)));
      dx[0] = heddle_mul (b, d, share);
    }
  if (share && want[1])
    {
      HeddleValue *d = heddle_neg (b, X (0));
      dx[1] = heddle_mul (b, p ? heddle_add (b, d, heddle_mul (b, heddle_offset (b, p, -1), soft)) : d, share);
    }
  if (share && p && want[2])
    dx[2] = unbroadcast (b, heddle_mul (b, heddle_mul (b, t, soft), share), p);
}

static void
difference_gradients (HeddleBuilder *b, HeddleValue *d, const gboolean *want, HeddleValue **dx)
{
  dx[0] = d;
  dx[1] = want[1] ? heddle_neg (b, d) : NULL;
}

RULE (l1)
{
  if (dy[0])
    difference_gradients (b, heddle_mul (b, heddle_sign (b, heddle_sub (b, X (0), X (1))), share_of (b, op, dy[0], FALSE)), want, dx);
}

RULE (smooth_l1)
{
  double beta = ((const HeddleSmoothL1Attr *) op->attr)->beta;
  if (dy[0])
    {
      HeddleValue *d = heddle_sub (b, X (0), X (1));
      d = beta > 0 ? heddle_clamp (b, heddle_scale (b, d, 1 / beta), -1, 1) : heddle_sign (b, d);
      difference_gradients (b, heddle_mul (b, d, share_of (b, op, dy[0], FALSE)), want, dx);
    }
}

RULE (kl_div)
{
  const HeddleKlDivAttr *a = op->attr;
  if (dy[0])
    {
      HeddleValue *share = share_of (b, op, dy[0], a->batch_mean), *t = a->log_target ? heddle_exp (b, X (1)) : X (1);
      dx[0] = want[0] ? heddle_neg (b, heddle_mul (b, t, share)) : NULL;
      if (want[1])
        {
          HeddleValue *slope = heddle_offset (b, heddle_sub (b, a->log_target ? X (1) : heddle_log (b, t), X (0)), 1);
          dx[1] = heddle_mul (b, a->log_target ? heddle_mul (b, t, slope) : slope, share);
        }
    }
}
