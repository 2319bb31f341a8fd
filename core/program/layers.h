/* program/layers.h: operations with parameters, as models see them: convolution, linear, norms, embedding, attention, dropout.
 * Must not know backends or devices: everything here is built of program/build.h's operations. */
#ifndef HEDDLE_PROGRAM_LAYERS_H
#define HEDDLE_PROGRAM_LAYERS_H

#include "program/build.h"

G_BEGIN_DECLS

/* ---- layers: operations with parameters ---------------------------------------------------------------------
 * Called with trailing designated members; a member left out has the value in brackets:
 *   x = heddle_conv2d (b, "conv1", x, .channels = 32, .kernel = 3, .padding = 1);
 * Parameters are named <scope>.<name>.weight and .bias, as in PyTorch. */

typedef struct
{
  gint64     channels;            /* output channels; required */
  gint64     kernel, kernel_w;    /* height [required]; width [= height] */
  gint64     stride, padding, dilation, groups;   /* [1, 0, 1, 1], the same in both directions */
  gboolean   no_bias;
  HeddleInit init;                /* of the weight */
} HeddleConv2dLayer;

/* x (N, Cin, H, W) -> (N, channels, (H + 2 padding - dilation (kernel - 1) - 1) / stride + 1, ...) */
static inline HeddleValue *
heddle_conv2d_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleConv2dLayer *layer)
{
  HeddleShape in = heddle_shape_of (b, x);
  gint64 groups = MAX (layer->groups, 1), kw = layer->kernel_w ? layer->kernel_w : layer->kernel;
  HeddleConvAttr attr = { .stride = { MAX (layer->stride, 1), MAX (layer->stride, 1) }, .padding = { layer->padding, layer->padding },
                          .dilation = { MAX (layer->dilation, 1), MAX (layer->dilation, 1) }, .groups = groups };
  double bound = 1.0 / sqrt (MAX (1.0, (double) (in.size[1] / groups * layer->kernel * kw)));
  if (x && in.rank != 4)
    heddle_fail (b, "conv2d \"%s\": expects (N, C, H, W), got rank %d", name, in.rank);
  heddle_push (b, name);
  HeddleValue *inputs[3] = { x };
  inputs[1] = heddle_param (b, "weight", heddle_shape (layer->channels, in.size[1] / groups, layer->kernel, kw), layer->init);
  inputs[2] = layer->no_bias ? NULL : heddle_param (b, "bias", heddle_shape (layer->channels), (HeddleInit) { HEDDLE_INIT_UNIFORM, -bound, bound });
  heddle_pop (b);
  return heddle_emit (b, HEDDLE_OP_CONV2D, name, inputs, layer->no_bias ? 2 : 3, &attr, sizeof attr);
}
#define heddle_conv2d(b, name, x, ...) heddle_conv2d_layer ((b), (name), (x), &(HeddleConv2dLayer) { __VA_ARGS__ })

typedef struct
{
  gint64     channels;            /* output channels; required */
  gint64     kernel, kernel_w;    /* height [required]; width [= height] */
  gint64     stride, padding, output_padding, dilation, groups;   /* [1, 0, 0, 1, 1], the same in both directions */
  gboolean   no_bias;
  HeddleInit init;                /* of the weight */
} HeddleConvTranspose2dLayer;

/* x (N, Cin, H, W) -> (N, channels, (H - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1, ...).  The bias' bound follows
 * PyTorch, whose fan_in of a transposed weight counts the output channels. */
static inline HeddleValue *
heddle_conv_transpose2d_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleConvTranspose2dLayer *layer)
{
  HeddleShape in = heddle_shape_of (b, x);
  gint64 groups = MAX (layer->groups, 1), kw = layer->kernel_w ? layer->kernel_w : layer->kernel;
  HeddleConvAttr attr = { .stride = { MAX (layer->stride, 1), MAX (layer->stride, 1) }, .padding = { layer->padding, layer->padding },
                          .dilation = { MAX (layer->dilation, 1), MAX (layer->dilation, 1) }, .groups = groups,
                          .output_padding = { layer->output_padding, layer->output_padding } };
  double bound = 1.0 / sqrt (MAX (1.0, (double) (layer->channels / groups * layer->kernel * kw)));
  if (x && in.rank != 4)
    heddle_fail (b, "conv_transpose2d \"%s\": expects (N, C, H, W), got rank %d", name, in.rank);
  heddle_push (b, name);
  HeddleValue *inputs[3] = { x };
  inputs[1] = heddle_param (b, "weight", heddle_shape (in.size[1], layer->channels / groups, layer->kernel, kw), layer->init);
  inputs[2] = layer->no_bias ? NULL : heddle_param (b, "bias", heddle_shape (layer->channels), (HeddleInit) { HEDDLE_INIT_UNIFORM, -bound, bound });
  heddle_pop (b);
  return heddle_emit (b, HEDDLE_OP_CONV_TRANSPOSE2D, name, inputs, layer->no_bias ? 2 : 3, &attr, sizeof attr);
}
#define heddle_conv_transpose2d(b, name, x, ...) heddle_conv_transpose2d_layer ((b), (name), (x), &(HeddleConvTranspose2dLayer) { __VA_ARGS__ })

