/* cudnn-deviceless/fake-cudnn.c: a cuDNN for the simulated device that computes: descriptors are read back into a graph, and running a plan interprets it on the device's memory, in the
 * order of its stream.  It supports what the real one does not refuse for its layout.  Must not share code with whoever makes descriptors. */
#include "cuda-sim/fake.h"
#include "base/memory.h"
#include "cudnn-deviceless/interpret.h"
#include "tensor/tensors.h"

#include <cudnn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__ ((visibility ("default")))
#define WORKSPACE 512                  /* asked for by every plan, and overwritten */

typedef struct { gint64 n; gsize bytes; char *data; } Attribute;
typedef struct _Thing
{
  cudnnBackendDescriptorType_t type;
  gboolean      finished;
  GHashTable   *attributes;            /* name -> Attribute * */
  gint          engine;
  CudaDnnGraph *graph;                 /* of graphs, heuristics, configurations, engines and plans; theirs alone */
} Thing;

struct cudnnContext { cudaStream_t stream; };

static GString *complaint;             /* cudnnGetLastErrorString () */

static cudnnStatus_t
refuse (cudnnStatus_t status, const char *why)
{
  complaint = complaint ? complaint : g_string_new (NULL);
  g_string_assign (complaint, why);
  return status;
}

/* ---- attributes ---- */

static gsize
size_of (cudnnBackendAttributeType_t type)
{
  switch (type)
    {
    case CUDNN_TYPE_INT64: case CUDNN_TYPE_DOUBLE: case CUDNN_TYPE_VOID_PTR: case CUDNN_TYPE_BACKEND_DESCRIPTOR: case CUDNN_TYPE_HANDLE: return 8;
    case CUDNN_TYPE_BOOLEAN: case CUDNN_TYPE_CHAR: return 1;
    default: return 4;
    }
}

static void
attribute_free (gpointer data)
{
  g_free (((Attribute *) data)->data);
  g_free (data);
}

static gconstpointer
get (const Thing *t, cudnnBackendAttributeName_t name, gint64 *n)
{
  const Attribute *a = g_hash_table_lookup (t->attributes, GINT_TO_POINTER (name));
  if (n)
    *n = a ? a->n : 0;
  return a ? a->data : NULL;
}

static gint64
integer (const Thing *t, cudnnBackendAttributeName_t name)
{
  const gint64 *p = get (t, name, NULL);
  return p ? *p : 0;
}

static int
enumerator (const Thing *t, cudnnBackendAttributeName_t name)
{
  const int *p = get (t, name, NULL);
  return p ? *p : -1;
}

static gboolean
flag (const Thing *t, cudnnBackendAttributeName_t name)
{
  const char *p = get (t, name, NULL);
  return p && *p;
}

static Thing *
link_of (const Thing *t, cudnnBackendAttributeName_t name)
{
  Thing *const *p = get (t, name, NULL);
  return p ? *p : NULL;
}

static void
copy_pair (const Thing *t, cudnnBackendAttributeName_t name, gint64 to[2])
{
  gint64 n;
  const gint64 *p = get (t, name, &n);
  g_assert (p && n == 2);
  memcpy (to, p, 2 * sizeof *to);
}

/* ---- descriptors back into a graph ---- */

typedef struct { CudaDnnGraph *g; GHashTable *index; } Reader;

static gint32
dtype_of (int code)
{
  switch (code)
    {
    case CUDNN_DATA_FLOAT: return HEDDLE_F32;
    case CUDNN_DATA_HALF: return HEDDLE_F16;
    case CUDNN_DATA_BFLOAT16: return HEDDLE_BF16;
    case CUDNN_DATA_INT32: return HEDDLE_I32;
    case CUDNN_DATA_INT8: return DNN_DTYPE_I8;
    case CUDNN_DATA_BOOLEAN: return DNN_DTYPE_BOOL;
    default: g_assert_not_reached ();
    }
}

