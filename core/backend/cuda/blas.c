/* cuda/blas.c: operations that are matrix products as steps that cuBLASLt runs, with what it computes along: bias, activations and their gradients.  Must not know how steps are placed or run.
 * Everything is column-major here, as the library is: a row-major matrix (R, C) is its transpose (C, R). */
#include "blas.h"
#include "blas-product.h"
#include "dnn-steps.h"
#include "ops.h"

/* ---- steps: in[0] A, in[1] B, then the bias or what the activation's gradient is taken at; out[0] D, out[1] what the epilogue leaves behind ---- */

typedef struct { BlasProduct *product; gboolean slope, sums; } Multiply;      /* IN (2) is what a slope is taken at; OUT (1) are column sums */

static void
multiply_free (gpointer data)
{
  Multiply *m = data;
  blas_product_free (m->product);
  g_free (m);
}

static gboolean
run_product (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const Multiply *m = step->data;
  gpointer third = step->n_in > 2 ? IN (2) : NULL, second = step->n_out > 1 ? OUT (1) : NULL;
  gpointer bias = m->sums ? second : m->slope ? NULL : third, aux = m->slope ? third : m->sums ? NULL : second;
  return blas_product_run (m->product, queue, IN (0), IN (1), OUT (0), bias, aux, step->n_scratch ? SCRATCH (0) : NULL, step->op, error);
}

/* The largest power of two that divides the address: memory of its own begins at 256, windows at multiples of 16 elements. */
static gint32
alignment (const CudaOperand *o)
{
  const HeddleVariable *v = o->where == CUDA_VARIABLE || o->where == CUDA_SHADOW ? o->variable : NULL;
  guint64 bytes = v && v->flat ? (guint64) v->offset * heddle_dtype_size (o->dtype) : 0;
  return bytes ? (gint32) MIN (bytes & -bytes, 256) : 256;
}

/* The value in rows, or padded if it was made so. */
static CudaOperand
operand (CudaCompiler *c, const HeddleValue *v, gboolean single)
{
  return cuda_form (c, v, v->dtype, single && cuda_made (c, v)->layout == CUDA_PADDED ? CUDA_PADDED : CUDA_ROWS);
}

/* What follows the last row of W are parameters or zeros (cuda_shadow_bytes): it can be multiplied with zeros. */
static gboolean
goes_on (const CudaOperand *w)
{
  return w->where == CUDA_SHADOW && w->shape.rank == 2;
}

/* Leading dimensions of what is padded.  Tensor cores load and store 16 bytes at a time, and the library asks that of sizes too: where nothing is lost by it a product covers the padding, makes
 * numbers there that nobody reads, multiplies zeros with what follows the weight, or leaves rows after a gradient's last.  Returns the bytes that D then takes beyond its own. */
static gsize
cover_padding (BlasShape *s, const CudaOperand *a, const CudaOperand *b, const CudaOperand *d)
{
  gint64 wide = cuda_pitch (&d->shape, d->layout), deep = cuda_pitch (&b->shape, b->layout), n = s->n;
  gboolean plain = s->epilogue == CUBLASLT_EPILOGUE_DEFAULT;
  if (d->layout == CUDA_PADDED)
    {
      s->ldd = wide;
      s->m = plain && s->transpose_a && goes_on (a) ? wide : s->m;
    }
  if (b->layout == CUDA_PADDED)
    {
      s->ldb = deep;
      s->k = !s->transpose_a && !s->transpose_b && goes_on (a) ? deep : s->k;
      s->n = plain && s->transpose_b && d->where == CUDA_ARENA ? deep : s->n;
    }
  return (gsize) ((s->n - n) * s->ldd) * heddle_dtype_size (d->dtype);
}

/* What is to be emitted: operands by value, and the epilogue.  Signs are a form of the value whose signs they are, D or THIRD. */
typedef struct
{
  const HeddleOp    *op, *last;        /* LAST: the operation that the epilogue computes, or OP */
  const HeddleValue *a, *b, *third, *d, *second;
  BlasShape          shape;
} Wish;

