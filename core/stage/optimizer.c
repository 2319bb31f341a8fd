/* stage/optimizer.c: h.optimizer "NAME" { loss, ... }: the update program: unscale, norm, clip, the plugin's rule, the scaler.
 * Must not know how often it is run.  Order and formulas: torch/amp/grad_scaler.py, torch/nn/utils/clip_grad.py. */
#include "stage/classes.h"

enum { DECAY_ALL = 1, DECAY_WEIGHTS };

static const HeddleEnumValue decays[] = {
  { DECAY_ALL, "all", "every parameter, as in PyTorch" }, { DECAY_WEIGHTS, "weights", "not biases and the parameters of norms (rank 1)" }, { 0, NULL, NULL },
};

static const HeddleOption options[] = {
  HEDDLE_ENUM (HeddleOptimizerOptions, decay, DECAY_ALL, decays, "what weight decay applies to"),
  HEDDLE_OPTIONS_END
};

/* ---- what the plugin's rule sees ---- */

/* Looked up, or NULL: the host writes the variables. */
typedef struct { HeddleValue *lr, *momentum; } Scheduled;

typedef struct
{
  HeddleUpdate       base;
  HeddleStage       *stage;
  HeddleVariables   *vars;
  HeddleGroup       *group;
  HeddleUpdateState *state;
  const Scheduled   *scheduled;
} Update;

static HeddleVariable *
scalar (HeddleVariables *vars, const char *name, double initial, GError **error)
{
  HeddleShape shape = heddle_scalar_shape ();
  HeddleInit init = { HEDDLE_INIT_CONSTANT, initial, 0 };
  return heddle_variables_declare (vars, name, HEDDLE_ROLE_SCALAR, HEDDLE_F32, &shape, &init, error);
}

static HeddleVariable *
hyper_variable (HeddleVariables *vars, HeddleUpdateState *state, const char *name, double value)
{
  g_autofree char *full = g_strconcat ("hyper/", name, NULL);
  HeddleVariable *v = heddle_variables_lookup (vars, full);
  if (!v)
    {
      v = scalar (vars, full, value, NULL);
      g_ptr_array_add (state->hypers, v);
    }
  return v;
}

static HeddleValue *
looked_up (const Update *u, const char *name)
{
  return g_str_equal (name, "lr") ? u->scheduled->lr : g_str_equal (name, "momentum") ? u->scheduled->momentum : NULL;
}

static HeddleValue *
slot_hyper (HeddleUpdate *base, HeddleBuilder *b, const char *name)
{
  Update *u = (Update *) base;
  const HeddleInstance *plugin = u->stage->plugin;
  HeddleOption option;
  HeddleValue *value = NULL;
  if (!heddle_options_find (plugin->entry->options, name, &option) || option.type != HEDDLE_OPTION_FLOAT)
    heddle_fail (b, "optimizer-%s asks for \"%s\", which is none of its FLOAT options", plugin->entry->plugin->name, name);
  else
    {
      double number = *(const double *) ((const char *) plugin->self + option.offset);
      HeddleVariable *variable = option.flags & HEDDLE_OPTION_RUNTIME ? hyper_variable (u->vars, u->state, name, number) : NULL;
      HeddleValue *found = looked_up (u, name);
      value = found ? found : variable ? heddle_builder_variable (b, variable) : heddle_constant (b, number);
    }
  return value;
}

static HeddleValue *
slot_state (HeddleUpdate *base, HeddleBuilder *b, const char *name, double initial)
{
  Update *u = (Update *) base;
  return heddle_builder_variable (b, heddle_group_slot (u->vars, u->group, name, initial));
}

/* ---- rates by the device's own count ---- */

/* table[count - first]: all other numbers times 0, so that their sum is this one exactly. */
static HeddleValue *
look_up (HeddleBuilder *b, HeddleVariables *vars, const HeddleUpdateState *s, HeddleVariable *table, GError **error)
{
  g_autofree float *numbers = g_new (float, s->window);
  for (gint64 i = 0; i < s->window; i++)
    numbers[i] = (float) i;
  HeddleVariable *places = heddle_variables_table (vars, "schedule/places", &table->shape, numbers, error);
  HeddleValue *place = heddle_sub (b, heddle_builder_variable (b, s->updates), heddle_builder_variable (b, s->first));
  HeddleValue *distance = places ? heddle_abs (b, heddle_sub (b, heddle_builder_variable (b, places), place)) : NULL;      /* (window) */
  return places ? heddle_sum (b, heddle_mul (b, heddle_builder_variable (b, table), heddle_greater (b, heddle_constant (b, 0.5), distance)), 0, FALSE) : NULL;
}

