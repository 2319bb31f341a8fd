/* tests/reference/reference.c: every operation in double precision, row-major, one loop per index, written for reading.
 * Formulas: the op table's column; sources are named there. */
#include "reference.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

struct _Reference
{
  const HeddleProgram *program;
  double             **values;       /* by value id */
  GHashTable          *variables;    /* HeddleVariable * -> double * */
};

#define COUNT(v) heddle_shape_count (&(v)->shape)
#define ATTR(T) ((const T *) op->attr)

static double *
variable_numbers (Reference *r, HeddleVariable *v)
{
  double *numbers = g_hash_table_lookup (r->variables, v);
  if (!numbers && v->flat)
    numbers = variable_numbers (r, v->flat) + v->offset;
  if (!numbers)
    numbers = g_new0 (double, (gsize) heddle_shape_count (&v->shape));
  g_hash_table_insert (r->variables, v, numbers);
  return numbers;
}

Reference *
reference_new (const HeddleProgram *program)
{
  Reference *r = g_new0 (Reference, 1);
  r->program = program;
  r->values = g_new0 (double *, program->values->len);
  r->variables = g_hash_table_new (NULL, NULL);
  for (guint i = 0; i < program->values->len; i++)
    {
      HeddleValue *v = program->values->pdata[i];
      r->values[i] = v->kind == HEDDLE_VALUE_VARIABLE ? variable_numbers (r, v->variable) : g_new0 (double, (gsize) MAX (COUNT (v), 1));
      if (v->kind == HEDDLE_VALUE_CONSTANT)
        r->values[i][0] = v->constant;
    }
  return r;
}

void
reference_free (Reference *r)
{
  GHashTableIter iter;
  gpointer key, value;
  for (guint i = 0; i < r->program->values->len; i++)
    if (((HeddleValue *) r->program->values->pdata[i])->kind != HEDDLE_VALUE_VARIABLE)
      g_free (r->values[i]);
  g_hash_table_iter_init (&iter, r->variables);
  while (g_hash_table_iter_next (&iter, &key, &value))
    if (!((HeddleVariable *) key)->flat)
      g_free (value);
  g_hash_table_unref (r->variables);
  g_free (r->values);
  g_free (r);
}

double *reference_input (Reference *r, guint i) { return r->values[((HeddleValue *) r->program->inputs->pdata[i])->id]; }
double *reference_variable (Reference *r, HeddleVariable *variable) { return variable_numbers (r, variable); }
double *reference_value (Reference *r, const HeddleValue *value) { return r->values[value->id]; }

/* ---- elementwise ---- */

/* Where element I of OUT lies in a tensor of shape IN that is broadcast to it. */
static gint64
broadcast_index (const HeddleShape *out, const HeddleShape *in, gint64 i)
{
  gint64 at = 0, stride = 1;
  for (gint32 a = 1; a <= out->rank; a++)
    {
      gint64 here = i % out->size[out->rank - a];
      i /= out->size[out->rank - a];
      if (a <= in->rank)
        {
          at += (in->size[in->rank - a] == 1 ? 0 : here) * stride;
          stride *= in->size[in->rank - a];
        }
    }
  return at;
}

static double phi (double x) { return 0.5 * erfc (-x / sqrt (2)); }
static double gelu_inner (double x) { return sqrt (2 / G_PI) * (x + 0.044715 * x * x * x); }

static double
gelu (double x, gboolean tanh_form)
{
  return tanh_form ? 0.5 * x * (1 + tanh (gelu_inner (x))) : x * phi (x);
}

static double
gelu_slope (double x, gboolean tanh_form)
{
  double t = tanh (gelu_inner (x));
  return tanh_form ? 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt (2 / G_PI) * (1 + 3 * 0.044715 * x * x) : phi (x) + x * exp (-x * x / 2) / sqrt (2 * G_PI);
}

