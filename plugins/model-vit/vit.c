/* plugins/model-vit/vit.c: vision transformers: images cut into patches, encoder blocks, one linear layer on the class token or on the mean.  Must not know where images come from or how the network is trained.
 * A. Dosovitskiy et al., arXiv 2010.11929; names, initialisation and eps as in torchvision's vit_b_16.  Dropout: after the position embedding, on
 * both branches and inside the MLP, not on attention's probabilities. */
#include <heddle/plugin.h>

typedef struct { gint64 classes, patch, layers, heads, width, mlp; double dropout; int pool; } Vit;

enum { TOKEN = 1, MEAN };

static const HeddleEnumValue pools[] = {
  { TOKEN, "token", "a learned class token joins the patches" }, { MEAN, "mean", "the mean over all patches" }, { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_INT (Vit, classes, 0, 1, 10000000, "Number of outputs", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Vit, patch, 16, 1, 1024, "Side of a patch; must divide height and width of the images", .unit = "pixels"),
  HEDDLE_INT (Vit, layers, 12, 1, 1000, "Blocks of attention and MLP"),
  HEDDLE_INT (Vit, heads, 12, 1, 1000, "Attention heads; must divide width"),
  HEDDLE_INT (Vit, width, 768, 1, 1000000, "Length of a patch's vector"),
  HEDDLE_INT (Vit, mlp, 0, 1, 1000000, "Hidden units of each MLP", .word = "4 width", .word_value = 0),
  HEDDLE_FLOAT (Vit, dropout, 0, 0, 0.99, "Probability of dropping a number"),
  HEDDLE_ENUM (Vit, pool, TOKEN, pools, "What the classes are read from"),
  HEDDLE_OPTIONS_END
};

#define ZEROS ((HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 })
#define XAVIER ((HeddleInit) { HEDDLE_INIT_XAVIER_UNIFORM, 0, 0 })

/* x (..., I) -> (..., features); parameters WEIGHT and BIAS by their own names */
static HeddleValue *
project (HeddleBuilder *b, const char *weight, const char *bias, HeddleValue *x, gint64 features, HeddleInit init, HeddleInit bias_init)
{
  HeddleShape in = heddle_shape_of (b, x);
  HeddleValue *inputs[] = { x, heddle_param (b, weight, heddle_shape (features, in.rank ? in.size[in.rank - 1] : 0), init), heddle_param (b, bias, heddle_shape (features), bias_init) };
  return heddle_emit (b, HEDDLE_OP_LINEAR, weight, inputs, 3, NULL, 0);
}

/* x (N, T, W) */
static HeddleValue *
block (const Vit *self, HeddleBuilder *b, HeddleValue *x)
{
  HeddleInit small = { HEDDLE_INIT_NORMAL, 0, 1e-6 }, usual = { HEDDLE_INIT_DEFAULT, 0, 0 };
  HeddleValue *y = heddle_layer_norm (b, "ln_1", x, .eps = 1e-6);
  heddle_push (b, "self_attention");
  y = heddle_self_attention (b, project (b, "in_proj_weight", "in_proj_bias", y, 3 * self->width, XAVIER, ZEROS), self->heads, FALSE);
  y = project (b, "out_proj.weight", "out_proj.bias", y, self->width, usual, ZEROS);
  heddle_pop (b);
  x = heddle_add (b, x, heddle_dropout (b, "dropout", y, self->dropout));
  y = heddle_layer_norm (b, "ln_2", x, .eps = 1e-6);
  heddle_push (b, "mlp");
  y = heddle_dropout (b, "2", heddle_gelu (b, project (b, "0.weight", "0.bias", y, self->mlp ? self->mlp : 4 * self->width, XAVIER, small)), self->dropout);
  y = heddle_dropout (b, "4", project (b, "3.weight", "3.bias", y, self->width, XAVIER, small), self->dropout);
  heddle_pop (b);
  return heddle_add (b, x, y);
}

/* image (N, C, H, W) -> (N, H W / patch^2, width), row by row */
static HeddleValue *
patches (const Vit *self, HeddleBuilder *b, HeddleValue *image)
{
  HeddleShape in = heddle_shape_of (b, image);
  if (in.rank != 4 || in.size[2] % self->patch || in.size[3] % self->patch)
    heddle_fail (b, "vit expects images (N, C, H, W) of whole patches of %" G_GINT64_FORMAT ", got rank %d, %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT
                 "\nhint: set patch to a divisor of both sides", self->patch, in.rank, in.size[2], in.size[3]);
  double deviation = sqrt (1.0 / (double) MAX (in.size[1] * self->patch * self->patch, 1));
  HeddleConvAttr attr = { .stride = { self->patch, self->patch }, .dilation = { 1, 1 }, .groups = 1 };
  heddle_push (b, "conv_proj");
  HeddleValue *inputs[] = { image, heddle_param (b, "weight", heddle_shape (self->width, in.size[1], self->patch, self->patch), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, deviation }),
                            heddle_param (b, "bias", heddle_shape (self->width), ZEROS) };
  heddle_pop (b);
  HeddleValue *x = heddle_emit (b, HEDDLE_OP_CONV2D, "conv_proj", inputs, 3, &attr, sizeof attr);        /* (N, width, h, w) */
  return heddle_transpose (b, heddle_reshape (b, x, heddle_shape (in.size[0], self->width, -1)), 1, 2);
}

