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
  const char *keys[9];    /* the keys it takes beside type and name; all numbers or booleans, but "layers" and lists of numbers, which are marked [] */
  Emit        emit;       /* NULL: residual */
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

static GVariant *
nth (GVariant *list, gsize i)
{
  g_autoptr (GVariant) child = g_variant_get_child_value (list, i);
  return g_variant_is_of_type (child, G_VARIANT_TYPE_VARIANT) ? g_variant_get_variant (child) : g_steal_pointer (&child);
}

static gboolean
is_list (GVariant *value)
{
  return g_variant_is_of_type (value, G_VARIANT_TYPE_ARRAY) && !g_variant_is_of_type (value, G_VARIANT_TYPE_VARDICT);
}

/* The numbers of the list KEY, at most HEDDLE_MAX_RANK, which checking has seen to; how many */
static guint
get_list (GVariant *layer, const char *key, gint64 *numbers)
{
  g_autoptr (GVariant) list = g_variant_lookup_value (layer, key, NULL);
  guint n = list ? (guint) g_variant_n_children (list) : 0;
  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GVariant) item = nth (list, i);
      double number = 0;
      number_of (item, &number);
      numbers[i] = (gint64) number;
    }
  return n;
}

/* ---- layers --------------------------------------------------------------------------------------------------------- */

static HeddleValue *
emit_conv2d (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_conv2d (b, name, x, .channels = get_int (l, "channels"), .kernel = get_int (l, "kernel"), .stride = get_int (l, "stride"),
                        .padding = get_int (l, "padding"), .dilation = get_int (l, "dilation"), .groups = get_int (l, "groups"),
                        .no_bias = get (l, "bias", 1) == 0);
}

/* A sequence (N, T, features) keeps its places, as in PyTorch; an image is flattened first, which saves a flatten after convolutions. */
static HeddleValue *
emit_linear (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_linear (b, name, x, .features = get_int (l, "features"), .no_bias = get (l, "bias", 1) == 0, .last_axis = get (l, "last_axis", heddle_shape_of (b, x).rank == 3) != 0);
}

static HeddleValue *
emit_batch_norm (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_batch_norm (b, name, x, .eps = get (l, "eps", 0), .momentum = get (l, "momentum", 0), .no_affine = get (l, "affine", 1) == 0);
}

static HeddleValue *
emit_layer_norm (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_layer_norm (b, name, x, .eps = get (l, "eps", 0), .axes = (gint32) get (l, "axes", 1), .no_affine = get (l, "affine", 1) == 0, .no_bias = get (l, "bias", 1) == 0);
}

static HeddleValue *
emit_rms_norm (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_rms_norm (b, name, x, .eps = get (l, "eps", 0), .axes = (gint32) get (l, "axes", 1), .no_affine = get (l, "affine", 1) == 0);
}

static HeddleValue *
emit_group_norm (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_group_norm (b, name, x, .groups = get_int (l, "groups"), .eps = get (l, "eps", 0), .no_affine = get (l, "affine", 1) == 0);
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
emit_log_softmax (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_log_softmax (b, x, (gint32) get (l, "axis", -1));
}

static HeddleValue *
emit_softmax (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_softmax (b, x, (gint32) get (l, "axis", -1));
}

/* indices (N, T) -> (N, T, features) */
static HeddleValue *
emit_embedding (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_embedding (b, name, x, .count = get_int (l, "count"), .features = get_int (l, "features"));
}

/* x (N, T, features) plus the first T of "count" learned rows; normal (0, 0.02), as in GPT-2 */
static HeddleValue *
emit_positional_embedding (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  HeddleShape s = heddle_shape_of (b, x);
  gint64 count = get (l, "count", 0) > 0 ? get_int (l, "count") : s.size[1];
  if (s.rank != 3)
    heddle_fail (b, "expects a sequence (N, T, features), got rank %d", s.rank);
  else if (s.size[1] > count)
    heddle_fail (b, "has %" G_GINT64_FORMAT " positions, the sequence %" G_GINT64_FORMAT "\nhint: raise \"count\"", count, s.size[1]);
  heddle_push (b, name);
  HeddleValue *rows = heddle_param (b, "weight", heddle_shape (count, s.size[2]), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.02 });
  heddle_pop (b);
  return heddle_add (b, x, count > s.size[1] ? heddle_slice (b, rows, 0, 0, s.size[1]) : rows);
}

/* Part I of qkv (N, T, 3 E) -> (N, heads, T, E / heads) */
static HeddleValue *
head_part (HeddleBuilder *b, HeddleValue *qkv, gint64 i, gint64 heads)
{
  HeddleShape s = heddle_shape_of (b, qkv);
  gint64 e = s.size[2] / 3;
  HeddleValue *part = heddle_slice (b, qkv, 2, i * e, (i + 1) * e);
  return heddle_permute (b, heddle_reshape (b, part, heddle_shape (s.size[0], s.size[1], heads, e / MAX (heads, 1))), 0, 2, 1, 3);
}

