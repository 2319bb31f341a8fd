/* plugin/instance.c: the life of one plugin instance: defaults, open, close.  Must not know the stage it serves. */
#include "plugin/registry.h"

#include <string.h>

HeddleInstance *
heddle_instance_new (const HeddleRegistryEntry *entry)
{
  HeddleInstance *instance = g_new0 (HeddleInstance, 1);
  instance->entry = entry;
  instance->self = g_malloc0 (entry->plugin->instance_size);
  heddle_options_init (entry->options, instance->self);
  return instance;
}

static void
close_instance (HeddleInstance *instance)
{
  const HeddlePlugin *p = instance->entry->plugin;
  void (*close) (gpointer) = NULL;
  if (g_str_equal (p->kind, "dataset"))
    close = HEDDLE_SLOT ((const HeddleDatasetIface *) p->iface, HeddleDatasetIface, close);
  else if (g_str_equal (p->kind, "logger"))
    close = HEDDLE_SLOT ((const HeddleLoggerIface *) p->iface, HeddleLoggerIface, close);
  if (close)
    close (instance->self);
  instance->open = FALSE;
}

void
heddle_instance_free (HeddleInstance *instance)
{
  if (instance)
    {
      if (instance->open)
        close_instance (instance);
      heddle_options_clear (instance->entry->options, instance->self);
      g_free (instance->self);
      g_free (instance);
    }
}

/* A slot that fails without saying why broke its contract; the run still gets a sentence. */
static void
ensure_error (GError **error, const char *what)
{
  if (error && !*error)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "%s failed and set no error", what);
}

static gboolean
field_fault (const HeddleDatasetInfo *info, guint i, GError **error)
{
  const HeddleField *f = &info->field[i];
  const char *fault = NULL;
  if (!f->name || !*f->name)
    fault = "has no name";
  else if (!heddle_dtype_size (f->dtype))
    fault = "has no valid dtype";
  else if (f->shape.rank < 0 || f->shape.rank >= HEDDLE_MAX_RANK)
    fault = "has too many axes";
  else if (f->classes < 0)
    fault = "has a negative class count";
  else if (f->channels < 0 || f->channels > HEDDLE_MAX_CHANNELS_NORMALISED || (f->channels > 1 && (f->shape.rank < 1 || f->shape.size[0] != f->channels)))
    fault = "has mean and std for another number of channels than its first axis has";
  for (gint32 a = 0; !fault && a < f->shape.rank; a++)
    if (f->shape.size[a] < 1)
      fault = "has a size below 1";
  for (gint32 c = 0; !fault && c < f->channels; c++)
    if (!(f->std[c] > 0))
      fault = "has a std that is not positive";
  for (guint j = 0; !fault && j < i; j++)
    if (g_str_equal (info->field[j].name, f->name))
      fault = "is declared twice";
  if (fault)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "field %u (\"%s\") %s", i + 1, f->name ? f->name : "", fault);
  return fault != NULL;
}

static gboolean
check_info (const HeddleDatasetInfo *info, GError **error)
{
  gboolean ok = info->length > 0 && info->n_fields > 0 && info->n_fields <= HEDDLE_MAX_FIELDS;
  if (info->length == 0)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "the data set has no samples");
  else if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "declares %u fields; 1 to %d are possible", info->n_fields, HEDDLE_MAX_FIELDS);
  for (guint i = 0; ok && i < info->n_fields; i++)
    ok = !field_fault (info, i, error);
  return ok;
}

gboolean
heddle_instance_open_dataset (HeddleInstance *instance, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  const HeddlePlugin *p = instance->entry->plugin;
  const HeddleDatasetIface *iface = p->iface;
  GError *local = NULL;
  memset (info, 0, sizeof *info);
  gboolean ok = iface->open (instance->self, core, info, &local);
  instance->open = ok;
  if (!ok)
    ensure_error (&local, "open");
  else if (!(ok = check_info (info, &local)))
    close_instance (instance);
  if (!ok)
    g_propagate_prefixed_error (error, local, "dataset-%s: ", p->name);
  return ok;
}

gboolean
heddle_instance_open_logger (HeddleInstance *instance, const HeddleCore *core, GError **error)
{
  const HeddlePlugin *p = instance->entry->plugin;
  gboolean (*open) (gpointer, const HeddleCore *, GError **) = HEDDLE_SLOT ((const HeddleLoggerIface *) p->iface, HeddleLoggerIface, open);
  GError *local = NULL;
  gboolean ok = !open || open (instance->self, core, &local);
  instance->open = ok;
  if (!ok)
    {
      ensure_error (&local, "open");
      g_propagate_prefixed_error (error, local, "logger-%s: ", p->name);
    }
  return ok;
}
