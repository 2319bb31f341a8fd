/* plugins/model-resnet/resnet.c: residual networks: 20, 32, 44, 56 for 32x32 images, 18, 34, 50 for 224x224.
 * K. He et al., arXiv 1512.03385; names and initialisation as in torchvision (stride in the 3x3 convolution of a bottleneck).
 * Must not know data, losses or devices. */
#include <heddle/plugin.h>

typedef struct
{
  gint64 classes, depth;
  int    stem;
  bool   zero_init_residual;
} Resnet;

enum { STEM_AUTO = 1, STEM_SMALL, STEM_LARGE };

static const HeddleEnumValue stems[] = {
  { STEM_AUTO, "auto", "small for images up to 64 pixels and for depths 20, 32, 44, 56" },
  { STEM_SMALL, "small", "3x3 convolution, stride 1" },
  { STEM_LARGE, "large", "7x7 convolution, stride 2, then 3x3 max pooling, stride 2" },
  { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_INT (Resnet, classes, 0, 1, 10000000, "Number of outputs", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Resnet, depth, 18, 18, 56, "Layers with weights: 18, 34 (basic blocks), 50 (bottlenecks); 20, 32, 44, 56 (3 stages of 16 to 64 channels)"),
  HEDDLE_ENUM (Resnet, stem, STEM_AUTO, stems, "The first layers"),
  HEDDLE_BOOL (Resnet, zero_init_residual, false, "Start the last normalisation of each block at 0, so that blocks begin as identities"),
  HEDDLE_OPTIONS_END
};

typedef struct { guint stages, blocks[4]; gint64 width; gboolean bottleneck, small; } Plan;

static Plan
plan_of (gint64 depth)
{
  Plan plan = { .stages = 4, .blocks = { 3, 4, 6, 3 }, .width = 64, .bottleneck = depth == 50 };
  if (depth == 18)
    plan = (Plan) { .stages = 4, .blocks = { 2, 2, 2, 2 }, .width = 64 };
  else if (depth != 34 && depth != 50)
    {
      guint n = (guint) (depth - 2) / 6;
      plan = (Plan) { .stages = 3, .blocks = { n, n, n }, .width = 16, .small = TRUE };
    }
  return plan;
}

/* x (N, C, H, W) -> (N, channels, H / stride, W / stride) */
static HeddleValue *
conv_norm (HeddleBuilder *b, const char *conv, const char *norm, HeddleValue *x, gint64 channels, gint64 kernel, gint64 stride, gboolean zero)
{
  HeddleInit he = { HEDDLE_INIT_KAIMING_NORMAL_OUT, 0, 0 }, scale = { HEDDLE_INIT_CONSTANT, zero ? 0 : 1, 0 };
  x = heddle_conv2d (b, conv, x, .channels = channels, .kernel = kernel, .stride = stride, .padding = kernel / 2, .no_bias = TRUE, .init = he);
  return heddle_batch_norm (b, norm, x, .init = scale);
}

static HeddleValue *
block (const Resnet *self, HeddleBuilder *b, HeddleValue *x, gint64 width, gint64 stride, gboolean bottleneck)
{
  gint64 out = bottleneck ? 4 * width : width;
  HeddleValue *y, *skip = x;
  if (bottleneck)
    {
      y = heddle_relu (b, conv_norm (b, "conv1", "bn1", x, width, 1, 1, FALSE));
      y = heddle_relu (b, conv_norm (b, "conv2", "bn2", y, width, 3, stride, FALSE));
      y = conv_norm (b, "conv3", "bn3", y, out, 1, 1, self->zero_init_residual);
    }
  else
    {
      y = heddle_relu (b, conv_norm (b, "conv1", "bn1", x, width, 3, stride, FALSE));
      y = conv_norm (b, "conv2", "bn2", y, width, 3, 1, self->zero_init_residual);
    }
  if (stride != 1 || heddle_shape_of (b, x).size[1] != out)
    {
      heddle_push (b, "downsample");
      skip = conv_norm (b, "0", "1", x, out, 1, stride, FALSE);
      heddle_pop (b);
    }
  return heddle_relu (b, heddle_add (b, y, skip));
}

static HeddleValue *
stem (const Resnet *self, const Plan *plan, HeddleBuilder *b, HeddleValue *x)
{
  gboolean small = self->stem == STEM_SMALL || (self->stem == STEM_AUTO && (plan->small || heddle_shape_of (b, x).size[2] <= 64));
  x = heddle_relu (b, conv_norm (b, "conv1", "bn1", x, plan->width, small ? 3 : 7, small ? 1 : 2, FALSE));
  return small ? x : heddle_max_pool (b, x, .kernel = 3, .stride = 2, .padding = 1);
}

/* inputs[0]: (N, C, H, W); outputs[0]: logits (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Resnet *self = data;
  Plan plan = plan_of (self->depth);
  if (heddle_shape_of (b, inputs[0]).rank != 4)
    heddle_fail (b, "resnet expects images (N, C, H, W), got rank %d", heddle_shape_of (b, inputs[0]).rank);
  HeddleValue *x = stem (self, &plan, b, inputs[0]);
  for (guint s = 0; s < plan.stages; s++)
    for (guint i = 0; i < plan.blocks[s]; i++)
      {
        g_autofree char *name = g_strdup_printf ("layer%u.%u", s + 1, i);
        heddle_push (b, name);
        x = block (self, b, x, plan.width << s, s > 0 && i == 0 ? 2 : 1, plan.bottleneck);
        heddle_pop (b);
      }
  outputs[0] = heddle_linear (b, "fc", heddle_global_avg_pool (b, x), .features = self->classes);
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  static const gint64 depths[] = { 18, 20, 32, 34, 44, 50, 56 };
  const Resnet *self = data;
  gboolean known = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (depths); i++)
    known = known || depths[i] == self->depth;
  if (!known)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"depth\": there is no residual network of %" G_GINT64_FORMAT " layers here"
                 "\nhint: 18, 34, 50 for large images, 20, 32, 44, 56 for 32x32", self->depth);
  return known;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, check };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Resnet, options, .name = "resnet", .version = "1.0",
               .summary = "Residual networks, torchvision's names and initialisation", .license = "MIT");
