/* cuda/kernels/elementwise.cu: every elementwise operation with broadcasting, one at a time, in f32 whatever the storage.
 * Must not know programs; chains become generated kernels elsewhere. */
#include "backend/cuda/kernels/own.cuh"
#include "backend/cuda/kernels/elementwise.cuh"

static HD f32
compute (int32_t op, f32 x, f32 y, f32 z, f32 a, f32 b)
{
  switch (op)
    {
    case HK_ADD: return op_add (x, y);
    case HK_SUB: return op_sub (x, y);
    case HK_MUL: return op_mul (x, y);
    case HK_DIV: return op_div (x, y);
    case HK_MAX: return op_max (x, y);
    case HK_MIN: return op_min (x, y);
    case HK_GREATER: return op_greater (x, y);
    case HK_RELU_GRAD: return op_relu_grad (x, y);
    case HK_SIGMOID_GRAD: return op_sigmoid_grad (x, y);
    case HK_TANH_GRAD: return op_tanh_grad (x, y);
    case HK_SILU_GRAD: return op_silu_grad (x, y);
    case HK_HARDSWISH_GRAD: return op_hardswish_grad (x, y);
    case HK_NEG: return op_neg (x);
    case HK_ABS: return op_abs (x);
    case HK_SIGN: return op_sign (x);
    case HK_EXP: return op_exp (x);
    case HK_EXPM1: return op_expm1 (x);
    case HK_LOG: return op_log (x);
    case HK_SQRT: return op_sqrt (x);
    case HK_RSQRT: return op_rsqrt (x);
    case HK_SQUARE: return op_square (x);
    case HK_RECIPROCAL: return op_reciprocal (x);
    case HK_RELU: return op_relu (x);
    case HK_SIGMOID: return op_sigmoid (x);
    case HK_TANH: return op_tanh (x);
    case HK_SILU: return op_silu (x);
    case HK_HARDSWISH: return op_hardswish (x);
    case HK_SELECT: return op_select (x, y, z);
    case HK_GELU: return op_gelu (x, a != 0);
    case HK_GELU_GRAD: return op_gelu_grad (x, y, a != 0);
    case HK_LEAKY_RELU: return op_leaky_relu (x, a);
    case HK_LEAKY_RELU_GRAD: return op_leaky_relu_grad (x, y, a);
    case HK_CLAMP: return op_clamp (x, a, b);
    case HK_CLAMP_GRAD: return op_clamp_grad (x, y, a, b);
    default: return x;                        /* CAST; BROADCAST and ASSIGN come as CAST too */
    }
}

/* W numbers from I on */
template <int W, class T> static __device__ void
widen_pack (const HkWide &w, int64_t i)
{
  float x[W], y[W] = { 0 };
  load<W> (x, (const T *) w.x + i);
  if (w.add)
    load<W> (y, w.y + i);
  for (int j = 0; j < W; j++)
    y[j] = w.add ? y[j] + x[j] : x[j];
  store<W> (w.y + i, y);
}

template <class T> static __device__ void
widen_window (const HkWide &w)
{
  const int64_t first = (int64_t) blockIdx.y * blockDim.x + threadIdx.x, step = (int64_t) gridDim.y * blockDim.x;
  const int64_t packs = ((uint64_t) w.x | (uint64_t) w.y) % 16 == 0 ? w.n / 8 : 0;
  for (int64_t i = first; i < packs; i += step)
    widen_pack<8, T> (w, 8 * i);
  for (int64_t i = 8 * packs + first; i < w.n; i += step)
    widen_pack<1, T> (w, i);
}

static __device__ void
widen_body (const HkWiden &a)
{
  if (a.dtype == HK_F16)
    widen_window<f16> (a.window[blockIdx.x]);
  else
    widen_window<bf16> (a.window[blockIdx.x]);
}
KERNEL_PLAIN (widen, HkWiden)

static __device__ void
elementwise_body (const HkElementwise &a)
{
  if (a.skip && *a.skip != 0)
    return;
  bool whole = a.op == HK_CAST && a.in[0].dtype >= HK_U8 && a.out_dtype >= HK_U8;      /* integers stay integers */
  for (int64_t i = first_index (); i < a.n; i += index_step ())
    {
      int64_t at[3] = { 0, 0, 0 }, rest = i;
      for (int axis = a.rank - 1; axis >= 0; axis--)
        {
          int64_t here = axis ? rest % a.size[axis] : rest;
          rest = axis ? rest / a.size[axis] : 0;
          for (int k = 0; k < 3; k++)
            at[k] += here * a.in[k].stride[axis];
        }
      if (whole)
        {
          int64_t v = load_index (a.in[0].data, a.in[0].dtype, at[0]);
          if (a.out_dtype == HK_I64)
            ((int64_t *) a.out)[i] = v;
          else if (a.out_dtype == HK_I32)
            ((int32_t *) a.out)[i] = (int32_t) v;
          else
            ((uint8_t *) a.out)[i] = (uint8_t) v;
        }
      else
        {
          float x = load_any (a.in[0].data, a.in[0].dtype, at[0]);
          float y = a.n_in > 1 ? load_any (a.in[1].data, a.in[1].dtype, at[1]) : 0.0f, z = a.n_in > 2 ? load_any (a.in[2].data, a.in[2].dtype, at[2]) : 0.0f;
          store_any (a.out, a.out_dtype, i, compute (a.op, x, y, z, a.a, a.b));
        }
    }
}
KERNEL_PLAIN (elementwise, HkElementwise)
