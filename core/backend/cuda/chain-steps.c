/* cuda/chain-steps.c: runs of elementwise operations as steps of a plan, each one launch of a generated kernel.  Must not know how sources are written. */
#include "chain-steps.h"
#include "base/memory.h"

#include "chain.h"

/* ---- the device's generated kernels ---- */

typedef struct
{
  GHashTable *kernels;          /* name -> CudaKernel *, borrowed: the name tells one source from any other */
  gboolean    off;              /* no NVRTC, or it failed: the own kernels do the work */
} Chains;

static void
chains_free (gpointer data)
{
  Chains *chains = data;
  g_hash_table_unref (chains->kernels);
  g_free (chains);
}

static void
rtc_free (gpointer rtc)
{
  cuda_rtc_close (rtc);
}

/* Whatever is wrong with NVRTC costs speed, not the run. */
static void
turn_off (Chains *chains, const GError *error)
{
  chains->off = TRUE;
  g_printerr ("heddle: elementwise operations run one by one, not fused: %s\n", error->message);
}

CudaRtc *
cuda_rtc_of (CudaDevice *device, GError **error)
{
  if (!device->rtc && (device->rtc = cuda_rtc_open (NULL, error)))
    device->rtc_free = rtc_free;
  return device->rtc;
}

static Chains *
chains_of (CudaDevice *device)
{
  Chains *chains = device->chains;
  if (!chains)
    {
      g_autoptr (GError) error = NULL;
      chains = device->chains = g_new0 (Chains, 1);
      chains->kernels = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
      device->chains_free = chains_free;
      if (!cuda_rtc_of (device, &error))
        turn_off (chains, error);
    }
  return chains;
}

char *
cuda_chain_doctor (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (CudaRtc) rtc = cuda_rtc_open (NULL, &error);
  return rtc ? g_strdup_printf ("%s from %s", cuda_rtc_version (rtc), cuda_rtc_path (rtc)) : g_strdelimit (g_strdup (error->message), "\n", ' ');
}

/* NULL: fusion is off from here on. */
static CudaKernel *
kernel_of (CudaDevice *device, const Chain *chain)
{
  Chains *chains = device->chains;
  CudaKernel *kernel = g_hash_table_lookup (chains->kernels, chain->name);
  if (!kernel)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) image = cuda_rtc_get (device->rtc, chain->name, chain->source, device->capability, NULL, &error);
      kernel = image ? cuda_kernel_load (device, g_bytes_get_data (image, NULL), chain->name, &error) : NULL;
      if (kernel)
        {
          g_hash_table_insert (chains->kernels, g_strdup (chain->name), kernel);
          device->primitives++;
        }
      else
        turn_off (chains, error);
    }
  return kernel;
}

/* ---- which operations ---- */

static gboolean
made_in (const HeddleValue *v, guint from, guint to)
{
  return v->kind == HEDDLE_VALUE_TEMP && v->producer->id >= from && v->producer->id < to;
}

/* OP must be left to another lowering: it is done, its value is made where it is assigned, it only reads the 16-bit copy of a parameter, it waits for other gradients, or
 * it need not be computed. */
static gboolean
is_others (const CudaCompiler *c, const HeddleOp *op, guint from)
{
  gboolean forwarded = op->info->code == HEDDLE_OP_ASSIGN && c->forward[op->in[1]->id] == op->in[0]->variable && !made_in (op->in[1], from, op->id);
  gboolean cast = op->info->code == HEDDLE_OP_CAST && op->id > from && op->in[0]->kind == HEDDLE_VALUE_VARIABLE && op->in[0]->variable->role == HEDDLE_ROLE_PARAM;
  return cuda_is_done (c, op) || forwarded || cast || cuda_is_gradient (c, op) || (op->id > from && cuda_is_logits (c, op)) || cuda_is_part (c, op);
}

/* Does memory of SHAPE differ between the layouts? */
static gboolean
is_ordered (const HeddleShape *shape)
{
  return cuda_is_image (shape) && !cuda_same_bytes (CUDA_ROWS, CUDA_CHANNELS_LAST, shape);
}

