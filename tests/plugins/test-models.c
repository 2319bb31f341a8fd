/* test-models.c: the model plugins by their parameter counts, which are published; a network as a list of layers against the same one in C;
 * what a wrong list is told. */
#include <string.h>

#include "plugin/registry.h"
#include "program/program.h"

static HeddleRegistry *registry;

static HeddleInstance *
make (const char *name, const char *options)
{
  GError *error = NULL;
  HeddleInstance *model = heddle_instance_new (heddle_registry_find (registry, "model", name, &error));
  g_assert_no_error (error);
  g_auto (GStrv) pairs = g_strsplit (options, " ", -1);
  for (guint i = 0; pairs[i] && *pairs[i]; i++)
    {
      g_auto (GStrv) pair = g_strsplit (pairs[i], "=", 2);
      heddle_options_set_text (model->entry->options, model->self, pair[0], pair[1], NULL, &error);
      g_assert_no_error (error);
    }
  return model;
}

/* (transfer full) the program's text */
static char *
print (HeddleInstance *model, HeddleShape shape, gint64 *params)
{
  GError *error = NULL;
  const HeddleModelIface *iface = model->entry->plugin->iface;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "image", shape.rank == 2 ? HEDDLE_U8 : HEDDLE_F32, &shape), *y = NULL;     /* tokens have two axes */
  g_assert_true (!iface->check || iface->check (model->self, &error));
  g_assert_true (iface->build (model->self, b, &x, 1, &y, &error));
  heddle_builder_output (b, y);
  g_autoptr (HeddleProgram) program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  *params = heddle_variables_n_params (vars);
  return heddle_program_print (program);
}

static void
check_count (const char *name, const char *options, HeddleShape shape, gint64 expected)
{
  gint64 params;
  g_autoptr (HeddleInstance) model = make (name, options);
  g_autofree char *text = print (model, shape, &params);
  if (params != expected)
    g_error ("%s %s: %" G_GINT64_FORMAT " parameters, expected %" G_GINT64_FORMAT, name, options, params, expected);
}

/* torchvision's for 18, 34, 50; arXiv 1512.03385's for CIFAR with projections (option B): option A's plus 2,752 */
static void
test_counts (void)
{
  HeddleShape small = heddle_shape (2, 3, 32, 32), large = heddle_shape (2, 3, 64, 64), digit = heddle_shape (2, 1, 28, 28);
  check_count ("resnet", "depth=20 classes=10", small, 269722 + 2752);
  check_count ("resnet", "depth=32 classes=10", small, 464154 + 2752);
  check_count ("resnet", "depth=44 classes=10", small, 658586 + 2752);
  check_count ("resnet", "depth=56 classes=10", small, 853018 + 2752);
  check_count ("resnet", "depth=18 classes=1000 stem=large", large, 11689512);
  check_count ("resnet", "depth=34 classes=1000 stem=large", large, 21797672);
  check_count ("resnet", "depth=50 classes=1000 stem=large", large, 25557032);
  check_count ("lenet", "classes=10", digit, 61706);
  check_count ("mlp", "classes=10 hidden=300,100", digit, 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10);
}

/* GPT-2's four sizes as the released checkpoints have them; torchvision's vit_b_16, vit_b_32, vit_l_16 and mobilenet_v2 */
static void
test_more_counts (void)
{
  HeddleShape tokens = heddle_shape (1, 8), image = heddle_shape (1, 3, 224, 224), small = heddle_shape (1, 3, 32, 32);
  check_count ("gpt", "classes=50257", tokens, 124439808);
  check_count ("gpt", "classes=50257 layers=24 heads=16 width=1024", tokens, 354823168);
  check_count ("gpt", "classes=50257 layers=36 heads=20 width=1280", tokens, 774030080);
  check_count ("gpt", "classes=50257 layers=48 heads=25 width=1600", heddle_shape (1, 1024), 1557611200);
  check_count ("vit", "classes=1000", image, 86567656);
  check_count ("vit", "classes=1000 patch=32", image, 88224232);
  check_count ("vit", "classes=1000 layers=24 heads=16 width=1024", image, 304326632);
  check_count ("vit", "classes=1000 pool=mean", image, 86567656 - 2 * 768);           /* neither the token nor its position */
  check_count ("mobilenet", "classes=1000", image, 3504872);
  check_count ("mobilenet", "classes=1000 multiplier=0.5", image, 1968680);
  check_count ("mobilenet", "classes=1000 multiplier=1.4", image, 6108776);
  check_count ("mobilenet", "classes=10 stem=small", small, 2236682);
}

