/* cuda/device.c: the cuda device: opening, memory of variables, small writes, what doctor shows.  Must not know operations. */
#define _GNU_SOURCE             /* dladdr */
#include "cuda.h"
#include "base/trace.h"
#include "tensor/tensors.h"

#include <dlfcn.h>
#include <string.h>

#define CUDA(d) ((CudaDevice *) (d))

/* ---- memory ---- */

gpointer
cuda_memory_new (CudaDevice *device, gsize bytes, const char *what, GError **error)
{
  void *memory = NULL;
  gsize rounded = (MAX (bytes, 1) + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
  cudaError_t code = cudaMalloc (&memory, rounded);
  gboolean ok = code == cudaErrorMemoryAllocation ? cuda_no_memory (rounded, what, NULL, error) : cuda_check (code, "cudaMalloc", NULL, error);
  ok = ok && cuda_check (cudaMemsetAsync (memory, 0, rounded, device->compute), "cudaMemsetAsync", NULL, error);
  if (ok)
    device->allocations++;
  else if (memory)
    {
      cudaFree (memory);
      memory = NULL;
    }
  return memory;
}

static gpointer
host_alloc (HeddleDevice *device, gsize bytes, GError **error)
{
  void *memory = NULL;
  (void) device;
  if (cuda_check (cudaHostAlloc (&memory, MAX (bytes, 64), cudaHostAllocDefault), "cudaHostAlloc (pinned memory)", NULL, error))
    memset (memory, 0, MAX (bytes, 64));
  return memory;
}

static void
host_free (HeddleDevice *device, gpointer memory, gsize bytes)
{
  (void) device;
  (void) bytes;
  if (memory)
    cudaFreeHost (memory);
}

gboolean
cuda_device_sync (HeddleDevice *base, GError **error)
{
  CudaDevice *device = CUDA (base);
  device->syncs++;
  return cuda_check (cudaStreamSynchronize (device->copy), "cudaStreamSynchronize (copies)", NULL, error)
         && cuda_check (cudaStreamSynchronize (device->compute), "cudaStreamSynchronize", NULL, error);
}

/* A kernel met an index outside its table: labels and tokens are checked when they are read, but not what a program computes. */
static gboolean
check_fault (CudaDevice *device, const gint64 *fault, GError **error)
{
  const HeddleProgram *p = device->last ? device->last->program : NULL;
  const HeddleOp *op = p && fault[0] > 0 && fault[0] <= (gint64) p->ops->len ? p->ops->pdata[fault[0] - 1] : NULL;
  if (fault[0])
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s \"%s\": index %" G_GINT64_FORMAT " is out of range", op ? op->info->name : "operation", op ? op->name : "?", fault[1]);
      cudaMemsetAsync (device->fault, 0, 2 * sizeof *fault, device->compute);
    }
  return fault[0] == 0;
}

gboolean
cuda_copy_out (CudaDevice *device, gpointer host, gconstpointer from, gsize bytes, GError **error)
{
  gint64 fault[2] = { 0, 0 };
  device->syncs++;
  return cuda_check (cudaMemcpyAsync (host, from, bytes, cudaMemcpyDeviceToHost, device->compute), "cudaMemcpyAsync (to the host)", NULL, error)
         && cuda_check (cudaMemcpyAsync (fault, device->fault, sizeof fault, cudaMemcpyDeviceToHost, device->compute), "cudaMemcpyAsync (fault)", NULL, error)
         && cuda_check (cudaStreamSynchronize (device->compute), "cudaStreamSynchronize", NULL, error) && check_fault (device, fault, error);
}

/* ---- small writes: scalars set at every step travel through a ring of pinned memory, so that nobody waits ---- */

