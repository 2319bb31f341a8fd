/* test-training.c: runs compared with runs, or with counting by hand: the loader's settings change no bit, weights and ignored labels do what their formulas
 * say, evaluation counts what a plain loop counts, loss scaling gives up in time, plateau drops when it should. */
#include <math.h>
#include <string.h>

#include "run.h"

#define NETWORK "nn.conv2d { 8, kernel = 3 }, nn.batch_norm {}, nn.relu {}, nn.dropout { 0.2 }, nn.flatten {}, nn.linear { 4 }"

static char *folder;
static const char *layers = NETWORK;
static double noise = 1.5;

/* BODY may use data, batch, logits and returns the train stage. */
static void
train (TestRun *t, const char *prefetch, const char *body)
{
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal data = h.dataset 'synthetic' { shape = { 2, 8, 8 }, classes = 4, length = 150, noise = %g }\n"
                                           "h.flags { threads = 1 }\nlocal batch = h.prefetch { data, batch_size = 16, shuffle = true, %s }\nlocal nn = require 'heddle.layers'\n"
                                           "local logits = h.model 'sequential' { batch.image, layers = { %s } }\n%s\n", noise, prefetch, layers, body);
  *t = test_run (folder, text, TEST_RAN);
}

static guint64
hash_of (const char *prefetch, const char *body)
{
  TestRun t;
  guint64 hash = 0;
  train (&t, prefetch, body);
  g_assert_no_error (t.error);
  g_assert_true (heddle_pipeline_hash (t.pipeline, &hash, NULL));
  test_run_clear (&t);
  return hash;
}

#define PLAIN "local loss = h.loss 'cross_entropy' { logits, batch.label }\nlocal step = h.optimizer 'sgd' { loss, lr = 0.05, momentum = 0.9 }\n"

/* Workers 0, 1, 2, 8 x prefetch_factor 1, 4 x persistent or not: the same weights bit for bit; another seed gives others. */
static void
test_bits (void)
{
  const char *body = PLAIN "return h.train { step, epochs = 2, seed = 3 }";
  guint64 first = hash_of ("num_workers = 0", body);
  static const int workers[] = { 0, 1, 2, 8 }, factors[] = { 1, 4 };
  for (guint w = 0; w < 4; w++)
    for (guint f = 0; f < 2; f++)
      for (int persistent = 0; persistent < 2; persistent++)
        {
          g_autofree char *prefetch = g_strdup_printf ("num_workers = %d, prefetch_factor = %d, persistent_workers = %s", workers[w], factors[f], persistent ? "true" : "false");
          g_assert_cmphex (hash_of (prefetch, body), ==, first);
        }
  g_assert_cmphex (hash_of ("num_workers = 0", PLAIN "return h.train { step, epochs = 2, seed = 4 }"), !=, first);
  g_assert_cmphex (hash_of ("num_workers = 0, drop_last = true", body), !=, first);
}

/* The same under AMP: what is stored in 16 bits is a function of the seed too. */
static void
test_bits_amp (void)
{
  const char *body = "local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16' }\nreturn h.train { h.optimizer 'adamw' { loss, lr = 0.01 }, epochs = 2 }";
  guint64 first = hash_of ("num_workers = 0", body);
  g_assert_cmphex (hash_of ("num_workers = 2, prefetch_factor = 3", body), ==, first);
}

static float *
parameter (TestRun *t, const char *name, gsize *n)
{
  *n = (gsize) heddle_shape_count (&heddle_variables_lookup (heddle_pipeline_variables (t->pipeline), name)->shape);
  return test_numbers (test_run_variables (t), name);
}

static double
distance (TestRun *a, TestRun *b, const char *name)
{
  gsize n;
  g_autofree float *x = parameter (a, name, &n), *y = parameter (b, name, &n);
  double most = 0;
  for (gsize i = 0; i < n; i++)
    most = MAX (most, fabs ((double) x[i] - (double) y[i]));
  return most;
}

#define WEIGHTED(options) "local loss = h.loss 'cross_entropy' { logits, batch.label, " options " }\nreturn h.train { h.optimizer 'sgd' { loss, lr = 0.05 }, epochs = 1 }"

