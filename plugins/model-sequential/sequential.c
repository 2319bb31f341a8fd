/* plugins/model-sequential/sequential.c: a network described in the script as a list of layers; no C needed.
 * Owns the table of layer types; parameters are named by position, "0.weight", as in PyTorch's nn.Sequential, or by the layer's name.
 * Must not know data, losses or devices. */
#include <heddle/plugin.h>

typedef struct { GVariant *layers; } Sequential;

static const HeddleOption options[] = {
  HEDDLE_VALUE (Sequential, layers, "List of layers, each { type = \"conv2d\", channels = 32, kernel = 3, ... }; see heddle.layers", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_OPTIONS_END
};

/* ---- reading one layer's table -------------------------------------------------------------------------------------- */

typedef struct _LayerType LayerType;
typedef HeddleValue *(*Emit) (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *layer);

struct _LayerType
{
  const char *type;
  const char *required;   /* a key that must be there, or NULL */
  const char *keys[9];    /* the keys it takes beside type and name; all numbers or booleans, but "layers" */
  Emit        emit;
};

/* VALUE (a boxed variant or not) as a number; booleans are 0 and 1. */
static gboolean
number_of (GVariant *value, double *number)
{
  gboolean ok = TRUE;
  if (g_variant_is_of_type (value, G_VARIANT_TYPE_INT64))
    *number = (double) g_variant_get_int64 (value);
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_DOUBLE))
    *number = g_variant_get_double (value);
  else if (g_variant_is_of_type (value, G_VARIANT_TYPE_BOOLEAN))
    *number = g_variant_get_boolean (value);
  else
    ok = FALSE;
  return ok;
}

static double
get (GVariant *layer, const char *key, double otherwise)
{
  g_autoptr (GVariant) value = g_variant_lookup_value (layer, key, NULL);
  double number = otherwise;
  if (value)
    number_of (value, &number);
  return number;
}

static gint64
get_int (GVariant *layer, const char *key)
{
  return (gint64) get (layer, key, 0);
}

/* ---- layers --------------------------------------------------------------------------------------------------------- */

static HeddleValue *
emit_conv2d (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_conv2d (b, name, x, .channels = get_int (l, "channels"), .kernel = get_int (l, "kernel"), .stride = get_int (l, "stride"),
                        .padding = get_int (l, "padding"), .dilation = get_int (l, "dilation"), .groups = get_int (l, "groups"),
                        .no_bias = get (l, "bias", 1) == 0);
}

static HeddleValue *
emit_linear (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_linear (b, name, x, .features = get_int (l, "features"), .no_bias = get (l, "bias", 1) == 0);
}

static HeddleValue *
emit_batch_norm (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_batch_norm (b, name, x, .eps = get (l, "eps", 0), .momentum = get (l, "momentum", 0), .no_affine = get (l, "affine", 1) == 0);
}

static HeddleValue *
emit_max_pool (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_max_pool (b, x, .kernel = get_int (l, "kernel"), .stride = get_int (l, "stride"), .padding = get_int (l, "padding"));
}

static HeddleValue *
emit_avg_pool (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_avg_pool (b, x, .kernel = get_int (l, "kernel"), .stride = get_int (l, "stride"), .padding = get_int (l, "padding"),
                          .exclude_padding = get (l, "exclude_padding", 0) != 0);
}

static HeddleValue *
emit_dropout (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_dropout (b, name, x, get (l, "probability", 0.5));
}

static HeddleValue *
emit_gelu (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return get (l, "tanh", 0) != 0 ? heddle_gelu_tanh (b, x) : heddle_gelu (b, x);
}

#define PLAIN(function) \
  static HeddleValue *emit_##function (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l) { return heddle_##function (b, x); }
PLAIN (relu) PLAIN (relu6) PLAIN (silu) PLAIN (hardswish) PLAIN (sigmoid) PLAIN (tanh) PLAIN (flatten) PLAIN (global_avg_pool)

static HeddleValue *
emit_conv_transpose2d (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_conv_transpose2d (b, name, x, .channels = get_int (l, "channels"), .kernel = get_int (l, "kernel"), .stride = get_int (l, "stride"),
                                  .padding = get_int (l, "padding"), .output_padding = get_int (l, "output_padding"), .dilation = get_int (l, "dilation"),
                                  .groups = get_int (l, "groups"), .no_bias = get (l, "bias", 1) == 0);
}

