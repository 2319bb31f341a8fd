/* kernels/args.h: what each kernel is given: one structure, passed by value, the same in C and in CUDA.  Private to the cuda backend.
 * Sizes and strides count elements; tensors are row-major unless strides say otherwise. */
#ifndef HEDDLE_CUDA_KERNELS_ARGS_H
#define HEDDLE_CUDA_KERNELS_ARGS_H

#include <stdint.h>

#define HK_RANK 6

/* the numbers of HeddleDtype */
enum { HK_F32 = 1, HK_F16, HK_BF16, HK_U8, HK_I32, HK_I64 };

/* Elementwise operations under the numbers of HeddleOpCode; ops-elementwise.c checks that they agree. */
#define HK_ELEMENTWISE(X) \
  X (ADD, 1) X (SUB, 2) X (MUL, 3) X (DIV, 4) X (MAX, 5) X (MIN, 6) X (GREATER, 7) X (SELECT, 8) \
  X (NEG, 16) X (ABS, 17) X (SIGN, 18) X (EXP, 19) X (EXPM1, 20) X (LOG, 21) X (SQRT, 22) X (RSQRT, 23) X (SQUARE, 24) X (RECIPROCAL, 25) \
  X (RELU, 26) X (SIGMOID, 27) X (TANH, 28) X (GELU, 29) X (CAST, 30) \
  X (RELU_GRAD, 40) X (SIGMOID_GRAD, 41) X (TANH_GRAD, 42) X (GELU_GRAD, 43) \
  X (SILU, 150) X (HARDSWISH, 151) X (LEAKY_RELU, 152) X (CLAMP, 153) X (SILU_GRAD, 154) X (HARDSWISH_GRAD, 155) X (LEAKY_RELU_GRAD, 156) X (CLAMP_GRAD, 157)
enum
{
#define X(name, number) HK_##name = number,
  HK_ELEMENTWISE (X)
#undef X
  HK_OPS_END
};

typedef struct { const void *data; int32_t dtype; int64_t stride[HK_RANK]; } HkOperand;      /* stride 0: broadcast along that axis */

/* out[i] = op (in[0], in[1], in[2]), contiguous in OUT; A and B are the attribute (slope, bounds, tanh form).  SKIP: an f32 scalar, or NULL; nothing is written unless 0. */
typedef struct
{
  int32_t op, n_in, rank, out_dtype;
  int64_t n, size[HK_RANK];
  HkOperand in[3];
  void *out;
  float a, b;
  const float *skip;
} HkElementwise;

/* y[to + sum i_a dst_a] = x[from + sum i_a src_a], BYTES (1, 2, 4, 8 or 16, to which both are aligned) an element */
typedef struct { const void *x; void *y; int32_t rank, bytes; int64_t n, size[HK_RANK], src[HK_RANK], dst[HK_RANK], from, to; } HkCopy;
/* y[i] = pattern, BYTES an element */
typedef struct { void *y; int64_t n; uint64_t pattern; int32_t bytes; } HkFill;

typedef struct { const void *x; void *y; const float *step; int64_t n; float keep; uint32_t threshold, key[2], counter1, counter2; } HkDropout;
#define HK_CHANNELS 16
/* y = x a[c] + b[c]; PIXELS elements a channel */
typedef struct { const void *x; float *y; int32_t dtype, channels; int64_t n, pixels; float a[HK_CHANNELS], b[HK_CHANNELS]; } HkDequantize;

/* Embedding: y[i] = table[index[i]]; its gradient dtable[v] = sum of dy[i] over index[i] = v, in order, a block for HK_EMBEDDING_ROWS v.  FAULT: set to 1 + i for an index out of range. */
#define HK_EMBEDDING_ROWS 4
typedef struct { const void *index, *x; void *y; int32_t index_dtype; int64_t n, rows, width; uint32_t *fault; } HkEmbedding;

/* y[o] = factor sum over the reduced axes; kept and reduced axes with their strides in x.  PARTS > 1: part p of the sum goes to y[o PARTS + p]. */
typedef struct
{
  const void *x;
  void *y;
  int32_t kept, reduced, parts;
  int64_t n_out, n_reduced, kept_size[HK_RANK], kept_stride[HK_RANK], reduced_size[HK_RANK], reduced_stride[HK_RANK];
  float factor;
} HkReduce;
/* y[o] = the sum of the PARTS numbers that belong to o */
typedef struct { const float *x; void *y; int32_t dtype, parts; int64_t n_out; } HkParts;

