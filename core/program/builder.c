/* program/builder.c: fills a program: values, operations, autocast, the first error kept.  Must not know backends. */
#include "program/builder.h"
#include "base/memory.h"
#include "program/program.h"
#include "program/rules.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <string.h>

typedef struct
{
  HeddleBuilder  base;
  HeddleProgram *program;
  gboolean       training;
  guint64        seed;
  HeddlePhase    phase;
  HeddleDtype    low;           /* 0: no autocast */
  HeddleValue   *skip;          /* for every ASSIGN, or NULL */
  GPtrArray     *scopes;        /* char * */
  GHashTable    *variables;     /* HeddleVariable * -> HeddleValue * */
  GHashTable    *casts;         /* HeddleValue * of a parameter -> its low-precision value */
  GError        *error;
} Builder;

#define B(b) ((Builder *) (b))

/* ---- programs ---- */

static void
value_free (gpointer data)
{
  HeddleValue *v = data;
  g_free (v->name);
  g_free (v);
}

static void
op_free (gpointer data)
{
  HeddleOp *op = data;
  g_free (op->name);
  g_free (op->scope);
  g_free (op->in);
  g_free (op->out);
  g_free (op->attr);
  g_free (op);
}

void
heddle_program_free (HeddleProgram *program)
{
  if (program)
    {
      g_free (program->name);
      g_ptr_array_unref (program->ops);
      g_ptr_array_unref (program->values);
      g_ptr_array_unref (program->inputs);
      g_ptr_array_unref (program->outputs);
      g_free (program);
    }
}

static HeddleProgram *
program_new (const char *name, HeddleVariables *vars)
{
  HeddleProgram *p = g_new0 (HeddleProgram, 1);
  p->name = g_strdup (name);
  p->vars = vars;
  p->values = g_ptr_array_new_with_free_func (value_free);
  p->ops = g_ptr_array_new_with_free_func (op_free);
  p->inputs = g_ptr_array_new ();
  p->outputs = g_ptr_array_new ();
  return p;
}

static HeddleValue *
value_new (Builder *b, HeddleValueKind kind, HeddleDtype dtype, const HeddleShape *shape, const char *name)
{
  HeddleValue *v = g_new0 (HeddleValue, 1);
  v->id = b->program->values->len;
  v->kind = kind;
  v->dtype = dtype;
  v->shape = *shape;
  v->name = g_strdup (name);
  g_ptr_array_add (b->program->values, v);
  return v;
}

/* ---- names and errors ---- */

static char *
full_name (Builder *b, const char *name)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < b->scopes->len; i++)
    g_string_append_printf (text, "%s.", (const char *) b->scopes->pdata[i]);
  g_string_append (text, name);
  return g_string_free (text, FALSE);
}

static void
take_error (Builder *b, GError *error)
{
  if (b->error)
    g_error_free (error);
  else
    b->error = error;
}

static void
slot_fail (HeddleBuilder *base, HeddleError code, const char *message)
{
  take_error (B (base), g_error_new_literal (HEDDLE_ERROR, code, message));
}

static void
slot_push (HeddleBuilder *base, const char *scope)
{
  g_ptr_array_add (B (base)->scopes, g_strdup (scope));
}

static void
slot_pop (HeddleBuilder *base)
{
  if (B (base)->scopes->len)
    g_ptr_array_remove_index (B (base)->scopes, B (base)->scopes->len - 1);
}

/* ---- values ---- */

HeddleValue *
heddle_builder_variable (HeddleBuilder *base, HeddleVariable *variable)
{
  Builder *b = B (base);
  HeddleValue *v = b->error || !variable ? NULL : g_hash_table_lookup (b->variables, variable);
  if (!v && !b->error && variable)
    {
      v = value_new (b, HEDDLE_VALUE_VARIABLE, variable->dtype, &variable->shape, variable->name);
      v->variable = variable;
      g_hash_table_insert (b->variables, variable, v);
    }
  return v;
}

static HeddleValue *
declare (Builder *b, const char *name, HeddleRole role, HeddleDtype dtype, const HeddleShape *shape, const HeddleInit *init)
{
  GError *error = NULL;
  HeddleVariable *v = NULL;
  if (!b->error)
    {
      v = heddle_variables_declare (b->program->vars, name, role, dtype, shape, init, &error);
      if (!v)
        take_error (b, error);
    }
  return heddle_builder_variable (&b->base, v);
}

