/* cpu/direct.c: convolution of few channels on row-major images, where oneDNN 2.6 falls back to im2col and GEMM.
 * Must not know what runs around it.  Stride and dilation 1, one group.  Images are copied into padded rows first, so that the inner loops
 * have no borders; columns are computed 16 at a time with 4 output channels in registers. */
#include "cpu.h"

#include <omp.h>
#include <string.h>

typedef float V __attribute__ ((vector_size (32), aligned (4)));     /* 8 columns, any alignment */

#define COLUMNS 16
#define MAX_KERNEL 7

typedef struct
{
  gint64 n, ic, ih, iw, oc, oh, ow, kh, kw, ph, pw;   /* p: what is added above and to the left */
  gint64 rows, pitch;                                 /* of a padded image */
} Geometry;

static Geometry
geometry (const HeddleShape *x, const HeddleShape *w, const HeddleShape *y, gint64 ph, gint64 pw)
{
  Geometry g = { x->size[0], x->size[1], x->size[2], x->size[3], y->size[1], y->size[2], y->size[3], w->size[2], w->size[3], ph, pw, 0, 0 };
  g.rows = g.oh + g.kh - 1;
  g.pitch = (g.ow + COLUMNS - 1) / COLUMNS * COLUMNS + g.kw - 1 + 8;
  return g;
}

/* One channel into rows with PH and PW zeros before it, and zeros behind. */
static void
pad_plane (const float *x, gint64 h, gint64 w, float *to, gint64 rows, gint64 pitch, gint64 ph, gint64 pw)
{
  memset (to, 0, (gsize) (rows * pitch) * sizeof (float));
  for (gint64 i = MAX (0, -ph); i < h && i + ph < rows; i++)
    {
      gint64 from = MAX (0, -pw), n = MIN (w, pitch - pw) - from;
      if (n > 0)
        memcpy (to + (i + ph) * pitch + from + pw, x + i * w + from, (gsize) n * sizeof (float));
    }
}

#define NAME(f) f##_any
#include "direct-kernel.h"
#undef NAME
#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target ("avx2,fma")
#define NAME(f) f##_avx2
#include "direct-kernel.h"
#undef NAME
#pragma GCC pop_options
#define PICK(f) (__builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma") ? f##_avx2 : f##_any)
#else
#define PICK(f) f##_any
#endif

/* ---- forward (and the gradient by the input, which is the same with turned weights) ---- */

/* Weights (oc, ic, kh, kw) as blocks of four output channels: (oc / 4, ic, kh, kw, 4). */
static void
pack_weights (const Geometry *g, const float *w, float *packed)
{
  gint64 window = g->ic * g->kh * g->kw;
  for (gint64 o = 0; o < (g->oc + 3) / 4 * 4; o++)
    for (gint64 k = 0; k < window; k++)
      packed[(o / 4 * window + k) * 4 + o % 4] = o < g->oc ? w[o * window + k] : 0;
}

/* The same for the gradient by the input: channels change places, windows are turned by half a circle. */
static void
pack_turned (const Geometry *g, const float *w, float *packed)
{
  gint64 window = g->ic * g->kh * g->kw;
  for (gint64 o = 0; o < (g->oc + 3) / 4 * 4; o++)
    for (gint64 c = 0; c < g->ic; c++)
      for (gint64 k = 0; k < g->kh * g->kw; k++)
        packed[(o / 4 * window + c * g->kh * g->kw + k) * 4 + o % 4] = o < g->oc ? w[(c * g->oc + o) * g->kh * g->kw + g->kh * g->kw - 1 - k] : 0;
}

static gsize
forward_scratch (const Geometry *g, guint threads, gsize *packed)
{
  *packed = (gsize) ((g->oc + 3) / 4 * 4 * g->ic * g->kh * g->kw);
  return (*packed + threads * (gsize) (g->ic * g->rows * g->pitch)) * sizeof (float);
}

static void
run_images (CpuPlan *plan, Step *step, const Geometry *g, const float *x, const float *bias, float *y)
{
  gsize packed;
  forward_scratch (g, plan->device->threads, &packed);
  float *scratch = cpu_pointer (plan, &step->in[3]);
  gint64 image = g->ic * g->rows * g->pitch;
#pragma omp parallel for schedule(static) if (g->n * g->oc * g->oh * g->ow * g->ic >= PARALLEL_MIN)
  for (gint64 i = 0; i < g->n; i++)
    {
      float *padded = scratch + packed + omp_get_thread_num () * image;
      for (gint64 c = 0; c < g->ic; c++)
        pad_plane (x + (i * g->ic + c) * g->ih * g->iw, g->ih, g->iw, padded + c * g->rows * g->pitch, g->rows, g->pitch, g->ph, g->pw);
      PICK (forward_image) (g, padded, scratch, bias, y + i * g->oc * g->oh * g->ow);
    }
}

static Geometry
forward_geometry (const Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  return geometry (&step->in[0].shape, &step->in[1].shape, &step->out[0].shape, a->padding[0], a->padding[1]);
}

static void
run_forward (CpuPlan *plan, Step *step)
{
  Geometry g = forward_geometry (step);
  pack_weights (&g, IN (1), cpu_pointer (plan, &step->in[3]));
  run_images (plan, step, &g, IN (0), step->in[2].where ? IN (2) : NULL, OUT (0));
}

static Geometry
input_geometry (const Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  const HeddleShape *w = &step->in[1].shape;
  return geometry (&step->in[0].shape, w, &step->out[0].shape, w->size[2] - 1 - a->padding[0], w->size[3] - 1 - a->padding[1]);
}

