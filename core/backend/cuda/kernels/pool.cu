/* cuda/kernels/pool.cu: pooling and resampling; gradients gather, so that sums have one order.  Must not know programs. */
#include "backend/cuda/kernels/own.cuh"

/* where element E of (N, C, rows, columns) stands */
struct Place { int n, c, i, j; };

static __device__ Place
place_of (int64_t e, const HkPool &a, int rows, int columns)
{
  return { (int) (e / ((int64_t) columns * rows * a.C)), (int) (e / ((int64_t) columns * rows) % a.C), (int) (e / columns % rows), (int) (e % columns) };
}
static __device__ int64_t at (const int64_t s[4], const Place &p, int i, int j) { return p.n * s[0] + p.c * s[1] + i * s[2] + j * s[3]; }

template <class T> static __device__ void
max_pool (const HkPool &a)
{
  int64_t total = (int64_t) a.N * a.C * a.I * a.J;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      Place y = place_of (e, a, a.I, a.J);
      float best = 0;
      int arg = -1;
      for (int p = 0; p < a.kernel[0]; p++)
        for (int q = 0; q < a.kernel[1]; q++)
          {
            int r = y.i * a.stride[0] - a.padding[0] + p, s = y.j * a.stride[1] - a.padding[1] + q;
            if (r < 0 || r >= a.H || s < 0 || s >= a.W)
              continue;
            float v = ld<T> (a.x, at (a.xs, y, r, s));
            if (arg < 0 || v > best || v != v)      /* the last NaN, as in PyTorch */
              {
                best = v;
                arg = p * a.kernel[1] + q;
              }
          }
      int64_t to = at (a.ys, y, y.i, y.j);
      if (a.y)
        st<T> (a.y, to, best);
      if (a.index)
        a.index[to] = (uint8_t) arg;
    }
}
KERNEL (max_pool, HkPool)

template <class T> static __device__ void
avg_pool (const HkPool &a)
{
  int64_t total = (int64_t) a.N * a.C * a.I * a.J;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      Place y = place_of (e, a, a.I, a.J);
      float sum = 0;
      int inside = 0;
      for (int p = 0; p < a.kernel[0]; p++)
        for (int q = 0; q < a.kernel[1]; q++)
          {
            int r = y.i * a.stride[0] - a.padding[0] + p, s = y.j * a.stride[1] - a.padding[1] + q;
            if (r >= 0 && r < a.H && s >= 0 && s < a.W)
              {
                sum += ld<T> (a.x, at (a.xs, y, r, s));
                inside++;
              }
          }
      st<T> (a.y, at (a.ys, y, y.i, y.j), sum / (float) (a.exclude_padding ? inside : a.kernel[0] * a.kernel[1]));
    }
}
KERNEL (avg_pool, HkPool)

/* elements of the window at START of one axis that lie inside */
static __device__ int inside_of (int start, int kernel, int size) { return min (start + kernel, size) - max (start, 0); }

/* x: dy (I, J); y: dx (H, W); every input looks at the windows that cover it.  xs and ys stay those of dx and dy. */
template <class T, bool MAXIMUM> static __device__ void
pool_grad (const HkPool &a)
{
  int64_t total = (int64_t) a.N * a.C * a.H * a.W;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      Place x = place_of (e, a, a.H, a.W);
      float sum = 0;
      for (int p = 0; p < a.kernel[0]; p++)
        for (int q = 0; q < a.kernel[1]; q++)
          {
            int up = x.i + a.padding[0] - p, left = x.j + a.padding[1] - q, i = up / a.stride[0], j = left / a.stride[1];
            if (up < 0 || left < 0 || up % a.stride[0] || left % a.stride[1] || i >= a.I || j >= a.J)
              continue;
            int64_t from = at (a.ys, x, i, j);
            if (MAXIMUM)
              sum += a.index[from] == p * a.kernel[1] + q ? ld<T> (a.x, from) : 0.0f;
            else
              {
                int n = a.exclude_padding ? inside_of (i * a.stride[0] - a.padding[0], a.kernel[0], a.H) * inside_of (j * a.stride[1] - a.padding[1], a.kernel[1], a.W) : a.kernel[0] * a.kernel[1];
                sum += ld<T> (a.x, from) / (float) n;
              }
          }
      st<T> (a.y, at (a.xs, x, x.i, x.j), sum);
    }
}
template <class T> static __device__ void max_pool_grad (const HkPool &a) { pool_grad<T, true> (a); }
template <class T> static __device__ void avg_pool_grad (const HkPool &a) { pool_grad<T, false> (a); }
KERNEL (max_pool_grad, HkPool)
KERNEL (avg_pool_grad, HkPool)

/* ---- resampling: how much of input J output I takes along one axis ---- */

static __device__ float
place_in (int i, int in, int out)
{
  return fminf (fmaxf (((float) i + 0.5f) * (float) in / (float) out - 0.5f, 0), (float) (in - 1));
}

static __device__ float
share (int i, int j, int in, int out, int bilinear)
{
  return bilinear ? fmaxf (0, 1 - fabsf (place_in (i, in, out) - (float) j)) : (int64_t) i * in / out == j ? 1.0f : 0.0f;
}

template <class T> static __device__ void
upsample (const HkPool &a)
{
  int64_t total = (int64_t) a.N * a.C * a.I * a.J;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      Place y = place_of (e, a, a.I, a.J);
      int r = a.bilinear ? (int) place_in (y.i, a.H, a.I) : (int) ((int64_t) y.i * a.H / a.I), s = a.bilinear ? (int) place_in (y.j, a.W, a.J) : (int) ((int64_t) y.j * a.W / a.J);
      float sum = 0;
      for (int p = r; p <= min (r + a.bilinear, a.H - 1); p++)
        for (int q = s; q <= min (s + a.bilinear, a.W - 1); q++)
          sum += share (y.i, p, a.H, a.I, a.bilinear) * share (y.j, q, a.W, a.J, a.bilinear) * ld<T> (a.x, at (a.xs, y, p, q));
      st<T> (a.y, at (a.ys, y, y.i, y.j), sum);
    }
}
KERNEL (upsample, HkPool)

/* the outputs that may take from input J: all of those whose place lies between J - 1 and J + 1 */
static __device__ int first_taker (int j, int in, int out) { return max ((int) floorf ((float) (j - 1) * (float) out / (float) in) - 1, 0); }
static __device__ int last_taker (int j, int in, int out) { return min ((int) ceilf ((float) (j + 2) * (float) out / (float) in) + 1, out - 1); }

template <class T> static __device__ void
upsample_grad (const HkPool &a)
{
  int64_t total = (int64_t) a.N * a.C * a.H * a.W;
  for (int64_t e = first_index (); e < total; e += index_step ())
    {
      Place x = place_of (e, a, a.H, a.W);
      float sum = 0;
      for (int i = first_taker (x.i, a.H, a.I); i <= last_taker (x.i, a.H, a.I); i++)
        {
          float rows = share (i, x.i, a.H, a.I, a.bilinear);
          for (int j = first_taker (x.j, a.W, a.J); rows != 0 && j <= last_taker (x.j, a.W, a.J); j++)
            sum += rows * share (j, x.j, a.W, a.J, a.bilinear) * ld<T> (a.x, at (a.ys, x, i, j));
        }
      st<T> (a.y, at (a.xs, x, x.i, x.j), sum);
    }
}
KERNEL (upsample_grad, HkPool)
