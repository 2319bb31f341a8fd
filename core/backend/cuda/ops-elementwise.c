/* cuda/ops-elementwise.c: elementwise operations, broadcasts and assignments, a kernel for each.  Must not know what kernels look like inside.
 * Where generated kernels are at hand, chains of these are theirs. */
#include "backend/cuda/ops.h"

#define X(name, number) G_STATIC_ASSERT ((int) HEDDLE_OP_##name == number);
HK_ELEMENTWISE (X)
#undef X
G_STATIC_ASSERT ((int) HK_F32 == (int) HEDDLE_F32 && (int) HK_F16 == (int) HEDDLE_F16 && (int) HK_BF16 == (int) HEDDLE_BF16);
G_STATIC_ASSERT ((int) HK_U8 == (int) HEDDLE_U8 && (int) HK_I32 == (int) HEDDLE_I32 && (int) HK_I64 == (int) HEDDLE_I64);

static void
attribute_of (const HeddleOp *op, float *a, float *b)
{
  switch (op->info->code)
    {
    case HEDDLE_OP_GELU: case HEDDLE_OP_GELU_GRAD: *a = (float) ((const HeddleGeluAttr *) op->attr)->tanh_form; break;
    case HEDDLE_OP_LEAKY_RELU: case HEDDLE_OP_LEAKY_RELU_GRAD: *a = (float) ((const HeddleSlopeAttr *) op->attr)->slope; break;
    case HEDDLE_OP_CLAMP: case HEDDLE_OP_CLAMP_GRAD:
      *a = (float) ((const HeddleClampAttr *) op->attr)->min;
      *b = (float) ((const HeddleClampAttr *) op->attr)->max;
      break;
    default: break;
    }
}

/* The axes of OUT in the order of memory, innermost last */
static void
axes_in_memory (const CudaOperand *out, gint *axes)
{
  static const gint last[] = { 0, 2, 3, 1 };
  for (gint i = 0; i < out->shape.rank; i++)
    axes[i] = out->layout == CUDA_CHANNELS_LAST && cuda_is_image (&out->shape) ? last[i] : i;
}

/* Strides of IN for each axis of OUT, 0 where it is broadcast; axes are counted from the last. */
static void
strides_for (const CudaOperand *in, const HeddleShape *out, gint64 *strides)
{
  gint64 own[HEDDLE_MAX_RANK] = { 0 };
  cuda_operand_strides (in, own);
  for (gint i = 0; i < out->rank; i++)
    {
      gint j = i - out->rank + in->shape.rank;
      strides[i] = j < 0 || (in->shape.size[j] == 1 && out->size[i] != 1) ? 0 : own[j];
    }
}

/* Appends an axis, joined with the one before it where all operands allow that. */
static void
add_axis (HkElementwise *a, gint64 size, const gint64 *strides)
{
  gint32 last = a->rank - 1;
  gboolean joins = last >= 0;
  for (gint32 k = 0; joins && k < a->n_in; k++)
    joins = a->in[k].stride[last] == strides[k] * size;
  if (!joins)
    last = a->rank++;
  a->size[last] = joins ? a->size[last] * size : size;
  for (gint32 k = 0; k < a->n_in; k++)
    a->in[k].stride[last] = strides[k];
}

static void
set_axes (HkElementwise *a, CudaStep *step, const CudaOperand *out)
{
  gint axes[HEDDLE_MAX_RANK];
  gint64 strides[3][HEDDLE_MAX_RANK] = { { 0 } };
  axes_in_memory (out, axes);
  for (gint32 k = 0; k < a->n_in; k++)
    strides_for (&step->in[k], &out->shape, strides[k]);
  for (gint i = 0; i < out->shape.rank; i++)
    {
      gint64 here[3] = { strides[0][axes[i]], strides[1][axes[i]], strides[2][axes[i]] };
      if (out->shape.size[axes[i]] != 1)
        add_axis (a, out->shape.size[axes[i]], here);
    }
}

static gboolean
run_elementwise (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const CudaOperand *out = &step->out[0];
  HkElementwise a = { .op = (gint32) step->op->info->code, .n_in = (gint32) step->n_in, .out = OUT (0), .out_dtype = (gint32) out->dtype, .n = heddle_shape_count (&out->shape) };
  if (step->op->info->code == HEDDLE_OP_BROADCAST)
    a.op = HK_CAST;
  for (guint k = 0; k < step->n_in; k++)
    {
      a.in[k].data = IN (k);
      a.in[k].dtype = (gint32) step->in[k].dtype;
    }
  attribute_of (step->op, &a.a, &a.b);
  set_axes (&a, step, out);
  return cuda_launch_elementwise (queue, &a, error);
}

/* in[0]: the value, laid as the variable is; in[1]: the skip scalar, or absent; out[0]: the variable */
static gboolean
run_assign (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  gint64 n = heddle_shape_count (&step->out[0].shape);
  HkElementwise a = { .op = HK_CAST, .n_in = 1, .rank = 1, .n = n, .size = { n }, .out = OUT (0), .out_dtype = (gint32) step->out[0].dtype };
  a.in[0] = (HkOperand) { IN (0), (gint32) step->in[0].dtype, { 1 } };
  a.skip = step->n_in > 1 ? IN (1) : NULL;
  return cuda_launch_elementwise (queue, &a, error);
}

static void
lower_assign (CudaCompiler *c, const HeddleOp *op)
{
  CudaLayout layout = cuda_variable_layout (op->in[0]->variable);
  CudaOperand variable = *cuda_made (c, op->in[0]), value = cuda_form (c, op->in[1], op->in[1]->dtype, layout), skip = { 0 };
  if (op->n_in > 2)
    skip = cuda_rows (c, op->in[2]);
  CudaStep *step = cuda_step_new (c, op, "assign", run_assign);
  cuda_step_in (step, value);
  if (op->n_in > 2)
    cuda_step_in (step, skip);
  cuda_step_out_at (step, variable);
  g_array_set_size (c->forms[op->in[0]->id], 1);      /* copies of the old numbers in other forms are no longer the variable */
}

/* The layout of the first input that is as large as the result */
static CudaLayout
layout_of (CudaCompiler *c, const HeddleOp *op)
{
  CudaLayout layout = CUDA_ROWS;
  for (guint i = op->n_in; i-- > 0;)
    if (heddle_shape_equal (&op->in[i]->shape, &op->out[0]->shape))
      layout = cuda_own_layout (c, op->in[i]);
  return layout;
}

static void
lower_each (CudaCompiler *c, const HeddleOp *op)
{
  CudaStep *step = cuda_own_step (c, op, op->info->name, run_elementwise, 0, layout_of (c, op), 1);
  for (guint i = 0; i < step->n_in; i++)
    if (step->in[i].dtype == step->out[0].dtype && heddle_shape_equal (&step->in[i].shape, &step->out[0].shape))
      cuda_may_share (c, step, i, 0);
}

gboolean
cuda_lower_elementwise (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean assign = op->info->code == HEDDLE_OP_ASSIGN, mine = assign || op->info->code == HEDDLE_OP_BROADCAST || (op->info->flags & HEDDLE_OP_ELEMENTWISE);
  if (assign)
    lower_assign (c, op);
  else if (mine)
    lower_each (c, op);
  return mine;
}
