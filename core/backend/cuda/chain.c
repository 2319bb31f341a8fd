/* cuda/chain.c: the source of a kernel that runs a chain of elementwise operations.  Must not know plans, devices or CUDA's libraries.
 * A thread loads its elements of every operand, computes all operations in f32 registers (results of 16-bit operations rounded as if stored), and stores what
 * is used outside.  Scalars of rank 0 are computed by every thread anew, so that their operations need no launch of their own. */
#include "chain.h"

#include "base/random.h"

#include <math.h>
#include <string.h>

#define MAX_OPS  128
#define MAX_WIDE 16            /* operands a chain may have per element: each costs WIDTH registers */

void
chain_free (Chain *chain)
{
  g_free (chain->name);
  g_free (chain->source);
  g_array_unref (chain->args);
  g_free (chain);
}

guint
chain_threads (const Chain *chain)
{
  return chain->n > 1 ? CHAIN_THREADS : 1;
}

guint
chain_blocks (const Chain *chain, guint processors)
{
  gint64 items = (chain->n + chain->width - 1) / chain->width, blocks = (items + CHAIN_THREADS - 1) / CHAIN_THREADS;
  return (guint) CLAMP (blocks, 1, (gint64) MAX (processors, 1) * 8);
}

/* ---- which operations go together ---- */

static gboolean
is_assign (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_ASSIGN;
}

static gboolean
is_view (const HeddleOp *op)
{
  return op->info->flags & HEDDLE_OP_VIEW;
}

/* The shape one element of which OP computes at a time; NULL when no chain can take it. */
static const HeddleShape *
loop_shape (const HeddleOp *op)
{
  const HeddleShape *shape = NULL;
  HeddleOpCode code = op->info->code;
  gboolean member = op->info->flags & HEDDLE_OP_ELEMENTWISE || code == HEDDLE_OP_DROPOUT || code == HEDDLE_OP_DEQUANTIZE || code == HEDDLE_OP_BROADCAST || is_view (op);
  if (is_assign (op) && (op->n_in < 3 || op->in[2]->shape.rank == 0) && (op->in[1]->shape.rank == 0 || heddle_shape_equal (&op->in[1]->shape, &op->in[0]->shape)))
    shape = &op->in[0]->shape;
  else if (member && (code != HEDDLE_OP_DROPOUT || op->in[1]->shape.rank == 0))
    shape = &op->out[0]->shape;
  return shape;
}

static gboolean
made_in (const HeddleProgram *p, const HeddleValue *v, guint from, guint to)
{
  return v->kind == HEDDLE_VALUE_TEMP && v->producer->id >= from && v->producer->id < to && p->ops->pdata[v->producer->id] == v->producer;
}

static const HeddleValue *
origin (const HeddleProgram *p, const HeddleValue *v, guint from, guint to)
{
  while (made_in (p, v, from, to) && is_view (v->producer))
    v = v->producer->in[0];
  return v;
}

typedef struct
{
  const HeddleShape *wide;      /* NULL: only scalars so far */
  gboolean           assigns;   /* a scalar: what a wider loop must not be joined with */
  gint64             count;
} Reach;

/* Does the loop so far go on with OP over SHAPE?  Row-major tensors of one size follow the same order whatever their shapes, if nothing is broadcast. */
static gboolean
same_loop (const Reach *r, const HeddleOp *op, const HeddleShape *shape, ChainOrder order)
{
  gboolean same = !r->wide || heddle_shape_equal (r->wide, shape), dense = order == CHAIN_ROWS && heddle_shape_count (shape) == r->count;
  for (guint i = 0; !same && dense && i < op->n_in; i++)
    dense = op->in[i]->shape.rank == 0 || heddle_shape_count (&op->in[i]->shape) == r->count;
  return same || dense;
}

