/* cpu/norm-kernel.h: the loops of norm.c over the pixels of one image and one block of W channels, included once for each instruction set: NAME (f) tells them
 * apart.  A vector is one pixel's channels.  Sums are kept in four vectors, so that additions need not wait for each other.
 * Must not know plans or memory: pointers and counts in, numbers out. */

typedef float NAME (V) __attribute__ ((vector_size (W * 4), aligned (4)));
typedef gint32 NAME (I) __attribute__ ((vector_size (W * 4), aligned (4)));
typedef guint8 NAME (B) __attribute__ ((vector_size (W), aligned (1)));
#define V NAME (V)
#define I NAME (I)
#define B NAME (B)
#define AT(p, i) (((const V *) (p))[i])
#define PICK_LANES(mask, a, b) ((V) (((I) (a) & (mask)) | ((I) (b) & ~(mask))))

static void
NAME (sum) (const float *x, gint64 pixels, float *sum)
{
  V s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0;
  gint64 p = 0;
  for (; p + 4 <= pixels; p += 4)
    {
      s0 += AT (x, p);
      s1 += AT (x, p + 1);
      s2 += AT (x, p + 2);
      s3 += AT (x, p + 3);
    }
  for (; p < pixels; p++)
    s0 += AT (x, p);
  *(V *) sum = (s0 + s1) + (s2 + s3);
}

static void
NAME (squares) (const float *x, const float *mean, gint64 pixels, float *sum)
{
  V m = AT (mean, 0), s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0;
  gint64 p = 0;
  for (; p + 4 <= pixels; p += 4)
    {
      V d0 = AT (x, p) - m, d1 = AT (x, p + 1) - m, d2 = AT (x, p + 2) - m, d3 = AT (x, p + 3) - m;
      s0 += d0 * d0;
      s1 += d1 * d1;
      s2 += d2 * d2;
      s3 += d3 * d3;
    }
  for (; p < pixels; p++)
    {
      V d = AT (x, p) - m;
      s0 += d * d;
    }
  *(V *) sum = (s0 + s1) + (s2 + s3);
}

/* ---- forward ---- */

#define WITHIN(v, min, max) PICK_LANES ((v) < (min), (min), PICK_LANES ((v) > (max), (max), (v)))    /* NaN stays NaN */

static inline __attribute__ ((always_inline)) void
NAME (scale) (const Plane *q, const gboolean add, const gboolean bounded)
{
  V a = AT (q->a, 0), b = AT (q->b, 0), min = (V) { 0 } + (bounded ? q->bounds->min : 0), max = (V) { 0 } + (bounded ? q->bounds->max : 0);
  for (gint64 p = 0; p < q->pixels; p++)
    {
      V v = AT (q->x, p) * a + b;
      if (add)
        v += AT (q->residual, p);
      ((V *) q->y)[p] = bounded ? WITHIN (v, min, max) : v;
    }
}

static inline __attribute__ ((always_inline)) void
NAME (larger) (V *best, I *where, V x, gint32 number)
{
  I better = (x > *best) | (x != x);
  *best = PICK_LANES (better, x, *best);
  *where = (((I) { 0 } + number) & better) | (*where & ~better);
}

/* The largest of each 2 x 2 window, and its place: the first of equals, NaN wins, as in pool.c */
static void
NAME (scale_pool) (const Plane *q)
{
  V a = AT (q->a, 0), b = AT (q->b, 0), *y = (V *) q->y, min = (V) { 0 } + (q->bounds ? q->bounds->min : 0), max = (V) { 0 } + (q->bounds ? q->bounds->max : 0);
  B *index = (B *) q->index;
  for (gint64 i = 0; i < q->h / 2; i++)
    {
      const float *top = q->x + 2 * i * q->w * W, *bottom = top + q->w * W;
      for (gint64 j = 0; j < q->w / 2; j++)
        {
          V best = AT (top, 2 * j) * a + b;
          I where = { 0 };
          NAME (larger) (&best, &where, AT (top, 2 * j + 1) * a + b, 1);
          NAME (larger) (&best, &where, AT (bottom, 2 * j) * a + b, 2);
          NAME (larger) (&best, &where, AT (bottom, 2 * j + 1) * a + b, 3);
          *y++ = q->bounds ? WITHIN (best, min, max) : best;
          *index++ = __builtin_convertvector (where, B);
        }
    }
}

static void
NAME (apply) (const Plane *q)
{
  if (q->index)
    NAME (scale_pool) (q);
  else if (q->residual && q->bounds)
    NAME (scale) (q, TRUE, TRUE);
  else if (q->residual)
    NAME (scale) (q, TRUE, FALSE);
  else if (q->bounds)
    NAME (scale) (q, FALSE, TRUE);
  else
    NAME (scale) (q, FALSE, FALSE);
}

/* ---- backward ---- */

#define PASSED(y, g) PICK_LANES (((y) > min) & ~((y) >= max), g, none)

