/* cpu/loss.c: softmax, its logarithm, losses and top-k.  Must not know what runs around them. */
#include "cpu.h"
#include "vecmath.h"
#include "program/rules.h"

#include <math.h>
#include <string.h>

/* ---- softmax along an axis: outer x length x inner ---- */

typedef struct { gint64 outer, length, inner; } Axis;

static Axis
axis_of (const Step *step)
{
  const HeddleShape *s = &step->in[0].shape;
  gint32 axis = heddle_axis_index (((const HeddleAxisAttr *) step->op->attr)->axis, s->rank);
  Axis a = { 1, s->size[axis], 1 };
  for (gint32 i = 0; i < s->rank; i++)
    *(i < axis ? &a.outer : i > axis ? &a.inner : &(gint64) { 0 }) *= s->size[i];
  return a;
}

/* Sums run in vector lanes over blocks of this many numbers and are joined in double. */
#define SUM_BLOCK 4096

/* log sum e^x of contiguous numbers, safe for large x; NaN when one is */
VECTOR (double, log_sum, (const float *x, gint64 n, float *largest), (x, n, largest))
{
  float top = -INFINITY;
  double sum = 0;
#pragma omp simd reduction(max:top)
  for (gint64 i = 0; i < n; i++)
    top = x[i] > top ? x[i] : top;
  for (gint64 k = 0; k < n; k += SUM_BLOCK)
    {
      float s = 0;
#pragma omp simd reduction(+:s)
      for (gint64 i = k; i < MIN (n, k + SUM_BLOCK); i++)
        s += vm_exp (x[i] - top);
      sum += s;
    }
  *largest = top;
  return log (sum);
}

VECTOR (void, softmax_row, (const float *x, float *restrict y, gint64 n, float top, float log_sum, gboolean logarithm), (x, y, n, top, log_sum, logarithm))
{
  if (logarithm)
    for (gint64 i = 0; i < n; i++)
      y[i] = (x[i] - top) - log_sum;
  else
    for (gint64 i = 0; i < n; i++)
      y[i] = vm_exp ((x[i] - top) - log_sum);
}

/* Numbers that are not neighbours, one column */
static void
softmax_column (const float *x, float *y, gint64 n, gint64 stride, gboolean logarithm)
{
  float top = -INFINITY;
  double sum = 0;
  for (gint64 i = 0; i < n; i++)
    top = x[i * stride] > top || x[i * stride] != x[i * stride] ? x[i * stride] : top;
  for (gint64 i = 0; i < n; i++)
    sum += vm_exp (x[i * stride] - top);
  float l = (float) log (sum);
  for (gint64 i = 0; i < n; i++)
    y[i * stride] = logarithm ? (x[i * stride] - top) - l : vm_exp ((x[i * stride] - top) - l);
}

static void
run_softmax (CpuPlan *plan, Step *step)
{
  Axis a = axis_of (step);
  const float *x = IN (0);
  float *y = OUT (0);
  gboolean logarithm = step->op->info->code == HEDDLE_OP_LOG_SOFTMAX;
#pragma omp parallel for schedule(static) if (a.outer * a.length * a.inner >= PARALLEL_MIN)
  for (gint64 k = 0; k < a.outer * a.inner; k++)
    {
      gint64 at = k / a.inner * a.length * a.inner + k % a.inner;
      if (a.inner == 1)
        {
          float top;
          double l = log_sum (x + at, a.length, &top);
          softmax_row (x + at, y + at, a.length, top, (float) l, logarithm);
        }
      else
        softmax_column (x + at, y + at, a.length, a.inner, logarithm);
    }
}

/* y (dy - sum dy y), or dy - e^y sum dy */
VECTOR (void, softmax_grad_row, (const float *dy, const float *y, float *restrict dx, gint64 n, gboolean logarithm), (dy, y, dx, n, logarithm))
{
  double sum = 0;
  for (gint64 k = 0; k < n; k += SUM_BLOCK)
    {
      float s = 0;
      gint64 end = MIN (n, k + SUM_BLOCK);
      if (logarithm)
        {
#pragma omp simd reduction(+:s)
          for (gint64 i = k; i < end; i++)
            s += dy[i];
        }
      else
        {
#pragma omp simd reduction(+:s)
          for (gint64 i = k; i < end; i++)
            s += dy[i] * y[i];
        }
      sum += s;
    }
  float total = (float) sum;
  if (logarithm)
    for (gint64 i = 0; i < n; i++)
      dx[i] = dy[i] - vm_exp (y[i]) * total;
  else
    for (gint64 i = 0; i < n; i++)
      dx[i] = y[i] * (dy[i] - total);
}

