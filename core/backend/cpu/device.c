/* cpu/device.c: the cpu device: opening, memory of variables, running plans.  Must not know operations. */
#include "cpu.h"
#include "base/memory.h"
#include "base/trace.h"
#include "tensor/tensors.h"

#include <omp.h>
#include <string.h>
#include <sys/mman.h>

HeddlePlan *cpu_compile (HeddleDevice *device, HeddleProgram *program, GError **error);
void cpu_plan_free (HeddlePlan *plan);

#define CPU(d) ((CpuDevice *) (d))

/* ---- life ---- */

static void
device_close (HeddleDevice *device)
{
  CpuDevice *cpu = CPU (device);
  for (guint i = 0; i < cpu->memory->len; i++)
    free (cpu->memory->pdata[i]);
  free (cpu->arena);
  cpu_waiting_free (cpu->waiting);
  g_ptr_array_unref (cpu->memory);
  g_ptr_array_unref (cpu->layouts);
  dnnl_stream_destroy (cpu->stream);
  dnnl_engine_destroy (cpu->engine);
  g_free (cpu->base.name);
  g_free (cpu);
}

/* (transfer full) What is in use, and what there is beyond it. */
static char *
instructions (void)
{
  CpuIsa present = cpu_isa_present ();
  return g_strdup_printf ("%s%s%s%s, bf16 products in %s", cpu_isa_name (cpu_isa), present != cpu_isa ? " (the processor has " : "", present != cpu_isa ? cpu_isa_name (present) : "",
                          present != cpu_isa ? ")" : "", cpu_isa >= CPU_AVX512_BF16 ? "bf16" : "f32");
}

static GPtrArray *
device_report (HeddleDevice *device)
{
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  const CpuDevice *cpu = CPU (device);
  const HeddleFlags *f = &cpu->flags;
  g_autofree char *set = instructions ();
  g_ptr_array_add (lines, g_strdup_printf ("threads = %u", cpu->threads));
  g_ptr_array_add (lines, g_strdup_printf ("instructions = %s", set));
  g_ptr_array_add (lines, g_strdup_printf ("deterministic = %s (always so on a CPU with the same number of threads)", f->deterministic ? "true" : "false"));
  g_ptr_array_add (lines, g_strdup_printf ("fusion = %s", f->fusion ? "true" : "false"));
  g_ptr_array_add (lines, g_strdup_printf ("winograd = %s%s", f->winograd ? "true" : "false", f->winograd && cpu->block < 16 ? ": not honoured, it needs AVX-512" : ""));
  g_ptr_array_add (lines, g_strdup_printf ("cudnn_benchmark = %s%s", f->cudnn_benchmark ? "true" : "false", f->cudnn_benchmark ? ": not honoured, a CPU has no cuDNN" : ""));
  g_ptr_array_add (lines, g_strdup_printf ("tf32_matmul = %s%s", f->tf32_matmul ? "true" : "false", f->tf32_matmul ? ": not honoured, a CPU computes full f32" : ""));
  g_ptr_array_add (lines, g_strdup_printf ("tf32_conv = %s%s", f->tf32_conv ? "true" : "false", f->tf32_conv ? ": not honoured, a CPU computes full f32" : ""));
  g_ptr_array_add (lines, g_strdup_printf ("matmul_precision = %s", f->matmul_precision == HEDDLE_PRECISION_HIGHEST ? "highest" : "highest (what was asked for is not honoured on a CPU)"));
  return lines;
}

/* 16-bit dtypes are storage here, except where products of bf16 numbers are made as such: every other operation converts to f32 and back. */
static gboolean
device_computes (HeddleDevice *device, HeddleDtype dtype)
{
  (void) device;
  return dtype == HEDDLE_F32 || (dtype == HEDDLE_BF16 && cpu_isa >= CPU_AVX512_BF16);
}

#define HUGE_PAGE ((gsize) 2 << 20)

gpointer
cpu_memory (gsize bytes)
{
  void *memory = NULL;
  gsize rounded = (MAX (bytes, 1) + 63) / 64 * 64;
  if (posix_memalign (&memory, rounded >= HUGE_PAGE ? HUGE_PAGE : 64, rounded) != 0)
    memory = NULL;
#ifdef MADV_HUGEPAGE
  if (memory && rounded >= HUGE_PAGE)
    madvise (memory, rounded, MADV_HUGEPAGE);       /* loops over more than the caches hold wait for address translation otherwise; a wish, which may fail */
#endif
  return memory;
}