/* 32x32 shrinks to 4x4 behind the small stem and to 1x1 behind the large one. */
static void
test_mobilenet_stems (void)
{
  gint64 params;
  HeddleShape small = heddle_shape (2, 3, 32, 32);
  g_autoptr (HeddleInstance) by_size = make ("mobilenet", "classes=10"), large = make ("mobilenet", "classes=10 stem=large");
  g_autofree char *a = print (by_size, small, &params), *b = print (large, small, &params);
  g_assert_true (strstr (a, "2x1280x4x4") && !strstr (a, "2x1280x1x1"));
  g_assert_true (strstr (b, "2x1280x1x1") && !strstr (b, "2x1280x4x4"));
}

/* The output layer reads wte's table; nothing else of that shape exists. */
static void
test_gpt_tied (void)
{
  gint64 params;
  g_autoptr (HeddleInstance) gpt = make ("gpt", "classes=50 layers=2 heads=2 width=8 context=16 dropout=0");
  g_autofree char *text = print (gpt, heddle_shape (3, 8), &params);
  g_assert_cmpint (params, ==, 50 * 8 + 16 * 8 + 2 * (12 * 64 + 13 * 8) + 16);
  g_assert_nonnull (strstr (text, "embedding @image wte.weight"));
  g_assert_nonnull (strstr (text, "f32 3x8x50 = linear %"));
  g_assert_nonnull (strstr (text, " wte.weight   # lm_head"));
  g_assert_nonnull (strstr (text, "causal"));
}

static void
refuse_build (const char *name, const char *options, HeddleDtype dtype, HeddleShape shape, const char *says)
{
  GError *error = NULL;
  g_autoptr (HeddleInstance) model = make (name, options);
  const HeddleModelIface *iface = model->entry->plugin->iface;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "x", dtype, &shape), *y = NULL;
  gboolean built = (!iface->check || iface->check (model->self, &error)) && iface->build (model->self, b, &x, 1, &y, &error);
  const GError *got = built ? heddle_builder_error (b) : error;
  if (!got || !strstr (got->message, says))
    g_error ("%s %s: expected \"%s\", got %s", name, options, says, got ? got->message : "no error");
  g_clear_error (&error);
}

static void
test_more_refusals (void)
{
  HeddleShape tokens = heddle_shape (2, 8), image = heddle_shape (2, 3, 32, 32);
  refuse_build ("gpt", "classes=50 width=10 heads=3", HEDDLE_U8, tokens, "3 heads do not divide width = 10");
  refuse_build ("gpt", "classes=50 width=6 heads=3 context=7", HEDDLE_I32, tokens, "the input has 8 positions, context is 7");
  refuse_build ("gpt", "classes=50 width=6 heads=3", HEDDLE_F32, tokens, "gpt expects token numbers (batch, positions), got f32 of rank 2");
  refuse_build ("gpt", "classes=50 width=6 heads=3", HEDDLE_U8, heddle_shape (2, 8, 8), "gpt expects token numbers");
  refuse_build ("vit", "classes=5 width=10 heads=3", HEDDLE_F32, image, "3 heads do not divide width = 10");
  refuse_build ("vit", "classes=5 patch=5", HEDDLE_F32, image, "vit expects images (N, C, H, W) of whole patches of 5, got rank 4, 32 x 32");
  refuse_build ("vit", "classes=5", HEDDLE_F32, heddle_shape (2, 32), "got rank 2");
  refuse_build ("mobilenet", "classes=5", HEDDLE_F32, heddle_shape (2, 32), "mobilenet expects images (N, C, H, W), got rank 2");
}

static void
test_resnet_refusal (void)
{
  GError *error = NULL;
  g_autoptr (HeddleInstance) model = make ("resnet", "depth=21 classes=10");
  const HeddleModelIface *iface = model->entry->plugin->iface;
  g_assert_false (iface->check (model->self, &error));
  g_assert_nonnull (strstr (error->message, "depth"));
  g_error_free (error);
}