/* A table for option NAME, which the optimizer may lack; VALUE: what this update takes from it. */
static gboolean
schedule_hyper (HeddleStage *stage, HeddleBuilder *b, HeddleVariables *vars, HeddleUpdateState *s, const char *name, HeddleVariable **table, HeddleValue **value, GError **error)
{
  g_autofree char *full = g_strconcat ("schedule/", name, NULL);
  HeddleShape shape = heddle_shape (s->window);
  HeddleOption option;
  gboolean ok = TRUE;
  if (heddle_options_find (stage->plugin->entry->options, name, &option) && option.flags & HEDDLE_OPTION_RUNTIME)
    {
      s->first = scalar (vars, "schedule/first", 0, error);
      *table = heddle_variables_declare (vars, full, HEDDLE_ROLE_STATE, HEDDLE_F32, &shape, NULL, error);
      ok = s->first && *table && (*value = look_up (b, vars, s, *table, error)) != NULL;
    }
  if (ok && *table)
    s->first->saved = (*table)->saved = FALSE;
  return ok;
}

static gboolean
schedule_hypers (HeddleStage *stage, HeddleBuilder *b, HeddleVariables *vars, HeddleUpdateState *s, Scheduled *scheduled, GError **error)
{
  return s->window == 0 || (schedule_hyper (stage, b, vars, s, "lr", &s->rates, &scheduled->lr, error)
                            && (!s->cycles || schedule_hyper (stage, b, vars, s, "momentum", &s->momenta, &scheduled->momentum, error)));
}

/* The variable has what was used, as when the host writes it. */
static void
keep_hyper (HeddleBuilder *b, HeddleVariables *vars, const char *name, HeddleValue *value)
{
  HeddleVariable *variable = value ? heddle_variables_lookup (vars, name) : NULL;
  if (variable)
    heddle_builder_assign (b, heddle_builder_variable (b, variable), value, NULL);
}

/* ---- the program ---- */

static gboolean
declare_state (HeddleVariables *vars, const HeddleAmp *amp, HeddleUpdateState *s, GError **error)
{
  gboolean scaling = amp && amp->scaling;
  s->scale = scaling ? scalar (vars, "amp/scale", amp->options->init_scale, error) : NULL;
  s->tracker = scaling ? scalar (vars, "amp/growth_tracker", 0, error) : NULL;
  s->skip = scalar (vars, "update/skip", 0, error);
  s->skipped = scalar (vars, "update/skipped", 0, error);
  s->consecutive = scalar (vars, "update/consecutive_skips", 0, error);
  s->updates = scalar (vars, "update/count", 0, error);
  s->denominator = scalar (vars, "update/denominator", 0, error);
  s->norm = scalar (vars, "update/gradient_norm", 0, error);
  if (!s->hypers)
    s->hypers = g_ptr_array_new ();
  s->skip->saved = s->denominator->saved = s->norm->saved = FALSE;
  return s->norm != NULL;
}

typedef struct { HeddleValue *factor, *found, *norm; } Gradient;

/* FACTOR turns the accumulated gradients into those of the exact weighted mean: nominal / (scale x denominators); 0 when nothing counted. */
static Gradient
measure (HeddleBuilder *b, HeddleVariables *vars, const HeddleUpdateState *s, double nominal, gboolean needed)
{
  HeddleValue *d = heddle_builder_variable (b, s->denominator), *zero = heddle_constant (b, 0), *square = NULL;
  HeddleValue *scaled = s->scale ? heddle_mul (b, heddle_builder_variable (b, s->scale), d) : d;
  Gradient g = { .factor = heddle_select (b, heddle_greater (b, d, zero), heddle_div (b, heddle_constant (b, nominal), scaled), zero) };
  for (guint i = 0; needed && i < heddle_variables_n_groups (vars); i++)
    {
      HeddleValue *grad = heddle_builder_variable (b, heddle_variables_nth_group (vars, i)->grad), *out[2] = { NULL };
      b->iface->emit (b, HEDDLE_OP_NORM_STATS, "gradient norm", &grad, 1, NULL, 0, out, 2);
      square = square ? heddle_add (b, square, out[0]) : out[0];
      g.found = g.found ? heddle_max (b, g.found, out[1]) : out[1];
    }
  g.norm = square ? heddle_mul (b, heddle_sqrt (b, square), g.factor) : NULL;
  return g;
}

static gboolean
emit_rules (HeddleStage *stage, HeddleBuilder *b, HeddleVariables *vars, HeddleUpdateState *s, HeddleValue *multiplier, const Scheduled *scheduled, GError **error)
{
  const HeddlePlugin *plugin = stage->plugin->entry->plugin;
  const HeddleOptimizerIface *iface = plugin->iface;
  HeddleValue *step = heddle_offset (b, heddle_builder_variable (b, s->updates), 1);
  GError *local = NULL;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < heddle_variables_n_groups (vars); i++)
    {
      HeddleGroup *group = heddle_variables_nth_group (vars, i);
      Update u = { .stage = stage, .vars = vars, .group = group, .state = s, .scheduled = scheduled };
      u.base = (HeddleUpdate) { .param = heddle_builder_variable (b, group->param), .step = step, .decay = group->decay, .hyper = slot_hyper, .slot = slot_state };
      u.base.grad = heddle_mul (b, heddle_builder_variable (b, group->grad), multiplier);
      heddle_push (b, group->name);
      ok = iface->update (stage->plugin->self, b, &u.base, &local);
      heddle_pop (b);
    }
  if (!ok && !local && !heddle_builder_error (b))
    g_set_error (&local, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "optimizer-%s: update failed and set no error", plugin->name);
  if (local)
    g_propagate_error (error, local);
  return local == NULL;
}

