/* program/simplify.c: rewrites a program into one that gives the same numbers for less work.  Must not know backends. */
#include "program/builder.h"

/* How often V is read, by operations or as an output; READER is the last one found. */
static guint
count_readers (const HeddleProgram *p, const HeddleValue *v, HeddleOp **reader)
{
  guint n = 0;
  for (guint i = 0; i < p->ops->len; i++)
    {
      HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        if (op->in[j] == v)
          {
            *reader = op;
            n++;
          }
    }
  for (guint i = 0; i < p->outputs->len; i++)
    n += p->outputs->pdata[i] == v;
  return n;
}

/* Moves the operation at FROM behind the one at TO. */
static void
move_op (HeddleProgram *p, guint from, guint to)
{
  gpointer op = p->ops->pdata[from];
  for (guint i = from; i < to; i++)
    p->ops->pdata[i] = p->ops->pdata[i + 1];
  p->ops->pdata[to] = op;
  for (guint i = from; i <= to; i++)
    ((HeddleOp *) p->ops->pdata[i])->id = i;
}

static void
give (HeddleOp *op, HeddleValue *v)
{
  op->out[0] = v;
  v->producer = op;
  v->port = 0;
}

/* max_pool (relu (x)) = relu (max_pool (x)): relu keeps order, and where a window is all zeros after it no gradient passes either way.  What is
 * after the pooling has a quarter of the elements, and x is only needed at the maxima. */
static void
pool_before_relu (HeddleProgram *p, HeddleOp *relu, HeddleOp *pool)
{
  HeddleValue *inner = relu->out[0], *outer = pool->out[0];      /* who reads the pooled value reads the same one afterwards */
  pool->in[0] = relu->in[0];
  inner->shape = outer->shape;
  give (pool, inner);
  relu->in[0] = inner;
  give (relu, outer);
  move_op (p, relu->id, pool->id);
}

void
heddle_program_simplify (HeddleProgram *p)
{
  for (guint i = 0; i < p->ops->len; i++)
    {
      HeddleOp *op = p->ops->pdata[i], *reader = NULL;
      if (op->info->code == HEDDLE_OP_RELU && count_readers (p, op->out[0], &reader) == 1 && reader && reader->info->code == HEDDLE_OP_MAX_POOL)
        pool_before_relu (p, op, reader);
    }
}
