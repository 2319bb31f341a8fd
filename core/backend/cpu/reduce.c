/* cpu/reduce.c: sums and means over axes, and the sum of squares with the search for what is not finite.  Must not know what runs around them.
 * Every sum is made in double and in an order that its shape alone decides, so that no number of threads changes a bit of it. */
#include "cpu.h"

#include <math.h>
#include <string.h>

/* ---- sums over axes ---- */

#define PARTS 16     /* into which the outermost axis is cut at most; if it is summed, each has sums of its own, added up in order */
#define LANES 16     /* of a row's sum */

/* The input as axes that are alternately summed (stride 0) and kept (STRIDE of the sums): neighbours of one kind are one axis here. */
typedef struct { gint32 rank; gint64 size[HEDDLE_MAX_RANK], stride[HEDDLE_MAX_RANK], parts; double factor; } Reduce;

VECTOR (double, row_sum, (const float *x, gint64 n), (x, n))
{
  double lanes[LANES] = { 0 }, sum = 0;
  gint64 i = 0;
  for (; i + LANES <= n; i += LANES)
    for (gint l = 0; l < LANES; l++)
      lanes[l] += x[i + l];
  for (gint width = LANES / 2; width > 0; width /= 2)
    for (gint l = 0; l < width; l++)
      lanes[l] += lanes[l + width];
  for (; i < n; i++)
    sum += x[i];
  return lanes[0] + sum;
}

VECTOR (void, add_row, (double *restrict sums, const float *restrict x, gint64 n), (sums, x, n))
{
  for (gint64 j = 0; j < n; j++)
    sums[j] += x[j];
}

/* Adds what the outermost axis has in FROM..TO. */
static void
add_part (const Reduce *r, const float *x, gint64 from, gint64 to, double *sums)
{
  gint32 last = r->rank - 1;
  gint64 index[HEDDLE_MAX_RANK] = { from }, at = from * r->stride[0], inner = last ? r->size[last] : to - from, rows = MIN (inner, 1) * (last ? to - from : 1);
  for (gint32 a = 1; a < last; a++)
    rows *= r->size[a];
  gint64 before = from;                       /* elements of X in front of the part */
  for (gint32 a = 1; a <= last; a++)
    before *= r->size[a];
  for (x += before; rows > 0; rows--, x += inner)
    {
      if (r->stride[last])
        add_row (sums + at, x, inner);
      else
        sums[at] += row_sum (x, inner);
      for (gint32 a = last - 1; a >= 0; a--)
        {
          at += r->stride[a];
          if (a == 0 || ++index[a] < r->size[a])
            break;
          at -= r->stride[a] * r->size[a];
          index[a] = 0;
        }
    }
}

static void
run_reduce (CpuPlan *plan, Step *step)
{
  const Reduce *r = step->data;
  gint64 n = heddle_shape_count (&step->in[0].shape), outputs = heddle_shape_count (&step->out[0].shape), own = r->stride[0] ? 0 : outputs;
  const float *x = IN (0);
  float *y = OUT (0);
  double *sums = IN (1);
  memset (sums, 0, (gsize) (own ? own * r->parts : outputs) * sizeof *sums);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
  for (gint64 p = 0; p < r->parts; p++)
    add_part (r, x, r->size[0] * p / r->parts, r->size[0] * (p + 1) / r->parts, sums + p * own);
  for (gint64 p = 1; own && p < r->parts; p++)
    for (gint64 i = 0; i < outputs; i++)
      sums[i] += sums[p * own + i];
  for (gint64 i = 0; i < outputs; i++)
    y[i] = (float) (sums[i] * r->factor);
}

/* Sums over the pixels of each plane of a blocked image. */
static void
run_reduce_planes (CpuPlan *plan, Step *step)
{
  const Reduce *r = step->data;
  const HeddleShape *s = &step->in[0].shape;
  gint lanes = plan->device->block;
  gint64 planes = s->size[0] * s->size[1] / lanes, pixels = s->size[2] * s->size[3];
  const float *x = IN (0);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (planes * pixels * lanes >= PARALLEL_MIN)
  for (gint64 k = 0; k < planes; k++)
    {
      double sum[16] = { 0 };
      for (gint64 p = 0; p < pixels; p++)
        for (gint l = 0; l < lanes; l++)
          sum[l] += x[(k * pixels + p) * lanes + l];
      for (gint l = 0; l < lanes; l++)
        y[k * lanes + l] = (float) (sum[l] * r->factor);
    }
}