/* OP reads nothing of the chain at another place than its own element. */
static gboolean
reads_own (const HeddleProgram *p, guint from, const HeddleOp *op, gint64 count)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < op->n_in; i++)
    {
      const HeddleValue *v = op->in[i];
      ok = v->shape.rank == 0 || heddle_shape_count (&v->shape) == count || !made_in (p, v, from, op->id);
      for (guint k = from; ok && k < op->id; k++)
        {
          const HeddleOp *other = p->ops->pdata[k];
          ok = !is_assign (other) || other->in[0] != v || heddle_shape_count (&v->shape) == count;
        }
    }
  return ok;
}

static gboolean
joins (const HeddleProgram *p, guint from, const HeddleOp *op, const ChainOptions *options, Reach *r)
{
  const HeddleShape *shape = loop_shape (op);
  gboolean ok = shape && !heddle_program_conflicts (p, from, op->id, op);
  if (ok && is_view (op))
    ok = op->id > from && options->order == CHAIN_ROWS && made_in (p, op->in[0], from, op->id);
  else if (ok && shape->rank == 0)
    ok = !(is_assign (op) && r->wide);
  else if (ok)
    ok = !r->assigns && same_loop (r, op, shape, options->order) && reads_own (p, from, op, heddle_shape_count (shape));
  if (ok && shape->rank == 0)
    r->assigns |= is_assign (op);
  else if (ok && !r->wide)
    *r = (Reach) { shape, FALSE, heddle_shape_count (shape) };
  return ok;
}

static gboolean
used_outside (const HeddleProgram *p, const HeddleValue *v, guint from, guint to)
{
  guint inside = 0;
  gboolean outside = FALSE;
  for (guint i = from; !outside && i < to; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        inside += op->in[j] == v;
      outside = is_view (op) && op->in[0] == v && used_outside (p, op->out[0], i, to);
    }
  return outside || v->n_uses > inside;
}

/* Parameters of the kernel of operations FROM .. TO - 1, at most, and how many of them are read or written per element. */
static void
weigh (const HeddleProgram *p, guint from, guint to, guint *all, guint *wide)
{
  g_autoptr (GHashTable) seen = g_hash_table_new (NULL, NULL);
  *all = 1;
  *wide = 0;
  for (guint i = from; i < to; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        {
          const HeddleValue *v = op->in[j];
          gboolean memory = v->kind != HEDDLE_VALUE_CONSTANT && !made_in (p, v, from, to) && g_hash_table_add (seen, (gpointer) v);
          *all += memory;
          *wide += memory && v->shape.rank > 0;
        }
      guint results = is_assign (op) || (op->n_out && !is_view (op) && used_outside (p, op->out[0], from, to));      /* an assigned variable may have a copy */
      *all += results + (op->info->code == HEDDLE_OP_DROPOUT ? 5 : 0);
      *wide += results && loop_shape (op)->rank > 0;
    }
}

guint
chain_end (const HeddleProgram *p, guint from, const ChainOptions *options)
{
  Reach r = { NULL, FALSE, 1 };
  guint end = from, all = 0, wide = 0;
  while (end < MIN (p->ops->len, from + MAX_OPS) && joins (p, from, p->ops->pdata[end], options, &r))
    {
      weigh (p, from, end + 1, &all, &wide);
      if (end > from && (wide > MAX_WIDE || all > CHAIN_MAX_ARGS))
        break;
      end++;
    }
  return end;
}

/* ---- writing ---- */

typedef struct
{
  const HeddleProgram *p;
  const ChainOptions  *options;
  guint       from, to;
  Chain      *chain;
  GHashTable *names;             /* HeddleValue * -> char *, owned: the expression of its element, or of a scalar */
  GHashTable *memory;            /* HeddleValue * -> index + 1 of its argument */
  GString    *prelude;           /* once per thread: scalars */
  GString    *finish;            /* once per chain: scalars stored */
  GString    *loads, *body, *stores;   /* per pack, per element, per pack */
  guint       n_names;
  gboolean    wide;
} Writer;