/* A variable is written in its own layout; else channels last wins when any operand has it, or when bytes become images that convolutions want so. */
static CudaLayout
order_of (CudaCompiler *c, guint from, guint to)
{
  CudaLayout order = CUDA_ROWS;
  gboolean bound = FALSE;
  for (guint i = from; !bound && i < to; i++)
    {
      const HeddleOp *op = c->plan->program->ops->pdata[i];
      if (op->info->code == HEDDLE_OP_DEQUANTIZE && is_ordered (&op->out[0]->shape))
        order = c->images;
      for (guint j = 0; !bound && j < op->n_in; j++)
        {
          const HeddleValue *v = op->in[j];
          gboolean ordered = is_ordered (&v->shape) && !made_in (v, from, to);
          bound = ordered && op->info->code == HEDDLE_OP_ASSIGN && j == 0;
          if (bound)
            order = cuda_variable_layout (v->variable);
          else if (ordered && cuda_made (c, v)->layout == CUDA_CHANNELS_LAST)
            order = CUDA_CHANNELS_LAST;
        }
    }
  return order;
}

static guint
end_of (CudaCompiler *c, guint from, const ChainOptions *options)
{
  guint end = chain_end (c->plan->program, from, options), to = from;
  gboolean stop = FALSE;
  while (!stop && to < end)
    {
      const HeddleOp *op = c->plan->program->ops->pdata[to];
      stop = is_others (c, op, from);
      if (op->info->code == HEDDLE_OP_ASSIGN && to > from && is_ordered (&op->in[0]->shape))
        stop |= (ChainOrder) cuda_variable_layout (op->in[0]->variable) != options->order;
      to += !stop;
    }
  return to;
}

/* ---- the step ---- */

typedef enum { ARG_IN = 0, ARG_OUT, ARG_NUMBER } ArgPlace;
typedef struct { ArgPlace place; guint index; guint64 number; } Arg;

typedef struct
{
  CudaKernel *kernel;
  CudaGrid    grid;
  guint       n;
  Arg         args[CHAIN_MAX_ARGS];
} Launch;

static gboolean
run_chain (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  Launch *l = step->data;
  gpointer pointers[CHAIN_MAX_ARGS];
  void *args[CHAIN_MAX_ARGS];
  for (guint i = 0; i < l->n; i++)
    {
      Arg *a = &l->args[i];
      if (a->place != ARG_NUMBER)
        pointers[i] = a->place == ARG_IN ? IN (a->index) : OUT (a->index);
      args[i] = a->place == ARG_NUMBER ? (void *) &a->number : &pointers[i];
    }
  return cuda_launch (queue, l->kernel, &l->grid, args, error);
}

/* The 16-bit copies that the device keeps of a parameter are written along with it. */
typedef struct { CudaCompiler *c; GHashTable *copies; /* HeddleVariable * -> CudaOperand *, owned */ } Copies;

static HeddleDtype
copy_of (const HeddleVariable *variable, gpointer data)
{
  static const HeddleDtype dtypes[] = { HEDDLE_F16, HEDDLE_BF16 };
  Copies *copies = data;
  CudaOperand *o = g_hash_table_lookup (copies->copies, variable);
  for (guint i = 0; variable->role == HEDDLE_ROLE_PARAM && !o && i < G_N_ELEMENTS (dtypes); i++)
    {
      CudaOperand target = cuda_shadow_target (copies->c, (HeddleVariable *) variable, dtypes[i]);
      if (target.where != CUDA_NOWHERE)
        {
          o = heddle_memdup (&target, sizeof target);
          g_hash_table_insert (copies->copies, (gpointer) variable, o);
        }
    }
  return o ? o->dtype : 0;
}

static void
add_argument (CudaCompiler *c, CudaStep *step, const ChainArg *a, CudaLayout order, const Copies *copies, Arg *arg)
{
  const HeddleValue *v = a->value;
  if (a->kind == CHAIN_NUMBER)
    *arg = (Arg) { ARG_NUMBER, 0, a->number };
  else if (a->kind == CHAIN_VALUE && a->written && v->kind != HEDDLE_VALUE_VARIABLE)
    {
      *arg = (Arg) { ARG_OUT, step->n_out, 0 };
      cuda_step_out (c, step, v, v->dtype, cuda_is_image (&v->shape) ? order : CUDA_ROWS, TRUE);
    }
  else
    {
      *arg = (Arg) { ARG_IN, step->n_in, 0 };
      if (a->kind == CHAIN_COPY)
        cuda_step_in (step, *(const CudaOperand *) g_hash_table_lookup (copies->copies, v->variable));
      else
        cuda_step_in (step, a->written ? *cuda_made (c, v) : cuda_form (c, v, v->dtype, cuda_is_image (&v->shape) ? order : CUDA_ROWS));
    }
}

