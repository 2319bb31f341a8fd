/* cuda/dnn-attention.c: softmax (scale q k^T) v and its gradient as graphs that cuDNN's fused kernels recognise.
 * Must not know cuDNN, devices or programs.  The order of operations is what its pattern matcher expects; T. Dao et al., arXiv 2205.14135. */
#include "dnn-graphs.h"

#include <math.h>
#include <string.h>

typedef struct
{
  const CudaDnnAttention *a;
  CudaDnnGraph *g;
  gint64 scores[4], scores_stride[4], row[4], row_stride[4];   /* (B, H, T, S), (B, H, T, 1) */
  gint32 scale;
} Attention;

static double
scale_of (const CudaDnnAttention *a)
{
  return a->scale != 0 ? a->scale : 1 / sqrt ((double) a->width);
}

/* Kernels until cuDNN 9.15 read beyond the keys when these do not fill tiles of 128: there the graph needs a newer one.  Forward and backward for any head are in 8.9.7; NVIDIA's frontend
 * (sdpa_support_surface.h) asks 9.10 for one causal query, and trusts neither 9.10.0 nor 9.10.1. */
static gint32
oldest (const CudaDnnAttention *a)
{
  return a->keys % 128 ? 91600 : a->causal && a->queries == 1 ? 91000 : 80907;
}

static Attention
attention_new (const CudaDnnAttention *a, const char *name)
{
  gint64 b = a->batch, h = a->heads, t = a->queries, s = a->keys;
  Attention x = { .a = a, .g = dnn_graph_new (name, a->dtype, DNN_PRODUCTS_MATMUL, oldest (a)), .scores = { b, h, t, s }, .scores_stride = { h * t * s, t * s, s, 1 },
                  .row = { b, h, t, 1 }, .row_stride = { h * t, t, 1, 1 } };
  x.g->broken = 91000;
  x.g->mended = 91002;
  if (a->causal)
    g_strlcat (x.g->name, ", causal", sizeof x.g->name);
  if (a->heads_inside)
    g_strlcat (x.g->name, a->pitch ? ", in place" : ", heads inside", sizeof x.g->name);
  return x;
}

static gint64
pitch_of (const CudaDnnAttention *a, CudaDnnUid uid, gint64 width)
{
  gint64 pitch = uid == CUDA_DNN_Q || uid == CUDA_DNN_K || uid == CUDA_DNN_V ? a->pitch : uid == CUDA_DNN_DQ || uid == CUDA_DNN_DK || uid == CUDA_DNN_DV ? a->grad_pitch : 0;
  return !a->heads_inside ? width : pitch ? pitch : a->heads * width;
}

/* (B, H, length, width), row-major or with its heads inside; or the same memory as (B, H, width, length). */
static gint32
operand (Attention *x, CudaDnnUid uid, gint64 length, gint64 width, gboolean transposed)
{
  gint64 h = x->a->heads, dim[4] = { x->a->batch, h, transposed ? width : length, transposed ? length : width };
  gint64 row = pitch_of (x->a, uid, width), head = x->a->heads_inside ? width : length * width;
  gint64 at[4] = { x->a->heads_inside ? length * row : h * length * width, head, transposed ? 1 : row, transposed ? row : 1 };
  return dnn_bound (x->g, uid, x->a->dtype, dim, at);
}

static gint32
scores (Attention *x)
{
  return dnn_virtual (x->g, HEDDLE_F32, x->scores, x->scores_stride);
}

static gint32
apply (Attention *x, DnnPointwise mode, gint32 a, gint32 b)
{
  gint32 y = scores (x);
  dnn_pointwise (x->g, mode, a, b, -1, y);
  return y;
}

static gint32
product (Attention *x, gint32 a, gint32 b, gint32 y)
{
  gint32 in[] = { a, b };
  dnn_op (x->g, DNN_OP_MATMUL, 0, in, 2, &y, 1);
  return y;
}

/* Query i sees keys 0..i: what lies right of the diagonal gets the lowest f32, whose exponential is 0 without making NaN of a difference. */
static gint32
mask (Attention *x, gint32 s)
{
  gint32 row = dnn_virtual (x->g, HEDDLE_I32, x->scores, x->scores_stride), column = dnn_virtual (x->g, HEDDLE_I32, x->scores, x->scores_stride);
  gint32 seen = dnn_virtual (x->g, DNN_DTYPE_BOOL, x->scores, x->scores_stride), masked = scores (x);
  dnn_pointwise (x->g, DNN_ROW, s, -1, -1, row);
  dnn_pointwise (x->g, DNN_COLUMN, s, -1, -1, column);
  dnn_pointwise (x->g, DNN_GREATER_EQUAL, row, column, -1, seen);
  dnn_pointwise (x->g, DNN_SELECT, s, dnn_constant (x->g, -G_MAXFLOAT), seen, masked);
  return masked;
}

