/* program/rules.h: the shape, gradient and printing rules that THE op table points to.  Private to core/program. */
#ifndef HEDDLE_PROGRAM_RULES_H
#define HEDDLE_PROGRAM_RULES_H

#include "program/program.h"

G_BEGIN_DECLS

typedef HeddleValue *const *HeddleGradients;

#define HEDDLE_SHAPE_RULES(X) \
  X (unary) X (float_unary) X (binary) X (select) X (cast) X (dequantize) X (dropout) X (pair) X (reshape) X (broadcast) X (reduce) X (norm_stats) \
  X (matmul) X (linear) X (linear_grad_input) X (linear_grad_weight) X (conv2d) X (conv2d_grad_input) X (conv2d_grad_weight) \
  X (pool) X (pool_grad) X (batch_norm) X (batch_norm_grad) X (axis) X (axis_grad) X (cross_entropy) X (cross_entropy_grad) X (mse) X (top_k) \
  X (assign) X (scaler_update) X (param_sum) X (param_spread) \
  X (layer_norm) X (layer_norm_grad) X (group_norm) X (group_norm_grad) X (embedding) X (embedding_grad) X (permute) X (concat) X (slice) X (slice_grad) X (pad) \
  X (attention) X (attention_grad) \
  X (leaky_relu) X (clamp) X (conv_transpose2d) X (upsample) X (upsample_grad) X (bce_with_logits) X (smooth_l1) X (kl_div) X (custom)

#define X(rule) gboolean heddle_shape_rule_##rule (HeddleOp *op, GError **error);
HEDDLE_SHAPE_RULES (X)
#undef X

#define HEDDLE_GRADIENT_RULES(X) \
  X (zero) X (add) X (sub) X (mul) X (div) X (max) X (min) X (select) X (neg) X (abs) X (exp) X (expm1) X (log) X (sqrt) X (rsqrt) X (square) X (reciprocal) \
  X (relu) X (sigmoid) X (tanh) X (gelu) X (cast) X (dropout) X (reshape) X (broadcast) X (sum) X (mean) X (matmul) X (linear) X (conv2d) X (max_pool) \
  X (avg_pool) X (batch_norm) X (softmax) X (log_softmax) X (cross_entropy) X (mse) \
  X (layer_norm) X (rms_norm) X (group_norm) X (embedding) X (permute) X (concat) X (slice) X (pad) X (attention) \
  X (silu) X (hardswish) X (leaky_relu) X (clamp) X (conv_transpose2d) X (upsample) X (bce_with_logits) X (l1) X (smooth_l1) X (kl_div) X (custom)

#define X(rule) void heddle_gradient_rule_##rule (HeddleBuilder *b, HeddleOp *op, HeddleGradients dy, const gboolean *want, HeddleValue **dx);
HEDDLE_GRADIENT_RULES (X)
#undef X

#define HEDDLE_PRINT_RULES(X) \
  X (gelu) X (cast) X (dropout) X (shape) X (reduce) X (matmul) X (conv) X (pool) X (batch_norm) X (axis) X (cross_entropy) X (top_k) \
  X (slope) X (clamp) X (conv_transpose) X (upsample) X (smooth_l1) X (kl_div) X (param_sum) \
  X (layer_norm) X (group_norm) X (permute) X (slice) X (pad) X (attention) X (custom)

#define X(rule) void heddle_print_rule_##rule (const HeddleOp *op, GString *text);
HEDDLE_PRINT_RULES (X)
#undef X

/* custom.c: is ATTR's descriptor one that this core can use? */
gboolean       heddle_custom_check (const HeddleCustomAttr *attr, GError **error);
HeddleAmpClass heddle_custom_amp   (const HeddleCustomAttr *attr);

/* An axis that may count from the end, as an index; -1 when out of range. */
static inline gint32
heddle_axis_index (gint32 axis, gint32 rank)
{
  gint32 i = axis < 0 ? axis + rank : axis;
  return i >= 0 && i < rank ? i : -1;
}

/* An attribute's slice of an axis of SIZE elements as begin, step and count; FALSE when nothing is left or the step is not positive. */
static inline gboolean
heddle_slice_axis (const HeddleSliceAttr *a, gint32 axis, gint64 size, gint64 *begin, gint64 *step, gint64 *count)
{
  gint64 from = a->begin[axis] < 0 ? a->begin[axis] + size : a->begin[axis];
  gint64 to = a->end[axis] <= 0 ? a->end[axis] + size : a->end[axis];
  *begin = from;
  *step = a->step[axis] ? a->step[axis] : 1;
  *count = *step > 0 ? (to - from + *step - 1) / *step : 0;
  return from >= 0 && to <= size && *step > 0 && from < to;
}

G_END_DECLS

#endif
