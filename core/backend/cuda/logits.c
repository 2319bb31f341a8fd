/* cuda/logits.c: cross entropy and top-k read logits of 16 bits as they are, and leave a gradient of 16 bits: the casts around them, which autocast writes, are no work.
 * Their kernels compute in f32 whatever the storage, so not a bit changes; with a large vocabulary the logits are the largest tensor there is, and these two casts moved most of its bytes.
 * Must not know how they are computed. */
#include "cuda.h"

static gboolean
is_16_bits (HeddleDtype dtype)
{
  return dtype == HEDDLE_F16 || dtype == HEDDLE_BF16;
}

guint
cuda_logits_of (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD ? 1 : 0;
}

/* Every operation that reads V takes it as logits, and the host does not read it. */
static gboolean
are_logits (const CudaCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  gboolean ok = users && users->len == v->n_uses;
  for (guint i = 0; ok && i < users->len; i++)
    {
      const HeddleOp *op = users->pdata[i];
      HeddleOpCode code = op->info->code;
      ok = (code == HEDDLE_OP_CROSS_ENTROPY || code == HEDDLE_OP_CROSS_ENTROPY_GRAD || code == HEDDLE_OP_TOP_K) && op->in[cuda_logits_of (op)] == v;
    }
  return ok;
}

gboolean
cuda_is_logits (const CudaCompiler *c, const HeddleOp *cast)
{
  const HeddleValue *x = cast->info->code == HEDDLE_OP_CAST && c->device->flags.fusion ? cast->in[0] : NULL;
  return x && x->kind == HEDDLE_VALUE_TEMP && is_16_bits (x->dtype) && cast->out[0]->dtype == HEDDLE_F32 && are_logits (c, cast->out[0]);
}

/* What stands in a variable may be assigned before it is read. */
gboolean
cuda_lower_logits (CudaCompiler *c, const HeddleOp *op)
{
  gboolean mine = cuda_is_logits (c, op) && cuda_made (c, op->in[0])->where == CUDA_ARENA;
  if (mine)
    cuda_stands_for (c, op->out[0], cuda_rows (c, op->in[0]));
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
  const HeddleOp *cast = dtype != x->dtype ? cast_of (c, op, dtype) : NULL;
  if (cast)
    {
      c->forward[cast->out[0]->id] = NULL;       /* made before its turn */
      cuda_mark_done (c, cast);
    }
  *gradient = cast ? cast->out[0] : op->out[0];
  return cuda_form (c, x, op->info->code == HEDDLE_OP_CROSS_ENTROPY_GRAD ? (*gradient)->dtype : dtype, CUDA_ROWS);
}
