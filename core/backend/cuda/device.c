/* cuda/device.c: the cuda device: opening, flags, memory of variables and of the host.  Must not know operations. */
#include "cuda.h"
#include "base/memory.h"
#include "ranges.h"
#include "tensor/tensors.h"

#include <string.h>

#define DEVICE(d) ((CudaDevice *) (d))

/* ---- life ---- */

static void
free_extras (CudaDevice *cuda)
{
  if (cuda->dnn_free)
    cuda->dnn_free (cuda->dnn);
  if (cuda->blas_free)
    cuda->blas_free (cuda->blas);
  if (cuda->chains_free)
    cuda->chains_free (cuda->chains);
  if (cuda->rtc_free)
    cuda->rtc_free (cuda->rtc);
  g_clear_pointer (&cuda->customs, g_hash_table_unref);
  g_clear_pointer (&cuda->generated, g_hash_table_unref);
  g_clear_pointer (&cuda->kernels, g_hash_table_unref);
  g_clear_pointer (&cuda->modules, g_ptr_array_unref);
}

static void
free_memory (CudaDevice *cuda)
{
  for (guint i = 0; i < cuda->shadows->len; i++)
    cudaFree (((CudaShadow *) cuda->shadows->pdata[i])->data);
  for (guint i = 0; i < cuda->memory->len; i++)
    cudaFree (cuda->memory->pdata[i]);
  for (guint i = 0; i < CUDA_SLOTS; i++)
    {
      cudaFree (cuda->slots[i].memory);
      if (cuda->slots[i].uploaded)
        cudaEventDestroy (cuda->slots[i].uploaded);
      if (cuda->slots[i].released)
        cudaEventDestroy (cuda->slots[i].released);
    }
  cudaFree (cuda->arena);
  cudaFreeHost (cuda->staging);
  cudaFreeHost (cuda->mails);
  for (guint i = 0; i < CUDA_MAILS; i++)
    if (cuda->delivered[i])
      cudaEventDestroy (cuda->delivered[i]);
}

static void
device_close (HeddleDevice *device)
{
  CudaDevice *cuda = DEVICE (device);
  cuda_use (cuda, NULL);
  cudaDeviceSynchronize ();
  free_extras (cuda);
  free_memory (cuda);
  if (cuda->copy)
    cudaStreamDestroy (cuda->copy);
  if (cuda->compute)
    cudaStreamDestroy (cuda->compute);
  g_ptr_array_unref (cuda->shadows);
  g_ptr_array_unref (cuda->memory);
  g_ptr_array_unref (cuda->plans);
  g_free (cuda->properties);
  g_free (cuda->base.name);
  g_free (cuda);
}

/* ---- flags ---- */

static void
add_flag (GPtrArray *lines, const char *name, gboolean on, const char *note)
{
  g_ptr_array_add (lines, g_strdup_printf ("%s = %s%s%s", name, on ? "true" : "false", note ? ": " : "", note ? note : ""));
}

static GPtrArray *
device_report (HeddleDevice *device)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  const CudaDevice *cuda = DEVICE (device);
  const HeddleFlags *f = &cuda->flags;
  const char *tf32 = cuda->own ? "not honoured by own kernels, they compute full f32" : cuda->capability < 80 ? "not honoured, it needs compute capability 8.0" : NULL;
  static const char *const precisions[] = { "", "highest", "high", "medium" };
  g_ptr_array_add (lines, g_strdup_printf ("%s, compute capability %d.%d, %.1f GiB", cuda->properties->name, cuda->capability / 10, cuda->capability % 10,
                                           (double) cuda->properties->totalGlobalMem / 1073741824.0));
  add_flag (lines, "cuda_graphs", f->cuda_graphs, NULL);
  add_flag (lines, "cudnn_benchmark", f->cudnn_benchmark, f->cudnn_benchmark && cuda->own ? "not honoured, own kernels have no candidates" : NULL);
  add_flag (lines, "tf32_matmul", f->tf32_matmul, f->tf32_matmul ? tf32 : NULL);
  add_flag (lines, "tf32_conv", f->tf32_conv, f->tf32_conv ? tf32 : NULL);
  g_ptr_array_add (lines, g_strdup_printf ("matmul_precision = %s", precisions[f->matmul_precision]));
  add_flag (lines, "deterministic", f->deterministic, NULL);
  add_flag (lines, "fusion", f->fusion, NULL);
  if (cuda->own)
    g_ptr_array_add (lines, g_strdup ("HEDDLE_CUDA_PATH = own: no cuBLAS, no cuDNN, no generated kernels"));
  return lines;
}

