/* cuda/ops-reduction.c: sums over axes, means of losses over all elements, sums over the parameters of a group.  Must not know what kernels look like inside. */
#include "backend/cuda/ops.h"
#include "base/memory.h"

/* ---- sums over axes ---- */

static void
add_axis (gint32 *rank, gint64 *sizes, gint64 *strides, gint64 size, gint64 stride)
{
  gint32 last = *rank - 1;
  if (last >= 0 && strides[last] == stride * size)
    {
      sizes[last] *= size;
      strides[last] = stride;
    }
  else if (size != 1)
    {
      sizes[*rank] = size;
      strides[(*rank)++] = stride;
    }
}

static HkReduce
reduction (const HeddleShape *s, CudaLayout layout, guint32 axes)
{
  HkReduce a = { .n_out = 1, .n_reduced = 1, .factor = 1 };
  gint64 strides[HEDDLE_MAX_RANK] = { 0 };
  cuda_strides (s, layout, strides);
  for (gint32 i = 0; i < s->rank; i++)
    if (axes >> i & 1)
      {
        add_axis (&a.reduced, a.reduced_size, a.reduced_stride, s->size[i], strides[i]);
        a.n_reduced *= s->size[i];
      }
    else
      {
        add_axis (&a.kept, a.kept_size, a.kept_stride, s->size[i], strides[i]);
        a.n_out *= s->size[i];
      }
  return a;
}

HkReduce
cuda_channel_sum (const HeddleShape *image, CudaLayout layout)
{
  return reduction (image, layout, 1u << 0 | 1u << 2 | 1u << 3);
}

HkReduce
cuda_column_sum (const HeddleShape *matrix, CudaLayout layout)
{
  gint64 rows = cuda_height (matrix), columns = cuda_last (matrix);
  return (HkReduce) { .kept = 1, .reduced = 1, .n_out = columns, .n_reduced = rows, .kept_size = { columns }, .kept_stride = { 1 }, .reduced_size = { rows },
                      .reduced_stride = { cuda_pitch (matrix, layout) }, .factor = 1 };
}

static gboolean
run_sum (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkReduce r = *(const HkReduce *) step->data;
  r.x = IN (0);
  r.y = OUT (0);
  return cuda_launch_reduce (queue, step->in[0].dtype, &r, step->n_scratch ? SCRATCH (0) : NULL, error);
}

void
cuda_sum_step (CudaCompiler *c, const HeddleOp *op, const CudaOperand *x, const HkReduce *r, const HeddleValue *sums)
{
  CudaStep *step = cuda_step_new (c, op, "bias gradient", run_sum);
  cuda_step_data (step, heddle_memdup (r, sizeof *r), g_free);
  cuda_step_in (step, *x);
  cuda_step_out (c, step, sums, sums->dtype, CUDA_ROWS, TRUE);
  if (cuda_reduce_scratch (r))
    cuda_step_scratch (c, step, cuda_reduce_scratch (r) * sizeof (float));
}

static gboolean
run_reduce (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkReduce a = reduction (&step->in[0].shape, step->in[0].layout, heddle_op_summed_axes (step->op));
  a.x = IN (0);
  a.y = OUT (0);
  a.factor = step->op->info->code == HEDDLE_OP_MEAN ? 1 / (float) a.n_reduced : 1;
  return cuda_launch_reduce (queue, step->in[0].dtype, &a, step->n_scratch ? SCRATCH (0) : NULL, error);
}

static void
lower_reduce (CudaCompiler *c, const HeddleOp *op)
{
  CudaOperand x = *cuda_made (c, op->in[0]);
  HkReduce a = reduction (&x.shape, x.layout, heddle_op_summed_axes (op));
  gsize scratch = cuda_reduce_scratch (&a);
  CudaStep *step = cuda_step_new (c, op, "reduce", run_reduce);
  cuda_step_in (step, x);
  cuda_step_out (c, step, op->out[0], x.dtype, CUDA_ROWS, TRUE);
  if (scratch)
    cuda_step_scratch (c, step, scratch * sizeof (float));
}

/* ---- means over all elements ---- */

static gint
term_of (const HeddleOp *op)
{
  gint term = -1;
  switch (op->info->code)
    {
    case HEDDLE_OP_NORM_STATS: term = HK_SUM_SQUARES; break;
    case HEDDLE_OP_MSE: term = HK_SUM_MSE; break;
    case HEDDLE_OP_L1: term = HK_SUM_L1; break;
    case HEDDLE_OP_SMOOTH_L1: term = HK_SUM_SMOOTH_L1; break;
    case HEDDLE_OP_BCE_WITH_LOGITS: term = HK_SUM_BCE; break;
    case HEDDLE_OP_KL_DIV: term = ((const HeddleKlDivAttr *) op->attr)->log_target ? HK_SUM_KL_LOG : HK_SUM_KL; break;
    default: break;
    }
  return term;
}

