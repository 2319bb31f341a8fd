/* cudnn-deviceless/interpret.c: one loop per index, written for reading.  Meanings are those of NVIDIA's cuDNN graph documentation. */
#include "interpret.h"

#include <math.h>
#include <string.h>

typedef struct { const CudaDnnGraph *g; double **memory; gboolean written[DNN_MAX_TENSORS]; GString *complaint; } Machine;

static gint64
count (const DnnTensor *t)
{
  gint64 n = 1;
  for (gint32 i = 0; i < t->rank; i++)
    n *= t->dim[i];
  return n;
}

gint64
interpret_offset (const DnnTensor *t, gint64 index)
{
  gint64 at = 0;
  for (gint32 i = t->rank; i-- > 0; index /= t->dim[i])
    at += index % t->dim[i] * t->stride[i];
  return at;
}

/* Where element INDEX of LIKE is in T, whose dims are LIKE's or 1. */
static gint64
broadcast (const DnnTensor *t, const DnnTensor *like, gint64 index)
{
  gint64 at = 0;
  for (gint32 i = like->rank; i-- > 0; index /= like->dim[i])
    at += t->kind == DNN_TENSOR_CONSTANT || t->dim[i] == 1 ? 0 : index % like->dim[i] * t->stride[i];
  return at;
}

static void
expect (Machine *m, gboolean ok, const DnnOp *op, const char *what)
{
  if (!ok)
    g_string_append_printf (m->complaint, "operation %d: %s; ", (int) (op - m->g->op), what);
}

static const DnnTensor *
tensor (const Machine *m, gint32 i)
{
  return &m->g->tensor[i];
}

/* ---- pointwise ---- */

static double
apply (DnnPointwise mode, double a, double b, double c, gint64 row, gint64 column)
{
  double y = 0;
  switch (mode)
    {
    case DNN_ADD: y = a + b; break;
    case DNN_SUB: y = a - b; break;
    case DNN_MUL: y = a * b; break;
    case DNN_DIV: y = a / b; break;
    case DNN_EXP: y = exp (a); break;
    case DNN_LOG: y = log (a); break;
    case DNN_RSQRT: y = 1 / sqrt (a); break;
    case DNN_IDENTITY: y = a; break;
    case DNN_RELU: y = a < 0 ? 0 : a; break;      /* NaN stays NaN */
    case DNN_GELU: y = a * 0.5 * (1 + erf (a / sqrt (2))); break;
    case DNN_GELU_TANH: y = a * 0.5 * (1 + tanh (sqrt (2 / G_PI) * (a + 0.044715 * a * a * a))); break;
    case DNN_SIGMOID: y = 1 / (1 + exp (-a)); break;
    case DNN_TANH: y = tanh (a); break;
    case DNN_SILU: y = a / (1 + exp (-a)); break;
    case DNN_ROW: y = (double) row; break;
    case DNN_COLUMN: y = (double) column; break;
    case DNN_GREATER: y = a > b; break;
    case DNN_GREATER_EQUAL: y = a >= b; break;
    case DNN_SELECT: y = c != 0 ? a : b; break;
    default: g_assert_not_reached ();
    }
  return y;
}

static void
run_pointwise (Machine *m, const DnnOp *op)
{
  const DnnTensor *y = tensor (m, op->out[0]);
  guint arity = dnn_pointwise_arity (op->mode);
  for (guint k = 0; k < 3; k++)
    {
      expect (m, (op->in[k] >= 0) == (k < arity), op, "number of inputs");
      const DnnTensor *x = op->in[k] >= 0 ? tensor (m, op->in[k]) : NULL;
      for (gint32 d = 0; x && x->kind != DNN_TENSOR_CONSTANT && d < y->rank; d++)
        expect (m, x->rank == y->rank && (x->dim[d] == y->dim[d] || x->dim[d] == 1), op, "dims do not broadcast");
    }
  for (gint64 i = 0; i < count (y) && m->complaint->len == 0; i++)
    {
      double in[3] = { 0 };
      for (guint k = 0; k < arity; k++)
        in[k] = m->memory[op->in[k]][broadcast (tensor (m, op->in[k]), y, i)];
      m->memory[op->out[0]][interpret_offset (y, i)] = apply (op->mode, in[0], in[1], in[2], i / MAX (y->dim[3], 1) % MAX (y->dim[2], 1), i % MAX (y->dim[3], 1));
    }
}

