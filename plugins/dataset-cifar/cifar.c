/* plugins/dataset-cifar/cifar.c: CIFAR-10 and CIFAR-100 in their binary format, with the usual crop and flip.
 * Owns the file format and the augmentation of one image; knows nothing of batches or order.
 * Format: https://www.cs.toronto.edu/~kriz/cifar.html: records of 1 (CIFAR-10) or 2 (CIFAR-100: coarse, fine) label bytes and 3 x 32 x 32 bytes. */
#include <heddle/plugin.h>

#define SIDE 32
#define PIXELS (3 * SIDE * SIDE)
#define MAX_FILES 5

typedef struct
{
  char           *root;
  int             variant, split, labels;
  gint64          limit, crop_padding;
  bool            flip;
  HeddleFloatList mean, std;
  /* once open */
  GMappedFile    *file[MAX_FILES];
  guint64         first[MAX_FILES + 1];   /* number of the file's first record; the last one is the total */
  guint           n_files;
  gsize           record, label_at, label_bytes;
} Cifar;

enum { CIFAR10 = 1, CIFAR100 };
enum { TRAIN = 1, TEST };
enum { FINE = 1, COARSE };

static const HeddleEnumValue variants[] = { { CIFAR10, "cifar10", "10 classes" }, { CIFAR100, "cifar100", "100 fine or 20 coarse classes" }, { 0, NULL, NULL } };
static const HeddleEnumValue splits[] = { { TRAIN, "train", "50,000 images" }, { TEST, "test", "10,000 images" }, { 0, NULL, NULL } };
static const HeddleEnumValue label_kinds[] = { { FINE, "fine", "100 classes" }, { COARSE, "coarse", "20 superclasses" }, { 0, NULL, NULL } };

static const HeddleOption options[] = {
  HEDDLE_STRING (Cifar, root, NULL, "Folder with the .bin files", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_ENUM (Cifar, variant, CIFAR10, variants, "Which of the two data sets"),
  HEDDLE_ENUM (Cifar, split, TRAIN, splits, "Which images to serve"),
  HEDDLE_ENUM (Cifar, labels, FINE, label_kinds, "Which label of CIFAR-100"),
  HEDDLE_INT (Cifar, limit, 0, 0, G_MAXINT32, "Serve the first N samples only; 0 means all", .unit = "samples"),
  HEDDLE_INT (Cifar, crop_padding, 0, 0, 16, "Shift each image by up to so many pixels in each direction, at random; what moves in is black", .unit = "pixels"),
  HEDDLE_BOOL (Cifar, flip, false, "Mirror half of the images, at random"),
  HEDDLE_FLOAT_LIST (Cifar, mean, "0.4914, 0.4822, 0.4465", -10, 10, "Per channel, subtracted from the pixels after they were scaled to 0 .. 1"),
  HEDDLE_FLOAT_LIST (Cifar, std, "0.2470, 0.2435, 0.2616", 1e-6, 10, "Per channel, divides the pixels after the mean was subtracted"),
  HEDDLE_OPTIONS_END
};

static gint64
n_classes (const Cifar *self)
{
  return self->variant == CIFAR10 ? 10 : self->labels == FINE ? 100 : 20;
}

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static gboolean
add_file (Cifar *self, const char *name, GError **error)
{
  g_autofree char *path = g_build_filename (self->root, name, NULL);
  g_autoptr (GError) why = NULL;
  GMappedFile *map = g_mapped_file_new (path, FALSE, &why);
  gsize length = map ? g_mapped_file_get_length (map) : 0;
  gboolean ok = map && length > 0 && length % self->record == 0;
  if (!map)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s\nhint: set root to the folder that holds the binary version's .bin files", why->message);
  else if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s: has %" G_GSIZE_FORMAT " bytes, not a positive multiple of a record's %" G_GSIZE_FORMAT
                 "\nhint: truncated, or variant does not match the file", path, length, self->record);
  if (ok)
    {
      self->file[self->n_files] = g_steal_pointer (&map);
      self->first[self->n_files + 1] = self->first[self->n_files] + length / self->record;
      self->n_files++;
    }
  g_clear_pointer (&map, g_mapped_file_unref);
  return ok;
}

