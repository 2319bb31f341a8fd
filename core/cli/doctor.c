/* cli/doctor.c: heddle doctor: devices, libraries, search paths.  Must not need any of them to work. */
#include "cli/cli.h"
#include "base/paths.h"

static const GOptionEntry entries[] = { { 0 } };

static void
print_folders (const char *title, const char *const *folders)
{
  printf ("%s:\n", title);
  for (guint i = 0; folders[i]; i++)
    printf ("  %s%s\n", folders[i], g_file_test (folders[i], G_FILE_TEST_IS_DIR) ? "" : " (not there)");
}

static gboolean
print_backends (void)
{
  g_autoptr (GPtrArray) list = heddle_backends_list ();
  gboolean any = FALSE;
  for (guint i = 0; i < list->len; i++)
    {
      const HeddleBackendInfo *b = list->pdata[i];
      g_auto (GStrv) lines = g_strsplit (b->error ? b->error : "", "\n", -1);
      printf ("backend %s: %s\n", b->kind, b->error ? lines[0] : b->file);
      for (guint k = 0; b->lines && k < b->lines->len; k++)
        printf ("  %s\n", (const char *) b->lines->pdata[k]);
      any |= b->error == NULL;
    }
  return any;
}

static void
print_plugins (HeddleRegistry *r)
{
  guint good = 0, bad = 0;
  for (guint i = 0; i < heddle_registry_count (r); i++)
    if (heddle_registry_nth (r, i)->plugin)
      good++;
    else
      bad++;
  printf ("plugins: %u found, %u refused%s\n", good, bad, bad ? " (heddle inspect says why)" : "");
}

static int
run (int argc, char **argv)
{
  int status = 0;
  if (heddle_cli_parse (&heddle_verb_doctor, &argc, &argv, entries, NULL, &status))
    {
      g_autoptr (HeddleRegistry) r = heddle_registry_new (NULL);
      printf ("heddle %s%s%s\n", HEDDLE_VERSION, heddle_paths_build_root () ? ", run from the build tree " : "", heddle_paths_build_root () ? heddle_paths_build_root () : "");
      status = print_backends () ? 0 : 3;
      print_plugins (r);
      print_folders ("plugin folders", heddle_registry_folders (r));
      print_folders ("backend folders", heddle_paths_backends ());
      print_folders ("Lua folders", heddle_paths_lua ());
    }
  return status;
}

const HeddleVerb heddle_verb_doctor = { "doctor", "", "Say which devices, libraries and folders are found, and what is wrong with them", run, entries };
