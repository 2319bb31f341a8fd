/* cpu/norm.c: batch normalisation, forward and backward, on row-major and blocked images, together with the residual addition, relu, clamp or pooling around it.
 * Must not know what runs around that.
 * An image is seen as N x groups x pixels x lanes: lanes are the channels of a block (1 in a row-major image). */
#include "cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define MAX_LANES 16

typedef struct { gint64 n, groups, pixels, h, w; gint lanes; } View;       /* h, w: of images only */

static View
view_of (const CpuPlan *plan, const Operand *x)
{
  const HeddleShape *s = &x->shape;
  View v = { .n = s->size[0], .pixels = 1, .lanes = x->layout->kind == LAYOUT_BLOCKED ? plan->device->block : 1 };
  v.groups = s->size[1] / v.lanes;
  for (gint32 i = 2; i < s->rank; i++)
    v.pixels *= s->size[i];
  v.h = s->rank == 4 ? s->size[2] : 0;
  v.w = s->rank == 4 ? s->size[3] : 0;
  return v;
}

/* ---- one image's pixels of one group ---- */

/* What relu (0, none) or clamp holds numbers between.  NaN is no bound: every comparison with it is false. */
typedef struct { float min, max; } Bounds;

/* y = a x + b, then what was joined to it */
typedef struct
{
  const float *x, *a, *b;
  const float *residual;        /* added, or NULL */
  float   *y;
  guint8  *index;               /* y is pooled 2 x 2, and these are the places of the maxima; or NULL */
  const Bounds *bounds;         /* of y, or NULL */
  gint64   pixels, h, w;
} Plane;

typedef struct
{
  const float *dy, *x;
  const float *bounded;         /* dy is still to be passed through relu or clamp, whose result this is; or NULL */
  Bounds  bounds;
  float  *masked;               /* with bounded: the gradient after that; may be dx's memory */
  const guint8 *index;          /* dy is pooled 2 x 2 and belongs to these places; or NULL */
  float  *dx;
  gint64  pixels, h, w;
} GradientPlane;

typedef struct
{
  gint lanes;
  void (*sum)     (const float *x, gint64 pixels, float *sum);
  void (*squares) (const float *x, const float *mean, gint64 pixels, float *sum);                  /* of x - mean */
  void (*apply)   (const Plane *q);
  void (*sums)    (const GradientPlane *q, const float *mean, float *sum, float *dot);             /* of dy, and of dy (x - mean) */
  void (*input)   (const GradientPlane *q, const float *a, const float *b, const float *k);        /* dx = a dy + b x + k */
} Kernels;

#define KERNELS "norm-kernel.h"
#include "each-isa.h"

/* ---- the same for row-major images: one channel, lanes over its pixels (no pooling) ---- */

#define PARTS 16

VECTOR (void, sum_row, (const float *x, gint64 pixels, float *sum), (x, pixels, sum))
{
  float s[PARTS] = { 0 }, total = 0;
  gint64 p = 0;
  for (; p + PARTS <= pixels; p += PARTS)
    for (int l = 0; l < PARTS; l++)
      s[l] += x[p + l];
  for (int l = 0; l < PARTS; l++)
    total += s[l];
  for (; p < pixels; p++)
    total += x[p];
  *sum = total;
}

VECTOR (void, squares_row, (const float *x, const float *mean, gint64 pixels, float *sum), (x, mean, pixels, sum))
{
  float s[PARTS] = { 0 }, total = 0, m = *mean;
  gint64 p = 0;
  for (; p + PARTS <= pixels; p += PARTS)
    for (int l = 0; l < PARTS; l++)
      s[l] += (x[p + l] - m) * (x[p + l] - m);
  for (int l = 0; l < PARTS; l++)
    total += s[l];
  for (; p < pixels; p++)
    total += (x[p] - m) * (x[p] - m);
  *sum = total;
}

VECTOR (void, apply_row, (const Plane *q), (q))
{
  const float *restrict x = q->x, *restrict r = q->residual, a = *q->a, b = *q->b;
  float *restrict y = q->y;
  if (r)
    for (gint64 p = 0; p < q->pixels; p++)
      y[p] = x[p] * a + b + r[p];
  else
    for (gint64 p = 0; p < q->pixels; p++)
      y[p] = x[p] * a + b;
  if (q->bounds)
    {
      float min = q->bounds->min, max = q->bounds->max;
      for (gint64 p = 0; p < q->pixels; p++)
        y[p] = y[p] < min ? min : y[p] > max ? max : y[p];
    }
}

