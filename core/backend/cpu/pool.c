/* cpu/pool.c: max and average pooling with their gradients, on row-major and blocked images.  Must not know what runs around it. */
#include "cpu.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define MAX_LANES 16

typedef struct
{
  const HeddlePoolAttr *a;
  gint64 planes, h, w, oh, ow;      /* planes: images x groups */
} Pool;

static Pool
pool_of (const CpuPlan *plan, const Step *step, const HeddleShape *x, const HeddleShape *y, gint *lanes, const Layout *layout)
{
  *lanes = layout->kind == LAYOUT_BLOCKED ? plan->device->block : 1;
  return (Pool) { step->op->attr, x->size[0] * x->size[1] / *lanes, x->size[2], x->size[3], y->size[2], y->size[3] };
}

/* The part of output (i, j)'s window that lies inside the image. */
typedef struct { gint64 top, left, y0, y1, x0, x1; } Window;

static inline Window
window (const Pool *p, gint64 i, gint64 j)
{
  Window w = { .top = i * p->a->stride[0] - p->a->padding[0], .left = j * p->a->stride[1] - p->a->padding[1] };
  w.y0 = MAX (w.top, 0);
  w.x0 = MAX (w.left, 0);
  w.y1 = MIN (w.top + p->a->kernel[0], p->h);
  w.x1 = MIN (w.left + p->a->kernel[1], p->w);
  return w;
}

/* ---- maximum ---- */

static inline __attribute__ ((always_inline)) void
max_plane (const Pool *p, const float *x, float *restrict y, guint8 *restrict index, const int lanes)
{
  for (gint64 i = 0; i < p->oh; i++)
    for (gint64 j = 0; j < p->ow; j++)
      {
        Window w = window (p, i, j);
        float best[MAX_LANES];
        gint32 where[MAX_LANES];
        for (int l = 0; l < lanes; l++)
          {
            best[l] = -INFINITY;
            where[l] = (gint32) ((w.y0 - w.top) * p->a->kernel[1] + w.x0 - w.left);
          }
        for (gint64 r = w.y0; r < w.y1; r++)
          for (gint64 q = w.x0; q < w.x1; q++)
            {
              const float *at = x + (r * p->w + q) * lanes;
              gint32 number = (gint32) ((r - w.top) * p->a->kernel[1] + q - w.left);
              for (int l = 0; l < lanes; l++)
                {
                  gboolean better = (at[l] > best[l]) | (at[l] != at[l]);
                  best[l] = better ? at[l] : best[l];
                  where[l] = better ? number : where[l];
                }
            }
        for (int l = 0; l < lanes; l++)
          y[(i * p->ow + j) * lanes + l] = best[l];
        if (index)
          for (int l = 0; l < lanes; l++)
            index[(i * p->ow + j) * lanes + l] = (guint8) where[l];
      }
}

/* The usual case: 2 x 2 windows side by side in a row-major image. */
VECTOR (void, max_plane_2x2, (const Pool *p, const float *x, float *restrict y, guint8 *restrict index), (p, x, y, index))
{
  for (gint64 i = 0; i < p->oh; i++)
    {
      const float *a = x + 2 * i * p->w, *b = a + p->w;
      for (gint64 j = 0; j < p->ow; j++)
        {
          float v0 = a[2 * j], v1 = a[2 * j + 1], v2 = b[2 * j], v3 = b[2 * j + 1];
          gboolean r = (v1 > v0) | (v1 != v1), s = (v3 > v2) | (v3 != v3);
          float top = r ? v1 : v0, bottom = s ? v3 : v2;
          gboolean t = (bottom > top) | (bottom != bottom);
          y[i * p->ow + j] = t ? bottom : top;
          if (index)
            index[i * p->ow + j] = (guint8) (t ? 2 + s : r);
        }
    }
}

VECTOR (void, max_1, (const Pool *p, const float *x, float *y, guint8 *index), (p, x, y, index)) { max_plane (p, x, y, index, 1); }
VECTOR (void, max_8, (const Pool *p, const float *x, float *y, guint8 *index), (p, x, y, index)) { max_plane (p, x, y, index, 8); }
VECTOR (void, max_16, (const Pool *p, const float *x, float *y, guint8 *index), (p, x, y, index)) { max_plane (p, x, y, index, 16); }