#define LAYERS \
  "[<{'type': <'conv2d'>, 'name': <'conv1'>, 'channels': <int64 6>, 'kernel': <int64 5>, 'padding': <int64 2>}>, <{'type': <'relu'>}>, <{'type': <'max_pool'>, 'kernel': <int64 2>}>," \
  " <{'type': <'conv2d'>, 'name': <'conv2'>, 'channels': <int64 16>, 'kernel': <int64 5>}>, <{'type': <'relu'>}>, <{'type': <'max_pool'>, 'kernel': <int64 2>}>," \
  " <{'type': <'flatten'>}>, <{'type': <'linear'>, 'name': <'fc1'>, 'features': <int64 120>}>, <{'type': <'relu'>}>, <{'type': <'linear'>, 'name': <'fc2'>, 'features': <int64 84>}>," \
  " <{'type': <'relu'>}>, <{'type': <'linear'>, 'name': <'fc3'>, 'features': <int64 10>}>]"

static HeddleInstance *
sequential (const char *layers)
{
  HeddleInstance *model = make ("sequential", "");
  g_assert_true (heddle_options_set (model->entry->options, model->self, "layers", g_variant_new_parsed (layers), NULL, NULL));
  return model;
}

static void
test_sequential (void)
{
  gint64 a, b;
  HeddleShape digit = heddle_shape (2, 1, 28, 28);
  g_autoptr (HeddleInstance) list = sequential (LAYERS), lenet = make ("lenet", "classes=10");
  g_autofree char *x = print (list, digit, &a), *y = print (lenet, digit, &b);
  g_assert_cmpint (a, ==, b);
  g_assert_cmpstr (x, ==, y);
}

static void
refused (const char *layers, const char *says)
{
  GError *error = NULL;
  g_autoptr (HeddleInstance) model = sequential (layers);
  const HeddleModelIface *iface = model->entry->plugin->iface;
  g_assert_false (iface->check (model->self, &error));
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_error_free (error);
}

static void
test_refusals (void)
{
  refused ("[<{'type': <'relu'>}>, <{'type': <'conv3d'>}>]", "layer 2: no layer type \"conv3d\"");
  refused ("[<{'typ': <'relu'>}>]", "layer 1: no layer type");
  refused ("[<int64 3>]", "layer 1: no layer type");
  refused ("[<{'type': <'linear'>}>]", "layer 1: linear needs \"features\"");
  refused ("[<{'type': <'conv2d'>, 'channels': <int64 3>}>]", "layer 1: conv2d needs \"kernel\"");
  refused ("[<{'type': <'linear'>, 'features': <int64 3>, 'colour': <int64 3>}>]", "layer 1: linear has no option \"colour\"");
  refused ("[<{'type': <'linear'>, 'features': <'x'>}>]", "\"features\" is a number");
  refused ("[<{'type': <'linear'>, 'features': <int64 -3>}>]", "\"features\" is out of range");
  refused ("[<{'type': <'residual'>, 'layers': <[<{'type': <'rleu'>}>]>}>]", "layer 1.1: no layer type \"rleu\"");
  refused ("[<{'type': <'residual'>, 'layers': <int64 1>}>]", "a list of layers is expected");
  refused ("[<{'type': <'conv_transpose2d'>, 'channels': <int64 3>}>]", "layer 1: conv_transpose2d needs \"kernel\"");
  refused ("[<{'type': <'upsample'>}>]", "layer 1: upsample needs either \"scale\" or \"size\"");
  refused ("[<{'type': <'upsample'>, 'scale': <int64 2>, 'size': <int64 8>}>]", "layer 1: upsample needs either");
  refused ("[<{'type': <'upsample'>, 'scale': <int64 2>, 'width': <int64 8>}>]", "only beside \"size\"");
  refused ("[<{'type': <'leaky_relu'>, 'slope': <-0.5>}>]", "\"slope\" is out of range");
  refused ("[<{'type': <'embedding'>, 'count': <int64 3>}>]", "layer 1: embedding needs \"features\"");
  refused ("[<{'type': <'attention'>}>]", "layer 1: attention needs \"heads\"");
  refused ("[<{'type': <'group_norm'>}>]", "layer 1: group_norm needs \"groups\"");
  refused ("[<{'type': <'reshape'>, 'shape': <int64 3>}>]", "layer 1: \"shape\" is a list of 1 to 5 numbers");
  refused ("[<{'type': <'permute'>, 'axes': <[int64 0, 1, 2, 3, 4, 5, 6]>}>]", "\"axes\" is a list of 1 to 6 numbers");
  refused ("[<{'type': <'reshape'>, 'shape': <[<int64 3>, <'x'>]>}>]", "\"shape\" is a list of whole numbers");
  refused ("[<{'type': <'reshape'>, 'shap': <[int64 3]>}>]", "layer 1: reshape needs \"shape\"");
  refused ("[<{'type': <'relu'>}>, <{'type': <'layer_norm'>, 'axes': <[int64 3]>}>]", "layer 2: \"axes\" is a number");
  refused ("int64 3", "a list of layers is expected");
}

