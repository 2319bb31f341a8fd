/* optimizer-plain.c: param := param - lr * (grad + weight_decay * param). */
#include <heddle/plugin.h>

typedef struct { double lr, weight_decay; } Plain;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Plain, lr, 0, 0, 1e6, "Learning rate", .flags = HEDDLE_OPTION_REQUIRED | HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT (Plain, weight_decay, 0, 0, 1e6, "Factor of the parameter added to its gradient"),
  HEDDLE_OPTIONS_END
};

static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Plain *self = data;
  HeddleValue *grad = u->grad;                      /* (n), f32: unscaled, averaged and clipped already */
  if (self->weight_decay * u->decay > 0)
    grad = heddle_add (b, grad, heddle_mul (b, u->param, heddle_constant (b, self->weight_decay * u->decay)));
  heddle_assign (b, u->param, heddle_sub (b, u->param, heddle_mul (b, heddle_hyper (u, b, "lr"), grad)));
  return TRUE;
}

static const HeddleOptimizerIface iface = { sizeof iface, .update = update };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Plain, options, .name = "plain", .version = "1.0",
               .summary = "Gradient descent without momentum", .license = "MIT");
