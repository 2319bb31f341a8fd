/* plugins/dataset-npy/npy.c: NumPy arrays, memory-mapped, one file per field; the first axis counts samples.
 * Owns the file format and the conversion of dtypes a tensor does not have; knows nothing of batches, order or devices.
 * Format: numpy.lib.format, versions 1 to 3 (NEP 1): magic, version, length of the header, a Python dictionary as text, the numbers. */
#include <heddle/plugin.h>

typedef enum { COPY = 1, F8_TO_F4, I1_TO_I4, I2_TO_I4, U2_TO_I4, U4_TO_I8 } Conversion;

/* What NumPy calls a dtype (little-endian), and what it becomes here. */
static const struct { const char *descr; HeddleDtype dtype; guint bytes; Conversion conversion; } dtypes[] = {
  { "<f4", HEDDLE_F32, 4, COPY }, { "<f2", HEDDLE_F16, 2, COPY }, { "<f8", HEDDLE_F32, 8, F8_TO_F4 },
  { "|u1", HEDDLE_U8, 1, COPY }, { "|b1", HEDDLE_U8, 1, COPY }, { "<i4", HEDDLE_I32, 4, COPY }, { "<i8", HEDDLE_I64, 8, COPY },
  { "|i1", HEDDLE_I32, 1, I1_TO_I4 }, { "<i2", HEDDLE_I32, 2, I2_TO_I4 }, { "<u2", HEDDLE_I32, 2, U2_TO_I4 }, { "<u4", HEDDLE_I64, 4, U4_TO_I8 },
};

typedef struct
{
  char         *file;
  GMappedFile  *map;
  const guint8 *numbers;      /* (samples, shape), bytes of any alignment */
  guint         dtype;        /* index in dtypes */
  guint64       samples;
  HeddleField   field;
  gsize         count;        /* numbers of a sample */
} Array;

typedef struct
{
  char      *root;
  GVariant  *fields;
  /* once open */
  GPtrArray *names;           /* char *, owned, sorted: the order of the fields */
  Array      array[HEDDLE_MAX_FIELDS];
} Npy;

