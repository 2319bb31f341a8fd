/* pipeline/graph-draw.c: the stage graph as text, dot and JSON.  Must not change it. */
#include "pipeline/graph.h"

#include <json-glib/json-glib.h>

static const char *
variant_of (const HeddleNode *n)
{
  return n->stage->plugin ? n->stage->plugin->entry->plugin->name : n->stage->class->variant;
}

/* The options that were given, as "key = value". */
static char *
given_options (const HeddleNode *n, const char *separator)
{
  GString *text = g_string_new (NULL);
  HeddleOptionTable tables[2] = { n->stage->plugin ? n->stage->plugin->entry->options : (HeddleOptionTable) { 0 }, n->stage->class->options };
  gconstpointer instances[2] = { n->stage->plugin ? n->stage->plugin->self : NULL, n->stage->self };
  for (guint t = 0; t < 2; t++)
    for (guint i = 0, count = heddle_options_count (tables[t]); i < count; i++)
      {
        HeddleOption o = heddle_options_nth (tables[t], i);
        gboolean waits = FALSE;
        for (guint d = 0; d < n->deferred->len; d++)
          waits |= g_str_equal (((HeddleLink *) n->deferred->pdata[d])->key, o.name);
        if (g_hash_table_contains (n->stage->set, o.name) && !waits)
          {
            g_autofree char *value = heddle_options_print (tables[t], instances[t], o.name);
            g_string_append_printf (text, "%s%s = %s", text->len ? separator : "", o.name, value);
          }
      }
  for (guint d = 0; d < n->deferred->len; d++)
    {
      const HeddleLink *l = n->deferred->pdata[d];
      g_string_append_printf (text, "%s%s = %s%s%s.%s", text->len ? separator : "", l->key, l->ref.node->id, l->ref.port ? "." : "", l->ref.port ? l->ref.port : "", l->ref.attribute);
    }
  return g_string_free (text, FALSE);
}

static void
append_links (GString *text, const GPtrArray *links)
{
  for (guint i = 0; i < links->len; i++)
    {
      const HeddleLink *l = links->pdata[i];
      g_string_append_printf (text, "%s%s%s%s%s%s", i ? ", " : "", l->key ? l->key : "", l->key ? "=" : "", l->ref.node->id, l->ref.port ? "." : "", l->ref.port ? l->ref.port : "");
    }
}

char *
heddle_graph_print (HeddleGraph *graph)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < graph->nodes->len; i++)
    {
      const HeddleNode *n = graph->nodes->pdata[i];
      g_autofree char *options = given_options (n, ", ");
      g_string_append_printf (text, "%s%s%s (line %d)", n->id, variant_of (n) ? " " : "", variant_of (n) ? variant_of (n) : "", n->line);
      if (n->inputs->len)
        {
          g_string_append (text, " <- ");
          append_links (text, n->inputs);
        }
      if (n->named->len)
        {
          g_string_append (text, "; ");
          append_links (text, n->named);
        }
      g_string_append_printf (text, "%s%s%s\n", *options ? "  { " : "", options, *options ? " }" : "");
    }
  return g_string_free (text, FALSE);
}

static void
append_escaped (GString *text, const char *s)
{
  for (; *s; s++)
    {
      if (*s == '"' || *s == '\\')
        g_string_append_c (text, '\\');
      g_string_append_c (text, *s);
    }
}

static void
append_edges (GString *text, const HeddleNode *n, const GPtrArray *links, const char *style)
{
  for (guint i = 0; i < links->len; i++)
    {
      const HeddleLink *l = links->pdata[i];
      g_string_append_printf (text, "  n%u -> n%u [label=\"%s\"%s];\n", l->ref.node->index, n->index, l->ref.port ? l->ref.port : l->key ? l->key : "", style);
    }
}