gboolean
cpu_pool_is_2x2 (const HeddlePoolAttr *a)
{
  return a->kernel[0] == 2 && a->kernel[1] == 2 && a->stride[0] == 2 && a->stride[1] == 2 && a->padding[0] == 0 && a->padding[1] == 0;
}

static void
run_max_pool (CpuPlan *plan, Step *step)
{
  gint lanes;
  Pool p = pool_of (plan, step, &step->in[0].shape, &step->out[0].shape, &lanes, step->in[0].layout);
  const float *x = IN (0);
  float *y = OUT (0);
  guint8 *index = OUT (1);
  gint64 in = p.h * p.w * lanes, out = p.oh * p.ow * lanes;
  void (*plane) (const Pool *, const float *, float *, guint8 *) = lanes == 8 ? max_8 : lanes == 16 ? max_16 : cpu_pool_is_2x2 (p.a) ? max_plane_2x2 : max_1;
#pragma omp parallel for schedule(static) if (p.planes * in >= PARALLEL_MIN)
  for (gint64 k = 0; k < p.planes; k++)
    plane (&p, x + k * in, y + k * out, index ? index + k * out : NULL);
}

static inline __attribute__ ((always_inline)) void
max_grad_plane (const Pool *p, const float *dy, const guint8 *index, float *restrict dx, const int lanes)
{
  memset (dx, 0, (gsize) (p->h * p->w * lanes) * sizeof (float));
  for (gint64 i = 0; i < p->oh; i++)
    for (gint64 j = 0; j < p->ow; j++)
      {
        gint64 top = i * p->a->stride[0] - p->a->padding[0], left = j * p->a->stride[1] - p->a->padding[1], at = (i * p->ow + j) * lanes;
        for (int l = 0; l < lanes; l++)
          {
            gint64 number = index[at + l], r = top + number / p->a->kernel[1], q = left + number % p->a->kernel[1];
            dx[(r * p->w + q) * lanes + l] += dy[at + l];
          }
      }
}

/* Windows side by side: every input belongs to one window, so all of it is written once. */
static inline __attribute__ ((always_inline)) void
max_grad_2x2 (const Pool *p, const float *dy, const guint8 *index, float *restrict dx, const int lanes)
{
  if (p->h % 2 || p->w % 2)
    memset (dx, 0, (gsize) (p->h * p->w * lanes) * sizeof (float));
  for (gint64 i = 0; i < p->oh; i++)
    for (gint64 j = 0; j < p->ow; j++)
      {
        gint64 at = (i * p->ow + j) * lanes;
        float *a = dx + (2 * i * p->w + 2 * j) * lanes, *b = a + p->w * lanes;
        for (int l = 0; l < lanes; l++)
          {
            float g = dy[at + l];
            guint8 k = index[at + l];
            a[l] = k == 0 ? g : 0;
            a[lanes + l] = k == 1 ? g : 0;
            b[l] = k == 2 ? g : 0;
            b[lanes + l] = k == 3 ? g : 0;
          }
      }
}

VECTOR (void, max_grad, (const Pool *p, const float *dy, const guint8 *index, float *dx, int lanes), (p, dy, index, dx, lanes))
{
  if (cpu_pool_is_2x2 (p->a))
    switch (lanes)
      {
      case 8: max_grad_2x2 (p, dy, index, dx, 8); break;
      case 16: max_grad_2x2 (p, dy, index, dx, 16); break;
      default: max_grad_2x2 (p, dy, index, dx, 1); break;
      }
  else
    max_grad_plane (p, dy, index, dx, lanes);
}

static void
run_max_pool_grad (CpuPlan *plan, Step *step)
{
  gint lanes;
  Pool p = pool_of (plan, step, &step->out[0].shape, &step->in[0].shape, &lanes, step->out[0].layout);
  const float *dy = IN (0);
  const guint8 *index = IN (1);
  float *dx = OUT (0);
  gint64 in = p.h * p.w * lanes, out = p.oh * p.ow * lanes;
#pragma omp parallel for schedule(static) if (p.planes * in >= PARALLEL_MIN)
  for (gint64 k = 0; k < p.planes; k++)
    max_grad (&p, dy + k * out, index + k * out, dx + k * in, lanes);
}

