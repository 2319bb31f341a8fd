/* cuda/rtc.c: NVRTC, opened at run time.  Must not know programs, plans or what kernels do.
 * nvrtc.h is not included: the library is found by name at run time, of the runtime's major version, and its absence only costs the fusion. */
#include "rtc.h"

#include "base/error.h"
#include "disk-cache.h"
#include "backend/cuda/kernels/text.inc"

#include <gmodule.h>
#include <stdlib.h>
#include <string.h>

typedef gpointer Program;

struct _CudaRtc
{
  GModule *module, *builtins;
  char    *version;
  int     *archs;
  int      n_archs;
  int   (*create)      (Program *program, const char *source, const char *name, int n_headers, const char *const *headers, const char *const *names);
  int   (*compile)     (Program program, int n, const char *const *options);
  int   (*destroy)     (Program *program);
  int   (*log_size)    (Program program, size_t *n);
  int   (*log)         (Program program, char *text);
  int   (*cubin_size)  (Program program, size_t *n);
  int   (*cubin)       (Program program, char *code);
  int   (*ptx_size)    (Program program, size_t *n);
  int   (*ptx)         (Program program, char *code);
  int   (*get_version) (int *major, int *minor);
  int   (*count_archs) (int *n);
  int   (*list_archs)  (int *archs);
  const char *(*error_text) (int status);
};

const char *
cuda_rtc_prelude (void)
{
  return kernel_text;
}

/* ---- opening ---- */

/* The major version of the runtime that the module is built with: code of a newer compiler may be more than its driver takes. */
static int
major_version (void)
{
  int major = atoi (HEDDLE_CUDA_VERSION);
  return major ? major : 13;
}

/* (transfer full) CUDA 11 kept one soname from 11.2 on. */
static char *
soname (void)
{
  return major_version () == 11 ? g_strdup ("libnvrtc.so.11.2") : g_strdup_printf ("libnvrtc.so.%d", major_version ());
}

