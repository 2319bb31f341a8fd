/* tests/reference/sequence.c: norms over rows and groups, embeddings, movement, batched products and attention in double precision, one loop
 * per index, written for reading.  Must not share code with any backend. */
#include "reference.h"

#include <math.h>
#include <string.h>

#define COUNT(v) heddle_shape_count (&(v)->shape)
#define ATTR(T) ((const T *) op->attr)

/* ---- norms: a list of elements, each list with statistics of its own ---- */

typedef struct { gint64 n; double mean, rstd; } Stats;

static Stats
stats_of (const double *x, gint64 n, gboolean centred, double eps)
{
  Stats s = { n, 0, 0 };
  double square = 0;
  for (gint64 i = 0; centred && i < n; i++)
    s.mean += x[i] / (double) n;
  for (gint64 i = 0; i < n; i++)
    square += (x[i] - s.mean) * (x[i] - s.mean) / (double) n;
  s.rstd = 1 / sqrt (square + eps);
  return s;
}

/* Which number of scale and shift belongs to element I; which list of numbers it is normalised in follows from the list's length. */
static gint64
parameter_of (const HeddleOp *op, const HeddleShape *x, gint64 length, gint64 i)
{
  gint64 pixels = 1;
  for (gint32 a = 2; a < x->rank; a++)
    pixels *= x->size[a];
  gboolean grouped = op->info->code == HEDDLE_OP_GROUP_NORM || op->info->code == HEDDLE_OP_GROUP_NORM_GRAD;
  return grouped ? i / pixels % x->size[1] : i % length;
}

static void
norm (const HeddleOp *op, double **in, double **out)
{
  gboolean centred = op->info->code != HEDDLE_OP_RMS_NORM;
  double eps = op->info->code == HEDDLE_OP_GROUP_NORM ? ATTR (HeddleGroupNormAttr)->eps : ATTR (HeddleLayerNormAttr)->eps;
  gint64 lists = COUNT (op->out[1]), n = COUNT (op->in[0]) / lists;
  for (gint64 k = 0; k < lists; k++)
    {
      Stats s = stats_of (in[0] + k * n, n, centred, eps);
      if (centred)
        out[1][k] = s.mean;
      out[centred ? 2 : 1][k] = s.rstd;
      for (gint64 i = k * n; i < (k + 1) * n; i++)
        {
          gint64 p = parameter_of (op, &op->in[0]->shape, n, i);
          out[0][i] = (in[0][i] - s.mean) * s.rstd * (op->n_in > 1 ? in[1][p] : 1) + (op->n_in > 2 ? in[2][p] : 0);
        }
    }
}

/* With g = dy scale: dx = rstd (g - mean (g) - xhat mean (g xhat)); RMS norm has no mean (g). */
static void
norm_grad (const HeddleOp *op, double **in, double **out)
{
  gboolean centred = op->info->code != HEDDLE_OP_RMS_NORM_GRAD;
  guint at = centred ? 3 : 2;
  const double *scale = op->n_in > at + 1 ? in[at + 1] : NULL;
  gint64 lists = COUNT (op->in[at]), n = COUNT (op->in[0]) / lists;
  for (guint i = 1; i < op->n_out; i++)
    memset (out[i], 0, (gsize) COUNT (op->out[i]) * sizeof (double));
  for (gint64 k = 0; k < lists; k++)
    {
      double mean = centred ? in[2][k] : 0, rstd = in[at][k], sum = 0, dot = 0;
      for (int pass = 0; pass < 2; pass++)
        for (gint64 i = k * n; i < (k + 1) * n; i++)
          {
            gint64 p = parameter_of (op, &op->in[1]->shape, n, i);
            double g = in[0][i] * (scale ? scale[p] : 1), xhat = (in[1][i] - mean) * rstd;
            if (pass == 0)
              {
                sum += centred ? g / (double) n : 0;
                dot += g * xhat / (double) n;
                out[1][p] += in[0][i] * xhat;
                if (op->n_out > 2)
                  out[2][p] += in[0][i];
              }
            else
              out[0][i] = rstd * (g - sum - xhat * dot);
          }
    }
}

/* ---- embedding ---- */

static void
embedding (const HeddleOp *op, double **in, double *y)
{
  gint64 width = op->in[1]->shape.size[1];
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    y[i] = in[1][(gint64) in[0][i / width] * width + i % width];
}

