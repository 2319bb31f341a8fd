/* cpu/attention.c: scaled dot-product attention and its gradient, tile by tile: the matrix of scores is never whole.
 * Forward: T. Dao et al., arXiv 2205.14135 (running maximum and sum of each row); backward: the scores of a tile are computed again from the
 * saved log sums.  Must not know what runs around it.  Each (batch, head) is one thread's work in a fixed order: results do not depend on threads. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define ROWS 64             /* queries of a tile */
#define COLUMNS 64          /* keys of a tile; causal masks need COLUMNS = ROWS */
#define HALF (ROWS / 2)     /* queries of a tile that a causal mask cuts: the first half sees half of the keys */
#define LANES 16

typedef struct
{
  gint64   n, heads, t, s, d, e;  /* batch x heads, heads; queries, keys; sizes of a key and of a value */
  float    scale;
  gboolean causal;
  gint64   packed_size, turned_size;
  float   *packed, *turned;      /* of one thread: what products put their operands into; transposed keys and values */
} Problem;

/* Queries, keys, ... need not be tensors of their own: their views, in the order of the operation's inputs and then its outputs (but log sum) */
typedef struct { CpuView view[9]; } Views;
typedef struct { float *at; gint64 row; } Rows;      /* the rows of one head */

static Rows
rows_of (const Problem *p, gconstpointer tensor, const CpuView *v, gint64 h)
{
  return (Rows) { (float *) tensor + v->offset + h / p->heads * v->stride[0] + h % p->heads * v->stride[1], v->stride[2] };
}

static inline float *
row_at (Rows x, gint64 i)
{
  return x.at + i * x.row;
}

/* Keys that the query in row I of a tile at (T0, S0) sees, of COLUMNS. */
static inline gint64
visible (const Problem *p, gint64 t0, gint64 s0, gint64 i, gint64 columns)
{
  return p->causal ? CLAMP (t0 + i - s0 + 1, 0, columns) : columns;
}

static gint64
keys_end (const Problem *p, gint64 t0, gint64 rows)
{
  return p->causal ? MIN (p->s, t0 + rows) : p->s;
}

/* Floats that one thread's products need for an operand that is not read where it lies: a tile either way round */
static gint64
packed_size (const HeddleShape *q, const HeddleShape *v)
{
  return MAX (cpu_product_pitch (COLUMNS), ROWS) * cpu_product_pitch (MAX (q->size[3], v->size[3]));
}

/* and for keys and values the other way round: in forward all keys of a head, in backward a tile of both */
static gint64
turned_size (const HeddleShape *q, const HeddleShape *v, gboolean forward)
{
  return COLUMNS * (forward ? (v->size[2] + COLUMNS - 1) / COLUMNS * q->size[3] : q->size[3] + v->size[3]);
}

/* FIRST: which input the queries are */
static Problem
problem_of (const HeddleOp *op, guint first)
{
  const HeddleAttentionAttr *a = op->attr;
  const HeddleShape *q = &op->in[first]->shape, *v = &op->in[first + 2]->shape;
  Problem p = { q->size[0] * q->size[1], q->size[1], q->size[2], v->size[2], q->size[3], v->size[3], .causal = a->causal };
  p.scale = (float) (a->scale != 0 ? a->scale : 1 / sqrt ((double) p.d));
  p.packed_size = packed_size (q, v);
  p.turned_size = turned_size (q, v, first == 0);
  return p;
}

static Problem
of_thread (const Problem *all, float *packed)
{
  gint64 size = all->packed_size + all->turned_size;
  Problem p = *all;
  p.packed = packed + omp_get_thread_num () * size;
  p.turned = p.packed + all->packed_size;
  return p;
}

/* ---- forward ---- */

typedef struct { float score[ROWS * COLUMNS], top[ROWS], fresh[ROWS], old[ROWS], sum[ROWS]; } ForwardTile;

