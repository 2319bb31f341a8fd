/* test-optimizer.c: the update program on the cpu device against numbers worked out by torch.optim and GradScaler in float64.
 * Must not know how the program is emitted: it writes gradients and reads parameters. */
#include <math.h>

#include "stage/stage.h"

typedef struct
{
  HeddleDevice     *device;
  HeddleRegistry   *registry;
  HeddleVariables  *vars;
  HeddleStage      *stage;
  HeddlePlan       *plan;
  HeddleVariable   *w;             /* (n) */
  HeddleUpdateState state;
} Rig;

static void
rig_open (Rig *r, const char *optimizer, const char *const *set, gint64 n, const HeddleAmp *amp, double clip, double nominal)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  char *why = NULL;
  HeddleCore core = { .size = sizeof (HeddleCore) };
  HeddleShape shape = { .rank = 1, .size = { n } };
  HeddleInit init = { HEDDLE_INIT_CONSTANT, 0, 0 };
  *r = (Rig) { .registry = heddle_registry_new (NULL), .vars = heddle_variables_new () };
  heddle_options_init (heddle_flags_options (), &flags);
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  r->device = heddle_device_open ("cpu", &flags, &why, &error);
  g_assert_no_error (error);
  g_free (why);
  r->stage = heddle_stage_new (heddle_stage_class_find ("optimizer", optimizer, &error), optimizer, r->registry, "t.lua:1: optimizer", &error);
  g_assert_no_error (error);
  for (guint i = 0; set[i]; i += 2)
    g_assert_true (heddle_stage_set_text (r->stage, set[i], set[i + 1], NULL, &error));
  r->w = heddle_variables_declare (r->vars, "w", HEDDLE_ROLE_PARAM, HEDDLE_F32, &shape, &init, &error);
  heddle_variables_group (r->vars, FALSE);
  HeddleProgram *program = heddle_optimizer_program (r->stage, amp, r->vars, clip, nominal, &core, &r->state, &error);
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

static void
put (Rig *r, HeddleVariable *v, float *numbers)
{
  HeddleTensor t = { HEDDLE_F32, v->shape, numbers };
  g_assert_true (r->device->iface->write (r->device, v, &t, NULL));
}

static void
get (Rig *r, HeddleVariable *v, float *numbers)
{
  HeddleTensor t = { HEDDLE_F32, v->shape, numbers };
  g_assert_true (r->device->iface->read (r->device, v, &t, NULL));
}

static double
scalar (Rig *r, HeddleVariable *v)
{
  double x = NAN;
  g_assert_true (heddle_device_read_scalar (r->device, v, &x, NULL));
  return x;
}

static void
update (Rig *r, float *grad, double denominator)
{
  put (r, r->w->grad, grad);
  g_assert_true (heddle_device_write_scalar (r->device, r->state.denominator, denominator, NULL));
  g_assert_true (r->device->iface->run (r->plan, NULL, NULL));
}

/* ---- rules: semantics as in torch.optim 2.x, float64; ours is float32 ---- */

static void
check_rule (const char *optimizer, const char *const *set, double start, const float *grads, guint n, const double *expected, guint first)
{
  Rig r;
  rig_open (&r, optimizer, set, 1, NULL, 0, 1);
  float p = (float) start;
  put (&r, r.w, &p);
  for (guint i = 0; i < n; i++)
    {
      float g = grads[i];
      update (&r, &g, 1);
      get (&r, r.w, &p);
      if (i >= first)
        g_assert_cmpfloat_with_epsilon (p, expected[i - first], 1e-6);
    }
  g_assert_cmpfloat (scalar (&r, r.state.updates), ==, n);
  rig_close (&r);
}

static const float mixed[] = { 1, -0.5f, 3, 0.1f, 0.1f, 0.2f }, ones[] = { 1, 1, 1 };
#define SET(...) ((const char *const[]) { __VA_ARGS__, NULL })

