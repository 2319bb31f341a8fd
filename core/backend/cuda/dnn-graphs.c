/* cuda/dnn-graphs.c: one function per kind of graph: convolutions, norms, pooling, products.  Attention has its own file.
 * Must not know cuDNN, devices or programs: a graph is data. */
#include "dnn-graphs.h"

#include <string.h>

/* ---- building blocks ---------------------------------------------------------------------------------------------------------------------- */

CudaDnnGraph *
dnn_graph_new (const char *name, HeddleDtype dtype, DnnProducts products, gint32 floor)
{
  CudaDnnGraph *g = g_new0 (CudaDnnGraph, 1);
  g_strlcpy (g->name, name, sizeof g->name);
  g->dtype = dtype;
  g->products = products;
  g->floor = floor;
  return g;
}

static gint32
add_tensor (CudaDnnGraph *g, gint64 uid, DnnTensorKind kind, gint32 dtype, const gint64 *dim, const gint64 *stride)
{
  DnnTensor *t = &g->tensor[g->n_tensors];
  g_assert (g->n_tensors < DNN_MAX_TENSORS);
  t->uid = uid ? uid : CUDA_DNN_N_UIDS + g->n_tensors;
  t->kind = kind;
  t->dtype = dtype;
  t->rank = 4;
  memcpy (t->dim, dim, sizeof t->dim);
  memcpy (t->stride, stride, sizeof t->stride);
  return g->n_tensors++;
}

gint32
dnn_bound (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, const gint64 dim[4], const gint64 stride[4])
{
  return add_tensor (g, uid, DNN_TENSOR_BOUND, dtype, dim, stride);
}

gint32
dnn_virtual (CudaDnnGraph *g, gint32 dtype, const gint64 dim[4], const gint64 stride[4])
{
  return add_tensor (g, 0, DNN_TENSOR_VIRTUAL, dtype, dim, stride);
}

gint32
dnn_scratch (CudaDnnGraph *g, gint32 dtype, const gint64 dim[4], const gint64 stride[4])
{
  return add_tensor (g, 0, DNN_TENSOR_SCRATCH, dtype, dim, stride);
}

gint32
dnn_constant (CudaDnnGraph *g, double value)
{
  static const gint64 one[4] = { 1, 1, 1, 1 };
  gint32 t = add_tensor (g, 0, DNN_TENSOR_CONSTANT, HEDDLE_F32, one, one);
  g->tensor[t].value = (float) value;
  return t;
}

gint32
dnn_like (CudaDnnGraph *g, gint32 tensor, gint32 dtype)
{
  DnnTensor t = g->tensor[tensor];
  return dnn_virtual (g, dtype, t.dim, t.stride);
}

DnnOp *
dnn_op (CudaDnnGraph *g, DnnOpKind kind, gint32 mode, const gint32 *in, guint n_in, const gint32 *out, guint n_out)
{
  DnnOp *op = &g->op[g->n_ops++];
  g_assert (g->n_ops <= DNN_MAX_OPS && n_in <= DNN_PORTS && n_out <= DNN_PORTS);
  *op = (DnnOp) { .kind = kind, .mode = mode, .dilation = { 1, 1 } };
  for (guint i = 0; i < DNN_PORTS; i++)
    {
      op->in[i] = i < n_in ? in[i] : -1;
      op->out[i] = i < n_out ? out[i] : -1;
    }
  return op;
}

void
dnn_pointwise (CudaDnnGraph *g, DnnPointwise mode, gint32 a, gint32 b, gint32 c, gint32 y)
{
  gint32 in[] = { a, b, c };
  dnn_op (g, DNN_OP_POINTWISE, mode, in, 3, &y, 1);
}

/* Row-major: C's strides are what a channel vector's are in NCHW. */
static void
strides (const gint64 dim[4], CudaDnnLayout layout, gint64 stride[4])
{
  gint64 c = dim[1], h = dim[2], w = dim[3];
  const gint64 nchw[] = { c * h * w, h * w, w, 1 }, nhwc[] = { h * w * c, 1, w * c, c };
  memcpy (stride, layout == CUDA_DNN_NHWC ? nhwc : nchw, 4 * sizeof *stride);
}