/* one of: a scale, which may be fractional, or a size, which is the height and, without "width", the width too */
static HeddleValue *
emit_upsample (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  HeddleShape in = heddle_shape_of (b, x);
  double scale = get (l, "scale", 0), height = get (l, "size", floor ((double) in.size[2] * scale)), width = get (l, "width", get (l, "size", floor ((double) in.size[3] * scale)));
  return heddle_upsample (b, x, (gint64) height, (gint64) width, get (l, "bilinear", 0) != 0);
}

static HeddleValue *
emit_leaky_relu (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_leaky_relu (b, x, get (l, "slope", 0.01));
}

static HeddleValue *
emit_clamp (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_clamp (b, x, get (l, "min", 0), get (l, "max", 1));
}

static HeddleValue *
emit_softmax (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_softmax (b, x, (gint32) get (l, "axis", -1));
}

static HeddleValue *emit_residual (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l);

static const LayerType types[] = {
  { "conv2d", "channels", { "channels", "kernel", "stride", "padding", "dilation", "groups", "bias" }, emit_conv2d },
  { "conv_transpose2d", "channels", { "channels", "kernel", "stride", "padding", "output_padding", "dilation", "groups", "bias" }, emit_conv_transpose2d },
  { "upsample", NULL, { "scale", "size", "width", "bilinear" }, emit_upsample },
  { "linear", "features", { "features", "bias" }, emit_linear },
  { "batch_norm", NULL, { "eps", "momentum", "affine" }, emit_batch_norm },
  { "max_pool", "kernel", { "kernel", "stride", "padding" }, emit_max_pool },
  { "avg_pool", "kernel", { "kernel", "stride", "padding", "exclude_padding" }, emit_avg_pool },
  { "global_avg_pool", NULL, { NULL }, emit_global_avg_pool },
  { "relu", NULL, { NULL }, emit_relu },
  { "relu6", NULL, { NULL }, emit_relu6 },
  { "leaky_relu", NULL, { "slope" }, emit_leaky_relu },
  { "clamp", NULL, { "min", "max" }, emit_clamp },
  { "silu", NULL, { NULL }, emit_silu },
  { "hardswish", NULL, { NULL }, emit_hardswish },
  { "gelu", NULL, { "tanh" }, emit_gelu },
  { "sigmoid", NULL, { NULL }, emit_sigmoid },
  { "tanh", NULL, { NULL }, emit_tanh },
  { "softmax", NULL, { "axis" }, emit_softmax },
  { "dropout", NULL, { "probability" }, emit_dropout },
  { "flatten", NULL, { NULL }, emit_flatten },
  { "residual", "layers", { "layers" }, emit_residual },
};

static const LayerType *
find_type (GVariant *layer)
{
  const char *type = NULL;
  const LayerType *found = NULL;
  if (g_variant_is_of_type (layer, G_VARIANT_TYPE_VARDICT) && g_variant_lookup (layer, "type", "&s", &type))
    for (guint i = 0; !found && i < G_N_ELEMENTS (types); i++)
      if (g_str_equal (types[i].type, type))
        found = &types[i];
  return found;
}

/* ---- emission ------------------------------------------------------------------------------------------------------- */

static GVariant *
nth_layer (GVariant *list, gsize i)
{
  g_autoptr (GVariant) child = g_variant_get_child_value (list, i);
  return g_variant_is_of_type (child, G_VARIANT_TYPE_VARIANT) ? g_variant_get_variant (child) : g_steal_pointer (&child);
}

static HeddleValue *
emit_list (HeddleBuilder *b, HeddleValue *x, GVariant *list)
{
  for (gsize i = 0; i < g_variant_n_children (list); i++)
    {
      g_autoptr (GVariant) layer = nth_layer (list, i);
      g_autofree char *position = g_strdup_printf ("%" G_GSIZE_FORMAT, i);
      const char *name = position;
      g_variant_lookup (layer, "name", "&s", &name);
      x = find_type (layer)->emit (b, name, x, layer);
    }
  return x;
}

/* x + layers (x) */
static HeddleValue *
emit_residual (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  g_autoptr (GVariant) inner = g_variant_lookup_value (l, "layers", NULL);
  heddle_push (b, name);
  HeddleValue *y = emit_list (b, x, inner);
  heddle_pop (b);
  return heddle_add (b, y, x);
}

/* inputs[0]: whatever the first layer takes; outputs[0]: what the last one gives */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Sequential *self = data;
  outputs[0] = emit_list (b, inputs[0], self->layers);
  return TRUE;
}

