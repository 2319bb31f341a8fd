/* cpu/rownorm.c: layer, RMS and group normalisation, forward and backward, on row-major tensors.  Must not know what runs around them.
 * Sums run in vector lanes over blocks of BLOCK numbers and are joined in double; partial sums have a number that depends on shapes alone,
 * so that the number of threads changes nothing. */
#include "cpu.h"

#include <math.h>
#include <string.h>

#define BLOCK 4096
#define MAX_PARTS 64        /* of the rows, each with sums of its own for scale and shift */
#define PART_ROWS 16        /* at least */

/* ---- sums over one row ---- */

VECTOR (void, row_moments, (const float *x, gint64 n, gboolean centred, double *mean, double *square), (x, n, centred, mean, square))
{
  double sum = 0, squares = 0;
  for (gint64 k = 0; centred && k < n; k += BLOCK)
    {
      float s = 0;
#pragma omp simd reduction(+:s)
      for (gint64 i = k; i < MIN (n, k + BLOCK); i++)
        s += x[i];
      sum += s;
    }
  float m = (float) (sum / (double) n);
  double off = sum / (double) n - (double) m;         /* squares are around the rounded mean */
  for (gint64 k = 0; k < n; k += BLOCK)
    {
      float s = 0;
#pragma omp simd reduction(+:s)
      for (gint64 i = k; i < MIN (n, k + BLOCK); i++)
        s += (x[i] - m) * (x[i] - m);
      squares += s;
    }
  *mean = sum / (double) n;
  *square = squares / (double) n - off * off;
}

/* sum of dy s and of dy s (x - m); S may be NULL */
VECTOR (void, row_dots, (const float *dy, const float *x, const float *scale, gint64 n, float m, double *sum, double *dot), (dy, x, scale, n, m, sum, dot))
{
  *sum = *dot = 0;
  for (gint64 k = 0; k < n; k += BLOCK)
    {
      float s = 0, d = 0;
      gint64 end = MIN (n, k + BLOCK);
      if (scale)
        {
#pragma omp simd reduction(+:s, d)
          for (gint64 i = k; i < end; i++)
            {
              float g = dy[i] * scale[i];
              s += g;
              d += g * (x[i] - m);
            }
        }
      else
        {
#pragma omp simd reduction(+:s, d)
          for (gint64 i = k; i < end; i++)
            {
              s += dy[i];
              d += dy[i] * (x[i] - m);
            }
        }
      *sum += s;
      *dot += d;
    }
}

/* ---- rows: layer and RMS norm ---- */

/* x = a + b; x may be one of them */
VECTOR (void, add_rows, (const float *a, const float *b, float *x, gint64 n), (a, b, x, n))
{
#pragma GCC ivdep
  for (gint64 i = 0; i < n; i++)
    x[i] = a[i] + b[i];
}

VECTOR (void, scale_row, (const float *x, float *restrict y, gint64 n, float m, float r, const float *scale, const float *shift), (x, y, n, m, r, scale, shift))
{
  if (scale && shift)
    for (gint64 i = 0; i < n; i++)
      y[i] = (x[i] - m) * r * scale[i] + shift[i];
  else if (scale)
    for (gint64 i = 0; i < n; i++)
      y[i] = (x[i] - m) * r * scale[i];
  else
    for (gint64 i = 0; i < n; i++)
      y[i] = (x[i] - m) * r;
}

/* Joined with the sum before: in[TERMS] and the next are what x is the sum of, out[SUM] is x. */
#define TERMS 3
#define SUM 3

static void
run_forward (CpuPlan *plan, Step *step)
{
  double eps = ((const HeddleLayerNormAttr *) step->op->attr)->eps;
  gboolean centred = step->op->info->code == HEDDLE_OP_LAYER_NORM;
  gint64 rows = heddle_shape_count (&step->op->out[1]->shape), n = heddle_shape_count (&step->op->in[0]->shape) / MAX (rows, 1);
  float *sum = OUT (SUM), *y = OUT (0), *means = centred ? OUT (1) : NULL, *rstds = centred ? OUT (2) : OUT (1);
  const float *a = IN (TERMS), *b = IN (TERMS + 1), *x = sum ? sum : IN (0), *scale = IN (1), *shift = IN (2);
#pragma omp parallel for schedule(static) if (rows * n >= PARALLEL_MIN)
  for (gint64 i = 0; i < rows; i++)
    {
      double mean, square;
      if (sum)
        add_rows (a + i * n, b + i * n, sum + i * n, n);
      row_moments (x + i * n, n, centred, &mean, &square);
      double r = 1 / sqrt (MAX (square, 0) + eps);
      if (!(square == square))
        r = square;                           /* NaN stays NaN */
      if (means)
        means[i] = (float) mean;
      if (rstds)
        rstds[i] = (float) r;
      if (y)
        scale_row (x + i * n, y + i * n, n, (float) mean, (float) r, scale, shift);
    }
}