VECTOR (void, sums_row, (const GradientPlane *q, const float *mean, float *sum, float *dot), (q, mean, sum, dot))
{
  float s[PARTS] = { 0 }, d[PARTS] = { 0 }, m = *mean, min = q->bounds.min, max = q->bounds.max;
  const float *dy = q->bounded ? q->masked : q->dy, *x = q->x;
  gint64 p = 0;
  for (gint64 i = 0; q->bounded && i < q->pixels; i++)
    {
      float g = q->dy[i], y = q->bounded[i];       /* read in any case: a load under a condition is no vector load */
      g = y > min ? g : 0;
      q->masked[i] = y >= max ? 0 : g;
    }
  for (; p + PARTS <= q->pixels; p += PARTS)
    for (int l = 0; l < PARTS; l++)
      {
        s[l] += dy[p + l];
        d[l] += dy[p + l] * (x[p + l] - m);
      }
  *sum = *dot = 0;
  for (int l = 0; l < PARTS; l++)
    {
      *sum += s[l];
      *dot += d[l];
    }
  for (; p < q->pixels; p++)
    {
      *sum += dy[p];
      *dot += dy[p] * (x[p] - m);
    }
}

VECTOR (void, input_row, (const GradientPlane *q, const float *fa, const float *fb, const float *fk), (q, fa, fb, fk))
{
  const float *dy = q->bounded ? q->masked : q->dy, *x = q->x, a = *fa, b = *fb, k = *fk;
  float *dx = q->dx;
#pragma GCC ivdep
  for (gint64 p = 0; p < q->pixels; p++)           /* dx may be dy: each number is read before it is written */
    dx[p] = dy[p] * a + x[p] * b + k;
}

static const Kernels kernels_row = { 1, sum_row, squares_row, apply_row, sums_row, input_row };

static const Kernels *
kernels_for (gint lanes)
{
  return lanes == 1 ? &kernels_row : CPU_PICK (&kernels);
}

/* ---- images in 16 bits: converted a plane at a time, while it is in the cache ---- */

typedef struct { char *data; HeddleDtype dtype; } Image;      /* data NULL: none */

#define IMAGE_IN(i) { cpu_pointer (plan, &step->in[i]), step->in[i].dtype }
#define IMAGE_OUT(i) { cpu_pointer (plan, &step->out[i]), step->out[i].dtype }

/* Where element AT and those behind it are as f32, or are to be made: in the image, or in place NUMBER, of SIZE elements, of SCRATCH */
static float *
plane_place (const Image *m, gint64 at, gint64 size, float *scratch, guint number)
{
  return !m->data ? NULL : m->dtype == HEDDLE_F32 ? (float *) m->data + at : scratch + number * size;
}

static const float *
plane_read (const Image *m, gint64 at, gint64 n, gint64 size, float *scratch, guint number)
{
  float *place = plane_place (m, at, size, scratch, number);
  if (m->data && m->dtype != HEDDLE_F32)
    cpu_convert (HEDDLE_F32, place, m->dtype, m->data + at * 2, (gsize) n);
  return place;
}

static void
plane_write (const Image *m, gint64 at, gint64 n, const float *plane)
{
  if (m->data && m->dtype != HEDDLE_F32)
    cpu_convert (m->dtype, m->data + at * 2, HEDDLE_F32, plane, (gsize) n);
}

#define PLANES 5      /* that one thread needs at most */

/* Scratch for planes of X by every thread; nothing when they are f32 */
static Operand
plane_scratch (CpuCompiler *c, const HeddleValue *x)
{
  HeddleShape shape = heddle_shape ((gint64) c->device->threads * PLANES * heddle_shape_count (&x->shape) / MAX (x->shape.size[0] * x->shape.size[1], 1) * c->device->block);
  return x->dtype == HEDDLE_F32 ? (Operand) { 0 } : cpu_temp (c->plan, HEDDLE_F32, &shape, &cpu_plain);
}

/* ---- forward ---- */

typedef struct
{
  const Kernels *k;
  Image x, residual, y;
  const float *scale, *shift, *mean, *variance;
  float *batch_mean, *rstd, *new_mean, *new_variance, *scratch;
  guint8 *index;
  const Bounds *bounds;
  const HeddleBatchNormAttr *attr;
} Forward;

static inline gint64
plane_at (const View *v, gint64 i, gint64 g)
{
  return (i * v->groups + g) * v->pixels * v->lanes;
}

