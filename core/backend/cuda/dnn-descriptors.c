/* cuda/dnn-descriptors.c: a graph that is data becomes cuDNN's descriptors.
 * Must not know what the graph computes nor how a plan for it is chosen. */
#include "dnn-private.h"

#include <string.h>

void
dnn_maker_init (DnnMaker *m)
{
  *m = (DnnMaker) { g_ptr_array_new (), CUDNN_STATUS_SUCCESS, NULL };
}

void
dnn_maker_clear (DnnMaker *m)
{
  for (guint i = m->all->len; i > 0; i--)
    if (m->all->pdata[i - 1])
      cudnnBackendDestroyDescriptor (m->all->pdata[i - 1]);
  g_ptr_array_unref (m->all);
  g_free (m->reason);
}

Descriptor
dnn_take (DnnMaker *m, Descriptor d)
{
  for (guint i = 0; i < m->all->len; i++)
    if (m->all->pdata[i] == d)
      m->all->pdata[i] = NULL;
  return d;
}

/* cuDNN 9 keeps a sentence about each thread's last failure; before that there is only the status' name. */
const char *
dnn_status_text (cudnnStatus_t status, char *buffer, gsize size)
{
  buffer[0] = 0;
#if CUDNN_VERSION >= 90000
  cudnnGetLastErrorString (buffer, size);
#endif
  g_strdelimit (g_strstrip (buffer), "\n\t", ' ');
  return *buffer ? buffer : cudnnGetErrorString (status);
}

static gboolean
check (DnnMaker *m, cudnnStatus_t status, const char *what)
{
  if (status != CUDNN_STATUS_SUCCESS && m->status == CUDNN_STATUS_SUCCESS)
    {
      char text[512];
      m->status = status;
      m->reason = g_strdup_printf ("%s: %s: %s", what, cudnnGetErrorString (status), dnn_status_text (status, text, sizeof text));
    }
  return m->status == CUDNN_STATUS_SUCCESS;
}

Descriptor
dnn_make (DnnMaker *m, cudnnBackendDescriptorType_t type)
{
  Descriptor d = NULL;
  if (m->status == CUDNN_STATUS_SUCCESS && check (m, cudnnBackendCreateDescriptor (type, &d), "descriptor"))
    g_ptr_array_add (m->all, d);
  return d;
}

void
dnn_set (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
  if (m->status == CUDNN_STATUS_SUCCESS)
    check (m, cudnnBackendSetAttribute (d, name, type, n, values), "attribute");
}