static void
test_sgd (void)
{
  check_rule ("sgd", SET ("lr", "0.1", "momentum", "0.9", "dampening", "0.5"), 1, ones, 3, (double[]) { 0.9, 0.76, 0.584 }, 0);
  check_rule ("sgd", SET ("lr", "0.1", "momentum", "0.9", "nesterov", "true", "weight_decay", "0.1"), 1, ones, 3, (double[]) { 0.791, 0.496871, 0.129833 }, 0);
  check_rule ("sgd", SET ("lr", "0.1"), 1, ones, 3, (double[]) { 0.9, 0.8, 0.7 }, 0);
  /* g := -g + wd p: 1.1 - ... by hand: p - 0.1 (-1 + 0.5 p) */
  check_rule ("sgd", SET ("lr", "0.1", "maximize", "true", "weight_decay", "0.5"), 1, ones, 2, (double[]) { 1.05, 1.0975 }, 0);
}

static void
check_adam (const char *const *set, double expected)
{
  check_rule ("adamw", set, 0.7, mixed, 6, &expected, 5);
}

static void
test_adam (void)
{
  check_adam (SET ("lr", "0.01", "decoupled", "false", "weight_decay", "0.1"), 0.663417950128512);
  check_adam (SET ("lr", "0.01", "decoupled", "false", "weight_decay", "0.1", "maximize", "true"), 0.732376750213764);
  check_adam (SET ("lr", "0.01", "decoupled", "false", "weight_decay", "0", "amsgrad", "true"), 0.665405523724687);
  check_adam (SET ("lr", "0.01", "weight_decay", "0.1"), 0.661312752027336);
  check_adam (SET ("lr", "0.01", "weight_decay", "0.1", "amsgrad", "true"), 0.661312940216192);
  check_adam (SET ("lr", "0.01", "weight_decay", "0.1", "maximize", "true"), 0.730308219993655);
  check_adam (SET ("lr", "0.01", "weight_decay", "0.1", "maximize", "true", "amsgrad", "true"), 0.730308031804800);
}

/* ---- clipping and averaging ---- */

static void
test_clip (void)
{
  Rig r;
  float g[6] = { 2, 2, 2, 2, 2, 2 }, p[6] = { 0 };
  rig_open (&r, "sgd", SET ("lr", "1"), 6, NULL, 1, 1);
  update (&r, g, 1);
  get (&r, r.w, p);
  g_assert_cmpfloat_with_epsilon (scalar (&r, r.state.norm), 4.898979, 1e-5);
  for (guint i = 0; i < 6; i++)
    g_assert_cmpfloat_with_epsilon (p[i], -0.4082482, 1e-6);
  /* a norm below the limit is left alone */
  float small[6] = { 0.1f, 0, 0, 0, 0, 0 };
  update (&r, small, 1);
  get (&r, r.w, p);
  g_assert_cmpfloat_with_epsilon (p[0], -0.5082482, 1e-6);
  rig_close (&r);
}

/* Gradients came with weight / nominal; the update divides by the denominators that were really met, and by nothing if none was. */
static void
test_average (void)
{
  Rig r;
  float g = 3, p;
  rig_open (&r, "sgd", SET ("lr", "1"), 1, NULL, 0, 8);
  update (&r, &g, 6);
  get (&r, r.w, &p);
  g_assert_cmpfloat_with_epsilon (p, -4, 1e-6);                /* 3 x 8 / 6 */
  g_assert_cmpfloat (scalar (&r, r.state.denominator), ==, 0);
  update (&r, &g, 0);
  get (&r, r.w, &p);
  g_assert_cmpfloat_with_epsilon (p, -4, 1e-6);
  rig_close (&r);
}

/* Without a scaler nothing is skipped, as in PyTorch. */
static void
test_nonfinite_unscaled (void)
{
  Rig r;
  float g = INFINITY, p;
  rig_open (&r, "sgd", SET ("lr", "1"), 1, NULL, 0, 1);
  update (&r, &g, 1);
  get (&r, r.w, &p);
  g_assert_false (isfinite (p));
  rig_close (&r);
}