static gboolean
positive_sizes (Builder *b, const char *name, const HeddleShape *shape)
{
  gboolean ok = !b->error;
  for (gint32 i = 0; ok && i < shape->rank; i++)
    if (shape->size[i] < 1)
      {
        g_autofree char *text = heddle_shape_print (shape);
        take_error (b, g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "parameter \"%s\": shape %s has a size below 1\n"
                                    "hint: was a required member of the layer left out?", name, text));
        ok = FALSE;
      }
  return ok;
}

static HeddleValue *
slot_param (HeddleBuilder *base, const char *name, const HeddleShape *shape, const HeddleInit *init)
{
  g_autofree char *full = full_name (B (base), name);
  return positive_sizes (B (base), full, shape) ? declare (B (base), full, HEDDLE_ROLE_PARAM, HEDDLE_F32, shape, init) : NULL;
}

static HeddleValue *
slot_state (HeddleBuilder *base, const char *name, HeddleDtype dtype, const HeddleShape *shape, double initial)
{
  g_autofree char *full = full_name (B (base), name);
  HeddleInit init = { HEDDLE_INIT_CONSTANT, initial, 0 };
  return positive_sizes (B (base), full, shape) ? declare (B (base), full, HEDDLE_ROLE_STATE, dtype, shape, &init) : NULL;
}

static HeddleValue *
slot_constant (HeddleBuilder *base, double value)
{
  HeddleValue *v = NULL;
  if (!B (base)->error)
    {
      HeddleShape scalar = heddle_scalar_shape ();
      v = value_new (B (base), HEDDLE_VALUE_CONSTANT, HEDDLE_F32, &scalar, NULL);
      v->constant = value;
    }
  return v;
}

static void
slot_shape (HeddleBuilder *base, HeddleValue *value, HeddleShape *shape, HeddleDtype *dtype)
{
  (void) base;
  if (shape)
    *shape = value->shape;
  if (dtype)
    *dtype = value->dtype;
}

static gboolean slot_training (HeddleBuilder *base) { return B (base)->training; }
static guint64 slot_seed (HeddleBuilder *base) { return B (base)->seed; }

static HeddleValue *
slot_step (HeddleBuilder *base)
{
  HeddleShape scalar = heddle_scalar_shape ();
  return declare (B (base), "step", HEDDLE_ROLE_SCALAR, HEDDLE_F32, &scalar, NULL);
}

static guint64
slot_key (HeddleBuilder *base, const char *name)
{
  g_autofree char *full = full_name (B (base), name ? name : "");
  return heddle_random_hash (full) & 0xFFFFFFFFFFFFFF;
}

/* ---- operations ---- */

/* A copy of the caller's attribute; a shorter one of an older plugin is completed with zeros. */
static gpointer
copy_attr (const HeddleOpInfo *info, gconstpointer attr, gsize size)
{
  gpointer copy = info->attr_size ? g_malloc0 (info->attr_size) : NULL;
  if (copy && attr)
    memcpy (copy, attr, MIN (size, info->attr_size));
  return copy;
}

static char *
scope_name (Builder *b)
{
  char *text = full_name (b, "");
  if (*text)
    text[strlen (text) - 1] = 0;      /* the last dot */
  return text;
}

static HeddleOp *
op_new (Builder *b, const HeddleOpInfo *info, const char *name, HeddleValue *const *inputs, guint n, gconstpointer attr, gsize attr_size)
{
  HeddleOp *op = g_new0 (HeddleOp, 1);
  op->info = info;
  op->name = name && *name ? full_name (b, name) : g_strdup (info->name);
  op->scope = scope_name (b);
  op->phase = b->phase;
  op->n_in = n;
  op->n_out = info->n_out;
  op->in = heddle_memdup (inputs, n * sizeof *inputs);
  op->out = g_new0 (HeddleValue *, MAX (info->n_out, 1));
  op->attr = copy_attr (info, attr, attr_size);
  return op;
}

static void
op_prefix (Builder *b, const HeddleOpInfo *info, const char *name, GError *error)
{
  g_autofree char *full = name && *name ? full_name (b, name) : NULL;
  if (full)
    g_prefix_error (&error, "%s \"%s\": ", info->name, full);
  else
    g_prefix_error (&error, "%s: ", info->name);
  take_error (b, error);
}

