/* plugin/registry.c: finds plugin files, checks them before anything of theirs runs, keeps failures with their reason.
 * Must not know what a stage does with a plugin. */
#include "plugin/registry.h"
#include "base/paths.h"

#include <gmodule.h>
#include <string.h>

struct _HeddleRegistry
{
  GPtrArray *folders;    /* char *, NULL-terminated once scanned */
  GPtrArray *entries;    /* HeddleRegistryEntry *, sorted once scanned */
  gboolean   scanned;
};

static const char *const kinds[] = { "dataset", "model", "optimizer", "logger", NULL };

/* ---- checking one descriptor ---- */

static gboolean G_GNUC_PRINTF (2, 3)
refuse (GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, text);
  return FALSE;
}

static gboolean
check_head (const HeddlePlugin *p, GError **error)
{
  return (memcmp (p->magic, HEDDLE_MAGIC, sizeof p->magic) == 0
          || refuse (error, "symbol heddle_plugin does not begin with the magic \"%s\"\nhint: describe the plugin with HEDDLE_PLUGIN ()", HEDDLE_MAGIC))
         && (p->abi == HEDDLE_ABI || refuse (error, "built for plugin ABI %u; this Heddle takes ABI %d\nhint: rebuild the plugin against the headers of this Heddle", p->abi, HEDDLE_ABI))
         && (p->size >= G_STRUCT_OFFSET (HeddlePlugin, iface) + sizeof (p->iface) || refuse (error, "descriptor of %u bytes is too short", p->size));
}

/* kind, size of the first interface of ABI 1, required slots by name and offset */
typedef struct { const char *kind, *slot; gsize offset; } Required;
static const Required required[] = {
  { "dataset", "open", G_STRUCT_OFFSET (HeddleDatasetIface, open) },
  { "dataset", "read", G_STRUCT_OFFSET (HeddleDatasetIface, read) },
  { "model", "build", G_STRUCT_OFFSET (HeddleModelIface, build) },
  { "optimizer", "update", G_STRUCT_OFFSET (HeddleOptimizerIface, update) },
  { "logger", "event", G_STRUCT_OFFSET (HeddleLoggerIface, event) },
};

static gboolean
check_slots (const HeddlePlugin *p, GError **error)
{
  gboolean ok = p->iface != NULL || refuse (error, "the interface is missing");
  for (guint i = 0; ok && i < G_N_ELEMENTS (required); i++)
    if (g_str_equal (required[i].kind, p->kind))
      {
        gconstpointer slot = NULL;
        if (required[i].offset + sizeof slot <= p->iface_size)
          memcpy (&slot, (const char *) p->iface + required[i].offset, sizeof slot);
        ok = slot != NULL || refuse (error, "required slot \"%s\" of a %s is missing", required[i].slot, p->kind);
      }
  return ok && (*(const guint32 *) p->iface == p->iface_size
                || refuse (error, "the interface says it has %u bytes, the descriptor says %u\nhint: .size = sizeof (the interface) comes first", *(const guint32 *) p->iface, p->iface_size));
}

static gboolean
check_name (const HeddlePlugin *p, const char *file, GError **error)
{
  g_autofree char *base = g_path_get_basename (file);
  gboolean ok = (p->kind && g_strv_contains (kinds, p->kind)) || refuse (error, "unknown kind \"%s\"\nhint: dataset, model, optimizer or logger", p->kind ? p->kind : "(none)");
  ok = ok && ((p->name && *p->name && p->version && p->summary && p->license) || refuse (error, "name, version, summary and license must all be there"));
  if (ok)
    {
      g_autofree char *expected = g_strdup_printf ("%s-%s.so", p->kind, p->name);
      ok = g_str_equal (base, expected) || refuse (error, "it calls itself %s \"%s\", so its file must be named %s", p->kind, p->name, expected);
    }
  return ok;
}