static inline __attribute__ ((always_inline)) void
NAME (sums_plain) (const GradientPlane *q, const float *mean, float *sum, float *dot, const gboolean mask)
{
  V m = AT (mean, 0), s0 = { 0 }, s1 = s0, d0 = s0, d1 = s0, none = s0, min = none + q->bounds.min, max = none + q->bounds.max;
  gint64 p = 0;
  for (; p + 2 <= q->pixels; p += 2)
    {
      V g0 = AT (q->dy, p), g1 = AT (q->dy, p + 1);
      if (mask)
        {
          g0 = PASSED (AT (q->bounded, p), g0);
          g1 = PASSED (AT (q->bounded, p + 1), g1);
          ((V *) q->masked)[p] = g0;
          ((V *) q->masked)[p + 1] = g1;
        }
      s0 += g0;
      s1 += g1;
      d0 += g0 * (AT (q->x, p) - m);
      d1 += g1 * (AT (q->x, p + 1) - m);
    }
  for (; p < q->pixels; p++)
    {
      V g = AT (q->dy, p);
      if (mask)
        ((V *) q->masked)[p] = g = PASSED (AT (q->bounded, p), g);
      s0 += g;
      d0 += g * (AT (q->x, p) - m);
    }
  *(V *) sum = s0 + s1;
  *(V *) dot = d0 + d1;
}

/* Of a window only the pixel that was the largest has a gradient. */
static void
NAME (sums_pooled) (const GradientPlane *q, const float *mean, float *sum, float *dot)
{
  V m = AT (mean, 0), s = { 0 }, d = s;
  const V *dy = (const V *) q->dy;
  const B *index = (const B *) q->index;
  for (gint64 i = 0; i < q->h / 2; i++)
    {
      const float *top = q->x + 2 * i * q->w * W, *bottom = top + q->w * W;
      for (gint64 j = 0; j < q->w / 2; j++)
        {
          I k = __builtin_convertvector (*index++, I);
          V x = PICK_LANES (k == 0, AT (top, 2 * j), AT (top, 2 * j + 1)), below = PICK_LANES (k == 2, AT (bottom, 2 * j), AT (bottom, 2 * j + 1)), g = *dy++;
          x = PICK_LANES (k < 2, x, below);
          s += g;
          d += g * (x - m);
        }
    }
  *(V *) sum = s;
  *(V *) dot = d;
}

static void
NAME (sums) (const GradientPlane *q, const float *mean, float *sum, float *dot)
{
  if (q->index)
    NAME (sums_pooled) (q, mean, sum, dot);
  else if (q->bounded)
    NAME (sums_plain) (q, mean, sum, dot, TRUE);
  else
    NAME (sums_plain) (q, mean, sum, dot, FALSE);
}

static void
NAME (input_pooled) (const GradientPlane *q, V a, V b, V k)
{
  const V *dy = (const V *) q->dy;
  const B *index = (const B *) q->index;
  V none = { 0 };
  for (gint64 i = 0; i < q->h; i++)
    for (gint64 j = i < q->h / 2 * 2 ? q->w / 2 * 2 : 0; j < q->w; j++)       /* what no window reaches */
      ((V *) q->dx)[i * q->w + j] = AT (q->x, i * q->w + j) * b + k;
  for (gint64 i = 0; i < q->h / 2; i++)
    {
      const float *x0 = q->x + 2 * i * q->w * W, *x1 = x0 + q->w * W;
      V *d0 = (V *) (q->dx + 2 * i * q->w * W), *d1 = d0 + q->w;
      for (gint64 j = 0; j < q->w / 2; j++)
        {
          I n = __builtin_convertvector (*index++, I);
          V d = *dy++ * a;
          d0[2 * j] = PICK_LANES (n == 0, d, none) + AT (x0, 2 * j) * b + k;
          d0[2 * j + 1] = PICK_LANES (n == 1, d, none) + AT (x0, 2 * j + 1) * b + k;
          d1[2 * j] = PICK_LANES (n == 2, d, none) + AT (x1, 2 * j) * b + k;
          d1[2 * j + 1] = PICK_LANES (n == 3, d, none) + AT (x1, 2 * j + 1) * b + k;
        }
    }
}

/* dx = a dy + b x + k; dx may be the memory that dy is in */
static void
NAME (input) (const GradientPlane *q, const float *fa, const float *fb, const float *fk)
{
  V a = AT (fa, 0), b = AT (fb, 0), k = AT (fk, 0);
  const float *dy = q->bounded ? q->masked : q->dy;
  if (q->index)
    NAME (input_pooled) (q, a, b, k);
  else
    for (gint64 p = 0; p < q->pixels; p++)
      ((V *) q->dx)[p] = AT (dy, p) * a + AT (q->x, p) * b + k;
}

static const Kernels NAME (kernels) = { W, NAME (sum), NAME (squares), NAME (apply), NAME (sums), NAME (input) };

#undef V
#undef I
#undef B
#undef AT
#undef PICK_LANES
#undef WITHIN
#undef PASSED
