/* program/build.h: the builder, as models and optimizers see it: values, operations, layers.
 * Must not know backends or devices: everything here only describes; nothing is computed while building. */
#ifndef HEDDLE_PROGRAM_BUILD_H
#define HEDDLE_PROGRAM_BUILD_H

#include "base/error.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdarg.h>

G_BEGIN_DECLS

/* A value is a tensor that will exist when the program runs: shape and dtype are known now, numbers are not.
 * Values belong to the builder; never free one.  NULL stands for "an earlier call failed": the builder keeps the
 * first error, every later call does nothing and returns NULL, so that no line of a model needs a check. */
typedef struct _HeddleValue   HeddleValue;
typedef struct _HeddleBuilder HeddleBuilder;

/* ---- operations --------------------------------------------------------------------------------------------
 * X (CODE, number, name): the numbers never change (ABI); new operations are appended.
 * Shapes, formulas and their sources, gradient and AMP class of each stand in THE op table, program/optable.c.
 * Tensors are row-major; images (N, C, H, W), convolution weights (Cout, Cin/groups, Kh, Kw), linear weights (out, in). */
#define HEDDLE_OPS(X) \
  /* elementwise, two inputs, NumPy broadcasting */ \
  X (ADD, 1, add) X (SUB, 2, sub) X (MUL, 3, mul) X (DIV, 4, div) X (MAX, 5, max) X (MIN, 6, min) \
  X (GREATER, 7, greater)              /* a > b ? 1 : 0, in the dtype of a; no gradient */ \
  X (SELECT, 8, select)                /* (c, a, b): c != 0 ? a : b */ \
  /* elementwise, one input */ \
  X (NEG, 16, neg) X (ABS, 17, abs) X (SIGN, 18, sign) X (EXP, 19, exp) X (EXPM1, 20, expm1) X (LOG, 21, log) \
  X (SQRT, 22, sqrt) X (RSQRT, 23, rsqrt) X (SQUARE, 24, square) X (RECIPROCAL, 25, reciprocal) \
  X (RELU, 26, relu) X (SIGMOID, 27, sigmoid) X (TANH, 28, tanh) \
  X (GELU, 29, gelu)                   /* HeddleGeluAttr */ \
  X (CAST, 30, cast)                   /* HeddleCastAttr */ \
  X (DEQUANTIZE, 31, dequantize)       /* (x (N, C, ...)): (x * scale - mean[c]) / std[c] as f32; HeddleDequantizeAttr */ \
  X (DROPOUT, 32, dropout)             /* (x, step): HeddleDropoutAttr; the mask is a function of (seed, key, step, element) */ \
  /* elementwise halves of gradients; their inputs are named in optable.c */ \
  X (RELU_GRAD, 40, relu_grad)         /* (dy, y): y > 0 ? dy : 0 */ \
  X (SIGMOID_GRAD, 41, sigmoid_grad)   /* (dy, y): dy y (1 - y) */ \
  X (TANH_GRAD, 42, tanh_grad)         /* (dy, y): dy (1 - y^2) */ \
  X (GELU_GRAD, 43, gelu_grad)         /* (dy, x): HeddleGeluAttr */ \
  /* shape */ \
  X (RESHAPE, 48, reshape)             /* HeddleShapeAttr; no bytes move */ \
  X (BROADCAST, 49, broadcast)         /* to HeddleShapeAttr, NumPy's rule */ \
  /* reductions; HeddleReduceAttr */ \
  X (SUM, 56, sum) X (MEAN, 57, mean) \
  X (SUM_TO, 58, sum_to)               /* HeddleShapeAttr: sums over what broadcasting had expanded */ \
  X (NORM_STATS, 59, norm_stats)       /* (x any shape): [0] sum of squares, f32 scalar; [1] 1 if any element is not finite, else 0 */ \
  /* linear algebra */ \
  X (MATMUL, 64, matmul)               /* (a (M, K), b (K, N)): HeddleMatmulAttr */ \
  X (LINEAR, 65, linear)               /* (x (N, I), w (O, I)[, bias (O)]): x w^T + bias (N, O) */ \
  X (CONV2D, 66, conv2d)               /* (x, w[, bias (Cout)]): HeddleConvAttr */ \
  X (CONV2D_GRAD_INPUT, 67, conv2d_grad_input)     /* (dy, w): HeddleConvAttr with .input */ \
  X (CONV2D_GRAD_WEIGHT, 68, conv2d_grad_weight)   /* (dy, x): HeddleConvAttr with .weight; [1] is the bias gradient when .bias */ \
  X (LINEAR_GRAD_INPUT, 69, linear_grad_input)     /* (dy (N, O), w (O, I)): (N, I) */ \
  X (LINEAR_GRAD_WEIGHT, 70, linear_grad_weight)   /* (dy (N, O), x (N, I)): HeddleConvAttr.bias; [0] (O, I), [1] (O) when .bias */ \
  /* pooling; HeddlePoolAttr */ \
  X (MAX_POOL, 80, max_pool)           /* [0] y, [1] u8 argument of the maximum inside its window (row-major, k <= 255) */ \
  X (MAX_POOL_GRAD, 81, max_pool_grad) /* (dy, index): .input */ \
  X (AVG_POOL, 82, avg_pool) \
  X (AVG_POOL_GRAD, 83, avg_pool_grad) /* (dy): .input */ \
  /* normalisation; HeddleBatchNormAttr */ \
  X (BATCH_NORM, 88, batch_norm)       /* (x (N, C, ...), scale (C), shift (C), mean (C), variance (C)): [0] y, [1] batch mean, \
                                          [2] 1/sqrt (batch variance + eps), [3] new running mean, [4] new running variance; \
                                          when not .training: y from the given statistics, [1..4] pass them through */ \
  X (BATCH_NORM_GRAD, 89, batch_norm_grad)         /* (dy, x, scale, mean, rstd): [0] dx, [1] dscale, [2] dshift */ \
  /* softmax and losses */ \
  X (SOFTMAX, 96, softmax) X (LOG_SOFTMAX, 97, log_softmax)          /* HeddleAxisAttr */ \
  X (SOFTMAX_GRAD, 98, softmax_grad) X (LOG_SOFTMAX_GRAD, 99, log_softmax_grad)   /* (dy, y): HeddleAxisAttr */ \
  X (CROSS_ENTROPY, 104, cross_entropy) /* (logits (N, K), labels (N) i64[, class weights (K)]): HeddleCrossEntropyAttr; \
                                           [0] mean loss f32 scalar, [1] its denominator, the sum of weights w_y over samples not ignored; \
                                           all ignored: loss 0, denominator 0 */ \
  X (CROSS_ENTROPY_GRAD, 105, cross_entropy_grad)  /* (g scalar, logits, labels, denominator[, class weights]): d logits */ \
  X (MSE, 106, mse)                    /* (x, target): [0] mean over all elements, f32 scalar, [1] number of elements */ \
  X (TOP_K, 107, top_k)                /* (logits (N, K), labels (N)): HeddleTopKAttr; [0] samples whose label is among the k largest \
                                          logits (ties: smaller class index wins), [1] samples counted; f32 scalars */ \
  /* effects */ \
  X (ASSIGN, 112, assign)              /* (variable, value[, skip scalar]): variable = value unless skip != 0; no output */ \
  X (SCALER_UPDATE, 113, scaler_update) /* (scale, tracker, skip): HeddleScalerAttr; [0] new scale, [1] new tracker, f32 scalars */ \
  /* more activations, elementwise, and the halves of their gradients */ \
  X (SILU, 150, silu) X (HARDSWISH, 151, hardswish) \
  X (LEAKY_RELU, 152, leaky_relu)      /* HeddleSlopeAttr */ \
  X (CLAMP, 153, clamp)                /* HeddleClampAttr; relu6 is clamp (0, 6) */ \
  X (SILU_GRAD, 154, silu_grad) X (HARDSWISH_GRAD, 155, hardswish_grad)           /* (dy, x) */ \
  X (LEAKY_RELU_GRAD, 156, leaky_relu_grad) X (CLAMP_GRAD, 157, clamp_grad)       /* (dy, y) */ \
  /* transposed convolution and resampling */ \
  X (CONV_TRANSPOSE2D, 160, conv_transpose2d)      /* (x, w (Cin, Cout/groups, Kh, Kw)[, bias (Cout)]): HeddleConvAttr with .output_padding */ \
  X (UPSAMPLE, 165, upsample) X (UPSAMPLE_GRAD, 166, upsample_grad)               /* (x), (dy): HeddleUpsampleAttr */ \
  /* losses: [0] mean loss, f32 scalar, [1] its denominator; gradients are composed of elementwise operations */ \
  X (BCE_WITH_LOGITS, 170, bce_with_logits)        /* (x, target[, weight of positives, a scalar or one per index of the last axis]) */ \
  X (L1, 171, l1)                      /* (x, target) */ \
  X (SMOOTH_L1, 172, smooth_l1)        /* (x, target): HeddleSmoothL1Attr */ \
  X (KL_DIV, 173, kl_div)              /* (log probabilities, target): HeddleKlDivAttr */