/* Weights that are all alike cancel in the weighted mean; ignoring class 2 is giving it the weight 0. */
static void
test_class_weights (void)
{
  TestRun none, equal, zero, ignored, other;
  train (&none, "num_workers = 0", WEIGHTED (""));
  train (&equal, "num_workers = 0", WEIGHTED ("class_weights = { 4, 4, 4, 4 }"));
  train (&zero, "num_workers = 0", WEIGHTED ("class_weights = { 1, 1, 0, 1 }"));
  train (&ignored, "num_workers = 0", WEIGHTED ("ignore_index = 2"));
  train (&other, "num_workers = 0", WEIGHTED ("class_weights = { 1, 2, 3, 4 }"));
  g_assert_no_error (none.error);
  g_assert_no_error (equal.error);
  g_assert_no_error (zero.error);
  g_assert_no_error (ignored.error);
  g_assert_cmpfloat (distance (&none, &equal, "5.weight"), <, 1e-6);
  g_assert_cmpfloat (distance (&zero, &ignored, "5.weight"), <, 1e-6);
  g_assert_cmpfloat (distance (&none, &ignored, "5.weight"), >, 1e-4);
  g_assert_cmpfloat (distance (&none, &other, "5.weight"), >, 1e-4);
  test_run_clear (&none);
  test_run_clear (&equal);
  test_run_clear (&zero);
  test_run_clear (&ignored);
  test_run_clear (&other);
}

static void
refused (const char *prefetch, const char *body, int code, const char *says)
{
  TestRun t;
  train (&t, prefetch, body);
  g_assert_nonnull (t.error);
  if (t.error->code != code || !strstr (t.error->message, says))
    g_error ("expected \"%s\" (%d) in: %s (%d)", says, code, t.error->message, t.error->code);
  test_run_clear (&t);
}

static void
test_refusals (void)
{
  refused ("num_workers = 0", WEIGHTED ("class_weights = { 1, 1 }"), HEDDLE_ERROR_OPTION, "run.lua:7: loss \"cross_entropy\": option \"class_weights\": 2 weights for 4 classes");
  refused ("num_workers = 0", PLAIN "return h.train { step, epochs = 1, eval = { data = data, best = 'acuracy', accuracy = h.metric 'accuracy' { logits, batch.label } } }", HEDDLE_ERROR_OPTION, "run.lua:9: train: eval: best: no metric \"acuracy\" in eval; did you mean \"accuracy\"?");
  refused ("num_workers = 0, batch_size = 151, drop_last = true", PLAIN "return h.train { step, epochs = 1 }", HEDDLE_ERROR_DATA, "drop_last");
}

/* Loss scaling on a run whose gradients are never finite: every update is skipped, the parameters stay, the run stops with a diagnosis. */
static void
test_max_skips (void)
{
  TestRun t;
  train (&t, "num_workers = 0", "local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16', init_scale = 1e30, backoff_factor = 0.999, max_skips = 7 }\n"
                                "return h.train { h.optimizer 'sgd' { loss, lr = 0.05 }, epochs = 5 }");
  g_assert_error (t.error, HEDDLE_ERROR, HEDDLE_ERROR_RUN);
  g_assert_nonnull (strstr (t.error->message, "7 updates in a row were skipped because gradients were not finite (epoch 1, batch 7)"));
  g_assert_cmpint (t.result.steps, ==, 7);
  gsize n;
  g_autofree float *now = parameter (&t, "5.weight", &n), *first = g_new (float, n);
  heddle_variable_initial (heddle_variables_lookup (heddle_pipeline_variables (t.pipeline), "5.weight"), 0, first);
  g_assert_cmpmem (now, n * 4, first, n * 4);
  test_run_clear (&t);
}

/* A scale that is too high is found by halving: some updates are skipped, then training goes on. */
static void
test_scale_settles (void)
{
  TestRun t;
  train (&t, "num_workers = 0", "local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16', init_scale = 16777216 }\n"
                                "return h.train { h.optimizer 'sgd' { loss, lr = 0.05 }, epochs = 10 }");
  g_assert_no_error (t.error);
  g_assert_cmpint (t.result.skipped, >, 0);
  g_assert_cmpint (t.result.skipped, <, 20);
  g_assert_cmpint (t.result.updates, ==, t.result.steps - t.result.skipped);
  g_assert_cmpfloat (t.result.loss, <, 0.7);
  test_run_clear (&t);
}

