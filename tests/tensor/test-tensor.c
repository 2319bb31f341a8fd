/* test-tensor.c: shapes and their printing, NumPy's broadcasting rule, 16-bit floats against arithmetic on their definition, conversions. */
#include <math.h>
#include <string.h>

#include "tensor/tensors.h"

static void
test_shapes (void)
{
  HeddleShape a = heddle_shape (64, 1, 28, 28), s = heddle_scalar_shape ();
  g_autofree char *text = heddle_shape_print (&a), *scalar = heddle_shape_print (&s);
  HeddleDtype dtype;
  g_assert_cmpstr (text, ==, "64x1x28x28");
  g_assert_cmpstr (scalar, ==, "scalar");
  g_assert_cmpint (heddle_shape_count (&a), ==, 50176);
  g_assert_cmpint (heddle_shape_count (&s), ==, 1);
  g_assert_cmpuint (heddle_tensor_bytes (HEDDLE_BF16, &a), ==, 100352);
  g_assert_true (heddle_dtype_from_name ("bf16", &dtype) && dtype == HEDDLE_BF16);
  g_assert_false (heddle_dtype_from_name ("float", &dtype));
}

static void
check_broadcast (HeddleShape a, HeddleShape b, const char *expected)
{
  HeddleShape r, q;
  gboolean ok = heddle_shape_broadcast (&a, &b, &r);
  g_assert_cmpint (ok, ==, expected != NULL);
  g_assert_cmpint (heddle_shape_broadcast (&b, &a, &q), ==, ok);
  if (ok)
    {
      g_autofree char *text = heddle_shape_print (&r);
      g_assert_cmpstr (text, ==, expected);
      g_assert_true (heddle_shape_equal (&r, &q));
    }
}

static void
test_broadcast (void)
{
  check_broadcast (heddle_shape (2, 3), heddle_shape (3), "2x3");
  check_broadcast (heddle_shape (2, 1, 4), heddle_shape (3, 1), "2x3x4");
  check_broadcast (heddle_shape (2, 3), heddle_scalar_shape (), "2x3");
  check_broadcast (heddle_shape (2, 3), heddle_shape (2), NULL);
  check_broadcast (heddle_shape (1), heddle_shape (5, 1, 1), "5x1x1");
  check_broadcast (heddle_scalar_shape (), heddle_scalar_shape (), "scalar");
}

/* value of a 16-bit pattern by the definition: sign, EXPONENT bits, MANTISSA bits */
static double
decode (guint16 h, int exponent, int mantissa)
{
  int bias = (1 << (exponent - 1)) - 1, e = h >> mantissa & ((1 << exponent) - 1), m = h & ((1 << mantissa) - 1);
  double sign = h >> 15 ? -1 : 1;
  return e == (1 << exponent) - 1 ? (m ? NAN : sign * INFINITY) : e ? sign * ldexp (1 + ldexp (m, -mantissa), e - bias) : sign * ldexp (m, 1 - bias - mantissa);
}

static void
check_half (int exponent, int mantissa, float (*widen) (guint16), guint16 (*narrow) (float))
{
  for (guint h = 0; h < 65536; h++)
    {
      double x = decode ((guint16) h, exponent, mantissa);
      float f = widen ((guint16) h);
      if (isnan (x))
        {
          g_assert_true (isnan (f));
          g_assert_true (isnan (widen (narrow (f))));
        }
      else
        {
          g_assert_true ((double) f == x);
          g_assert_cmphex (narrow (f), ==, h);
          /* halfway to the next value up goes to the even one, a little more goes up, a little less down */
          double next = decode ((guint16) (h + 1), exponent, mantissa);
          if (isfinite (x) && isfinite (next) && h != 0x7fff)
            {
              float middle = (float) ((x + next) / 2);
              g_assert_cmphex (narrow (middle), ==, h & 1 ? h + 1 : h);
              g_assert_cmphex (narrow (nextafterf (middle, (float) x)), ==, h);
              g_assert_cmphex (narrow (nextafterf (middle, (float) next)), ==, h + 1);
            }
        }
    }
  g_assert_true (isinf (widen (narrow (3.4e38f))) || mantissa == 7);
  g_assert_true (isinf (widen (narrow (INFINITY))) && widen (narrow (-INFINITY)) < 0);
}

static void
test_halves (void)
{
  check_half (5, 10, heddle_f32_from_f16, heddle_f16_from_f32);
  check_half (8, 7, heddle_f32_from_bf16, heddle_bf16_from_f32);
  g_assert_cmphex (heddle_f16_from_f32 (65519.996f), ==, 0x7bff);
  g_assert_cmphex (heddle_f16_from_f32 (65520), ==, 0x7c00);
}

static void
test_convert (void)
{
  float f[] = { -1.5f, 0, 1.9f, 255.7f, 300, NAN, INFINITY, -INFINITY, 3e9f };
  guint8 u[G_N_ELEMENTS (f)];
  gint32 i[G_N_ELEMENTS (f)];
  gint64 l[] = { 1, -7, G_GINT64_CONSTANT (16777217) };
  float g[3];
  guint16 h[3];
  heddle_convert (HEDDLE_U8, u, HEDDLE_F32, f, G_N_ELEMENTS (f));
  heddle_convert (HEDDLE_I32, i, HEDDLE_F32, f, G_N_ELEMENTS (f));
  static const guint8 eu[] = { 0, 0, 1, 255, 255 };
  static const gint32 ei[] = { -1, 0, 1, 255, 300 };
  g_assert_cmpmem (u, 5, eu, 5);
  g_assert_cmpmem (i, 5 * sizeof *i, ei, sizeof ei);
  g_assert_cmpint (i[6], ==, G_MAXINT32);
  g_assert_cmpint (i[7], ==, G_MININT32);
  g_assert_cmpint (i[8], ==, G_MAXINT32);
  g_assert_cmpuint (u[6], ==, 255);
  g_assert_cmpuint (u[7], ==, 0);
  heddle_convert (HEDDLE_F32, g, HEDDLE_I64, l, 3);
  g_assert_true (g[0] == 1 && g[1] == -7 && g[2] == 16777216);       /* to even */
  heddle_convert (HEDDLE_BF16, h, HEDDLE_I64, l, 3);
  g_assert_cmphex (h[1], ==, heddle_bf16_from_f32 (-7));
  heddle_convert (HEDDLE_F16, h, HEDDLE_F32, f, 3);
  g_assert_cmphex (h[0], ==, heddle_f16_from_f32 (-1.5f));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/tensor/shapes", test_shapes);
  g_test_add_func ("/tensor/broadcast", test_broadcast);
  g_test_add_func ("/tensor/halves", test_halves);
  g_test_add_func ("/tensor/convert", test_convert);
  return g_test_run ();
}
