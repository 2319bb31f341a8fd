/* cli/inspect.c: heddle inspect: plugins, built-in stages, and what did not load.  Must not run any of them. */
#include "cli/cli.h"

#include <json-glib/json-glib.h>
#include <string.h>

static gboolean json, markdown;
static char *exists, *at_least, **plugin_path;

static const GOptionEntry entries[] = {
  { "json", 0, 0, G_OPTION_ARG_NONE, &json, "As JSON", NULL },
  { "markdown", 0, 0, G_OPTION_ARG_NONE, &markdown, "Every option of everything, as a reference page", NULL },
  { "exists", 0, 0, G_OPTION_ARG_STRING, &exists, "Only say by the exit status whether this plugin is there", "KIND-NAME" },
  { "atleast", 0, 0, G_OPTION_ARG_STRING, &at_least, "... in this version or a newer one", "VERSION" },
  { "plugin-path", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &plugin_path, "Search plugins here first", "FOLDER" },
  { 0 },
};

static const HeddleRegistryEntry *
by_full_name (HeddleRegistry *r, const char *name)
{
  const HeddleRegistryEntry *found = NULL;
  for (guint i = 0; !found && i < heddle_registry_count (r); i++)
    {
      const HeddleRegistryEntry *e = heddle_registry_nth (r, i);
      g_autofree char *full = e->plugin ? g_strdup_printf ("%s-%s", e->plugin->kind, e->plugin->name) : NULL;
      if (full && !e->shadowed && g_str_equal (full, name))
        found = e;
    }
  return found;
}

/* ---- text ---- */

static const char *
class_name (const HeddleStageClass *c)
{
  static char text[64];
  g_snprintf (text, sizeof text, "%s%s%s%s", c->verb, c->variant ? " \"" : c->plugin_kind ? " NAME" : "", c->variant ? c->variant : "", c->variant ? "\"" : "");
  return text;
}

static void
list_everything (HeddleRegistry *r)
{
  const char *kind = NULL;
  for (guint i = 0; i < heddle_registry_count (r); i++)
    {
      const HeddleRegistryEntry *e = heddle_registry_nth (r, i);
      if (e->plugin && g_strcmp0 (kind, e->plugin->kind) != 0)
        printf ("%s%s plugins:\n", kind ? "\n" : "", e->plugin->kind);
      if (e->plugin)
        kind = e->plugin->kind;
      if (e->plugin)
        printf ("  %-12s %-6s %s%s\n", e->plugin->name, e->plugin->version, e->plugin->summary, e->shadowed ? " (hidden by an earlier folder)" : "");
    }
  printf ("\nbuilt-in stages:\n");
  for (guint i = 0; i < heddle_stage_class_count (); i++)
    printf ("  %-24s %s\n", class_name (heddle_stage_class_nth (i)), heddle_stage_class_nth (i)->summary);
  gboolean head = FALSE;
  for (guint i = 0; i < heddle_registry_count (r); i++)
    {
      const HeddleRegistryEntry *e = heddle_registry_nth (r, i);
      if (e->error && !head)
        printf ("\nnot loaded:\n");
      head |= e->error != NULL;
      if (e->error)
        printf ("  %s\n", e->error->message);
    }
}

static void
show_plugin (const HeddleRegistryEntry *e)
{
  g_autoptr (GString) text = g_string_new (NULL);
  g_string_append_printf (text, "%s \"%s\" %s: %s\n  file     %s\n  licence  %s\n", e->plugin->kind, e->plugin->name, e->plugin->version, e->plugin->summary, e->file, e->plugin->license);
  if (e->plugin->build)
    g_string_append_printf (text, "  built    %s\n", e->plugin->build);
  g_string_append (text, "options:\n");
  heddle_cli_options (text, e->options, FALSE);
  fputs (text->str, stdout);
}

static gboolean
show_class (const char *name)
{
  gboolean found = FALSE;
  g_autoptr (GString) text = g_string_new (NULL);
  for (guint i = 0; i < heddle_stage_class_count (); i++)
    {
      const HeddleStageClass *c = heddle_stage_class_nth (i);
      if (g_str_equal (c->verb, name))
        {
          g_string_append_printf (text, "%s%s: %s\n", found ? "\n" : "", class_name (c), c->summary);
          heddle_cli_options (text, c->options, FALSE);
          found = TRUE;
        }
    }
  if (g_str_equal (name, "flags"))
    {
      g_string_append (text, "flags: how numbers are computed\n");
      heddle_cli_options (text, heddle_flags_options (), FALSE);
      found = TRUE;
    }
  fputs (text->str, stdout);
  return found;
}

static int
show_one (HeddleRegistry *r, const char *name)
{
  const HeddleRegistryEntry *e = by_full_name (r, name);
  int status = 0;
  if (e)
    show_plugin (e);
  else if (!show_class (name))
    {
      g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
      for (guint i = 0; i < heddle_registry_count (r); i++)
        {
          const HeddleRegistryEntry *each = heddle_registry_nth (r, i);
          if (each->plugin)
            g_ptr_array_add (names, g_strdup_printf ("%s-%s", each->plugin->kind, each->plugin->name));
        }
      for (guint i = 0; i < heddle_stage_class_count (); i++)
        g_ptr_array_add (names, g_strdup (heddle_stage_class_nth (i)->verb));
      g_ptr_array_add (names, NULL);
      g_autofree char *near = heddle_suggestion (name, (const char *const *) names->pdata);
      status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "inspect: neither a plugin nor a stage: \"%s\"%s\nhint: plugins are named KIND-NAME: model-lenet", name, near));
    }
  return status;
}

/* ---- reference page ---- */

