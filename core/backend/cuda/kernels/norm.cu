/* cuda/kernels/norm.cu: norms over channels of a batch, over rows and over groups of channels, and their gradients.  Must not know programs. */
#include "backend/cuda/kernels/own.cuh"

/* ---- batch norm: a block for each channel ---- */

static __device__ int64_t
batch_offset (const HkBatchNorm &a, int64_t c, int64_t k)
{
  return k / a.P * a.sn + c * a.sc + k % a.P * a.sp;
}

template <class T> static __device__ void
batch_norm_stats (const HkBatchNorm &a)
{
  int64_t c = blockIdx.x, count = a.N * a.P;
  float mean = 0, square = 0, rest = 0;
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x)
    mean += ld<T> (a.x, batch_offset (a, c, k));
  mean = block_sum (mean) / (float) count;
  for (int64_t k = threadIdx.x; k < count; k += blockDim.x)
    {
      float d = ld<T> (a.x, batch_offset (a, c, k)) - mean;
      square += d * d;
      rest += d;
    }
  /* what the mean was rounded by matters where the variance is small beside it */
  rest = block_sum (rest) / (float) count;
  square = fmaxf (block_sum (square) - (float) count * rest * rest, 0.0f);
  mean += rest;
  if (threadIdx.x == 0)
    {
      a.out_mean[c] = mean;
      a.out_rstd[c] = 1 / sqrtf (square / (float) count + a.eps);
      if (a.new_mean)
        a.new_mean[c] = (1 - a.momentum) * a.mean[c] + a.momentum * mean;
      if (a.new_variance)
        a.new_variance[c] = (1 - a.momentum) * a.variance[c] + a.momentum * square / (float) (count - 1);
    }
}
KERNEL (batch_norm_stats, HkBatchNorm)

/* not training: the given statistics are passed on */
static __device__ void
batch_norm_given_body (const HkBatchNorm &a)
{
  for (int64_t c = first_index (); c < a.C; c += index_step ())
    {
      float mean = a.mean[c], variance = a.variance[c];
      a.out_mean[c] = mean;
      a.out_rstd[c] = 1 / sqrtf (variance + a.eps);
      if (a.new_mean)
        a.new_mean[c] = mean;
      if (a.new_variance)
        a.new_variance[c] = variance;
    }
}
KERNEL_PLAIN (batch_norm_given, HkBatchNorm)

template <class T> static __device__ void
batch_norm_apply (const HkBatchNorm &a)
{
  for (int64_t i = first_index (); i < a.N * a.C * a.P; i += index_step ())
    {
      int64_t c = i / a.P % a.C, at = i / (a.P * a.C) * a.sn + c * a.sc + i % a.P * a.sp;
      st<T> (a.y, at, (ld<T> (a.x, at) - a.out_mean[c]) * a.out_rstd[c] * a.scale[c] + a.shift[c]);
    }
}
KERNEL (batch_norm_apply, HkBatchNorm)

template <class T> static __device__ void
batch_norm_grad_sums (const HkBatchNorm &a)
{
  int64_t c = blockIdx.x;
  float sum = 0, dot = 0, mean = a.mean[c], rstd = a.rstd[c];
  for (int64_t k = threadIdx.x; k < a.N * a.P; k += blockDim.x)
    {
      int64_t at = batch_offset (a, c, k);
      float dy = ld<T> (a.dy, at);
      sum += dy;
      dot += dy * (ld<T> (a.x, at) - mean) * rstd;
    }
  sum = block_sum (sum);
  dot = block_sum (dot);
  if (threadIdx.x == 0)
    {
      a.dscale[c] = dot;
      a.dshift[c] = sum;
    }
}
KERNEL (batch_norm_grad_sums, HkBatchNorm)

/* dx = scale rstd (dy - mean (dy) - xhat mean (dy xhat)); the means are 0 when the statistics were given */
template <class T> static __device__ void
batch_norm_grad_apply (const HkBatchNorm &a)
{
  float share = a.training ? 1.0f / (float) (a.N * a.P) : 0.0f;
  for (int64_t i = first_index (); i < a.N * a.C * a.P; i += index_step ())
    {
      int64_t c = i / a.P % a.C, at = i / (a.P * a.C) * a.sn + c * a.sc + i % a.P * a.sp;
      float xhat = (ld<T> (a.x, at) - a.mean[c]) * a.rstd[c];
      st<T> (a.y, at, a.scale[c] * a.rstd[c] * (ld<T> (a.dy, at) - a.dshift[c] * share - xhat * a.dscale[c] * share));
    }
}
KERNEL (batch_norm_grad_apply, HkBatchNorm)