/* x (N, T, W) with the class token, the same for all images, in front: (N, 1 + T, W) */
static HeddleValue *
with_token (HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape s = heddle_shape_of (b, x);
  HeddleShapeAttr attr = { heddle_shape (s.size[0], 1, s.size[2]) };
  HeddleValue *token = heddle_param (b, "class_token", heddle_shape (1, 1, s.size[2]), ZEROS);
  HeddleValue *both[] = { heddle_emit (b, HEDDLE_OP_BROADCAST, "class_token", &token, 1, &attr, sizeof attr), x };
  return heddle_concat (b, both, 2, 1);
}

static HeddleValue *
encoder (const Vit *self, HeddleBuilder *b, HeddleValue *x)
{
  HeddleShape s = heddle_shape_of (b, x);
  heddle_push (b, "encoder");
  x = heddle_add (b, x, heddle_param (b, "pos_embedding", heddle_shape (1, s.size[1], s.size[2]), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.02 }));
  x = heddle_dropout (b, "dropout", x, self->dropout);
  for (gint64 i = 0; i < self->layers; i++)
    {
      g_autofree char *name = g_strdup_printf ("layers.encoder_layer_%" G_GINT64_FORMAT, i);
      heddle_push (b, name);
      x = block (self, b, x);
      heddle_pop (b);
    }
  x = heddle_layer_norm (b, "ln", x, .eps = 1e-6);
  heddle_pop (b);
  return x;
}

/* inputs[0]: images (N, C, H, W); outputs[0]: logits (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Vit *self = data;
  HeddleValue *x = patches (self, b, inputs[0]);
  x = encoder (self, b, self->pool == TOKEN ? with_token (b, x) : x);
  gint64 n = heddle_shape_of (b, x).size[0];
  x = self->pool == TOKEN ? heddle_reshape (b, heddle_slice (b, x, 1, 0, 1), heddle_shape (n, self->width)) : heddle_mean (b, x, 1u << 1, FALSE);
  outputs[0] = project (b, "heads.head.weight", "heads.head.bias", x, self->classes, ZEROS, ZEROS);
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Vit *self = data;
  gboolean ok = self->width % self->heads == 0;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"heads\": %" G_GINT64_FORMAT " heads do not divide width = %" G_GINT64_FORMAT
                 "\nhint: ViT-B has heads of 64: 12 for 768", self->heads, self->width);
  return ok;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, check };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Vit, options, .name = "vit", .version = "1.0",
               .summary = "Vision transformers, torchvision's names and initialisation", .license = "MIT");
