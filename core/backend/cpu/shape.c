/* cpu/shape.c: broadcasts, reductions, dequantisation, dropout, norms.  Must not know what runs around them. */
#include "cpu.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

/* ---- broadcast ---- */

/* One number a plane, images in blocks: what the gradient of global pooling needs. */
static void
run_broadcast_planes (CpuPlan *plan, Step *step)
{
  const HeddleShape *s = &step->out[0].shape;
  gint lanes = plan->device->block;
  gint64 planes = s->size[0] * s->size[1] / lanes, pixels = s->size[2] * s->size[3];
  const float *x = IN (0);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (planes * pixels * lanes >= PARALLEL_MIN)
  for (gint64 k = 0; k < planes; k++)
    for (gint64 p = 0; p < pixels; p++)
      memcpy (y + (k * pixels + p) * lanes, x + k * lanes, (gsize) lanes * sizeof (float));
}

static void
emit_broadcast (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleShape *from = &op->in[0]->shape, *to = &op->out[0]->shape;
  gboolean planes = from->rank == 4 && to->rank == 4 && from->size[0] == to->size[0] && from->size[1] == to->size[1] && from->size[2] == 1 && from->size[3] == 1
                    && cpu_blockable (c->device, to);
  cpu_simple (c, op, "broadcast", planes ? run_broadcast_planes : cpu_run_expand, planes ? &cpu_blocked : &cpu_plain);
}

/* ---- reductions: every input element is added, in double, to the output element that STRIDE leads to ---- */

typedef struct { gint64 stride[HEDDLE_MAX_RANK]; guint accumulators; double factor; } Reduce;

