/* test-stage.c: stages as the graph sees them: classes by name, options of core and plugin together, what is missing; amp's choice; schedules' checks. */
#include <math.h>
#include <string.h>

#include "stage/stage.h"

static HeddleRegistry *registry;

static HeddleStage *
make (const char *verb, const char *variant)
{
  GError *error = NULL;
  const HeddleStageClass *class = heddle_stage_class_find (verb, variant, &error);
  g_assert_no_error (error);
  HeddleStage *stage = heddle_stage_new (class, variant, registry, "t.lua:3: stage", &error);
  g_assert_no_error (error);
  return stage;
}

static void
says (GError *error, int code, const char *text)
{
  g_assert_error (error, HEDDLE_ERROR, code);
  if (!strstr (error->message, text))
    g_error ("expected \"%s\" in: %s", text, error->message);
  g_error_free (error);
}

static void
test_classes (void)
{
  GError *error = NULL;
  g_assert_null (heddle_stage_class_find ("prefech", NULL, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_GRAPH, "did you mean \"prefetch\"?");
  g_assert_null (heddle_stage_class_find ("loss", "cross_entrpy", &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_GRAPH, "did you mean \"cross_entropy\"?");
  g_assert_null (heddle_stage_class_find ("loss", NULL, &error));
  g_assert_nonnull (error);
  g_clear_error (&error);
  for (guint i = 0; i < heddle_stage_class_count (); i++)
    {
      const HeddleStageClass *class = heddle_stage_class_nth (i);
      g_assert_true (class->verb && class->summary);
      g_assert_cmpuint (class->min_inputs, <=, class->max_inputs);
      if (class->options.options)
        heddle_options_validate (class->options, class->instance_size, &error);
      g_assert_no_error (error);
    }
}

/* One table of names for whoever writes the script: the core's and the plugin's. */
static void
test_options (void)
{
  GError *error = NULL;
  g_autoptr (HeddleStage) sgd = make ("optimizer", "sgd");
  g_assert_true (heddle_stage_set_text (sgd, "lr", "0.25", NULL, &error));
  g_assert_true (heddle_stage_set_text (sgd, "decay", "weights", NULL, &error));
  g_assert_no_error (error);
  g_autofree char *lr = heddle_options_print (sgd->plugin->entry->options, sgd->plugin->self, "lr"), *decay = heddle_options_print (sgd->class->options, sgd->self, "decay");
  g_assert_cmpstr (lr, ==, "0.25");
  g_assert_cmpstr (decay, ==, "\"weights\"");
  g_assert_false (heddle_stage_set_text (sgd, "momentun", "0.9", NULL, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_OPTION, "did you mean \"momentum\"?");
  g_assert_false (heddle_stage_set_text (sgd, "dekay", "all", NULL, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_OPTION, "did you mean \"decay\"?");
}

static void
test_complete (void)
{
  GError *error = NULL;
  g_autoptr (HeddleStage) step = make ("schedule", "step"), idx = make ("dataset", "idx");
  g_assert_false (heddle_stage_complete (step, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_OPTION, "\"step_size\"");
  g_assert_true (heddle_stage_set_text (step, "step_size", "3", NULL, &error));
  g_assert_true (heddle_stage_complete (step, &error));
  g_assert_false (heddle_stage_complete (idx, &error));
  g_assert_nonnull (error);
  g_clear_error (&error);
}

/* ---- amp: which dtype, by a device that only answers that question ---- */

static guint abilities;
static gboolean computes (HeddleDevice *device, HeddleDtype dtype) { return abilities >> dtype & 1; }
static const HeddleDeviceIface iface = { .size = sizeof iface, .computes = computes };

static void
check_amp (const char *device_name, guint able, const char *dtype, HeddleDtype low, gboolean scaling)
{
  HeddleDevice device = { &iface, NULL, (char *) device_name };
  HeddleAmp amp;
  g_autoptr (HeddleStage) stage = make ("amp", NULL);
  g_assert_true (heddle_stage_set_text (stage, "dtype", dtype, NULL, NULL));
  abilities = able;
  heddle_amp_resolve (stage, &device, &amp);
  g_assert_cmpint (amp.low, ==, low);
  g_assert_cmpint (amp.scaling, ==, scaling);
  g_free (amp.why);
}

static void
test_amp (void)
{
  guint f32 = 1u << HEDDLE_F32, f16 = 1u << HEDDLE_F16, bf16 = 1u << HEDDLE_BF16;
  check_amp ("cpu", f32, "auto", 0, FALSE);
  check_amp ("cpu", f32 | bf16, "auto", HEDDLE_BF16, FALSE);
  check_amp ("cuda:0", f32 | f16 | bf16, "auto", HEDDLE_BF16, FALSE);
  check_amp ("cuda:0", f32 | f16, "auto", HEDDLE_F16, TRUE);
  check_amp ("cpu", f32, "f16", HEDDLE_F16, TRUE);
  check_amp ("cpu", f32, "bf16", HEDDLE_BF16, FALSE);
  check_amp ("cuda:0", f32 | f16 | bf16, "f32", 0, FALSE);
  HeddleAmp amp;
  g_autoptr (HeddleStage) stage = make ("amp", NULL);
  g_assert_true (heddle_stage_set_text (stage, "scaler", "on", NULL, NULL) && heddle_stage_set_text (stage, "dtype", "bf16", NULL, NULL));
  heddle_amp_resolve (stage, NULL, &amp);
  g_assert_true (amp.scaling);
  g_free (amp.why);
}

/* ---- schedules: what the fixtures, which are PyTorch's, have no word for ---- */

static void
test_schedule_checks (void)
{
  GError *error = NULL;
  g_autoptr (HeddleStage) multi = make ("schedule", "multistep"), constant = make ("schedule", "constant");
  g_assert_true (heddle_stage_set_text (multi, "milestones", "5, 3", NULL, &error));
  g_assert_false (heddle_schedule_validate (multi, 100, 10, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_OPTION, "\"milestones\" must rise");
  g_assert_true (heddle_stage_set_text (constant, "warmup", "100", NULL, &error));
  g_assert_false (heddle_schedule_validate (constant, 100, 10, &error));
  says (g_steal_pointer (&error), HEDDLE_ERROR_OPTION, "warm-up of 100 updates");
}

/* Update u of a warm-up over n: start + (1 - start) (u + 1) / n; then the schedule as if it began there. */
static void
test_warmup (void)
{
  g_autoptr (HeddleStage) cosine = make ("schedule", "cosine");
  g_assert_true (heddle_stage_set_text (cosine, "warmup", "10", NULL, NULL) && heddle_stage_set_text (cosine, "warmup_start", "0.2", NULL, NULL)
                 && heddle_stage_set_text (cosine, "eta_min", "0.01", NULL, NULL));
  g_assert_true (heddle_schedule_validate (cosine, 110, 11, NULL));
  for (gint64 u = 0; u < 140; u++)
    {
      double share = MIN (1.0, (double) (u - 10) / 100), rate = 0.1 * heddle_schedule_at (cosine, u, 110, 0.1).lr;
      double expected = u < 10 ? 0.1 * (0.2 + 0.8 * (double) (u + 1) / 10) : 0.01 + (0.1 - 0.01) / 2 * (1 + cos (G_PI * share));
      g_assert_cmpfloat_with_epsilon (rate, expected, 1e-12);
    }
}

/* Momentum runs against the rate: highest where the rate is lowest. */
static void
test_one_cycle_momentum (void)
{
  g_autoptr (HeddleStage) cycle = make ("schedule", "one_cycle"), still = make ("schedule", "one_cycle");
  g_assert_true (heddle_stage_set_text (cycle, "cycle_momentum", "true", NULL, NULL));
  g_assert_true (heddle_schedule_validate (cycle, 100, 10, NULL));
  g_assert_cmpfloat_with_epsilon (heddle_schedule_at (cycle, 0, 100, 0.1).momentum, 0.95, 1e-9);
  g_assert_cmpfloat_with_epsilon (heddle_schedule_at (cycle, 29, 100, 0.1).momentum, 0.85, 1e-9);
  g_assert_cmpfloat_with_epsilon (heddle_schedule_at (cycle, 29, 100, 0.1).lr, 1, 1e-9);
  g_assert_cmpfloat_with_epsilon (heddle_schedule_at (cycle, 99, 100, 0.1).momentum, 0.95, 1e-9);
  g_assert_cmpfloat_with_epsilon (heddle_schedule_at (cycle, 500, 100, 0.1).lr, 1 / 25.0 / 1e4, 1e-12);
  g_assert_true (isnan (heddle_schedule_at (still, 29, 100, 0.1).momentum));
}

static void
test_plateau (void)
{
  static const double metric[] = { 0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7, 0.7 };
  static const double factor[] = { 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01 };   /* patience 2: the third in a row drops */
  g_autoptr (HeddleStage) s = make ("schedule", "plateau");
  g_assert_true (heddle_stage_set_text (s, "mode", "max", NULL, NULL) && heddle_stage_set_text (s, "patience", "2", NULL, NULL));
  g_assert_true (heddle_schedule_validate (s, 100, 10, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (metric); i++)
    {
      heddle_schedule_report (s, metric[i]);
      g_assert_cmpfloat_with_epsilon (heddle_schedule_at (s, i, 100, 1).lr, factor[i], 1e-12);
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  registry = heddle_registry_new (NULL);
  g_test_add_func ("/stage/classes", test_classes);
  g_test_add_func ("/stage/options", test_options);
  g_test_add_func ("/stage/complete", test_complete);
  g_test_add_func ("/stage/amp", test_amp);
  g_test_add_func ("/schedule/checks", test_schedule_checks);
  g_test_add_func ("/schedule/warmup", test_warmup);
  g_test_add_func ("/schedule/one-cycle-momentum", test_one_cycle_momentum);
  g_test_add_func ("/schedule/plateau", test_plateau);
  int status = g_test_run ();
  heddle_registry_free (registry);
  return status;
}