static const HeddleOption options[] = {
  HEDDLE_STRING (Npy, root, NULL, "Folder that file names are relative to; unset: the script's", .flags = HEDDLE_OPTION_PATH),
  HEDDLE_VALUE (Npy, fields, "Table NAME = \"file.npy\", or NAME = { file = \"file.npy\", classes = 10 } for labels, or { file = \"file.npy\", scale = 1/255, mean = { ... }, std = { ... } } for "
                "(number x scale - mean) / std as f32; fields are served in order of name", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_OPTIONS_END
};

static gboolean refuse (GError **error, const char *file, const char *hint, const char *format, ...) G_GNUC_PRINTF (4, 5);

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

static const char again[] = "the file is damaged; write it again with numpy.save";

/* ---- the header: { 'descr': '<f4', 'fortran_order': False, 'shape': (60000, 28, 28), } ---------------------------------- */

typedef struct { char *descr; gboolean fortran, has_order, has_shape; HeddleShape shape; } Header;

static gboolean
skip (const char **p, const char *end, char c)
{
  while (*p < end && g_ascii_isspace (**p))
    (*p)++;
  gboolean hit = c && *p < end && **p == c;
  *p += hit;
  return hit;
}

/* (transfer full) The text between quotes at P, or NULL. */
static char *
quoted (const char **p, const char *end)
{
  const char *from = NULL, *to = NULL;
  char quote = skip (p, end, '\'') ? '\'' : skip (p, end, '"') ? '"' : 0;
  if (quote)
    {
      from = *p;
      to = memchr (from, quote, (gsize) (end - from));
    }
  if (to)
    *p = to + 1;
  return to ? g_strndup (from, (gsize) (to - from)) : NULL;
}

static gboolean
word (const char **p, const char *end, const char *text)
{
  gsize n = strlen (text);
  skip (p, end, 0);
  gboolean hit = (gsize) (end - *p) >= n && memcmp (*p, text, n) == 0;
  *p += hit ? n : 0;
  return hit;
}

/* (3, 4) or (3,) or (); the last number of a sample's axes has HEDDLE_MAX_RANK - 1 before it. */
static gboolean
sizes (const char **p, const char *end, HeddleShape *shape)
{
  gboolean ok = skip (p, end, '('), closed = skip (p, end, ')');
  while (ok && !closed)
    {
      guint64 size = 0;
      skip (p, end, 0);
      ok = *p < end && g_ascii_isdigit (**p) && shape->rank < HEDDLE_MAX_RANK;
      for (; ok && *p < end && g_ascii_isdigit (**p); (*p)++)
        ok = g_uint64_checked_mul (&size, size, 10) && g_uint64_checked_add (&size, size, (guint64) (**p - '0')) && size <= G_MAXINT64;
      if (ok)
        shape->size[shape->rank++] = (gint64) size;
      gboolean comma = skip (p, end, ',');
      closed = skip (p, end, ')');
      ok = ok && (comma || closed);
    }
  return ok;
}

/* One KEY : VALUE pair; FALSE: not what NumPy writes. */
static gboolean
pair (const char **p, const char *end, Header *h)
{
  g_autofree char *key = quoted (p, end);
  gboolean ok = key && skip (p, end, ':');
  if (ok && g_str_equal (key, "descr") && !h->descr)
    {
      h->descr = quoted (p, end);
      ok = h->descr != NULL;
    }
  else if (ok && g_str_equal (key, "fortran_order"))
    {
      h->fortran = word (p, end, "True");
      ok = h->has_order = h->fortran || word (p, end, "False");
    }
  else if (ok && g_str_equal (key, "shape") && !h->has_shape)
    ok = h->has_shape = sizes (p, end, &h->shape);
  else
    ok = FALSE;
  return ok;
}

static gboolean
parse_header (const char *text, gsize n, Header *h)
{
  const char *p = text, *end = text + n;
  gboolean ok = skip (&p, end, '{'), closed = FALSE;
  while (ok && !closed)
    {
      ok = pair (&p, end, h);
      gboolean comma = ok && skip (&p, end, ',');
      closed = ok && skip (&p, end, '}');
      ok = ok && (comma || closed);
    }
  return ok && h->descr && h->has_order && h->has_shape;
}

/* ---- one file --------------------------------------------------------------------------------------------------------- */

static gboolean
choose_dtype (Array *a, const Header *h, GError **error)
{
  const char *descr = h->descr;
  gboolean found = FALSE;
  for (guint i = 0; !found && i < G_N_ELEMENTS (dtypes); i++)
    if ((found = g_str_equal (dtypes[i].descr, descr)))
      a->dtype = i;
  if (!found && *descr == '>')
    refuse (error, a->file, "numpy.save (file, array.astype (array.dtype.newbyteorder (\"<\")))", "its numbers are big-endian (dtype \"%s\")", descr);
  else if (!found)
    refuse (error, a->file, "numpy.save (file, array.astype (\"float32\")), or \"int64\" for labels", "dtype \"%s\" is none that a tensor has", descr);
  return found;
}

/* The shape of a sample, and whether the file's size is exactly what the header says. */
static gboolean
check_shape (Array *a, const Header *h, gsize header, gsize length, GError **error)
{
  gsize bytes = dtypes[a->dtype].bytes, expected;
  gboolean ok = h->shape.rank > 0 || refuse (error, a->file, "numpy.save (file, array[numpy.newaxis]) makes it one sample", "holds a single number without axes; the first axis counts samples");
  if (ok && h->fortran && h->shape.rank > 1)
    ok = refuse (error, a->file, "numpy.save (file, numpy.ascontiguousarray (array))", "is in Fortran order (column-major)");
  for (gint32 i = 0; ok && i < h->shape.rank; i++)
    if (h->shape.size[i] < 1)
      ok = refuse (error, a->file, "write an array that holds samples", "axis %d of its shape has size 0", i);
    else if (!g_size_checked_mul (&bytes, bytes, (gsize) h->shape.size[i]))
      ok = refuse (error, a->file, again, "the shape in its header is too large for any file");
  if (ok && (!g_size_checked_add (&expected, header, bytes) || length != expected))
    ok = refuse (error, a->file, again, "has %" G_GSIZE_FORMAT " bytes, its header calls for %" G_GSIZE_FORMAT "%s", length, header + bytes, length < header + bytes ? ": truncated" : "");
  if (ok)
    {
      a->samples = (guint64) h->shape.size[0];
      a->field.dtype = dtypes[a->dtype].dtype;
      a->field.shape.rank = h->shape.rank - 1;
      memcpy (a->field.shape.size, h->shape.size + 1, (gsize) a->field.shape.rank * sizeof (gint64));
      a->count = (gsize) heddle_shape_count (&a->field.shape);
    }
  return ok;
}

static gboolean
read_header (Array *a, GError **error)
{
  const guint8 *data = (const guint8 *) g_mapped_file_get_contents (a->map);
  gsize length = g_mapped_file_get_length (a->map), prefix = 10, text = 0;
  gboolean ok = length >= 10 && memcmp (data, "\x93NUMPY", 6) == 0;
  Header h = { 0 };
  if (!ok)
    refuse (error, a->file, "write it with numpy.save; an .npz archive is not one array", "is not a .npy file: it has no NumPy magic");
  else if (data[6] < 1 || data[6] > 3)
    ok = refuse (error, a->file, "write it again with numpy.save", "has format version %u.%u; 1 to 3 are known", data[6], data[7]);
  if (ok)
    {
      text = data[8] | (gsize) data[9] << 8;
      if (data[6] > 1)
        prefix = 12;
      if (data[6] > 1 && length >= 12)
        text |= (gsize) data[10] << 16 | (gsize) data[11] << 24;
      if (length < prefix || length - prefix < text)
        ok = refuse (error, a->file, again, "has %" G_GSIZE_FORMAT " bytes, its header alone calls for %" G_GSIZE_FORMAT ": truncated", length, prefix + text);
    }
  if (ok && !parse_header ((const char *) data + prefix, text, &h))
    ok = refuse (error, a->file, "numpy.save one plain array of at most " G_STRINGIFY (HEDDLE_MAX_RANK) " axes; no named fields, no objects", "its header does not describe an array that can be read");
  ok = ok && choose_dtype (a, &h, error) && check_shape (a, &h, prefix + text, length, error);
  a->numbers = data + prefix + text;
  g_free (h.descr);
  return ok;
}

static gboolean
open_file (Array *a, GError **error)
{
  g_autoptr (GError) why = NULL;
  gboolean ok = g_file_test (a->file, G_FILE_TEST_IS_REGULAR);
  if (!ok)
    refuse (error, a->file, "name a file that numpy.save wrote, relative to root", "there is no such file");
  else if (!(a->map = g_mapped_file_new (a->file, FALSE, &why)))
    ok = refuse (error, a->file, "check the file's permissions", "cannot be opened: %s", why->message);
  return ok && read_header (a, error);
}

/* ---- what the script says about a field --------------------------------------------------------------------------------- */

static gboolean G_GNUC_PRINTF (3, 4)
refuse_field (GError **error, const char *name, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"fields\": field \"%s\": %s", name, what);
  return FALSE;
}

