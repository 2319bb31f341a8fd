/* cpu/norm.c: batch normalisation, forward and backward, on row-major and blocked images.  Must not know what runs around it.
 * An image is seen as N x groups x pixels x lanes: lanes are the channels of a block (1 in a row-major image). */
#include "cpu.h"

#include <math.h>
#include <string.h>

#define MAX_LANES 16

typedef struct { gint64 n, groups, pixels; gint lanes; } View;

static View
view_of (const CpuPlan *plan, const Operand *x)
{
  const HeddleShape *s = &x->shape;
  View v = { .n = s->size[0], .pixels = 1, .lanes = x->layout->kind == LAYOUT_BLOCKED ? plan->device->block : 1 };
  v.groups = s->size[1] / v.lanes;
  for (gint32 i = 2; i < s->rank; i++)
    v.pixels *= s->size[i];
  return v;
}

/* Sums of two quantities over the pixels of one image and group; LANES is a constant at each call, so that lanes become vectors. */
static inline __attribute__ ((always_inline)) void
sum_lanes (const float *x, gint64 pixels, const int lanes, float *restrict sum)
{
  float s[4 * MAX_LANES] = { 0 };
  gint64 width = lanes == 1 ? MAX_LANES : lanes, whole = lanes == 1 ? pixels / width : pixels;
  for (gint64 p = 0; p < whole; p++)
    for (int l = 0; l < (lanes == 1 ? MAX_LANES : lanes); l++)
      s[l] += x[p * width + l];
  for (int l = 0; l < lanes; l++)
    sum[l] = s[l];
  if (lanes == 1)
    {
      for (int l = 1; l < MAX_LANES; l++)
        sum[0] += s[l];
      for (gint64 p = whole * width; p < pixels; p++)
        sum[0] += x[p];
    }
}

static inline __attribute__ ((always_inline)) void
square_lanes (const float *x, const float *mean, gint64 pixels, const int lanes, float *restrict sum)
{
  float s[MAX_LANES] = { 0 }, m[MAX_LANES];
  gint64 width = lanes == 1 ? MAX_LANES : lanes, whole = lanes == 1 ? pixels / width : pixels;
  for (int l = 0; l < MAX_LANES; l++)
    m[l] = mean[lanes == 1 ? 0 : l % lanes];
  for (gint64 p = 0; p < whole; p++)
    for (int l = 0; l < (lanes == 1 ? MAX_LANES : lanes); l++)
      {
        float d = x[p * width + l] - m[l];
        s[l] += d * d;
      }
  for (int l = 0; l < lanes; l++)
    sum[l] = s[l];
  if (lanes == 1)
    {
      for (int l = 1; l < MAX_LANES; l++)
        sum[0] += s[l];
      for (gint64 p = whole * width; p < pixels; p++)
        sum[0] += (x[p] - m[0]) * (x[p] - m[0]);
    }
}

/* Mean and biased variance of one group over the batch: each image's own, joined by Chan's formula in double, so that one pass over memory is enough. */
static inline __attribute__ ((always_inline)) void
group_stats (const float *x, const View *v, gint64 g, const int lanes, double *mean, double *variance)
{
  double m2[MAX_LANES] = { 0 }, count = 0;
  gint64 stride = v->groups * v->pixels * lanes;
  for (int l = 0; l < lanes; l++)
    mean[l] = 0;
  for (gint64 i = 0; i < v->n; i++)
    {
      const float *at = x + i * stride + g * v->pixels * lanes;
      float sum[MAX_LANES], local[MAX_LANES], squares[MAX_LANES];
      sum_lanes (at, v->pixels, lanes, sum);
      for (int l = 0; l < lanes; l++)
        local[l] = sum[l] / (float) v->pixels;
      square_lanes (at, local, v->pixels, lanes, squares);
      double n = (double) v->pixels, total = count + n;
      for (int l = 0; l < lanes; l++)
        {
          /* squares are around the rounded local mean: correct for what the rounding left */
          double exact = (double) sum[l] / n, off = exact - (double) local[l], delta = exact - mean[l];
          m2[l] += (double) squares[l] - n * off * off + delta * delta * count * n / total;
          mean[l] += delta * n / total;
        }
      count = total;
    }
  for (int l = 0; l < lanes; l++)
    variance[l] = MAX (m2[l], 0) / count;
}