/* Numbers of a row that are worked on when N are seen: whole vectors, so that loops have no rest */
static inline gint64
width_of (gint64 n)
{
  return (n + LANES - 1) / LANES * LANES;
}

/* What a query does not see is -infinity. */
static inline __attribute__ ((always_inline)) void
mask_row (float *x, gint64 n)
{
  for (gint64 j = n; j < width_of (n); j++)
    x[j] = -INFINITY;
}

/* Largest scores so far; OLD: by what everything before must be multiplied then */
VECTOR (void, raise_tops, (const Problem *p, ForwardTile *tile, gint64 t0, gint64 s0, gint64 rows, gint64 columns), (p, tile, t0, s0, rows, columns))
{
  for (gint64 i = 0; i < rows; i++)
    {
      float *x = tile->score + i * COLUMNS, m = tile->top[i];
      gint64 n = visible (p, t0, s0, i, columns), width = width_of (n);
      mask_row (x, n);
#pragma omp simd reduction(max:m)
      for (gint64 j = 0; j < width; j++)
        m = x[j] > m ? x[j] : m;
      tile->fresh[i] = m;
    }
  for (int i = 0; i < ROWS; i++)
    {
      float fresh = tile->fresh[i], top = tile->top[i];
      tile->old[i] = fresh == top ? 1 : vm_exp (top - fresh);     /* from -infinity: 0 */
      tile->top[i] = fresh;
    }
}

/* Scores become e^(score - top). */
VECTOR (void, softmax_tile, (const Problem *p, ForwardTile *tile, gint64 t0, gint64 s0, gint64 rows, gint64 columns), (p, tile, t0, s0, rows, columns))
{
  for (gint64 i = 0; i < rows; i++)
    {
      float *x = tile->score + i * COLUMNS, m = tile->top[i], s = 0;
      gint64 width = width_of (visible (p, t0, s0, i, columns));
#pragma omp simd reduction(+:s)
      for (gint64 j = 0; j < width; j++)
        {
          x[j] = vm_exp (x[j] - m);
          s += x[j];
        }
      for (gint64 j = width; j < COLUMNS; j++)
        x[j] = 0;
      tile->sum[i] = tile->sum[i] * tile->old[i] + s;
    }
}

VECTOR (void, multiply_row, (float *restrict y, gint64 n, float factor), (y, n, factor))
{
  for (gint64 j = 0; j < n; j++)
    y[j] *= factor;
}

/* Queries T0.. of one head, whose keys are turned: Y (rows, E) and LOG_SUM (rows) */
static void
forward_rows (const Problem *p, ForwardTile *tile, Rows q, Rows v, Rows y, float *log_sum, gint64 t0, gint64 rows)
{
  float *to = row_at (y, t0);
  for (gint64 i = 0; i < ROWS; i++)
    {
      tile->top[i] = tile->fresh[i] = -INFINITY;
      tile->sum[i] = 0;
    }
  for (gint64 s0 = 0; s0 < keys_end (p, t0, rows); s0 += COLUMNS)
    {
      gint64 columns = MIN (COLUMNS, keys_end (p, t0, rows) - s0), whole = cpu_product_pitch (columns);
      cpu_product (FALSE, FALSE, rows, whole, p->d, p->scale, row_at (q, t0), q.row, p->turned + s0 * p->d, COLUMNS, FALSE, tile->score, COLUMNS, p->packed);
      raise_tops (p, tile, t0, s0, rows, columns);
      softmax_tile (p, tile, t0, s0, rows, columns);
      for (gint64 i = 0; s0 && i < rows; i++)
        if (tile->old[i] != 1)
          multiply_row (to + i * y.row, p->e, tile->old[i]);
      cpu_product (FALSE, FALSE, rows, p->e, columns, 1, tile->score, COLUMNS, row_at (v, s0), v.row, s0 > 0, to, y.row, p->packed);
    }
  for (gint64 i = 0; i < rows; i++)
    {
      multiply_row (to + i * y.row, p->e, 1 / tile->sum[i]);
      if (log_sum)
        log_sum[t0 + i] = tile->top[i] + logf (tile->sum[i]);
    }
}