static const char *
c_type (HeddleDtype dtype)
{
  return heddle_dtype_name (dtype);     /* f32, f16, bf16, u8, i32, i64: the types of common.cuh */
}

/* An f32 that reads back to the same bits */
static char *
literal (double number)
{
  float x = (float) number;
  union { float f; guint32 u; } bits = { x };
  char text[G_ASCII_DTOSTR_BUF_SIZE];
  gboolean finite = x - x == 0;
  return finite ? g_strdup_printf (signbit (x) ? "(%sf)" : "%sf", g_ascii_formatd (text, sizeof text, "%.8e", (double) x)) : g_strdup_printf ("bits_float (0x%08xu)", bits.u);
}

static guint
add_arg (Writer *w, ChainArg arg)
{
  g_array_append_val (w->chain->args, arg);
  return w->chain->args->len - 1;
}

/* The argument of V's memory */
static guint
memory_of (Writer *w, const HeddleValue *v, gboolean write, gboolean dense)
{
  guint known = GPOINTER_TO_UINT (g_hash_table_lookup (w->memory, v));
  if (!known)
    {
      known = add_arg (w, (ChainArg) { .kind = CHAIN_VALUE, .value = v, .dtype = v->dtype, .dense = TRUE }) + 1;
      g_hash_table_insert (w->memory, (gpointer) v, GUINT_TO_POINTER (known));
    }
  ChainArg *arg = &g_array_index (w->chain->args, ChainArg, known - 1);
  arg->read |= !write;
  arg->written |= write;
  arg->dense &= dense;
  return known - 1;
}

static char *
new_name (Writer *w, const HeddleValue *v, const char *format)
{
  char *name = g_strdup_printf (format, w->n_names++);
  g_hash_table_insert (w->names, (gpointer) v, name);
  return name;
}

/* ---- where an operand's element lies ---- */

typedef struct { gint64 size, stride; } Axis;

/* Axes of a loop over TO, outermost first, in the order of memory, with the stride in FROM; neighbours that can be walked as one are merged. */
static guint
walk (const HeddleShape *to, const HeddleShape *from, ChainOrder order, Axis axes[HEDDLE_MAX_RANK])
{
  static const gint32 last[4] = { 0, 2, 3, 1 };
  gint64 stride[HEDDLE_MAX_RANK] = { 0 }, running = 1;
  guint n = 0;
  for (gint32 i = from->rank - 1; i >= 0; i--)
    {
      gint32 axis = from->rank == 4 && order == CHAIN_CHANNELS_LAST ? last[i] : i;
      stride[axis + to->rank - from->rank] = from->size[axis] == 1 ? 0 : running;
      running *= from->size[axis];
    }
  for (gint32 i = 0; i < to->rank; i++)
    {
      gint32 axis = to->rank == 4 && order == CHAIN_CHANNELS_LAST ? last[i] : i;
      Axis a = { to->size[axis], stride[axis] }, *outer = n ? &axes[n - 1] : NULL;
      if (outer && a.size != 1 && outer->stride == a.stride * a.size)
        *outer = (Axis) { outer->size * a.size, a.stride };
      else if (a.size != 1)
        axes[n++] = a;
    }
  return n;
}

/* (transfer full) The offset, in the operand that AXES walk, of element I of the loop */
static char *
offset_of (const Axis *axes, guint n, const char *i)
{
  GString *text = g_string_new (NULL);
  gint64 inner = 1;
  for (guint k = n; k-- > 0; inner *= axes[k].size)
    if (axes[k].stride)
      {
        g_string_append_printf (text, "%s", text->len ? " + " : "");
        g_autofree char *quotient = inner > 1 ? g_strdup_printf ("%s / %" G_GINT64_FORMAT "u", i, inner) : g_strdup (i);
        g_autofree char *rest = k ? g_strdup_printf ("%s %% %" G_GINT64_FORMAT "u", quotient, axes[k].size) : g_strdup (quotient);
        g_string_append_printf (text, axes[k].stride > 1 ? "(%s) * %" G_GINT64_FORMAT "u" : "(%s)", rest, axes[k].stride);
      }
  if (!text->len)
    g_string_append (text, "0");
  return g_string_free (text, FALSE);
}

