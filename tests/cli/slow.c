/* slow.c: a data set whose read sleeps, or computes, for much longer than a step of a small model takes. */
#include <heddle/plugin.h>

#include <time.h>

typedef struct { gint64 sleep_us, burn_us; } Slow;

static const HeddleOption options[] = {
  HEDDLE_INT (Slow, sleep_us, 0, 0, 1000000, "Microseconds to sleep for each sample"),
  HEDDLE_INT (Slow, burn_us, 0, 0, 1000000, "Microseconds of computing for each sample"),
  HEDDLE_OPTIONS_END
};

static gboolean
open_slow (gpointer self, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  info->length = 64;
  info->n_fields = 2;
  info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_F32, .shape = { 3, { 1, 4, 4 } } };
  info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_U8, .classes = 4 };
  return TRUE;
}

static gint64
computed (void)
{
  struct timespec t;
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
  return (gint64) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static gboolean
read_slow (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Slow *self = data;
  if (self->sleep_us)
    g_usleep ((gulong) self->sleep_us);
  for (gint64 end = computed () + self->burn_us; self->burn_us && computed () < end;)
    ;
  for (guint i = 0; i < 16; i++)
    ((float *) fields[0])[i] = heddle_random_float (random);
  *(guint8 *) fields[1] = (guint8) (index % 4);
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_slow, read_slow, NULL };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Slow, options, .name = "slow", .version = "1.0", .summary = "Slow on purpose", .license = "MIT");