typedef enum
{
#define X(code, number, name) HEDDLE_OP_##code = number,
  HEDDLE_OPS (X)
#undef X
} HeddleOpCode;

/* ---- attributes; zero is the usual value of every member unless said otherwise ---------------------------- */
typedef struct { HeddleDtype dtype; } HeddleCastAttr;
typedef struct { gint32 tanh_form; } HeddleGeluAttr;            /* 0: x Phi (x) by erf; 1: the tanh approximation (arXiv 1606.08415) */
typedef struct { double slope; } HeddleSlopeAttr;               /* below 0; 0.01 in PyTorch */
typedef struct { double min, max; } HeddleClampAttr;
typedef struct { HeddleShape shape; } HeddleShapeAttr;
typedef struct { guint32 axes; gint32 keep_dims; } HeddleReduceAttr;   /* bit i = axis i; axes 0 = all */
typedef struct { gint32 transpose_a, transpose_b; } HeddleMatmulAttr;
typedef struct { gint32 axis; } HeddleAxisAttr;                 /* negative counts from the end */
typedef struct { double probability; guint64 seed; guint64 key; } HeddleDropoutAttr;
#define HEDDLE_MAX_CHANNELS_NORMALISED 16
typedef struct
{
  double scale;                                                 /* 1/255 for bytes that stand for [0, 1] */
  gint32 channels;                                              /* 1: the same mean and std for every channel */
  double mean[HEDDLE_MAX_CHANNELS_NORMALISED], std[HEDDLE_MAX_CHANNELS_NORMALISED];
} HeddleDequantizeAttr;
typedef struct
{
  gint64 stride[2], padding[2], dilation[2];                    /* height, width; stride and dilation >= 1 */
  gint64 groups;                                                /* >= 1 */
  HeddleShape input, weight;                                    /* gradients only: the shape to produce */
  gint32 bias;                                                  /* *_GRAD_WEIGHT only: also produce the bias gradient */
  gint64 output_padding[2];                                     /* CONV_TRANSPOSE2D only: rows and columns more, below the stride; which of the sizes that
                                                                   the convolution would have mapped to x is meant */
} HeddleConvAttr;
typedef struct
{
  gint64 kernel[2], stride[2], padding[2];                      /* stride >= 1; padding <= kernel / 2 */
  gint32 exclude_padding;                                       /* AVG_POOL: divide by the elements inside, not by the kernel's size */
  HeddleShape input;                                            /* gradients only */
} HeddlePoolAttr;
typedef struct
{
  gint64 size[2];                                               /* height and width to make */
  gint32 bilinear;                                              /* 0: the nearest pixel below, floor (i in / out); 1: PyTorch's align_corners = false */
  HeddleShape input;                                            /* gradient only */
} HeddleUpsampleAttr;
typedef struct { double beta; } HeddleSmoothL1Attr;             /* where the square passes into the line; 1 in PyTorch */
typedef struct { gint32 log_target, batch_mean; } HeddleKlDivAttr;   /* batch_mean: divided by the samples, not by the elements */
typedef struct { double eps, momentum; gint32 training; } HeddleBatchNormAttr;   /* running = (1 - momentum) running + momentum batch */
typedef struct { double label_smoothing; gint64 ignore_index; } HeddleCrossEntropyAttr;   /* ignore_index: -100 by default of the loss stage */
typedef struct { gint64 k; } HeddleTopKAttr;
typedef struct { double growth_factor, backoff_factor, growth_interval, min_scale; } HeddleScalerAttr;

