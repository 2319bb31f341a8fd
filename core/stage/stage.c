/* stage/stage.c: the table of stage classes, and stages with their options.  Must not know the graph or the script. */
#include "stage/classes.h"
#include "tensor/tensors.h"

#include <string.h>

static const HeddleStageClass *const classes[] = {
  &heddle_stage_dataset, &heddle_stage_prefetch, &heddle_stage_model, &heddle_stage_cross_entropy, &heddle_stage_mse, &heddle_stage_l1, &heddle_stage_smooth_l1, &heddle_stage_bce_with_logits,
  &heddle_stage_kl_div, &heddle_stage_accuracy, &heddle_stage_top_k,
  &heddle_stage_amp, &heddle_stage_optimizer, &heddle_stage_constant, &heddle_stage_step, &heddle_stage_multistep, &heddle_stage_cosine, &heddle_stage_linear,
  &heddle_stage_one_cycle, &heddle_stage_plateau, &heddle_stage_logger, &heddle_stage_train,
};

const char *
heddle_port_kind_name (HeddlePortKind kind)
{
  const char *name = "nothing";
  switch (kind)
    {
    case HEDDLE_PORT_NONE: break;
#define X(code, nick) case HEDDLE_PORT_##code: name = nick; break;
      HEDDLE_PORT_KINDS (X)
#undef X
    }
  return name;
}

guint
heddle_stage_class_count (void)
{
  return G_N_ELEMENTS (classes);
}

const HeddleStageClass *
heddle_stage_class_nth (guint i)
{
  return classes[i];
}

static char *
suggest_among (const char *word, const char *verb)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  for (guint i = 0; i < G_N_ELEMENTS (classes); i++)
    if (!verb)
      g_ptr_array_add (names, (gpointer) classes[i]->verb);
    else if (g_str_equal (classes[i]->verb, verb) && classes[i]->variant)
      g_ptr_array_add (names, (gpointer) classes[i]->variant);
  g_ptr_array_add (names, NULL);
  return heddle_suggestion (word, (const char *const *) names->pdata);
}

const HeddleStageClass *
heddle_stage_class_find (const char *verb, const char *variant, GError **error)
{
  const HeddleStageClass *found = NULL;
  gboolean verb_known = FALSE;
  for (guint i = 0; !found && i < G_N_ELEMENTS (classes); i++)
    {
      const HeddleStageClass *c = classes[i];
      gboolean same = g_str_equal (c->verb, verb);
      verb_known |= same;
      if (same && (c->plugin_kind || g_strcmp0 (c->variant, variant) == 0))
        found = c;
    }
  if (!found)
    {
      g_autofree char *near = verb_known && variant ? suggest_among (variant, verb) : suggest_among (verb, NULL);
      if (verb_known)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "no %s \"%s\"%s", verb, variant ? variant : "", near);
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "no stage \"%s\"%s", verb, near);
    }
  return found;
}

HeddleStage *
heddle_stage_new (const HeddleStageClass *class, const char *variant, HeddleRegistry *registry, const char *place, GError **error)
{
  const HeddleRegistryEntry *entry = class->plugin_kind ? heddle_registry_find (registry, class->plugin_kind, variant ? variant : "", error) : NULL;
  HeddleStage *stage = NULL;
  if (entry || !class->plugin_kind)
    {
      stage = g_new0 (HeddleStage, 1);
      stage->class = class;
      stage->place = g_strdup (place);
      stage->set = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
      stage->self = class->instance_size ? g_malloc0 (class->instance_size) : NULL;
      if (stage->self)
        heddle_options_init (class->options, stage->self);
      stage->plugin = entry ? heddle_instance_new (entry) : NULL;
    }
  return stage;
}

void
heddle_stage_free (HeddleStage *stage)
{
  if (stage)
    {
      if (stage->self)
        heddle_options_clear (stage->class->options, stage->self);
      g_free (stage->self);
      heddle_instance_free (stage->plugin);
      g_hash_table_unref (stage->set);
      g_free (stage->place);
      g_free (stage);
    }
}

