/* program/autodiff.c: reverse-mode differentiation by each operation's gradient rule.  Must not know backends. */
#include "program/program.h"
#include "program/builder.h"

typedef struct
{
  HeddleBuilder *b;
  HeddleProgram *program;
  guint          n_ops, n_values;   /* of the forward part: what is emitted while differentiating is not differentiated */
  HeddleValue  **grad;              /* by value id; NULL: none yet */
  gboolean      *needs;             /* by value id: does it depend on what we differentiate by? */
} Sweep;

static void
sweep_init (Sweep *s, HeddleBuilder *b)
{
  s->b = b;
  s->program = heddle_builder_peek (b);
  s->n_ops = s->program->ops->len;
  s->n_values = s->program->values->len;
  s->grad = g_new0 (HeddleValue *, s->n_values + 1);
  s->needs = g_new0 (gboolean, s->n_values + 1);
}

static void
sweep_clear (Sweep *s)
{
  g_free (s->grad);
  g_free (s->needs);
}

static HeddleOp *
nth_op (const Sweep *s, guint i)
{
  return s->program->ops->pdata[i];
}

static void
spread_needs (Sweep *s)
{
  for (guint i = 0; i < s->n_ops; i++)
    {
      HeddleOp *op = nth_op (s, i);
      gboolean any = FALSE;
      for (guint j = 0; j < op->n_in; j++)
        any |= s->needs[op->in[j]->id];
      for (guint j = 0; j < op->n_out; j++)
        s->needs[op->out[j]->id] |= any && heddle_dtype_is_float (op->out[j]->dtype);
    }
}

/* Adds G to what has reached V; the order of additions is the order of the sweep, so sums are the same in every run. */
static void
accumulate (Sweep *s, HeddleValue *v, HeddleValue *g)
{
  if (g && g->dtype != v->dtype)
    g = heddle_cast (s->b, g, v->dtype);
  if (g)
    s->grad[v->id] = s->grad[v->id] ? heddle_add (s->b, s->grad[v->id], g) : g;
}

static gboolean
backward_op (Sweep *s, HeddleOp *op, GError **error)
{
  HeddleValue *dy[8] = { NULL }, *dx[8] = { NULL };
  gboolean want[8] = { FALSE }, any_dy = FALSE, any_want = FALSE, ok = TRUE;
  for (guint i = 0; i < op->n_out; i++)
    any_dy |= (dy[i] = s->grad[op->out[i]->id]) != NULL;
  for (guint i = 0; i < op->n_in; i++)
    any_want |= want[i] = s->needs[op->in[i]->id];
  if (any_dy && any_want && !op->info->gradient)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "%s \"%s\": this operation has no gradient, but a parameter lies before it", op->info->name, op->name);
      ok = FALSE;
    }
  else if (any_dy && any_want)
    {
      op->info->gradient (s->b, op, dy, want, dx);
      for (guint i = 0; i < op->n_in; i++)
        if (want[i])
          accumulate (s, op->in[i], dx[i]);
    }
  return ok;
}

/* For each parameter the first operation that reads it: when the sweep has passed it, the gradient is whole. */
static void
first_uses (const Sweep *s, gint *first)
{
  for (guint i = 0; i < s->n_values; i++)
    first[i] = -1;
  for (guint i = s->n_ops; i-- > 0;)
    for (guint j = 0; j < nth_op (s, i)->n_in; j++)
      first[nth_op (s, i)->in[j]->id] = (gint) i;
}

static void
store_gradient (Sweep *s, HeddleValue *param, HeddleValue *g, gboolean add)
{
  HeddleValue *target = heddle_builder_variable (s->b, param->variable->grad);
  if (!g)
    {
      HeddleShapeAttr attr = { param->shape };
      g = add ? NULL : heddle_emit (s->b, HEDDLE_OP_BROADCAST, NULL, (HeddleValue *[]) { heddle_constant (s->b, 0) }, 1, &attr, sizeof attr);
    }
  else if (add)
    g = heddle_add (s->b, target, g);
  if (g)
    heddle_builder_assign (s->b, target, g, NULL);
}