/* The loss of the last evaluation in log.jsonl. */
static double
logged_eval_loss (void)
{
  g_autofree char *file = g_build_filename (folder, "log.jsonl", NULL), *text = NULL;
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));
  const char *line = g_strrstr (text, "\"event\":\"eval\""), *at = line ? strstr (line, "\"loss\":") : NULL;
  g_assert_nonnull (at);
  return g_ascii_strtod (at + strlen ("\"loss\":"), NULL);
}

/* Looked up on the device by its own count, the rates (and one_cycle's momenta) are the host's, bit for bit: with no update skipped both ways of counting train alike. */
static void
test_looked_up (void)
{
  static const char *const schedules[] = { "'cosine' { warmup = 3 }", "'one_cycle' { cycle_momentum = true }", "'step' { step_size = 1, gamma = 0.3 }" };
  static const char *const optimizers[] = { "'sgd' { loss, lr = 0.05, momentum = 0.9 }", "'adamw' { loss, lr = 0.01, weight_decay = 0.1 }" };
  for (guint i = 0; i < 3; i++)
    for (guint j = 0; j < 2; j++)
      {
        guint64 hash[3];
        for (guint k = 0; k < 3; k++)
          {
            g_autofree char *schedule = k < 2 ? g_strdup_printf ("schedule = h.schedule %s, schedule_on = '%s', ", schedules[i], k ? "applied" : "all") : g_strdup ("");
            g_autofree char *body = g_strdup_printf ("local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16', init_scale = 256 }\n"
                                                     "return h.train { h.optimizer %s, %sepochs = 3, accumulate = 2 }", optimizers[j], schedule);
            hash[k] = hash_of ("num_workers = 0", body);
          }
        g_assert_cmphex (hash[0], ==, hash[1]);
        g_assert_cmphex (hash[0], !=, hash[2]);
      }
}

/* An epoch of more updates than a table has. */
static void
test_long_epoch (void)
{
  guint64 hash[2];
  layers = "nn.flatten {}, nn.linear { 4 }";
  for (guint k = 0; k < 2; k++)
    {
      g_autofree char *body = g_strdup_printf ("local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16', init_scale = 4, growth_interval = 1000000 }\n"
                                               "return h.train { h.optimizer 'sgd' { loss, lr = 0.05 }, epochs = 1, steps_per_epoch = 17000, schedule = h.schedule 'cosine' {}, schedule_on = '%s' }", k ? "applied" : "all");
      hash[k] = hash_of ("num_workers = 0", body);
    }
  layers = NETWORK;
  g_assert_cmphex (hash[0], ==, hash[1]);
}

/* Under skipped updates each line's rate is the schedule's at the number of updates applied before. */
static void
test_applied (void)
{
  enum { UPDATES = 6 * 10 };
  TestRun t;
  train (&t, "num_workers = 0", "local loss = h.amp { h.loss 'cross_entropy' { logits, batch.label }, dtype = 'f16', init_scale = 16777216, growth_interval = 7 }\n"
                                "return h.train { h.optimizer 'sgd' { loss, lr = 0.05 }, epochs = 6, schedule = h.schedule 'cosine' {}, log = { h.logger 'jsonl' { path = 'log.jsonl', interval = 1 } } }");
  g_assert_no_error (t.error);
  g_autofree char *file = g_build_filename (folder, "log.jsonl", NULL), *text = NULL;
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  double before = 0;
  float last = 0;
  guint n = 0;
  for (guint i = 0; lines[i]; i++)
    if (strstr (lines[i], "\"event\":\"batch\""))
      {
        double lr = g_ascii_strtod (strstr (lines[i], "\"lr\":") + 5, NULL), updates = g_ascii_strtod (strstr (lines[i], "\"updates\":") + 10, NULL);
        g_assert_cmpfloat_with_epsilon (lr, 0.05 / 2 * (1 + cos (G_PI * before / UPDATES)), 1e-15);
        last = (float) lr;
        before = updates;
        n++;
      }
  g_assert_cmpuint (n, ==, UPDATES);
  g_assert_cmpint (t.result.skipped, >, 3);
  g_assert_cmpfloat (before, ==, UPDATES - (double) t.result.skipped);
  gsize one;
  g_autofree float *rate = parameter (&t, "hyper/lr", &one);
  g_assert_cmpfloat (*rate, ==, last);
  test_run_clear (&t);
}

