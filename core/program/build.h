/* program/build.h: the builder, as models and optimizers see it: values and operations; layers are in layers.h.
 * Must not know backends or devices: everything here only describes; nothing is computed while building. */
#ifndef HEDDLE_PROGRAM_BUILD_H
#define HEDDLE_PROGRAM_BUILD_H

#include "base/error.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

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
  X (MATMUL, 64, matmul)               /* (a (..., M, K), b (..., K, N) or (K, N)): HeddleMatmulAttr; leading axes are equal */ \
  X (LINEAR, 65, linear)               /* (x (..., I), w (O, I)[, bias (O)]): x w^T + bias (..., O) */ \
  X (CONV2D, 66, conv2d)               /* (x, w[, bias (Cout)]): HeddleConvAttr */ \
  X (CONV2D_GRAD_INPUT, 67, conv2d_grad_input)     /* (dy, w): HeddleConvAttr with .input */ \
  X (CONV2D_GRAD_WEIGHT, 68, conv2d_grad_weight)   /* (dy, x): HeddleConvAttr with .weight; [1] is the bias gradient when .bias */ \
  X (LINEAR_GRAD_INPUT, 69, linear_grad_input)     /* (dy (..., O), w (O, I)): (..., I) */ \
  X (LINEAR_GRAD_WEIGHT, 70, linear_grad_weight)   /* (dy (..., O), x (..., I)): HeddleConvAttr.bias; [0] (O, I), [1] (O) when .bias */ \
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
  X (CUSTOM, 110, custom)              /* an operation that a plugin brings: HeddleCustomAttr; see heddle_custom () */ \
  /* effects */ \
  X (ASSIGN, 112, assign)              /* (variable, value[, skip scalar]): variable = value unless skip != 0; no output */ \
  X (SCALER_UPDATE, 113, scaler_update) /* (scale, tracker, skip): HeddleScalerAttr; [0] new scale, [1] new tracker, f32 scalars */ \
  /* sequences: norms over last axes and over groups of channels */ \
  X (LAYER_NORM, 120, layer_norm)      /* (x[, scale[, shift]]): HeddleLayerNormAttr; [0] y, [1] mean and [2] 1/sqrt (biased variance + eps) of each row, f32 */ \
  X (LAYER_NORM_GRAD, 121, layer_norm_grad)        /* (dy, x, mean, rstd[, scale]): [0] dx, [1] dscale, [2] dshift */ \
  X (RMS_NORM, 122, rms_norm)          /* (x[, scale]): HeddleLayerNormAttr; [0] y, [1] 1/sqrt (mean x^2 + eps) of each row, f32 */ \
  X (RMS_NORM_GRAD, 123, rms_norm_grad)            /* (dy, x, rstd[, scale]): [0] dx, [1] dscale */ \
  X (GROUP_NORM, 124, group_norm)      /* (x (N, C, ...)[, scale (C)[, shift (C)]]): HeddleGroupNormAttr; [0] y, [1] mean and [2] rstd (N, groups), f32 */ \
  X (GROUP_NORM_GRAD, 125, group_norm_grad)        /* (dy, x, mean, rstd[, scale]): [0] dx, [1] dscale, [2] dshift */ \
  X (EMBEDDING, 126, embedding)        /* (indices (...) i64, i32 or u8, table (V, D)): (..., D) */ \
  X (EMBEDDING_GRAD, 127, embedding_grad)          /* (dy (..., D), indices (...)): HeddleShapeAttr, the table's (V, D) */ \
  /* movement */ \
  X (PERMUTE, 128, permute)            /* HeddlePermuteAttr: axis i of the result is axis axes[i] of x */ \
  X (CONCAT, 129, concat)              /* (x0, x1, ...), at most HEDDLE_MAX_CONCAT: HeddleAxisAttr */ \
  X (SLICE, 130, slice)                /* HeddleSliceAttr */ \
  X (SLICE_GRAD, 131, slice_grad)      /* (dy): HeddleSliceAttr with .input; zeros where nothing was taken */ \
  X (PAD, 132, pad)                    /* HeddlePadAttr */ \
  /* attention; q (B, H, T, D), k (B, H, S, D), v (B, H, S, E); HeddleAttentionAttr */ \
  X (ATTENTION, 133, attention)        /* (q, k, v): [0] softmax (scale q k^T) v (B, H, T, E), [1] log sum e^score of each row (B, H, T), f32 */ \
  X (ATTENTION_GRAD, 134, attention_grad)          /* (dy, q, k, v, y, log sum): [0] dq, [1] dk, [2] dv */ \
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
  X (KL_DIV, 173, kl_div)              /* (log probabilities, target): HeddleKlDivAttr */ \
  /* reductions over the parameters of a group, for optimizers; (n) is flat like the group, P the number of its parameters */ \
  X (PARAM_SUM, 190, param_sum)        /* (x (n), param): HeddleParamSumAttr; (P) sum of the elements of each parameter's window; PARAM is the group's \
                                          flat variable, of which only the windows count; gaps between windows are not read */ \
  X (PARAM_SPREAD, 191, param_spread)  /* (v (P), param): (n) v[p] in all of parameter p's window, 0 in the gaps */

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
typedef struct { gint32 transpose_a, transpose_b; } HeddleMatmulAttr;   /* of the last two axes */
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
typedef struct { gint32 squares; } HeddleParamSumAttr;          /* 1: sums the squares of the elements */
typedef struct { double growth_factor, backoff_factor, growth_interval, min_scale; } HeddleScalerAttr;
typedef struct { double eps; gint32 axes; } HeddleLayerNormAttr;       /* how many last axes make a row; 0 = 1.  Scale and shift have their shape */
typedef struct { double eps; gint64 groups; } HeddleGroupNormAttr;     /* groups >= 1 divides the channels */
typedef struct { gint32 axes[HEDDLE_MAX_RANK]; } HeddlePermuteAttr;
#define HEDDLE_MAX_CONCAT 8
typedef struct
{
  gint64 begin[HEDDLE_MAX_RANK], end[HEDDLE_MAX_RANK];          /* per axis; negative counts from the end; end 0 = all that is left */
  gint64 step[HEDDLE_MAX_RANK];                                 /* positive; 0 = 1 */
  HeddleShape input;                                            /* gradients only */
} HeddleSliceAttr;
typedef struct { gint64 before[HEDDLE_MAX_RANK], after[HEDDLE_MAX_RANK]; double value; } HeddlePadAttr;   /* elements added per axis, >= 0 */
typedef struct { double scale; gint32 causal; } HeddleAttentionAttr;   /* scale 0 = 1/sqrt (D); causal: query i sees keys 0..i */

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

