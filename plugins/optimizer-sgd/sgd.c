/* plugins/optimizer-sgd/sgd.c: stochastic gradient descent with momentum: the rule of torch.optim.SGD.
 * The learning rate is outside the momentum buffer (Caffe's is inside).
 * Must not know loss scales, clipping or schedules: gradients arrive ready. */
#include <heddle/plugin.h>

typedef struct
{
  double lr, momentum, dampening, weight_decay;
  bool   nesterov, maximize;
} Sgd;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Sgd, lr, 0, 0, 1e6, "Learning rate", .flags = HEDDLE_OPTION_REQUIRED | HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT (Sgd, momentum, 0, 0, 1, "Share of the last step that is kept", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT (Sgd, dampening, 0, 0, 1, "The gradient enters the momentum with factor 1 - dampening, but at the first step"),
  HEDDLE_FLOAT (Sgd, weight_decay, 0, 0, 1e6, "L2 penalty: added to the gradient, times the parameter"),
  HEDDLE_BOOL (Sgd, nesterov, false, "Nesterov's momentum; needs momentum > 0 and dampening = 0"),
  HEDDLE_BOOL (Sgd, maximize, false, "Climb instead of descending"),
  HEDDLE_OPTIONS_END
};

/* g = +-grad + weight_decay p;  buf = momentum buf + (1 - dampening) g, at the first step buf = g;
 * p -= lr (nesterov ? g + momentum buf : buf).  All (n). */
static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Sgd *self = data;
  HeddleValue *g = self->maximize ? heddle_neg (b, u->grad) : u->grad;
  if (self->weight_decay * u->decay > 0)
    g = heddle_add (b, g, heddle_scale (b, u->param, self->weight_decay * u->decay));
  if (self->momentum > 0)
    {
      HeddleValue *momentum = heddle_hyper (u, b, "momentum"), *slot = heddle_slot (u, b, "momentum_buffer", 0), *fresh = g;
      if (self->dampening > 0)   /* the first step takes g whole: its buffer is zero, so only the factor differs */
        fresh = heddle_mul (b, g, heddle_select (b, heddle_greater (b, u->step, heddle_constant (b, 1.5)), heddle_constant (b, 1 - self->dampening), heddle_constant (b, 1)));
      HeddleValue *buf = heddle_add (b, heddle_mul (b, momentum, slot), fresh);
      heddle_assign (b, slot, buf);
      g = self->nesterov ? heddle_add (b, g, heddle_mul (b, momentum, buf)) : buf;
    }
  heddle_assign (b, u->param, heddle_sub (b, u->param, heddle_mul (b, heddle_hyper (u, b, "lr"), g)));
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Sgd *self = data;
  gboolean ok = !self->nesterov || (self->momentum > 0 && self->dampening == 0);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "nesterov needs momentum > 0 and dampening = 0, got momentum = %g, dampening = %g\nhint: momentum = 0.9",
                 self->momentum, self->dampening);
  return ok;
}

static const HeddleOptimizerIface iface = { sizeof iface, update, check };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Sgd, options, .name = "sgd", .version = "1.0",
               .summary = "Stochastic gradient descent with momentum", .license = "MIT");
