/* cpu/shape.c: broadcasts, dequantisation, dropout.  Must not know what runs around them. */
#include "cpu.h"
#include "base/random.h"
#include "tensor/tensors.h"

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
    case HEDDLE_OP_DEQUANTIZE: cpu_simple (c, op, "dequantize", run_dequantize, &cpu_plain); break;
    case HEDDLE_OP_DROPOUT: cpu_simple (c, op, "dropout", run_dropout, &cpu_plain); break;
    default: ok = FALSE; break;
    }
  return ok;
}
