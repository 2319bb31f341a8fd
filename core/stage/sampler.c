/* stage/sampler.c: which samples make batch number j: a function of (seed, j) alone.  Must not know threads or memory. */
#include "stage/loader.h"

#include <string.h>

struct _HeddleSampler
{
  HeddleSamplerSpec spec;
  guint64           per_pass;       /* batches of one pass */
  guint64           steps;          /* of an epoch */
  guint64           known_pass;     /* pass that ORDER holds; G_MAXUINT64: none */
  guint32          *order;          /* shuffled positions, NULL without shuffle */
  guint32          *subset;         /* SUBSET: the samples taken, in the order of the first pass */
  guint64           taken;          /* SUBSET: how many; else the length */
};

static void
shuffle (guint32 *order, guint64 n, guint64 seed, guint64 pass)
{
  HeddleRandom random = heddle_random (seed, HEDDLE_STREAM_ORDER, pass, 0);
  for (guint64 i = 0; i < n; i++)
    order[i] = (guint32) i;
  for (guint64 i = 0; i + 1 < n; i++)
    {
      guint64 j = i + heddle_random_below (&random, (guint32) (n - i));
      guint32 t = order[i];
      order[i] = order[j];
      order[j] = t;
    }
}

static const char *
spec_fault (const HeddleSamplerSpec *s)
{
  const char *fault = NULL;
  if (s->length == 0)
    fault = "the data set has no samples";
  else if (s->length > G_MAXUINT32)
    fault = "more than 4294967295 samples are not supported";
  else if (s->batch_size < 1)
    fault = "batch_size must be at least 1";
  return fault;
}

HeddleSampler *
heddle_sampler_new (const HeddleSamplerSpec *spec, GError **error)
{
  const char *fault = spec_fault (spec);
  guint64 bs = (guint64) MAX (spec->batch_size, 1), per_pass = spec->drop_last ? spec->length / bs : (spec->length + bs - 1) / bs;
  HeddleSampler *s = NULL;
  if (fault)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s", fault);
  else if (per_pass == 0)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%" G_GUINT64_FORMAT " samples do not fill one batch of %" G_GUINT64_FORMAT ", and drop_last leaves nothing\n"
                 "hint: a smaller batch_size, or drop_last = false", spec->length, bs);
  else if (spec->mode == HEDDLE_EPOCH_SUBSET && (guint64) spec->steps_per_epoch > per_pass)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "steps_per_epoch = %" G_GINT64_FORMAT " is more than the %" G_GUINT64_FORMAT " batches of a pass, of which epoch_mode = \"subset\" takes a part",
                 spec->steps_per_epoch, per_pass);
  else
    {
      s = g_new0 (HeddleSampler, 1);
      s->spec = *spec;
      s->per_pass = per_pass;
      s->steps = spec->steps_per_epoch > 0 ? (guint64) spec->steps_per_epoch : per_pass;
      s->known_pass = G_MAXUINT64;
      s->taken = spec->mode == HEDDLE_EPOCH_SUBSET ? MIN (spec->length, s->steps * bs) : spec->length;
      s->order = spec->shuffle ? g_new (guint32, spec->length) : NULL;
      if (spec->mode == HEDDLE_EPOCH_SUBSET && spec->shuffle)
        {
          s->subset = g_new (guint32, spec->length);
          shuffle (s->subset, spec->length, spec->seed, 0);
        }
    }
  return s;
}

void
heddle_sampler_free (HeddleSampler *sampler)
{
  if (sampler)
    {
      g_free (sampler->order);
      g_free (sampler->subset);
      g_free (sampler);
    }
}

gint64
heddle_sampler_steps_per_epoch (HeddleSampler *sampler)
{
  return (gint64) sampler->steps;
}

/* Pass over the data, and batch inside it. */
static void
locate (const HeddleSampler *s, guint64 job, guint64 *pass, guint64 *batch)
{
  guint64 epoch = job / s->steps, step = job % s->steps;
  if (s->spec.mode == HEDDLE_EPOCH_RESTART)
    {
      *pass = epoch * ((s->steps + s->per_pass - 1) / s->per_pass) + step / s->per_pass;
      *batch = step % s->per_pass;
    }
  else if (s->spec.mode == HEDDLE_EPOCH_SUBSET)
    {
      *pass = epoch;
      *batch = step;
    }
  else
    {
      *pass = job / s->per_pass;
      *batch = job % s->per_pass;
    }
}

guint
heddle_sampler_batch (HeddleSampler *s, guint64 job, guint64 *indices, guint64 *pass)
{
  guint64 batch, bs = (guint64) s->spec.batch_size;
  locate (s, job, pass, &batch);
  if (s->order && s->known_pass != *pass)
    {
      /* a subset's own shuffles must not repeat the one that chose it */
      shuffle (s->order, s->taken, s->spec.seed, s->subset ? *pass + 1 : *pass);
      s->known_pass = *pass;
    }
  guint64 first = batch * bs, n = MIN (bs, s->taken - first);
  for (guint64 i = 0; i < n; i++)
    {
      guint64 at = s->order ? s->order[first + i] : first + i;
      indices[i] = s->subset ? s->subset[at] : at;
    }
  return (guint) n;
}

char *
heddle_sampler_describe (HeddleSampler *s)
{
  guint64 bs = (guint64) s->spec.batch_size, seen = MIN (s->spec.length, s->steps * bs);
  static const char *const modes[] = { "", "the next epoch goes on where it stops", "each epoch starts a new pass", "the same samples every epoch" };
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "%" G_GUINT64_FORMAT " samples, %" G_GUINT64_FORMAT " batches of %" G_GUINT64_FORMAT " an epoch", s->spec.length, s->steps, bs);
  if (s->steps != s->per_pass)
    g_string_append_printf (text, " (%.1f %% of the data; %s)", 100.0 * (double) seen / (double) s->spec.length, modes[s->spec.mode]);
  else if (s->spec.drop_last && s->spec.length % bs)
    g_string_append_printf (text, " (the last %" G_GUINT64_FORMAT " of a pass are left out)", s->spec.length % bs);
  return g_string_free (text, FALSE);
}
