/* plugins/optimizer-lamb/lamb.c: LAMB: Adam's direction, scaled for each parameter to the length of that parameter, for large batches.  Must not know models.
 * Y. You et al., arXiv 1904.00962, algorithm 2, with phi the identity; a parameter or a direction of length 0 is not scaled. */
#include <heddle/plugin.h>

typedef struct { double lr, eps, weight_decay; HeddleFloatList betas; } Lamb;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Lamb, lr, 1e-3, 0, 1e6, "Learning rate", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT_LIST (Lamb, betas, "0.9, 0.999", 0, 0.9999999, "Decay of the two moments"),
  HEDDLE_FLOAT (Lamb, eps, 1e-6, 0, 1, "Added to the root of the second moment"),
  HEDDLE_FLOAT (Lamb, weight_decay, 0.01, 0, 1e6, "Added to the direction, times the parameter, before it is scaled"),
  HEDDLE_OPTIONS_END
};

/* moment = beta moment + (1 - beta) x, and what it is without the bias of its start at 0: moment / (1 - beta^step) */
static HeddleValue *
moment (HeddleBuilder *b, HeddleUpdate *u, const char *name, double beta, HeddleValue *x)
{
  HeddleValue *slot = heddle_slot (u, b, name, 0), *next = heddle_add (b, heddle_scale (b, slot, beta), heddle_scale (b, x, 1 - beta));
  heddle_assign (b, slot, next);
  return beta > 0 ? heddle_div (b, next, heddle_neg (b, heddle_expm1 (b, heddle_scale (b, u->step, log (beta))))) : next;
}

/* |p| / |direction| of each parameter (P); 1 where either is 0 */
static HeddleValue *
trust_ratio (HeddleBuilder *b, HeddleUpdate *u, HeddleValue *direction)
{
  HeddleValue *p = heddle_param_norm (u, b, u->param), *d = heddle_param_norm (u, b, direction), *zero = heddle_constant (b, 0), *one = heddle_constant (b, 1);
  HeddleValue *ratio = heddle_select (b, heddle_greater (b, d, zero), heddle_div (b, p, d), one);
  return heddle_select (b, heddle_greater (b, p, zero), ratio, one);
}

/* direction = m^ / (sqrt (v^) + eps) + weight_decay p (n); p -= lr ratio direction */
static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Lamb *self = data;
  double decay = self->weight_decay * u->decay;
  HeddleValue *m = moment (b, u, "exp_avg", self->betas.items[0], u->grad), *v = moment (b, u, "exp_avg_sq", self->betas.items[1], heddle_square (b, u->grad));
  HeddleValue *direction = heddle_div (b, m, heddle_offset (b, heddle_sqrt (b, v), self->eps));
  if (decay > 0)
    direction = heddle_add (b, direction, heddle_scale (b, u->param, decay));
  HeddleValue *rate = heddle_mul (b, trust_ratio (b, u, direction), heddle_hyper (u, b, "lr"));     /* (P) */
  heddle_assign (b, u->param, heddle_sub (b, u->param, heddle_mul (b, heddle_param_spread (u, b, rate), direction)));
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Lamb *self = data;
  gboolean ok = self->betas.n == 2;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"betas\": two numbers are expected, got %" G_GSIZE_FORMAT "\nhint: betas = { 0.9, 0.999 }", self->betas.n);
  return ok;
}

static const HeddleOptimizerIface iface = { sizeof iface, update, check };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Lamb, options, .name = "lamb", .version = "1.0",
               .summary = "LAMB: Adam with a trust ratio per parameter, for large batches", .license = "MIT");