/* Accuracy and loss over the evaluation set, last short batch and all, against a forward pass by hand over the trained numbers. */
static void
test_evaluation (void)
{
  enum { CLASSES = 4, SIDE = 8, OUT = 6, CHANNELS = 8 };
  TestRun t;
  gsize n;
  train (&t, "num_workers = 0", PLAIN "local test = h.dataset 'synthetic' { shape = { 2, 8, 8 }, classes = 4, length = 77, noise = 1.5, split = 'test' }\n"
         "return h.train { step, epochs = 2, eval = { data = test, accuracy = h.metric 'accuracy' { logits, batch.label }, top2 = h.metric 'top_k' { logits, batch.label, k = 2 } }, log = { h.logger 'jsonl' { path = 'log.jsonl' } } }");
  g_assert_no_error (t.error);
  double loss = 0;
  g_autofree float *w = parameter (&t, "0.weight", &n), *b = parameter (&t, "0.bias", &n), *gamma = parameter (&t, "1.weight", &n), *beta = parameter (&t, "1.bias", &n);
  g_autofree float *mean = parameter (&t, "1.running_mean", &n), *var = parameter (&t, "1.running_var", &n), *fc = parameter (&t, "5.weight", &n), *fb = parameter (&t, "5.bias", &n);
  g_autoptr (HeddleInstance) set = heddle_instance_new (heddle_registry_find (t.registry, "dataset", "synthetic", NULL));
  HeddleDatasetInfo info;
  HeddleCore core = { .size = sizeof core };
  static const char *const options[][2] = { { "shape", "2,8,8" }, { "classes", "4" }, { "length", "77" }, { "noise", "1.5" }, { "split", "test" } };
  for (guint i = 0; i < G_N_ELEMENTS (options); i++)
    g_assert_true (heddle_options_set_text (set->entry->options, set->self, options[i][0], options[i][1], NULL, NULL));
  g_assert_true (heddle_instance_open_dataset (set, &core, &info, NULL));
  guint right = 0, near = 0;
  for (guint s = 0; s < 77; s++)
    {
      float x[2 * SIDE * SIDE];
      gint64 label;
      gpointer fields[] = { x, &label };
      HeddleRandom random = { .used = 4 };
      ((const HeddleDatasetIface *) set->entry->plugin->iface)->read (set->self, s, fields, &random, NULL);
      double logits[CLASSES], h[CHANNELS * OUT * OUT];
      for (int c = 0; c < CHANNELS; c++)
        for (int i = 0; i < OUT; i++)
          for (int j = 0; j < OUT; j++)
            {
              double sum = b[c];
              for (int k = 0; k < 2; k++)
                for (int u = 0; u < 3; u++)
                  for (int v = 0; v < 3; v++)
                    sum += (double) w[((c * 2 + k) * 3 + u) * 3 + v] * x[(k * SIDE + i + u) * SIDE + j + v];
              h[(c * OUT + i) * OUT + j] = MAX (0, (sum - mean[c]) / sqrt ((double) var[c] + 1e-5) * gamma[c] + beta[c]);
            }
      guint above = 0;
      for (int k = 0; k < CLASSES; k++)
        {
          logits[k] = fb[k];
          for (int i = 0; i < CHANNELS * OUT * OUT; i++)
            logits[k] += (double) fc[k * CHANNELS * OUT * OUT + i] * h[i];
        }
      double sum = 0;
      for (int k = 0; k < CLASSES; k++)
        {
          above += logits[k] > logits[label];
          sum += exp (logits[k] - logits[label]);
        }
      loss += log (sum) / 77;
      right += above == 0;
      near += above <= 1;
    }
  for (guint i = 0; i < t.result.n_metrics; i++)
    g_assert_cmpfloat_with_epsilon (t.result.metric[i].value * 77, g_str_equal (t.result.metric[i].name, "accuracy") ? right : near, 1e-3);
  g_assert_cmpuint (t.result.n_metrics, ==, 2);
  g_assert_cmpfloat_with_epsilon (logged_eval_loss (), loss, 1e-6 * loss);
  g_clear_pointer (&set, heddle_instance_free); /* before the registry: an instance reads its entry to the end */
  test_run_clear (&t);
}