static void
run_reduce (CpuPlan *plan, Step *step)
{
  const Reduce *r = step->data;
  const HeddleShape *s = &step->in[0].shape;
  gsize n = (gsize) heddle_shape_count (s), outputs = (gsize) heddle_shape_count (&step->out[0].shape);
  const float *x = IN (0);
  float *y = OUT (0);
  double *sum = cpu_pointer (plan, &step->in[1]);
  gint64 index[HEDDLE_MAX_RANK] = { 0 }, at = 0, inner = s->rank ? s->size[s->rank - 1] : 1, step_inner = s->rank ? r->stride[s->rank - 1] : 0;
  memset (sum, 0, outputs * sizeof *sum);
  for (gsize i = 0; i < n; i += (gsize) inner)
    {
      if (step_inner)
        for (gint64 j = 0; j < inner; j++)
          sum[at + j * step_inner] += x[i + (gsize) j];
      else
        {
          double row = 0;
          for (gint64 j = 0; j < inner; j++)
            row += x[i + (gsize) j];
          sum[at] += row;
        }
      for (gint32 a = s->rank - 2; a >= 0; a--)
        {
          at += r->stride[a];
          if (++index[a] < s->size[a])
            break;
          at -= r->stride[a] * s->size[a];
          index[a] = 0;
        }
    }
  for (gsize i = 0; i < outputs; i++)
    y[i] = (float) (sum[i] * r->factor);
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

/* Which input axes are summed: by attribute, or for SUM_TO where the result has size 1 or no axis. */
static guint32
summed_axes (const HeddleOp *op)
{
  const HeddleShape *from = &op->in[0]->shape, *to = &op->out[0]->shape;
  guint32 axes = 0;
  if (op->info->code == HEDDLE_OP_SUM_TO)
    for (gint32 i = 0; i < from->rank; i++)
      {
        gint32 j = to->rank - from->rank + i;
        axes |= (j < 0 || to->size[j] != from->size[i] ? 1u : 0) << i;
      }
  else
    axes = ((const HeddleReduceAttr *) op->attr)->axes ? ((const HeddleReduceAttr *) op->attr)->axes : (1u << from->rank) - 1;
  return axes;
}

static void
emit_reduce (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleShape *s = &op->in[0]->shape;
  guint32 axes = summed_axes (op);
  gboolean planes = s->rank == 4 && axes == (1u << 2 | 1u << 3) && cpu_made (c, op->in[0])->layout->kind == LAYOUT_BLOCKED;
  Reduce *r = g_new0 (Reduce, 1);
  gint64 running = 1;
  for (gint32 i = s->rank - 1; i >= 0; i--)
    if (!(axes >> i & 1))
      {
        r->stride[i] = running;
        running *= s->size[i];
      }
  r->factor = op->info->code == HEDDLE_OP_MEAN ? (double) running / (double) heddle_shape_count (s) : 1;
  HeddleShape sums = heddle_shape (running * 2);
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

/* ---- dequantisation ---- */

VECTOR (void, bytes_to_floats, (const guint8 *restrict x, float *restrict y, gint64 n, float a, float b), (x, y, n, a, b))
{
  for (gint64 i = 0; i < n; i++)
    y[i] = (float) x[i] * a + b;
}

static void
run_dequantize (CpuPlan *plan, Step *step)
{
  const HeddleDequantizeAttr *q = step->op->attr;
  const HeddleShape *s = &step->in[0].shape;
  gint64 n = s->size[0], channels = q->channels > 1 ? q->channels : 1, pixels = heddle_shape_count (s) / MAX (n * channels, 1);
  HeddleDtype dtype = step->in[0].dtype;
  const char *x = IN (0);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (n * channels * pixels >= PARALLEL_MIN)
  for (gint64 k = 0; k < n * channels; k++)
    {
      gint64 c = k % channels;
      float a = (float) (q->scale / q->std[c]), b = (float) (-q->mean[c] / q->std[c]), *to = y + k * pixels;
      const char *from = x + (gsize) (k * pixels) * heddle_dtype_size (dtype);
      if (dtype == HEDDLE_U8)
        bytes_to_floats ((const guint8 *) from, to, pixels, a, b);
      else
        {
          cpu_convert (HEDDLE_F32, to, dtype, from, (gsize) pixels);
          for (gint64 i = 0; i < pixels; i++)
            to[i] = to[i] * a + b;
        }
    }
}

/* ---- dropout: a pure function of (seed, key, step, element) ---- */

static void
run_dropout (CpuPlan *plan, Step *step)
{
  const HeddleDropoutAttr *a = step->op->attr;
  gint64 n = heddle_shape_count (&step->in[0].shape);
  const float *x = IN (0);
  float *y = OUT (0), keep = (float) (1 / (1 - a->probability));
  guint32 threshold = (guint32) MIN (a->probability * 4294967296.0, 4294967295.0);
  HeddleRandom stream = heddle_random (a->seed, HEDDLE_STREAM_DROPOUT, a->key, (guint32) *(const float *) IN (1));
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
  for (gint64 block = 0; block < (n + 3) / 4; block++)
    {
      guint32 counter[4] = { (guint32) block, stream.counter[1], stream.counter[2], stream.counter[3] }, words[4];
      heddle_philox (counter, stream.key, words);
      for (gint64 i = 4 * block; i < MIN (n, 4 * block + 4); i++)
        y[i] = words[i & 3] >= threshold ? x[i] * keep : 0;
    }
}

gboolean
cpu_emit_shape (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_BROADCAST: emit_broadcast (c, op); break;
    case HEDDLE_OP_SUM: case HEDDLE_OP_MEAN: case HEDDLE_OP_SUM_TO: emit_reduce (c, op); break;
    case HEDDLE_OP_NORM_STATS: emit_norm_stats (c, op); break;
    case HEDDLE_OP_DEQUANTIZE: cpu_simple (c, op, "dequantize", run_dequantize, &cpu_plain); break;
    case HEDDLE_OP_DROPOUT: cpu_simple (c, op, "dropout", run_dropout, &cpu_plain); break;
    default: ok = FALSE; break;
    }
  return ok;
}
