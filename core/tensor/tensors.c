/* tensor/tensors.c: names, shapes and conversions.  Must not know devices. */
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

gboolean
heddle_dtype_from_name (const char *name, HeddleDtype *dtype)
{
  gboolean ok = FALSE;
#define X(code, number, nick, bytes) \
  if (g_str_equal (name, nick)) \
    { *dtype = HEDDLE_##code; ok = TRUE; }
  HEDDLE_DTYPES (X)
#undef X
  return ok;
}

gsize
heddle_tensor_bytes (HeddleDtype dtype, const HeddleShape *shape)
{
  return heddle_dtype_size (dtype) * (gsize) heddle_shape_count (shape);
}

char *
heddle_shape_print (const HeddleShape *shape)
{
  GString *text = g_string_new (shape->rank ? NULL : "scalar");
  for (gint32 i = 0; i < shape->rank; i++)
    g_string_append_printf (text, "%s%" G_GINT64_FORMAT, i ? "x" : "", shape->size[i]);
  return g_string_free (text, FALSE);
}

gboolean
heddle_shape_broadcast (const HeddleShape *a, const HeddleShape *b, HeddleShape *result)
{
  HeddleShape r = { .rank = MAX (a->rank, b->rank) };
  gboolean ok = TRUE;
  for (gint32 i = 1; ok && i <= r.rank; i++)
    {
      gint64 x = i <= a->rank ? a->size[a->rank - i] : 1, y = i <= b->rank ? b->size[b->rank - i] : 1;
      ok = x == y || x == 1 || y == 1;
      r.size[r.rank - i] = x == 1 ? y : x;
    }
  if (ok)
    *result = r;
  return ok;
}

/* ---- half precision ---- */

typedef union { float f; guint32 u; } Bits;

guint16
heddle_f16_from_f32 (float x)
{
  Bits b = { .f = x };
  guint32 sign = b.u >> 16 & 0x8000, mantissa = b.u & 0x7FFFFF, result;
  gint32 exponent = (gint32) (b.u >> 23 & 0xFF) - 127 + 15;
  if ((b.u & 0x7FFFFFFF) > 0x7F800000)
    result = 0x7E00 | mantissa >> 13;                        /* NaN, quiet */
  else if (exponent >= 31)
    result = 0x7C00;                                         /* overflow and infinity */
  else if (exponent <= 0)
    {
      /* subnormal: the value in units of 2^-24, rounded to even */
      guint32 shift = (guint32) (14 - exponent), full = mantissa | 0x800000;
      if (shift > 24)
        result = 0;
      else
        {
          guint32 rest = full & ((1u << shift) - 1), half = 1u << (shift - 1);
          result = full >> shift;
          result += rest > half || (rest == half && (result & 1));
        }
    }
  else
    {
      guint32 rest = mantissa & 0x1FFF;
      result = (guint32) exponent << 10 | mantissa >> 13;
      result += rest > 0x1000 || (rest == 0x1000 && (result & 1));   /* may carry into the exponent, up to infinity: right */
    }
  return (guint16) (sign | result);
}

float
heddle_f32_from_f16 (guint16 h)
{
  guint32 sign = (guint32) (h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF;
  Bits b;
  if (exponent == 31)
    b.u = sign | 0x7F800000 | mantissa << 13 | (mantissa ? 0x400000 : 0);
  else if (exponent)
    b.u = sign | (exponent + 112) << 23 | mantissa << 13;
  else
    {
      b.f = (float) mantissa * 0x1p-24f;
      b.u |= sign;
    }
  return b.f;
}

guint16
heddle_bf16_from_f32 (float x)
{
  Bits b = { .f = x };
  guint32 result;
  if ((b.u & 0x7FFFFFFF) > 0x7F800000)
    result = b.u >> 16 | 0x40;
  else
    result = (b.u + 0x7FFF + (b.u >> 16 & 1)) >> 16;
  return (guint16) result;
}

float
heddle_f32_from_bf16 (guint16 h)
{
  Bits b = { .u = (guint32) h << 16 };
  return b.f;
}

/* ---- conversion ---- */

static double
load (HeddleDtype dtype, gconstpointer p, gsize i)
{
  double x = 0;
  switch (dtype)
    {
    case HEDDLE_F32: x = ((const float *) p)[i]; break;
    case HEDDLE_F16: x = heddle_f32_from_f16 (((const guint16 *) p)[i]); break;
    case HEDDLE_BF16: x = heddle_f32_from_bf16 (((const guint16 *) p)[i]); break;
    case HEDDLE_U8: x = ((const guint8 *) p)[i]; break;
    case HEDDLE_I32: x = ((const gint32 *) p)[i]; break;
    case HEDDLE_I64: x = (double) ((const gint64 *) p)[i]; break;
    }
  return x;
}

/* Truncates towards zero and saturates; NaN becomes 0. */
static double
clamp_integer (double x, double low, double high)
{
  return isnan (x) ? 0 : CLAMP (trunc (x), low, high);
}

static gint64
saturate_i64 (double x)
{
  gint64 r = 0;
  if (x >= 0x1p63)
    r = G_MAXINT64;
  else if (x <= -0x1p63)
    r = G_MININT64;
  else if (!isnan (x))
    r = (gint64) x;
  return r;
}

static void
store (HeddleDtype dtype, gpointer p, gsize i, double x)
{
  switch (dtype)
    {
    case HEDDLE_F32: ((float *) p)[i] = (float) x; break;
    case HEDDLE_F16: ((guint16 *) p)[i] = heddle_f16_from_f32 ((float) x); break;
    case HEDDLE_BF16: ((guint16 *) p)[i] = heddle_bf16_from_f32 ((float) x); break;
    case HEDDLE_U8: ((guint8 *) p)[i] = (guint8) clamp_integer (x, 0, 255); break;
    case HEDDLE_I32: ((gint32 *) p)[i] = (gint32) clamp_integer (x, G_MININT32, G_MAXINT32); break;
    case HEDDLE_I64: ((gint64 *) p)[i] = saturate_i64 (x); break;
    }
}

void
heddle_convert (HeddleDtype dst_dtype, gpointer dst, HeddleDtype src_dtype, gconstpointer src, gsize n)
{
  if (dst_dtype == src_dtype)
    memcpy (dst, src, n * heddle_dtype_size (src_dtype));
  else if (src_dtype == HEDDLE_I64 && dst_dtype == HEDDLE_I32)
    for (gsize i = 0; i < n; i++)      /* not through double: 64-bit integers have more digits */
      ((gint32 *) dst)[i] = (gint32) CLAMP (((const gint64 *) src)[i], G_MININT32, G_MAXINT32);
  else
    for (gsize i = 0; i < n; i++)
      store (dst_dtype, dst, i, load (src_dtype, src, i));
}