/* ---- custom operations: what a model plugin brings ----------------------------------------------------------
 * A constant descriptor, shape rule, gradient and kernel; docs/custom-operations.md walks through one.  Plugins stay loaded, so pointers to constants stay valid. */
#define HEDDLE_CUSTOM_INPUTS 6
#define HEDDLE_CUSTOM_OUTPUTS 4
#define HEDDLE_CUSTOM_ATTR 256           /* most bytes of an attribute */

/* How autocast treats its floating inputs: as they are; cast to the low precision; cast to f32. */
typedef enum { HEDDLE_CUSTOM_KEEP = 1, HEDDLE_CUSTOM_LOW, HEDDLE_CUSTOM_F32 } HeddleCustomAmp;

/* One run of a kernel.  Tensors are row-major; floating ones are f32 whatever the program stores, others have their dtype.  An output nobody reads has data NULL.
 * Nothing may be allocated here. */
typedef struct _HeddleCustomRun HeddleCustomRun;
struct _HeddleCustomRun
{
  guint32             size;              /* sizeof (HeddleCustomRun) of the core */
  guint               n_in, n_out;
  const HeddleTensor *in, *out;          /* out[i].data is to be written */
  gconstpointer       attr;
  /* Calls PART for pieces of 0 .. N - 1 on several threads at once and returns when all are done; the pieces are the same in every run.  Sums across
   * pieces are the kernel's own business: keep their order fixed. */
  void              (*parallel) (HeddleCustomRun *run, gint64 n, void (*part) (HeddleCustomRun *run, gint64 from, gint64 to));
};

/* A kernel for CUDA devices as source, which NVRTC compiles for the GPU at hand when a network is compiled for it; the result is kept on disk.
 * C++17 that includes nothing and has in it
 *   extern "C" __global__ void KERNEL (heddle_run run)
 * These stand in front of it:
 *   typedef struct { void *data; int dtype, rank; long long size[HEDDLE_MAX_RANK], count; } heddle_tensor;      (count: elements; dtype: a HeddleDtype)
 *   typedef struct { heddle_tensor in[6], out[4]; unsigned n_in, n_out; unsigned long long attr[32]; } heddle_run;
 * As on CPUs, tensors are row-major, floating ones are f32 whatever the program stores, and an output nobody reads has data NULL.  A product and a sum are not
 * contracted: write fmaf () where that is wanted.  The same inputs give the same bits: no sums by atomics. */
