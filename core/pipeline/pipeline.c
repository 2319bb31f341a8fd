/* pipeline/pipeline.c: from a stage graph to open data, checked contracts and compiled programs.  Must not know Lua or the command line. */
#include "pipeline/internal.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

/* ---- reading the graph ---- */

/* To standard error, and during a run to the loggers: one that runs full loses it rather than wait, because a logger may speak too. */
static void
core_message (const HeddleCore *core, GLogLevelFlags level, const char *text)
{
  HeddlePipeline *p = (HeddlePipeline *) ((char *) core - G_STRUCT_OFFSET (HeddlePipeline, core));
  g_log ("heddle", level, "%s", text);
  g_mutex_lock (&p->messages);
  if (p->events)
    heddle_events_send (p->events, G_MAXUINT, &(HeddleEvent) { .size = sizeof (HeddleEvent), .type = HEDDLE_EVENT_MESSAGE, .level = level, .text = text,
                                                                    .seconds = (double) (g_get_monotonic_time () - p->events_start) * 1e-6 });
  g_mutex_unlock (&p->messages);
}

void
heddle_pipeline_set_events (HeddlePipeline *p, HeddleEvents *events)
{
  g_mutex_lock (&p->messages);
  p->events = events;
  p->events_start = g_get_monotonic_time ();
  g_mutex_unlock (&p->messages);
}

static HeddleNode *
ancestor (HeddleNode *node, const char *verb)
{
  HeddleNode *found = g_str_equal (node->stage->class->verb, verb) ? node : NULL;
  for (guint i = 0; !found && i < node->inputs->len; i++)
    found = ancestor (((HeddleLink *) node->inputs->pdata[i])->ref.node, verb);
  return found;
}

/* All batches must come from one prefetch stage: a program has one batch. */
static gboolean
same_prefetch (const HeddlePipeline *p, HeddleNode *node, GError **error)
{
  gboolean ok = TRUE;
  if (g_str_equal (node->stage->class->verb, "prefetch") && node != p->prefetch)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: a pipeline has one prefetch stage, and %s is another\nhint: evaluate on other data with eval = { data = ... }", node->stage->place,
                   p->prefetch->stage->place);
      ok = FALSE;
    }
  for (guint i = 0; ok && i < node->inputs->len; i++)
    ok = same_prefetch (p, ((HeddleLink *) node->inputs->pdata[i])->ref.node, error);
  return ok;
}

static gboolean
read_named (HeddlePipeline *p, HeddleNode *root, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < root->named->len; i++)
    {
      HeddleLink *link = root->named->pdata[i];
      if (g_str_equal (link->key, "eval.data"))
        p->eval_data = link->ref.node;
      else if (g_str_equal (link->key, "schedule"))
        p->schedule = link->ref.node;
      else if (g_str_has_prefix (link->key, "eval.") && p->n_metrics == MAX_METRICS)
        {
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: at most %d metrics", root->stage->place, MAX_METRICS);
          ok = FALSE;
        }
      else if (g_str_has_prefix (link->key, "eval."))
        {
          p->metric_names[p->n_metrics] = g_strdup (link->key + strlen ("eval."));
          p->metrics[p->n_metrics++] = link;
          ok = same_prefetch (p, link->ref.node, error);
        }
    }
  return ok;
}

static gboolean
read_graph (HeddlePipeline *p, GError **error)
{
  HeddleNode *root = p->graph->root;
  p->options = root->stage->self;
  p->optimizer = ((HeddleLink *) root->inputs->pdata[0])->ref.node;
  p->loss = p->optimizer->inputs->pdata[0];
  p->amp = ancestor (p->optimizer, "amp");
  p->prefetch = ancestor (p->optimizer, "prefetch");
  gboolean ok = p->prefetch != NULL;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: its loss depends on no data\nhint: feed the model from h.prefetch { dataset, ... }", p->optimizer->stage->place);
  return ok && same_prefetch (p, p->optimizer, error) && read_named (p, root, error);
}

