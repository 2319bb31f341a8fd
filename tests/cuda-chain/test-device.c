/* cuda-chain/test-device.c: programs of elementwise operations and optimizer updates on a cuda device, as generated kernels launched by plans, against the cpu device.
 * Run by test-device.sh on the simulated device; on a real one by hand.  Must not know how a plan is made.
 * Host code of the simulated device rounds as the cpu does; AdamW's expm1 differs in the last place. */
#include "stage/stage.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define STEPS 3

typedef struct { const char *name, *optimizer, *options; double near; } Case;
static const Case cases[] = {
  { "sgd", "sgd", "lr=0.1,momentum=0.9,weight_decay=0.01", 0 }, { "adamw", "adamw", "lr=0.01", 2e-6 }, { "rmsprop", "rmsprop", "lr=0.01,momentum=0.9,centered=true", 0 },
  { "lion", "lion", "lr=0.001,weight_decay=0.1", 0 },
};

static HeddleRegistry *registry;
static HeddleDevice *devices[2];        /* cpu, cuda */

typedef struct
{
  HeddleDevice     *device;
  HeddleVariables  *vars;
  HeddleStage      *stage;
  HeddlePlan       *plan;
  HeddleUpdateState state;
} Rig;

static void
rig_open (Rig *r, HeddleDevice *device, const Case *c)
{
  static const HeddleShape shapes[] = { { 1, { 5 } }, { 2, { 33, 17 } }, { 4, { 8, 3, 3, 3 } } };
  GError *error = NULL;
  HeddleCore core = { .size = sizeof (HeddleCore) };
  HeddleInit init = { HEDDLE_INIT_NORMAL, 0, 1 };
  g_auto (GStrv) pairs = g_strsplit (c->options, ",", -1);
  *r = (Rig) { .device = device, .vars = heddle_variables_new () };
  r->stage = heddle_stage_new (heddle_stage_class_find ("optimizer", c->optimizer, &error), c->optimizer, registry, "t.lua:1: optimizer", &error);
  for (guint i = 0; pairs[i]; i++)
    {
      g_auto (GStrv) pair = g_strsplit (pairs[i], "=", 2);
      heddle_stage_set_text (r->stage, pair[0], pair[1], NULL, &error);
    }
  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++)
    {
      g_autofree char *name = g_strdup_printf ("p%u", i);
      heddle_variables_declare (r->vars, name, HEDDLE_ROLE_PARAM, HEDDLE_F32, &shapes[i], &init, &error);
    }
  heddle_variables_group (r->vars, TRUE);
  HeddleProgram *program = heddle_optimizer_program (r->stage, NULL, r->vars, 0, 2, &core, &r->state, &error);
  g_assert_no_error (error);
  r->plan = device->iface->compile (device, program, &error);
  g_assert_no_error (error);
  if (device->iface->allocate (device, r->vars, &error))
    heddle_device_initialise (device, r->vars, 3, &error);
  g_assert_no_error (error);
}

static void
rig_close (Rig *r)
{
  heddle_plan_free (r->plan);
  heddle_variables_free (r->vars);
  heddle_stage_free (r->stage);
  g_ptr_array_unref (r->state.hypers);
}