typedef struct
{
  gint64     features;            /* outputs; required */
  gboolean   no_bias;
  HeddleInit init;
  gboolean   last_axis;           /* x (..., I) -> (..., features), as PyTorch's Linear does; what a transformer wants */
} HeddleLinearLayer;

/* x (N, I) -> (N, features); x of higher rank is flattened to (N, rest) first, unless .last_axis */
static inline HeddleValue *
heddle_linear_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleLinearLayer *layer)
{
  HeddleValue *flat = layer->last_axis || heddle_shape_of (b, x).rank == 2 ? x : heddle_flatten (b, x);
  HeddleShape shape = heddle_shape_of (b, flat);
  gint64 in = shape.rank > 0 ? shape.size[shape.rank - 1] : 0;
  double bound = 1.0 / sqrt (MAX (1.0, (double) in));
  heddle_push (b, name);
  HeddleValue *inputs[3] = { flat };
  inputs[1] = heddle_param (b, "weight", heddle_shape (layer->features, in), layer->init);
  inputs[2] = layer->no_bias ? NULL : heddle_param (b, "bias", heddle_shape (layer->features), (HeddleInit) { HEDDLE_INIT_UNIFORM, -bound, bound });
  heddle_pop (b);
  return heddle_emit (b, HEDDLE_OP_LINEAR, name, inputs, layer->no_bias ? 2 : 3, NULL, 0);
}
#define heddle_linear(b, name, x, ...) heddle_linear_layer ((b), (name), (x), &(HeddleLinearLayer) { __VA_ARGS__ })

typedef struct
{
  double     eps, momentum;       /* [1e-5, 0.1] */
  gboolean   no_affine;           /* scale 1 and shift 0, not trained */
  HeddleInit init;                /* of the scale [ones] */
} HeddleBatchNormLayer;

/* Training: y = (x - mean) / sqrt (biased variance + eps) * weight + bias over (N, H, W) per channel; running_mean and running_var move
 * towards the batch's mean and UNBIASED variance.  S. Ioffe and C. Szegedy, arXiv 1502.03167. */
static inline HeddleValue *
heddle_batch_norm_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleBatchNormLayer *layer)
{
  HeddleShape in = heddle_shape_of (b, x), channels = heddle_shape (in.size[1]);
  HeddleBatchNormAttr attr = { layer->eps > 0 ? layer->eps : 1e-5, layer->momentum > 0 ? layer->momentum : 0.1, heddle_training (b) };
  HeddleInit ones = { HEDDLE_INIT_CONSTANT, 1, 0 }, zeros = { HEDDLE_INIT_CONSTANT, 0, 0 };
  HeddleValue *inputs[5] = { x }, *out[5] = { NULL };
  heddle_push (b, name);
  inputs[1] = layer->no_affine ? heddle_state (b, "weight", channels, 1)
                               : heddle_param (b, "weight", channels, layer->init.kind ? layer->init : ones);
  inputs[2] = layer->no_affine ? heddle_state (b, "bias", channels, 0) : heddle_param (b, "bias", channels, zeros);
  inputs[3] = heddle_state (b, "running_mean", channels, 0);
  inputs[4] = heddle_state (b, "running_var", channels, 1);
  heddle_pop (b);
  b->iface->emit (b, HEDDLE_OP_BATCH_NORM, name, inputs, 5, &attr, sizeof attr, out, 5);
  if (attr.training)
    {
      heddle_assign (b, inputs[3], out[3]);
      heddle_assign (b, inputs[4], out[4]);
    }
  return out[0];
}
#define heddle_batch_norm(b, name, x, ...) heddle_batch_norm_layer ((b), (name), (x), &(HeddleBatchNormLayer) { __VA_ARGS__ })

