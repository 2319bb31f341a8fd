/* cuda/kernels/softmax.cu: softmax along an axis, cross entropy, top-k: a block for each row.  Must not know programs. */
#include "backend/cuda/kernels/own.cuh"

/* forward: the row's maximum and the sum of e^(x - maximum); backward: the sum of dy y, or of dy.  X is dy there. */
template <class T> static __device__ void
softmax (const HkSoftmax &a)
{
  bool forward = a.what == HK_SOFTMAX || a.what == HK_LOG_SOFTMAX;
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t base = r / a.inner * a.length * a.inner + r % a.inner;
      float top = MINUS_INFINITY, sum = 0;
      for (int64_t i = threadIdx.x; forward && i < a.length; i += blockDim.x)
        {
          float x = ld<T> (a.x, base + i * a.inner);
          top = x > top || x != x ? x : top;
        }
      top = forward ? block_max (top) : 0.0f;
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          float x = ld<T> (a.x, base + i * a.inner);
          sum += forward ? expf (x - top) : a.what == HK_SOFTMAX_GRAD ? x * ld<T> (a.y, base + i * a.inner) : x;
        }
      sum = block_sum (sum);
      float log_sum = logf (sum);
      for (int64_t i = threadIdx.x; i < a.length; i += blockDim.x)
        {
          int64_t at = base + i * a.inner;
          float x = ld<T> (a.x, at), y = forward ? 0.0f : ld<T> (a.y, at);
          st<T> (a.out, at, a.what == HK_SOFTMAX ? expf (x - top) / sum : a.what == HK_LOG_SOFTMAX ? x - top - log_sum : a.what == HK_SOFTMAX_GRAD ? y * (x - sum) : x - expf (y) * sum);
        }
    }
}
KERNEL (softmax, HkSoftmax)

/* ---- cross entropy ---- */

static __device__ float class_weight (const HkCrossEntropy &a, int64_t c) { return a.class_weights ? load_any (a.class_weights, a.weights_dtype, c) : 1.0f; }

/* The label of row R, or -1: ignored, or out of range, which is a fault. */
static __device__ int64_t
label_of (const HkCrossEntropy &a, int64_t r)
{
  int64_t label = load_index (a.labels, a.label_dtype, r);
  bool ignored = label == a.ignore, good = label >= 0 && label < a.classes;
  if (!ignored && !good && a.fault && threadIdx.x == 0)
    atomicMax (a.fault, (uint32_t) (r + 1));
  return ignored || !good ? -1 : label;
}

/* log sum e^x of row R, reading it once: rows of a large vocabulary, many at a time, are more than the cache holds.  Each thread keeps the sum relative to the largest
 * number it has met, which begins at the lowest f32: so that -infinity adds 0 rather than NaN. */
template <class T> static __device__ float
log_sum_of (const HkCrossEntropy &a, int64_t base)
{
  float top = -3.4028234663852886e38f, sum = 0;
#pragma unroll 4
  for (int64_t c = threadIdx.x; c < a.classes; c += blockDim.x)
    {
      float x = ld<T> (a.x, base + c), e = expf (-fabsf (x - top));
      sum = x > top ? sum * e + 1 : sum + e;
      top = x > top ? x : top;
    }
  float highest = block_max (top);
  return highest + logf (block_sum (sum * expf (top - highest)));
}

/* (1-e) w_y (-log p_y) + e/K sum_c w_c (-log p_c) */
template <class T> static __device__ void
cross_entropy (const HkCrossEntropy &a)
{
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t label = label_of (a, r), base = r * a.pitch;
      float log_sum = log_sum_of<T> (a, base), smooth = 0, w = label < 0 ? 0.0f : class_weight (a, label);
      if (a.smoothing > 0)
        {
          for (int64_t c = threadIdx.x; c < a.classes; c += blockDim.x)
            smooth += class_weight (a, c) * (log_sum - ld<T> (a.x, base + c));
          smooth = block_sum (smooth) * a.smoothing / (float) a.classes;
        }
      if (threadIdx.x == 0)
        {
          a.loss[r] = label < 0 ? 0.0f : (1 - a.smoothing) * w * (log_sum - ld<T> (a.x, base + label)) + smooth;
          a.weight[r] = w;
        }
    }
}
KERNEL (cross_entropy, HkCrossEntropy)

/* FACTOR (p_c TOTAL - t_c) for all classes, 0 for what follows them in a row: four loads under way before the first store, which might be to where the next load is from for all that a compiler knows. */
template <class T> static __device__ void
store_grad (const HkCrossEntropy &a, int64_t base, int64_t label, float log_sum, float w, float total, float factor)
{
  float share = a.smoothing / (float) a.classes;
  for (int64_t begin = threadIdx.x; begin < a.pitch; begin += 4 * blockDim.x)
    {
      float x[4];
#pragma unroll
      for (int k = 0; k < 4; k++)
        x[k] = begin + k * blockDim.x < a.classes ? ld<T> (a.x, base + begin + k * blockDim.x) : 0.0f;
#pragma unroll
      for (int k = 0; k < 4; k++)
        {
          int64_t c = begin + k * blockDim.x;
          float t = c < a.classes ? share * class_weight (a, c) + (c == label ? w : 0.0f) : 0.0f;
          if (c < a.pitch)
            st<T> (a.dx, base + c, factor != 0 && c < a.classes ? factor * (expf (x[k] - log_sum) * total - t) : 0.0f);
        }
    }
}

/* d/dx_c of -sum_j t_j log p_j = p_c sum_j t_j - t_c, times g / denominator */
template <class T> static __device__ void
cross_entropy_grad (const HkCrossEntropy &a)
{
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t label = label_of (a, r), base = r * a.pitch;
      float log_sum = log_sum_of<T> (a, base), w = label < 0 ? 0.0f : (1 - a.smoothing) * class_weight (a, label), share = a.smoothing / (float) a.classes, total = 0;
      float factor = *a.denominator > 0 && label >= 0 ? *a.g / *a.denominator : 0.0f;
      for (int64_t c = threadIdx.x; share > 0 && c < a.classes; c += blockDim.x)
        total += share * class_weight (a, c);
      total = w + (share > 0 ? block_sum (total) : 0.0f);
      store_grad<T> (a, base, label, log_sum, w, total, factor);
    }
}
KERNEL (cross_entropy_grad, HkCrossEntropy)

/* ties: the smaller class wins */
template <class T> static __device__ void
top_k (const HkCrossEntropy &a)
{
  for (int64_t r = blockIdx.x; r < a.rows; r += gridDim.x)
    {
      int64_t label = label_of (a, r), base = r * a.pitch;
      float own = label < 0 ? 0.0f : ld<T> (a.x, base + label), above = 0;
      for (int64_t c = threadIdx.x; c < a.classes; c += blockDim.x)
        {
          float x = ld<T> (a.x, base + c);
          above += x > own || (x == own && c < label) ? 1.0f : 0.0f;
        }
      above = block_sum (above);
      if (threadIdx.x == 0)
        a.loss[r] = label >= 0 && own == own && above < (float) a.k ? 1.0f : 0.0f;
    }
}
KERNEL (top_k, HkCrossEntropy)
