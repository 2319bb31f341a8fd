/* cudnn-deviceless/test-graphs.c: every graph that stands for operations of a program computes what they mean: graphs are interpreted in double precision by cuDNN's
 * documented rules, with tensors in memory as their strides say, and compared with the reference run of the same program.  Needs neither cuDNN nor CUDA. */
#include "backend/cuda/dnn-ops.h"
#include "base/random.h"
#include "interpret.h"
#include "reference/reference.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define MAX_INPUTS 6

typedef struct { HeddleBuilder *b; HeddleValue *in[MAX_INPUTS]; } Case;
typedef HeddleValue *(*Build) (Case *c);
typedef struct { const char *name; Build build; gboolean evaluation; HeddleShape in[MAX_INPUTS]; } Entry;

static GHashTable *seen;         /* names of graphs that were compared */

#define X(i) (c->in[i])
#define CASE(name, value) static HeddleValue *build_##name (Case *c) { G_GNUC_UNUSED HeddleBuilder *b = c->b; return value; }

static HeddleValue *
half (Case *c, guint i)
{
  return heddle_cast (c->b, X (i), HEDDLE_F16);
}

static HeddleValue *
conv (Case *c, gint64 stride, gint64 padding, gint64 dilation, gint64 groups, guint n)
{
  HeddleConvAttr attr = { .stride = { stride, stride }, .padding = { padding, padding + (padding > 1) }, .dilation = { dilation, dilation }, .groups = groups };
  return heddle_emit (c->b, HEDDLE_OP_CONV2D, "conv", c->in, n, &attr, sizeof attr);
}

static HeddleValue *
conv_t (Case *c, gint64 stride, gint64 padding, gint64 more, gint64 groups)
{
  HeddleConvAttr attr = { .stride = { stride, stride }, .padding = { padding, padding }, .dilation = { 1, 1 }, .groups = groups, .output_padding = { more, more } };
  return heddle_emit (c->b, HEDDLE_OP_CONV_TRANSPOSE2D, "conv", c->in, 2, &attr, sizeof attr);
}

static HeddleValue *
attention (Case *c, gboolean causal, double scale)
{
  return heddle_cast (c->b, heddle_scaled_dot_product_attention (c->b, half (c, 0), half (c, 1), half (c, 2), causal, scale), HEDDLE_F32);
}

/* (B, T, H, D), as models have it */
static HeddleValue *
attention_inside (Case *c, gboolean causal)
{
  HeddleValue *q = heddle_permute (c->b, half (c, 0), 0, 2, 1, 3), *k = heddle_permute (c->b, half (c, 1), 0, 2, 1, 3), *v = heddle_permute (c->b, half (c, 2), 0, 2, 1, 3);
  return heddle_cast (c->b, heddle_permute (c->b, heddle_scaled_dot_product_attention (c->b, q, k, v, causal, 0), 0, 2, 1, 3), HEDDLE_F32);
}

/* Queries, keys and values as one linear layer makes them */
static HeddleValue *
attention_in_place (Case *c, gboolean causal)
{
  HeddleValue *in[] = { half (c, 0), half (c, 1) };
  return heddle_cast (c->b, heddle_self_attention (c->b, heddle_emit (c->b, HEDDLE_OP_LINEAR, "qkv", in, 2, NULL, 0), 2, causal), HEDDLE_F32);
}

static HeddleValue *
norm (Case *c, HeddleOpCode code, gint32 axes, guint n)
{
  HeddleLayerNormAttr attr = { 1e-3, axes };
  return heddle_emit (c->b, code, "norm", c->in, n, &attr, sizeof attr);
}