static void
forward_head (const Problem *p, ForwardTile *tile, Rows q, Rows k, Rows v, Rows y, float *log_sum)
{
  gint64 step = p->causal ? HALF : ROWS;
  for (gint64 s0 = 0; s0 < p->s; s0 += COLUMNS)
    cpu_product_transpose (row_at (k, s0), k.row, MIN (COLUMNS, p->s - s0), p->d, p->turned + s0 * p->d, COLUMNS);
  for (gint64 t0 = 0; t0 < p->t; t0 += step)
    forward_rows (p, tile, q, v, y, log_sum, t0, MIN (step, p->t - t0));
}

static void
run_forward (CpuPlan *plan, Step *step)
{
  const CpuView *view = ((const Views *) step->data)->view;
  Problem p = problem_of (step->op, 0);
  const float *q = IN (0), *k = IN (1), *v = IN (2);
  float *y = OUT (0), *log_sum = OUT (1), *packed = IN (4);
  ForwardTile *tiles = IN (3);
#pragma omp parallel for schedule(dynamic) if (p.n * p.t * p.s >= PARALLEL_MIN)
  for (gint64 h = 0; h < p.n; h++)
    {
      Problem own = of_thread (&p, packed);
      forward_head (&own, tiles + omp_get_thread_num (), rows_of (&p, q, &view[0], h), rows_of (&p, k, &view[1], h), rows_of (&p, v, &view[2], h), rows_of (&p, y, &view[3], h),
                    log_sum ? log_sum + h * p.t : NULL);
    }
}

/* ---- backward ---- */

typedef struct { float p[ROWS * COLUMNS], dp[ROWS * COLUMNS]; } BackwardTile;

/* The arrays of one head; DELTA (T): sum of dy y over each row */
typedef struct { Rows dy, q, k, v, y, dq, dk, dv; const float *log_sum; float *delta; } Head;

VECTOR (float, dot_row, (const float *a, const float *b, gint64 n), (a, b, n))
{
  float s = 0;
#pragma omp simd reduction(+:s)
  for (gint64 j = 0; j < n; j++)
    s += a[j] * b[j];
  return s;
}

/* Scores become probabilities, dP the slope of the scores: P (dP - delta).  What is not seen is 0. */
VECTOR (void, slope_tile, (const Problem *p, BackwardTile *tile, const float *log_sum, const float *delta, gint64 t0, gint64 s0, gint64 rows, gint64 columns), (p, tile, log_sum, delta, t0, s0, rows, columns))
{
  for (gint64 i = 0; i < rows; i++)
    {
      float *restrict x = tile->p + i * COLUMNS, *restrict dp = tile->dp + i * COLUMNS, l = log_sum[t0 + i], d = delta[t0 + i];
      gint64 n = visible (p, t0, s0, i, columns), width = width_of (n);
      mask_row (x, n);
      for (gint64 j = 0; j < width; j++)
        {
          x[j] = vm_exp (x[j] - l);
          dp[j] = x[j] * (dp[j] - d);
        }
      for (gint64 j = width; j < COLUMNS; j++)
        x[j] = dp[j] = 0;
    }
}