static inline gint64
pooled_at (const View *v, gint64 i, gint64 g)
{
  return (i * v->groups + g) * (v->h / 2) * (v->w / 2) * v->lanes;
}

/* Mean and biased variance of one group over the batch: each image's own, joined by Chan's formula in double, so that one pass over memory is enough. */
static void
group_stats (const Forward *f, const View *v, gint64 g, float *scratch, double *mean, double *variance)
{
  double m2[MAX_LANES] = { 0 }, count = 0;
  for (int l = 0; l < v->lanes; l++)
    mean[l] = 0;
  for (gint64 i = 0; i < v->n; i++)
    {
      const float *x = plane_read (&f->x, plane_at (v, i, g), v->pixels * v->lanes, 0, scratch, 0);
      float sum[MAX_LANES], local[MAX_LANES], squares[MAX_LANES];
      f->k->sum (x, v->pixels, sum);
      for (int l = 0; l < v->lanes; l++)
        local[l] = sum[l] / (float) v->pixels;
      f->k->squares (x, local, v->pixels, squares);
      double n = (double) v->pixels, total = count + n;
      for (int l = 0; l < v->lanes; l++)
        {
          /* squares are around the rounded local mean: correct for what the rounding left */
          double exact = (double) sum[l] / n, off = exact - (double) local[l], delta = exact - mean[l];
          m2[l] += (double) squares[l] - n * off * off + delta * delta * count * n / total;
          mean[l] += delta * n / total;
        }
      count = total;
    }
  for (int l = 0; l < v->lanes; l++)
    variance[l] = MAX (m2[l], 0) / count;
}

/* What becomes of channel C, and y = A x + B */
static void
forward_channel (const Forward *f, gint64 c, double mean, double variance, double count, float *a, float *b)
{
  double momentum = f->attr->momentum;
  float old_mean = f->mean[c], old_variance = f->variance[c];     /* before the new ones, which may be written in place */
  if (!f->attr->training)
    {
      mean = old_mean;
      variance = old_variance;
    }
  double r = 1 / sqrt (variance + f->attr->eps);
  *a = (float) (f->scale[c] * r);
  *b = (float) (f->shift[c] - mean * f->scale[c] * r);
  if (f->batch_mean)
    f->batch_mean[c] = (float) mean;
  if (f->rstd)
    f->rstd[c] = (float) r;
  if (f->new_mean)
    f->new_mean[c] = f->attr->training ? (float) ((1 - momentum) * old_mean + momentum * mean) : old_mean;
  if (f->new_variance)
    f->new_variance[c] = f->attr->training ? (float) ((1 - momentum) * old_variance + momentum * variance * count / MAX (count - 1, 1)) : old_variance;
}

static void
forward_group (const Forward *f, const View *v, gint64 g)
{
  double mean[MAX_LANES] = { 0 }, variance[MAX_LANES] = { 0 };
  float a[MAX_LANES], b[MAX_LANES];
  gint64 n = v->pixels * v->lanes, made = f->index ? (v->h / 2) * (v->w / 2) * v->lanes : n;
  float *scratch = f->scratch ? f->scratch + omp_get_thread_num () * PLANES * n : NULL;
  if (f->attr->training)
    group_stats (f, v, g, scratch, mean, variance);
  for (int l = 0; l < v->lanes; l++)
    forward_channel (f, g * v->lanes + l, mean[l], variance[l], (double) (v->n * v->pixels), &a[l], &b[l]);
  for (gint64 i = 0; f->y.data && i < v->n; i++)
    {
      gint64 at = plane_at (v, i, g), out = f->index ? pooled_at (v, i, g) : at;
      Plane q = { plane_read (&f->x, at, n, n, scratch, 0), a, b, plane_read (&f->residual, at, n, n, scratch, 1), plane_place (&f->y, out, n, scratch, 2), f->index ? f->index + out : NULL, f->bounds,
                  v->pixels, v->h, v->w };
      f->k->apply (&q);
      plane_write (&f->y, out, made, q.y);
    }
}

/* of relu, clamp and their gradients; FALSE without OP */
static gboolean
bounds_of (const HeddleOp *op, Bounds *bounds)
{
  *bounds = (Bounds) { 0, NAN };
  if (op && (op->info->code == HEDDLE_OP_CLAMP || op->info->code == HEDDLE_OP_CLAMP_GRAD))
    {
      const HeddleClampAttr *a = op->attr;
      *bounds = (Bounds) { (float) a->min, (float) a->max };
    }
  return op != NULL;
}

