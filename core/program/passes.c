/* program/passes.c: lifetimes, the memory plan, clusters of elementwise operations.  Must not know layouts or devices. */
#include "program/program.h"

#include <string.h>

/* ---- lifetimes ---- */

static guint
root_of (const HeddleValue *v)
{
  while (v->producer && v->producer->info->flags & HEDDLE_OP_VIEW)
    v = v->producer->in[0];
  return v->id;
}

static void
extend (HeddleLifetime *l, gint at)
{
  l->first = MIN (l->first, at);
  l->last = MAX (l->last, at);
}

void
heddle_program_lifetimes (const HeddleProgram *p, HeddleLifetime *lifetimes)
{
  for (guint i = 0; i < p->values->len; i++)
    lifetimes[i] = (HeddleLifetime) { G_MAXINT, -1 };
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        extend (&lifetimes[root_of (op->in[j])], (gint) i);
      for (guint j = 0; j < op->n_out; j++)
        extend (&lifetimes[root_of (op->out[j])], (gint) i);
    }
  for (guint i = 0; i < p->outputs->len; i++)
    extend (&lifetimes[root_of (p->outputs->pdata[i])], (gint) p->ops->len);
}

/* ---- memory ---- */

typedef struct { guint id; gsize size; } Item;

static gint
by_size (gconstpointer a, gconstpointer b)
{
  const Item *x = a, *y = b;
  return x->size != y->size ? (x->size > y->size ? -1 : 1) : x->id < y->id ? -1 : 1;
}

typedef struct { gsize from, to; } Span;

static gint
by_start (gconstpointer a, gconstpointer b)
{
  const Span *x = a, *y = b;
  return x->from < y->from ? -1 : x->from > y->from;
}

/* The smallest gap between SPANS (sorted) that SIZE fits into; else after the last. */
static gsize
best_gap (const GArray *spans, gsize size)
{
  gsize end = 0, best = G_MAXSIZE, best_room = G_MAXSIZE;
  for (guint i = 0; i < spans->len; i++)
    {
      const Span *s = &g_array_index (spans, Span, i);
      if (s->from > end && s->from - end >= size && s->from - end < best_room)
        {
          best = end;
          best_room = s->from - end;
        }
      end = MAX (end, s->to);
    }
  return best != G_MAXSIZE ? best : end;
}

gsize
heddle_memory_plan (const gsize *sizes, const HeddleLifetime *lifetimes, guint n, gsize align, gsize *offsets)
{
  g_autofree Item *items = g_new (Item, MAX (n, 1));
  g_autoptr (GArray) spans = g_array_new (FALSE, FALSE, sizeof (Span));
  gsize total = 0;
  for (guint i = 0; i < n; i++)
    items[i] = (Item) { i, lifetimes[i].first <= lifetimes[i].last ? (sizes[i] + align - 1) / align * align : 0 };
  qsort (items, n, sizeof *items, by_size);
  for (guint i = 0; i < n; i++)
    {
      const HeddleLifetime *l = &lifetimes[items[i].id];
      offsets[items[i].id] = 0;
      if (items[i].size == 0)
        continue;
      g_array_set_size (spans, 0);
      for (guint j = 0; j < i; j++)
        {
          const HeddleLifetime *o = &lifetimes[items[j].id];
          if (items[j].size && o->first <= l->last && l->first <= o->last)
            g_array_append_val (spans, ((Span) { offsets[items[j].id], offsets[items[j].id] + items[j].size }));
        }
      g_array_sort (spans, by_start);
      offsets[items[i].id] = best_gap (spans, items[i].size);
      total = MAX (total, offsets[items[i].id] + items[i].size);
    }
  return total;
}

static guint
place_of (const guint *same_as, guint region)
{
  while (same_as[region] != region)
    region = same_as[region];
  return region;
}

/* SAME_AS[region] leads to the region whose place it gets, whose lifetime grows. */
static void
take_over (const HeddleTakeOver *o, HeddleLifetime *lives, gsize *sizes, guint *same_as)
{
  guint root = place_of (same_as, o->in);
  gboolean ends = lives[root].last == (gint) o->step, begins = lives[o->out].first == (gint) o->step && same_as[o->out] == o->out;
  if (ends && begins && root != o->out && sizes[o->out] <= sizes[root])
    {
      same_as[o->out] = root;
      lives[root].last = lives[o->out].last;
      sizes[o->out] = 0;
    }
}