static gboolean
device_honours (HeddleDevice *device, const char *name)
{
  static const char *const others[] = { "threads", NULL }, *const libraries[] = { "cudnn_benchmark", "benchmark_limit", "benchmark_shapes", "workspace_limit", "winograd", "tf32", "tf32_matmul", "tf32_conv", "matmul_precision", NULL },
                    *const tensor_cores[] = { "tf32", "tf32_matmul", "tf32_conv", "matmul_precision", NULL };
  const CudaDevice *cuda = DEVICE (device);
  gboolean missing = g_strv_contains (others, name) || (cuda->own && g_strv_contains (libraries, name)) || (cuda->capability < 80 && g_strv_contains (tensor_cores, name));
  return !missing;
}

static gboolean
device_computes (HeddleDevice *device, HeddleDtype dtype)
{
  return dtype == HEDDLE_F32 || dtype == HEDDLE_F16 || (dtype == HEDDLE_BF16 && DEVICE (device)->capability >= 80);
}

/* ---- the host's memory ---- */

static gpointer
host_alloc (HeddleDevice *device, gsize bytes, GError **error)
{
  void *memory = NULL;
  if (cuda_use (DEVICE (device), error) && CUDA (cudaHostAlloc (&memory, MAX (bytes, 64), cudaHostAllocDefault), NULL, error))
    memset (memory, 0, MAX (bytes, 64));
  else
    memory = NULL;
  return memory;
}

/* A batch may still be on its way, and the calling thread's device another. */
static void
host_free (HeddleDevice *device, gpointer memory, gsize bytes)
{
  (void) bytes;
  if (cuda_use (DEVICE (device), NULL))
    cudaStreamSynchronize (DEVICE (device)->copy);
  cudaFreeHost (memory);
}

/* ---- variables ---- */

static gboolean
allocate_one (HeddleDevice *device, HeddleVariable *v, GError **error)
{
  CudaDevice *cuda = DEVICE (device);
  gsize bytes = heddle_tensor_bytes (v->dtype, &v->shape);
  g_autofree char *what = g_strdup_printf ("variable \"%s\"", v->name);
  v->data = cuda_malloc (cuda, bytes, what, error);
  if (v->data)
    g_ptr_array_add (cuda->memory, v->data);
  return v->data && CUDA (cudaMemsetAsync (v->data, 0, bytes, cuda->compute), NULL, error);
}

static gboolean
device_allocate (HeddleDevice *device, HeddleVariables *vars, GError **error)
{
  return cuda_use (DEVICE (device), error) && heddle_variables_place (device, vars, allocate_one, error);
}

/* Numbers of a tensor of rank 4, channels last in SRC and in rows in DST, or the other way round */
static void
permute (const HeddleShape *s, gsize size, gboolean to_rows, const char *src, char *dst)
{
  gint64 own[HEDDLE_MAX_RANK] = { 0 }, row = 0;
  cuda_strides (s, CUDA_CHANNELS_LAST, own);
  for (gint64 a = 0; a < s->size[0]; a++)
    for (gint64 b = 0; b < s->size[1]; b++)
      for (gint64 c = 0; c < s->size[2]; c++)
        for (gint64 d = 0; d < s->size[3]; d++, row++)
          {
            gsize at = (gsize) (a * own[0] + b * own[1] + c * own[2] + d * own[3]) * size, line = (gsize) row * size;
            memcpy (dst + (to_rows ? line : at), src + (to_rows ? at : line), size);
          }
}

/* NUMBERS are V's as the device keeps them, and become rows, or the other way round.  A flat buffer is turned window by window: its parameters' layouts are its own. */
static void
turn (const HeddleVariable *v, gboolean to_rows, char *numbers)
{
  const GPtrArray *params = v->group && !v->flat ? v->group->params : NULL;
  gsize size = heddle_dtype_size (v->dtype);
  for (guint i = 0; i < (params ? params->len : 1); i++)
    {
      const HeddleVariable *window = params ? params->pdata[i] : v;
      if (cuda_variable_layout (window) == CUDA_CHANNELS_LAST)
        {
          char *at = numbers + (params ? (gsize) window->offset * size : 0);
          g_autofree char *copy = heddle_memdup (at, (gsize) heddle_shape_count (&window->shape) * size);
          permute (&window->shape, size, to_rows, copy, at);
        }
    }
}

static void
make_stale (CudaDevice *cuda, const HeddleVariable *v)
{
  for (guint i = 0; i < cuda->shadows->len; i++)
    {
      CudaShadow *s = cuda->shadows->pdata[i];
      s->stale |= s->flat == v || s->flat == v->flat;
    }
}