static void
backward_tile (const Problem *p, BackwardTile *tile, const Head *h, gint64 t0, gint64 rows, gint64 s0, gint64 columns, gboolean first_rows)
{
  gint64 whole = cpu_product_pitch (columns);
  const float *q = row_at (h->q, t0), *k = row_at (h->k, s0), *dy = row_at (h->dy, t0);
  cpu_product (FALSE, FALSE, rows, whole, p->d, p->scale, q, h->q.row, p->turned, COLUMNS, FALSE, tile->p, COLUMNS, p->packed);
  cpu_product (FALSE, FALSE, rows, whole, p->e, 1, dy, h->dy.row, p->turned + COLUMNS * p->d, COLUMNS, FALSE, tile->dp, COLUMNS, p->packed);
  slope_tile (p, tile, h->log_sum, h->delta, t0, s0, rows, columns);
  cpu_product (TRUE, FALSE, columns, p->e, rows, 1, tile->p, COLUMNS, dy, h->dy.row, !first_rows, row_at (h->dv, s0), h->dv.row, p->packed);
  cpu_product (FALSE, FALSE, rows, p->d, columns, p->scale, tile->dp, COLUMNS, k, h->k.row, s0 > 0, row_at (h->dq, t0), h->dq.row, p->packed);
  cpu_product (TRUE, FALSE, columns, p->d, rows, p->scale, tile->dp, COLUMNS, q, h->q.row, !first_rows, row_at (h->dk, s0), h->dk.row, p->packed);
}

static void
no_rows (Rows x, gint64 first, gint64 rows, gint64 n)
{
  for (gint64 i = first; i < first + rows; i++)
    memset (row_at (x, i), 0, (gsize) n * sizeof (float));
}

/* Keys S0.. and all queries that see them.  Of a tile that the mask cuts the second half comes first: it sees all of the keys, so that it may write what others add to. */
static void
backward_keys (const Problem *p, BackwardTile *tile, const Head *h, gint64 s0, gint64 columns)
{
  gint64 t0 = p->causal ? s0 : 0, cut = p->causal && p->t > s0 + HALF && columns > HALF ? ROWS : 0;
  cpu_product_transpose (row_at (h->k, s0), h->k.row, columns, p->d, p->turned, COLUMNS);
  cpu_product_transpose (row_at (h->v, s0), h->v.row, columns, p->e, p->turned + COLUMNS * p->d, COLUMNS);
  if (cut)
    {
      backward_tile (p, tile, h, s0 + HALF, MIN (HALF, p->t - s0 - HALF), s0, columns, TRUE);
      backward_tile (p, tile, h, s0, HALF, s0, HALF, FALSE);
    }
  for (gint64 t = t0 + cut; t < p->t; t += ROWS)
    backward_tile (p, tile, h, t, MIN (ROWS, p->t - t), s0, columns, t == t0);
  if (t0 >= p->t)                               /* keys that no query sees */
    {
      no_rows (h->dk, s0, columns, p->d);
      no_rows (h->dv, s0, columns, p->e);
    }
}

static void
backward_head (const Problem *p, BackwardTile *tile, const Head *h)
{
  for (gint64 i = 0; i < p->t; i++)
    h->delta[i] = dot_row (row_at (h->dy, i), row_at (h->y, i), p->e);
  for (gint64 s0 = 0; s0 < p->s; s0 += COLUMNS)
    backward_keys (p, tile, h, s0, MIN (COLUMNS, p->s - s0));
}

static void
run_backward (CpuPlan *plan, Step *step)
{
  const CpuView *view = ((const Views *) step->data)->view;
  Problem p = problem_of (step->op, 1);
  const float *dy = IN (0), *q = IN (1), *k = IN (2), *v = IN (3), *y = IN (4), *log_sum = IN (5), *dq = OUT (0), *dk = OUT (1), *dv = OUT (2);
  BackwardTile *tiles = IN (6);
  float *delta = IN (7), *packed = delta + p.n * p.t;
#pragma omp parallel for schedule(dynamic) if (p.n * p.t * p.s >= PARALLEL_MIN)
  for (gint64 h = 0; h < p.n; h++)
    {
      Head head = { rows_of (&p, dy, &view[0], h), rows_of (&p, q, &view[1], h), rows_of (&p, k, &view[2], h), rows_of (&p, v, &view[3], h), rows_of (&p, y, &view[4], h),
                    rows_of (&p, dq, &view[6], h), rows_of (&p, dk, &view[7], h), rows_of (&p, dv, &view[8], h), log_sum + h * p.t, delta + h * p.t };
      Problem own = of_thread (&p, packed);
      backward_head (&own, tiles + omp_get_thread_num (), &head);
    }
}

