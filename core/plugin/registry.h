/* plugin/registry.h: finding, checking and instantiating plugins.  Must not know what a stage does with them. */
#ifndef HEDDLE_PLUGIN_REGISTRY_H
#define HEDDLE_PLUGIN_REGISTRY_H

#include "base/options.h"
#include "plugin/plugin.h"

G_BEGIN_DECLS

typedef struct _HeddleRegistry HeddleRegistry;

/* A plugin file that was looked at.  Exactly one of plugin and error is set. */
typedef struct
{
  char               *file;         /* absolute */
  const HeddlePlugin *plugin;       /* stays valid for the life of the process: modules are resident */
  HeddleOptionTable   options;
  GError             *error;        /* why it was refused */
  gboolean            shadowed;     /* an earlier folder has a plugin of the same kind and name */
} HeddleRegistryEntry;

/* EXTRA (--plugin-path, may be NULL), then HEDDLE_PLUGIN_PATH (colon separated), the user's data folder (heddle/plugins), then the installed folder or the
 * build tree's.  Never the current folder.  Scanning is lazy: at the first lookup. */
HeddleRegistry            *heddle_registry_new    (const char *const *extra);
void                       heddle_registry_free   (HeddleRegistry *registry);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleRegistry, heddle_registry_free)

/* Errors: "no model plugin "lenett"; did you mean "lenet"?" with the folders searched; or the reason the file of that name was refused. */
const HeddleRegistryEntry *heddle_registry_find   (HeddleRegistry *registry, const char *kind, const char *name, GError **error);
guint                      heddle_registry_count  (HeddleRegistry *registry);                 /* sorted by kind, name; failures last */
const HeddleRegistryEntry *heddle_registry_nth    (HeddleRegistry *registry, guint i);
const char *const         *heddle_registry_folders (HeddleRegistry *registry);

/* Opens and checks one file: magic, ABI, sizes, kind, file name, required slots, option table.  (transfer full) */
HeddleRegistryEntry       *heddle_registry_load   (const char *file);
void                       heddle_registry_entry_free (HeddleRegistryEntry *entry);

/* "1.2" against "1.10": <0, 0, >0, numbers compared as numbers. */
int                        heddle_version_compare (const char *a, const char *b);

/* ---- instances ------------------------------------------------------------------------------------------------- */

typedef struct
{
  const HeddleRegistryEntry *entry;
  gpointer                   self;      /* instance_size bytes; options set with heddle_options_set (entry->options, self, ...) */
  gboolean                   open;
} HeddleInstance;

HeddleInstance *heddle_instance_new  (const HeddleRegistryEntry *entry);      /* defaults filled */
void            heddle_instance_free (HeddleInstance *instance);              /* close slot if open, options cleared */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleInstance, heddle_instance_free)

/* Slot NAME of an interface, or NULL if the plugin was built before it existed. */
#define HEDDLE_SLOT(iface, Type, slot) \
  ((iface)->size >= G_STRUCT_OFFSET (Type, slot) + sizeof (((Type *) 0)->slot) ? (iface)->slot : NULL)

/* Calls open of a dataset or logger and checks what it declares (length, unique field names, classes, std > 0).  Errors carry "dataset-idx: ". */
gboolean        heddle_instance_open_dataset (HeddleInstance *instance, const HeddleCore *core, HeddleDatasetInfo *info, GError **error);
gboolean        heddle_instance_open_logger  (HeddleInstance *instance, const HeddleCore *core, GError **error);

G_END_DECLS

#endif
