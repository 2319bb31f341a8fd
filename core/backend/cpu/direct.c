/* cpu/direct.c: convolution of few channels on row-major images, where oneDNN 2.6 falls back to im2col and GEMM, alone or together with the max pooling around it.
 * Must not know what runs around it.  Stride and dilation 1, one group.  Images are copied into padded rows first, so that the inner loops have no borders;
 * two rows are computed at a time, so that 2 x 2 pooling needs no memory between.  A pooled gradient has one number for each window: what
 * the other three would add is never computed. */
#include "cpu.h"

#include <omp.h>
#include <string.h>

#define BLOCK_CHANNELS 6
#define MAX_KERNEL 7
#define SLACK 32               /* floats that whole vectors may reach beyond the last row */

typedef struct
{
  gint64 n, ic, ih, iw, oc, oh, ow, kh, kw, ph, pw;   /* p: what is added above and to the left */
  gint64 rows, pitch;                                 /* of a padded image */
} Geometry;

/* Where results go: (oc, oh, ow) of one image; with INDEX its 2 x 2 maxima (oc, oh / 2, ow / 2) and their places. */
typedef struct { float *y; guint8 *index; } Result;

typedef struct
{
  gint64 lanes;
  void (*columns)     (const Geometry *g, const float *padded, const float *packed, const float *bias, const Result *r);
  void (*channels)    (const Geometry *g, const float *padded, const float *packed, const float *bias, const Result *r);
  void (*unfold)      (const Geometry *g, const float *padded, gint64 i, gint64 length, float *windows);
  void (*rows_pooled) (const Geometry *g, const float *windows, gint64 length, const float *dy, const guint8 *index, gint64 i, float *sums);
  void (*rows_dense)  (const Geometry *g, const float *windows, gint64 length, const float *dy, gint64 plane, gint64 i, float *sums);
} Kernels;

#define KERNELS "direct-kernel.h"
#include "each-isa.h"

static const Kernels *
kernels (void)
{
  return CPU_PICK (&kernels);
}

static gint64
round_up (gint64 n, gint64 step)
{
  return (n + step - 1) / step * step;
}

static Geometry
geometry (const HeddleShape *x, const HeddleShape *w, const HeddleShape *y, gint64 ph, gint64 pw)
{
  Geometry g = { x->size[0], x->size[1], x->size[2], x->size[3], y->size[1], y->size[2], y->size[3], w->size[2], w->size[3], ph, pw, 0, 0 };
  g.rows = round_up (g.oh, 2) + g.kh - 1;
  g.pitch = round_up (g.ow, 16) + g.kw - 1 + 8;
  return g;
}

static gsize
padded_size (const Geometry *g)
{
  return (gsize) (g->ic * g->rows * g->pitch + SLACK);
}

/* One channel into rows with PH and PW zeros before it, and zeros behind. */
static void
pad_plane (const Geometry *g, const float *x, float *to)
{
  memset (to, 0, (gsize) (g->rows * g->pitch) * sizeof (float));
  for (gint64 i = MAX (0, -g->ph); i < g->ih && i + g->ph < g->rows; i++)
    {
      gint64 from = MAX (0, -g->pw), n = MIN (g->iw, g->pitch - g->pw) - from;
      if (n > 0)
        memcpy (to + (i + g->ph) * g->pitch + from + g->pw, x + i * g->iw + from, (gsize) n * sizeof (float));
    }
}

/* The same from pooled numbers (ih / 2, iw / 2) and the places they belong to; everything else is zero. */
static void
pad_pooled (const Geometry *g, const float *x, const guint8 *index, float *to)
{
  memset (to, 0, (gsize) (g->rows * g->pitch) * sizeof (float));
  for (gint64 i = 0; i < g->ih / 2; i++)
    for (gint64 j = 0; j < g->iw / 2; j++, x++, index++)
      {
        gint64 row = 2 * i + (*index >> 1) + g->ph, column = 2 * j + (*index & 1) + g->pw;
        if (row >= 0 && row < g->rows && column >= 0 && column < g->pitch)
          to[row * g->pitch + column] = *x;
      }
}

/* Image I of X; INDEX: X is pooled */
static void
pad_image (const Geometry *g, const float *x, const guint8 *index, gint64 i, float *padded)
{
  gint64 plane = index ? g->ih / 2 * (g->iw / 2) : g->ih * g->iw;
  for (gint64 c = 0; c < g->ic; c++)
    if (index)
      pad_pooled (g, x + (i * g->ic + c) * plane, index + (i * g->ic + c) * plane, padded + c * g->rows * g->pitch);
    else
      pad_plane (g, x + (i * g->ic + c) * plane, padded + c * g->rows * g->pitch);
}

/* ---- forward (and the gradient by the input, which is the same with turned weights) ---- */

