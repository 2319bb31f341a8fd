/* cuda/kernels/movement.cu: strided copies, fills, embeddings, dropout, bytes to numbers, the loss scale.  Must not know programs. */
#include "backend/cuda/kernels/own.cuh"

/* I: what counts the elements; division of 64 bits takes several times as long. */
template <class I> static __device__ void
copy_by (const HkCopy &a)
{
  for (int64_t i = first_index (); i < a.n; i += index_step ())
    {
      int64_t from = a.from, to = a.to;
      I rest = (I) i;
      for (int axis = a.rank - 1; axis >= 0; axis--)
        {
          I size = (I) a.size[axis], here = axis ? rest % size : rest;
          rest = axis ? rest / size : 0;
          from += (int64_t) here * a.src[axis];
          to += (int64_t) here * a.dst[axis];
        }
      if (a.bytes == 1)
        ((uint8_t *) a.y)[to] = ((const uint8_t *) a.x)[from];
      else if (a.bytes == 2)
        ((uint16_t *) a.y)[to] = ((const uint16_t *) a.x)[from];
      else if (a.bytes == 4)
        ((uint32_t *) a.y)[to] = ((const uint32_t *) a.x)[from];
      else if (a.bytes == 8)
        ((uint64_t *) a.y)[to] = ((const uint64_t *) a.x)[from];
      else
        ((uint4 *) a.y)[to] = ((const uint4 *) a.x)[from];
    }
}

static __device__ void
copy_body (const HkCopy &a)
{
  if (a.n <= 0xffffffffll)
    copy_by<u32> (a);
  else
    copy_by<u64> (a);
}
KERNEL_PLAIN (copy, HkCopy)

template <class T> static __device__ void
fill_as (const HkFill &a)
{
  const T one = (T) a.pattern;
  pack<T, 16 / sizeof (T)> many;
  for (T &v : many.v)
    v = one;
  const int64_t width = 16 / sizeof (T), packs = (uint64_t) a.y % 16 == 0 ? a.n / width : 0;
  for (int64_t i = first_index (); i < packs; i += index_step ())
    ((pack<T, 16 / sizeof (T)> *) a.y)[i] = many;
  for (int64_t i = packs * width + first_index (); i < a.n; i += index_step ())
    ((T *) a.y)[i] = one;
}

static __device__ void
fill_bytes_body (const HkFill &a)
{
  if (a.bytes == 1)
    fill_as<u8> (a);
  else if (a.bytes == 2)
    fill_as<u16> (a);
  else if (a.bytes == 4)
    fill_as<u32> (a);
  else
    fill_as<u64> (a);
}
KERNEL_PLAIN (fill_bytes, HkFill)

/* A thread makes one block of four words, that is four elements. */
template <class T> static __device__ void
dropout (const HkDropout &a)
{
  dropout_key key = { a.key[0], a.key[1], a.counter1, a.counter2, a.threshold };
  for (int64_t block = first_index (); block < (a.n + 3) / 4; block += index_step ())
    {
      bool keep[4];
      dropout_mask (keep, 4 * block, *a.step, key);
      for (int64_t k = 0; k < 4 && 4 * block + k < a.n; k++)
        st<T> (a.y, 4 * block + k, keep[k] ? ld<T> (a.x, 4 * block + k) * a.keep : 0.0f);
    }
}
KERNEL (dropout, HkDropout)

static __device__ void
dequantize_body (const HkDequantize &a)
{
  for (int64_t i = first_index (); i < a.n; i += index_step ())
    {
      int c = a.channels > 1 ? (int) (i / a.pixels % a.channels) : 0;
      a.y[i] = load_any (a.x, a.dtype, i) * a.a[c] + a.b[c];
    }
}
KERNEL_PLAIN (dequantize, HkDequantize)