typedef struct
{
  guint32         size;                  /* sizeof (HeddleCustomCuda) */
  const char     *source, *kernel;       /* both constant, as the descriptor is */
  /* [main] Sets blocks and threads of a block, once per compiled network; they come in as 256 threads and as many blocks as out[0] has use for, at most what
   * fills the device: each thread then takes every (gridDim.x * blockDim.x)-th element.  1 to 1024 threads.  NULL: leaves them so. */
  void          (*launch)   (const HeddleTensor *in, guint n_in, const HeddleTensor *out, guint n_out, gconstpointer attr, guint grid[3], guint block[3]);
} HeddleCustomCuda;

typedef struct
{
  guint32         size;                  /* sizeof (HeddleCustomOp) */
  const char     *plugin, *name;         /* "model-example", "scaled_swish": for printing and errors */
  guint           min_in, max_in, n_out; /* at most HEDDLE_CUSTOM_INPUTS, HEDDLE_CUSTOM_OUTPUTS */
  gsize           attr_size;             /* at most HEDDLE_CUSTOM_ATTR */
  HeddleCustomAmp amp;
  /* [main] Checks IN (dtype and shape, no data), fills dtype and shape of OUT; it comes in with those of the first input.  NULL: leaves them so. */
  gboolean      (*shape)    (const HeddleTensor *in, guint n_in, gconstpointer attr, HeddleTensor *out, GError **error);
  /* [main] Emits backward operations, built-in or custom: GRAD_OUT[i] is NULL where no gradient flows; sets GRAD_IN[j] where WANT[j].  NULL: no gradient. */
  void          (*gradient) (HeddleBuilder *b, gconstpointer attr, HeddleValue *const *in, guint n_in, HeddleValue *const *out, HeddleValue *const *grad_out,
                             const gboolean *want, HeddleValue **grad_in);
  void          (*print)    (gconstpointer attr, GString *text);    /* [main] appends " beta=2"; may be NULL */
  void          (*cpu)      (HeddleCustomRun *run);                 /* NULL: no kernel for CPUs */
  const HeddleCustomCuda *cuda;                                     /* NULL: no kernel for CUDA devices */
} HeddleCustomOp;

typedef struct { const HeddleCustomOp *op; guint64 data[HEDDLE_CUSTOM_ATTR / 8]; } HeddleCustomAttr;

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