static gpointer
aligned_zeros (gsize bytes, GError **error)
{
  void *memory = cpu_memory (bytes);
  if (memory)
    memset (memory, 0, (MAX (bytes, 1) + 63) / 64 * 64);
  else
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "out of memory: %" G_GSIZE_FORMAT " MiB asked for\nhint: use a smaller model or batch", bytes >> 20);
  return memory;
}

static gpointer
host_alloc (HeddleDevice *device, gsize bytes, GError **error)
{
  (void) device;
  return aligned_zeros (bytes, error);
}

static void
host_free (HeddleDevice *device, gpointer memory, gsize bytes)
{
  (void) device;
  (void) bytes;
  free (memory);
}

/* ---- variables ---- */

static gboolean
allocate_one (HeddleDevice *device, HeddleVariable *v, GError **error)
{
  v->data = aligned_zeros (heddle_tensor_bytes (v->dtype, &v->shape), error);
  if (v->data)
    {
      g_ptr_array_add (CPU (device)->memory, v->data);
      CPU (device)->allocations++;
    }
  return v->data != NULL;
}

static gboolean
device_allocate (HeddleDevice *device, HeddleVariables *vars, GError **error)
{
  return heddle_variables_place (device, vars, allocate_one, error);
}

static gboolean
is_turned (const HeddleVariable *v)
{
  return v->layout && v->layout != &cpu_plain;
}

static gboolean
reorder_weight (CpuDevice *cpu, HeddleVariable *v, float *plain, gboolean to_plain, GError **error)
{
  const Layout *layout = v->layout;
  static const dnnl_format_tag_t tags[] = { 0, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde };
  dnnl_memory_desc_t row;
  dnnl_memory_desc_init_by_tag (&row, layout->md.ndims, layout->md.dims, dnnl_f32, tags[layout->md.ndims]);
  return to_plain ? cpu_reorder_now (cpu, &layout->md, v->data, &row, plain, error) : cpu_reorder_now (cpu, &row, plain, &layout->md, v->data, error);
}

/* A flat buffer lies window by window as its parameters do; PLAIN has the other windows already. */
static gboolean
reorder_windows (CpuDevice *cpu, HeddleVariable *v, float *plain, gboolean to_plain, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < v->group->params->len; i++)
    {
      HeddleVariable window = *(const HeddleVariable *) v->group->params->pdata[i];
      window.data = (float *) v->data + window.offset;
      if (is_turned (&window))
        ok = reorder_weight (cpu, &window, plain + window.offset, to_plain, error);
    }
  return ok;
}

static gboolean
is_flat (const HeddleVariable *v)
{
  return v->group && !v->flat;
}

static gboolean
device_write (HeddleDevice *device, HeddleVariable *v, const HeddleTensor *t, GError **error)
{
  gsize n = (gsize) heddle_shape_count (&v->shape);
  gboolean ok = heddle_variable_holds (v, t, error);
  if (ok && (is_turned (v) || is_flat (v)))
    {
      g_autofree float *plain = g_new (float, n);
      heddle_convert (HEDDLE_F32, plain, t->dtype, t->data, n);
      if (is_flat (v))
        memcpy (v->data, plain, n * sizeof *plain);
      ok = is_flat (v) ? reorder_windows (CPU (device), v, plain, FALSE, error) : reorder_weight (CPU (device), v, plain, FALSE, error);
    }
  else if (ok)
    heddle_convert (v->dtype, v->data, t->dtype, t->data, n);
  return ok;
}

static gboolean
device_read (HeddleDevice *device, HeddleVariable *v, HeddleTensor *t, GError **error)
{
  gsize n = (gsize) heddle_shape_count (&v->shape);
  gboolean ok = heddle_variable_holds (v, t, error);
  if (ok && (is_turned (v) || is_flat (v)))
    {
      g_autofree float *plain = is_flat (v) ? heddle_memdup (v->data, n * sizeof *plain) : g_new (float, n);
      ok = is_flat (v) ? reorder_windows (CPU (device), v, plain, TRUE, error) : reorder_weight (CPU (device), v, plain, TRUE, error);
      heddle_convert (t->dtype, t->data, HEDDLE_F32, plain, n);
    }
  else if (ok)
    heddle_convert (t->dtype, t->data, v->dtype, v->data, n);
  return ok;
}

/* ---- plans ---- */

static const HeddleProgram *
plan_program (HeddlePlan *plan)
{
  return ((CpuPlan *) plan)->program;
}