/* Where D is to be made: a variable only in its turn, which nobody in between may read. */
static CudaOperand
result_of (CudaCompiler *c, const Wish *w)
{
  if (w->last != w->op)
    c->forward[w->d->id] = NULL;
  HeddleVariable *target = c->forward[w->d->id];
  gboolean padded = w->shape.batch == 1 && !target && w->last == w->op && cuda_pads_logits (c, w->d);
  return (CudaOperand) { .where = target ? CUDA_VARIABLE : CUDA_ARENA, .variable = target, .dtype = w->d->dtype, .shape = w->d->shape, .layout = padded ? CUDA_PADDED : CUDA_ROWS };
}

static void
emit_step (CudaCompiler *c, const Wish *w, const BlasShape *s, BlasProduct *product, const CudaOperand *operands, CudaLayout layout, gsize beyond)
{
  gboolean slope = blas_is_slope (s), signs = blas_has_signs (s);
  CudaOperand third = { 0 };
  Multiply *m = g_new0 (Multiply, 1);
  *m = (Multiply) { product, slope, s->epilogue == CUBLASLT_EPILOGUE_BGRADB };
  if (w->third)
    third = slope && signs ? *cuda_find_form (c, w->third, HEDDLE_U8, CUDA_SIGNS) : cuda_form (c, w->third, w->d->dtype, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, w->op, cuda_keep (c->plan, g_strdup_printf ("cublasLt%s%s %s", w->last != w->op ? "+" : "", w->last != w->op ? w->last->info->name : "", blas_product_text (product))), run_product);
  step->chosen = TRUE;
  cuda_step_data (step, m, multiply_free);
  cuda_step_in (step, operands[0]);
  cuda_step_in (step, operands[1]);
  if (w->third)
    cuda_step_in (step, third);
  if (blas_product_workspace (product))
    cuda_step_scratch (c, step, blas_product_workspace (product));
  cuda_step_out (c, step, w->d, w->d->dtype, layout, TRUE);
  if (beyond)
    g_array_index (c->plan->buffers, HeddleRegion, step->out[0].index).bytes += beyond;
  if (w->second)
    cuda_step_out (c, step, w->second, w->second->dtype, CUDA_ROWS, TRUE);
  else if (signs && !slope)
    cuda_step_form (c, step, w->d, HEDDLE_U8, CUDA_SIGNS);
  if (w->last != w->op)
    cuda_mark_done (c, w->last);
  c->device->primitives++;
}

/* FALSE without an error: the library cannot. */
static gboolean
emit_one (CudaCompiler *c, const Wish *w, GError **error)
{
  BlasShape s = w->shape;
  CudaOperand d = result_of (c, w), operands[] = { operand (c, w->a, FALSE), operand (c, w->b, s.batch == 1) };
  gsize beyond = cover_padding (&s, &operands[0], &operands[1], &d);
  s.align_a = alignment (&operands[0]);
  s.align_b = alignment (&operands[1]);
  s.align_d = alignment (&d);
  s.in = (gint32) w->a->dtype;
  s.out = (gint32) w->d->dtype;
  s.tf32 = w->a->dtype == HEDDLE_F32 && c->device->flags.tf32_matmul && c->device->capability >= 80;
  BlasProduct *product = blas_product (c->device, &s, w->op, error);
  if (product)
    emit_step (c, w, &s, product, operands, d.layout, beyond);
  return product != NULL;
}

/* The first of them that the library can */
static gboolean
emit (CudaCompiler *c, const Wish *wishes, guint n, GError **error)
{
  GError *met = NULL;
  gboolean done = FALSE;
  for (guint i = 0; !done && !met && i < n; i++)
    done = emit_one (c, &wishes[i], &met);
  if (met)
    g_propagate_error (error, met);
  return done;
}

/* ---- operations ---- */

/* c (M, N) = a (M, K) b (K, N), row-major, is c^T = b^T a^T.  A matrix b that serves all of a makes one product of it where a's rows follow each other. */
static gboolean
lower_matmul (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleMatmulAttr *attr = op->attr;
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape, *y = &op->out[0]->shape;
  gint64 rows = a->size[a->rank - 2], depth = b->size[b->rank - 2], m = y->size[y->rank - 2], n = cuda_last (y), k = attr->transpose_a ? rows : cuda_last (a);
  gint64 batch = heddle_shape_count (y) / MAX (m * n, 1);
  gboolean shared = b->rank == 2 && batch > 1;
  BlasShape s = { .m = n, .n = m, .k = k, .batch = batch, .lda = cuda_last (b), .ldb = cuda_last (a), .ldd = n, .stride_a = shared ? 0 : depth * cuda_last (b), .stride_b = rows * cuda_last (a), .stride_d = m * n,
              .transpose_a = attr->transpose_b, .transpose_b = attr->transpose_a, .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
  if (shared && !attr->transpose_a)
    {
      s.n = m * batch;
      s.batch = 1;
    }
  Wish w = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .shape = s };
  return emit (c, &w, 1, error);
}