/* ---- convolutions: y[n,k,p,q] = sum x[n, c, p s - pad + r d, ...] w[k, c', r, s] ---- */

static double *
at (Machine *m, gint32 t, gint64 a, gint64 b, gint64 c, gint64 d)
{
  const gint64 *s = tensor (m, t)->stride;
  return &m->memory[t][a * s[0] + b * s[1] + c * s[2] + d * s[3]];
}

typedef struct { gint32 x, w, y; } Roles;

/* Calls ADD for every product of the sum. */
static void
each_product (Machine *m, const DnnOp *op, Roles t, void (*add) (double *x, double *w, double *y))
{
  const gint64 *x = tensor (m, t.x)->dim, *w = tensor (m, t.w)->dim, *y = tensor (m, t.y)->dim;
  gint64 groups = MAX (x[1] / w[1], 1), out = MAX (w[0] / groups, 1);
  for (guint d = 0; d < 2; d++)
    expect (m, y[2 + d] == (x[2 + d] + 2 * op->padding[d] - op->dilation[d] * (w[2 + d] - 1) - 1) / op->stride[d] + 1, op, "size of the result");
  expect (m, y[0] == x[0] && y[1] == w[0] && x[1] % w[1] == 0, op, "batch or channels");
  for (gint64 n = 0; n < y[0] && m->complaint->len == 0; n++)
    for (gint64 k = 0; k < y[1]; k++)
      for (gint64 p = 0; p < y[2] * y[3]; p++)
        for (gint64 c = 0; c < w[1]; c++)
          for (gint64 r = 0; r < w[2] * w[3]; r++)
            {
              gint64 i = p / y[3] * op->stride[0] - op->padding[0] + r / w[3] * op->dilation[0], j = p % y[3] * op->stride[1] - op->padding[1] + r % w[3] * op->dilation[1];
              if (i >= 0 && i < x[2] && j >= 0 && j < x[3])
                add (at (m, t.x, n, k / out * w[1] + c, i, j), at (m, t.w, k, c, r / w[3], r % w[3]), at (m, t.y, n, k, p / y[3], p % y[3]));
            }
}

static void add_y (double *x, double *w, double *y) { *y += *x * *w; }
static void add_x (double *x, double *w, double *y) { *x += *y * *w; }
static void add_w (double *x, double *w, double *y) { *w += *y * *x; }

static void
clear (Machine *m, gint32 t)
{
  for (gint64 i = 0; i < count (tensor (m, t)); i++)
    m->memory[t][interpret_offset (tensor (m, t), i)] = 0;
}

static void
run_conv (Machine *m, const DnnOp *op)
{
  Roles t = op->kind == DNN_OP_CONV        ? (Roles) { op->in[0], op->in[1], op->out[0] }
            : op->kind == DNN_OP_CONV_DATA ? (Roles) { op->out[0], op->in[1], op->in[0] }
                                           : (Roles) { op->in[1], op->out[0], op->in[0] };
  clear (m, op->out[0]);
  each_product (m, op, t, op->kind == DNN_OP_CONV ? add_y : op->kind == DNN_OP_CONV_DATA ? add_x : add_w);
  for (guint d = 0; d < 2; d++)
    expect (m, op->kernel[d] == tensor (m, t.w)->dim[2 + d], op, "kernel");
}

/* ---- products, sums, views ---- */

