/* cuda/dnn-steps.c: operations become steps that run cuDNN's plans, several at once where one graph computes them.  Must not know what a graph looks like inside. */
#include "backend/cuda/dnn-steps.h"
#include "backend/cuda/dnn-ops.h"
#include "backend/cuda/ops.h"

/* What a device keeps: the context, or why there is none. */
typedef struct { CudaDnn *dnn; char *absent; } Library;

/* Of one step: operand I of its inputs or outputs is the graph's tensor IN[I] or OUT[I]. */
typedef struct { CudaDnn *dnn; CudaDnnPlan *plan; guint8 in[CUDA_DNN_N_UIDS], out[CUDA_DNN_N_UIDS]; } Dnn;

/* ---- the context: opened when the first program is compiled ---- */

static void
library_free (gpointer data)
{
  Library *library = data;
  cuda_dnn_free (library->dnn);
  g_free (library->absent);
  g_free (library);
}

static CudaDnn *
context (CudaDevice *device)
{
  Library *library = device->dnn;
  if (!library)
    {
      g_autoptr (GError) error = NULL;
      int driver = 0;
      cudaDriverGetVersion (&driver);
      g_autofree char *name = g_strdup_printf ("%s, sm_%d, %u processors, driver %d", device->properties ? device->properties->name : "?", device->capability, device->processors, driver);
      library = g_new0 (Library, 1);
      library->dnn = cuda_dnn_new (name, FALSE, &device->flags, &error);
      library->absent = error ? g_strdup (error->message) : NULL;
      if (error)
        g_debug ("%s: own kernels take its place", error->message);
      device->dnn = library;
      device->dnn_free = library_free;
    }
  return library->dnn;
}

/* ---- running ---- */

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
    pointers[d->in[i]] = IN (i);
  for (guint i = 0; i < step->n_out; i++)
    pointers[d->out[i]] = OUT (i);
  gboolean ok = cuda_dnn_run (d->dnn, d->plan, queue->stream, pointers, step->n_scratch ? SCRATCH (0) : NULL, error);
  if (!ok)
    g_prefix_error (error, "%s \"%s\": ", step->op->info->name, step->op->name);
  return ok;
}

/* ---- emitting ---- */

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
  return !cuda_is_image (&v->shape) ? CUDA_ROWS : m->layout == CUDA_DNN_NHWC ? CUDA_CHANNELS_LAST : m->layout == CUDA_DNN_BTHD ? CUDA_HEADS : CUDA_ROWS;
}

/* A gradient of attention that is a window of WHOLE: neither heads nor columns are moved afterwards. */
static void
emit_window (CudaCompiler *c, CudaStep *step, const HeddleValue *v, const CudaWindow *w, const CudaOperand *whole)
{
  CudaOperand o = *whole;
  o.shape = v->shape;
  o.layout = CUDA_HEADS;
  o.first = w->first;
  o.pitch = w->pitch;
  cuda_step_out_at (step, o);
  cuda_made_as (c, v, o);
  o.shape = w->slice->in[0]->shape;
  o.layout = CUDA_ROWS;
  cuda_made_as (c, w->slice->in[0], o);
  cuda_mark_done (c, w->permute);
  cuda_mark_done (c, w->view);
}

static gboolean
is_read_in_place (const CudaDnnMatch *m, guint uid)
{
  return m->windows && (uid == CUDA_DNN_Q || uid == CUDA_DNN_K || uid == CUDA_DNN_V);
}

/* Where output UID is made in place, or NULL */
static const CudaWindow *
made_into (const CudaDnnMatch *m, guint uid)
{
  return !m->grad_windows ? NULL : uid == CUDA_DNN_DQ ? &m->into[0] : uid == CUDA_DNN_DK ? &m->into[1] : uid == CUDA_DNN_DV ? &m->into[2] : NULL;
}

/* A result of a later operation of the match is made before its turn: not in the memory of a variable, which somebody in between may read. */
static void
emit_out (CudaCompiler *c, CudaStep *step, const CudaDnnMatch *m, const HeddleValue *v)
{
  if (v->producer != m->op[0])
    c->forward[v->id] = NULL;
  cuda_step_out (c, step, v, v->dtype, layout_of (m, v), TRUE);
}

