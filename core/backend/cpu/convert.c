/* cpu/convert.c: numbers in 16 bits to f32 and back, as vectors; every other pair of dtypes is heddle_convert ()'s.  Must not know who converts. */
#include "cpu.h"
#include "tensor/tensors.h"

typedef union { float f; guint32 u; } Bits;      /* how floats are read and written here */

VECTOR (void, f32_from_bf16, (const guint16 *restrict x, Bits *restrict y, gsize n), (x, y, n))
{
  for (gsize i = 0; i < n; i++)
    y[i].u = (guint32) x[i] << 16;
}

/* To nearest, ties to even; NaN stays NaN. */
VECTOR (void, bf16_from_f32, (const Bits *restrict x, guint16 *restrict y, gsize n), (x, y, n))
{
  for (gsize i = 0; i < n; i++)
    {
      guint32 u = x[i].u, rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
      y[i] = (guint16) ((u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
    }
}

/* A half's exponent and mantissa in the place of a float's are the number times 2^-112, subnormal or not. */
VECTOR (void, f32_from_f16, (const guint16 *restrict x, Bits *restrict y, gsize n), (x, y, n))
{
  for (gsize i = 0; i < n; i++)
    {
      guint32 h = x[i], magnitude = (h & 0x7FFF) << 13, special = magnitude | 0x7F800000;
      Bits b = { .u = magnitude };
      b.f *= 0x1p112f;
      special |= (h & 0x3FF) != 0 ? 0x400000 : 0;
      y[i].u = ((h & 0x7C00) == 0x7C00 ? special : b.u) | (h & 0x8000) << 16;
    }
}

/* Adding 1/2 leaves what is below 2^-14 in the last bits in units of 2^-24, rounded. */
VECTOR (void, f16_from_f32, (const Bits *restrict x, guint16 *restrict y, gsize n), (x, y, n))
{
  for (gsize i = 0; i < n; i++)
    {
      Bits b = { .u = x[i].u & 0x7FFFFFFF };
      guint32 a = b.u, normal = (a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13, nan = 0x7E00 | (a >> 13 & 0x3FF);
      b.f += 0.5f;
      guint32 r = a < 0x38800000 ? b.u - 0x3F000000 : normal;
      r = a >= 0x47800000 ? 0x7C00 : r;
      r = a > 0x7F800000 ? nan : r;
      y[i] = (guint16) (r | (x[i].u >> 16 & 0x8000));
    }
}

void
cpu_convert (HeddleDtype to, gpointer y, HeddleDtype from, gconstpointer x, gsize n)
{
  if (from == HEDDLE_F32 && to == HEDDLE_BF16)
    bf16_from_f32 (x, y, n);
  else if (from == HEDDLE_BF16 && to == HEDDLE_F32)
    f32_from_bf16 (x, y, n);
  else if (from == HEDDLE_F32 && to == HEDDLE_F16)
    f16_from_f32 (x, y, n);
  else if (from == HEDDLE_F16 && to == HEDDLE_F32)
    f32_from_f16 (x, y, n);
  else
    heddle_convert (to, y, from, x, n);
}