typedef struct { const float *dy, *x, *mean, *rstd, *scale, *other; float *dx; gint64 n; } Rows;

/* Nothing is read after it was written: the operands lie apart or are one. */
#define GRAD_ROW(expression) \
  { \
    _Pragma ("GCC ivdep") \
    for (gint64 j = 0; j < n; j++) \
      dx[j] = (expression); \
  }

/* dx = r (g - mean g - xhat mean (g xhat)), g = dy scale; without the middle term in RMS norm; plus OTHER, which may be DX */
VECTOR (void, grad_row, (const Rows *rows, gint64 i), (rows, i))
{
  gint64 n = rows->n;
  const float *dy = rows->dy + i * n, *x = rows->x + i * n, *scale = rows->scale;
  const float *other = rows->other ? rows->other + i * n : NULL;
  float *dx = rows->dx + i * n, m = rows->mean ? rows->mean[i] : 0, r = rows->rstd[i];
  double sum, dot;
  row_dots (dy, x, scale, n, m, &sum, &dot);
  float a = rows->mean ? (float) (-sum / (double) n * r) : 0, c = (float) (-dot / (double) n * r * r * r);
  if (scale && other)
    GRAD_ROW (dy[j] * scale[j] * r + ((x[j] - m) * c + a) + other[j])
  else if (scale)
    GRAD_ROW (dy[j] * scale[j] * r + ((x[j] - m) * c + a))
  else if (other)
    GRAD_ROW (dy[j] * r + ((x[j] - m) * c + a) + other[j])
  else
    GRAD_ROW (dy[j] * r + ((x[j] - m) * c + a))
}

VECTOR (void, add_parameter_row, (const Rows *rows, gint64 i, float *restrict dscale, float *restrict dshift), (rows, i, dscale, dshift))
{
  gint64 n = rows->n;
  const float *dy = rows->dy + i * n, *x = rows->x + i * n;
  float m = rows->mean ? rows->mean[i] : 0, r = rows->rstd[i];
  for (gint64 j = 0; j < n; j++)
    {
      dscale[j] += dy[j] * ((x[j] - m) * r);
      dshift[j] += dy[j];
    }
}

static gint64
parts_of (gint64 rows)
{
  return CLAMP (rows / PART_ROWS, 1, MAX_PARTS);
}

VECTOR (void, join_parts, (const float *parts, gint64 n_parts, gint64 pitch, gint64 n, float *restrict sum), (parts, n_parts, pitch, n, sum))
{
  memset (sum, 0, (gsize) n * sizeof (float));
  for (gint64 p = 0; p < n_parts; p++)
    for (gint64 j = 0; j < n; j++)
      sum[j] += parts[p * pitch + j];
}

static void
run_backward (CpuPlan *plan, Step *step)
{
  gboolean centred = step->op->info->code == HEDDLE_OP_LAYER_NORM_GRAD;
  guint at = centred ? 3 : 2, n_op = step->op->n_in;
  gint64 count = heddle_shape_count (&step->in[at].shape), n = heddle_shape_count (&step->in[0].shape) / MAX (count, 1), parts = parts_of (count);
  Rows rows = { IN (0), IN (1), centred ? IN (2) : NULL, IN (at), n_op > at + 1 ? IN (at + 1) : NULL, IN (n_op + 1), OUT (0), n };
  float *dscale = OUT (1), *dshift = centred ? OUT (2) : NULL, *sums = IN (n_op);     /* (parts, 2, n) */
#pragma omp parallel for schedule(static) if (count * n >= PARALLEL_MIN)
  for (gint64 p = 0; p < parts; p++)
    {
      float *part = sums + p * 2 * n;
      memset (part, 0, (gsize) (2 * n) * sizeof (float));
      for (gint64 i = p * count / parts; i < (p + 1) * count / parts; i++)
        {
          if (dscale || dshift)
            add_parameter_row (&rows, i, part, part + n);
          if (rows.dx)
            grad_row (&rows, i);              /* last: dx may take the place of the row */
        }
    }
  if (dscale)
    join_parts (sums, parts, 2 * n, n, dscale);
  if (dshift)
    join_parts (sums + n, parts, 2 * n, n, dshift);
}