static void
embedding_grad (const HeddleOp *op, double **in, double *table)
{
  gint64 width = op->out[0]->shape.size[1];
  memset (table, 0, (gsize) COUNT (op->out[0]) * sizeof (double));
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    table[(gint64) in[1][i / width] * width + i % width] += in[0][i];
}

/* ---- movement: coordinates of an element, and the element at coordinates ---- */

static void
coordinates (const HeddleShape *s, gint64 i, gint64 *at)
{
  for (gint32 a = s->rank - 1; a >= 0; a--)
    {
      at[a] = i % s->size[a];
      i /= s->size[a];
    }
}

static gint64
element (const HeddleShape *s, const gint64 *at)
{
  gint64 i = 0;
  for (gint32 a = 0; a < s->rank; a++)
    i = i * s->size[a] + at[a];
  return i;
}

static void
permute (const HeddleOp *op, const double *x, double *y)
{
  const HeddleShape *s = &op->in[0]->shape;
  gint64 from[HEDDLE_MAX_RANK], to[HEDDLE_MAX_RANK];
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    {
      coordinates (s, i, from);
      for (gint32 a = 0; a < s->rank; a++)
        to[a] = from[ATTR (HeddlePermuteAttr)->axes[a]];
      y[element (&op->out[0]->shape, to)] = x[i];
    }
}

static void
concat (const HeddleOp *op, double **in, double *y)
{
  gint32 axis = ATTR (HeddleAxisAttr)->axis < 0 ? ATTR (HeddleAxisAttr)->axis + op->out[0]->shape.rank : ATTR (HeddleAxisAttr)->axis;
  gint64 at[HEDDLE_MAX_RANK], before = 0;
  for (guint k = 0; k < op->n_in; k++)
    {
      for (gint64 i = 0; i < COUNT (op->in[k]); i++)
        {
          coordinates (&op->in[k]->shape, i, at);
          at[axis] += before;
          y[element (&op->out[0]->shape, at)] = in[k][i];
        }
      before += op->in[k]->shape.size[axis];
    }
}

/* Visits the pairs (element of the slice, element it was taken from). */
static void
slice (const HeddleOp *op, const double *x, double *y)
{
  const HeddleSliceAttr *a = op->attr;
  gboolean backward = op->info->code == HEDDLE_OP_SLICE_GRAD;
  const HeddleShape *whole = backward ? &op->out[0]->shape : &op->in[0]->shape, *part = backward ? &op->in[0]->shape : &op->out[0]->shape;
  gint64 at[HEDDLE_MAX_RANK];
  if (backward)
    memset (y, 0, (gsize) COUNT (op->out[0]) * sizeof (double));
  for (gint64 i = 0; i < heddle_shape_count (part); i++)
    {
      coordinates (part, i, at);
      for (gint32 k = 0; k < part->rank; k++)
        at[k] = (a->begin[k] < 0 ? a->begin[k] + whole->size[k] : a->begin[k]) + at[k] * MAX (a->step[k], 1);
      if (backward)
        y[element (whole, at)] = x[i];
      else
        y[i] = x[element (whole, at)];
    }
}

static void
pad (const HeddleOp *op, const double *x, double *y)
{
  gint64 at[HEDDLE_MAX_RANK];
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    y[i] = ATTR (HeddlePadAttr)->value;
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    {
      coordinates (&op->in[0]->shape, i, at);
      for (gint32 k = 0; k < op->in[0]->shape.rank; k++)
        at[k] += ATTR (HeddlePadAttr)->before[k];
      y[element (&op->out[0]->shape, at)] = x[i];
    }
}

/* ---- attention: the whole matrix of probabilities of one head ---- */

typedef struct { gint64 heads, t, s, d, e; double scale; gboolean causal; } Problem;

static Problem
problem_of (const HeddleOp *op, guint first)
{
  const HeddleShape *q = &op->in[first]->shape, *v = &op->in[first + 2]->shape;
  const HeddleAttentionAttr *a = op->attr;
  return (Problem) { q->size[0] * q->size[1], q->size[2], v->size[2], q->size[3], v->size[3], a->scale != 0 ? a->scale : 1 / sqrt ((double) q->size[3]), a->causal != 0 };
}

