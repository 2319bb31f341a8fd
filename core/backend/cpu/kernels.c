/* cpu/kernels.c: which kernel makes which operation; matrix products.  Must not know what runs before or after. */
#include "cpu.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

Step *
cpu_simple (CpuCompiler *c, const HeddleOp *op, const char *what, StepRun run, const Layout *layout)
{
  Operand in[STEP_OPERANDS] = { 0 }, out[STEP_OPERANDS] = { 0 };
  for (guint i = 0; i < op->n_in; i++)
    {
      const HeddleValue *v = op->in[i];
      in[i] = cpu_form (c, v, heddle_dtype_is_float (v->dtype) ? HEDDLE_F32 : v->dtype, v->shape.rank == 4 ? layout : &cpu_plain);
    }
  for (guint i = 0; i < op->n_out; i++)
    {
      const HeddleValue *v = op->out[i];
      if (v->n_uses || (i == 0 && op->again))     /* a copy made for its other outputs: kernels take their sizes from the first */
        out[i] = cpu_target (c, v, heddle_dtype_is_float (v->dtype) ? HEDDLE_F32 : v->dtype, v->shape.rank == 4 ? layout : &cpu_plain);
    }
  Step *step = cpu_step_new (c->plan, op, what, run);
  memcpy (step->in, in, sizeof in);
  memcpy (step->out, out, sizeof out);
  step->n_in = op->n_in;
  step->n_out = op->n_out;
  for (guint i = 0; i < op->n_out; i++)
    if (out[i].where)
      cpu_made_as (c, op->out[i], out[i]);
  return step;
}

/* ---- matrix products: oneDNN's row-major sgemm ---- */

/* (..., M, K) (..., K, N), or (K, N) for all.  Several products share the threads; one is oneDNN's to share out. */
static void
run_matmul (CpuPlan *plan, Step *step)
{
  const HeddleMatmulAttr *a = step->op->attr;
  const HeddleShape *x = &step->in[0].shape, *w = &step->in[1].shape, *y = &step->out[0].shape;
  gint32 r = x->rank;
  gint64 m = y->size[r - 2], n = y->size[r - 1], k = x->size[r - (a->transpose_a ? 2 : 1)], batch = heddle_shape_count (y) / MAX (m * n, 1);
  gint64 step_b = w->rank == 2 && r > 2 ? 0 : k * n;
  const float *from = IN (0), *by = IN (1);
  float *to = OUT (0);
  char ta = a->transpose_a ? 'T' : 'N', tb = a->transpose_b ? 'T' : 'N';
  if (!step_b && !a->transpose_a)               /* one tall product */
    {
      m *= batch;
      batch = 1;
    }
#pragma omp parallel for schedule(static) if (batch > 1 && batch * m * n >= PARALLEL_MIN)
  for (gint64 i = 0; i < batch; i++)
    dnnl_sgemm (ta, tb, m, n, k, 1, from + i * m * k, x->size[r - 1], by + i * step_b, w->size[w->rank - 1], 0, to + i * m * n, n);
}

/* All leading axes are rows. */
static gint64
rows_of (const HeddleShape *s)
{
  return heddle_shape_count (s) / MAX (s->size[s->rank - 1], 1);
}

/* Products this small are made by loops of ours on one thread: a call of the library, and the code it generates at the first one, cost more. */
#define SMALL_PRODUCT (4 << 20)      /* m n k */
#define SMALL_PACKED (64 << 10)      /* floats */
#define SCRATCH 3                    /* where among a step's inputs */

static gboolean
is_small (gint64 m, gint64 n, gint64 k)
{
  return m * n * k <= SMALL_PRODUCT && k * cpu_product_pitch (n) <= SMALL_PACKED;
}

