/* program/shapes.c: what each operation accepts, and the shape and dtype of what it makes.  Must not know backends. */
#include "program/shape-rules.h"

static HeddleShape
channels_of (const HeddleValue *x)
{
  return heddle_shape (x->shape.size[1]);
}

/* The dtype of the widest input of highest rank class: scalars of rank 0 do not widen tensors (NumPy, PyTorch). */
static HeddleDtype
common_dtype (const HeddleOp *op, guint first)
{
  HeddleDtype dtype = 0;
  for (int tensors = 1; tensors >= 0 && !dtype; tensors--)
    for (guint i = first; i < op->n_in; i++)
      if ((op->in[i]->shape.rank > 0) == tensors)
        dtype = !dtype || dtype == op->in[i]->dtype ? op->in[i]->dtype : HEDDLE_F32;
  return dtype;
}

RULE (unary)
{
  (void) error;
  set (op, 0, op->in[0]->dtype, op->in[0]->shape);
  return TRUE;
}

RULE (float_unary)
{
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error);
  set (op, 0, op->in[0]->dtype, op->in[0]->shape);
  return ok;
}

static gboolean
broadcast_inputs (HeddleOp *op, guint first, GError **error)
{
  HeddleShape shape = op->in[first]->shape;
  gboolean ok = expect (is_float (op->in[first]), op, first, "a floating-point tensor", error);
  for (guint i = first + 1; ok && i < op->n_in; i++)
    {
      ok = expect (is_float (op->in[i]), op, i, "a floating-point tensor", error);
      if (ok && !heddle_shape_broadcast (&shape, &op->in[i]->shape, &shape))
        {
          g_autofree char *a = heddle_shape_print (&shape), *b = heddle_shape_print (&op->in[i]->shape);
          ok = refuse (error, "shapes %s and %s do not broadcast\nhint: sizes must be equal or 1, counted from the last axis", a, b);
        }
    }
  if (ok)
    set (op, 0, common_dtype (op, first), shape);
  return ok;
}

RULE (binary)
{
  return broadcast_inputs (op, 0, error);
}

RULE (select)
{
  HeddleShape shape;
  gboolean ok = broadcast_inputs (op, 1, error);
  if (ok && !heddle_shape_broadcast (&op->out[0]->shape, &op->in[0]->shape, &shape))
    ok = refuse (error, "the condition does not broadcast to the values");
  if (ok)
    op->out[0]->shape = shape;
  return ok;
}

RULE (cast)
{
  HeddleDtype dtype = ATTR (HeddleCastAttr)->dtype;
  gboolean ok = heddle_dtype_size (dtype) > 0 || refuse (error, "no such dtype: %d", dtype);
  set (op, 0, dtype, op->in[0]->shape);
  return ok;
}

RULE (dequantize)
{
  const HeddleDequantizeAttr *a = ATTR (HeddleDequantizeAttr);
  const HeddleShape *s = &op->in[0]->shape;
  gboolean ok = a->channels == 1 || (s->rank >= 2 && s->size[1] == a->channels && a->channels <= HEDDLE_MAX_CHANNELS_NORMALISED)
                || refuse (error, "mean and std have %d channels, the input has another number", a->channels);
  for (gint32 c = 0; ok && c < a->channels; c++)
    ok = a->std[c] > 0 || refuse (error, "std[%d] is not positive", c);
  set (op, 0, HEDDLE_F32, *s);
  return ok;
}

RULE (dropout)
{
  double p = ATTR (HeddleDropoutAttr)->probability;
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error)
                && expect (op->in[1]->shape.rank == 0, op, 1, "the step number, a scalar", error)
                && ((p >= 0 && p < 1) || refuse (error, "probability %g is not in [0, 1)", p));
  set (op, 0, op->in[0]->dtype, op->in[0]->shape);
  return ok;
}

