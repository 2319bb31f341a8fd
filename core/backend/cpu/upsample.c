/* cpu/upsample.c: nearest and bilinear resampling with their gradients, on row-major and blocked images.  Must not know what runs around it. */
#include "cpu.h"

#include <math.h>
#include <string.h>

typedef struct { gint64 h, w, oh, ow; gboolean bilinear; } Sizes;     /* h, w: of the small side, whichever way data flows */

/* Where output I of OUT takes from among IN: two places and the second one's share. */
typedef struct { gint64 a, b; float share; } Tap;

static inline Tap
tap (gint64 i, gint64 in, gint64 out, gboolean bilinear)
{
  Tap t = { i * in / out, i * in / out, 0 };
  if (bilinear)
    {
      double at = MAX (((double) i + 0.5) * (double) in / (double) out - 0.5, 0);
      t.a = MIN ((gint64) at, in - 1);
      t.b = MIN (t.a + 1, in - 1);
      t.share = (float) (at - (double) t.a);
    }
  return t;
}

VECTOR (void, plane_forward, (const Sizes *s, const float *x, float *restrict y, gint lanes), (s, x, y, lanes))
{
  for (gint64 i = 0; i < s->oh; i++)
    {
      Tap r = tap (i, s->h, s->oh, s->bilinear);
      for (gint64 j = 0; j < s->ow; j++)
        {
          Tap q = tap (j, s->w, s->ow, s->bilinear);
          const float *aa = x + (r.a * s->w + q.a) * lanes, *ab = x + (r.a * s->w + q.b) * lanes, *ba = x + (r.b * s->w + q.a) * lanes, *bb = x + (r.b * s->w + q.b) * lanes;
          float *to = y + (i * s->ow + j) * lanes;
          if (s->bilinear)
            for (gint l = 0; l < lanes; l++)
              to[l] = (1 - r.share) * ((1 - q.share) * aa[l] + q.share * ab[l]) + r.share * ((1 - q.share) * ba[l] + q.share * bb[l]);
          else
            memcpy (to, aa, (gsize) lanes * sizeof (float));
        }
    }
}

VECTOR (void, plane_backward, (const Sizes *s, const float *dy, float *restrict dx, gint lanes), (s, dy, dx, lanes))
{
  memset (dx, 0, (gsize) (s->h * s->w * lanes) * sizeof (float));
  for (gint64 i = 0; i < s->oh; i++)
    {
      Tap r = tap (i, s->h, s->oh, s->bilinear);
      for (gint64 j = 0; j < s->ow; j++)
        {
          Tap q = tap (j, s->w, s->ow, s->bilinear);
          const float *from = dy + (i * s->ow + j) * lanes;
          const gint64 at[4] = { r.a * s->w + q.a, r.a * s->w + q.b, r.b * s->w + q.a, r.b * s->w + q.b };
          const float share[4] = { (1 - r.share) * (1 - q.share), (1 - r.share) * q.share, r.share * (1 - q.share), r.share * q.share };
          for (gint k = 0; k < (s->bilinear ? 4 : 1); k++)
            for (gint l = 0; l < lanes; l++)
              dx[at[k] * lanes + l] += share[k] * from[l];
        }
    }
}

/* One plane, or one block of channels, belongs to one thread: the order of sums is fixed. */
static void
run_upsample (CpuPlan *plan, Step *step)
{
  const HeddleUpsampleAttr *a = step->op->attr;
  gboolean forward = step->op->info->code == HEDDLE_OP_UPSAMPLE;
  const HeddleShape *small = forward ? &step->in[0].shape : &step->out[0].shape;
  gint lanes = step->in[0].layout->kind == LAYOUT_BLOCKED ? plan->device->block : 1;
  Sizes s = { small->size[2], small->size[3], a->size[0], a->size[1], a->bilinear };
  gint64 planes = small->size[0] * small->size[1] / lanes, in = s.h * s.w * lanes, out = s.oh * s.ow * lanes;
  const float *from = IN (0);
  float *to = OUT (0);
#pragma omp parallel for schedule(static) if (planes * MAX (in, out) >= PARALLEL_MIN)
  for (gint64 k = 0; k < planes; k++)
    if (forward)
      plane_forward (&s, from + k * in, to + k * out, lanes);
    else
      plane_backward (&s, from + k * out, to + k * in, lanes);
}

gboolean
cpu_emit_upsample (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = op->info->code == HEDDLE_OP_UPSAMPLE || op->info->code == HEDDLE_OP_UPSAMPLE_GRAD;
  if (ok)
    cpu_simple (c, op, "upsample", run_upsample, cpu_made (c, op->in[0])->layout);
  return ok;
}
