/* cpu/product.c: small matrix products of tiles that lie in the first-level cache, without a library's call.  Each element is one sum in the order of k.
 * Must not know who multiplies, nor threads. */
#include "cpu.h"

#include <string.h>

/* c (m, n) = factor a b (+ c): a's element (i, k) at i ai + k ak; b (k, n) with ldb floats a row, of which whole tiles of columns can be read. */
typedef struct { gint64 m, n, k, ai, ak, ldb, ldc; const float *a, *b; float *c, factor; gboolean add; } Product;

#define KERNELS "product-kernel.h"
#include "each-isa.h"

typedef float Four __attribute__ ((vector_size (16), aligned (4)));
typedef gint32 Pick __attribute__ ((vector_size (16)));

/* Y (k, pitch) = X (n, k)^T, four by four */
static void
transpose (const float *x, gint64 ldx, gint64 n, gint64 k, float *y, gint64 pitch)
{
  gint64 n4 = n & ~3, k4 = k & ~3;
  for (gint64 i = 0; i < n4; i += 4)
    for (gint64 j = 0; j < k4; j += 4)
      {
        const float *from = x + i * ldx + j;
        float *to = y + j * pitch + i;
        Four a = *(const Four *) from, b = *(const Four *) (from + ldx), c = *(const Four *) (from + 2 * ldx), d = *(const Four *) (from + 3 * ldx);
        Four ab = __builtin_shuffle (a, b, (Pick) { 0, 4, 1, 5 }), ab2 = __builtin_shuffle (a, b, (Pick) { 2, 6, 3, 7 });
        Four cd = __builtin_shuffle (c, d, (Pick) { 0, 4, 1, 5 }), cd2 = __builtin_shuffle (c, d, (Pick) { 2, 6, 3, 7 });
        *(Four *) to = __builtin_shuffle (ab, cd, (Pick) { 0, 1, 4, 5 });
        *(Four *) (to + pitch) = __builtin_shuffle (ab, cd, (Pick) { 2, 3, 6, 7 });
        *(Four *) (to + 2 * pitch) = __builtin_shuffle (ab2, cd2, (Pick) { 0, 1, 4, 5 });
        *(Four *) (to + 3 * pitch) = __builtin_shuffle (ab2, cd2, (Pick) { 2, 3, 6, 7 });
      }
  for (gint64 i = 0; i < n; i++)
    for (gint64 j = i < n4 ? k4 : 0; j < k; j++)
      y[j * pitch + i] = x[i * ldx + j];
}

void
cpu_product_transpose (const float *x, gint64 ldx, gint64 n, gint64 k, float *y, gint64 pitch)
{
  transpose (x, ldx, n, k, y, pitch);
  for (gint64 j = 0; j < k && pitch > n; j++)
    memset (y + j * pitch + n, 0, (gsize) (pitch - n) * sizeof (float));
}

gint64
cpu_product_pitch (gint64 n)
{
  return (n + CPU_PRODUCT_COLUMNS - 1) / CPU_PRODUCT_COLUMNS * CPU_PRODUCT_COLUMNS;
}

void
cpu_product (gboolean ta, gboolean tb, gint64 m, gint64 n, gint64 k, float factor, const float *a, gint64 lda, const float *b, gint64 ldb,
             gboolean add, float *c, gint64 ldc, float *packed)
{
  gint64 pitch = cpu_product_pitch (n);
  Product g = { m, n, k, ta ? 1 : lda, ta ? lda : 1, ldb, ldc, a, b, c, factor, add };
  if (tb || n % CPU_PRODUCT_COLUMNS)
    {
      if (tb)
        cpu_product_transpose (b, ldb, n, k, packed, pitch);
      for (gint64 j = 0; j < k && !tb; j++)
        {
          memcpy (packed + j * pitch, b + j * ldb, (gsize) n * sizeof (float));
          memset (packed + j * pitch + n, 0, (gsize) (pitch - n) * sizeof (float));
        }
      g.b = packed;
      g.ldb = pitch;
    }
  CPU_PICK (product) (&g);
}
