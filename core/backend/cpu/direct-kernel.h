/* cpu/direct-kernel.h: the inner loops of direct.c, included once for each instruction set: NAME (f) tells them apart, W is the number of lanes.
 * Vector types are lowered before function multiversioning takes effect, so that VECTOR cannot serve here.  Accumulators have names of their own, by
 * macros, because an array of them would live in memory.
 * Must not know plans or memory: pointers and counts in, numbers out. */

typedef float NAME (V) __attribute__ ((vector_size (W * 4), aligned (4)));
typedef gint32 NAME (I) __attribute__ ((vector_size (W * 4), aligned (4)));
typedef guint8 NAME (B) __attribute__ ((vector_size (W), aligned (1)));
#define V NAME (V)
#define I NAME (I)
#define B NAME (B)
#define AT(p) (*(const V *) (p))

/* ---- two output rows: convolved, then stored, or pooled 2 x 2 and stored with the place of each maximum ---- */

/* The first of A and X in window order, larger or NaN wins: as pool.c. */
static inline __attribute__ ((always_inline)) void
NAME (larger) (V *best, I *where, V x, gint32 number)
{
  I better = (x > *best) | (x != x);
  *best = (V) (((I) x & better) | ((I) *best & ~better));
  *where = (((I) { 0 } + number) & better) | (*where & ~better);
}

static inline __attribute__ ((always_inline)) void
NAME (store) (float *to, V x, gint64 n)
{
  if (n >= W)
    *(V *) to = x;
  else
    memcpy (to, &x, (gsize) MAX (n, 0) * sizeof (float));
}

static inline __attribute__ ((always_inline)) void
NAME (store_index) (guint8 *to, I x, gint64 n)
{
  B narrow = __builtin_convertvector (x, B);
  if (n >= W)
    *(B *) to = narrow;
  else
    memcpy (to, &narrow, (gsize) MAX (n, 0));
}

/* P, Q: columns J.. of row I; S, T: of row I + 1 */
static inline __attribute__ ((always_inline)) void
NAME (finish_rows) (const Geometry *g, const Result *r, gint64 o, gint64 i, gint64 j, const int nv, V p, V q, V s, V t)
{
  if (r->index)
    {
      I even, odd, none = { 0 };
      for (int k = 0; k < W; k++)
        {
          even[k] = nv > 1 ? 2 * k : 2 * k % W;
          odd[k] = even[k] + 1;
        }
      gint64 at = (o * (g->oh / 2) + i / 2) * (g->ow / 2) + j / 2, n = g->ow / 2 - j / 2;
      V best = __builtin_shuffle (p, q, even);
      I where = none;
      n = MIN (n, nv * W / 2);
      NAME (larger) (&best, &where, __builtin_shuffle (p, q, odd), 1);
      NAME (larger) (&best, &where, __builtin_shuffle (s, t, even), 2);
      NAME (larger) (&best, &where, __builtin_shuffle (s, t, odd), 3);
      NAME (store) (r->y + at, best, n);
      NAME (store_index) (r->index + at, where, n);
    }
  else
    {
      float *to = r->y + (o * g->oh + i) * g->ow + j;
      gint64 n = g->ow - j;
      NAME (store) (to, p, n);
      if (nv > 1)
        NAME (store) (to + W, q, n - W);
      if (i + 1 < g->oh)
        {
          NAME (store) (to + g->ow, s, n);
          if (nv > 1)
            NAME (store) (to + g->ow + W, t, n - W);
        }
    }
}

#define EACH_CHANNEL(M) M (0) M (1) M (2) M (3) M (4) M (5)
#define START(k) V p##k = { 0 }, q##k, s##k, t##k; if (ob > k) p##k += bias[k]; q##k = s##k = t##k = p##k;
#define MULTIPLY(k) if (ob > k) { float m = w[k]; p##k += x0 * m; s##k += y0 * m; if (nv > 1) { q##k += x1 * m; t##k += y1 * m; } }
#define FINISH(k) if (ob > k) NAME (finish_rows) (g, r, o + k, i, j, nv, p##k, q##k, s##k, t##k);

