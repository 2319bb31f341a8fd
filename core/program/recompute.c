/* program/recompute.c: activation checkpointing: what backward needs of the inside of a block is computed again instead of being kept.
 * Must not know backends.  The rule of what a block is, and of what is kept, stands in program.h. */
#include "program/builder.h"
#include "base/memory.h"

#include <string.h>

typedef struct
{
  HeddleProgram *program;
  GHashTable    *blocks;       /* name -> number from 1 */
  guint         *block;        /* by op id: number of its block if it may be run again, else 0 */
  gboolean      *kept;         /* by value id */
  gboolean      *wanted;       /* by op id: it is run again */
  guint         *before;       /* by block number: the backward operation that its copies go before */
  HeddleValue  **copy;         /* by value id: the recomputed value, or NULL */
  guint          n_values;     /* before any copy */
} Pass;

static HeddleOp *
nth (const Pass *s, guint i)
{
  return s->program->ops->pdata[i];
}

/* ---- blocks ---- */

/* Is NAME (LENGTH bytes) all digits, or does it end in _digits? */
static gboolean
numbered (const char *name, gsize length)
{
  gsize digits = 0;
  while (digits < length && g_ascii_isdigit (name[length - 1 - digits]))
    digits++;
  return digits > 0 && (digits == length || name[length - 1 - digits] == '_');
}

/* (transfer full) "layer1.0.downsample" -> "layer1.0"; NULL outside every block. */
static char *
block_name (const char *scope)
{
  char *found = NULL;
  for (const char *at = scope; !found && *at;)
    {
      gsize length = strcspn (at, ".");
      if (numbered (at, length))
        found = g_strndup (scope, (gsize) (at - scope) + length);
      at += length + (at[length] == '.');
    }
  return found;
}

static guint
block_of (Pass *s, const HeddleOp *op)
{
  char *name = op->phase == HEDDLE_PHASE_FORWARD ? block_name (op->scope) : NULL;
  guint number = 0;
  if (name)
    {
      number = GPOINTER_TO_UINT (g_hash_table_lookup (s->blocks, name));
      if (!number)
        number = g_hash_table_size (s->blocks) + 1;
      g_hash_table_insert (s->blocks, name, GUINT_TO_POINTER (number));     /* takes NAME, or frees it */
    }
  return number;
}

/* ---- what cannot be had twice ---- */

static gboolean
same_memory (const HeddleVariable *a, const HeddleVariable *b)
{
  return a == b || a->flat == b || b->flat == a;
}

/* Is V assigned before BY, the last operation of backward?  (The step number moves after it.) */
static gboolean
is_assigned (const Pass *s, const HeddleVariable *v, guint by)
{
  gboolean hit = FALSE;
  for (guint i = 0; !hit && i < by; i++)
    {
      const HeddleOp *op = nth (s, i);
      hit = op->info->flags & HEDDLE_OP_EFFECT && op->n_in && op->in[0]->kind == HEDDLE_VALUE_VARIABLE && same_memory (op->in[0]->variable, v);
    }
  return hit;
}

static gboolean
repeatable (const Pass *s, const HeddleOp *op, guint by)
{
  gboolean ok = !(op->info->flags & HEDDLE_OP_EFFECT);
  gboolean statistics = op->info->code == HEDDLE_OP_BATCH_NORM && ((const HeddleBatchNormAttr *) op->attr)->training;
  for (guint j = 0; ok && j < op->n_in; j++)
    ok = op->in[j]->kind != HEDDLE_VALUE_VARIABLE || (statistics && j >= 3) || !is_assigned (s, op->in[j]->variable, by);
  return ok;
}

static guint
last_of_backward (const Pass *s)
{
  guint last = 0;
  for (guint i = 0; i < s->program->ops->len; i++)
    if (nth (s, i)->phase == HEDDLE_PHASE_BACKWARD && !(nth (s, i)->info->flags & HEDDLE_OP_EFFECT))
      last = i;
  return last;
}

static void
find_blocks (Pass *s)
{
  guint by = last_of_backward (s);
  for (guint i = 0; i < s->program->ops->len; i++)
    {
      guint block = block_of (s, nth (s, i));
      s->block[i] = block && repeatable (s, nth (s, i), by) ? block : 0;
    }
}

/* ---- what is kept ---- */

/* An operation of the block that is not run again (an effect, a reader of what has changed) reads kept values like one outside. */
static void
find_kept (Pass *s)
{
  for (guint i = 0; i < s->n_values; i++)
    {
      const HeddleValue *v = s->program->values->pdata[i];
      s->kept[i] = !v->producer || !s->block[v->producer->id] || v->shape.rank <= 1;
    }
  for (guint i = 0; i < s->program->outputs->len; i++)
    s->kept[((HeddleValue *) s->program->outputs->pdata[i])->id] = TRUE;
  for (guint i = 0; i < s->program->ops->len; i++)
    for (guint j = 0; nth (s, i)->phase == HEDDLE_PHASE_FORWARD && j < nth (s, i)->n_in; j++)
      {
        const HeddleValue *v = nth (s, i)->in[j];
        s->kept[v->id] |= v->producer && s->block[v->producer->id] != s->block[i] && !(nth (s, i)->info->flags & HEDDLE_OP_EFFECT);
      }
}