CASE (conv, conv (c, 1, 1, 1, 1, 2))
CASE (conv_bias, conv (c, 2, 2, 1, 1, 3))
CASE (conv_dilated, conv (c, 1, 2, 2, 1, 3))
CASE (conv_groups, conv (c, 2, 1, 1, 2, 3))
CASE (conv_relu, heddle_relu (b, conv (c, 1, 1, 1, 1, 3)))
CASE (conv_add_relu, heddle_relu (b, heddle_add (b, X (3), conv (c, 1, 1, 1, 1, 3))))
CASE (conv_add, heddle_add (b, conv (c, 1, 1, 1, 1, 2), X (2)))
CASE (conv_t, conv_t (c, 1, 1, 0, 1))
CASE (conv_t_2, conv_t (c, 2, 1, 1, 2))
CASE (batch_norm, heddle_batch_norm (b, "bn", X (0)))
CASE (batch_norm_relu, heddle_relu (b, heddle_batch_norm (b, "bn", X (0), .momentum = 0.3)))
CASE (batch_norm_add, heddle_add (b, heddle_batch_norm (b, "bn", X (0)), X (1)))
/* the gradient behind relu is also that of the other addend */
CASE (batch_norm_add_relu, heddle_relu (b, heddle_add (b, heddle_batch_norm (b, "bn", X (0)), X (1))))
CASE (layer_norm, norm (c, HEDDLE_OP_LAYER_NORM, 1, 3))
CASE (layer_norm_16, heddle_cast (b, heddle_cast (b, norm (c, HEDDLE_OP_LAYER_NORM, 1, 3), HEDDLE_F16), HEDDLE_F32))
CASE (rms_norm_16, heddle_cast (b, heddle_cast (b, norm (c, HEDDLE_OP_RMS_NORM, 1, 2), HEDDLE_F16), HEDDLE_F32))
CASE (layer_norm_2, norm (c, HEDDLE_OP_LAYER_NORM, 2, 3))
CASE (rms_norm, norm (c, HEDDLE_OP_RMS_NORM, 1, 2))
CASE (max_pool, heddle_max_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1))
CASE (avg_pool, heddle_avg_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1))
CASE (avg_pool_inside, heddle_avg_pool (b, X (0), .kernel = 3, .stride = 2, .padding = 1, .exclude_padding = TRUE))
CASE (attention, attention (c, FALSE, 0))
CASE (attention_causal, attention (c, TRUE, 0))
CASE (attention_inside, attention_inside (c, FALSE))
CASE (attention_inside_causal, attention_inside (c, TRUE))
CASE (attention_in_place, attention_in_place (c, FALSE))
CASE (attention_in_place_causal, attention_in_place (c, TRUE))
CASE (attention_scale, attention (c, FALSE, 1.75))
CASE (linear_relu, heddle_relu (b, heddle_linear_op (b, X (0), X (1), X (2))))
CASE (linear_silu, heddle_silu (b, heddle_linear_op (b, X (0), X (1), X (2))))
CASE (linear_sigmoid, heddle_sigmoid (b, heddle_linear_op (b, X (0), X (1), NULL)))
CASE (linear_tanh, heddle_tanh (b, heddle_linear_op (b, X (0), X (1), X (2))))

