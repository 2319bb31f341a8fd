/* test-optimizers.c: Lion and LAMB on groups of several parameters, against the papers' formulas written here in double precision, one loop per parameter.
 * Must not know how the rules are emitted: it writes gradients, runs updates, reads parameters. */
#include <math.h>

#include "stage/stage.h"

#define STEPS 5
#define N_PARAMS 4
#define MAX_COUNT 70001

/* odd sizes leave gaps; one is longer than a block of the kernel; "zero" starts at 0, where LAMB's ratio must be 1 */
static const struct { const char *name; HeddleShape shape; } params[N_PARAMS] = {
  { "five", { 1, { 5 } } }, { "matrix", { 2, { 3, 17 } } }, { "zero", { 2, { 7, 3 } } }, { "long", { 2, { 1, MAX_COUNT } } },
};

typedef struct
{
  HeddleDevice     *device;
  HeddleRegistry   *registry;
  HeddleVariables  *vars;
  HeddleStage      *stage;
  HeddlePlan       *plan;
  HeddleVariable   *p[N_PARAMS];
  HeddleUpdateState state;
} Rig;

static void
rig_open (Rig *r, const char *optimizer, const char *const *set, int threads)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  HeddleCore core = { .size = sizeof (HeddleCore) };
  HeddleInit init = { HEDDLE_INIT_CONSTANT, 0, 0 };
  *r = (Rig) { .registry = heddle_registry_new (NULL), .vars = heddle_variables_new () };
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = threads;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  r->device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  r->stage = heddle_stage_new (heddle_stage_class_find ("optimizer", optimizer, &error), optimizer, r->registry, "t.lua:1: optimizer", &error);
  g_assert_no_error (error);
  for (guint i = 0; set[i]; i += 2)
    g_assert_true (heddle_stage_set_text (r->stage, set[i], set[i + 1], NULL, &error));
  for (guint i = 0; i < N_PARAMS; i++)
    r->p[i] = heddle_variables_declare (r->vars, params[i].name, HEDDLE_ROLE_PARAM, HEDDLE_F32, &params[i].shape, &init, &error);
  heddle_variables_group (r->vars, ((const HeddleOptimizerOptions *) r->stage->self)->decay == 2);       /* "weights" */
  HeddleProgram *program = heddle_optimizer_program (r->stage, NULL, r->vars, 0, 1, &core, &r->state, &error);
  g_assert_no_error (error);
  r->plan = r->device->iface->compile (r->device, program, &error);
  g_assert_no_error (error);
  g_assert_true (r->device->iface->allocate (r->device, r->vars, &error));
  g_assert_true (heddle_device_initialise (r->device, r->vars, 0, &error));
}

static void
rig_close (Rig *r)
{
  heddle_plan_free (r->plan);
  heddle_variables_free (r->vars);
  heddle_device_close (r->device);
  heddle_stage_free (r->stage);
  g_ptr_array_unref (r->state.hypers);
  heddle_registry_free (r->registry);
}

static gint64
count (guint i)
{
  return heddle_shape_count (&params[i].shape);
}

static float
start (guint i, gint64 k)
{
  return i == 2 ? 0 : (float) (sin ((double) k * 0.7 + i) * (i + 1));
}

/* Gradients of very different lengths; the second step's are 0. */
static float
gradient (guint step, guint i, gint64 k)
{
  return step == 1 ? 0 : (float) (cos ((double) k * 1.3 + 2.1 * step + i) * pow (10, (double) i - 2));
}

/* (transfer full) the parameters after all steps */
static float *
run (const char *optimizer, const char *const *set, int threads, guint which)
{
  Rig r;
  g_autofree float *numbers = g_new0 (float, MAX_COUNT);
  float *after = g_new0 (float, MAX_COUNT);
  rig_open (&r, optimizer, set, threads);
  for (guint step = 0; step <= STEPS; step++)
    {
      for (guint i = 0; i < N_PARAMS; i++)
        {
          HeddleTensor t = { HEDDLE_F32, params[i].shape, numbers };
          for (gint64 k = 0; k < count (i); k++)
            numbers[k] = step == 0 ? start (i, k) : gradient (step - 1, i, k);
          g_assert_true (r.device->iface->write (r.device, step == 0 ? r.p[i] : r.p[i]->grad, &t, NULL));
        }
      if (step == 0)
        continue;
      g_assert_true (heddle_device_write_scalar (r.device, r.state.denominator, 1, NULL));
      g_assert_true (r.device->iface->run (r.plan, NULL, NULL));
    }
  HeddleTensor t = { HEDDLE_F32, params[which].shape, after };
  g_assert_true (r.device->iface->read (r.device, r.p[which], &t, NULL));
  rig_close (&r);
  return after;
}

typedef struct { double lr, b1, b2, eps, decay; } Hyper;
typedef void (*Rule) (const Hyper *h, guint t, gint64 n, double *p, const double *g, double *m, double *v);

/* arXiv 2302.06675, algorithm 2 */
static void
lion (const Hyper *h, guint t, gint64 n, double *p, const double *g, double *m, double *v)
{
  for (gint64 k = 0; k < n; k++)
    {
      double c = h->b1 * m[k] + (1 - h->b1) * g[k];
      p[k] -= h->lr * ((c > 0) - (c < 0) + h->decay * p[k]);
      m[k] = h->b2 * m[k] + (1 - h->b2) * g[k];
    }
}