/* A pack begins at a multiple of the width in every part of the walk */
static gboolean
steps_by (const Axis *axes, guint n, gint64 width)
{
  gboolean yes = n > 0 && axes[n - 1].size % width == 0;
  for (guint k = 0; yes && k + 1 < n; k++)
    yes = axes[k].stride % width == 0;
  return yes;
}

/* ---- operands ---- */

/* Element i of the loop is element i of V's memory: as many, in the same order, which a leading axis of 1 hides where only tensors of rank 4 lie channels last. */
static gboolean
follows (const HeddleValue *v, const HeddleShape *loop, ChainOrder order)
{
  return heddle_shape_count (&v->shape) == heddle_shape_count (loop) && (order == CHAIN_ROWS || v->shape.rank == loop->rank || (v->shape.rank != 4 && loop->rank != 4));
}

static void
load_wide (Writer *w, const HeddleValue *v, const HeddleShape *loop)
{
  Axis axes[HEDDLE_MAX_RANK];
  guint n = walk (loop, &v->shape, w->options->order, axes), width = w->chain->width, id = w->n_names;
  gboolean dense = follows (v, loop, w->options->order);
  guint arg = memory_of (w, v, FALSE, dense);
  new_name (w, v, "x%u[j]");
  g_string_append_printf (w->loads, "      f32 x%u[W];\n", id);
  if (dense)
    g_string_append_printf (w->loads, "      load<W> (x%u, p%u + i);\n", id, arg);
  else if (n == 0)
    g_string_append_printf (w->loads, "      fill<W> (x%u, p%u);\n", id, arg);
  else
    {
      gboolean one = axes[n - 1].stride == 0 && axes[n - 1].size % width == 0, pack = axes[n - 1].stride == 1 && steps_by (axes, n, width);
      g_autofree char *at = offset_of (axes, n, one || pack ? "i" : "(i + j)");
      if (one || pack)
        g_string_append_printf (w->loads, "      %s<W> (x%u, p%u + (%s));\n", one ? "fill" : "load", id, arg, at);
      else
        g_string_append_printf (w->loads, "#pragma unroll\n      for (int j = 0; j < W; j++)\n        x%u[j] = to_float (p%u[%s]);\n", id, arg, at);
    }
}

/* The expression of V's element in the loop over LOOP */
static const char *
argument (Writer *w, const HeddleValue *v, const HeddleShape *loop)
{
  v = origin (w->p, v, w->from, w->to);
  const char *known = g_hash_table_lookup (w->names, v);
  if (!known && v->kind == HEDDLE_VALUE_CONSTANT)
    {
      char *number = literal (v->constant);
      g_hash_table_insert (w->names, (gpointer) v, number);
      known = number;
    }
  else if (!known && v->shape.rank == 0)
    {
      guint arg = memory_of (w, v, FALSE, FALSE);
      known = new_name (w, v, "s%u");
      g_string_append_printf (w->prelude, "  const f32 %s = to_float (*p%u);\n", known, arg);
    }
  else if (!known)
    {
      load_wide (w, v, loop);
      known = g_hash_table_lookup (w->names, v);
    }
  return known;
}

/* ---- operations ---- */

static void
append_number (GString *text, double number)
{
  g_autofree char *x = literal (number);
  g_string_append_printf (text, ", %s", x);
}