/* c (m, n) = a b (+ c), either transposed; PACKED: scratch that emit_linear () gave, or NULL for oneDNN */
static void
multiply (CpuPlan *plan, gboolean ta, gboolean tb, gint64 m, gint64 n, gint64 k, const float *a, gint64 lda, const float *b, gint64 ldb, gboolean add, float *c, float *packed)
{
  if (packed)
    cpu_product (ta, tb, m, n, k, 1, a, lda, b, ldb, add, c, n, packed);
  else
    dnnl_sgemm (ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, 1, a, lda, b, ldb, add ? 1 : 0, c, n);
}

/* in: x, w, [bias], [scratch] */
static void
run_linear (CpuPlan *plan, Step *step)
{
  const HeddleShape *w = &step->in[1].shape;
  gint64 n = rows_of (&step->out[0].shape), out = w->size[0], in = w->size[1];
  const float *bias = step->op->n_in > 2 ? IN (2) : NULL;
  float *to = OUT (0);
  if (bias)
    {
#pragma omp parallel for schedule(static) if (n * out >= PARALLEL_MIN)
      for (gint64 i = 0; i < n; i++)
        memcpy (to + i * out, bias, (gsize) out * sizeof (float));
    }
  multiply (plan, FALSE, TRUE, n, out, in, IN (0), in, IN (1), in, bias != NULL, to, IN (SCRATCH));
}

static void
run_linear_grad_input (CpuPlan *plan, Step *step)
{
  const HeddleShape *w = &step->in[1].shape;
  multiply (plan, FALSE, FALSE, rows_of (&step->in[0].shape), w->size[1], w->size[0], IN (0), w->size[0], IN (1), w->size[1], FALSE, OUT (0), IN (SCRATCH));
}

VECTOR (void, column_sums, (const float *x, gint64 rows, gint64 columns, gint64 pitch, float *restrict sum), (x, rows, columns, pitch, sum))
{
  memset (sum, 0, (gsize) columns * sizeof (float));
  for (gint64 i = 0; i < rows; i++)
    for (gint64 j = 0; j < columns; j++)
      sum[j] += x[i * pitch + j];
}

#define SUM_COLUMNS 64      /* that one thread sums, all rows in order: the same sums for any number of threads */

static void
run_linear_grad_weight (CpuPlan *plan, Step *step)
{
  const HeddleShape *dy = &step->in[0].shape, *x = &step->in[1].shape;
  gint64 n = rows_of (dy), out = dy->size[dy->rank - 1], in = x->size[x->rank - 1];
  const float *from = IN (0);
  float *bias = OUT (1);
  if (OUT (0))
    multiply (plan, TRUE, FALSE, out, in, n, from, out, IN (1), in, FALSE, OUT (0), IN (SCRATCH));
  if (bias)
    {
#pragma omp parallel for schedule(static) if (n * out >= PARALLEL_MIN)
      for (gint64 j = 0; j < out; j += SUM_COLUMNS)
        column_sums (from + j, n, MIN (SUM_COLUMNS, out - j), out, bias + j);
    }
}

/* Small products by loops of ours, others by sgemm */
static void
emit_product (CpuCompiler *c, const HeddleOp *op, StepRun run, gint64 m, gint64 n, gint64 k)
{
  gboolean small = is_small (m, n, k);
  HeddleShape packed = heddle_shape (k * cpu_product_pitch (n));
  Operand scratch = small ? cpu_temp (c->plan, HEDDLE_F32, &packed, &cpu_plain) : (Operand) { 0 };
  Step *step = cpu_simple (c, op, small ? "small product" : "gemm", run, &cpu_plain);
  if (small)
    {
      step->in[SCRATCH] = scratch;
      step->n_in = SCRATCH + 1;
    }
}