static gboolean
number_of (GVariant *value, double *number)
{
  gboolean ok = TRUE;
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_INT64))
    *number = (double) g_variant_get_int64 (value);
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE))
    *number = g_variant_get_double (value);
  else
    ok = FALSE;
  return ok;
}

/* A number, or a list of one number per channel. */
static gboolean
numbers_of (const char *name, const char *key, GVariant *value, double *numbers, gint32 *n, GError **error)
{
  gboolean list = g_variant_is_of_type (value, G_VARIANT_TYPE ("av")), ok = TRUE;
  gsize count = list ? g_variant_n_children (value) : 1;
  if (count < 1 || count > HEDDLE_MAX_CHANNELS_NORMALISED)
    ok = refuse_field (error, name, "\"%s\" has %" G_GSIZE_FORMAT " numbers\nhint: one, or one per channel, at most %d", key, count, HEDDLE_MAX_CHANNELS_NORMALISED);
  for (gsize i = 0; ok && i < count; i++)
    {
      g_autoptr (GVariant) boxed = list ? g_variant_get_child_value (value, i) : NULL;
      g_autoptr (GVariant) one = list ? g_variant_get_variant (boxed) : g_variant_ref (value);
      ok = number_of (one, &numbers[i]) && (numbers[i] > 0 || !g_str_equal (key, "std"));
      if (!ok)
        refuse_field (error, name, "\"%s\" is a %snumber or a list of them\nhint: one number, or one per channel", key, g_str_equal (key, "std") ? "positive " : "");
    }
  *n = (gint32) count;
  return ok;
}

