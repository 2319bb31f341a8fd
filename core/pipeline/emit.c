/* pipeline/emit.c: walks the stage graph and lets each stage emit into a program; facts of open data become options.
 * Must not know devices or the run. */
#include "pipeline/internal.h"
#include "tensor/tensors.h"

#include <string.h>

/* ---- facts ---- */

static const HeddleField *
field_named (const HeddleDatasetInfo *info, const char *name)
{
  const HeddleField *found = NULL;
  for (guint i = 0; name && !found && i < info->n_fields; i++)
    if (g_str_equal (info->field[i].name, name))
      found = &info->field[i];
  return found;
}

static char *
suggest_field (const HeddleDatasetInfo *info, const char *name)
{
  const char *names[HEDDLE_MAX_FIELDS + 1] = { NULL };
  for (guint i = 0; i < info->n_fields; i++)
    names[i] = info->field[i].name;
  g_autofree char *near = heddle_suggestion (name, names), *all = g_strjoinv (", ", (char **) names);
  return g_strdup_printf ("%s\nhint: its fields are %s", near, all);
}

static GVariant *
fact_of (const HeddleField *f, const HeddleDatasetInfo *info, const char *fact)
{
  GVariant *v = NULL;
  if (g_str_equal (fact, "length"))
    v = g_variant_new_int64 ((gint64) info->length);
  else if (f && g_str_equal (fact, "classes") && f->classes > 0)
    v = g_variant_new_int64 (f->classes);
  else if (f && g_str_equal (fact, "channels") && f->shape.rank > 0)
    v = g_variant_new_int64 (f->shape.size[0]);
  else if (f && g_str_equal (fact, "shape"))
    {
      GVariantBuilder sizes;
      g_variant_builder_init (&sizes, G_VARIANT_TYPE ("av"));
      for (gint32 i = 0; i < f->shape.rank; i++)
        g_variant_builder_add (&sizes, "v", g_variant_new_int64 (f->shape.size[i]));
      v = g_variant_builder_end (&sizes);
    }
  return v;
}

static gboolean
resolve_fact (HeddlePipeline *p, HeddleNode *node, const HeddleLink *link, GError **error)
{
  const HeddleDatasetInfo *info = link->ref.node == p->eval_data ? &p->eval_info : &p->train_info;
  const HeddleField *f = field_named (info, link->ref.port);
  GVariant *value = NULL;
  if (link->ref.port && !f)
    {
      g_autofree char *near = suggest_field (info, link->ref.port);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: option \"%s\": %s has no field \"%s\"%s", node->stage->place, link->key, link->ref.node->stage->place, link->ref.port, near);
    }
  else if (!(value = fact_of (f, info, link->ref.attribute)))
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: option \"%s\": \"%s\" of %s has no %s", node->stage->place, link->key, link->ref.port ? link->ref.port : "the data set",
                 link->ref.node->stage->place, link->ref.attribute);
  return value && heddle_node_set (node, link->key, value, error);
}

gboolean
heddle_pipeline_resolve_facts (HeddlePipeline *p, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < p->graph->nodes->len; i++)
    {
      HeddleNode *node = p->graph->nodes->pdata[i];
      for (guint d = 0; ok && d < node->deferred->len; d++)
        ok = resolve_fact (p, node, node->deferred->pdata[d], error);
    }
  return ok;
}

/* ---- walking ---- */

static void
port_clear (gpointer data)
{
  g_free (((HeddlePort *) data)->name);
}

typedef struct
{
  HeddlePipeline *p;
  HeddleEmit      emit;
  const HeddleDatasetInfo *info;
  GArray        **ports;       /* by node index: HeddlePort; NULL: not emitted yet */
  GString        *description;
} Walk;

static gboolean walk (Walk *w, HeddleNode *node, GError **error);

static char *
suggest_port (const GArray *ports, const char *name)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  for (guint i = 0; i < ports->len; i++)
    g_ptr_array_add (names, g_array_index (ports, HeddlePort, i).name);
  g_ptr_array_add (names, NULL);
  g_autofree char *near = heddle_suggestion (name, (const char *const *) names->pdata), *all = g_strjoinv (", ", (char **) names->pdata);
  return g_strdup_printf ("%s\nhint: it has %s", near, all);
}