/* P (T, S) of one head; LOG_SUM (T) */
static void
probabilities (const Problem *p, const double *q, const double *k, double *probability, double *log_sum)
{
  for (gint64 i = 0; i < p->t; i++)
    {
      double top = -INFINITY, sum = 0, *row = probability + i * p->s;
      for (gint64 j = 0; j < p->s; j++)
        {
          row[j] = 0;
          for (gint64 l = 0; l < p->d; l++)
            row[j] += p->scale * q[i * p->d + l] * k[j * p->d + l];
          if (p->causal && j > i)
            row[j] = -INFINITY;
          top = fmax (top, row[j]);
        }
      for (gint64 j = 0; j < p->s; j++)
        sum += exp (row[j] - top);
      log_sum[i] = top + log (sum);
      for (gint64 j = 0; j < p->s; j++)
        row[j] = exp (row[j] - log_sum[i]);
    }
}

static void
attention (const HeddleOp *op, double **in, double **out)
{
  Problem p = problem_of (op, 0);
  g_autofree double *probability = g_new (double, (gsize) (p.t * p.s));
  memset (out[0], 0, (gsize) COUNT (op->out[0]) * sizeof (double));
  for (gint64 h = 0; h < p.heads; h++)
    {
      probabilities (&p, in[0] + h * p.t * p.d, in[1] + h * p.s * p.d, probability, out[1] + h * p.t);
      for (gint64 i = 0; i < p.t; i++)
        for (gint64 j = 0; j < p.s; j++)
          for (gint64 l = 0; l < p.e; l++)
            out[0][(h * p.t + i) * p.e + l] += probability[i * p.s + j] * in[2][(h * p.s + j) * p.e + l];
    }
}

/* dP = dy v^T; dS = P (dP - sum_j P dP), the gradient of softmax row by row */
static void
attention_grad (const HeddleOp *op, double **in, double **out)
{
  Problem p = problem_of (op, 1);
  g_autofree double *probability = g_new (double, (gsize) (p.t * p.s)), *dp = g_new (double, (gsize) p.s), *log_sum = g_new (double, (gsize) p.t);
  for (guint i = 0; i < 3; i++)
    memset (out[i], 0, (gsize) COUNT (op->out[i]) * sizeof (double));
  for (gint64 h = 0; h < p.heads; h++)
    {
      const double *dy = in[0] + h * p.t * p.e, *q = in[1] + h * p.t * p.d, *k = in[2] + h * p.s * p.d, *v = in[3] + h * p.s * p.e;
      double *dq = out[0] + h * p.t * p.d, *dk = out[1] + h * p.s * p.d, *dv = out[2] + h * p.s * p.e;
      probabilities (&p, q, k, probability, log_sum);
      for (gint64 i = 0; i < p.t; i++)
        {
          double sum = 0;
          for (gint64 j = 0; j < p.s; j++)
            {
              dp[j] = 0;
              for (gint64 l = 0; l < p.e; l++)
                {
                  dp[j] += dy[i * p.e + l] * v[j * p.e + l];
                  dv[j * p.e + l] += probability[i * p.s + j] * dy[i * p.e + l];
                }
              sum += probability[i * p.s + j] * dp[j];
            }
          for (gint64 j = 0; j < p.s; j++)
            for (gint64 l = 0; l < p.d; l++)
              {
                double slope = p.scale * probability[i * p.s + j] * (dp[j] - sum);
                dq[i * p.d + l] += slope * k[j * p.d + l];
                dk[j * p.d + l] += slope * q[i * p.d + l];
              }
        }
    }
}

gboolean
reference_sequence_op (const HeddleOp *op, double **in, double **out)
{
  gboolean known = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_LAYER_NORM: case HEDDLE_OP_RMS_NORM: case HEDDLE_OP_GROUP_NORM: norm (op, in, out); break;
    case HEDDLE_OP_LAYER_NORM_GRAD: case HEDDLE_OP_RMS_NORM_GRAD: case HEDDLE_OP_GROUP_NORM_GRAD: norm_grad (op, in, out); break;
    case HEDDLE_OP_EMBEDDING: embedding (op, in, out[0]); break;
    case HEDDLE_OP_EMBEDDING_GRAD: embedding_grad (op, in, out[0]); break;
    case HEDDLE_OP_PERMUTE: permute (op, in[0], out[0]); break;
    case HEDDLE_OP_CONCAT: concat (op, in, out[0]); break;
    case HEDDLE_OP_SLICE: case HEDDLE_OP_SLICE_GRAD: slice (op, in[0], out[0]); break;
    case HEDDLE_OP_PAD: pad (op, in[0], out[0]); break;
    case HEDDLE_OP_ATTENTION: attention (op, in, out); break;
    case HEDDLE_OP_ATTENTION_GRAD: attention_grad (op, in, out); break;
    default: known = FALSE; break;
    }
  return known;
}