static gboolean
emit_plain (Builder *b, const HeddleOpInfo *info, const char *name, HeddleValue *const *inputs, guint n, gconstpointer attr, gsize attr_size,
            HeddleValue **outputs, guint n_outputs)
{
  GError *error = NULL;
  HeddleOp *op = op_new (b, info, name, inputs, n, attr, attr_size);
  HeddleShape none = { 0 };
  for (guint i = 0; i < op->n_out; i++)
    {
      op->out[i] = value_new (b, HEDDLE_VALUE_TEMP, HEDDLE_F32, &none, NULL);
      op->out[i]->producer = op;
      op->out[i]->port = i;
    }
  gboolean ok = info->shape (op, &error);
  op->id = b->program->ops->len;
  g_ptr_array_add (b->program->ops, op);
  if (!ok)
    op_prefix (b, info, name, error);
  for (guint i = 0; ok && i < MIN (n_outputs, op->n_out); i++)
    outputs[i] = op->out[i];
  return ok;
}

/* ---- autocast ---- */

static HeddleValue *
cast_to (Builder *b, HeddleValue *v, HeddleDtype dtype)
{
  gboolean param = v->kind == HEDDLE_VALUE_VARIABLE && v->variable->role == HEDDLE_ROLE_PARAM && dtype == b->low;
  HeddleValue *r = v->dtype == dtype ? v : param ? g_hash_table_lookup (b->casts, v) : NULL;
  if (!r)
    {
      HeddleCastAttr attr = { dtype };
      emit_plain (b, heddle_op_info (HEDDLE_OP_CAST), NULL, &v, 1, &attr, sizeof attr, &r, 1);
      if (param && r)
        g_hash_table_insert (b->casts, v, r);
    }
  return r ? r : v;
}

static HeddleDtype
widest (HeddleValue *const *in, guint n)
{
  HeddleDtype w = 0;
  for (guint i = 0; i < n; i++)
    if (heddle_dtype_is_float (in[i]->dtype) && in[i]->shape.rank > 0)
      w = !w || w == in[i]->dtype ? in[i]->dtype : HEDDLE_F32;
  return w;
}

static void
cast_floats (Builder *b, HeddleValue **in, guint n, HeddleDtype dtype)
{
  for (guint i = 0; i < n; i++)
    if (dtype && heddle_dtype_is_float (in[i]->dtype) && in[i]->shape.rank > 0)
      in[i] = cast_to (b, in[i], dtype);
}

/* Casts inputs as the operation's AMP class says; without autocast only mixed elementwise inputs are brought to the widest. */
static void
autocast (Builder *b, const HeddleOpInfo *info, HeddleAmpClass class, HeddleValue **in, guint n)
{
  gboolean elementwise = info->flags & HEDDLE_OP_ELEMENTWISE && info->code != HEDDLE_OP_CAST;
  switch (class)
    {
    case HEDDLE_AMP_LOW:
      cast_floats (b, in, n, b->low ? b->low : widest (in, n));
      break;
    case HEDDLE_AMP_F32:
      cast_floats (b, in, n, b->low ? HEDDLE_F32 : elementwise || n > 1 ? widest (in, n) : 0);
      break;
    case HEDDLE_AMP_WIDEST: cast_floats (b, in, n, widest (in, n)); break;
    case HEDDLE_AMP_KEEP:
      if (elementwise && n > 1)
        cast_floats (b, in, n, widest (in, n));
      break;
    case HEDDLE_AMP_FIRST: break;
    }
}

/* ---- emit ---- */

/* A longer attribute comes from a newer plugin: what this core does not know must not be asked for. */
static gboolean
check_attr (Builder *b, const HeddleOpInfo *info, const char *name, gconstpointer attr, gsize size)
{
  gboolean zero = TRUE;
  for (gsize i = info->attr_size; attr && zero && i < size; i++)
    zero = ((const char *) attr)[i] == 0;
  if (!zero)
    op_prefix (b, info, name, g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "uses an attribute that this version does not know\nhint: the plugin was built for a newer Heddle"));
  return !b->error;
}

