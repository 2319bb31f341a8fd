/* test-run.c: whole runs on synthetic data through scripts: what a run computes, counts and reports, and how it ends.
 * Must not know the run loop: it sees results, parameters and errors only. */
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

static char *folder;

#define SCRIPT \
  "local h = require 'heddle'\n" \
  "local data = h.dataset 'synthetic' { shape = { 1, 6, 6 }, classes = 4, length = %d, noise = 0.5 }\n" \
  "local batch = h.prefetch { data, batch_size = %d, num_workers = 0, %s }\n" \
  "local logits = h.model 'mlp' { batch.image, classes = 4, hidden = { 16 } }\n" \
  "local loss = h.loss 'cross_entropy' { logits, batch.label }\n" \
  "local step = h.optimizer 'sgd' { %s, lr = %s }\n" \
  "return h.train { step, %s }\n"

static void
train (TestRun *t, int length, int batch, const char *prefetch, const char *loss, const char *lr, const char *options)
{
  g_autofree char *text = g_strdup_printf (SCRIPT, length, batch, prefetch, loss, lr, options);
  *t = test_run (folder, text, TEST_RAN);
}

/* Largest difference of any parameter of two runs. */
static double
difference (TestRun *a, TestRun *b)
{
  HeddleVariables *vars = heddle_pipeline_variables (a->pipeline);
  double most = 0;
  guint met = 0;
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      if (v->role != HEDDLE_ROLE_PARAM || !v->flat)
        continue;
      g_autofree float *p = test_numbers (test_run_variables (a), v->name), *q = test_numbers (test_run_variables (b), v->name);
      for (gint64 k = 0; k < heddle_shape_count (&v->shape); k++)
        most = MAX (most, fabs ((double) p[k] - (double) q[k]));
      met++;
    }
  g_assert_cmpuint (met, ==, 4);               /* two weights, two biases */
  return most;
}

static void
test_learns (void)
{
  TestRun t;
  train (&t, 512, 32, "shuffle = true", "loss", "0.1", "epochs = 5, eval = { data = data, accuracy = h.metric 'accuracy' { logits, batch.label } }");
  g_assert_no_error (t.error);
  g_assert_cmpint (t.result.steps, ==, 80);
  g_assert_cmpint (t.result.updates, ==, 80);
  g_assert_cmpint (t.result.samples, ==, 2560);
  g_assert_cmpfloat (t.result.loss, <, 0.2);    /* from log 4 = 1.386 */
  g_assert_cmpstr (t.result.metric[0].name, ==, "accuracy");
  g_assert_cmpfloat (t.result.metric[0].value, >, 0.95);
  /* a share of 512 samples */
  g_assert_cmpfloat_with_epsilon (t.result.metric[0].value * 512, round (t.result.metric[0].value * 512), 1e-3);
  test_run_clear (&t);
}

/* Four batches of 16 make the update of one of 64; 100 samples leave a short batch and a short window. */
static void
check_accumulation (int length)
{
  TestRun a, b;
  train (&a, length, 64, "", "loss", "0.1", "epochs = 3");
  train (&b, length, 16, "", "loss", "0.1", "epochs = 3, accumulate = 4");
  g_assert_no_error (a.error);
  g_assert_no_error (b.error);
  g_assert_cmpint (a.result.updates, ==, b.result.updates);
  g_assert_cmpint (a.result.samples, ==, 3 * length);
  g_assert_cmpint (b.result.samples, ==, 3 * length);
  g_assert_cmpfloat (difference (&a, &b), <, 2e-6);
  g_assert_cmpint (a.result.updates, ==, 3 * ((length + 63) / 64));
  test_run_clear (&a);
  test_run_clear (&b);
}

static void
test_accumulation (void)
{
  check_accumulation (128);
  check_accumulation (100);
}

