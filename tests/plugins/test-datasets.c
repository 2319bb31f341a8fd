/* test-datasets.c: the dataset plugins on files this test writes: every number of every sample, and every kind of damaged file. */
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <zlib.h>

#include "plugin/registry.h"

static HeddleRegistry *registry;
static char *folder;
static const HeddleCore core = { .size = sizeof core };

static HeddleInstance *
make (const char *name, const char *options)
{
  GError *error = NULL;
  HeddleInstance *set = heddle_instance_new (heddle_registry_find (registry, "dataset", name, &error));
  g_assert_no_error (error);
  g_auto (GStrv) pairs = g_strsplit (options, " ", -1);
  for (guint i = 0; pairs[i] && *pairs[i]; i++)
    {
      g_auto (GStrv) pair = g_strsplit (pairs[i], "=", 2);
      heddle_options_set_text (set->entry->options, set->self, pair[0], pair[1], folder, &error);
      g_assert_no_error (error);
    }
  return set;
}

static gboolean
read_sample (HeddleInstance *set, guint64 index, gpointer image, gint64 *label, guint64 seed)
{
  const HeddleDatasetIface *iface = set->entry->plugin->iface;
  gpointer fields[] = { image, label };
  HeddleRandom random = heddle_random (seed, HEDDLE_STREAM_SAMPLE, 0, (guint32) index);
  return iface->read (set->self, index, fields, &random, NULL);
}

static void
put_file (const char *name, const guint8 *bytes, gsize n, gboolean gz)
{
  g_autofree char *file = g_build_filename (folder, name, NULL), *packed = g_strconcat (file, ".gz", NULL);
  g_remove (file);
  g_remove (packed);
  if (!gz)
    g_assert_true (g_file_set_contents (file, (const char *) bytes, (gssize) n, NULL));
  else
    {
      gzFile out = gzopen (packed, "wb");
      g_assert_cmpint (gzwrite (out, bytes, (unsigned) n), ==, (int) n);
      gzclose (out);
    }
}

/* ---- idx ---- */

#define N 5
#define ROWS 3
#define COLUMNS 4

static void
put_idx (gboolean gz, guint8 images[16 + N * ROWS * COLUMNS], guint8 labels[8 + N])
{
  const guint8 image_head[16] = { 0, 0, 8, 3, 0, 0, 0, N, 0, 0, 0, ROWS, 0, 0, 0, COLUMNS }, label_head[8] = { 0, 0, 8, 1, 0, 0, 0, N };
  memcpy (images, image_head, 16);
  memcpy (labels, label_head, 8);
  for (guint i = 0; i < N * ROWS * COLUMNS; i++)
    images[16 + i] = (guint8) (i * 37);
  for (guint i = 0; i < N; i++)
    labels[8 + i] = (guint8) (i * 3 % 10);
  put_file ("train-images-idx3-ubyte", images, 16 + N * ROWS * COLUMNS, gz);
  put_file ("train-labels-idx1-ubyte", labels, 8 + N, gz);
}

static void
test_idx (void)
{
  guint8 images[16 + N * ROWS * COLUMNS], labels[8 + N], image[ROWS * COLUMNS];
  for (int gz = 0; gz < 2; gz++)
    {
      HeddleDatasetInfo info;
      GError *error = NULL;
      gint64 label;
      put_idx (gz, images, labels);
      g_autoptr (HeddleInstance) set = make ("idx", "root=. mean=0.25 std=0.5");
      heddle_instance_open_dataset (set, &core, &info, &error);
      g_assert_no_error (error);
      g_assert_cmpuint (info.length, ==, N);
      g_assert_cmpuint (info.n_fields, ==, 2);
      g_assert_cmpstr (info.field[0].name, ==, "image");
      g_assert_true (info.field[0].shape.rank == 3 && info.field[0].shape.size[0] == 1 && info.field[0].shape.size[1] == ROWS && info.field[0].shape.size[2] == COLUMNS);
      g_assert_true (info.field[0].scale == 1.0 / 255 && info.field[0].mean[0] == 0.25 && info.field[0].std[0] == 0.5);
      g_assert_cmpint (info.field[1].classes, ==, 10);
      for (guint i = N; i-- > 0;)
        {
          g_assert_true (read_sample (set, i, image, &label, 0));
          g_assert_cmpmem (image, sizeof image, images + 16 + i * ROWS * COLUMNS, ROWS * COLUMNS);
          g_assert_cmpint (label, ==, labels[8 + i]);
        }
      g_autoptr (HeddleInstance) few = make ("idx", "root=. limit=2");
      g_assert_true (heddle_instance_open_dataset (few, &core, &info, &error));
      g_assert_cmpuint (info.length, ==, 2);
    }
}

