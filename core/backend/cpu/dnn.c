/* cpu/dnn.c: convolutions, their gradients, matrix products with what follows them and layout conversions as oneDNN primitives made once per plan.
 * Must not know what runs before or after them. */
#include "cpu.h"
#include "tensor/tensors.h"

#include <string.h>

#define MAX_ARGS 6

typedef struct
{
  dnnl_primitive_t primitive;
  int              n;
  dnnl_exec_arg_t  args[MAX_ARGS];
  Operand          operand[MAX_ARGS];
} Primitive;

static void
primitive_free (gpointer data)
{
  Primitive *p = data;
  dnnl_primitive_destroy (p->primitive);
  for (int i = 0; i < p->n; i++)
    dnnl_memory_destroy (p->args[i].memory);
  g_free (p);
}

/* No object is made here: the memories only learn this run's addresses. */
static void
run_primitive (CpuPlan *plan, Step *step)
{
  Primitive *p = step->data;
  for (int i = 0; i < p->n; i++)
    dnnl_memory_set_data_handle (p->args[i].memory, cpu_pointer (plan, &p->operand[i]));
  dnnl_primitive_execute (p->primitive, plan->device->stream, p->n, p->args);
}

static gboolean
add_arg (CpuDevice *device, Primitive *p, int arg, const dnnl_memory_desc_t *md, const Operand *operand)
{
  p->args[p->n].arg = arg;
  p->operand[p->n] = *operand;
  return dnnl_memory_create (&p->args[p->n++].memory, md, device->engine, NULL) == dnnl_success;
}

static Step *
primitive_step (CpuPlan *plan, const HeddleOp *op, Primitive *p, const char *what)
{
  Step *step = cpu_step_new (plan, op, what, run_primitive);
  step->data = p;
  step->data_free = primitive_free;
  plan->device->primitives++;
  return step;
}

void
cpu_emit_reorder (CpuCompiler *c, const Operand *src, const Operand *dst)
{
  CpuDevice *device = c->device;
  dnnl_memory_desc_t from, to;
  dnnl_primitive_desc_t pd = NULL;
  Primitive *p = g_new0 (Primitive, 1);
  gboolean ok = cpu_layout_md (device, src->layout, src->dtype, &src->shape, &from) && cpu_layout_md (device, dst->layout, dst->dtype, &dst->shape, &to);
  /* a grouped weight's descriptor has five axes: the plain side takes them too */
  if (ok && from.ndims != to.ndims)
    {
      dnnl_memory_desc_t *plain = from.ndims < to.ndims ? &from : &to;
      const dnnl_memory_desc_t *other = from.ndims < to.ndims ? &to : &from;
      ok = dnnl_memory_desc_init_by_tag (plain, other->ndims, other->dims, plain->data_type, dnnl_abcde) == dnnl_success;
    }
  ok = ok && cpu_dnnl_check (dnnl_reorder_primitive_desc_create (&pd, &from, device->engine, &to, device->engine, NULL), "reorder", NULL, c->error ? NULL : &c->error)
       && dnnl_primitive_create (&p->primitive, pd) == dnnl_success && add_arg (device, p, DNNL_ARG_FROM, &from, src) && add_arg (device, p, DNNL_ARG_TO, &to, dst);
  if (!ok && !c->error)
    g_set_error (&c->error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "a layout conversion cannot be made");
  dnnl_primitive_desc_destroy (pd);
  Step *step = primitive_step (c->plan, NULL, p, "reorder");
  step->in[step->n_in++] = *src;
  step->out[step->n_out++] = *dst;
  if (!cpu_layout_equal (src->layout, dst->layout))
    c->plan->n_reorders++;
}

/* ---- what follows a product in the same kernel ---- */

/* The only reader of a convolution's or linear operation's result when it adds a tensor that is there already, or NULL; ADDED: that tensor */
static const HeddleOp *
added_to (const CpuCompiler *c, const HeddleOp *op, const HeddleValue **added)
{
  const HeddleValue *y = op->out[0];
  const HeddleOp *add = cpu_only_user (c, y);
  gboolean ok = add && add->info->code == HEDDLE_OP_ADD && y->dtype == HEDDLE_F32 && add->out[0]->dtype == HEDDLE_F32 && add->in[0] != add->in[1];
  const HeddleValue *other = ok ? add->in[add->in[0] == y] : NULL;
  ok = ok && other->kind == HEDDLE_VALUE_TEMP && other->dtype == HEDDLE_F32 && heddle_shape_equal (&other->shape, &y->shape) && c->forms[other->id] && !c->forward[add->out[0]->id];
  *added = other;
  return ok ? add : NULL;
}