/* Both of mean and std, one number or one per channel. */
static gboolean
read_normalisation (HeddleField *f, const char *name, GVariant *spec, GError **error)
{
  g_autoptr (GVariant) mean = g_variant_lookup_value (spec, "mean", NULL), std = g_variant_lookup_value (spec, "std", NULL);
  gint32 n_mean = 0, n_std = 0;
  gboolean ok = (!mean || numbers_of (name, "mean", mean, f->mean, &n_mean, error)) && (!std || numbers_of (name, "std", std, f->std, &n_std, error));
  if (ok && n_mean != n_std)
    ok = refuse_field (error, name, "mean has %d numbers and std %d\nhint: give both, one number or one per channel", n_mean, n_std);
  else if (ok && n_mean && f->scale == 0)
    f->scale = 1;
  if (ok)
    f->channels = n_mean;
  return ok;
}

static gboolean
check_keys (const char *name, GVariant *spec, GError **error)
{
  static const char *const known[] = { "file", "classes", "scale", "mean", "std", NULL };
  GVariantIter iter;
  const char *key;
  gboolean ok = TRUE;
  g_variant_iter_init (&iter, spec);
  while (ok && g_variant_iter_next (&iter, "{&sv}", &key, NULL))
    ok = g_strv_contains (known, key) || refuse_field (error, name, "no option \"%s\"\nhint: file, classes, scale, mean, std", key);
  return ok;
}

static gboolean
read_table (HeddleField *f, const char *name, GVariant *spec, char **file, GError **error)
{
  g_autoptr (GVariant) classes = g_variant_lookup_value (spec, "classes", NULL), scale = g_variant_lookup_value (spec, "scale", NULL);
  double count = 0;
  gboolean ok = check_keys (name, spec, error) && (g_variant_lookup (spec, "file", "s", file) || refuse_field (error, name, "\"file\" is required, a string\nhint: %s = { file = \"file.npy\" }", name));
  if (ok && classes)
    ok = (g_variant_is_of_type (classes, G_VARIANT_TYPE_INT64) && number_of (classes, &count) && count >= 1) || refuse_field (error, name, "\"classes\" is an integer from 1 on\nhint: the number of classes; labels are 0 .. classes - 1");
  if (ok && scale)
    ok = (number_of (scale, &f->scale) && f->scale != 0) || refuse_field (error, name, "\"scale\" is a number other than 0\nhint: 1/255 for bytes that stand for 0 .. 1");
  f->classes = (gint64) count;
  return ok && read_normalisation (f, name, spec, error);
}

/* Fills FIELD from what the script says; (transfer full) the file. */
static char *
read_spec (HeddleField *f, const char *name, GVariant *spec, GError **error)
{
  char *file = NULL;
  f->name = name;
  if (g_variant_is_of_type (spec, G_VARIANT_TYPE_STRING))
    file = g_variant_dup_string (spec, NULL);
  else if (!g_variant_is_of_type (spec, G_VARIANT_TYPE_VARDICT))
    refuse_field (error, name, "a file name or a table is expected\nhint: %s = \"file.npy\", or %s = { file = \"file.npy\", classes = 10 }", name, name);
  else if (!read_table (f, name, spec, &file, error))
    g_clear_pointer (&file, g_free);
  return file;
}

static gboolean
check_field (const Array *a, GError **error)
{
  const HeddleField *f = &a->field;
  gboolean ok = TRUE;
  if (f->classes && heddle_dtype_is_float (f->dtype))
    ok = refuse (error, a->file, "numpy.save (file, array.astype (\"int64\"))", "labels with classes are integers, its dtype is \"%s\"", dtypes[a->dtype].descr);
  else if (f->classes && f->scale != 0)
    ok = refuse_field (error, f->name, "labels with classes have no scale, mean or std\nhint: leave out one or the other");
  else if (f->channels > 1 && (f->shape.rank < 1 || f->shape.size[0] != f->channels))
    ok = refuse_field (error, f->name, "mean and std have %d numbers, the first axis of a sample has %" G_GINT64_FORMAT "\nhint: one number, or one per channel", f->channels, f->shape.rank ? f->shape.size[0] : 0);
  return ok;
}

