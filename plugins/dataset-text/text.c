/* plugins/dataset-text/text.c: a plain text file, memory-mapped, as windows of bytes or characters and the tokens that follow them.
 * Owns the vocabulary and where windows begin; knows nothing of batches, order or devices.
 * Characters are UTF-8 code points (RFC 3629); the vocabulary is those that occur in the file, numbered in order of code point. */
#include <heddle/plugin.h>

#define MARK_EVERY 256      /* characters between two known byte positions */

typedef struct
{
  char        *file;
  int          units, windows, split;
  gint64       window, stride, length;
  double       test_fraction;
  /* once open */
  GMappedFile *map;
  const guint8 *text;
  gsize        bytes;
  guint64      n;           /* units in the file */
  guint64      first, last; /* units of this split: first .. last - 1 */
  guint32     *token;       /* characters: code point -> token */
  gunichar     largest;     /* the largest code point of the file */
  GArray      *marks;       /* characters: guint64 byte position of every MARK_EVERY-th; NULL when all are ASCII */
  gint64       classes;
  HeddleDtype  dtype;
} Text;

enum { BYTES = 1, CHARACTERS };
enum { CONTIGUOUS = 1, RANDOM };
enum { ALL = 1, TRAIN, TEST };

static const HeddleEnumValue units[] = {
  { BYTES, "bytes", "256 tokens, any file" }, { CHARACTERS, "characters", "UTF-8 code points; the vocabulary is what occurs in the file" }, { 0, NULL, NULL }
};
static const HeddleEnumValue orders[] = {
  { CONTIGUOUS, "contiguous", "sample i begins at i x stride" }, { RANDOM, "random", "every sample of every pass begins somewhere else" }, { 0, NULL, NULL }
};
static const HeddleEnumValue splits[] = {
  { ALL, "all", "the whole file" }, { TRAIN, "train", "all but the end" }, { TEST, "test", "the last test_fraction of the file" }, { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_STRING (Text, file, NULL, "The text file", .flags = HEDDLE_OPTION_PATH | HEDDLE_OPTION_REQUIRED),
  HEDDLE_ENUM (Text, units, CHARACTERS, units, "What one token is"),
  HEDDLE_INT (Text, window, 128, 1, 1 << 24, "Tokens of a sample; its targets are the same window one token later", .unit = "tokens"),
  HEDDLE_ENUM (Text, windows, CONTIGUOUS, orders, "Where samples begin"),
  HEDDLE_INT (Text, stride, 0, 1, 1 << 24, "Contiguous windows: from the beginning of one to the next", .unit = "tokens", .word = "window", .word_value = 0),
  HEDDLE_INT (Text, length, 0, 1, G_MAXINT32, "Random windows: samples of a pass; auto: as many as fit side by side", .unit = "samples", .word = "auto", .word_value = 0),
  HEDDLE_ENUM (Text, split, ALL, splits, "Which part of the file to serve; the vocabulary is always that of the whole file"),
  HEDDLE_FLOAT (Text, test_fraction, 0.1, 0, 1, "Share of the file that is the test split"),
  HEDDLE_OPTIONS_END
};

static gboolean refuse (const Text *self, GError **error, const char *hint, const char *format, ...) G_GNUC_PRINTF (4, 5);

static gboolean
refuse (const Text *self, GError **error, const char *hint, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s: %s\nhint: %s", self->file, what, hint);
  return FALSE;
}

/* ---- characters ----------------------------------------------------------------------------------------------------- */

/* The code point at P, valid and whole; *N: its bytes.  GLib's own reader takes a NUL for an end, this one does not. */
static inline gunichar
character (const guint8 *p, guint *n)
{
  gunichar c = *p;
  *n = 1;
  if (c >= 0x80)
    {
      c = g_utf8_get_char ((const char *) p);
      *n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    }
  return c;
}

/* Validates the file, counts its characters, notes which occur (SEEN, a bit each) and where every MARK_EVERY-th lies. */
static gboolean
scan (Text *self, guint8 *seen, GError **error)
{
  gboolean ok = TRUE;
  for (gsize at = 0; ok && at < self->bytes;)
    {
      gunichar c = self->text[at] < 0x80 ? self->text[at] : g_utf8_get_char_validated ((const char *) self->text + at, (gssize) (self->bytes - at));
      guint64 position = at;
      guint bytes = 1;
      if (c > 0x10FFFF)
        ok = refuse (self, error, "convert it (iconv -t UTF-8), or set units = \"bytes\"", "is not UTF-8: byte 0x%02x at offset %" G_GSIZE_FORMAT " begins no character", self->text[at], at);
      else
        {
          if (self->n++ % MARK_EVERY == 0)
            g_array_append_val (self->marks, position);
          seen[c / 8] |= (guint8) (1u << c % 8);
          self->largest = MAX (self->largest, c);
          character (self->text + at, &bytes);
        }
      at += bytes;
    }
  return ok;
}

static gboolean
open_characters (Text *self, GError **error)
{
  g_autofree guint8 *seen = g_malloc0 (0x110000 / 8);
  self->marks = g_array_new (FALSE, FALSE, sizeof (guint64));
  gboolean ok = scan (self, seen, error);
  self->token = g_new0 (guint32, self->largest + 1);
  for (gunichar c = 0; ok && c <= self->largest; c++)
    if (seen[c / 8] >> c % 8 & 1)
      self->token[c] = (guint32) self->classes++;
  if (self->n == self->bytes)
    g_clear_pointer (&self->marks, g_array_unref);
  return ok;
}

/* The byte where unit I begins. */
static gsize
position_of (const Text *self, guint64 i)
{
  gsize at = self->marks ? g_array_index (self->marks, guint64, i / MARK_EVERY) : i;
  guint bytes;
  for (guint64 k = self->marks ? i % MARK_EVERY : 0; k > 0; k--)
    {
      character (self->text + at, &bytes);
      at += bytes;
    }
  return at;
}

/* ---- windows -------------------------------------------------------------------------------------------------------- */

/* Places a window and its successor can begin at, in this split. */
static guint64
places (const Text *self)
{
  guint64 n = self->last - self->first;
  return n > (guint64) self->window ? n - (guint64) self->window : 0;
}

static gboolean
choose_split (Text *self, GError **error)
{
  static const char *const names[] = { "file", "file", "train split", "test split" };
  guint64 test = (guint64) ((double) self->n * self->test_fraction + 0.5), middle = self->n - test;
  self->first = self->split == TEST ? middle : 0;
  self->last = self->split == TRAIN ? middle : self->n;
  gboolean ok = places (self) > 0;
  if (!ok)
    refuse (self, error, self->split == ALL ? "use a smaller window or a longer text" : "use a smaller window, a longer text or another test_fraction",
            "the %s has %" G_GUINT64_FORMAT " %s, a sample needs %" G_GINT64_FORMAT ": the window and one more", names[self->split],
            self->last - self->first, self->units == BYTES ? "bytes" : "characters", self->window + 1);
  return ok;
}

static guint64
length_of (const Text *self)
{
  gint64 stride = self->stride && self->windows == CONTIGUOUS ? self->stride : self->window;
  guint64 side_by_side = (places (self) - 1) / (guint64) stride + 1;
  return self->windows == RANDOM && self->length ? (guint64) self->length : side_by_side;
}

/* ---- slots ---------------------------------------------------------------------------------------------------------- */

static void
close_text (gpointer data)
{
  Text *self = data;
  g_clear_pointer (&self->map, g_mapped_file_unref);
  g_clear_pointer (&self->token, g_free);
  g_clear_pointer (&self->marks, g_array_unref);
}

static gboolean
map_text (Text *self, GError **error)
{
  g_autoptr (GError) why = NULL;
  gboolean ok = g_file_test (self->file, G_FILE_TEST_IS_REGULAR);
  if (!ok)
    refuse (self, error, "set file to a plain text file", "there is no such file");
  else if (!(self->map = g_mapped_file_new (self->file, FALSE, &why)))
    ok = refuse (self, error, "check the file's permissions", "cannot be opened: %s", why->message);
  else if (g_mapped_file_get_length (self->map) == 0)
    ok = refuse (self, error, "set file to a plain text file", "is empty");
  else
    {
      self->text = (const guint8 *) g_mapped_file_get_contents (self->map);
      self->bytes = g_mapped_file_get_length (self->map);
    }
  return ok;
}

static gboolean
check_options (const Text *self, GError **error)
{
  const char *fault = NULL;
  if (self->windows == RANDOM && self->stride)
    fault = "option \"stride\": random windows have none\nhint: leave it out, or set windows = \"contiguous\"";
  else if (self->windows == CONTIGUOUS && self->length)
    fault = "option \"length\": the text and the stride decide how many contiguous windows there are\nhint: leave it out, or set windows = \"random\"";
  if (fault)
    g_set_error_literal (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, fault);
  return fault == NULL;
}

static gboolean
open_text (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Text *self = data;
  self->n = 0;
  self->classes = self->largest = 0;
  gboolean ok = check_options (self, error) && map_text (self, error);
  if (ok && self->units == CHARACTERS)
    ok = open_characters (self, error);
  else if (ok)
    {
      self->n = self->bytes;
      self->classes = 256;
    }
  ok = ok && choose_split (self, error);
  if (ok)
    {
      HeddleField field = { .dtype = self->dtype = self->classes <= 256 ? HEDDLE_U8 : HEDDLE_I32, .shape = heddle_shape (self->window), .classes = self->classes };
      info->length = length_of (self);
      info->n_fields = 2;
      info->field[0] = info->field[1] = field;
      info->field[0].name = "tokens";
      info->field[1].name = "targets";
    }
  else
    close_text (self);
  return ok;
}

static void
put (const Text *self, gpointer to, gint64 i, guint32 token)
{
  if (self->dtype == HEDDLE_U8)
    ((guint8 *) to)[i] = (guint8) token;
  else
    ((gint32 *) to)[i] = (gint32) token;
}

/* fields[0]: tokens (window), fields[1]: targets (window), the same one token later; u8, or i32 for more than 256 tokens */
static gboolean
read_window (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Text *self = data;
  guint64 from = index * (guint64) (self->stride ? self->stride : self->window);
  if (self->windows == RANDOM)
    from = (guint64) (heddle_random_double (random) * (double) places (self));
  gsize at = position_of (self, self->first + from);
  for (gint64 i = 0; i <= self->window; i++)
    {
      guint bytes = 1;
      guint32 token = self->token ? self->token[character (self->text + at, &bytes)] : self->text[at];
      if (i < self->window)
        put (self, fields[0], i, token);
      if (i > 0)
        put (self, fields[1], i - 1, token);
      at += bytes;
    }
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_text, read_window, close_text };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Text, options, .name = "text", .version = "1.0",
               .summary = "Windows of a plain text file as bytes or characters, and the tokens that follow", .license = "MIT");
