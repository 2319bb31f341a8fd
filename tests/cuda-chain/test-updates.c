/* cuda-chain/test-updates.c: whole optimizer updates as generated kernels, compiled for the host, against the cpu device over several steps: unscaled, clipped, decayed,
 * skipped; one launch per group; 16-bit copies of the parameters kept right.  Must not know the rules.
 * Rules of exact operations (SGD, RMSprop, Lion) end in the same bits.  Clipping sums squares, LAMB norms, and the bias corrections of AdamW and LAMB use
 * expm1, which the cpu device computes in its own ways: there NEAR bounds the difference, relative to the largest number of the buffer. */
#include "host.h"
#include "base/memory.h"

#include "stage/stage.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define STEPS 4
#define NEAR 2e-6
#define N_PARAMS 4

static const struct { const char *name; HeddleShape shape; } params[N_PARAMS] = {
  { "five", { 1, { 5 } } }, { "matrix", { 2, { 33, 17 } } }, { "kernel", { 4, { 8, 3, 3, 3 } } }, { "long", { 2, { 1, 5001 } } },
};

typedef struct { const char *name, *optimizer, *options; gboolean decay_weights, scaling; double clip; gboolean exact; HeddleDtype copy; guint launches; } Case;

static const Case cases[] = {
  { "sgd", "sgd", "lr=0.1", FALSE, FALSE, 0, TRUE, 0, 1 },
  { "sgd/momentum", "sgd", "lr=0.1,momentum=0.9,weight_decay=0.01", TRUE, FALSE, 0, TRUE, 0, 1 },
  { "sgd/nesterov", "sgd", "lr=0.1,momentum=0.9,nesterov=true,maximize=true", FALSE, FALSE, 0, TRUE, HEDDLE_BF16, 1 },
  { "sgd/dampening", "sgd", "lr=0.1,momentum=0.9,dampening=0.5", FALSE, FALSE, 0, TRUE, 0, 1 },
  { "sgd/scaled", "sgd", "lr=0.1,momentum=0.9", TRUE, TRUE, 0, TRUE, HEDDLE_F16, 1 },
  { "sgd/clipped", "sgd", "lr=0.1,momentum=0.9", FALSE, FALSE, 1, FALSE, 0, 1 },
  { "adamw", "adamw", "lr=0.01", TRUE, FALSE, 0, FALSE, 0, 1 },
  { "adamw/scaled, clipped", "adamw", "lr=0.01,weight_decay=0.1,amsgrad=true", TRUE, TRUE, 1, FALSE, HEDDLE_F16, 1 },
  { "adam", "adamw", "lr=0.01,weight_decay=0.1,decoupled=false", FALSE, FALSE, 0, FALSE, HEDDLE_BF16, 1 },
  { "rmsprop", "rmsprop", "lr=0.01", FALSE, FALSE, 0, TRUE, 0, 1 },
  { "rmsprop/centered, scaled", "rmsprop", "lr=0.01,weight_decay=0.1,momentum=0.9,centered=true", FALSE, TRUE, 0, TRUE, HEDDLE_BF16, 1 },
  { "lion", "lion", "lr=0.001,weight_decay=0.1", TRUE, FALSE, 0, TRUE, 0, 1 },
  { "lion/scaled", "lion", "lr=0.001", FALSE, TRUE, 0, TRUE, HEDDLE_F16, 1 },
  { "lamb", "lamb", "lr=0.01", TRUE, FALSE, 0, FALSE, 0, 2 },          /* its norms lie between: moments and direction, then the step */
  { "lamb/scaled", "lamb", "lr=0.01", FALSE, TRUE, 0, FALSE, HEDDLE_BF16, 2 },
};

typedef struct
{
  const Case       *c;
  HeddleVariables  *vars;
  HeddleStage      *stage;
  HeddlePlan       *plan;
  HeddleProgram    *program;
  HeddleUpdateState state, twin_state;
  HeddleAmpOptions  amp_options;
  HeddleAmp         amp;
  Exec             *exec;
} Rig;