/* A tensor that is real but bound by nobody's name is scratch; to us it is a pointer like the others. */
static gint32
tensor (Reader *r, const Thing *op, cudnnBackendAttributeName_t name)
{
  Thing *t = link_of (op, name);
  gpointer known = t ? g_hash_table_lookup (r->index, t) : NULL;
  if (t && !known)
    {
      DnnTensor *x = &r->g->tensor[r->g->n_tensors++];
      gint64 n, n_strides;
      const gint64 *dim = get (t, CUDNN_ATTR_TENSOR_DIMENSIONS, &n), *stride = get (t, CUDNN_ATTR_TENSOR_STRIDES, &n_strides);
      g_assert (t->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR && t->finished && n == n_strides && n >= 3 && n <= 4);
      *x = (DnnTensor) { .uid = integer (t, CUDNN_ATTR_TENSOR_UNIQUE_ID), .dtype = dtype_of (enumerator (t, CUDNN_ATTR_TENSOR_DATA_TYPE)), .rank = (gint32) n };
      x->kind = flag (t, CUDNN_ATTR_TENSOR_IS_VIRTUAL) ? DNN_TENSOR_VIRTUAL : flag (t, CUDNN_ATTR_TENSOR_IS_BY_VALUE) ? DNN_TENSOR_CONSTANT : DNN_TENSOR_BOUND;
      memcpy (x->dim, dim, (gsize) n * 8);
      memcpy (x->stride, stride, (gsize) n * 8);
      known = GINT_TO_POINTER (r->g->n_tensors);
      g_hash_table_insert (r->index, t, known);
    }
  return t ? GPOINTER_TO_INT (known) - 1 : -1;
}

static DnnOp *
op_new (Reader *r, DnnOpKind kind, gint32 mode)
{
  DnnOp *op = &r->g->op[r->g->n_ops++];
  *op = (DnnOp) { .kind = kind, .mode = mode, .dilation = { 1, 1 } };
  for (guint i = 0; i < DNN_PORTS; i++)
    op->in[i] = op->out[i] = -1;
  return op;
}

static gint32
pointwise_of (const Thing *f)
{
  static const struct { int code; DnnPointwise mode; } table[] = {
    { CUDNN_POINTWISE_ADD, DNN_ADD }, { CUDNN_POINTWISE_MUL, DNN_MUL }, { CUDNN_POINTWISE_SUB, DNN_SUB }, { CUDNN_POINTWISE_DIV, DNN_DIV }, { CUDNN_POINTWISE_EXP, DNN_EXP },
    { CUDNN_POINTWISE_LOG, DNN_LOG }, { CUDNN_POINTWISE_RSQRT, DNN_RSQRT }, { CUDNN_POINTWISE_IDENTITY, DNN_IDENTITY }, { CUDNN_POINTWISE_RELU_FWD, DNN_RELU },
    { CUDNN_POINTWISE_GELU_FWD, DNN_GELU }, { CUDNN_POINTWISE_GELU_APPROX_TANH_FWD, DNN_GELU_TANH }, { CUDNN_POINTWISE_SIGMOID_FWD, DNN_SIGMOID }, { CUDNN_POINTWISE_TANH_FWD, DNN_TANH },
    { CUDNN_POINTWISE_SWISH_FWD, DNN_SILU }, { CUDNN_POINTWISE_CMP_GT, DNN_GREATER }, { CUDNN_POINTWISE_CMP_GE, DNN_GREATER_EQUAL }, { CUDNN_POINTWISE_BINARY_SELECT, DNN_SELECT }
  };
  int code = enumerator (f, CUDNN_ATTR_POINTWISE_MODE);
  gint32 mode = code == CUDNN_POINTWISE_GEN_INDEX ? (integer (f, CUDNN_ATTR_POINTWISE_AXIS) == 2 ? DNN_ROW : DNN_COLUMN) : -1;
  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    mode = table[i].code == code ? (gint32) table[i].mode : mode;
  g_assert (mode >= 0);
  g_assert (mode != DNN_RELU || enumerator (f, CUDNN_ATTR_POINTWISE_NAN_PROPAGATION) == CUDNN_PROPAGATE_NAN);      /* what an interpreted relu does */
  return mode;
}