/* Sums over all elements of a term; block p leaves partial[p] (and bad[p], whether an element is not finite). */
enum { HK_SUM_SQUARES, HK_SUM_MSE, HK_SUM_L1, HK_SUM_SMOOTH_L1, HK_SUM_BCE, HK_SUM_KL, HK_SUM_KL_LOG };
typedef struct { const void *x, *t, *w; float *partial, *bad; int32_t term, x_dtype, t_dtype, w_dtype, parts; int64_t n, w_count; float beta; } HkTerms;
/* out0 = sum a / (B and not FLAG ? sum b : divisor), 0 if that is 0; out1 = B ? sum b, or with FLAG whether any b is not 0, : count; either may be NULL */
typedef struct { const float *a, *b; float *out0, *out1; int64_t n; float divisor, count; int32_t flag; } HkFinish;

#define HK_WINDOWS 96
typedef struct { int64_t offset, n; } HkWindow;
/* y[first + w] of PARTS parts = sum of x (or x^2) over window w; SPREAD: y in window w = v[first + w] */
typedef struct { const float *x; float *y; int32_t first, parts, squares; HkWindow window[HK_WINDOWS]; } HkWindows;

#define HK_WIDE 64
/* y = x, or with ADD y + x, of each window: x of DTYPE, f16 or bf16, y in f32 */
typedef struct { const void *x; float *y; int64_t n; int32_t add; } HkWide;
typedef struct { int32_t dtype; HkWide window[HK_WIDE]; } HkWiden;

/* c (m, n) = a (m, k) b (k, n) + bias[n], for each of BATCH; element (i, j) of a lies at i a_row + j a_column */
typedef struct
{
  const void *a, *b, *bias;
  void *c;
  int64_t m, n, k, batch, a_row, a_column, b_row, b_column, a_batch, b_batch;
} HkMatmul;

/* x (N, C, H, W), w (O, C/groups, P, Q), y (N, O, I, J) with their strides in that order; BIAS per channel of what is made */
typedef struct
{
  const void *x, *w, *y, *bias;
  void *out;
  int32_t N, C, H, W, O, I, J, P, Q, stride[2], padding[2], dilation[2], groups;
  int64_t xs[4], ws[4], ys[4];
} HkConv;

/* x (planes of H, W), y (I, J) with strides (N, C, H, W); INDEX like y, contiguous in y's order */
typedef struct
{
  const void *x;
  void *y;
  uint8_t *index;
  int32_t N, C, H, W, I, J, kernel[2], stride[2], padding[2], exclude_padding, bilinear;
  int64_t xs[4], ys[4];
} HkPool;

/* x (N, C, P): element (n, c, p) at n sn + c sc + p sp */
typedef struct
{
  const void *x, *dy;
  void *y;
  const float *scale, *shift, *mean, *variance;      /* given statistics; MEAN and RSTD of the batch for the gradient */
  const float *rstd;
  float *out_mean, *out_rstd, *new_mean, *new_variance, *dscale, *dshift;
  int64_t N, C, P, sn, sc, sp;
  float eps, momentum;
  int32_t training;
} HkBatchNorm;

/* Rows of LENGTH elements, INNER apart; row r begins at r / INNER LENGTH INNER + r % INNER */
enum { HK_SOFTMAX, HK_LOG_SOFTMAX, HK_SOFTMAX_GRAD, HK_LOG_SOFTMAX_GRAD };
typedef struct { const void *x, *y; void *out; int32_t what; int64_t rows, length, inner; } HkSoftmax;

/* Row i of K logits with label i: [i] of LOSS and WEIGHT, or its gradient; TOP_K: 1 if the label is among the K largest.
 * PITCH elements from row to row; a gradient's are PITCH apart too, and 0 beyond the last class */
typedef struct
{
  const void *x, *labels, *class_weights;
  void *dx;
  float *loss, *weight;
  const float *g, *denominator;
  int32_t label_dtype, weights_dtype;
  int64_t rows, classes, pitch, ignore, k;
  float smoothing;
  uint32_t *fault;
} HkCrossEntropy;

/* Norms of rows: statistics of each of ROWS lists of LENGTH elements; element i of list r has parameter (r % GROUPS) (LENGTH / PIXELS) + i / PIXELS, of PARAMS in all */
typedef struct
{
  const void *x, *dy, *scale, *shift;
  void *y, *dscale, *dshift;
  float *mean, *rstd;
  int64_t rows, length, pixels, groups, params;
  float eps;
  int32_t centred;
} HkNorm;

/* q (heads, T, D), k (heads, S, D), v (heads, S, E) */
typedef struct
{
  const void *q, *k, *v, *y, *dy;
  void *out, *dq, *dk, *dv;
  float *log_sum;
  int64_t heads, T, S, D, E;
  float scale;
  int32_t causal;
} HkAttention;

typedef struct { const float *scale, *tracker, *skip; float *new_scale, *new_tracker; float growth_factor, backoff_factor, growth_interval, min_scale; } HkScaler;

#endif
