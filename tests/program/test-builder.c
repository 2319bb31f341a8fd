/* test-builder.c: names and sharing of parameters, the sticky error, groups and their flat buffers, first numbers, differentiation's bookkeeping, printing. */
#include <math.h>
#include <string.h>

#include "plugin/registry.h"
#include "program/program.h"

static HeddleValue *
image (HeddleBuilder *b, gint64 n, gint64 c, gint64 size)
{
  HeddleShape shape = heddle_shape (n, c, size, size);
  return heddle_builder_input (b, "image", HEDDLE_F32, &shape);
}

static void
test_names (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = image (b, 2, 3, 8);
  heddle_push (b, "layer1");
  heddle_push (b, "0");
  x = heddle_batch_norm (b, "bn1", heddle_conv2d (b, "conv1", x, .channels = 4, .kernel = 3, .no_bias = TRUE));
  heddle_pop (b);
  heddle_pop (b);
  heddle_linear (b, "fc", x, .features = 5);
  g_assert_no_error (heddle_builder_error (b));
  static const char *const names[] = { "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias", "layer1.0.bn1.running_mean", "layer1.0.bn1.running_var", "fc.weight", "fc.bias" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (!heddle_variables_lookup (vars, names[i]))
      g_error ("no variable \"%s\"", names[i]);
  g_assert_null (heddle_variables_lookup (vars, "layer1.0.conv1.bias"));
  g_assert_cmpint (heddle_variables_n_params (vars), ==, 4 * 3 * 9 + 4 + 4 + 5 * 4 * 36 + 5);
}

/* The same name is the same parameter; another shape under it is an error that names both. */
static void
test_sharing (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleInit init = { 0 };
  g_assert_true (heddle_param (b, "w", heddle_shape (3, 4), init) == heddle_param (b, "w", heddle_shape (3, 4), init));
  g_assert_cmpuint (heddle_variables_count (vars), ==, 1);
  g_assert_null (heddle_param (b, "w", heddle_shape (4, 3), init));
  g_assert_nonnull (strstr (heddle_builder_error (b)->message, "3x4"));
  g_assert_nonnull (strstr (heddle_builder_error (b)->message, "4x3"));
}

/* After the first error every call does nothing; the first is what is reported. */
static void
test_sticky (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  GError *error = NULL;
  HeddleShape shape = heddle_shape (3, 4), other = heddle_shape (5);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *y = heddle_builder_input (b, "y", HEDDLE_F32, &other);
  heddle_push (b, "block");
  HeddleValue *bad = heddle_add (b, x, y);
  g_assert_null (bad);
  g_autofree char *first = g_strdup (heddle_builder_error (b)->message);
  g_assert_null (heddle_relu (b, heddle_linear (b, "fc", heddle_mul (b, bad, x), .features = 3)));
  heddle_fail (b, "a later complaint");
  heddle_assign (b, NULL, NULL);
  heddle_pop (b);
  g_assert_cmpstr (heddle_builder_error (b)->message, ==, first);
  g_assert_null (heddle_builder_finish (b, &error));
  g_assert_cmpstr (error->message, ==, first);
  g_assert_nonnull (strstr (first, "3x4"));
  g_error_free (error);
}

/* Parameters lie in one buffer at aligned places; biases and norms apart when they are not to be decayed. */
static void
test_groups (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = image (b, 2, 1, 5);
  heddle_linear (b, "fc2", heddle_linear (b, "fc1", x, .features = 3), .features = 7);
  heddle_variables_group (vars, TRUE);
  g_assert_cmpuint (heddle_variables_n_groups (vars), ==, 2);
  for (guint i = 0; i < 2; i++)
    {
      HeddleGroup *g = heddle_variables_nth_group (vars, i);
      gint64 end = 0;
      g_assert_cmpint (g->params->len, ==, 2);
      g_assert_cmpfloat (g->decay, ==, g_str_equal (g->name, "decay"));
      for (guint k = 0; k < g->params->len; k++)
        {
          HeddleVariable *p = g->params->pdata[k];
          g_assert_cmpint (p->shape.rank, ==, g->decay ? 2 : 1);
          g_assert_cmpint (p->offset % HEDDLE_FLAT_ALIGN, ==, 0);
          g_assert_cmpint (p->offset, >=, end);
          g_assert_true (p->flat == g->param && p->grad->flat == g->grad && p->grad->offset == p->offset);
          end = p->offset + heddle_shape_count (&p->shape);
        }
      g_assert_cmpint (g->n, >=, end);
      HeddleVariable *slot = heddle_group_slot (vars, g, "momentum", 0);
      g_assert_true (slot == heddle_group_slot (vars, g, "momentum", 0) && heddle_shape_count (&slot->shape) == g->n);
    }
  GError *error = NULL;
  HeddleShape late = heddle_shape (3);
  g_assert_null (heddle_variables_declare (vars, "late", HEDDLE_ROLE_PARAM, HEDDLE_F32, &late, NULL, &error));
  g_assert_nonnull (strstr (error->message, "after the parameters were dealt into groups"));
  g_error_free (error);
}

static void
moments (HeddleInit init, HeddleShape shape, double bound, double variance)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleVariable *v = heddle_variables_declare (vars, "w", HEDDLE_ROLE_PARAM, HEDDLE_F32, &shape, &init, NULL);
  gsize n = (gsize) heddle_shape_count (&shape);
  g_autofree float *a = g_new (float, n), *b = g_new (float, n), *c = g_new (float, n);
  double sum = 0, squares = 0, most = 0;
  heddle_variable_initial (v, 3, a);
  heddle_variable_initial (v, 3, b);
  heddle_variable_initial (v, 4, c);
  g_assert_cmpmem (a, n * 4, b, n * 4);
  g_assert_true (memcmp (a, c, n * 4) != 0);
  for (gsize i = 0; i < n; i++)
    {
      sum += a[i];
      squares += (double) a[i] * a[i];
      most = MAX (most, fabs ((double) a[i]));
    }
  if (bound > 0)
    {
      g_assert_cmpfloat (most, <=, bound * (1 + 1e-6));
      g_assert_cmpfloat (most, >, 0.99 * bound);
    }
  g_assert_cmpfloat_with_epsilon (sum / (double) n, 0, 5 * sqrt (variance / (double) n));
  g_assert_cmpfloat_with_epsilon (squares / (double) n / variance, 1, 5 * sqrt (2.0 / (double) n));
}