static double
elementwise (const HeddleOp *op, double a, double b, double c)
{
  double y = NAN;
  switch (op->info->code)
    {
    case HEDDLE_OP_ADD: y = a + b; break;
    case HEDDLE_OP_SUB: y = a - b; break;
    case HEDDLE_OP_MUL: y = a * b; break;
    case HEDDLE_OP_DIV: y = a / b; break;
    case HEDDLE_OP_MAX: y = isnan (a) || isnan (b) ? NAN : fmax (a, b); break;
    case HEDDLE_OP_MIN: y = isnan (a) || isnan (b) ? NAN : fmin (a, b); break;
    case HEDDLE_OP_GREATER: y = a > b; break;
    case HEDDLE_OP_SELECT: y = a != 0 ? b : c; break;
    case HEDDLE_OP_NEG: y = -a; break;
    case HEDDLE_OP_ABS: y = fabs (a); break;
    case HEDDLE_OP_SIGN: y = (a > 0) - (a < 0); break;
    case HEDDLE_OP_EXP: y = exp (a); break;
    case HEDDLE_OP_EXPM1: y = expm1 (a); break;
    case HEDDLE_OP_LOG: y = log (a); break;
    case HEDDLE_OP_SQRT: y = sqrt (a); break;
    case HEDDLE_OP_RSQRT: y = 1 / sqrt (a); break;
    case HEDDLE_OP_SQUARE: y = a * a; break;
    case HEDDLE_OP_RECIPROCAL: y = 1 / a; break;
    case HEDDLE_OP_RELU: y = a > 0 || isnan (a) ? a : 0; break;
    case HEDDLE_OP_SIGMOID: y = 1 / (1 + exp (-a)); break;
    case HEDDLE_OP_TANH: y = tanh (a); break;
    case HEDDLE_OP_GELU: y = gelu (a, ATTR (HeddleGeluAttr)->tanh_form); break;
    case HEDDLE_OP_CAST: y = a; break;
    case HEDDLE_OP_RELU_GRAD: y = b > 0 ? a : 0; break;
    case HEDDLE_OP_SIGMOID_GRAD: y = a * b * (1 - b); break;
    case HEDDLE_OP_TANH_GRAD: y = a * (1 - b * b); break;
    case HEDDLE_OP_SILU: y = a / (1 + exp (-a)); break;
    case HEDDLE_OP_HARDSWISH: y = a * fmin (fmax (a + 3, 0), 6) / 6; break;
    case HEDDLE_OP_LEAKY_RELU: y = a > 0 ? a : ATTR (HeddleSlopeAttr)->slope * a; break;
    case HEDDLE_OP_CLAMP: y = isnan (a) ? a : fmin (fmax (a, ATTR (HeddleClampAttr)->min), ATTR (HeddleClampAttr)->max); break;
    case HEDDLE_OP_SILU_GRAD: y = a / (1 + exp (-b)) * (1 + b / (1 + exp (b))); break;
    case HEDDLE_OP_HARDSWISH_GRAD: y = b <= -3 ? 0 : b >= 3 ? a : a * (2 * b + 3) / 6; break;
    case HEDDLE_OP_LEAKY_RELU_GRAD: y = b > 0 ? a : ATTR (HeddleSlopeAttr)->slope * a; break;
    case HEDDLE_OP_CLAMP_GRAD: y = b > ATTR (HeddleClampAttr)->min && b < ATTR (HeddleClampAttr)->max ? a : 0; break;
    case HEDDLE_OP_GELU_GRAD: y = a * gelu_slope (b, ATTR (HeddleGeluAttr)->tanh_form); break;
    default: g_assert_not_reached ();
    }
  return y;
}

static void
run_elementwise (const HeddleOp *op, double **in, double *y)
{
  const HeddleShape *s = &op->out[0]->shape;
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    {
      double x[3] = { 0 };
      for (guint k = 0; k < op->n_in; k++)
        x[k] = in[k][broadcast_index (s, &op->in[k]->shape, i)];
      y[i] = elementwise (op, x[0], x[1], x[2]);
    }
}

/* ---- reductions and shapes ---- */