/* One number is an argument of a kernel: no copy to wait for. */
static gboolean
write_number (CudaDevice *cuda, HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  CudaQueue queue = { .device = cuda, .stream = cuda->compute };
  float number = 0;
  heddle_convert (HEDDLE_F32, &number, t->dtype, t->data, 1);
  return cuda_fill (&queue, v->data, v->dtype, 1, (double) number, error);
}

static gboolean
write_many (CudaDevice *cuda, HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  gsize n = (gsize) heddle_shape_count (&v->shape), bytes = n * heddle_dtype_size (v->dtype);
  g_autofree char *numbers = g_malloc (bytes);
  heddle_convert (v->dtype, numbers, t->dtype, t->data, n);
  turn (v, FALSE, numbers);
  gboolean ok = CUDA (cudaMemcpyAsync (v->data, numbers, bytes, cudaMemcpyHostToDevice, cuda->compute), NULL, error);
  cuda->syncs++;
  return CUDA (cudaStreamSynchronize (cuda->compute), NULL, ok ? error : NULL) && ok;
}

static gboolean
device_write (HeddleDevice *device, HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  gboolean ok = heddle_variable_holds (v, t, error) && cuda_use (DEVICE (device), error), number = ok && v->dtype == HEDDLE_F32 && heddle_shape_count (&v->shape) == 1;
  ok = ok && (number ? write_number (DEVICE (device), v, t, error) : write_many (DEVICE (device), v, t, error));
  make_stale (DEVICE (device), v);
  return ok;
}

static gboolean
device_read (HeddleDevice *device, HeddleVariable *v, HeddleTensor *t, GError **error)
{
  CudaDevice *cuda = DEVICE (device);
  gsize n = (gsize) heddle_shape_count (&v->shape), bytes = n * heddle_dtype_size (v->dtype);
  gboolean ok = heddle_variable_holds (v, t, error) && cuda_use (cuda, error);
  char *staging = ok ? cuda_staging (cuda, bytes, error) : NULL;
  ok = staging && CUDA (cudaMemcpyAsync (staging, v->data, bytes, cudaMemcpyDeviceToHost, cuda->compute), NULL, error) && cuda_settle (cuda, error);
  if (ok)
    {
      turn (v, TRUE, staging);
      heddle_convert (t->dtype, t->data, v->dtype, staging, n);
    }
  return ok;
}

/* ---- the interface ---- */

static const HeddleProgram *
plan_program (HeddlePlan *plan)
{
  return ((CudaPlan *) plan)->program;
}

static guint64
device_counter (HeddleDevice *device, HeddleCounter counter)
{
  const CudaDevice *cuda = DEVICE (device);
  guint64 n = 0;
  switch (counter)
    {
    case HEDDLE_COUNTER_ALLOCATIONS: n = cuda->allocations; break;
    case HEDDLE_COUNTER_PRIMITIVES: n = cuda->primitives; break;
    case HEDDLE_COUNTER_SYNCS: n = cuda->syncs; break;
    case HEDDLE_COUNTER_REORDERS: n = cuda->plans->len ? ((const CudaPlan *) cuda->plans->pdata[cuda->plans->len - 1])->n_reorders : 0; break;
    case HEDDLE_COUNTER_COPY: n = cuda->waited; break;
    }
  return n;
}

static void
range_push (HeddleDevice *device, const char *name)
{
  (void) device;
  cuda_range_push (name);
}

static void
range_pop (HeddleDevice *device, const char *name)
{
  (void) device;
  cuda_range_pop (name);
}

static const HeddleDeviceIface device_iface = {
  .size = sizeof (HeddleDeviceIface), .close = device_close, .report = device_report, .computes = device_computes, .host_alloc = host_alloc, .host_free = host_free,
  .compile = cuda_compile, .plan_free = cuda_plan_free, .program = plan_program, .memory = cuda_plan_memory, .describe = cuda_plan_describe,
  .allocate = device_allocate, .write = device_write, .read = device_read, .run = cuda_run, .fetch = cuda_fetch, .sync = cuda_sync, .counter = device_counter,
  .honours = device_honours, .timing = cuda_plan_timing, .step = cuda_plan_step, .buffer = cuda_plan_buffer, .reorders = cuda_plan_reorders,
  .range_push = range_push, .range_pop = range_pop,
  .snapshot = cuda_snapshot, .arrive = cuda_arrive,
};

/* ---- opening ---- */