static gboolean
add_files (Cifar *self, GError **error)
{
  gboolean ok = TRUE;
  if (self->variant == CIFAR100)
    ok = add_file (self, self->split == TRAIN ? "train.bin" : "test.bin", error);
  else if (self->split == TEST)
    ok = add_file (self, "test_batch.bin", error);
  else
    for (guint i = 1; ok && i <= 5; i++)
      {
        g_autofree char *name = g_strdup_printf ("data_batch_%u.bin", i);
        ok = add_file (self, name, error);
      }
  return ok;
}

static const guint8 *
record_at (const Cifar *self, guint64 index)
{
  guint f = 0;
  while (index >= self->first[f + 1])
    f++;
  return (const guint8 *) g_mapped_file_get_contents (self->file[f]) + (index - self->first[f]) * self->record;
}

static gboolean
check_labels (const Cifar *self, guint64 n, GError **error)
{
  gboolean ok = TRUE;
  for (guint64 i = 0; ok && i < n; i++)
    {
      guint8 label = record_at (self, i)[self->label_at];
      ok = label < n_classes (self);
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s: label %u of sample %" G_GUINT64_FORMAT " is outside 0 .. %" G_GINT64_FORMAT
                     "\nhint: the file is damaged, or variant does not match it", self->root, label, i, n_classes (self) - 1);
    }
  return ok;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

static void
close_files (gpointer data)
{
  Cifar *self = data;
  for (guint i = 0; i < self->n_files; i++)
    g_clear_pointer (&self->file[i], g_mapped_file_unref);
  self->n_files = 0;
}

static gboolean
declare (const Cifar *self, HeddleDatasetInfo *info, guint64 n, GError **error)
{
  gboolean ok = self->mean.n == self->std.n && (self->mean.n == 1 || self->mean.n == 3);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "mean and std hold 1 or 3 numbers each, the same count; got %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT,
                 self->mean.n, self->std.n);
  info->length = n;
  info->n_fields = 2;
  info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_U8, .shape = heddle_shape (3, SIDE, SIDE), .scale = 1.0 / 255.0, .channels = (gint32) self->mean.n };
  info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_I64, .shape = heddle_scalar_shape (), .classes = n_classes (self) };
  for (gsize i = 0; ok && i < self->mean.n; i++)
    {
      info->field[0].mean[i] = self->mean.items[i];
      info->field[0].std[i] = self->std.items[i];
    }
  return ok;
}

static gboolean
open_files (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Cifar *self = data;
  self->label_bytes = self->variant == CIFAR100 ? 2 : 1;
  self->label_at = self->variant == CIFAR100 && self->labels == FINE ? 1 : 0;
  self->record = self->label_bytes + PIXELS;
  gboolean ok = add_files (self, error);
  guint64 total = self->first[self->n_files], n = self->limit ? MIN ((guint64) self->limit, total) : total;
  ok = ok && declare (self, info, n, error) && check_labels (self, n, error);
  if (!ok)
    close_files (self);
  return ok;
}

/* DST and SRC (3, 32, 32): shifted by (dy, dx), mirrored or not, black where nothing was. */
static void
place (guint8 *dst, const guint8 *src, int dy, int dx, gboolean mirror)
{
  for (int c = 0; c < 3; c++)
    for (int y = 0; y < SIDE; y++)
      for (int x = 0; x < SIDE; x++)
        {
          int from_y = y + dy, from_x = (mirror ? SIDE - 1 - x : x) + dx;
          gboolean inside = from_y >= 0 && from_y < SIDE && from_x >= 0 && from_x < SIDE;
          dst[(c * SIDE + y) * SIDE + x] = inside ? src[(c * SIDE + from_y) * SIDE + from_x] : 0;
        }
}

/* fields[0]: image (3, 32, 32) u8; fields[1]: label i64 */
static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Cifar *self = data;
  const guint8 *record = record_at (self, index);
  gint64 label = record[self->label_at];
  int reach = (int) self->crop_padding, span = 2 * reach + 1;
  int dy = reach ? (int) heddle_random_below (random, (guint32) span) - reach : 0;
  int dx = reach ? (int) heddle_random_below (random, (guint32) span) - reach : 0;
  gboolean mirror = self->flip && (heddle_random_u32 (random) & 1);
  if (dy || dx || mirror)
    place (fields[0], record + self->label_bytes, dy, dx, mirror);
  else
    memcpy (fields[0], record + self->label_bytes, PIXELS);
  memcpy (fields[1], &label, sizeof label);
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_files, read_sample, close_files };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Cifar, options, .name = "cifar", .version = "1.0",
               .summary = "CIFAR-10 and CIFAR-100, binary version, with random crop and flip", .license = "MIT");