static void
run_reduce (const HeddleOp *op, const double *x, double *y)
{
  const HeddleShape *s = &op->in[0]->shape;
  HeddleShape kept = *s;
  gint64 outputs = COUNT (op->out[0]);
  if (op->info->code == HEDDLE_OP_SUM_TO)
    kept = op->out[0]->shape;
  else
    {
      guint32 axes = ATTR (HeddleReduceAttr)->axes;
      for (gint32 a = 0; a < s->rank; a++)
        if (!axes || axes >> a & 1)
          kept.size[a] = 1;
    }
  memset (y, 0, (gsize) outputs * sizeof *y);
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    y[broadcast_index (s, &kept, i)] += x[i];
  if (op->info->code == HEDDLE_OP_MEAN)
    for (gint64 i = 0; i < outputs; i++)
      y[i] *= (double) outputs / (double) COUNT (op->in[0]);
}

/* ---- matrices ---- */

static double
entry (const double *m, const HeddleShape *s, gboolean transposed, gint64 i, gint64 j)
{
  return transposed ? m[j * s->size[1] + i] : m[i * s->size[1] + j];
}

static void
product (const double *a, const HeddleShape *sa, gboolean ta, const double *b, const HeddleShape *sb, gboolean tb, double *y)
{
  gint64 m = sa->size[ta], k = sa->size[!ta], n = sb->size[!tb];
  for (gint64 i = 0; i < m; i++)
    for (gint64 j = 0; j < n; j++)
      {
        y[i * n + j] = 0;
        for (gint64 l = 0; l < k; l++)
          y[i * n + j] += entry (a, sa, ta, i, l) * entry (b, sb, tb, l, j);
      }
}

/* The last two axes of S */
static HeddleShape
matrix_of (const HeddleShape *s)
{
  return heddle_shape (s->size[s->rank - 2], s->size[s->rank - 1]);
}

/* One product for each matrix that the leading axes count; a matrix B of rank 2 serves all. */
static void
run_matmul (const HeddleOp *op, double **in, double *y)
{
  HeddleShape a = matrix_of (&op->in[0]->shape), b = matrix_of (&op->in[1]->shape), m = matrix_of (&op->out[0]->shape);
  gint64 n = heddle_shape_count (&a);
  for (gint64 i = 0; i < COUNT (op->in[0]) / n; i++)
    product (in[0] + i * n, &a, ATTR (HeddleMatmulAttr)->transpose_a, in[1] + (op->in[1]->shape.rank == 2 ? 0 : i * heddle_shape_count (&b)), &b,
             ATTR (HeddleMatmulAttr)->transpose_b, y + i * heddle_shape_count (&m));
}

/* All axes but the last joined */
static HeddleShape
rows_of (const HeddleShape *s)
{
  return heddle_shape (heddle_shape_count (s) / s->size[s->rank - 1], s->size[s->rank - 1]);
}

static void
run_linear (const HeddleOp *op, double **in, double **out)
{
  HeddleShape first = rows_of (&op->in[0]->shape), second = rows_of (&op->in[1]->shape), *s = &first, *t = &second;
  switch (op->info->code)
    {
    case HEDDLE_OP_LINEAR:
      product (in[0], s, FALSE, in[1], t, TRUE, out[0]);
      for (gint64 i = 0; op->n_in > 2 && i < COUNT (op->out[0]); i++)
        out[0][i] += in[2][i % t->size[0]];
      break;
    case HEDDLE_OP_LINEAR_GRAD_INPUT: product (in[0], s, FALSE, in[1], t, FALSE, out[0]); break;
    default:
      product (in[0], s, TRUE, in[1], t, FALSE, out[0]);
      for (gint64 o = 0; o < s->size[1]; o++)
        {
          out[1][o] = 0;
          for (gint64 n = 0; n < s->size[0]; n++)
            out[1][o] += in[0][n * s->size[1] + o];
        }
      break;
    }
}

/* ---- convolution: the forward sum names every product; each gradient collects the same products ---- */

typedef void (*Product) (gpointer data, gint64 x, gint64 w, gint64 y);