/* ---- what is run again ---- */

static void
want (Pass *s, const HeddleValue *v, guint at)
{
  const HeddleOp *op = s->kept[v->id] ? NULL : v->producer;
  if (op && !s->wanted[op->id])
    {
      s->wanted[op->id] = TRUE;
      s->before[s->block[op->id]] = MIN (s->before[s->block[op->id]], at);
      for (guint j = 0; j < op->n_in; j++)
        want (s, op->in[j], at);
    }
}

static guint
find_wanted (Pass *s)
{
  guint n = 0;
  for (guint i = 0; i < s->program->ops->len; i++)
    for (guint j = 0; nth (s, i)->phase != HEDDLE_PHASE_FORWARD && j < nth (s, i)->n_in; j++)
      want (s, nth (s, i)->in[j], i);
  for (guint i = 0; i < s->program->ops->len; i++)
    n += s->wanted[i];
  return n;
}

static HeddleValue *
copy_value (Pass *s, const HeddleValue *v, HeddleOp *producer)
{
  HeddleValue *copy = heddle_memdup (v, sizeof *v);
  copy->id = s->program->values->len;
  copy->name = g_strdup (v->name);
  copy->producer = producer;
  g_ptr_array_add (s->program->values, copy);
  s->copy[v->id] = copy;
  return copy;
}

/* V as backward sees it. */
static HeddleValue *
seen (const Pass *s, HeddleValue *v)
{
  return v->id < s->n_values && !s->kept[v->id] && s->copy[v->id] ? s->copy[v->id] : v;
}

static HeddleOp *
copy_op (Pass *s, const HeddleOp *op)
{
  HeddleOp *copy = heddle_memdup (op, sizeof *op);
  copy->name = g_strdup (op->name);
  copy->scope = g_strdup (op->scope);
  copy->attr = heddle_memdup (op->attr, op->info->attr_size);
  copy->phase = HEDDLE_PHASE_BACKWARD;
  copy->again = TRUE;
  copy->in = g_new0 (HeddleValue *, MAX (op->n_in, 1));
  copy->out = g_new0 (HeddleValue *, MAX (op->n_out, 1));
  for (guint j = 0; j < op->n_in; j++)
    copy->in[j] = seen (s, op->in[j]);
  for (guint j = 0; j < op->n_out; j++)
    copy->out[j] = copy_value (s, op->out[j], copy);
  return copy;
}

static void
add_copies (Pass *s, guint block, guint n_ops, GPtrArray *ops)
{
  for (guint i = 0; i < n_ops; i++)
    if (s->wanted[i] && s->block[i] == block)
      g_ptr_array_add (ops, copy_op (s, nth (s, i)));
}

static void
rewrite (Pass *s)
{
  guint n_ops = s->program->ops->len, n_blocks = g_hash_table_size (s->blocks);
  GPtrArray *ops = g_ptr_array_new ();
  for (guint i = 0; i < n_ops; i++)
    {
      HeddleOp *op = nth (s, i);
      for (guint k = 1; op->phase != HEDDLE_PHASE_FORWARD && k <= n_blocks; k++)
        if (s->before[k] == i)
          add_copies (s, k, n_ops, ops);
      for (guint j = 0; op->phase != HEDDLE_PHASE_FORWARD && j < op->n_in; j++)
        op->in[j] = seen (s, op->in[j]);
      g_ptr_array_add (ops, op);
    }
  gsize n = 0;
  g_free (g_ptr_array_steal (s->program->ops, &n));
  g_ptr_array_extend_and_steal (s->program->ops, ops);
}

guint
heddle_program_recompute (HeddleProgram *program)
{
  guint n_ops = program->ops->len, n_values = program->values->len;
  Pass s = { .program = program, .n_values = n_values, .blocks = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL) };
  s.block = g_new0 (guint, n_ops + 1);
  s.wanted = g_new0 (gboolean, n_ops + 1);
  s.before = g_new (guint, n_ops + 1);
  s.kept = g_new0 (gboolean, n_values + 1);
  s.copy = g_new0 (HeddleValue *, n_values + 1);
  for (guint i = 0; i <= n_ops; i++)
    s.before[i] = G_MAXUINT;
  find_blocks (&s);
  find_kept (&s);
  guint n = find_wanted (&s);
  if (n)
    {
      rewrite (&s);
      heddle_program_tidy (program);
    }
  g_hash_table_unref (s.blocks);
  g_free (s.block);
  g_free (s.wanted);
  g_free (s.before);
  g_free (s.kept);
  g_free (s.copy);
  return n;
}