/* How many devices there are; 0 with an error that says why none can be used. */
static int
count_devices (GError **error)
{
  int n = 0, driver = 0;
  cudaError_t status = cudaGetDeviceCount (&n);
  cudaDriverGetVersion (&driver);
  cudaGetLastError ();
  if (status == cudaErrorInsufficientDriver && driver == 0)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no NVIDIA driver on this machine\nhint: use device = \"cpu\" or \"auto\"; with a GPU, install its driver (nvidia-smi tells)");
  else if (status != cudaSuccess)
    cuda_check (status, "cudaGetDeviceCount", NULL, error);
  else if (n == 0)
    cuda_check (cudaErrorNoDevice, "cudaGetDeviceCount", NULL, error);
  return status == cudaSuccess ? n : 0;
}

static gboolean
make_streams (CudaDevice *cuda, GError **error)
{
  gboolean ok = CUDA (cudaStreamCreateWithFlags (&cuda->compute, cudaStreamNonBlocking), NULL, error) && CUDA (cudaStreamCreateWithFlags (&cuda->copy, cudaStreamNonBlocking), NULL, error);
  for (guint i = 0; ok && i < CUDA_SLOTS; i++)
    ok = CUDA (cudaEventCreateWithFlags (&cuda->slots[i].uploaded, cudaEventDisableTiming), NULL, error)
         && CUDA (cudaEventCreateWithFlags (&cuda->slots[i].released, cudaEventDisableTiming), NULL, error);
  for (guint i = 0; ok && i < CUDA_MAILS; i++)
    ok = CUDA (cudaEventCreateWithFlags (&cuda->delivered[i], cudaEventDisableTiming), NULL, error);
  cuda->mails = ok ? host_alloc (&cuda->base, CUDA_MAILS * sizeof *cuda->mails, error) : NULL;
  return cuda->mails != NULL;
}

static gboolean
look_at_device (CudaDevice *cuda, GError **error)
{
  gboolean ok = cuda_use (cuda, error) && CUDA (cudaGetDeviceProperties (cuda->properties, cuda->index), NULL, error);
  cuda->capability = cuda->properties->major * 10 + cuda->properties->minor;
  cuda->processors = (guint) MAX (cuda->properties->multiProcessorCount, 1);
  return ok;
}

/* Is there code for this device that its driver takes?  Code is loaded lazily: only a launch tells. */
static gboolean
try_device (CudaDevice *cuda, GError **error)
{
  CudaQueue queue = { cuda, cuda->compute, NULL };
  gpointer memory = cuda_malloc (cuda, 256, "a first kernel", error);
  gboolean ok = memory && cuda_fill (&queue, memory, HEDDLE_F32, 64, 0, error) && CUDA (cudaStreamSynchronize (cuda->compute), NULL, error);
  cudaFree (memory);
  return ok;
}

extern const HeddleBackend heddle_backend;

static HeddleDevice *
backend_open (guint index, const HeddleFlags *flags, GError **error)
{
  int n = count_devices (error);
  CudaDevice *cuda = NULL;
  if (n > 0 && (int) index >= n)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no such device: \"cuda:%u\"\nhint: %d GPU%s visible: cuda:0%s%.0d; CUDA_VISIBLE_DEVICES chooses", index, n, n > 1 ? "s are" : " is", n > 1 ? " to cuda:" : "",
                 n - 1);
  else if (n > 0)
    {
      cuda_ranges_open ();
      cuda = g_new0 (CudaDevice, 1);
      cuda->base.iface = &device_iface;
      cuda->base.backend = &heddle_backend;
      cuda->base.name = g_strdup_printf ("cuda:%u", index);
      cuda->flags = *flags;
      cuda->index = (int) index;
      cuda->properties = g_new0 (struct cudaDeviceProp, 1);
      cuda->own = g_strcmp0 (g_getenv ("HEDDLE_CUDA_PATH"), "own") == 0;
      cuda->memory = g_ptr_array_new ();
      cuda->shadows = g_ptr_array_new_with_free_func (g_free);
      cuda->plans = g_ptr_array_new ();
      cuda->generated = g_hash_table_new_full (g_direct_hash, g_direct_equal, g_free, NULL);
      if (!look_at_device (cuda, error) || !make_streams (cuda, error) || !try_device (cuda, error))
        {
          device_close (&cuda->base);
          cuda = NULL;
        }
    }
  return cuda ? &cuda->base : NULL;
}

__attribute__ ((visibility ("default"))) const HeddleBackend heddle_backend = {
  .size = sizeof (HeddleBackend), .kind = "cuda", .summary = "NVIDIA GPUs through CUDA, cuBLAS, cuDNN and kernels of our own", .doctor = cuda_doctor, .open = backend_open,
};