/* Lanes are columns: NV x W of them from column J, rows I and I + 1, OB output channels from O.  W: (ic, kh, kw, OB). */
static inline __attribute__ ((always_inline)) void
NAME (columns_tile) (const Geometry *g, const float *padded, const float *w, const float *bias, const Result *r, gint64 o, gint64 i, gint64 j, const int ob, const int nv)
{
  EACH_CHANNEL (START)
  for (gint64 c = 0; c < g->ic; c++)
    for (gint64 u = 0; u < g->kh; u++)
      {
        const float *row = padded + (c * g->rows + i + u) * g->pitch + j, *below = row + g->pitch;
        for (gint64 v = 0; v < g->kw; v++, w += ob)
          {
            V x0 = AT (row + v), y0 = AT (below + v), x1 = x0, y1 = y0;
            if (nv > 1)
              {
                x1 = AT (row + v + W);
                y1 = AT (below + v + W);
              }
            EACH_CHANNEL (MULTIPLY)
          }
      }
  EACH_CHANNEL (FINISH)
}
#undef START
#undef MULTIPLY
#undef FINISH

/* Registers decide: 32 of 16 lanes hold 2 x 2 x 6 sums, 16 of 8 lanes hold 2 x 1 x 6. */
#define MANY (W == 16 ? 2 : 1)

static inline __attribute__ ((always_inline)) void
NAME (columns_block) (const Geometry *g, const float *padded, const float *w, const float *bias, const Result *r, gint64 o, const int ob)
{
  gint64 rows = r->index ? g->oh / 2 * 2 : g->oh;
  for (gint64 i = 0; i < rows; i += 2)
    for (gint64 j = 0; j < g->ow;)
      if (MANY > 1 && g->ow - j > W)
        {
          NAME (columns_tile) (g, padded, w, bias, r, o, i, j, ob, MANY);
          j += MANY * W;
        }
      else
        {
          NAME (columns_tile) (g, padded, w, bias, r, o, i, j, ob, 1);
          j += W;
        }
}

/* PACKED: blocks of up to BLOCK_CHANNELS output channels, (ic, kh, kw, channels of the block) each. */
static void
NAME (columns_image) (const Geometry *g, const float *padded, const float *packed, const float *bias, const Result *r)
{
  for (gint64 o = 0; o < g->oc; o += BLOCK_CHANNELS)
    {
      const float *w = packed + o * g->ic * g->kh * g->kw;
      float b[BLOCK_CHANNELS] = { 0 };
      gint64 n = MIN (BLOCK_CHANNELS, g->oc - o);
      for (gint64 k = 0; bias && k < n; k++)
        b[k] = bias[o + k];
      switch (n)
        {
        case 1: NAME (columns_block) (g, padded, w, b, r, o, 1); break;
        case 2: NAME (columns_block) (g, padded, w, b, r, o, 2); break;
        case 3: NAME (columns_block) (g, padded, w, b, r, o, 3); break;
        case 4: NAME (columns_block) (g, padded, w, b, r, o, 4); break;
        case 5: NAME (columns_block) (g, padded, w, b, r, o, 5); break;
        default: NAME (columns_block) (g, padded, w, b, r, o, 6); break;
        }
    }
}

/* ---- lanes are output channels: NP pixels of rows I and I + 1 ---- */

#define MAX_PIXELS (W == 16 ? 10 : 6)
#define EACH_PIXEL(M) M (0) M (1) M (2) M (3) M (4) M (5) M (6) M (7) M (8) M (9)
#define START(k) V a##k = bias, b##k = bias;
#define MULTIPLY(k) if (np > k) { a##k += m * row[k]; b##k += m * below[k]; }
#define KEEP(k) if (np > k) { *(V *) (sums + k * W) = a##k; *(V *) (sums + (MAX_PIXELS + k) * W) = b##k; }

/* SUMS: two rows of MAX_PIXELS pixels of W channels.  W: (ic, kh, kw, W). */
static inline __attribute__ ((always_inline)) void
NAME (channels_tile) (const Geometry *g, const float *padded, const float *w, V bias, gint64 i, gint64 j, const int np, float *sums)
{
  EACH_PIXEL (START)
  for (gint64 c = 0; c < g->ic; c++)
    for (gint64 u = 0; u < g->kh; u++)
      {
        const float *row = padded + (c * g->rows + i + u) * g->pitch + j, *below = row + g->pitch;
        for (gint64 v = 0; v < g->kw; v++, w += W, row++, below++)
          {
            V m = AT (w);
            EACH_PIXEL (MULTIPLY)
          }
      }
  EACH_PIXEL (KEEP)
}
#undef START
#undef MULTIPLY
#undef KEEP