/* Before the first slot of a half is used again, its last write has long passed: this waits only when a thousand writes overtake the device. */
static gboolean
mail_slot (CudaDevice *device, char **slot, GError **error)
{
  guint half = device->mail_next / (CUDA_MAIL_SLOTS / 2);
  gboolean ok = TRUE;
  if (device->mail_next % (CUDA_MAIL_SLOTS / 2) == 0)
    {
      ok = cuda_check (cudaEventRecord (device->mail_passed[1 - half], device->compute), "cudaEventRecord", NULL, error);
      cudaError_t passed = ok ? cudaEventQuery (device->mail_passed[half]) : cudaSuccess;
      if (passed == cudaErrorNotReady)
        {
          device->syncs++;
          passed = cudaEventSynchronize (device->mail_passed[half]);
        }
      ok = ok && cuda_check (passed, "cudaEventSynchronize (small writes)", NULL, error);
    }
  *slot = device->mail + device->mail_next * CUDA_MAIL_BYTES;
  device->mail_next = (device->mail_next + 1) % CUDA_MAIL_SLOTS;
  return ok;
}

static gboolean
copy_in (CudaDevice *device, gpointer to, gconstpointer host, gsize bytes, GError **error)
{
  char *slot = NULL;
  gboolean ok;
  if (bytes <= CUDA_MAIL_BYTES)
    {
      ok = mail_slot (device, &slot, error);
      if (ok)
        {
          memcpy (slot, host, bytes);
          ok = cuda_check (cudaMemcpyAsync (to, slot, bytes, cudaMemcpyHostToDevice, device->compute), "cudaMemcpyAsync (small write)", NULL, error);
        }
    }
  else
    {
      device->syncs++;
      ok = cuda_check (cudaMemcpyAsync (to, host, bytes, cudaMemcpyHostToDevice, device->compute), "cudaMemcpyAsync (to the device)", NULL, error)
           && cuda_check (cudaStreamSynchronize (device->compute), "cudaStreamSynchronize", NULL, error);
    }
  return ok;
}

/* ---- variables ---- */

static gboolean
allocate (HeddleDevice *base, HeddleVariables *vars, GError **error)
{
  CudaDevice *device = CUDA (base);
  gboolean ok = TRUE;
  guint n = heddle_variables_count (vars);
  for (guint i = 0; ok && i < n; i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      if (!v->flat && !v->data)
        {
          v->data = cuda_memory_new (device, heddle_tensor_bytes (v->dtype, &v->shape), v->name, error);
          ok = v->data != NULL;
          if (ok)
            g_ptr_array_add (device->memory, v->data);
        }
    }
  for (guint i = 0; ok && i < n; i++)
    {
      HeddleVariable *v = heddle_variables_nth (vars, i);
      if (v->flat)
        v->data = (char *) v->flat->data + (gsize) v->offset * heddle_dtype_size (v->dtype);
    }
  return ok;
}

static gboolean
check_tensor (const HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  gboolean ok = v->data && heddle_shape_count (&v->shape) == heddle_shape_count (&t->shape);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "\"%s\": %s", v->name, v->data ? "another number of elements" : "not allocated yet");
  return ok;
}

void
cuda_swap_order (const HeddleShape *s, gsize size, gboolean to_rows, const char *from, char *to)
{
  gsize pixels = (gsize) (s->size[2] * s->size[3]), channels = (gsize) s->size[1];
  for (gsize n = 0; n < (gsize) s->size[0]; n++)
    for (gsize c = 0; c < channels; c++)
      for (gsize p = 0; p < pixels; p++)
        {
          gsize rows = ((n * channels + c) * pixels + p) * size, last = ((n * pixels + p) * channels + c) * size;
          memcpy (to + (to_rows ? rows : last), from + (to_rows ? last : rows), size);
        }
}

static gboolean
write_variable (HeddleDevice *base, HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  gsize n = (gsize) heddle_shape_count (&v->shape), bytes = heddle_tensor_bytes (v->dtype, &v->shape);
  gboolean ok = check_tensor (v, t, error);
  if (ok)
    {
      g_autofree char *host = g_malloc (MAX (bytes, 1)), *other = v->layout ? g_malloc (bytes) : NULL;
      heddle_convert (v->dtype, host, t->dtype, t->data, n);
      if (other)
        cuda_swap_order (&v->shape, heddle_dtype_size (v->dtype), FALSE, host, other);
      ok = copy_in (CUDA (base), v->data, other ? other : host, bytes, error);
    }
  return ok;
}

