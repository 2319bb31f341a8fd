/* test-sampler.c: what the sampler promises, by counting: coverage, order, passes, epoch modes, last batches. */
#include <string.h>

#include "stage/loader.h"

static HeddleSampler *
make (guint64 length, gint64 batch, gboolean shuffle, gboolean drop, gint64 steps, HeddleEpochMode mode, guint64 seed)
{
  GError *error = NULL;
  HeddleSamplerSpec spec = { length, batch, shuffle, drop, seed, steps, mode };
  HeddleSampler *s = heddle_sampler_new (&spec, &error);
  g_assert_no_error (error);
  return s;
}

/* COUNTS[i] += times sample i comes in batches FROM .. TO - 1 */
static guint64
tally (HeddleSampler *s, guint64 from, guint64 to, guint64 length, guint *counts)
{
  guint64 indices[512], pass, n = 0;
  memset (counts, 0, length * sizeof *counts);
  for (guint64 j = from; j < to; j++)
    {
      guint k = heddle_sampler_batch (s, j, indices, &pass);
      for (guint i = 0; i < k; i++)
        {
          g_assert_cmpuint (indices[i], <, length);
          counts[indices[i]]++;
        }
      n += k;
    }
  return n;
}

/* One pass meets every sample once; with drop_last all but the remainder at most once. */
static void
test_coverage (void)
{
  guint counts[1000];
  for (guint64 length = 1; length <= 300; length += 13)
    for (gint64 batch = 1; batch <= 64; batch += 9)
      for (int shuffle = 0; shuffle < 2; shuffle++)
        {
          g_autoptr (HeddleSampler) keep = make (length, batch, shuffle, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 5);
          guint64 steps = (guint64) heddle_sampler_steps_per_epoch (keep);
          g_assert_cmpuint (steps, ==, (length + (guint64) batch - 1) / (guint64) batch);
          for (guint64 epoch = 0; epoch < 3; epoch++)
            {
              g_assert_cmpuint (tally (keep, epoch * steps, (epoch + 1) * steps, length, counts), ==, length);
              for (guint64 i = 0; i < length; i++)
                g_assert_cmpuint (counts[i], ==, 1);
            }
          if ((guint64) batch <= length)
            {
              g_autoptr (HeddleSampler) drop = make (length, batch, shuffle, TRUE, 0, HEDDLE_EPOCH_CONTINUE, 5);
              steps = (guint64) heddle_sampler_steps_per_epoch (drop);
              g_assert_cmpuint (steps, ==, length / (guint64) batch);
              g_assert_cmpuint (tally (drop, steps, 2 * steps, length, counts), ==, steps * (guint64) batch);
              for (guint64 i = 0; i < length; i++)
                g_assert_cmpuint (counts[i], <=, 1);
            }
        }
}

/* A function of (seed, job): asked in any order the answer is the same; other seeds and passes give other orders. */
static void
test_pure (void)
{
  g_autoptr (HeddleSampler) a = make (100, 8, TRUE, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 7), b = make (100, 8, TRUE, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 7),
    c = make (100, 8, TRUE, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 8);
  guint64 x[8], y[8], first[8], pass, other;
  guint differ = 0, differ_pass = 0;
  for (guint64 j = 0; j < 60; j++)
    {
      guint n = heddle_sampler_batch (a, j, x, &pass);
      heddle_sampler_batch (b, 59 - j, y, &other);
      g_assert_cmpuint (heddle_sampler_batch (b, j, y, &other), ==, n);
      g_assert_cmpuint (pass, ==, other);
      g_assert_cmpuint (pass, ==, j / 13);
      g_assert_cmpmem (x, n * sizeof *x, y, n * sizeof *y);
      heddle_sampler_batch (c, j, y, &other);
      differ += memcmp (x, y, n * sizeof *x) != 0;
      if (j == 0)
        memcpy (first, x, sizeof x);
      if (j && j % 13 == 0)
        differ_pass += memcmp (x, first, sizeof x) != 0;
    }
  g_assert_cmpuint (differ, >=, 59);
  g_assert_cmpuint (differ_pass, ==, 4);
}

static void
test_in_order (void)
{
  g_autoptr (HeddleSampler) s = make (10, 4, FALSE, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 1);
  guint64 x[4], pass;
  g_assert_cmpuint (heddle_sampler_batch (s, 0, x, &pass), ==, 4);
  g_assert_cmpuint (x[0], ==, 0);
  g_assert_cmpuint (x[3], ==, 3);
  g_assert_cmpuint (heddle_sampler_batch (s, 2, x, &pass), ==, 2);
  g_assert_cmpuint (x[0], ==, 8);
  g_assert_cmpuint (heddle_sampler_batch (s, 3, x, &pass), ==, 4);
  g_assert_cmpuint (pass, ==, 1);
  g_assert_cmpuint (x[0], ==, 0);
}

