/* cuda/ops-own.c: lowers operations to kernels of our own: the path that needs no library, and what the others fall back to. */
#include "cuda.h"

/* ---- conversions ---- */

static gboolean
run_convert (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  const CudaOperand *from = &step->in[0], *to = &step->out[0];
  g_autofree char *name = g_strdup_printf ("convert_%s_%s", heddle_dtype_name (from->dtype), heddle_dtype_name (to->dtype));
  gpointer x = CUDA_IN (0), y = CUDA_OUT (0);
  const HeddleShape *s = &from->shape;
  gint64 n = heddle_shape_count (s), pixels = s->rank == 4 ? s->size[2] * s->size[3] : 0, rows = 0, columns = 0;
  if (from->order != to->order && s->rank == 4)
    {
      rows = from->order == CUDA_ROWS ? s->size[1] : pixels;
      columns = from->order == CUDA_ROWS ? pixels : s->size[1];
    }
  void *args[] = { &x, &y, &n, &rows, &columns };
  return cuda_launch (queue, name, cuda_blocks (queue->device, n, 256), (dim3) { 256, 1, 1 }, 0, args, error);
}

void
cuda_emit_convert (CudaCompiler *c, const CudaOperand *from, const CudaOperand *to)
{
  CudaStep *step = cuda_step_new (c->plan, NULL, from->order != to->order ? "reorder" : "convert", run_convert);
  cuda_step_in (step, *from);
  cuda_step_out (step, *to);
}

gboolean
cuda_lower_own (CudaCompiler *c, const HeddleOp *op, gboolean *taken, GError **error)
{
  (void) c;
  (void) op;
  (void) error;
  *taken = FALSE;
  return TRUE;
}
