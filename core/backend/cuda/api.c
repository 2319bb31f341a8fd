/* cuda/api.c: statuses of CUDA's libraries become errors with the call, the operation and the remedy.  Must not know plans. */
#include "cuda.h"
#include "tensor/tensors.h"

static const struct { cudaError_t code; const char *hint; } remedies[] = {
  { cudaErrorInsufficientDriver, "the NVIDIA driver is missing or too old for this CUDA runtime: heddle doctor shows both versions" },
  { cudaErrorNoDevice, "no NVIDIA GPU is visible: is CUDA_VISIBLE_DEVICES set to something else? device = \"cpu\" needs none" },
  { cudaErrorMemoryAllocation, "use a smaller batch, amp, or recompute = \"blocks\"" },
  { cudaErrorNoKernelImageForDevice, "this build has no code for this GPU: configure --with-cuda-arch with its compute capability (heddle doctor)" },
  { cudaErrorInvalidDevice, "heddle doctor lists the devices; CUDA_VISIBLE_DEVICES renumbers them" },
  { cudaErrorDevicesUnavailable, "another process uses the GPU exclusively" },
  { cudaErrorSystemDriverMismatch, "the kernel module and the driver's library differ: restart after an update of the driver" },
  { cudaErrorECCUncorrectable, "the GPU's memory is faulty" },
};

static const char *
remedy (cudaError_t code)
{
  const char *hint = NULL;
  for (guint i = 0; !hint && i < G_N_ELEMENTS (remedies); i++)
    if (remedies[i].code == code)
      hint = remedies[i].hint;
  return hint;
}

/* " in conv2d \"layer1.conv1\" (f16 64x64x56x56)" */
static char *
op_text (const HeddleOp *op)
{
  char *text = g_strdup ("");
  if (op)
    {
      const HeddleValue *v = op->n_out ? op->out[0] : op->in[0];
      g_autofree char *shape = heddle_shape_print (&v->shape);
      g_free (text);
      text = g_strdup_printf (" in %s \"%s\" (%s %s)", op->info->name, op->name, heddle_dtype_name (v->dtype), shape);
    }
  return text;
}

gboolean
cuda_check (cudaError_t code, const char *call, const HeddleOp *op, GError **error)
{
  if (code != cudaSuccess)
    {
      g_autofree char *where = op_text (op);
      const char *hint = remedy (code);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s%s: %s (%s)%s%s", call, where, cudaGetErrorString (code), cudaGetErrorName (code), hint ? "\nhint: " : "", hint ? hint : "");
      cudaGetLastError ();      /* a status that is not sticky must not meet the next call */
    }
  return code == cudaSuccess;
}

static const char *
cublas_name (cublasStatus_t code)
{
  static const struct { cublasStatus_t code; const char *name; } names[] = {
    { CUBLAS_STATUS_NOT_INITIALIZED, "not initialized" }, { CUBLAS_STATUS_ALLOC_FAILED, "allocation failed" }, { CUBLAS_STATUS_INVALID_VALUE, "invalid value" },
    { CUBLAS_STATUS_ARCH_MISMATCH, "not for this GPU" }, { CUBLAS_STATUS_MAPPING_ERROR, "mapping error" }, { CUBLAS_STATUS_EXECUTION_FAILED, "execution failed" },
    { CUBLAS_STATUS_INTERNAL_ERROR, "internal error" }, { CUBLAS_STATUS_NOT_SUPPORTED, "not supported" },
  };
  const char *name = "unknown status";
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (names[i].code == code)
      name = names[i].name;
  return name;
}

gboolean
cublas_check (cublasStatus_t code, const char *call, const HeddleOp *op, GError **error)
{
  if (code != CUBLAS_STATUS_SUCCESS)
    {
      g_autofree char *where = op_text (op);
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s%s: %s (cuBLAS status %d)\nhint: HEDDLE_CUDA_PATH=own goes without cuBLAS", call, where, cublas_name (code), (int) code);
    }
  return code == CUBLAS_STATUS_SUCCESS;
}

gboolean
cuda_no_memory (gsize bytes, const char *what, const char *peak, GError **error)
{
  size_t available = 0, total = 0;
  cudaGetLastError ();
  gboolean known = cudaMemGetInfo (&available, &total) == cudaSuccess;
  GString *text = g_string_new (NULL);
  g_string_append_printf (text, "out of GPU memory: %s needs %" G_GSIZE_FORMAT " MiB", what, (bytes + (1 << 20) - 1) >> 20);
  if (known)
    g_string_append_printf (text, ", free are %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " MiB", available >> 20, total >> 20);
  if (peak)
    g_string_append_printf (text, "; it is fullest at %s", peak);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s\nhint: %s", text->str, remedy (cudaErrorMemoryAllocation));
  g_string_free (text, TRUE);
  return FALSE;
}
