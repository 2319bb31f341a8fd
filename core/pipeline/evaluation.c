/* pipeline/evaluation.c: the sums of an evaluation, which the device keeps from its first batch to its last.  Must not know the run loop. */
#include "pipeline/internal.h"

#include <math.h>

static Exact
declare (HeddlePipeline *p, const char *name, const char *what)
{
  g_autofree char *high = g_strdup_printf ("eval_%s_%s", name, what), *low = g_strdup_printf ("%s_low", high);
  return (Exact) { heddle_pipeline_scalar (p, high), heddle_pipeline_scalar (p, low) };
}

/* TwoSum: high + value = rounded + error, exactly; errors are summed apart.  Knuth, The Art of Computer Programming 2, 4.2.2. */
static void
add_exactly (HeddleBuilder *b, Exact sum, HeddleValue *value)
{
  HeddleValue *high = heddle_builder_variable (b, sum.high), *low = heddle_builder_variable (b, sum.low);
  HeddleValue *rounded = heddle_add (b, high, value), *part = heddle_sub (b, rounded, high);
  HeddleValue *error = heddle_add (b, heddle_sub (b, high, heddle_sub (b, rounded, part)), heddle_sub (b, value, part));
  heddle_builder_assign (b, low, heddle_add (b, low, error), NULL);
  heddle_builder_assign (b, high, rounded, NULL);
}

void
heddle_evaluation_emit (HeddlePipeline *p, HeddleBuilder *b, const Emitted *e)
{
  for (guint i = 0; i <= p->n_metrics; i++)
    {
      const HeddlePort *port = i ? &e->metric[i - 1] : &e->loss;
      p->eval_sum[i] = declare (p, i ? p->metric_names[i - 1] : "loss", "sum");
      p->eval_weight[i] = declare (p, i ? p->metric_names[i - 1] : "loss", "weight");
      add_exactly (b, p->eval_sum[i], i ? port->value : heddle_mul (b, port->value, port->weight));
      add_exactly (b, p->eval_weight[i], port->weight);
    }
}

gboolean
heddle_evaluation_begin (HeddlePipeline *p, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < 2 * (1 + p->n_metrics); i++)
    {
      const Exact *x = i % 2 ? &p->eval_weight[i / 2] : &p->eval_sum[i / 2];
      ok = heddle_device_write_scalar (p->device, x->high, 0, error) && heddle_device_write_scalar (p->device, x->low, 0, error);
    }
  return ok;
}

/* A sum that is infinite has lost nothing that could be told. */
static double
whole (const float *high_low)
{
  return isfinite (high_low[1]) ? (double) high_low[0] + (double) high_low[1] : (double) high_low[0];
}

gboolean
heddle_evaluation_end (HeddlePipeline *p, double *sum, double *weight, GError **error)
{
  HeddleSnapshot s = { .n = 0 };
  for (guint i = 0; i <= p->n_metrics; i++)
    {
      s.variable[s.n++] = p->eval_sum[i].high;
      s.variable[s.n++] = p->eval_sum[i].low;
      s.variable[s.n++] = p->eval_weight[i].high;
      s.variable[s.n++] = p->eval_weight[i].low;
    }
  gboolean ok = heddle_device_snapshot (p->device, &s, error) && heddle_device_arrive (p->device, &s, TRUE, error);
  for (guint i = 0; ok && i <= p->n_metrics; i++)
    {
      sum[i] = whole (&s.value[4 * i]);
      weight[i] = whole (&s.value[4 * i + 2]);
    }
  return ok;
}