static gboolean
read_variable (HeddleDevice *base, HeddleVariable *v, HeddleTensor *t, GError **error)
{
  gsize n = (gsize) heddle_shape_count (&v->shape), bytes = heddle_tensor_bytes (v->dtype, &v->shape);
  gboolean ok = check_tensor (v, t, error);
  if (ok)
    {
      g_autofree char *host = g_malloc (MAX (bytes, 1)), *other = v->layout ? g_malloc (bytes) : NULL;
      ok = cuda_copy_out (CUDA (base), host, v->data, bytes, error);
      if (ok && other)
        cuda_swap_order (&v->shape, heddle_dtype_size (v->dtype), TRUE, host, other);
      if (ok)
        heddle_convert (t->dtype, t->data, v->dtype, other ? other : host, n);
    }
  return ok;
}

/* ---- facts ---- */

static gboolean
computes (HeddleDevice *base, HeddleDtype dtype)
{
  return dtype == HEDDLE_F32 || dtype == HEDDLE_F16 || (dtype == HEDDLE_BF16 && CUDA (base)->major >= 8);
}

static gboolean
honours (HeddleDevice *base, const char *name)
{
  const CudaDevice *device = CUDA (base);
  gboolean libraries = !device->own, tf32 = device->major >= 8;
  gboolean library_flag = g_str_equal (name, "cudnn_benchmark") || g_str_has_prefix (name, "benchmark_") || g_str_equal (name, "workspace_limit");
  gboolean tf32_flag = g_str_has_prefix (name, "tf32") || g_str_equal (name, "matmul_precision");
  return library_flag ? libraries : tf32_flag ? libraries && tf32 : !g_str_equal (name, "threads") && !g_str_equal (name, "winograd");
}

static void
add_flag (GPtrArray *lines, HeddleDevice *base, const char *name, const char *value, gboolean wanted, const char *why)
{
  gboolean bad = wanted && !honours (base, name);
  g_ptr_array_add (lines, g_strdup_printf ("%s = %s%s%s", name, value, bad ? ": not honoured, " : "", bad ? why : ""));
}

static GPtrArray *
report (HeddleDevice *base)
{
  static const char *const words[] = { "false", "true" };
  const CudaDevice *device = CUDA (base);
  const HeddleFlags *f = &device->flags;
  const char *why = device->own ? "HEDDLE_CUDA_PATH=own uses no library" : "this GPU has no TF32";
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  g_ptr_array_add (lines, g_strdup_printf ("GPU = %s, compute capability %d.%d", device->model, device->major, device->minor));
  g_ptr_array_add (lines, g_strdup_printf ("path = %s", device->own ? "own kernels for everything" : "cuDNN, cuBLAS, generated and own kernels"));
  g_ptr_array_add (lines, g_strdup_printf ("cuda_graphs = %s", words[device->graphs]));
  g_ptr_array_add (lines, g_strdup_printf ("deterministic = %s", words[f->deterministic]));
  g_ptr_array_add (lines, g_strdup_printf ("fusion = %s", words[f->fusion]));
  add_flag (lines, base, "cudnn_benchmark", words[f->cudnn_benchmark], f->cudnn_benchmark, why);
  add_flag (lines, base, "tf32_matmul", words[f->tf32_matmul], f->tf32_matmul, why);
  add_flag (lines, base, "tf32_conv", words[f->tf32_conv], f->tf32_conv, why);
  add_flag (lines, base, "matmul_precision", f->matmul_precision == HEDDLE_PRECISION_HIGHEST ? "highest" : f->matmul_precision == HEDDLE_PRECISION_HIGH ? "high" : "medium",
            f->matmul_precision != HEDDLE_PRECISION_HIGHEST, why);
  return lines;
}

static guint64
counter (HeddleDevice *base, HeddleCounter which)
{
  const CudaDevice *device = CUDA (base);
  guint64 n = 0;
  switch (which)
    {
    case HEDDLE_COUNTER_ALLOCATIONS: n = device->allocations; break;
    case HEDDLE_COUNTER_PRIMITIVES: n = device->primitives; break;
    case HEDDLE_COUNTER_SYNCS: n = device->syncs; break;
    case HEDDLE_COUNTER_REORDERS: n = device->reorders; break;
    case HEDDLE_COUNTER_COPY: n = (guint64) device->copy_ns; break;
    }
  return n;
}

