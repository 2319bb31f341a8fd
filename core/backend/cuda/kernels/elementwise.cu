/* kernels/elementwise.cu: every elementwise operation with broadcasting, one at a time, in f32 whatever the storage.
 * Must not know programs; chains become generated kernels elsewhere. */
#include "backend/cuda/kernels/own.cuh"

static __device__ float
gelu_inner (float x)
{
  return 0.7978845608028654f * (x + 0.044715f * x * x * x);
}

static __device__ float
gelu (float x, bool tanh_form)
{
  return tanh_form ? 0.5f * x * (1 + tanhf (gelu_inner (x))) : 0.5f * x * erfcf (-x * 0.7071067811865476f);
}

static __device__ float
gelu_slope (float x, bool tanh_form)
{
  float t = tanhf (gelu_inner (x));
  return tanh_form ? 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608028654f * (1 + 3 * 0.044715f * x * x)
                   : 0.5f * erfcf (-x * 0.7071067811865476f) + x * expf (-0.5f * x * x) * 0.3989422804014327f;
}

static __device__ float
compute (int32_t op, float a, float b, float c, float p, float q)
{
  switch (op)
    {
    case HK_ADD: return a + b;
    case HK_SUB: return a - b;
    case HK_MUL: return a * b;
    case HK_DIV: return a / b;
    case HK_MAX: return a > b || a != a ? a : b;
    case HK_MIN: return a < b || a != a ? a : b;
    case HK_GREATER: return a > b ? 1.0f : 0.0f;
    case HK_SELECT: return a != 0 ? b : c;
    case HK_NEG: return -a;
    case HK_ABS: return fabsf (a);
    case HK_SIGN: return (float) ((a > 0) - (a < 0));
    case HK_EXP: return expf (a);
    case HK_EXPM1: return expm1f (a);
    case HK_LOG: return logf (a);
    case HK_SQRT: return sqrtf (a);
    case HK_RSQRT: return 1 / sqrtf (a);
    case HK_SQUARE: return a * a;
    case HK_RECIPROCAL: return 1 / a;
    case HK_RELU: return a > 0 || a != a ? a : 0.0f;
    case HK_SIGMOID: return 1 / (1 + expf (-a));
    case HK_TANH: return tanhf (a);
    case HK_GELU: return gelu (a, p != 0);
    case HK_RELU_GRAD: return b > 0 ? a : 0.0f;
    case HK_SIGMOID_GRAD: return a * b * (1 - b);
    case HK_TANH_GRAD: return a * (1 - b * b);
    case HK_GELU_GRAD: return a * gelu_slope (b, p != 0);
    case HK_SILU: return a / (1 + expf (-a));
    case HK_HARDSWISH: return a * fminf (fmaxf (a + 3, 0), 6) * (1.0f / 6);
    case HK_LEAKY_RELU: return a > 0 ? a : p * a;
    case HK_CLAMP: return a != a ? a : fminf (fmaxf (a, p), q);
    case HK_SILU_GRAD: return a / (1 + expf (-b)) * (1 + b / (1 + expf (b)));
    case HK_HARDSWISH_GRAD: return b <= -3 ? 0.0f : b >= 3 ? a : a * (2 * b + 3) * (1.0f / 6);
    case HK_LEAKY_RELU_GRAD: return b > 0 ? a : p * a;
    case HK_CLAMP_GRAD: return b > p && b < q ? a : 0.0f;
    default: return a;                        /* CAST, BROADCAST, ASSIGN */
    }
}

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
