/* plugins/dataset-idx/idx.c: the MNIST family (IDX files, plain or gzip) as images and labels.
 * Owns the file format; knows nothing of batches, order or devices.
 * Format: http://yann.lecun.com/exdb/mnist/ ("THE IDX FILE FORMAT"): big-endian magic 0x00000803 (bytes, 3 sizes) or 0x00000801. */
#include <heddle/plugin.h>

#include <errno.h>
#include <zlib.h>

typedef struct
{
  char           *root, *images, *labels;
  int             split;
  gint64          limit, classes;
  HeddleFloatList mean, std;
  /* once open */
  GBytes         *image_file, *label_file;
  const guint8   *pixel, *label;
  gsize           image_bytes;
} Idx;

enum { TRAIN = 1, TEST };

static const HeddleEnumValue splits[] = {
  { TRAIN, "train", "train-images-idx3-ubyte, train-labels-idx1-ubyte" },
  { TEST, "test", "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte" },
  { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_STRING (Idx, root, NULL, "Folder with the IDX files, plain or .gz", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_ENUM (Idx, split, TRAIN, splits, "Which pair of files to serve"),
  HEDDLE_STRING (Idx, images, NULL, "File name of the images inside root, in place of the split's own"),
  HEDDLE_STRING (Idx, labels, NULL, "File name of the labels inside root, in place of the split's own"),
  HEDDLE_INT (Idx, limit, 0, 0, G_MAXINT32, "Serve the first N samples only; 0 means all", .unit = "samples"),
  HEDDLE_INT (Idx, classes, 10, 1, 256, "Number of classes; a label outside 0 .. classes - 1 is an error"),
  HEDDLE_FLOAT_LIST (Idx, mean, "0", -1e6, 1e6, "Subtracted from the pixels after they were scaled to 0 .. 1"),
  HEDDLE_FLOAT_LIST (Idx, std, "1", 1e-6, 1e6, "Divides the pixels after the mean was subtracted"),
  HEDDLE_OPTIONS_END
};

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static gboolean
refuse (GError **error, const char *file, const char *hint, const char *format, ...) G_GNUC_PRINTF (4, 5);

static gboolean
refuse (GError **error, const char *file, const char *hint, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s: %s\nhint: %s", file, what, hint);
  return FALSE;
}

static const char again[] = "the file is damaged; fetch it again";

/* Inflates FILE whole.  gzread would pass plain bytes through, but then nothing could be mapped. */
static GBytes *
inflate_file (const char *file, GError **error)
{
  gzFile gz = gzopen (file, "rb");
  GByteArray *bytes = g_byte_array_sized_new (1 << 20);
  gboolean ok = gz != NULL;
  int code = Z_OK, got = 1;
  if (!ok)
    refuse (error, file, "check the folder and its permissions", "cannot be opened: %s", g_strerror (errno));
  while (ok && got > 0)
    {
      gsize used = bytes->len;
      g_byte_array_set_size (bytes, used + (1 << 20));
      got = gzread (gz, bytes->data + used, 1 << 20);
      g_byte_array_set_size (bytes, used + MAX (got, 0));
    }
  if (ok)
    {
      const char *why = gzerror (gz, &code);
      if (got < 0 || code != Z_OK)
        ok = refuse (error, file, again, "corrupt gzip data after %u bytes (%s)", bytes->len, *why ? why : "unexpected end of file");
    }
  if (gz)
    gzclose (gz);
  if (!ok)
    g_byte_array_unref (bytes);
  return ok ? g_byte_array_free_to_bytes (bytes) : NULL;
}

static GBytes *
map_file (const char *file, GError **error)
{
  g_autoptr (GMappedFile) map = g_mapped_file_new (file, FALSE, error);
  return map ? g_mapped_file_get_bytes (map) : NULL;
}

/* STEM itself, or STEM.gz; (transfer full). */
static char *
find_file (const char *root, const char *stem, GError **error)
{
  g_autofree char *plain = g_build_filename (root, stem, NULL);
  g_autofree char *gz = g_strconcat (plain, ".gz", NULL);
  char *found = g_file_test (plain, G_FILE_TEST_IS_REGULAR) ? g_strdup (plain) : g_file_test (gz, G_FILE_TEST_IS_REGULAR) ? g_strdup (gz) : NULL;
  if (!found)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA,
                 "%s: neither this file nor %s.gz exists\nhint: set root to the folder that holds the IDX files", plain, stem);
  return found;
}

/* Opens STEM, checks its magic, and that its size is exactly what its header says.  SIZES: n, or n, rows, columns. */
static GBytes *
open_idx (const char *root, const char *stem, guint n_sizes, guint32 *sizes, GError **error)
{
  g_autofree char *file = find_file (root, stem, error);
  g_autoptr (GBytes) bytes = !file ? NULL : g_str_has_suffix (file, ".gz") ? inflate_file (file, error) : map_file (file, error);
  gsize length = 0, header = 4 + 4 * n_sizes, expected = header;
  const guint8 *data = bytes ? g_bytes_get_data (bytes, &length) : NULL;
  gboolean ok = bytes != NULL;
  if (ok && length < header)
    ok = refuse (error, file, again, "has %" G_GSIZE_FORMAT " bytes, less than the header's %" G_GSIZE_FORMAT, length, header);
  if (ok && (data[0] || data[1] || data[2] != 8 || data[3] != n_sizes))
    ok = refuse (error, file, "is this the right file for images or labels?", "not an IDX file of bytes with %u sizes: magic %02x%02x%02x%02x, expected 0000080%u",
                 n_sizes, data[0], data[1], data[2], data[3], n_sizes);
  gsize count = 1;
  for (guint i = 0; ok && i < n_sizes; i++)
    {
      const guint8 *p = data + 4 + 4 * i;
      sizes[i] = (guint32) p[0] << 24 | (guint32) p[1] << 16 | (guint32) p[2] << 8 | p[3];
      if (sizes[i] == 0 || sizes[i] > G_MAXINT32 || !g_size_checked_mul (&count, count, sizes[i]))
        ok = refuse (error, file, again, "size %u of its header is %u", i + 1, sizes[i]);
    }
  if (ok && (!g_size_checked_add (&expected, header, count) || length != expected))
    ok = refuse (error, file, again, "has %" G_GSIZE_FORMAT " bytes, its header calls for %" G_GSIZE_FORMAT "%s", length, expected,
                 length < expected ? ": truncated" : "");
  return ok ? g_steal_pointer (&bytes) : NULL;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

static gboolean
check_labels (const Idx *self, guint64 n, const char *file, GError **error)
{
  gboolean ok = TRUE;
  for (guint64 i = 0; ok && i < n; i++)
    if (self->label[i] >= self->classes)
      ok = refuse (error, file, "set classes to the number of classes in these files, if the label is right",
                   "label %u of sample %" G_GUINT64_FORMAT " is outside 0 .. %" G_GINT64_FORMAT, self->label[i], i, self->classes - 1);
  return ok;
}

static gboolean
check_normalisation (const Idx *self, GError **error)
{
  gboolean ok = self->mean.n == 1 && self->std.n == 1;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "mean and std hold one number each, because the images have one channel; got %" G_GSIZE_FORMAT " and %"
                 G_GSIZE_FORMAT "\nhint: mean = 0.2860, std = 0.3530 for Fashion-MNIST", self->mean.n, self->std.n);
  return ok;
}

static void
close_files (gpointer data)
{
  Idx *self = data;
  g_clear_pointer (&self->image_file, g_bytes_unref);
  g_clear_pointer (&self->label_file, g_bytes_unref);
}

static void
declare (const Idx *self, HeddleDatasetInfo *info, guint64 n, gint64 rows, gint64 columns)
{
  info->length = n;
  info->n_fields = 2;
  info->field[0] = (HeddleField) { .name = "image", .dtype = HEDDLE_U8, .shape = heddle_shape (1, rows, columns), .scale = 1.0 / 255.0, .channels = 1,
                                   .mean = { self->mean.items[0] }, .std = { self->std.items[0] } };
  info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_I64, .shape = heddle_scalar_shape (), .classes = self->classes };
}