/* ---- data ---- */

static gboolean
open_data (HeddlePipeline *p, HeddleNode *node, HeddleDatasetInfo *info, GError **error)
{
  gboolean ok = TRUE;
  if (node->stage->plugin->open)
    *info = node->stage->info;
  else if ((ok = heddle_instance_open_dataset (node->stage->plugin, &p->core, info, error)))
    node->stage->info = *info;
  else
    g_prefix_error (error, "%s: ", node->stage->place);
  return ok;
}

/* The evaluation set goes through the same model, so its samples must look alike. */
static gboolean
check_alike (HeddlePipeline *p, GError **error)
{
  const HeddleDatasetInfo *a = &p->train_info, *b = &p->eval_info;
  gboolean ok = a->n_fields == b->n_fields;
  for (guint i = 0; ok && i < a->n_fields; i++)
    {
      const HeddleField *x = &a->field[i], *y = &b->field[i];
      ok = g_str_equal (x->name, y->name) && x->dtype == y->dtype && heddle_shape_equal (&x->shape, &y->shape) && x->classes == y->classes;
      if (!ok)
        {
          g_autofree char *s = heddle_shape_print (&x->shape), *t = heddle_shape_print (&y->shape);
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: field \"%s\" is %s %s of %" G_GINT64_FORMAT " classes, but the training data's \"%s\" (%s) is %s %s of %" G_GINT64_FORMAT " classes",
                       p->eval_data->stage->place, y->name, heddle_dtype_name (y->dtype), t, y->classes, x->name, ((HeddleLink *) p->prefetch->inputs->pdata[0])->ref.node->stage->place,
                       heddle_dtype_name (x->dtype), s, x->classes);
        }
    }
  if (!ok && error && !*error)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: has other fields than the training data", p->eval_data->stage->place);
  return ok;
}

static gboolean
open_all (HeddlePipeline *p, GError **error)
{
  HeddleNode *train = ((HeddleLink *) p->prefetch->inputs->pdata[0])->ref.node;
  return open_data (p, train, &p->train_info, error) && (!p->eval_data || (open_data (p, p->eval_data, &p->eval_info, error) && check_alike (p, error)));
}

/* eval = { best = NAME } must name one of the metrics beside it. */
static gboolean
check_best (const HeddlePipeline *p, GError **error)
{
  const char *best = p->options->eval_best;
  gboolean ok = !best || !*best;
  for (guint i = 0; !ok && i < p->n_metrics; i++)
    ok = g_str_equal (best, p->metric_names[i]);
  if (!ok)
    {
      g_autofree char *near = heddle_suggestion (best, (const char *const *) p->metric_names);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: eval: best: no metric \"%s\" in eval%s", p->graph->root->stage->place, best, near);
    }
  return ok;
}

/* ---- sizes of batches ---- */

static HeddleSamplerSpec
sampler_spec (const HeddlePipeline *p, gboolean training)
{
  const HeddlePrefetchOptions *o = p->prefetch->stage->self;
  HeddleSamplerSpec spec = { .length = training ? p->train_info.length : p->eval_info.length, .batch_size = training ? o->batch_size : p->eval_batch_size, .mode = HEDDLE_EPOCH_CONTINUE };
  if (training)
    {
      spec.shuffle = o->shuffle;
      spec.drop_last = o->drop_last;
      spec.seed = o->seed >= 0 ? (guint64) o->seed : p->core.seed;
      spec.steps_per_epoch = p->options->steps_per_epoch;
      spec.mode = (HeddleEpochMode) p->options->epoch_mode;
    }
  return spec;
}

