/* test-datasets.c: the dataset plugins on files this test writes: every number of every sample, and every kind of damaged file. */
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <zlib.h>

#include "plugin/registry.h"
#include "base/memory.h"

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
      g_autofree char *bad = heddle_memdup (bytes, n);
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

/* ---- text ---- */

static HeddleInstance *
open_set (const char *name, const char *options, HeddleDatasetInfo *info)
{
  GError *error = NULL;
  HeddleInstance *set = make (name, options);
  heddle_instance_open_dataset (set, &core, info, &error);
  g_assert_no_error (error);
  return set;
}

static void
refuse_set (HeddleInstance *set, const char *says)
{
  HeddleDatasetInfo info;
  GError *error = NULL;
  g_assert_false (heddle_instance_open_dataset (set, &core, &info, &error));
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_assert_nonnull (strstr (error->message, "\nhint: "));
  g_error_free (error);
  heddle_instance_free (set);
}

static void
test_text_bytes (void)
{
  HeddleDatasetInfo info;
  guint8 bytes[1003], tokens[10], targets[10];
  for (guint i = 0; i < sizeof bytes; i++)
    bytes[i] = (guint8) (i * 31);
  put_file ("t.txt", bytes, sizeof bytes, FALSE);
  g_autoptr (HeddleInstance) set = open_set ("text", "file=t.txt units=bytes window=10 stride=7", &info);
  g_assert_true (info.n_fields == 2 && info.field[0].dtype == HEDDLE_U8 && info.field[1].dtype == HEDDLE_U8 && info.field[0].shape.rank == 1 && info.field[0].shape.size[0] == 10);
  g_assert_cmpstr (info.field[0].name, ==, "tokens");
  g_assert_cmpstr (info.field[1].name, ==, "targets");
  g_assert_true (info.field[0].classes == 256 && info.field[1].classes == 256);
  g_assert_cmpuint (info.length, ==, (1003 - 11) / 7 + 1);
  for (guint64 k = 0; k < info.length; k++)
    {
      g_assert_true (read_sample (set, k, tokens, (gint64 *) targets, 1));
      g_assert_cmpmem (tokens, 10, bytes + 7 * k, 10);
      g_assert_cmpmem (targets, 10, bytes + 7 * k + 1, 10);
    }
  g_autoptr (HeddleInstance) exact = open_set ("text", "file=t.txt units=bytes window=1002", &info);
  g_assert_cmpuint (info.length, ==, 1);
}

/* Characters of 1 to 4 bytes, more of them than lie between two marks, against GLib's own conversion to code points. */
static void
test_text_characters (void)
{
  static const gunichar alphabet[] = { 'a', 0x10FFFF, 0xE9, 0, 0x20AC, 'z', 0x1F600, '\n' };
  static const gint64 rank[] = { 2, 7, 4, 0, 5, 3, 6, 1 };
  enum { COUNT = 1500, WINDOW = 33 };
  HeddleDatasetInfo info;
  guint8 tokens[WINDOW], targets[WINDOW];
  guint which[COUNT];
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < COUNT; i++)
    {
      which[i] = i < 8 ? i : (i * 7919u >> 3) % 8;
      if (alphabet[which[i]])
        g_string_append_unichar (text, alphabet[which[i]]);
      else
        g_string_append_c (text, 0);
    }
  put_file ("u.txt", (const guint8 *) text->str, text->len, FALSE);
  g_autoptr (HeddleInstance) set = open_set ("text", "file=u.txt window=33 stride=1", &info);
  g_assert_cmpuint (info.length, ==, COUNT - WINDOW);
  g_assert_cmpint (info.field[0].classes, ==, 8);
  for (guint64 k = info.length; k-- > 0;)
    {
      read_sample (set, k, tokens, (gint64 *) targets, 0);
      for (guint i = 0; i < WINDOW; i++)
        g_assert_true (tokens[i] == rank[which[k + i]] && targets[i] == rank[which[k + i + 1]]);
    }
  g_string_free (text, TRUE);
}

