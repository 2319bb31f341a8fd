/* plugins/optimizer-adamw/adamw.c: AdamW, and Adam with decoupled = false: the rules of torch.optim.AdamW and torch.optim.Adam.
 * D. Kingma and J. Ba, arXiv 1412.6980; I. Loshchilov and F. Hutter, arXiv 1711.05101; AMSGrad (S. Reddi et al., 2018) on the raw second moment.
 * Must not know loss scales, clipping or schedules: gradients arrive ready. */
#include <heddle/plugin.h>

typedef struct
{
  double          lr, eps, weight_decay;
  HeddleFloatList betas;
  bool            decoupled, amsgrad, maximize;
} Adamw;

static const HeddleOption options[] = {
  HEDDLE_FLOAT (Adamw, lr, 1e-3, 0, 1e6, "Learning rate", .flags = HEDDLE_OPTION_RUNTIME),
  HEDDLE_FLOAT_LIST (Adamw, betas, "0.9, 0.999", 0, 0.9999999, "Decay of the two moments"),
  HEDDLE_FLOAT (Adamw, eps, 1e-8, 0, 1, "Added to the root of the second moment"),
  HEDDLE_FLOAT (Adamw, weight_decay, 0.01, 0, 1e6, "Decoupled: p *= 1 - lr weight_decay; else added to the gradient, times the parameter"),
  HEDDLE_BOOL (Adamw, decoupled, true, "true: AdamW; false: Adam (whose usual weight_decay is 0)"),
  HEDDLE_BOOL (Adamw, amsgrad, false, "Divide by the largest second moment so far"),
  HEDDLE_BOOL (Adamw, maximize, false, "Climb instead of descending"),
  HEDDLE_OPTIONS_END
};

/* 1 - beta^step, as -expm1 (step log beta): exact to f32 rounding where 1 - powf would lose three digits.  beta = 0 gives 1. */
static HeddleValue *
bias_correction (HeddleBuilder *b, double beta, HeddleValue *step)
{
  return beta > 0 ? heddle_neg (b, heddle_expm1 (b, heddle_scale (b, step, log (beta)))) : heddle_constant (b, 1);
}

/* moment = beta moment + (1 - beta) x */
static HeddleValue *
decay_into (HeddleBuilder *b, HeddleValue *moment, double beta, HeddleValue *x)
{
  HeddleValue *next = heddle_add (b, heddle_scale (b, moment, beta), heddle_scale (b, x, 1 - beta));
  heddle_assign (b, moment, next);
  return next;
}

/* m, v: moments; p -= lr / bc1 * m / (sqrt (v) / sqrt (bc2) + eps).  All (n) but the scalars. */
static gboolean
update (gpointer data, HeddleBuilder *b, HeddleUpdate *u, GError **error)
{
  const Adamw *self = data;
  double beta1 = self->betas.items[0], beta2 = self->betas.items[1], decay = self->weight_decay * u->decay;
  HeddleValue *lr = heddle_hyper (u, b, "lr"), *p = u->param, *g = self->maximize ? heddle_neg (b, u->grad) : u->grad;
  if (decay > 0 && self->decoupled)
    p = heddle_mul (b, p, heddle_offset (b, heddle_scale (b, lr, -decay), 1));
  else if (decay > 0)
    g = heddle_add (b, g, heddle_scale (b, p, decay));
  HeddleValue *m = decay_into (b, heddle_slot (u, b, "exp_avg", 0), beta1, g);
  HeddleValue *v = decay_into (b, heddle_slot (u, b, "exp_avg_sq", 0), beta2, heddle_square (b, g));
  if (self->amsgrad)
    {
      HeddleValue *slot = heddle_slot (u, b, "max_exp_avg_sq", 0), *largest = heddle_max (b, slot, v);
      heddle_assign (b, slot, largest);
      v = largest;
    }
  HeddleValue *denominator = heddle_offset (b, heddle_mul (b, heddle_sqrt (b, v), heddle_rsqrt (b, bias_correction (b, beta2, u->step))), self->eps);
  HeddleValue *rate = heddle_div (b, lr, bias_correction (b, beta1, u->step));
  heddle_assign (b, u->param, heddle_sub (b, p, heddle_mul (b, rate, heddle_div (b, m, denominator))));
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Adamw *self = data;
  gboolean ok = self->betas.n == 2;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"betas\": two numbers are expected, got %" G_GSIZE_FORMAT "\nhint: betas = { 0.9, 0.999 }", self->betas.n);
  return ok;
}

static const HeddleOptimizerIface iface = { sizeof iface, update, check };

HEDDLE_PLUGIN ("optimizer", HeddleOptimizerIface, iface, Adamw, options, .name = "adamw", .version = "1.0",
               .summary = "AdamW; Adam with decoupled = false", .license = "MIT");