static gboolean
size_batches (HeddlePipeline *p, GError **error)
{
  const HeddlePrefetchOptions *o = p->prefetch->stage->self;
  p->batch_size = o->batch_size;
  p->eval_batch_size = p->options->eval_batch_size > 0 ? p->options->eval_batch_size : o->batch_size;
  HeddleSamplerSpec spec = sampler_spec (p, TRUE);
  g_autoptr (HeddleSampler) sampler = heddle_sampler_new (&spec, error);
  if (sampler)
    {
      p->steps_per_epoch = heddle_sampler_steps_per_epoch (sampler);
      p->sampler_text = heddle_sampler_describe (sampler);
      p->short_size = o->drop_last ? 0 : (gint64) (p->train_info.length % (guint64) o->batch_size);
      p->eval_short_size = p->eval_data ? (gint64) (p->eval_info.length % (guint64) p->eval_batch_size) : 0;
    }
  else
    g_prefix_error (error, "%s: ", p->prefetch->stage->place);
  return sampler != NULL;
}

/* ---- describing, without a device ---- */

static gboolean
describe_size (HeddlePipeline *p, HeddleVariables *vars, gboolean training, gint64 size, const HeddleDatasetInfo *info, GString *text, GError **error)
{
  HeddleBuilder *b = heddle_builder_new ("check", vars, training, p->core.seed);
  Emitted emitted;
  gboolean ok = size == 0 || heddle_pipeline_emit (p, b, training, size, info, 0, text, &emitted, error);
  if (!ok && size != p->batch_size && training)
    g_prefix_error (error, "the last batch of a pass has %" G_GINT64_FORMAT " samples: ", size);
  heddle_builder_free (b);
  return ok;
}

static void
count_parameters (HeddleVariables *vars, guint *tensors)
{
  *tensors = 0;
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    *tensors += heddle_variables_nth (vars, i)->role == HEDDLE_ROLE_PARAM;
}

static gboolean
describe (HeddlePipeline *p, GError **error)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  GString *text = g_string_new (NULL);
  guint tensors;
  g_string_append_printf (text, "%s\n", p->graph->script);
  gboolean ok = describe_size (p, vars, TRUE, p->batch_size, &p->train_info, text, error) && describe_size (p, vars, TRUE, p->short_size, &p->train_info, NULL, error)
                && (!p->eval_data || describe_size (p, vars, FALSE, p->eval_batch_size, &p->eval_info, NULL, error));
  count_parameters (vars, &tensors);
  if (ok)
    g_string_append_printf (text, "  %" G_GINT64_FORMAT " parameters in %u tensors\n  %s\n", heddle_variables_n_params (vars), tensors, p->sampler_text);
  p->description = g_string_free (text, FALSE);
  return ok;
}

HeddlePipeline *
heddle_pipeline_new (HeddleGraph *graph, GError **error)
{
  HeddlePipeline *p = g_new0 (HeddlePipeline, 1);
  p->graph = graph;
  p->core = (HeddleCore) { .size = sizeof (HeddleCore), .version = HEDDLE_VERSION, .base_dir = graph->base_dir, .message = core_message };
  p->core.seed = (guint64) ((HeddleTrainOptions *) graph->root->stage->self)->seed;
  gboolean ok = read_graph (p, error) && check_best (p, error) && open_all (p, error) && heddle_pipeline_resolve_facts (p, error) && size_batches (p, error);
  gint64 updates = ok ? p->options->epochs * ((p->steps_per_epoch + p->options->accumulate - 1) / p->options->accumulate) : 0;
  ok = ok && (!p->schedule || heddle_schedule_validate (p->schedule->stage, updates, (p->steps_per_epoch + p->options->accumulate - 1) / p->options->accumulate, error)) && describe (p, error);
  if (!ok)
    g_clear_pointer (&p, heddle_pipeline_free);
  return p;
}

static void
compiled_clear (Compiled *c)
{
  g_clear_pointer (&c->plan, heddle_plan_free);
}