/* ---- initialisation ----------------------------------------------------------------------------------------
 * For a weight (out, in, k...): fan_in = in * prod (k), fan_out = out * prod (k).  Each parameter is a function of (run seed, its
 * name) alone.  Formulas: K. He et al., arXiv 1502.01852; X. Glorot and Y. Bengio, AISTATS 2010. */
typedef enum
{
  HEDDLE_INIT_DEFAULT = 0,        /* weights: uniform +- 1/sqrt (fan_in), which is kaiming_uniform (a = sqrt 5); rank <= 1: zeros */
  HEDDLE_INIT_CONSTANT,           /* a */
  HEDDLE_INIT_UNIFORM,            /* [a, b) */
  HEDDLE_INIT_NORMAL,             /* mean a, standard deviation b */
  HEDDLE_INIT_KAIMING_UNIFORM,    /* +- sqrt (6 / fan_in): relu */
  HEDDLE_INIT_KAIMING_NORMAL,     /* sqrt (2 / fan_in): relu */
  HEDDLE_INIT_KAIMING_NORMAL_OUT, /* sqrt (2 / fan_out): relu, what torchvision's resnet uses */
  HEDDLE_INIT_XAVIER_UNIFORM      /* +- sqrt (6 / (fan_in + fan_out)) */
} HeddleInitKind;
typedef struct { HeddleInitKind kind; double a, b; } HeddleInit;

