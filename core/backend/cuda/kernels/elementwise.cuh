/* cuda/kernels/elementwise.cuh: the formula of every elementwise operation, op_NAME (inputs ..., attributes ...) in f32; the names are those of the op table.
 * Used by generated chains and by the own kernels of single operations.  Must not know memory.  Exact operations give the bits of the cpu backend when
 * contraction is off; exp, tanh and erf are the CUDA library's, whose errors are in its programming guide (at most 2 units in the last place). */
#ifndef HEDDLE_CUDA_KERNELS_ELEMENTWISE_CUH
#define HEDDLE_CUDA_KERNELS_ELEMENTWISE_CUH

HD f32 op_add (f32 x, f32 y) { return x + y; }
HD f32 op_sub (f32 x, f32 y) { return x - y; }
HD f32 op_mul (f32 x, f32 y) { return x * y; }
HD f32 op_div (f32 x, f32 y) { return x / y; }
HD f32 op_max (f32 x, f32 y) { return x > y || x != x ? x : y; }
HD f32 op_min (f32 x, f32 y) { return x < y || x != x ? x : y; }
HD f32 op_greater (f32 x, f32 y) { return x > y ? 1.0f : 0.0f; }
HD f32 op_select (f32 c, f32 x, f32 y) { return c != 0.0f ? x : y; }
HD f32 op_neg (f32 x) { return -x; }
HD f32 op_abs (f32 x) { return fabsf (x); }
HD f32 op_sign (f32 x) { return (f32) (x > 0.0f) - (f32) (x < 0.0f); }
HD f32 op_exp (f32 x) { return expf (x); }
HD f32 op_expm1 (f32 x) { return expm1f (x); }
HD f32 op_log (f32 x) { return logf (x); }
HD f32 op_sqrt (f32 x) { return sqrtf (x); }
HD f32 op_rsqrt (f32 x) { return 1.0f / sqrtf (x); }
HD f32 op_square (f32 x) { return x * x; }
HD f32 op_reciprocal (f32 x) { return 1.0f / x; }
HD f32 op_relu (f32 x) { return x < 0.0f ? 0.0f : x; }            /* NaN stays NaN */
HD f32 op_sigmoid (f32 x) { return 1.0f / (1.0f + expf (-x)); }
HD f32 op_tanh (f32 x) { return tanhf (x); }
HD f32 op_cast (f32 x) { return x; }
HD f32 op_dequantize (f32 x, f32 a, f32 b) { return x * a + b; }
HD f32 op_dropout (f32 x, bool keep, f32 factor) { return keep ? x * factor : 0.0f; }
HD f32 op_relu_grad (f32 dy, f32 y) { return y > 0.0f ? dy : 0.0f; }
HD f32 op_sigmoid_grad (f32 dy, f32 y) { return dy * y * (1.0f - y); }
HD f32 op_tanh_grad (f32 dy, f32 y) { return dy * (1.0f - y * y); }

/* 0.79788 = sqrt (2 / pi), 0.3989 = 1 / sqrt (2 pi) */
HD f32 gelu_inside (f32 x) { return tanhf (0.7978845608028654f * (x + 0.044715f * x * x * x)); }
HD f32 gelu_erf (f32 x) { return 0.5f * x * (1.0f + erff (x * 0.7071067811865476f)); }
HD f32 gelu_tanh (f32 x) { return 0.5f * x * (1.0f + gelu_inside (x)); }
HD f32 gelu_erf_slope (f32 x) { return 0.5f * (1.0f + erff (x * 0.7071067811865476f)) + x * 0.3989422804014327f * expf (-0.5f * x * x); }

HD f32
gelu_tanh_slope (f32 x)
{
  f32 t = gelu_inside (x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * x * x);
}

HD f32 op_gelu (f32 x, bool tanh_form) { return tanh_form ? gelu_tanh (x) : gelu_erf (x); }
HD f32 op_gelu_grad (f32 dy, f32 x, bool tanh_form) { return dy * (tanh_form ? gelu_tanh_slope (x) : gelu_erf_slope (x)); }

HD f32 op_silu (f32 x) { return x * op_sigmoid (x); }
HD f32 op_silu_grad (f32 dy, f32 x) { return dy * op_sigmoid (x) * (1.0f + x * (1.0f - op_sigmoid (x))); }
HD f32 op_clamp (f32 x, f32 lo, f32 hi) { return x < lo ? lo : x > hi ? hi : x; }            /* NaN stays NaN */
HD f32 op_clamp_grad (f32 dy, f32 y, f32 lo, f32 hi) { return y > lo && y < hi ? dy : 0.0f; }
HD f32 op_leaky_relu (f32 x, f32 slope) { return x > 0.0f ? x : slope * x; }
HD f32 op_leaky_relu_grad (f32 dy, f32 y, f32 slope) { return y > 0.0f ? dy : slope * dy; }
HD f32 op_hardswish (f32 x) { return x * op_clamp (x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }
HD f32 op_hardswish_grad (f32 dy, f32 x) { return x <= -3.0f ? 0.0f : x >= 3.0f ? dy : dy * (x * (1.0f / 3.0f) + 0.5f); }

#endif