static gboolean
check_optimizer (const HeddlePlugin *p, HeddleOptionTable table, GError **error)
{
  HeddleOption lr;
  gboolean optimizer = g_str_equal (p->kind, "optimizer");
  return !optimizer || (heddle_options_find (table, "lr", &lr) && lr.type == HEDDLE_OPTION_FLOAT && lr.flags & HEDDLE_OPTION_RUNTIME)
         || refuse (error, "an optimizer needs a FLOAT option \"lr\" flagged HEDDLE_OPTION_RUNTIME");
}

static gboolean
check_plugin (const HeddlePlugin *p, const char *file, HeddleOptionTable *table, GError **error)
{
  gboolean ok = check_head (p, error) && check_name (p, file, error)
                && (p->instance_size > 0 || refuse (error, "instance size 0"))
                && (!p->options || p->option_size >= G_STRUCT_OFFSET (HeddleOption, text_default) || refuse (error, "option lines of %u bytes are too short", p->option_size));
  if (ok)
    *table = (HeddleOptionTable) { p->options, p->option_size };
  return ok && heddle_options_validate (*table, p->instance_size, error) && check_slots (p, error) && check_optimizer (p, *table, error);
}

/* ---- one file ---- */

/* The loader's own message names the file first; what people need is what comes after. */
static char *
loader_reason (const char *file, const char *message)
{
  const char *text = message && g_str_has_prefix (message, file) ? message + strlen (file) : message ? message : "unknown reason";
  while (*text == ':' || *text == ' ')
    text++;
  const char *hint = "";
  if (strstr (text, "invalid ELF header") || strstr (text, "file too short"))
    hint = "\nhint: this is not a shared object";
  else if (strstr (text, "cannot open shared object file"))
    hint = "\nhint: install the library it needs, or add its folder to LD_LIBRARY_PATH";
  else if (strstr (text, "undefined symbol"))
    hint = "\nhint: a plugin links GLib and what it brings itself, nothing of Heddle";
  return g_strdup_printf ("cannot be loaded: %s%s", text, hint);
}

/* Without its data relocations resolved nothing of a module can be read, so it has to be opened; locally, and for good.
 * Not lazily: a function that is missing is a reason not to load, not the end of the process at its first call. */
HeddleRegistryEntry *
heddle_registry_load (const char *file)
{
  HeddleRegistryEntry *entry = g_new0 (HeddleRegistryEntry, 1);
  gpointer symbol = NULL;
  entry->file = g_canonicalize_filename (file, NULL);
  GModule *module = g_module_open (entry->file, G_MODULE_BIND_LOCAL);
  if (!module)
    {
      g_autofree char *reason = loader_reason (entry->file, g_module_error ());
      refuse (&entry->error, "%s", reason);
    }
  else if (!g_module_symbol (module, "heddle_plugin", &symbol) || !symbol)
    refuse (&entry->error, "exports no symbol \"heddle_plugin\"\nhint: describe the plugin with HEDDLE_PLUGIN ()");
  else if (check_plugin (symbol, entry->file, &entry->options, &entry->error))
    entry->plugin = symbol;
  if (module)
    g_module_make_resident (module);
  g_prefix_error (&entry->error, "%s: ", entry->file);
  return entry;
}

void
heddle_registry_entry_free (HeddleRegistryEntry *entry)
{
  if (entry)
    {
      g_free (entry->file);
      g_clear_error (&entry->error);
      g_free (entry);
    }
}

/* ---- folders ---- */

static void
add_folder (HeddleRegistry *r, const char *folder)
{
  if (folder && *folder)
    g_ptr_array_add (r->folders, g_canonicalize_filename (folder, NULL));
}