/* CHANGE one byte of the images or labels, or their length, and the file is refused with these words. */
static void
refuse_idx (gboolean label_file, gsize at, guint8 value, gssize longer, const char *options, const char *says)
{
  guint8 images[16 + N * ROWS * COLUMNS + 1] = { 0 }, labels[8 + N + 1] = { 0 };
  HeddleDatasetInfo info;
  GError *error = NULL;
  put_idx (FALSE, images, labels);
  guint8 *bytes = label_file ? labels : images;
  gssize n = (label_file ? 8 + N : 16 + N * ROWS * COLUMNS) + longer;
  if (at != G_MAXSIZE)
    bytes[at] = value;
  put_file (label_file ? "train-labels-idx1-ubyte" : "train-images-idx3-ubyte", bytes, (gsize) MAX (n, 0), FALSE);
  g_autoptr (HeddleInstance) set = make ("idx", options);
  g_assert_false (heddle_instance_open_dataset (set, &core, &info, &error));
  g_assert_true (g_str_has_prefix (error->message, "dataset-idx: "));
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_error_free (error);
}

static void
test_idx_refusals (void)
{
  refuse_idx (FALSE, 2, 9, 0, "root=.", "magic 00000903");
  refuse_idx (FALSE, 3, 1, 0, "root=.", "magic 00000801");
  refuse_idx (TRUE, 3, 3, 0, "root=.", "magic 00000803");
  refuse_idx (FALSE, 7, N + 1, 0, "root=.", "truncated");
  refuse_idx (FALSE, G_MAXSIZE, 0, -1, "root=.", "has 75 bytes, its header calls for 76: truncated");
  refuse_idx (FALSE, G_MAXSIZE, 0, 1, "root=.", "has 77 bytes, its header calls for 76");
  refuse_idx (FALSE, G_MAXSIZE, 0, -1000, "root=.", "has 0 bytes, less than the header's 16");
  refuse_idx (TRUE, G_MAXSIZE, 0, -6, "root=.", "less than the header's 8");
  refuse_idx (FALSE, 7, 0, 0, "root=.", "size 1 of its header is 0");
  refuse_idx (FALSE, 4, 255, 0, "root=.", "size 1 of its header is 4278190085");
  refuse_idx (TRUE, 8 + 2, 10, 0, "root=.", "label 10 of sample 2 is outside 0 .. 9");
  refuse_idx (TRUE, 7, N - 1, -1, "root=.", "holds 4 labels for 5 images");
  refuse_idx (FALSE, G_MAXSIZE, 0, 0, "root=nowhere", "neither this file nor train-images-idx3-ubyte.gz exists");
  refuse_idx (FALSE, G_MAXSIZE, 0, 0, "root=. mean=0.1,0.2", "one number each");
}

static void
test_idx_gz_damage (void)
{
  guint8 images[16 + N * ROWS * COLUMNS], labels[8 + N];
  g_autofree char *packed = g_build_filename (folder, "train-images-idx3-ubyte.gz", NULL), *bytes = NULL;
  gsize n;
  put_idx (TRUE, images, labels);
  g_assert_true (g_file_get_contents (packed, &bytes, &n, NULL));
  for (guint way = 0; way < 2; way++)
    {
      HeddleDatasetInfo info;
      GError *error = NULL;
      g_autofree char *bad = g_memdup2 (bytes, n);
      bad[n / 2] = (char) (bad[n / 2] ^ (way ? 0x55 : 0));
      g_assert_true (g_file_set_contents (packed, bad, (gssize) (way ? n : n / 2), NULL));
      g_autoptr (HeddleInstance) set = make ("idx", "root=.");
      g_assert_false (heddle_instance_open_dataset (set, &core, &info, &error));
      g_assert_nonnull (strstr (error->message, "train-images-idx3-ubyte.gz: "));
      g_error_free (error);
    }
}

/* ---- cifar ---- */

#define PIXELS 3072

static void
put_cifar (guint n_files, guint per_file)
{
  for (guint f = 1; f <= n_files; f++)
    {
      g_autofree guint8 *bytes = g_new (guint8, per_file * (PIXELS + 1));
      g_autofree char *name = g_strdup_printf ("data_batch_%u.bin", f);
      for (guint i = 0; i < per_file; i++)
        {
          bytes[i * (PIXELS + 1)] = (guint8) ((f + i) % 10);
          for (guint k = 0; k < PIXELS; k++)
            bytes[i * (PIXELS + 1) + 1 + k] = (guint8) (f * 50 + i * 7 + k % 251);
        }
      put_file (name, bytes, per_file * (PIXELS + 1), FALSE);
    }
}

static guint8
cifar_pixel (guint64 index, guint per_file, int c, int y, int x)
{
  guint f = (guint) (index / per_file) + 1, i = (guint) (index % per_file), k = (guint) ((c * 32 + y) * 32 + x);
  return y < 0 || y > 31 || x < 0 || x > 31 ? 0 : (guint8) (f * 50 + i * 7 + k % 251);
}

