/* cpu/product-kernel.h: the inner loops of product.c, included once for each instruction set: NAME (f) tells them apart, W is the number of lanes.
 * Lanes are columns of the result.  Sums have names of their own, by macros, because an array of them would live in memory.
 * Must not know plans or memory: pointers and counts in, numbers out. */

typedef float NAME (V) __attribute__ ((vector_size (W * 4), aligned (4)));
#define V NAME (V)
#define AT(p) (*(const V *) (p))
#define MOST (W == 16 ? 4 : 2)      /* vectors of a tile's row: 32 registers hold 6 x 4 sums, 16 hold 6 x 2 */

/* c = factor x (+ c), of which N lanes exist */
static inline __attribute__ ((always_inline)) void
NAME (put) (float *c, V x, gint64 n, const gboolean add)
{
  if (n >= W)
    *(V *) c = add ? AT (c) + x : x;
  else
    for (gint64 l = 0; l < n; l++)
      c[l] = add ? c[l] + x[l] : x[l];
}

#define EACH_ROW(M) M (0) M (1) M (2) M (3) M (4) M (5)
#define START(r) V p##r = { 0 }, q##r = p##r, s##r = p##r, t##r = p##r;
#define MULTIPLY(r) if (rows > r) { float x = a[r * g->ai]; p##r += b0 * x; if (nv > 1) q##r += b1 * x; if (nv > 2) { s##r += b2 * x; t##r += b3 * x; } }
#define PUT(r) \
  if (rows > r) \
    { \
      float *y = c + r * g->ldc; \
      NAME (put) (y, p##r * g->factor, left, add); \
      if (nv > 1) NAME (put) (y + W, q##r * g->factor, left - W, add); \
      if (nv > 2) { NAME (put) (y + 2 * W, s##r * g->factor, left - 2 * W, add); NAME (put) (y + 3 * W, t##r * g->factor, left - 3 * W, add); } \
    }

/* ROWS x (NV x W) of the result; of its columns LEFT exist, of B's all. */
static inline __attribute__ ((always_inline)) void
NAME (tile) (const Product *g, const float *a, const float *b, float *c, gint64 left, const gboolean add, const int rows, const int nv)
{
  EACH_ROW (START)
  for (gint64 k = 0; k < g->k; k++, a += g->ak, b += g->ldb)
    {
      V b0 = AT (b), b1 = b0, b2 = b0, b3 = b0;
      if (nv > 1)
        b1 = AT (b + W);
      if (nv > 2)
        {
          b2 = AT (b + 2 * W);
          b3 = AT (b + 3 * W);
        }
      EACH_ROW (MULTIPLY)
    }
  EACH_ROW (PUT)
}
#undef START
#undef MULTIPLY
#undef PUT
#undef EACH_ROW

static inline __attribute__ ((always_inline)) void
NAME (column) (const Product *g, gint64 j, const gboolean add, const int nv)
{
  const float *b = g->b + j;
  for (gint64 i = 0; i < g->m; i += 6)
    {
      const float *a = g->a + i * g->ai;
      float *c = g->c + i * g->ldc + j;
      switch (MIN (6, g->m - i))
        {
        case 1: NAME (tile) (g, a, b, c, g->n - j, add, 1, nv); break;
        case 2: NAME (tile) (g, a, b, c, g->n - j, add, 2, nv); break;
        case 3: NAME (tile) (g, a, b, c, g->n - j, add, 3, nv); break;
        case 4: NAME (tile) (g, a, b, c, g->n - j, add, 4, nv); break;
        case 5: NAME (tile) (g, a, b, c, g->n - j, add, 5, nv); break;
        default: NAME (tile) (g, a, b, c, g->n - j, add, 6, nv); break;
        }
    }
}

static void
NAME (product) (const Product *g)
{
  for (gint64 j = 0; j < g->n;)
    {
      int nv = MOST > 2 && g->n - j > 2 * W ? MOST : g->n - j > W ? 2 : 1;
      if (nv == 1)
        g->add ? NAME (column) (g, j, TRUE, 1) : NAME (column) (g, j, FALSE, 1);
      else if (nv == 2)
        g->add ? NAME (column) (g, j, TRUE, 2) : NAME (column) (g, j, FALSE, 2);
      else
        g->add ? NAME (column) (g, j, TRUE, MOST) : NAME (column) (g, j, FALSE, MOST);
      j += nv * W;
    }
}

#undef V
#undef AT
#undef MOST