static void
emit_counters (HeddleBuilder *b, const HeddleAmp *amp, const HeddleUpdateState *s, HeddleValue *skip, HeddleValue *norm)
{
  HeddleValue *updates = heddle_builder_variable (b, s->updates), *zero = heddle_constant (b, 0);
  heddle_builder_assign (b, updates, skip ? heddle_add (b, updates, heddle_offset (b, heddle_neg (b, skip), 1)) : heddle_offset (b, updates, 1), NULL);
  if (skip)
    {
      HeddleValue *skipped = heddle_builder_variable (b, s->skipped), *row = heddle_builder_variable (b, s->consecutive), *out[2] = { NULL };
      HeddleValue *in[] = { heddle_builder_variable (b, s->scale), heddle_builder_variable (b, s->tracker), skip };
      HeddleScalerAttr attr = { amp->options->growth_factor, amp->options->backoff_factor, (double) amp->options->growth_interval, amp->options->min_scale };
      heddle_builder_assign (b, skipped, heddle_add (b, skipped, skip), NULL);
      heddle_builder_assign (b, row, heddle_mul (b, skip, heddle_offset (b, row, 1)), NULL);
      b->iface->emit (b, HEDDLE_OP_SCALER_UPDATE, "loss scale", in, 3, &attr, sizeof attr, out, 2);
      heddle_builder_assign (b, in[0], out[0], NULL);
      heddle_builder_assign (b, in[1], out[1], NULL);
      heddle_builder_assign (b, heddle_builder_variable (b, s->skip), skip, NULL);
    }
  if (norm)
    heddle_builder_assign (b, heddle_builder_variable (b, s->norm), norm, NULL);
  heddle_builder_assign (b, heddle_builder_variable (b, s->denominator), zero, NULL);
}

static gboolean
check_plugin (HeddleStage *stage, GError **error)
{
  const HeddleOptimizerIface *iface = stage->plugin->entry->plugin->iface;
  gboolean (*check) (gpointer, GError **) = HEDDLE_SLOT (iface, HeddleOptimizerIface, check);
  return !check || check (stage->plugin->self, error);
}

HeddleProgram *
heddle_optimizer_program (HeddleStage *stage, const HeddleAmp *amp, HeddleVariables *vars, double clip_norm, double nominal, const HeddleCore *core,
                          HeddleUpdateState *state, GError **error)
{
  HeddleBuilder *b = heddle_builder_new ("update", vars, TRUE, core->seed);
  HeddleProgram *program = NULL;
  gboolean scaling = amp && amp->scaling;
  heddle_builder_set_phase (b, HEDDLE_PHASE_UPDATE);
  Scheduled scheduled = { NULL, NULL };
  gboolean ok = check_plugin (stage, error) && declare_state (vars, amp, state, error) && schedule_hypers (stage, b, vars, state, &scheduled, error);
  if (ok)
    {
      Gradient g = measure (b, vars, state, nominal, scaling || clip_norm > 0);
      HeddleValue *multiplier = g.factor;
      if (clip_norm > 0)
        multiplier = heddle_mul (b, multiplier, heddle_min (b, heddle_constant (b, 1), heddle_div (b, heddle_constant (b, clip_norm), heddle_offset (b, g.norm, 1e-6))));
      heddle_builder_set_skip (b, scaling ? g.found : NULL);
      ok = emit_rules (stage, b, vars, state, multiplier, &scheduled, error);
      heddle_builder_set_skip (b, NULL);
      keep_hyper (b, vars, "hyper/lr", scheduled.lr);
      keep_hyper (b, vars, "hyper/momentum", scheduled.momentum);
      if (ok)
        emit_counters (b, amp, state, scaling ? g.found : NULL, g.norm);
    }
  if (ok)
    program = heddle_builder_finish (b, error);
  else
    heddle_builder_free (b);
  if (!program)
    g_prefix_error (error, "%s: ", stage->place);
  return program;
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_LOSS };

const HeddleStageClass heddle_stage_optimizer = {
  .verb = "optimizer", .summary = "The update of parameters, from an optimizer plugin", .plugin_kind = "optimizer", .options = { options, sizeof (HeddleOption) },
  .instance_size = sizeof (HeddleOptimizerOptions), .min_inputs = 1, .max_inputs = 1, .input_kinds = inputs, .output = HEDDLE_PORT_STEP,
};
