/* cuda/logits.c: cross entropy and top-k read logits of 16 bits as they are, and leave a gradient of 16 bits: the casts around them, which autocast writes, are no work.
 * Their kernels compute in f32 whatever the storage, so not a bit changes; with a large vocabulary the logits are the largest tensor there is, and these two casts moved most of its bytes.
 * Where its length is odd (50257 words) no row but the first would begin where tensor cores can load it: rows are padded, and so is the gradient.  Must not know how they are computed. */
#include "cuda.h"

#define LONG 512                  /* classes from which a row is worth padding */

guint
cuda_logits_of (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD ? 1 : 0;
}

/* OP takes V as logits. */
static gboolean
takes (const CudaCompiler *c, const HeddleOp *op, const HeddleValue *v)
{
  HeddleOpCode code = op->info->code;
  return (code == HEDDLE_OP_CROSS_ENTROPY || code == HEDDLE_OP_CROSS_ENTROPY_GRAD || code == HEDDLE_OP_TOP_K) && op->in[cuda_logits_of (op)] == v;
}

gboolean
cuda_is_logits (const CudaCompiler *c, const HeddleOp *cast)
{
  const HeddleValue *x = cast->info->code == HEDDLE_OP_CAST && c->device->flags.fusion ? cast->in[0] : NULL;
  return x && x->kind == HEDDLE_VALUE_TEMP && heddle_dtype_is_16_bits (x->dtype) && cast->out[0]->dtype == HEDDLE_F32 && cuda_read_by (c, cast->out[0], takes);
}

/* OP takes V as logits, or hands them on, in the same rows, to who does. */
static gboolean
takes_rows (const CudaCompiler *c, const HeddleOp *op, const HeddleValue *v)
{
  gboolean view = (op->info->flags & HEDDLE_OP_VIEW) && op->out[0]->shape.rank && cuda_last (&op->out[0]->shape) == cuda_last (&v->shape);
  return view ? cuda_read_by (c, op->out[0], takes_rows) : cuda_is_logits (c, op) || takes (c, op, v);
}

gboolean
cuda_pads_logits (const CudaCompiler *c, const HeddleValue *v)
{
  return heddle_dtype_is_16_bits (v->dtype) && v->shape.rank > 1 && cuda_last (&v->shape) >= LONG && cuda_last (&v->shape) % 8 && c->device->flags.fusion && cuda_read_by (c, v, takes_rows);
}

/* What stands in a variable may be assigned before it is read. */
gboolean
cuda_lower_logits (CudaCompiler *c, const HeddleOp *op)
{
  gboolean mine = cuda_is_logits (c, op) && cuda_made (c, op->in[0])->where == CUDA_ARENA;
  if (mine)
    cuda_stands_for (c, op->out[0], *cuda_made (c, op->in[0]));
  return mine;
}

/* The cast to DTYPE that alone reads the gradient which OP makes, or NULL. */
static const HeddleOp *
cast_of (const CudaCompiler *c, const HeddleOp *op, HeddleDtype dtype)
{
  const HeddleOp *cast = op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD ? cuda_only_user (c, op->out[0]) : NULL;
  return cast && cast->info->code == HEDDLE_OP_CAST && cast->out[0]->dtype == dtype && !cuda_is_done (c, cast) ? cast : NULL;
}

CudaOperand
cuda_take_logits (CudaCompiler *c, const HeddleOp *op, const HeddleValue **gradient)
{
  const HeddleValue *x = op->in[cuda_logits_of (op)];
  HeddleDtype dtype = cuda_made (c, x)->dtype;
  CudaLayout layout = cuda_made (c, x)->layout == CUDA_PADDED ? CUDA_PADDED : CUDA_ROWS;
  const HeddleOp *cast = dtype != x->dtype ? cast_of (c, op, dtype) : NULL;
  if (cast)
    {
      c->forward[cast->out[0]->id] = NULL;       /* made before its turn */
      cuda_mark_done (c, cast);
    }
  *gradient = cast ? cast->out[0] : op->out[0];
  HeddleDtype wanted = op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD ? (*gradient)->dtype : dtype;
  return cuda_form (c, x, wanted, wanted == dtype ? layout : CUDA_ROWS);
}
