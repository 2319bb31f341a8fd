/* cuda/api.c: what CUDA answers becomes an error that people can act on; device memory.  Must not know operations beyond their names. */
#include "cuda.h"
#include "tensor/tensors.h"

#include <string.h>

/* " in conv2d \"conv1\" (f32 64x1x28x28, f32 6x1x5x5)" */
static char *
where (const HeddleOp *op)
{
  GString *text = g_string_new (NULL);
  if (op)
    g_string_append_printf (text, " in %s \"%s\" (", op->info->name, op->name);
  for (guint i = 0; op && i < op->n_in; i++)
    {
      g_autofree char *shape = heddle_shape_print (&op->in[i]->shape);
      g_string_append_printf (text, "%s%s %s", i ? ", " : "", heddle_dtype_name (op->in[i]->dtype), shape);
    }
  if (op)
    g_string_append_c (text, ')');
  return g_string_free (text, FALSE);
}

static const char *
remedy (cudaError_t status, const char *function)
{
  const char *text = "run with CUDA_LAUNCH_BLOCKING=1 and cuda_graphs = false to see which operation it was";
  switch (status)
    {
    case cudaErrorInsufficientDriver: text = "the NVIDIA driver is missing or older than this CUDA runtime: install or update it; nvidia-smi shows what is there"; break;
    case cudaErrorNoDevice: text = "no NVIDIA GPU is visible: look at nvidia-smi and at CUDA_VISIBLE_DEVICES"; break;
    case cudaErrorMemoryAllocation:
      text = g_str_equal (function, "cudaHostAlloc") ? "that is page-locked memory of the host: use a smaller batch_size, fewer num_workers, a smaller prefetch_factor, or pin_memory = false"
                                                     : "use a smaller batch, amp, or recompute in the train stage; or free memory that other processes hold";
      break;
    case cudaErrorNoKernelImageForDevice: case cudaErrorUnsupportedPtxVersion: case cudaErrorInvalidDeviceFunction:
      text = "this build has no code for that GPU's architecture: configure with --with-cuda-arch including it, or update the driver"; break;
    case cudaErrorLaunchOutOfResources: text = "a block of so many threads needs more registers than there are: __launch_bounds__ (threads) in the kernel's source, or fewer threads a block"; break;
    case cudaErrorSystemNotReady: text = "a service of the driver is not running: on machines with NVSwitch nvidia-fabricmanager, of the driver's own version"; break;
    case cudaErrorSystemDriverMismatch: text = "the driver's library and its kernel module are of different versions: restart the machine, or in a container use the host's libcuda.so.1"; break;
    case cudaErrorCompatNotSupportedOnDevice: text = "the forward compatibility package (cuda-compat) is for data centre GPUs: take its folder out of LD_LIBRARY_PATH, or update the driver"; break;
    case cudaErrorDevicesUnavailable: text = "another process has the GPU for itself alone"; break;
    case cudaErrorLaunchTimeout: text = "this GPU also drives a display, whose watchdog ends kernels that take seconds: use a smaller batch, or a GPU without a display"; break;
    case cudaErrorECCUncorrectable: text = "the GPU itself reports a fault: look at nvidia-smi and the kernel's log"; break;
    default: break;
    }
  return text;
}

/* The name of the function in the text of a call. */
static char *
function_of (const char *call)
{
  return g_strchomp (g_strndup (call, strcspn (call, "(")));
}

gboolean
cuda_check (cudaError_t status, const char *call, const HeddleOp *op, GError **error)
{
  if (status != cudaSuccess)
    {
      g_autofree char *function = function_of (call), *place = where (op);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s%s: %s (%s)\nhint: %s", function, place, cudaGetErrorString (status), cudaGetErrorName (status), remedy (status, function));
      cudaGetLastError ();      /* not to be met again by the next call */
    }
  return status == cudaSuccess;
}

gboolean
cuda_fail (const char *call, int status, const char *name, const char *reason, const HeddleOp *op, GError **error)
{
  g_autofree char *function = function_of (call), *place = where (op);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s%s: %s (status %d)%s%s\nhint: HEDDLE_CUDA_PATH=own computes without that library; heddle doctor shows which file it is", function, place,
               name ? name : "refused", status, reason && *reason ? ": " : "", reason ? reason : "");
  return FALSE;
}

/* From CUDA 12 on cudaSetDevice makes the device's context this thread's; before, the next call of the runtime does, and a launch through the driver is none. */
gboolean
cuda_use (CudaDevice *device, GError **error)
{
  gboolean ok = CUDA (cudaSetDevice (device->index), NULL, error);
#if CUDART_VERSION < 12000
  static _Thread_local int current = -1;
  ok = ok && (current == device->index || CUDA (cudaFree (NULL), NULL, error));
  current = ok ? device->index : -1;
#endif
  return ok;
}

gpointer
cuda_malloc (CudaDevice *device, gsize bytes, const char *what, GError **error)
{
  void *memory = NULL;
  gsize left = 0, total = 0;
  cudaError_t status = cudaMalloc (&memory, MAX (bytes, 256));
  if (status == cudaErrorMemoryAllocation)
    {
      cudaGetLastError ();
      cudaMemGetInfo (&left, &total);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: out of memory: %s needs %.1f MiB, %.1f of %.1f MiB are free\nhint: %s", device->base.name, what, (double) bytes / 1048576,
                   (double) left / 1048576, (double) total / 1048576, remedy (status, "cudaMalloc"));
      memory = NULL;
    }
  else if (!cuda_check (status, "cudaMalloc", NULL, error))
    memory = NULL;
  device->allocations += memory != NULL;
  return memory;
}