/* Uniform: each of 5 samples is first in a shuffled pass about as often; chi square below the 0.1 % point for 4 degrees of freedom, 18.47 */
static void
test_uniform (void)
{
  g_autoptr (HeddleSampler) s = make (5, 5, TRUE, FALSE, 0, HEDDLE_EPOCH_CONTINUE, 3);
  guint at[5][5] = { 0 };
  guint64 x[5], pass;
  for (guint64 j = 0; j < 5000; j++)
    {
      heddle_sampler_batch (s, j, x, &pass);
      for (guint i = 0; i < 5; i++)
        at[i][x[i]]++;
    }
  for (guint i = 0; i < 5; i++)
    {
      double chi = 0;
      for (guint k = 0; k < 5; k++)
        chi += ((double) at[i][k] - 1000) * ((double) at[i][k] - 1000) / 1000;
      g_assert_cmpfloat (chi, <, 18.47);
    }
}

/* steps_per_epoch below a pass: continue covers all in turn, restart begins anew, subset stays with its own samples. */
static void
test_modes (void)
{
  guint counts[100], again[100];
  g_autoptr (HeddleSampler) go = make (100, 10, TRUE, FALSE, 4, HEDDLE_EPOCH_CONTINUE, 2), restart = make (100, 10, TRUE, FALSE, 4, HEDDLE_EPOCH_RESTART, 2),
    subset = make (100, 10, TRUE, FALSE, 4, HEDDLE_EPOCH_SUBSET, 2);
  guint64 x[10], y[10], pass;
  tally (go, 0, 10, 100, counts);
  for (guint i = 0; i < 100; i++)
    g_assert_cmpuint (counts[i], ==, 1);
  heddle_sampler_batch (restart, 4, x, &pass);
  g_assert_cmpuint (pass, ==, 1);
  heddle_sampler_batch (go, 10, y, &pass);
  g_assert_cmpuint (pass, ==, 1);
  g_assert_cmpmem (x, sizeof x, y, sizeof y);             /* both: the first batch of the second pass */
  tally (subset, 0, 4, 100, counts);
  tally (subset, 4, 8, 100, again);
  guint n = 0;
  for (guint i = 0; i < 100; i++)
    {
      g_assert_cmpuint (counts[i], ==, again[i]);
      n += counts[i];
    }
  g_assert_cmpuint (n, ==, 40);
  heddle_sampler_batch (subset, 0, x, &pass);
  heddle_sampler_batch (subset, 4, y, &pass);
  g_assert_true (memcmp (x, y, sizeof x) != 0);           /* shuffled inside */
}

/* More steps than a pass: the epoch runs over several passes. */
static void
test_long_epoch (void)
{
  guint counts[100];
  g_autoptr (HeddleSampler) go = make (100, 10, TRUE, FALSE, 25, HEDDLE_EPOCH_CONTINUE, 2), restart = make (100, 10, TRUE, FALSE, 25, HEDDLE_EPOCH_RESTART, 2);
  guint64 x[10], pass;
  tally (go, 0, 20, 100, counts);
  for (guint i = 0; i < 100; i++)
    g_assert_cmpuint (counts[i], ==, 2);
  heddle_sampler_batch (restart, 25, x, &pass);
  g_assert_cmpuint (pass, ==, 3);
  tally (restart, 25, 35, 100, counts);
  for (guint i = 0; i < 100; i++)
    g_assert_cmpuint (counts[i], ==, 1);
}

static void
refused (HeddleSamplerSpec spec, int code, const char *says)
{
  GError *error = NULL;
  g_assert_null (heddle_sampler_new (&spec, &error));
  g_assert_error (error, HEDDLE_ERROR, code);
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_error_free (error);
}

static void
test_refusals (void)
{
  refused ((HeddleSamplerSpec) { 0, 4, FALSE, FALSE, 0, 0, HEDDLE_EPOCH_CONTINUE }, HEDDLE_ERROR_DATA, "no samples");
  refused ((HeddleSamplerSpec) { 3, 4, FALSE, TRUE, 0, 0, HEDDLE_EPOCH_CONTINUE }, HEDDLE_ERROR_DATA, "drop_last");
  refused ((HeddleSamplerSpec) { 10, 4, FALSE, FALSE, 0, 4, HEDDLE_EPOCH_SUBSET }, HEDDLE_ERROR_OPTION, "steps_per_epoch = 4");
  refused ((HeddleSamplerSpec) { G_GUINT64_CONSTANT (1) << 33, 4, TRUE, FALSE, 0, 0, HEDDLE_EPOCH_CONTINUE }, HEDDLE_ERROR_DATA, "4294967295");
}

static void
test_describe (void)
{
  g_autoptr (HeddleSampler) part = make (100, 10, TRUE, FALSE, 4, HEDDLE_EPOCH_SUBSET, 2), all = make (103, 10, TRUE, TRUE, 0, HEDDLE_EPOCH_CONTINUE, 2);
  g_autofree char *a = heddle_sampler_describe (part), *b = heddle_sampler_describe (all);
  g_assert_nonnull (strstr (a, "40.0 % of the data; the same samples every epoch"));
  g_assert_nonnull (strstr (b, "10 batches of 10 an epoch (the last 3 of a pass are left out)"));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sampler/coverage", test_coverage);
  g_test_add_func ("/sampler/pure", test_pure);
  g_test_add_func ("/sampler/in-order", test_in_order);
  g_test_add_func ("/sampler/uniform", test_uniform);
  g_test_add_func ("/sampler/modes", test_modes);
  g_test_add_func ("/sampler/long-epoch", test_long_epoch);
  g_test_add_func ("/sampler/refusals", test_refusals);
  g_test_add_func ("/sampler/describe", test_describe);
  return g_test_run ();
}
