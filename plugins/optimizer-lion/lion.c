/* plugins/optimizer-lion/lion.c: Lion: the sign of an interpolated momentum, with decoupled weight decay.  Must not know models.
 * X. Chen et al., "Symbolic discovery of optimization algorithms", arXiv 2302.06675, algorithm 2. */
#include <heddle/plugin.h>

typedef struct { double lr, weight_decay; HeddleFloatList betas; } Lion;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Lion, lr, 1e-4, 0, 1e6, "Learning rate; 3 to 10 times smaller than AdamW's", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT_LIST (Lion, betas, "0.9, 0.99", 0, 0.9999999, "Share of the momentum in the update, and decay of the momentum"),
  HEDDLE_FLOAT (Lion, weight_decay, 0, 0, 1e6, "Decoupled: added to the sign, times the parameter"),
  HEDDLE_OPTIONS_END
};

static HeddleValue *
blend (HeddleBuilder *b, HeddleValue *m, double beta, HeddleValue *g)
{
  return heddle_add (b, heddle_scale (b, m, beta), heddle_scale (b, g, 1 - beta));
}

/* p -= lr (sign (b1 m + (1 - b1) g) + weight_decay p); m = b2 m + (1 - b2) g.  All (n). */
static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Lion *self = data;
  double decay = self->weight_decay * u->decay;
  HeddleValue *m = heddle_slot (u, b, "exp_avg", 0), *direction = heddle_sign (b, blend (b, m, self->betas.items[0], u->grad));
  if (decay > 0)
    direction = heddle_add (b, direction, heddle_scale (b, u->param, decay));
  HeddleValue *next = blend (b, m, self->betas.items[1], u->grad);
  heddle_assign (b, u->param, heddle_sub (b, u->param, heddle_mul (b, heddle_hyper (u, b, "lr"), direction)));
  heddle_assign (b, m, next);
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Lion *self = data;
  gboolean ok = self->betas.n == 2;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"betas\": two numbers are expected, got %" G_GSIZE_FORMAT "\nhint: betas = { 0.9, 0.99 }", self->betas.n);
  return ok;
}

static const HeddleOptimizerIface iface = { sizeof iface, update, check };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Lion, options, .name = "lion", .version = "1.0",
               .summary = "Lion: the sign of the momentum", .license = "MIT");
