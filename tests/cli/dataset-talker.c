/* dataset-talker.c: says something in open, in the main thread, and in the reads of samples 0 and 5, in a loader's. */
#include <heddle/plugin.h>

typedef struct { const HeddleCore *core; } Talker;

static gboolean
open_set (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  (void) error;
  ((Talker *) data)->core = core;
  heddle_message (core, G_LOG_LEVEL_WARNING, "talker %d opens", 1);
  info->length = 8;
  info->n_fields = 2;
  info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_F32, .shape = heddle_shape (4) };
  info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_U8, .classes = 2 };
  return TRUE;
}

static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  (void) error;
  if (index % 5 == 0)
    heddle_message (((Talker *) data)->core, G_LOG_LEVEL_MESSAGE, "talker reads %" G_GUINT64_FORMAT, index);
  for (guint i = 0; i < 4; i++)
    ((float *) fields[0])[i] = (float) heddle_random_below (random, 256);
  *(guint8 *) fields[1] = index % 2;
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, .open = open_set, .read = read_sample };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Talker, NULL, .name = "talker", .version = "1.0", .summary = "A data set that talks", .license = "MIT");