/* The activation that can be computed along with a linear layer: relu of what nobody else reads, or gelu in its tanh form, whose argument is then kept for its gradient. */
static const HeddleOp *
activation_of (CudaCompiler *c, const HeddleValue *v)
{
  const HeddleOp *op = cuda_only_user (c, v);
  const GPtrArray *users = c->users[v->id];
  for (guint i = 0; !op && c->device->flags.fusion && users && i < users->len; i++)
    op = ((const HeddleOp *) users->pdata[i])->info->code == HEDDLE_OP_GELU ? users->pdata[i] : NULL;
  gboolean relu = op && op->info->code == HEDDLE_OP_RELU, gelu = op && op->info->code == HEDDLE_OP_GELU && ((const HeddleGeluAttr *) op->attr)->tanh_form;
  return (relu || gelu) && op->out[0]->dtype == v->dtype && !cuda_is_done (c, op) ? op : NULL;
}

/* Relu's gradient alone takes what LINEAR_GRAD_INPUT makes: a product that can have it as epilogue. */
static gboolean
is_relu_after (const CudaCompiler *c, const HeddleOp *product, const HeddleOp *slope)
{
  return product && product->info->code == HEDDLE_OP_LINEAR_GRAD_INPUT && slope && slope == cuda_only_user (c, product->out[0]) && slope->info->code == HEDDLE_OP_RELU_GRAD
         && slope->in[0] == product->out[0] && slope->out[0]->dtype == product->out[0]->dtype;
}

/* Such a gradient will be taken at what RELU makes: its signs are worth keeping. */
static gboolean
wants_signs (const CudaCompiler *c, const HeddleOp *relu)
{
  const HeddleValue *y = relu->out[0];
  const GPtrArray *users = c->users[y->id];
  gboolean wanted = FALSE;
  for (guint i = 0; relu->info->code == HEDDLE_OP_RELU && !wanted && users && i < users->len; i++)
    {
      const HeddleOp *slope = users->pdata[i];
      wanted = slope->n_in == 2 && slope->in[1] == y && slope->out[0]->dtype == y->dtype && is_relu_after (c, slope->in[0]->producer, slope);
    }
  return wanted;
}

static gint32
epilogue_of (const HeddleOp *activation, gboolean bias, gboolean keep)
{
  static const cublasLtEpilogue_t table[2][2][2] = { { { CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_RELU_BIAS }, { CUBLASLT_EPILOGUE_RELU_AUX, CUBLASLT_EPILOGUE_RELU_AUX_BIAS } },
                                                     { { CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS }, { CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS } } };
  cublasLtEpilogue_t plain = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  return activation ? table[activation->info->code == HEDDLE_OP_GELU][keep][bias] : plain;
}

/* y (R, O) = x (R, I) w (O, I)^T + bias, with the activation that follows: at best it leaves behind what its gradient is taken at.  A relu that cuBLASLt gets wrong cuDNN may get right. */
static gboolean
lower_linear (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *x = &op->in[0]->shape;
  const HeddleValue *y = op->out[0], *bias = op->n_in > 2 ? op->in[2] : NULL;
  gint64 in = cuda_last (x), out = op->in[1]->shape.size[0];
  const HeddleOp *activation = activation_of (c, y);
  gboolean keep = activation && cuda_only_user (c, y) == NULL, signs = activation && wants_signs (c, activation);
  BlasShape s = { .m = out, .n = cuda_height (x), .k = in, .batch = 1, .lda = in, .ldb = in, .ldd = out, .transpose_a = TRUE, .bias = bias ? (gint32) y->dtype : 0 };
  s.epilogue = epilogue_of (NULL, bias != NULL, FALSE);
  Wish plain = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .third = bias, .d = y, .shape = s }, wishes[2] = { plain };
  GError *met = NULL;
  guint n = 0;
  for (gint kept = signs; activation && kept >= 0; kept--)
    {
      Wish *w = &wishes[n++];
      *w = plain;
      w->last = activation;
      w->d = activation->out[0];
      w->second = keep ? y : NULL;
      w->shape.epilogue = epilogue_of (activation, bias != NULL, keep || kept);
    }
  gboolean done = emit (c, wishes, n, &met) || (!met && activation && activation->info->code == HEDDLE_OP_RELU && cuda_lower_dnn_linear_relu (c, op, &met)) || (!met && emit (c, &plain, 1, &met));
  if (met)
    g_propagate_error (error, met);
  return done;
}