/* The table that has NAME: the plugin's or the class's own; an error suggests from both. */
static gboolean
table_of (HeddleStage *stage, const char *name, HeddleOptionTable *table, gpointer *instance, GError **error)
{
  HeddleOptionTable plugin = stage->plugin ? stage->plugin->entry->options : (HeddleOptionTable) { 0 };
  gboolean in_plugin = heddle_options_find (plugin, name, NULL), in_class = !in_plugin && heddle_options_find (stage->class->options, name, NULL);
  *table = in_plugin ? plugin : stage->class->options;
  *instance = in_plugin ? stage->plugin->self : stage->self;
  if (!in_plugin && !in_class)
    {
      g_autoptr (GPtrArray) names = g_ptr_array_new ();
      for (guint t = 0; t < 2; t++)
        {
          HeddleOptionTable each = t ? plugin : stage->class->options;
          for (guint i = 0, n = heddle_options_count (each); i < n; i++)
            g_ptr_array_add (names, (gpointer) heddle_options_nth (each, i).name);
        }
      g_ptr_array_add (names, NULL);
      g_autofree char *near = heddle_suggestion (name, (const char *const *) names->pdata);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "no option \"%s\"%s", name, near);
    }
  return in_plugin || in_class;
}

gboolean
heddle_stage_set (HeddleStage *stage, const char *name, GVariant *value, const char *base_dir, GError **error)
{
  HeddleOptionTable table;
  gpointer instance;
  g_autoptr (GVariant) v = g_variant_ref_sink (value);
  gboolean ok = table_of (stage, name, &table, &instance, error) && heddle_options_set (table, instance, name, v, base_dir, error);
  if (ok)
    g_hash_table_add (stage->set, g_strdup (name));
  return ok;
}

gboolean
heddle_stage_set_text (HeddleStage *stage, const char *name, const char *text, const char *base_dir, GError **error)
{
  HeddleOptionTable table;
  gpointer instance;
  gboolean ok = table_of (stage, name, &table, &instance, error) && heddle_options_set_text (table, instance, name, text, base_dir, error);
  if (ok)
    g_hash_table_add (stage->set, g_strdup (name));
  return ok;
}

gboolean
heddle_stage_complete (HeddleStage *stage, GError **error)
{
  const char *missing = heddle_options_missing (stage->class->options, stage->set);
  if (!missing && stage->plugin)
    missing = heddle_options_missing (stage->plugin->entry->options, stage->set);
  if (missing)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\" is required", missing);
  return missing == NULL;
}

/* ---- what the classes share ---- */

HeddlePort *
heddle_port_add (GArray *out, HeddlePortKind kind, const char *name)
{
  HeddlePort port = { .kind = kind, .name = g_strdup (name) };
  g_array_append_val (out, port);
  return &g_array_index (out, HeddlePort, out->len - 1);
}

gboolean
heddle_emit_ok (HeddleEmit *emit, GError **error)
{
  const GError *sticky = heddle_builder_error (emit->builder);
  if (sticky)
    g_propagate_error (error, g_error_copy (sticky));
  return sticky == NULL;
}

static gboolean
is_integer (HeddleDtype dtype)
{
  return dtype == HEDDLE_I64 || dtype == HEDDLE_I32 || dtype == HEDDLE_U8;
}

gboolean
heddle_check_classes (const HeddlePort *logits, const HeddlePort *labels, GError **error)
{
  const HeddleShape *x = &logits->value->shape, *y = &labels->value->shape;
  gint64 classes = x->rank ? x->size[x->rank - 1] : 0;
  HeddleShape expected = *x;
  gboolean ok = FALSE;
  expected.rank = MAX (x->rank - 1, 0);
  g_autofree char *one_each = heddle_shape_print (&expected), *got = heddle_shape_print (y);
  if (x->rank < 2)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "input 1 (\"%s\") must be logits (N, classes) or (N, ..., classes), it has rank %d", logits->name, x->rank);
  else if (!is_integer (labels->value->dtype))
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "input 2 (\"%s\") must be class numbers, its dtype is %s", labels->name, heddle_dtype_name (labels->value->dtype));
  else if (!heddle_shape_equal (y, &expected))
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "input 2 (\"%s\") must have one label for each row of \"%s\", shape %s, it has %s", labels->name, logits->name, one_each, got);
  else if (labels->contract.classes && labels->contract.classes != classes)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "\"%s\" has %" G_GINT64_FORMAT " columns, but \"%s\" has %" G_GINT64_FORMAT " classes\n"
                 "hint: give the model classes = batch.%s.classes", logits->name, classes, labels->name, labels->contract.classes, labels->name);
  else
    ok = TRUE;
  return ok;
}

void
heddle_flatten_classes (HeddleBuilder *b, HeddlePort *const *in, HeddleValue **logits, HeddleValue **labels)
{
  const HeddleShape *x = &in[0]->value->shape;
  *logits = x->rank == 2 ? in[0]->value : heddle_reshape (b, in[0]->value, heddle_shape (-1, x->size[x->rank - 1]));
  *labels = x->rank == 2 ? in[1]->value : heddle_reshape (b, in[1]->value, heddle_shape (-1));
}