static void
plan_memory (HeddlePlan *base, HeddleMemory *memory)
{
  CpuPlan *plan = (CpuPlan *) base;
  HeddleVariables *vars = plan->program->vars;
  *memory = (HeddleMemory) { .arena = plan->arena_bytes, .peak = plan->peak };
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    {
      const HeddleVariable *v = heddle_variables_nth (vars, i);
      gsize bytes = v->flat ? 0 : heddle_tensor_bytes (v->dtype, &v->shape);
      gsize *owner = v->role == HEDDLE_ROLE_PARAM ? &memory->params : v->role == HEDDLE_ROLE_GRAD ? &memory->grads : v->role == HEDDLE_ROLE_SLOT ? &memory->slots : &memory->states;
      *owner += bytes;
    }
}

static char *
plan_describe (HeddlePlan *base, guint op)
{
  return g_strdup (((CpuPlan *) base)->described[op]);
}

void
cpu_fault (CpuPlan *plan, const Step *step, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  if (!plan->fault)
    plan->fault = g_strdup_printf ("%s \"%s\": %s", step->op->info->name, step->op->name, text);
}

static void
run_timed (CpuPlan *plan)
{
  gint64 at = heddle_trace_clock ();
  for (guint i = 0; !plan->fault && i < plan->steps->len; i++)
    {
      Step *step = plan->steps->pdata[i];
      step->start = at;
      step->run (plan, step);
      step->end = at = heddle_trace_clock ();
      step->seconds += (double) (step->end - step->start) * 1e-9;
    }
}

static void
look_around (CpuDevice *cpu)
{
  if (!cpu->led)
    cpu->waiting = cpu_waiting_new (cpu->threads);
  cpu->led = TRUE;
  if (cpu->waiting)
    cpu_waiting_look (cpu->waiting, heddle_trace_clock ());
}

static gboolean
plan_run (HeddlePlan *base, const gpointer *inputs, GError **error)
{
  CpuPlan *plan = (CpuPlan *) base;
  gboolean ok = TRUE;
  plan->inputs = inputs;
  omp_set_num_threads ((int) plan->device->threads);
  look_around (plan->device);
  if (plan->timed)
    run_timed (plan);
  else
    for (guint i = 0; !plan->fault && i < plan->steps->len; i++)
      ((Step *) plan->steps->pdata[i])->run (plan, plan->steps->pdata[i]);
  plan->runs++;
  if (plan->fault)
    {
      g_set_error_literal (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, plan->fault);
      g_clear_pointer (&plan->fault, g_free);
      ok = FALSE;
    }
  return ok;
}

/* Blocked to row-major, for what people look at. */
static void
unblock (gint block, const HeddleShape *s, gsize size, const char *src, char *dst)
{
  gint64 pixels = s->size[2] * s->size[3], channels = s->size[1];
  for (gint64 n = 0; n < s->size[0]; n++)
    for (gint64 c = 0; c < channels; c++)
      for (gint64 p = 0; p < pixels; p++)
        memcpy (dst + (gsize) ((n * channels + c) * pixels + p) * size,
                src + (gsize) (((n * (channels / block) + c / block) * pixels + p) * block + c % block) * size, size);
}

static gboolean
plan_fetch (HeddlePlan *base, guint index, HeddleTensor *tensor, GError **error)
{
  CpuPlan *plan = (CpuPlan *) base;
  const Operand *o = &plan->outputs[index];
  gsize n = (gsize) heddle_shape_count (&o->shape), size = heddle_dtype_size (o->dtype);
  gboolean ok = index < plan->program->outputs->len && n == (gsize) heddle_shape_count (&tensor->shape);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "output %u has another number of elements", index);
  else if (o->layout->kind == LAYOUT_BLOCKED)
    {
      g_autofree char *plain = g_malloc (n * size);
      unblock (plan->device->block, &o->shape, size, cpu_pointer (plan, o), plain);
      heddle_convert (tensor->dtype, tensor->data, o->dtype, plain, n);
    }
  else if (o->layout->kind == LAYOUT_WEIGHT)
    {
      g_autofree float *plain = g_new (float, n);
      dnnl_memory_desc_t row, own;
      dnnl_memory_desc_init_by_tag (&row, o->layout->md.ndims, o->layout->md.dims, dnnl_f32, o->layout->md.ndims == 5 ? dnnl_abcde : dnnl_abcd);
      ok = cpu_layout_md (plan->device, o->layout, o->dtype, &o->shape, &own) && cpu_reorder_now (plan->device, &own, cpu_pointer (plan, o), &row, plain, error);
      heddle_convert (tensor->dtype, tensor->data, HEDDLE_F32, plain, n);
    }
  else
    heddle_convert (tensor->dtype, tensor->data, o->dtype, cpu_pointer (plan, o), n);
  return ok;
}