static void
run_matmul (Machine *m, const DnnOp *op)
{
  const DnnTensor *a = tensor (m, op->in[0]), *b = tensor (m, op->in[1]), *y = tensor (m, op->out[0]);
  gint32 r = y->rank;
  gint64 inner = a->dim[r - 1], rows = y->dim[r - 2], columns = y->dim[r - 1];
  expect (m, a->rank == r && b->rank == r && b->dim[r - 2] == inner && a->dim[r - 2] == rows && b->dim[r - 1] == columns, op, "dims of a product");
  for (gint32 d = 0; d < r - 2; d++)
    expect (m, a->dim[d] == y->dim[d] && (b->dim[d] == y->dim[d] || b->dim[d] == 1), op, "batch of a product");
  for (gint64 i = 0; i < count (y) && m->complaint->len == 0; i++)
    {
      gint64 from_a = 0, from_b = 0, batch = i / (rows * columns), row = i / columns % rows, column = i % columns;
      for (gint32 d = r - 2; d-- > 0; batch /= y->dim[d])
        {
          from_a += batch % y->dim[d] * a->stride[d];
          from_b += b->dim[d] == 1 ? 0 : batch % y->dim[d] * b->stride[d];
        }
      double sum = 0;
      for (gint64 k = 0; k < inner; k++)
        sum += m->memory[op->in[0]][from_a + row * a->stride[r - 2] + k * a->stride[r - 1]] * m->memory[op->in[1]][from_b + k * b->stride[r - 2] + column * b->stride[r - 1]];
      m->memory[op->out[0]][interpret_offset (y, i)] = sum;
    }
}

static void
run_reduction (Machine *m, const DnnOp *op)
{
  const DnnTensor *x = tensor (m, op->in[0]), *y = tensor (m, op->out[0]);
  gboolean sum = op->kind == DNN_OP_SUM;
  for (gint64 i = 0; i < count (y); i++)
    m->memory[op->out[0]][interpret_offset (y, i)] = sum ? 0 : -INFINITY;
  for (gint64 i = 0; i < count (x); i++)
    {
      double *to = &m->memory[op->out[0]][broadcast (y, x, i)], v = m->memory[op->in[0]][interpret_offset (x, i)];
      *to = sum ? *to + v : MAX (*to, v);
    }
}

/* The same memory under other dims and strides. */
static void
run_reshape (Machine *m, const DnnOp *op)
{
  const DnnTensor *x = tensor (m, op->in[0]), *y = tensor (m, op->out[0]);
  expect (m, count (x) == count (y) && dnn_tensor_bytes (x) / (x->dtype == HEDDLE_F32 ? 4 : 2) == dnn_tensor_bytes (y) / (y->dtype == HEDDLE_F32 ? 4 : 2), op, "size of a view");
  for (gint64 i = 0; i < count (x); i++)
    m->memory[op->out[0]][interpret_offset (x, i)] = m->memory[op->in[0]][interpret_offset (x, i)];
}

/* ---- norms ---- */

typedef struct { double n, mean, variance; } Moments;

/* Over all elements of X whose place in LIKE is PLACE. */
static Moments
moments (Machine *m, gint32 x, const DnnTensor *like, gint64 place, gboolean centred)
{
  Moments s = { 0 };
  for (guint pass = 0; pass < 2; pass++)
    {
      double sum = 0, n = 0;
      for (gint64 i = 0; i < count (tensor (m, x)); i++)
        if (broadcast (like, tensor (m, x), i) == place)
          {
            double v = m->memory[x][interpret_offset (tensor (m, x), i)] - s.mean;
            sum += pass ? v * v : v;
            n++;
          }
      s.n = n;
      if (pass)
        s.variance = sum / n;
      else
        s.mean = centred ? sum / n : 0;
    }
  return s;
}

static void
run_norm (Machine *m, const DnnOp *op)
{
  const DnnTensor *x = tensor (m, op->in[0]), *r = tensor (m, op->out[2]);
  double eps = tensor (m, op->in[3])->value;
  for (gint64 i = 0; i < count (r); i++)
    {
      gint64 place = interpret_offset (r, i);
      Moments s = moments (m, op->in[0], r, place, op->mode != DNN_NORM_RMS);
      m->memory[op->out[2]][place] = 1 / sqrt (s.variance + eps);
      if (op->out[1] >= 0)
        m->memory[op->out[1]][place] = s.mean;
      if (op->mode == DNN_NORM_BATCH)
        {
          double f = tensor (m, op->in[4])->value;
          m->memory[op->out[3]][place] = (1 - f) * m->memory[op->in[5]][place] + f * s.mean;
          m->memory[op->out[4]][place] = (1 - f) * m->memory[op->in[6]][place] + f * s.variance * s.n / (s.n - 1);
        }
    }
  for (gint64 i = 0; i < count (x); i++)
    {
      gint64 stat = broadcast (r, x, i), channel = broadcast (tensor (m, op->in[1]), x, i);
      double mean = op->out[1] >= 0 ? m->memory[op->out[1]][stat] : 0, shift = op->in[2] >= 0 ? m->memory[op->in[2]][channel] : 0;
      m->memory[op->out[0]][interpret_offset (tensor (m, op->out[0]), i)]
        = (m->memory[op->in[0]][interpret_offset (x, i)] - mean) * m->memory[op->out[2]][stat] * m->memory[op->in[1]][channel] + shift;
    }
}