static inline __attribute__ ((always_inline)) void
scale_lanes (const float *x, float *restrict y, const float *a, const float *b, gint64 pixels, const int lanes)
{
  for (gint64 p = 0; p < pixels; p++)
    for (int l = 0; l < lanes; l++)
      y[p * lanes + l] = x[p * lanes + l] * a[l] + b[l];
}

typedef struct
{
  const float *x, *scale, *shift, *mean, *variance;
  float *y, *batch_mean, *rstd, *new_mean, *new_variance;
  const HeddleBatchNormAttr *attr;
} Forward;

static inline __attribute__ ((always_inline)) void
forward_group (const Forward *f, const View *v, gint64 g, const int lanes)
{
  double mean[MAX_LANES], variance[MAX_LANES], count = (double) (v->n * v->pixels), momentum = f->attr->momentum;
  float a[MAX_LANES], b[MAX_LANES];
  if (f->attr->training)
    group_stats (f->x, v, g, lanes, mean, variance);
  for (int l = 0; l < lanes; l++)
    {
      gint64 c = g * lanes + l;
      float old_mean = f->mean[c], old_variance = f->variance[c];     /* before the new ones, which may be written in place */
      if (!f->attr->training)
        {
          mean[l] = old_mean;
          variance[l] = old_variance;
        }
      double r = 1 / sqrt (variance[l] + f->attr->eps);
      a[l] = (float) (f->scale[c] * r);
      b[l] = (float) (f->shift[c] - mean[l] * f->scale[c] * r);
      if (f->batch_mean)
        f->batch_mean[c] = (float) mean[l];
      if (f->rstd)
        f->rstd[c] = (float) r;
      if (f->new_mean)
        f->new_mean[c] = f->attr->training ? (float) ((1 - momentum) * old_mean + momentum * mean[l]) : old_mean;
      if (f->new_variance)
        f->new_variance[c] = f->attr->training ? (float) ((1 - momentum) * old_variance + momentum * variance[l] * count / MAX (count - 1, 1)) : old_variance;
    }
  for (gint64 i = 0; f->y && i < v->n; i++)
    {
      gint64 at = (i * v->groups + g) * v->pixels * lanes;
      scale_lanes (f->x + at, f->y + at, a, b, v->pixels, lanes);
    }
}

VECTOR static void forward_1 (const Forward *f, const View *v, gint64 g) { forward_group (f, v, g, 1); }
VECTOR static void forward_8 (const Forward *f, const View *v, gint64 g) { forward_group (f, v, g, 8); }
VECTOR static void forward_16 (const Forward *f, const View *v, gint64 g) { forward_group (f, v, g, 16); }

static void
run_batch_norm (CpuPlan *plan, Step *step)
{
  View v = view_of (plan, &step->in[0]);
  Forward f = { IN (0), IN (1), IN (2), IN (3), IN (4), OUT (0), OUT (1), OUT (2), OUT (3), OUT (4), step->op->attr };
#pragma omp parallel for schedule(static) if (v.n * v.groups * v.pixels * v.lanes >= PARALLEL_MIN)
  for (gint64 g = 0; g < v.groups; g++)
    (v.lanes == 1 ? forward_1 : v.lanes == 8 ? forward_8 : forward_16) (&f, &v, g);
}

/* ---- backward ---- */

typedef struct
{
  const float *dy, *x, *scale, *mean, *rstd;
  float *dx, *dscale, *dshift;
  gboolean training;
} Backward;

/* sum of dy and of dy (x - mean) over one image's pixels */
static inline __attribute__ ((always_inline)) void
grad_lanes (const float *dy, const float *x, const float *mean, gint64 pixels, const int lanes, float *restrict sum, float *restrict dot)
{
  float s[MAX_LANES] = { 0 }, d[MAX_LANES] = { 0 }, m[MAX_LANES];
  gint64 width = lanes == 1 ? MAX_LANES : lanes, whole = lanes == 1 ? pixels / width : pixels;
  for (int l = 0; l < MAX_LANES; l++)
    m[l] = mean[lanes == 1 ? 0 : l % lanes];
  for (gint64 p = 0; p < whole; p++)
    for (int l = 0; l < (lanes == 1 ? MAX_LANES : lanes); l++)
      {
        s[l] += dy[p * width + l];
        d[l] += dy[p * width + l] * (x[p * width + l] - m[l]);
      }
  for (int l = 0; l < lanes; l++)
    {
      sum[l] = s[l];
      dot[l] = d[l];
    }
  if (lanes == 1)
    {
      for (int l = 1; l < MAX_LANES; l++)
        {
          sum[0] += s[l];
          dot[0] += d[l];
        }
      for (gint64 p = whole * width; p < pixels; p++)
        {
          sum[0] += dy[p];
          dot[0] += dy[p] * (x[p] - m[0]);
        }
    }
}