static gint32
image (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, const HeddleShape *shape, CudaDnnLayout layout)
{
  gint64 dim[4], stride[4];
  for (gint32 i = 0; i < 4; i++)
    dim[i] = i < shape->rank ? shape->size[i] : 1;
  strides (dim, layout, stride);
  return dnn_bound (g, uid, dtype, dim, stride);
}

/* (1, C, 1, 1) */
static gint32
channels (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, gint64 c)
{
  gint64 dim[4] = { 1, c, 1, 1 }, stride[4] = { c, 1, c, c };
  return dnn_bound (g, uid, dtype, dim, stride);
}

/* A result that CUDA_DNN_Y names when LAST, else one the next operation reads. */
static gint32
result (CudaDnnGraph *g, gboolean last, gint32 dtype, const HeddleShape *shape, CudaDnnLayout layout)
{
  gint32 t = image (g, last ? CUDA_DNN_Y : CUDA_DNN_NONE, last ? dtype : HEDDLE_F32, shape, layout);
  if (!last)
    {
      g->tensor[t].uid = CUDA_DNN_N_UIDS + t;
      g->tensor[t].kind = DNN_TENSOR_VIRTUAL;
    }
  return t;
}

static DnnPointwise
activation_mode (CudaDnnActivation activation)
{
  static const DnnPointwise modes[] = { DNN_IDENTITY, DNN_RELU, DNN_GELU, DNN_GELU_TANH, DNN_SIGMOID, DNN_TANH, DNN_SILU };
  return modes[activation];
}

static void
name_epilogue (CudaDnnGraph *g, gboolean bias, gboolean residual, CudaDnnActivation activation)
{
  if (bias)
    g_strlcat (g->name, ", bias", sizeof g->name);
  if (residual)
    g_strlcat (g->name, ", add", sizeof g->name);
  if (activation)
    {
      g_strlcat (g->name, ", ", sizeof g->name);
      g_strlcat (g->name, dnn_pointwise_name (activation_mode (activation)), sizeof g->name);
    }
}

/* ---- convolution -------------------------------------------------------------------------------------------------------------------------- */

static void
set_window (DnnOp *op, const gint64 *kernel, const HeddleConvAttr *a)
{
  memcpy (op->kernel, kernel, sizeof op->kernel);
  memcpy (op->stride, a->stride, sizeof op->stride);
  memcpy (op->padding, a->padding, sizeof op->padding);
  memcpy (op->dilation, a->dilation, sizeof op->dilation);
}

static CudaDnnGraph *
conv_forward (const CudaDnnConv *c)
{
  CudaDnnGraph *g = dnn_graph_new ("conv", c->dtype, DNN_PRODUCTS_CONV, 80700);
  guint left = (c->bias ? 1 : 0) + (c->residual ? 1 : 0) + (c->activation ? 1 : 0);
  gint32 in[] = { image (g, CUDA_DNN_X, c->dtype, &c->x, c->layout), image (g, CUDA_DNN_W, c->dtype, &c->w, c->layout) };
  gint32 bias = c->bias ? channels (g, CUDA_DNN_BIAS, c->dtype, c->w.size[0]) : -1, residual = c->residual ? image (g, CUDA_DNN_RESIDUAL, c->dtype, &c->y, c->layout) : -1;
  gint32 y = result (g, left == 0, c->dtype, &c->y, c->layout);
  set_window (dnn_op (g, DNN_OP_CONV, 0, in, 2, &y, 1), c->w.size + 2, &c->attr);
  for (guint i = 0; i < 2; i++)        /* the residual first: the order that cuDNN has precompiled kernels for */
    if (i == 0 ? c->residual : c->bias)
      {
        gint32 sum = result (g, --left == 0, c->dtype, &c->y, c->layout);
        dnn_pointwise (g, DNN_ADD, y, i == 0 ? residual : bias, -1, sum);
        y = sum;
      }
  if (c->activation)
    dnn_pointwise (g, activation_mode (c->activation), y, -1, -1, result (g, TRUE, c->dtype, &c->y, c->layout));
  name_epilogue (g, c->bias, c->residual, c->activation);
  return g;
}