void
heddle_pipeline_free (HeddlePipeline *p)
{
  if (p)
    {
      heddle_loader_free (p->loader);
      heddle_loader_free (p->eval_loader);
      heddle_trace_free (p->trace);
      for (guint i = 0; i < 4; i++)
        compiled_clear (&p->train[i / 2][i % 2]);
      for (guint i = 0; i < 2; i++)
        compiled_clear (&p->eval[i]);
      heddle_plan_free (p->update);
      heddle_variables_free (p->vars);
      if (p->device)
        heddle_device_close (p->device);
      for (guint i = 0; i < p->n_metrics; i++)
        g_free (p->metric_names[i]);
      if (p->update_state.hypers)
        g_ptr_array_unref (p->update_state.hypers);
      g_free (p->amp_choice.why);
      g_free (p->device_why);
      g_free (p->sampler_text);
      g_free (p->profile_path);
      g_free (p->description);
      g_free (p);
    }
}

char *
heddle_pipeline_describe (HeddlePipeline *p)
{
  return g_strdup (p->description);
}

/* ---- programs ---- */

HeddleVariable *
heddle_pipeline_scalar (HeddlePipeline *p, const char *name)
{
  HeddleShape shape = heddle_scalar_shape ();
  g_autofree char *full = g_strconcat ("run/", name, NULL);
  HeddleVariable *v = heddle_variables_declare (p->vars, full, HEDDLE_ROLE_SCALAR, HEDDLE_F32, &shape, NULL, NULL);
  v->saved = FALSE;
  return v;
}

static void
add_to (HeddleBuilder *b, HeddleVariable *variable, HeddleValue *value)
{
  HeddleValue *v = heddle_builder_variable (b, variable);
  heddle_builder_assign (b, v, heddle_add (b, v, value), NULL);
}

static void
declare_running (HeddlePipeline *p)
{
  p->running_loss = (Running) { heddle_pipeline_scalar (p, "loss_sum"), heddle_pipeline_scalar (p, "loss_weight") };
  p->nonfinite = heddle_pipeline_scalar (p, "nonfinite_losses");
  for (guint i = 0; i < p->n_metrics; i++)
    {
      g_autofree char *sum = g_strdup_printf ("%s_sum", p->metric_names[i]), *weight = g_strdup_printf ("%s_weight", p->metric_names[i]);
      p->running_metric[i] = (Running) { heddle_pipeline_scalar (p, sum), heddle_pipeline_scalar (p, weight) };
    }
}

/* Sums for the log stay on the device: the host reads them when a logger's interval comes. */
static void
emit_running (HeddlePipeline *p, HeddleBuilder *b, const Emitted *e)
{
  HeddleValue *row = heddle_builder_variable (b, p->nonfinite), *largest = heddle_constant (b, 3.4028234663852886e38);
  HeddleValue *bad = heddle_offset (b, heddle_neg (b, heddle_greater (b, largest, heddle_abs (b, e->loss.value))), 1);
  add_to (b, p->running_loss.sum, heddle_mul (b, e->loss.value, e->loss.weight));
  add_to (b, p->running_loss.weight, e->loss.weight);
  heddle_builder_assign (b, row, heddle_mul (b, bad, heddle_offset (b, row, 1)), NULL);
  for (guint i = 0; i < p->n_metrics; i++)
    {
      add_to (b, p->running_metric[i].sum, e->metric[i].value);
      add_to (b, p->running_metric[i].weight, e->metric[i].weight);
    }
}

static double
nominal (const HeddlePipeline *p)
{
  return (double) p->batch_size * (double) p->options->accumulate;
}

/* d objective / d loss = scale x weight / nominal; what it lacks for the exact mean the update program makes good. */
static HeddleValue *
seed_value (HeddlePipeline *p, HeddleBuilder *b, const Emitted *e)
{
  HeddleValue *seed = heddle_scale (b, e->loss.weight, 1 / nominal (p));
  if (p->amp_choice.scaling)
    seed = heddle_mul (b, seed, heddle_builder_variable (b, p->update_state.scale));
  return seed;
}

static HeddleVariable *
update_scalar (HeddlePipeline *p, const char *name, double initial)
{
  HeddleShape shape = heddle_scalar_shape ();
  HeddleInit init = { HEDDLE_INIT_CONSTANT, initial, 0 };
  return heddle_variables_declare (p->vars, name, HEDDLE_ROLE_SCALAR, HEDDLE_F32, &shape, &init, NULL);
}

