/* plugins/model-mobilenet/mobilenet.c: MobileNet-v2: inverted residuals with depthwise convolutions, for 224x224 and for 32x32 images.  Must not know how it is trained.
 * M. Sandler et al., arXiv 1801.04381; names and initialisation as in torchvision's mobilenet_v2. */
#include <heddle/plugin.h>

typedef struct { gint64 classes; double multiplier, dropout; int stem; } Mobilenet;

enum { STEM_AUTO = 1, STEM_SMALL, STEM_LARGE };

static const HeddleEnumValue stems[] = {
  { STEM_AUTO, "auto", "small for images up to 64 pixels" },
  { STEM_SMALL, "small", "stride 1 in the first convolution and in the first stage of 24 channels: 32x32 ends as 4x4" },
  { STEM_LARGE, "large", "stride 2 in both, as published: 224x224 ends as 7x7" },
  { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_INT (Mobilenet, classes, 0, 1, 10000000, "Number of outputs", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_FLOAT (Mobilenet, multiplier, 1, 0.1, 10, "Width of every layer, times this, to the nearest multiple of 8 channels"),
  HEDDLE_FLOAT (Mobilenet, dropout, 0.2, 0, 0.99, "Probability of dropping an input of the classifier"),
  HEDDLE_ENUM (Mobilenet, stem, STEM_AUTO, stems, "The first strides"),
  HEDDLE_OPTIONS_END
};

/* Table 2 of the paper: expansion, channels, blocks, stride of the first block */
static const struct { gint64 expansion, channels, blocks, stride; } stages[] = {
  { 1, 16, 1, 1 }, { 6, 24, 2, 2 }, { 6, 32, 3, 2 }, { 6, 64, 4, 2 }, { 6, 96, 3, 1 }, { 6, 160, 3, 2 }, { 6, 320, 1, 1 },
};

/* torchvision's _make_divisible: a multiple of 8, at most a tenth below */
static gint64
channels_of (double channels)
{
  gint64 rounded = MAX (8, (gint64) (channels + 4) / 8 * 8);
  return (double) rounded < 0.9 * channels ? rounded + 8 : rounded;
}

/* x (N, C, H, W); convolution CONV and batch norm NORM, both without a bias of the convolution's own */
static HeddleValue *
conv_norm (HeddleBuilder *b, const char *conv, const char *norm, HeddleValue *x, gint64 channels, gint64 kernel, gint64 stride, gint64 groups)
{
  HeddleInit he = { HEDDLE_INIT_KAIMING_NORMAL_OUT, 0, 0 };
  x = heddle_conv2d (b, conv, x, .channels = channels, .kernel = kernel, .stride = stride, .padding = kernel / 2, .groups = groups, .no_bias = TRUE, .init = he);
  return heddle_batch_norm (b, norm, x);
}

/* x (N, C, H, W) -> (N, channels, H / stride, W / stride): expand, depthwise, project; the input is added where the shapes agree */
static HeddleValue *
inverted_residual (HeddleBuilder *b, HeddleValue *x, gint64 expansion, gint64 channels, gint64 stride)
{
  gint64 in = heddle_shape_of (b, x).size[1], hidden = in * expansion;
  HeddleValue *y = x;
  heddle_push (b, "conv");
  if (expansion != 1)
    y = heddle_relu6 (b, conv_norm (b, "0.0", "0.1", y, hidden, 1, 1, 1));
  y = heddle_relu6 (b, expansion != 1 ? conv_norm (b, "1.0", "1.1", y, hidden, 3, stride, hidden) : conv_norm (b, "0.0", "0.1", y, hidden, 3, stride, hidden));
  y = expansion != 1 ? conv_norm (b, "2", "3", y, channels, 1, 1, 1) : conv_norm (b, "1", "2", y, channels, 1, 1, 1);
  heddle_pop (b);
  return stride == 1 && in == channels ? heddle_add (b, x, y) : y;
}

static HeddleValue *
features (const Mobilenet *self, HeddleBuilder *b, HeddleValue *x)
{
  gboolean small = self->stem == STEM_SMALL || (self->stem == STEM_AUTO && heddle_shape_of (b, x).size[2] <= 64);
  guint number = 1;
  x = heddle_relu6 (b, conv_norm (b, "0.0", "0.1", x, channels_of (32 * self->multiplier), 3, small ? 1 : 2, 1));
  for (guint s = 0; s < G_N_ELEMENTS (stages); s++)
    for (gint64 i = 0; i < stages[s].blocks; i++)
      {
        g_autofree char *name = g_strdup_printf ("%u", number++);
        heddle_push (b, name);
        x = inverted_residual (b, x, stages[s].expansion, channels_of ((double) stages[s].channels * self->multiplier), i > 0 || (small && s == 1) ? 1 : stages[s].stride);
        heddle_pop (b);
      }
  return heddle_relu6 (b, conv_norm (b, "18.0", "18.1", x, channels_of (1280 * MAX (1.0, self->multiplier)), 1, 1, 1));
}

/* x (N, C) -> (N, classes): weight of deviation 0.01, bias 0 */
static HeddleValue *
classifier (const Mobilenet *self, HeddleBuilder *b, HeddleValue *x)
{
  HeddleValue *inputs[3] = { heddle_dropout (b, "classifier.0", x, self->dropout) };
  inputs[1] = heddle_param (b, "classifier.1.weight", heddle_shape (self->classes, heddle_shape_of (b, x).size[1]), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.01 });
  inputs[2] = heddle_param (b, "classifier.1.bias", heddle_shape (self->classes), (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 });
  return heddle_emit (b, HEDDLE_OP_LINEAR, "classifier.1", inputs, 3, NULL, 0);
}

/* inputs[0]: images (N, C, H, W); outputs[0]: logits (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Mobilenet *self = data;
  if (heddle_shape_of (b, inputs[0]).rank != 4)
    heddle_fail (b, "mobilenet expects images (N, C, H, W), got rank %d", heddle_shape_of (b, inputs[0]).rank);
  heddle_push (b, "features");
  HeddleValue *x = features (self, b, inputs[0]);
  heddle_pop (b);
  outputs[0] = classifier (self, b, heddle_global_avg_pool (b, x));
  return TRUE;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, NULL };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Mobilenet, options, .name = "mobilenet", .version = "1.0",
               .summary = "MobileNet-v2, torchvision's names and initialisation", .license = "MIT");