static gboolean
device_sync (HeddleDevice *device, GError **error)
{
  (void) device;
  (void) error;
  return TRUE;
}

static guint64
device_counter (HeddleDevice *device, HeddleCounter counter)
{
  const CpuDevice *cpu = CPU (device);
  guint64 n = 0;
  switch (counter)
    {
    case HEDDLE_COUNTER_ALLOCATIONS: n = cpu->allocations; break;
    case HEDDLE_COUNTER_PRIMITIVES: n = cpu->primitives; break;
    case HEDDLE_COUNTER_SYNCS: case HEDDLE_COUNTER_COPY: break;
    case HEDDLE_COUNTER_REORDERS: n = cpu->reorders; break;
    }
  return n;
}

/* What a CPU has no hardware for. */
static gboolean
device_honours (HeddleDevice *device, const char *name)
{
  static const char *const others[] = { "cudnn_benchmark", "benchmark_limit", "benchmark_shapes", "workspace_limit", "tf32", "tf32_matmul", "tf32_conv", "matmul_precision", "cuda_graphs", "pin_memory", NULL };
  (void) device;
  return !g_strv_contains (others, name);
}

static const HeddleDeviceIface device_iface = {
  .size = sizeof (HeddleDeviceIface), .close = device_close, .report = device_report, .computes = device_computes, .host_alloc = host_alloc, .host_free = host_free,
  .compile = cpu_compile, .plan_free = cpu_plan_free, .program = plan_program, .memory = plan_memory, .describe = plan_describe,
  .allocate = device_allocate, .write = device_write, .read = device_read, .run = plan_run, .fetch = plan_fetch, .sync = device_sync, .counter = device_counter,
  .honours = device_honours, .timing = cpu_plan_timing, .step = cpu_plan_step, .buffer = cpu_plan_buffer, .reorders = cpu_plan_reorders,
};

/* ---- the module ---- */

static GPtrArray *
backend_doctor (void)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *lines = g_ptr_array_new_with_free_func (g_free);
  const dnnl_version_t *v = dnnl_version ();
  g_ptr_array_add (lines, g_strdup_printf ("oneDNN: %d.%d.%d", v->major, v->minor, v->patch));
  g_autofree char *set = cpu_isa_choose (&error) ? instructions () : g_strdelimit (g_strdup (error->message), "\n", ' ');
  g_ptr_array_add (lines, g_strdup_printf ("instruction set: %s", set));
  g_ptr_array_add (lines, g_strdup_printf ("CPUs allowed: %u", heddle_flags_cpus ()));
  g_ptr_array_add (lines, g_strdup ("f16: storage, computed in f32"));
  return lines;
}

extern const HeddleBackend heddle_backend;

static HeddleDevice *
backend_open (guint index, const HeddleFlags *flags, GError **error)
{
  CpuDevice *cpu = NULL;
  if (index > 0)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no such device: \"cpu:%u\"\nhint: there is one CPU device, \"cpu\"", index);
  else if (cpu_isa_choose (error))
    {
      cpu = g_new0 (CpuDevice, 1);
      cpu->base.iface = &device_iface;
      cpu->base.backend = &heddle_backend;
      cpu->base.name = g_strdup ("cpu");
      cpu->flags = *flags;
      cpu->threads = flags->threads > 0 ? (guint) flags->threads : heddle_flags_cpus ();
      cpu->block = cpu_isa >= CPU_AVX512 ? 16 : 8;
      cpu->memory = g_ptr_array_new ();
      cpu->layouts = g_ptr_array_new_with_free_func (g_free);
      omp_set_num_threads ((int) cpu->threads);
      if (!cpu_dnnl_check (dnnl_engine_create (&cpu->engine, dnnl_cpu, 0), "dnnl_engine_create", NULL, error)
          || !cpu_dnnl_check (dnnl_stream_create (&cpu->stream, cpu->engine, dnnl_stream_in_order), "dnnl_stream_create", NULL, error))
        {
          device_close (&cpu->base);
          cpu = NULL;
        }
    }
  return cpu ? &cpu->base : NULL;
}

__attribute__ ((visibility ("default"))) const HeddleBackend heddle_backend = {
  .size = sizeof (HeddleBackend), .kind = "cpu", .summary = "x86-64 CPUs through oneDNN and loops of our own", .doctor = backend_doctor, .open = backend_open,
};
