/* cuda/dnn-print.c: graphs as text: the plan cache's key, the run's log, what tests compare.
 * Must not know cuDNN. */
#include "dnn-graph.h"

static const char *const uid_names[] = {
#define X(code, name) name,
  CUDA_DNN_UIDS (X)
#undef X
};

static const struct { const char *name; guint arity; } pointwise[] = {
#define X(code, name, inputs) { name, inputs },
  DNN_POINTWISE (X)
#undef X
};

static const char *const op_names[] = {
#define X(code, name) name,
  DNN_OPS (X)
#undef X
};

const char *
dnn_uid_name (gint64 uid)
{
  return uid > 0 && uid < CUDA_DNN_N_UIDS ? uid_names[uid] : "";
}

const char *
dnn_pointwise_name (DnnPointwise mode)
{
  return pointwise[mode].name;
}

guint
dnn_pointwise_arity (DnnPointwise mode)
{
  return pointwise[mode].arity;
}

const char *
dnn_dtype_name (gint32 dtype)
{
  return dtype == DNN_DTYPE_BOOL ? "bool" : dtype == DNN_DTYPE_I8 ? "i8" : heddle_dtype_name ((HeddleDtype) dtype);
}

gsize
dnn_tensor_bytes (const DnnTensor *tensor)
{
  gint64 last = 0;
  for (gint32 i = 0; i < tensor->rank; i++)
    last += (tensor->dim[i] - 1) * tensor->stride[i];
  return (gsize) (last + 1) * (tensor->dtype > 100 ? 1 : heddle_dtype_size ((HeddleDtype) tensor->dtype));
}

static void
print_list (GString *s, const char *before, const gint64 *x, gint32 n)
{
  g_string_append (s, before);
  for (gint32 i = 0; i < n; i++)
    g_string_append_printf (s, "%s%" G_GINT64_FORMAT, i ? "," : "", x[i]);
}

static void
print_tensor (GString *s, const DnnTensor *t)
{
  static const char *const kinds[] = { "", "bound", "virtual", "constant", "scratch" };
  g_string_append_printf (s, "t%" G_GINT64_FORMAT " %s %s %s", t->uid, dnn_uid_name (t->uid), kinds[t->kind], dnn_dtype_name (t->dtype));
  print_list (s, " ", t->dim, t->rank);
  print_list (s, " / ", t->stride, t->rank);
  if (t->kind == DNN_TENSOR_CONSTANT)
    {
      char number[G_ASCII_DTOSTR_BUF_SIZE];
      g_string_append_printf (s, " = %s", g_ascii_formatd (number, sizeof number, "%.9g", t->value));
    }
  g_string_append_c (s, '\n');
}

static void
print_ports (GString *s, const CudaDnnGraph *g, const gint32 *port)
{
  gint32 n = DNN_PORTS;
  while (n > 0 && port[n - 1] < 0)
    n--;
  for (gint32 i = 0; i < n; i++)
    if (port[i] < 0)
      g_string_append (s, " -");
    else
      g_string_append_printf (s, " t%" G_GINT64_FORMAT, g->tensor[port[i]].uid);
}

static gboolean
has_window (DnnOpKind kind)
{
  return kind == DNN_OP_CONV || kind == DNN_OP_CONV_DATA || kind == DNN_OP_CONV_WEIGHT || (kind >= DNN_OP_MAX_POOL && kind <= DNN_OP_AVG_POOL_GRAD);
}

static void
print_op (GString *s, const CudaDnnGraph *g, const DnnOp *op)
{
  if (op->kind == DNN_OP_POINTWISE)
    g_string_append (s, pointwise[op->mode].name);
  else if (op->mode)
    g_string_append_printf (s, "%s %d", op_names[op->kind], op->mode);
  else
    g_string_append (s, op_names[op->kind]);
  print_ports (s, g, op->in);
  g_string_append (s, " ->");
  print_ports (s, g, op->out);
  if (has_window (op->kind))
    {
      print_list (s, " kernel ", op->kernel, 2);
      print_list (s, " stride ", op->stride, 2);
      print_list (s, " padding ", op->padding, 2);
      print_list (s, " dilation ", op->dilation, 2);
    }
  g_string_append_c (s, '\n');
}

char *
dnn_graph_print (const CudaDnnGraph *graph)
{
  GString *s = g_string_new (NULL);
  g_string_append_printf (s, "%s %s\n", graph->name, dnn_dtype_name (graph->dtype));
  for (gint32 i = 0; i < graph->n_tensors; i++)
    print_tensor (s, &graph->tensor[i]);
  for (gint32 i = 0; i < graph->n_ops; i++)
    print_op (s, graph, &graph->op[i]);
  return g_string_free (s, FALSE);
}