/* More than 256 characters need more than a byte each. */
static void
test_text_wide (void)
{
  HeddleDatasetInfo info;
  gint32 tokens[4], targets[4];
  GString *text = g_string_new (NULL);
  for (gunichar c = 0; c < 300; c++)
    g_string_append_unichar (text, 0x4E00 + 299 - c);
  put_file ("w.txt", (const guint8 *) text->str, text->len, FALSE);
  g_autoptr (HeddleInstance) set = open_set ("text", "file=w.txt window=4 stride=4", &info);
  g_assert_true (info.field[0].dtype == HEDDLE_I32 && info.field[0].classes == 300);
  read_sample (set, 70, tokens, (gint64 *) targets, 0);
  for (gint i = 0; i < 4; i++)
    g_assert_true (tokens[i] == 299 - 280 - i && targets[i] == 298 - 280 - i);
  g_string_free (text, TRUE);
}

/* Every place of the split occurs, none outside it, and the sample's stream alone decides; the vocabulary is the whole file's. */
static void
test_text_random (void)
{
  HeddleDatasetInfo info;
  guint8 text[100], tokens[5], targets[5], again[5];
  gboolean seen[100] = { FALSE };
  guint n_seen = 0;
  for (guint i = 0; i < sizeof text; i++)
    text[i] = (guint8) (i < 80 ? ' ' + i : '~' - i % 3);
  put_file ("r.txt", text, sizeof text, FALSE);
  g_autoptr (HeddleInstance) all = open_set ("text", "file=r.txt window=5", &info);
  gint64 classes = info.field[0].classes;
  g_autoptr (HeddleInstance) set = open_set ("text", "file=r.txt window=5 windows=random length=1000 split=train test_fraction=0.2", &info);
  g_assert_cmpuint (info.length, ==, 1000);
  g_assert_cmpint (info.field[0].classes, ==, classes);
  for (guint64 k = 0; k < 1000; k++)
    {
      read_sample (set, k, tokens, (gint64 *) targets, 3);
      read_sample (set, k, again, (gint64 *) targets, 3);
      g_assert_cmpmem (tokens, 5, again, 5);
      g_assert_true (targets[4] < 80 && tokens[0] + 5 == targets[4]);
      n_seen += !seen[tokens[0]];
      seen[tokens[0]] = TRUE;
    }
  g_assert_cmpuint (n_seen, ==, 75);
  g_autoptr (HeddleInstance) test = open_set ("text", "file=r.txt units=bytes window=5 stride=1 split=test test_fraction=0.2", &info);
  g_assert_cmpuint (info.length, ==, 15);
  read_sample (test, 0, tokens, (gint64 *) targets, 0);
  g_assert_cmpmem (tokens, 5, text + 80, 5);
  read_sample (test, 14, tokens, (gint64 *) targets, 0);
  g_assert_cmpmem (targets, 5, text + 95, 5);
}

static void
test_text_refusals (void)
{
  guint8 text[64];
  memset (text, 'x', sizeof text);
  put_file ("short.txt", text, 64, FALSE);
  put_file ("empty.txt", text, 0, FALSE);
  refuse_set (make ("text", "file=absent.txt"), "absent.txt: there is no such file");
  refuse_set (make ("text", "file=empty.txt"), "empty.txt: is empty");
  refuse_set (make ("text", "file=short.txt window=64"), "the file has 64 characters, a sample needs 65");
  refuse_set (make ("text", "file=short.txt window=8 split=test test_fraction=0.1"), "the test split has 6 characters, a sample needs 9");
  refuse_set (make ("text", "file=short.txt window=8 split=train test_fraction=1"), "the train split has 0 characters");
  refuse_set (make ("text", "file=short.txt window=8 windows=random stride=2"), "option \"stride\"");
  refuse_set (make ("text", "file=short.txt window=8 length=2"), "option \"length\"");
  static const guint8 bad[][4] = { { 0xFF, 'a', 'a', 'a' }, { 0xC3, 'a', 'a', 'a' }, { 0xC0, 0x80, 'a', 'a' }, { 0xED, 0xA0, 0x80, 'a' }, { 0xF4, 0x90, 0x80, 0x80 }, { 0x80, 'a', 'a', 'a' } };
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      memcpy (text + 17, bad[i], 4);
      put_file ("bad.txt", text, 64, FALSE);
      refuse_set (make ("text", "file=bad.txt window=8"), "at offset 17 begins no character");
    }
  memset (text, 'x', sizeof text);
  text[63] = 0xE2;                                       /* cut off in the middle of a character */
  put_file ("bad.txt", text, 64, FALSE);
  refuse_set (make ("text", "file=bad.txt window=8"), "byte 0xe2 at offset 63");
  HeddleDatasetInfo info;
  g_autoptr (HeddleInstance) bytes = open_set ("text", "file=bad.txt window=8 units=bytes", &info);
  g_assert_cmpuint (info.length, ==, 7);
}