/* ---- the table behind the inline functions ---------------------------------------------------------------- */
typedef struct
{
  guint32 size;                    /* sizeof (HeddleBuilderIface) of the core; newer slots are appended */
  /* All: [main], while building.  INPUTS may hold NULL at the end for optional inputs.  OUTPUTS receives N_OUTPUTS values
   * (fewer than the operation has is fine).  ATTR is copied; ATTR_SIZE is the caller's sizeof. */
  gboolean     (*emit)     (HeddleBuilder *b, HeddleOpCode op, const char *name, HeddleValue *const *inputs, guint n_inputs,
                            gconstpointer attr, gsize attr_size, HeddleValue **outputs, guint n_outputs);
  HeddleValue *(*param)    (HeddleBuilder *b, const char *name, const HeddleShape *shape, const HeddleInit *init);
  HeddleValue *(*state)    (HeddleBuilder *b, const char *name, HeddleDtype dtype, const HeddleShape *shape, double initial);
  HeddleValue *(*constant) (HeddleBuilder *b, double value);                 /* f32 scalar */
  void         (*shape)    (HeddleBuilder *b, HeddleValue *value, HeddleShape *shape, HeddleDtype *dtype);
  void         (*push)     (HeddleBuilder *b, const char *scope);
  void         (*pop)      (HeddleBuilder *b);
  gboolean     (*training) (HeddleBuilder *b);
  void         (*fail)     (HeddleBuilder *b, HeddleError code, const char *message);
  HeddleValue *(*step)     (HeddleBuilder *b);                               /* the step number, f32 scalar variable: dropout's second input */
  guint64      (*seed)     (HeddleBuilder *b);                               /* the run's seed */
  guint64      (*key)      (HeddleBuilder *b, const char *name);             /* hash of scope and name, for dropout */
} HeddleBuilderIface;