/* What a convolution does to its sums before it stores them.  Not relu: oneDNN's is max (x, 0), which makes 0 of NaN and so hides that training has failed; with a
 * slope it compares and keeps NaN. */
typedef struct
{
  const HeddleOp    *add, *activation;
  const HeddleValue *added;
} After;

static After
after_of (const CpuCompiler *c, const HeddleOp *op)
{
  After after = { 0 };
  after.add = added_to (c, op, &after.added);
  const HeddleValue *y = after.add ? after.add->out[0] : op->out[0];
  const HeddleOp *user = cpu_only_user (c, y);
  if (user && user->info->code == HEDDLE_OP_LEAKY_RELU && y->dtype == HEDDLE_F32 && user->out[0]->dtype == HEDDLE_F32 && !c->forward[user->out[0]->id]
      && ((const HeddleSlopeAttr *) user->attr)->slope != 0)
    after.activation = user;
  return after;
}

static dnnl_post_ops_t
post_ops (const After *after, const dnnl_memory_desc_t *y)
{
  dnnl_post_ops_t ops = NULL;
  dnnl_post_ops_create (&ops);
  if (after->add)
    dnnl_post_ops_append_binary (ops, dnnl_binary_add, y);
  if (after->activation)
    dnnl_post_ops_append_eltwise (ops, 1, dnnl_eltwise_relu, (float) ((const HeddleSlopeAttr *) after->activation->attr)->slope, 0);
  return ops;
}

/* ---- convolution descriptors ---- */

typedef struct
{
  HeddleShape x, w, y;
  dnnl_dims_t strides, dilates, padding, padding_end;
  gint64      groups;
  gboolean    bias;
  HeddleDtype dtype;            /* of what is multiplied: f32, or bf16 where its products are made as such; sums, bias and the weight's gradient are f32 */
  After       after;
} Conv;

static Conv
conv_of (const HeddleOp *op)
{
  const HeddleConvAttr *a = op->attr;
  Conv k = { .groups = a->groups, .dtype = HEDDLE_F32 };
  switch (op->info->code)
    {
    case HEDDLE_OP_CONV2D:
      k.x = op->in[0]->shape, k.w = op->in[1]->shape, k.y = op->out[0]->shape, k.bias = op->n_in > 2;
      break;
    case HEDDLE_OP_CONV_TRANSPOSE2D: case HEDDLE_OP_CONV2D_GRAD_INPUT: k.x = a->input, k.w = op->in[1]->shape, k.y = op->in[0]->shape; break;
    default: k.x = op->in[1]->shape, k.w = a->weight, k.y = op->in[0]->shape, k.bias = a->bias; break;
    }
  for (int i = 0; i < 2; i++)
    {
      gint64 span = a->dilation[i] * (k.w.size[2 + i] - 1) + 1;
      k.strides[i] = a->stride[i];
      k.dilates[i] = a->dilation[i] - 1;
      k.padding[i] = a->padding[i];
      /* what the last window needs; rows it never reaches would otherwise not fit oneDNN's formula */
      k.padding_end[i] = (k.y.size[2 + i] - 1) * a->stride[i] + span - k.x.size[2 + i] - a->padding[i];
    }
  return k;
}

static void
weight_dims (const Conv *k, dnnl_dims_t dims, int *n)
{
  int at = 0;
  if (k->groups > 1)
    dims[at++] = k->groups;
  dims[at++] = k->w.size[0] / k->groups;
  for (int i = 1; i < 4; i++)
    dims[at++] = k->w.size[i];
  *n = at;
}

typedef enum { DATA_ANY, DATA_PLAIN, DATA_BLOCKED } DataFormat;

static void
data_md (const CpuDevice *device, const HeddleShape *s, HeddleDtype dtype, DataFormat format, dnnl_memory_desc_t *md)
{
  dnnl_dims_t dims = { s->size[0], s->size[1], s->size[2], s->size[3] };
  dnnl_format_tag_t tag = format == DATA_ANY ? dnnl_format_tag_any : format == DATA_PLAIN ? dnnl_nchw : device->block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
  dnnl_memory_desc_init_by_tag (md, 4, dims, cpu_dnnl_type (dtype), tag);
}

