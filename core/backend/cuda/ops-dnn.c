/* cuda/ops-dnn.c: lowers operations to cuDNN's plans, several at once where one graph computes them.
 * Must not know what a graph looks like inside. */
#include "ops-dnn.h"
#include "dnn-ops.h"
#include "launch.h"

/* Opened when the first program is compiled.  ABSENT: why there is none; the other paths do its work. */
typedef struct { CudaDnn *dnn; char *absent; } Context;

/* What a step runs: operand I of its inputs, and of its outputs, is the graph's tensor UID[I]. */
typedef struct { CudaDnn *dnn; CudaDnnPlan *plan; guint8 in[CUDA_DNN_N_UIDS], out[CUDA_DNN_N_UIDS]; } Dnn;

static void
context_free (gpointer data)
{
  Context *x = data;
  if (x->dnn)
    cuda_dnn_free (x->dnn);
  g_free (x->absent);
  g_free (x);
}

static CudaDnn *
context (CudaDevice *device)
{
  Context *x = device->dnn;
  if (!x)
    {
      g_autoptr (GError) error = NULL;
      int driver = 0;
      cudaDriverGetVersion (&driver);
      g_autofree char *name = g_strdup_printf ("%s, sm_%d, %u processors, driver %d", device->properties->name, device->capability, device->processors, driver);
      device->dnn = x = g_new0 (Context, 1);
      device->dnn_free = context_free;
      x->dnn = cuda_dnn_new (name, FALSE, &device->flags, &error);
      x->absent = x->dnn ? NULL : g_strdup (error->message);
      if (x->absent && cuda_dnn_version () > 0)
        g_printerr ("heddle: cuDNN is not used: %s\n", x->absent);
    }
  return x->dnn;
}

static void
dnn_free (gpointer data)
{
  Dnn *d = data;
  cuda_dnn_plan_free (d->plan);
  g_free (d);
}

static gboolean
run_dnn (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const Dnn *d = step->data;
  gpointer pointers[CUDA_DNN_N_UIDS] = { NULL };
  for (guint i = 0; i < step->n_in; i++)
    pointers[d->in[i]] = IN (i);
  for (guint i = 0; i < step->n_out; i++)
    pointers[d->out[i]] = OUT (i);
  gboolean ok = cuda_dnn_run (d->dnn, d->plan, queue->stream, pointers, step->n_scratch ? SCRATCH (0) : NULL, error);
  if (!ok)
    g_prefix_error (error, "%s \"%s\": ", step->op->info->name, step->op->name);
  return ok;
}

static gboolean
is_output (const CudaDnnMatch *m, const HeddleValue *v)
{
  gboolean hit = FALSE;
  for (guint i = 0; i < m->n_ops; i++)
    hit = hit || (v->kind == HEDDLE_VALUE_TEMP && v->producer == m->op[i]);
  return hit;
}

static CudaLayout
layout_of (const CudaDnnMatch *m, const HeddleValue *v)
{
  return m->layout == CUDA_DNN_NHWC && cuda_is_image (&v->shape) ? CUDA_CHANNELS_LAST : CUDA_ROWS;
}

/* ---- the gradient of a convolution's bias, which its graphs do not make ---- */

static HkReduce
bias_sum (const CudaOperand *dy)
{
  const HeddleShape *s = &dy->shape;
  gint64 strides[HEDDLE_MAX_RANK];
  cuda_strides (s, dy->layout, strides);
  return (HkReduce) { .kept = 1, .n_out = s->size[1], .kept_size = { s->size[1] }, .kept_stride = { strides[1] }, .reduced = 3, .n_reduced = s->size[0] * s->size[2] * s->size[3],
                      .reduced_size = { s->size[0], s->size[2], s->size[3] }, .reduced_stride = { strides[0], strides[2], strides[3] }, .factor = 1 };
}

static gboolean
run_bias_grad (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  HkReduce r = bias_sum (&step->in[0]);
  r.x = IN (0);
  r.y = OUT (0);
  return cuda_launch_reduce (queue, step->in[0].dtype, &r, step->n_scratch ? SCRATCH (0) : NULL, error);
}

static void
emit_bias_grad (CudaCompiler *c, const HeddleOp *op, const CudaDnnMatch *m, const HeddleValue *dy)
{
  CudaOperand in = cuda_form (c, dy, dy->dtype, layout_of (m, dy));
  HkReduce r = bias_sum (&in);
  CudaStep *step = cuda_step_new (c, op, "bias sum", run_bias_grad);
  cuda_step_in (step, in);
  if (cuda_reduce_scratch (&r))
    cuda_step_scratch (c, step, cuda_reduce_scratch (&r) * sizeof (float));
  cuda_step_out (c, step, m->bias_grad, m->bias_grad->dtype, CUDA_ROWS, FALSE);
}

/* ---- one graph ---- */

/* The forms that are read come first: their conversions are steps of their own. */
static void
emit (CudaCompiler *c, const HeddleOp *op, const CudaDnnMatch *m, CudaDnn *dnn, CudaDnnPlan *plan)
{
  CudaOperand operand[CUDA_DNN_N_UIDS];
  Dnn *d = g_new0 (Dnn, 1);
  *d = (Dnn) { .dnn = dnn, .plan = plan };
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    if (m->value[uid] && !is_output (m, m->value[uid]))
      operand[uid] = cuda_form (c, m->value[uid], m->value[uid]->dtype, layout_of (m, m->value[uid]));
  CudaStep *step = cuda_step_new (c, op, cuda_dnn_plan_text (plan), run_dnn);
  cuda_step_data (step, d, dnn_free);
  if (cuda_dnn_workspace (plan))
    cuda_step_scratch (c, step, cuda_dnn_workspace (plan));
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    {
      const HeddleValue *v = m->value[uid];
      if (v && is_output (m, v))
        {
          d->out[step->n_out] = (guint8) uid;
          cuda_step_out (c, step, v, v->dtype, layout_of (m, v), TRUE);
        }
      else if (v)
        {
          d->in[step->n_in] = (guint8) uid;
          cuda_step_in (step, operand[uid]);
        }
    }
  for (guint i = 0; i < m->n_ops; i++)
    cuda_mark_done (c, m->op[i]);
  if (m->bias_grad && c->wanted[m->bias_grad->id])
    emit_bias_grad (c, op, m, m->value[CUDA_DNN_DY]);
  c->device->primitives++;
}

gboolean
cuda_lower_dnn (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  CudaDnn *dnn = context (c->device);
  CudaDnnLayout layout = cuda_dnn_layout (op->n_in ? op->in[0]->dtype : HEDDLE_F32, &c->device->flags);
  GError *broken = NULL;
  gboolean going = dnn != NULL, done = FALSE;
  for (guint most = G_MAXUINT; going && !done;)
    {
      g_auto (CudaDnnMatch) m = { NULL };
      going = cuda_dnn_match (c->plan->program, op->id, most, layout, &c->device->flags, &m);
      CudaDnnPlan *plan = going ? cuda_dnn_build (dnn, g_steal_pointer (&m.graph), &broken) : NULL;
      if (plan)
        emit (c, op, &m, dnn, plan);
      done = plan != NULL;
      most = m.n_ops - 1;
      going = going && !broken;
    }
  if (broken)
    g_propagate_prefixed_error (error, broken, "%s \"%s\": ", op->info->name, op->name);
  return done;
}