static void
run_softmax_grad (CpuPlan *plan, Step *step)
{
  Axis a = axis_of (step);
  const float *dy = IN (0), *y = IN (1);
  float *dx = OUT (0);
  gboolean logarithm = step->op->info->code == HEDDLE_OP_LOG_SOFTMAX_GRAD;
#pragma omp parallel for schedule(static) if (a.outer * a.length * a.inner >= PARALLEL_MIN)
  for (gint64 k = 0; k < a.outer * a.inner; k++)
    {
      gint64 at = k / a.inner * a.length * a.inner + k % a.inner;
      double sum = 0;
      if (a.inner == 1)
        {
          softmax_grad_row (dy + at, y + at, dx + at, a.length, logarithm);
          continue;
        }
      for (gint64 i = 0; i < a.length; i++)
        sum += (double) dy[at + i * a.inner] * (logarithm ? 1 : y[at + i * a.inner]);
      for (gint64 i = 0; i < a.length; i++)
        {
          gint64 j = at + i * a.inner;
          dx[j] = (float) (logarithm ? dy[j] - vm_exp (y[j]) * sum : y[j] * (dy[j] - sum));
        }
    }
}

/* ---- cross entropy ---- */

static gint64
label_at (const Operand *o, gconstpointer labels, gint64 i)
{
  return o->dtype == HEDDLE_I64 ? ((const gint64 *) labels)[i] : o->dtype == HEDDLE_I32 ? ((const gint32 *) labels)[i] : ((const guint8 *) labels)[i];
}

/* The loader has refused labels out of range; here one only must not reach memory it does not own. */
static gboolean
counts (gint64 label, gint64 ignore, gint64 classes)
{
  return label != ignore && label >= 0 && label < classes;
}

/* What sample I adds to the loss and to the denominator */
static void
sample_loss (const HeddleCrossEntropyAttr *a, const float *x, gint64 k, gint64 y, const float *weights, double *loss, double *denominator)
{
  *loss = *denominator = 0;
  if (counts (y, a->ignore_index, k))
    {
      float top;
      double l = log_sum (x, k, &top), w = weights ? weights[y] : 1, smooth = 0;
      for (gint64 c = 0; a->label_smoothing > 0 && c < k; c++)
        smooth += (weights ? weights[c] : 1) * (l - (double) (x[c] - top));
      *loss = (1 - a->label_smoothing) * w * (l - (double) (x[y] - top)) + a->label_smoothing / (double) k * smooth;
      *denominator = w;
    }
}

/* Samples are added up in order after all are known: the same sum for any number of threads. */
static void
run_cross_entropy (CpuPlan *plan, Step *step)
{
  const HeddleCrossEntropyAttr *a = step->op->attr;
  gint64 n = step->in[0].shape.size[0], k = step->in[0].shape.size[1];
  guint n_op = step->op->n_in;
  const float *logits = IN (0), *weights = n_op > 2 ? IN (2) : NULL;
  gconstpointer labels = IN (1);
  double *parts = IN (n_op), sum = 0, denominator = 0;      /* (n, 2) */
#pragma omp parallel for schedule(static) if (n * k >= PARALLEL_MIN)
  for (gint64 i = 0; i < n; i++)
    sample_loss (a, logits + i * k, k, label_at (&step->in[1], labels, i), weights, &parts[2 * i], &parts[2 * i + 1]);
  for (gint64 i = 0; i < n; i++)
    {
      sum += parts[2 * i];
      denominator += parts[2 * i + 1];
    }
  if (OUT (0))
    *(float *) OUT (0) = denominator > 0 ? (float) (sum / denominator) : 0;
  if (OUT (1))
    *(float *) OUT (1) = (float) denominator;
}

static void
emit_cross_entropy (CpuCompiler *c, const HeddleOp *op)
{
  HeddleShape parts = heddle_shape (op->in[0]->shape.size[0] * 4);
  Operand scratch = cpu_temp (c->plan, HEDDLE_F32, &parts, &cpu_plain);
  Step *step = cpu_simple (c, op, "cross entropy", run_cross_entropy, &cpu_plain);
  step->in[step->n_in++] = scratch;
}