/* The words of OP's random stream are parameters, so that layers share a kernel.  Returns the expression of the key. */
static char *
dropout_key (Writer *w, const HeddleOp *op)
{
  const HeddleDropoutAttr *a = op->attr;
  HeddleRandom r = heddle_random (a->seed, HEDDLE_STREAM_DROPOUT, a->key, 0);
  guint32 words[5] = { r.key[0], r.key[1], r.counter[1], r.counter[2], (guint32) MIN (a->probability * 4294967296.0, 4294967295.0) };
  guint first = w->chain->args->len;
  for (guint i = 0; i < G_N_ELEMENTS (words); i++)
    add_arg (w, (ChainArg) { .kind = CHAIN_NUMBER, .number = words[i], .bytes = 4 });
  return g_strdup_printf ("dropout_key { p%u, p%u, p%u, p%u, p%u }", first, first + 1, first + 2, first + 3, first + 4);
}

/* The mask counts in row-major order: in a loop in the other order each element's place is found first. */
static void
append_dropout (Writer *w, const HeddleOp *op, GString *call)
{
  const HeddleDropoutAttr *a = op->attr;
  const HeddleShape *s = &op->out[0]->shape;
  g_autofree char *key = dropout_key (w, op);
  const char *step = argument (w, op->in[1], s);
  if (s->rank == 0)
    g_string_append_printf (call, ", dropout_keeps (0u, %s, %s)", step, key);
  else if (s->rank != 4 || w->options->order == CHAIN_ROWS)
    {
      g_string_append_printf (w->loads, "      bool k%u[W];\n      dropout_mask<W> (k%u, i, %s, %s);\n", w->n_names, w->n_names, step, key);
      g_string_append_printf (call, ", k%u[j]", w->n_names++);
    }
  else
    {
      gint64 hw = s->size[2] * s->size[3];
      Axis axes[] = { { s->size[0], s->size[1] * hw }, { hw, 1 }, { s->size[1], hw } };
      g_autofree char *at = offset_of (axes, G_N_ELEMENTS (axes), "(i + j)");
      g_string_append_printf (call, ", dropout_keeps (%s, %s, %s)", at, step, key);
    }
  append_number (call, 1 / (1 - a->probability));
}

/* "c == 0 ? A : c == 1 ? B : C" in one string for factors and one for terms */
static void
append_dequantize (Writer *w, const HeddleOp *op, GString *call)
{
  const HeddleDequantizeAttr *q = op->attr;
  HeddleShape channel = { .rank = op->out[0]->shape.rank };
  Axis axes[HEDDLE_MAX_RANK];
  g_autoptr (GString) a = g_string_new (NULL), b = g_string_new (NULL);
  guint id = w->n_names++;
  for (gint32 i = 0; i < channel.rank; i++)
    channel.size[i] = i == 1 ? op->out[0]->shape.size[1] : 1;
  for (gint32 k = 0; k < MAX (q->channels, 1); k++)
    {
      g_autofree char *factor = literal (q->scale / q->std[k]), *term = literal (-q->mean[k] / q->std[k]);
      g_autofree char *test = k + 1 < q->channels ? g_strdup_printf ("c%u == %d ? ", id, k) : NULL;
      g_string_append_printf (a, "%s%s%s", test ? test : "", factor, test ? " : " : "");
      g_string_append_printf (b, "%s%s%s", test ? test : "", term, test ? " : " : "");
    }
  if (q->channels > 1)
    {
      g_autofree char *c = offset_of (axes, walk (&op->out[0]->shape, &channel, w->options->order, axes), "(i + j)");
      g_string_append_printf (w->body, "          const Index c%u = %s;\n", id, c);
    }
  g_string_append_printf (call, ", %s, %s", a->str, b->str);
}

