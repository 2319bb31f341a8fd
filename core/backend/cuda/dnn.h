/* cuda/dnn.h: cuDNN as the backend sees it: graphs of operations, made into plans, run on a stream.
 * Must not know programs or their compilation; nothing of cuDNN's own types shows. */
#ifndef HEDDLE_CUDA_DNN_H
#define HEDDLE_CUDA_DNN_H

#include "backend/flags.h"
#include "dnn-graph.h"

G_BEGIN_DECLS

/* ---- graphs: one function per kind.  NULL: these shapes cannot be expressed.  (transfer full, g_free) ------------------------------------ */

/* Of images and, alike, of convolution weights: KCRS or KRSC.  BTHD: of what attention reads and makes, its heads inside. */
typedef enum { CUDA_DNN_NCHW = 1, CUDA_DNN_NHWC, CUDA_DNN_BTHD } CudaDnnLayout;
typedef enum { CUDA_DNN_FORWARD = 1, CUDA_DNN_GRAD_INPUT, CUDA_DNN_GRAD_WEIGHT } CudaDnnDirection;
typedef enum { CUDA_DNN_LINEAR = 0, CUDA_DNN_RELU, CUDA_DNN_GELU, CUDA_DNN_GELU_TANH, CUDA_DNN_SIGMOID, CUDA_DNN_TANH, CUDA_DNN_SILU } CudaDnnActivation;

typedef struct
{
  CudaDnnDirection  direction;
  HeddleDtype       dtype;
  CudaDnnLayout     layout;
  HeddleShape       x, w, y;           /* (N, C, H, W), (K, C/groups, R, S), (N, K, P, Q); of the forward convolution in every direction */
  HeddleConvAttr    attr;              /* stride, padding, dilation */
  gboolean          bias, residual;    /* FORWARD: y = activation (conv + bias + residual); bias (K) has the data's dtype */
  CudaDnnActivation activation;
} CudaDnnConv;
/* FORWARD: X, W[, BIAS][, RESIDUAL] -> Y.  GRAD_INPUT: DY, W -> DX.  GRAD_WEIGHT: DY, X -> DW.  A transposed convolution is GRAD_INPUT. */
CudaDnnGraph *cuda_dnn_graph_conv (const CudaDnnConv *conv);

typedef struct
{
  HeddleDtype   dtype;                 /* of x and y; scale, shift and statistics are f32 */
  CudaDnnLayout layout;
  HeddleShape   x;                     /* (N, C, H, W) or (N, C) */
  double        eps, momentum;
  gboolean      relu, residual;        /* y = relu (norm (x) + residual) */
} CudaDnnBatchNorm;
/* X, SCALE, SHIFT, RUNNING_MEAN, RUNNING_VARIANCE[, RESIDUAL] -> Y, MEAN, RSTD, NEW_MEAN, NEW_VARIANCE */
CudaDnnGraph *cuda_dnn_graph_batch_norm      (const CudaDnnBatchNorm *norm);
/* DY, X, SCALE, MEAN, RSTD[, Y when relu] -> DX, DSCALE, DSHIFT[, DRESIDUAL when residual: the gradient behind relu] */
CudaDnnGraph *cuda_dnn_graph_batch_norm_grad (const CudaDnnBatchNorm *norm);
/* X, SCALE, SHIFT, RUNNING_MEAN, RUNNING_VARIANCE[, RESIDUAL] -> Y, from the given statistics */
CudaDnnGraph *cuda_dnn_graph_batch_norm_eval (const CudaDnnBatchNorm *norm);

typedef struct
{
  HeddleDtype dtype, y;                /* of x and dx; of y and dy: the same, or 16 bits beside f32.  Scale, shift and statistics are f32 */
  gint64      rows, width;             /* a row is normalised */
  double      eps;
  gboolean    rms;                     /* no mean, no shift */
} CudaDnnRowNorm;
/* X, SCALE[, SHIFT] -> Y[, MEAN], RSTD.  Scale and, for layer norm, shift are required. */
CudaDnnGraph *cuda_dnn_graph_row_norm      (const CudaDnnRowNorm *norm);
/* DY, X, SCALE[, MEAN], RSTD -> DX, DSCALE[, DSHIFT] */
CudaDnnGraph *cuda_dnn_graph_row_norm_grad (const CudaDnnRowNorm *norm);