static void
weight_md (const Conv *k, HeddleDtype dtype, dnnl_format_tag_t plain_or_any, dnnl_memory_desc_t *md)
{
  dnnl_dims_t dims;
  int n;
  weight_dims (k, dims, &n);
  dnnl_memory_desc_init_by_tag (md, n, dims, cpu_dnnl_type (dtype), plain_or_any == dnnl_format_tag_any ? plain_or_any : n == 5 ? dnnl_abcde : dnnl_abcd);
}

typedef enum { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT } Direction;

/* The primitive descriptor of one direction; the two backward ones need the forward one as a hint. */
static dnnl_primitive_desc_t
conv_pd (const CpuDevice *device, const Conv *k, Direction direction, dnnl_alg_kind_t algorithm, DataFormat x_format, DataFormat y_format)
{
  dnnl_memory_desc_t x, y, w, dw, b;
  dnnl_convolution_desc_t desc;
  dnnl_primitive_desc_t pd = NULL, hint = NULL;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t after = NULL;
  dnnl_dims_t channels = { k->w.size[0] };
  dnnl_memory_desc_t *bias = k->bias ? &b : NULL;
  data_md (device, &k->x, k->dtype, x_format, &x);
  data_md (device, &k->y, k->dtype, y_format, &y);
  weight_md (k, k->dtype, dnnl_format_tag_any, &w);
  weight_md (k, HEDDLE_F32, dnnl_format_tag_any, &dw);
  dnnl_memory_desc_init_by_tag (&b, 1, channels, dnnl_f32, dnnl_a);
  dnnl_primitive_attr_create (&attr);
  dnnl_primitive_attr_set_scratchpad_mode (attr, dnnl_scratchpad_mode_user);
  after = post_ops (&k->after, &y);
  dnnl_primitive_attr_set_post_ops (attr, after);
  dnnl_status_t status = dnnl_dilated_convolution_forward_desc_init (&desc, dnnl_forward_training, direction == FORWARD ? algorithm : dnnl_convolution_direct, &x, &w,
                                                                     direction == FORWARD ? bias : NULL, &y, k->strides, k->dilates, k->padding, k->padding_end);
  if (status == dnnl_success)
    status = dnnl_primitive_desc_create (direction == FORWARD ? &pd : &hint, &desc, attr, device->engine, NULL);
  if (status == dnnl_success && direction == BACKWARD_DATA)
    status = dnnl_dilated_convolution_backward_data_desc_init (&desc, algorithm, &x, &w, &y, k->strides, k->dilates, k->padding, k->padding_end);
  else if (status == dnnl_success && direction == BACKWARD_WEIGHT)
    status = dnnl_dilated_convolution_backward_weights_desc_init (&desc, algorithm, &x, &dw, bias, &y, k->strides, k->dilates, k->padding, k->padding_end);
  if (status == dnnl_success && direction != FORWARD)
    status = dnnl_primitive_desc_create (&pd, &desc, attr, device->engine, hint);
  dnnl_primitive_desc_destroy (hint);
  dnnl_post_ops_destroy (after);
  dnnl_primitive_attr_destroy (attr);
  return pd;
}

/* Is WORD in the name of the implementation? */
static gboolean
is_called (dnnl_primitive_desc_t pd, const char *word)
{
  const char *name = NULL;
  dnnl_primitive_desc_query (pd, dnnl_query_impl_info_str, 0, &name);
  return name && strstr (name, word) != NULL;
}

/* Winograd's F(4x4, 3x3) (A. Lavin and S. Gray, arXiv 1509.09308): 36 products where direct convolution has 144.  Its transforms cost more than they save with
 * few channels, or when there are fewer tiles than channels: then the transformed weights are the larger part. */
static gboolean
winograd_pays (const CpuDevice *device, const Conv *k)
{
  gint64 tiles = k->y.size[0] * ((k->y.size[2] + 3) / 4) * ((k->y.size[3] + 3) / 4), least = MIN (k->x.size[1], k->y.size[1]), most = MAX (k->x.size[1], k->y.size[1]);
  gboolean plain = k->groups == 1 && k->w.size[2] == 3 && k->w.size[3] == 3;
  for (int i = 0; i < 2; i++)
    plain = plain && k->strides[i] == 1 && k->dilates[i] == 0 && k->padding[i] <= 1;
  return device->flags.winograd && k->dtype == HEDDLE_F32 && plain && least >= 32 && 4 * tiles >= 3 * most;
}

