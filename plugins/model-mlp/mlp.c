/* plugins/model-mlp/mlp.c: a multi-layer perceptron: flatten, then hidden layers with an activation, then the classes.
 * Must not know data, losses or devices. */
#include <heddle/plugin.h>

typedef struct
{
  HeddleIntList hidden;
  gint64        classes;
  int           activation;
  double        dropout;
} Mlp;

enum { RELU = 1, GELU, TANH, SIGMOID };

static const HeddleEnumValue activations[] = {
  { RELU, "relu", "max (x, 0)" }, { GELU, "gelu", "x Phi (x)" }, { TANH, "tanh", NULL }, { SIGMOID, "sigmoid", NULL }, { 0, NULL, NULL }
};

static const HeddleOption options[] = {
  HEDDLE_INT (Mlp, classes, 0, 1, 10000000, "Number of outputs", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT_LIST (Mlp, hidden, "512, 256", 1, 1000000, "Width of each hidden layer; {} for none"),
  HEDDLE_ENUM (Mlp, activation, RELU, activations, "After each hidden layer"),
  HEDDLE_FLOAT (Mlp, dropout, 0, 0, 0.99, "Probability of dropping an output of a hidden layer"),
  HEDDLE_OPTIONS_END
};

static HeddleValue *
activate (HeddleBuilder *b, HeddleValue *x, int activation)
{
  switch (activation)
    {
    case GELU:    return heddle_gelu (b, x);
    case TANH:    return heddle_tanh (b, x);
    case SIGMOID: return heddle_sigmoid (b, x);
    default:      return heddle_relu (b, x);
    }
}

/* inputs[0]: (N, ...); outputs[0]: logits (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Mlp *self = data;
  HeddleValue *x = heddle_flatten (b, inputs[0]);
  for (gsize i = 0; i < self->hidden.n; i++)
    {
      g_autofree char *fc = g_strdup_printf ("fc%" G_GSIZE_FORMAT, i + 1), *drop = g_strdup_printf ("drop%" G_GSIZE_FORMAT, i + 1);
      x = heddle_linear (b, fc, x, .features = self->hidden.items[i]);
      x = heddle_dropout (b, drop, activate (b, x, self->activation), self->dropout);
    }
  outputs[0] = heddle_linear (b, "head", x, .features = self->classes);
  return TRUE;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, NULL };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Mlp, options, .name = "mlp", .version = "1.0",
               .summary = "Multi-layer perceptron over the flattened input", .license = "MIT");