/* fan_in = 8 * 9, fan_out = 40 * 9 */
static void
test_initial (void)
{
  HeddleShape s = heddle_shape (40, 8, 3, 3);
  moments ((HeddleInit) { HEDDLE_INIT_DEFAULT, 0, 0 }, s, 1 / sqrt (72), 1.0 / 72 / 3);
  moments ((HeddleInit) { HEDDLE_INIT_KAIMING_UNIFORM, 0, 0 }, s, sqrt (6 / 72.0), 2 / 72.0);
  moments ((HeddleInit) { HEDDLE_INIT_KAIMING_NORMAL, 0, 0 }, s, 0, 2 / 72.0);
  moments ((HeddleInit) { HEDDLE_INIT_KAIMING_NORMAL_OUT, 0, 0 }, s, 0, 2 / 360.0);
  moments ((HeddleInit) { HEDDLE_INIT_XAVIER_UNIFORM, 0, 0 }, s, sqrt (6 / 432.0), 2 / 432.0);
  moments ((HeddleInit) { HEDDLE_INIT_UNIFORM, -2, 2 }, s, 2, 4.0 / 3);
}

/* LeNet-5 of the plugin has 61,706 parameters; evaluation adds none. */
static void
test_lenet (void)
{
  g_autoptr (HeddleRegistry) registry = heddle_registry_new (NULL);
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleInstance) lenet = heddle_instance_new (heddle_registry_find (registry, "model", "lenet", NULL));
  const HeddleModelIface *iface = lenet->entry->plugin->iface;
  g_assert_true (heddle_options_set_text (lenet->entry->options, lenet->self, "classes", "10", NULL, NULL));
  for (int training = 1; training >= 0; training--)
    {
      g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, training, 1);
      HeddleValue *x = image (b, 4, 1, 28), *y = NULL;
      g_assert_true (iface->build (lenet->self, b, &x, 1, &y, NULL));
      HeddleShape shape = heddle_shape_of (b, y);
      g_assert_true (shape.rank == 2 && shape.size[0] == 4 && shape.size[1] == 10);
      g_assert_cmpint (heddle_variables_n_params (vars), ==, 61706);
    }
}