/* ---- layer, RMS and group norm: a block for each list ---- */

static __device__ int64_t
parameter_of (const HkNorm &a, int64_t r, int64_t i)
{
  return r % a.groups * (a.length / a.pixels) + i / a.pixels;
}

template <class T> static __device__ void
norm (const HkNorm &a)
{
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t base = r * a.length;
      float mean = 0, square = 0;
      if (a.centred)
        {
          for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
            mean += ld<T> (a.x, base + i);
          mean = block_sum (mean) / (float) a.length;
        }
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          float d = ld<T> (a.x, base + i) - mean;
          square += d * d;
        }
      float rstd = 1 / sqrtf (block_sum (square) / (float) a.length + a.eps);
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          int64_t p = parameter_of (a, r, i);
          st<T> (a.y, base + i, (ld<T> (a.x, base + i) - mean) * rstd * (a.scale ? ld<T> (a.scale, p) : 1.0f) + (a.shift ? ld<T> (a.shift, p) : 0.0f));
        }
      if (threadIdx.x == 0 && a.mean)
        a.mean[r] = mean;
      if (threadIdx.x == 0 && a.rstd)
        a.rstd[r] = rstd;
    }
}
KERNEL (norm, HkNorm)

/* with g = dy scale: dx = rstd (g - mean (g) - xhat mean (g xhat)); RMS norm has no mean (g) */
template <class T> static __device__ void
norm_grad (const HkNorm &a)
{
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t base = r * a.length;
      float mean = a.centred ? a.mean[r] : 0.0f, rstd = a.rstd[r], sum = 0, dot = 0;
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          float g = ld<T> (a.dy, base + i) * (a.scale ? ld<T> (a.scale, parameter_of (a, r, i)) : 1.0f);
          sum += g;
          dot += g * (ld<T> (a.x, base + i) - mean) * rstd;
        }
      sum = a.centred ? block_sum (sum) / (float) a.length : 0.0f;
      dot = block_sum (dot) / (float) a.length;
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          float g = ld<T> (a.dy, base + i) * (a.scale ? ld<T> (a.scale, parameter_of (a, r, i)) : 1.0f);
          st<T> (a.y, base + i, rstd * (g - sum - (ld<T> (a.x, base + i) - mean) * rstd * dot));
        }
    }
}
KERNEL (norm_grad, HkNorm)

/* dscale and dshift of layer and RMS norm: 32 columns of a block side by side, 8 rows of threads share the rows */
template <class T> static __device__ void
norm_grad_columns (const HkNorm &a)
{
  __shared__ float scales[8][33], shifts[8][33];
  int64_t p = (int64_t) blockIdx.x * 32 + threadIdx.x;
  float dscale = 0, dshift = 0;
  for (int64_t r = threadIdx.y; p < a.params && r < a.rows; r += 8)
    {
      float dy = ld<T> (a.dy, r * a.length + p);
      dscale += dy * (ld<T> (a.x, r * a.length + p) - (a.centred ? a.mean[r] : 0.0f)) * a.rstd[r];
      dshift += dy;
    }
  scales[threadIdx.y][threadIdx.x] = dscale;
  shifts[threadIdx.y][threadIdx.x] = dshift;
  __syncthreads ();
  if (threadIdx.y == 0 && p < a.params)
    {
      for (int k = 1; k < 8; k++)
        {
          dscale += scales[k][threadIdx.x];
          dshift += shifts[k][threadIdx.x];
        }
      if (a.dscale)
        st<T> (a.dscale, p, dscale);
      if (a.dshift)
        st<T> (a.dshift, p, dshift);
    }
}
KERNEL (norm_grad_columns, HkNorm)

/* dscale and dshift of group norm: a block for each channel */
template <class T> static __device__ void
norm_grad_channels (const HkNorm &a)
{
  int64_t p = blockIdx.x, channels = a.length / a.pixels, images = a.rows / a.groups;
  float dscale = 0, dshift = 0;
  for (int64_t k = threadIdx.x; k < images * a.pixels; k += blockDim.x)
    {
      int64_t r = k / a.pixels * a.groups + p / channels, at = r * a.length + p % channels * a.pixels + k % a.pixels;
      float dy = ld<T> (a.dy, at);
      dscale += dy * (ld<T> (a.x, at) - a.mean[r]) * a.rstd[r];
      dshift += dy;
    }
  dscale = block_sum (dscale);
  dshift = block_sum (dshift);
  if (threadIdx.x == 0)
    {
      if (a.dscale)
        st<T> (a.dscale, p, dscale);
      if (a.dshift)
        st<T> (a.dshift, p, dshift);
    }
}
KERNEL (norm_grad_channels, HkNorm)
