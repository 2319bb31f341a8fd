/* tests/reference/reference-vision.c: transposed convolution, resampling and losses that are means over elements, in double precision.
 * Must not share code with any backend. */
#include "reference.h"

#include <math.h>
#include <string.h>

#define COUNT(v) heddle_shape_count (&(v)->shape)
#define ATTR(T) ((const T *) op->attr)

/* Every pixel of x stamps the kernel, times itself, onto y. */
static void
run_conv_transpose (const HeddleOp *op, double **in, double *y)
{
  const HeddleConvAttr *a = op->attr;
  const HeddleShape *x = &op->in[0]->shape, *w = &op->in[1]->shape, *s = &op->out[0]->shape;
  gint64 per_group = x->size[1] / a->groups;
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    y[i] = op->n_in > 2 ? in[2][i / (s->size[2] * s->size[3]) % s->size[1]] : 0;
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    for (gint64 k = 0; k < w->size[1] * w->size[2] * w->size[3]; k++)
      {
        gint64 row = i / x->size[3] % x->size[2], column = i % x->size[3], c = i / (x->size[2] * x->size[3]) % x->size[1], n = i / (x->size[1] * x->size[2] * x->size[3]);
        gint64 o = k / (w->size[2] * w->size[3]), p = k / w->size[3] % w->size[2], q = k % w->size[3], channel = c / per_group * w->size[1] + o;
        gint64 r = row * a->stride[0] - a->padding[0] + p * a->dilation[0], t = column * a->stride[1] - a->padding[1] + q * a->dilation[1];
        if (r >= 0 && r < s->size[2] && t >= 0 && t < s->size[3])
          y[((n * s->size[1] + channel) * s->size[2] + r) * s->size[3] + t] += in[0][i] * in[1][c * w->size[1] * w->size[2] * w->size[3] + k];
      }
}

/* How much of input J output I takes along one axis. */
static double
weight_of (gint64 i, gint64 j, gint64 in, gint64 out, gboolean bilinear)
{
  double at = fmin (fmax (((double) i + 0.5) * (double) in / (double) out - 0.5, 0), (double) (in - 1));
  return bilinear ? fmax (0, 1 - fabs (at - (double) j)) : i * in / out == j;
}

static void
run_upsample (const HeddleOp *op, const double *from, double *to)
{
  gboolean forward = op->info->code == HEDDLE_OP_UPSAMPLE, bilinear = ATTR (HeddleUpsampleAttr)->bilinear;
  const HeddleShape *x = forward ? &op->in[0]->shape : &op->out[0]->shape, *y = forward ? &op->out[0]->shape : &op->in[0]->shape;
  memset (to, 0, (gsize) COUNT (op->out[0]) * sizeof *to);
  for (gint64 plane = 0; plane < x->size[0] * x->size[1]; plane++)
    for (gint64 i = 0; i < y->size[2] * y->size[3]; i++)
      for (gint64 j = 0; j < x->size[2] * x->size[3]; j++)
        {
          double w = weight_of (i / y->size[3], j / x->size[3], x->size[2], y->size[2], bilinear) * weight_of (i % y->size[3], j % x->size[3], x->size[3], y->size[3], bilinear);
          gint64 small = plane * x->size[2] * x->size[3] + j, large = plane * y->size[2] * y->size[3] + i;
          to[forward ? large : small] += w * from[forward ? small : large];
        }
}

static double
term (const HeddleOp *op, double x, double t, double p)
{
  double y = 0, d = fabs (x - t);
  switch (op->info->code)
    {
    case HEDDLE_OP_BCE_WITH_LOGITS: y = -p * t * (x < -700 ? x : -log1p (exp (-x))) - (1 - t) * (x > 700 ? -x : -log1p (exp (x))); break;
    case HEDDLE_OP_L1: y = d; break;
    case HEDDLE_OP_SMOOTH_L1: y = d < ATTR (HeddleSmoothL1Attr)->beta ? d * d / 2 / ATTR (HeddleSmoothL1Attr)->beta : d - ATTR (HeddleSmoothL1Attr)->beta / 2; break;
    default: y = ATTR (HeddleKlDivAttr)->log_target ? exp (t) * (t - x) : (t == 0 ? 0 : t * log (t)) - t * x; break;
    }
  return y;
}

static void
run_loss (const HeddleOp *op, double **in, double **out)
{
  gint64 n = COUNT (op->in[0]);
  gboolean samples = op->info->code == HEDDLE_OP_KL_DIV && ATTR (HeddleKlDivAttr)->batch_mean;
  out[0][0] = 0;
  out[1][0] = (double) (samples ? op->in[0]->shape.size[0] : n);
  for (gint64 i = 0; i < n; i++)
    out[0][0] += term (op, in[0][i], in[1][i], op->n_in > 2 ? in[2][i % COUNT (op->in[2])] : 1) / out[1][0];
}

gboolean
reference_vision (const HeddleOp *op, double **in, double **out)
{
  gboolean mine = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_CONV_TRANSPOSE2D: run_conv_transpose (op, in, out[0]); break;
    case HEDDLE_OP_UPSAMPLE: case HEDDLE_OP_UPSAMPLE_GRAD: run_upsample (op, in[0], out[0]); break;
    case HEDDLE_OP_BCE_WITH_LOGITS: case HEDDLE_OP_L1: case HEDDLE_OP_SMOOTH_L1: case HEDDLE_OP_KL_DIV: run_loss (op, in, out); break;
    default: mine = FALSE; break;
    }
  return mine;
}