/* Dead operations go, effects stay; a parameter the loss does not read gets a zero gradient; one output can be fetched by its index. */
static void
test_finish (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  GError *error = NULL;
  HeddleShape shape = heddle_shape (4);
  HeddleInit init = { HEDDLE_INIT_UNIFORM, -1, 1 };
  HeddleValue *w = heddle_param (b, "w", shape, init), *unused = heddle_param (b, "unused", shape, init);
  heddle_exp (b, heddle_mul (b, unused, unused));                /* dead */
  HeddleValue *loss = heddle_sum (b, heddle_square (b, w), 0, FALSE);
  heddle_variables_group (vars, FALSE);
  g_assert_true (heddle_builder_backward (b, loss, heddle_constant (b, 1), FALSE, &error));
  guint index = heddle_builder_output (b, loss);
  g_autoptr (HeddleProgram) program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (index, ==, 0);
  guint assigns = 0;
  for (guint i = 0; i < program->ops->len; i++)
    {
      const HeddleOp *op = program->ops->pdata[i];
      g_assert_cmpuint (op->id, ==, i);
      g_assert_cmpint (op->info->code, !=, HEDDLE_OP_EXP);
      assigns += op->info->code == HEDDLE_OP_ASSIGN;
    }
  g_assert_cmpuint (assigns, ==, 2);
}

static void
test_backward_refusals (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  GError *error = NULL;
  HeddleValue *w = heddle_param (b, "w", heddle_shape (4), (HeddleInit) { 0 });
  g_assert_false (heddle_builder_backward (b, w, heddle_constant (b, 1), FALSE, &error));
  g_assert_nonnull (strstr (error->message, "must be a scalar, it has rank 1"));
  g_clear_error (&error);
  g_assert_false (heddle_builder_backward (b, NULL, heddle_constant (b, 1), FALSE, &error));
  g_assert_nonnull (strstr (error->message, "no loss"));
  g_clear_error (&error);
}

static void
test_print (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = heddle_conv2d (b, "conv1", image (b, 2, 1, 8), .channels = 3, .kernel = 3, .padding = 1, .stride = 2);
  heddle_builder_output (b, heddle_max_pool (b, heddle_relu (b, x), .kernel = 2));
  g_autoptr (HeddleProgram) program = heddle_builder_finish (b, NULL);
  g_autofree char *text = heddle_program_print (program);
  g_assert_nonnull (strstr (text, "f32 2x3x4x4 = conv2d @image conv1.weight conv1.bias stride=2 padding=1   # conv1\n"));
  g_assert_nonnull (strstr (text, "f32 2x3x2x2 = max_pool"));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/builder/names", test_names);
  g_test_add_func ("/builder/sharing", test_sharing);
  g_test_add_func ("/builder/sticky", test_sticky);
  g_test_add_func ("/builder/groups", test_groups);
  g_test_add_func ("/builder/initial", test_initial);
  g_test_add_func ("/builder/lenet", test_lenet);
  g_test_add_func ("/builder/finish", test_finish);
  g_test_add_func ("/builder/backward-refusals", test_backward_refusals);
  g_test_add_func ("/builder/print", test_print);
  return g_test_run ();
}
