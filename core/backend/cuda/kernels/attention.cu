/* cuda/kernels/attention.cu: scaled dot product attention, a warp for each query (or key), 32 keys (or queries) at a time: no matrix of scores is ever whole.
 * Must not know programs.  A. Vaswani et al., arXiv 1706.03762; T. Dao et al., arXiv 2205.14135. */
#include "backend/cuda/kernels/own.cuh"

#define OWN 8                 /* columns of the result that a lane keeps; a block makes 32 x OWN of them */

static __device__ bool visible (const HkAttention &a, int64_t query, int64_t key) { return key < a.S && query < a.T && !(a.causal && key > query); }

template <class T> static __device__ float
dot (const void *x, int64_t at, const void *y, int64_t to, int64_t n)
{
  float sum = 0;
  for (int64_t l = 0; l < n; l++)
    sum += ld<T> (x, at + l) * ld<T> (y, to + l);
  return sum;
}

template <class T> static __device__ void
add_row (float *sum, float factor, const void *x, int64_t row, int64_t columns, int64_t first)
{
  for (int k = 0; k < OWN; k++)
    if (first + 32 * k < columns)
      sum[k] += factor * ld<T> (x, row * columns + first + 32 * k);
}

template <class T> static __device__ void
store_row (void *y, const float *sum, float factor, int64_t row, int64_t columns, int64_t first)
{
  for (int k = 0; k < OWN; k++)
    if (first + 32 * k < columns)
      st<T> (y, row * columns + first + 32 * k, sum[k] * factor);
}

/* block x: head and query; block y: 256 columns of v */
template <class T> static __device__ void
attention (const HkAttention &a)
{
  int64_t row = blockIdx.x, head = row / a.T, query = row % a.T, first = (int64_t) blockIdx.y * 32 * OWN + threadIdx.x, keys = a.causal ? min (query + 1, a.S) : a.S;
  float y[OWN] = { 0 }, top = MINUS_INFINITY, sum = 0;
  for (int64_t j0 = 0; j0 < keys; j0 += 32)
    {
      int64_t j = j0 + threadIdx.x;
      float score = visible (a, query, j) ? a.scale * dot<T> (a.q, row * a.D, a.k, (head * a.S + j) * a.D, a.D) : MINUS_INFINITY;
      float higher = warp_max (fmaxf (score, top)), shrink = expf (top - higher), p = expf (score - higher);
      sum = sum * shrink + warp_sum (p);
      top = higher;
      for (int k = 0; k < OWN; k++)
        y[k] *= shrink;
      for (int l = 0; l < 32 && j0 + l < keys; l++)
        add_row<T> (y, __shfl_sync (0xffffffffu, p, l), a.v, head * a.S + j0 + l, a.E, first);
    }
  store_row<T> (a.out, y, 1 / sum, row, a.E, first);
  if (threadIdx.x == 0 && blockIdx.y == 0 && a.log_sum)
    a.log_sum[row] = top + logf (sum);
}
KERNEL (attention, HkAttention)

/* P and its gradient dS of (QUERY, KEY) of HEAD; DELTA = sum dy y of the query */
template <class T> static __device__ void
probability (const HkAttention &a, int64_t head, int64_t query, int64_t key, float *p, float *ds)
{
  int64_t row = head * a.T + query, column = head * a.S + key;
  *p = *ds = 0;
  if (visible (a, query, key))
    {
      float delta = dot<T> (a.dy, row * a.E, a.y, row * a.E, a.E);
      *p = expf (a.scale * dot<T> (a.q, row * a.D, a.k, column * a.D, a.D) - a.log_sum[row]);
      *ds = a.scale * *p * (dot<T> (a.dy, row * a.E, a.v, column * a.E, a.E) - delta);
    }
}

/* dq: block x: head and query */
template <class T> static __device__ void
attention_grad_query (const HkAttention &a)
{
  int64_t row = blockIdx.x, head = row / a.T, query = row % a.T, first = (int64_t) blockIdx.y * 32 * OWN + threadIdx.x, keys = a.causal ? min (query + 1, a.S) : a.S;
  float dq[OWN] = { 0 };
  for (int64_t j0 = 0; j0 < keys; j0 += 32)
    {
      float p, ds;
      probability<T> (a, head, query, j0 + threadIdx.x, &p, &ds);
      for (int l = 0; l < 32 && j0 + l < keys; l++)
        add_row<T> (dq, __shfl_sync (0xffffffffu, ds, l), a.k, head * a.S + j0 + l, a.D, first);
    }
  store_row<T> (a.dq, dq, 1, row, a.D, first);
}
KERNEL (attention_grad_query, HkAttention)

/* dk and dv: block x: head and key */
template <class T> static __device__ void
attention_grad_key (const HkAttention &a)
{
  int64_t row = blockIdx.x, head = row / a.S, key = row % a.S, first = (int64_t) blockIdx.y * 32 * OWN + threadIdx.x, begin = a.causal ? key / 32 * 32 : 0;
  float dk[OWN] = { 0 }, dv[OWN] = { 0 };
  for (int64_t i0 = begin; i0 < a.T; i0 += 32)
    {
      float p, ds;
      probability<T> (a, head, i0 + threadIdx.x, key, &p, &ds);
      for (int l = 0; l < 32 && i0 + l < a.T; l++)
        {
          add_row<T> (dk, __shfl_sync (0xffffffffu, ds, l), a.q, head * a.T + i0 + l, a.D, first);
          add_row<T> (dv, __shfl_sync (0xffffffffu, p, l), a.dy, head * a.T + i0 + l, a.E, first);
        }
    }
  if (a.dk)
    store_row<T> (a.dk, dk, 1, row, a.D, first);
  if (a.dv)
    store_row<T> (a.dv, dv, 1, row, a.E, first);
}
KERNEL (attention_grad_key, HkAttention)
