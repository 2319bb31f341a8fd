/* cuda/doctor.c: what `heddle doctor` says of CUDA: versions, the files they come from, the devices.  Must not fail without any of them. */
#include "chain-steps.h"
#include "cuda.h"
#include "dnn.h"
#include "ranges.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <dlfcn.h>

static void G_GNUC_PRINTF (2, 3)
add (GPtrArray *lines, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_ptr_array_add (lines, g_strdup_vprintf (format, args));
  va_end (args);
}

/* The file that a function was loaded from. */
static const char *
file_of (gconstpointer function)
{
  Dl_info info = { 0 };
  return dladdr (function, &info) && info.dli_fname ? info.dli_fname : "?";
}

static void
add_libraries (GPtrArray *lines)
{
  int runtime = 0, driver = 0, part[3] = { 0 };
  static const libraryPropertyType kinds[] = { MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL };
  cudaRuntimeGetVersion (&runtime);
  cudaDriverGetVersion (&driver);
  for (guint i = 0; i < 3; i++)
    cublasGetProperty (kinds[i], &part[i]);
  g_autofree char *version = runtime ? g_strdup_printf ("%d.%d", runtime / 1000, runtime % 1000 / 10) : g_strdup ("unknown without a driver");     /* that of CUDA 11 does not say */
  add (lines, "CUDA runtime: %s, built with %d.%d (%s)", version, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10, file_of ((gconstpointer) cudaRuntimeGetVersion));
  add (lines, "cuBLAS: %d.%d.%d (%s)", part[0], part[1], part[2], file_of ((gconstpointer) cublasGetProperty));
  g_autofree char *dnn = cuda_dnn_describe ();
  add (lines, "cuDNN: %s", dnn);
  if (driver)
    add (lines, "driver: supports CUDA up to %d.%d", driver / 1000, driver % 1000 / 10);
  else
    add (lines, "driver: none (libcuda.so.1 is not there)");
}

static void
add_device (GPtrArray *lines, int i)
{
  struct cudaDeviceProp p;
  gsize left = 0, total = 0;
  if (cudaGetDeviceProperties (&p, i) == cudaSuccess && cudaSetDevice (i) == cudaSuccess && cudaMemGetInfo (&left, &total) == cudaSuccess)
    add (lines, "cuda:%d: %s, compute capability %d.%d, %d multiprocessors, %.1f of %.1f GiB free", i, p.name, p.major, p.minor, p.multiProcessorCount, (double) left / 1073741824.0,
         (double) total / 1073741824.0);
  else
    add (lines, "cuda:%d: %s", i, cudaGetErrorString (cudaGetLastError ()));
}

GPtrArray *
cuda_doctor (void)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  const char *visible = g_getenv ("CUDA_VISIBLE_DEVICES");
  int n = 0;
  cudaError_t status = cudaGetDeviceCount (&n);
  cudaGetLastError ();
  g_autofree char *nvrtc = cuda_chain_doctor ();
  add_libraries (lines);
  add (lines, "NVRTC: %s", nvrtc);
  add (lines, "NVTX: %s", cuda_ranges_describe ());
  if (visible)
    add (lines, "CUDA_VISIBLE_DEVICES: %s", visible);
  if (status == cudaErrorInsufficientDriver)
    add (lines, "devices: none: the driver is missing or older than this CUDA runtime");
  else if (status != cudaSuccess || n == 0)
    add (lines, "devices: none: %s", cudaGetErrorString (status != cudaSuccess ? status : cudaErrorNoDevice));
  for (int i = 0; status == cudaSuccess && i < n; i++)
    add_device (lines, i);
  return lines;
}