typedef struct
{
  double     eps;                 /* [1e-5; rms_norm: 2^-23, the spacing of f32 at 1, as in PyTorch] */
  gint32     axes;                /* how many last axes are normalised together [1] */
  gboolean   no_affine, no_bias;  /* PyTorch: elementwise_affine = False, bias = False */
  HeddleInit init;                /* of the scale [ones] */
} HeddleLayerNormLayer;

/* The scale and shift of a norm, weight [ones] and bias [zeros], as PyTorch names them, into INPUTS[1] and [2]. */
static inline void
heddle_affine_params (HeddleBuilder *b, const char *name, HeddleShape shape, const HeddleInit *init, gboolean weight, gboolean bias, HeddleValue **inputs)
{
  HeddleInit ones = { HEDDLE_INIT_CONSTANT, 1, 0 }, zeros = { HEDDLE_INIT_CONSTANT, 0, 0 };
  heddle_push (b, name);
  inputs[1] = weight ? heddle_param (b, "weight", shape, init->kind ? *init : ones) : NULL;
  inputs[2] = weight && bias ? heddle_param (b, "bias", shape, zeros) : NULL;
  heddle_pop (b);
}

static inline HeddleShape
heddle_last_axes (HeddleBuilder *b, HeddleValue *x, gint32 axes)
{
  HeddleShape in = heddle_shape_of (b, x), last = { .rank = CLAMP (axes, 1, MAX (in.rank, 1)) };
  for (gint32 i = 0; i < last.rank && i < in.rank; i++)
    last.size[i] = in.size[in.rank - last.rank + i];
  return last;
}

/* y = (x - mean) / sqrt (biased variance + eps) * weight + bias over the last axes.  J. L. Ba et al., arXiv 1607.06450. */
static inline HeddleValue *
heddle_layer_norm_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleLayerNormLayer *layer)
{
  HeddleLayerNormAttr attr = { layer->eps > 0 ? layer->eps : 1e-5, layer->axes };
  HeddleValue *inputs[3] = { x };
  heddle_affine_params (b, name, heddle_last_axes (b, x, layer->axes), &layer->init, !layer->no_affine, !layer->no_bias, inputs);
  return heddle_emit (b, HEDDLE_OP_LAYER_NORM, name, inputs, 3, &attr, sizeof attr);
}
#define heddle_layer_norm(b, name, x, ...) heddle_layer_norm_layer ((b), (name), (x), &(HeddleLayerNormLayer) { __VA_ARGS__ })

/* y = x / sqrt (mean x^2 + eps) * weight over the last axes.  B. Zhang and R. Sennrich, arXiv 1910.07467. */
static inline HeddleValue *
heddle_rms_norm_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleLayerNormLayer *layer)
{
  HeddleLayerNormAttr attr = { layer->eps > 0 ? layer->eps : 0x1p-23, layer->axes };
  HeddleValue *inputs[3] = { x };
  heddle_affine_params (b, name, heddle_last_axes (b, x, layer->axes), &layer->init, !layer->no_affine, FALSE, inputs);
  return heddle_emit (b, HEDDLE_OP_RMS_NORM, name, inputs, 2, &attr, sizeof attr);
}
#define heddle_rms_norm(b, name, x, ...) heddle_rms_norm_layer ((b), (name), (x), &(HeddleLayerNormLayer) { __VA_ARGS__ })

/* Multi-head self-attention after its projection: qkv (B, T, 3 W) holds queries, keys, values, each of HEADS heads of W / HEADS -> (B, T, W). */
static inline HeddleValue *
heddle_self_attention (HeddleBuilder *b, HeddleValue *qkv, gint64 heads, gboolean causal)
{
  HeddleShape s = heddle_shape_of (b, qkv);
  gint64 width = s.size[2] / 3;
  HeddleValue *part[3];
  if (qkv && (s.rank != 3 || heads < 1 || s.size[2] != 3 * width || width % heads))
    heddle_fail (b, "self attention: %" G_GINT64_FORMAT " heads do not divide a projection (B, T, 3 W) with 3 W = %" G_GINT64_FORMAT, heads, s.size[2]);
  for (gint i = 0; i < 3; i++)
    part[i] = heddle_permute (b, heddle_reshape (b, heddle_slice (b, qkv, -1, i * width, (i + 1) * width), heddle_shape (s.size[0], s.size[1], heads, width / MAX (heads, 1))), 0, 2, 1, 3);
  return heddle_reshape (b, heddle_permute (b, heddle_scaled_dot_product_attention (b, part[0], part[1], part[2], causal, 0), 0, 2, 1, 3), heddle_shape (s.size[0], s.size[1], width));
}

