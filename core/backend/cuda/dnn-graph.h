/* cuda/dnn-graph.h: a cuDNN operation graph as plain data: what dnn-graphs.c writes, dnn.c turns into descriptors and tests interpret.
 * Must not know cuDNN: no header of it, no number of its enumerations. */
#ifndef HEDDLE_CUDA_DNN_GRAPH_H
#define HEDDLE_CUDA_DNN_GRAPH_H

#include "program/build.h"

G_BEGIN_DECLS

/* X (CODE, name): what a pointer given to cuda_dnn_run () is.  The numbers are the tensors' uids, part of the plan cache's key: append only. */
#define CUDA_DNN_UIDS(X) \
  X (NONE, "") X (X, "x") X (W, "w") X (BIAS, "bias") X (RESIDUAL, "residual") X (Y, "y") \
  X (DY, "dy") X (DX, "dx") X (DW, "dw") X (DRESIDUAL, "dresidual") \
  X (SCALE, "scale") X (SHIFT, "shift") X (MEAN, "mean") X (RSTD, "rstd") X (DSCALE, "dscale") X (DSHIFT, "dshift") \
  X (RUNNING_MEAN, "running_mean") X (RUNNING_VARIANCE, "running_variance") X (NEW_MEAN, "new_mean") X (NEW_VARIANCE, "new_variance") \
  X (INDEX, "index") \
  X (Q, "q") X (K, "k") X (V, "v") X (LSE, "log_sum") X (DQ, "dq") X (DK, "dk") X (DV, "dv")

typedef enum
{
#define X(code, name) CUDA_DNN_##code,
  CUDA_DNN_UIDS (X)
#undef X
  CUDA_DNN_N_UIDS                      /* virtual tensors, constants and scratch are numbered from here */
} CudaDnnUid;

/* HeddleDtype's numbers, and what only graphs hold. */
enum { DNN_DTYPE_BOOL = 101, DNN_DTYPE_I8 };

typedef enum
{
  DNN_TENSOR_BOUND = 1,                /* a pointer of the caller's */
  DNN_TENSOR_VIRTUAL,                  /* exists inside the fused kernel only */
  DNN_TENSOR_CONSTANT,                 /* one f32, passed by value */
  DNN_TENSOR_SCRATCH                   /* real memory at the head of the plan's workspace */
} DnnTensorKind;

typedef struct
{
  gint64        uid;
  DnnTensorKind kind;
  gint32        dtype;                 /* HeddleDtype or DNN_DTYPE_* */
  gint32        rank;
  gint64        dim[4], stride[4];     /* in elements */
  float         value;                 /* CONSTANT */
} DnnTensor;

/* X (CODE, name, inputs): pointwise functions; y = f (in[0], in[1], in[2]). */
#define DNN_POINTWISE(X) \
  X (ADD, "add", 2) X (MUL, "mul", 2) X (SUB, "sub", 2) X (DIV, "div", 2) X (EXP, "exp", 1) X (LOG, "log", 1) X (RSQRT, "rsqrt", 1) X (IDENTITY, "identity", 1) \
  X (RELU, "relu", 1) X (GELU, "gelu", 1) X (GELU_TANH, "gelu_tanh", 1) X (SIGMOID, "sigmoid", 1) X (TANH, "tanh", 1) X (SILU, "silu", 1) \
  X (ROW, "row", 1) X (COLUMN, "column", 1)   /* index of axis 2 or 3, i32 */ \
  X (GREATER, "greater", 2) X (GREATER_EQUAL, "greater_equal", 2) \
  X (SELECT, "select", 3)              /* (a, b, condition): condition ? a : b */

typedef enum
{
#define X(code, name, inputs) DNN_##code,
  DNN_POINTWISE (X)
#undef X
  DNN_N_POINTWISE
} DnnPointwise;

/* X (CODE, name): in and out of each by place; -1 = not there. */
#define DNN_OPS(X) \
  X (POINTWISE, "pointwise")           /* .mode a DnnPointwise */ \
  X (CONV, "conv")                     /* (x, w): y */ \
  X (CONV_DATA, "conv_data")           /* (dy, w): dx */ \
  X (CONV_WEIGHT, "conv_weight")       /* (dy, x): dw */ \
  X (MATMUL, "matmul")                 /* (a, b): a b over the last two axes */ \
  X (SUM, "sum") X (MAXIMUM, "maximum")       /* over the axes in which y is 1 and x is not */ \
  X (RESHAPE, "reshape")               /* y's dims and strides on x's memory order */ \
  X (NORM, "norm")                     /* (x, scale, shift, eps, momentum, running mean, running variance): y, mean, rstd, new mean, new variance; .mode a DnnNorm */ \
  X (NORM_GRAD, "norm_grad")           /* (dy, x, scale, mean, rstd): dx, dscale, dshift */ \
  X (MAX_POOL, "max_pool")             /* (x): y, index */ \
  X (AVG_POOL, "avg_pool")             /* .mode 1: padding is not counted */ \
  X (MAX_POOL_GRAD, "max_pool_grad")   /* (dy, index): dx */ \
  X (AVG_POOL_GRAD, "avg_pool_grad")   /* (dy): dx */

typedef enum
{
#define X(code, name) DNN_OP_##code,
  DNN_OPS (X)
#undef X
  DNN_N_OPS
} DnnOpKind;

typedef enum { DNN_NORM_BATCH = 1, DNN_NORM_LAYER, DNN_NORM_RMS } DnnNorm;

#define DNN_PORTS 7
typedef struct
{
  DnnOpKind kind;
  gint32    mode;
  gint32    in[DNN_PORTS], out[DNN_PORTS];     /* indices into tensors; -1 */
  gint64    kernel[2], stride[2], padding[2], dilation[2];   /* convolutions and pooling; padding is the same on both sides */
} DnnOp;

/* What kind of arithmetic the flags' TF32 applies to. */
typedef enum { DNN_PRODUCTS_NONE = 0, DNN_PRODUCTS_CONV, DNN_PRODUCTS_MATMUL } DnnProducts;

#define DNN_MAX_TENSORS 48
#define DNN_MAX_OPS 32
typedef struct _CudaDnnGraph
{
  char        name[64];                /* "conv forward, relu" */
  gint32      dtype;                   /* of the data; accumulation is f32 always */
  DnnProducts products;
  gint32      floor;                   /* oldest cuDNN (9.16.0 = 91600, 8.9.7 = 80907) that computes it, and computes it right */
  gint32      broken, mended;          /* and those from BROKEN to before MENDED do not; 0: no such */
  gint32      n_tensors, n_ops;
  DnnTensor   tensor[DNN_MAX_TENSORS];
  DnnOp       op[DNN_MAX_OPS];
} CudaDnnGraph;

/* (transfer full) The whole graph, a line per tensor and per operation: the plan cache's key, and what tests read. */
char       *dnn_graph_print     (const CudaDnnGraph *graph);
const char *dnn_uid_name        (gint64 uid);           /* "x"; "" for what has none */
const char *dnn_pointwise_name  (DnnPointwise mode);
guint       dnn_pointwise_arity (DnnPointwise mode);
const char *dnn_dtype_name      (gint32 dtype);
gsize       dnn_tensor_bytes    (const DnnTensor *tensor);   /* from its first to its last element */

G_END_DECLS

#endif
