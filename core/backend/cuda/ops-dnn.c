/* cuda/ops-dnn.c: lowers operations to cuDNN's plans, several at once where one graph computes them.
 * Must not know what a graph looks like inside. */
#include "cuda.h"
#include "base/trace.h"
#include "dnn-ops.h"

/* What a step runs: operand I of its inputs, then of its outputs, is the graph's tensor UID[I]. */
typedef struct { CudaDnnPlan *plan; guint8 in[CUDA_STEP_OPERANDS], out[CUDA_STEP_OPERANDS]; } Dnn;

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
  Dnn *d = step->data;
  gpointer pointers[CUDA_DNN_N_UIDS] = { NULL };
  for (guint i = 0; i < step->n_in; i++)
    pointers[d->in[i]] = CUDA_IN (i);
  for (guint i = 0; i < step->n_out; i++)
    pointers[d->out[i]] = CUDA_OUT (i);
  gboolean ok = cuda_dnn_run (queue->device->dnn, d->plan, queue->stream, pointers, pointers[CUDA_DNN_NONE], error);
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

static CudaOrder
order_of (const CudaDnnMatch *m, const HeddleValue *v)
{
  return m->layout == CUDA_DNN_NHWC && v->shape.rank == 4 ? CUDA_CHANNELS_LAST : CUDA_ROWS;
}

/* The forms that are read come first: their conversions are steps of their own. */
static void
emit (CudaCompiler *c, const HeddleOp *op, const CudaDnnMatch *m, CudaDnnPlan *plan)
{
  CudaOperand operand[CUDA_DNN_N_UIDS];
  Dnn *d = g_new0 (Dnn, 1);
  gsize bytes = cuda_dnn_workspace (plan);
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    if (m->value[uid] && !is_output (m, m->value[uid]))
      operand[uid] = cuda_form (c, m->value[uid], m->value[uid]->dtype, order_of (m, m->value[uid]));
  CudaStep *step = cuda_step_new (c->plan, op, cuda_dnn_plan_text (plan), run_dnn);
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    {
      const HeddleValue *v = m->value[uid];
      if (v && is_output (m, v))
        {
          d->out[step->n_out] = (guint8) uid;
          cuda_step_out (step, cuda_target (c, v, v->dtype, order_of (m, v)));
        }
      else if (v)
        {
          d->in[step->n_in] = (guint8) uid;
          cuda_step_in (step, operand[uid]);
        }
    }
  if (bytes)
    {
      d->out[step->n_out] = CUDA_DNN_NONE;
      cuda_step_out (step, cuda_scratch (c->plan, bytes));
    }
  d->plan = plan;
  step->data = d;
  step->data_free = dnn_free;
  for (guint i = 0; i < step->n_out; i++)
    if (d->out[i])
      cuda_made_as (c, m->value[d->out[i]], step->out[i]);
  for (guint i = 0; i < m->n_ops; i++)
    c->done[m->op[i]->id] = TRUE;
  c->device->primitives++;
}

/* Opened when the first program is compiled; a device without it takes the other paths and says why once. */
static CudaDnn *
context (CudaDevice *device)
{
  if (!device->dnn && !device->dnn_absent)
    {
      g_autoptr (GError) error = NULL;
      int driver = 0;
      cudaDriverGetVersion (&driver);
      g_autofree char *name = g_strdup_printf ("%s, sm_%d%d, %u processors, driver %d", device->model, device->major, device->minor, device->processors, driver);
      device->dnn = cuda_dnn_new (name, FALSE, &device->flags, &error);
      if (!device->dnn)
        device->dnn_absent = g_strdup (error->message);
    }
  return device->dnn;
}

gboolean
cuda_lower_dnn (CudaCompiler *c, const HeddleOp *op, gboolean *taken, GError **error)
{
  CudaDnn *dnn = context (c->device);
  CudaDnnLayout layout = cuda_dnn_layout (op->n_in ? op->in[0]->dtype : HEDDLE_F32, &c->device->flags);
  GError *broken = NULL;
  gboolean going = dnn != NULL;
  for (guint most = G_MAXUINT; going && !*taken;)
    {
      g_auto (CudaDnnMatch) m = { NULL };
      going = cuda_dnn_match (c->plan->program, op->id, most, layout, &c->device->flags, &m);
      CudaDnnPlan *plan = going ? cuda_dnn_build (dnn, g_steal_pointer (&m.graph), &broken) : NULL;
      if (plan)
        emit (c, op, &m, plan);
      *taken = plan != NULL;
      most = m.n_ops - 1;
      going = going && !broken;
    }
  if (broken)
    g_propagate_prefixed_error (error, broken, "%s \"%s\": ", op->info->name, op->name);
  return broken == NULL;
}