HeddleRegistry *
heddle_registry_new (const char *const *extra)
{
  HeddleRegistry *r = g_new0 (HeddleRegistry, 1);
  r->folders = g_ptr_array_new_with_free_func (g_free);
  r->entries = g_ptr_array_new_with_free_func ((GDestroyNotify) heddle_registry_entry_free);
  for (guint i = 0; extra && extra[i]; i++)
    add_folder (r, extra[i]);
  g_auto (GStrv) set = g_strsplit (g_getenv ("HEDDLE_PLUGIN_PATH") ? g_getenv ("HEDDLE_PLUGIN_PATH") : "", ":", -1);
  for (guint i = 0; set[i]; i++)
    add_folder (r, set[i]);
  g_autofree char *user = g_build_filename (g_get_user_data_dir (), "heddle", "plugins", NULL);
  add_folder (r, user);
  for (guint i = 0; heddle_paths_plugins ()[i]; i++)
    add_folder (r, heddle_paths_plugins ()[i]);
  g_ptr_array_add (r->folders, NULL);
  return r;
}

void
heddle_registry_free (HeddleRegistry *registry)
{
  if (registry)
    {
      g_ptr_array_unref (registry->folders);
      g_ptr_array_unref (registry->entries);
      g_free (registry);
    }
}

const char *const *
heddle_registry_folders (HeddleRegistry *registry)
{
  return (const char *const *) registry->folders->pdata;
}

/* "<kind>-<name>.so" and nothing else is looked at. */
static gboolean
looks_like_plugin (const char *name)
{
  gboolean ok = FALSE;
  for (guint i = 0; !ok && kinds[i]; i++)
    ok = g_str_has_suffix (name, ".so") && g_str_has_prefix (name, kinds[i]) && name[strlen (kinds[i])] == '-';
  return ok;
}

static gint
by_kind_and_name (gconstpointer a, gconstpointer b)
{
  const HeddleRegistryEntry *x = *(HeddleRegistryEntry *const *) a, *y = *(HeddleRegistryEntry *const *) b;
  int order = (x->plugin == NULL) - (y->plugin == NULL);
  if (!order && x->plugin)
    order = strcmp (x->plugin->kind, y->plugin->kind);
  if (!order && x->plugin)
    order = strcmp (x->plugin->name, y->plugin->name);
  if (!order)
    order = x->shadowed - y->shadowed;
  return order ? order : strcmp (x->file, y->file);
}

static HeddleRegistryEntry *
lookup (HeddleRegistry *r, const char *kind, const char *name)
{
  HeddleRegistryEntry *found = NULL;
  for (guint i = 0; !found && i < r->entries->len; i++)
    {
      HeddleRegistryEntry *e = r->entries->pdata[i];
      if (e->plugin && !e->shadowed && g_str_equal (e->plugin->kind, kind) && g_str_equal (e->plugin->name, name))
        found = e;
    }
  return found;
}

static gboolean
known (HeddleRegistry *r, const char *file)
{
  gboolean found = FALSE;
  for (guint i = 0; !found && i < r->entries->len; i++)
    found = g_str_equal (((HeddleRegistryEntry *) r->entries->pdata[i])->file, file);
  return found;
}

static void
scan_folder (HeddleRegistry *r, const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  for (const char *name; dir && (name = g_dir_read_name (dir));)
    if (looks_like_plugin (name))
      g_ptr_array_add (names, g_strdup (name));
  for (guint i = 0; i < names->len; i++)
    {
      g_autofree char *file = g_build_filename (folder, names->pdata[i], NULL);
      if (known (r, file))
        continue;
      HeddleRegistryEntry *entry = heddle_registry_load (file);
      entry->shadowed = entry->plugin && lookup (r, entry->plugin->kind, entry->plugin->name);
      g_ptr_array_add (r->entries, entry);
    }
}

static void
scan (HeddleRegistry *r)
{
  if (!r->scanned)
    {
      for (guint i = 0; r->folders->pdata[i]; i++)
        scan_folder (r, r->folders->pdata[i]);
      g_ptr_array_sort (r->entries, by_kind_and_name);
      r->scanned = TRUE;
    }
}

guint
heddle_registry_count (HeddleRegistry *registry)
{
  scan (registry);
  return registry->entries->len;
}

const HeddleRegistryEntry *
heddle_registry_nth (HeddleRegistry *registry, guint i)
{
  scan (registry);
  return registry->entries->pdata[i];
}