/* ---- average ---- */

static inline float
share (const Pool *p, const Window *w)
{
  gint64 inside = (w->y1 - w->y0) * (w->x1 - w->x0);
  return 1.0f / (float) (p->a->exclude_padding ? MAX (inside, 1) : p->a->kernel[0] * p->a->kernel[1]);
}

VECTOR (void, avg_plane, (const Pool *p, const float *x, float *restrict y, int lanes), (p, x, y, lanes))
{
  for (gint64 i = 0; i < p->oh; i++)
    for (gint64 j = 0; j < p->ow; j++)
      {
        Window w = window (p, i, j);
        float sum[MAX_LANES] = { 0 }, factor = share (p, &w);
        for (gint64 r = w.y0; r < w.y1; r++)
          for (gint64 q = w.x0; q < w.x1; q++)
            for (int l = 0; l < lanes; l++)
              sum[l] += x[(r * p->w + q) * lanes + l];
        for (int l = 0; l < lanes; l++)
          y[(i * p->ow + j) * lanes + l] = sum[l] * factor;
      }
}

static void
run_avg_pool (CpuPlan *plan, Step *step)
{
  gint lanes;
  Pool p = pool_of (plan, step, &step->in[0].shape, &step->out[0].shape, &lanes, step->in[0].layout);
  const float *x = IN (0);
  float *y = OUT (0);
  gint64 in = p.h * p.w * lanes, out = p.oh * p.ow * lanes;
#pragma omp parallel for schedule(static) if (p.planes * in >= PARALLEL_MIN)
  for (gint64 k = 0; k < p.planes; k++)
    avg_plane (&p, x + k * in, y + k * out, lanes);
}

VECTOR (void, avg_grad_plane, (const Pool *p, const float *dy, float *restrict dx, int lanes), (p, dy, dx, lanes))
{
  memset (dx, 0, (gsize) (p->h * p->w * lanes) * sizeof (float));
  for (gint64 i = 0; i < p->oh; i++)
    for (gint64 j = 0; j < p->ow; j++)
      {
        Window w = window (p, i, j);
        float factor = share (p, &w);
        for (gint64 r = w.y0; r < w.y1; r++)
          for (gint64 q = w.x0; q < w.x1; q++)
            for (int l = 0; l < lanes; l++)
              dx[(r * p->w + q) * lanes + l] += dy[(i * p->ow + j) * lanes + l] * factor;
      }
}

static void
run_avg_pool_grad (CpuPlan *plan, Step *step)
{
  gint lanes;
  Pool p = pool_of (plan, step, &step->out[0].shape, &step->in[0].shape, &lanes, step->out[0].layout);
  const float *dy = IN (0);
  float *dx = OUT (0);
  gint64 in = p.h * p.w * lanes, out = p.oh * p.ow * lanes;
#pragma omp parallel for schedule(static) if (p.planes * in >= PARALLEL_MIN)
  for (gint64 k = 0; k < p.planes; k++)
    avg_grad_plane (&p, dy + k * out, dx + k * in, lanes);
}

gboolean
cpu_emit_pool (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_MAX_POOL: cpu_simple (c, op, "max pool", run_max_pool, cpu_made (c, op->in[0])->layout); break;
    case HEDDLE_OP_MAX_POOL_GRAD:
      if (cpu_direct_takes_pooled (c, op) || cpu_norm_takes (c, op))
        cpu_mark_done (c, op);
      else
        cpu_simple (c, op, "max pool", run_max_pool_grad, cpu_made (c, op->in[1])->layout);
      break;
    case HEDDLE_OP_AVG_POOL: cpu_simple (c, op, "average pool", run_avg_pool, cpu_made (c, op->in[0])->layout); break;
    case HEDDLE_OP_AVG_POOL_GRAD: cpu_simple (c, op, "average pool", run_avg_pool_grad, cpu_made (c, op->in[0])->layout); break;
    default: ok = FALSE; break;
    }
  return ok;
}
