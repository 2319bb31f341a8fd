/* pipeline/graph.c: the stage graph as described: nodes, links, options, and checks that need no data.  Must not know Lua, data or devices. */
#include "pipeline/graph.h"

#include <string.h>

static void
link_free (gpointer data)
{
  HeddleLink *link = data;
  g_free (link->key);
  g_free (link);
}

static void
node_free (gpointer data)
{
  HeddleNode *node = data;
  g_free (node->id);
  heddle_stage_free (node->stage);
  g_ptr_array_unref (node->inputs);
  g_ptr_array_unref (node->named);
  g_ptr_array_unref (node->deferred);
  g_free (node);
}

HeddleGraph *
heddle_graph_new (const char *script, const char *base_dir, HeddleRegistry *registry)
{
  HeddleGraph *g = g_new0 (HeddleGraph, 1);
  g->script = g_strdup (script);
  g->base_dir = g_strdup (base_dir);
  g->registry = registry;
  g->nodes = g_ptr_array_new_with_free_func (node_free);
  g->flags_set = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  heddle_options_init (heddle_flags_options (), &g->flags);
  return g;
}

void
heddle_graph_free (HeddleGraph *graph)
{
  if (graph)
    {
      g_free (graph->script);
      g_free (graph->base_dir);
      g_ptr_array_unref (graph->nodes);
      g_hash_table_unref (graph->flags_set);
      heddle_options_clear (heddle_flags_options (), &graph->flags);
      g_free (graph);
    }
}

static HeddleNode *
node_by_id (HeddleGraph *graph, const char *id)
{
  HeddleNode *found = NULL;
  for (guint i = 0; !found && i < graph->nodes->len; i++)
    {
      HeddleNode *n = graph->nodes->pdata[i];
      if (g_str_equal (n->id, id))
        found = n;
    }
  return found;
}

static char *
free_id (HeddleGraph *graph, const char *verb)
{
  char *id = g_strdup (verb);
  for (guint k = 2; node_by_id (graph, id); k++)
    {
      g_free (id);
      id = g_strdup_printf ("%s%u", verb, k);
    }
  return id;
}

static char *
place_of (const HeddleGraph *graph, int line, const char *what)
{
  return line > 0 ? g_strdup_printf ("%s:%d: %s", graph->script, line, what) : g_strdup_printf ("%s: %s", graph->script, what);
}

HeddleNode *
heddle_graph_add (HeddleGraph *graph, const char *verb, const char *variant, int line, GError **error)
{
  g_autofree char *what = variant ? g_strdup_printf ("%s \"%s\"", verb, variant) : g_strdup (verb), *place = place_of (graph, line, what);
  const HeddleStageClass *class = heddle_stage_class_find (verb, variant, error);
  HeddleStage *stage = class ? heddle_stage_new (class, variant, graph->registry, place, error) : NULL;
  HeddleNode *node = NULL;
  if (stage)
    {
      node = g_new0 (HeddleNode, 1);
      node->graph = graph;
      node->index = graph->nodes->len;
      node->id = free_id (graph, verb);
      node->stage = stage;
      node->line = line;
      node->inputs = g_ptr_array_new_with_free_func (link_free);
      node->named = g_ptr_array_new_with_free_func (link_free);
      node->deferred = g_ptr_array_new_with_free_func (link_free);
      g_ptr_array_add (graph->nodes, node);
    }
  else
    {
      g_autofree char *where = place_of (graph, line, verb);
      g_prefix_error (error, "%s: ", where);
    }
  return node;
}

gboolean
heddle_node_set_id (HeddleNode *node, const char *id, GError **error)
{
  HeddleNode *other = node_by_id (node->graph, id);
  gboolean plain = *id && strspn (id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == strlen (id);
  gboolean ok = plain && (!other || other == node) && !g_str_equal (id, "flags");
  if (!plain)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: id \"%s\" must be made of letters, digits, \"_\" and \"-\"", node->stage->place, id);
  else if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: id \"%s\" is taken by %s", node->stage->place, id, other ? other->stage->place : "h.flags");
  else
    {
      g_free (node->id);
      node->id = g_strdup (id);
    }
  return ok;
}

gboolean
heddle_node_set (HeddleNode *node, const char *name, GVariant *value, GError **error)
{
  gboolean ok = heddle_stage_set (node->stage, name, value, node->graph->base_dir, error);
  if (!ok)
    g_prefix_error (error, "%s: ", node->stage->place);
  return ok;
}