static const HeddleProgram *
plan_program (HeddlePlan *plan)
{
  return ((CudaPlan *) plan)->program;
}

/* ---- life ---- */

static void
device_close (HeddleDevice *base)
{
  CudaDevice *device = CUDA (base);
  if (device->compute)
    cudaStreamSynchronize (device->compute);
  if (device->libraries)
    device->libraries_free (device->libraries);
  if (device->lt)
    cublasLtDestroy (device->lt);
  cuda_modules_free (device->modules);
  for (guint i = 0; i < device->memory->len; i++)
    cudaFree (device->memory->pdata[i]);
  g_ptr_array_unref (device->memory);
  cudaFree (device->arena);
  cudaFree (device->workspace);
  cudaFree (device->fault);
  cudaFreeHost (device->mail);
  for (guint i = 0; i < 2; i++)
    {
      if (device->mail_passed[i])
        cudaEventDestroy (device->mail_passed[i]);
      if (device->sent[i])
        cudaEventDestroy (device->sent[i]);
    }
  if (device->compute)
    cudaStreamDestroy (device->compute);
  if (device->copy)
    cudaStreamDestroy (device->copy);
  g_free (device->model);
  g_free (device->base.name);
  g_free (device);
}

static const HeddleDeviceIface device_iface = {
  .size = sizeof (HeddleDeviceIface), .close = device_close, .report = report, .computes = computes, .host_alloc = host_alloc, .host_free = host_free,
  .compile = cuda_compile, .plan_free = cuda_plan_free, .program = plan_program, .memory = cuda_plan_memory, .describe = cuda_plan_describe,
  .allocate = allocate, .write = write_variable, .read = read_variable, .run = cuda_plan_run, .fetch = cuda_plan_fetch, .sync = cuda_device_sync, .counter = counter,
  .honours = honours, .timing = cuda_plan_timing, .step = cuda_plan_step, .buffer = cuda_plan_buffer,
};

static gboolean
read_facts (CudaDevice *device, GError **error)
{
  struct cudaDeviceProp facts;
  gboolean ok = cuda_check (cudaGetDeviceProperties (&facts, device->ordinal), "cudaGetDeviceProperties", NULL, error);
  if (ok)
    {
      device->major = facts.major;
      device->minor = facts.minor;
      device->processors = (guint) facts.multiProcessorCount;
      device->model = g_strdup (facts.name);
    }
  return ok;
}

static gboolean
make_streams (CudaDevice *device, GError **error)
{
  gboolean ok = cuda_check (cudaStreamCreateWithFlags (&device->compute, cudaStreamNonBlocking), "cudaStreamCreateWithFlags", NULL, error)
                && cuda_check (cudaStreamCreateWithFlags (&device->copy, cudaStreamNonBlocking), "cudaStreamCreateWithFlags", NULL, error);
  for (guint i = 0; ok && i < 2; i++)
    ok = cuda_check (cudaEventCreateWithFlags (&device->mail_passed[i], cudaEventDisableTiming), "cudaEventCreateWithFlags", NULL, error)
         && cuda_check (cudaEventCreateWithFlags (&device->sent[i], cudaEventDisableTiming), "cudaEventCreateWithFlags", NULL, error);
  return ok && (device->mail = host_alloc (&device->base, CUDA_MAIL_SLOTS * CUDA_MAIL_BYTES, error))
         && (device->fault = cuda_memory_new (device, CUDA_ALIGN, "the fault word", error));
}

static gboolean
open_libraries (CudaDevice *device, GError **error)
{
  gboolean ok = TRUE;
  if (!device->own)
    ok = cublas_check (cublasLtCreate (&device->lt), "cublasLtCreate", NULL, error) && (device->workspace = cuda_memory_new (device, CUDA_WORKSPACE, "cuBLAS's workspace", error));
  return ok;
}

extern const HeddleBackend heddle_backend;

/* The number of devices; an error, not 0, says why there is none. */
static gboolean
count_devices (int *n, GError **error)
{
  *n = 0;
  return cuda_check (cudaGetDeviceCount (n), "cudaGetDeviceCount", NULL, error);
}

