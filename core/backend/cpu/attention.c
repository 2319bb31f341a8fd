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

typedef struct
{
  gint64   heads, t, s, d, e;     /* batch x heads; queries, keys; sizes of a key and of a value */
  float    scale;
  gboolean causal;
  float   *packed;               /* of one thread: what products put their operands into */
} Problem;

static Problem
problem_of (const Step *step, guint first)
{
  const HeddleAttentionAttr *a = step->op->attr;
  const HeddleShape *q = &step->in[first].shape, *v = &step->in[first + 2].shape;
  Problem p = { q->size[0] * q->size[1], q->size[2], v->size[2], q->size[3], v->size[3], 0, a->causal, NULL };
  p.scale = (float) (a->scale != 0 ? a->scale : 1 / sqrt ((double) p.d));
  return p;
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

/* Floats that one thread's products need for an operand: keys or values of a tile, either way round */
static gint64
packed_size (const HeddleShape *q, const HeddleShape *v)
{
  return MAX (cpu_product_pitch (COLUMNS), ROWS) * cpu_product_pitch (MAX (q->size[3], v->size[3]));
}

static Problem
of_thread (const Problem *all, float *packed, gint64 size)
{
  Problem p = *all;
  p.packed = packed + omp_get_thread_num () * size;
  return p;
}

/* ---- forward ---- */

typedef struct { float score[ROWS * COLUMNS], top[ROWS], sum[ROWS]; } ForwardTile;

/* What a query does not see is -infinity; rows are always whole tiles wide, so that loops have no rest. */
static inline __attribute__ ((always_inline)) void
mask_row (float *x, gint64 n)
{
  for (gint64 j = n; j < COLUMNS; j++)
    x[j] = -INFINITY;
}

/* Scores of one row, N of them seen, become e^(score - new top); returns by what everything before must be multiplied. */
VECTOR (float, softmax_row, (float *restrict x, gint64 n, float *top, float *sum), (x, n, top, sum))
{
  float m = *top, s = 0;
  mask_row (x, n);
#pragma omp simd reduction(max:m)
  for (int j = 0; j < COLUMNS; j++)
    m = x[j] > m ? x[j] : m;
#pragma omp simd reduction(+:s)
  for (int j = 0; j < COLUMNS; j++)
    {
      x[j] = vm_exp (x[j] - m);
      s += x[j];
    }
  float old = m == *top ? 1 : vm_exp (*top - m);       /* from -infinity: 0 */
  *sum = *sum * old + s;
  *top = m;
  return old;
}

VECTOR (void, multiply_row, (float *restrict y, gint64 n, float factor), (y, n, factor))
{
  for (gint64 j = 0; j < n; j++)
    y[j] *= factor;
}

/* Queries T0.. of one head: Y (rows, E) and LOG_SUM (rows) */
static void
forward_rows (const Problem *p, ForwardTile *tile, const float *q, const float *k, const float *v, float *y, float *log_sum, gint64 t0, gint64 rows)
{
  for (gint64 i = 0; i < rows; i++)
    {
      tile->top[i] = -INFINITY;
      tile->sum[i] = 0;
    }
  for (gint64 s0 = 0; s0 < keys_end (p, t0, rows); s0 += COLUMNS)
    {
      gint64 columns = MIN (COLUMNS, p->s - s0);
      cpu_product (FALSE, TRUE, rows, columns, p->d, p->scale, q, p->d, k + s0 * p->d, p->d, FALSE, tile->score, COLUMNS, p->packed);
      for (gint64 i = 0; i < rows; i++)
        {
          float old = softmax_row (tile->score + i * COLUMNS, visible (p, t0, s0, i, columns), &tile->top[i], &tile->sum[i]);
          if (s0 && old != 1)
            multiply_row (y + i * p->e, p->e, old);
        }
      cpu_product (FALSE, FALSE, rows, p->e, columns, 1, tile->score, COLUMNS, v + s0 * p->e, p->e, s0 > 0, y, p->e, p->packed);
    }
  for (gint64 i = 0; i < rows; i++)
    {
      multiply_row (y + i * p->e, p->e, 1 / tile->sum[i]);
      if (log_sum)
        log_sum[i] = tile->top[i] + logf (tile->sum[i]);
    }
}

static void
run_forward (CpuPlan *plan, Step *step)
{
  Problem p = problem_of (step, 0);
  const float *q = IN (0), *k = IN (1), *v = IN (2);
  float *y = OUT (0), *log_sum = OUT (1);
  ForwardTile *tiles = IN (3);
  gint64 blocks = (p.t + ROWS - 1) / ROWS, size = packed_size (&step->in[0].shape, &step->in[2].shape);
  float *packed = IN (4);
#pragma omp parallel for schedule(dynamic) if (p.heads * p.t * p.s >= PARALLEL_MIN)
  for (gint64 w = 0; w < p.heads * blocks; w++)
    {
      gint64 h = w / blocks, t0 = w % blocks * ROWS, row = h * p.t + t0;
      Problem own = of_thread (&p, packed, size);
      forward_rows (&own, tiles + omp_get_thread_num (), q + row * p.d, k + h * p.s * p.d, v + h * p.s * p.e, y + row * p.e, log_sum ? log_sum + row : NULL, t0, MIN (ROWS, p.t - t0));
    }
}

/* ---- backward ---- */

typedef struct { float p[ROWS * COLUMNS], dp[ROWS * COLUMNS]; } BackwardTile;

/* The arrays of one head; DELTA (T): sum of dy y over each row */
typedef struct { const float *dy, *q, *k, *v, *y, *log_sum; float *dq, *dk, *dv, *delta; } Head;

VECTOR (float, dot_row, (const float *a, const float *b, gint64 n), (a, b, n))
{
  float s = 0;
#pragma omp simd reduction(+:s)
  for (gint64 j = 0; j < n; j++)
    s += a[j] * b[j];
  return s;
}

/* Scores of one row, N of them seen, become probabilities. */
VECTOR (void, probability_row, (float *restrict p, gint64 n, float log_sum), (p, n, log_sum))
{
  mask_row (p, n);
  for (int j = 0; j < COLUMNS; j++)
    p[j] = vm_exp (p[j] - log_sum);
}

/* dP becomes the slope of the scores: P (dP - delta); behind the last key there is nothing anyone reads. */
VECTOR (void, slope_row, (const float *p, float *restrict dp, float delta), (p, dp, delta))
{
  for (int j = 0; j < COLUMNS; j++)
    dp[j] = p[j] * (dp[j] - delta);
}

static void
backward_tile (const Problem *p, BackwardTile *tile, const Head *h, gint64 t0, gint64 rows, gint64 s0, gint64 columns, gboolean first_rows)
{
  const float *q = h->q + t0 * p->d, *k = h->k + s0 * p->d, *dy = h->dy + t0 * p->e;
  cpu_product (FALSE, TRUE, rows, columns, p->d, p->scale, q, p->d, k, p->d, FALSE, tile->p, COLUMNS, p->packed);
  for (gint64 i = 0; i < rows; i++)
    probability_row (tile->p + i * COLUMNS, visible (p, t0, s0, i, columns), h->log_sum[t0 + i]);
  cpu_product (TRUE, FALSE, columns, p->e, rows, 1, tile->p, COLUMNS, dy, p->e, !first_rows, h->dv + s0 * p->e, p->e, p->packed);
  cpu_product (FALSE, TRUE, rows, columns, p->e, 1, dy, p->e, h->v + s0 * p->e, p->e, FALSE, tile->dp, COLUMNS, p->packed);
  for (gint64 i = 0; i < rows; i++)
    slope_row (tile->p + i * COLUMNS, tile->dp + i * COLUMNS, h->delta[t0 + i]);
  cpu_product (FALSE, FALSE, rows, p->d, columns, p->scale, tile->dp, COLUMNS, k, p->d, s0 > 0, h->dq + t0 * p->d, p->d, p->packed);
  cpu_product (TRUE, FALSE, columns, p->d, rows, p->scale, tile->dp, COLUMNS, q, p->d, !first_rows, h->dk + s0 * p->d, p->d, p->packed);
}

static void
backward_head (const Problem *p, BackwardTile *tile, const Head *h)
{
  for (gint64 i = 0; i < p->t; i++)
    h->delta[i] = dot_row (h->dy + i * p->e, h->y + i * p->e, p->e);
  for (gint64 s0 = 0; s0 < p->s; s0 += COLUMNS)
    {
      gint64 columns = MIN (COLUMNS, p->s - s0), first = p->causal ? s0 : 0;
      for (gint64 t0 = first; t0 < p->t; t0 += ROWS)
        backward_tile (p, tile, h, t0, MIN (ROWS, p->t - t0), s0, columns, t0 == first);
      if (first >= p->t)                        /* keys that no query sees */
        {
          memset (h->dk + s0 * p->d, 0, (gsize) (columns * p->d) * sizeof (float));
          memset (h->dv + s0 * p->e, 0, (gsize) (columns * p->e) * sizeof (float));
        }
    }
}

static void
run_backward (CpuPlan *plan, Step *step)
{
  Problem p = problem_of (step, 1);
  Head all = { IN (0), IN (1), IN (2), IN (3), IN (4), IN (5), OUT (0), OUT (1), OUT (2), IN (7) };
  BackwardTile *tiles = IN (6);
  gint64 size = packed_size (&step->in[1].shape, &step->in[3].shape);
  float *packed = all.delta + heddle_shape_count (&step->in[5].shape);
#pragma omp parallel for schedule(dynamic) if (p.heads * p.t * p.s >= PARALLEL_MIN)
  for (gint64 h = 0; h < p.heads; h++)
    {
      gint64 queries = h * p.t, keys = h * p.s;
      Head head = { all.dy + queries * p.e, all.q + queries * p.d, all.k + keys * p.d, all.v + keys * p.e, all.y + queries * p.e, all.log_sum + queries,
                    all.dq + queries * p.d, all.dk + keys * p.d, all.dv + keys * p.e, all.delta + queries };
      Problem own = of_thread (&p, packed, size);
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

static gsize
packed_bytes (const CpuCompiler *c, const HeddleValue *q, const HeddleValue *v)
{
  return sizeof (float) * (gsize) packed_size (&q->shape, &v->shape) * c->device->threads;
}

static void
emit_backward (CpuCompiler *c, const HeddleOp *op)
{
  Operand tiles = scratch (c, sizeof (BackwardTile) * c->device->threads);
  Operand delta = scratch (c, sizeof (float) * (gsize) heddle_shape_count (&op->in[5]->shape) + packed_bytes (c, op->in[1], op->in[3]));
  Step *step = cpu_simple (c, op, "flash attention", run_backward, &cpu_plain);
  step->in[step->n_in++] = tiles;
  step->in[step->n_in++] = delta;
  for (guint i = 0; i < 3; i++)                 /* all three are always computed */
    if (!step->out[i].where)
      step->out[i] = cpu_temp (c->plan, HEDDLE_F32, &op->out[i]->shape, &cpu_plain);
}

gboolean
cpu_emit_attention (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  if (op->info->code == HEDDLE_OP_ATTENTION)
    {
      Operand tiles = scratch (c, sizeof (ForwardTile) * c->device->threads), packed = scratch (c, packed_bytes (c, op->in[0], op->in[2]));
      Step *step = cpu_simple (c, op, "flash attention", run_forward, &cpu_plain);
      step->in[step->n_in++] = tiles;
      step->in[step->n_in++] = packed;
      if (!step->out[0].where)
        step->out[0] = cpu_temp (c->plan, HEDDLE_F32, &op->out[0]->shape, &cpu_plain);
    }
  else if (op->info->code == HEDDLE_OP_ATTENTION_GRAD)
    emit_backward (c, op);
  else
    ok = FALSE;
  return ok;
}