static HeddlePort *
find_port (Walk *w, const HeddleLink *link, const char *user, GError **error)
{
  HeddlePort *found = NULL;
  if (walk (w, link->ref.node, error))
    {
      GArray *ports = w->ports[link->ref.node->index];
      for (guint i = 0; !found && i < ports->len; i++)
        {
          HeddlePort *port = &g_array_index (ports, HeddlePort, i);
          if (!link->ref.port || g_str_equal (port->name, link->ref.port))
            found = port;
        }
      if (!found)
        {
          g_autofree char *near = suggest_port (ports, link->ref.port ? link->ref.port : "");
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "%s: %s has no port \"%s\"%s", user, link->ref.node->stage->place, link->ref.port ? link->ref.port : "", near);
        }
    }
  return found;
}

static void
describe (Walk *w, const HeddleNode *node)
{
  const GArray *ports = w->ports[node->index];
  g_string_append_printf (w->description, "  %-12s", node->id);
  for (guint i = 0; i < ports->len; i++)
    {
      const HeddlePort *port = &g_array_index (ports, HeddlePort, i);
      if (port->info)
        g_string_append_printf (w->description, " %" G_GUINT64_FORMAT " samples", port->info->length);
      if (port->value)
        {
          g_autofree char *shape = heddle_shape_print (&port->value->shape);
          g_string_append_printf (w->description, "%s %s %s %s", i ? "," : "", port->name, heddle_dtype_name (port->value->dtype), shape);
        }
      if (port->contract.classes)
        g_string_append_printf (w->description, " of %" G_GINT64_FORMAT " classes", port->contract.classes);
      if (port->contract.low != port->contract.high)
        g_string_append_printf (w->description, " in %.3g..%.3g", port->contract.low, port->contract.high);
    }
  g_string_append_c (w->description, '\n');
}

static gboolean
walk (Walk *w, HeddleNode *node, GError **error)
{
  HeddleStage *stage = node->stage;
  gboolean ok = TRUE;
  if (!w->ports[node->index])
    {
      HeddlePort *in[8] = { NULL };
      GArray *out = g_array_new (FALSE, TRUE, sizeof (HeddlePort));
      g_array_set_clear_func (out, port_clear);
      for (guint i = 0; ok && i < node->inputs->len; i++)
        ok = (in[i] = find_port (w, node->inputs->pdata[i], stage->place, error)) != NULL;
      if (ok && stage->class->output == HEDDLE_PORT_DATASET)
        {
          HeddlePort port = { .kind = HEDDLE_PORT_DATASET, .name = g_strdup ("data"), .info = w->info };
          g_array_append_val (out, port);
        }
      else if (ok && stage->class->emit)
        {
          ok = stage->class->emit (stage, &w->emit, in, node->inputs->len, out, error);
          if (!ok)
            g_prefix_error (error, "%s: ", stage->place);
        }
      w->ports[node->index] = out;
      if (ok && w->description)
        describe (w, node);
    }
  return ok;
}

static gboolean
take (Walk *w, const HeddleLink *link, HeddlePort *copy, GError **error)
{
  HeddlePort *port = find_port (w, link, w->p->graph->root->stage->place, error);
  if (port)
    {
      *copy = *port;
      copy->name = NULL;
    }
  return port != NULL;
}

gboolean
heddle_pipeline_emit (HeddlePipeline *p, HeddleBuilder *b, gboolean training, gint64 batch_size, const HeddleDatasetInfo *info, HeddleDtype low, GString *description,
                      Emitted *emitted, GError **error)
{
  Walk w = { .p = p, .emit = { b, training, batch_size, &p->core }, .info = info, .description = description };
  w.ports = g_new0 (GArray *, p->graph->nodes->len + 1);
  heddle_builder_set_autocast (b, low);
  gboolean ok = take (&w, p->loss, &emitted->loss, error);
  for (guint i = 0; ok && i < p->n_metrics; i++)
    ok = take (&w, p->metrics[i], &emitted->metric[i], error);
  heddle_builder_set_autocast (b, 0);
  for (guint i = 0; i < p->graph->nodes->len; i++)
    if (w.ports[i])
      g_array_unref (w.ports[i]);
  g_free (w.ports);
  return ok;
}