/* NVRTC asks the loader for its builtins by name, which finds them outside the loader's folders only if they are loaded already. */
static GModule *
open_builtins (const char *folder)
{
  GModule *module = NULL;
  g_autofree char *start = g_strdup_printf ("libnvrtc-builtins.so.%d", major_version ());
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  while (dir && !module && (name = g_dir_read_name (dir)))
    if (g_str_has_prefix (name, start))
      {
        g_autofree char *path = g_build_filename (folder, name, NULL);
        module = g_module_open (path, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
      }
  g_clear_pointer (&dir, g_dir_close);
  return module;
}

static gboolean
open_in (CudaRtc *rtc, const char *folder)
{
  g_autofree char *name = soname (), *path = g_build_filename (folder, name, NULL);
  if (g_file_test (path, G_FILE_TEST_EXISTS))
    {
      rtc->builtins = open_builtins (folder);
      rtc->module = g_module_open (path, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
    }
  return rtc->module != NULL;
}

static void
open_library (CudaRtc *rtc, const char *const *folders, GError **error)
{
  g_autofree char *name = soname ();
  const char *list = g_getenv ("HEDDLE_CUDA_LIBPATH");
  g_auto (GStrv) more = g_strsplit (list ? list : "", ":", -1);
  for (guint i = 0; folders && folders[i] && !rtc->module; i++)
    open_in (rtc, folders[i]);
  for (guint i = 0; more[i] && !rtc->module; i++)
    if (*more[i])
      open_in (rtc, more[i]);
  if (*HEDDLE_CUDA_LIBDIR && !rtc->module)
    open_in (rtc, HEDDLE_CUDA_LIBDIR);
  if (!rtc->module)
    rtc->module = g_module_open (name, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  if (!rtc->module)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "NVRTC cannot be opened: %s\nhint: put the folder of %s into HEDDLE_CUDA_LIBPATH", g_module_error (), name);
}

static gboolean
bind (CudaRtc *rtc, GError **error)
{
  const struct { const char *name; gpointer *slot; } symbols[] = {
#define SYMBOL(name, slot) { name, (gpointer *) &rtc->slot }
    SYMBOL ("nvrtcCreateProgram", create), SYMBOL ("nvrtcCompileProgram", compile), SYMBOL ("nvrtcDestroyProgram", destroy), SYMBOL ("nvrtcGetProgramLogSize", log_size),
    SYMBOL ("nvrtcGetProgramLog", log), SYMBOL ("nvrtcGetCUBINSize", cubin_size), SYMBOL ("nvrtcGetCUBIN", cubin), SYMBOL ("nvrtcGetPTXSize", ptx_size), SYMBOL ("nvrtcGetPTX", ptx),
    SYMBOL ("nvrtcVersion", get_version), SYMBOL ("nvrtcGetNumSupportedArchs", count_archs), SYMBOL ("nvrtcGetSupportedArchs", list_archs), SYMBOL ("nvrtcGetErrorString", error_text),
#undef SYMBOL
  };
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < G_N_ELEMENTS (symbols); i++)
    {
      ok = g_module_symbol (rtc->module, symbols[i].name, symbols[i].slot);
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s has no %s\nhint: NVRTC 11.2 or newer is needed", g_module_name (rtc->module), symbols[i].name);
    }
  return ok;
}

static int
ascending (const void *a, const void *b)
{
  return *(const int *) a - *(const int *) b;
}

static gboolean
ask (CudaRtc *rtc, GError **error)
{
  int major = 0, minor = 0;
  gboolean ok = rtc->get_version (&major, &minor) == 0 && rtc->count_archs (&rtc->n_archs) == 0 && rtc->n_archs > 0;
  if (ok)
    {
      rtc->version = g_strdup_printf ("%d.%d", major, minor);
      rtc->archs = g_new0 (int, rtc->n_archs);
      ok = rtc->list_archs (rtc->archs) == 0;
      qsort (rtc->archs, (size_t) rtc->n_archs, sizeof *rtc->archs, ascending);
    }
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s does not answer", g_module_name (rtc->module));
  return ok;
}

CudaRtc *
cuda_rtc_open (const char *const *folders, GError **error)
{
  CudaRtc *rtc = g_new0 (CudaRtc, 1);
  open_library (rtc, folders, error);
  if (rtc->module)
    g_module_make_resident (rtc->module);        /* NVRTC loses memory when it is unloaded */
  if (!rtc->module || !bind (rtc, error) || !ask (rtc, error))
    g_clear_pointer (&rtc, cuda_rtc_close);
  return rtc;
}

void
cuda_rtc_close (CudaRtc *rtc)
{
  g_clear_pointer (&rtc->module, g_module_close);
  g_clear_pointer (&rtc->builtins, g_module_close);
  g_free (rtc->version);
  g_free (rtc->archs);
  g_free (rtc);
}

const char *
cuda_rtc_version (const CudaRtc *rtc)
{
  return rtc->version;
}

const char *
cuda_rtc_path (const CudaRtc *rtc)
{
  return g_module_name (rtc->module);
}

const int *
cuda_rtc_archs (const CudaRtc *rtc, guint *n)
{
  *n = (guint) rtc->n_archs;
  return rtc->archs;
}

/* ---- compiling ---- */

/* (transfer full) "sm_90", or "compute_90" when the newest known architecture is older than ARCH and the driver must translate. */
static char *
target_of (const CudaRtc *rtc, int arch)
{
  int best = rtc->archs[0];
  for (int i = 0; i < rtc->n_archs; i++)
    best = rtc->archs[i] <= arch ? rtc->archs[i] : best;
  return g_strdup_printf ("%s_%d", best == arch ? "sm" : "compute", best);
}

/* (transfer full) Line N of TEXT, from 1 */
static char *
line_of (const char *text, gint64 n)
{
  for (; n > 1 && text; n--)
    {
      text = strchr (text, '\n');
      text = text ? text + 1 : NULL;
    }
  return text && n == 1 ? g_strndup (text, strcspn (text, "\n")) : NULL;
}

/* LOG's first complaint is "NAME(LINE): error: ..." */
static void
refuse (CudaRtc *rtc, Program program, const char *name, const char *source, int status, GError **error)
{
  size_t n = 0;
  g_autofree char *text = NULL, *mark = g_strconcat (name, "(", NULL), *quoted = NULL;
  if (program && rtc->log_size (program, &n) == 0 && n > 1)
    {
      text = g_malloc0 (n + 1);
      rtc->log (program, text);
      g_strchomp (text);
      const char *at = strstr (text, mark);
      quoted = at ? line_of (source, g_ascii_strtoll (at + strlen (mark), NULL, 10)) : NULL;
    }
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "kernel %s: NVRTC %s says %s%s%s%s%s", name, rtc->version, rtc->error_text (status), text ? ":\n" : "", text ? text : "", quoted ? "\n  in the line: " : "",
               quoted ? quoted : "");
}

