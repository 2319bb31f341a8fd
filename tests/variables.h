/* tests/variables.h: what the variables of two runs or networks hold, side by side, each read from its own device.  Must not know devices. */
#ifndef HEDDLE_TESTS_VARIABLES_H
#define HEDDLE_TESTS_VARIABLES_H

#include <math.h>

#include "backend/backend.h"

typedef struct { HeddleDevice *device; HeddleVariables *vars; } TestVariables;

/* The numbers of the variable called NAME in rows, to be freed. */
static inline float *
test_numbers (TestVariables at, const char *name)
{
  HeddleVariable *v = heddle_variables_lookup (at.vars, name);
  g_assert_nonnull (v);
  float *x = g_new (float, heddle_shape_count (&v->shape));
  HeddleTensor t = { HEDDLE_F32, v->shape, x };
  g_assert_true (at.device->iface->read (at.device, v, &t, NULL));
  return x;
}

/* The largest difference of any number, relative to the largest of its variable, over those that WANTED takes: at least one.  All numbers of B are finite. */
static inline double
test_distance (TestVariables a, TestVariables b, gboolean (*wanted) (const HeddleVariable *v))
{
  double most = 0;
  guint compared = 0;
  for (guint i = 0; i < heddle_variables_count (a.vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (a.vars, i);
      if (!wanted (v))
        continue;
      g_autofree float *x = test_numbers (a, v->name), *y = test_numbers (b, v->name);
      double scale = 1e-3, difference = 0;
      for (gint64 k = 0; k < heddle_shape_count (&v->shape); k++)
        {
          g_assert_true (isfinite (y[k]));
          scale = fmax (scale, fabs ((double) x[k]));
          difference = fmax (difference, fabs ((double) x[k] - (double) y[k]));
        }
      if (difference / scale > most)
        g_test_message ("%s: %.3g of %.3g", v->name, difference, scale);
      most = fmax (most, difference / scale);
      compared++;
    }
  g_assert_cmpuint (compared, >, 0);
  return most;
}

#endif