static gboolean
check_inputs (Builder *b, const HeddleOpInfo *info, const char *name, HeddleValue *const *inputs, guint *n)
{
  GError *error = NULL;
  while (*n > info->min_in && !inputs[*n - 1])
    (*n)--;
  if (*n < info->min_in || *n > info->max_in)
    g_set_error (&error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "takes %u to %u inputs, got %u", info->min_in, info->max_in, *n);
  for (guint i = 0; !error && i < *n; i++)
    if (!inputs[i])
      g_set_error (&error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "input %u is missing (NULL)", i + 1);
  if (error)
    op_prefix (b, info, name, error);
  return !b->error;
}

static gboolean
check_custom (Builder *b, const HeddleOpInfo *info, const char *name, gconstpointer attr)
{
  GError *error = NULL;
  if (info->code == HEDDLE_OP_CUSTOM && !heddle_custom_check (attr, &error))
    op_prefix (b, info, name, error);
  return !b->error;
}

static gboolean
slot_emit (HeddleBuilder *base, HeddleOpCode code, const char *name, HeddleValue *const *inputs, guint n, gconstpointer attr, gsize attr_size,
           HeddleValue **outputs, guint n_outputs)
{
  Builder *b = B (base);
  const HeddleOpInfo *info = heddle_op_info (code);
  for (guint i = 0; i < n_outputs; i++)
    outputs[i] = NULL;
  if (!b->error && !info)
    take_error (b, g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "no operation has the number %d\nhint: the plugin was built for a newer Heddle", code));
  gboolean ok = !b->error && check_attr (b, info, name, attr, attr_size) && check_custom (b, info, name, attr) && check_inputs (b, info, name, inputs, &n);
  if (ok)
    {
      HeddleValue *in[8] = { NULL };
      memcpy (in, inputs, n * sizeof *inputs);
      autocast (b, info, code == HEDDLE_OP_CUSTOM ? heddle_custom_amp (attr) : info->amp, in, n);
      if (code == HEDDLE_OP_ASSIGN && n == 2 && b->skip)
        in[n++] = b->skip;
      ok = !b->error && emit_plain (b, info, name, in, n, attr, attr_size, outputs, n_outputs);
    }
  return ok;
}

static const HeddleBuilderIface builder_iface = {
  .size = sizeof (HeddleBuilderIface), .emit = slot_emit, .param = slot_param, .state = slot_state, .constant = slot_constant, .shape = slot_shape,
  .push = slot_push, .pop = slot_pop, .training = slot_training, .fail = slot_fail, .step = slot_step, .seed = slot_seed, .key = slot_key,
};

/* ---- core side ---- */

HeddleBuilder *
heddle_builder_new (const char *name, HeddleVariables *vars, gboolean training, guint64 seed)
{
  Builder *b = g_new0 (Builder, 1);
  b->base.iface = &builder_iface;
  b->program = program_new (name, vars);
  b->training = training;
  b->seed = seed;
  b->phase = HEDDLE_PHASE_FORWARD;
  b->scopes = g_ptr_array_new_with_free_func (g_free);
  b->variables = g_hash_table_new (NULL, NULL);
  b->casts = g_hash_table_new (NULL, NULL);
  return &b->base;
}

void
heddle_builder_free (HeddleBuilder *base)
{
  if (base)
    {
      Builder *b = B (base);
      heddle_program_free (b->program);
      g_ptr_array_unref (b->scopes);
      g_hash_table_unref (b->variables);
      g_hash_table_unref (b->casts);
      g_clear_error (&b->error);
      g_free (b);
    }
}

HeddleVariables *heddle_builder_variables (HeddleBuilder *base) { return B (base)->program->vars; }
void heddle_builder_set_phase (HeddleBuilder *base, HeddlePhase phase) { B (base)->phase = phase; }
void heddle_builder_set_autocast (HeddleBuilder *base, HeddleDtype low) { B (base)->low = low; }
void heddle_builder_set_skip (HeddleBuilder *base, HeddleValue *skip) { B (base)->skip = skip; }
const GError *heddle_builder_error (HeddleBuilder *base) { return B (base)->error; }
HeddleProgram *heddle_builder_peek (HeddleBuilder *base) { return B (base)->program; }
HeddleDtype heddle_builder_autocast (HeddleBuilder *base) { return B (base)->low; }