static void
run (Rig *r, guint step)
{
  GError *error = NULL;
  for (guint i = 0; i < heddle_variables_count (r->vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (r->vars, i);
      gint64 n = heddle_shape_count (&v->shape);
      g_autofree float *x = g_new (float, n);
      HeddleTensor t = { HEDDLE_F32, v->shape, x };
      for (gint64 k = 0; k < n; k++)
        x[k] = (float) cos ((double) k * 1.3 + 2.1 * step + i);
      if (v->role == HEDDLE_ROLE_GRAD && v->flat)
        g_assert_true (r->device->iface->write (r->device, v, &t, &error));
    }
  g_assert_true (heddle_device_write_scalar (r->device, r->state.denominator, 2.5, &error));
  g_assert_true (r->device->iface->run (r->plan, NULL, &error));
  g_assert_no_error (error);
}

static void
compare (const Case *c, Rig *a, Rig *b)
{
  for (guint i = 0; i < heddle_variables_count (a->vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (a->vars, i), *w = heddle_variables_nth (b->vars, i);
      gint64 n = heddle_shape_count (&v->shape);
      g_autofree float *x = g_new0 (float, n), *y = g_new0 (float, n);
      HeddleTensor t = { HEDDLE_F32, v->shape, x }, u = { HEDDLE_F32, v->shape, y };
      g_assert_true (a->device->iface->read (a->device, v, &t, NULL));
      g_assert_true (b->device->iface->read (b->device, w, &u, NULL));
      for (gint64 k = 0; k < n; k++)
        if (!(fabs ((double) x[k] - (double) y[k]) <= c->near * MAX (1, fabs ((double) x[k]))))
          g_error ("%s: %s[%" G_GINT64_FORMAT "]: %.9g on the cpu, %.9g on the cuda device", c->name, v->name, k, (double) x[k], (double) y[k]);
    }
}

static void
test_update (gconstpointer data)
{
  const Case *c = data;
  Rig rigs[2];
  for (guint d = 0; d < 2; d++)
    rig_open (&rigs[d], devices[d], c);
  HeddlePlanStep step;
  guint n = 0, chains = 0;
  for (; devices[1]->iface->step (rigs[1].plan, n, &step); n++)
    chains += g_str_has_prefix (step.what, "chain_");
  g_assert_cmpuint (chains, ==, n);
  g_assert_cmpuint (n, <=, 4);                       /* scalars, one for each of two groups, scalars */
  for (guint i = 0; i < STEPS; i++)
    {
      for (guint d = 0; d < 2; d++)
        run (&rigs[d], i);
      compare (c, &rigs[0], &rigs[1]);
    }
  for (guint d = 0; d < 2; d++)
    rig_close (&rigs[d]);
}

/* ---- a program with inputs: conversions, broadcasts, dropout, views, what is read twice ---- */

static HeddleProgram *
mixed (HeddleVariables *vars)
{
  HeddleBuilder *b = heddle_builder_new ("mixed", vars, TRUE, 7);
  HeddleShape image = heddle_shape (2, 3, 5, 7), bias = heddle_shape (3, 1, 1), scalar = heddle_scalar_shape ();
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_U8, &image), *y = heddle_builder_input (b, "y", HEDDLE_F32, &bias), *s = heddle_builder_input (b, "s", HEDDLE_F32, &scalar);
  HeddleDequantizeAttr q = { 1 / 255.0, 3, { 0.4, 0.5, 0.6 }, { 0.2, 0.25, 0.3 } };
  HeddleDropoutAttr d = { 0.4, 99, 1234567 };
  HeddleValue *pixels = heddle_emit (b, HEDDLE_OP_DEQUANTIZE, NULL, &x, 1, &q, sizeof q), *shifted = heddle_add (b, pixels, y);
  HeddleValue *in[] = { shifted, s }, *kept = heddle_emit (b, HEDDLE_OP_DROPOUT, NULL, in, 2, &d, sizeof d);
  HeddleValue *low = heddle_cast (b, heddle_mul (b, kept, s), HEDDLE_BF16), *flat = heddle_reshape (b, heddle_relu (b, low), heddle_shape (2, -1));
  HeddleValue *outputs[] = { kept, low, flat, heddle_neg (b, heddle_cast (b, flat, HEDDLE_F32)), heddle_sqrt (b, s) };
  for (guint i = 0; i < G_N_ELEMENTS (outputs); i++)
    heddle_builder_output (b, outputs[i]);
  return heddle_builder_finish (b, NULL);
}

static void
test_mixed (void)
{
  guint8 x[210];
  float y[3] = { 0.1f, -0.2f, 0.3f }, s = 3, out[2][5][210] = { { { 0 } } };
  GError *error = NULL;
  for (guint i = 0; i < G_N_ELEMENTS (x); i++)
    x[i] = (guint8) (i * 37);
  for (guint d = 0; d < 2; d++)
    {
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      HeddlePlan *plan = devices[d]->iface->compile (devices[d], mixed (vars), &error);
      g_assert_no_error (error);
      gpointer inputs[] = { x, y, &s };
      for (guint turn = 0; turn < 3; turn++)
        {
          g_assert_true (devices[d]->iface->run (plan, inputs, &error));
          g_assert_no_error (error);
        }
      const GPtrArray *outputs = devices[d]->iface->program (plan)->outputs;
      for (guint k = 0; k < outputs->len; k++)
        {
          HeddleTensor t = { HEDDLE_F32, ((const HeddleValue *) outputs->pdata[k])->shape, out[d][k] };
          g_assert_true (devices[d]->iface->fetch (plan, k, &t, &error));
        }
      heddle_plan_free (plan);
    }
  for (guint k = 0; k < 5; k++)
    for (guint i = 0; i < G_N_ELEMENTS (x); i++)
      g_assert_cmpfloat_with_epsilon (out[0][k][i], out[1][k][i], k == 0 ? 1e-6 : 0.05);      /* one unit of bf16 at 9 */
  g_assert_cmpfloat (out[1][4][0], ==, sqrtf (3));
}

int
main (int argc, char **argv)
{
  static const char *const specs[] = { "cpu", "cuda" };
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = 1;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  registry = heddle_registry_new (NULL);
  for (guint d = 0; d < 2; d++)
    {
      devices[d] = heddle_device_open (specs[d], &flags, NULL, &error);
      g_assert_no_error (error);
    }
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *path = g_strconcat ("/cuda-chain/device/", cases[i].name, NULL);
      g_test_add_data_func (path, &cases[i], test_update);
    }
  g_test_add_func ("/cuda-chain/device/mixed", test_mixed);
  int status = g_test_run ();
  for (guint d = 0; d < 2; d++)
    heddle_device_close (devices[d]);
  heddle_registry_free (registry);
  return status;
}