static CudaDnnGraph *
conv_grad (const CudaDnnConv *c)
{
  gboolean data = c->direction == CUDA_DNN_GRAD_INPUT;
  CudaDnnGraph *g = dnn_graph_new (data ? "conv, gradient of the input" : "conv, gradient of the weight", c->dtype, DNN_PRODUCTS_CONV, 80700);
  gint32 dy = image (g, CUDA_DNN_DY, c->dtype, &c->y, c->layout);
  gint32 other = data ? image (g, CUDA_DNN_W, c->dtype, &c->w, c->layout) : image (g, CUDA_DNN_X, c->dtype, &c->x, c->layout);
  gint32 out = data ? image (g, CUDA_DNN_DX, c->dtype, &c->x, c->layout) : image (g, CUDA_DNN_DW, c->dtype, &c->w, c->layout);
  gint32 in[] = { dy, other };
  set_window (dnn_op (g, data ? DNN_OP_CONV_DATA : DNN_OP_CONV_WEIGHT, 0, in, 2, &out, 1), c->w.size + 2, &c->attr);
  return g;
}

CudaDnnGraph *
cuda_dnn_graph_conv (const CudaDnnConv *conv)
{
  return conv->direction == CUDA_DNN_FORWARD ? conv_forward (conv) : conv_grad (conv);
}

/* ---- batch norm --------------------------------------------------------------------------------------------------------------------------- */

CudaDnnGraph *
cuda_dnn_graph_batch_norm (const CudaDnnBatchNorm *n)
{
  CudaDnnGraph *g = dnn_graph_new ("batch norm", n->dtype, DNN_PRODUCTS_NONE, 80700);
  gint64 c = n->x.size[1];
  gboolean plain = !n->relu && !n->residual;
  gint32 x = image (g, CUDA_DNN_X, n->dtype, &n->x, n->layout), scale = channels (g, CUDA_DNN_SCALE, HEDDLE_F32, c), shift = channels (g, CUDA_DNN_SHIFT, HEDDLE_F32, c);
  gint32 eps = dnn_constant (g, n->eps), momentum = dnn_constant (g, n->momentum);
  gint32 mean = channels (g, CUDA_DNN_RUNNING_MEAN, HEDDLE_F32, c), variance = channels (g, CUDA_DNN_RUNNING_VARIANCE, HEDDLE_F32, c);
  gint32 y = result (g, plain, n->dtype, &n->x, n->layout);
  gint32 in[] = { x, scale, shift, eps, momentum, mean, variance };
  gint32 out[] = { y, channels (g, CUDA_DNN_MEAN, HEDDLE_F32, c), channels (g, CUDA_DNN_RSTD, HEDDLE_F32, c), channels (g, CUDA_DNN_NEW_MEAN, HEDDLE_F32, c),
                   channels (g, CUDA_DNN_NEW_VARIANCE, HEDDLE_F32, c) };
  dnn_op (g, DNN_OP_NORM, DNN_NORM_BATCH, in, 7, out, 5);
  if (n->residual)
    {
      gint32 residual = image (g, CUDA_DNN_RESIDUAL, n->dtype, &n->x, n->layout), sum = result (g, !n->relu, n->dtype, &n->x, n->layout);
      dnn_pointwise (g, DNN_ADD, y, residual, -1, sum);
      y = sum;
    }
  if (n->relu)
    dnn_pointwise (g, DNN_RELU, y, -1, -1, result (g, TRUE, n->dtype, &n->x, n->layout));
  name_epilogue (g, FALSE, n->residual, n->relu ? CUDA_DNN_RELU : CUDA_DNN_LINEAR);
  return g;
}

/* The gradient behind relu is needed twice with a residual: by the norm, and as the residual's own gradient.  cuDNN's fused kernels take relu's gradient as a
 * product with a mask in the data's dtype: where y is 0 an infinite dy becomes NaN, not 0; either way the step is not finite. */