void
dnn_set_link (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, Descriptor to)
{
  if (to)
    dnn_set (m, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
}

gboolean
dnn_finish (DnnMaker *m, Descriptor d)
{
  return m->status == CUDNN_STATUS_SUCCESS && check (m, cudnnBackendFinalize (d), "finalize");
}

static void
set_int (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, int64_t value)
{
  dnn_set (m, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void
set_true (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name)
{
  bool yes = true;
  dnn_set (m, d, name, CUDNN_TYPE_BOOLEAN, 1, &yes);
}

static void
set_dtype (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, cudnnDataType_t dtype)
{
  dnn_set (m, d, name, CUDNN_TYPE_DATA_TYPE, 1, &dtype);
}

/* ---- tensors ---- */

static cudnnDataType_t
data_type (gint32 dtype)
{
  switch (dtype)
    {
    case HEDDLE_F16: return CUDNN_DATA_HALF;
    case HEDDLE_BF16: return CUDNN_DATA_BFLOAT16;
    case HEDDLE_U8: return CUDNN_DATA_UINT8;
    case HEDDLE_I32: return CUDNN_DATA_INT32;
    case HEDDLE_I64: return CUDNN_DATA_INT64;
    case DNN_DTYPE_BOOL: return CUDNN_DATA_BOOLEAN;
    case DNN_DTYPE_I8: return CUDNN_DATA_INT8;
    default: return CUDNN_DATA_FLOAT;
    }
}

/* Every buffer of the backend starts at a multiple of 256 bytes, windows of flat variables at one of 64: 16 is always true. */
static Descriptor
make_tensor (DnnMaker *m, const DnnTensor *t)
{
  Descriptor d = dnn_make (m, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  set_dtype (m, d, CUDNN_ATTR_TENSOR_DATA_TYPE, data_type (t->dtype));
  dnn_set (m, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, t->rank, t->dim);
  dnn_set (m, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, t->rank, t->stride);
  set_int (m, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, t->uid);
  set_int (m, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
  if (t->kind == DNN_TENSOR_VIRTUAL)
    set_true (m, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
  if (t->kind == DNN_TENSOR_CONSTANT)
    set_true (m, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
  dnn_finish (m, d);
  return d;
}

/* ---- operations ---- */

typedef struct { DnnMaker *m; Descriptor tensor[DNN_MAX_TENSORS]; } Lowering;
typedef struct { cudnnBackendAttributeName_t name; gint port; } Link;      /* port: place in .in; 100 + place in .out */

#define OUT(i) (100 + (i))

static void
set_links (Lowering *l, Descriptor d, const DnnOp *op, const Link *links, guint n)
{
  for (guint i = 0; i < n; i++)
    {
      gint32 t = links[i].port < 100 ? op->in[links[i].port] : op->out[links[i].port - 100];
      dnn_set_link (l->m, d, links[i].name, t >= 0 ? l->tensor[t] : NULL);
    }
}

#define LINK(...) \
  static const Link links[] = { __VA_ARGS__ }; \
  set_links (l, d, op, links, G_N_ELEMENTS (links))

static cudnnPointwiseMode_t
pointwise_mode (DnnPointwise mode)
{
  static const cudnnPointwiseMode_t modes[DNN_N_POINTWISE] = {
    [DNN_ADD] = CUDNN_POINTWISE_ADD, [DNN_MUL] = CUDNN_POINTWISE_MUL, [DNN_SUB] = CUDNN_POINTWISE_SUB, [DNN_DIV] = CUDNN_POINTWISE_DIV, [DNN_EXP] = CUDNN_POINTWISE_EXP,
    [DNN_LOG] = CUDNN_POINTWISE_LOG, [DNN_RSQRT] = CUDNN_POINTWISE_RSQRT, [DNN_IDENTITY] = CUDNN_POINTWISE_IDENTITY, [DNN_RELU] = CUDNN_POINTWISE_RELU_FWD,
    [DNN_GELU] = CUDNN_POINTWISE_GELU_FWD, [DNN_GELU_TANH] = CUDNN_POINTWISE_GELU_APPROX_TANH_FWD, [DNN_SIGMOID] = CUDNN_POINTWISE_SIGMOID_FWD, [DNN_TANH] = CUDNN_POINTWISE_TANH_FWD,
    [DNN_SILU] = CUDNN_POINTWISE_SWISH_FWD, [DNN_ROW] = CUDNN_POINTWISE_GEN_INDEX, [DNN_COLUMN] = CUDNN_POINTWISE_GEN_INDEX,
    [DNN_GREATER] = CUDNN_POINTWISE_CMP_GT, [DNN_GREATER_EQUAL] = CUDNN_POINTWISE_CMP_GE, [DNN_SELECT] = CUDNN_POINTWISE_BINARY_SELECT
  };
  return modes[mode];
}

static Descriptor
make_function (DnnMaker *m, DnnPointwise mode)
{
  Descriptor d = dnn_make (m, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  cudnnPointwiseMode_t code = pointwise_mode (mode);
  gboolean index = mode == DNN_ROW || mode == DNN_COLUMN;
  cudnnNanPropagation_t nan = CUDNN_PROPAGATE_NAN;
  dnn_set (m, d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &code);
  set_dtype (m, d, CUDNN_ATTR_POINTWISE_MATH_PREC, index ? CUDNN_DATA_INT32 : mode == DNN_GREATER || mode == DNN_GREATER_EQUAL ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT);
  if (index)
    set_int (m, d, CUDNN_ATTR_POINTWISE_AXIS, mode == DNN_ROW ? 2 : 3);
  if (mode == DNN_RELU)      /* else cuDNN 8 makes 0 of NaN */
    dnn_set (m, d, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION, CUDNN_TYPE_NAN_PROPOGATION, 1, &nan);
  dnn_finish (m, d);
  return d;
}

static Descriptor
lower_pointwise (Lowering *l, const DnnOp *op)
{
  Descriptor function = make_function (l->m, op->mode), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, function);
  LINK ({ CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 0 }, { CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 1 }, { CUDNN_ATTR_OPERATION_POINTWISE_TDESC, 2 },
        { CUDNN_ATTR_OPERATION_POINTWISE_YDESC, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
make_conv (DnnMaker *m, const DnnOp *op)
{
  Descriptor d = dnn_make (m, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  set_dtype (m, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  dnn_set (m, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  set_int (m, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2);
  dnn_set (m, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, op->dilation);
  dnn_set (m, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, op->stride);
  dnn_set (m, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, op->padding);
  dnn_set (m, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, op->padding);
  dnn_finish (m, d);
  return d;
}

static void
set_blend (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t alpha, cudnnBackendAttributeName_t beta)
{
  float one = 1, zero = 0;
  dnn_set (m, d, alpha, CUDNN_TYPE_FLOAT, 1, &one);
  dnn_set (m, d, beta, CUDNN_TYPE_FLOAT, 1, &zero);
}

static Descriptor
lower_conv (Lowering *l, const DnnOp *op)
{
  Descriptor conv = make_conv (l->m, op), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
  set_blend (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
  LINK ({ CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, 0 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, 1 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_conv_data (Lowering *l, const DnnOp *op)
{
  Descriptor conv = make_conv (l->m, op), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, conv);
  set_blend (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
  LINK ({ CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, 0 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, 1 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_conv_weight (Lowering *l, const DnnOp *op)
{
  Descriptor conv = make_conv (l->m, op), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, conv);
  set_blend (l->m, d, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA);
  LINK ({ CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, 0 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, 1 }, { CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_matmul (Lowering *l, const DnnOp *op)
{
  Descriptor kind = dnn_make (l->m, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  set_dtype (l->m, kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
  dnn_finish (l->m, kind);
  Descriptor d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
  LINK ({ CUDNN_ATTR_OPERATION_MATMUL_ADESC, 0 }, { CUDNN_ATTR_OPERATION_MATMUL_BDESC, 1 }, { CUDNN_ATTR_OPERATION_MATMUL_CDESC, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_reduction (Lowering *l, const DnnOp *op)
{
  Descriptor kind = dnn_make (l->m, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  cudnnReduceTensorOp_t f = op->kind == DNN_OP_SUM ? CUDNN_REDUCE_TENSOR_ADD : CUDNN_REDUCE_TENSOR_MAX;
  dnn_set (l->m, kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &f);
  set_dtype (l->m, kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  dnn_finish (l->m, kind);
  Descriptor d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind);
  LINK ({ CUDNN_ATTR_OPERATION_REDUCTION_XDESC, 0 }, { CUDNN_ATTR_OPERATION_REDUCTION_YDESC, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_reshape (Lowering *l, const DnnOp *op)
{
  Descriptor d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  LINK ({ CUDNN_ATTR_OPERATION_RESHAPE_XDESC, 0 }, { CUDNN_ATTR_OPERATION_RESHAPE_YDESC, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

/* CUDNN_RMS_NORM is newer than 8.7's header: its number is part of cuDNN's interface, and the graph's floor keeps it from older libraries. */
static cudnnBackendNormMode_t
norm_mode (DnnNorm norm)
{
  return norm == DNN_NORM_BATCH ? CUDNN_BATCH_NORM : norm == DNN_NORM_LAYER ? CUDNN_LAYER_NORM : (cudnnBackendNormMode_t) 4;
}

static Descriptor
lower_norm (Lowering *l, const DnnOp *op)
{
  Descriptor d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR);
  cudnnBackendNormMode_t mode = norm_mode (op->mode);
  cudnnBackendNormFwdPhase_t phase = CUDNN_NORM_FWD_TRAINING;
  dnn_set (l->m, d, CUDNN_ATTR_OPERATION_NORM_FWD_MODE, CUDNN_TYPE_NORM_MODE, 1, &mode);
  dnn_set (l->m, d, CUDNN_ATTR_OPERATION_NORM_FWD_PHASE, CUDNN_TYPE_NORM_FWD_PHASE, 1, &phase);
  LINK ({ CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, 0 }, { CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC, 1 }, { CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, 2 },
        { CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC, 3 }, { CUDNN_ATTR_OPERATION_NORM_FWD_EXP_AVG_FACTOR_DESC, 4 }, { CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_MEAN_DESC, 5 },
        { CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_VAR_DESC, 6 }, { CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, OUT (0) }, { CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC, OUT (1) },
        { CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC, OUT (2) }, { CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_MEAN_DESC, OUT (3) },
        { CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_VAR_DESC, OUT (4) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_norm_grad (Lowering *l, const DnnOp *op)
{
  Descriptor d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR);
  cudnnBackendNormMode_t mode = norm_mode (op->mode);
  dnn_set (l->m, d, CUDNN_ATTR_OPERATION_NORM_BWD_MODE, CUDNN_TYPE_NORM_MODE, 1, &mode);
  LINK ({ CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, 0 }, { CUDNN_ATTR_OPERATION_NORM_BWD_XDESC, 1 }, { CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC, 2 },
        { CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC, 3 }, { CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC, 4 }, { CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, OUT (0) },
        { CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC, OUT (1) }, { CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC, OUT (2) });
  dnn_finish (l->m, d);
  return d;
}

/* A NaN in a window is its maximum, as in PyTorch. */
static Descriptor
make_pool (DnnMaker *m, const DnnOp *op)
{
  Descriptor d = dnn_make (m, CUDNN_BACKEND_RESAMPLE_DESCRIPTOR);
  gboolean most = op->kind == DNN_OP_MAX_POOL || op->kind == DNN_OP_MAX_POOL_GRAD;
  cudnnResampleMode_t mode = most ? CUDNN_RESAMPLE_MAXPOOL : op->mode ? CUDNN_RESAMPLE_AVGPOOL_EXCLUDE_PADDING : CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING;
  cudnnNanPropagation_t nan = CUDNN_PROPAGATE_NAN;
  cudnnPaddingMode_t pad = most ? CUDNN_NEG_INF_PAD : CUDNN_ZERO_PAD;
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_MODE, CUDNN_TYPE_RESAMPLE_MODE, 1, &mode);
  set_dtype (m, d, CUDNN_ATTR_RESAMPLE_COMP_TYPE, CUDNN_DATA_FLOAT);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_NAN_PROPAGATION, CUDNN_TYPE_NAN_PROPOGATION, 1, &nan);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_PADDING_MODE, CUDNN_TYPE_PADDING_MODE, 1, &pad);
  set_int (m, d, CUDNN_ATTR_RESAMPLE_SPATIAL_DIMS, 2);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_WINDOW_DIMS, CUDNN_TYPE_INT64, 2, op->kernel);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_STRIDES, CUDNN_TYPE_INT64, 2, op->stride);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, op->padding);
  dnn_set (m, d, CUDNN_ATTR_RESAMPLE_POST_PADDINGS, CUDNN_TYPE_INT64, 2, op->padding);
  dnn_finish (m, d);
  return d;
}

static Descriptor
lower_pool (Lowering *l, const DnnOp *op)
{
  Descriptor pool = make_pool (l->m, op), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC, pool);
  LINK ({ CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC, 0 }, { CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC, OUT (0) }, { CUDNN_ATTR_OPERATION_RESAMPLE_FWD_IDXDESC, OUT (1) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor
lower_pool_grad (Lowering *l, const DnnOp *op)
{
  Descriptor pool = make_pool (l->m, op), d = dnn_make (l->m, CUDNN_BACKEND_OPERATION_RESAMPLE_BWD_DESCRIPTOR);
  dnn_set_link (l->m, d, CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC, pool);
  LINK ({ CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC, 0 }, { CUDNN_ATTR_OPERATION_RESAMPLE_BWD_IDXDESC, 1 }, { CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC, OUT (0) });
  dnn_finish (l->m, d);
  return d;
}

static Descriptor (*const lower[DNN_N_OPS]) (Lowering *l, const DnnOp *op) = {
  [DNN_OP_POINTWISE] = lower_pointwise, [DNN_OP_CONV] = lower_conv, [DNN_OP_CONV_DATA] = lower_conv_data, [DNN_OP_CONV_WEIGHT] = lower_conv_weight, [DNN_OP_MATMUL] = lower_matmul,
  [DNN_OP_SUM] = lower_reduction, [DNN_OP_MAXIMUM] = lower_reduction, [DNN_OP_RESHAPE] = lower_reshape, [DNN_OP_NORM] = lower_norm, [DNN_OP_NORM_GRAD] = lower_norm_grad,
  [DNN_OP_MAX_POOL] = lower_pool, [DNN_OP_AVG_POOL] = lower_pool, [DNN_OP_MAX_POOL_GRAD] = lower_pool_grad, [DNN_OP_AVG_POOL_GRAD] = lower_pool_grad
};

Descriptor
dnn_lower (DnnMaker *m, cudnnHandle_t handle, const CudaDnnGraph *graph)
{
  Lowering l = { .m = m };
  Descriptor ops[DNN_MAX_OPS], d = NULL;
  for (gint32 i = 0; i < graph->n_tensors; i++)
    l.tensor[i] = make_tensor (m, &graph->tensor[i]);
  for (gint32 i = 0; i < graph->n_ops; i++)
    ops[i] = lower[graph->op[i].kind] (&l, &graph->op[i]);
  d = dnn_make (m, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (handle)
    dnn_set (m, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  dnn_set (m, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->n_ops, ops);
  return dnn_finish (m, d) ? d : NULL;
}