static HeddleDevice *device;
static HeddleRegistry *registry;
static Host *host;
static Rig rigs[G_N_ELEMENTS (cases)];

static HeddleDtype
copies (const HeddleVariable *v, gpointer data)
{
  return v->role == HEDDLE_ROLE_PARAM && !v->flat ? ((const Case *) data)->copy : 0;
}

static void
rig_open (Rig *r, const Case *c)
{
  GError *error = NULL;
  HeddleCore core = { .size = sizeof (HeddleCore) };
  HeddleInit init = { HEDDLE_INIT_NORMAL, 0, 1 };
  g_auto (GStrv) pairs = g_strsplit (c->options, ",", -1);
  ChainOptions options = { .copy = copies, .data = (gpointer) c };
  *r = (Rig) { .c = c, .vars = heddle_variables_new (), .amp_options = { .init_scale = 1024, .growth_factor = 2, .backoff_factor = 0.5, .growth_interval = 2 } };
  r->amp = (HeddleAmp) { .scaling = c->scaling, .options = &r->amp_options };
  r->stage = heddle_stage_new (heddle_stage_class_find ("optimizer", c->optimizer, &error), c->optimizer, registry, "t.lua:1: optimizer", &error);
  g_assert_no_error (error);
  for (guint i = 0; pairs[i]; i++)
    {
      g_auto (GStrv) pair = g_strsplit (pairs[i], "=", 2);
      heddle_stage_set_text (r->stage, pair[0], pair[1], NULL, &error);
      g_assert_no_error (error);
    }
  for (guint i = 0; i < N_PARAMS; i++)
    heddle_variables_declare (r->vars, params[i].name, HEDDLE_ROLE_PARAM, HEDDLE_F32, &params[i].shape, &init, &error);
  heddle_variables_group (r->vars, c->decay_weights);
  HeddleProgram *twin = heddle_optimizer_program (r->stage, &r->amp, r->vars, c->clip, 2, &core, &r->twin_state, &error);
  r->program = heddle_optimizer_program (r->stage, &r->amp, r->vars, c->clip, 2, &core, &r->state, &error);
  g_assert_no_error (error);
  r->plan = device->iface->compile (device, twin, &error);
  g_assert_no_error (error);
  g_assert_true (device->iface->allocate (device, r->vars, &error));
  g_assert_true (heddle_device_initialise (device, r->vars, 3, &error));
  r->exec = exec_new (host, r->program, &options, 0);
}

static void
rig_close (Rig *r)
{
  exec_free (r->exec);
  heddle_plan_free (r->plan);
  heddle_program_free (r->program);
  heddle_variables_free (r->vars);
  heddle_stage_free (r->stage);
  g_ptr_array_unref (r->state.hypers);
  g_ptr_array_unref (r->twin_state.hypers);
}

/* (transfer full) VARIABLE on the cpu device */
static float *
numbers_of (HeddleVariable *v)
{
  float *x = g_new0 (float, heddle_shape_count (&v->shape));
  HeddleTensor t = { HEDDLE_F32, v->shape, x };
  g_assert_true (device->iface->read (device, v, &t, NULL));
  return x;
}