/* x + layers (x), names inside the block's own scope */
static void
test_residual (void)
{
  gint64 params;
  g_autoptr (HeddleInstance) model = sequential ("[<{'type': <'residual'>, 'layers': <[<{'type': <'conv2d'>, 'channels': <int64 3>, 'kernel': <int64 3>, 'padding': <int64 1>}>]>}>]");
  g_autofree char *text = print (model, heddle_shape (2, 3, 8, 8), &params);
  g_assert_cmpint (params, ==, 3 * 3 * 9 + 3);
  g_assert_nonnull (strstr (text, "conv2d @image 0.0.weight 0.0.bias"));
  g_assert_nonnull (strstr (text, "= add %"));
}

#define VISION \
  "[<{'type': <'conv2d'>, 'channels': <int64 8>, 'kernel': <int64 3>, 'padding': <int64 1>, 'groups': <int64 4>, 'bias': <false>}>, <{'type': <'relu6'>}>," \
  " <{'type': <'conv_transpose2d'>, 'channels': <int64 6>, 'kernel': <int64 3>, 'stride': <int64 2>, 'padding': <int64 1>, 'output_padding': <int64 1>, 'groups': <int64 2>}>," \
  " <{'type': <'silu'>}>, <{'type': <'upsample'>, 'scale': <1.5>, 'bilinear': <true>}>, <{'type': <'hardswish'>}>, <{'type': <'upsample'>, 'size': <int64 9>, 'width': <int64 7>}>," \
  " <{'type': <'leaky_relu'>, 'slope': <0.25>}>, <{'type': <'clamp'>, 'min': <-0.5>, 'max': <int64 2>}>, <{'type': <'leaky_relu'>}>]"

/* the same network in C, whose text must be the same */
static void
test_vision (void)
{
  GError *error = NULL;
  gint64 params;
  HeddleShape shape = heddle_shape (2, 4, 5, 6);
  g_autoptr (HeddleInstance) list = sequential (VISION);
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "image", HEDDLE_F32, &shape);
  x = heddle_relu6 (b, heddle_conv2d (b, "0", x, .channels = 8, .kernel = 3, .padding = 1, .groups = 4, .no_bias = TRUE));
  x = heddle_silu (b, heddle_conv_transpose2d (b, "2", x, .channels = 6, .kernel = 3, .stride = 2, .padding = 1, .output_padding = 1, .groups = 2));
  x = heddle_hardswish (b, heddle_upsample (b, x, 15, 18, TRUE));
  x = heddle_leaky_relu (b, heddle_upsample (b, x, 9, 7, FALSE), 0.25);
  heddle_builder_output (b, heddle_leaky_relu (b, heddle_clamp (b, x, -0.5, 2), 0.01));
  g_autoptr (HeddleProgram) program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  g_autofree char *expected = heddle_program_print (program), *got = print (list, shape, &params);
  g_assert_cmpstr (got, ==, expected);
  g_assert_cmpint (params, ==, 8 * 9 + 8 * 3 * 9 + 6);
}