/* ---- npy ---- */

/* A file of VERSION with this dictionary and these numbers; the header is padded as NumPy does. */
static void
put_npy (const char *name, guint version, const char *dictionary, gconstpointer numbers, gsize n)
{
  g_autoptr (GByteArray) file = g_byte_array_new ();
  gsize prefix = version > 1 ? 12 : 10, text = strlen (dictionary) + 1, padded = (prefix + text + 63) / 64 * 64 - prefix;
  const guint8 head[12] = { 0x93, 'N', 'U', 'M', 'P', 'Y', (guint8) version, 0, (guint8) padded, (guint8) (padded >> 8), 0, 0 };
  g_byte_array_append (file, head, (guint) prefix);
  g_byte_array_append (file, (const guint8 *) dictionary, (guint) text - 1);
  for (gsize i = text; i < padded; i++)
    g_byte_array_append (file, (const guint8 *) " ", 1);
  g_byte_array_append (file, (const guint8 *) "\n", 1);
  g_byte_array_append (file, numbers, (guint) n);
  put_file (name, file->data, file->len, FALSE);
}

static HeddleInstance *
npy (const char *fields)
{
  HeddleInstance *set = make ("npy", "root=.");
  GError *error = NULL;
  heddle_options_set (set->entry->options, set->self, "fields", g_variant_new_parsed (fields), folder, &error);
  g_assert_no_error (error);
  return set;
}

static HeddleInstance *
open_npy (const char *fields, HeddleDatasetInfo *info)
{
  GError *error = NULL;
  HeddleInstance *set = npy (fields);
  heddle_instance_open_dataset (set, &core, info, &error);
  g_assert_no_error (error);
  return set;
}

#define DICT(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }"

/* Each dtype of a file, and the numbers and dtype that are served: 3 samples of shape (2). */
#define CHECK_DTYPE(descr, From, To, dtype_, ...) \
  do { \
    HeddleDatasetInfo info; \
    const From numbers[6] = { __VA_ARGS__ }; \
    To got[2]; \
    put_npy ("x.npy", 1, DICT (descr, "(3, 2)"), numbers, sizeof numbers); \
    g_autoptr (HeddleInstance) set = open_npy ("{'x': <'x.npy'>}", &info); \
    g_assert_true (info.length == 3 && info.n_fields == 1 && info.field[0].dtype == (dtype_) && info.field[0].shape.rank == 1 && info.field[0].shape.size[0] == 2); \
    for (guint k = 0; k < 6; k++) \
      { \
        g_assert_true (read_sample (set, k / 2, got, NULL, 0)); \
        g_assert_true (got[k % 2] == (To) numbers[k]); \
      } \
  } while (0)

static void
test_npy_dtypes (void)
{
  CHECK_DTYPE ("<f4", float, float, HEDDLE_F32, 1.5f, -2, 3e-30f, 1e30f, 0, 7);
  CHECK_DTYPE ("<f8", double, float, HEDDLE_F32, 1.1, -2.2, 3e-30, 1e30, 0, 1 / 3.0);
  CHECK_DTYPE ("<f2", guint16, guint16, HEDDLE_F16, 0x3C00, 0xC000, 1, 0x7BFF, 0, 0x8000);
  CHECK_DTYPE ("|u1", guint8, guint8, HEDDLE_U8, 0, 1, 127, 128, 254, 255);
  CHECK_DTYPE ("|b1", guint8, guint8, HEDDLE_U8, 0, 1, 1, 0, 0, 1);
  CHECK_DTYPE ("|i1", gint8, gint32, HEDDLE_I32, 0, -1, 127, -128, 5, -6);
  CHECK_DTYPE ("<i2", gint16, gint32, HEDDLE_I32, 0, -1, G_MAXINT16, G_MININT16, 5, -6);
  CHECK_DTYPE ("<u2", guint16, gint32, HEDDLE_I32, 0, 1, G_MAXUINT16, 40000, 5, 6);
  CHECK_DTYPE ("<i4", gint32, gint32, HEDDLE_I32, 0, -1, G_MAXINT32, G_MININT32, 5, -6);
  CHECK_DTYPE ("<u4", guint32, gint64, HEDDLE_I64, 0, 1, G_MAXUINT32, 3000000000u, 5, 6);
  CHECK_DTYPE ("<i8", gint64, gint64, HEDDLE_I64, 0, -1, G_MAXINT64, G_MININT64, 5, -6);
}