static gboolean
is_param (const HeddleValue *v)
{
  return v->kind == HEDDLE_VALUE_VARIABLE && v->variable->role == HEDDLE_ROLE_PARAM && v->variable->grad;
}

static gboolean
check_loss (HeddleBuilder *b, HeddleValue *loss, GError **error)
{
  const GError *sticky = heddle_builder_error (b);
  gboolean ok = !sticky && loss;
  if (sticky)
    g_propagate_error (error, g_error_copy (sticky));
  else if (!loss)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "there is no loss to differentiate");
  else if (loss->shape.rank != 0)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "the loss must be a scalar, it has rank %d", loss->shape.rank);
      ok = FALSE;
    }
  return ok;
}

/* Parameters that the forward part never reads still get zeros. */
static void
store_absent (Sweep *s, gboolean add)
{
  HeddleVariables *vars = heddle_builder_variables (s->b);
  guint n = heddle_variables_count (vars);
  for (guint i = 0; i < n; i++)
    {
      HeddleVariable *p = heddle_variables_nth (vars, i);
      HeddleValue *v = p->role == HEDDLE_ROLE_PARAM && p->grad ? heddle_builder_variable (s->b, p) : NULL;
      if (v && v->id >= s->n_values)
        store_gradient (s, v, NULL, add);
    }
}

static gboolean
sweep_back (Sweep *s, HeddleValue *loss, HeddleValue *seed, gint *first, gboolean add, GError **error)
{
  gboolean ok = TRUE;
  s->grad[loss->id] = seed;
  for (guint i = s->n_ops; ok && i-- > 0;)
    {
      HeddleOp *op = nth_op (s, i);
      ok = backward_op (s, op, error);
      for (guint j = 0; ok && first && j < op->n_in; j++)
        if (is_param (op->in[j]) && first[op->in[j]->id] == (gint) i)
          {
            first[op->in[j]->id] = -1;      /* once, also when an operation reads it twice */
            store_gradient (s, op->in[j], s->grad[op->in[j]->id], add);
          }
    }
  return ok;
}

gboolean
heddle_builder_backward (HeddleBuilder *b, HeddleValue *loss, HeddleValue *seed, gboolean add, GError **error)
{
  HeddleDtype low = heddle_builder_autocast (b);
  gboolean ok = check_loss (b, loss, error);
  if (ok)
    {
      Sweep s;
      heddle_builder_set_autocast (b, 0);
      heddle_builder_set_phase (b, HEDDLE_PHASE_BACKWARD);
      heddle_program_simplify (heddle_builder_peek (b));
      sweep_init (&s, b);
      g_autofree gint *first = g_new (gint, s.n_values + 1);
      first_uses (&s, first);
      for (guint i = 0; i < s.n_values; i++)
        s.needs[i] = is_param (s.program->values->pdata[i]);
      spread_needs (&s);
      ok = sweep_back (&s, loss, seed, first, add, error);
      if (ok)
        store_absent (&s, add);
      sweep_clear (&s);
      heddle_builder_set_autocast (b, low);
    }
  if (ok && heddle_builder_error (b))
    {
      g_propagate_error (error, g_error_copy (heddle_builder_error (b)));
      ok = FALSE;
    }
  return ok;
}

gboolean
heddle_builder_gradients (HeddleBuilder *b, HeddleValue *loss, HeddleValue *seed, HeddleValue *const *wrt, guint n, HeddleValue **grads, GError **error)
{
  gboolean ok = check_loss (b, loss, error);
  if (ok)
    {
      Sweep s;
      heddle_builder_set_phase (b, HEDDLE_PHASE_BACKWARD);
      heddle_program_simplify (heddle_builder_peek (b));
      sweep_init (&s, b);
      for (guint i = 0; i < n; i++)
        s.needs[wrt[i]->id] = TRUE;
      spread_needs (&s);
      ok = sweep_back (&s, loss, seed, NULL, FALSE, error);
      for (guint i = 0; i < n; i++)
        grads[i] = ok ? s.grad[wrt[i]->id] : NULL;
      sweep_clear (&s);
    }
  if (ok && heddle_builder_error (b))
    {
      g_propagate_error (error, g_error_copy (heddle_builder_error (b)));
      ok = FALSE;
    }
  return ok;
}
