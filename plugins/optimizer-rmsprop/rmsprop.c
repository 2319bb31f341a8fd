/* plugins/optimizer-rmsprop/rmsprop.c: RMSprop with weight decay, momentum and the centered variant: the rule of torch.optim.RMSprop.  Must not know models.
 * G. Hinton, "Neural networks for machine learning", lecture 6; centered: A. Graves, arXiv 1308.0850. */
#include <heddle/plugin.h>

typedef struct { double lr, alpha, eps, weight_decay, momentum; bool centered, maximize; } Rmsprop;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Rmsprop, lr, 1e-2, 0, 1e6, "Learning rate", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT (Rmsprop, alpha, 0.99, 0, 1, "Decay of the mean of squares"),
  HEDDLE_FLOAT (Rmsprop, eps, 1e-8, 0, 1, "Added to the root of the mean of squares"),
  HEDDLE_FLOAT (Rmsprop, weight_decay, 0, 0, 1e6, "Added to the gradient, times the parameter"),
  HEDDLE_FLOAT (Rmsprop, momentum, 0, 0, 1, "Share of the last step that is taken again"),
  HEDDLE_BOOL (Rmsprop, centered, false, "Divide by the deviation from the mean gradient"),
  HEDDLE_BOOL (Rmsprop, maximize, false, "Climb instead of descending"),
  HEDDLE_OPTIONS_END
};

/* slot = alpha slot + (1 - alpha) x */
static HeddleValue *
average (HeddleBuilder *b, HeddleValue *slot, double alpha, HeddleValue *x)
{
  HeddleValue *next = heddle_add (b, heddle_scale (b, slot, alpha), heddle_scale (b, x, 1 - alpha));
  heddle_assign (b, slot, next);
  return next;
}

/* s = alpha s + (1 - alpha) g^2; step = g / (sqrt (s) + eps); p -= lr step, or lr buf with buf = momentum buf + step.  All (n). */
static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Rmsprop *self = data;
  double decay = self->weight_decay * u->decay;
  HeddleValue *g = self->maximize ? heddle_neg (b, u->grad) : u->grad;
  if (decay > 0)
    g = heddle_add (b, g, heddle_scale (b, u->param, decay));
  HeddleValue *s = average (b, heddle_slot (u, b, "square_avg", 0), self->alpha, heddle_square (b, g));
  if (self->centered)      /* rounding may make the variance negative where it is 0 */
    s = heddle_max (b, heddle_sub (b, s, heddle_square (b, average (b, heddle_slot (u, b, "grad_avg", 0), self->alpha, g))), heddle_constant (b, 0));
  HeddleValue *step = heddle_div (b, g, heddle_offset (b, heddle_sqrt (b, s), self->eps));
  if (self->momentum > 0)
    {
      HeddleValue *buffer = heddle_slot (u, b, "momentum_buffer", 0);
      step = heddle_add (b, heddle_scale (b, buffer, self->momentum), step);
      heddle_assign (b, buffer, step);
    }
  heddle_assign (b, u->param, heddle_sub (b, u->param, heddle_mul (b, heddle_hyper (u, b, "lr"), step)));
  return TRUE;
}

static const HeddleOptimizerIface iface = { sizeof iface, update, NULL };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Rmsprop, options, .name = "rmsprop", .version = "1.0",
               .summary = "RMSprop, centered or not, with momentum", .license = "MIT");