/* dx = p slope - smooth weight; the label's own share is taken off by the caller */
VECTOR (void, probability_slopes, (const float *x, float *restrict dx, gint64 n, float top, float log_sum, float slope, float smooth, const float *weights), (x, dx, n, top, log_sum, slope, smooth, weights))
{
  if (smooth != 0 && weights)
    for (gint64 c = 0; c < n; c++)
      dx[c] = vm_exp ((x[c] - top) - log_sum) * slope - smooth * weights[c];
  else
    for (gint64 c = 0; c < n; c++)
      dx[c] = vm_exp ((x[c] - top) - log_sum) * slope - smooth;
}

static void
run_cross_entropy_grad (CpuPlan *plan, Step *step)
{
  const HeddleCrossEntropyAttr *a = step->op->attr;
  gint64 n = step->in[1].shape.size[0], k = step->in[1].shape.size[1];
  const float *logits = IN (1), *weights = step->n_in > 4 ? IN (4) : NULL;
  gconstpointer labels = IN (2);
  float *dx = OUT (0);
  double denominator = *(const float *) IN (3), factor = denominator > 0 ? *(const float *) IN (0) / denominator : 0, total = 0;
  for (gint64 c = 0; c < k; c++)
    total += weights ? weights[c] : 1;
#pragma omp parallel for schedule(static) if (n * k >= PARALLEL_MIN)
  for (gint64 i = 0; i < n; i++)
    {
      gint64 y = label_at (&step->in[2], labels, i);
      const float *x = logits + i * k;
      if (counts (y, a->ignore_index, k))
        {
          float top;
          double l = log_sum (x, k, &top), w = (weights ? weights[y] : 1) * (1 - a->label_smoothing), e = a->label_smoothing / (double) k;
          double slope = factor * (w + e * total), smooth = factor * e, label = factor * w + smooth * (weights ? weights[y] : 1);
          probability_slopes (x, dx + i * k, k, top, (float) l, (float) slope, (float) smooth, weights);
          dx[i * k + y] = (float) (exp ((double) (x[y] - top) - l) * slope - label);
        }
      else
        memset (dx + i * k, 0, (gsize) k * sizeof (float));
    }
}

static void
run_mse (CpuPlan *plan, Step *step)
{
  gint64 n = heddle_shape_count (&step->in[0].shape);
  const float *x = IN (0), *t = IN (1);
  double sum = 0;
  for (gint64 i = 0; i < n; i++)
    sum += ((double) x[i] - t[i]) * ((double) x[i] - t[i]);
  if (OUT (0))
    *(float *) OUT (0) = (float) (sum / (double) n);
  if (OUT (1))
    *(float *) OUT (1) = (float) n;
}

static void
run_top_k (CpuPlan *plan, Step *step)
{
  gint64 n = step->in[0].shape.size[0], classes = step->in[0].shape.size[1], k = ((const HeddleTopKAttr *) step->op->attr)->k, hits = 0, total = 0;
  const float *logits = IN (0);
  gconstpointer labels = IN (1);
  for (gint64 i = 0; i < n; i++)
    {
      gint64 y = label_at (&step->in[1], labels, i), above = 0;
      const float *x = logits + i * classes;
      gboolean valid = y >= 0 && y < classes;
      for (gint64 c = 0; valid && c < classes; c++)
        above += x[c] > x[y] || (x[c] == x[y] && c < y);
      hits += valid && above < k && x[y] == x[y];
      total += valid;
    }
  if (OUT (0))
    *(float *) OUT (0) = (float) hits;
  if (OUT (1))
    *(float *) OUT (1) = (float) total;
}

gboolean
cpu_emit_loss (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_SOFTMAX: case HEDDLE_OP_LOG_SOFTMAX: cpu_simple (c, op, "softmax", run_softmax, &cpu_plain); break;
    case HEDDLE_OP_SOFTMAX_GRAD: case HEDDLE_OP_LOG_SOFTMAX_GRAD: cpu_simple (c, op, "softmax", run_softmax_grad, &cpu_plain); break;
    case HEDDLE_OP_CROSS_ENTROPY: emit_cross_entropy (c, op); break;
    case HEDDLE_OP_CROSS_ENTROPY_GRAD: cpu_simple (c, op, "cross entropy", run_cross_entropy_grad, &cpu_plain); break;
    case HEDDLE_OP_MSE: cpu_simple (c, op, "mse", run_mse, &cpu_plain); break;
    case HEDDLE_OP_TOP_K: cpu_simple (c, op, "top k", run_top_k, &cpu_plain); break;
    default: ok = FALSE; break;
    }
  return ok;
}
