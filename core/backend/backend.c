/* backend/backend.c: finds and opens the module of a device kind; helpers common to all devices.  Must not know any library. */
#include "backend/backend.h"
#include "base/paths.h"
#include "tensor/tensors.h"

#include <gmodule.h>
#include <string.h>

static const char *const device_kinds[] = { "cpu", "cuda", NULL };

static char *
module_file (const char *kind)
{
  g_autofree char *base = g_strconcat (kind, ".so", NULL);
  char *found = NULL;
  for (guint i = 0; !found && heddle_paths_backends ()[i]; i++)
    {
      found = g_build_filename (heddle_paths_backends ()[i], base, NULL);
      if (!g_file_test (found, G_FILE_TEST_EXISTS))
        g_clear_pointer (&found, g_free);
    }
  return found;
}

static const HeddleBackend *
load_backend (const char *kind, char **file, GError **error)
{
  const HeddleBackend *backend = NULL;
  gpointer symbol = NULL;
  *file = module_file (kind);
  /* libgomp reads these when it is loaded, which the module does.  Spinning at barriers costs hundredfold on a shared machine and wins much on a free one:
   * about a millisecond of it, which the cpu module switches off while the CPUs are shared (cpu/waiting.h). */
  if (!g_getenv ("OMP_WAIT_POLICY"))
    {
      g_setenv ("OMP_WAIT_POLICY", "passive", TRUE);
      g_setenv ("GOMP_SPINCOUNT", "20000", FALSE);
    }
  if (!*file)
    {
      g_autofree char *folders = g_strjoinv (":", (char **) heddle_paths_backends ());
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no backend module \"%s.so\"\nhint: searched %s%s", kind, folders,
                   g_str_equal (kind, "cuda") ? "; this version of Heddle was built without a cuda backend: use device = \"cpu\"" : "");
    }
  else
    {
      GModule *module = g_module_open (*file, G_MODULE_BIND_LOCAL);
      if (!module)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "backend module cannot be loaded: %s\nhint: it needs the libraries, by major version, that it was built with; LD_LIBRARY_PATH names folders where they are", g_module_error ());
      else if (!g_module_symbol (module, "heddle_backend", &symbol) || ((const HeddleBackend *) symbol)->size != sizeof (HeddleBackend))
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: not a backend of this Heddle\nhint: it belongs to another version; reinstall", *file);
      else
        backend = symbol;
      if (module)
        g_module_make_resident (module);
    }
  return backend;
}

/* "cuda:1" -> kind "cuda", index 1 */
static gboolean
parse_spec (const char *spec, char **kind, guint *index, GError **error)
{
  const char *colon = strchr (spec, ':');
  char *end = NULL;
  *kind = colon ? g_strndup (spec, (gsize) (colon - spec)) : g_strdup (spec);
  guint64 n = colon ? g_ascii_strtoull (colon + 1, &end, 10) : 0;
  *index = (guint) n;
  gboolean known = g_strv_contains (device_kinds, *kind), number = !colon || (end != colon + 1 && !*end && n < 1024);
  if (!known || !number)
    {
      g_autofree char *near = heddle_suggestion (*kind, device_kinds);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no such device: \"%s\"%s\nhint: auto, cpu, cuda, cuda:1, ...", spec, near);
    }
  return known && number;
}

static HeddleDevice *
open_one (const char *spec, const HeddleFlags *flags, GError **error)
{
  g_autofree char *kind = NULL, *file = NULL;
  guint index = 0;
  HeddleDevice *device = NULL;
  if (parse_spec (spec, &kind, &index, error))
    {
      const HeddleBackend *backend = load_backend (kind, &file, error);
      device = backend ? backend->open (index, flags, error) : NULL;
    }
  return device;
}

/* Cheaper than opening the cuda module, whose libraries take a fifth of a second: without the driver's library no GPU answers. */
static gboolean
driver_is_there (GError **error)
{
  GModule *driver = g_module_open ("libcuda.so.1", G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  if (!driver)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no NVIDIA driver (libcuda.so.1)");
  else
    g_module_close (driver);
  return driver != NULL;
}

HeddleDevice *
heddle_device_open (const char *spec, const HeddleFlags *flags, char **why, GError **error)
{
  g_autoptr (GError) cuda = NULL;
  HeddleDevice *device = NULL;
  if (!g_str_equal (spec, "auto"))
    device = open_one (spec, flags, error);
  else if (!(device = driver_is_there (&cuda) ? open_one ("cuda", flags, &cuda) : NULL))
    {
      device = open_one ("cpu", flags, error);
      if (why)
        {
          *why = g_strdup (cuda->message);
          if (strchr (*why, '\n'))
            *strchr (*why, '\n') = 0;
        }
    }
  return device;
}

void
heddle_device_close (HeddleDevice *device)
{
  if (device)
    device->iface->close (device);
}

void
heddle_plan_free (HeddlePlan *plan)
{
  if (plan)
    plan->device->iface->plan_free (plan);
}

static gboolean
initialise_one (HeddleDevice *device, HeddleVariable *v, guint64 seed, GError **error)
{
  g_autofree float *numbers = g_new (float, (gsize) heddle_shape_count (&v->shape));
  HeddleTensor tensor = { HEDDLE_F32, v->shape, numbers };
  heddle_variable_initial (v, seed, numbers);
  return device->iface->write (device, v, &tensor, error);
}

gboolean
heddle_variables_place (HeddleDevice *device, HeddleVariables *vars, gboolean (*allocate) (HeddleDevice *device, HeddleVariable *v, GError **error), GError **error)
{
  gboolean ok = TRUE;
  guint n = heddle_variables_count (vars);
  for (guint i = 0; ok && i < n; i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      if (!v->flat && !v->data)
        ok = allocate (device, v, error);
    }
  for (guint i = 0; ok && i < n; i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      if (v->flat)
        v->data = (char *) v->flat->data + (gsize) v->offset * heddle_dtype_size (v->dtype);
    }
  return ok;
}

gboolean
heddle_variable_holds (const HeddleVariable *v, const HeddleTensor *tensor, GError **error)
{
  gboolean ok = v->data && heddle_shape_count (&v->shape) == heddle_shape_count (&tensor->shape);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "\"%s\": %s", v->name, v->data ? "another number of elements" : "not allocated yet");
  return ok;
}