/* Fields come in order of name; versions 1 to 3 of the format; other spellings of the same dictionary; scale, mean, std, classes. */
static void
test_npy_fields (void)
{
  HeddleDatasetInfo info;
  guint8 images[4 * 2 * 3], image[6];
  gint64 labels[4] = { 2, 0, 1, 2 }, label;
  for (guint i = 0; i < sizeof images; i++)
    images[i] = (guint8) (i * 11);
  put_npy ("images.npy", 2, "{ \"shape\":(4,2,3) ,\"fortran_order\" : False,\"descr\":\"|u1\"}", images, sizeof images);
  put_npy ("labels.npy", 3, DICT ("<i8", "(4,)"), labels, sizeof labels);
  g_autoptr (HeddleInstance) set = open_npy ("{'label': <{'file': <'labels.npy'>, 'classes': <int64 3>}>, 'image': <{'file': <'images.npy'>, 'scale': <0.25>, 'mean': <[<0.5>, <int64 1>]>, "
                                             "'std': <[<2.0>, <4.0>]>}>}", &info);
  const HeddleField *f = info.field;
  g_assert_true (info.length == 4 && info.n_fields == 2 && f[0].shape.rank == 2 && f[0].shape.size[0] == 2 && f[0].shape.size[1] == 3 && f[1].shape.rank == 0);
  g_assert_cmpstr (f[0].name, ==, "image");
  g_assert_cmpstr (f[1].name, ==, "label");
  g_assert_true (f[0].scale == 0.25 && f[0].channels == 2 && f[0].mean[0] == 0.5 && f[0].mean[1] == 1 && f[0].std[0] == 2 && f[0].std[1] == 4);
  g_assert_true (f[1].classes == 3 && f[1].scale == 0 && f[0].classes == 0);
  for (guint k = 4; k-- > 0;)
    {
      g_assert_true (read_sample (set, k, image, &label, 0));
      g_assert_cmpmem (image, 6, images + 6 * k, 6);
      g_assert_cmpint (label, ==, labels[k]);
    }
}

static void
refuse_npy (guint version, const char *dictionary, gsize bytes, const char *says)
{
  static const guint8 numbers[256];
  put_npy ("x.npy", version, dictionary, numbers, bytes);
  refuse_set (npy ("{'x': <'x.npy'>}"), says);
}