/* data: relu or clamp behind it, or NULL */
static void
run_batch_norm (CpuPlan *plan, Step *step)
{
  View v = view_of (plan, &step->in[0]);
  Bounds bounds;
  gboolean bounded = bounds_of (step->data, &bounds);
  Forward f = { kernels_for (v.lanes), IMAGE_IN (0), IMAGE_IN (5), IMAGE_OUT (0), IN (1), IN (2), IN (3), IN (4), OUT (1), OUT (2), OUT (3), OUT (4), IN (6), OUT (5), bounded ? &bounds : NULL,
                step->op->attr };
#pragma omp parallel for schedule(dynamic, 1) if (v.n * v.groups * v.pixels * v.lanes >= PARALLEL_MIN)
  for (gint64 g = 0; g < v.groups; g++)
    forward_group (&f, &v, g);
}

/* ---- backward ---- */

typedef struct
{
  const Kernels *k;
  Image dy, x, bounded, dx, masked;
  const float *scale, *mean, *rstd;
  float *dscale, *dshift, *scratch;
  const guint8 *index;
  Bounds bounds;
  gboolean training;
} Backward;

/* FIRST: the sums, which also leave dy in "masked" after it has passed through relu or clamp; then dx is made. */
static GradientPlane
gradient_plane (const Backward *f, const View *v, gint64 i, gint64 g, float *scratch, gboolean first)
{
  gint64 at = plane_at (v, i, g), in = f->index ? pooled_at (v, i, g) : at, n = v->pixels * v->lanes, given = f->index ? (v->h / 2) * (v->w / 2) * v->lanes : n;
  GradientPlane q = { .bounds = f->bounds, .index = f->index ? f->index + in : NULL, .pixels = v->pixels, .h = v->h, .w = v->w };
  q.x = plane_read (&f->x, at, n, n, scratch, 0);
  q.bounded = first ? plane_read (&f->bounded, at, n, n, scratch, 1) : plane_place (&f->bounded, at, n, scratch, 1);
  q.masked = first ? plane_place (&f->masked, at, n, scratch, 2) : (float *) plane_read (&f->masked, at, n, n, scratch, 2);
  q.dy = first || !q.bounded ? plane_read (&f->dy, in, given, n, scratch, 3) : NULL;
  q.dx = plane_place (&f->dx, at, n, scratch, 4);
  return q;
}

static void
backward_group (const Backward *f, const View *v, gint64 g)
{
  double sum[MAX_LANES] = { 0 }, dot[MAX_LANES] = { 0 }, count = (double) (v->n * v->pixels);
  float a[MAX_LANES], b[MAX_LANES], k[MAX_LANES];
  gint64 n = v->pixels * v->lanes;
  float *scratch = f->scratch ? f->scratch + omp_get_thread_num () * PLANES * n : NULL;
  for (gint64 i = 0; i < v->n; i++)
    {
      GradientPlane q = gradient_plane (f, v, i, g, scratch, TRUE);
      float s[MAX_LANES], d[MAX_LANES];
      f->k->sums (&q, f->mean + g * v->lanes, s, d);
      plane_write (&f->masked, plane_at (v, i, g), n, q.masked);
      for (int l = 0; l < v->lanes; l++)
        {
          sum[l] += s[l];
          dot[l] += d[l];
        }
    }
  for (int l = 0; l < v->lanes; l++)
    {
      gint64 c = g * v->lanes + l;
      double r = f->rstd[c], slope = f->scale[c] * r, per = f->training ? slope * r * r * dot[l] / count : 0;
      a[l] = (float) slope;
      b[l] = (float) -per;
      k[l] = (float) (per * f->mean[c] - (f->training ? slope * sum[l] / count : 0));
      if (f->dscale)
        f->dscale[c] = (float) (dot[l] * r);
      if (f->dshift)
        f->dshift[c] = (float) sum[l];
    }
  for (gint64 i = 0; f->dx.data && i < v->n; i++)
    {
      GradientPlane q = gradient_plane (f, v, i, g, scratch, FALSE);
      f->k->input (&q, a, b, k);
      plane_write (&f->dx, plane_at (v, i, g), n, q.dx);
    }
}