/* Lanes over channels when they fill vectors better than columns do. */
static gboolean
lanes_are_channels (const Geometry *g)
{
  gint64 w = kernels ()->lanes;
  return g->oc * round_up (g->ow, w) > g->ow * round_up (g->oc, w);
}

static gint64
packed_block (const Geometry *g, gint64 o)
{
  return lanes_are_channels (g) ? kernels ()->lanes : MIN (BLOCK_CHANNELS, g->oc - o);
}

/* Weights as blocks of output channels: (ic, kh, kw, channels of the block).  TURNED: W is (ic, oc, kh, kw) and its windows are turned by half a circle. */
static void
pack_weights (const Geometry *g, const float *w, gboolean turned, float *packed)
{
  gint64 pixels = g->kh * g->kw, window = g->ic * pixels;
  for (gint64 o = 0; o < g->oc;)
    {
      gint64 n = packed_block (g, o), real = MIN (n, g->oc - o);
      for (gint64 c = 0; c < g->ic; c++)
        for (gint64 k = 0; k < pixels; k++)
          for (gint64 l = 0; l < n; l++)
            packed[o * window + (c * pixels + k) * n + l] = l >= real ? 0 : turned ? w[(c * g->oc + o + l) * pixels + pixels - 1 - k] : w[(o + l) * window + c * pixels + k];
      o += n;
    }
}

static gsize
packed_size (const Geometry *g)
{
  return (gsize) (round_up (g->oc, 16) * g->ic * g->kh * g->kw);
}

typedef struct { const float *x, *bias; const guint8 *x_index; float *y; guint8 *index; } Images;

static void
run_images (CpuPlan *plan, const Geometry *g, const Images *m, float *scratch)
{
  void (*image) (const Geometry *, const float *, const float *, const float *, const Result *) = lanes_are_channels (g) ? kernels ()->channels : kernels ()->columns;
  gint64 out = m->index ? g->oc * (g->oh / 2) * (g->ow / 2) : g->oc * g->oh * g->ow;
  gsize packed = packed_size (g), size = padded_size (g);
#pragma omp parallel for schedule(dynamic, 4) if (g->n * g->oc * g->oh * g->ow * g->ic >= PARALLEL_MIN)
  for (gint64 i = 0; i < g->n; i++)
    {
      float *padded = scratch + packed + (gsize) omp_get_thread_num () * size;
      Result r = { m->y + i * out, m->index ? m->index + i * out : NULL };
      pad_image (g, m->x, m->x_index, i, padded);
      image (g, padded, scratch, m->bias, &r);
    }
}

/* in: x, w, [bias], scratch; out: y, or pooled y and index */
static void
run_forward (CpuPlan *plan, Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  Geometry g = geometry (&step->in[0].shape, &step->in[1].shape, &step->op->out[0]->shape, a->padding[0], a->padding[1]);
  Images m = { IN (0), IN (2), NULL, OUT (0), OUT (1) };
  pack_weights (&g, IN (1), FALSE, IN (3));
  run_images (plan, &g, &m, IN (3));
}

/* in: dy (pooled: and where), w, scratch; out: dx */
static void
run_grad_input (CpuPlan *plan, Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  const HeddleShape *w = &step->in[1].shape;
  Geometry g = geometry (&step->op->in[0]->shape, w, &step->out[0].shape, w->size[2] - 1 - a->padding[0], w->size[3] - 1 - a->padding[1]);
  Images m = { IN (0), NULL, IN (2), OUT (0), NULL };
  pack_weights (&g, IN (1), TRUE, IN (3));
  run_images (plan, &g, &m, IN (3));
}

/* ---- gradient by the weight ---- */

#define CHUNKS 16      /* images are dealt into so many sums, whatever the number of threads: the result never depends on it */

typedef struct { gint64 length, channels; gsize sums, windows, gradient; } WeightScratch;

/* length: numbers of a window, in whole vectors; channels: in fours */
static WeightScratch
weight_scratch (const Geometry *g)
{
  WeightScratch s = { round_up (g->ic * g->kh * g->kw, kernels ()->lanes), round_up (g->oc, 4), 0, 0, 0 };
  s.sums = (gsize) (s.channels * s.length + s.channels);
  s.windows = (gsize) (2 * g->ow * s.length + SLACK);
  s.gradient = (gsize) (s.channels * g->oh * g->ow);
  return s;
}

static gsize
weight_scratch_size (const Geometry *g, guint threads)
{
  WeightScratch s = weight_scratch (g);
  return CHUNKS * s.sums + threads * (padded_size (g) + s.windows + s.gradient);
}