static HeddleDevice *
backend_open (guint index, const HeddleFlags *flags, GError **error)
{
  CudaDevice *device = g_new0 (CudaDevice, 1);
  int n = 0;
  device->base = (HeddleDevice) { &device_iface, &heddle_backend, g_strdup_printf ("cuda:%u", index) };
  device->flags = *flags;
  device->ordinal = (int) index;
  device->own = g_strcmp0 (g_getenv ("HEDDLE_CUDA_PATH"), "own") == 0;
  device->graphs = flags->cuda_graphs;
  device->memory = g_ptr_array_new ();
  gboolean ok = count_devices (&n, error);
  if (ok && index >= (guint) n)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no such device: \"cuda:%u\"; there %s %d\nhint: heddle doctor lists the devices; CUDA_VISIBLE_DEVICES renumbers them",
                   index, n == 1 ? "is" : "are", n);
      ok = FALSE;
    }
  ok = ok && cuda_check (cudaSetDevice (device->ordinal), "cudaSetDevice", NULL, error) && read_facts (device, error) && make_streams (device, error);
  if (ok)
    device->modules = cuda_modules_new ();
  ok = ok && open_libraries (device, error);
  if (!ok)
    {
      device_close (&device->base);
      device = NULL;
    }
  return device ? &device->base : NULL;
}

/* ---- doctor ---- */

static void
add_version (GPtrArray *lines, const char *what, int version, gpointer symbol)
{
  Dl_info info;
  const char *file = symbol && dladdr (symbol, &info) ? info.dli_fname : NULL;
  if (version == 0)
    g_ptr_array_add (lines, g_strdup_printf ("%s: none", what));
  else
    g_ptr_array_add (lines, g_strdup_printf ("%s: %d.%d%s%s", what, version / 1000, version % 1000 / 10, file ? ", " : "", file ? file : ""));
}

static void
add_devices (GPtrArray *lines)
{
  g_autoptr (GError) error = NULL;
  int n = 0;
  if (!count_devices (&n, &error))
    {
      g_auto (GStrv) parts = g_strsplit (error->message, "\n", -1);
      for (guint i = 0; parts[i]; i++)
        g_ptr_array_add (lines, g_strdup_printf ("%s%s", i ? "" : "no device: ", parts[i]));
    }
  for (int i = 0; i < n; i++)
    {
      struct cudaDeviceProp facts;
      size_t available = 0, total = 0;
      if (cudaGetDeviceProperties (&facts, i) == cudaSuccess && cudaSetDevice (i) == cudaSuccess && cudaMemGetInfo (&available, &total) == cudaSuccess)
        g_ptr_array_add (lines, g_strdup_printf ("cuda:%d: %s, compute capability %d.%d, %d multiprocessors, %" G_GSIZE_FORMAT " of %" G_GSIZE_FORMAT " MiB free", i, facts.name,
                                                 facts.major, facts.minor, facts.multiProcessorCount, available >> 20, total >> 20));
    }
}

static GPtrArray *
backend_doctor (void)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion (&driver);
  cudaRuntimeGetVersion (&runtime);
  add_version (lines, "driver supports CUDA", driver, NULL);
  add_version (lines, "CUDA runtime", runtime, (gpointer) cudaRuntimeGetVersion);
  gsize blas = cublasLtGetVersion ();
  Dl_info info;
  g_ptr_array_add (lines, g_strdup_printf ("cuBLAS: %" G_GSIZE_FORMAT ".%" G_GSIZE_FORMAT ".%" G_GSIZE_FORMAT "%s%s", blas / 10000, blas % 10000 / 100, blas % 100,
                                           dladdr ((gpointer) cublasLtGetVersion, &info) ? ", " : "", dladdr ((gpointer) cublasLtGetVersion, &info) ? info.dli_fname : ""));
  add_devices (lines);
  return lines;
}

__attribute__ ((visibility ("default"))) const HeddleBackend heddle_backend = {
  .size = sizeof (HeddleBackend), .kind = "cuda", .summary = "NVIDIA GPUs through CUDA, cuDNN and cuBLAS", .doctor = backend_doctor, .open = backend_open,
};