/* An operation of the plugin's own.  ATTR (ATTR_SIZE bytes, op->attr_size) is copied; OUTPUTS receives N_OUTPUTS values. */
static inline gboolean
heddle_custom (HeddleBuilder *b, const char *name, const HeddleCustomOp *op, HeddleValue *const *inputs, guint n_inputs, gconstpointer attr, gsize attr_size,
               HeddleValue **outputs, guint n_outputs)
{
  HeddleCustomAttr copy = { op, { 0 } };
  for (guint i = 0; i < n_outputs; i++)
    outputs[i] = NULL;
  if (attr_size > sizeof copy.data || (op && op->attr_size != attr_size))
    heddle_fail (b, "custom operation \"%s\": its attribute has %u bytes, its descriptor says %u (at most %u)", op && op->name ? op->name : "?", (guint) attr_size, op ? (guint) op->attr_size : 0,
                 (guint) sizeof copy.data);
  else
    {
      for (gsize i = 0; i < attr_size; i++)
        ((char *) copy.data)[i] = ((const char *) attr)[i];
      b->iface->emit (b, HEDDLE_OP_CUSTOM, name, inputs, n_inputs, &copy, sizeof copy, outputs, n_outputs);
    }
  return n_outputs == 0 || outputs[0] != NULL;
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

/* x (..., I), weight (O, I), bias (O) or NULL: for weights that several places share, such as a tied embedding. */
static inline HeddleValue *
heddle_linear_op (HeddleBuilder *b, HeddleValue *x, HeddleValue *weight, HeddleValue *bias)
{
  HeddleValue *in[] = { x, weight, bias };
  return heddle_emit (b, HEDDLE_OP_LINEAR, NULL, in, 3, NULL, 0);
}

/* indices (...) i64, i32 or u8, table (V, D) -> (..., D) */
static inline HeddleValue *
heddle_embedding_op (HeddleBuilder *b, HeddleValue *indices, HeddleValue *table)
{
  HeddleValue *in[] = { indices, table };
  return heddle_emit (b, HEDDLE_OP_EMBEDDING, NULL, in, 2, NULL, 0);
}

/* Axis i of the result is axis AXES[i] of x; AXES has as many members as x has axes. */
static inline HeddleValue *
heddle_permute_axes (HeddleBuilder *b, HeddleValue *x, const gint32 *axes, guint n)
{
  HeddlePermuteAttr attr = { { 0 } };
  if (x && n != (guint) heddle_shape_of (b, x).rank)
    heddle_fail (b, "permute: %u axes for a tensor of rank %d", n, heddle_shape_of (b, x).rank);
  memcpy (attr.axes, axes, MIN (n, HEDDLE_MAX_RANK) * sizeof *axes);
  return heddle_emit (b, HEDDLE_OP_PERMUTE, NULL, &x, 1, &attr, sizeof attr);
}
/* heddle_permute (b, x, 0, 2, 1, 3) */
#define heddle_permute(b, x, ...) \
  heddle_permute_axes ((b), (x), (const gint32[]) { __VA_ARGS__ }, (guint) (sizeof ((const gint32[]) { __VA_ARGS__ }) / sizeof (gint32)))

/* Two axes exchanged; negative ones count from the end. */
static inline HeddleValue *
heddle_transpose (HeddleBuilder *b, HeddleValue *x, gint32 axis0, gint32 axis1)
{
  gint32 rank = heddle_shape_of (b, x).rank, i = axis0 < 0 ? axis0 + rank : axis0, j = axis1 < 0 ? axis1 + rank : axis1;
  HeddlePermuteAttr attr = { { 0, 1, 2, 3, 4, 5 } };
  if (x && (i < 0 || i >= rank || j < 0 || j >= rank))
    heddle_fail (b, "transpose: axes %d and %d of a tensor of rank %d", axis0, axis1, rank);
  else if (x)
    {
      attr.axes[i] = j;
      attr.axes[j] = i;
    }
  return heddle_emit (b, HEDDLE_OP_PERMUTE, NULL, &x, 1, &attr, sizeof attr);
}

/* N tensors joined along AXIS, 1 to HEDDLE_MAX_CONCAT; all other sizes are equal. */
static inline HeddleValue *
heddle_concat (HeddleBuilder *b, HeddleValue *const *x, guint n, gint32 axis)
{
  HeddleAxisAttr attr = { axis };
  return heddle_emit (b, HEDDLE_OP_CONCAT, NULL, x, n, &attr, sizeof attr);
}

/* Elements begin, begin + step, ... before end of one axis: Python's x[..., begin:end:step]; end 0 = to the end. */
static inline HeddleValue *
heddle_slice_step (HeddleBuilder *b, HeddleValue *x, gint32 axis, gint64 begin, gint64 end, gint64 step)
{
  HeddleSliceAttr attr = { .begin = { 0 } };
  gint32 rank = heddle_shape_of (b, x).rank, i = axis < 0 ? axis + rank : axis;
  if (x && (i < 0 || i >= rank))
    heddle_fail (b, "slice: axis %d of a tensor of rank %d", axis, rank);
  else if (x)
    {
      attr.begin[i] = begin;
      attr.end[i] = end;
      attr.step[i] = step;
    }
  return heddle_emit (b, HEDDLE_OP_SLICE, NULL, &x, 1, &attr, sizeof attr);
}

static inline HeddleValue *
heddle_slice (HeddleBuilder *b, HeddleValue *x, gint32 axis, gint64 begin, gint64 end)
{
  return heddle_slice_step (b, x, axis, begin, end, 1);
}

/* BEFORE and AFTER elements of VALUE are added to one axis. */
static inline HeddleValue *
heddle_pad (HeddleBuilder *b, HeddleValue *x, gint32 axis, gint64 before, gint64 after, double value)
{
  HeddlePadAttr attr = { .value = value };
  gint32 rank = heddle_shape_of (b, x).rank, i = axis < 0 ? axis + rank : axis;
  if (x && (i < 0 || i >= rank))
    heddle_fail (b, "pad: axis %d of a tensor of rank %d", axis, rank);
  else if (x)
    {
      attr.before[i] = before;
      attr.after[i] = after;
    }
  return heddle_emit (b, HEDDLE_OP_PAD, NULL, &x, 1, &attr, sizeof attr);
}

/* softmax (scale q k^T) v: q (B, H, T, D), k (B, H, S, D), v (B, H, S, E) -> (B, H, T, E).  SCALE 0 = 1/sqrt (D); CAUSAL: query i sees keys
 * 0..i.  A. Vaswani et al., arXiv 1706.03762; no T x S matrix is kept: T. Dao et al., arXiv 2205.14135. */
static inline HeddleValue *
heddle_scaled_dot_product_attention (HeddleBuilder *b, HeddleValue *q, HeddleValue *k, HeddleValue *v, gboolean causal, double scale)
{
  HeddleAttentionAttr attr = { scale, causal };
  HeddleValue *in[] = { q, k, v };
  return heddle_emit (b, HEDDLE_OP_ATTENTION, NULL, in, 3, &attr, sizeof attr);
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

G_END_DECLS

#endif