static void
test_cifar (void)
{
  HeddleDatasetInfo info;
  GError *error = NULL;
  guint8 image[PIXELS];
  gint64 label;
  put_cifar (5, 3);
  g_autoptr (HeddleInstance) set = make ("cifar", "root=.");
  heddle_instance_open_dataset (set, &core, &info, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (info.length, ==, 15);
  g_assert_cmpint (info.field[1].classes, ==, 10);
  g_assert_cmpint (info.field[0].channels, ==, 3);
  for (guint i = 0; i < 15; i++)
    {
      g_assert_true (read_sample (set, i, image, &label, 0));
      g_assert_cmpint (label, ==, (i / 3 + 1 + i % 3) % 10);
      for (int k = 0; k < PIXELS; k++)
        g_assert_cmpint (image[k], ==, cifar_pixel (i, 3, k / 1024, k / 32 % 32, k % 32));
    }
}

/* An augmented image is the original shifted by at most the padding, mirrored or not; all shifts and both sides occur; the stream alone decides. */
static void
test_cifar_augmentation (void)
{
  HeddleDatasetInfo info;
  guint8 image[PIXELS], again[PIXELS];
  gint64 label;
  gboolean seen[5][5][2] = { 0 };
  guint n_seen = 0;
  put_cifar (5, 3);
  g_autoptr (HeddleInstance) set = make ("cifar", "root=. crop_padding=2 flip=true");
  g_assert_true (heddle_instance_open_dataset (set, &core, &info, NULL));
  for (guint64 seed = 0; seed < 400; seed++)
    {
      guint matches = 0;
      read_sample (set, 4, image, &label, seed);
      read_sample (set, 4, again, &label, seed);
      g_assert_cmpmem (image, sizeof image, again, sizeof again);
      for (int dy = -2; dy <= 2; dy++)
        for (int dx = -2; dx <= 2; dx++)
          for (int mirror = 0; mirror < 2; mirror++)
            {
              gboolean same = TRUE;
              for (int k = 0; same && k < PIXELS; k++)
                {
                  int y = k / 32 % 32, x = k % 32;
                  same = image[k] == cifar_pixel (4, 3, k / 1024, y + dy, (mirror ? 31 - x : x) + dx);
                  if (same && (y + dy < 0 || y + dy > 31))
                    same = image[k] == 0;
                }
              if (same)
                {
                  matches++;
                  n_seen += !seen[dy + 2][dx + 2][mirror];
                  seen[dy + 2][dx + 2][mirror] = TRUE;
                }
            }
      g_assert_cmpuint (matches, ==, 1);
    }
  g_assert_cmpuint (n_seen, ==, 50);
}

static void
test_cifar_refusals (void)
{
  HeddleDatasetInfo info;
  GError *error = NULL;
  guint8 bytes[2 * (PIXELS + 1)] = { 0 };
  put_cifar (5, 2);
  put_file ("data_batch_3.bin", bytes, PIXELS + 5, FALSE);
  g_autoptr (HeddleInstance) cut = make ("cifar", "root=.");
  g_assert_false (heddle_instance_open_dataset (cut, &core, &info, &error));
  g_assert_nonnull (strstr (error->message, "data_batch_3.bin: has 3077 bytes, not a positive multiple of a record's 3073"));
  g_clear_error (&error);
  bytes[PIXELS + 1] = 10;
  put_file ("data_batch_3.bin", bytes, sizeof bytes, FALSE);
  g_autoptr (HeddleInstance) label = make ("cifar", "root=.");
  g_assert_false (heddle_instance_open_dataset (label, &core, &info, &error));
  g_assert_nonnull (strstr (error->message, "label 10 of sample 5 is outside 0 .. 9"));
  g_clear_error (&error);
  g_autoptr (HeddleInstance) absent = make ("cifar", "root=. variant=cifar100");
  g_assert_false (heddle_instance_open_dataset (absent, &core, &info, &error));
  g_assert_nonnull (strstr (error->message, "train.bin"));
  g_clear_error (&error);
}

static void
test_cifar100 (void)
{
  HeddleDatasetInfo info;
  guint8 bytes[2 * (PIXELS + 2)] = { 3, 77 }, image[PIXELS];
  gint64 label;
  bytes[PIXELS + 2] = 19;
  bytes[PIXELS + 3] = 99;
  bytes[PIXELS + 4] = 42;
  put_file ("train.bin", bytes, sizeof bytes, FALSE);
  g_autoptr (HeddleInstance) fine = make ("cifar", "root=. variant=cifar100"), coarse = make ("cifar", "root=. variant=cifar100 labels=coarse");
  g_assert_true (heddle_instance_open_dataset (fine, &core, &info, NULL));
  g_assert_cmpint (info.field[1].classes, ==, 100);
  read_sample (fine, 1, image, &label, 0);
  g_assert_cmpint (label, ==, 99);
  g_assert_cmpint (image[0], ==, 42);
  g_assert_true (heddle_instance_open_dataset (coarse, &core, &info, NULL));
  g_assert_cmpint (info.field[1].classes, ==, 20);
  read_sample (coarse, 1, image, &label, 0);
  g_assert_cmpint (label, ==, 19);
}

/* ---- synthetic ---- */

/* The nearest mean of each class names nearly every sample: it can be learned; the test split has other samples of the same classes. */
static void
test_synthetic (void)
{
  enum { CLASSES = 4, SIZE = 30, LENGTH = 2000 };
  HeddleDatasetInfo info;
  g_autoptr (HeddleInstance) train = make ("synthetic", "shape=5,6 classes=4 length=2000 noise=1"), test = make ("synthetic", "shape=5,6 classes=4 length=2000 noise=1 split=test");
  g_assert_true (heddle_instance_open_dataset (train, &core, &info, NULL) && heddle_instance_open_dataset (test, &core, &info, NULL));
  g_assert_true (info.length == LENGTH && info.field[0].shape.rank == 2 && info.field[1].classes == CLASSES);
  double mean[CLASSES][SIZE] = { { 0 } };
  guint count[CLASSES] = { 0 }, right = 0, equal = 0;
  float x[SIZE], y[SIZE];
  gint64 label, other;
  for (guint i = 0; i < LENGTH; i++)
    {
      read_sample (train, i, x, &label, i);
      count[label]++;
      for (guint k = 0; k < SIZE; k++)
        mean[label][k] += x[k];
    }
  for (guint c = 0; c < CLASSES; c++)
    {
      g_assert_cmpfloat_with_epsilon (count[c], LENGTH / CLASSES, 5 * sqrt (LENGTH / (double) CLASSES));
      for (guint k = 0; k < SIZE; k++)
        mean[c][k] /= count[c];
    }
  for (guint i = 0; i < LENGTH; i++)
    {
      guint best = 0;
      double least = INFINITY;
      read_sample (test, i, y, &label, 0);
      read_sample (train, i, x, &other, 7);
      equal += memcmp (x, y, sizeof x) == 0;
      for (guint c = 0; c < CLASSES; c++)
        {
          double d = 0;
          for (guint k = 0; k < SIZE; k++)
            d += (y[k] - mean[c][k]) * (y[k] - mean[c][k]);
          best = d < least ? c : best;
          least = MIN (d, least);
        }
      right += best == label;
    }
  g_assert_cmpuint (equal, ==, 0);
  g_assert_cmpuint (right, >, LENGTH * 95 / 100);
}

static void
test_synthetic_bytes (void)
{
  HeddleDatasetInfo info;
  GError *error = NULL;
  guint8 a[6], b[6];
  gint64 label, again;
  g_autoptr (HeddleInstance) set = make ("synthetic", "shape=6 dtype=u8"), huge = make ("synthetic", "shape=65536,65536 classes=10");
  g_assert_true (heddle_instance_open_dataset (set, &core, &info, NULL));
  g_assert_true (info.field[0].dtype == HEDDLE_U8 && info.field[0].scale == 1.0 / 255);
  read_sample (set, 5, a, &label, 1);
  read_sample (set, 5, b, &again, 2);                    /* the sample's own stream plays no part */
  g_assert_cmpmem (a, 6, b, 6);
  g_assert_cmpint (label, ==, again);
  g_assert_false (heddle_instance_open_dataset (huge, &core, &info, &error));
  g_assert_nonnull (strstr (error->message, "4 GiB"));
  g_error_free (error);
}

static void
clean (void)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while ((name = g_dir_read_name (dir)))
    {
      g_autofree char *file = g_build_filename (folder, name, NULL);
      g_remove (file);
    }
  g_dir_close (dir);
  g_rmdir (folder);
  g_free (folder);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  registry = heddle_registry_new (NULL);
  folder = g_dir_make_tmp ("heddle-data-XXXXXX", NULL);
  g_test_add_func ("/idx/numbers", test_idx);
  g_test_add_func ("/idx/refusals", test_idx_refusals);
  g_test_add_func ("/idx/gz-damage", test_idx_gz_damage);
  g_test_add_func ("/cifar/numbers", test_cifar);
  g_test_add_func ("/cifar/augmentation", test_cifar_augmentation);
  g_test_add_func ("/cifar/refusals", test_cifar_refusals);
  g_test_add_func ("/cifar/cifar100", test_cifar100);
  g_test_add_func ("/synthetic/learnable", test_synthetic);
  g_test_add_func ("/synthetic/bytes", test_synthetic_bytes);
  int status = g_test_run ();
  clean ();
  heddle_registry_free (registry);
  return status;
}