#define SEQUENCE \
  "[<{'type': <'embedding'>, 'name': <'wte'>, 'count': <int64 11>, 'features': <int64 12>}>, <{'type': <'positional_embedding'>, 'name': <'wpe'>, 'count': <int64 9>}>," \
  " <{'type': <'residual'>, 'name': <'h'>, 'layers': <[<{'type': <'layer_norm'>}>, <{'type': <'attention'>, 'heads': <int64 3>, 'causal': <true>}>]>}>," \
  " <{'type': <'rms_norm'>, 'eps': <1e-6>}>, <{'type': <'linear'>, 'features': <int64 8>}>, <{'type': <'permute'>, 'axes': <[int64 0, 2, 1]>}>, <{'type': <'transpose'>}>," \
  " <{'type': <'transpose'>, 'axis0': <int64 1>, 'axis1': <int64 2>}>, <{'type': <'reshape'>, 'shape': <[int64 8, -1, 1]>}>, <{'type': <'group_norm'>, 'groups': <int64 4>, 'affine': <false>}>," \
  " <{'type': <'linear'>, 'features': <int64 5>}>]"

/* names and order of parameters as in PyTorch's Embedding, LayerNorm, MultiheadAttention */
static HeddleValue *
sequence_in_c (HeddleBuilder *b, HeddleValue *x)
{
  HeddleValue *h, *qkv[3];
  x = heddle_embedding (b, "wte", x, .count = 11, .features = 12);
  x = heddle_add (b, x, heddle_slice (b, heddle_param (b, "wpe.weight", heddle_shape (9, 12), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.02 }), 0, 0, 7));
  h = heddle_layer_norm (b, "h.0", x);
  HeddleValue *w = heddle_param (b, "h.1.in_proj_weight", heddle_shape (36, 12), (HeddleInit) { HEDDLE_INIT_XAVIER_UNIFORM, 0, 0 });
  h = heddle_linear_op (b, h, w, heddle_param (b, "h.1.in_proj_bias", heddle_shape (36), (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 }));
  for (guint i = 0; i < 3; i++)
    qkv[i] = heddle_permute (b, heddle_reshape (b, heddle_slice (b, h, 2, 12 * i, 12 * i + 12), heddle_shape (2, 7, 3, 4)), 0, 2, 1, 3);
  h = heddle_scaled_dot_product_attention (b, qkv[0], qkv[1], qkv[2], TRUE, 0);
  h = heddle_reshape (b, heddle_permute (b, h, 0, 2, 1, 3), heddle_shape (2, 7, 12));
  w = heddle_param (b, "h.1.out_proj.weight", heddle_shape (12, 12), (HeddleInit) { 0 });
  h = heddle_linear_op (b, h, w, heddle_param (b, "h.1.out_proj.bias", heddle_shape (12), (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 }));
  x = heddle_rms_norm (b, "3", heddle_add (b, h, x), .eps = 1e-6);
  x = heddle_permute (b, heddle_linear (b, "4", x, .features = 8, .last_axis = TRUE), 0, 2, 1);
  x = heddle_transpose (b, heddle_transpose (b, x, 1, 2), 1, 2);
  x = heddle_group_norm (b, "9", heddle_reshape (b, x, heddle_shape (2, 8, 7, 1)), .groups = 4, .no_affine = TRUE);
  return heddle_linear (b, "10", x, .features = 5);       /* an image: flattened */
}

static void
test_sequence (void)
{
  GError *error = NULL;
  HeddleShape shape = heddle_shape (2, 7);
  g_autoptr (HeddleInstance) list = sequential (SEQUENCE);
  char *text[2] = { NULL, NULL };               /* g_autofree would free the first alone */
  for (guint i = 0; i < 2; i++)
    {
      const HeddleModelIface *iface = list->entry->plugin->iface;
      g_autoptr (HeddleVariables) vars = heddle_variables_new ();
      HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
      HeddleValue *x = heddle_builder_input (b, "token", HEDDLE_I64, &shape), *y = NULL;
      g_assert_true (iface->check (list->self, &error));
      if (i)
        y = sequence_in_c (b, x);
      else
        g_assert_true (iface->build (list->self, b, &x, 1, &y, &error));
      heddle_builder_output (b, y);
      g_autoptr (HeddleProgram) program = heddle_builder_finish (b, &error);
      g_assert_no_error (error);
      text[i] = heddle_program_print (program);
      g_assert_cmpint (heddle_variables_n_params (vars), ==, 11 * 12 + 9 * 12 + 24 + 36 * 13 + 12 * 13 + 12 + 8 * 13 + 5 * 57);
    }
  g_assert_cmpstr (text[0], ==, text[1]);
  g_free (text[0]);
  g_free (text[1]);
}