static void
each_product (const HeddleConvAttr *a, const HeddleShape *x, const HeddleShape *w, const HeddleShape *y, Product f, gpointer data)
{
  gint64 per_group = w->size[0] / a->groups;
  for (gint64 n = 0; n < y->size[0]; n++)
    for (gint64 o = 0; o < y->size[1]; o++)
      for (gint64 i = 0; i < y->size[2]; i++)
        for (gint64 j = 0; j < y->size[3]; j++)
          for (gint64 c = 0; c < w->size[1]; c++)
            for (gint64 p = 0; p < w->size[2]; p++)
              for (gint64 q = 0; q < w->size[3]; q++)
                {
                  gint64 r = i * a->stride[0] - a->padding[0] + p * a->dilation[0], s = j * a->stride[1] - a->padding[1] + q * a->dilation[1];
                  gint64 channel = o / per_group * w->size[1] + c;
                  if (r >= 0 && r < x->size[2] && s >= 0 && s < x->size[3])
                    f (data, ((n * x->size[1] + channel) * x->size[2] + r) * x->size[3] + s, ((o * w->size[1] + c) * w->size[2] + p) * w->size[3] + q,
                       ((n * y->size[1] + o) * y->size[2] + i) * y->size[3] + j);
                }
}

typedef struct { double *x, *w, *y; } Conv;
static void forward_product (gpointer d, gint64 x, gint64 w, gint64 y) { Conv *c = d; c->y[y] += c->x[x] * c->w[w]; }
static void input_product (gpointer d, gint64 x, gint64 w, gint64 y) { Conv *c = d; c->x[x] += c->y[y] * c->w[w]; }
static void weight_product (gpointer d, gint64 x, gint64 w, gint64 y) { Conv *c = d; c->w[w] += c->y[y] * c->x[x]; }

static void
run_conv (const HeddleOp *op, double **in, double **out)
{
  const HeddleConvAttr *a = op->attr;
  const HeddleShape *y = op->info->code == HEDDLE_OP_CONV2D ? &op->out[0]->shape : &op->in[0]->shape;
  gint64 pixels = y->size[2] * y->size[3];
  memset (out[0], 0, (gsize) COUNT (op->out[0]) * sizeof (double));
  if (op->info->code == HEDDLE_OP_CONV2D)
    {
      for (gint64 i = 0; op->n_in > 2 && i < COUNT (op->out[0]); i++)
        out[0][i] = in[2][i / pixels % y->size[1]];
      each_product (a, &op->in[0]->shape, &op->in[1]->shape, y, forward_product, &(Conv) { in[0], in[1], out[0] });
    }
  else if (op->info->code == HEDDLE_OP_CONV2D_GRAD_INPUT)
    each_product (a, &a->input, &op->in[1]->shape, y, input_product, &(Conv) { out[0], in[1], in[0] });
  else
    {
      each_product (a, &op->in[1]->shape, &a->weight, y, weight_product, &(Conv) { in[1], out[0], in[0] });
      memset (out[1], 0, (gsize) y->size[1] * sizeof (double));
      for (gint64 i = 0; i < COUNT (op->in[0]); i++)
        out[1][i / pixels % y->size[1]] += in[0][i];
    }
}

/* ---- pooling ---- */

static void
run_pool (const HeddleOp *op, double **in, double **out)
{
  const HeddlePoolAttr *a = op->attr;
  gboolean backward = op->info->code == HEDDLE_OP_MAX_POOL_GRAD || op->info->code == HEDDLE_OP_AVG_POOL_GRAD;
  const HeddleShape *x = backward ? &op->out[0]->shape : &op->in[0]->shape, *y = backward ? &op->in[0]->shape : &op->out[0]->shape;
  if (backward)
    memset (out[0], 0, (gsize) COUNT (op->out[0]) * sizeof (double));
  for (gint64 k = 0; k < y->size[0] * y->size[1] * y->size[2] * y->size[3]; k++)
    {
      gint64 plane = k / (y->size[2] * y->size[3]), i = k / y->size[3] % y->size[2], j = k % y->size[3], inside = 0, arg = -1;
      double best = -INFINITY, sum = 0;
      for (int pass = 0; pass < 2; pass++)             /* the second pass knows how many elements lie inside */
        for (gint64 p = 0; p < a->kernel[0]; p++)
          for (gint64 q = 0; q < a->kernel[1]; q++)
            {
              gint64 r = i * a->stride[0] - a->padding[0] + p, s = j * a->stride[1] - a->padding[1] + q, number = p * a->kernel[1] + q;
              gint64 at = (plane * x->size[2] + r) * x->size[3] + s;
              if (r < 0 || r >= x->size[2] || s < 0 || s >= x->size[3])
                continue;
              double share = 1.0 / (double) (a->exclude_padding ? inside : a->kernel[0] * a->kernel[1]);
              if (pass == 0)
                {
                  inside++;
                  sum += backward ? 0 : in[0][at];
                  if (!backward && (arg < 0 || in[0][at] > best))
                    {
                      best = in[0][at];
                      arg = number;
                    }
                }
              else if (op->info->code == HEDDLE_OP_AVG_POOL_GRAD)
                out[0][at] += in[0][k] * share;
              else if (op->info->code == HEDDLE_OP_MAX_POOL_GRAD && in[1][k] == (double) number)
                out[0][at] += in[0][k];
            }
      if (op->info->code == HEDDLE_OP_MAX_POOL)
        {
          out[0][k] = best;
          out[1][k] = (double) arg;
        }
      else if (op->info->code == HEDDLE_OP_AVG_POOL)
        out[0][k] = sum / (double) (a->exclude_padding ? inside : a->kernel[0] * a->kernel[1]);
    }
}

