/* plugins/dataset-synthetic/synthetic.c: samples of any shape and class count, made from nothing, that can be learned.
 * A sample is its class's prototype plus noise; both are functions of (seed, index) alone.
 * Must not know batches, order or models. */
#include <heddle/plugin.h>

typedef struct
{
  HeddleIntList shape;
  gint64        classes, length, seed;
  double        noise;
  int           split, dtype;
  /* once open */
  float        *prototype;   /* (classes, count): standard normal */
  gsize         count;       /* numbers in a sample */
} Synthetic;

enum { TRAIN = 1, TEST };

static const HeddleEnumValue splits[] = { { TRAIN, "train", "samples of their own" }, { TEST, "test", "other samples of the same classes" }, { 0, NULL, NULL } };
static const HeddleEnumValue dtypes[] = { { HEDDLE_F32, "f32", "about standard normal" }, { HEDDLE_U8, "u8", "bytes that stand for 0 .. 1" }, { 0, NULL, NULL } };

static const HeddleOption options[] = {
  HEDDLE_INT_LIST (Synthetic, shape, "1, 28, 28", 1, 65536, "Sizes of one sample"),
  HEDDLE_INT (Synthetic, classes, 10, 1, 1000000, "Number of classes"),
  HEDDLE_INT (Synthetic, length, 10000, 1, G_MAXINT32, "Number of samples", .unit = "samples"),
  HEDDLE_FLOAT (Synthetic, noise, 1.0, 0, 1000, "Standard deviation of the noise; the prototypes' is 1"),
  HEDDLE_ENUM (Synthetic, dtype, HEDDLE_F32, dtypes, "What the samples are stored as"),
  HEDDLE_ENUM (Synthetic, split, TRAIN, splits, "Which samples to serve"),
  HEDDLE_INT (Synthetic, seed, 0, 0, G_MAXINT64, "Makes another data set"),
  HEDDLE_OPTIONS_END
};

static void
close_set (gpointer data)
{
  Synthetic *self = data;
  g_clear_pointer (&self->prototype, g_free);
}

static gboolean
check_shape (Synthetic *self, HeddleShape *shape, GError **error)
{
  gboolean ok = self->shape.n >= 1 && self->shape.n < HEDDLE_MAX_RANK;
  gsize bytes = sizeof (float);
  shape->rank = (gint32) self->shape.n;
  for (gsize i = 0; ok && i < self->shape.n; i++)
    {
      shape->size[i] = self->shape.items[i];
      ok = g_size_checked_mul (&bytes, bytes, (gsize) self->shape.items[i]);
    }
  ok = ok && g_size_checked_mul (&bytes, bytes, (gsize) self->classes) && bytes <= (gsize) 4 << 30;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION,
                 "shape has 1 to %d sizes, and shape x classes stays below 4 GiB of prototypes\nhint: use a smaller shape or fewer classes", HEDDLE_MAX_RANK - 1);
  return ok;
}

/* Stream 0 + c of DATA is class c's prototype. */
static void
draw_prototypes (Synthetic *self)
{
  self->prototype = g_new (float, self->count * (gsize) self->classes);
  for (gint64 c = 0; c < self->classes; c++)
    {
      HeddleRandom random = heddle_random ((guint64) self->seed, HEDDLE_STREAM_DATA, (guint64) c, 0);
      for (gsize i = 0; i < self->count; i++)
        self->prototype[(gsize) c * self->count + i] = (float) heddle_random_normal (&random);
    }
}

static gboolean
open_set (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Synthetic *self = data;
  HeddleShape shape = { 0 };
  gboolean ok = check_shape (self, &shape, error);
  if (ok)
    {
      self->count = (gsize) heddle_shape_count (&shape);
      draw_prototypes (self);
      info->length = (guint64) self->length;
      info->n_fields = 2;
      info->field[0] = (HeddleField) { .name = "image", .dtype = (HeddleDtype) self->dtype, .shape = shape };
      if (self->dtype == HEDDLE_U8)
        info->field[0].scale = 1.0 / 255.0;
      info->field[1] = (HeddleField) { .name = "label", .dtype = HEDDLE_I64, .shape = heddle_scalar_shape (), .classes = self->classes };
    }
  return ok;
}

/* A sum of four uniform bytes, centred and scaled to variance 1: near enough to normal, and cheap. */
static float
cheap_normal (HeddleRandom *random)
{
  guint32 w = heddle_random_u32 (random);
  int sum = (int) (w & 255) + (int) (w >> 8 & 255) + (int) (w >> 16 & 255) + (int) (w >> 24);
  return (float) (sum - 510) * (float) (1.0 / 147.8);
}

/* fields[0]: (shape) f32 or u8; fields[1]: label i64 */
static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *unused, GError **error)
{
  const Synthetic *self = data;
  HeddleRandom random = heddle_random ((guint64) self->seed, HEDDLE_STREAM_DATA, index | (guint64) self->split << 40, 1);
  gint64 label = heddle_random_below (&random, (guint32) self->classes);
  const float *prototype = self->prototype + (gsize) label * self->count;
  float noise = (float) self->noise, *f32 = fields[0];
  guint8 *u8 = fields[0];
  for (gsize i = 0; i < self->count; i++)
    {
      float x = prototype[i] + noise * cheap_normal (&random);
      if (self->dtype == HEDDLE_U8)
        u8[i] = (guint8) CLAMP (128.0f + 32.0f * x, 0.0f, 255.0f);
      else
        f32[i] = x;
    }
  memcpy (fields[1], &label, sizeof label);
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_set, read_sample, close_set };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Synthetic, options, .name = "synthetic", .version = "1.0",
               .summary = "Learnable samples of any shape and class count, made from nothing", .license = "MIT");