static void
emit_linear (CpuCompiler *c, const HeddleOp *op, StepRun run)
{
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape;
  gint64 rows = rows_of (a), wide = a->size[a->rank - 1], other = b->size[b->rank - 1];
  gboolean forward = op->info->code == HEDDLE_OP_LINEAR, weight = op->info->code == HEDDLE_OP_LINEAR_GRAD_WEIGHT;
  gint64 m = weight ? wide : rows, n = forward ? b->size[0] : other, k = weight ? rows : wide;
  if (!forward || is_small (m, n, k) || !cpu_emit_dense (c, op))
    emit_product (c, op, run, m, n, k);
}

/* ---- the same of bf16 numbers, where the processor has products of them ---- */

static gboolean
multiplies_bf16 (const HeddleOp *op)
{
  return cpu_isa >= CPU_AVX512_BF16 && op->in[0]->dtype == HEDDLE_BF16 && heddle_shape_count (&op->out[0]->shape) > 0;
}

static gboolean
emit_bf16_matmul (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleMatmulAttr *a = op->attr;
  const HeddleShape *x = &op->in[0]->shape, *w = &op->in[1]->shape, *y = &op->out[0]->shape;
  gint32 r = x->rank;
  CpuProduct q = { .a = op->in[0], .b = op->in[1], .m = y->size[r - 2], .n = y->size[r - 1], .k = x->size[r - (a->transpose_a ? 2 : 1)], .ta = a->transpose_a, .tb = a->transpose_b };
  q.batch = heddle_shape_count (y) / (q.m * q.n);
  q.shared = w->rank == 2 && r > 2;
  if (q.shared && !q.ta)                        /* one tall product */
    {
      q.m *= q.batch;
      q.batch = 1;
    }
  return cpu_emit_bf16_product (c, op, &q, error);
}

/* The weight's gradient is summed and stored in f32, as f32 is what becomes of it; the bias's is what the f32 kernel makes when it is given no weight's. */
static gboolean
emit_bf16_linear (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape;
  gint64 rows = rows_of (a), wide = a->size[a->rank - 1], other = b->size[b->rank - 1];
  gboolean forward = op->info->code == HEDDLE_OP_LINEAR, weight = op->info->code == HEDDLE_OP_LINEAR_GRAD_WEIGHT, ok = TRUE;
  CpuProduct q = { .a = op->in[0], .b = op->in[1], .bias = op->n_in > 2 ? op->in[2] : NULL, .batch = 1, .m = weight ? wide : rows, .n = forward ? b->size[0] : other,
                   .k = weight ? rows : wide, .ta = weight, .tb = forward, .wide = weight };
  if (!weight || op->out[0]->n_uses)
    ok = cpu_emit_bf16_product (c, op, &q, error);
  if (ok && weight && op->out[1]->n_uses)
    {
      Operand dy = cpu_form (c, op->in[0], HEDDLE_F32, &cpu_plain), x = *cpu_made (c, op->in[1]), db = cpu_target (c, op->out[1], HEDDLE_F32, &cpu_plain);
      Step *step = cpu_step_new (c->plan, op, "column sums", run_linear_grad_weight);
      step->in[step->n_in++] = dy;
      step->in[step->n_in++] = x;
      step->out[1] = db;
      step->n_out = 2;
      cpu_made_as (c, op->out[1], db);
    }
  return ok;
}

/* ---- the loss scaler: torch/amp/grad_scaler.py, with a floor ---- */

static void
run_scaler_update (CpuPlan *plan, Step *step)
{
  const HeddleScalerAttr *a = step->op->attr;
  float scale = *(const float *) IN (0), tracker = *(const float *) IN (1);
  gboolean skip = *(const float *) IN (2) != 0;
  if (skip)
    {
      scale = MAX ((float) ((double) scale * a->backoff_factor), MIN (scale, (float) a->min_scale));
      tracker = 0;
    }
  else if (tracker + 1 >= (float) a->growth_interval)
    {
      float grown = (float) ((double) scale * a->growth_factor);
      scale = isfinite (grown) ? grown : scale;
      tracker = 0;
    }
  else
    tracker += 1;
  *(float *) OUT (0) = scale;
  *(float *) OUT (1) = tracker;
}

