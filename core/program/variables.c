/* program/variables.c: named memory that programs share, its groups and its first numbers.  Must not know where it is stored. */
#include "program/program.h"
#include "base/memory.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <string.h>

struct _HeddleVariables
{
  GPtrArray  *list;      /* HeddleVariable *, owned, in order of declaration */
  GHashTable *by_name;
  GPtrArray  *groups;    /* HeddleGroup *, owned */
};

static void
variable_free (gpointer data)
{
  HeddleVariable *v = data;
  g_free (v->name);
  g_free (v->numbers);
  g_free (v);
}

static void
group_free (gpointer data)
{
  HeddleGroup *group = data;
  g_free (group->name);
  g_ptr_array_unref (group->params);
  g_ptr_array_unref (group->slots);
  g_free (group);
}

HeddleVariables *
heddle_variables_new (void)
{
  HeddleVariables *vars = g_new0 (HeddleVariables, 1);
  vars->list = g_ptr_array_new_with_free_func (variable_free);
  vars->by_name = g_hash_table_new (g_str_hash, g_str_equal);
  vars->groups = g_ptr_array_new_with_free_func (group_free);
  return vars;
}

void
heddle_variables_free (HeddleVariables *vars)
{
  if (vars)
    {
      g_hash_table_unref (vars->by_name);
      g_ptr_array_unref (vars->groups);
      g_ptr_array_unref (vars->list);
      g_free (vars);
    }
}

HeddleVariable *
heddle_variables_lookup (HeddleVariables *vars, const char *name)
{
  return g_hash_table_lookup (vars->by_name, name);
}

guint
heddle_variables_count (HeddleVariables *vars)
{
  return vars->list->len;
}

HeddleVariable *
heddle_variables_nth (HeddleVariables *vars, guint i)
{
  return vars->list->pdata[i];
}

static HeddleVariable *
add (HeddleVariables *vars, const char *name, HeddleRole role, HeddleDtype dtype, const HeddleShape *shape, const HeddleInit *init)
{
  HeddleVariable *v = g_new0 (HeddleVariable, 1);
  v->name = g_strdup (name);
  v->role = role;
  v->dtype = dtype;
  v->shape = *shape;
  v->init = init ? *init : (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 };
  v->saved = role != HEDDLE_ROLE_GRAD;
  g_ptr_array_add (vars->list, v);
  g_hash_table_insert (vars->by_name, v->name, v);
  return v;
}

HeddleVariable *
heddle_variables_declare (HeddleVariables *vars, const char *name, HeddleRole role, HeddleDtype dtype, const HeddleShape *shape, const HeddleInit *init,
                          GError **error)
{
  HeddleVariable *v = heddle_variables_lookup (vars, name);
  if (!v && role == HEDDLE_ROLE_PARAM && vars->groups->len)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "parameter \"%s\" appears after the parameters were dealt into groups\n"
                 "hint: a model must declare the same parameters for training and evaluation", name);
  else if (!v)
    v = add (vars, name, role, dtype, shape, init);
  else if (v->role != role || v->dtype != dtype || !heddle_shape_equal (&v->shape, shape))
    {
      g_autofree char *was = heddle_shape_print (&v->shape), *is = heddle_shape_print (shape);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "\"%s\" was declared as %s %s, and now as %s %s%s", name, heddle_dtype_name (v->dtype), was,
                   heddle_dtype_name (dtype), is, v->role == role ? "" : ", in another role");
      v = NULL;
    }
  return v;
}

HeddleVariable *
heddle_variables_table (HeddleVariables *vars, const char *name, const HeddleShape *shape, const float *numbers, GError **error)
{
  HeddleVariable *v = heddle_variables_declare (vars, name, HEDDLE_ROLE_STATE, HEDDLE_F32, shape, NULL, error);
  if (v)
    {
      g_free (v->numbers);
      v->numbers = heddle_memdup (numbers, (gsize) heddle_shape_count (shape) * sizeof (float));
      v->saved = FALSE;
    }
  return v;
}

/* ---- groups ---- */

static HeddleGroup *
group_new (HeddleVariables *vars, const char *name, double decay)
{
  HeddleGroup *group = g_new0 (HeddleGroup, 1);
  group->name = g_strdup (name);
  group->params = g_ptr_array_new ();
  group->slots = g_ptr_array_new ();
  group->decay = decay;
  g_ptr_array_add (vars->groups, group);
  return group;
}

static HeddleVariable *
group_flat (HeddleVariables *vars, HeddleGroup *group, const char *what, HeddleRole role, double initial)
{
  g_autofree char *name = g_strdup_printf ("%s/%s", group->name, what);
  HeddleShape shape = heddle_shape (group->n);
  HeddleInit init = { HEDDLE_INIT_CONSTANT, initial, 0 };
  HeddleVariable *v = add (vars, name, role, HEDDLE_F32, &shape, &init);
  v->group = group;
  v->saved = role == HEDDLE_ROLE_SLOT;        /* parameters are saved one by one, under their own names */
  return v;
}

static void
group_close (HeddleVariables *vars, HeddleGroup *group)
{
  for (guint i = 0; i < group->params->len; i++)
    {
      HeddleVariable *p = group->params->pdata[i];
      p->group = group;
      p->offset = group->n;
      group->n += (heddle_shape_count (&p->shape) + HEDDLE_FLAT_ALIGN - 1) / HEDDLE_FLAT_ALIGN * HEDDLE_FLAT_ALIGN;
    }
  group->param = group_flat (vars, group, "param", HEDDLE_ROLE_PARAM, 0);
  group->grad = group_flat (vars, group, "grad", HEDDLE_ROLE_GRAD, 0);
  for (guint i = 0; i < group->params->len; i++)
    {
      HeddleVariable *p = group->params->pdata[i];
      g_autofree char *name = g_strdup_printf ("%s/grad", p->name);
      p->flat = group->param;
      p->grad = add (vars, name, HEDDLE_ROLE_GRAD, HEDDLE_F32, &p->shape, NULL);
      p->grad->group = group;
      p->grad->flat = group->grad;
      p->grad->offset = p->offset;
      p->grad->layout = p->layout;      /* a plan compiled before may have chosen */
    }
}

