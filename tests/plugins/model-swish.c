/* model-swish.c: a model that brings an operation of its own; "builtin" builds the same network without it. */
#include <heddle/plugin.h>

#include "swish.h"

typedef struct { gint64 classes; double beta; bool builtin; } Model;

static const HeddleOption options[] = {
  HEDDLE_INT (Model, classes, 2, 1, 1000, "Number of outputs"),
  HEDDLE_FLOAT (Model, beta, 1.5, 0, 10, "Slope"),
  HEDDLE_BOOL (Model, builtin, false, "Build it from built-in operations"),
  HEDDLE_OPTIONS_END
};

static HeddleValue *
activation (const Model *self, HeddleBuilder *b, HeddleValue *x)
{
  SwishAttr attr = { self->beta };
  HeddleValue *y = NULL;
  if (self->builtin)
    y = heddle_mul (b, x, heddle_sigmoid (b, heddle_scale (b, x, self->beta)));
  else
    heddle_custom (b, "act", &swish, &x, 1, &attr, sizeof attr, &y, 1);
  return y;
}

/* inputs[0]: (N, ...); outputs[0]: (N, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Model *self = data;
  HeddleValue *x = activation (self, b, heddle_linear (b, "fc1", inputs[0], .features = 24));
  outputs[0] = heddle_linear (b, "fc2", activation (self, b, x), .features = self->classes);
  return TRUE;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Model, options, .name = "swish", .version = "1.0", .summary = "An operation of its own", .license = "MIT");
