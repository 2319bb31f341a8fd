/* cuda/kernels/reduce.cu: sums over axes, over all elements, over windows of a flat tensor.  The order of additions depends on sizes only: the same bits in every run. */
#include "backend/cuda/kernels/own.cuh"

static __device__ int64_t
offset_of (int64_t i, int rank, const int64_t *size, const int64_t *stride)
{
  int64_t at = 0;
  for (int axis = rank - 1; axis >= 0; axis--)
    {
      at += i % size[axis] * stride[axis];
      i /= size[axis];
    }
  return at;
}

/* A block for each output and part. */
template <class T> static __device__ void
reduce (const HkReduce &a)
{
  int64_t part = blockIdx.y, from = a.n_reduced * part / a.parts, to = a.n_reduced * (part + 1) / a.parts;
  for (int64_t o = blockIdx.x; o < a.n_out; o += gridDim.x)
    {
      int64_t base = offset_of (o, a.kept, a.kept_size, a.kept_stride);
      float sum = 0;
      for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x)
        sum += ld<T> (a.x, base + offset_of (i, a.reduced, a.reduced_size, a.reduced_stride));
      sum = block_sum (sum) * a.factor;
      if (threadIdx.x == 0 && a.parts > 1)
        ((float *) a.y)[o * a.parts + part] = sum;
      else if (threadIdx.x == 0)
        st<T> (a.y, o, sum);
    }
}
KERNEL (reduce, HkReduce)

/* Columns: neighbouring threads take neighbouring outputs, 8 rows of threads share the sum: for x (reduced, kept) or (kept, reduced, kept) whose last axis is contiguous. */
template <class T> static __device__ void
reduce_columns (const HkReduce &a)
{
  __shared__ float sums[8][33];
  int64_t part = blockIdx.y, from = a.n_reduced * part / a.parts, to = a.n_reduced * (part + 1) / a.parts;
  int64_t columns = a.kept_size[a.kept - 1], blocks = (columns + 31) / 32, matrix = blockIdx.x / blocks, column = blockIdx.x % blocks * 32 + threadIdx.x, o = matrix * columns + column;
  int64_t base = (a.kept > 1 ? matrix * a.kept_stride[0] : 0) + column;
  float sum = 0;
#pragma unroll 4
  for (int64_t i = from + threadIdx.y; column < columns && i < to; i += 8)
    sum += ld<T> (a.x, base + i * a.reduced_stride[0]);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads ();
  if (threadIdx.y == 0 && column < columns)
    {
      for (int k = 1; k < 8; k++)
        sum += sums[k][threadIdx.x];
      if (a.parts > 1)
        ((float *) a.y)[o * a.parts + part] = sum * a.factor;
      else
        st<T> (a.y, o, sum * a.factor);
    }
}
KERNEL (reduce_columns, HkReduce)

static __device__ void
reduce_parts_body (const HkParts &a)
{
  for (int64_t o = first_index (); o < a.n_out; o += index_step ())
    {
      float sum = 0;
      for (int p = 0; p < a.parts; p++)
        sum += a.x[o * a.parts + p];
      store_any (a.y, a.dtype, o, sum);
    }
}
KERNEL_PLAIN (reduce_parts, HkParts)

/* log (1 + e^x), without overflow */
static __device__ float
softplus (float x)
{
  return fmaxf (x, 0) + log1pf (expf (-fabsf (x)));
}

static __device__ float
term_of (const HkTerms &a, float x, float t, float w)
{
  float d = fabsf (x - t);
  switch (a.term)
    {
    case HK_SUM_SQUARES: return x * x;
    case HK_SUM_MSE: return d * d;
    case HK_SUM_L1: return d;
    case HK_SUM_SMOOTH_L1: return d < a.beta ? d * d * 0.5f / a.beta : d - 0.5f * a.beta;
    case HK_SUM_BCE: return (1 - t) * x + (1 + (w - 1) * t) * softplus (-x);
    case HK_SUM_KL: return (t == 0 ? 0.0f : t * logf (t)) - t * x;
    default: return expf (t) * (t - x);
    }
}

