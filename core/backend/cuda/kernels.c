/* cuda/kernels.c: functions on the device: images loaded, kernels found by name and launched.  Must not know what they compute. */
#include "cuda.h"
#include "fatbin.h"

/* cudaLibraryLoadData came with CUDA 12.8.  Before it the driver's own functions do the same; they are asked for at run time, so that the module loads without a driver. */
#ifndef CUDA_DRIVER_MODULES
#define CUDA_DRIVER_MODULES (CUDART_VERSION < 12080)
#endif

#if CUDA_DRIVER_MODULES
#include <cuda.h>

typedef CUmodule Image;
struct _CudaKernel { CUfunction function; };
static CUresult (*module_load) (CUmodule *, const void *);
static CUresult (*module_unload) (CUmodule);
static CUresult (*module_function) (CUfunction *, CUmodule, const char *);
static CUresult (*launch_kernel) (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **);

static gboolean
entry (const char *name, gpointer function, GError **error)
{
#if CUDART_VERSION >= 13000
  enum cudaDriverEntryPointQueryResult found;
  return CUDA (cudaGetDriverEntryPointByVersion (name, function, 11080, cudaEnableDefault, &found), NULL, error);
#elif CUDART_VERSION >= 12000
  return CUDA (cudaGetDriverEntryPoint (name, function, cudaEnableDefault, NULL), NULL, error);
#else
  return CUDA (cudaGetDriverEntryPoint (name, function, cudaEnableDefault), NULL, error);
#endif
}

static gboolean
driver_ready (GError **error)
{
  return launch_kernel || (entry ("cuModuleLoadData", &module_load, error) && entry ("cuModuleUnload", &module_unload, error) && entry ("cuModuleGetFunction", &module_function, error)
                           && entry ("cuLaunchKernel", &launch_kernel, error));
}

static cudaError_t
image_load (Image *image, gconstpointer data)
{
  CUresult status = module_load (image, data);
  return status == CUDA_ERROR_NO_BINARY_FOR_GPU ? cudaErrorNoKernelImageForDevice : (cudaError_t) status;     /* the runtime keeps the driver's numbers */
}

static void image_unload (gpointer image) { module_unload (image); }

static cudaError_t
image_kernel (CudaKernel *kernel, Image image, const char *name)
{
  return (cudaError_t) module_function (&kernel->function, image, name);
}

static cudaError_t
kernel_launch (CudaKernel *kernel, const guint *grid, const guint *block, guint shared, cudaStream_t stream, void **args)
{
  return (cudaError_t) launch_kernel (kernel->function, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared, stream, args, NULL);
}
#else
typedef cudaLibrary_t Image;
struct _CudaKernel { cudaKernel_t function; };

static gboolean driver_ready (GError **error) { (void) error; return TRUE; }
static void image_unload (gpointer image) { cudaLibraryUnload (image); }

static cudaError_t
image_load (Image *image, gconstpointer data)
{
  return cudaLibraryLoadData (image, data, NULL, NULL, 0, NULL, NULL, 0);
}

static cudaError_t
image_kernel (CudaKernel *kernel, Image image, const char *name)
{
  return cudaLibraryGetKernel (&kernel->function, image, name);
}

static cudaError_t
kernel_launch (CudaKernel *kernel, const guint *grid, const guint *block, guint shared, cudaStream_t stream, void **args)
{
  return cudaLaunchKernel ((const void *) kernel->function, (dim3) { grid[0], grid[1], grid[2] }, (dim3) { block[0], block[1], block[2] }, args, shared, stream);
}
#endif

/* ---- images ---- */

static gboolean
add_image (CudaDevice *device, gconstpointer data, Image *image, GError **error)
{
  gboolean ok = driver_ready (error) && cuda_check (image_load (image, data), "cudaLibraryLoadData", NULL, error);
  if (ok)
    {
      if (!device->modules)
        device->modules = g_ptr_array_new_with_free_func (image_unload);
      g_ptr_array_add (device->modules, *image);
    }
  return ok;
}

/* The module's own images, all of them with the first kernel asked for: the driver reads code lazily. */
static gboolean
load_own (CudaDevice *device, GError **error)
{
  gboolean ok = TRUE;
  Image image;
  if (!device->kernels)
    {
      device->kernels = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
      for (guint i = 0; ok && cuda_images[i].name; i++)
        ok = add_image (device, cuda_images[i].data, &image, error);
      device->own_images = device->modules ? device->modules->len : 0;
    }
  return ok;
}

CudaKernel *
cuda_kernel (CudaDevice *device, const char *name, GError **error)
{
  gboolean ok = load_own (device, error);
  CudaKernel *kernel = ok ? g_hash_table_lookup (device->kernels, name) : NULL;
  if (ok && !kernel)
    {
      cudaError_t status = cudaErrorSymbolNotFound;
      kernel = g_new0 (CudaKernel, 1);
      for (guint i = 0; status == cudaErrorSymbolNotFound && i < device->own_images; i++)
        status = image_kernel (kernel, device->modules->pdata[i], name);
      cudaGetLastError ();       /* of the images that do not have it */
      if (status == cudaSuccess)
        g_hash_table_insert (device->kernels, g_strdup (name), kernel);
      else
        {
          cuda_check (status, name, NULL, error);
          g_clear_pointer (&kernel, g_free);
        }
    }
  return kernel;
}

CudaKernel *
cuda_kernel_load (CudaDevice *device, gconstpointer data, const char *name, GError **error)
{
  CudaKernel *kernel = g_new0 (CudaKernel, 1);
  Image image;
  if (!add_image (device, data, &image, error) || !cuda_check (image_kernel (kernel, image, name), "cudaLibraryGetKernel", NULL, error))
    g_clear_pointer (&kernel, g_free);
  else
    g_hash_table_insert (device->generated, kernel, kernel);
  return kernel;
}

/* ---- launches ---- */

gboolean
cuda_launch (CudaQueue *queue, CudaKernel *kernel, const CudaGrid *grid, void **args, GError **error)
{
  guint g[3], b[3];
  for (guint i = 0; i < 3; i++)
    {
      g[i] = MAX (grid->grid[i], 1);
      b[i] = MAX (grid->block[i], 1);
    }
  return cuda_check (kernel_launch (kernel, g, b, grid->shared, queue->stream, args), "cudaLaunchKernel", queue->op, error);
}

gboolean
cuda_launch_named (CudaQueue *queue, const char *name, const CudaGrid *grid, gconstpointer args, GError **error)
{
  CudaKernel *kernel = cuda_kernel (queue->device, name, error);
  return kernel && cuda_launch (queue, kernel, grid, (void *[]) { (void *) args }, error);
}

CudaGrid
cuda_grid (const CudaDevice *device, gint64 n, guint threads)
{
  gint64 blocks = (n + threads - 1) / threads;
  return (CudaGrid) { .grid = { (guint) CLAMP (blocks, 1, (gint64) device->processors * 32) }, .block = { threads } };
}