/* ---- building ---- */

static Operand
scratch (CpuCompiler *c, gsize bytes)
{
  HeddleShape shape = heddle_shape ((gint64) bytes);
  return cpu_temp (c->plan, HEDDLE_U8, &shape, &cpu_plain);
}

/* Of all threads */
static gsize
packed_bytes (const CpuCompiler *c, const HeddleOp *op, guint first)
{
  Problem p = problem_of (op, first);
  return sizeof (float) * (gsize) (p.packed_size + p.turned_size) * c->device->threads;
}

/* A step that reads the operation's inputs where they lie, and SCRATCH */
static Step *
attention_step (CpuCompiler *c, const HeddleOp *op, StepRun run, const Operand *in, const Operand scratch[2])
{
  Step *step = cpu_step_new (c->plan, op, "flash attention", run);
  memcpy (step->in, in, op->n_in * sizeof *in);
  memcpy (step->in + op->n_in, scratch, 2 * sizeof *scratch);
  step->n_in = op->n_in + 2;
  step->data_free = g_free;
  return step;
}

static void
inputs_of (CpuCompiler *c, const HeddleOp *op, guint from, guint n, Operand *in, Views *views)
{
  for (guint i = from; i < from + n; i++)
    in[i] = cpu_view_of (c, op->in[i], &views->view[i]);
}

static void
emit_forward (CpuCompiler *c, const HeddleOp *op)
{
  Views *views = g_new0 (Views, 1);
  Operand in[3], scratches[] = { scratch (c, sizeof (ForwardTile) * c->device->threads), scratch (c, packed_bytes (c, op, 0)) };
  inputs_of (c, op, 0, 3, in, views);
  CpuTarget y = cpu_view_target (c, op->out[0]);
  Operand log_sum = op->out[1]->n_uses ? cpu_target (c, op->out[1], HEDDLE_F32, &cpu_plain) : (Operand) { 0 };
  Step *step = attention_step (c, op, run_forward, in, scratches);
  views->view[3] = y.view;
  step->data = views;
  step->out[step->n_out++] = y.operand;
  step->out[step->n_out++] = log_sum;
  cpu_made_as (c, y.value, y.operand);
  if (log_sum.where)
    cpu_made_as (c, op->out[1], log_sum);
}

/* All three gradients are always computed. */
static void
emit_backward (CpuCompiler *c, const HeddleOp *op)
{
  Views *views = g_new0 (Views, 1);
  CpuTarget d[3];
  Operand in[6], scratches[] = { scratch (c, sizeof (BackwardTile) * c->device->threads),
                                 scratch (c, sizeof (float) * (gsize) heddle_shape_count (&op->in[5]->shape) + packed_bytes (c, op, 1)) };
  inputs_of (c, op, 0, 5, in, views);
  in[5] = cpu_form (c, op->in[5], HEDDLE_F32, &cpu_plain);
  gboolean parts = cpu_view_parts (c, op->out, 3, d);
  for (guint i = 0; !parts && i < 3; i++)
    d[i] = cpu_view_target (c, op->out[i]);
  Step *step = attention_step (c, op, run_backward, in, scratches);
  step->data = views;
  for (guint i = 0; i < 3; i++)
    {
      views->view[6 + i] = d[i].view;
      step->out[step->n_out++] = d[i].operand;
      if (!parts || i == 0)
        cpu_made_as (c, d[i].value, d[i].operand);
    }
}

gboolean
cpu_emit_attention (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = op->info->code == HEDDLE_OP_ATTENTION || op->info->code == HEDDLE_OP_ATTENTION_GRAD;
  if (ok)
    (op->info->code == HEDDLE_OP_ATTENTION ? emit_forward : emit_backward) (c, op);
  return ok;
}