static void
copy_state (Rig *r)
{
  for (guint i = 0; i < heddle_variables_count (r->vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (r->vars, i);
      g_autofree float *x = numbers_of (v);
      memcpy (exec_variable (r->exec, v), x, sizeof (float) * (gsize) heddle_shape_count (&v->shape));
    }
}

/* Gradients of step STEP, with an infinity among them in the second step of a scaled run */
static void
set_gradients (Rig *r, guint step)
{
  for (guint i = 0; i < N_PARAMS; i++)
    {
      HeddleVariable *g = heddle_variables_lookup (r->vars, params[i].name)->grad;
      gint64 n = heddle_shape_count (&g->shape);
      float *x = exec_variable (r->exec, g);
      HeddleTensor t = { HEDDLE_F32, g->shape, x };
      for (gint64 k = 0; k < n; k++)
        x[k] = (float) (cos ((double) k * 1.3 + 2.1 * step + i) * pow (10, (double) i - 2) * (r->c->scaling ? 1024 : 1));
      if (r->c->scaling && step == 1 && i == 2)
        x[7] = INFINITY;
      g_assert_true (device->iface->write (device, g, &t, NULL));
    }
  *(float *) exec_variable (r->exec, r->state.denominator) = 2.5f;
  g_assert_true (heddle_device_write_scalar (device, r->state.denominator, 2.5, NULL));
}

static void
compare (Rig *r, HeddleVariable *v, guint step)
{
  g_autofree float *theirs = numbers_of (v);
  const float *mine = exec_variable (r->exec, v);
  gint64 n = heddle_shape_count (&v->shape);
  double largest = 1e-30;
  for (gint64 i = 0; i < n; i++)
    largest = MAX (largest, isfinite (theirs[i]) ? fabs ((double) theirs[i]) : 0);
  for (gint64 i = 0; i < n; i++)
    if (memcmp (&mine[i], &theirs[i], 4) != 0 && !(isnan (mine[i]) && isnan (theirs[i])) && (r->c->exact || !(fabs ((double) mine[i] - (double) theirs[i]) <= NEAR * largest)))
      g_error ("%s: %s[%" G_GINT64_FORMAT "] after step %u: %.9g, the cpu device has %.9g", r->c->name, v->name, i, step, (double) mine[i], (double) theirs[i]);
}

/* The copy is the rounded parameter wherever an update has been made. */
static void
check_copies (Rig *r, guint step)
{
  for (guint i = 0; r->c->copy && i < heddle_variables_n_groups (r->vars); i++)
    {
      HeddleVariable *p = heddle_variables_nth_group (r->vars, i)->param;
      const guint16 *copy = g_hash_table_lookup (r->exec->copies, p);
      const float *x = exec_variable (r->exec, p);
      for (gint64 k = 0; k < heddle_shape_count (&p->shape); k++)
        if (copy[k] != (r->c->copy == HEDDLE_F16 ? heddle_f16_from_f32 (x[k]) : heddle_bf16_from_f32 (x[k])))
          g_error ("%s: the copy of %s[%" G_GINT64_FORMAT "] after step %u is 0x%04x for %.9g", r->c->name, p->name, k, step, copy[k], (double) x[k]);
    }
}

static void
test_case (gconstpointer data)
{
  Rig *r = (Rig *) data;
  copy_state (r);
  for (guint i = 0; i < heddle_variables_n_groups (r->vars); i++)
    g_assert_cmpuint (exec_count (r->exec, heddle_variables_nth_group (r->vars, i)->n), ==, r->c->launches);
  for (guint step = 0; step < STEPS; step++)
    {
      HeddleVariable *p = heddle_variables_nth_group (r->vars, 0)->param;
      gsize bytes = sizeof (float) * (gsize) p->group->n;
      g_autofree float *before = heddle_memdup (exec_variable (r->exec, p), bytes);
      set_gradients (r, step);
      g_assert_true (device->iface->run (r->plan, NULL, NULL));
      exec_run (r->exec);
      g_assert_cmpint (memcmp (before, exec_variable (r->exec, p), bytes) == 0, ==, r->c->scaling && step == 1);      /* skipped, or not */
      for (guint i = 0; i < heddle_variables_count (r->vars); i++)
        compare (r, heddle_variables_nth (r->vars, i), step);
      check_copies (r, step);
    }
}

static void
test_no_compiler (void)
{
  g_test_skip ("no g++");
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = 1;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  registry = heddle_registry_new (NULL);
  host = host_new ();
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    rig_open (&rigs[i], &cases[i]);
  gboolean built = host_build (host);
  for (guint i = 0; built && i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *path = g_strconcat ("/cuda-chain/updates/", cases[i].name, NULL);
      g_test_add_data_func (path, &rigs[i], test_case);
    }
  if (!built)
    g_test_add_func ("/cuda-chain/updates", test_no_compiler);
  int status = g_test_run ();
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    rig_close (&rigs[i]);
  host_free (host);
  heddle_device_close (device);
  heddle_registry_free (registry);
  return status;
}