static void
append_attributes (Writer *w, const HeddleOp *op, GString *call)
{
  switch (op->info->code)
    {
    case HEDDLE_OP_GELU: case HEDDLE_OP_GELU_GRAD:
      g_string_append (call, ((const HeddleGeluAttr *) op->attr)->tanh_form ? ", true" : ", false");
      break;
    case HEDDLE_OP_LEAKY_RELU: case HEDDLE_OP_LEAKY_RELU_GRAD:
      append_number (call, ((const HeddleSlopeAttr *) op->attr)->slope);
      break;
    case HEDDLE_OP_CLAMP: case HEDDLE_OP_CLAMP_GRAD:
      append_number (call, ((const HeddleClampAttr *) op->attr)->min);
      append_number (call, ((const HeddleClampAttr *) op->attr)->max);
      break;
    case HEDDLE_OP_DROPOUT: append_dropout (w, op, call); break;
    case HEDDLE_OP_DEQUANTIZE: append_dequantize (w, op, call); break;
    default: break;
    }
}

/* Stores NAME to argument ARG, once per chain or once per element. */
static void
store (Writer *w, guint arg, gboolean scalar, const char *name, const char *condition)
{
  if (scalar)
    g_string_append_printf (w->finish, "      %sfrom_float (%s, *p%u);\n", condition, name, arg);
  else
    {
      guint id = w->n_names++;
      g_string_append_printf (w->loads, "      f32 y%u[W];\n", id);
      g_string_append_printf (w->body, "          y%u[j] = %s;\n", id, name);
      g_string_append_printf (w->stores, "      %sstore<W> (p%u + i, y%u);\n", condition, arg, id);
    }
}

static void
write_operation (Writer *w, const HeddleOp *op)
{
  const HeddleValue *y = op->out[0];
  gboolean scalar = y->shape.rank == 0, broadcast = op->info->code == HEDDLE_OP_BROADCAST;
  guint n = op->info->code == HEDDLE_OP_DROPOUT ? 1 : op->n_in;
  g_autoptr (GString) call = g_string_new (NULL);
  for (guint i = 0; i < n; i++)
    g_string_append_printf (call, "%s%s", i ? ", " : "", argument (w, op->in[i], &y->shape));
  append_attributes (w, op, call);
  const char *name = new_name (w, y, scalar ? "s%u" : "v%u");
  g_string_append_printf (scalar ? w->prelude : w->body, scalar ? "  const f32 %s = " : "          const f32 %s = ", name);
  if (y->dtype != HEDDLE_F32)
    g_string_append_printf (scalar ? w->prelude : w->body, "rounded<%s> (", c_type (y->dtype));
  g_string_append_printf (scalar ? w->prelude : w->body, broadcast ? "%s%s%s;\n" : "op_%s (%s)%s;\n", broadcast ? "" : op->info->name, call->str, y->dtype != HEDDLE_F32 ? ")" : "");
  if (used_outside (w->p, y, w->from, w->to))
    store (w, memory_of (w, y, TRUE, !scalar), scalar, name, "");
}

static gboolean
read_later (const Writer *w, const HeddleOp *op)
{
  gboolean later = FALSE;
  for (guint i = op->id + 1; !later && i < w->to; i++)
    {
      const HeddleOp *other = w->p->ops->pdata[i];
      for (guint j = is_assign (other) ? 1 : 0; j < other->n_in; j++)
        later |= other->in[j] == op->in[0];
    }
  return later;
}

static void
store_assigned (Writer *w, const HeddleOp *op, const char *name, const char *condition)
{
  const HeddleValue *target = op->in[0];
  gboolean scalar = target->shape.rank == 0;
  HeddleDtype copy = w->options->copy ? w->options->copy (target->variable, w->options->data) : 0;
  store (w, memory_of (w, target, TRUE, !scalar), scalar, name, condition);
  if (copy)
    store (w, add_arg (w, (ChainArg) { .kind = CHAIN_COPY, .value = target, .dtype = copy, .written = TRUE, .dense = !scalar }), scalar, name, condition);
}