/* ---- batch norm ---- */

static gint64
channel_of (const HeddleShape *s, gint64 i)
{
  gint64 pixels = 1;
  for (gint32 a = 2; a < s->rank; a++)
    pixels *= s->size[a];
  return i / pixels % s->size[1];
}

static void
run_batch_norm (const HeddleOp *op, double **in, double **out)
{
  const HeddleBatchNormAttr *a = op->attr;
  const HeddleShape *s = &op->in[0]->shape;
  gint64 n = COUNT (op->in[0]), channels = s->size[1];
  double count = (double) n / (double) channels;
  for (gint64 c = 0; c < channels; c++)
    {
      double mean = in[3][c], variance = in[4][c];
      if (a->training)
        {
          mean = variance = 0;
          for (gint64 i = 0; i < n; i++)
            mean += channel_of (s, i) == c ? in[0][i] / count : 0;
          for (gint64 i = 0; i < n; i++)
            variance += channel_of (s, i) == c ? (in[0][i] - mean) * (in[0][i] - mean) / count : 0;
        }
      double rstd = 1 / sqrt (variance + a->eps), old_mean = in[3][c], old_variance = in[4][c];
      for (gint64 i = 0; i < n; i++)
        if (channel_of (s, i) == c)
          out[0][i] = (in[0][i] - mean) * rstd * in[1][c] + in[2][c];
      out[1][c] = mean;
      out[2][c] = rstd;
      out[3][c] = a->training ? (1 - a->momentum) * old_mean + a->momentum * mean : old_mean;
      out[4][c] = a->training ? (1 - a->momentum) * old_variance + a->momentum * variance * count / (count - 1) : old_variance;
    }
}

/* The derivative through mean and variance, written out: dxhat - mean (dxhat) - xhat mean (dxhat xhat), times rstd. */
static void
run_batch_norm_grad (const HeddleOp *op, double **in, double **out)
{
  const HeddleShape *s = &op->in[1]->shape;
  gint64 n = COUNT (op->in[1]), channels = s->size[1];
  double count = (double) n / (double) channels;
  gboolean training = ATTR (HeddleBatchNormAttr)->training;
  for (gint64 c = 0; c < channels; c++)
    {
      double sum = 0, dot = 0;
      for (gint64 i = 0; i < n; i++)
        if (channel_of (s, i) == c)
          {
            sum += in[0][i];
            dot += in[0][i] * (in[1][i] - in[3][c]) * in[4][c];
          }
      for (gint64 i = 0; i < n; i++)
        if (channel_of (s, i) == c)
          {
            double xhat = (in[1][i] - in[3][c]) * in[4][c];
            out[0][i] = in[2][c] * in[4][c] * (in[0][i] - (training ? sum / count + xhat * dot / count : 0));
          }
      out[1][c] = dot;
      out[2][c] = sum;
    }
}

/* ---- softmax and losses ---- */

