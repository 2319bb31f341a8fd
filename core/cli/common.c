/* cli/common.c: parsing, scripts and error texts, the same for every verb.  Must not know any verb. */
#include "cli/cli.h"
#include "base/memory.h"

#include <string.h>

int
heddle_cli_fail (GError *error)
{
  int status = heddle_error_exit_code (error);
  g_printerr ("heddle: %s\n", error->message);
  g_error_free (error);
  return status;
}

gboolean
heddle_cli_parse (const HeddleVerb *verb, int *argc, char ***argv, const GOptionEntry *own, const GOptionEntry *shared, int *status)
{
  g_autofree char *usage = g_strdup (verb->usage);
  g_autoptr (GOptionContext) context = g_option_context_new (usage);
  g_autofree char *name = g_strconcat ("heddle ", verb->name, NULL);
  gboolean version = FALSE, help = FALSE;
  GOptionEntry common[] = { { "version", 0, 0, G_OPTION_ARG_NONE, &version, "Print the version", NULL }, { "help", 'h', 0, G_OPTION_ARG_NONE, &help, "Say what this verb does", NULL }, { 0 } };
  GError *error = NULL;
  g_option_context_set_summary (context, verb->summary);
  g_option_context_set_help_enabled (context, FALSE);
  if (own)
    g_option_context_add_main_entries (context, own, NULL);
  if (shared)
    g_option_context_add_main_entries (context, shared, NULL);
  g_option_context_add_main_entries (context, common, NULL);
  (*argv)[0] = name;
  gboolean ok = g_option_context_parse (context, argc, argv, &error), script_help = ok && help && shared && *argc > 1;
  if (!ok)
    {
      error->domain = HEDDLE_ERROR;
      error->code = HEDDLE_ERROR_USAGE;
      g_prefix_error (&error, "%s: ", verb->name);
      *status = heddle_cli_fail (error);
    }
  else if (version)
    {
      printf ("heddle %s\n", HEDDLE_VERSION);
      *status = 0;
      ok = FALSE;
    }
  else if (help && !script_help)
    {
      g_set_prgname (name);
      g_autofree char *text = g_option_context_get_help (context, TRUE, NULL);
      fputs (text, stdout);
      *status = 0;
      ok = FALSE;
    }
  if (script_help)
    *status = -1;
  (*argv)[0] = (char *) verb->name;
  return ok;
}

GOptionEntry *
heddle_script_entries (HeddleScriptCommand *c)
{
  GOptionEntry entries[] = {
    { "arg", 'a', 0, G_OPTION_ARG_STRING_ARRAY, &c->args, "Give the script's argument NAME a value", "NAME=VALUE" },
    { "set", 's', 0, G_OPTION_ARG_STRING_ARRAY, &c->sets, "Set any option of any stage, or flags.OPTION", "STAGE.OPTION=VALUE" },
    { "plugin-path", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &c->plugin_path, "Search plugins here first", "FOLDER" },
    { "unrestricted", 0, 0, G_OPTION_ARG_NONE, &c->unrestricted, "Run the script with all of Lua and without limits", NULL },
    { 0 },
  };
  return heddle_memdup (entries, sizeof entries);
}

gboolean
heddle_script_command (HeddleScriptCommand *c, const HeddleVerb *verb, int argc, char **argv, const GOptionEntry *own, int *status)
{
  g_autofree GOptionEntry *shared = heddle_script_entries (c);
  *status = 0;
  gboolean ok = heddle_cli_parse (verb, &argc, &argv, own, shared, status);
  c->help = ok && *status == -1;
  if (ok && argc != 2)
    {
      *status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "%s: expects one script, got %d\nhint: heddle %s SCRIPT.lua", verb->name, argc - 1, verb->name));
      ok = FALSE;
    }
  if (ok)
    {
      c->script = g_strdup (argv[1]);
      c->registry = heddle_registry_new ((const char *const *) c->plugin_path);
    }
  if (ok && c->help)
    {
      *status = heddle_script_help (c);
      ok = FALSE;
    }
  return ok;
}

void
heddle_script_clear (HeddleScriptCommand *c)
{
  g_strfreev (c->plugin_path);
  g_strfreev (c->args);
  g_strfreev (c->sets);
  g_free (c->script);
  heddle_registry_free (c->registry);
}

HeddleGraph *
heddle_script_graph (HeddleScriptCommand *c, GError **error)
{
  HeddleScriptOptions options = { .args = (const char *const *) c->args, .unrestricted = c->unrestricted };
  HeddleGraph *graph = heddle_script_load (c->script, c->registry, &options, NULL, error);
  for (guint i = 0; graph && c->sets && c->sets[i]; i++)
    if (!heddle_graph_override (graph, c->sets[i], error))
      g_clear_pointer (&graph, heddle_graph_free);
  return graph;
}

void
heddle_cli_options (GString *text, HeddleOptionTable table, gboolean markdown)
{
  for (guint i = 0, n = heddle_options_count (table); i < n; i++)
    {
      HeddleOption o = heddle_options_nth (table, i);
      g_autofree char *type = heddle_option_describe (&o), *usual = heddle_option_default (&o);
      if (markdown)
        g_string_append_printf (text, "| `%s` | %s | %s | %s |\n", o.name, type, usual, o.help);
      else
        g_string_append_printf (text, "  %-20s %s; %s [%s]\n", o.name, type, o.help, usual);
    }
}

static void
help_args (GString *text, const GPtrArray *args)
{
  g_string_append (text, args->len ? "Arguments (--arg NAME=VALUE):\n" : "The script declares no arguments.\n");
  for (guint i = 0; i < args->len; i++)
    {
      const HeddleScriptArg *a = args->pdata[i];
      g_string_append_printf (text, "  %-20s %s%s[%s]\n", a->name, a->help, *a->help ? " " : "", a->default_text ? a->default_text : "required");
    }
}

int
heddle_script_help (HeddleScriptCommand *c)
{
  HeddleScriptOptions options = { .args = (const char *const *) c->args, .unrestricted = c->unrestricted, .help = TRUE };
  g_autoptr (GPtrArray) args = NULL;
  GError *error = NULL;
  g_autoptr (HeddleGraph) graph = heddle_script_load (c->script, c->registry, &options, &args, &error);
  g_autoptr (GString) text = g_string_new (NULL);
  int status = 0;
  help_args (text, args);
  for (guint i = 0; graph && i < graph->nodes->len; i++)
    {
      const HeddleNode *n = graph->nodes->pdata[i];
      g_string_append_printf (text, "\n%s (line %d): %s\n", n->id, n->line, n->stage->plugin ? n->stage->plugin->entry->plugin->summary : n->stage->class->summary);
      if (n->stage->plugin)
        heddle_cli_options (text, n->stage->plugin->entry->options, FALSE);
      heddle_cli_options (text, n->stage->class->options, FALSE);
    }
  if (graph)
    {
      g_string_append (text, "\nflags:\n");
      heddle_cli_options (text, heddle_flags_options (), FALSE);
      g_string_append (text, "\nAny of these is set with --set STAGE.OPTION=VALUE.\n");
    }
  fputs (text->str, stdout);
  if (!graph && args->len == 0)
    status = heddle_cli_fail (error);
  else
    g_clear_error (&error);
  return status;
}