static void
run_grad_input (CpuPlan *plan, Step *step)
{
  Geometry g = input_geometry (step);
  pack_turned (&g, IN (1), cpu_pointer (plan, &step->in[3]));
  run_images (plan, step, &g, IN (0), NULL, OUT (0));
}

/* ---- gradient by the weight: for each window position a dot product of shifted images ---- */

#define CHUNKS 16      /* images are dealt into so many sums, whatever the number of threads: the result never depends on it */

static gint64
weight_pitch (const Geometry *g)
{
  return (g->ow + 7) / 8 * 8;
}

static gsize
weight_scratch (const Geometry *g, guint threads, gsize *sums)
{
  *sums = (gsize) (g->oc * (g->ic * g->kh * g->kw + 1));
  *sums *= 8;
  return (CHUNKS * *sums + threads * (gsize) (g->ic * g->rows * g->pitch + (g->oc + 1) * g->oh * weight_pitch (g))) * sizeof (float);
}

static void
run_grad_weight (CpuPlan *plan, Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  Geometry g = geometry (&step->in[1].shape, &a->weight, &step->in[0].shape, a->padding[0], a->padding[1]);
  gsize sums, weights = (gsize) (g.oc * g.ic * g.kh * g.kw);
  gint64 image = g.ic * g.rows * g.pitch, pitch = weight_pitch (&g), gradient = (g.oc + 1) * g.oh * pitch, pixels = g.oh * g.ow;
  const float *dy = IN (0), *x = IN (1);
  float *scratch = cpu_pointer (plan, &step->in[3]), *dw = OUT (0), *db = OUT (1);
  weight_scratch (&g, plan->device->threads, &sums);
#pragma omp parallel for schedule(static) if (g.n * g.oc * pixels * g.ic >= PARALLEL_MIN)
  for (int chunk = 0; chunk < CHUNKS; chunk++)
    {
      float *sum = scratch + (gsize) chunk * sums, *padded = scratch + CHUNKS * sums + omp_get_thread_num () * (image + gradient), *d = padded + image;
      memset (sum, 0, sums * sizeof (float));
      memset (d, 0, (gsize) gradient * sizeof (float));
      for (gint64 i = g.n * chunk / CHUNKS; i < g.n * (chunk + 1) / CHUNKS; i++)
        {
          for (gint64 c = 0; c < g.ic; c++)
            pad_plane (x + (i * g.ic + c) * g.ih * g.iw, g.ih, g.iw, padded + c * g.rows * g.pitch, g.rows, g.pitch, g.ph, g.pw);
          for (gint64 r = 0; r < g.oc * g.oh; r++)
            memcpy (d + r * pitch, dy + (i * g.oc * g.oh + r) * g.ow, (gsize) g.ow * sizeof (float));
          PICK (weight_image) (&g, padded, d, pitch, (V *) sum);
          if (db)
            PICK (bias_image) (&g, dy + i * g.oc * pixels, (V *) sum + weights);
        }
    }
  for (gsize k = 0; k < sums / 8; k++)
    {
      double total = 0;
      for (int chunk = 0; chunk < CHUNKS; chunk++)
        for (int l = 0; l < 8; l++)
          total += scratch[(gsize) chunk * sums + 8 * k + (gsize) l];
      if (k < weights && dw)
        dw[k] = (float) total;
      else if (k >= weights && db)
        db[k - weights] = (float) total;
    }
}

/* ---- when ---- */

/* Where oneDNN has no JIT kernel: few channels that fill no block, small windows. */
gboolean
cpu_direct_fits (const CpuDevice *device, const HeddleConvAttr *a, const HeddleShape *x, const HeddleShape *w)
{
  gint64 ic = x->size[1], oc = w->size[0], kh = w->size[2], kw = w->size[3];
  gboolean plain = a->stride[0] == 1 && a->stride[1] == 1 && a->dilation[0] == 1 && a->dilation[1] == 1 && a->groups == 1;
  gboolean small = kh <= MAX_KERNEL && kw <= MAX_KERNEL && ic * kh * kw <= 512 && oc <= 64 && a->padding[0] < kh && a->padding[1] < kw;
  return plain && small && ic % device->block != 0 && (oc % device->block != 0 || ic > 4);
}

void
cpu_emit_direct (CpuCompiler *c, const HeddleOp *op)
{
  StepRun run = op->info->code == HEDDLE_OP_CONV2D ? run_forward : op->info->code == HEDDLE_OP_CONV2D_GRAD_INPUT ? run_grad_input : run_grad_weight;
  Step *step = cpu_simple (c, op, "direct", run, &cpu_plain);
  gsize unused, bytes;
  if (op->info->code == HEDDLE_OP_CONV2D_GRAD_WEIGHT)
    {
      const HeddleConvAttr *a = op->attr;
      Geometry g = geometry (&op->in[1]->shape, &a->weight, &op->in[0]->shape, a->padding[0], a->padding[1]);
      bytes = weight_scratch (&g, c->device->threads, &unused);
    }
  else
    {
      Geometry g = op->info->code == HEDDLE_OP_CONV2D ? forward_geometry (step) : input_geometry (step);
      bytes = forward_scratch (&g, c->device->threads, &unused);
    }
  HeddleShape shape = heddle_shape ((gint64) bytes / 4 + 1);
  step->in[3] = cpu_temp (c->plan, HEDDLE_F32, &shape, &cpu_plain);
  step->n_in = 4;
}