static gboolean
open_files (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Idx *self = data;
  const char *part = self->split == TRAIN ? "train" : "t10k";
  g_autofree char *images = self->images ? g_strdup (self->images) : g_strconcat (part, "-images-idx3-ubyte", NULL);
  g_autofree char *labels = self->labels ? g_strdup (self->labels) : g_strconcat (part, "-labels-idx1-ubyte", NULL);
  guint32 size[3] = { 0 }, n_labels = 0;
  gboolean ok = check_normalisation (self, error) && (self->image_file = open_idx (self->root, images, 3, size, error))
                && (self->label_file = open_idx (self->root, labels, 1, &n_labels, error));
  if (ok && size[0] != n_labels)
    ok = refuse (error, labels, "images and labels must be of the same split", "holds %u labels for %u images", n_labels, size[0]);
  if (ok)
    {
      guint64 n = self->limit ? MIN ((guint64) self->limit, n_labels) : n_labels;
      self->pixel = (const guint8 *) g_bytes_get_data (self->image_file, NULL) + 16;
      self->label = (const guint8 *) g_bytes_get_data (self->label_file, NULL) + 8;
      self->image_bytes = (gsize) size[1] * size[2];
      declare (self, info, n, size[1], size[2]);
      ok = check_labels (self, n, labels, error);
    }
  if (!ok)
    close_files (self);
  return ok;
}

/* fields[0]: image (1, rows, columns) u8; fields[1]: label i64 */
static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Idx *self = data;
  gint64 label = self->label[index];
  memcpy (fields[0], self->pixel + index * self->image_bytes, self->image_bytes);
  memcpy (fields[1], &label, sizeof label);
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_files, read_sample, close_files };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Idx, options, .name = "idx", .version = "1.0",
               .summary = "MNIST family: images and labels in IDX files, plain or gzip", .license = "MIT", .build = "zlib " ZLIB_VERSION);
