/* test-custom.c: operations that plugins bring: a plugin's network against the same one without it, AMP, printing, recomputing, and every refusal. */
#include <math.h>
#include <string.h>

#include "run.h"
#include "swish.h"

static char *folder;

typedef struct { double loss; char *programs; } Outcome;

static Outcome
train (const char *options, const char *loss)
{
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal data = h.dataset 'synthetic' { shape = { 2, 5, 5 }, classes = 4, length = 200, noise = 0.5 }\n"
                                           "local batch = h.prefetch { data, batch_size = 20, shuffle = true, num_workers = 0 }\n"
                                           "local logits = h.model 'swish' { batch.image, classes = 4, %s }\nlocal loss = h.loss 'cross_entropy' { logits, batch.label }\n"
                                           "return h.train { h.optimizer 'sgd' { %s, lr = 0.1 }, epochs = 4, seed = 2 }\n", options, loss);
  TestRun r = test_run (folder, text, TEST_RAN);
  g_assert_no_error (r.error);
  Outcome o = { r.result.loss, heddle_pipeline_print_programs (r.pipeline) };
  test_run_clear (&r);
  return o;
}

static void
test_training (void)
{
  Outcome own = train ("beta = 1.5", "loss"), builtin = train ("beta = 1.5, builtin = true", "loss"), other = train ("beta = 0.1", "loss");
  Outcome low = train ("beta = 1.5", "h.amp { loss, dtype = 'f16' }"), low_builtin = train ("beta = 1.5, builtin = true", "h.amp { loss, dtype = 'f16' }");
  g_assert_cmpfloat_with_epsilon (own.loss, builtin.loss, 1e-5);
  g_assert_cmpfloat_with_epsilon (low.loss, low_builtin.loss, 5e-3);
  g_assert_cmpfloat (fabs (own.loss - other.loss), >, 1e-3);
  g_assert_nonnull (strstr (own.programs, "model-swish:swish beta=1.5   # act"));
  g_assert_nonnull (strstr (own.programs, "model-swish:swish_grad beta=1.5"));
  g_assert_nonnull (strstr (low.programs, "f16 20x24 = custom"));         /* KEEP: stays in what linear gave */
  g_assert_null (strstr (builtin.programs, "custom"));
  g_free (own.programs);
  g_free (builtin.programs);
  g_free (other.programs);
  g_free (low.programs);
  g_free (low_builtin.programs);
}

/* ---- refusals ---- */

static void
refuse (HeddleCustomOp op, guint n_in, gsize attr_size, const char *says)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (3, 4);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *in[] = { x, x, x }, *y = NULL;
  SwishAttr attr = { 1 };
  g_assert_false (heddle_custom (b, "act", &op, in, n_in, &attr, attr_size, &y, 1));
  g_assert_nonnull (heddle_builder_error (b));
  if (!strstr (heddle_builder_error (b)->message, says))
    g_error ("expected \"%s\" in: %s", says, heddle_builder_error (b)->message);
  heddle_builder_free (b);
}

static gboolean
bad_shape (const HeddleTensor *in, guint n, gconstpointer attr, HeddleTensor *out, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "expects rank 3");
  return FALSE;
}

static void
test_refusals (void)
{
#define WITH(...) ({ HeddleCustomOp op = swish; __VA_ARGS__; op; })
  const gsize size = sizeof (SwishAttr);
  refuse (WITH (op.size = 8), 1, size, "custom \"act\": has a descriptor of the wrong size");
  refuse (WITH (op.name = NULL), 1, size, "without plugin or name");
  refuse (WITH (op.max_in = 7), 1, size, "\"swish\" of model-swish has impossible numbers");
  refuse (WITH (op.n_out = 0), 1, size, "impossible numbers");
  refuse (WITH (op.amp = 0), 1, size, "has no AMP class");
  refuse (WITH (op.attr_size = 300), 1, 300, "its attribute has 300 bytes");
  HeddleCustomCuda old = swish_cuda, bare = swish_cuda;
  old.size = 8;
  bare.kernel = NULL;
  refuse (WITH (op.cuda = &old), 1, size, "\"swish\" of model-swish has a CUDA kernel of the wrong size, or without source or name");
  refuse (WITH (op.cuda = &bare), 1, size, "or without source or name\nhint: .size = sizeof (HeddleCustomCuda)");
  refuse (swish, 1, 4, "its attribute has 4 bytes, its descriptor says 8");
  refuse (swish, 2, size, "\"swish\" of model-swish: takes 1 to 1 inputs, got 2");
  refuse (WITH (op.shape = bad_shape), 1, size, "custom \"act\": \"swish\" of model-swish: expects rank 3");
}

/* No gradient, no kernel: said with plugin, operation and device, when they are asked for. */
static void
test_missing (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleCustomOp bare = swish;
  bare.gradient = NULL;
  bare.cpu = NULL;
  for (int differentiate = 0; differentiate < 2; differentiate++)
    {
      g_autoptr (GError) error = NULL;
      HeddleFlags flags = { 0 };
      HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
      HeddleShape shape = heddle_shape (3, 4);
      HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *y = NULL, *g = NULL;
      SwishAttr attr = { 1 };
      g_assert_true (heddle_custom (b, "act", &bare, &x, 1, &attr, sizeof attr, &y, 1));
      HeddleValue *loss = heddle_sum (b, y, 0, FALSE);
      heddle_builder_output (b, loss);
      if (differentiate)
        {
          g_assert_false (heddle_builder_gradients (b, loss, heddle_constant (b, 1), &x, 1, &g, &error));
          g_assert_nonnull (strstr (error->message, "custom \"act\": \"swish\" of model-swish has no gradient"));
          heddle_builder_free (b);
        }
      else
        {
          heddle_options_init (heddle_flags_options (), &flags);
          g_autoptr (HeddleDevice) device = heddle_device_open ("cpu", &flags, NULL, &error);
          g_assert_no_error (error);
          g_assert_null (device->iface->compile (device, heddle_builder_finish (b, NULL), &error));
          g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE);
          g_assert_nonnull (strstr (error->message, "custom \"act\": \"swish\" of model-swish has no kernel for the device cpu"));
        }
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *plugins = g_build_filename (g_getenv ("HEDDLE_BUILD"), "tests", "plugins", ".libs", NULL);
  g_setenv ("HEDDLE_PLUGIN_PATH", plugins, TRUE);
  folder = g_dir_make_tmp ("heddle-custom-XXXXXX", NULL);
  g_test_add_func ("/custom/training", test_training);
  g_test_add_func ("/custom/refusals", test_refusals);
  g_test_add_func ("/custom/missing", test_missing);
  int status = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return status;
}
