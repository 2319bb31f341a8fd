/* test-vecmath.c: the largest error of each function of vecmath.h over a sweep of all floats against libm in double: the bounds its head states. */
#include "backend/cpu/vecmath.h"

typedef double (*Truth) (double x);
typedef float (*Function) (float x);

static double sigmoid (double x) { return 1 / (1 + exp (-x)); }
static float v_exp (float x) { return vm_exp (x); }
static float v_expm1 (float x) { return vm_expm1 (x); }
static float v_tanh (float x) { return vm_tanh (x); }
static float v_erf (float x) { return vm_erf (x); }
static float v_log1p (float x) { return vm_log1p (x); }
static float v_sigmoid (float x) { return x < -87 ? (float) sigmoid (x) : vm_sigmoid (x); }   /* flushed to 0 below: see the far ends */

/* in units of the last place of WANT as a float, never below the smallest subnormal */
static double
ulps (float got, double want)
{
  float nearest = (float) want;
  gboolean special = isnan (want) || isinf (nearest) || isinf (got);
  double unit = special || fabsf (nearest) < 0x1p-126f ? 0x1p-149 : ldexp (1, ilogbf (nearest) - 23);
  return special ? (isnan (want) ? isnan (got) : nearest == got) ? 0 : INFINITY : fabs ((double) got - want) / unit;
}

static const struct { const char *name; Function f; Truth truth; double bound; } functions[] = {
  { "exp", v_exp, exp, 1.5 }, { "expm1", v_expm1, expm1, 2 }, { "tanh", v_tanh, tanh, 2 }, { "erf", v_erf, erf, 1.5 }, { "sigmoid", v_sigmoid, sigmoid, 3 },
  { "log1p", v_log1p, log1p, 2 },
};

static void
test_bound (gconstpointer data)
{
  guint k = GPOINTER_TO_UINT (data);
  double largest = 0;
  float at = 0;
  for (guint64 i = 0; i < 1ull << 32; i += 4099)        /* a prime: every exponent, all kinds of mantissa, NaN and infinities */
    {
      VmBits b = { .i = (gint32) (guint32) i };
      double e = ulps (functions[k].f (b.f), functions[k].truth (b.f));
      if (e > largest)
        {
          largest = e;
          at = b.f;
        }
    }
  g_test_message ("%s: %.3f ulp at %.9g", functions[k].name, largest, at);
  g_assert_cmpfloat (largest, <=, functions[k].bound);
}

static void
test_ends (void)
{
  for (guint k = 0; k < G_N_ELEMENTS (functions); k++)
    g_assert_true (isnan (functions[k].f (NAN)));
  g_assert_cmpfloat (vm_exp (INFINITY), ==, INFINITY);
  g_assert_cmpfloat (vm_exp (-INFINITY), ==, 0);
  g_assert_cmpfloat (vm_exp (88.8f), ==, INFINITY);
  g_assert_cmpfloat (vm_exp (88.7f), <, INFINITY);
  g_assert_cmpfloat (vm_exp (0), ==, 1);
  g_assert_cmpfloat (vm_expm1 (-INFINITY), ==, -1);
  g_assert_cmpfloat (vm_log1p (-1), ==, -INFINITY);
  g_assert_cmpfloat (vm_log1p (INFINITY), ==, INFINITY);
  g_assert_true (isnan (vm_log1p (-1.0001f)));
  g_assert_true (vm_log1p (0) == 0 && signbit (vm_log1p (-0.0f)));
  g_assert_cmpfloat (vm_tanh (INFINITY), ==, 1);
  g_assert_cmpfloat (vm_erf (-INFINITY), ==, -1);
  g_assert_cmpfloat (vm_sigmoid (-INFINITY), ==, 0);
  g_assert_cmpfloat (vm_sigmoid (INFINITY), ==, 1);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (guint k = 0; k < G_N_ELEMENTS (functions); k++)
    {
      g_autofree char *path = g_strconcat ("/vecmath/", functions[k].name, NULL);
      g_test_add_data_func (path, GUINT_TO_POINTER (k), test_bound);
    }
  g_test_add_func ("/vecmath/ends", test_ends);
  return g_test_run ();
}