static HeddleLink *
link_new (const char *key, HeddleRef ref, int line)
{
  HeddleLink *link = g_new0 (HeddleLink, 1);
  link->key = g_strdup (key);
  link->ref = ref;
  link->line = line;
  return link;
}

gboolean
heddle_node_defer (HeddleNode *node, const char *name, HeddleRef fact, GError **error)
{
  static const char *const facts[] = { "classes", "length", "shape", "channels", NULL };
  HeddleOption option;
  const HeddleInstance *plugin = node->stage->plugin;
  gboolean known = heddle_options_find (node->stage->class->options, name, &option) || (plugin && heddle_options_find (plugin->entry->options, name, &option));
  gboolean ok = known && fact.attribute && g_strv_contains (facts, fact.attribute);
  if (!known)
    {
      g_autoptr (GVariant) nothing = g_variant_ref_sink (g_variant_new_int64 (0));
      heddle_node_set (node, name, nothing, error);     /* says which name is near */
    }
  else if (!ok)
    {
      g_autofree char *near = heddle_suggestion (fact.attribute ? fact.attribute : "", facts);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: option \"%s\": a port has no fact \"%s\"%s\nhint: classes, length, shape or channels", node->stage->place, name,
                   fact.attribute ? fact.attribute : "", near);
    }
  else
    {
      g_ptr_array_add (node->deferred, link_new (name, fact, node->line));
      g_hash_table_add (node->stage->set, g_strdup (name));
    }
  return ok;
}

/* ---- links ---- */

static HeddlePortKind
kind_of (HeddleRef ref)
{
  HeddlePortKind kind = ref.node->stage->class->output;
  if (ref.port && kind == HEDDLE_PORT_BATCH)
    kind = HEDDLE_PORT_TENSOR;
  else if (ref.port && kind != HEDDLE_PORT_TENSOR)
    kind = HEDDLE_PORT_NONE;
  return ref.attribute ? HEDDLE_PORT_NONE : kind;
}

static gboolean
check_kind (HeddleNode *node, const char *input, HeddleRef from, HeddlePortKind expected, GError **error)
{
  HeddlePortKind kind = kind_of (from);
  gboolean ok = kind == expected;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: %s must be a %s, but %s%s%s gives a %s%s", node->stage->place, input, heddle_port_kind_name (expected), from.node->stage->place,
                 from.port ? "." : "", from.port ? from.port : "", heddle_port_kind_name (kind),
                 kind == HEDDLE_PORT_BATCH && expected == HEDDLE_PORT_TENSOR ? "\nhint: name one of its fields: batch.image" : kind == HEDDLE_PORT_DATASET && expected == HEDDLE_PORT_TENSOR ? "\nhint: put h.prefetch { ... } between" : "");
  return ok;
}

gboolean
heddle_node_link (HeddleNode *node, HeddleRef from, int line, GError **error)
{
  const HeddleStageClass *class = node->stage->class;
  guint i = node->inputs->len;
  gboolean ok = i < class->max_inputs;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: takes %s%u input%s, this is number %u (%s)", node->stage->place, class->min_inputs == class->max_inputs ? "" : "at most ",
                 class->max_inputs, class->max_inputs == 1 ? "" : "s", i + 1, from.node->stage->place);
  else
    {
      g_autofree char *input = g_strdup_printf ("input %u", i + 1);
      ok = check_kind (node, input, from, class->input_kinds[i], error);
    }
  if (ok)
    g_ptr_array_add (node->inputs, link_new (NULL, from, line));
  return ok;
}

static HeddlePortKind
named_kind (const char *key)
{
  HeddlePortKind kind = HEDDLE_PORT_NONE;
  if (g_str_equal (key, "eval.data"))
    kind = HEDDLE_PORT_DATASET;
  else if (g_str_has_prefix (key, "eval."))
    kind = HEDDLE_PORT_METRIC;
  else if (g_str_has_prefix (key, "log."))
    kind = HEDDLE_PORT_LOGGER;
  else if (g_str_equal (key, "schedule"))
    kind = HEDDLE_PORT_SCHEDULE;
  return kind;
}

gboolean
heddle_node_link_named (HeddleNode *node, const char *key, HeddleRef from, int line, GError **error)
{
  HeddlePortKind expected = named_kind (key);
  gboolean ok = g_str_equal (node->stage->class->verb, "train") && expected != HEDDLE_PORT_NONE;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: \"%s\" cannot be given a stage", node->stage->place, key);
  else
    ok = check_kind (node, key, from, expected, error);
  if (ok)
    g_ptr_array_add (node->named, link_new (key, from, line));
  return ok;
}

