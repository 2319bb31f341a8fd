/* cuda/custom-steps.c: operations that plugins bring, as steps: the source compiled for the device at hand, launched by the grid its author asks for.
 * Must not know what they compute. */
#include "custom-steps.h"
#include "base/memory.h"

#include "chain-steps.h"
#include "custom.h"
#include "rtc.h"

#define WHO "custom \"%s\": \"%s\" of %s"

typedef struct { CudaKernel *kernel; CudaGrid grid; heddle_run run; } Custom;

static gboolean
run_custom (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  Custom *custom = step->data;
  for (guint i = 0; i < step->n_in; i++)
    custom->run.in[i].data = IN (i);
  for (guint i = 0; i < step->n_out; i++)
    custom->run.out[i].data = OUT (i);
  return cuda_launch (queue, custom->kernel, &custom->grid, (void *[]) { &custom->run }, error);
}

/* Floating tensors are f32 for the kernel, whatever the program stores. */
static HeddleDtype
dtype_of (const HeddleValue *v)
{
  return heddle_dtype_is_float (v->dtype) ? HEDDLE_F32 : v->dtype;
}

static void
describe (const HeddleValue *v, HeddleTensor *host, heddle_tensor *device)
{
  *host = (HeddleTensor) { dtype_of (v), v->shape, NULL };
  *device = (heddle_tensor) { .dtype = (int) dtype_of (v), .rank = v->shape.rank, .count = heddle_shape_count (&v->shape) };
  for (gint i = 0; i < v->shape.rank; i++)
    device->size[i] = v->shape.size[i];
}

static gboolean
prepare (CudaDevice *device, const HeddleOp *op, Custom *custom, GError **error)
{
  const HeddleCustomAttr *a = op->attr;
  HeddleTensor in[HEDDLE_CUSTOM_INPUTS], out[HEDDLE_CUSTOM_OUTPUTS];
  g_autofree char *text = NULL;
  for (guint i = 0; i < op->n_in; i++)
    describe (op->in[i], &in[i], &custom->run.in[i]);
  for (guint i = 0; i < op->n_out; i++)
    describe (op->out[i], &out[i], &custom->run.out[i]);
  custom->run.n_in = op->n_in;
  custom->run.n_out = op->n_out;
  for (guint i = 0; i < G_N_ELEMENTS (a->data); i++)
    custom->run.attr[i] = a->data[i];
  custom->grid = cuda_grid (device, custom->run.out[0].count, 256);
  for (guint i = 0; i < 3; i++)
    {
      custom->grid.grid[i] = MAX (custom->grid.grid[i], 1);
      custom->grid.block[i] = MAX (custom->grid.block[i], 1);
    }
  if (a->op->cuda->launch)
    a->op->cuda->launch (in, op->n_in, out, op->n_out, a->data, custom->grid.grid, custom->grid.block);
  gboolean ok = cuda_custom_grid (custom->grid.grid, custom->grid.block, &text);
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, WHO " asks for %s\nhint: its launch function may set 1 to 1024 threads a block, 1 to 65535 blocks in y and z", op->name, a->op->name,
                 a->op->plugin, text);
  return ok;
}

static CudaKernel *
kernel_of (CudaDevice *device, const HeddleCustomCuda *cuda, GError **error)
{
  g_autofree char *source = cuda_custom_source (cuda);
  if (!device->customs)
    device->customs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  CudaKernel *kernel = g_hash_table_lookup (device->customs, source);
  CudaRtc *rtc = kernel ? NULL : cuda_rtc_of (device, error);
  g_autoptr (GBytes) image = rtc ? cuda_rtc_get_behind (rtc, cuda_custom_prelude (), cuda->kernel, source, device->capability, error) : NULL;
  if (image && (kernel = cuda_kernel_load (device, g_bytes_get_data (image, NULL), cuda->kernel, error)))
    {
      g_hash_table_insert (device->customs, g_steal_pointer (&source), kernel);
      device->primitives++;
    }
  return kernel;
}

static void
emit (CudaCompiler *c, const HeddleOp *op, const Custom *custom)
{
  CudaOperand in[HEDDLE_CUSTOM_INPUTS];
  for (guint i = 0; i < op->n_in; i++)
    in[i] = cuda_form (c, op->in[i], dtype_of (op->in[i]), CUDA_ROWS);
  CudaStep *step = cuda_step_new (c, op, ((const HeddleCustomAttr *) op->attr)->op->name, run_custom);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    cuda_step_out (c, step, op->out[i], dtype_of (op->out[i]), CUDA_ROWS, FALSE);
  cuda_step_data (step, heddle_memdup (custom, sizeof *custom), g_free);
}

gboolean
cuda_lower_custom (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleCustomOp *d = op->info->code == HEDDLE_OP_CUSTOM ? ((const HeddleCustomAttr *) op->attr)->op : NULL;
  Custom custom = { 0 };
  GError *local = NULL;
  gboolean ok = d && d->cuda && prepare (c->device, op, &custom, error);
  if (d && !d->cuda)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, WHO " has no kernel for CUDA devices\nhint: use device = \"cpu\"; its author can bring one as source, docs/custom-operations.md says how", op->name,
                 d->name, d->plugin);
  else if (ok && (custom.kernel = kernel_of (c->device, d->cuda, &local)))
    emit (c, op, &custom);
  else if (ok)
    g_propagate_prefixed_error (error, local, WHO ": ", op->name, d->name, d->plugin);
  return custom.kernel != NULL;
}