/* arXiv 1904.00962, algorithm 2, phi (z) = z */
static void
lamb (const Hyper *h, guint t, gint64 n, double *p, const double *g, double *m, double *v)
{
  g_autofree double *d = g_new (double, n);
  double norm_p = 0, norm_d = 0;
  for (gint64 k = 0; k < n; k++)
    {
      m[k] = h->b1 * m[k] + (1 - h->b1) * g[k];
      v[k] = h->b2 * v[k] + (1 - h->b2) * g[k] * g[k];
      d[k] = m[k] / (1 - pow (h->b1, t)) / (sqrt (v[k] / (1 - pow (h->b2, t))) + h->eps) + h->decay * p[k];
      norm_p += p[k] * p[k];
      norm_d += d[k] * d[k];
    }
  double ratio = norm_p > 0 && norm_d > 0 ? sqrt (norm_p) / sqrt (norm_d) : 1;
  for (gint64 k = 0; k < n; k++)
    p[k] -= h->lr * ratio * d[k];
}

/* Small vectors are undecayed when DECAY_WEIGHTS. */
static void
check (const char *optimizer, const char *const *set, Rule rule, Hyper h, gboolean decay_weights, double tolerance)
{
  for (guint i = 0; i < N_PARAMS; i++)
    {
      gint64 n = count (i);
      g_autofree double *p = g_new (double, n), *g = g_new (double, n), *m = g_new0 (double, n), *v = g_new0 (double, n);
      Hyper own = h;
      own.decay = decay_weights && params[i].shape.rank <= 1 ? 0 : h.decay;
      for (gint64 k = 0; k < n; k++)
        p[k] = start (i, k);
      for (guint step = 0; step < STEPS; step++)
        {
          for (gint64 k = 0; k < n; k++)
            g[k] = gradient (step, i, k);
          rule (&own, step + 1, n, p, g, m, v);
        }
      g_autofree float *one = run (optimizer, set, 1, i), *two = run (optimizer, set, 2, i);
      for (gint64 k = 0; k < n; k++)
        if (!(fabs (one[k] - p[k]) <= tolerance * (1 + fabs (p[k]))))
          g_error ("%s: %s[%d]: expected %.9g, got %.9g", optimizer, params[i].name, (int) k, p[k], one[k]);
      g_assert_cmpmem (one, n * sizeof (float), two, n * sizeof (float));          /* threads change no bit */
    }
}

#define SET(...) ((const char *const[]) { __VA_ARGS__, NULL })

static void
test_lion (void)
{
  check ("lion", SET ("lr", "0.01"), lion, (Hyper) { 0.01, 0.9, 0.99, 0, 0 }, FALSE, 1e-6);
  check ("lion", SET ("lr", "0.02", "betas", "0.5,0.75", "weight_decay", "0.3"), lion, (Hyper) { 0.02, 0.5, 0.75, 0, 0.3 }, FALSE, 1e-6);
  check ("lion", SET ("lr", "0.02", "weight_decay", "0.3", "decay", "weights"), lion, (Hyper) { 0.02, 0.9, 0.99, 0, 0.3 }, TRUE, 1e-6);
}

static void
test_lamb (void)
{
  check ("lamb", SET ("lr", "0.01"), lamb, (Hyper) { 0.01, 0.9, 0.999, 1e-6, 0.01 }, FALSE, 2e-6);
  check ("lamb", SET ("lr", "0.02", "betas", "0.5,0.75", "eps", "0.001", "weight_decay", "0"), lamb, (Hyper) { 0.02, 0.5, 0.75, 1e-3, 0 }, FALSE, 2e-6);
  check ("lamb", SET ("lr", "0.02", "betas", "0,0.9", "weight_decay", "0.5", "decay", "weights"), lamb, (Hyper) { 0.02, 0, 0.9, 1e-6, 0.5 }, TRUE, 2e-6);
}

static void
refused (const char *optimizer)
{
  GError *error = NULL;
  g_autoptr (HeddleRegistry) registry = heddle_registry_new (NULL);
  g_autoptr (HeddleStage) stage = heddle_stage_new (heddle_stage_class_find ("optimizer", optimizer, &error), optimizer, registry, "t", &error);
  g_assert_true (heddle_stage_set_text (stage, "betas", "0.9", NULL, &error));
  const HeddleOptimizerIface *iface = stage->plugin->entry->plugin->iface;
  g_assert_false (iface->check (stage->plugin->self, &error));
  g_assert_nonnull (strstr (error->message, "option \"betas\": two numbers are expected, got 1\nhint: "));
  g_error_free (error);
}

static void
test_refusals (void)
{
  refused ("lion");
  refused ("lamb");
}

/* Sums over parameters are for parameters: any other second input, or a tensor of another length, is refused. */
static void
test_windows_refused (void)
{
  for (guint way = 0; way < 3; way++)
    {
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
      heddle_param (b, "p", heddle_shape (5), (HeddleInit) { 0 });
      heddle_variables_group (vars, FALSE);
      HeddleValue *flat = heddle_builder_variable (b, heddle_variables_nth_group (vars, 0)->param), *x = heddle_builder_input (b, "x", HEDDLE_F32, &heddle_shape (way == 1 ? 5 : 16));
      HeddleUpdate u = { .param = way == 0 ? x : flat };
      g_assert_null (way == 2 ? heddle_param_spread (&u, b, x) : heddle_param_sum (&u, b, x));
      const char *says = way == 0 ? "input 2: expected the parameters of a group" : way == 1 ? "input 1: expected a tensor as long as the group" : "input 1: expected one f32 number per parameter";
      g_assert_nonnull (strstr (heddle_builder_error (b)->message, says));
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/optimizers/lion", test_lion);
  g_test_add_func ("/optimizers/lamb", test_lamb);
  g_test_add_func ("/optimizers/refusals", test_refusals);
  g_test_add_func ("/optimizers/windows-refused", test_windows_refused);
  return g_test_run ();
}