typedef struct
{
  gint64     groups;              /* required; divides the channels */
  double     eps;                 /* [1e-5] */
  gboolean   no_affine;
  HeddleInit init;                /* of the scale [ones] */
} HeddleGroupNormLayer;

/* Each image and each group of channels by its own mean and biased variance; weight and bias per channel.  Y. Wu and K. He, arXiv 1803.08494. */
static inline HeddleValue *
heddle_group_norm_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleGroupNormLayer *layer)
{
  HeddleGroupNormAttr attr = { layer->eps > 0 ? layer->eps : 1e-5, layer->groups };
  HeddleValue *inputs[3] = { x };
  heddle_affine_params (b, name, heddle_shape (heddle_shape_of (b, x).size[1]), &layer->init, !layer->no_affine, TRUE, inputs);
  return heddle_emit (b, HEDDLE_OP_GROUP_NORM, name, inputs, 3, &attr, sizeof attr);
}
#define heddle_group_norm(b, name, x, ...) heddle_group_norm_layer ((b), (name), (x), &(HeddleGroupNormLayer) { __VA_ARGS__ })

typedef struct
{
  gint64     count, features;     /* rows of the table and their length; required */
  HeddleInit init;                /* [normal (0, 1)] */
} HeddleEmbeddingLayer;

/* indices (...) -> (..., features): rows of <name>.weight (count, features); an index outside 0..count-1 ends the run with an error */
static inline HeddleValue *
heddle_embedding_layer (HeddleBuilder *b, const char *name, HeddleValue *indices, const HeddleEmbeddingLayer *layer)
{
  HeddleInit normal = { HEDDLE_INIT_NORMAL, 0, 1 };
  HeddleValue *inputs[2] = { indices };
  heddle_push (b, name);
  inputs[1] = heddle_param (b, "weight", heddle_shape (layer->count, layer->features), layer->init.kind ? layer->init : normal);
  heddle_pop (b);
  return heddle_emit (b, HEDDLE_OP_EMBEDDING, name, inputs, 2, NULL, 0);
}
#define heddle_embedding(b, name, indices, ...) heddle_embedding_layer ((b), (name), (indices), &(HeddleEmbeddingLayer) { __VA_ARGS__ })

typedef struct
{
  gint64   kernel, stride, padding;   /* kernel required; stride [= kernel]; padding [0] */
  gboolean exclude_padding;           /* average: see HeddlePoolAttr */
} HeddlePoolLayer;

static inline HeddleValue *
heddle_pool_layer (HeddleBuilder *b, HeddleOpCode op, HeddleValue *x, const HeddlePoolLayer *layer)
{
  gint64 stride = layer->stride ? layer->stride : layer->kernel;
  HeddlePoolAttr attr = { { layer->kernel, layer->kernel }, { stride, stride }, { layer->padding, layer->padding }, layer->exclude_padding, { 0 } };
  return heddle_emit (b, op, NULL, &x, 1, &attr, sizeof attr);
}
#define heddle_max_pool(b, x, ...) heddle_pool_layer ((b), HEDDLE_OP_MAX_POOL, (x), &(HeddlePoolLayer) { __VA_ARGS__ })
#define heddle_avg_pool(b, x, ...) heddle_pool_layer ((b), HEDDLE_OP_AVG_POOL, (x), &(HeddlePoolLayer) { __VA_ARGS__ })

/* Zeroes elements with PROBABILITY and scales the others by 1 / (1 - probability); does nothing in evaluation. */
static inline HeddleValue *
heddle_dropout (HeddleBuilder *b, const char *name, HeddleValue *x, double probability)
{
  HeddleValue *y = x;
  if (heddle_training (b) && probability > 0)
    {
      HeddleDropoutAttr attr = { probability, b->iface->seed (b), b->iface->key (b, name) };
      HeddleValue *in[] = { x, b->iface->step (b) };
      y = heddle_emit (b, HEDDLE_OP_DROPOUT, name, in, 2, &attr, sizeof attr);
    }
  return y;
}

G_END_DECLS

#endif
