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

/* ---- scalars between the operations of one loop ---- */

static gboolean
is_elementwise (const HeddleOp *op, gboolean *scalar, HeddleShape *shape)
{
  gboolean assign = op->info->code == HEDDLE_OP_ASSIGN, yes = assign || op->info->flags & HEDDLE_OP_ELEMENTWISE;
  if (yes)
    *shape = assign ? op->in[0]->shape : op->out[0]->shape;
  *scalar = yes && !assign && shape->rank == 0;
  return yes;
}

static gboolean
overlap (const HeddleVariable *a, const HeddleVariable *b)
{
  return a == b || a->flat == b || b->flat == a;
}

/* Does OP need what an operation between FROM and itself makes or writes? */
static gboolean
depends (const HeddleProgram *p, const HeddleOp *op, guint from)
{
  gboolean yes = FALSE;
  for (guint j = 0; j < op->n_in; j++)
    {
      const HeddleValue *v = op->in[j];
      yes |= v->producer && v->producer->id >= from;
      for (guint i = from; v->kind == HEDDLE_VALUE_VARIABLE && i < op->id; i++)
        {
          const HeddleOp *other = p->ops->pdata[i];
          yes |= other->info->code == HEDDLE_OP_ASSIGN && overlap (other->in[0]->variable, v->variable);
        }
    }
  return yes;
}

/* Moves the operation at FROM before the one at TO. */
static void
move_up (HeddleProgram *p, guint from, guint to)
{
  gpointer op = p->ops->pdata[from];
  for (guint i = from; i > to; i--)
    p->ops->pdata[i] = p->ops->pdata[i - 1];
  p->ops->pdata[to] = op;
  for (guint i = to; i <= from; i++)
    ((HeddleOp *) p->ops->pdata[i])->id = i;
}

/* A scalar operation (a bias correction of Adam's) between elementwise ones of a shape would cut their loop in two: it goes before the first of them. */
static void
hoist_scalars (HeddleProgram *p)
{
  HeddleShape current = { .rank = 0 }, shape = { 0 };
  guint start = 0;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      gboolean scalar = FALSE, elementwise = is_elementwise (op, &scalar, &shape);
      if (scalar && current.rank > 0 && !depends (p, op, start))
        move_up (p, i, start++);
      else if (!elementwise || current.rank == 0 || !heddle_shape_equal (&shape, &current))
        {
          start = i;
          current = elementwise ? shape : (HeddleShape) { .rank = 0 };
        }
    }
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
  hoist_scalars (p);
}