/* Axes of size 1 are left out; a scalar is one axis. */
static gint64
merge_axes (Reduce *r, const HeddleShape *s, guint32 summed)
{
  gint64 kept = 1;
  for (gint32 i = s->rank - 1; i >= 0; i--)
    {
      gint64 stride = summed >> i & 1 ? 0 : kept;
      if (s->size[i] != 1 && r->rank && (r->stride[0] != 0) == (stride != 0))
        r->size[0] *= s->size[i];
      else if (s->size[i] != 1)
        {
          memmove (r->size + 1, r->size, (gsize) r->rank * sizeof *r->size);
          memmove (r->stride + 1, r->stride, (gsize) r->rank++ * sizeof *r->stride);
          r->size[0] = s->size[i];
          r->stride[0] = stride;
        }
      kept *= stride ? s->size[i] : 1;
    }
  if (!r->rank)
    r->size[r->rank++] = 1;
  return kept;
}

static void
emit_reduce (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleShape *s = &op->in[0]->shape;
  guint32 axes = heddle_op_summed_axes (op);
  gboolean planes = s->rank == 4 && axes == (1u << 2 | 1u << 3) && cpu_made (c, op->in[0])->layout->kind == LAYOUT_BLOCKED;
  Reduce *r = g_new0 (Reduce, 1);
  gint64 outputs = merge_axes (r, s, axes);
  r->factor = op->info->code == HEDDLE_OP_MEAN ? (double) outputs / (double) heddle_shape_count (s) : 1;
  r->parts = CLAMP (r->size[0], 1, heddle_shape_count (s) >= PARALLEL_MIN ? PARTS : 1);
  HeddleShape sums = heddle_shape (outputs * (r->stride[0] ? 1 : r->parts) * 2);
  Operand scratch = cpu_temp (c->plan, HEDDLE_F32, &sums, &cpu_plain);
  Step *step = cpu_simple (c, op, "reduce", planes ? run_reduce_planes : run_reduce, planes ? &cpu_blocked : &cpu_plain);
  step->in[step->n_in++] = scratch;
  step->data = r;
  step->data_free = g_free;
}

/* ---- sum of squares and finiteness, in blocks of a fixed size so that the number of threads changes nothing ---- */

#define NORM_BLOCK 65536

VECTOR (double, block_squares, (const float *x, gsize n, gboolean *finite), (x, n, finite))
{
  float lanes[16] = { 0 };
  double sum = 0;
  gsize i = 0;
  for (; i + 16 <= n; i += 16)
    {
      for (int l = 0; l < 16; l++)
        lanes[l] += x[i + (gsize) l] * x[i + (gsize) l];
      if (i % 4096 == 4080)                 /* short float sums keep their digits */
        for (int l = 0; l < 16; l++)
          {
            sum += lanes[l];
            lanes[l] = 0;
          }
    }
  for (int l = 0; l < 16; l++)
    sum += lanes[l];
  for (; i < n; i++)
    sum += (double) x[i] * x[i];
  /* a float square may overflow although the number is finite: look again only then */
  *finite = TRUE;
  if (!isfinite (sum))
    {
      sum = 0;
      for (gsize j = 0; j < n; j++)
        {
          sum += (double) x[j] * x[j];
          *finite &= isfinite (x[j]) != 0;
        }
    }
  return sum;
}

static void
run_norm_stats (CpuPlan *plan, Step *step)
{
  gsize n = (gsize) heddle_shape_count (&step->in[0].shape), blocks = (n + NORM_BLOCK - 1) / NORM_BLOCK;
  const float *x = IN (0);
  double *sums = cpu_pointer (plan, &step->in[1]), total = 0;
  gboolean finite = TRUE;
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN) reduction(&&:finite)
  for (gsize k = 0; k < blocks; k++)
    {
      gboolean good;
      sums[k] = block_squares (x + k * NORM_BLOCK, MIN (NORM_BLOCK, n - k * NORM_BLOCK), &good);
      finite = finite && good;
    }
  for (gsize k = 0; k < blocks; k++)
    total += sums[k];
  if (OUT (0))
    *(float *) OUT (0) = (float) total;
  if (OUT (1))
    *(float *) OUT (1) = finite ? 0 : 1;
}

static void
emit_norm_stats (CpuCompiler *c, const HeddleOp *op)
{
  HeddleShape sums = heddle_shape ((heddle_shape_count (&op->in[0]->shape) + NORM_BLOCK - 1) / NORM_BLOCK * 2);
  Operand scratch = cpu_temp (c->plan, HEDDLE_F32, &sums, &cpu_plain);
  Step *step = cpu_simple (c, op, "norm", run_norm_stats, &cpu_plain);
  step->in[step->n_in++] = scratch;
}

gboolean
cpu_emit_reduction (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_SUM: case HEDDLE_OP_MEAN: case HEDDLE_OP_SUM_TO: emit_reduce (c, op); break;
    case HEDDLE_OP_NORM_STATS: emit_norm_stats (c, op); break;
    default: ok = FALSE; break;
    }
  return ok;
}