void
heddle_variables_group (HeddleVariables *vars, gboolean no_decay_small)
{
  HeddleGroup *decay = NULL, *no_decay = NULL;
  guint n = vars->list->len;
  g_return_if_fail (vars->groups->len == 0);
  for (guint i = 0; i < n; i++)
    {
      HeddleVariable *v = vars->list->pdata[i];
      gboolean small = no_decay_small && v->shape.rank <= 1;
      if (v->role == HEDDLE_ROLE_PARAM && small)
        no_decay = no_decay ? no_decay : group_new (vars, "no_decay", 0);
      else if (v->role == HEDDLE_ROLE_PARAM)
        decay = decay ? decay : group_new (vars, "decay", 1);
      if (v->role == HEDDLE_ROLE_PARAM)
        g_ptr_array_add ((small ? no_decay : decay)->params, v);
    }
  for (guint i = 0; i < vars->groups->len; i++)
    group_close (vars, vars->groups->pdata[i]);
}

guint
heddle_variables_n_groups (HeddleVariables *vars)
{
  return vars->groups->len;
}

HeddleGroup *
heddle_variables_nth_group (HeddleVariables *vars, guint i)
{
  return vars->groups->pdata[i];
}

HeddleVariable *
heddle_group_slot (HeddleVariables *vars, HeddleGroup *group, const char *name, double initial)
{
  g_autofree char *full = g_strdup_printf ("%s/%s", group->name, name);
  HeddleVariable *slot = heddle_variables_lookup (vars, full);
  if (!slot)
    {
      slot = group_flat (vars, group, name, HEDDLE_ROLE_SLOT, initial);
      g_ptr_array_add (group->slots, slot);
    }
  return slot;
}

gint64
heddle_variables_n_params (HeddleVariables *vars)
{
  gint64 n = 0;
  for (guint i = 0; i < vars->list->len; i++)
    {
      const HeddleVariable *v = vars->list->pdata[i];
      gboolean flat = v->group && v == v->group->param;
      n += v->role == HEDDLE_ROLE_PARAM && !flat ? heddle_shape_count (&v->shape) : 0;
    }
  return n;
}

/* ---- first numbers ---- */

static void
fans (const HeddleShape *shape, double *fan_in, double *fan_out)
{
  double window = 1;
  for (gint32 i = 2; i < shape->rank; i++)
    window *= (double) shape->size[i];
  *fan_in = shape->rank >= 2 ? (double) shape->size[1] * window : 1;
  *fan_out = shape->rank >= 2 ? (double) shape->size[0] * window : 1;
}

/* Turns the kinds that depend on the shape into plain CONSTANT, UNIFORM or NORMAL. */
static HeddleInit
resolve_init (const HeddleVariable *v)
{
  HeddleInit r = v->init;
  double in, out;
  fans (&v->shape, &in, &out);
  switch (v->init.kind)
    {
    case HEDDLE_INIT_DEFAULT:
      r = v->shape.rank <= 1 ? (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 } : (HeddleInit) { HEDDLE_INIT_UNIFORM, -1 / sqrt (in), 1 / sqrt (in) };
      break;
    case HEDDLE_INIT_KAIMING_UNIFORM: r = (HeddleInit) { HEDDLE_INIT_UNIFORM, -sqrt (6 / in), sqrt (6 / in) }; break;
    case HEDDLE_INIT_KAIMING_NORMAL: r = (HeddleInit) { HEDDLE_INIT_NORMAL, 0, sqrt (2 / in) }; break;
    case HEDDLE_INIT_KAIMING_NORMAL_OUT: r = (HeddleInit) { HEDDLE_INIT_NORMAL, 0, sqrt (2 / out) }; break;
    case HEDDLE_INIT_XAVIER_UNIFORM: r = (HeddleInit) { HEDDLE_INIT_UNIFORM, -sqrt (6 / (in + out)), sqrt (6 / (in + out)) }; break;
    case HEDDLE_INIT_CONSTANT: case HEDDLE_INIT_UNIFORM: case HEDDLE_INIT_NORMAL: break;
    }
  return r;
}

void
heddle_variable_initial (const HeddleVariable *variable, guint64 seed, float *dst)
{
  HeddleInit init = resolve_init (variable);
  gint64 n = heddle_shape_count (&variable->shape);
  HeddleRandom random = heddle_random (seed, HEDDLE_STREAM_INIT, heddle_random_hash (variable->name) & 0xFFFFFFFFFFFFFF, 0);
  if (variable->numbers)
    memcpy (dst, variable->numbers, (gsize) n * sizeof (float));
  else if (init.kind == HEDDLE_INIT_UNIFORM)
    for (gint64 i = 0; i < n; i++)
      dst[i] = (float) (init.a + (init.b - init.a) * heddle_random_float (&random));
  else if (init.kind == HEDDLE_INIT_NORMAL)
    for (gint64 i = 0; i < n; i++)
      dst[i] = (float) (init.a + init.b * heddle_random_normal (&random));
  else
    for (gint64 i = 0; i < n; i++)
      dst[i] = (float) init.a;
}