/* The data layouts: blocked on both sides where channels allow, plain images into a blocked result for a first layer, else plain. */
static dnnl_primitive_desc_t
choose_pd (CpuDevice *device, const Conv *k, Direction direction, DataFormat *x, DataFormat *y)
{
  static const DataFormat candidates[][2] = { { DATA_BLOCKED, DATA_BLOCKED }, { DATA_PLAIN, DATA_BLOCKED }, { DATA_BLOCKED, DATA_PLAIN }, { DATA_PLAIN, DATA_PLAIN } };
  dnnl_primitive_desc_t pd = NULL;
  if (winograd_pays (device, k) && cpu_blockable (device, &k->x) && cpu_blockable (device, &k->y))
    pd = conv_pd (device, k, direction, dnnl_convolution_winograd, *x = DATA_BLOCKED, *y = DATA_BLOCKED);
  for (guint pass = 0; !pd && pass < 2; pass++)             /* slow reference code only when nothing else takes it */
    for (guint i = 0; !pd && i < G_N_ELEMENTS (candidates); i++)
      {
        *x = candidates[i][0];
        *y = candidates[i][1];
        gboolean possible = (*x != DATA_BLOCKED || cpu_blockable (device, &k->x)) && (*y != DATA_BLOCKED || cpu_blockable (device, &k->y));
        pd = possible ? conv_pd (device, k, direction, dnnl_convolution_direct, *x, *y) : NULL;
        if (pd && pass == 0 && is_called (pd, "ref"))
          {
            dnnl_primitive_desc_destroy (pd);
            pd = NULL;
          }
      }
  return pd;
}

/* The same for products of bf16 numbers, where they are worth it: with AMX oneDNN has some for other layouts only, and what it offers for ours is slower than f32. */
static dnnl_primitive_desc_t
choose_bf16 (CpuDevice *device, Conv *k, Direction direction, DataFormat *x, DataFormat *y)
{
  dnnl_primitive_desc_t pd = NULL;
  k->dtype = HEDDLE_BF16;
  if (cpu_isa >= CPU_AVX512_BF16)
    pd = choose_pd (device, k, direction, x, y);
  if (pd && (is_called (pd, "ref") || is_called (pd, "gemm") || (cpu_isa == CPU_AMX && !is_called (pd, "amx"))))
    {
      dnnl_primitive_desc_destroy (pd);
      pd = NULL;
    }
  k->dtype = pd ? HEDDLE_BF16 : HEDDLE_F32;
  return pd;
}

/* A forward convolution with what follows it, where oneDNN has that in a kernel.  Winograd's takes no second tensor, and is worth more than a sum. */
static dnnl_primitive_desc_t
choose_joined (CpuDevice *device, Conv *k, const After *after, DataFormat *x, DataFormat *y)
{
  dnnl_primitive_desc_t pd = NULL;
  k->after = *after;
  if ((after->add || after->activation) && !winograd_pays (device, k))
    pd = choose_pd (device, k, FORWARD, x, y);
  if (pd && is_called (pd, "ref"))
    {
      dnnl_primitive_desc_destroy (pd);
      pd = NULL;
    }
  if (!pd)
    k->after = (After) { 0 };
  return pd;
}

static const Layout *
data_layout (DataFormat format)
{
  return format == DATA_BLOCKED ? &cpu_blocked : &cpu_plain;
}

/* The descriptor oneDNN wants for a weight, as a layout of ours: plain if it is row-major, "weight" if it is not padded, NULL if it is padded. */
static const Layout *
weight_layout (CpuCompiler *c, const Conv *k, const dnnl_memory_desc_t *md)
{
  dnnl_memory_desc_t plain;
  const Layout *layout = NULL;
  gsize size = md->data_type == dnnl_f32 ? sizeof (float) : sizeof (guint16);
  weight_md (k, HEDDLE_F32, dnnl_abcd, &plain);
  Layout wanted = { LAYOUT_WEIGHT, *md };
  wanted.md.data_type = dnnl_f32;           /* a layout has no dtype: operands have */
  if (dnnl_memory_desc_equal (&plain, &wanted.md))
    layout = &cpu_plain;
  else if (dnnl_memory_desc_get_size (md) == size * (gsize) heddle_shape_count (&k->w))
    layout = cpu_keep_layout (c->plan, &wanted);
  return layout;
}