CudaDnnGraph *
cuda_dnn_graph_batch_norm_grad (const CudaDnnBatchNorm *n)
{
  CudaDnnGraph *g = dnn_graph_new ("batch norm, gradient", n->dtype, DNN_PRODUCTS_NONE, 80700);
  gint64 c = n->x.size[1];
  gint32 dy = image (g, CUDA_DNN_DY, n->dtype, &n->x, n->layout), x = image (g, CUDA_DNN_X, n->dtype, &n->x, n->layout);
  gint32 scale = channels (g, CUDA_DNN_SCALE, HEDDLE_F32, c), mean = channels (g, CUDA_DNN_MEAN, HEDDLE_F32, c), rstd = channels (g, CUDA_DNN_RSTD, HEDDLE_F32, c);
  if (n->relu)
    {
      gint32 y = image (g, CUDA_DNN_Y, n->dtype, &n->x, n->layout), mask = dnn_like (g, dy, DNN_DTYPE_BOOL);
      gint32 behind = n->residual ? image (g, CUDA_DNN_DRESIDUAL, n->dtype, &n->x, n->layout) : dnn_like (g, dy, n->dtype);
      dnn_pointwise (g, DNN_GREATER, y, dnn_constant (g, 0), -1, mask);
      dnn_pointwise (g, DNN_MUL, dy, mask, -1, behind);
      dy = behind;
    }
  gint32 in[] = { dy, x, scale, mean, rstd };
  gint32 out[] = { image (g, CUDA_DNN_DX, n->dtype, &n->x, n->layout), channels (g, CUDA_DNN_DSCALE, HEDDLE_F32, c), channels (g, CUDA_DNN_DSHIFT, HEDDLE_F32, c) };
  dnn_op (g, DNN_OP_NORM_GRAD, DNN_NORM_BATCH, in, 5, out, 3);
  name_epilogue (g, FALSE, n->residual && n->relu, n->relu ? CUDA_DNN_RELU : CUDA_DNN_LINEAR);
  return g;
}

/* Pointwise only: cuDNN's own inference takes 1/sqrt (variance + eps), which nobody keeps. */
CudaDnnGraph *
cuda_dnn_graph_batch_norm_eval (const CudaDnnBatchNorm *n)
{
  CudaDnnGraph *g = dnn_graph_new ("batch norm, given statistics", n->dtype, DNN_PRODUCTS_NONE, 80700);
  gint64 c = n->x.size[1];
  gint32 x = image (g, CUDA_DNN_X, n->dtype, &n->x, n->layout), scale = channels (g, CUDA_DNN_SCALE, HEDDLE_F32, c), shift = channels (g, CUDA_DNN_SHIFT, HEDDLE_F32, c);
  gint32 mean = channels (g, CUDA_DNN_RUNNING_MEAN, HEDDLE_F32, c), variance = channels (g, CUDA_DNN_RUNNING_VARIANCE, HEDDLE_F32, c);
  gint32 residual = n->residual ? image (g, CUDA_DNN_RESIDUAL, n->dtype, &n->x, n->layout) : -1;
  gint32 plus = dnn_like (g, variance, HEDDLE_F32), rstd = dnn_like (g, variance, HEDDLE_F32);
  gint32 centred = dnn_like (g, x, HEDDLE_F32), normal = dnn_like (g, x, HEDDLE_F32), scaled = dnn_like (g, x, HEDDLE_F32);
  gint32 y = result (g, !n->relu && !n->residual, n->dtype, &n->x, n->layout);
  dnn_pointwise (g, DNN_ADD, variance, dnn_constant (g, n->eps), -1, plus);
  dnn_pointwise (g, DNN_RSQRT, plus, -1, -1, rstd);
  dnn_pointwise (g, DNN_SUB, x, mean, -1, centred);
  dnn_pointwise (g, DNN_MUL, centred, rstd, -1, normal);
  dnn_pointwise (g, DNN_MUL, normal, scale, -1, scaled);
  dnn_pointwise (g, DNN_ADD, scaled, shift, -1, y);
  if (n->residual)
    {
      gint32 sum = result (g, !n->relu, n->dtype, &n->x, n->layout);
      dnn_pointwise (g, DNN_ADD, y, residual, -1, sum);
      y = sum;
    }
  if (n->relu)
    dnn_pointwise (g, DNN_RELU, y, -1, -1, result (g, TRUE, n->dtype, &n->x, n->layout));
  name_epilogue (g, FALSE, n->residual, n->relu ? CUDA_DNN_RELU : CUDA_DNN_LINEAR);
  return g;
}