static HeddleValue *
projection (HeddleBuilder *b, HeddleValue *x, const char *weight, const char *bias, gint64 features, gboolean biased, HeddleInit init)
{
  HeddleInit zeros = { HEDDLE_INIT_CONSTANT, 0, 0 };
  HeddleShape s = heddle_shape_of (b, x);
  HeddleValue *w = heddle_param (b, weight, heddle_shape (features, s.size[2]), init);
  return heddle_linear_op (b, x, w, biased ? heddle_param (b, bias, heddle_shape (features), zeros) : NULL);
}

/* Self-attention, x (N, T, E) -> (N, T, E); names and initialisation as in PyTorch's MultiheadAttention */
static HeddleValue *
emit_attention (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  HeddleShape s = heddle_shape_of (b, x);
  gint64 heads = get_int (l, "heads"), e = s.size[2];
  gboolean bias = get (l, "bias", 1) != 0, causal = get (l, "causal", 0) != 0;
  if (s.rank != 3)
    heddle_fail (b, "expects a sequence (N, T, features), got rank %d", s.rank);
  else if (heads < 1 || e % heads != 0)
    heddle_fail (b, "%" G_GINT64_FORMAT " features cannot be dealt into %" G_GINT64_FORMAT " heads", e, heads);
  heddle_push (b, name);
  HeddleValue *qkv = projection (b, x, "in_proj_weight", "in_proj_bias", 3 * e, bias, (HeddleInit) { HEDDLE_INIT_XAVIER_UNIFORM, 0, 0 });
  HeddleValue *q = head_part (b, qkv, 0, heads), *k = head_part (b, qkv, 1, heads), *v = head_part (b, qkv, 2, heads);
  HeddleValue *y = heddle_scaled_dot_product_attention (b, q, k, v, causal, 0);
  y = heddle_reshape (b, heddle_permute (b, y, 0, 2, 1, 3), s);
  y = projection (b, y, "out_proj.weight", "out_proj.bias", e, bias, (HeddleInit) { 0 });
  heddle_pop (b);
  return y;
}

static HeddleValue *
emit_permute (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  gint64 numbers[HEDDLE_MAX_RANK] = { 0 };
  gint32 axes[HEDDLE_MAX_RANK];
  guint n = get_list (l, "axes", numbers);
  for (guint i = 0; i < HEDDLE_MAX_RANK; i++)
    axes[i] = (gint32) numbers[i];
  return heddle_permute_axes (b, x, axes, n);
}

/* the last two axes unless others are named */
static HeddleValue *
emit_transpose (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  return heddle_transpose (b, x, (gint32) get (l, "axis0", -2), (gint32) get (l, "axis1", -1));
}

/* "shape": the sizes of one sample; the batch axis stays */
static HeddleValue *
emit_reshape (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l)
{
  HeddleShape shape = { .size = { heddle_shape_of (b, x).size[0] } };
  shape.rank = 1 + (gint32) get_list (l, "shape", shape.size + 1);
  return heddle_reshape (b, x, shape);
}

