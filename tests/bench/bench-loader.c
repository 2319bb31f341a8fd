/* bench/bench-loader.c: samples a second of the prefetch loader alone over Fashion-MNIST: one JSON line, as peer_loader.py prints.
 * Each batch is also turned into normalised f32 here, which a run leaves to the program, so that both sides deliver the same numbers. */
#include <stdio.h>
#include <stdlib.h>

#include "stage/stage.h"

static void
fail_on (GError *error)
{
  if (error)
    {
      fprintf (stderr, "bench-loader: %s\n", error->message);
      exit (1);
    }
}

/* src (n) bytes -> dst (n): (src / 255 - mean) / std */
static void
normalise (const guint8 *restrict src, float *restrict dst, gsize n, const HeddleField *f)
{
  float factor = (float) (f->scale / f->std[0]), offset = (float) (f->mean[0] / f->std[0]);
  for (gsize i = 0; i < n; i++)
    dst[i] = (float) src[i] * factor - offset;
}

static double
epoch (HeddleLoader *loader, guint64 from, guint64 to, const HeddleDatasetInfo *info, float *out, GError **error)
{
  gint64 start = g_get_monotonic_time (), samples = 0;
  const HeddleBatch *batch;
  gsize sample = (gsize) heddle_shape_count (&info->field[0].shape);
  heddle_loader_start (loader, from, to, error);
  while (!*error && (batch = heddle_loader_next (loader, error)))
    {
      normalise (batch->field[0], out, batch->n * sample, &info->field[0]);
      samples += batch->n;
      heddle_loader_release (loader, batch);
    }
  return (double) samples * 1e6 / (double) (g_get_monotonic_time () - start);
}

static int
compare_doubles (const void *a, const void *b)
{
  return *(const double *) a > *(const double *) b ? 1 : -1;
}

int
main (int argc, char **argv)
{
  const char *root = argc > 1 ? argv[1] : "/usr/share/datasets/fashion-mnist";
  gint64 workers = argc > 2 ? atoi (argv[2]) : 1, size = 64;
  enum { EPOCHS = 8 };
  double rate[EPOCHS];
  GError *error = NULL;
  HeddleCore core = { .size = sizeof core };
  HeddleDatasetInfo info = { 0 };
  g_autoptr (HeddleRegistry) registry = heddle_registry_new (NULL);
  const HeddleRegistryEntry *entry = heddle_registry_find (registry, "dataset", "idx", &error);
  fail_on (error);
  g_autoptr (HeddleInstance) dataset = heddle_instance_new (entry);
  heddle_options_set_text (entry->options, dataset->self, "root", root, NULL, &error);
  heddle_options_set_text (entry->options, dataset->self, "mean", "0.2860", NULL, &error);
  heddle_options_set_text (entry->options, dataset->self, "std", "0.3530", NULL, &error);
  fail_on (error);
  heddle_instance_open_dataset (dataset, &core, &info, &error);
  fail_on (error);
  HeddleSamplerSpec spec = { .length = info.length, .batch_size = size, .shuffle = TRUE, .drop_last = TRUE, .mode = HEDDLE_EPOCH_CONTINUE };
  HeddlePrefetchOptions options = { 0 };
  heddle_options_init (heddle_prefetch_options (), &options);
  options.batch_size = size;
  options.num_workers = workers;
  options.shuffle = options.drop_last = true;
  options.prefetch_factor = 4;
  HeddleSampler *sampler = heddle_sampler_new (&spec, &error);
  fail_on (error);
  guint64 steps = (guint64) heddle_sampler_steps_per_epoch (sampler);
  g_autoptr (HeddleLoader) loader = heddle_loader_new (dataset, &info, sampler, &options, 0, NULL, &error);
  fail_on (error);
  g_autofree float *out = g_new (float, size * heddle_shape_count (&info.field[0].shape));
  for (guint i = 0; i < EPOCHS; i++)
    {
      rate[i] = epoch (loader, i * steps, (i + 1) * steps, &info, out, &error);
      fail_on (error);
    }
  qsort (rate + 1, EPOCHS - 1, sizeof *rate, compare_doubles);
  printf ("{\"workers\": %d, \"batch\": %d, \"samples_per_s\": %.0f}\n", (int) workers, (int) size, rate[1 + (EPOCHS - 1) / 2]);
  return 0;
}