char *
heddle_graph_dot (HeddleGraph *graph)
{
  GString *text = g_string_new ("digraph heddle {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
  for (guint i = 0; i < graph->nodes->len; i++)
    {
      const HeddleNode *n = graph->nodes->pdata[i];
      g_autofree char *options = given_options (n, "\n");
      g_auto (GStrv) lines = g_strsplit (options, "\n", -1);
      g_string_append_printf (text, "  n%u [label=\"%s%s%s", n->index, n->id, variant_of (n) ? "\\n" : "", variant_of (n) ? variant_of (n) : "");
      for (guint k = 0; lines[k]; k++)
        {
          g_string_append (text, "\\n");
          append_escaped (text, lines[k]);
        }
      g_string_append (text, "\"];\n");
    }
  for (guint i = 0; i < graph->nodes->len; i++)
    {
      const HeddleNode *n = graph->nodes->pdata[i];
      append_edges (text, n, n->inputs, "");
      append_edges (text, n, n->named, ", style=dashed");
      append_edges (text, n, n->deferred, ", style=dotted");
    }
  g_string_append (text, "}\n");
  return g_string_free (text, FALSE);
}

static void
json_links (JsonBuilder *b, const char *member, const GPtrArray *links)
{
  json_builder_set_member_name (b, member);
  json_builder_begin_array (b);
  for (guint i = 0; i < links->len; i++)
    {
      const HeddleLink *l = links->pdata[i];
      const char *pairs[][2] = { { "key", l->key }, { "from", l->ref.node->id }, { "port", l->ref.port }, { "fact", l->ref.attribute } };
      json_builder_begin_object (b);
      for (guint k = 0; k < G_N_ELEMENTS (pairs); k++)
        if (pairs[k][1])
          {
            json_builder_set_member_name (b, pairs[k][0]);
            json_builder_add_string_value (b, pairs[k][1]);
          }
      json_builder_end_object (b);
    }
  json_builder_end_array (b);
}

static void
json_node (JsonBuilder *b, const HeddleNode *n)
{
  HeddleOptionTable tables[2] = { n->stage->plugin ? n->stage->plugin->entry->options : (HeddleOptionTable) { 0 }, n->stage->class->options };
  gconstpointer instances[2] = { n->stage->plugin ? n->stage->plugin->self : NULL, n->stage->self };
  json_builder_begin_object (b);
  const char *pairs[][2] = { { "id", n->id }, { "verb", n->stage->class->verb }, { "variant", variant_of (n) }, { "gives", heddle_port_kind_name (n->stage->class->output) } };
  for (guint k = 0; k < G_N_ELEMENTS (pairs); k++)
    if (pairs[k][1])
      {
        json_builder_set_member_name (b, pairs[k][0]);
        json_builder_add_string_value (b, pairs[k][1]);
      }
  json_builder_set_member_name (b, "line");
  json_builder_add_int_value (b, n->line);
  json_links (b, "inputs", n->inputs);
  json_links (b, "named", n->named);
  json_links (b, "deferred", n->deferred);
  json_builder_set_member_name (b, "options");
  json_builder_begin_object (b);
  for (guint t = 0; t < 2; t++)
    for (guint i = 0, count = heddle_options_count (tables[t]); i < count; i++)
      {
        HeddleOption o = heddle_options_nth (tables[t], i);
        g_autoptr (GVariant) value = heddle_options_get (tables[t], instances[t], o.name);
        json_builder_set_member_name (b, o.name);
        if (value)
          json_builder_add_value (b, json_gvariant_serialize (value));
        else
          json_builder_add_null_value (b);
      }
  json_builder_end_object (b);
  json_builder_end_object (b);
}

char *
heddle_graph_json (HeddleGraph *graph)
{
  g_autoptr (JsonBuilder) b = json_builder_new ();
  json_builder_begin_object (b);
  json_builder_set_member_name (b, "script");
  json_builder_add_string_value (b, graph->script);
  json_builder_set_member_name (b, "stages");
  json_builder_begin_array (b);
  for (guint i = 0; i < graph->nodes->len; i++)
    json_node (b, graph->nodes->pdata[i]);
  json_builder_end_array (b);
  json_builder_end_object (b);
  g_autoptr (JsonNode) root = json_builder_get_root (b);
  char *plain = json_to_string (root, TRUE), *line = g_strconcat (plain, "\n", NULL);
  g_free (plain);
  return line;
}