#define S(...) heddle_shape (__VA_ARGS__)
static const Entry entries[] = {
  { "conv", build_conv, 0, { S (2, 3, 6, 5), S (4, 3, 3, 3) } }, { "conv, bias", build_conv_bias, 0, { S (2, 3, 8, 7), S (4, 3, 5, 3), S (4) } },
  { "conv, dilated", build_conv_dilated, 0, { S (1, 2, 9, 8), S (3, 2, 3, 3), S (3) } }, { "conv, groups", build_conv_groups, 0, { S (2, 6, 7, 6), S (4, 3, 3, 2), S (4) } },
  { "conv, relu", build_conv_relu, 0, { S (2, 3, 6, 5), S (4, 3, 3, 3), S (4) } }, { "conv, add, relu", build_conv_add_relu, 0, { S (2, 3, 6, 5), S (4, 3, 3, 3), S (4), S (2, 4, 6, 5) } },
  { "conv, add", build_conv_add, 0, { S (2, 3, 6, 5), S (4, 3, 3, 3), S (2, 4, 6, 5) } }, { "conv transposed", build_conv_t, 0, { S (2, 3, 4, 5), S (3, 4, 3, 3) } },
  { "conv transposed, stride", build_conv_t_2, 0, { S (2, 4, 3, 5), S (4, 3, 3, 3) } },
  { "batch norm", build_batch_norm, 0, { S (3, 4, 3, 5) } }, { "batch norm, relu", build_batch_norm_relu, 0, { S (3, 4, 3, 5) } },
  { "batch norm, add", build_batch_norm_add, 0, { S (3, 4, 3, 5), S (3, 4, 3, 5) } }, { "batch norm, add, relu", build_batch_norm_add_relu, 0, { S (3, 4, 3, 5), S (3, 4, 3, 5) } },
  { "batch norm, given", build_batch_norm, 1, { S (3, 4, 3, 5) } }, { "batch norm, given, add, relu", build_batch_norm_add_relu, 1, { S (3, 4, 3, 5), S (3, 4, 3, 5) } },
  { "layer norm", build_layer_norm, 0, { S (3, 5, 7), S (7), S (7) } }, { "layer norm, two axes", build_layer_norm_2, 0, { S (3, 2, 5, 7), S (5, 7), S (5, 7) } },
  { "layer norm, 16 bits", build_layer_norm_16, 0, { S (3, 5, 7), S (7), S (7) } }, { "rms norm, 16 bits", build_rms_norm_16, 0, { S (3, 5, 7), S (7) } },
  { "rms norm", build_rms_norm, 0, { S (3, 5, 7), S (7) } }, { "max pool", build_max_pool, 0, { S (2, 3, 7, 6) } }, { "average pool", build_avg_pool, 0, { S (2, 3, 7, 6) } },
  { "average pool, inside", build_avg_pool_inside, 0, { S (2, 3, 7, 6) } },
  { "attention, heads inside", build_attention_inside, 0, { S (2, 5, 3, 4), S (2, 9, 3, 4), S (2, 9, 3, 6) } },
  { "attention, causal, heads inside", build_attention_inside_causal, 0, { S (2, 5, 3, 4), S (2, 5, 3, 4), S (2, 5, 3, 4) } },
  { "attention, in place", build_attention_in_place, 0, { S (2, 5, 6), S (24, 6) } }, { "attention, causal, in place", build_attention_in_place_causal, 0, { S (2, 5, 6), S (24, 6) } },
  { "attention, even rows", build_attention, 0, { S (2, 2, 6, 4), S (2, 2, 6, 4), S (2, 2, 6, 4) } },
  { "attention", build_attention, 0, { S (2, 3, 5, 4), S (2, 3, 9, 4), S (2, 3, 9, 6) } }, { "attention, causal", build_attention_causal, 0, { S (2, 3, 5, 4), S (2, 3, 5, 4), S (2, 3, 5, 4) } },
  { "attention, causal, more keys", build_attention_causal, 0, { S (1, 2, 3, 4), S (1, 2, 7, 4), S (1, 2, 7, 4) } }, { "attention, scale", build_attention_scale, 0, { S (1, 2, 3, 4), S (1, 2, 7, 4), S (1, 2, 7, 4) } },
  { "linear, relu", build_linear_relu, 1, { S (6, 5), S (7, 5), S (7) } }, { "linear, silu", build_linear_silu, 1, { S (2, 3, 5), S (7, 5), S (7) } }, { "linear, sigmoid", build_linear_sigmoid, 1, { S (6, 5), S (7, 5) } },
  { "linear, tanh", build_linear_tanh, 0, { S (2, 3, 5), S (7, 5), S (7) } },
};

/* ---- programs ---- */

static guint
inputs_of (const Entry *e)
{
  guint n = 0;
  while (n < MAX_INPUTS && e->in[n].rank)
    n++;
  return n;
}

/* Forward alone, or with the gradients of sum (y r) by every input and every parameter. */
static HeddleProgram *
build (const Entry *e, HeddleVariables *vars)
{
  GError *error = NULL;
  Case c = { .b = heddle_builder_new ("test", vars, !e->evaluation, 7) };
  guint n = inputs_of (e);
  HeddleValue *grads[MAX_INPUTS] = { NULL };
  for (guint i = 0; i < n; i++)
    {
      g_autofree char *name = g_strdup_printf ("in%u", i);
      c.in[i] = heddle_builder_input (c.b, name, HEDDLE_F32, &e->in[i]);
    }
  HeddleValue *y = e->build (&c);
  HeddleShape shape = heddle_shape_of (c.b, y);
  heddle_builder_output (c.b, y);
  if (!e->evaluation)
    {
      HeddleValue *r = heddle_builder_input (c.b, "r", HEDDLE_F32, &shape), *loss = heddle_sum (c.b, heddle_mul (c.b, y, r), 0, FALSE);
      heddle_builder_gradients (c.b, loss, heddle_constant (c.b, 1), c.in, n, grads, &error);
      g_assert_no_error (error);
      heddle_variables_group (vars, FALSE);
      heddle_builder_backward (c.b, loss, heddle_constant (c.b, 1), FALSE, &error);
      g_assert_no_error (error);
    }
  for (guint i = 0; i < n; i++)
    if (grads[i])
      heddle_builder_output (c.b, grads[i]);
  HeddleProgram *p = heddle_builder_finish (c.b, &error);
  g_assert_no_error (error);
  return p;
}

static Reference *
reference_of (const HeddleProgram *p, const HeddleVariables *vars)
{
  Reference *r = reference_new (p);
  for (guint i = 0; i < p->values->len; i++)
    {
      const HeddleValue *v = p->values->pdata[i];
      HeddleRandom random = heddle_random (11, HEDDLE_STREAM_USER, i, 0);
      double *x = reference_value (r, v);
      if (v->kind == HEDDLE_VALUE_INPUT || v->kind == HEDDLE_VALUE_VARIABLE)
        for (gint64 k = 0; k < heddle_shape_count (&v->shape); k++)
          x[k] = (float) (v->kind == HEDDLE_VALUE_INPUT ? 2 * heddle_random_double (&random) - 1 : 0.5 + heddle_random_double (&random));
    }
  return r;
}