/* The squares of f32 numbers: all gradients of a network at once, 16 bytes at a time and several loads under way.  Returns how many it took. */
static __device__ int64_t
squares (const HkTerms &a, float *sum, float *bad)
{
  const int64_t packs = a.term == HK_SUM_SQUARES && a.x_dtype == HK_F32 && (uint64_t) a.x % 16 == 0 ? a.n / 4 : 0;
#pragma unroll 4
  for (int64_t i = first_index (); i < packs; i += index_step ())
    {
      float x[4];
      load<4> (x, (const float *) a.x + 4 * i);
      *sum += (x[0] * x[0] + x[1] * x[1]) + (x[2] * x[2] + x[3] * x[3]);
      *bad = is_finite (x[0]) && is_finite (x[1]) && is_finite (x[2]) && is_finite (x[3]) ? *bad : 1.0f;
    }
  return 4 * packs;
}

static __device__ void
terms_body (const HkTerms &a)
{
  float sum = 0, bad = 0;
  int64_t begin = squares (a, &sum, &bad);
  for (int64_t i = begin + first_index (); i < a.n; i += index_step ())
    {
      float x = load_any (a.x, a.x_dtype, i), t = a.t ? load_any (a.t, a.t_dtype, i) : 0.0f;
      float w = a.w ? load_any (a.w, a.w_dtype, i % a.w_count) : 1.0f;
      sum += term_of (a, x, t, w);
      bad = is_finite (x) ? bad : 1.0f;
    }
  sum = block_sum (sum);
  if (a.bad)
    bad = block_max (bad);
  if (threadIdx.x == 0)
    {
      a.partial[blockIdx.x] = sum;
      if (a.bad)
        a.bad[blockIdx.x] = bad;
    }
}
KERNEL_PLAIN (terms, HkTerms)

/* One block adds up what the others left. */
static __device__ void
finish_body (const HkFinish &a)
{
  float sum = 0, below = 0;
  for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x)
    {
      sum += a.a[i];
      below = !a.b ? 0.0f : a.flag ? fmaxf (below, a.b[i]) : below + a.b[i];
    }
  sum = block_sum (sum);
  below = a.flag ? block_max (below) : block_sum (below);
  if (threadIdx.x == 0)
    {
      float divisor = a.b && !a.flag ? below : a.divisor;
      if (a.out0)
        *a.out0 = divisor > 0 ? sum / divisor : 0.0f;
      if (a.out1)
        *a.out1 = a.b ? below : a.count;
    }
}
KERNEL_PLAIN (finish, HkFinish)

static __device__ void
window_sum_body (const HkWindows &a)
{
  HkWindow w = a.window[blockIdx.x];
  int64_t part = blockIdx.y, from = w.n * part / a.parts, to = w.n * (part + 1) / a.parts;
  float sum = 0;
  for (int64_t i = from + threadIdx.x; i < to; i += blockDim.x)
    sum += a.squares ? a.x[w.offset + i] * a.x[w.offset + i] : a.x[w.offset + i];
  sum = block_sum (sum);
  if (threadIdx.x == 0)
    a.y[(a.first + blockIdx.x) * (int64_t) a.parts + part] = sum;
}
KERNEL_PLAIN (window_sum, HkWindows)

static __device__ void
window_spread_body (const HkWindows &a)
{
  HkWindow w = a.window[blockIdx.x];
  float v = a.x[a.first + blockIdx.x];
  for (int64_t i = (int64_t) blockIdx.y * blockDim.x + threadIdx.x; i < w.n; i += (int64_t) gridDim.y * blockDim.x)
    a.y[w.offset + i] = v;
}
KERNEL_PLAIN (window_spread, HkWindows)