/* ---- operations that plugins bring ---- */

static void
run_parallel (HeddleCustomRun *run, gint64 n, void (*part) (HeddleCustomRun *run, gint64 from, gint64 to))
{
  const gint64 pieces = MIN (n, 16);      /* not the number of threads: the same pieces on every machine */
#pragma omp parallel for schedule(static)
  for (gint64 i = 0; i < pieces; i++)
    part (run, n * i / pieces, n * (i + 1) / pieces);
}

static void
run_custom (CpuPlan *plan, Step *step)
{
  const HeddleCustomAttr *a = step->op->attr;
  HeddleTensor in[STEP_OPERANDS], out[STEP_OPERANDS];
  for (guint i = 0; i < step->n_in; i++)
    in[i] = (HeddleTensor) { step->in[i].dtype, step->in[i].shape, IN (i) };
  for (guint i = 0; i < step->n_out; i++)
    out[i] = (HeddleTensor) { step->out[i].dtype, step->out[i].shape, OUT (i) };
  HeddleCustomRun run = { sizeof run, step->n_in, step->n_out, in, out, a->data, run_parallel };
  a->op->cpu (&run);
}

static gboolean
emit_custom (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleCustomOp *d = ((const HeddleCustomAttr *) op->attr)->op;
  if (d->cpu)
    cpu_simple (c, op, d->name, run_custom, &cpu_plain);
  else
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "custom \"%s\": \"%s\" of %s has no kernel for the device cpu\nhint: its author has to bring one, or train on a device it has one for", op->name, d->name, d->plugin);
  return d->cpu != NULL;
}

/* ---- dispatch ---- */

gboolean
cpu_emit_kernel (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_CUSTOM: ok = emit_custom (c, op, error); break;
    case HEDDLE_OP_MATMUL:
      if (multiplies_bf16 (op))
        ok = emit_bf16_matmul (c, op, error);
      else
        cpu_simple (c, op, "gemm", run_matmul, &cpu_plain);
      break;
    case HEDDLE_OP_LINEAR: case HEDDLE_OP_LINEAR_GRAD_INPUT: case HEDDLE_OP_LINEAR_GRAD_WEIGHT:
      if (multiplies_bf16 (op))
        ok = emit_bf16_linear (c, op, error);
      else
        emit_linear (c, op, op->info->code == HEDDLE_OP_LINEAR ? run_linear : op->info->code == HEDDLE_OP_LINEAR_GRAD_INPUT ? run_linear_grad_input : run_linear_grad_weight);
      break;
    case HEDDLE_OP_CONV_TRANSPOSE2D:
      ok = cpu_emit_conv (c, op, error);
      if (ok && op->n_in > 2)
        cpu_emit_channel_bias (c, op);
      break;
    case HEDDLE_OP_SCALER_UPDATE:
      {
        Step *step = cpu_simple (c, op, "scaler", run_scaler_update, &cpu_plain);
        for (guint i = 0; i < 2; i++)       /* both are always computed */
          if (!step->out[i].where)
            step->out[i] = cpu_temp (c->plan, HEDDLE_F32, &op->out[i]->shape, &cpu_plain);
      }
      break;
    default: ok = cpu_emit_norm (c, op) || cpu_emit_pool (c, op) || cpu_emit_loss (c, op) || cpu_emit_shape (c, op) || cpu_emit_reduction (c, op) || cpu_emit_row_norm (c, op) || cpu_emit_embedding (c, op)
             || cpu_emit_movement (c, op) || cpu_emit_attention (c, op) || cpu_emit_mean_loss (c, op) || cpu_emit_upsample (c, op) || cpu_emit_windows (c, op); break;
    }
  if (!ok && !(error && *error))                     /* some have said why */
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s \"%s\": the cpu backend has no kernel for this operation", op->info->name, op->name);
  return ok;
}