/* ---- values of the program and tensors of the graph ---- */

static gboolean
same_dims (const DnnTensor *t, const HeddleValue *v)
{
  gboolean same = t->rank == v->shape.rank;
  for (gint32 d = 0; same && d < t->rank; d++)
    same = t->dim[d] == v->shape.size[d];
  return same;
}

/* Element I of V, row-major, in T's memory.  Three tensors are V with its last two axes exchanged: attention's k and v, and a linear weight; all others have V's axes,
 * or V's elements in the same order under other dims. */
static gint64
place (const DnnTensor *t, const HeddleValue *v, gint64 i)
{
  gint64 rows = t->dim[t->rank - 2], columns = t->dim[t->rank - 1];
  gboolean turned = (t->uid == CUDA_DNN_K || t->uid == CUDA_DNN_V || (t->uid == CUDA_DNN_W && t->rank == 3)) && t->stride[t->rank - 2] == 1;
  g_assert_true (turned || same_dims (t, v) || t->rank != v->shape.rank || t->rank == 3 || t->dim[2] * t->dim[3] == 1);
  if (turned)
    i = (i / (rows * columns) * rows + i % rows) * columns + i / rows % columns;
  return interpret_offset (t, i);
}

static double
largest (const double *x, gint64 n)
{
  double m = 0;
  for (gint64 i = 0; i < n; i++)
    m = MAX (m, fabs (x[i]));
  return m;
}

/* f32 constants such as eps round at 6e-8; 16-bit results of the reference are rounded, the graph's are not. */
static void
compare (const CudaDnnGraph *g, const DnnTensor *t, const HeddleValue *v, const double *got, const double *want)
{
  gint64 n = heddle_shape_count (&v->shape);
  double tolerance = (v->dtype == HEDDLE_F16 ? 1e-3 : 1e-6) * (1 + largest (want, n));
  for (gint64 i = 0; i < n; i++)
    if (!(fabs (got[place (t, v, i)] - want[i]) <= tolerance))
      {
        g_autofree char *text = dnn_graph_print (g);
        g_test_message ("%s", text);
        g_error ("%s: %s[%d] is %g, the program's is %g", g->name, dnn_uid_name (t->uid), (int) i, got[place (t, v, i)], want[i]);
      }
}

/* ATTENTION keeps what it needs of forward; VALUE before and after the assignments of running statistics is the same value, so what is read was read before. */
static void
check_match (const HeddleProgram *p, guint op, CudaDnnMatch *m, Reference *r, Reference *before)
{
  CudaDnnGraph *g = m->graph;
  double *memory[DNN_MAX_TENSORS];
  g_autofree char *complaint = NULL;
  for (gint32 i = 0; i < g->n_tensors; i++)
    {
      const DnnTensor *t = &g->tensor[i];
      memory[i] = g_new (double, dnn_tensor_bytes (t));
      for (gsize k = 0; k < dnn_tensor_bytes (t); k++)
        memory[i][k] = NAN;
      g_assert_true ((t->kind == DNN_TENSOR_BOUND) == (t->uid > 0 && t->uid < CUDA_DNN_N_UIDS));
      if (t->kind == DNN_TENSOR_BOUND)
        {
          const HeddleValue *v = m->value[t->uid];
          g_assert_nonnull (v);
          for (gint64 k = 0; k < heddle_shape_count (&v->shape); k++)
            memory[i][place (t, v, k)] = reference_value (v->kind == HEDDLE_VALUE_VARIABLE ? before : r, v)[k];
        }
    }
  gboolean ok = interpret (g, memory, &complaint);
  g_assert_cmpstr (complaint, ==, "");
  g_assert_true (ok);
  for (gint32 i = 0; i < g->n_tensors; i++)
    {
      if (g->tensor[i].kind == DNN_TENSOR_BOUND)
        compare (g, &g->tensor[i], m->value[g->tensor[i].uid], memory[i], reference_value (m->value[g->tensor[i].uid]->kind == HEDDLE_VALUE_VARIABLE ? before : r, m->value[g->tensor[i].uid]));
      g_free (memory[i]);
    }
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    {
      gboolean bound = FALSE;
      for (gint32 i = 0; i < g->n_tensors; i++)
        bound = bound || g->tensor[i].uid == uid;
      g_assert_true (bound == (m->value[uid] != NULL));
    }
  g_hash_table_add (seen, g_strdup (g->name));
}

