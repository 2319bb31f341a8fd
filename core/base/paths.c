/* base/paths.c: finds the program's own folders once.  Knows no file formats beyond the key file of a build tree. */
#include "base/paths.h"

#include <string.h>

#ifndef HEDDLE_LIBDIR
#define HEDDLE_LIBDIR "/usr/local/lib/heddle"
#endif
#ifndef HEDDLE_DATADIR
#define HEDDLE_DATADIR "/usr/local/share/heddle"
#endif

typedef struct { char *build, *source, **backends, **plugins, **lua; } Paths;

static char *
executable_folder (void)
{
  g_autofree char *file = g_file_read_link ("/proc/self/exe", NULL);
  return file ? g_path_get_dirname (file) : g_strdup ("/");
}

/* Where a build tree has programs.  One installed somewhere below it (make distcheck does so) is not part of it. */
static gboolean
holds_programs (const char *build, const char *folder)
{
  const char *rest = g_str_has_prefix (folder, build) ? folder + strlen (build) : "?";
  return g_str_equal (rest, "") || g_str_equal (rest, "/.libs") || g_str_has_prefix (rest, "/tests/");
}

/* A build tree is recognised by its ".heddle-build" file, from the executable's folder upwards (tests lie deeper). */
static void
find_build_tree (Paths *p, const char *start)
{
  g_autofree char *folder = g_strdup (start);
  for (int depth = 0; depth < 6 && !p->build; depth++)
    {
      g_autofree char *file = g_build_filename (folder, ".heddle-build", NULL);
      g_autoptr (GKeyFile) keys = g_key_file_new ();
      if (holds_programs (folder, start) && g_key_file_load_from_file (keys, file, G_KEY_FILE_NONE, NULL))
        {
          p->build = g_key_file_get_string (keys, "build", "build", NULL);
          p->source = g_key_file_get_string (keys, "build", "source", NULL);
        }
      char *parent = g_path_get_dirname (folder);
      g_free (folder);
      folder = parent;
    }
}

static char **
only (char *folder)
{
  GPtrArray *list = g_ptr_array_new ();
  g_ptr_array_add (list, folder);
  g_ptr_array_add (list, NULL);
  return (char **) g_ptr_array_free (list, FALSE);
}

/* The folders in VARIABLE, or FOLDERS (taken) when it is unset or empty. */
static char **
environment_or (const char *variable, char **folders)
{
  g_auto (GStrv) given = g_strsplit (g_getenv (variable) ? g_getenv (variable) : "", ":", -1);
  GPtrArray *list = g_ptr_array_new ();
  for (guint i = 0; given[i]; i++)
    if (*given[i])
      g_ptr_array_add (list, g_strdup (given[i]));
  gboolean any = list->len > 0;
  g_ptr_array_add (list, NULL);
  char **set = (char **) g_ptr_array_free (list, FALSE);
  g_strfreev (any ? folders : set);
  return any ? set : folders;
}

/* Where libtool puts the modules that are built in the folders below PARENT. */
static char **
folders_of_build (const char *build, const char *parent)
{
  g_autofree char *folder = g_build_filename (build, parent, NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  GPtrArray *list = g_ptr_array_new ();
  for (const char *name; dir && (name = g_dir_read_name (dir));)
    {
      char *libs = g_build_filename (folder, name, ".libs", NULL);
      if (g_file_test (libs, G_FILE_TEST_IS_DIR))
        g_ptr_array_add (list, libs);
      else
        g_free (libs);
    }
  g_ptr_array_add (list, NULL);
  return (char **) g_ptr_array_free (list, FALSE);
}

/* ../lib/heddle beside an installed bin/heddle, so that an installation can be moved; else the configured prefix. */
static char *
relative_or (const char *bin, const char *relative, const char *configured)
{
  char *moved = g_build_filename (bin, "..", relative, NULL);
  if (!g_file_test (moved, G_FILE_TEST_IS_DIR))
    {
      g_free (moved);
      moved = g_strdup (configured);
    }
  return moved;
}

static Paths *
paths_new (void)
{
  Paths *p = g_new0 (Paths, 1);
  g_autofree char *bin = executable_folder ();
  find_build_tree (p, bin);
  if (p->build && p->source)
    {
      p->backends = environment_or ("HEDDLE_BACKEND_PATH", folders_of_build (p->build, "core/backend"));
      p->plugins = folders_of_build (p->build, "plugins");
      p->lua = only (g_build_filename (p->source, "lua", NULL));
    }
  else
    {
      g_clear_pointer (&p->build, g_free);
      g_autofree char *lib = relative_or (bin, "lib/heddle", HEDDLE_LIBDIR), *share = relative_or (bin, "share/heddle", HEDDLE_DATADIR);
      p->backends = environment_or ("HEDDLE_BACKEND_PATH", only (g_build_filename (lib, "backends", NULL)));
      p->plugins = only (g_build_filename (lib, "plugins", NULL));
      p->lua = only (g_build_filename (share, "lua", NULL));
    }
  return p;
}

static Paths *
paths_get (void)
{
  static Paths *paths;
  if (g_once_init_enter (&paths))
    g_once_init_leave (&paths, paths_new ());
  return paths;
}

const char        *heddle_paths_build_root  (void) { return paths_get ()->build; }
const char        *heddle_paths_source_root (void) { return paths_get ()->build ? paths_get ()->source : NULL; }
const char *const *heddle_paths_backends    (void) { return (const char *const *) paths_get ()->backends; }
const char *const *heddle_paths_plugins     (void) { return (const char *const *) paths_get ()->plugins; }
const char *const *heddle_paths_lua         (void) { return (const char *const *) paths_get ()->lua; }