/* What fits no input is refused while building: the plugin says at which layer, the builder what. */
static void
unbuildable (const char *layers, HeddleShape shape, const char *where, const char *what)
{
  GError *error = NULL;
  g_autoptr (HeddleInstance) model = sequential (layers);
  const HeddleModelIface *iface = model->entry->plugin->iface;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleBuilder) b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *y = NULL;
  g_assert_true (iface->check (model->self, &error));
  g_assert_false (iface->build (model->self, b, &x, 1, &y, &error));
  g_assert_cmpstr (error->message, ==, where);
  if (!strstr (heddle_builder_error (b)->message, what))
    g_error ("expected \"%s\" in: %s", what, heddle_builder_error (b)->message);
  g_error_free (error);
}

static void
test_unbuildable (void)
{
  HeddleShape sequence = heddle_shape (2, 7, 12), image = heddle_shape (2, 6, 4, 4);
  unbuildable ("[<{'type': <'relu'>}>, <{'type': <'attention'>, 'heads': <int64 5>}>]", sequence, "layer 2 (attention)", "12 features cannot be dealt into 5 heads");
  unbuildable ("[<{'type': <'attention'>, 'heads': <int64 0>}>]", sequence, "layer 1 (attention)", "12 features cannot be dealt into 0 heads");
  unbuildable ("[<{'type': <'attention'>, 'heads': <int64 2>}>]", image, "layer 1 (attention)", "got rank 4");
  unbuildable ("[<{'type': <'positional_embedding'>, 'count': <int64 5>}>]", sequence, "layer 1 (positional_embedding)", "has 5 positions, the sequence 7");
  unbuildable ("[<{'type': <'residual'>, 'layers': <[<{'type': <'relu'>}>, <{'type': <'group_norm'>, 'groups': <int64 4>}>]>}>]", image, "layer 1.2 (group_norm)", "6 channels cannot be dealt into 4 groups");
  unbuildable ("[<{'type': <'residual'>, 'layers': <[<{'type': <'linear'>, 'features': <int64 3>}>]>}>]", sequence, "layer 1 (residual)", "");
  unbuildable ("[<{'type': <'embedding'>, 'count': <int64 4>, 'features': <int64 4>}>]", sequence, "layer 1 (embedding)", "");
  unbuildable ("[<{'type': <'permute'>, 'axes': <[int64 0, 1]>}>]", sequence, "layer 1 (permute)", "2 axes for a tensor of rank 3");
  unbuildable ("[<{'type': <'permute'>, 'axes': <[int64 0, 1, 1]>}>]", sequence, "layer 1 (permute)", "");
  unbuildable ("[<{'type': <'transpose'>, 'axis0': <int64 3>}>]", sequence, "layer 1 (transpose)", "");
  unbuildable ("[<{'type': <'reshape'>, 'shape': <[int64 5, 5]>}>]", sequence, "layer 1 (reshape)", "");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  registry = heddle_registry_new (NULL);
  g_test_add_func ("/models/counts", test_counts);
  g_test_add_func ("/models/resnet-refusal", test_resnet_refusal);
  g_test_add_func ("/models/more-counts", test_more_counts);
  g_test_add_func ("/models/mobilenet-stems", test_mobilenet_stems);
  g_test_add_func ("/models/gpt-tied", test_gpt_tied);
  g_test_add_func ("/models/more-refusals", test_more_refusals);
  g_test_add_func ("/models/sequential", test_sequential);
  g_test_add_func ("/models/sequential-vision", test_vision);
  g_test_add_func ("/models/sequential-refusals", test_refusals);
  g_test_add_func ("/models/sequential-sequence", test_sequence);
  g_test_add_func ("/models/sequential-unbuildable", test_unbuildable);
  g_test_add_func ("/models/residual", test_residual);
  int status = g_test_run ();
  heddle_registry_free (registry);
  return status;
}