VECTOR (void, add_bias, (const float *dy, gint64 channels, gint64 pixels, float *sum), (dy, channels, pixels, sum))
{
  for (gint64 o = 0; o < channels; o++)
    {
      float lanes[16] = { 0 }, rest = 0;
      gint64 p = 0;
      for (; p + 16 <= pixels; p += 16)
        for (int l = 0; l < 16; l++)
          lanes[l] += dy[o * pixels + p + l];
      for (; p < pixels; p++)
        rest += dy[o * pixels + p];
      for (int l = 0; l < 16; l++)
        rest += lanes[l];
      sum[o] += rest;
    }
}

typedef struct { const float *x, *dy; const guint8 *index; gboolean bias; } WeightImages;

/* Adds image I's share to SUMS (channels, length), then (channels) of the bias. */
static void
weight_image (const Geometry *g, const WeightScratch *s, const WeightImages *m, gint64 i, float *padded, float *windows, float *gradient, float *sums)
{
  const Kernels *k = kernels ();
  gint64 pixels = m->index ? g->oh / 2 * (g->ow / 2) : g->oh * g->ow;
  const float *dy = m->dy + i * g->oc * pixels;
  pad_image (g, m->x, NULL, i, padded);
  if (!m->index && g->oc % 4)
    dy = memcpy (gradient, dy, (gsize) (g->oc * pixels) * sizeof (float));       /* channels that are not there are zeros behind it */
  for (gint64 row = 0; row < (m->index ? g->oh / 2 * 2 : g->oh); row += 2)
    {
      k->unfold (g, padded, row, s->length, windows);
      if (m->index)
        k->rows_pooled (g, windows, s->length, dy, m->index + i * g->oc * pixels, row, sums);
      else
        k->rows_dense (g, windows, s->length, dy, pixels, row, sums);
    }
  if (m->bias)
    add_bias (dy, g->oc, pixels, sums + s->channels * s->length);
}

static void
join_sums (const Geometry *g, const WeightScratch *s, const float *sums, float *dw, float *db)
{
  gint64 window = g->ic * g->kh * g->kw;
  for (gint64 o = 0; o < g->oc; o++)
    for (gint64 k = 0; k <= window; k++)
      {
        gint64 at = k < window ? o * s->length + k : s->channels * s->length + o;
        double total = 0;
        for (int chunk = 0; chunk < CHUNKS; chunk++)
          total += sums[(gsize) chunk * s->sums + (gsize) at];
        if (k < window && dw)
          dw[o * window + k] = (float) total;
        else if (k == window && db)
          db[o] = (float) total;
      }
}