static GBytes *
result (CudaRtc *rtc, Program program, gboolean binary)
{
  size_t n = 0;
  GBytes *bytes = NULL;
  if ((binary ? rtc->cubin_size : rtc->ptx_size) (program, &n) == 0 && n > 0)
    {
      char *code = g_malloc (n);
      if ((binary ? rtc->cubin : rtc->ptx) (program, code) == 0)
        bytes = g_bytes_new_take (code, n);
      else
        g_free (code);
    }
  return bytes;
}

/* Without contraction a chain computes what the same operations would one after the other, bit for bit; such kernels wait for memory anyway. */
#define OPTIONS "--std=c++17", "--fmad=false", "--device-as-default-execution-space"      /* the last for lambdas */

GBytes *
cuda_rtc_compile_behind (CudaRtc *rtc, const char *prelude, const char *name, const char *source, int arch, GError **error)
{
  g_autofree char *target = target_of (rtc, arch), *option = g_strconcat ("--gpu-architecture=", target, NULL);
  g_autofree char *text = g_strdup_printf ("%s\n#line 1 \"%s\"\n%s", prelude, name, source);
  const char *options[] = { option, OPTIONS };
  Program program = NULL;
  GBytes *bytes = NULL;
  int status = rtc->create (&program, text, name, 0, NULL, NULL);
  if (status == 0)
    status = rtc->compile (program, (int) G_N_ELEMENTS (options), options);
  if (status == 0)
    bytes = result (rtc, program, g_str_has_prefix (target, "sm_"));
  if (!bytes)
    refuse (rtc, program, name, source, status, error);
  if (program)
    rtc->destroy (&program);
  return bytes;
}

/* Through the cache on disk */
static GBytes *
get (CudaRtc *rtc, const char *prelude, const char *name, const char *source, int arch, gboolean *compiled, GError **error)
{
  g_autofree char *target = target_of (rtc, arch);
  const char *parts[] = { prelude, source, target, rtc->version, OPTIONS, NULL };
  g_autofree char *key = cuda_cache_key (parts);
  GBytes *bytes = cuda_cache_read ("kernels", key);
  if (compiled)
    *compiled = bytes == NULL;
  if (!bytes)
    {
      bytes = cuda_rtc_compile_behind (rtc, prelude, name, source, arch, error);
      if (bytes)
        cuda_cache_write ("kernels", key, bytes);
    }
  return bytes;
}

GBytes *
cuda_rtc_compile (CudaRtc *rtc, const char *name, const char *source, int arch, GError **error)
{
  return cuda_rtc_compile_behind (rtc, kernel_text, name, source, arch, error);
}

GBytes *
cuda_rtc_get (CudaRtc *rtc, const char *name, const char *source, int arch, gboolean *compiled, GError **error)
{
  return get (rtc, kernel_text, name, source, arch, compiled, error);
}

GBytes *
cuda_rtc_get_behind (CudaRtc *rtc, const char *prelude, const char *name, const char *source, int arch, GError **error)
{
  return get (rtc, prelude, name, source, arch, NULL, error);
}