/* dx = rstd (g - mean (g) - xhat mean (g xhat)) with g = dy scale, means over what was normalised together; without the mean's term for RMS. */
static void
run_norm_grad (Machine *m, const DnnOp *op)
{
  const DnnTensor *x = tensor (m, op->in[1]), *r = tensor (m, op->in[4]), *c = tensor (m, op->in[2]);
  gint64 n = count (x), n_stats = count (r);
  g_autofree double *g = g_new (double, n), *hat = g_new (double, n), *sum = g_new0 (double, n_stats), *dot = g_new0 (double, n_stats), *number = g_new0 (double, n_stats);
  clear (m, op->out[1]);
  if (op->out[2] >= 0)
    clear (m, op->out[2]);
  for (gint64 i = 0; i < n; i++)
    {
      gint64 stat = broadcast (r, x, i), channel = broadcast (c, x, i);
      double dy = m->memory[op->in[0]][interpret_offset (tensor (m, op->in[0]), i)], mean = op->in[3] >= 0 ? m->memory[op->in[3]][stat] : 0;
      hat[i] = (m->memory[op->in[1]][interpret_offset (x, i)] - mean) * m->memory[op->in[4]][stat];
      g[i] = dy * m->memory[op->in[2]][channel];
      sum[stat] += g[i];
      dot[stat] += g[i] * hat[i];
      number[stat]++;
      m->memory[op->out[1]][channel] += dy * hat[i];
      if (op->out[2] >= 0)
        m->memory[op->out[2]][channel] += dy;
    }
  for (gint64 i = 0; i < n; i++)
    {
      gint64 stat = broadcast (r, x, i);
      double mean = op->mode == DNN_NORM_RMS ? 0 : sum[stat] / number[stat];
      m->memory[op->out[0]][interpret_offset (tensor (m, op->out[0]), i)] = m->memory[op->in[4]][stat] * (g[i] - mean - hat[i] * dot[stat] / number[stat]);
    }
}

/* ---- pooling ---- */

/* Elements of the window of output (p, q) that lie inside an image of X's size. */
static gint64
inside (const DnnOp *op, const gint64 *x, gint64 p, gint64 q)
{
  gint64 n = 0;
  for (gint64 k = 0; k < op->kernel[0] * op->kernel[1]; k++)
    {
      gint64 i = p * op->stride[0] - op->padding[0] + k / op->kernel[1], j = q * op->stride[1] - op->padding[1] + k % op->kernel[1];
      n += i >= 0 && i < x[2] && j >= 0 && j < x[3];
    }
  return n;
}

/* Y and X are images, forward or backward; INDEX may be -1. */
static void
pool_window (Machine *m, const DnnOp *op, Roles t, gint64 n, gint64 c, gint64 p, gint64 q)
{
  const gint64 *x = tensor (m, t.x)->dim;
  gboolean most = op->kind == DNN_OP_MAX_POOL || op->kind == DNN_OP_MAX_POOL_GRAD, back = op->kind == DNN_OP_MAX_POOL_GRAD || op->kind == DNN_OP_AVG_POOL_GRAD;
  double share = op->mode ? (double) inside (op, x, p, q) : (double) (op->kernel[0] * op->kernel[1]), *y = at (m, t.y, n, c, p, q);
  if (!back)
    *y = most ? -INFINITY : 0;
  for (gint64 k = 0; k < op->kernel[0] * op->kernel[1]; k++)
    {
      gint64 i = p * op->stride[0] - op->padding[0] + k / op->kernel[1], j = q * op->stride[1] - op->padding[1] + k % op->kernel[1];
      double *v = i >= 0 && i < x[2] && j >= 0 && j < x[3] ? at (m, t.x, n, c, i, j) : NULL;
      if (v && back)
        *v += !most ? *y / share : *at (m, t.w, n, c, p, q) == (double) k ? *y : 0;
      else if (v && !most)
        *y += *v / share;
      else if (v && *v > *y)
        {
          *y = *v;
          *at (m, t.w, n, c, p, q) = (double) k;
        }
    }
}

