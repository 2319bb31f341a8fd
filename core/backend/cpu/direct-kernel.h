/* cpu/direct-kernel.h: the inner loops of direct.c, included once for each instruction set under another NAME.
 * Vector types are lowered before function multiversioning takes effect, so that VECTOR cannot serve here.
 * Must not know plans or memory: pointers and counts in, numbers out. */

/* W: (ic, kh, kw, 4) of these four output channels.  16 columns of row I from column J, four channels. */
static inline __attribute__ ((always_inline)) void
NAME (tile) (const Geometry *g, const float *padded, const float *w, gint64 i, gint64 j, const float *bias, V out[4][2])
{
  V a0 = { 0 }, a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
  for (gint64 c = 0; c < g->ic; c++)
    for (gint64 r = 0; r < g->kh; r++)
      {
        const float *row = padded + (c * g->rows + i + r) * g->pitch + j;
        for (gint64 q = 0; q < g->kw; q++, w += 4)
          {
            V x0 = *(const V *) (row + q), x1 = *(const V *) (row + q + 8);
            a0 += x0 * w[0], a1 += x1 * w[0];
            b0 += x0 * w[1], b1 += x1 * w[1];
            c0 += x0 * w[2], c1 += x1 * w[2];
            d0 += x0 * w[3], d1 += x1 * w[3];
          }
      }
  out[0][0] = a0 + bias[0], out[0][1] = a1 + bias[0];
  out[1][0] = b0 + bias[1], out[1][1] = b1 + bias[1];
  out[2][0] = c0 + bias[2], out[2][1] = c1 + bias[2];
  out[3][0] = d0 + bias[3], out[3][1] = d1 + bias[3];
}

static void
NAME (forward_image) (const Geometry *g, const float *padded, const float *packed, const float *bias, float *y)
{
  for (gint64 o = 0; o < g->oc; o += 4)
    {
      const float *w = packed + o * g->ic * g->kh * g->kw;
      float b[4] = { 0 };
      for (gint64 k = 0; bias && k < 4 && o + k < g->oc; k++)
        b[k] = bias[o + k];
      for (gint64 i = 0; i < g->oh; i++)
        for (gint64 j = 0; j < g->ow; j += COLUMNS)
          {
            V out[4][2];
            gint64 n = MIN (COLUMNS, g->ow - j);
            NAME (tile) (g, padded, w, i, j, b, out);
            for (gint64 k = 0; k < 4 && o + k < g->oc; k++)
              {
                float *to = y + ((o + k) * g->oh + i) * g->ow + j;
                if (n == COLUMNS)
                  memcpy (to, out[k], sizeof out[k]);
                else
                  memcpy (to, out[k], (gsize) n * sizeof (float));
              }
          }
    }
}

static inline __attribute__ ((always_inline)) void
NAME (dot_row) (const Geometry *g, const float *x, const float *dy0, const float *dy1, gint64 dy_pitch, const int kw, V *sum0, V *sum1)
{
  V a[MAX_KERNEL] = { { 0 } }, b[MAX_KERNEL] = { { 0 } };
  for (gint64 i = 0; i < g->oh; i++)
    for (gint64 j = 0; j < g->ow; j += 8)
      {
        V d0 = *(const V *) (dy0 + i * dy_pitch + j), d1 = *(const V *) (dy1 + i * dy_pitch + j);
        const float *row = x + i * g->pitch + j;
        for (int q = 0; q < kw; q++)
          {
            V v = *(const V *) (row + q);
            a[q] += v * d0;
            b[q] += v * d1;
          }
      }
  for (int q = 0; q < kw; q++)
    {
      sum0[q] += a[q];
      sum1[q] += b[q];
    }
}

/* Adds one image's share to DW (oc, ic, kh, kw), eight partial sums each: they are joined when all images are through; DY has a spare row of zeros channels behind it when oc is odd. */
static void
NAME (weight_image) (const Geometry *g, const float *padded, const float *dy, gint64 dy_pitch, V *dw)
{
  gint64 plane = g->oh * dy_pitch, window = g->kh * g->kw;
  V unused[MAX_KERNEL];
  for (gint64 o = 0; o < g->oc; o += 2)
    for (gint64 c = 0; c < g->ic; c++)
      for (gint64 r = 0; r < g->kh; r++)
        {
          const float *x = padded + (c * g->rows + r) * g->pitch, *d = dy + o * plane;
          V *s0 = dw + (o * g->ic + c) * window + r * g->kw, *s1 = o + 1 < g->oc ? s0 + g->ic * window : unused;
          if (s1 == unused)
            memset (unused, 0, sizeof unused);
          switch (g->kw)
            {
            case 1: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 1, s0, s1); break;
            case 2: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 2, s0, s1); break;
            case 3: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 3, s0, s1); break;
            case 4: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 4, s0, s1); break;
            case 5: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 5, s0, s1); break;
            case 6: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 6, s0, s1); break;
            default: NAME (dot_row) (g, x, d, d + plane, dy_pitch, 7, s0, s1); break;
            }
        }
}

static void
NAME (bias_image) (const Geometry *g, const float *dy, V *db)
{
  gint64 pixels = g->oh * g->ow;
  for (gint64 o = 0; o < g->oc; o++)
    {
      V sum = { 0 };
      gint64 p = 0;
      float rest = 0;
      for (; p + 8 <= pixels; p += 8)
        sum += *(const V *) (dy + o * pixels + p);
      for (; p < pixels; p++)
        rest += dy[o * pixels + p];
      sum[0] += rest;
      db[o] += sum;
    }
}