static void
test_entry (gconstpointer data)
{
  const Entry *e = data;
  HeddleFlags flags = { .fusion = true, .tf32_conv = true, .tf32_matmul = true };
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleProgram) p = build (e, vars);
  g_autoptr (Reference) before = reference_of (p, vars);
  g_autoptr (Reference) r = reference_of (p, vars);
  guint n = 0;
  reference_run (r);
  for (guint pass = 0; pass < 4; pass++)
    {
      CudaDnnLayout layout = pass & 1 ? CUDA_DNN_NHWC : CUDA_DNN_NCHW;
      flags.deterministic = pass & 2;
      for (guint i = 0; i < p->ops->len; i++)
        for (guint most = G_MAXUINT; most > 0;)
          {
            g_auto (CudaDnnMatch) m = { NULL };
            if (!cuda_dnn_match (p, i, most, layout, &flags, &m))
              break;
            check_match (p, i, &m, r, before);
            g_assert_cmpuint (m.n_ops, <=, most);
            most = m.n_ops - 1;
            n++;
          }
    }
  g_assert_cmpuint (n, >, 0);
}

/* Every kind of graph that the backend asks for has been compared. */
static void
test_coverage (void)
{
  static const char *const names[] = {
    "conv", "conv, bias", "conv, bias, relu", "conv, bias, add, relu", "conv, add", "conv, gradient of the input", "conv, gradient of the weight", "batch norm", "batch norm, relu",
    "batch norm, add, relu", "batch norm, gradient", "batch norm, gradient, relu", "batch norm, gradient, add, relu", "batch norm, given statistics", "batch norm, given statistics, add, relu",
    "layer norm", "layer norm, gradient", "rms norm", "rms norm, gradient", "layer norm to 16 bits", "layer norm, gradient from 16 bits", "rms norm to 16 bits", "rms norm, gradient from 16 bits", "max pool", "max pool, gradient", "average pool", "average pool, gradient", "attention", "attention, causal",
    "attention, gradient", "attention, gradient, causal", "attention, heads inside", "attention, causal, heads inside", "attention, gradient, heads inside", "attention, gradient, causal, heads inside", "attention, in place", "attention, causal, in place",
    "attention, gradient, in place", "attention, gradient, causal, in place", "matmul, bias, relu", "matmul, bias, silu", "matmul, sigmoid", "matmul, bias, tanh"
  };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (!g_hash_table_contains (seen, names[i]))
      g_error ("no graph \"%s\" was compared", names[i]);
}

/* A wrong graph is noticed: each planted fault changes one thing. */
static void
plant (guint fault, CudaDnnGraph *g)
{
  DnnOp *op = &g->op[0];
  switch (fault)
    {
    case 0: op->padding[0]--; break;
    case 1: op->stride[1]++; break;
    case 2: g->tensor[1].dim[1]++; break;
    case 3: g->tensor[0].uid = g->tensor[1].uid; break;
    case 4: op->in[0] = op->out[0]; break;
    case 5: g->n_ops = 2; g->op[1] = g->op[0]; break;
    }
}

static void
test_planted (void)
{
  for (guint fault = 0; fault <= 5; fault++)
    {
      HeddleConvAttr attr = { .stride = { 1, 1 }, .padding = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1 };
      CudaDnnConv conv = { CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC, S (1, 2, 4, 4), S (3, 2, 3, 3), S (1, 3, 4, 4), attr };
      g_autofree CudaDnnGraph *g = cuda_dnn_graph_conv (&conv);
      double *memory[DNN_MAX_TENSORS];
      g_autofree char *complaint = NULL;
      for (gint32 i = 0; i < g->n_tensors; i++)
        memory[i] = g_new0 (double, 4096);
      plant (fault, g);
      g_assert_false (interpret (g, memory, &complaint));
      g_assert_cmpstr (complaint, !=, "");
      for (gint32 i = 0; i < g->n_tensors; i++)
        g_free (memory[i]);
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (entries); i++)
    {
      g_autofree char *path = g_strdup_printf ("/cudnn/graphs/%s", entries[i].name);
      g_test_add_data_func (path, &entries[i], test_entry);
    }
  g_test_add_func ("/cudnn/graphs/all kinds", test_coverage);
  g_test_add_func ("/cudnn/graphs/planted", test_planted);
  int status = g_test_run ();
  g_hash_table_unref (seen);
  return status;
}