/* Writes N channels of NP pixels from SUMS to planes; or the maxima of each 2 x 2 of them. */
static void
NAME (spread_pixels) (const Geometry *g, const Result *r, gint64 o, gint64 n, gint64 i, gint64 j, gint64 np, const float *sums)
{
  if (r->index)
    for (gint64 k = 0; k + 1 < np; k += 2)
      {
        const float *a = sums + k * W, *b = a + MAX_PIXELS * W;
        V best = AT (a);
        I where = { 0 };
        NAME (larger) (&best, &where, AT (a + W), 1);
        NAME (larger) (&best, &where, AT (b), 2);
        NAME (larger) (&best, &where, AT (b + W), 3);
        gint64 at = (o * (g->oh / 2) + i / 2) * (g->ow / 2) + (j + k) / 2, plane = g->oh / 2 * (g->ow / 2);
        for (gint64 l = 0; l < n; l++)
          {
            r->y[at + l * plane] = best[l];
            r->index[at + l * plane] = (guint8) where[l];
          }
      }
  else
    for (gint64 row = 0; row < MIN (2, g->oh - i); row++)
      for (gint64 l = 0; l < n; l++)
        for (gint64 k = 0; k < np; k++)
          r->y[((o + l) * g->oh + i + row) * g->ow + j + k] = sums[(row * MAX_PIXELS + k) * W + l];
}

/* PACKED: blocks of W output channels, (ic, kh, kw, W) each. */
static void
NAME (channels_image) (const Geometry *g, const float *padded, const float *packed, const float *bias, const Result *r)
{
  float sums[2 * 10 * W];
  for (gint64 o = 0; o < g->oc; o += W)
    {
      const float *w = packed + o * g->ic * g->kh * g->kw;
      gint64 n = MIN (W, g->oc - o);
      V b = { 0 };
      for (gint64 k = 0; bias && k < n; k++)
        b[k] = bias[o + k];
      for (gint64 i = 0; i < (r->index ? g->oh / 2 * 2 : g->oh); i += 2)
        for (gint64 j = 0; j < g->ow;)
          {
            gint64 np = MIN (MAX_PIXELS, g->ow - j);
            if (np == MAX_PIXELS)
              NAME (channels_tile) (g, padded, w, b, i, j, MAX_PIXELS, sums);
            else if (np >= 4)
              NAME (channels_tile) (g, padded, w, b, i, j, (int) (np = 4), sums);
            else if (np >= 2)
              NAME (channels_tile) (g, padded, w, b, i, j, (int) (np = 2), sums);
            else
              NAME (channels_tile) (g, padded, w, b, i, j, 1, sums);
            NAME (spread_pixels) (g, r, o, n, i, j, np, sums);
            j += np;
          }
    }
}

/* ---- gradient by the weight: sums of windows, each a row of LENGTH (= vectors x W) numbers ---- */

/* The windows of output rows I and I + 1 (the second may lie below the image: its rows exist in PADDED), one after the other.  Each row of a window is copied in
 * whole vectors: what is written too much is overwritten by what follows. */
static void
NAME (unfold) (const Geometry *g, const float *padded, gint64 i, gint64 length, float *windows)
{
  for (gint64 p = 0; p < 2 * g->ow; p++)
    for (gint64 c = 0; c < g->ic; c++)
      {
        const float *x = padded + (c * g->rows + i + p / g->ow) * g->pitch + p % g->ow;
        float *to = windows + p * length + c * g->kh * g->kw;
        for (gint64 u = 0; u < g->kh; u++)
          *(V *) (to + u * g->kw) = AT (x + u * g->pitch);
      }
}

#define EACH_VECTOR(M) M (0) M (1) M (2) M (3) M (4) M (5) M (6) M (7) M (8) M (9)
#define START(k) V a##k = { 0 }; if (nk > k) a##k = AT (sum + k * W);
#define ADD(k) if (nk > k) a##k += AT (x + k * W) * d;
#define KEEP(k) if (nk > k) *(V *) (sum + k * W) = a##k;

/* One channel's share, from its pooled gradient: only the pixel that was the maximum has one. */
static inline __attribute__ ((always_inline)) void
NAME (weight_pooled) (const float *windows, gint64 length, gint64 ow, const float *dy, const guint8 *index, gint64 n, float *sum, const int nk)
{
  EACH_VECTOR (START)
  for (gint64 j = 0; j < n; j++)
    {
      const float *x = windows + ((index[j] >> 1) * ow + 2 * j + (index[j] & 1)) * length;
      float d = dy[j];
      EACH_VECTOR (ADD)
    }
  EACH_VECTOR (KEEP)
}
#undef START
#undef ADD
#undef KEEP