/* data: the gradient of relu or clamp before it, or NULL */
static void
run_batch_norm_grad (CpuPlan *plan, Step *step)
{
  Bounds bounds;
  bounds_of (step->data, &bounds);
  View v = view_of (plan, &step->in[1]);
  Backward f = { kernels_for (v.lanes), IMAGE_IN (0), IMAGE_IN (1), IMAGE_IN (5), IMAGE_OUT (0), IMAGE_OUT (3), IN (2), IN (3), IN (4), OUT (1), OUT (2), IN (7), IN (6), bounds,
                 ((const HeddleBatchNormAttr *) step->op->attr)->training };
#pragma omp parallel for schedule(dynamic, 1) if (v.n * v.groups * v.pixels * v.lanes >= PARALLEL_MIN)
  for (gint64 g = 0; g < v.groups; g++)
    backward_group (&f, &v, g);
}

/* ---- what is joined to it ---- */

/* The operations behind a batch norm that its last loop does as well: a residual addition or 2 x 2 max pooling, then relu or clamp. */
typedef struct { const HeddleOp *add, *pool, *bound; const HeddleValue *residual; HeddleValue *y; } Tail;

static gboolean
is_code (const HeddleOp *op, HeddleOpCode code)
{
  return op && op->info->code == code;
}

static Tail
find_tail (const CpuCompiler *c, const HeddleOp *op)
{
  Tail t = { .y = op->out[0] };
  const HeddleOp *next = cpu_only_user (c, op->out[0]);
  if (is_code (next, HEDDLE_OP_ADD) && next->in[0] != next->in[1])
    {
      const HeddleValue *other = next->in[next->in[0] == t.y ? 1 : 0];
      gboolean ready = other->producer ? other->producer->id < op->id : TRUE;
      if (ready && heddle_shape_equal (&other->shape, &t.y->shape))
        {
          t.add = next;
          t.residual = other;
        }
    }
  else if (is_code (next, HEDDLE_OP_MAX_POOL) && cpu_pool_is_2x2 (next->attr) && cpu_made ((CpuCompiler *) c, op->in[0])->layout->kind == LAYOUT_BLOCKED)
    t.pool = next;
  if (t.add || t.pool)
    {
      t.y = next->out[0];
      next = cpu_only_user (c, t.y);
    }
  if (is_code (next, HEDDLE_OP_RELU) || is_code (next, HEDDLE_OP_CLAMP))
    {
      t.bound = next;
      t.y = next->out[0];
    }
  return t;
}

static const char *
tail_name (const Tail *t)
{
  static const char *const names[3][3] = { { "batch norm", "batch norm+relu", "batch norm+clamp" },
                                           { "batch norm+add", "batch norm+add+relu", "batch norm+add+clamp" },
                                           { "batch norm+max pool", "batch norm+max pool+relu", "batch norm+max pool+clamp" } };
  return names[t->add ? 1 : t->pool ? 2 : 0][!t->bound ? 0 : is_code (t->bound, HEDDLE_OP_RELU) ? 1 : 2];
}

/* in: x, scale, shift, mean, variance, [residual], [scratch]; out: y, batch mean, rstd, new mean, new variance, [places of maxima] */
static void
emit_forward (CpuCompiler *c, const HeddleOp *op)
{
  const Layout *layout = cpu_made (c, op->in[0])->layout;
  Tail t = find_tail (c, op);
  Operand in[STEP_OPERANDS] = { 0 }, out[STEP_OPERANDS] = { 0 };
  for (guint i = 0; i < 5; i++)
    in[i] = cpu_form (c, op->in[i], i == 0 ? op->in[0]->dtype : HEDDLE_F32, i == 0 && op->in[0]->shape.rank == 4 ? layout : &cpu_plain);
  if (t.residual)
    in[5] = cpu_form (c, t.residual, t.residual->dtype, in[0].layout);
  in[6] = plane_scratch (c, op->in[0]);
  for (guint i = 0; i < 5; i++)
    {
      const HeddleValue *v = i == 0 ? t.y : op->out[i];
      if (v->n_uses)
        out[i] = cpu_target (c, v, i == 0 ? v->dtype : HEDDLE_F32, i == 0 ? in[0].layout : &cpu_plain);
    }
  if (t.pool)
    out[5] = cpu_target (c, t.pool->out[1], HEDDLE_U8, in[0].layout);
  Step *step = cpu_step_new (c->plan, op, tail_name (&t), run_batch_norm);
  memcpy (step->in, in, sizeof in);
  memcpy (step->out, out, sizeof out);
  step->n_in = 7;
  step->n_out = 6;
  step->data = (gpointer) t.bound;
  for (guint i = 0; i < 6; i++)
    if (out[i].where)
      cpu_made_as (c, i == 0 ? t.y : i == 5 ? t.pool->out[1] : op->out[i], out[i]);
  const HeddleOp *joined[] = { t.add, t.pool, t.bound };
  for (guint i = 0; i < G_N_ELEMENTS (joined); i++)
    if (joined[i])
      cpu_mark_done (c, joined[i]);
}

