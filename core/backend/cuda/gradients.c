/* cuda/gradients.c: gradients that were made in 16 bits reach their f32 windows many at a time: one launch instead of one for each.  Must not know how gradients are made.
 * cuDNN 9.19 writes the f32 sums of a 16-bit convolution's weight gradient only by its run-time fusion engines (channels a multiple of 8, no groups), which know none
 * of the split sums that make such products fast; and what rounds as PyTorch's autocast does is wanted anyway. */
#include "cuda.h"
#include "launch.h"

#define BYTES_MAX ((gsize) 64 << 20)      /* of 16-bit gradients that wait in the arena */

typedef struct { gboolean add[HK_WIDE]; } Widen;

static gboolean
run_widen (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const Widen *w = step->data;
  HkWiden a = { .dtype = (gint32) step->in[0].dtype };
  gint64 longest = 1;
  for (guint i = 0; i < step->n_in; i++)
    {
      gint64 n = heddle_shape_count (&step->in[i].shape);
      a.window[i] = (HkWide) { IN (i), OUT (i), n, w->add[i] };
      longest = MAX (longest, n);
    }
  return cuda_launch_widen (queue, &a, step->n_in, longest, error);
}

void
cuda_flush_gradients (CudaCompiler *c)
{
  const GArray *waiting = c->gradients;
  if (waiting->len)
    {
      Widen *w = g_new0 (Widen, 1);
      CudaStep *step = cuda_step_new (c, g_array_index (waiting, CudaGradient, 0).op, cuda_keep (c->plan, g_strdup_printf ("%u gradients to f32", waiting->len)), run_widen);
      cuda_step_data (step, w, g_free);
      for (guint i = 0; i < waiting->len; i++)
        {
          const CudaGradient *g = &g_array_index (waiting, CudaGradient, i);
          cuda_step_in (step, g->from);
          cuda_step_out_at (step, g->to);
          w->add[i] = g->add;
        }
      g_array_set_size (c->gradients, 0);
    }
}

static const HeddleOp *
user_of (const CudaCompiler *c, const HeddleValue *v, HeddleOpCode code)
{
  const HeddleOp *op = cuda_only_user (c, v);
  return op && op->info->code == code ? op : NULL;
}

typedef struct { HeddleVariable *variable; const HeddleOp *add, *assign; } Window;

/* Where CAST's result goes: a gradient's window is assigned it, or itself plus it, and nobody looks at the window from then on. */
static gboolean
window_of (const CudaCompiler *c, const HeddleOp *cast, Window *w)
{
  const HeddleProgram *p = c->plan->program;
  const HeddleValue *x = cast->info->code == HEDDLE_OP_CAST ? cast->out[0] : NULL;
  gboolean ok = x && x->dtype == HEDDLE_F32 && heddle_dtype_is_16_bits (cast->in[0]->dtype);
  *w = (Window) { .add = ok ? user_of (c, x, HEDDLE_OP_ADD) : NULL };
  w->assign = ok ? user_of (c, w->add ? w->add->out[0] : x, HEDDLE_OP_ASSIGN) : NULL;
  ok = w->assign && w->assign->n_in == 2 && heddle_shape_equal (&w->assign->in[0]->shape, &x->shape);
  w->variable = ok ? w->assign->in[0]->variable : NULL;
  ok = ok && w->variable->role == HEDDLE_ROLE_GRAD && w->variable->flat && (!w->add || w->add->in[0] == w->assign->in[0] || w->add->in[1] == w->assign->in[0]);
  for (guint i = cast->id + 1; ok && i < p->ops->len; i++)
    ok = p->ops->pdata[i] == w->assign || p->ops->pdata[i] == w->add || !cuda_touches (p->ops->pdata[i], w->variable);
  return ok;
}

gboolean
cuda_is_gradient (const CudaCompiler *c, const HeddleOp *cast)
{
  Window w;
  return window_of (c, cast, &w);
}

gboolean
cuda_lower_gradient (CudaCompiler *c, const HeddleOp *op)
{
  Window w;
  gboolean mine = window_of (c, op, &w);
  if (mine)
    {
      const HeddleValue *x = op->in[0];
      CudaLayout layout = cuda_variable_layout (w.variable);
      CudaGradient g = { .op = op, .from = cuda_form (c, x, x->dtype, layout), .to = *cuda_made (c, w.assign->in[0]), .add = w.add != NULL };
      const CudaGradient *first = c->gradients->len ? &g_array_index (c->gradients, CudaGradient, 0) : NULL;
      if (first && (c->gradients->len == HK_WIDE || first->from.dtype != x->dtype || c->gradient_bytes + cuda_bytes (&g.from) > BYTES_MAX))
        {
          cuda_flush_gradients (c);
          first = NULL;
        }
      c->gradient_bytes = (first ? c->gradient_bytes : 0) + cuda_bytes (&g.from);
      g_array_append_val (c->gradients, g);
      if (w.add)
        cuda_mark_done (c, w.add);
      cuda_mark_done (c, w.assign);
    }
  return mine;
}