template <class T> static __device__ void
embedding (const HkEmbedding &a)
{
  for (int64_t i = first_index (); i < a.n * a.width; i += index_step ())
    {
      int64_t position = i / a.width, row = load_index (a.index, a.index_dtype, position);
      bool good = row >= 0 && row < a.rows;
      if (!good && a.fault)
        atomicMax (a.fault, (uint32_t) (position + 1));
      st<T> (a.y, i, good ? ld<T> (a.x, row * a.width + i % a.width) : 0.0f);
    }
}
KERNEL (embedding, HkEmbedding)

/* Row offset of position I in the rows from ROW on, or NOWHERE */
#define NOWHERE 0xffu
static __device__ u32
row_of (const HkEmbedding &a, int64_t i, int64_t row)
{
  int64_t at = i < a.n ? load_index (a.index, a.index_dtype, i) - row : -1;
  return at >= 0 && at < HK_EMBEDDING_ROWS ? (u32) at : NOWHERE;
}

/* Adds positions FROM .. FROM + 3 to the sums of their rows, which FOUND names; the loads of all four are under way together. */
template <class T> static __device__ void
add_found (const HkEmbedding &a, float (&sum)[HK_EMBEDDING_ROWS][4], u32 found, int64_t from, int64_t first)
{
  float x[4][4];
#pragma unroll
  for (int q = 0; q < 4; q++)
#pragma unroll
    for (int k = 0; k < 4; k++)
      x[q][k] = (found >> 8 * q & 0xff) != NOWHERE && first + 128 * k < a.width ? ld<T> (a.x, (from + q) * a.width + first + 128 * k) : 0.0f;
#pragma unroll
  for (int q = 0; q < 4; q++)
#pragma unroll
    for (int r = 0; r < HK_EMBEDDING_ROWS; r++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        sum[r][k] += (found >> 8 * q & 0xff) == (u32) r ? x[q][k] : 0.0f;
}

/* One block for HK_EMBEDDING_ROWS rows of the table and 4 x 128 of its columns: it looks for the rows' indices, 512 at a time, and adds what belongs to them in order. */
template <class T> static __device__ void
embedding_grad (const HkEmbedding &a)
{
  __shared__ u32 found[128];                  /* a byte for each of four positions */
  int64_t row = (int64_t) blockIdx.x * HK_EMBEDDING_ROWS, first = (int64_t) blockIdx.y * 512 + threadIdx.x;
  float sum[HK_EMBEDDING_ROWS][4] = { { 0 } };
  for (int64_t base = 0; base < a.n; base += 512)
    {
      u32 rows = 0;
#pragma unroll
      for (int q = 0; q < 4; q++)
        rows |= row_of (a, base + 4 * threadIdx.x + q, row) << 8 * q;
      found[threadIdx.x] = rows;
      if (__syncthreads_or (rows != 0xffffffffu))
        for (int j = 0; j < 128; j++)
          if (found[j] != 0xffffffffu)
            add_found<T> (a, sum, found[j], base + 4 * j, first);
      __syncthreads ();
    }
#pragma unroll
  for (int r = 0; r < HK_EMBEDDING_ROWS; r++)
#pragma unroll
    for (int k = 0; k < 4; k++)
      if (row + r < a.rows && first + 128 * k < a.width)
        st<T> (a.y, (row + r) * a.width + first + 128 * k, sum[r][k]);
}
KERNEL (embedding_grad, HkEmbedding)

/* torch/amp/grad_scaler.py; a tracker that a checkpoint brought beyond the interval has reached it */
static __device__ void
scaler_body (const HkScaler &a)
{
  float scale = *a.scale, tracker = *a.tracker, grown = scale * a.growth_factor;
  bool grows = tracker + 1 >= a.growth_interval;
  if (*a.skip != 0)
    {
      scale = fmaxf (scale * a.backoff_factor, fminf (scale, a.min_scale));
      tracker = 0;
    }
  else
    {
      scale = grows && grown <= 3.4028234663852886e38f ? grown : scale;
      tracker = grows ? 0 : tracker + 1;
    }
  if (a.new_scale)
    *a.new_scale = scale;
  if (a.new_tracker)
    *a.new_tracker = tracker;
}
KERNEL_PLAIN (scaler, HkScaler)