/* WEIGHT in the form the primitive wants, in LAYOUT or, when that is padded, in scratch memory of the primitive's own descriptor. */
static Operand
weight_operand (CpuCompiler *c, const HeddleValue *weight, HeddleDtype dtype, const dnnl_memory_desc_t *md, const Layout *layout)
{
  Operand operand;
  if (layout)
    operand = cpu_form (c, weight, dtype, layout);
  else
    {
      Layout padded = { LAYOUT_WEIGHT, *md };
      Operand from = cpu_form (c, weight, dtype, &cpu_plain);
      operand = from;
      operand.where = IN_ARENA;
      operand.layout = cpu_keep_layout (c->plan, &padded);
      operand.buffer = cpu_buffer_new (c->plan, dnnl_memory_desc_get_size (md));
      cpu_emit_reorder (c, &from, &operand);
    }
  return operand;
}

static void
add_scratchpad (CpuCompiler *c, Primitive *p, dnnl_primitive_desc_t pd)
{
  const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md (pd, dnnl_query_scratchpad_md, 0);
  gsize bytes = md ? dnnl_memory_desc_get_size (md) : 0;
  if (bytes)
    {
      Operand scratch = { .where = IN_ARENA, .dtype = HEDDLE_U8, .shape = heddle_shape ((gint64) bytes), .layout = &cpu_plain };
      scratch.buffer = cpu_buffer_new (c->plan, bytes);
      add_arg (c->device, p, DNNL_ARG_SCRATCHPAD, md, &scratch);
    }
}

/* Tells the step which operands it touches: lifetimes follow from them. */
static Step *
finish_step (CpuCompiler *c, const HeddleOp *op, Primitive *p, dnnl_primitive_desc_t pd)
{
  const char *name = NULL;
  dnnl_primitive_desc_query (pd, dnnl_query_impl_info_str, 0, &name);
  Step *step = primitive_step (c->plan, op, p, name ? name : "oneDNN");
  for (int i = 0; i < p->n; i++)
    step->in[step->n_in++] = p->operand[i];
  return step;
}

static void
finish_forward (CpuCompiler *c, const HeddleOp *op, Primitive *p, dnnl_primitive_desc_t pd, const Conv *k)
{
  Step *step = finish_step (c, op, p, pd);
  g_autofree char *what = g_strconcat (step->what, k->after.add ? "+add" : "", k->after.activation ? "+leaky_relu" : "", NULL);
  step->what = g_intern_string (what);
  if (k->after.add)
    cpu_mark_done (c, k->after.add);
  if (k->after.activation)
    cpu_mark_done (c, k->after.activation);
}

static void
emit_forward (CpuCompiler *c, const HeddleOp *op, const Conv *k, dnnl_primitive_desc_t pd, const Layout *x, const Layout *y)
{
  Primitive *p = g_new0 (Primitive, 1);
  const dnnl_memory_desc_t *w_md = dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 0);
  const Layout *w = weight_layout (c, k, w_md);
  if (op->in[1]->kind == HEDDLE_VALUE_VARIABLE)
    cpu_adopt_layout (c, op->in[1]->variable, w);
  Operand src = cpu_form (c, op->in[0], k->dtype, x), weight = weight_operand (c, op->in[1], k->dtype, w_md, w);
  Operand bias = k->bias ? cpu_form (c, op->in[2], HEDDLE_F32, &cpu_plain) : (Operand) { 0 };
  Operand added = k->after.add ? cpu_form (c, k->after.added, HEDDLE_F32, y) : (Operand) { 0 };
  const HeddleOp *last = k->after.activation ? k->after.activation : k->after.add ? k->after.add : op;
  Operand dst = cpu_target (c, last->out[0], k->dtype, y);
  add_arg (c->device, p, DNNL_ARG_SRC, dnnl_primitive_desc_query_md (pd, dnnl_query_src_md, 0), &src);
  add_arg (c->device, p, DNNL_ARG_WEIGHTS, w_md, &weight);
  if (k->bias)
    add_arg (c->device, p, DNNL_ARG_BIAS, dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 1), &bias);
  add_arg (c->device, p, DNNL_ARG_DST, dnnl_primitive_desc_query_md (pd, dnnl_query_dst_md, 0), &dst);
  if (k->after.add)
    add_arg (c->device, p, DNNL_ARG_ATTR_MULTIPLE_POST_OP (0) | DNNL_ARG_SRC_1, dnnl_primitive_desc_query_md (pd, dnnl_query_dst_md, 0), &added);
  add_scratchpad (c, p, pd);
  dnnl_primitive_create (&p->primitive, pd);
  finish_forward (c, op, p, pd, k);
  cpu_made_as (c, last->out[0], dst);
}