CudaDnnGraph *
cuda_dnn_graph_attention (const CudaDnnAttention *a)
{
  Attention x = attention_new (a, "attention");
  CudaDnnGraph *g = x.g;
  gint32 q = operand (&x, CUDA_DNN_Q, a->queries, a->width, FALSE), k = operand (&x, CUDA_DNN_K, a->keys, a->width, TRUE);
  gint32 v = operand (&x, CUDA_DNN_V, a->keys, a->value_width, FALSE), y = operand (&x, CUDA_DNN_Y, a->queries, a->value_width, FALSE);
  gint32 lse = dnn_bound (g, CUDA_DNN_LSE, HEDDLE_F32, x.row, x.row_stride);
  gint32 most = dnn_virtual (g, HEDDLE_F32, x.row, x.row_stride), sum = dnn_virtual (g, HEDDLE_F32, x.row, x.row_stride), log_sum = dnn_virtual (g, HEDDLE_F32, x.row, x.row_stride);
  gint32 p = dnn_virtual (g, a->dtype, x.scores, x.scores_stride);
  gint32 s = apply (&x, DNN_MUL, product (&x, q, k, scores (&x)), dnn_constant (g, scale_of (a)));
  s = a->causal ? mask (&x, s) : s;
  dnn_op (g, DNN_OP_MAXIMUM, 0, &s, 1, &most, 1);
  gint32 e = apply (&x, DNN_EXP, apply (&x, DNN_SUB, s, most), -1);
  dnn_op (g, DNN_OP_SUM, 0, &e, 1, &sum, 1);
  dnn_pointwise (g, DNN_LOG, sum, -1, -1, log_sum);
  dnn_pointwise (g, DNN_ADD, most, log_sum, -1, lse);
  dnn_pointwise (g, DNN_DIV, e, sum, -1, p);
  product (&x, p, v, y);
  return g;
}

/* (B, H, T, S) read as (B, H, S, T) in the data's dtype, times B: (B, H, S, width). */
static void
transposed_product (Attention *x, gint32 p, gint32 b, gint32 y)
{
  gint64 bh = x->a->heads, t = x->a->queries, s = x->a->keys, dim[4] = { x->a->batch, bh, s, t }, stride[4] = { bh * t * s, t * s, 1, s };
  gint32 turned = dnn_virtual (x->g, x->a->dtype, dim, stride);
  dnn_op (x->g, DNN_OP_RESHAPE, 0, &p, 1, &turned, 1);
  product (x, turned, b, y);
}

/* D_i = sum_e dy_ie y_ie, which is the sum of dp_ij p_ij over j: kept in memory between cuDNN's kernels. */
static gint32
row_sums (Attention *x, gint32 dy, gint32 y)
{
  CudaDnnGraph *g = x->g;
  DnnTensor of = g->tensor[y];
  gint32 both = dnn_virtual (g, HEDDLE_F32, of.dim, of.stride), sum = dnn_virtual (g, HEDDLE_F32, x->row, x->row_stride);
  gint32 kept = dnn_scratch (g, HEDDLE_F32, x->row, x->row_stride);
  dnn_pointwise (g, DNN_MUL, dy, y, -1, both);
  dnn_op (g, DNN_OP_SUM, 0, &both, 1, &sum, 1);
  dnn_pointwise (g, DNN_MUL, sum, dnn_constant (g, 1), -1, kept);
  return kept;
}

/* dq = ds k.  Summed over key tiles in f32 memory in any order, unless it has to be deterministic; that memory is row-major (B, H, T, D) wherever heads are, as NVIDIA's own frontend has it. */
static void
query_gradient (Attention *x, gint32 ds, gint32 kt, gint32 dq)
{
  CudaDnnGraph *g = x->g;
  DnnTensor t = g->tensor[kt], d = g->tensor[dq];
  gint64 dim[4] = { t.dim[0], t.dim[1], t.dim[3], t.dim[2] }, stride[4] = { t.stride[0], t.stride[1], t.stride[3], t.stride[2] };
  gint32 k = dnn_virtual (g, x->a->dtype, dim, stride);
  dnn_op (g, DNN_OP_RESHAPE, 0, &kt, 1, &k, 1);
  if (x->a->deterministic)
    product (x, ds, k, dq);
  else
    {
      gint64 packed[4] = { d.dim[1] * d.dim[2] * d.dim[3], d.dim[2] * d.dim[3], d.dim[3], 1 };
      gint32 sum = product (x, ds, k, dnn_scratch (g, HEDDLE_F32, d.dim, packed));
      dnn_pointwise (g, DNN_IDENTITY, sum, -1, -1, dq);
    }
}

CudaDnnGraph *
cuda_dnn_graph_attention_grad (const CudaDnnAttention *a)
{
  Attention x = attention_new (a, "attention, gradient");
  CudaDnnGraph *g = x.g;
  gint32 q = operand (&x, CUDA_DNN_Q, a->queries, a->width, FALSE), k = operand (&x, CUDA_DNN_K, a->keys, a->width, TRUE);
  gint32 v = operand (&x, CUDA_DNN_V, a->keys, a->value_width, TRUE), y = operand (&x, CUDA_DNN_Y, a->queries, a->value_width, FALSE);
  gint32 dy = operand (&x, CUDA_DNN_DY, a->queries, a->value_width, FALSE), lse = dnn_bound (g, CUDA_DNN_LSE, HEDDLE_F32, x.row, x.row_stride);
  gint32 dq = operand (&x, CUDA_DNN_DQ, a->queries, a->width, FALSE), dk = operand (&x, CUDA_DNN_DK, a->keys, a->width, FALSE);
  gint32 dv = operand (&x, CUDA_DNN_DV, a->keys, a->value_width, FALSE), scale = dnn_constant (g, scale_of (a));
  gint32 sums = row_sums (&x, dy, y);
  gint32 s = apply (&x, DNN_SUB, apply (&x, DNN_MUL, product (&x, q, k, scores (&x)), scale), lse);
  s = a->causal ? mask (&x, s) : s;
  gint32 p = apply (&x, DNN_EXP, s, -1);
  transposed_product (&x, p, dy, dv);
  gint32 ds = apply (&x, DNN_SUB, product (&x, dy, v, scores (&x)), sums);
  ds = apply (&x, DNN_MUL, apply (&x, DNN_MUL, ds, p), scale);
  transposed_product (&x, ds, q, dk);
  query_gradient (&x, ds, k, dq);
  return g;
}