/* A sum over many batches loses nothing: batches of one sample give the mean that a single batch gives.  Their f32 sum would be off by about 1e-5. */
static void
test_long_evaluation (void)
{
  double loss[2];
  layers = "nn.flatten {}, nn.linear { 4 }";
  for (guint i = 0; i < 2; i++)
    {
      TestRun t;
      g_autofree char *body = g_strdup_printf (PLAIN "local test = h.dataset 'synthetic' { shape = { 2, 8, 8 }, classes = 4, length = 20011, noise = 1.5, split = 'test' }\n"
        "return h.train { step, epochs = 1, max_steps = 1, eval = { data = test, batch_size = %d }, log = { h.logger 'jsonl' { path = 'log.jsonl' } } }", i ? 20011 : 1);
      train (&t, "num_workers = 0", body);
      g_assert_no_error (t.error);
      loss[i] = logged_eval_loss ();
      test_run_clear (&t);
    }
  layers = NETWORK;
  g_test_message ("%.9g in batches of one, %.9g in one batch", loss[0], loss[1]);
  g_assert_cmpfloat_with_epsilon (loss[0], loss[1], 2e-7 * loss[1]);
}

/* A rate so small that nothing improves: the plateau lowers it again and again; factor 0 freezes the parameters. */
static void
test_plateau (void)
{
  TestRun a, b;
  const char *form = PLAIN "return h.train { step, epochs = %d, schedule = h.schedule 'plateau' { factor = 0, patience = 0, threshold = 1e6 } }";
  g_autofree char *two = g_strdup_printf (form, 2), *five = g_strdup_printf (form, 5);
  train (&a, "num_workers = 0", two);
  train (&b, "num_workers = 0", five);
  g_assert_no_error (a.error);
  g_assert_no_error (b.error);
  /* the first report is the best so far; the second, at the end of epoch 2, drops the rate to nothing */
  g_assert_cmpfloat (distance (&a, &b, "5.weight"), ==, 0);
  test_run_clear (&a);
  test_run_clear (&b);
}

/* Accumulation with weights, on an uneven last window, is the weighted mean over the window: the same as one batch of all its samples. */
static void
test_weighted_accumulation (void)
{
  TestRun a, b;
  const char *form = "local loss = h.loss 'cross_entropy' { logits, batch.label, class_weights = { 1, 5, 0.25, 2 } }\n"
                     "return h.train { h.optimizer 'sgd' { loss, lr = 0.1 }, epochs = 2, accumulate = %d }";
  g_autofree char *one = g_strdup_printf (form, 1), *four = g_strdup_printf (form, 4);
  layers = "nn.linear { 8 }, nn.relu {}, nn.linear { 4 }";           /* nothing that looks across samples */
  train (&a, "num_workers = 0, batch_size = 48", one);
  train (&b, "num_workers = 0, batch_size = 12", four);
  layers = NETWORK;
  g_assert_no_error (a.error);
  g_assert_no_error (b.error);
  g_assert_cmpint (a.result.updates, ==, b.result.updates);
  g_assert_cmpfloat (distance (&a, &b, "0.weight"), <, 3e-6);
  test_run_clear (&a);
  test_run_clear (&b);
}

/* ---- losses of float targets: a network that gives back its image through 16 numbers learns the 4 prototypes ---- */

#define ENCODER "nn.flatten {}, nn.linear { 16 }, nn.relu {}, nn.linear { 128 }, "
#define ADAM(epochs, rate) "return h.train { h.optimizer 'adamw' { loss, lr = " rate " }, epochs = " epochs " }"

static const struct { const char *name, *layers, *target, *loss; double start, bound; } float_losses[] = {
  /* start: what a network that says nothing pays when x is normal of variance v = 1.04: E|x|, E smooth_l1 (x), log 2, 1.25 log 2, v / 2; bound: the share of it that must
     not be exceeded after training; cross entropies cannot fall below the targets' own entropy */
  { "l1", ENCODER "nn.reshape { { 2, 8, 8 } }", "batch.image", "'l1' { logits, target }", 0.814, 0.3 },
  { "smooth_l1", ENCODER "nn.reshape { { 2, 8, 8 } }", "batch.image", "'smooth_l1' { logits, target, beta = 0.5 }", 0.596, 0.2 },
  { "bce_with_logits", ENCODER "nn.reshape { { 2, 8, 8 } }", "h.model 'sequential' { batch.image, layers = { nn.sigmoid {} } }", "'bce_with_logits' { logits, target }", 0.693, 0.89 },
  { "bce_with_logits, weighted", ENCODER "nn.reshape { { 2, 8, 8 } }", "h.model 'sequential' { batch.image, layers = { nn.sigmoid {} } }",
    "'bce_with_logits' { logits, target, pos_weight = { 1, 2, 1, 2, 1, 2, 1, 2 } }", 0.866, 0.85 },
  { "kl_div", ENCODER "nn.log_softmax {}", "h.model 'sequential' { batch.image, layers = { nn.flatten {}, nn.softmax {} } }", "'kl_div' { logits, target }", 0.52, 0.1 },
};