#define EACH_SUM(M) M (0) M (1) M (2) M (3) M (4)
#define START(k) V a##k = { 0 }, b##k = a##k, c##k = a##k, d##k = a##k; \
  if (nk > k) { a##k = AT (sum + k * W); b##k = AT (sum + length + k * W); c##k = AT (sum + 2 * length + k * W); d##k = AT (sum + 3 * length + k * W); }
#define ADD(k) if (nk > k) { V v = AT (x + k * W); a##k += v * g0; b##k += v * g1; c##k += v * g2; d##k += v * g3; }
#define KEEP(k) if (nk > k) { *(V *) (sum + k * W) = a##k; *(V *) (sum + length + k * W) = b##k; *(V *) (sum + 2 * length + k * W) = c##k; *(V *) (sum + 3 * length + k * W) = d##k; }

/* Four channels' shares from N pixels; DY: planes PLANE apart */
static inline __attribute__ ((always_inline)) void
NAME (weight_dense) (const float *windows, gint64 length, const float *dy, gint64 plane, gint64 n, float *sum, const int nk)
{
  EACH_SUM (START)
  for (gint64 j = 0; j < n; j++)
    {
      const float *x = windows + j * length, g0 = dy[j], g1 = dy[plane + j], g2 = dy[2 * plane + j], g3 = dy[3 * plane + j];
      EACH_SUM (ADD)
    }
  EACH_SUM (KEEP)
}
#undef START
#undef ADD
#undef KEEP

#define NARROW (W == 16 ? 5 : 3)

static void
NAME (weight_rows_pooled) (const Geometry *g, const float *windows, gint64 length, const float *dy, const guint8 *index, gint64 i, float *sums)
{
  gint64 n = g->ow / 2, plane = g->oh / 2 * n;
  for (gint64 o = 0; o < g->oc; o++)
    for (gint64 k = 0; k < length;)
      {
        const float *d = dy + o * plane + i / 2 * n;
        const guint8 *at = index + o * plane + i / 2 * n;
        gint64 left = (length - k) / W, take = left >= 10 ? 10 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        switch (take)
          {
          case 10: NAME (weight_pooled) (windows + k, length, g->ow, d, at, n, sums + o * length + k, 10); break;
          case 4: NAME (weight_pooled) (windows + k, length, g->ow, d, at, n, sums + o * length + k, 4); break;
          case 2: NAME (weight_pooled) (windows + k, length, g->ow, d, at, n, sums + o * length + k, 2); break;
          default: NAME (weight_pooled) (windows + k, length, g->ow, d, at, n, sums + o * length + k, 1); break;
          }
        k += take * W;
      }
}

/* DY: planes padded to a multiple of four channels, rows as wide as the output. */
static void
NAME (weight_rows_dense) (const Geometry *g, const float *windows, gint64 length, const float *dy, gint64 plane, gint64 i, float *sums)
{
  gint64 n = MIN (2, g->oh - i) * g->ow;
  for (gint64 o = 0; o < g->oc; o += 4)
    for (gint64 k = 0; k < length;)
      {
        const float *d = dy + o * plane + i * g->ow;
        gint64 left = (length - k) / W, take = left >= NARROW ? NARROW : left >= 2 ? 2 : 1;
        if (take == NARROW)
          NAME (weight_dense) (windows + k, length, d, plane, n, sums + o * length + k, NARROW);
        else if (take == 2)
          NAME (weight_dense) (windows + k, length, d, plane, n, sums + o * length + k, 2);
        else
          NAME (weight_dense) (windows + k, length, d, plane, n, sums + o * length + k, 1);
        k += take * W;
      }
}

static const Kernels NAME (kernels) = { W, NAME (columns_image), NAME (channels_image), NAME (unfold), NAME (weight_rows_pooled), NAME (weight_rows_dense) };

#undef V
#undef I
#undef B
#undef AT
#undef MANY
#undef MAX_PIXELS
#undef NARROW
#undef EACH_CHANNEL
#undef EACH_PIXEL
#undef EACH_VECTOR
#undef EACH_SUM