/* A flat parameter buffer is filled through its windows; a flat slot by itself.  Zeros are what fresh memory holds. */
gboolean
heddle_device_initialise (HeddleDevice *device, HeddleVariables *vars, guint64 seed, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < heddle_variables_count (vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      gboolean flat_param = v->role == HEDDLE_ROLE_PARAM && v->group && v == v->group->param;
      gboolean zero = v->init.kind == HEDDLE_INIT_CONSTANT && v->init.a == 0 && !v->numbers && v->role != HEDDLE_ROLE_SCALAR;
      if (!flat_param && !zero && v->role != HEDDLE_ROLE_GRAD)
        ok = initialise_one (device, v, seed, error);
    }
  return ok;
}

gboolean
heddle_device_write_scalar (HeddleDevice *device, HeddleVariable *variable, double value, GError **error)
{
  float number = (float) value;
  HeddleTensor tensor = { HEDDLE_F32, heddle_scalar_shape (), &number };
  return device->iface->write (device, variable, &tensor, error);
}

gboolean
heddle_device_read_scalar (HeddleDevice *device, HeddleVariable *variable, double *value, GError **error)
{
  float number = 0;
  HeddleTensor tensor = { HEDDLE_F32, heddle_scalar_shape (), &number };
  gboolean ok = device->iface->read (device, variable, &tensor, error);
  *value = number;
  return ok;
}

gboolean
heddle_device_snapshot (HeddleDevice *device, HeddleSnapshot *snapshot, GError **error)
{
  gboolean (*start) (HeddleDevice *, HeddleSnapshot *, GError **) = HEDDLE_BACKEND_SLOT (device, snapshot);
  gboolean ok = snapshot->n <= HEDDLE_SNAPSHOT;
  snapshot->arrived = FALSE;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "a snapshot of %u scalars: at most %d", snapshot->n, HEDDLE_SNAPSHOT);
  else if (start)
    ok = start (device, snapshot, error);
  else
    {
      for (guint i = 0; ok && i < snapshot->n; i++)
        ok = device->iface->read (device, snapshot->variable[i], &(HeddleTensor) { HEDDLE_F32, heddle_scalar_shape (), &snapshot->value[i] }, error);
      snapshot->arrived = ok;
    }
  return ok;
}

gboolean
heddle_device_arrive (HeddleDevice *device, HeddleSnapshot *snapshot, gboolean wait, GError **error)
{
  gboolean (*arrive) (HeddleDevice *, HeddleSnapshot *, gboolean, GError **) = HEDDLE_BACKEND_SLOT (device, arrive);
  return snapshot->arrived || !arrive || arrive (device, snapshot, wait, error);
}

gboolean
heddle_device_honours (HeddleDevice *device, const char *flag)
{
  gboolean (*honours) (HeddleDevice *, const char *) = HEDDLE_BACKEND_SLOT (device, honours);
  return !honours || honours (device, flag);
}

static void
info_free (gpointer data)
{
  HeddleBackendInfo *info = data;
  g_free (info->kind);
  g_free (info->file);
  g_free (info->error);
  if (info->lines)
    g_ptr_array_unref (info->lines);
  g_free (info);
}

GPtrArray *
heddle_backends_list (void)
{
  GPtrArray *list = g_ptr_array_new_with_free_func (info_free);
  for (guint i = 0; device_kinds[i]; i++)
    {
      g_autoptr (GError) error = NULL;
      HeddleBackendInfo *info = g_new0 (HeddleBackendInfo, 1);
      info->kind = g_strdup (device_kinds[i]);
      const HeddleBackend *backend = load_backend (device_kinds[i], &info->file, &error);
      info->lines = backend ? backend->doctor () : NULL;
      info->error = error ? g_strdup (error->message) : NULL;
      g_ptr_array_add (list, info);
    }
  return list;
}