/* A power of two as loss scale changes no bit of an f32 run; runs repeat bit for bit. */
static void
test_scaling_is_exact (void)
{
  TestRun a, b, c;
  train (&a, 100, 16, "shuffle = true", "loss", "0.1", "epochs = 2");
  train (&b, 100, 16, "shuffle = true", "h.amp { loss, dtype = 'f32', scaler = 'on' }", "0.1", "epochs = 2");
  train (&c, 100, 16, "shuffle = true", "loss", "0.1", "epochs = 2, seed = 1");
  g_assert_no_error (b.error);
  g_assert_cmpint (b.result.skipped, ==, 0);
  g_assert_cmpfloat (difference (&a, &b), ==, 0);
  g_assert_cmpfloat (difference (&a, &c), >, 1e-3);
  test_run_clear (&a);
  test_run_clear (&b);
  test_run_clear (&c);
}

static void
test_steps_per_epoch (void)
{
  static const char *const modes[] = { "continue", "restart", "subset" };
  for (guint i = 0; i < G_N_ELEMENTS (modes); i++)
    {
      TestRun t;
      g_autofree char *options = g_strdup_printf ("epochs = 3, steps_per_epoch = 4, epoch_mode = '%s'", modes[i]);
      train (&t, 100, 10, "shuffle = true", "loss", "0.1", options);
      g_assert_no_error (t.error);
      g_assert_cmpint (t.result.steps, ==, 12);
      g_assert_cmpint (t.result.samples, ==, 120);
      g_assert_cmpint (t.result.epochs, ==, 3);
      test_run_clear (&t);
    }
}

static void
test_nonfinite (void)
{
  TestRun t;
  train (&t, 100, 10, "", "loss", "1e6, maximize = true", "epochs = 20");
  g_assert_error (t.error, HEDDLE_ERROR, HEDDLE_ERROR_RUN);
  g_assert_nonnull (strstr (t.error->message, "the loss is not finite since batch"));
  g_assert_nonnull (strstr (t.error->message, "learning rate 1e+06"));
  g_assert_nonnull (strstr (t.error->message, "\nhint: "));
  g_assert_cmpint (heddle_error_exit_code (t.error), ==, 3);
  test_run_clear (&t);
}

static gpointer
signal_soon (gpointer data)
{
  g_usleep (300000);
  kill (getpid (), SIGINT);
  return NULL;
}

static void
test_interruption (void)
{
  TestRun t;
  signal (SIGINT, SIG_IGN);                    /* should it come before the run does */
  GThread *thread = g_thread_new ("signal", signal_soon, NULL);
  train (&t, 1000, 10, "", "loss", "0.01", "epochs = 1000000");
  g_thread_join (thread);
  signal (SIGINT, SIG_DFL);
  g_assert_error (t.error, HEDDLE_ERROR, HEDDLE_ERROR_INTERRUPTED);
  g_assert_true (t.result.interrupted);
  g_assert_cmpint (t.result.steps, >, 0);
  g_assert_cmpint (heddle_error_exit_code (t.error), ==, 130);
  test_run_clear (&t);
}

/* Wiring errors name the script's line. */
static void
check_refused (const char *loss, const char *options, const char *prefix, const char *says)
{
  TestRun t;
  train (&t, 100, 10, "", loss, "0.1", options);
  g_assert_nonnull (t.error);
  g_assert_nonnull (t.error);
  if (!strstr (t.error->message, prefix) || !strstr (t.error->message, says))
    g_error ("expected \"%s\" and \"%s\" in: %s", prefix, says, t.error->message);
  test_run_clear (&t);
}

static void
test_refusals (void)
{
  check_refused ("logits", "epochs = 1", "run.lua:6: optimizer", "loss");
  check_refused ("loss", "epoch = 1", "run.lua:7: train", "did you mean \"epochs\"?");
  check_refused ("loss", "device = 'toaster'", "run.lua:7: train", "toaster");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("heddle-run-XXXXXX", NULL);
  g_test_add_func ("/run/learns", test_learns);
  g_test_add_func ("/run/accumulation", test_accumulation);
  g_test_add_func ("/run/scaling-is-exact", test_scaling_is_exact);
  g_test_add_func ("/run/steps-per-epoch", test_steps_per_epoch);
  g_test_add_func ("/run/nonfinite", test_nonfinite);
  g_test_add_func ("/run/interruption", test_interruption);
  g_test_add_func ("/run/refusals", test_refusals);
  int status = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return status;
}