HeddleValue *
heddle_builder_input (HeddleBuilder *base, const char *name, HeddleDtype dtype, const HeddleShape *shape)
{
  HeddleValue *v = NULL;
  if (!B (base)->error)
    {
      v = value_new (B (base), HEDDLE_VALUE_INPUT, dtype, shape, name);
      v->input = B (base)->program->inputs->len;
      g_ptr_array_add (B (base)->program->inputs, v);
    }
  return v;
}

void
heddle_builder_assign (HeddleBuilder *base, HeddleValue *variable, HeddleValue *value, HeddleValue *skip)
{
  HeddleValue *in[] = { variable, value, skip };
  base->iface->emit (base, HEDDLE_OP_ASSIGN, variable && variable->name ? variable->name : NULL, in, skip ? 3 : 2, NULL, 0, NULL, 0);
}

guint
heddle_builder_output (HeddleBuilder *base, HeddleValue *value)
{
  guint index = B (base)->program->outputs->len;
  if (value)
    g_ptr_array_add (B (base)->program->outputs, value);
  return index;
}

/* ---- finish: dead operations go, values are numbered and counted ---- */

static void
mark (HeddleOp *op, gboolean *live)
{
  for (guint i = 0; i < op->n_in; i++)
    if (op->in[i]->producer)
      live[op->in[i]->producer->id] = TRUE;
}

static void
remove_dead_ops (HeddleProgram *p)
{
  g_autofree gboolean *live = g_new0 (gboolean, p->ops->len + 1);
  for (guint i = 0; i < p->outputs->len; i++)
    {
      HeddleValue *v = p->outputs->pdata[i];
      if (v->producer)
        live[v->producer->id] = TRUE;
    }
  for (guint i = p->ops->len; i-- > 0;)
    {
      HeddleOp *op = p->ops->pdata[i];
      live[i] |= (op->info->flags & HEDDLE_OP_EFFECT) != 0;
      if (live[i])
        mark (op, live);
    }
  GPtrArray *kept = g_ptr_array_new_with_free_func (op_free);
  g_ptr_array_set_free_func (p->ops, NULL);
  for (guint i = 0; i < p->ops->len; i++)
    if (live[i])
      g_ptr_array_add (kept, p->ops->pdata[i]);
    else
      {
        HeddleOp *op = p->ops->pdata[i];
        for (guint j = 0; j < op->n_out; j++)
          op->out[j]->kind = 0;                /* goes with remove_dead_values () */
        op_free (op);
      }
  g_ptr_array_unref (p->ops);
  p->ops = kept;
}

static void
number (HeddleProgram *p)
{
  for (guint i = 0; i < p->ops->len; i++)
    ((HeddleOp *) p->ops->pdata[i])->id = i;
}

static void
count_uses (HeddleProgram *p)
{
  for (guint i = 0; i < p->values->len; i++)
    ((HeddleValue *) p->values->pdata[i])->n_uses = 0;
  for (guint i = 0; i < p->ops->len; i++)
    {
      HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        op->in[j]->n_uses++;
    }
  for (guint i = 0; i < p->outputs->len; i++)
    ((HeddleValue *) p->outputs->pdata[i])->n_uses++;
}

static void
remove_dead_values (HeddleProgram *p)
{
  GPtrArray *kept = g_ptr_array_new_with_free_func (value_free);
  g_ptr_array_set_free_func (p->values, NULL);
  for (guint i = 0; i < p->values->len; i++)
    {
      HeddleValue *v = p->values->pdata[i];
      gboolean keep = v->kind == HEDDLE_VALUE_TEMP || v->kind == HEDDLE_VALUE_INPUT || (v->kind && v->n_uses);
      if (keep)
        {
          v->id = kept->len;
          g_ptr_array_add (kept, v);
        }
      else
        value_free (v);
    }
  g_ptr_array_unref (p->values);
  p->values = kept;
}

void
heddle_program_tidy (HeddleProgram *p)
{
  number (p);
  remove_dead_ops (p);
  number (p);
  count_uses (p);
  remove_dead_values (p);
}

HeddleProgram *
heddle_builder_finish (HeddleBuilder *base, GError **error)
{
  Builder *b = B (base);
  HeddleProgram *program = NULL;
  if (b->error)
    g_propagate_error (error, g_steal_pointer (&b->error));
  else
    {
      program = g_steal_pointer (&b->program);
      heddle_program_simplify (program);
      heddle_program_tidy (program);
    }
  heddle_builder_free (base);
  return program;
}