/* ---- layer norm and RMS norm: rows (N, C, 1, 1) normalised over C --------------------------------------------------------------------------- */

static gint32
rows (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, gint64 n, gint64 c)
{
  gint64 dim[4] = { n, c, 1, 1 }, stride[4] = { c, 1, c, c };
  return dnn_bound (g, uid, dtype, dim, stride);
}

/* cuDNN 8.7 lists the layer norm but computes it from 8.9.5 on, the RMS norm from 8.9.6 on. */
static CudaDnnGraph *
row_norm_graph (const CudaDnnRowNorm *n, const char *layer, const char *rms)
{
  return dnn_graph_new (n->rms ? rms : layer, n->dtype, DNN_PRODUCTS_NONE, n->rms ? 80906 : 80905);
}

CudaDnnGraph *
cuda_dnn_graph_row_norm (const CudaDnnRowNorm *n)
{
  gboolean narrow = n->y != n->dtype;
  CudaDnnGraph *g = row_norm_graph (n, narrow ? "layer norm to 16 bits" : "layer norm", narrow ? "rms norm to 16 bits" : "rms norm");
  gint32 x = rows (g, CUDA_DNN_X, n->dtype, n->rows, n->width), scale = rows (g, CUDA_DNN_SCALE, HEDDLE_F32, 1, n->width);
  gint32 shift = n->rms ? -1 : rows (g, CUDA_DNN_SHIFT, HEDDLE_F32, 1, n->width), eps = dnn_constant (g, n->eps);
  gint32 y = rows (g, CUDA_DNN_Y, n->y, n->rows, n->width), mean = n->rms ? -1 : rows (g, CUDA_DNN_MEAN, HEDDLE_F32, n->rows, 1);
  gint32 rstd = rows (g, CUDA_DNN_RSTD, HEDDLE_F32, n->rows, 1);
  gint32 in[] = { x, scale, shift, eps }, out[] = { y, mean, rstd };
  dnn_op (g, DNN_OP_NORM, n->rms ? DNN_NORM_RMS : DNN_NORM_LAYER, in, 4, out, 3);
  return g;
}

CudaDnnGraph *
cuda_dnn_graph_row_norm_grad (const CudaDnnRowNorm *n)
{
  gboolean narrow = n->y != n->dtype;
  CudaDnnGraph *g = row_norm_graph (n, narrow ? "layer norm, gradient from 16 bits" : "layer norm, gradient", narrow ? "rms norm, gradient from 16 bits" : "rms norm, gradient");
  gint32 dy = rows (g, CUDA_DNN_DY, n->y, n->rows, n->width), x = rows (g, CUDA_DNN_X, n->dtype, n->rows, n->width);
  gint32 scale = rows (g, CUDA_DNN_SCALE, HEDDLE_F32, 1, n->width), mean = n->rms ? -1 : rows (g, CUDA_DNN_MEAN, HEDDLE_F32, n->rows, 1);
  gint32 rstd = rows (g, CUDA_DNN_RSTD, HEDDLE_F32, n->rows, 1), dx = rows (g, CUDA_DNN_DX, n->dtype, n->rows, n->width);
  gint32 dscale = rows (g, CUDA_DNN_DSCALE, HEDDLE_F32, 1, n->width), dshift = n->rms ? -1 : rows (g, CUDA_DNN_DSHIFT, HEDDLE_F32, 1, n->width);
  gint32 in[] = { dy, x, scale, mean, rstd }, out[] = { dx, dscale, dshift };
  dnn_op (g, DNN_OP_NORM_GRAD, n->rms ? DNN_NORM_RMS : DNN_NORM_LAYER, in, 5, out, 3);
  return g;
}

/* ---- pooling ------------------------------------------------------------------------------------------------------------------------------ */