/* dx (R, I) = dy (R, O) w (O, I); with the gradient of the relu or tanh gelu that x came from, where that alone reads dx */
static gboolean
lower_grad_input (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *dy = &op->in[0]->shape;
  gint64 out = cuda_last (dy), in = cuda_last (&op->in[1]->shape);
  const HeddleOp *next = cuda_only_user (c, op->out[0]);
  gboolean gelu = next && next->info->code == HEDDLE_OP_GELU_GRAD && next->in[0] == op->out[0] && ((const HeddleGeluAttr *) next->attr)->tanh_form && next->out[0]->dtype == op->out[0]->dtype
                  && next->in[1]->dtype == op->out[0]->dtype && c->forms[next->in[1]->id];
  gboolean relu = is_relu_after (c, op, next) && cuda_find_form (c, next->in[1], HEDDLE_U8, CUDA_SIGNS);
  BlasShape s = { .m = in, .n = cuda_height (dy), .k = out, .batch = 1, .lda = in, .ldb = out, .ldd = in, .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
  Wish plain = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .shape = s }, wishes[2];
  guint n = 0;
  if (gelu || relu)
    {
      Wish *w = &wishes[n++];
      *w = plain;
      w->last = next;
      w->third = next->in[1];
      w->d = next->out[0];
      w->shape.epilogue = gelu ? CUBLASLT_EPILOGUE_DGELU : CUBLASLT_EPILOGUE_DRELU;
    }
  wishes[n++] = plain;
  return emit (c, wishes, n, error);
}

/* dw (O, I) = dy (R, O)^T x (R, I), and the column sums of dy: along with it, or apart where the library does not make them.  FALSE also where only the sums are wanted. */
static gboolean
lower_grad_weight (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *dy = &op->in[0]->shape, *x = &op->in[1]->shape;
  const HeddleValue *sums = op->n_out > 1 && c->wanted[op->out[1]->id] ? op->out[1] : NULL;
  gint64 out = cuda_last (dy), in = cuda_last (x);
  BlasShape s = { .m = in, .n = out, .k = cuda_height (dy), .batch = 1, .lda = in, .ldb = out, .ldd = in, .transpose_b = TRUE, .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
  Wish plain = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .shape = s }, wishes[2];
  guint n = 0;
  if (sums)
    {
      Wish *w = &wishes[n++];
      *w = plain;
      w->second = sums;
      w->shape.bias = (gint32) sums->dtype;
      w->shape.epilogue = CUBLASLT_EPILOGUE_BGRADB;
    }
  wishes[n++] = plain;
  gboolean done = c->wanted[op->out[0]->id] && emit (c, wishes, n, error);
  if (done && sums && !c->forms[sums->id])
    {
      CudaOperand o = operand (c, op->in[0], TRUE);
      HkReduce r = cuda_column_sum (&o.shape, o.layout);
      cuda_sum_step (c, op, &o, &r, sums);
    }
  return done;
}

gboolean
cuda_lower_blas (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean product = op->n_in > 1 && heddle_dtype_is_float (op->in[0]->dtype) && op->in[0]->dtype == op->in[1]->dtype && op->n_out && heddle_shape_count (&op->out[0]->shape) > 0, done = FALSE;
  switch (product ? op->info->code : 0)
    {
    case HEDDLE_OP_MATMUL: done = lower_matmul (c, op, error); break;
    case HEDDLE_OP_LINEAR: done = lower_linear (c, op, error); break;
    case HEDDLE_OP_LINEAR_GRAD_INPUT: done = lower_grad_input (c, op, error); break;
    case HEDDLE_OP_LINEAR_GRAD_WEIGHT: done = lower_grad_weight (c, op, error); break;
    default: break;
    }
  return done;
}