/* variable = value unless skip: what is read of the variable later in the chain is what the memory holds by then. */
static void
write_assign (Writer *w, const HeddleOp *op)
{
  const HeddleValue *target = op->in[0];
  gboolean scalar = target->shape.rank == 0, later = read_later (w, op);
  const char *value = argument (w, op->in[1], &target->shape), *skip = op->n_in > 2 ? argument (w, op->in[2], &target->shape) : NULL;
  g_autofree char *condition = skip ? g_strdup_printf ("if (%s == 0.0f) ", skip) : g_strdup (""), *now = g_strdup (value);
  if (later && skip)
    {
      g_free (now);
      now = g_strdup_printf ("%s == 0.0f ? %s : %s", skip, value, argument (w, target, &target->shape));
    }
  g_autofree char *stored = g_strdup (value);
  if (later)
    {
      const char *name = new_name (w, target, scalar ? "s%u" : "v%u");
      g_string_append_printf (scalar ? w->prelude : w->body, "%sconst f32 %s = %s;\n", scalar ? "  " : "          ", name, now);
    }
  store_assigned (w, op, stored, condition);
}

/* ---- the whole ---- */

/* Bytes of the narrowest operand that has elements */
static guint
narrowest (const HeddleProgram *p, guint from, guint to, const ChainOptions *options)
{
  gsize bytes = 4;
  for (guint i = from; i < to; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        if (op->in[j]->shape.rank > 0)
          bytes = MIN (bytes, heddle_dtype_size (op->in[j]->dtype));
      if (op->n_out)
        bytes = MIN (bytes, op->out[0]->shape.rank > 0 ? heddle_dtype_size (op->out[0]->dtype) : 4);
      else if (options->copy && options->copy (op->in[0]->variable, options->data))
        bytes = MIN (bytes, 2);
    }
  return (guint) bytes;
}

static void
append_parameters (const Chain *chain, GString *text)
{
  for (guint i = 0; i < chain->args->len; i++)
    {
      const ChainArg *a = &g_array_index (chain->args, ChainArg, i);
      if (a->kind != CHAIN_NUMBER)
        g_string_append_printf (text, "%s%s *p%u, ", a->written ? "" : "const ", c_type (a->dtype), i);
      else if (i + 1 < chain->args->len)
        g_string_append_printf (text, "const u32 p%u, ", i);
    }
  g_string_append (text, "const Index n");
}

/* (transfer full) "chain_mul_add_sqrt_5d2a0c3e4b": the first operations, each kind once, and digits that no other source has */
static char *
name_of (const Writer *w)
{
  GString *name = g_string_new ("chain");
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  const GString *texts[] = { w->prelude, w->loads, w->body, w->stores, w->finish };
  g_autoptr (GString) parameters = g_string_new (NULL);
  append_parameters (w->chain, parameters);
  g_string_append_printf (parameters, "%u %d", w->chain->width, w->chain->n < G_MAXINT32);
  g_checksum_update (sum, (const guchar *) parameters->str, (gssize) parameters->len);
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    g_checksum_update (sum, (const guchar *) texts[i]->str, (gssize) texts[i]->len + 1);
  for (guint i = w->from; i < w->to && name->len < 48; i++)
    {
      const HeddleOp *op = w->p->ops->pdata[i];
      g_autofree char *part = g_strconcat ("_", op->info->name, NULL);
      if (!is_assign (op) && !is_view (op) && !strstr (name->str, part))
        g_string_append (name, part);
    }
  g_string_append_printf (name, "_%.10s", g_checksum_get_string (sum));
  g_checksum_free (sum);
  return g_string_free (name, FALSE);
}

/* 128-bit transactions need addresses that are multiples of 16 bytes; whoever calls need not know. */
static void
append_alignment (const Chain *chain, GString *text)
{
  g_string_append (text, "  const bool aligned = ((0");
  for (guint i = 0; i < chain->args->len; i++)
    {
      const ChainArg *a = &g_array_index (chain->args, ChainArg, i);
      if (a->kind != CHAIN_NUMBER && a->value->shape.rank > 0)
        g_string_append_printf (text, " | (u64) p%u", i);
    }
  g_string_append (text, ") & 15) == 0;\n");
}