typedef struct
{
  HeddleDtype    dtype;
  CudaDnnLayout  layout;
  HeddleShape    x, y;
  HeddlePoolAttr attr;
  gboolean       average;
} CudaDnnPool;
/* X -> Y[, INDEX: u8 (N, C, P, Q), place of the maximum in its window] */
CudaDnnGraph *cuda_dnn_graph_pool      (const CudaDnnPool *pool);
/* DY[, INDEX] -> DX */
CudaDnnGraph *cuda_dnn_graph_pool_grad (const CudaDnnPool *pool);

typedef struct
{
  HeddleDtype dtype;                   /* f16 or bf16; the log-sum-exp is f32 */
  gint64      batch, heads, queries, keys, width, value_width;   /* q (B, H, T, D), k (B, H, S, D), v (B, H, S, E) */
  double      scale;                   /* 0 = 1/sqrt (D) */
  gboolean    causal, deterministic;
  gboolean    heads_inside;            /* Q .. DV lie as (B, T, H, D) */
  gint64      pitch, grad_pitch;       /* then: elements from one of T to the next of Q, K and V, and of DQ, DK and DV; 0: H D, or H E */
} CudaDnnAttention;
/* Q, K, V -> Y, LSE (B, H, T): log sum e^(scale q k) */
CudaDnnGraph *cuda_dnn_graph_attention      (const CudaDnnAttention *attention);
/* DY, Q, K, V, Y, LSE -> DQ, DK, DV */
CudaDnnGraph *cuda_dnn_graph_attention_grad (const CudaDnnAttention *attention);

typedef struct
{
  HeddleDtype       dtype;
  gint64            m, n, k;           /* X (M, K), W (N, K) as a linear layer keeps it, Y (M, N) */
  gboolean          bias;              /* y = activation (x w^T + bias); bias (N) */
  CudaDnnActivation activation;
} CudaDnnMatmul;
/* X, W[, BIAS] -> Y */
CudaDnnGraph *cuda_dnn_graph_matmul (const CudaDnnMatmul *matmul);

/* ---- context and plans ------------------------------------------------------------------------------------------------------------------ */

typedef struct _CudaDnn     CudaDnn;
typedef struct _CudaDnnPlan CudaDnnPlan;

/* On a device: DEVICE names it in the plan cache's key (name, capability, processors, driver).  Deviceless: DEVICE is a DEVICEPROP document, plans can be
 * built but not run; cuDNN 9.8 is the oldest that can.  NULL with ERROR: cuDNN is absent or does not start. */
CudaDnn     *cuda_dnn_new      (const char *device, gboolean deviceless, const HeddleFlags *flags, GError **error);
void         cuda_dnn_free     (CudaDnn *dnn);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CudaDnn, cuda_dnn_free)
gint         cuda_dnn_version   (void);                 /* of the library that runs, as 91900; 0: built without cuDNN */
char        *cuda_dnn_describe  (void);                 /* (transfer full) for doctor: "9.19.0, built with 9.19.0 (/usr/lib/libcudnn.so.9)" */

/* A plan for GRAPH (taken).  NULL without an error: this cuDNN has none for this graph on this device under the flags; cuda_dnn_reason () says why, and the
 * caller has another path.  NULL with an error: the device or cuDNN is broken or out of memory.  Under flags.cudnn_benchmark the candidates are timed on memory of
 * their own, freed again: call it outside of stream capture. */
CudaDnnPlan *cuda_dnn_build    (CudaDnn *dnn, CudaDnnGraph *graph, GError **error);
void         cuda_dnn_plan_free (CudaDnnPlan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CudaDnnPlan, cuda_dnn_plan_free)
const char  *cuda_dnn_reason   (CudaDnn *dnn);          /* of the last build that gave NULL */
const char  *cuda_dnn_plan_text (const CudaDnnPlan *plan);   /* "cuDNN engine 35 (2=1 4=0), heuristic": for the run's log */
gsize        cuda_dnn_workspace (const CudaDnnPlan *plan);   /* bytes that cuda_dnn_run () needs, 256-byte aligned */
guint64      cuda_dnn_built    (const CudaDnn *dnn);    /* plans made so far, from the cache or not */
/* STREAM is a cudaStream_t.  POINTERS is indexed by CudaDnnUid; only those the graph binds are read.  Captures into a CUDA graph. */
gboolean     cuda_dnn_run      (CudaDnn *dnn, CudaDnnPlan *plan, gpointer stream, const gpointer pointers[CUDA_DNN_N_UIDS], gpointer workspace, GError **error);

G_END_DECLS

#endif