static gboolean
finish (HeddlePipeline *p, HeddleBuilder *b, gboolean recompute, const HeddleDatasetInfo *info, Compiled *compiled, GError **error)
{
  compiled->n_fields = info->n_fields;
  HeddleProgram *program = heddle_builder_finish (b, error);
  if (program && recompute && heddle_program_recompute (program) == 0)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "%s: recompute = \"blocks\": the model has no block whose inside backward needs\n"
                   "hint: a block is what a model names by a number (layer1.0, h.3, a residual layer of sequential); leave recompute out", p->graph->root->stage->place);
      g_clear_pointer (&program, heddle_program_free);
    }
  compiled->plan = program ? p->device->iface->compile (p->device, program, error) : NULL;
  return compiled->plan != NULL;
}

static gboolean
compile_train (HeddlePipeline *p, gint64 size, gboolean accumulate, Compiled *compiled, GError **error)
{
  HeddleBuilder *b = heddle_builder_new (accumulate ? "train, accumulating" : "train", p->vars, TRUE, p->core.seed);
  Emitted e;
  gboolean ok = heddle_pipeline_emit (p, b, TRUE, size, &p->train_info, p->amp_choice.low, NULL, &e, error);
  if (ok)
    {
      const HeddleOptimizerOptions *o = p->optimizer->stage->self;
      if (heddle_variables_n_groups (p->vars) == 0)
        heddle_variables_group (p->vars, o->decay == 2);
      emit_running (p, b, &e);
      add_to (b, p->update_state.denominator, e.loss.weight);
      ok = heddle_builder_backward (b, e.loss.value, seed_value (p, b, &e), accumulate, error);
    }
  if (ok)
    {
      HeddleValue *step = b->iface->step (b);
      heddle_builder_assign (b, step, heddle_offset (b, step, 1), NULL);
      ok = finish (p, b, p->options->recompute == HEDDLE_RECOMPUTE_BLOCKS, &p->train_info, compiled, error);
    }
  else
    heddle_builder_free (b);
  return ok;
}

static gboolean
compile_eval (HeddlePipeline *p, gint64 size, Compiled *compiled, GError **error)
{
  HeddleBuilder *b = heddle_builder_new ("eval", p->vars, FALSE, p->core.seed);
  Emitted e;
  gboolean ok = heddle_pipeline_emit (p, b, FALSE, size, &p->eval_info, p->amp_choice.low, NULL, &e, error);
  if (ok)
    {
      heddle_evaluation_emit (p, b, &e);
      ok = finish (p, b, FALSE, &p->eval_info, compiled, error);
    }
  else
    heddle_builder_free (b);
  return ok;
}

static gboolean
compile_programs (HeddlePipeline *p, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < 4; i++)
    {
      gint64 size = i / 2 ? p->short_size : p->batch_size;
      if (size > 0 && (i % 2 == 0 || p->options->accumulate > 1) && !(i / 2 == 0 && (guint64) p->batch_size > p->train_info.length))
        ok = compile_train (p, size, i % 2, &p->train[i / 2][i % 2], error);
    }
  for (guint i = 0; ok && p->eval_data && i < 2; i++)
    {
      gint64 size = i ? p->eval_short_size : (guint64) p->eval_batch_size <= p->eval_info.length ? p->eval_batch_size : 0;
      if (size > 0)
        ok = compile_eval (p, size, &p->eval[i], error);
    }
  if (ok)
    {
      HeddleProgram *update = heddle_optimizer_program (p->optimizer->stage, p->amp ? &p->amp_choice : NULL, p->vars, p->options->clip_norm, nominal (p), &p->core, &p->update_state, error);
      p->update = update ? p->device->iface->compile (p->device, update, error) : NULL;
      ok = p->update != NULL;
    }
  return ok;
}

