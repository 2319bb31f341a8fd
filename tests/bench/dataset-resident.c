/* bench/dataset-resident.c: samples held in memory, for benchmarks: records of a 4-byte label (little endian) and the sample's bytes.
 * compare.py writes the file and PyTorch reads the same one; a dataset plugin of the benchmarks' own, not installed. */
#include <heddle/plugin.h>

typedef struct
{
  char         *path;
  HeddleIntList shape;
  gint64        classes;
  /* once open */
  GBytes       *bytes;
  const guint8 *record;
  gsize         count;       /* bytes of a sample without its label */
} Resident;

static const HeddleOption options[] = {
  HEDDLE_STRING (Resident, path, NULL, "The file", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT_LIST (Resident, shape, "3, 224, 224", 1, 65536, "Sizes of one sample"),
  HEDDLE_INT (Resident, classes, 1000, 1, 1000000, "Number of classes"),
  HEDDLE_OPTIONS_END
};

static void
close_set (gpointer data)
{
  Resident *self = data;
  g_clear_pointer (&self->bytes, g_bytes_unref);
}

static gboolean
open_set (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Resident *self = data;
  HeddleShape shape = { .rank = (gint32) MIN (self->shape.n, HEDDLE_MAX_RANK - 1) };
  for (gint32 i = 0; i < shape.rank; i++)
    shape.size[i] = self->shape.items[i];
  self->count = (gsize) heddle_shape_count (&shape);
  char *contents = NULL;
  gsize length = 0;
  gboolean ok = g_file_get_contents (self->path, &contents, &length, error);
  if (ok)
    {
      self->bytes = g_bytes_new_take (contents, length);
      self->record = g_bytes_get_data (self->bytes, NULL);
      info->length = length / (4 + self->count);
      info->n_fields = 2;
      info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_U8, .shape = shape, .scale = 1.0 / 255.0, .channels = 1, .mean = { 0.5 }, .std = { 0.25 } };
      info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_I64, .shape = heddle_scalar_shape (), .classes = self->classes };
    }
  return ok;
}

/* fields[0]: (shape) u8; fields[1]: label i64 */
static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Resident *self = data;
  const guint8 *from = self->record + index * (4 + self->count);
  guint32 label;
  memcpy (&label, from, sizeof label);
  gint64 wide = GUINT32_FROM_LE (label);
  memcpy (fields[0], from + 4, self->count);
  memcpy (fields[1], &wide, sizeof wide);
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_set, read_sample, close_set };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Resident, options, .name = "resident", .version = "1.0",
               .summary = "Samples held in memory, for benchmarks", .license = "MIT");