static void
markdown_table (GString *text, const char *title, const char *summary, HeddleOptionTable table)
{
  g_string_append_printf (text, "\n### %s\n\n%s.\n", title, summary);
  if (heddle_options_count (table))
    {
      g_string_append (text, "\n| option | type | default | meaning |\n| --- | --- | --- | --- |\n");
      heddle_cli_options (text, table, TRUE);
    }
}

static void
reference (HeddleRegistry *r)
{
  g_autoptr (GString) text = g_string_new ("# Reference: stages, flags and plugins\n\nMade by `heddle inspect --markdown` from the option tables.\n\n## Built-in stages\n");
  for (guint i = 0; i < heddle_stage_class_count (); i++)
    {
      const HeddleStageClass *c = heddle_stage_class_nth (i);
      g_autofree char *title = g_strdup_printf ("h.%s", class_name (c));
      markdown_table (text, title, c->summary, c->options);
    }
  markdown_table (text, "h.flags", "How numbers are computed", heddle_flags_options ());
  g_string_append (text, "\n## Plugins\n");
  for (guint i = 0; i < heddle_registry_count (r); i++)
    {
      const HeddleRegistryEntry *e = heddle_registry_nth (r, i);
      g_autofree char *title = e->plugin ? g_strdup_printf ("%s \"%s\"", e->plugin->kind, e->plugin->name) : NULL;
      if (title && !e->shadowed)
        markdown_table (text, title, e->plugin->summary, e->options);
    }
  fputs (text->str, stdout);
}

/* ---- JSON ---- */

static void
member (JsonBuilder *b, const char *name, const char *value)
{
  json_builder_set_member_name (b, name);
  if (value)
    json_builder_add_string_value (b, value);
  else
    json_builder_add_null_value (b);
}

static void
json_options (JsonBuilder *b, HeddleOptionTable table)
{
  json_builder_set_member_name (b, "options");
  json_builder_begin_array (b);
  for (guint i = 0, n = heddle_options_count (table); i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i);
      g_autofree char *type = heddle_option_describe (&o), *usual = heddle_option_default (&o);
      json_builder_begin_object (b);
      member (b, "name", o.name);
      member (b, "type", type);
      member (b, "default", usual);
      member (b, "help", o.help);
      json_builder_end_object (b);
    }
  json_builder_end_array (b);
}

static void
json_plugin (JsonBuilder *b, const HeddleRegistryEntry *e)
{
  json_builder_begin_object (b);
  member (b, "file", e->file);
  if (e->plugin)
    {
      member (b, "kind", e->plugin->kind);
      member (b, "name", e->plugin->name);
      member (b, "version", e->plugin->version);
      member (b, "summary", e->plugin->summary);
      member (b, "license", e->plugin->license);
      json_builder_set_member_name (b, "hidden");
      json_builder_add_boolean_value (b, e->shadowed);
      json_options (b, e->options);
    }
  else
    member (b, "error", e->error->message);
  json_builder_end_object (b);
}

static void
print_json (HeddleRegistry *r, const HeddleRegistryEntry *only)
{
  g_autoptr (JsonBuilder) b = json_builder_new ();
  json_builder_begin_object (b);
  member (b, "version", HEDDLE_VERSION);
  json_builder_set_member_name (b, "plugins");
  json_builder_begin_array (b);
  for (guint i = 0; i < heddle_registry_count (r); i++)
    if (!only || only == heddle_registry_nth (r, i))
      json_plugin (b, heddle_registry_nth (r, i));
  json_builder_end_array (b);
  json_builder_set_member_name (b, "stages");
  json_builder_begin_array (b);
  for (guint i = 0; !only && i < heddle_stage_class_count (); i++)
    {
      const HeddleStageClass *c = heddle_stage_class_nth (i);
      json_builder_begin_object (b);
      member (b, "verb", c->verb);
      member (b, "variant", c->variant);
      member (b, "plugin_kind", c->plugin_kind);
      member (b, "summary", c->summary);
      json_options (b, c->options);
      json_builder_end_object (b);
    }
  json_builder_end_array (b);
  json_builder_end_object (b);
  g_autoptr (JsonNode) root = json_builder_get_root (b);
  g_autofree char *text = json_to_string (root, TRUE);
  puts (text);
}

/* ---- the verb ---- */

static int
answer_exists (HeddleRegistry *r)
{
  const HeddleRegistryEntry *e = by_full_name (r, exists);
  return e && (!at_least || heddle_version_compare (e->plugin->version, at_least) >= 0) ? 0 : 1;
}

static int
inspect (HeddleRegistry *r, const char *name)
{
  int status = 0;
  if (exists)
    status = answer_exists (r);
  else if (json)
    {
      const HeddleRegistryEntry *only = name ? by_full_name (r, name) : NULL;
      if (name && !only)
        status = show_one (r, name);
      else
        print_json (r, only);
    }
  else if (markdown)
    reference (r);
  else if (name)
    status = show_one (r, name);
  else
    list_everything (r);
  return status;
}

static int
run (int argc, char **argv)
{
  int status = 0;
  if (heddle_cli_parse (&heddle_verb_inspect, &argc, &argv, entries, NULL, &status))
    {
      g_autoptr (HeddleRegistry) r = heddle_registry_new ((const char *const *) plugin_path);
      if (argc > 2 || (at_least && !exists))
        status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, argc > 2 ? "inspect: one plugin or stage at a time" : "inspect: --atleast goes with --exists"));
      else
        status = inspect (r, argc > 1 ? argv[1] : NULL);
    }
  return status;
}

const HeddleVerb heddle_verb_inspect = { "inspect", "[KIND-NAME | STAGE]", "List plugins, built-in stages and what did not load, or show one with its options", run, entries };