/* ---- loaders ---- */

static gpointer
host_alloc (gpointer data, gsize bytes, GError **error)
{
  HeddleDevice *device = data;
  return device->iface->host_alloc (device, bytes, error);
}

static void
host_free (gpointer data, gpointer memory, gsize bytes)
{
  HeddleDevice *device = data;
  device->iface->host_free (device, memory, bytes);
}

static HeddleLoader *
make_loader (HeddlePipeline *p, gboolean training, GError **error)
{
  HeddlePrefetchOptions o = *(HeddlePrefetchOptions *) p->prefetch->stage->self;
  HeddleNode *data = training ? ((HeddleLink *) p->prefetch->inputs->pdata[0])->ref.node : p->eval_data;
  HeddleSamplerSpec spec = sampler_spec (p, training);
  HeddleHostMemory memory = { host_alloc, host_free, p->device };
  HeddleSampler *sampler = heddle_sampler_new (&spec, error);
  o.batch_size = spec.batch_size;
  return sampler ? heddle_loader_new (data->stage->plugin, training ? &p->train_info : &p->eval_info, sampler, &o, p->core.seed, o.pin_memory ? &memory : NULL, error) : NULL;
}

static gboolean
make_loaders (HeddlePipeline *p, GError **error)
{
  p->loader = make_loader (p, TRUE, error);
  gboolean ok = p->loader != NULL;
  if (ok && p->eval_data)
    ok = (p->eval_loader = make_loader (p, FALSE, error)) != NULL;
  return ok;
}

/* ---- compile ---- */

static gboolean
open_device (HeddlePipeline *p, GError **error)
{
  p->flags = p->graph->flags;
  gboolean ok = heddle_flags_resolve (&p->flags, p->graph->flags_set, error);
  if (!ok)
    g_prefix_error (error, "%s:%d: flags: ", p->graph->script, p->graph->flags_line);
  else if (!(p->device = heddle_device_open (p->options->device, &p->flags, &p->device_why, error)))
    {
      g_prefix_error (error, "%s: device: ", p->graph->root->stage->place);
      ok = FALSE;
    }
  return ok;
}

gboolean
heddle_pipeline_compile (HeddlePipeline *p, GError **error)
{
  gboolean ok = open_device (p, error);
  if (ok)
    {
      p->vars = heddle_variables_new ();
      if (p->amp)
        heddle_amp_resolve (p->amp->stage, p->device, &p->amp_choice);
      p->update_state.denominator = update_scalar (p, "update/denominator", 0);
      if (p->amp_choice.scaling)
        p->update_state.scale = update_scalar (p, "amp/scale", p->amp_choice.options->init_scale);
      declare_running (p);
      heddle_rates_prepare (p);
      ok = compile_programs (p, error) && p->device->iface->allocate (p->device, p->vars, error) && heddle_device_initialise (p->device, p->vars, p->core.seed, error)
           && make_loaders (p, error);
    }
  return ok;
}

/* ---- looking inside ---- */

HeddleVariables *heddle_pipeline_variables (HeddlePipeline *p) { return p->vars; }
HeddleDevice *heddle_pipeline_device (HeddlePipeline *p) { return p->device; }

gboolean
heddle_pipeline_hash (HeddlePipeline *p, guint64 *hash, GError **error)
{
  guint64 h = 14695981039346656037ull;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < heddle_variables_count (p->vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (p->vars, i);
      gboolean flat_param = v->group && v == v->group->param;
      if (!v->saved || flat_param)
        continue;
      gsize bytes = heddle_tensor_bytes (v->dtype, &v->shape);
      g_autofree guint8 *data = g_malloc (MAX (bytes, 1));
      HeddleTensor tensor = { v->dtype, v->shape, data };
      ok = p->device->iface->read (p->device, v, &tensor, error);
      for (gsize k = 0; ok && k < bytes; k++)
        h = (h ^ data[k]) * 1099511628211ull;
    }
  *hash = h;
  return ok;
}