static const LayerType types[] = {
  { "conv2d", "channels", { "channels", "kernel", "stride", "padding", "dilation", "groups", "bias" }, emit_conv2d },
  { "conv_transpose2d", "channels", { "channels", "kernel", "stride", "padding", "output_padding", "dilation", "groups", "bias" }, emit_conv_transpose2d },
  { "upsample", NULL, { "scale", "size", "width", "bilinear" }, emit_upsample },
  { "linear", "features", { "features", "bias", "last_axis" }, emit_linear },
  { "embedding", "count", { "count", "features" }, emit_embedding },
  { "positional_embedding", NULL, { "count" }, emit_positional_embedding },
  { "attention", "heads", { "heads", "causal", "bias" }, emit_attention },
  { "batch_norm", NULL, { "eps", "momentum", "affine" }, emit_batch_norm },
  { "layer_norm", NULL, { "eps", "axes", "affine", "bias" }, emit_layer_norm },
  { "rms_norm", NULL, { "eps", "axes", "affine" }, emit_rms_norm },
  { "group_norm", "groups", { "groups", "eps", "affine" }, emit_group_norm },
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
  { "log_softmax", NULL, { "axis" }, emit_log_softmax },
  { "dropout", NULL, { "probability" }, emit_dropout },
  { "flatten", NULL, { NULL }, emit_flatten },
  { "reshape", "shape", { "shape[]" }, emit_reshape },
  { "permute", "axes", { "axes[]" }, emit_permute },
  { "transpose", NULL, { "axis0", "axis1" }, emit_transpose },
  { "residual", "layers", { "layers" }, NULL },
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

static HeddleValue *emit_list (HeddleBuilder *b, HeddleValue *x, GVariant *list, GString *place);

/* x + layers (x) */
static HeddleValue *
emit_residual (HeddleBuilder *b, const char *name, HeddleValue *x, GVariant *l, GString *place)
{
  g_autoptr (GVariant) inner = g_variant_lookup_value (l, "layers", NULL);
  heddle_push (b, name);
  HeddleValue *y = emit_list (b, x, inner, place);
  heddle_pop (b);
  return y ? heddle_add (b, y, x) : NULL;
}

/* PLACE: the layer that could not be built, "3.1 (linear)" */
static HeddleValue *
emit_list (HeddleBuilder *b, HeddleValue *x, GVariant *list, GString *place)
{
  for (gsize i = 0; x && i < g_variant_n_children (list); i++)
    {
      g_autoptr (GVariant) layer = nth (list, i);
      g_autofree char *position = g_strdup_printf ("%" G_GSIZE_FORMAT, i);
      const char *name = position;
      const LayerType *type = find_type (layer);
      g_variant_lookup (layer, "name", "&s", &name);
      x = type->emit ? type->emit (b, name, x, layer) : emit_residual (b, name, x, layer, place);
      if (!x)
        {
          g_autofree char *here = place->len ? g_strdup_printf ("%" G_GSIZE_FORMAT ".", i + 1) : g_strdup_printf ("%" G_GSIZE_FORMAT " (%s)", i + 1, type->type);
          g_string_prepend (place, here);
        }
    }
  return x;
}

/* inputs[0]: whatever the first layer takes; outputs[0]: what the last one gives */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Sequential *self = data;
  g_autoptr (GString) place = g_string_new (NULL);
  outputs[0] = emit_list (b, inputs[0], self->layers, place);
  if (place->len)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "layer %s", place->str);
  return !place->len;
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

/* 1 to HEDDLE_MAX_RANK - 1 or, of axes, HEDDLE_MAX_RANK numbers */
static gboolean
check_numbers (const char *key, GVariant *list, const char *place, GError **error)
{
  gsize most = g_str_equal (key, "axes") ? HEDDLE_MAX_RANK : HEDDLE_MAX_RANK - 1, n = is_list (list) ? g_variant_n_children (list) : 0;
  gboolean ok = (n >= 1 && n <= most) || refuse (error, place, "\"%s\" is a list of 1 to %" G_GSIZE_FORMAT " numbers", key, most);
  for (gsize i = 0; ok && i < n; i++)
    {
      g_autoptr (GVariant) item = nth (list, i);
      double number = 0;
      ok = (number_of (item, &number) && number >= -1 && number <= 1e9 && number == floor (number)) || refuse (error, place, "\"%s\" is a list of whole numbers from -1 on", key);
    }
  return ok;
}

/* Does TYPE take KEY?  LIST: as a list of numbers */
static gboolean
takes_key (const LayerType *type, const char *key, gboolean *list)
{
  gboolean known = *list = FALSE;
  gsize n = strlen (key);
  for (guint i = 0; !known && i < G_N_ELEMENTS (type->keys) && type->keys[i]; i++)
    {
      known = strncmp (type->keys[i], key, n) == 0 && (!type->keys[i][n] || type->keys[i][n] == '[');
      *list = known && type->keys[i][n] == '[';
    }
  return known;
}

static gboolean
check_key (const LayerType *type, const char *key, GVariant *value, const char *place, GError **error)
{
  gboolean list, known = takes_key (type, key, &list), ok = TRUE;
  double number = 0;
  if (g_str_equal (key, "type") || g_str_equal (key, "name"))
    ok = g_variant_is_of_type (value, G_VARIANT_TYPE_STRING) || refuse (error, place, "\"%s\" is a string", key);
  else if (!known)
    ok = refuse (error, place, "%s has no option \"%s\"", type->type, key);
  else if (g_str_equal (key, "layers"))
    ok = check_list (value, place, error);
  else if (list)
    ok = check_numbers (key, value, place, error);
  else if (!number_of (value, &number))
    ok = refuse (error, place, "\"%s\" is a number, got %s", key, g_variant_get_type_string (value));
  else if (!(number >= -1e9 && number <= 1e9) || (number < 0 && !g_str_has_prefix (key, "axis") && !g_str_equal (type->type, "clamp")))
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
  if (ok && g_str_equal (type->type, "embedding") && get (layer, "features", 0) < 1)
    ok = refuse (error, place, "embedding needs \"features\"");
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
  gboolean ok = list && is_list (list);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"layers\": a list of layers is expected\nhint: layers = { nn.conv2d { 32, kernel = 3 }, nn.relu (), ... }");
  for (gsize i = 0; ok && i < g_variant_n_children (list); i++)
    {
      g_autoptr (GVariant) layer = nth (list, i);
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