static char *
names_of_kind (HeddleRegistry *r, const char *kind, const char *near_to)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  for (guint i = 0; i < r->entries->len; i++)
    {
      HeddleRegistryEntry *e = r->entries->pdata[i];
      if (e->plugin && !e->shadowed && g_str_equal (e->plugin->kind, kind))
        g_ptr_array_add (names, (gpointer) e->plugin->name);
    }
  g_ptr_array_add (names, NULL);
  return heddle_suggestion (near_to, (const char *const *) names->pdata);
}

/* A file of the right name that was refused explains more than "not found". */
static const HeddleRegistryEntry *
refused_file (HeddleRegistry *r, const char *kind, const char *name)
{
  g_autofree char *file = g_strdup_printf ("%s-%s.so", kind, name);
  const HeddleRegistryEntry *found = NULL;
  for (guint i = 0; !found && i < r->entries->len; i++)
    {
      HeddleRegistryEntry *e = r->entries->pdata[i];
      g_autofree char *base = g_path_get_basename (e->file);
      if (e->error && g_str_equal (base, file))
        found = e;
    }
  return found;
}

/* The plain case needs no scan of everything: the first folder that holds the file decides. */
static HeddleRegistryEntry *
load_directly (HeddleRegistry *r, const char *kind, const char *name)
{
  HeddleRegistryEntry *found = r->scanned ? NULL : lookup (r, kind, name);
  g_autofree char *base = g_strdup_printf ("%s-%s.so", kind, name);
  gboolean plain = !strchr (name, '/');
  for (guint i = 0; !found && plain && !r->scanned && r->folders->pdata[i]; i++)
    {
      g_autofree char *file = g_build_filename (r->folders->pdata[i], base, NULL);
      if (g_file_test (file, G_FILE_TEST_EXISTS))
        {
          HeddleRegistryEntry *entry = heddle_registry_load (file);
          if (entry->plugin)
            {
              found = entry;
              g_ptr_array_add (r->entries, entry);
            }
          else
            heddle_registry_entry_free (entry);
        }
    }
  return found;
}

/* The folders searched; one that is not there says so, because it is often a misspelt one. */
static char *
folders_text (const HeddleRegistry *r)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; r->folders->pdata[i]; i++)
    g_string_append_printf (text, "%s%s%s", i ? ":" : "", (const char *) r->folders->pdata[i], g_file_test (r->folders->pdata[i], G_FILE_TEST_IS_DIR) ? "" : " (not there)");
  return g_string_free (text, FALSE);
}

const HeddleRegistryEntry *
heddle_registry_find (HeddleRegistry *r, const char *kind, const char *name, GError **error)
{
  const HeddleRegistryEntry *entry = r->scanned ? NULL : load_directly (r, kind, name);
  if (!entry)
    {
      scan (r);
      entry = lookup (r, kind, name);
    }
  if (!entry)
    {
      const HeddleRegistryEntry *refused = refused_file (r, kind, name);
      g_autofree char *near = names_of_kind (r, kind, name);
      if (refused)
        g_propagate_error (error, g_error_copy (refused->error));
      else
        {
          g_autofree char *searched = folders_text (r);
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "no %s plugin \"%s\"%s\nhint: searched %s", kind, name, near, searched);
        }
    }
  return entry;
}

int
heddle_version_compare (const char *a, const char *b)
{
  int order = 0;
  while (!order && (*a || *b))
    {
      char *end_a, *end_b;
      guint64 x = g_ascii_strtoull (a, &end_a, 10), y = g_ascii_strtoull (b, &end_b, 10);
      order = x < y ? -1 : x > y;
      gboolean stuck = end_a == a && end_b == b;
      a = end_a;
      b = end_b;
      if (!order && (stuck || (*a != '.' && *b != '.')))
        {
          order = strcmp (a, b);
          break;
        }
      a += *a == '.';
      b += *b == '.';
    }
  return order;
}