/* ---- groups of channels: rows (N, groups) of C / groups channels each ---- */

static void
run_group_forward (CpuPlan *plan, Step *step)
{
  const HeddleGroupNormAttr *a = step->op->attr;
  const HeddleShape *s = &step->in[0].shape;
  gint64 per = s->size[1] / a->groups, pixels = heddle_shape_count (s) / (s->size[0] * s->size[1]), rows = s->size[0] * a->groups;
  const float *x = IN (0), *scale = step->n_in > 1 ? IN (1) : NULL, *shift = step->n_in > 2 ? IN (2) : NULL;
  float *y = OUT (0), *means = OUT (1), *rstds = OUT (2);
#pragma omp parallel for schedule(static) if (rows * per * pixels >= PARALLEL_MIN)
  for (gint64 i = 0; i < rows; i++)
    {
      double mean, square;
      const float *from = x + i * per * pixels;
      row_moments (from, per * pixels, TRUE, &mean, &square);
      double r = square == square ? 1 / sqrt (MAX (square, 0) + a->eps) : square;
      if (means)
        means[i] = (float) mean;
      if (rstds)
        rstds[i] = (float) r;
      for (gint64 k = 0; y && k < per; k++)
        {
          gint64 c = i % a->groups * per + k, at = i * per * pixels + k * pixels;
          float slope = (float) (scale ? r * scale[c] : r), base = shift ? shift[c] : 0, m = (float) mean;
          for (gint64 p = 0; p < pixels; p++)
            y[at + p] = (x[at + p] - m) * slope + base;
        }
    }
}

/* Each channel of each image leaves its two sums in SUMS (N, C, 2). */
static void
run_group_backward (CpuPlan *plan, Step *step)
{
  const HeddleGroupNormAttr *a = step->op->attr;
  const HeddleShape *s = &step->in[1].shape;
  gint64 n = s->size[0], channels = s->size[1], per = channels / a->groups, pixels = heddle_shape_count (s) / (n * channels);
  guint n_op = step->op->n_in;
  const float *dy = IN (0), *x = IN (1), *mean = IN (2), *rstd = IN (3), *scale = n_op > 4 ? IN (4) : NULL;
  float *dx = OUT (0), *dscale = OUT (1), *dshift = OUT (2);
  double *sums = IN (n_op);
#pragma omp parallel for schedule(static) if (n * channels * pixels >= PARALLEL_MIN)
  for (gint64 i = 0; i < n * a->groups; i++)
    {
      double sum = 0, dot = 0, r = rstd[i], count = (double) (per * pixels);
      for (gint64 k = 0; k < per; k++)
        {
          gint64 c = i % a->groups * per + k, row = i * per + k;
          row_dots (dy + row * pixels, x + row * pixels, NULL, pixels, mean[i], &sums[2 * row], &sums[2 * row + 1]);
          sum += sums[2 * row] * (scale ? scale[c] : 1);
          dot += sums[2 * row + 1] * (scale ? scale[c] : 1);
        }
      float m = mean[i], base = (float) (-sum / count * r), slope = (float) (-dot / count * r * r * r);
      for (gint64 k = 0; dx && k < per; k++)
        {
          gint64 at = (i * per + k) * pixels;
          float direct = (float) (r * (scale ? scale[i % a->groups * per + k] : 1));
          for (gint64 p = 0; p < pixels; p++)
            dx[at + p] = dy[at + p] * direct + ((x[at + p] - m) * slope + base);
        }
    }
  for (gint64 c = 0; c < channels; c++)
    {
      double slope = 0, base = 0;
      for (gint64 i = 0; i < n; i++)
        {
          base += sums[2 * (i * channels + c)];
          slope += sums[2 * (i * channels + c) + 1] * rstd[i * a->groups + c / per];
        }
      if (dscale)
        dscale[c] = (float) slope;
      if (dshift)
        dshift[c] = (float) base;
    }
}

/* A step with scratch of COUNT floats behind its inputs. */
static Step *
emit_backward (CpuCompiler *c, const HeddleOp *op, StepRun run, gint64 count)
{
  HeddleShape shape = heddle_shape (count);
  Operand scratch = cpu_temp (c->plan, HEDDLE_F32, &shape, &cpu_plain);
  Step *step = cpu_simple (c, op, op->info->name, run, &cpu_plain);
  step->in[step->n_in++] = scratch;
  return step;
}

/* ---- joined with the sums around them in a residual network ---- */

static gboolean
is_sum (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_ADD && op->out[0]->dtype == HEDDLE_F32 && op->in[0] != op->in[1] && heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape);
}