static void
emit_backward_data (CpuCompiler *c, const HeddleOp *op, const Conv *k, dnnl_primitive_desc_t pd, const Layout *x, const Layout *y)
{
  Primitive *p = g_new0 (Primitive, 1);
  const dnnl_memory_desc_t *w_md = dnnl_primitive_desc_query_md (pd, dnnl_query_weights_md, 0);
  const Layout *w = weight_layout (c, k, w_md);
  if (op->info->code == HEDDLE_OP_CONV_TRANSPOSE2D && op->in[1]->kind == HEDDLE_VALUE_VARIABLE)
    cpu_adopt_layout (c, op->in[1]->variable, w);
  Operand dy = cpu_form (c, op->in[0], k->dtype, y), weight = weight_operand (c, op->in[1], k->dtype, w_md, w);
  Operand dx = cpu_target (c, op->out[0], k->dtype, x);
  add_arg (c->device, p, DNNL_ARG_DIFF_DST, dnnl_primitive_desc_query_md (pd, dnnl_query_diff_dst_md, 0), &dy);
  add_arg (c->device, p, DNNL_ARG_WEIGHTS, w_md, &weight);
  add_arg (c->device, p, DNNL_ARG_DIFF_SRC, dnnl_primitive_desc_query_md (pd, dnnl_query_diff_src_md, 0), &dx);
  add_scratchpad (c, p, pd);
  dnnl_primitive_create (&p->primitive, pd);
  finish_step (c, op, p, pd);
  cpu_made_as (c, op->out[0], dx);
}

static void
emit_backward_weight (CpuCompiler *c, const HeddleOp *op, const Conv *k, dnnl_primitive_desc_t pd, const Layout *x, const Layout *y)
{
  Primitive *p = g_new0 (Primitive, 1);
  const dnnl_memory_desc_t *w_md = dnnl_primitive_desc_query_md (pd, dnnl_query_diff_weights_md, 0);
  const Layout *w = weight_layout (c, k, w_md);
  Operand dy = cpu_form (c, op->in[0], k->dtype, y), src = cpu_form (c, op->in[1], k->dtype, x), dw, db = { 0 };
  if (w)
    dw = cpu_target (c, op->out[0], HEDDLE_F32, w);
  else
    {
      Layout padded = { LAYOUT_WEIGHT, *w_md };
      dw = (Operand) { .where = IN_ARENA, .dtype = HEDDLE_F32, .shape = op->out[0]->shape, .layout = cpu_keep_layout (c->plan, &padded) };
      dw.buffer = cpu_buffer_new (c->plan, dnnl_memory_desc_get_size (w_md));
    }
  add_arg (c->device, p, DNNL_ARG_SRC, dnnl_primitive_desc_query_md (pd, dnnl_query_src_md, 0), &src);
  add_arg (c->device, p, DNNL_ARG_DIFF_DST, dnnl_primitive_desc_query_md (pd, dnnl_query_diff_dst_md, 0), &dy);
  add_arg (c->device, p, DNNL_ARG_DIFF_WEIGHTS, w_md, &dw);
  if (k->bias)
    {
      db = cpu_target (c, op->out[1], HEDDLE_F32, &cpu_plain);
      add_arg (c->device, p, DNNL_ARG_DIFF_BIAS, dnnl_primitive_desc_query_md (pd, dnnl_query_diff_weights_md, 1), &db);
    }
  add_scratchpad (c, p, pd);
  dnnl_primitive_create (&p->primitive, pd);
  finish_step (c, op, p, pd);
  if (w)
    cpu_made_as (c, op->out[0], dw);
  else
    {
      Operand plain = cpu_target (c, op->out[0], HEDDLE_F32, &cpu_plain);
      cpu_emit_reorder (c, &dw, &plain);
      cpu_made_as (c, op->out[0], plain);
    }
  if (k->bias)
    cpu_made_as (c, op->out[1], db);
}