/* in: dy, x, scale, mean, rstd, [y of relu or clamp], [places of maxima], [scratch]; out: dx, dscale, dshift, [the gradient after that] */
static void
emit_backward (CpuCompiler *c, const HeddleOp *op)
{
  const Layout *layout = op->in[1]->shape.rank == 4 ? cpu_made (c, op->in[1])->layout : &cpu_plain;
  const HeddleOp *before = cpu_left_out (c, op->in[0]);
  gboolean pooled = is_code (before, HEDDLE_OP_MAX_POOL_GRAD), masked = before && !pooled, elsewhere = masked && op->in[0]->n_uses > 1;
  Operand in[STEP_OPERANDS] = { 0 }, out[STEP_OPERANDS] = { 0 };
  const HeddleValue *dy = before ? before->in[0] : op->in[0];
  in[0] = cpu_form (c, dy, dy->dtype, layout);
  for (guint i = 1; i < 5; i++)
    in[i] = cpu_form (c, op->in[i], i == 1 ? op->in[1]->dtype : HEDDLE_F32, i == 1 ? layout : &cpu_plain);
  if (masked)
    in[5] = cpu_form (c, before->in[1], before->in[1]->dtype, layout);
  if (pooled)
    in[6] = cpu_form (c, before->in[1], HEDDLE_U8, layout);
  for (guint i = 0; i < 3; i++)
    if (op->out[i]->n_uses)
      out[i] = cpu_target (c, op->out[i], i == 0 ? op->out[0]->dtype : HEDDLE_F32, i == 0 ? layout : &cpu_plain);
  if (masked)
    out[3] = elsewhere || !out[0].where ? cpu_target (c, op->in[0], op->in[0]->dtype, layout) : out[0];
  in[7] = plane_scratch (c, op->in[1]);
  Step *step = cpu_step_new (c->plan, op, pooled ? "batch norm, pooled" : !masked ? "batch norm" : is_code (before, HEDDLE_OP_RELU_GRAD) ? "batch norm, relu" : "batch norm, clamp", run_batch_norm_grad);
  memcpy (step->in, in, sizeof in);
  memcpy (step->out, out, sizeof out);
  step->n_in = 8;
  step->n_out = 4;
  if (!pooled && out[3].where == IN_NONE)
    cpu_may_share (c->plan, &in[0], &out[0]);
  step->data = masked ? (gpointer) before : NULL;
  for (guint i = 0; i < 3; i++)
    if (out[i].where)
      cpu_made_as (c, op->out[i], out[i]);
  if (elsewhere)
    cpu_made_as (c, op->in[0], out[3]);
}

/* Can relu's, clamp's or max pooling's gradient OP be left to the batch norm that is first to read it? */
gboolean
cpu_norm_takes (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleValue *d = op->out[0];
  const GPtrArray *users = c->users[d->id];
  const HeddleOp *norm = users && users->len ? users->pdata[0] : NULL;
  gboolean bound = op->info->code != HEDDLE_OP_MAX_POOL_GRAD;
  gboolean ok = c->device->flags.fusion && is_code (norm, HEDDLE_OP_BATCH_NORM_GRAD) && norm->in[0] == d && norm->in[1] != d && !c->forward[d->id];
  if (ok && bound)
    ok = users->len == d->n_uses && heddle_shape_equal (&op->in[0]->shape, &d->shape);
  else if (ok)
    ok = cpu_only_user (c, d) && cpu_pool_is_2x2 (op->attr) && cpu_made (c, norm->in[1])->layout->kind == LAYOUT_BLOCKED
         && cpu_made (c, op->in[1])->layout->kind == LAYOUT_BLOCKED;
  return ok;
}

gboolean
cpu_emit_norm (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  if (op->info->code == HEDDLE_OP_BATCH_NORM)
    emit_forward (c, op);
  else if (op->info->code == HEDDLE_OP_BATCH_NORM_GRAD)
    emit_backward (c, op);
  else
    ok = FALSE;
  return ok;
}