static void
run_axis (const HeddleOp *op, double **in, double *y)
{
  const HeddleShape *s = &op->in[0]->shape;
  gint32 axis = ATTR (HeddleAxisAttr)->axis < 0 ? ATTR (HeddleAxisAttr)->axis + s->rank : ATTR (HeddleAxisAttr)->axis;
  gint64 inner = 1, length = s->size[axis];
  for (gint32 a = axis + 1; a < s->rank; a++)
    inner *= s->size[a];
  for (gint64 k = 0; k < COUNT (op->in[0]) / length; k++)
    {
      gint64 at = k / inner * length * inner + k % inner;
      double sum = 0, top = -INFINITY;
      for (gint64 i = 0; i < length; i++)
        top = fmax (top, in[0][at + i * inner]);
      for (gint64 i = 0; i < length; i++)
        switch (op->info->code)
          {
          case HEDDLE_OP_SOFTMAX: case HEDDLE_OP_LOG_SOFTMAX: sum += exp (in[0][at + i * inner] - top); break;
          case HEDDLE_OP_SOFTMAX_GRAD: sum += in[0][at + i * inner] * in[1][at + i * inner]; break;
          default: sum += in[0][at + i * inner]; break;
          }
      for (gint64 i = 0; i < length; i++)
        {
          gint64 j = at + i * inner;
          switch (op->info->code)
            {
            case HEDDLE_OP_SOFTMAX: y[j] = exp (in[0][j] - top) / sum; break;
            case HEDDLE_OP_LOG_SOFTMAX: y[j] = in[0][j] - top - log (sum); break;
            case HEDDLE_OP_SOFTMAX_GRAD: y[j] = in[1][j] * (in[0][j] - sum); break;
            default: y[j] = in[0][j] - exp (in[1][j]) * sum; break;
            }
        }
    }
}

static double
log_probability (const double *x, gint64 k, gint64 c)
{
  double sum = 0, top = -INFINITY;
  for (gint64 i = 0; i < k; i++)
    top = fmax (top, x[i]);
  for (gint64 i = 0; i < k; i++)
    sum += exp (x[i] - top);
  return x[c] - top - log (sum);
}

static void
run_cross_entropy (const HeddleOp *op, double **in, double **out)
{
  const HeddleCrossEntropyAttr *a = op->attr;
  gboolean backward = op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD;
  guint first = backward ? 1 : 0, weights = backward ? 4 : 2;
  gint64 n = op->in[first]->shape.size[0], k = op->in[first]->shape.size[1];
  double e = a->label_smoothing, sum = 0, denominator = 0;
  for (gint64 i = 0; i < n; i++)
    {
      const double *x = in[first] + i * k;
      gint64 y = (gint64) in[first + 1][i];
      gboolean ignored = y == a->ignore_index;
      double w = ignored ? 0 : op->n_in > weights ? in[weights][y] : 1;
      denominator += w;
      for (gint64 c = 0; c < k; c++)
        {
          double wc = op->n_in > weights ? in[weights][c] : 1, t = ignored ? 0 : (1 - e) * w * (c == y) + e / (double) k * wc;
          sum -= t == 0 ? 0 : t * log_probability (x, k, c);
          if (backward)
            {
              /* d/dx_c of -sum_j t_j log p_j = p_c sum_j t_j - t_c */
              double total = 0;
              for (gint64 j = 0; j < k; j++)
                total += ignored ? 0 : (1 - e) * w * (j == y) + e / (double) k * (op->n_in > weights ? in[weights][j] : 1);
              out[0][i * k + c] = in[3][0] > 0 ? in[0][0] / in[3][0] * (exp (log_probability (x, k, c)) * total - t) : 0;
            }
        }
    }
  if (!backward)
    {
      out[0][0] = denominator > 0 ? sum / denominator : 0;
      out[1][0] = denominator;
    }
}

static void
run_top_k (const HeddleOp *op, double **in, double **out)
{
  gint64 n = op->in[0]->shape.size[0], k = op->in[0]->shape.size[1];
  out[0][0] = 0;
  for (gint64 i = 0; i < n; i++)
    {
      gint64 y = (gint64) in[1][i], above = 0;
      for (gint64 c = 0; c < k; c++)
        above += in[0][i * k + c] > in[0][i * k + y] || (in[0][i * k + c] == in[0][i * k + y] && c < y);
      out[0][0] += above < ATTR (HeddleTopKAttr)->k;
    }
  out[1][0] = (double) n;
}