static gboolean
is_there (const CpuCompiler *c, const HeddleValue *v)
{
  return v->kind == HEDDLE_VALUE_TEMP && v->dtype == HEDDLE_F32 && c->forms[v->id] != NULL;
}

/* The sum of dx and a tensor that is there already, if that is all that dx is for, or NULL */
static const HeddleOp *
sum_behind (const CpuCompiler *c, const HeddleOp *op, const HeddleValue **other)
{
  const HeddleOp *sum = cpu_only_user (c, op->out[0]);
  gboolean ok = sum && is_sum (sum) && op->out[0]->dtype == HEDDLE_F32;
  *other = ok ? sum->in[sum->in[0] == op->out[0]] : NULL;
  return ok && is_there (c, *other) && !c->forward[sum->out[0]->id] ? sum : NULL;
}

gboolean
cpu_emit_sum_norm (CpuCompiler *c, const HeddleOp *sum)
{
  const GPtrArray *ops = c->plan->program->ops;
  const HeddleOp *op = sum->id + 1 < ops->len ? ops->pdata[sum->id + 1] : NULL;
  const HeddleValue *x = sum->out[0];
  gboolean norm = op && (op->info->code == HEDDLE_OP_LAYER_NORM || op->info->code == HEDDLE_OP_RMS_NORM) && op->in[0] == x && !c->done[op->id];
  gboolean ok = c->device->flags.fusion && norm && is_sum (sum) && is_there (c, sum->in[0]) && is_there (c, sum->in[1]) && !c->forward[x->id];
  if (ok)
    {
      Operand terms[] = { cpu_form (c, sum->in[0], HEDDLE_F32, &cpu_plain), cpu_form (c, sum->in[1], HEDDLE_F32, &cpu_plain) }, to = cpu_target (c, x, HEDDLE_F32, &cpu_plain);
      cpu_made_as (c, x, to);
      Step *step = cpu_simple (c, op, op->info->code == HEDDLE_OP_LAYER_NORM ? "add+layer_norm" : "add+rms_norm", run_forward, &cpu_plain);
      step->in[0] = (Operand) { 0 };           /* x is made here */
      memcpy (step->in + TERMS, terms, sizeof terms);
      step->n_in = TERMS + G_N_ELEMENTS (terms);
      step->out[SUM] = to;
      step->n_out = SUM + 1;
      cpu_may_share (c->plan, &terms[0], &to);
      cpu_may_share (c->plan, &terms[1], &to);
      cpu_mark_done (c, op);
    }
  return ok;
}

static void
emit_gradient (CpuCompiler *c, const HeddleOp *op)
{
  gint64 rows = heddle_shape_count (&op->in[2]->shape), n = heddle_shape_count (&op->in[1]->shape) / MAX (rows, 1);
  const HeddleValue *other;
  const HeddleOp *sum = sum_behind (c, op, &other);
  Operand dx = sum ? cpu_target (c, sum->out[0], HEDDLE_F32, &cpu_plain) : (Operand) { 0 }, term = sum ? cpu_form (c, other, HEDDLE_F32, &cpu_plain) : (Operand) { 0 };
  Step *step = emit_backward (c, op, run_backward, parts_of (rows) * 2 * n);
  if (sum)
    {
      step->what = op->info->code == HEDDLE_OP_LAYER_NORM_GRAD ? "layer_norm_grad+add" : "rms_norm_grad+add";
      step->in[step->n_in++] = term;
      step->out[0] = dx;
      g_clear_pointer (&c->forms[op->out[0]->id], g_array_unref);
      cpu_may_share (c->plan, &term, &dx);
      cpu_made_as (c, sum->out[0], dx);
      cpu_mark_done (c, sum);
    }
}

gboolean
cpu_emit_row_norm (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_LAYER_NORM: case HEDDLE_OP_RMS_NORM: cpu_simple (c, op, op->info->name, run_forward, &cpu_plain); break;
    case HEDDLE_OP_LAYER_NORM_GRAD: case HEDDLE_OP_RMS_NORM_GRAD: emit_gradient (c, op); break;
    case HEDDLE_OP_GROUP_NORM: cpu_simple (c, op, op->info->name, run_group_forward, &cpu_plain); break;
    case HEDDLE_OP_GROUP_NORM_GRAD: emit_backward (c, op, run_group_backward, op->in[1]->shape.size[0] * op->in[1]->shape.size[1] * 4); break;
    default: ok = FALSE; break;
    }
  return ok;
}