static char *
assemble (const Writer *w)
{
  const Chain *chain = w->chain;
  GString *s = g_string_new (NULL);
  guint width = chain->width;
  g_string_append_printf (s, "typedef %s Index;\n\nextern \"C\" __global__ void __launch_bounds__ (%u)\n%s (", chain->n < G_MAXINT32 ? "u32" : "u64", CHAIN_THREADS, chain->name);
  append_parameters (chain, s);
  g_string_append (s, ")\n{\n  const Index first = (Index) blockIdx.x * blockDim.x + threadIdx.x;\n");
  g_string_append (s, w->prelude->str);
  if (w->wide)
    {
      g_string_append (s, "  const Index step = (Index) gridDim.x * blockDim.x;\n");
      append_alignment (chain, s);
      g_string_append_printf (s, "  const Index packs = aligned ? n / %u : 0;\n  auto body = [&] (auto width, Index i)\n    {\n      constexpr int W = decltype (width)::value;\n", width);
      g_string_append_printf (s, "%s#pragma unroll\n      for (int j = 0; j < W; j++)\n        {\n%s        }\n%s    };\n", w->loads->str, w->body->str, w->stores->str);
      g_string_append_printf (s, "  for (Index k = first; k < packs; k += step)\n    body (width_of<%u> { }, k * %u);\n", width, width);
      g_string_append_printf (s, "  for (Index i = packs * %u + first; i < n; i += step)\n    body (width_of<1> { }, i);\n", width);
    }
  if (w->finish->len)
    g_string_append_printf (s, "  if (first == 0)\n    {\n%s    }\n", w->finish->str);
  g_string_append (s, "}\n");
  return g_string_free (s, FALSE);
}

static Writer
writer_new (const HeddleProgram *p, guint from, guint to, const ChainOptions *options)
{
  Writer w = { .p = p, .options = options, .from = from, .to = to, .chain = g_new0 (Chain, 1) };
  w.names = g_hash_table_new_full (NULL, NULL, NULL, g_free);
  w.memory = g_hash_table_new (NULL, NULL);
  w.prelude = g_string_new (NULL);
  w.finish = g_string_new (NULL);
  w.loads = g_string_new (NULL);
  w.body = g_string_new (NULL);
  w.stores = g_string_new (NULL);
  w.chain->args = g_array_new (FALSE, TRUE, sizeof (ChainArg));
  w.chain->n = 1;
  w.chain->width = narrowest (p, from, to, options) < 4 ? 8 : 4;
  for (guint i = from; !w.wide && i < to; i++)
    {
      const HeddleShape *shape = loop_shape (p->ops->pdata[i]);
      w.wide = shape->rank > 0;
      w.chain->n = w.wide ? heddle_shape_count (shape) : 1;
    }
  return w;
}

static void
writer_clear (Writer *w)
{
  GString *texts[] = { w->prelude, w->finish, w->loads, w->body, w->stores };
  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    g_string_free (texts[i], TRUE);
  g_hash_table_unref (w->names);
  g_hash_table_unref (w->memory);
}

Chain *
chain_new (const HeddleProgram *p, guint from, guint to, const ChainOptions *options)
{
  Writer w = writer_new (p, from, to, options);
  Chain *chain = w.chain;
  for (guint i = from; i < to; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      if (is_assign (op))
        write_assign (&w, op);
      else if (!is_view (op))
        write_operation (&w, op);
    }
  add_arg (&w, (ChainArg) { .kind = CHAIN_NUMBER, .number = (guint64) chain->n, .bytes = chain->n < G_MAXINT32 ? 4 : 8 });
  chain->name = name_of (&w);
  chain->source = assemble (&w);
  writer_clear (&w);
  return chain;
}