static void
read_pointwise (Reader *r, const Thing *t)
{
  DnnOp *op = op_new (r, DNN_OP_POINTWISE, pointwise_of (link_of (t, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)));
  op->in[0] = tensor (r, t, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
  op->in[1] = tensor (r, t, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
  op->in[2] = tensor (r, t, CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
  op->out[0] = tensor (r, t, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
}

typedef struct { DnnOpKind kind; cudnnBackendAttributeName_t conv, a, b, y, alpha, beta; gint w_port; } ConvNames;

static void
read_conv (Reader *r, const Thing *t, const ConvNames *n)
{
  DnnOp *op = op_new (r, n->kind, 0);
  const Thing *conv = link_of (t, n->conv);
  const float *alpha = get (t, n->alpha, NULL), *beta = get (t, n->beta, NULL);
  g_assert (*alpha == 1 && *beta == 0 && enumerator (conv, CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CROSS_CORRELATION && enumerator (conv, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) == CUDNN_DATA_FLOAT);
  gint64 post[2];
  op->in[0] = tensor (r, t, n->a);
  op->in[1] = tensor (r, t, n->b);
  op->out[0] = tensor (r, t, n->y);
  copy_pair (conv, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, op->stride);
  copy_pair (conv, CUDNN_ATTR_CONVOLUTION_DILATIONS, op->dilation);
  copy_pair (conv, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, op->padding);
  copy_pair (conv, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, post);
  g_assert (memcmp (post, op->padding, sizeof post) == 0);
  memcpy (op->kernel, r->g->tensor[n->w_port < 2 ? op->in[n->w_port] : op->out[0]].dim + 2, sizeof op->kernel);
}

static void
read_two (Reader *r, const Thing *t, DnnOpKind kind, cudnnBackendAttributeName_t a, cudnnBackendAttributeName_t b, cudnnBackendAttributeName_t y)
{
  DnnOp *op = op_new (r, kind, 0);
  op->in[0] = tensor (r, t, a);
  if (b != a)
    op->in[1] = tensor (r, t, b);
  op->out[0] = tensor (r, t, y);
}

static void
read_norm (Reader *r, const Thing *t)
{
  static const cudnnBackendAttributeName_t in[] = { CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC,
    CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_EXP_AVG_FACTOR_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_MEAN_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_VAR_DESC };
  static const cudnnBackendAttributeName_t out[] = { CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC,
    CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_MEAN_DESC, CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_VAR_DESC };
  int mode = enumerator (t, CUDNN_ATTR_OPERATION_NORM_FWD_MODE);
  g_assert (enumerator (t, CUDNN_ATTR_OPERATION_NORM_FWD_PHASE) == CUDNN_NORM_FWD_TRAINING);
  DnnOp *op = op_new (r, DNN_OP_NORM, mode == CUDNN_BATCH_NORM ? DNN_NORM_BATCH : mode == CUDNN_LAYER_NORM ? DNN_NORM_LAYER : DNN_NORM_RMS);
  for (guint i = 0; i < G_N_ELEMENTS (in); i++)
    op->in[i] = tensor (r, t, in[i]);
  for (guint i = 0; i < G_N_ELEMENTS (out); i++)
    op->out[i] = tensor (r, t, out[i]);
}

static void
read_norm_grad (Reader *r, const Thing *t)
{
  static const cudnnBackendAttributeName_t in[] = { CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, CUDNN_ATTR_OPERATION_NORM_BWD_XDESC, CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC,
    CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC, CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC };
  static const cudnnBackendAttributeName_t out[] = { CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC, CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC };
  int mode = enumerator (t, CUDNN_ATTR_OPERATION_NORM_BWD_MODE);
  DnnOp *op = op_new (r, DNN_OP_NORM_GRAD, mode == CUDNN_BATCH_NORM ? DNN_NORM_BATCH : mode == CUDNN_LAYER_NORM ? DNN_NORM_LAYER : DNN_NORM_RMS);
  for (guint i = 0; i < G_N_ELEMENTS (in); i++)
    op->in[i] = tensor (r, t, in[i]);
  for (guint i = 0; i < G_N_ELEMENTS (out); i++)
    op->out[i] = tensor (r, t, out[i]);
}

static void
read_pool (Reader *r, const Thing *t, gboolean back)
{
  const Thing *pool = link_of (t, back ? CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC : CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC);
  int mode = enumerator (pool, CUDNN_ATTR_RESAMPLE_MODE);
  gboolean most = mode == CUDNN_RESAMPLE_MAXPOOL;
  DnnOp *op = op_new (r, back ? (most ? DNN_OP_MAX_POOL_GRAD : DNN_OP_AVG_POOL_GRAD) : most ? DNN_OP_MAX_POOL : DNN_OP_AVG_POOL, mode == CUDNN_RESAMPLE_AVGPOOL_EXCLUDE_PADDING);
  gint64 post[2];
  g_assert (enumerator (pool, CUDNN_ATTR_RESAMPLE_PADDING_MODE) == (most ? CUDNN_NEG_INF_PAD : CUDNN_ZERO_PAD));
  op->in[0] = tensor (r, t, back ? CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC : CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC);
  op->out[0] = tensor (r, t, back ? CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC : CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC);
  *(back ? &op->in[1] : &op->out[1]) = tensor (r, t, back ? CUDNN_ATTR_OPERATION_RESAMPLE_BWD_IDXDESC : CUDNN_ATTR_OPERATION_RESAMPLE_FWD_IDXDESC);
  copy_pair (pool, CUDNN_ATTR_RESAMPLE_WINDOW_DIMS, op->kernel);
  copy_pair (pool, CUDNN_ATTR_RESAMPLE_STRIDES, op->stride);
  copy_pair (pool, CUDNN_ATTR_RESAMPLE_PRE_PADDINGS, op->padding);
  copy_pair (pool, CUDNN_ATTR_RESAMPLE_POST_PADDINGS, post);
  g_assert (memcmp (post, op->padding, sizeof post) == 0);
}

static void
read_op (Reader *r, const Thing *t)
{
  static const ConvNames conv[] = {
    { DNN_OP_CONV, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 1 },
    { DNN_OP_CONV_DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 1 },
    { DNN_OP_CONV_WEIGHT, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, 2 },
  };
  g_assert (t->finished);
  switch ((int) t->type)
    {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: read_pointwise (r, t); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: read_conv (r, t, &conv[0]); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: read_conv (r, t, &conv[1]); break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: read_conv (r, t, &conv[2]); break;
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
      read_two (r, t, DNN_OP_MATMUL, CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
      break;
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
      read_two (r, t, enumerator (link_of (t, CUDNN_ATTR_OPERATION_REDUCTION_DESC), CUDNN_ATTR_REDUCTION_OPERATOR) == CUDNN_REDUCE_TENSOR_ADD ? DNN_OP_SUM : DNN_OP_MAXIMUM,
                CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
      break;
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR: read_two (r, t, DNN_OP_RESHAPE, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_ATTR_OPERATION_RESHAPE_YDESC); break;
    case CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR: read_norm (r, t); break;
    case CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR: read_norm_grad (r, t); break;
    case CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR: read_pool (r, t, FALSE); break;
    case CUDNN_BACKEND_OPERATION_RESAMPLE_BWD_DESCRIPTOR: read_pool (r, t, TRUE); break;
    default: g_assert_not_reached ();
    }
}

static CudaDnnGraph *
read_graph (const Thing *t)
{
  gint64 n;
  Thing *const *ops = get (t, CUDNN_ATTR_OPERATIONGRAPH_OPS, &n);
  Reader r = { g_new0 (CudaDnnGraph, 1), g_hash_table_new (NULL, NULL) };
  for (gint64 i = 0; i < n; i++)
    read_op (&r, ops[i]);
  g_hash_table_unref (r.index);
  return r.g;
}

/* ---- running: numbers from the device's memory, and back ---- */

static double
load (gint32 dtype, const char *at)
{
  switch (dtype)
    {
    case HEDDLE_F16: return heddle_f32_from_f16 (*(const guint16 *) at);
    case HEDDLE_BF16: return heddle_f32_from_bf16 (*(const guint16 *) at);
    case DNN_DTYPE_I8: return *(const gint8 *) at;
    default: return *(const float *) at;
    }
}

static void
store (gint32 dtype, char *at, double x)
{
  switch (dtype)
    {
    case HEDDLE_F16: *(guint16 *) at = heddle_f16_from_f32 ((float) x); break;
    case HEDDLE_BF16: *(guint16 *) at = heddle_bf16_from_f32 ((float) x); break;
    case DNN_DTYPE_I8: *(gint8 *) at = (gint8) x; break;
    default: *(float *) at = (float) x; break;
    }
}

static gsize
element (gint32 dtype)
{
  return dtype == HEDDLE_F16 || dtype == HEDDLE_BF16 ? 2 : dtype > 100 ? 1 : 4;
}

static gint64
elements (const DnnTensor *t)
{
  gint64 n = 1;
  for (gint32 i = 0; i < t->rank; i++)
    n *= t->dim[i];
  return n;
}

typedef struct { const CudaDnnGraph *graph; char *workspace, *address[DNN_MAX_TENSORS]; float constant[DNN_MAX_TENSORS]; } Job;

/* What the graphs were that ran: a line each, for the test that asks. */
static void
note (const CudaDnnGraph *g)
{
  const char *file = g_getenv ("HEDDLE_FAKE_CUDNN_LOG");
  FILE *f = file ? fopen (file, "a") : NULL;
  if (f)
    {
      g_autofree char *text = dnn_graph_print (g), *line = NULL;
      g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
      g_autoptr (GString) kinds = g_string_new (dnn_dtype_name (g->tensor[0].dtype));
      const DnnTensor *first = &g->tensor[g->op[0].out[0]];
      if (first->kind == DNN_TENSOR_BOUND && first->dtype != g->tensor[0].dtype)
        g_string_append_printf (kinds, ">%s", dnn_dtype_name (first->dtype));
      for (gint32 i = 1 + g->n_tensors; i < 1 + g->n_tensors + g->n_ops; i++)
        {
          line = g_strdup (lines[i]);
          g_string_append_printf (kinds, " %s", strtok (line, " "));
          g_clear_pointer (&line, g_free);
        }
      fprintf (f, "%s\n", kinds->str);
      fclose (f);
    }
}

static int
run_job (const void *data)
{
  const Job *job = data;
  CudaDnnGraph *g = heddle_memdup (job->graph, sizeof *g);
  double *memory[DNN_MAX_TENSORS];
  g_autofree char *why = NULL;
  gboolean ok;
  memset (job->workspace, 0xff, WORKSPACE);
  for (gint32 i = 0; i < g->n_tensors; i++)
    {
      const DnnTensor *t = &g->tensor[i];
      gsize n = dnn_tensor_bytes (t) / element (t->dtype);
      memory[i] = g_new (double, n + 1);
      g->tensor[i].value = job->constant[i];
      for (gsize k = 0; k < n; k++)
        memory[i][k] = NAN;
      for (gint64 k = 0; t->kind == DNN_TENSOR_BOUND && k < elements (t); k++)
        memory[i][interpret_offset (t, k)] = load (t->dtype, job->address[i] + interpret_offset (t, k) * (gint64) element (t->dtype));
    }
  ok = interpret (g, memory, &why);
  if (!ok)
    heddle_sim_message (why);
  for (gint32 i = 0; i < g->n_ops && ok; i++)
    for (guint p = 0; p < DNN_PORTS; p++)
      {
        const DnnTensor *t = g->op[i].out[p] >= 0 ? &g->tensor[g->op[i].out[p]] : NULL;
        for (gint64 k = 0; t && t->kind == DNN_TENSOR_BOUND && k < elements (t); k++)
          store (t->dtype, job->address[g->op[i].out[p]] + interpret_offset (t, k) * (gint64) element (t->dtype), memory[g->op[i].out[p]][interpret_offset (t, k)]);
      }
  for (gint32 i = 0; i < g->n_tensors; i++)
    g_free (memory[i]);
  note (job->graph);
  g_free (g);
  return ok ? 0 : cudaErrorLaunchFailure;
}

static gboolean
apart (const char *a, gsize n, const char *b, gsize m)
{
  return a + n <= b || b + m <= a;
}

static gboolean
is_written (const CudaDnnGraph *g, gint32 t)
{
  gboolean hit = FALSE;
  for (gint32 i = 0; i < g->n_ops; i++)
    for (guint p = 0; p < DNN_PORTS; p++)
      hit = hit || g->op[i].out[p] == t;
  return hit;
}

/* Windows of one matrix lie between each other, and share no element. */
static gboolean
disjoint (const DnnTensor *a, const char *at, const DnnTensor *b, const char *bt)
{
  const char *from = MIN (at, bt), *to = MAX (at + dnn_tensor_bytes (a), bt + dnn_tensor_bytes (b));
  g_autofree guint8 *taken = g_malloc0 ((gsize) (to - from));
  gint64 hits = 0;
  for (gint64 k = 0; k < elements (a); k++)
    memset (taken + (at - from) + interpret_offset (a, k) * (gint64) element (a->dtype), 1, element (a->dtype));
  for (gint64 k = 0; k < elements (b); k++)
    hits += taken[bt - from + interpret_offset (b, k) * (gint64) element (b->dtype)];
  return hits == 0;
}

/* What is written lies apart from all else, the workspace from everything. */
static gboolean
all_apart (const Job *job)
{
  const CudaDnnGraph *g = job->graph;
  gboolean ok = TRUE;
  for (gint32 i = 0; i < g->n_tensors; i++)
    for (gint32 j = 0; j <= i && g->tensor[i].kind == DNN_TENSOR_BOUND; j++)
      {
        const char *other = j < i ? job->address[j] : job->workspace;
        gboolean matters = j == i || (g->tensor[j].kind == DNN_TENSOR_BOUND && (is_written (g, i) || is_written (g, j)));
        gboolean spans = matters && !apart (job->address[i], dnn_tensor_bytes (&g->tensor[i]), other, j < i ? dnn_tensor_bytes (&g->tensor[j]) : WORKSPACE);
        ok = ok && (!spans || (j < i && disjoint (&g->tensor[i], job->address[i], &g->tensor[j], other)));
      }
  return ok;
}

static cudnnStatus_t
execute (cudnnHandle_t handle, const Thing *plan, const Thing *pack)
{
  gint64 n, n_uids;
  char *const *pointers = get (pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &n);
  const gint64 *uids = get (pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &n_uids);
  char *const *workspace = get (pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, NULL);
  Job job = { .graph = plan->graph, .workspace = *workspace };
  gboolean ok = n == n_uids && heddle_sim_is_device (*workspace, WORKSPACE);
  for (gint32 i = 0; i < plan->graph->n_tensors && ok; i++)
    {
      const DnnTensor *t = &plan->graph->tensor[i];
      for (gint64 k = 0; k < n; k++)
        if (uids[k] == t->uid)
          job.address[i] = pointers[k];
      ok = t->kind == DNN_TENSOR_VIRTUAL || (job.address[i] && (guintptr) job.address[i] % (t->kind == DNN_TENSOR_CONSTANT ? 4 : 16) == 0);
      ok = ok && (t->kind != DNN_TENSOR_BOUND || heddle_sim_is_device (job.address[i], dnn_tensor_bytes (t)));
      if (ok && t->kind == DNN_TENSOR_CONSTANT)
        job.constant[i] = *(const float *) job.address[i];
    }
  if (!ok)
    return refuse (CUDNN_STATUS_EXECUTION_FAILED, "an address is missing, not aligned or not on the device");
  if (!all_apart (&job))
    return refuse (CUDNN_STATUS_EXECUTION_FAILED, "operands overlap");
  return heddle_sim_enqueue (handle->stream, run_job, &job, sizeof job) ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

/* ---- the interface ---- */

EXPORT size_t cudnnGetVersion (void) { return CUDNN_VERSION; }
EXPORT const char *cudnnGetErrorString (cudnnStatus_t s) { return s ? "refused by the fake cuDNN" : "CUDNN_STATUS_SUCCESS"; }
EXPORT void cudnnGetLastErrorString (char *text, size_t n) { g_strlcpy (text, complaint ? complaint->str : "", n); }
EXPORT cudnnStatus_t cudnnCreate (cudnnHandle_t *h) { *h = g_new0 (struct cudnnContext, 1); return CUDNN_STATUS_SUCCESS; }
EXPORT cudnnStatus_t cudnnDestroy (cudnnHandle_t h) { g_free (h); return CUDNN_STATUS_SUCCESS; }
EXPORT cudnnStatus_t cudnnSetStream (cudnnHandle_t h, cudaStream_t stream) { h->stream = stream; return CUDNN_STATUS_SUCCESS; }

EXPORT cudnnStatus_t
cudnnBackendCreateDescriptor (cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *d)
{
  Thing *t = g_new0 (Thing, 1);
  t->type = type;
  t->attributes = g_hash_table_new_full (NULL, NULL, NULL, attribute_free);
  *d = t;
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t
cudnnBackendDestroyDescriptor (cudnnBackendDescriptor_t d)
{
  Thing *t = d;
  g_hash_table_unref (t->attributes);
  g_free (t->graph);
  g_free (t);
  return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t
cudnnBackendSetAttribute (cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
  Thing *t = d;
  Attribute *a = g_new0 (Attribute, 1);
  *a = (Attribute) { n, (gsize) n * size_of (type), heddle_memdup (values, (gsize) n * size_of (type)) };
  g_assert (!t->finished);
  g_hash_table_insert (t->attributes, GINT_TO_POINTER (name), a);
  return CUDNN_STATUS_SUCCESS;
}

/* In NCHW the real one has no max pooling backward; nothing else that is asked for is refused. */
EXPORT cudnnStatus_t
cudnnBackendFinalize (cudnnBackendDescriptor_t d)
{
  Thing *t = d, *from = NULL;
  if (t->type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
    t->graph = read_graph (t);
  else if (t->type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
    from = link_of (t, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  else if (t->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
    from = link_of (t, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  if (from)
    t->graph = heddle_memdup (from->graph, sizeof *from->graph);
  t->finished = TRUE;
  return CUDNN_STATUS_SUCCESS;
}

/* Three engines that do the same. */
#define ENGINES 3
EXPORT cudnnStatus_t
cudnnBackendGetAttribute (cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t room, int64_t *n, void *values)
{
  const Thing *t = d;
  Thing **things = values;
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (n)
    *n = 1;
  switch ((int) name)
    {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
      *n = ENGINES;
      for (gint i = 0; i < MIN (room, ENGINES); i++)
        {
          things[i]->graph = heddle_memdup (t->graph, sizeof *t->graph);
          things[i]->engine = i;
        }
      break;
    case CUDNN_ATTR_ENGINECFG_ENGINE: things[0]->engine = t->engine; break;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: *(int64_t *) values = t->engine; break;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: *(int64_t *) values = WORKSPACE; break;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE: case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES: *n = 0; break;
    default: status = refuse (CUDNN_STATUS_NOT_SUPPORTED, "attribute"); break;
    }
  return status;
}

EXPORT cudnnStatus_t
cudnnBackendExecute (cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack)
{
  return execute (handle, plan, pack);
}
