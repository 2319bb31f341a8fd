/* dataset-stripes.c: 8x8 images of horizontal (label 0) or vertical (label 1) stripes with noise. */
#include <heddle/plugin.h>

enum { SIDE = 8 };

typedef struct { gint64 length; } Stripes;

static const HeddleOption options[] = {
  HEDDLE_INT (Stripes, length, 256, 1, G_MAXINT32, "Number of samples", .unit = "samples"),
  HEDDLE_OPTIONS_END
};

static gboolean
open_set (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  const Stripes *self = data;
  info->length = (guint64) self->length;
  info->n_fields = 2;
  info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_U8, .shape = heddle_shape (1, SIDE, SIDE), .scale = 1.0 / 255, .channels = 1, .mean = { 0.5 }, .std = { 0.5 } };
  info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_U8, .classes = 2 };
  return TRUE;
}

static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  guint8 *image = fields[0], *label = fields[1];    /* (1, 8, 8) bytes; one class number */
  *label = index % 2;
  for (guint y = 0; y < SIDE; y++)
    for (guint x = 0; x < SIDE; x++)
      image[y * SIDE + x] = (guint8) (((*label ? x : y) % 2 ? 200 : 0) + heddle_random_below (random, 56));
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, .open = open_set, .read = read_sample };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Stripes, options, .name = "stripes", .version = "1.0",
               .summary = "Stripes to tell apart", .license = "MIT");