gsize
heddle_memory_place (HeddleRegion *regions, guint n, const HeddleTakeOver *overs, guint n_overs, gsize align)
{
  g_autofree gsize *sizes = g_new (gsize, n + 1), *offsets = g_new0 (gsize, n + 1);
  g_autofree HeddleLifetime *lives = g_new (HeddleLifetime, n + 1);
  g_autofree guint *same_as = g_new (guint, n + 1);
  for (guint i = 0; i < n; i++)
    {
      sizes[i] = regions[i].bytes;
      lives[i] = (HeddleLifetime) { regions[i].first, regions[i].last };
      same_as[i] = i;
    }
  for (guint i = 0; i < n_overs; i++)
    take_over (&overs[i], lives, sizes, same_as);
  gsize bytes = heddle_memory_plan (sizes, lives, n, align, offsets);
  for (guint i = 0; i < n; i++)
    {
      regions[i].offset = offsets[place_of (same_as, i)];
      regions[i].first += same_as[i] != i && regions[i].first < regions[i].last;
    }
  return bytes;
}

gint
heddle_memory_peak (const HeddleRegion *regions, guint n, guint n_steps)
{
  gsize best = 0;
  gint peak = -1;
  for (gint step = 0; step < (gint) n_steps; step++)
    {
      gsize live = 0;
      for (guint i = 0; i < n; i++)
        live += regions[i].first <= step && regions[i].last >= step ? regions[i].bytes : 0;
      if (live > best)
        {
          best = live;
          peak = step;
        }
    }
  return peak;
}

/* ---- who reads what ---- */

GPtrArray **
heddle_program_users (const HeddleProgram *program)
{
  GPtrArray **users = g_new0 (GPtrArray *, program->values->len + 1);
  for (guint i = 0; i < program->ops->len; i++)
    {
      HeddleOp *op = program->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        {
          GPtrArray **of = &users[op->in[j]->id];
          *of = *of ? *of : g_ptr_array_new ();
          g_ptr_array_add (*of, op);
        }
    }
  return users;
}

void
heddle_users_free (GPtrArray **users, const HeddleProgram *program)
{
  for (guint i = 0; users && i < program->values->len; i++)
    g_clear_pointer (&users[i], g_ptr_array_unref);
  g_free (users);
}

/* ---- sums ---- */

guint32
heddle_op_summed_axes (const HeddleOp *op)
{
  const HeddleShape *from = &op->in[0]->shape, *to = &op->out[0]->shape;
  guint32 axes = 0;
  if (op->info->code == HEDDLE_OP_SUM_TO)
    for (gint32 i = 0; i < from->rank; i++)
      {
        gint32 j = to->rank - from->rank + i;
        axes |= (j < 0 || to->size[j] != from->size[i] ? 1u : 0) << i;
      }
  else
    axes = ((const HeddleReduceAttr *) op->attr)->axes ? ((const HeddleReduceAttr *) op->attr)->axes : (1u << from->rank) - 1;
  return axes;
}

/* ---- clusters ---- */

/* The shape one element of which the operation computes at a time; FALSE when it cannot join a cluster. */
static gboolean
loop_shape (const HeddleOp *op, HeddleShape *shape)
{
  gboolean ok = op->info->flags & HEDDLE_OP_ELEMENTWISE || op->info->code == HEDDLE_OP_ASSIGN;
  if (ok)
    *shape = op->info->code == HEDDLE_OP_ASSIGN ? op->in[0]->shape : op->out[0]->shape;
  for (guint i = 0; ok && i < op->n_in; i++)
    ok = op->in[i]->shape.rank == 0 || heddle_shape_equal (&op->in[i]->shape, shape);
  return ok;
}

static gboolean
same_memory (const HeddleVariable *a, const HeddleVariable *b)
{
  return a != b && (a->flat == b || b->flat == a);
}

gboolean
heddle_program_conflicts (const HeddleProgram *p, guint from, guint to, const HeddleOp *op)
{
  gboolean conflict = FALSE;
  for (guint i = from; !conflict && i < to; i++)
    {
      const HeddleOp *other = p->ops->pdata[i];
      const HeddleOp *pairs[2][2] = { { op, other }, { other, op } };
      for (guint k = 0; k < 2; k++)
        if (pairs[k][0]->info->code == HEDDLE_OP_ASSIGN)
          for (guint j = 0; j < pairs[k][1]->n_in; j++)
            conflict |= pairs[k][1]->in[j]->kind == HEDDLE_VALUE_VARIABLE && same_memory (pairs[k][0]->in[0]->variable, pairs[k][1]->in[j]->variable);
    }
  return conflict;
}

guint
heddle_program_clusters (const HeddleProgram *p, gint *cluster)
{
  guint n = 0, start = 0;
  HeddleShape current = { .rank = -1 }, shape;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      gboolean joins = loop_shape (op, &shape);
      gboolean goes_on = joins && current.rank >= 0 && heddle_shape_equal (&shape, &current) && !heddle_program_conflicts (p, start, i, op);
      if (joins && !goes_on)
        {
          n++;
          start = i;
        }
      cluster[i] = joins ? (gint) n - 1 : -1;
      current = joins ? shape : (HeddleShape) { .rank = -1 };
    }
  return n;
}