static void
emit_bias_grad (CudaCompiler *c, const HeddleOp *op, const CudaDnnMatch *m)
{
  const HeddleValue *dy = m->value[CUDA_DNN_DY];
  CudaOperand in = cuda_form (c, dy, dy->dtype, layout_of (m, dy));
  HkReduce r = cuda_channel_sum (&in.shape, in.layout);
  cuda_sum_step (c, op, &in, &r, m->bias_grad);
}

/* The forms that are read come first: their conversions are steps of their own. */
static void
emit (CudaCompiler *c, const HeddleOp *op, const CudaDnnMatch *m, CudaDnn *dnn, CudaDnnPlan *plan)
{
  CudaOperand operand[CUDA_DNN_N_UIDS], whole = { 0 };
  Dnn *d = g_new0 (Dnn, 1);
  *d = (Dnn) { .dnn = dnn, .plan = plan };
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    if (m->value[uid] && !is_output (m, m->value[uid]))
      operand[uid] = is_read_in_place (m, uid) ? *cuda_made (c, m->value[uid]) : cuda_form (c, m->value[uid], m->value[uid]->dtype, layout_of (m, m->value[uid]));
  if (m->grad_windows)
    whole = cuda_temporary (c, m->into[0].whole->dtype, &m->into[0].whole->shape, CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, cuda_dnn_plan_text (plan), run_dnn);
  step->chosen = TRUE;
  cuda_step_data (step, d, dnn_free);
  for (guint uid = 1; uid < CUDA_DNN_N_UIDS; uid++)
    if (m->value[uid] && is_output (m, m->value[uid]))
      {
        d->out[step->n_out] = (guint8) uid;
        if (made_into (m, uid))
          emit_window (c, step, m->value[uid], made_into (m, uid), &whole);
        else
          emit_out (c, step, m, m->value[uid]);
      }
    else if (m->value[uid])
      {
        d->in[step->n_in] = (guint8) uid;
        cuda_step_in (step, operand[uid]);
      }
  if (cuda_dnn_workspace (plan))
    cuda_step_scratch (c, step, cuda_dnn_workspace (plan));
  if (m->bias_grad && c->wanted[m->bias_grad->id])
    emit_bias_grad (c, op, m);
  for (guint i = 0; i < m->n_ops; i++)
    cuda_mark_done (c, m->op[i]);
  c->device->primitives++;
}

/* On Blackwell NVIDIA's frontend asks 9.18 for a deterministic gradient of attention. */
static gboolean
is_trusted (const CudaDevice *device, const HeddleOp *op)
{
  return op->info->code != HEDDLE_OP_ATTENTION_GRAD || !device->flags.deterministic || device->capability < 100 || cuda_dnn_version () >= 91800;
}

static gboolean
is_linear_relu (const CudaDnnMatch *m)
{
  return m->n_ops > 1 && m->op[0]->info->code == HEDDLE_OP_LINEAR && m->op[1]->info->code == HEDDLE_OP_RELU;
}

/* Without a plan for all that could be fused, fewer are asked for. */
static gboolean
lower (CudaCompiler *c, const HeddleOp *op, gboolean linear_relu, GError **error)
{
  CudaDnn *dnn = context (c->device);
  CudaDnnLayout layout = c->images == CUDA_CHANNELS_LAST ? CUDA_DNN_NHWC : CUDA_DNN_NCHW;
  GError *broken = NULL;
  gboolean going = dnn != NULL && is_trusted (c->device, op), lowered = FALSE;
  for (guint most = G_MAXUINT; going && !lowered && most > 0;)
    {
      g_auto (CudaDnnMatch) m = { NULL };
      going = cuda_dnn_match (c->plan->program, op->id, most, layout, &c->device->flags, &m) && is_linear_relu (&m) == linear_relu;
      CudaDnnPlan *plan = going ? cuda_dnn_build (dnn, g_steal_pointer (&m.graph), &broken) : NULL;
      if (plan)
        emit (c, op, &m, dnn, plan);
      else if (going)
        g_debug ("%s \"%s\" and %u more: cuDNN: %s", op->info->name, op->name, m.n_ops - 1, cuda_dnn_reason (dnn));
      lowered = plan != NULL;
      most = m.n_ops - 1;
      going = going && !broken;
    }
  if (broken)
    g_propagate_prefixed_error (error, broken, "%s \"%s\": ", op->info->name, op->name);
  return lowered;
}

gboolean
cuda_lower_dnn (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  return lower (c, op, FALSE, error);
}

gboolean
cuda_lower_dnn_linear_relu (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  return lower (c, op, TRUE, error);
}