gboolean
heddle_node_complete (HeddleNode *node, GError **error)
{
  const HeddleStageClass *class = node->stage->class;
  gboolean ok = node->inputs->len >= class->min_inputs;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: input %u is missing: a %s\nhint: inputs go in the array part: h.%s%s { input, option = value }", node->stage->place, node->inputs->len + 1,
                 heddle_port_kind_name (class->input_kinds[node->inputs->len]), class->verb, class->variant || class->plugin_kind ? " \"...\"" : "");
  else if (!(ok = heddle_stage_complete (node->stage, error)))
    g_prefix_error (error, "%s: ", node->stage->place);
  return ok;
}

gboolean
heddle_graph_set_flags (HeddleGraph *graph, const char *name, GVariant *value, int line, GError **error)
{
  gboolean ok = heddle_options_set (heddle_flags_options (), &graph->flags, name, value, graph->base_dir, error);
  graph->flags_line = line;
  if (ok)
    g_hash_table_add (graph->flags_set, g_strdup (name));
  else
    {
      g_autofree char *place = place_of (graph, line, "flags");
      g_prefix_error (error, "%s: ", place);
    }
  return ok;
}

/* ---- the whole ---- */

static void
mark (const HeddleNode *node, gboolean *used)
{
  if (!used[node->index])
    {
      const GPtrArray *lists[] = { node->inputs, node->named, node->deferred };
      used[node->index] = TRUE;
      for (guint k = 0; k < G_N_ELEMENTS (lists); k++)
        for (guint i = 0; i < lists[k]->len; i++)
          mark (((HeddleLink *) lists[k]->pdata[i])->ref.node, used);
    }
}

gboolean
heddle_graph_finish (HeddleGraph *graph, HeddleNode *root, GError **error)
{
  gboolean ok = root && g_str_equal (root->stage->class->verb, "train");
  if (!root)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: the script returns nothing\nhint: end it with: return h.train { step, ... }", graph->script);
  else if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: the script must return a train stage\nhint: return h.train { step, ... }", root->stage->place);
  else
    {
      g_autofree gboolean *used = g_new0 (gboolean, graph->nodes->len + 1);
      mark (root, used);
      for (guint i = 0; i < graph->nodes->len; i++)
        if (!used[i])
          g_warning ("%s: nothing uses this stage", ((HeddleNode *) graph->nodes->pdata[i])->stage->place);
      graph->root = root;
    }
  return ok;
}

static gboolean
override_node (HeddleGraph *graph, const char *id, const char *name, const char *text, GError **error)
{
  HeddleNode *node = node_by_id (graph, id);
  gboolean ok = FALSE;
  if (node)
    ok = heddle_stage_set_text (node->stage, name, text, graph->base_dir, error);
  else
    {
      g_autoptr (GPtrArray) ids = g_ptr_array_new ();
      g_ptr_array_add (ids, (gpointer) "flags");
      for (guint i = 0; i < graph->nodes->len; i++)
        g_ptr_array_add (ids, ((HeddleNode *) graph->nodes->pdata[i])->id);
      g_ptr_array_add (ids, NULL);
      g_autofree char *near = heddle_suggestion (id, (const char *const *) ids->pdata), *all = g_strjoinv (", ", (char **) ids->pdata);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "no stage has the id \"%s\"%s\nhint: %s", id, near, all);
    }
  for (guint i = 0; ok && i < node->deferred->len; i++)
    if (g_str_equal (((HeddleLink *) node->deferred->pdata[i])->key, name))
      g_ptr_array_remove_index (node->deferred, i--);
  return ok;
}

gboolean
heddle_graph_override (HeddleGraph *graph, const char *assignment, GError **error)
{
  const char *dot = strchr (assignment, '.'), *equals = strchr (assignment, '=');
  gboolean ok = dot && equals && dot < equals && dot > assignment && equals > dot + 1;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "\"%s\" is not STAGE.OPTION=VALUE", assignment);
  else
    {
      g_autofree char *id = g_strndup (assignment, (gsize) (dot - assignment)), *name = g_strndup (dot + 1, (gsize) (equals - dot - 1));
      if (g_str_equal (id, "flags"))
        {
          ok = heddle_options_set_text (heddle_flags_options (), &graph->flags, name, equals + 1, graph->base_dir, error);
          if (ok)
            g_hash_table_add (graph->flags_set, g_strdup (name));
        }
      else
        ok = override_node (graph, id, name, equals + 1, error);
    }
  if (!ok)
    g_prefix_error (error, "--set %s: ", assignment);
  return ok;
}