gboolean
cpu_emit_conv (CpuCompiler *c, const HeddleOp *op, GError **error)
{
  Conv k = conv_of (op);
  DataFormat x, y;
  Direction direction = op->info->code == HEDDLE_OP_CONV2D ? FORWARD : op->info->code == HEDDLE_OP_CONV2D_GRAD_WEIGHT ? BACKWARD_WEIGHT : BACKWARD_DATA;
  gboolean direct = cpu_direct_fits (c->device, op->attr, &k.x, &k.w);
  dnnl_primitive_desc_t pd = !direct && op->in[0]->dtype == HEDDLE_BF16 ? choose_bf16 (c->device, &k, direction, &x, &y) : NULL;
  After after = direction == FORWARD && !direct && !pd && op->in[0]->dtype == HEDDLE_F32 ? after_of (c, op) : (After) { 0 };
  pd = pd || direct ? pd : choose_joined (c->device, &k, &after, &x, &y);
  pd = pd || direct ? pd : choose_pd (c->device, &k, direction, &x, &y);
  if (direct)
    cpu_emit_direct (c, op);
  else if (!pd)
    cpu_dnnl_check (dnnl_unimplemented, "convolution", op, error);
  else if (direction == FORWARD)
    emit_forward (c, op, &k, pd, data_layout (x), data_layout (y));
  else if (direction == BACKWARD_DATA)
    emit_backward_data (c, op, &k, pd, data_layout (x), data_layout (y));
  else
    emit_backward_weight (c, op, &k, pd, data_layout (x), data_layout (y));
  gboolean ok = direct || pd != NULL;
  dnnl_primitive_desc_destroy (pd);
  return ok;
}

/* ---- matrix products of bf16 numbers ---- */

/* (batch, rows, columns), row-major, of which the last two axes may be read in each other's place; batch 1 serves all */
static void
matrix_md (HeddleDtype dtype, gint64 batch, gint64 rows, gint64 columns, gboolean transposed, dnnl_memory_desc_t *md)
{
  dnnl_dims_t dims = { batch, transposed ? columns : rows, transposed ? rows : columns }, strides = { rows * columns, transposed ? 1 : columns, transposed ? columns : 1 };
  dnnl_memory_desc_init_by_strides (md, 3, dims, cpu_dnnl_type (dtype), strides);
}

gboolean
cpu_emit_bf16_product (CpuCompiler *c, const HeddleOp *op, const CpuProduct *q, GError **error)
{
  dnnl_memory_desc_t a, b, bias, y;
  dnnl_matmul_desc_t desc;
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_dims_t columns = { 1, 1, q->n };
  HeddleDtype out = q->wide ? HEDDLE_F32 : HEDDLE_BF16;
  matrix_md (HEDDLE_BF16, q->batch, q->ta ? q->k : q->m, q->ta ? q->m : q->k, q->ta, &a);
  matrix_md (HEDDLE_BF16, q->shared ? 1 : q->batch, q->tb ? q->n : q->k, q->tb ? q->k : q->n, q->tb, &b);
  matrix_md (out, q->batch, q->m, q->n, FALSE, &y);
  dnnl_memory_desc_init_by_tag (&bias, 3, columns, dnnl_f32, dnnl_abc);
  dnnl_primitive_attr_create (&attr);
  dnnl_primitive_attr_set_scratchpad_mode (attr, dnnl_scratchpad_mode_user);
  gboolean ok = cpu_dnnl_check (dnnl_matmul_desc_init (&desc, &a, &b, q->bias ? &bias : NULL, &y), "dnnl_matmul_desc_init", op, error)
                && cpu_dnnl_check (dnnl_primitive_desc_create (&pd, &desc, attr, c->device->engine, NULL), "matmul", op, error);
  dnnl_primitive_attr_destroy (attr);
  if (ok)
    {
      Primitive *p = g_new0 (Primitive, 1);
      Operand x = cpu_form (c, q->a, HEDDLE_BF16, &cpu_plain), w = cpu_form (c, q->b, HEDDLE_BF16, &cpu_plain);
      Operand v = q->bias ? cpu_form (c, q->bias, HEDDLE_F32, &cpu_plain) : (Operand) { 0 }, to = cpu_target (c, op->out[0], out, &cpu_plain);
      add_arg (c->device, p, DNNL_ARG_SRC, &a, &x);
      add_arg (c->device, p, DNNL_ARG_WEIGHTS, &b, &w);
      if (q->bias)
        add_arg (c->device, p, DNNL_ARG_BIAS, &bias, &v);
      add_arg (c->device, p, DNNL_ARG_DST, &y, &to);
      add_scratchpad (c, p, pd);
      dnnl_primitive_create (&p->primitive, pd);
      finish_step (c, op, p, pd);
      cpu_made_as (c, op->out[0], to);
    }
  dnnl_primitive_desc_destroy (pd);
  return ok;
}