/* in: dy (pooled: and where), x, scratch; out: dw, db */
static void
run_grad_weight (CpuPlan *plan, Step *step)
{
  const HeddleConvAttr *a = step->op->attr;
  Geometry g = geometry (&step->in[1].shape, &a->weight, &step->op->in[0]->shape, a->padding[0], a->padding[1]);
  WeightScratch s = weight_scratch (&g);
  WeightImages m = { IN (1), IN (0), IN (2), OUT (1) != NULL };
  float *scratch = IN (3), *own = scratch + CHUNKS * s.sums;
  gsize each = padded_size (&g) + s.windows + s.gradient;
#pragma omp parallel for schedule(dynamic, 1) if (g.n * g.oc * g.oh * g.ow * g.ic >= PARALLEL_MIN)
  for (int chunk = 0; chunk < CHUNKS; chunk++)
    {
      float *sums = scratch + (gsize) chunk * s.sums, *padded = own + (gsize) omp_get_thread_num () * each, *windows = padded + padded_size (&g), *gradient = windows + s.windows;
      memset (sums, 0, s.sums * sizeof (float));
      memset (padded, 0, each * sizeof (float));
      for (gint64 i = g.n * chunk / CHUNKS; i < g.n * (chunk + 1) / CHUNKS; i++)
        weight_image (&g, &s, &m, i, padded, windows, gradient, sums);
    }
  join_sums (&g, &s, scratch, OUT (0), OUT (1));
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

/* The max pooling that is the only reader of a convolution's result, or NULL.  16-bit results are rounded behind it: the same maxima, of which the places differ only
 * where rounding would have made two numbers equal. */
static const HeddleOp *
pooled_by (const CpuCompiler *c, const HeddleOp *op)
{
  const HeddleOp *pool = cpu_only_user (c, op->out[0]);
  return pool && pool->info->code == HEDDLE_OP_MAX_POOL && cpu_pool_is_2x2 (pool->attr) ? pool : NULL;
}

static Operand
scratch_of (CpuCompiler *c, gsize floats)
{
  HeddleShape shape = heddle_shape ((gint64) floats + 1);
  return cpu_temp (c->plan, HEDDLE_F32, &shape, &cpu_plain);
}

static void
emit_forward (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleConvAttr *a = op->attr;
  const HeddleOp *pool = pooled_by (c, op);
  Geometry g = geometry (&op->in[0]->shape, &op->in[1]->shape, &op->out[0]->shape, a->padding[0], a->padding[1]);
  Operand in[4] = { cpu_form (c, op->in[0], HEDDLE_F32, &cpu_plain), cpu_form (c, op->in[1], HEDDLE_F32, &cpu_plain) };
  if (op->n_in > 2)
    in[2] = cpu_form (c, op->in[2], HEDDLE_F32, &cpu_plain);
  in[3] = scratch_of (c, packed_size (&g) + c->device->threads * padded_size (&g));
  HeddleValue *const *out = pool ? pool->out : op->out;
  Step *step = cpu_step_new (c->plan, op, pool ? "direct+max pool" : "direct", run_forward);
  memcpy (step->in, in, sizeof in);
  step->n_in = 4;
  step->out[0] = cpu_target (c, out[0], HEDDLE_F32, &cpu_plain);
  step->n_out = 1;
  if (pool)
    {
      step->out[step->n_out++] = cpu_target (c, out[1], HEDDLE_U8, &cpu_plain);
      cpu_mark_done (c, pool);
      cpu_made_as (c, out[1], step->out[1]);
    }
  cpu_made_as (c, out[0], step->out[0]);
}

/* in[0] and in[2] of STEP: the gradient, or the pooled one and its places when the operation that spreads it was left out */
static void
take_gradient (CpuCompiler *c, const HeddleValue *dy, Operand *in)
{
  const HeddleOp *spread = cpu_left_out (c, dy);
  in[0] = cpu_form (c, spread ? spread->in[0] : dy, HEDDLE_F32, &cpu_plain);
  if (spread)
    in[2] = cpu_form (c, spread->in[1], HEDDLE_U8, &cpu_plain);
}

static void
emit_gradient (CpuCompiler *c, const HeddleOp *op, StepRun run, gsize scratch)
{
  Operand in[4] = { { 0 } }, out[2] = { { 0 } };
  take_gradient (c, op->in[0], in);
  in[1] = cpu_form (c, op->in[1], HEDDLE_F32, &cpu_plain);
  in[3] = scratch_of (c, scratch);
  for (guint i = 0; i < op->n_out; i++)
    if (op->out[i]->n_uses)
      out[i] = cpu_target (c, op->out[i], HEDDLE_F32, &cpu_plain);
  Step *step = cpu_step_new (c->plan, op, in[2].where ? "direct, pooled" : "direct", run);
  memcpy (step->in, in, sizeof in);
  memcpy (step->out, out, sizeof out);
  step->n_in = 4;
  step->n_out = op->n_out;
  for (guint i = 0; i < op->n_out; i++)
    if (out[i].where)
      cpu_made_as (c, op->out[i], out[i]);
}

void
cpu_emit_direct (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleConvAttr *a = op->attr;
  if (op->info->code == HEDDLE_OP_CONV2D)
    emit_forward (c, op);
  else if (op->info->code != HEDDLE_OP_CONV2D_GRAD_WEIGHT)       /* the gradient by the input, and a transposed convolution */
    {
      const HeddleShape *w = &op->in[1]->shape;
      Geometry g = geometry (&op->in[0]->shape, w, &op->out[0]->shape, w->size[2] - 1 - a->padding[0], w->size[3] - 1 - a->padding[1]);
      emit_gradient (c, op, run_grad_input, packed_size (&g) + c->device->threads * padded_size (&g));
    }
  else
    {
      Geometry g = geometry (&op->in[1]->shape, &a->weight, &op->in[0]->shape, a->padding[0], a->padding[1]);
      emit_gradient (c, op, run_grad_weight, weight_scratch_size (&g, c->device->threads));
    }
}

/* Can every reader of a max pooling's gradient take it in pooled form? */
gboolean
cpu_direct_takes_pooled (const CpuCompiler *c, const HeddleOp *op)
{
  const HeddleValue *d = op->out[0];
  const GPtrArray *users = c->users[d->id];
  gboolean ok = c->device->flags.fusion && cpu_pool_is_2x2 (op->attr) && users && users->len == d->n_uses;
  for (guint i = 0; ok && i < users->len; i++)
    {
      const HeddleOp *user = users->pdata[i];
      const HeddleConvAttr *a = user->attr;
      gboolean weight = user->info->code == HEDDLE_OP_CONV2D_GRAD_WEIGHT;
      ok = (weight || user->info->code == HEDDLE_OP_CONV2D_GRAD_INPUT) && user->in[0] == d && user->in[1] != d
           && cpu_direct_fits (c->device, a, weight ? &user->in[1]->shape : &a->input, weight ? &a->weight : &user->in[1]->shape);
    }
  return ok;
}