static double
loss_of (guint i, const char *form, const char *rest)
{
  TestRun t;
  g_autofree char *loss = g_strdup_printf ("h.loss %s", float_losses[i].loss), *whole = g_strdup_printf (form, loss);
  g_autofree char *body = g_strdup_printf ("local target = %s\nlocal loss = %s\n%s", float_losses[i].target, whole, rest);
  train (&t, "num_workers = 0", body);
  g_assert_no_error (t.error);
  double last = t.result.loss;
  g_assert_cmpint (t.result.skipped, <=, 8);
  test_run_clear (&t);
  return last;
}

/* The loss of the untrained network is near what the distribution says, training brings it well below, and f16 trains as well as f32. */
static void
test_float_losses (void)
{
  noise = 0.2;
  for (guint i = 0; i < G_N_ELEMENTS (float_losses); i++)
    {
      layers = float_losses[i].layers;
      double first = loss_of (i, "%s", ADAM ("1", "0")), last = loss_of (i, "%s", ADAM ("12", "0.01"));
      double half = loss_of (i, "h.amp { %s, dtype = 'f16' }", ADAM ("12", "0.01"));
      g_test_message ("%s: %.4f, trained %.4f, with f16 %.4f", float_losses[i].name, first, last, half);
      g_assert_cmpfloat_with_epsilon (first, float_losses[i].start, 0.1 * float_losses[i].start);
      g_assert_cmpfloat (last, <, float_losses[i].bound * first);
      g_assert_cmpfloat (fabs (half - last), <, 0.1 * first);
    }
  noise = 1.5;
  layers = NETWORK;
}

static void
test_float_loss_refusals (void)
{
  static const char *const names[] = { "mse", "l1", "smooth_l1", "bce_with_logits", "kl_div" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autofree char *shape = g_strdup_printf ("local loss = h.loss '%s' { logits, batch.image }\n" ADAM ("1", "0.1"), names[i]);
      g_autofree char *dtype = g_strdup_printf ("local loss = h.loss '%s' { logits, batch.label }\n" ADAM ("1", "0.1"), names[i]);
      g_autofree char *of_shape = g_strdup_printf ("run.lua:7: loss \"%s\": the prediction has shape 16x4, the target 16x2x8x8\nhint: ", names[i]);
      g_autofree char *of_dtype = g_strdup_printf ("run.lua:7: loss \"%s\": prediction and target must be floating-point, got f32 and i64\nhint: ", names[i]);
      refused ("num_workers = 0", shape, HEDDLE_ERROR_GRAPH, of_shape);
      refused ("num_workers = 0", dtype, HEDDLE_ERROR_GRAPH, of_dtype);
    }
  refused ("num_workers = 0", "local loss = h.loss 'bce_with_logits' { logits, logits, pos_weight = { 1, 2, 3 } }\n" ADAM ("1", "0.1"), HEDDLE_ERROR_OPTION,
           "option \"pos_weight\": 3 weights for 4 classes");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("heddle-training-XXXXXX", NULL);
  g_test_add_func ("/training/bits", test_bits);
  g_test_add_func ("/training/bits-amp", test_bits_amp);
  g_test_add_func ("/training/class-weights", test_class_weights);
  g_test_add_func ("/training/refusals", test_refusals);
  g_test_add_func ("/training/max-skips", test_max_skips);
  g_test_add_func ("/training/scale-settles", test_scale_settles);
  g_test_add_func ("/training/schedule/looked-up", test_looked_up);
  g_test_add_func ("/training/schedule/long epoch", test_long_epoch);
  g_test_add_func ("/training/schedule/applied", test_applied);
  g_test_add_func ("/training/evaluation", test_evaluation);
  g_test_add_func ("/training/evaluation/long", test_long_evaluation);
  g_test_add_func ("/training/plateau", test_plateau);
  g_test_add_func ("/training/weighted-accumulation", test_weighted_accumulation);
  g_test_add_func ("/training/float-losses", test_float_losses);
  g_test_add_func ("/training/float-loss-refusals", test_float_loss_refusals);
  int status = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return status;
}