/* ---- slots -------------------------------------------------------------------------------------------------------------- */

static gint
by_name (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

static gboolean
read_names (Npy *self, GError **error)
{
  GVariantIter iter;
  const char *name;
  gboolean table = self->fields && g_variant_is_of_type (self->fields, G_VARIANT_TYPE_VARDICT);
  gsize n = table ? g_variant_n_children (self->fields) : 0;
  gboolean ok = n >= 1 && n <= HEDDLE_MAX_FIELDS;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"fields\": a table with 1 to %d names is expected\nhint: fields = { image = \"x.npy\", label = { file = \"y.npy\", classes = 10 } }", HEDDLE_MAX_FIELDS);
  else
    {
      self->names = g_ptr_array_new_with_free_func (g_free);
      g_variant_iter_init (&iter, self->fields);
      while (g_variant_iter_next (&iter, "{&sv}", &name, NULL))
        g_ptr_array_add (self->names, g_strdup (name));
      g_ptr_array_sort (self->names, by_name);
    }
  return ok;
}

static void
close_arrays (gpointer data)
{
  Npy *self = data;
  for (guint i = 0; i < HEDDLE_MAX_FIELDS; i++)
    {
      g_clear_pointer (&self->array[i].map, g_mapped_file_unref);
      g_free (self->array[i].file);
      self->array[i] = (Array) { 0 };
    }
  g_clear_pointer (&self->names, g_ptr_array_unref);
}

static gboolean
open_array (Npy *self, guint i, const char *folder, GError **error)
{
  Array *a = &self->array[i];
  g_autoptr (GVariant) spec = g_variant_lookup_value (self->fields, self->names->pdata[i], NULL);
  g_autofree char *file = read_spec (&a->field, self->names->pdata[i], spec, error);
  if (file)
    a->file = g_path_is_absolute (file) || !folder ? g_strdup (file) : g_build_filename (folder, file, NULL);
  gboolean ok = file && open_file (a, error) && check_field (a, error);
  if (ok && a->samples != self->array[0].samples)
    ok = refuse (error, a->file, "every field has the same samples in the same order", "holds %" G_GUINT64_FORMAT " samples, \"%s\" has %" G_GUINT64_FORMAT, a->samples,
                 self->array[0].field.name, self->array[0].samples);
  return ok;
}

static gboolean
open_arrays (gpointer data, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  Npy *self = data;
  gboolean ok = read_names (self, error);
  for (guint i = 0; ok && i < self->names->len; i++)
    {
      ok = open_array (self, i, self->root ? self->root : core->base_dir, error);
      info->field[i] = self->array[i].field;
    }
  info->length = self->array[0].samples;
  info->n_fields = self->names ? self->names->len : 0;
  if (!ok)
    close_arrays (self);
  return ok;
}

#define EACH(To, From) for (gsize i = 0; i < n; i++) { From x; memcpy (&x, from + i * sizeof x, sizeof x); ((To *) to)[i] = (To) x; }

static void
convert (Conversion conversion, gpointer to, const guint8 *from, gsize n)
{
  switch (conversion)
    {
    case COPY: break;
    case F8_TO_F4: EACH (float, double) break;
    case I1_TO_I4: EACH (gint32, gint8) break;
    case I2_TO_I4: EACH (gint32, gint16) break;
    case U2_TO_I4: EACH (gint32, guint16) break;
    case U4_TO_I8: EACH (gint64, guint32) break;
    }
}

/* fields[i]: (shape) of array i in the order of names; the loader checks labels against classes */
static gboolean
read_sample (gpointer data, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  const Npy *self = data;
  for (guint i = 0; i < self->names->len; i++)
    {
      const Array *a = &self->array[i];
      gsize bytes = a->count * dtypes[a->dtype].bytes;
      const guint8 *from = a->numbers + index * bytes;
      if (dtypes[a->dtype].conversion == COPY)
        memcpy (fields[i], from, bytes);
      else
        convert (dtypes[a->dtype].conversion, fields[i], from, a->count);
    }
  return TRUE;
}

static const HeddleDatasetIface iface = { sizeof iface, open_arrays, read_sample, close_arrays };

HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Npy, options, .name = "npy", .version = "1.0",
               .summary = "NumPy arrays, one .npy file per field", .license = "MIT");