/* A slope below 0 would hide the input's sign, which the gradient reads off the result. */
RULE (leaky_relu)
{
  double slope = ATTR (HeddleSlopeAttr)->slope;
  return heddle_shape_rule_float_unary (op, error) && ((slope >= 0 && slope < INFINITY) || refuse (error, "the slope %g is not a number from 0 on", slope));
}

RULE (clamp)
{
  const HeddleClampAttr *a = ATTR (HeddleClampAttr);
  return heddle_shape_rule_float_unary (op, error) && (a->min < a->max || refuse (error, "min %g is not below max %g", a->min, a->max));
}

/* (dy, y or x) of one shape */
RULE (pair)
{
  gboolean ok = expect (heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape), op, 1, "the shape of the gradient", error);
  set (op, 0, op->in[0]->dtype, op->in[0]->shape);
  return ok;
}

RULE (reshape)
{
  HeddleShape *s = &((HeddleShapeAttr *) op->attr)->shape;
  gint64 count = heddle_shape_count (&op->in[0]->shape), known = 1, open = -1;
  gboolean ok = s->rank >= 0 && s->rank <= HEDDLE_MAX_RANK ? TRUE : refuse (error, "rank %d is more than %d", s->rank, HEDDLE_MAX_RANK);
  for (gint32 i = 0; ok && i < s->rank; i++)
    if (s->size[i] == -1)
      {
        ok = open < 0 || refuse (error, "only one size may be -1");
        open = i;
      }
    else
      known *= s->size[i];
  if (ok && open >= 0 && known > 0 && count % known == 0)
    {
      s->size[open] = count / known;
      known = count;
    }
  if (ok && known != count)
    {
      g_autofree char *from = heddle_shape_print (&op->in[0]->shape), *to = heddle_shape_print (s);
      ok = refuse (error, "cannot reshape %s to %s: %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT " elements", from, to, count, known);
    }
  set (op, 0, op->in[0]->dtype, *s);
  return ok;
}

/* BROADCAST and, the other way round, SUM_TO */
RULE (broadcast)
{
  const HeddleShape *to = &ATTR (HeddleShapeAttr)->shape, *from = &op->in[0]->shape;
  gboolean expands = op->info->code == HEDDLE_OP_BROADCAST;
  HeddleShape both;
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error);
  if (ok && !(heddle_shape_broadcast (from, to, &both) && heddle_shape_equal (&both, expands ? to : from)))
    {
      g_autofree char *a = heddle_shape_print (from), *b = heddle_shape_print (to);
      ok = refuse (error, "cannot %s %s to %s", expands ? "broadcast" : "sum", a, b);
    }
  set (op, 0, op->in[0]->dtype, *to);
  return ok;
}

RULE (reduce)
{
  const HeddleReduceAttr *a = ATTR (HeddleReduceAttr);
  const HeddleShape *s = &op->in[0]->shape;
  HeddleShape r = { 0 };
  guint32 axes = a->axes ? a->axes : (1u << s->rank) - 1;
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error)
                && (axes >> s->rank == 0 || refuse (error, "axis out of range for rank %d", s->rank));
  for (gint32 i = 0; i < s->rank; i++)
    if (!(axes >> i & 1))
      r.size[r.rank++] = s->size[i];
    else if (a->keep_dims)
      r.size[r.rank++] = 1;
  set (op, 0, op->in[0]->dtype, r);
  return ok;
}

RULE (norm_stats)
{
  set (op, 0, HEDDLE_F32, heddle_scalar_shape ());
  set (op, 1, HEDDLE_F32, heddle_scalar_shape ());
  return expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error);
}

/* Leading axes of A and B are equal, or B is one matrix for all. */
static gboolean
same_batch (const HeddleOp *op, GError **error)
{
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape;
  gboolean ok = b->rank == 2 || b->rank == a->rank;
  for (gint32 i = 0; ok && i + 2 < b->rank; i++)
    ok = a->size[i] == b->size[i];
  return expect (ok, op, 1, "a matrix, or the leading axes of input 1", error);
}

