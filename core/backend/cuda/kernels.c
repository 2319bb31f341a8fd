/* cuda/kernels.c: loads device code, embedded in the module or generated, and launches kernels by name.  Must not know what they compute. */
#include "cuda.h"
#include "fatbin.h"

#include <string.h>

#if CUDART_VERSION < 12080
#include <cuda.h>           /* types alone: the driver's functions are asked for at run time */
#define DRIVER_API 1
#else
#define DRIVER_API 0
#endif

typedef struct { const char *file; const unsigned char *code; gpointer library; } Module;

struct _CudaModules
{
  Module     *own;            /* ends with code NULL; loaded at the first look for a kernel */
  GHashTable *kernels;        /* name -> CudaKernel */
  GPtrArray  *libraries;      /* all loaded ones */
};

/* ---- the two ways to load code ---- */

#if DRIVER_API
static gboolean
driver (const char *name, gpointer *function, GError **error)
{
#if CUDART_VERSION >= 12000
  enum cudaDriverEntryPointQueryResult found;
  return cuda_check (cudaGetDriverEntryPoint (name, function, cudaEnableDefault, &found), name, NULL, error);
#else
  return cuda_check (cudaGetDriverEntryPoint (name, function, cudaEnableDefault), name, NULL, error);
#endif
}

static gboolean
driver_check (CUresult code, const char *call, GError **error)
{
  if (code != CUDA_SUCCESS)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: status %d of the driver", call, (int) code);
  return code == CUDA_SUCCESS;
}

static gboolean
load (gconstpointer code, gpointer *library, GError **error)
{
  CUresult (*f) (CUmodule *, const void *);
  return driver ("cuModuleLoadData", (gpointer *) &f, error) && driver_check (f ((CUmodule *) library, code), "cuModuleLoadData", error);
}

static gboolean
look (gpointer library, const char *name, CudaKernel *kernel)
{
  CUresult (*f) (CUfunction *, CUmodule, const char *);
  return driver ("cuModuleGetFunction", (gpointer *) &f, NULL) && f ((CUfunction *) kernel, library, name) == CUDA_SUCCESS;
}

static void
unload (gpointer library)
{
  CUresult (*f) (CUmodule);
  if (driver ("cuModuleUnload", (gpointer *) &f, NULL))
    f (library);
}

static gboolean
launch (CudaKernel kernel, dim3 grid, dim3 block, gsize shared, void **args, cudaStream_t stream, const HeddleOp *op, GError **error)
{
  CUresult (*f) (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **);
  (void) op;
  return driver ("cuLaunchKernel", (gpointer *) &f, error)
         && driver_check (f ((CUfunction) kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, (unsigned) shared, stream, args, NULL), "cuLaunchKernel", error);
}
#else
static gboolean
load (gconstpointer code, gpointer *library, GError **error)
{
  return cuda_check (cudaLibraryLoadData ((cudaLibrary_t *) library, code, NULL, NULL, 0, NULL, NULL, 0), "cudaLibraryLoadData", NULL, error);
}

static gboolean
look (gpointer library, const char *name, CudaKernel *kernel)
{
  cudaKernel_t found = NULL;
  gboolean ok = cudaLibraryGetKernel (&found, library, name) == cudaSuccess;
  if (ok)
    *kernel = found;
  else
    cudaGetLastError ();
  return ok;
}

static void
unload (gpointer library)
{
  cudaLibraryUnload (library);
}

static gboolean
launch (CudaKernel kernel, dim3 grid, dim3 block, gsize shared, void **args, cudaStream_t stream, const HeddleOp *op, GError **error)
{
  return cuda_check (cudaLaunchKernel (kernel, grid, block, args, shared, stream), "cudaLaunchKernel", op, error);
}
#endif

/* ---- modules ---- */

CudaModules *
cuda_modules_new (void)
{
  CudaModules *m = g_new0 (CudaModules, 1);
  static const struct { const char *file; const unsigned char *code; } embedded[] = {
#define FATBIN(name) { #name, heddle_fatbin_##name },
#include "fatbins.def"
#undef FATBIN
  };
  m->own = g_new0 (Module, G_N_ELEMENTS (embedded) + 1);
  for (guint i = 0; i < G_N_ELEMENTS (embedded); i++)
    m->own[i] = (Module) { embedded[i].file, embedded[i].code, NULL };
  m->kernels = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  m->libraries = g_ptr_array_new_with_free_func (unload);
  return m;
}

void
cuda_modules_free (CudaModules *m)
{
  if (m)
    {
      g_ptr_array_unref (m->libraries);
      g_hash_table_unref (m->kernels);
      g_free (m->own);
      g_free (m);
    }
}

gboolean
cuda_modules_load (CudaDevice *device, gconstpointer code, const char *name, CudaKernel *kernel, GError **error)
{
  gpointer library = NULL;
  gboolean ok = load (code, &library, error);
  if (ok)
    {
      g_ptr_array_add (device->modules->libraries, library);
      ok = look (library, name, kernel);
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "generated code has no kernel \"%s\"", name);
    }
  return ok;
}

gboolean
cuda_modules_find (CudaDevice *device, const char *name, CudaKernel *kernel, GError **error)
{
  CudaModules *m = device->modules;
  gboolean ok = TRUE;
  *kernel = g_hash_table_lookup (m->kernels, name);
  for (Module *own = m->own; ok && !*kernel && own->code; own++)
    {
      if (!own->library)
        {
          ok = load (own->code, &own->library, error);
          if (ok)
            g_ptr_array_add (m->libraries, own->library);
          else
            g_prefix_error (error, "kernels/%s: ", own->file);
        }
      if (ok && look (own->library, name, kernel))
        g_hash_table_insert (m->kernels, g_strdup (name), (gpointer) *kernel);
    }
  if (ok && !*kernel)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "the cuda module has no kernel \"%s\"", name);
  return *kernel != NULL;
}

gboolean
cuda_launch_kernel (CudaQueue *queue, CudaKernel kernel, const char *name, dim3 grid, dim3 block, gsize shared_bytes, void **args, GError **error)
{
  gboolean ok = launch (kernel, grid, block, shared_bytes, args, queue->stream, queue->op, error);
  if (!ok)
    g_prefix_error (error, "kernel %s: ", name);
  return ok;
}

gboolean
cuda_launch (CudaQueue *queue, const char *name, dim3 grid, dim3 block, gsize shared_bytes, void **args, GError **error)
{
  CudaKernel kernel = NULL;
  return cuda_modules_find (queue->device, name, &kernel, error) && cuda_launch_kernel (queue, kernel, name, grid, block, shared_bytes, args, error);
}

dim3
cuda_blocks (const CudaDevice *device, gint64 n, guint threads)
{
  gint64 wanted = (n + threads - 1) / threads, most = (gint64) device->processors * (2048 / threads);
  return (dim3) { (unsigned) CLAMP (wanted, 1, MAX (most, 1)), 1, 1 };
}