/* ---- the rest ---- */

static void
run_dropout (const HeddleOp *op, double **in, double *y)
{
  const HeddleDropoutAttr *a = op->attr;
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    {
      HeddleRandom random = heddle_random (a->seed, HEDDLE_STREAM_DROPOUT, a->key, (guint32) in[1][0]);
      random.counter[0] = (guint32) (i / 4);
      guint32 word = 0;
      for (gint64 k = 0; k <= i % 4; k++)
        word = heddle_random_u32 (&random);
      y[i] = (double) word >= floor (a->probability * 4294967296.0) ? in[0][i] / (1 - a->probability) : 0;
    }
}

static void
run_dequantize (const HeddleOp *op, const double *x, double *y)
{
  const HeddleDequantizeAttr *a = op->attr;
  const HeddleShape *s = &op->in[0]->shape;
  for (gint64 i = 0; i < COUNT (op->out[0]); i++)
    {
      gint64 c = a->channels > 1 ? channel_of (s, i) : 0;
      y[i] = (x[i] * a->scale - a->mean[c]) / a->std[c];
    }
}

static void
run_norm_stats (const HeddleOp *op, const double *x, double **out)
{
  out[0][0] = out[1][0] = 0;
  for (gint64 i = 0; i < COUNT (op->in[0]); i++)
    {
      out[0][0] += x[i] * x[i];
      if (!isfinite (x[i]))
        out[1][0] = 1;
    }
}

static void
run_scaler (const HeddleOp *op, double **in, double **out)
{
  const HeddleScalerAttr *a = op->attr;
  gboolean grows = in[1][0] + 1 >= a->growth_interval;
  double grown = in[0][0] * a->growth_factor;
  if (in[2][0] != 0)
    {
      out[0][0] = fmax (in[0][0] * a->backoff_factor, fmin (in[0][0], a->min_scale));
      out[1][0] = 0;
    }
  else
    {
      out[0][0] = grows && grown <= 3.4028234663852886e38 ? grown : in[0][0];
      out[1][0] = grows ? 0 : in[1][0] + 1;
    }
}

static GHashTable *customs;       /* name -> ReferenceCustom */

void
reference_custom (const char *name, ReferenceCustom f)
{
  if (!customs)
    customs = g_hash_table_new (g_str_hash, g_str_equal);
  g_hash_table_insert (customs, (gpointer) name, (gpointer) f);
}

static void
run_custom (const HeddleOp *op, double **in, double **out)
{
  const HeddleCustomAttr *a = op->attr;
  ReferenceCustom f = (ReferenceCustom) g_hash_table_lookup (customs, a->op->name);
  f (op, a->data, in, out);
}

/* Each parameter's window of the group's flat tensor: summed into one number, or filled with one. */
static void
run_windows (const HeddleOp *op, const double *x, double *y)
{
  const HeddleGroup *group = op->in[1]->variable->group;
  gboolean sum = op->info->code == HEDDLE_OP_PARAM_SUM;
  memset (y, 0, (gsize) COUNT (op->out[0]) * sizeof *y);
  for (guint p = 0; p < group->params->len; p++)
    {
      const HeddleVariable *v = group->params->pdata[p];
      for (gint64 i = 0; i < COUNT (v); i++)
        if (sum)
          y[p] += ATTR (HeddleParamSumAttr)->squares ? x[v->offset + i] * x[v->offset + i] : x[v->offset + i];
        else
          y[v->offset + i] = x[p];
    }
}

/* 16-bit results are rounded as they are stored, integers are truncated. */
static void
round_output (const HeddleValue *v, double *y)
{
  for (gint64 i = 0; i < COUNT (v); i++)
    if (v->dtype == HEDDLE_F16)
      y[i] = heddle_f32_from_f16 (heddle_f16_from_f32 ((float) y[i]));
    else if (v->dtype == HEDDLE_BF16)
      y[i] = heddle_f32_from_bf16 (heddle_bf16_from_f32 ((float) y[i]));
    else if (!heddle_dtype_is_float (v->dtype))
      y[i] = trunc (y[i]);
}