struct _HeddleBuilder
{
  const HeddleBuilderIface *iface;   /* what follows is the core's */
};

/* ---- questions --------------------------------------------------------------------------------------------- */

/* The shape of X; rank 0 after an error. */
static inline HeddleShape
heddle_shape_of (HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape shape = { 0 };
  if (x)
    b->iface->shape (b, x, &shape, NULL);
  return shape;
}

static inline HeddleDtype
heddle_dtype_of (HeddleBuilder *b, HeddleValue *x)
{
  HeddleDtype dtype = HEDDLE_F32;
  if (x)
    b->iface->shape (b, x, NULL, &dtype);
  return dtype;
}

/* Is this program for training (dropout active, batch statistics) or for evaluation? */
static inline gboolean
heddle_training (HeddleBuilder *b)
{
  return b->iface->training (b);
}

/* Fails the build with a message of the model's own ("expects 28x28 images"). */
static inline void G_GNUC_PRINTF (2, 3)
heddle_fail (HeddleBuilder *b, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *message = g_strdup_vprintf (format, args);
  va_end (args);
  b->iface->fail (b, HEDDLE_ERROR_PROGRAM, message);
}

/* Names inside are "scope.name": layer1.0.conv1.weight. */
static inline void
heddle_push (HeddleBuilder *b, const char *scope)
{
  b->iface->push (b, scope);
}

static inline void
heddle_pop (HeddleBuilder *b)
{
  b->iface->pop (b);
}

/* ---- values ------------------------------------------------------------------------------------------------ */

/* A trainable f32 parameter; the same name again returns the same parameter (sharing), if the shape is the same. */
static inline HeddleValue *
heddle_param (HeddleBuilder *b, const char *name, HeddleShape shape, HeddleInit init)
{
  return b->iface->param (b, name, &shape, &init);
}

/* Saved but not trained (running statistics), every element INITIAL. */
static inline HeddleValue *
heddle_state (HeddleBuilder *b, const char *name, HeddleShape shape, double initial)
{
  return b->iface->state (b, name, HEDDLE_F32, &shape, initial);
}

static inline HeddleValue *
heddle_constant (HeddleBuilder *b, double value)
{
  return b->iface->constant (b, value);
}

/* ---- operations as functions -------------------------------------------------------------------------------- */

static inline HeddleValue *
heddle_emit (HeddleBuilder *b, HeddleOpCode op, const char *name, HeddleValue *const *inputs, guint n_inputs,
             gconstpointer attr, gsize attr_size)
{
  HeddleValue *out = NULL;
  b->iface->emit (b, op, name, inputs, n_inputs, attr, attr_size, &out, 1);
  return out;
}