static gboolean
run_terms (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleOp *op = step->op;
  const HeddleShape *s = &step->in[0].shape;
  gboolean stats = op->info->code == HEDDLE_OP_NORM_STATS, samples = op->info->code == HEDDLE_OP_KL_DIV && ((const HeddleKlDivAttr *) op->attr)->batch_mean;
  gint64 n = heddle_shape_count (s);
  HkTerms a = { .x = IN (0), .x_dtype = (gint32) step->in[0].dtype, .term = term_of (op), .n = n, .partial = SCRATCH (0), .bad = stats ? SCRATCH (1) : NULL };
  if (step->n_in > 1)
    {
      a.t = IN (1);
      a.t_dtype = (gint32) step->in[1].dtype;
    }
  if (step->n_in > 2)
    {
      a.w = IN (2);
      a.w_dtype = (gint32) step->in[2].dtype;
      a.w_count = heddle_shape_count (&step->in[2].shape);
    }
  if (op->info->code == HEDDLE_OP_SMOOTH_L1)
    a.beta = (float) ((const HeddleSmoothL1Attr *) op->attr)->beta;
  HkFinish f = { .a = a.partial, .b = a.bad, .out0 = OUT (0), .out1 = OUT (1), .n = (gint64) cuda_terms_scratch (n), .flag = stats };
  f.count = samples ? (float) s->size[0] : (float) n;
  f.divisor = stats ? 1 : f.count;
  return cuda_launch_terms (queue, &a, error) && cuda_launch_finish (queue, &f, error);
}

static void
lower_terms (CudaCompiler *c, const HeddleOp *op)
{
  CudaStep *step = cuda_own_step (c, op, op->info->name, run_terms, 0, CUDA_ROWS, 0);
  gsize bytes = cuda_terms_scratch (heddle_shape_count (&op->in[0]->shape)) * sizeof (float);
  cuda_step_scratch (c, step, bytes);
  if (op->info->code == HEDDLE_OP_NORM_STATS)
    cuda_step_scratch (c, step, bytes);
}

/* ---- windows of a group's flat buffers ---- */

static HkWindow *
windows_of (const HeddleGroup *group)
{
  HkWindow *windows = g_new (HkWindow, group->params->len);
  for (guint i = 0; i < group->params->len; i++)
    {
      const HeddleVariable *v = group->params->pdata[i];
      windows[i] = (HkWindow) { v->offset, heddle_shape_count (&v->shape) };
    }
  return windows;
}

static gboolean
run_windows (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const HeddleOp *op = step->op;
  gboolean sum = op->info->code == HEDDLE_OP_PARAM_SUM, ok;
  gint64 windows = (gint64) op->in[1]->variable->group->params->len, n = heddle_shape_count (&step->out[0].shape);
  if (sum)
    ok = cuda_launch_window_sum (queue, IN (0), OUT (0), step->data, windows, ((const HeddleParamSumAttr *) op->attr)->squares != 0, SCRATCH (0), error);
  else
    ok = cuda_fill (queue, OUT (0), HEDDLE_F32, n, 0, error) && cuda_launch_window_spread (queue, IN (0), OUT (0), step->data, windows, error);
  return ok;
}

static void
lower_windows (CudaCompiler *c, const HeddleOp *op)
{
  const HeddleGroup *group = op->in[1]->variable->group;
  CudaOperand x = cuda_form (c, op->in[0], HEDDLE_F32, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, op->info->name, run_windows);
  cuda_step_in (step, x);
  cuda_step_out (c, step, op->out[0], HEDDLE_F32, CUDA_ROWS, TRUE);
  cuda_step_data (step, windows_of (group), g_free);
  if (op->info->code == HEDDLE_OP_PARAM_SUM)
    cuda_step_scratch (c, step, cuda_window_scratch ((gint64) group->params->len) * sizeof (float));
}

gboolean
cuda_lower_reduction (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean mine = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_SUM: case HEDDLE_OP_MEAN: case HEDDLE_OP_SUM_TO: lower_reduce (c, op); break;
    case HEDDLE_OP_PARAM_SUM: case HEDDLE_OP_PARAM_SPREAD: lower_windows (c, op); break;
    default:
      mine = term_of (op) >= 0;
      if (mine)
        lower_terms (c, op);
      break;
    }
  return mine;
}