/* ---- checking: every fault is found before anything is built --------------------------------------------------------- */

static gboolean check_list (GVariant *list, const char *place, GError **error);

static gboolean G_GNUC_PRINTF (3, 4)
refuse (GError **error, const char *place, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"layers\": layer %s: %s", place, what);
  return FALSE;
}

static gboolean
refuse_type (GVariant *layer, const char *place, GError **error)
{
  g_autoptr (GString) known = g_string_new (NULL);
  const char *type = "(none)";
  if (g_variant_is_of_type (layer, G_VARIANT_TYPE_VARDICT))
    g_variant_lookup (layer, "type", "&s", &type);
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    g_string_append_printf (known, "%s%s", i ? ", " : "", types[i].type);
  return refuse (error, place, "no layer type \"%s\"\nhint: one of %s", type, known->str);
}

static gboolean
check_key (const LayerType *type, const char *key, GVariant *value, const char *place, GError **error)
{
  gboolean known = FALSE, ok = TRUE;
  double number = 0;
  for (guint i = 0; !known && i < G_N_ELEMENTS (type->keys) && type->keys[i]; i++)
    known = g_str_equal (type->keys[i], key);
  if (g_str_equal (key, "type") || g_str_equal (key, "name"))
    ok = g_variant_is_of_type (value, G_VARIANT_TYPE_STRING) || refuse (error, place, "\"%s\" is a string", key);
  else if (!known)
    ok = refuse (error, place, "%s has no option \"%s\"", type->type, key);
  else if (g_str_equal (key, "layers"))
    ok = check_list (value, place, error);
  else if (!number_of (value, &number))
    ok = refuse (error, place, "\"%s\" is a number, got %s", key, g_variant_get_type_string (value));
  else if (!(number >= -1e9 && number <= 1e9) || (number < 0 && !g_str_equal (key, "axis") && !g_str_equal (type->type, "clamp")))
    ok = refuse (error, place, "\"%s\" is out of range", key);
  return ok;
}

static gboolean
check_layer (GVariant *layer, const char *place, GError **error)
{
  const LayerType *type = find_type (layer);
  gboolean ok = type ? TRUE : refuse_type (layer, place, error);
  GVariantIter iter;
  const char *key;
  GVariant *value;
  g_autoptr (GVariant) needed = ok && type->required ? g_variant_lookup_value (layer, type->required, NULL) : NULL;
  if (ok && type->required && !needed)
    ok = refuse (error, place, "%s needs \"%s\"", type->type, type->required);
  if (ok && g_str_has_prefix (type->type, "conv") && get (layer, "kernel", 0) < 1)
    ok = refuse (error, place, "%s needs \"kernel\"", type->type);
  if (ok && g_str_equal (type->type, "upsample") && (get (layer, "scale", 0) > 0) == (get (layer, "size", 0) > 0))
    ok = refuse (error, place, "upsample needs either \"scale\" or \"size\"");
  if (ok && g_str_equal (type->type, "upsample") && get (layer, "width", 0) > 0 && !(get (layer, "size", 0) > 0))
    ok = refuse (error, place, "upsample takes \"width\" only beside \"size\"");
  if (ok)
    {
      g_variant_iter_init (&iter, layer);
      while (ok && g_variant_iter_next (&iter, "{&sv}", &key, &value))
        {
          ok = check_key (type, key, value, place, error);
          g_variant_unref (value);
        }
    }
  return ok;
}

static gboolean
check_list (GVariant *list, const char *place, GError **error)
{
  gboolean ok = list && g_variant_is_of_type (list, G_VARIANT_TYPE_ARRAY) && !g_variant_is_of_type (list, G_VARIANT_TYPE_VARDICT);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"layers\": a list of layers is expected\nhint: layers = { nn.conv2d { 32, kernel = 3 }, nn.relu (), ... }");
  for (gsize i = 0; ok && i < g_variant_n_children (list); i++)
    {
      g_autoptr (GVariant) layer = nth_layer (list, i);
      g_autofree char *where = g_strdup_printf ("%s%s%" G_GSIZE_FORMAT, place, *place ? "." : "", i + 1);
      ok = check_layer (layer, where, error);
    }
  return ok;
}

static gboolean
check (gpointer data, GError **error)
{
  const Sequential *self = data;
  return check_list (self->layers, "", error);
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, check };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Sequential, options, .name = "sequential", .version = "1.0",
               .summary = "A network described in the script as a list of layers", .license = "MIT");