#define HEDDLE_UNARY_(name, CODE) \
  static inline HeddleValue *heddle_##name (HeddleBuilder *b, HeddleValue *x) \
  { return heddle_emit (b, HEDDLE_OP_##CODE, NULL, &x, 1, NULL, 0); }
#define HEDDLE_BINARY_(name, CODE) \
  static inline HeddleValue *heddle_##name (HeddleBuilder *b, HeddleValue *x, HeddleValue *y) \
  { HeddleValue *in[] = { x, y }; return heddle_emit (b, HEDDLE_OP_##CODE, NULL, in, 2, NULL, 0); }

HEDDLE_BINARY_ (add, ADD) HEDDLE_BINARY_ (sub, SUB) HEDDLE_BINARY_ (mul, MUL) HEDDLE_BINARY_ (div, DIV)
HEDDLE_BINARY_ (max, MAX) HEDDLE_BINARY_ (min, MIN) HEDDLE_BINARY_ (greater, GREATER)
HEDDLE_UNARY_ (neg, NEG) HEDDLE_UNARY_ (abs, ABS) HEDDLE_UNARY_ (sign, SIGN) HEDDLE_UNARY_ (exp, EXP)
HEDDLE_UNARY_ (expm1, EXPM1) HEDDLE_UNARY_ (log, LOG) HEDDLE_UNARY_ (sqrt, SQRT) HEDDLE_UNARY_ (rsqrt, RSQRT)
HEDDLE_UNARY_ (square, SQUARE) HEDDLE_UNARY_ (reciprocal, RECIPROCAL)
HEDDLE_UNARY_ (relu, RELU) HEDDLE_UNARY_ (sigmoid, SIGMOID) HEDDLE_UNARY_ (tanh, TANH)
HEDDLE_UNARY_ (silu, SILU) HEDDLE_UNARY_ (hardswish, HARDSWISH)

static inline HeddleValue *
heddle_select (HeddleBuilder *b, HeddleValue *condition, HeddleValue *x, HeddleValue *y)
{
  HeddleValue *in[] = { condition, x, y };
  return heddle_emit (b, HEDDLE_OP_SELECT, NULL, in, 3, NULL, 0);
}

/* x times or plus a plain number */
static inline HeddleValue *
heddle_scale (HeddleBuilder *b, HeddleValue *x, double factor)
{
  return heddle_mul (b, x, heddle_constant (b, factor));
}

static inline HeddleValue *
heddle_offset (HeddleBuilder *b, HeddleValue *x, double term)
{
  return heddle_add (b, x, heddle_constant (b, term));
}

static inline HeddleValue *
heddle_gelu (HeddleBuilder *b, HeddleValue *x)
{
  HeddleGeluAttr attr = { 0 };
  return heddle_emit (b, HEDDLE_OP_GELU, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_gelu_tanh (HeddleBuilder *b, HeddleValue *x)
{
  HeddleGeluAttr attr = { .tanh_form = 1 };
  return heddle_emit (b, HEDDLE_OP_GELU, NULL, &x, 1, &attr, sizeof attr);
}

/* x above 0, slope x below */
static inline HeddleValue *
heddle_leaky_relu (HeddleBuilder *b, HeddleValue *x, double slope)
{
  HeddleSlopeAttr attr = { slope };
  return heddle_emit (b, HEDDLE_OP_LEAKY_RELU, NULL, &x, 1, &attr, sizeof attr);
}

/* x held in [min, max]; no gradient flows outside nor at the bounds themselves, as in PyTorch's hardtanh and relu6 */
static inline HeddleValue *
heddle_clamp (HeddleBuilder *b, HeddleValue *x, double min, double max)
{
  HeddleClampAttr attr = { min, max };
  return heddle_emit (b, HEDDLE_OP_CLAMP, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_relu6 (HeddleBuilder *b, HeddleValue *x)
{
  return heddle_clamp (b, x, 0, 6);
}

static inline HeddleValue *
heddle_cast (HeddleBuilder *b, HeddleValue *x, HeddleDtype dtype)
{
  HeddleCastAttr attr = { dtype };
  return heddle_emit (b, HEDDLE_OP_CAST, NULL, &x, 1, &attr, sizeof attr);
}

/* One size may be -1: what is left. */
static inline HeddleValue *
heddle_reshape (HeddleBuilder *b, HeddleValue *x, HeddleShape shape)
{
  HeddleShapeAttr attr = { shape };
  return heddle_emit (b, HEDDLE_OP_RESHAPE, NULL, &x, 1, &attr, sizeof attr);
}

/* (N, ...) -> (N, rest) */
static inline HeddleValue *
heddle_flatten (HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape shape = heddle_shape_of (b, x);
  return heddle_reshape (b, x, heddle_shape (shape.rank > 0 ? shape.size[0] : 1, -1));
}

/* AXES: bit i = axis i, 0 = all. */
static inline HeddleValue *
heddle_sum (HeddleBuilder *b, HeddleValue *x, guint32 axes, gboolean keep_dims)
{
  HeddleReduceAttr attr = { axes, keep_dims };
  return heddle_emit (b, HEDDLE_OP_SUM, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_mean (HeddleBuilder *b, HeddleValue *x, guint32 axes, gboolean keep_dims)
{
  HeddleReduceAttr attr = { axes, keep_dims };
  return heddle_emit (b, HEDDLE_OP_MEAN, NULL, &x, 1, &attr, sizeof attr);
}

/* (N, C, H, W) -> (N, C): global average pooling */
static inline HeddleValue *
heddle_global_avg_pool (HeddleBuilder *b, HeddleValue *x)
{
  return heddle_mean (b, x, 1u << 2 | 1u << 3, FALSE);
}

static inline HeddleValue *
heddle_matmul (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, gboolean transpose_x, gboolean transpose_y)
{
  HeddleMatmulAttr attr = { transpose_x, transpose_y };
  HeddleValue *in[] = { x, y };
  return heddle_emit (b, HEDDLE_OP_MATMUL, NULL, in, 2, &attr, sizeof attr);
}

/* (N, C, H, W) -> (N, C, height, width) */
static inline HeddleValue *
heddle_upsample (HeddleBuilder *b, HeddleValue *x, gint64 height, gint64 width, gboolean bilinear)
{
  HeddleUpsampleAttr attr = { .size = { height, width }, .bilinear = bilinear };
  return heddle_emit (b, HEDDLE_OP_UPSAMPLE, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_bce_with_logits (HeddleBuilder *b, HeddleValue *x, HeddleValue *target)
{
  HeddleValue *in[] = { x, target };
  return heddle_emit (b, HEDDLE_OP_BCE_WITH_LOGITS, NULL, in, 2, NULL, 0);
}

static inline HeddleValue *
heddle_l1 (HeddleBuilder *b, HeddleValue *x, HeddleValue *target)
{
  HeddleValue *in[] = { x, target };
  return heddle_emit (b, HEDDLE_OP_L1, NULL, in, 2, NULL, 0);
}

static inline HeddleValue *
heddle_smooth_l1 (HeddleBuilder *b, HeddleValue *x, HeddleValue *target, double beta)
{
  HeddleSmoothL1Attr attr = { beta };
  HeddleValue *in[] = { x, target };
  return heddle_emit (b, HEDDLE_OP_SMOOTH_L1, NULL, in, 2, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_kl_div (HeddleBuilder *b, HeddleValue *log_probabilities, HeddleValue *target, gboolean log_target, gboolean batch_mean)
{
  HeddleKlDivAttr attr = { log_target, batch_mean };
  HeddleValue *in[] = { log_probabilities, target };
  return heddle_emit (b, HEDDLE_OP_KL_DIV, NULL, in, 2, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_softmax (HeddleBuilder *b, HeddleValue *x, gint32 axis)
{
  HeddleAxisAttr attr = { axis };
  return heddle_emit (b, HEDDLE_OP_SOFTMAX, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_log_softmax (HeddleBuilder *b, HeddleValue *x, gint32 axis)
{
  HeddleAxisAttr attr = { axis };
  return heddle_emit (b, HEDDLE_OP_LOG_SOFTMAX, NULL, &x, 1, &attr, sizeof attr);
}

/* variable = value when the program runs, unless SKIP (or NULL) is not 0.  For states and for an optimizer's slots. */
static inline void
heddle_assign (HeddleBuilder *b, HeddleValue *variable, HeddleValue *value)
{
  HeddleValue *in[] = { variable, value };
  b->iface->emit (b, HEDDLE_OP_ASSIGN, NULL, in, 2, NULL, 0, NULL, 0);
}

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
} HeddleLinearLayer;

/* x (N, I) -> (N, features); x of higher rank is flattened to (N, rest) first */
static inline HeddleValue *
heddle_linear_layer (HeddleBuilder *b, const char *name, HeddleValue *x, const HeddleLinearLayer *layer)
{
  HeddleValue *flat = heddle_shape_of (b, x).rank == 2 ? x : heddle_flatten (b, x);
  gint64 in = heddle_shape_of (b, flat).size[1];
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
