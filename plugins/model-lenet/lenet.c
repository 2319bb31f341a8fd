/* plugins/model-lenet/lenet.c: LeNet-5 with relu and max pooling: 61,706 parameters for 28x28 images and 10 classes.
 * Y. LeCun et al., "Gradient-based learning applied to document recognition", 1998; relu and max pooling are today's usual form.
 * Must not know data, losses or devices. */
#include <heddle/plugin.h>

typedef struct { gint64 classes; double dropout; } Lenet;

static const HeddleOption options[] = {
  HEDDLE_INT (Lenet, classes, 0, 1, 1000000, "Number of outputs", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_FLOAT (Lenet, dropout, 0, 0, 0.99, "Probability of dropping an output of the two hidden linear layers"),
  HEDDLE_OPTIONS_END
};

/* inputs[0]: (N, C, H, W), 28x28 as a rule; outputs[0]: logits (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Lenet *self = data;
  HeddleShape in = heddle_shape_of (b, inputs[0]);
  if (in.rank != 4 || in.size[2] < 12 || in.size[3] < 12)
    heddle_fail (b, "lenet expects images (N, C, H, W) of at least 12x12, got rank %d%s", in.rank, in.rank == 4 ? " and a smaller image" : "");
  HeddleValue *x = heddle_conv2d (b, "conv1", inputs[0], .channels = 6, .kernel = 5, .padding = 2);   /* (N, 6, 28, 28) */
  x = heddle_max_pool (b, heddle_relu (b, x), .kernel = 2);                                           /* (N, 6, 14, 14) */
  x = heddle_conv2d (b, "conv2", x, .channels = 16, .kernel = 5);                                     /* (N, 16, 10, 10) */
  x = heddle_max_pool (b, heddle_relu (b, x), .kernel = 2);                                           /* (N, 16, 5, 5) */
  x = heddle_relu (b, heddle_linear (b, "fc1", heddle_flatten (b, x), .features = 120));
  x = heddle_relu (b, heddle_linear (b, "fc2", heddle_dropout (b, "drop1", x, self->dropout), .features = 84));
  outputs[0] = heddle_linear (b, "fc3", heddle_dropout (b, "drop2", x, self->dropout), .features = self->classes);
  return TRUE;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, NULL };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Lenet, options, .name = "lenet", .version = "1.0",
               .summary = "LeNet-5 with relu and max pooling", .license = "MIT");