static void
run_pool (Machine *m, const DnnOp *op)
{
  gboolean back = op->kind == DNN_OP_MAX_POOL_GRAD || op->kind == DNN_OP_AVG_POOL_GRAD;
  Roles t = back ? (Roles) { op->out[0], op->in[1], op->in[0] } : (Roles) { op->in[0], op->out[1], op->out[0] };
  const gint64 *x = tensor (m, t.x)->dim, *y = tensor (m, t.y)->dim;
  for (guint d = 0; d < 2; d++)
    expect (m, y[2 + d] == (x[2 + d] + 2 * op->padding[d] - op->kernel[d]) / op->stride[d] + 1, op, "size of the result");
  if (back)
    clear (m, t.x);
  for (gint64 i = 0; i < count (tensor (m, t.y)) && m->complaint->len == 0; i++)
    pool_window (m, op, t, i / (y[1] * y[2] * y[3]), i / (y[2] * y[3]) % y[1], i / y[3] % y[2], i % y[3]);
}

/* ---- the graph ---- */

static void (*const run[DNN_N_OPS]) (Machine *m, const DnnOp *op) = {
  [DNN_OP_POINTWISE] = run_pointwise, [DNN_OP_CONV] = run_conv, [DNN_OP_CONV_DATA] = run_conv, [DNN_OP_CONV_WEIGHT] = run_conv, [DNN_OP_MATMUL] = run_matmul,
  [DNN_OP_SUM] = run_reduction, [DNN_OP_MAXIMUM] = run_reduction, [DNN_OP_RESHAPE] = run_reshape, [DNN_OP_NORM] = run_norm, [DNN_OP_NORM_GRAD] = run_norm_grad,
  [DNN_OP_MAX_POOL] = run_pool, [DNN_OP_AVG_POOL] = run_pool, [DNN_OP_MAX_POOL_GRAD] = run_pool, [DNN_OP_AVG_POOL_GRAD] = run_pool
};

static void
check_tensors (Machine *m)
{
  const CudaDnnGraph *g = m->g;
  gboolean made[DNN_MAX_TENSORS] = { FALSE };
  for (gint32 i = 0; i < g->n_ops; i++)
    for (guint k = 0; k < DNN_PORTS; k++)
      if (g->op[i].out[k] >= 0)
        {
          expect (m, !made[g->op[i].out[k]], &g->op[i], "writes a tensor twice");
          made[g->op[i].out[k]] = TRUE;
        }
  for (gint32 i = 0; i < g->n_tensors; i++)
    {
      m->written[i] = !made[i] && (g->tensor[i].kind == DNN_TENSOR_BOUND || g->tensor[i].kind == DNN_TENSOR_CONSTANT);
      if (g->tensor[i].kind == DNN_TENSOR_CONSTANT)
        m->memory[i][0] = g->tensor[i].value;
      for (gint32 j = 0; j < i; j++)
        if (g->tensor[i].uid == g->tensor[j].uid)
          g_string_append_printf (m->complaint, "uid %d twice; ", (int) g->tensor[i].uid);
    }
}

gboolean
interpret (const CudaDnnGraph *g, double **memory, char **complaint)
{
  Machine m = { .g = g, .memory = memory, .complaint = g_string_new (NULL) };
  check_tensors (&m);
  for (gint32 i = 0; i < g->n_ops && m.complaint->len == 0; i++)
    {
      const DnnOp *op = &g->op[i];
      for (guint k = 0; k < DNN_PORTS; k++)
        expect (&m, op->in[k] < 0 || m.written[op->in[k]], op, "reads what nobody has written");
      if (m.complaint->len == 0)
        run[op->kind] (&m, op);
      for (guint k = 0; k < DNN_PORTS; k++)
        if (op->out[k] >= 0)
          m.written[op->out[k]] = TRUE;
    }
  gboolean ok = m.complaint->len == 0;
  *complaint = g_string_free (m.complaint, FALSE);
  return ok;
}