RULE (matmul)
{
  const HeddleMatmulAttr *m = ATTR (HeddleMatmulAttr);
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape;
  HeddleShape y = *a;
  gboolean ok = same_float (op, error) && expect (a->rank >= 2, op, 0, "a matrix or a batch of them", error) && expect (b->rank >= 2, op, 1, "a matrix or a batch of them", error)
                && same_batch (op, error);
  if (ok)
    {
      gint64 k1 = a->size[a->rank - (m->transpose_a ? 2 : 1)], k2 = b->size[b->rank - (m->transpose_b ? 1 : 2)];
      ok = k1 == k2 || refuse (error, "inner sizes differ: %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT, k1, k2);
      y.size[y.rank - 2] = a->size[a->rank - (m->transpose_a ? 1 : 2)];
      y.size[y.rank - 1] = b->size[b->rank - (m->transpose_b ? 2 : 1)];
    }
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

/* X with another number of features, its last axis */
static HeddleShape
with_features (const HeddleShape *x, gint64 features)
{
  HeddleShape s = *x;
  s.size[MAX (s.rank, 1) - 1] = features;
  return s;
}

static gint64
features_of (const HeddleShape *x)
{
  return x->rank > 0 ? x->size[x->rank - 1] : 0;
}

RULE (linear)
{
  const HeddleShape *x = &op->in[0]->shape, *w = &op->in[1]->shape;
  gboolean ok = same_float (op, error) && expect (x->rank >= 2, op, 0, "(..., features)", error) && expect (w->rank == 2, op, 1, "(out, in)", error)
                && (features_of (x) == w->size[1] || refuse (error, "input has %" G_GINT64_FORMAT " features, the weight expects %" G_GINT64_FORMAT, features_of (x), w->size[1]))
                && (op->n_in < 3 || expect (op->in[2]->shape.rank == 1 && op->in[2]->shape.size[0] == w->size[0], op, 2, "one bias per output", error));
  set (op, 0, op->in[0]->dtype, with_features (x, w->size[0]));
  return ok;
}

RULE (linear_grad_input)
{
  const HeddleShape *dy = &op->in[0]->shape, *w = &op->in[1]->shape;
  gboolean ok = same_float (op, error) && expect (dy->rank >= 2 && w->rank == 2 && features_of (dy) == w->size[0], op, 0, "(..., out)", error);
  set (op, 0, op->in[0]->dtype, with_features (dy, w->size[1]));
  return ok;
}

RULE (linear_grad_weight)
{
  const HeddleShape *dy = &op->in[0]->shape, *x = &op->in[1]->shape;
  HeddleShape rows = with_features (dy, features_of (x));
  gboolean ok = same_float (op, error) && expect (dy->rank >= 2 && heddle_shape_equal (&rows, x), op, 0, "(..., out)", error);
  set (op, 0, op->in[0]->dtype, heddle_shape (features_of (dy), features_of (x)));
  set (op, 1, op->in[0]->dtype, heddle_shape (features_of (dy)));
  return ok;
}

/* ---- convolution and pooling ---- */

static gboolean
conv_attributes (const HeddleConvAttr *a, GError **error)
{
  gboolean ok = a->groups >= 1 || refuse (error, "groups must be at least 1");
  for (int i = 0; ok && i < 2; i++)
    ok = (a->stride[i] >= 1 && a->dilation[i] >= 1 && a->padding[i] >= 0) || refuse (error, "stride and dilation must be at least 1, padding at least 0");
  return ok;
}

static gint64
window_outputs (gint64 size, gint64 kernel, gint64 stride, gint64 padding, gint64 dilation)
{
  gint64 room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

static gboolean
conv_output (const HeddleConvAttr *a, const HeddleShape *x, const HeddleShape *w, HeddleShape *y, GError **error)
{
  gboolean ok = conv_attributes (a, error)
                && ((x->rank == 4 && w->rank == 4) || refuse (error, "expects images (N, C, H, W) and a weight (Cout, Cin/groups, Kh, Kw)"))
                && (w->size[1] * a->groups == x->size[1] || refuse (error, "input has %" G_GINT64_FORMAT " channels, the weight expects %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT " groups", x->size[1], w->size[1], a->groups))
                && (w->size[0] % a->groups == 0 || refuse (error, "%" G_GINT64_FORMAT " output channels are not a multiple of %" G_GINT64_FORMAT " groups", w->size[0], a->groups));
  if (ok)
    *y = heddle_shape (x->size[0], w->size[0], window_outputs (x->size[2], w->size[2], a->stride[0], a->padding[0], a->dilation[0]),
                       window_outputs (x->size[3], w->size[3], a->stride[1], a->padding[1], a->dilation[1]));
  if (ok && (y->size[2] < 1 || y->size[3] < 1))
    ok = refuse (error, "the kernel %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT " is larger than the padded image %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT, w->size[2], w->size[3],
                 x->size[2] + 2 * a->padding[0], x->size[3] + 2 * a->padding[1]);
  return ok;
}

RULE (conv2d)
{
  HeddleShape y = { 0 };
  gboolean ok = same_float (op, error) && conv_output (ATTR (HeddleConvAttr), &op->in[0]->shape, &op->in[1]->shape, &y, error)
                && (op->n_in < 3 || expect (op->in[2]->shape.rank == 1 && op->in[2]->shape.size[0] == op->in[1]->shape.size[0], op, 2, "one bias per output channel", error));
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

RULE (conv2d_grad_input)
{
  const HeddleConvAttr *a = ATTR (HeddleConvAttr);
  HeddleShape y = { 0 };
  gboolean ok = same_float (op, error) && conv_output (a, &a->input, &op->in[1]->shape, &y, error)
                && expect (heddle_shape_equal (&y, &op->in[0]->shape), op, 0, "the convolution's output shape", error);
  set (op, 0, op->in[0]->dtype, a->input);
  return ok;
}

RULE (conv2d_grad_weight)
{
  const HeddleConvAttr *a = ATTR (HeddleConvAttr);
  HeddleShape y = { 0 };
  gboolean ok = same_float (op, error) && conv_output (a, &op->in[1]->shape, &a->weight, &y, error)
                && expect (heddle_shape_equal (&y, &op->in[0]->shape), op, 0, "the convolution's output shape", error);
  set (op, 0, op->in[0]->dtype, a->weight);
  set (op, 1, op->in[0]->dtype, heddle_shape (a->weight.size[0]));
  return ok;
}

static gboolean
pool_output (const HeddleOp *op, const HeddleShape *x, HeddleShape *y, GError **error)
{
  const HeddlePoolAttr *a = ATTR (HeddlePoolAttr);
  gboolean maximum = op->info->code == HEDDLE_OP_MAX_POOL || op->info->code == HEDDLE_OP_MAX_POOL_GRAD;
  gboolean ok = x->rank == 4 || refuse (error, "expects images (N, C, H, W), got rank %d", x->rank);
  for (int i = 0; ok && i < 2; i++)
    ok = ((a->kernel[i] >= 1 && a->stride[i] >= 1) || refuse (error, "kernel and stride must be at least 1"))
         && ((a->padding[i] >= 0 && 2 * a->padding[i] <= a->kernel[i]) || refuse (error, "padding must be at most half the kernel"));
  ok = ok && (!maximum || a->kernel[0] * a->kernel[1] <= 255 || refuse (error, "the window has more than 255 elements"));
  if (ok)
    *y = heddle_shape (x->size[0], x->size[1], window_outputs (x->size[2], a->kernel[0], a->stride[0], a->padding[0], 1),
                       window_outputs (x->size[3], a->kernel[1], a->stride[1], a->padding[1], 1));
  if (ok && (y->size[2] < 1 || y->size[3] < 1))
    ok = refuse (error, "the window is larger than the padded image %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT, x->size[2], x->size[3]);
  return ok;
}

RULE (pool)
{
  HeddleShape y = { 0 };
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error) && pool_output (op, &op->in[0]->shape, &y, error);
  set (op, 0, op->in[0]->dtype, y);
  if (op->n_out > 1)
    set (op, 1, HEDDLE_U8, y);
  return ok;
}

RULE (pool_grad)
{
  const HeddleShape *x = &ATTR (HeddlePoolAttr)->input;
  HeddleShape y = { 0 };
  gboolean ok = pool_output (op, x, &y, error) && expect (heddle_shape_equal (&y, &op->in[0]->shape), op, 0, "the pooled shape", error)
                && (op->n_in < 2 || expect (op->in[1]->dtype == HEDDLE_U8 && heddle_shape_equal (&y, &op->in[1]->shape), op, 1, "u8 indices", error));
  set (op, 0, op->in[0]->dtype, *x);
  return ok;
}

/* ---- normalisation, softmax, losses ---- */

static gboolean
per_channel (const HeddleOp *op, guint first, guint end, const HeddleValue *x, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = first; ok && i < end; i++)
    ok = expect (op->in[i]->dtype == HEDDLE_F32 && op->in[i]->shape.rank == 1 && op->in[i]->shape.size[0] == x->shape.size[1], op, i, "f32, one number per channel", error);
  return ok;
}

RULE (batch_norm)
{
  const HeddleValue *x = op->in[0];
  const HeddleShape *s = &x->shape;
  gboolean ok = expect (is_float (x) && s->rank >= 2, op, 0, "a floating-point tensor (N, C, ...)", error) && per_channel (op, 1, 5, x, error);
  if (ok && ATTR (HeddleBatchNormAttr)->training && heddle_shape_count (s) == s->size[1])
    ok = refuse (error, "one value per channel has no variance\nhint: use a larger batch, or drop_last = true if this is the last batch of an epoch");
  set (op, 0, x->dtype, *s);
  for (guint i = 1; i < 5; i++)
    set (op, i, HEDDLE_F32, channels_of (x));
  return ok;
}

RULE (batch_norm_grad)
{
  const HeddleValue *x = op->in[1];
  gboolean ok = expect (heddle_shape_equal (&op->in[0]->shape, &x->shape), op, 0, "the input's shape", error) && per_channel (op, 2, 5, x, error);
  set (op, 0, op->in[0]->dtype, x->shape);
  set (op, 1, HEDDLE_F32, channels_of (x));
  set (op, 2, HEDDLE_F32, channels_of (x));
  return ok;
}

RULE (axis)
{
  const HeddleValue *x = op->in[0];
  gboolean ok = expect (is_float (x) && heddle_axis_index (ATTR (HeddleAxisAttr)->axis, x->shape.rank) >= 0, op, 0, "a floating-point tensor that has this axis", error);
  set (op, 0, x->dtype, x->shape);
  return ok;
}

RULE (axis_grad)
{
  return heddle_shape_rule_axis (op, error) && expect (heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape), op, 1, "the gradient's shape", error);
}

static gboolean
logits_and_labels (const HeddleOp *op, guint first, GError **error)
{
  const HeddleShape *x = &op->in[first]->shape, *y = &op->in[first + 1]->shape;
  HeddleDtype labels = op->in[first + 1]->dtype;
  return expect (is_float (op->in[first]) && x->rank == 2, op, first, "logits (N, classes)", error)
         && expect (y->rank == 1 && y->size[0] == x->size[0] && (labels == HEDDLE_I64 || labels == HEDDLE_I32 || labels == HEDDLE_U8), op, first + 1, "one integer label per sample", error);
}

RULE (cross_entropy)
{
  double smoothing = ATTR (HeddleCrossEntropyAttr)->label_smoothing;
  gboolean ok = logits_and_labels (op, 0, error) && ((smoothing >= 0 && smoothing <= 1) || refuse (error, "label smoothing %g is not in [0, 1]", smoothing))
                && (op->n_in < 3 || expect (op->in[2]->shape.rank == 1 && op->in[2]->shape.size[0] == op->in[0]->shape.size[1], op, 2, "one weight per class", error));
  set (op, 0, HEDDLE_F32, heddle_scalar_shape ());
  set (op, 1, HEDDLE_F32, heddle_scalar_shape ());
  return ok;
}

RULE (cross_entropy_grad)
{
  gboolean ok = logits_and_labels (op, 1, error);
  set (op, 0, op->in[1]->dtype, op->in[1]->shape);
  return ok;
}

RULE (mse)
{
  gboolean ok = same_float (op, error) && expect (heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape), op, 1, "a target of the input's shape", error);
  set (op, 0, HEDDLE_F32, heddle_scalar_shape ());
  set (op, 1, HEDDLE_F32, heddle_scalar_shape ());
  return ok;
}

RULE (top_k)
{
  gint64 k = ATTR (HeddleTopKAttr)->k;
  gboolean ok = logits_and_labels (op, 0, error)
                && ((k >= 1 && k <= op->in[0]->shape.size[1]) || refuse (error, "k = %" G_GINT64_FORMAT " is not in 1..%" G_GINT64_FORMAT " (classes)", k, op->in[0]->shape.size[1]));
  set (op, 0, HEDDLE_F32, heddle_scalar_shape ());
  set (op, 1, HEDDLE_F32, heddle_scalar_shape ());
  return ok;
}

/* ---- effects ---- */

RULE (assign)
{
  return expect (op->in[0]->kind == HEDDLE_VALUE_VARIABLE, op, 0, "a variable", error)
         && expect (heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape) && op->in[0]->dtype == op->in[1]->dtype, op, 1, "the variable's shape and dtype", error)
         && (op->n_in < 3 || expect (op->in[2]->shape.rank == 0, op, 2, "a scalar", error));
}

RULE (scaler_update)
{
  set (op, 0, HEDDLE_F32, heddle_scalar_shape ());
  set (op, 1, HEDDLE_F32, heddle_scalar_shape ());
  return expect (op->in[0]->shape.rank == 0 && op->in[1]->shape.rank == 0 && op->in[2]->shape.rank == 0, op, 0, "scalars", error);
}

/* ---- transposed convolution, resampling, further losses ---- */

/* .input becomes the result's shape: what conv2d_grad_input would be asked for. */
RULE (conv_transpose2d)
{
  HeddleConvAttr *a = op->attr;
  const HeddleShape *x = &op->in[0]->shape, *w = &op->in[1]->shape;
  HeddleShape back = { 0 };
  gboolean ok = same_float (op, error) && conv_attributes (a, error)
                && ((x->rank == 4 && w->rank == 4) || refuse (error, "expects images (N, C, H, W) and a weight (Cin, Cout/groups, Kh, Kw)"))
                && (w->size[0] == x->size[1] || refuse (error, "input has %" G_GINT64_FORMAT " channels, the weight expects %" G_GINT64_FORMAT, x->size[1], w->size[0]));
  if (ok)
    a->input = heddle_shape (x->size[0], w->size[1] * a->groups, 0, 0);
  for (int i = 0; ok && i < 2; i++)
    {
      a->input.size[2 + i] = (x->size[2 + i] - 1) * a->stride[i] - 2 * a->padding[i] + a->dilation[i] * (w->size[2 + i] - 1) + a->output_padding[i] + 1;
      ok = (a->output_padding[i] >= 0 && a->output_padding[i] < a->stride[i]) || refuse (error, "output_padding must be less than the stride");
    }
  ok = ok && ((a->input.size[2] >= 1 && a->input.size[3] >= 1) || refuse (error, "padding %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT " leaves nothing of the result", a->padding[0], a->padding[1]))
       && conv_output (a, &a->input, w, &back, error)
       && (op->n_in < 3 || expect (op->in[2]->shape.rank == 1 && op->in[2]->shape.size[0] == a->input.size[1], op, 2, "one bias per output channel", error));
  set (op, 0, op->in[0]->dtype, a->input);
  return ok;
}

static gboolean
upsample_size (const HeddleUpsampleAttr *a, GError **error)
{
  return (a->size[0] >= 1 && a->size[1] >= 1) || refuse (error, "the size %" G_GINT64_FORMAT "x%" G_GINT64_FORMAT " is not at least 1x1", a->size[0], a->size[1]);
}

RULE (upsample)
{
  const HeddleUpsampleAttr *a = ATTR (HeddleUpsampleAttr);
  const HeddleShape *x = &op->in[0]->shape;
  gboolean ok = expect (is_float (op->in[0]) && x->rank == 4, op, 0, "floating-point images (N, C, H, W)", error) && upsample_size (a, error);
  set (op, 0, op->in[0]->dtype, heddle_shape (x->size[0], x->size[1], a->size[0], a->size[1]));
  return ok;
}

RULE (upsample_grad)
{
  const HeddleUpsampleAttr *a = ATTR (HeddleUpsampleAttr);
  HeddleShape y = heddle_shape (a->input.size[0], a->input.size[1], a->size[0], a->size[1]);
  set (op, 0, op->in[0]->dtype, a->input);
  return expect (is_float (op->in[0]) && heddle_shape_equal (&y, &op->in[0]->shape), op, 0, "the upsampled shape", error);
}

RULE (bce_with_logits)
{
  const HeddleShape *x = &op->in[0]->shape, *p = op->n_in > 2 ? &op->in[2]->shape : NULL;
  return heddle_shape_rule_mse (op, error)
         && (!p || expect (p->rank == 0 || (p->rank == 1 && x->rank > 0 && p->size[0] == x->size[x->rank - 1]), op, 2, "a scalar or one weight per index of the last axis", error));
}

RULE (smooth_l1)
{
  double beta = ATTR (HeddleSmoothL1Attr)->beta;
  return heddle_shape_rule_mse (op, error) && ((beta >= 0 && beta < INFINITY) || refuse (error, "beta = %g is not a number from 0 on", beta));
}

RULE (kl_div)
{
  return heddle_shape_rule_mse (op, error) && (!ATTR (HeddleKlDivAttr)->batch_mean || expect (op->in[0]->shape.rank > 0, op, 0, "samples (N, ...)", error));
}

/* ---- over the parameters of a group ---- */

/* The group whose flat parameters input 2 is, or NULL with an error. */
static const HeddleGroup *
group_of (const HeddleOp *op, GError **error)
{
  const HeddleVariable *v = op->in[1]->kind == HEDDLE_VALUE_VARIABLE ? op->in[1]->variable : NULL;
  gboolean flat = v && v->group && v == v->group->param;
  if (!flat)
    expect (FALSE, op, 1, "the parameters of a group (HeddleUpdate.param)", error);
  return flat ? v->group : NULL;
}

RULE (param_sum)
{
  const HeddleGroup *group = group_of (op, error);
  gboolean ok = group && expect (op->in[0]->dtype == HEDDLE_F32 && heddle_shape_equal (&op->in[0]->shape, &op->in[1]->shape), op, 0, "a tensor as long as the group, f32", error);
  if (ok)
    set (op, 0, HEDDLE_F32, heddle_shape ((gint64) group->params->len));
  return ok;
}

RULE (param_spread)
{
  const HeddleGroup *group = group_of (op, error);
  const HeddleShape *v = &op->in[0]->shape;
  gboolean ok = group && expect (op->in[0]->dtype == HEDDLE_F32 && v->rank == 1 && v->size[0] == (gint64) group->params->len, op, 0, "one f32 number per parameter of the group", error);
  if (ok)
    set (op, 0, HEDDLE_F32, op->in[1]->shape);
  return ok;
}
