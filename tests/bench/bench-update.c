/* bench/bench-update.c: the update program alone: AdamW over ResNet-18's parameters; one JSON line, as peer_update.py prints.
 * Must not know how the update is compiled: it declares the parameters, emits the program as a run does, and runs it. */
#include <stdio.h>
#include <stdlib.h>

#include "stage/stage.h"

static const char options_text[][2][16] = { { "lr", "0.001" }, { "weight_decay", "0.01" } };

static void
fail_on (GError *error)
{
  if (error)
    {
      fprintf (stderr, "bench-update: %s\n", error->message);
      exit (1);
    }
}

/* The parameters of the network are those its plugin declares; the program around them is thrown away. */
static void
declare_parameters (HeddleRegistry *registry, HeddleVariables *vars, GError **error)
{
  const HeddleRegistryEntry *entry = heddle_registry_find (registry, "model", "resnet", error);
  fail_on (*error);
  g_autoptr (HeddleInstance) model = heddle_instance_new (entry);
  heddle_options_set_text (entry->options, model->self, "classes", "1000", NULL, error);
  heddle_options_set_text (entry->options, model->self, "depth", "18", NULL, error);
  fail_on (*error);
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("train", vars, TRUE, 0);
  HeddleShape shape = heddle_shape (1, 3, 224, 224);
  HeddleValue *image = heddle_builder_input (b, "image", HEDDLE_F32, &shape), *out[1] = { NULL };
  const HeddleModelIface *iface = entry->plugin->iface;
  iface->build (model->self, b, &image, 1, out, error);
  heddle_variables_group (vars, FALSE);
}

static HeddleDevice *
open_device (const char *threads, GError **error)
{
  HeddleFlags flags = { 0 };
  g_autofree char *why = NULL;
  heddle_options_init (heddle_flags_options (), &flags);
  heddle_options_set_text (heddle_flags_options (), &flags, "threads", threads, NULL, error);
  fail_on (*error);
  heddle_flags_resolve (&flags, NULL, error);
  fail_on (*error);
  return heddle_device_open ("cpu", &flags, &why, error);
}

static void
fill (HeddleDevice *device, HeddleVariable *v, float number)
{
  gsize n = (gsize) heddle_shape_count (&v->shape);
  g_autofree float *numbers = g_new (float, n);
  for (gsize i = 0; i < n; i++)
    numbers[i] = number;
  HeddleTensor t = { HEDDLE_F32, v->shape, numbers };
  GError *error = NULL;
  device->iface->write (device, v, &t, &error);
  fail_on (error);
}

static double
one_update (HeddleDevice *device, HeddlePlan *plan, const HeddleUpdateState *state)
{
  GError *error = NULL;
  heddle_device_write_scalar (device, state->denominator, 1, &error);
  fail_on (error);
  gint64 start = g_get_monotonic_time ();
  device->iface->run (plan, NULL, &error);
  fail_on (error);
  device->iface->sync (device, &error);
  fail_on (error);
  return (double) (g_get_monotonic_time () - start) / 1e3;
}

static int
compare_doubles (gconstpointer a, gconstpointer b)
{
  return *(const double *) a > *(const double *) b ? 1 : -1;
}

/* Ten updates from parameters of 0.5 and gradients of 0.01, whose result PyTorch must share; then timed ones for SECONDS. */
static void
measure (HeddleDevice *device, HeddlePlan *plan, HeddleVariables *vars, const HeddleUpdateState *state, double seconds)
{
  HeddleGroup *group = heddle_variables_nth_group (vars, 0);
  HeddleVariable *first = group->params->pdata[0];
  gsize n = (gsize) heddle_shape_count (&first->shape);
  g_autofree float *numbers = g_new (float, n);
  HeddleTensor t = { HEDDLE_F32, first->shape, numbers };
  g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (double));
  for (guint i = 0; i < group->params->len; i++)
    {
      HeddleVariable *param = group->params->pdata[i];
      fill (device, param, 0.5f);
      fill (device, param->grad, 0.01f);
    }
  for (guint i = 0; i < 10; i++)
    one_update (device, plan, state);
  device->iface->read (device, first, &t, NULL);
  for (gint64 end = g_get_monotonic_time () + (gint64) (seconds * 1e6); g_get_monotonic_time () < end || times->len < 3;)
    {
      double ms = one_update (device, plan, state);
      g_array_append_val (times, ms);
    }
  g_array_sort (times, compare_doubles);
  printf ("{\"parameters\": %" G_GINT64_FORMAT ", \"after_10\": %.7g, \"updates\": %u, \"ms\": %.4f}\n",
          heddle_variables_n_params (vars), (double) numbers[0], times->len, g_array_index (times, double, times->len / 2));
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  HeddleCore core = { .size = sizeof core };
  HeddleUpdateState state = { 0 };
  g_autoptr (HeddleRegistry) registry = heddle_registry_new (NULL);
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  declare_parameters (registry, vars, &error);
  fail_on (error);
  g_autoptr (HeddleDevice) device = open_device (argc > 1 ? argv[1] : "1", &error);
  fail_on (error);
  const HeddleStageClass *class = heddle_stage_class_find ("optimizer", "adamw", &error);
  fail_on (error);
  g_autoptr (HeddleStage) stage = heddle_stage_new (class, "adamw", registry, "optimizer", &error);
  fail_on (error);
  for (guint i = 0; i < G_N_ELEMENTS (options_text); i++)
    heddle_stage_set_text (stage, options_text[i][0], options_text[i][1], NULL, &error);
  fail_on (error);
  HeddleProgram *program = heddle_optimizer_program (stage, NULL, vars, 0, 1, &core, &state, &error);
  fail_on (error);
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, program, &error);
  fail_on (error);
  device->iface->allocate (device, vars, &error);
  fail_on (error);
  heddle_device_initialise (device, vars, 0, &error);
  fail_on (error);
  measure (device, plan, vars, &state, argc > 2 ? g_ascii_strtod (argv[2], NULL) : 1);
  g_clear_pointer (&plan, heddle_plan_free);
  g_ptr_array_unref (state.hypers);
  return 0;
}
