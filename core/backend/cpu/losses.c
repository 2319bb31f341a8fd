/* cpu/losses.c: losses that are a mean over elements: binary cross entropy, l1, smooth l1, KL divergence.
 * Must not know what runs around them.  Sums are made of parts whose bounds depend on the size alone: any number of threads gives the same bits. */
#include "cpu.h"
#include "vecmath.h"

#include <math.h>

#define PART 4096
#define TILE 256

typedef struct
{
  const float *x, *t, *p;       /* p: weights of positives, or NULL */
  gint64       n_p;             /* how many; element i has weight i % n_p */
  double       beta;
} Terms;

typedef double (*Part) (const Terms *terms, gint64 from, gint64 to);

/* (1 - t) x + (1 + (p - 1) t) log (1 + e^-x): TERM may not be read before it is written */
VECTOR (void, bce_terms, (const float *x, const float *t, const float *p, float *restrict term, gint64 n), (x, t, p, term, n))
{
  for (gint64 i = 0; i < n; i++)
    {
      float soft = vm_log1p (vm_exp (-fabsf (x[i]))) + (x[i] < 0 ? -x[i] : 0.0f);
      term[i] = (1 - t[i]) * x[i] + (1 + (p[i] - 1) * t[i]) * soft;
    }
}

static double
bce_part (const Terms *a, gint64 from, gint64 to)
{
  double sum = 0;
  float term[TILE], p[TILE];
  for (gint64 i = 0; i < TILE; i++)
    p[i] = a->p ? *a->p : 1;
  for (gint64 i = from; i < to; i += TILE)
    {
      gint64 n = MIN (TILE, to - i);
      for (gint64 k = 0; a->n_p > 1 && k < n; k++)
        p[k] = a->p[(i + k) % a->n_p];
      bce_terms (a->x + i, a->t + i, p, term, n);
      for (gint64 k = 0; k < n; k++)
        sum += term[k];
    }
  return sum;
}

static double
l1_part (const Terms *a, gint64 from, gint64 to)
{
  double sum = 0;
  for (gint64 i = from; i < to; i++)
    sum += fabs ((double) a->x[i] - a->t[i]);
  return sum;
}

static double
smooth_l1_part (const Terms *a, gint64 from, gint64 to)
{
  double sum = 0;
  for (gint64 i = from; i < to; i++)
    {
      double d = fabs ((double) a->x[i] - a->t[i]);
      sum += d < a->beta ? d * d / (2 * a->beta) : d - a->beta / 2;
    }
  return sum;
}

/* t log t is 0 at 0 */
static double
kl_part (const Terms *a, gint64 from, gint64 to)
{
  double sum = 0;
  for (gint64 i = from; i < to; i++)
    {
      double t = a->t[i];
      sum += (t == 0 ? 0 : t * log (t)) - t * a->x[i];
    }
  return sum;
}

static double
kl_log_part (const Terms *a, gint64 from, gint64 to)
{
  double sum = 0;
  for (gint64 i = from; i < to; i++)
    sum += exp (a->t[i]) * ((double) a->t[i] - a->x[i]);
  return sum;
}

static Part
part_of (const HeddleOp *op)
{
  Part part = NULL;
  switch (op->info->code)
    {
    case HEDDLE_OP_BCE_WITH_LOGITS: part = bce_part; break;
    case HEDDLE_OP_L1: part = l1_part; break;
    case HEDDLE_OP_SMOOTH_L1: part = smooth_l1_part; break;
    case HEDDLE_OP_KL_DIV: part = ((const HeddleKlDivAttr *) op->attr)->log_target ? kl_log_part : kl_part; break;
    default: break;
    }
  return part;
}

static void
run_mean_loss (CpuPlan *plan, Step *step)
{
  const HeddleOp *op = step->op;
  const HeddleShape *s = &step->in[0].shape;
  gboolean samples = op->info->code == HEDDLE_OP_KL_DIV && ((const HeddleKlDivAttr *) op->attr)->batch_mean;
  gint64 n = heddle_shape_count (s), denominator = samples ? s->size[0] : n;
  Terms terms = { IN (0), IN (1), op->n_in > 2 ? IN (2) : NULL, op->n_in > 2 ? heddle_shape_count (&step->in[2].shape) : 1,
                  op->info->code == HEDDLE_OP_SMOOTH_L1 ? ((const HeddleSmoothL1Attr *) op->attr)->beta : 0 };
  double *sums = cpu_pointer (plan, &step->in[3]), sum = 0;
  Part part = part_of (op);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
  for (gint64 k = 0; k < (n + PART - 1) / PART; k++)
    sums[k] = part (&terms, k * PART, MIN ((k + 1) * PART, n));
  for (gint64 k = 0; k < (n + PART - 1) / PART; k++)
    sum += sums[k];
  if (OUT (0))
    *(float *) OUT (0) = (float) (sum / (double) denominator);
  if (OUT (1))
    *(float *) OUT (1) = (float) denominator;
}

gboolean
cpu_emit_mean_loss (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = part_of (op) != NULL;
  if (ok)
    {
      HeddleShape sums = heddle_shape ((heddle_shape_count (&op->in[0]->shape) + PART - 1) / PART * 2);     /* doubles, in room for floats */
      Step *step = cpu_simple (c, op, op->info->name, run_mean_loss, &cpu_plain);
      step->in[3] = cpu_temp (c->plan, HEDDLE_F32, &sums, &cpu_plain);
      step->n_in = 4;
    }
  return ok;
}