/* Conversions of inputs are steps of their own: they come before. */
static void
convert_inputs (CudaCompiler *c, const Chain *chain, CudaLayout order)
{
  for (guint i = 0; i < chain->args->len; i++)
    {
      const ChainArg *a = &g_array_index (chain->args, ChainArg, i);
      if (a->kind == CHAIN_VALUE && !a->written)
        cuda_form (c, a->value, a->value->dtype, cuda_is_image (&a->value->shape) ? order : CUDA_ROWS);
    }
}

/* A scalar that a wide chain makes is stored by its first thread while others may still read the variable that it is to be assigned to. */
static void
forget_forwards (CudaCompiler *c, const Chain *chain)
{
  for (guint i = 0; chain->n > 1 && i < chain->args->len; i++)
    {
      const ChainArg *a = &g_array_index (chain->args, ChainArg, i);
      if (a->kind == CHAIN_VALUE && a->written && a->value->shape.rank == 0)
        c->forward[a->value->id] = NULL;
    }
}

static void
offer_sharing (CudaCompiler *c, const CudaStep *step, const Chain *chain, const Launch *l)
{
  for (guint i = 0; i < l->n; i++)
    for (guint j = 0; j < l->n; j++)
      {
        const ChainArg *in = &g_array_index (chain->args, ChainArg, i), *out = &g_array_index (chain->args, ChainArg, j);
        gboolean both = l->args[i].place == ARG_IN && l->args[j].place == ARG_OUT && in->kind == CHAIN_VALUE && in->dense && out->dense;
        if (both && in->dtype == out->dtype && heddle_shape_count (&in->value->shape) == heddle_shape_count (&out->value->shape))
          cuda_may_share (c, step, l->args[i].index, l->args[j].index);
      }
}

static void
emit (CudaCompiler *c, guint from, const Chain *chain, CudaKernel *kernel, CudaLayout order, const Copies *copies)
{
  Launch *l = g_new0 (Launch, 1);
  convert_inputs (c, chain, order);
  forget_forwards (c, chain);
  CudaStep *step = cuda_step_new (c, c->plan->program->ops->pdata[from], cuda_keep (c->plan, g_strdup (chain->name)), run_chain);
  *l = (Launch) { .kernel = kernel, .n = chain->args->len, .grid = { .grid = { chain_blocks (chain, c->device->processors) }, .block = { chain_threads (chain) } } };
  for (guint i = 0; i < chain->args->len; i++)
    add_argument (c, step, &g_array_index (chain->args, ChainArg, i), order, copies, &l->args[i]);
  offer_sharing (c, step, chain, l);
  cuda_step_data (step, l, g_free);
}

/* Views whose numbers are stored still need their place: that is for the lowering of views. */
static void
mark (CudaCompiler *c, guint from, guint to)
{
  for (guint i = from; i < to; i++)
    {
      const HeddleOp *op = c->plan->program->ops->pdata[i];
      gboolean inside = TRUE;
      const GPtrArray *users = op->n_out ? c->users[op->out[0]->id] : NULL;
      for (guint j = 0; users && j < users->len; j++)
        inside &= ((const HeddleOp *) users->pdata[j])->id < to;
      if (!(op->info->flags & HEDDLE_OP_VIEW) || (inside && op->out[0]->n_uses == (users ? users->len : 0)))
        cuda_mark_done (c, op);
    }
}

gboolean
cuda_lower_chain (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  Copies copies = { c, g_hash_table_new_full (NULL, NULL, NULL, g_free) };
  ChainOptions options = { .copy = copy_of, .data = &copies };
  guint from = op->id, to = c->device->flags.fusion && !chains_of (c->device)->off ? end_of (c, from, &options) : from;
  CudaKernel *kernel = NULL;
  if (to > from)
    {
      options.order = order_of (c, from, to) == CUDA_CHANNELS_LAST ? CHAIN_CHANNELS_LAST : CHAIN_ROWS;
      to = end_of (c, from, &options);
    }
  if (to > from)
    {
      g_autoptr (Chain) chain = chain_new (c->plan->program, from, to, &options);
      kernel = kernel_of (c->device, chain);
      if (kernel)
        {
          emit (c, from, chain, kernel, (CudaLayout) options.order, &copies);
          mark (c, from, to);
        }
    }
  g_hash_table_unref (copies.copies);
  return kernel != NULL;
}