static void
set_pool (DnnOp *op, const HeddlePoolAttr *a)
{
  memcpy (op->kernel, a->kernel, sizeof op->kernel);
  memcpy (op->stride, a->stride, sizeof op->stride);
  memcpy (op->padding, a->padding, sizeof op->padding);
}

CudaDnnGraph *
cuda_dnn_graph_pool (const CudaDnnPool *p)
{
  CudaDnnGraph *g = dnn_graph_new (p->average ? "average pool" : "max pool", p->dtype, DNN_PRODUCTS_NONE, 80700);
  gint32 x = image (g, CUDA_DNN_X, p->dtype, &p->x, p->layout), out[] = { image (g, CUDA_DNN_Y, p->dtype, &p->y, p->layout), -1 };
  if (!p->average)
    out[1] = image (g, CUDA_DNN_INDEX, DNN_DTYPE_I8, &p->y, p->layout);
  set_pool (dnn_op (g, p->average ? DNN_OP_AVG_POOL : DNN_OP_MAX_POOL, p->average && p->attr.exclude_padding, &x, 1, out, 2), &p->attr);
  return g;
}

CudaDnnGraph *
cuda_dnn_graph_pool_grad (const CudaDnnPool *p)
{
  CudaDnnGraph *g = dnn_graph_new (p->average ? "average pool, gradient" : "max pool, gradient", p->dtype, DNN_PRODUCTS_NONE, 80700);
  gint32 in[] = { image (g, CUDA_DNN_DY, p->dtype, &p->y, p->layout), -1 }, dx = image (g, CUDA_DNN_DX, p->dtype, &p->x, p->layout);
  if (!p->average)
    in[1] = image (g, CUDA_DNN_INDEX, DNN_DTYPE_I8, &p->y, p->layout);
  set_pool (dnn_op (g, p->average ? DNN_OP_AVG_POOL_GRAD : DNN_OP_MAX_POOL_GRAD, p->average && p->attr.exclude_padding, in, 2, &dx, 1), &p->attr);
  return g;
}

/* ---- product with an epilogue --------------------------------------------------------------------------------------------------------------- */

/* (1, rows, columns), lying transposed or not; bound when UID says so. */
static gint32
matrix (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, gint64 r, gint64 c, gboolean transposed)
{
  gint64 dim[4] = { 1, r, c }, stride[4] = { r * c, transposed ? 1 : c, transposed ? r : 1 };
  gint32 t = uid ? dnn_bound (g, uid, dtype, dim, stride) : dnn_virtual (g, dtype, dim, stride);
  g->tensor[t].rank = 3;
  return t;
}

/* What the next operation reads stays in f32. */
static gint32
product (CudaDnnGraph *g, const CudaDnnMatmul *a, gboolean last)
{
  return matrix (g, last ? CUDA_DNN_Y : CUDA_DNN_NONE, last ? a->dtype : HEDDLE_F32, a->m, a->n, FALSE);
}

CudaDnnGraph *
cuda_dnn_graph_matmul (const CudaDnnMatmul *a)
{
  CudaDnnGraph *g = dnn_graph_new ("matmul", a->dtype, DNN_PRODUCTS_MATMUL, 80700);
  gint32 in[] = { matrix (g, CUDA_DNN_X, a->dtype, a->m, a->k, FALSE), matrix (g, CUDA_DNN_W, a->dtype, a->k, a->n, TRUE) };
  gint32 bias = a->bias ? matrix (g, CUDA_DNN_BIAS, a->dtype, 1, a->n, FALSE) : -1, y = product (g, a, !a->bias && !a->activation);
  dnn_op (g, DNN_OP_MATMUL, 0, in, 2, &y, 1);
  if (a->bias)
    {
      gint32 sum = product (g, a, !a->activation);
      dnn_pointwise (g, DNN_ADD, y, bias, -1, sum);
      y = sum;
    }
  if (a->activation)
    dnn_pointwise (g, activation_mode (a->activation), y, -1, -1, product (g, a, TRUE));
  name_epilogue (g, a->bias, FALSE, a->activation);
  return g;
}