static inline __attribute__ ((always_inline)) void
input_lanes (const float *dy, const float *x, float *restrict dx, const float *a, const float *b, const float *k, gint64 pixels, const int lanes)
{
  for (gint64 p = 0; p < pixels; p++)
    for (int l = 0; l < lanes; l++)
      dx[p * lanes + l] = dy[p * lanes + l] * a[l] + x[p * lanes + l] * b[l] + k[l];
}

static inline __attribute__ ((always_inline)) void
backward_group (const Backward *f, const View *v, gint64 g, const int lanes)
{
  double sum[MAX_LANES] = { 0 }, dot[MAX_LANES] = { 0 }, count = (double) (v->n * v->pixels);
  float a[MAX_LANES], b[MAX_LANES], k[MAX_LANES];
  for (gint64 i = 0; i < v->n; i++)
    {
      gint64 at = (i * v->groups + g) * v->pixels * lanes;
      float s[MAX_LANES], d[MAX_LANES];
      grad_lanes (f->dy + at, f->x + at, f->mean + g * lanes, v->pixels, lanes, s, d);
      for (int l = 0; l < lanes; l++)
        {
          sum[l] += s[l];
          dot[l] += d[l];
        }
    }
  for (int l = 0; l < lanes; l++)
    {
      gint64 c = g * lanes + l;
      double r = f->rstd[c], slope = f->scale[c] * r, per = f->training ? slope * r * r * dot[l] / count : 0;
      a[l] = (float) slope;
      b[l] = (float) -per;
      k[l] = (float) (per * f->mean[c] - (f->training ? slope * sum[l] / count : 0));
      if (f->dscale)
        f->dscale[c] = (float) (dot[l] * r);
      if (f->dshift)
        f->dshift[c] = (float) sum[l];
    }
  for (gint64 i = 0; f->dx && i < v->n; i++)
    {
      gint64 at = (i * v->groups + g) * v->pixels * lanes;
      input_lanes (f->dy + at, f->x + at, f->dx + at, a, b, k, v->pixels, lanes);
    }
}

VECTOR static void backward_1 (const Backward *f, const View *v, gint64 g) { backward_group (f, v, g, 1); }
VECTOR static void backward_8 (const Backward *f, const View *v, gint64 g) { backward_group (f, v, g, 8); }
VECTOR static void backward_16 (const Backward *f, const View *v, gint64 g) { backward_group (f, v, g, 16); }

static void
run_batch_norm_grad (CpuPlan *plan, Step *step)
{
  View v = view_of (plan, &step->in[1]);
  Backward f = { IN (0), IN (1), IN (2), IN (3), IN (4), OUT (0), OUT (1), OUT (2), ((const HeddleBatchNormAttr *) step->op->attr)->training };
#pragma omp parallel for schedule(static) if (v.n * v.groups * v.pixels * v.lanes >= PARALLEL_MIN)
  for (gint64 g = 0; g < v.groups; g++)
    (v.lanes == 1 ? backward_1 : v.lanes == 8 ? backward_8 : backward_16) (&f, &v, g);
}

gboolean
cpu_emit_norm (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  if (op->info->code == HEDDLE_OP_BATCH_NORM)
    cpu_simple (c, op, "batch norm", run_batch_norm, cpu_made (c, op->in[0])->layout);
  else if (op->info->code == HEDDLE_OP_BATCH_NORM_GRAD)
    cpu_simple (c, op, "batch norm", run_batch_norm_grad, cpu_made (c, op->in[1])->layout);
  else
    ok = FALSE;
  return ok;
}