static void
test_npy_files (void)
{
  refuse_npy (1, DICT ("<f4", "(3, 2)"), 23, "has 151 bytes, its header calls for 152: truncated");
  refuse_npy (1, DICT ("<f4", "(3, 2)"), 25, "has 153 bytes, its header calls for 152\n");
  refuse_npy (4, DICT ("<f4", "(3, 2)"), 24, "has format version 4.0");
  refuse_npy (1, "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", 24, "is in Fortran order");
  refuse_npy (1, DICT (">f4", "(3, 2)"), 24, "big-endian (dtype \">f4\")");
  refuse_npy (1, DICT ("<c8", "(3, 2)"), 48, "dtype \"<c8\" is none that a tensor has");
  refuse_npy (1, DICT ("|O", "(3,)"), 24, "dtype \"|O\"");
  refuse_npy (1, DICT ("<u8", "(3,)"), 24, "dtype \"<u8\"");
  refuse_npy (1, DICT ("<f4", "()"), 4, "a single number without axes");
  refuse_npy (1, DICT ("<f4", "(3, 0)"), 0, "axis 1 of its shape has size 0");
  refuse_npy (1, DICT ("<f4", "(0,)"), 0, "axis 0 of its shape has size 0");
  refuse_npy (1, DICT ("<f4", "(4294967296, 4294967296, 4)"), 4, "too large for any file");
  static const char *const nonsense[] = {
    "", "{", "{}", "{'descr': '<f4'}", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", DICT ("<f4", "(3"), DICT ("<f4", "(-3,)"), DICT ("<f4", "3"),
    DICT ("<f4", "(99999999999999999999,)"), DICT ("<f4", "(1, 1, 1, 1, 1, 1, 1)"), "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,), }",
    "{'descr': '<f4, 'fortran_order': False, 'shape': (3,), }", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1, }", DICT ("<f4", "(3 2)"), DICT ("<f4", "(3,,2)"),
  };
  for (guint i = 0; i < G_N_ELEMENTS (nonsense); i++)
    refuse_npy (1, nonsense[i], 12, "its header does not describe an array");
  put_file ("x.npy", (const guint8 *) "PK\3\4 zip archive", 16, FALSE);
  refuse_set (npy ("{'x': <'x.npy'>}"), "x.npy: is not a .npy file");
  put_file ("x.npy", (const guint8 *) "", 0, FALSE);
  refuse_set (npy ("{'x': <'x.npy'>}"), "x.npy: is not a .npy file");
  put_file ("x.npy", (const guint8 *) "\x93NUMPY\1\0\x76\0{'descr'", 18, FALSE);
  refuse_set (npy ("{'x': <'x.npy'>}"), "has 18 bytes, its header alone calls for 128: truncated");
  put_file ("x.npy", (const guint8 *) "\x93NUMPY\2\0\xFF\xFF\xFF", 11, FALSE);
  refuse_set (npy ("{'x': <'x.npy'>}"), "truncated");
  refuse_set (npy ("{'x': <'absent.npy'>}"), "absent.npy: there is no such file");
}

static void
test_npy_options (void)
{
  float numbers[8] = { 0 };
  put_npy ("four.npy", 1, DICT ("<f4", "(4, 2)"), numbers, sizeof numbers);
  put_npy ("two.npy", 1, DICT ("<i4", "(2, 4)"), numbers, sizeof numbers);
  refuse_set (npy ("{'x': <'four.npy'>, 'y': <'two.npy'>}"), "two.npy: holds 2 samples, \"x\" has 4");
  refuse_set (npy ("{'x': <{'file': <'four.npy'>, 'classes': <int64 3>}>}"), "four.npy: labels with classes are integers, its dtype is \"<f4\"");
  refuse_set (npy ("{'x': <{'file': <'two.npy'>, 'classes': <int64 0>}>}"), "\"classes\" is an integer from 1 on\nhint: ");
  refuse_set (npy ("{'x': <{'file': <'two.npy'>, 'klasses': <int64 3>}>}"), "field \"x\": no option \"klasses\"");
  refuse_set (npy ("{'x': <{'classes': <int64 3>}>}"), "\"file\" is required");
  refuse_set (npy ("{'x': <{'file': <'four.npy'>, 'mean': <0.5>}>}"), "mean has 1 numbers and std 0");
  refuse_set (npy ("{'x': <{'file': <'four.npy'>, 'mean': <0.5>, 'std': <0.0>}>}"), "\"std\" is a positive number");
  refuse_set (npy ("{'x': <{'file': <'four.npy'>, 'mean': <[<0.5>, <0.5>, <0.5>]>, 'std': <[<1.0>, <1.0>, <1.0>]>}>}"), "the first axis of a sample has 2");
  refuse_set (npy ("{'x': <{'file': <'four.npy'>, 'scale': <'x'>}>}"), "\"scale\" is a number");
  refuse_set (npy ("{'x': <int64 3>}"), "a file name or a table is expected");
  refuse_set (npy ("[<'four.npy'>]"), "a table with 1 to 8 names is expected");
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
  g_test_add_func ("/text/bytes", test_text_bytes);
  g_test_add_func ("/text/characters", test_text_characters);
  g_test_add_func ("/text/wide", test_text_wide);
  g_test_add_func ("/text/random", test_text_random);
  g_test_add_func ("/text/refusals", test_text_refusals);
  g_test_add_func ("/npy/dtypes", test_npy_dtypes);
  g_test_add_func ("/npy/fields", test_npy_fields);
  g_test_add_func ("/npy/files", test_npy_files);
  g_test_add_func ("/npy/options", test_npy_options);
  int status = g_test_run ();
  clean ();
  heddle_registry_free (registry);
  return status;
}
