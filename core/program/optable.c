/* program/optable.c: THE op table: one row per operation.  Must not know who builds or runs operations. */
#include "program/rules.h"

#include <string.h>

#define E HEDDLE_OP_ELEMENTWISE
#define R HEDDLE_OP_REDUCTION
#define V HEDDLE_OP_VIEW
#define F HEDDLE_OP_EFFECT

/* CODE, name, inputs (min, max), outputs, attribute type or 0, AMP class, flags, shape, gradient, print, formula and source */
#define ROW(CODE, nick, lo, hi, outs, attr, class, flag, shape_rule, grad, printer, text) \
  { HEDDLE_OP_##CODE, nick, lo, hi, outs, attr, HEDDLE_AMP_##class, flag, text, heddle_shape_rule_##shape_rule, grad, printer }
#define G(rule) heddle_gradient_rule_##rule
#define P(rule) heddle_print_rule_##rule
#define A(T) sizeof (T)

/* AMP classes: PyTorch's autocast lists for CUDA (aten/src/ATen/autocast_mode.h); what is in none of them keeps its inputs' dtype.  concat is in none either: torch.cat
 * itself promotes mixed inputs, with or without autocast (CPU autocast lists it as widest, which is the same); WIDEST is that promotion, as KEEP's only concerns elementwise. */
static const HeddleOpInfo table[] = {
  ROW (ADD, "add", 2, 2, 1, 0, KEEP, E, binary, G (add), NULL, "a + b, NumPy broadcasting"),
  ROW (SUB, "sub", 2, 2, 1, 0, KEEP, E, binary, G (sub), NULL, "a - b"),
  ROW (MUL, "mul", 2, 2, 1, 0, KEEP, E, binary, G (mul), NULL, "a b"),
  ROW (DIV, "div", 2, 2, 1, 0, KEEP, E, binary, G (div), NULL, "a / b"),
  ROW (MAX, "max", 2, 2, 1, 0, KEEP, E, binary, G (max), NULL, "the larger of a and b; the gradient is halved where they are equal, as in PyTorch"),
  ROW (MIN, "min", 2, 2, 1, 0, KEEP, E, binary, G (min), NULL, "the smaller of a and b; the gradient is halved where they are equal"),
  ROW (GREATER, "greater", 2, 2, 1, 0, KEEP, E, binary, G (zero), NULL, "a > b ? 1 : 0"),
  ROW (SELECT, "select", 3, 3, 1, 0, KEEP, E, select, G (select), NULL, "c != 0 ? a : b"),
  ROW (NEG, "neg", 1, 1, 1, 0, KEEP, E, float_unary, G (neg), NULL, "-x"),
  ROW (ABS, "abs", 1, 1, 1, 0, KEEP, E, float_unary, G (abs), NULL, "|x|; gradient 0 at 0"),
  ROW (SIGN, "sign", 1, 1, 1, 0, KEEP, E, float_unary, G (zero), NULL, "-1, 0 or 1"),
  ROW (EXP, "exp", 1, 1, 1, 0, F32, E, float_unary, G (exp), NULL, "e^x"),
  ROW (EXPM1, "expm1", 1, 1, 1, 0, F32, E, float_unary, G (expm1), NULL, "e^x - 1 without cancellation"),
  ROW (LOG, "log", 1, 1, 1, 0, F32, E, float_unary, G (log), NULL, "natural logarithm"),
  ROW (SQRT, "sqrt", 1, 1, 1, 0, KEEP, E, float_unary, G (sqrt), NULL, "square root"),
  ROW (RSQRT, "rsqrt", 1, 1, 1, 0, F32, E, float_unary, G (rsqrt), NULL, "1 / sqrt (x)"),
  ROW (SQUARE, "square", 1, 1, 1, 0, F32, E, float_unary, G (square), NULL, "x^2"),
  ROW (RECIPROCAL, "reciprocal", 1, 1, 1, 0, F32, E, float_unary, G (reciprocal), NULL, "1 / x"),
  ROW (RELU, "relu", 1, 1, 1, 0, KEEP, E, float_unary, G (relu), NULL, "max (x, 0); gradient 0 at 0"),
  ROW (SIGMOID, "sigmoid", 1, 1, 1, 0, KEEP, E, float_unary, G (sigmoid), NULL, "1 / (1 + e^-x)"),
  ROW (TANH, "tanh", 1, 1, 1, 0, KEEP, E, float_unary, G (tanh), NULL, "hyperbolic tangent"),
  ROW (GELU, "gelu", 1, 1, 1, A (HeddleGeluAttr), KEEP, E, float_unary, G (gelu), P (gelu), "x Phi (x), or its tanh approximation: arXiv 1606.08415"),
  ROW (CAST, "cast", 1, 1, 1, A (HeddleCastAttr), KEEP, E, cast, G (cast), P (cast), "x in another dtype, rounded to nearest even"),
  ROW (DEQUANTIZE, "dequantize", 1, 1, 1, A (HeddleDequantizeAttr), KEEP, 0, dequantize, NULL, NULL, "(x scale - mean[c]) / std[c] as f32"),
  ROW (DROPOUT, "dropout", 2, 2, 1, A (HeddleDropoutAttr), KEEP, 0, dropout, G (dropout), P (dropout),
       "x keep / (1 - p); element i is kept when word i % 4 of Philox block i / 4 is at least p 2^32; JMLR 15 (2014) 1929"),
  ROW (RELU_GRAD, "relu_grad", 2, 2, 1, 0, KEEP, E, pair, NULL, NULL, "(dy, y): y > 0 ? dy : 0"),
  ROW (SIGMOID_GRAD, "sigmoid_grad", 2, 2, 1, 0, KEEP, E, pair, NULL, NULL, "(dy, y): dy y (1 - y)"),
  ROW (TANH_GRAD, "tanh_grad", 2, 2, 1, 0, KEEP, E, pair, NULL, NULL, "(dy, y): dy (1 - y^2)"),
  ROW (GELU_GRAD, "gelu_grad", 2, 2, 1, A (HeddleGeluAttr), KEEP, E, pair, NULL, P (gelu), "(dy, x): dy (Phi (x) + x phi (x)), or the tanh form's"),
  ROW (RESHAPE, "reshape", 1, 1, 1, A (HeddleShapeAttr), KEEP, V, reshape, G (reshape), P (shape), "the same numbers under another shape"),
  ROW (BROADCAST, "broadcast", 1, 1, 1, A (HeddleShapeAttr), KEEP, 0, broadcast, G (broadcast), P (shape), "x repeated by NumPy's rule"),
  ROW (SUM, "sum", 1, 1, 1, A (HeddleReduceAttr), F32, R, reduce, G (sum), P (reduce), "sum over axes"),
  ROW (MEAN, "mean", 1, 1, 1, A (HeddleReduceAttr), KEEP, R, reduce, G (mean), P (reduce), "mean over axes"),
  ROW (SUM_TO, "sum_to", 1, 1, 1, A (HeddleShapeAttr), KEEP, R, broadcast, NULL, P (shape), "sums over what broadcasting had expanded"),
  ROW (NORM_STATS, "norm_stats", 1, 1, 2, 0, KEEP, R, norm_stats, NULL, NULL, "[0] sum of squares, [1] 1 if any element is not finite"),
  ROW (MATMUL, "matmul", 2, 2, 1, A (HeddleMatmulAttr), LOW, 0, matmul, G (matmul), P (matmul), "a b over the last two axes, either transposed; a matrix b serves all of a"),
  ROW (LINEAR, "linear", 2, 3, 1, 0, LOW, 0, linear, G (linear), NULL, "x w^T + bias over the last axis"),
  ROW (CONV2D, "conv2d", 2, 3, 1, A (HeddleConvAttr), LOW, 0, conv2d, G (conv2d), P (conv), "cross-correlation: y[n,o,i,j] = sum x[n,c,i s - p + k d, ...] w[o,c,k,l] + bias[o]"),
  ROW (CONV2D_GRAD_INPUT, "conv2d_grad_input", 2, 2, 1, A (HeddleConvAttr), KEEP, 0, conv2d_grad_input, NULL, P (conv), "(dy, w): gradient of conv2d by x"),
  ROW (CONV2D_GRAD_WEIGHT, "conv2d_grad_weight", 2, 2, 2, A (HeddleConvAttr), KEEP, 0, conv2d_grad_weight, NULL, P (conv), "(dy, x): gradient of conv2d by w [0] and bias [1]"),
  ROW (LINEAR_GRAD_INPUT, "linear_grad_input", 2, 2, 1, 0, KEEP, 0, linear_grad_input, NULL, NULL, "(dy, w): dy w"),
  ROW (LINEAR_GRAD_WEIGHT, "linear_grad_weight", 2, 2, 2, A (HeddleConvAttr), KEEP, 0, linear_grad_weight, NULL, NULL, "(dy, x): dy^T x [0] and the column sums of dy [1]"),
  ROW (MAX_POOL, "max_pool", 1, 1, 2, A (HeddlePoolAttr), KEEP, 0, pool, G (max_pool), P (pool), "largest number of each window (first on ties); padding counts as -infinity"),
  ROW (MAX_POOL_GRAD, "max_pool_grad", 2, 2, 1, A (HeddlePoolAttr), KEEP, 0, pool_grad, NULL, P (pool), "(dy, index)"),
  ROW (AVG_POOL, "avg_pool", 1, 1, 1, A (HeddlePoolAttr), KEEP, 0, pool, G (avg_pool), P (pool), "mean of each window; padding counts as 0 unless excluded"),
  ROW (AVG_POOL_GRAD, "avg_pool_grad", 1, 1, 1, A (HeddlePoolAttr), KEEP, 0, pool_grad, NULL, P (pool), "(dy)"),
  ROW (BATCH_NORM, "batch_norm", 5, 5, 5, A (HeddleBatchNormAttr), FIRST, 0, batch_norm, G (batch_norm), P (batch_norm),
       "(x - mean) / sqrt (biased variance + eps) scale + shift per channel; running variance takes the unbiased one: arXiv 1502.03167"),
  ROW (BATCH_NORM_GRAD, "batch_norm_grad", 5, 5, 3, A (HeddleBatchNormAttr), KEEP, 0, batch_norm_grad, NULL, P (batch_norm), "(dy, x, scale, mean, rstd): dx, dscale, dshift"),
  ROW (SOFTMAX, "softmax", 1, 1, 1, A (HeddleAxisAttr), F32, 0, axis, G (softmax), P (axis), "e^x / sum e^x along an axis"),
  ROW (LOG_SOFTMAX, "log_softmax", 1, 1, 1, A (HeddleAxisAttr), F32, 0, axis, G (log_softmax), P (axis), "x - log sum e^x along an axis"),
  ROW (SOFTMAX_GRAD, "softmax_grad", 2, 2, 1, A (HeddleAxisAttr), KEEP, 0, axis_grad, NULL, P (axis), "(dy, y): y (dy - sum dy y)"),
  ROW (LOG_SOFTMAX_GRAD, "log_softmax_grad", 2, 2, 1, A (HeddleAxisAttr), KEEP, 0, axis_grad, NULL, P (axis), "(dy, y): dy - e^y sum dy"),
  ROW (CROSS_ENTROPY, "cross_entropy", 2, 3, 2, A (HeddleCrossEntropyAttr), F32, R, cross_entropy, G (cross_entropy), P (cross_entropy),
       "sum of (1-e) w_y (-log p_y) + e/K sum_c w_c (-log p_c) over samples not ignored, divided by sum w_y"),
  ROW (CROSS_ENTROPY_GRAD, "cross_entropy_grad", 4, 5, 1, A (HeddleCrossEntropyAttr), KEEP, 0, cross_entropy_grad, NULL, P (cross_entropy), "(g, logits, labels, denominator[, weights])"),
  ROW (MSE, "mse", 2, 2, 2, 0, F32, R, mse, G (mse), NULL, "mean of (x - target)^2"),
  ROW (TOP_K, "top_k", 2, 2, 2, A (HeddleTopKAttr), KEEP, R, top_k, NULL, P (top_k), "samples whose label is among the k largest logits; ties: the smaller class wins"),
  ROW (CUSTOM, "custom", 1, HEDDLE_CUSTOM_INPUTS, HEDDLE_CUSTOM_OUTPUTS, A (HeddleCustomAttr), KEEP, 0, custom, G (custom), P (custom), "an operation that a plugin brings, with its own AMP class"),
  ROW (ASSIGN, "assign", 2, 3, 0, 0, KEEP, F, assign, NULL, NULL, "variable = value unless skip != 0"),
  ROW (SCALER_UPDATE, "scaler_update", 3, 3, 2, A (HeddleScalerAttr), KEEP, 0, scaler_update, NULL, NULL, "loss scale after a step: torch/amp/grad_scaler.py"),
  ROW (LAYER_NORM, "layer_norm", 1, 3, 3, A (HeddleLayerNormAttr), F32, 0, layer_norm, G (layer_norm), P (layer_norm),
       "(x - mean) / sqrt (biased variance + eps) scale + shift over the last axes: arXiv 1607.06450"),
  ROW (LAYER_NORM_GRAD, "layer_norm_grad", 4, 5, 3, A (HeddleLayerNormAttr), KEEP, 0, layer_norm_grad, NULL, P (layer_norm), "(dy, x, mean, rstd[, scale]): dx, dscale, dshift"),
  ROW (RMS_NORM, "rms_norm", 1, 2, 2, A (HeddleLayerNormAttr), F32, 0, layer_norm, G (rms_norm), P (layer_norm), "x / sqrt (mean x^2 + eps) scale over the last axes: arXiv 1910.07467"),
  ROW (RMS_NORM_GRAD, "rms_norm_grad", 3, 4, 2, A (HeddleLayerNormAttr), KEEP, 0, layer_norm_grad, NULL, P (layer_norm), "(dy, x, rstd[, scale]): dx, dscale"),
  ROW (GROUP_NORM, "group_norm", 1, 3, 3, A (HeddleGroupNormAttr), F32, 0, group_norm, G (group_norm), P (group_norm),
       "(x - mean) / sqrt (biased variance + eps) scale + shift, statistics per image and group of channels: arXiv 1803.08494"),
  ROW (GROUP_NORM_GRAD, "group_norm_grad", 4, 5, 3, A (HeddleGroupNormAttr), KEEP, 0, group_norm_grad, NULL, P (group_norm), "(dy, x, mean, rstd[, scale]): dx, dscale, dshift"),
  ROW (EMBEDDING, "embedding", 2, 2, 1, 0, KEEP, 0, embedding, G (embedding), NULL, "row i of the table for each index i; an index out of range ends the run"),
  ROW (EMBEDDING_GRAD, "embedding_grad", 2, 2, 1, A (HeddleShapeAttr), KEEP, 0, embedding_grad, NULL, P (shape), "(dy, indices): dense; rows of dy added in order to the rows their indices name"),
  ROW (PERMUTE, "permute", 1, 1, 1, A (HeddlePermuteAttr), KEEP, 0, permute, G (permute), P (permute), "axes in another order"),
  ROW (CONCAT, "concat", 1, HEDDLE_MAX_CONCAT, 1, A (HeddleAxisAttr), WIDEST, 0, concat, G (concat), P (axis), "tensors joined along an axis; at most 8"),
  ROW (SLICE, "slice", 1, 1, 1, A (HeddleSliceAttr), KEEP, 0, slice, G (slice), P (slice), "x[begin:end:step] of each axis"),
  ROW (SLICE_GRAD, "slice_grad", 1, 1, 1, A (HeddleSliceAttr), KEEP, 0, slice_grad, NULL, P (slice), "(dy): dy where the slice was taken, else 0"),
  ROW (PAD, "pad", 1, 1, 1, A (HeddlePadAttr), KEEP, 0, pad, G (pad), P (pad), "x with elements of one value before and after each axis"),
  ROW (ATTENTION, "attention", 3, 3, 2, A (HeddleAttentionAttr), LOW, 0, attention, G (attention), P (attention),
       "softmax (scale q k^T) v by tiles, the score matrix is never whole: arXiv 1706.03762, 2205.14135; gradients in f32 statistics: [1] log sum e^score"),
  ROW (ATTENTION_GRAD, "attention_grad", 6, 6, 3, A (HeddleAttentionAttr), KEEP, 0, attention_grad, NULL, P (attention), "(dy, q, k, v, y, log sum): dq, dk, dv; scores are computed again"),
  ROW (SILU, "silu", 1, 1, 1, 0, KEEP, E, float_unary, G (silu), NULL, "x sigmoid (x): arXiv 1606.08415, 1710.05941"),
  ROW (HARDSWISH, "hardswish", 1, 1, 1, 0, KEEP, E, float_unary, G (hardswish), NULL, "x clamp (x + 3, 0, 6) / 6: arXiv 1905.02244"),
  ROW (LEAKY_RELU, "leaky_relu", 1, 1, 1, A (HeddleSlopeAttr), KEEP, E, leaky_relu, G (leaky_relu), P (slope), "x > 0 ? x : slope x; the gradient at 0 is the slope"),
  ROW (CLAMP, "clamp", 1, 1, 1, A (HeddleClampAttr), KEEP, E, clamp, G (clamp), P (clamp), "x held in [min, max]; gradient 0 at both bounds, as in PyTorch's hardtanh and relu6"),
  ROW (SILU_GRAD, "silu_grad", 2, 2, 1, 0, KEEP, E, pair, NULL, NULL, "(dy, x): dy s (1 + x (1 - s)), s = sigmoid (x)"),
  ROW (HARDSWISH_GRAD, "hardswish_grad", 2, 2, 1, 0, KEEP, E, pair, NULL, NULL, "(dy, x): dy times 0 up to -3, x / 3 + 1/2, 1 from 3 on"),
  ROW (LEAKY_RELU_GRAD, "leaky_relu_grad", 2, 2, 1, A (HeddleSlopeAttr), KEEP, E, pair, NULL, P (slope), "(dy, y): y > 0 ? dy : slope dy"),
  ROW (CLAMP_GRAD, "clamp_grad", 2, 2, 1, A (HeddleClampAttr), KEEP, E, pair, NULL, P (clamp), "(dy, y): min < y < max ? dy : 0"),
  ROW (CONV_TRANSPOSE2D, "conv_transpose2d", 2, 3, 1, A (HeddleConvAttr), LOW, 0, conv_transpose2d, G (conv_transpose2d), P (conv_transpose),
       "y[n,o,i s - p + k d, ...] += x[n,c,i,j] w[c,o,k,l], plus bias[o]: conv2d_grad_input whose weight is w"),
  ROW (UPSAMPLE, "upsample", 1, 1, 1, A (HeddleUpsampleAttr), F32, 0, upsample, G (upsample), P (upsample),
       "nearest: x[floor (i in / out)]; bilinear: between the pixels around (i + 1/2) in / out - 1/2"),
  ROW (UPSAMPLE_GRAD, "upsample_grad", 1, 1, 1, A (HeddleUpsampleAttr), KEEP, 0, upsample_grad, NULL, P (upsample), "(dy): gradient of upsample by x"),
  ROW (BCE_WITH_LOGITS, "bce_with_logits", 2, 3, 2, 0, F32, R, bce_with_logits, G (bce_with_logits), NULL, "mean of (1 - t) x + (1 + (p - 1) t) log (1 + e^-x)"),
  ROW (L1, "l1", 2, 2, 2, 0, F32, R, mse, G (l1), NULL, "mean of |x - target|"),
  ROW (SMOOTH_L1, "smooth_l1", 2, 2, 2, A (HeddleSmoothL1Attr), F32, R, smooth_l1, G (smooth_l1), P (smooth_l1),
       "mean of d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2: arXiv 1504.08083"),
  ROW (KL_DIV, "kl_div", 2, 2, 2, A (HeddleKlDivAttr), F32, R, kl_div, G (kl_div), P (kl_div), "sum of t (log t - x), or e^t (t - x) for logarithms, over elements or samples"),
  ROW (PARAM_SUM, "param_sum", 2, 2, 1, A (HeddleParamSumAttr), KEEP, R, param_sum, NULL, P (param_sum), "(x, param): sum of x, or of x^2, over each parameter of the group"),
  ROW (PARAM_SPREAD, "param_spread", 2, 2, 1, 0, KEEP, 0, param_spread, NULL, NULL, "(v, param): v[p] repeated over parameter p of the group; 0 between parameters"),
};

const HeddleOpInfo *
heddle_op_info (HeddleOpCode code)
{
  static const HeddleOpInfo *by_code[256];
  static gsize ready;
  if (g_once_init_enter (&ready))
    {
      for (guint i = 0; i < G_N_ELEMENTS (table); i++)
        by_code[table[i].code] = &table[i];
      g_once_init_leave (&ready, 1);
    }
  return (guint) code < G_N_ELEMENTS (by_code) ? by_code[code] : NULL;
}

void
heddle_op_each (void (*f) (const HeddleOpInfo *info, gpointer data), gpointer data)
{
  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    f (&table[i], data);
}