/* ---- the scaler: torch.amp.GradScaler, _amp_update_scale_ ---- */

typedef struct { float grad; double param, scale, tracker, skipped, consecutive; } Trace;

static void
check_trace (double init, gint64 interval, double min_scale, const Trace *trace, guint n)
{
  HeddleAmpOptions options = { .init_scale = init, .growth_factor = 2, .backoff_factor = 0.5, .min_scale = min_scale, .growth_interval = interval };
  HeddleAmp amp = { .scaling = TRUE, .options = &options };
  Rig r;
  float p = 0;
  rig_open (&r, "sgd", SET ("lr", "1", "momentum", "0.5"), 1, &amp, 0, 1);
  for (guint i = 0; i < n; i++)
    {
      float g = (float) ((double) trace[i].grad * scalar (&r, r.state.scale));
      update (&r, &g, 1);
      get (&r, r.w, &p);
      g_assert_cmpfloat_with_epsilon (p, trace[i].param, 1e-6);
      g_assert_cmpfloat (scalar (&r, r.state.scale), ==, trace[i].scale);
      g_assert_cmpfloat (scalar (&r, r.state.tracker), ==, trace[i].tracker);
      g_assert_cmpfloat (scalar (&r, r.state.skipped), ==, trace[i].skipped);
      g_assert_cmpfloat (scalar (&r, r.state.consecutive), ==, trace[i].consecutive);
      g_assert_cmpfloat (scalar (&r, r.state.updates), ==, i + 1 - trace[i].skipped);
    }
  rig_close (&r);
}

/* Momentum 0.5, gradient 1: steps of 1, 1.5, 1.75.  A skip leaves parameter and momentum, halves the scale, clears the tracker;
 * two good updates in a row double it. */
static void
test_scaler (void)
{
  static const Trace trace[] = {
    { 1, -1, 8, 1, 0, 0 }, { 1, -2.5, 16, 0, 0, 0 }, { INFINITY, -2.5, 8, 0, 1, 1 }, { NAN, -2.5, 4, 0, 2, 2 }, { 1, -4.25, 4, 1, 2, 0 },
    { -INFINITY, -4.25, 2, 0, 3, 1 }, { 0, -5.125, 2, 1, 3, 0 }, { 0, -5.5625, 4, 0, 3, 0 },
  };
  check_trace (8, 2, 0, trace, G_N_ELEMENTS (trace));
}

static void
test_scaler_floor (void)
{
  static const Trace trace[] = { { INFINITY, 0, 1, 0, 1, 1 }, { INFINITY, 0, 1, 0, 2, 2 }, { 1, -1, 1, 1, 2, 0 } };
  check_trace (2, 2000, 1, trace, G_N_ELEMENTS (trace));
}

/* Growth past the largest f32 leaves the scale as it was. */
static void
test_scaler_ceiling (void)
{
  static const Trace trace[] = { { 0, 0, 0x1p127, 0, 0, 0 }, { 0, 0, 0x1p127, 0, 0, 0 } };
  check_trace (0x1p127, 1, 0, trace, G_N_ELEMENTS (trace));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/optimizer/sgd", test_sgd);
  g_test_add_func ("/optimizer/adam", test_adam);
  g_test_add_func ("/optimizer/clip", test_clip);
  g_test_add_func ("/optimizer/average", test_average);
  g_test_add_func ("/optimizer/nonfinite-unscaled", test_nonfinite_unscaled);
  g_test_add_func ("/optimizer/scaler", test_scaler);
  g_test_add_func ("/optimizer/scaler-floor", test_scaler_floor);
  g_test_add_func ("/optimizer/scaler-ceiling", test_scaler_ceiling);
  return g_test_run ();
}