/* ---- x w^T + bias (+ another tensor): the epilogue is applied to sums that are still in registers ---- */

static dnnl_primitive_desc_t
linear_pd (const CpuDevice *device, gint64 m, gint64 n, gint64 k, gboolean bias, gboolean added)
{
  dnnl_memory_desc_t x, w, b, y;
  dnnl_matmul_desc_t desc;
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t after = NULL;
  dnnl_dims_t x_dims = { m, k }, w_dims = { k, n }, y_dims = { m, n }, b_dims = { 1, n };
  dnnl_memory_desc_init_by_tag (&x, 2, x_dims, dnnl_f32, dnnl_ab);
  dnnl_memory_desc_init_by_tag (&w, 2, w_dims, dnnl_f32, dnnl_ba);
  dnnl_memory_desc_init_by_tag (&b, 2, b_dims, dnnl_f32, dnnl_ab);
  dnnl_memory_desc_init_by_tag (&y, 2, y_dims, dnnl_f32, dnnl_ab);
  dnnl_primitive_attr_create (&attr);
  dnnl_primitive_attr_set_scratchpad_mode (attr, dnnl_scratchpad_mode_user);
  dnnl_post_ops_create (&after);
  if (added)
    dnnl_post_ops_append_binary (after, dnnl_binary_add, &y);
  dnnl_primitive_attr_set_post_ops (attr, after);
  if (dnnl_matmul_desc_init (&desc, &x, &w, bias ? &b : NULL, &y) == dnnl_success)
    dnnl_primitive_desc_create (&pd, &desc, attr, device->engine, NULL);
  dnnl_post_ops_destroy (after);
  dnnl_primitive_attr_destroy (attr);
  return pd;
}

/* Only the implementation that has its epilogue in the kernel is worth a primitive. */
static gboolean
is_brgemm (dnnl_primitive_desc_t pd)
{
  const char *name = NULL;
  dnnl_primitive_desc_query (pd, dnnl_query_impl_info_str, 0, &name);
  return name && g_str_has_prefix (name, "brg");
}

gboolean
cpu_emit_dense (CpuCompiler *c, const HeddleOp *op)
{
  const HeddleShape *w = &op->in[1]->shape;
  const HeddleValue *other = NULL;
  const HeddleOp *add = added_to (c, op, &other);
  gint64 n = w->size[0], k = w->size[1];
  dnnl_primitive_desc_t pd = linear_pd (c->device, heddle_shape_count (&op->out[0]->shape) / n, n, k, op->n_in > 2, add != NULL);
  gboolean ok = pd && is_brgemm (pd);
  if (ok)
    {
      static const int args[] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS };
      const dnnl_query_t queries[] = { dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_weights_md };
      Primitive *p = g_new0 (Primitive, 1);
      const HeddleValue *y = add ? add->out[0] : op->out[0];
      const dnnl_memory_desc_t *y_md = dnnl_primitive_desc_query_md (pd, dnnl_query_dst_md, 0);
      for (guint i = 0; i < op->n_in; i++)
        {
          Operand operand = cpu_form (c, op->in[i], HEDDLE_F32, &cpu_plain);
          add_arg (c->device, p, args[i], dnnl_primitive_desc_query_md (pd, queries[i], i > 1), &operand);
        }
      Operand to = cpu_target (c, y, HEDDLE_F32, &cpu_plain), residual = add ? cpu_form (c, other, HEDDLE_F32, &cpu_plain) : (Operand) { 0 };
      add_arg (c->device, p, DNNL_ARG_DST, y_md, &to);
      if (add)
        add_arg (c->device, p, DNNL_ARG_ATTR_MULTIPLE_POST_OP (0) | DNNL_ARG_SRC_1, y_md, &residual);
      add_scratchpad (c, p, pd);
      dnnl_primitive_create (&p->primitive, pd);
      finish_step (c, op, p, pd)->what = add ? "brgemm+add" : "brgemm";
      cpu_made_as (c, y, to);
      if (add)
        cpu_mark_done (c, add);
    }
  dnnl_primitive_desc_destroy (pd);
  return ok;
}