static void
run_op (Reference *r, const HeddleOp *op)
{
  double *in[8] = { NULL }, *out[8] = { NULL };
  for (guint i = 0; i < op->n_in; i++)
    in[i] = r->values[op->in[i]->id];
  for (guint i = 0; i < op->n_out; i++)
    out[i] = r->values[op->out[i]->id];
  switch (op->info->code)
    {
    case HEDDLE_OP_RESHAPE: memcpy (out[0], in[0], (gsize) COUNT (op->out[0]) * sizeof (double)); break;
    case HEDDLE_OP_BROADCAST:
      for (gint64 i = 0; i < COUNT (op->out[0]); i++)
        out[0][i] = in[0][broadcast_index (&op->out[0]->shape, &op->in[0]->shape, i)];
      break;
    case HEDDLE_OP_SUM: case HEDDLE_OP_MEAN: case HEDDLE_OP_SUM_TO: run_reduce (op, in[0], out[0]); break;
    case HEDDLE_OP_NORM_STATS: run_norm_stats (op, in[0], out); break;
    case HEDDLE_OP_MATMUL:
      run_matmul (op, in, out[0]);
      break;
    case HEDDLE_OP_LINEAR: case HEDDLE_OP_LINEAR_GRAD_INPUT: case HEDDLE_OP_LINEAR_GRAD_WEIGHT: run_linear (op, in, out); break;
    case HEDDLE_OP_CONV2D: case HEDDLE_OP_CONV2D_GRAD_INPUT: case HEDDLE_OP_CONV2D_GRAD_WEIGHT: run_conv (op, in, out); break;
    case HEDDLE_OP_MAX_POOL: case HEDDLE_OP_MAX_POOL_GRAD: case HEDDLE_OP_AVG_POOL: case HEDDLE_OP_AVG_POOL_GRAD: run_pool (op, in, out); break;
    case HEDDLE_OP_BATCH_NORM: run_batch_norm (op, in, out); break;
    case HEDDLE_OP_BATCH_NORM_GRAD: run_batch_norm_grad (op, in, out); break;
    case HEDDLE_OP_SOFTMAX: case HEDDLE_OP_LOG_SOFTMAX: case HEDDLE_OP_SOFTMAX_GRAD: case HEDDLE_OP_LOG_SOFTMAX_GRAD: run_axis (op, in, out[0]); break;
    case HEDDLE_OP_CROSS_ENTROPY: case HEDDLE_OP_CROSS_ENTROPY_GRAD: run_cross_entropy (op, in, out); break;
    case HEDDLE_OP_MSE:
      out[0][0] = 0;
      for (gint64 i = 0; i < COUNT (op->in[0]); i++)
        out[0][0] += (in[0][i] - in[1][i]) * (in[0][i] - in[1][i]) / (double) COUNT (op->in[0]);
      out[1][0] = (double) COUNT (op->in[0]);
      break;
    case HEDDLE_OP_TOP_K: run_top_k (op, in, out); break;
    case HEDDLE_OP_ASSIGN:
      if (op->n_in < 3 || in[2][0] == 0)
        memmove (in[0], in[1], (gsize) COUNT (op->in[0]) * sizeof (double));
      break;
    case HEDDLE_OP_SCALER_UPDATE: run_scaler (op, in, out); break;
    case HEDDLE_OP_CUSTOM: run_custom (op, in, out); break;
    case HEDDLE_OP_PARAM_SUM: case HEDDLE_OP_PARAM_SPREAD: run_windows (op, in[0], out[0]); break;
    case HEDDLE_OP_DROPOUT: run_dropout (op, in, out[0]); break;
    case HEDDLE_OP_DEQUANTIZE: run_dequantize (op, in[0], out[0]); break;
    default:
      if (!reference_sequence_op (op, in, out) && !reference_vision (op, in, out))
        run_elementwise (op, in, out[0]);
      break;
    }
  for (guint i = 0; i < op->n_out; i++)
    round_output (op->out[i], out[i]);
}

void
reference_run (Reference *r)
{
  for (guint i = 0; i < r->program->ops->len; i++)
    run_op (r, r->program->ops->pdata[i]);
}
