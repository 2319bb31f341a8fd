/* cuda/compile.c: from a program to steps.  Must not know what a kernel computes, nor where memory lies. */
#include "cuda.h"
#include "dnn-ops.h"
#include "ranges.h"
#include "tensor/tensors.h"

#include <string.h>

/* ---- results written straight into the variable they are assigned to ---- */

gboolean
cuda_touches (const HeddleOp *op, const HeddleVariable *v)
{
  gboolean hit = FALSE;
  for (guint i = 0; i < op->n_in; i++)
    {
      const HeddleVariable *other = op->in[i]->kind == HEDDLE_VALUE_VARIABLE ? op->in[i]->variable : NULL;
      hit |= other && (other == v || other->flat == v || v->flat == other);
    }
  return hit;
}

static void
find_forwards (CudaCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      const HeddleValue *v = op->info->code == HEDDLE_OP_ASSIGN && op->n_in == 2 ? op->in[1] : NULL;
      gboolean ok = v && v->kind == HEDDLE_VALUE_TEMP && v->n_uses == 1 && !(v->producer->info->flags & HEDDLE_OP_VIEW) && heddle_shape_equal (&v->shape, &op->in[0]->shape);
      for (guint j = ok ? v->producer->id : i; ok && j < i; j++)
        ok = !cuda_touches (p->ops->pdata[j], op->in[0]->variable);
      if (ok)
        c->forward[v->id] = op->in[0]->variable;
    }
}

/* ---- what can be made together ---- */

static void
find_wanted (CudaCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  for (guint i = 0; i < p->values->len; i++)
    c->wanted[i] = c->users[i] != NULL;
  for (guint i = 0; i < p->outputs->len; i++)
    c->wanted[((const HeddleValue *) p->outputs->pdata[i])->id] = TRUE;
}

const HeddleOp *
cuda_only_user (const CudaCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  return c->device->flags.fusion && users && users->len == 1 && v->n_uses == 1 ? users->pdata[0] : NULL;
}

gboolean
cuda_read_by (const CudaCompiler *c, const HeddleValue *v, CudaMay may)
{
  const GPtrArray *users = c->users[v->id];
  gboolean ok = users && users->len == v->n_uses;
  for (guint i = 0; ok && i < users->len; i++)
    ok = may (c, users->pdata[i], v);
  return ok;
}

void
cuda_mark_done (CudaCompiler *c, const HeddleOp *op)
{
  c->done[op->id] = TRUE;
}

gboolean
cuda_is_done (const CudaCompiler *c, const HeddleOp *op)
{
  return c->done[op->id];
}

/* ---- operations that are no work ---- */

static gboolean
lower_view (CudaCompiler *c, const HeddleOp *op)
{
  gboolean mine = (op->info->flags & HEDDLE_OP_VIEW) != 0;
  if (mine)
    {
      const HeddleShape *from = &op->in[0]->shape, *to = &op->out[0]->shape;
      gboolean padded = cuda_made (c, op->in[0])->layout == CUDA_PADDED && to->rank && cuda_pitch (from, CUDA_ROWS) == cuda_pitch (to, CUDA_ROWS);
      CudaOperand o = cuda_form (c, op->in[0], op->in[0]->dtype, padded ? CUDA_PADDED : CUDA_ROWS);
      o.shape = *to;
      cuda_made_as (c, op->out[0], o);
    }
  return mine;
}

static gboolean
is_attention (const CudaCompiler *c, const HeddleOp *op, const HeddleValue *v)
{
  return op->info->code == HEDDLE_OP_ATTENTION || op->info->code == HEDDLE_OP_ATTENTION_GRAD;
}

/* Queries, keys or values that attention reads where the product left them: neither sliced, nor brought to heads, nor these outside. */
static gboolean
lower_window (CudaCompiler *c, const HeddleOp *op)
{
  const HeddleOp *view = op->info->code == HEDDLE_OP_SLICE && !c->device->own ? cuda_only_user (c, op->out[0]) : NULL, *permute = view && view->n_out ? cuda_only_user (c, view->out[0]) : NULL;
  CudaWindow w;
  gboolean mine = permute && permute->n_out && cuda_window_of (c->plan->program, permute->out[0], &w);
  if (mine)
    {
      CudaOperand o = cuda_form (c, w.whole, w.whole->dtype, CUDA_ROWS);
      o.shape = permute->out[0]->shape;
      o.layout = CUDA_HEADS;
      o.first = w.first;
      o.pitch = w.pitch;
      cuda_made_as (c, permute->out[0], o);
      cuda_mark_done (c, view);
      cuda_mark_done (c, permute);
    }
  return mine;
}

/* (B, T, H, D) to (B, H, T, D) and back, where attention reads or made it: the same memory with its heads inside. */
static gboolean
lower_heads (CudaCompiler *c, const HeddleOp *op)
{
  const CudaOperand *made = cuda_swaps_heads (op) && c->device->flags.fusion && !c->device->own ? cuda_made (c, op->in[0]) : NULL;
  gboolean back = made && made->layout == CUDA_HEADS, mine = made && made->where == CUDA_ARENA && !made->pitch && (back || (made->layout == CUDA_ROWS && cuda_read_by (c, op->out[0], is_attention)));
  if (mine)
    {
      CudaOperand o = *made;
      o.shape = op->out[0]->shape;
      o.layout = back ? CUDA_ROWS : CUDA_HEADS;
      cuda_made_as (c, op->out[0], o);
    }
  return mine;
}

/* A value made in the variable that it is assigned to. */
static gboolean
lower_forwarded (CudaCompiler *c, const HeddleOp *op)
{
  const GArray *forms = op->info->code == HEDDLE_OP_ASSIGN && op->n_in == 2 ? c->forms[op->in[1]->id] : NULL;
  const CudaOperand *made = forms ? &g_array_index (forms, CudaOperand, 0) : NULL;
  return made && made->where == CUDA_VARIABLE && made->variable == op->in[0]->variable && op->in[1]->kind == HEDDLE_VALUE_TEMP;
}

static gboolean
assigned (const CudaCompiler *c, const HeddleVariable *v)
{
  const HeddleProgram *p = c->plan->program;
  gboolean hit = FALSE;
  for (guint i = 0; !hit && i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      const HeddleVariable *other = op->info->code == HEDDLE_OP_ASSIGN ? op->in[0]->variable : NULL;
      hit = other && (other == v || other->flat == v || v->flat == other);
    }
  return hit;
}

/* A parameter cast to 16 bits is read from the copy that is kept of the whole group. */
static gboolean
lower_shadow (CudaCompiler *c, const HeddleOp *op)
{
  const HeddleValue *x = op->n_in ? op->in[0] : NULL;
  HeddleVariable *v = op->info->code == HEDDLE_OP_CAST && x->kind == HEDDLE_VALUE_VARIABLE && x->dtype == HEDDLE_F32 ? x->variable : NULL;
  HeddleDtype dtype = v ? op->out[0]->dtype : HEDDLE_F32;
  gboolean mine = v && v->role == HEDDLE_ROLE_PARAM && v->flat && heddle_dtype_is_16_bits (dtype) && !assigned (c, v);
  if (mine)
    {
      CudaShadow *shadow = cuda_shadow (c->device, v, dtype, TRUE);
      CudaOperand o = { .where = CUDA_SHADOW, .variable = v, .shadow = shadow, .dtype = dtype, .shape = v->shape, .layout = cuda_variable_layout (v) };
      if (!g_ptr_array_find (c->plan->reads, shadow, NULL))
        g_ptr_array_add (c->plan->reads, shadow);
      cuda_made_as (c, op->out[0], o);
    }
  return mine;
}

/* ---- lowering ---- */

/* Converted copies of a variable are stale once it is assigned. */
static void
forget_copies (CudaCompiler *c, const HeddleVariable *v)
{
  for (guint i = 0; i < c->plan->program->values->len; i++)
    {
      const HeddleValue *other = c->plan->program->values->pdata[i];
      gboolean same = other->kind == HEDDLE_VALUE_VARIABLE && (other->variable == v || other->variable->flat == v || v->flat == other->variable);
      if (same && c->forms[i] && c->forms[i]->len > 1)
        g_array_set_size (c->forms[i], 1);
    }
}

static void
note_write (CudaCompiler *c, const HeddleOp *op)
{
  HeddleVariable *v = op->info->code == HEDDLE_OP_ASSIGN ? op->in[0]->variable : NULL, *flat = v && v->flat ? v->flat : v;
  if (v && v->role == HEDDLE_ROLE_PARAM && !g_ptr_array_find (c->plan->writes, flat, NULL))
    g_ptr_array_add (c->plan->writes, flat);
  if (v)
    forget_copies (c, v);
}

static gboolean
no_kernel (const HeddleOp *op, GError **error)
{
  g_autofree char *shape = heddle_shape_print (&op->in[0]->shape);
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: the cuda backend has no kernel for %s of %s %s\nhint: use device = \"cpu\"", op->name, op->info->name,
               heddle_dtype_name (op->in[0]->dtype), shape);
  return FALSE;
}

static gboolean
lower_by (CudaCompiler *c, const CudaLowering *list, const HeddleOp *op, GError **error)
{
  GError *met = NULL;
  gboolean done = FALSE;
  for (guint i = 0; !done && !met && list[i]; i++)
    {
      done = list[i] (c, op, &met);
      if (done && c->error)
        {
          met = g_steal_pointer (&c->error);
          done = FALSE;
        }
    }
  if (met)
    g_propagate_error (error, met);
  return done;
}

static gboolean
lower_op (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  GError *met = NULL;
  gboolean done = lower_view (c, op) || lower_window (c, op) || lower_heads (c, op) || lower_forwarded (c, op) || lower_shadow (c, op) || cuda_lower_gradient (c, op) || cuda_lower_logits (c, op) || cuda_lower_part (c, op);
  if (!done && !c->device->own)
    done = lower_by (c, cuda_lowerings_library, op, &met);
  if (!done && !met)
    done = lower_by (c, cuda_lowerings_own, op, &met);
  if (met)
    g_propagate_error (error, met);
  else if (!done)
    no_kernel (op, error);
  return done;
}

static gboolean
lower_all (CudaCompiler *c, GError **error)
{
  const HeddleProgram *p = c->plan->program;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < p->ops->len; i++)
    {
      note_write (c, p->ops->pdata[i]);
      if (!c->done[i])
        ok = lower_op (c, p->ops->pdata[i], error);
    }
  cuda_flush_gradients (c);
  return ok;
}

/* Of x and w */
static gboolean
is_convolution (const HeddleOp *op)
{
  return op->info->code == HEDDLE_OP_CONV2D || op->info->code == HEDDLE_OP_CONV_TRANSPOSE2D;
}

/* 16-bit and TF32 convolutions run on tensor cores, which take their operands channels last; in full f32 rows are as good, and everything else likes them. */
static CudaLayout
image_layout (const CudaCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  const char *asked = g_getenv ("HEDDLE_CUDA_LAYOUT");
  gboolean tensor_cores = FALSE;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      tensor_cores |= is_convolution (op) && (op->in[0]->dtype != HEDDLE_F32 || c->device->flags.tf32_conv);
    }
  if (asked)
    tensor_cores = g_str_equal (asked, "nhwc");
  return tensor_cores && !c->device->own ? CUDA_CHANNELS_LAST : CUDA_ROWS;
}

/* V, or the parameter whose gradient it is */
static HeddleVariable *
parameter_of (HeddleVariable *v)
{
  const GPtrArray *params = v->role == HEDDLE_ROLE_GRAD && v->flat ? v->group->params : NULL;
  HeddleVariable *parameter = v;
  for (guint i = 0; params && i < params->len; i++)
    if (((HeddleVariable *) params->pdata[i])->grad == v)
      parameter = params->pdata[i];
  return parameter;
}

/* Weights of such convolutions are kept that way, so that none is turned around in a step, nor its 16-bit copy, its gradient or its slots.  Before anything is lowered:
 * a layout is part of every form.  What else this program uses stays in rows, whatever a later one would like: its steps are made for that. */
static void
choose_weight_layouts (const CudaCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      const HeddleValue *w = is_convolution (op) ? op->in[1] : NULL;
      if (w && w->producer && w->producer->info->code == HEDDLE_OP_CAST)
        w = w->producer->in[0];
      if (w && w->kind == HEDDLE_VALUE_VARIABLE)
        cuda_prefer_layout (w->variable, c->images);
    }
  for (guint i = 0; i < p->values->len; i++)
    {
      const HeddleValue *v = p->values->pdata[i];
      if (v->kind == HEDDLE_VALUE_VARIABLE)
        cuda_prefer_layout (parameter_of (v->variable), CUDA_ROWS);
    }
}

/* ---- life ---- */

static void
step_free (gpointer data)
{
  CudaStep *step = data;
  if (step->data_free)
    step->data_free (step->data);
  g_free (step->in);
  g_free (step->out);
  g_free (step->scratch);
  g_free (step);
}

void
cuda_plan_free (HeddlePlan *base)
{
  CudaPlan *plan = (CudaPlan *) base;
  cuda_plan_drop (plan);
  g_ptr_array_remove (plan->device->plans, plan);
  for (guint i = 0; plan->described && i < plan->program->ops->len; i++)
    g_free (plan->described[i]);
  g_free (plan->described);
  g_ptr_array_unref (plan->steps);
  g_array_unref (plan->buffers);
  g_array_unref (plan->sharing);
  g_clear_pointer (&plan->owners, g_array_unref);
  g_array_unref (plan->constants);
  g_array_unref (plan->faults);
  g_ptr_array_unref (plan->strings);
  g_ptr_array_unref (plan->reads);
  g_ptr_array_unref (plan->writes);
  g_ptr_array_unref (plan->refreshes);
  g_free (plan->outputs);
  g_free (plan->numbers);
  g_free (plan->input_offset);
  heddle_program_free (plan->program);
  g_free (plan);
}

static CudaPlan *
plan_new (CudaDevice *device, HeddleProgram *program)
{
  CudaPlan *plan = g_new0 (CudaPlan, 1);
  plan->base.device = &device->base;
  plan->device = device;
  plan->program = program;
  plan->steps = g_ptr_array_new_with_free_func (step_free);
  plan->buffers = g_array_new (FALSE, FALSE, sizeof (HeddleRegion));
  plan->sharing = g_array_new (FALSE, FALSE, sizeof (HeddleTakeOver));
  plan->constants = g_array_new (FALSE, FALSE, sizeof (float));
  plan->faults = g_array_new (FALSE, FALSE, sizeof (CudaFault));
  plan->strings = g_ptr_array_new_with_free_func (g_free);
  plan->reads = g_ptr_array_new ();
  plan->writes = g_ptr_array_new ();
  plan->refreshes = g_ptr_array_new ();
  plan->outputs = g_new0 (CudaOperand, program->outputs->len + 1);
  plan->numbers = g_malloc0 (CUDA_SMALL * (program->outputs->len + 1));
  plan->input_offset = g_new0 (gsize, program->inputs->len + 1);
  g_ptr_array_add (device->plans, plan);
  return plan;
}

static void
compiler_clear (CudaCompiler *c)
{
  for (guint i = 0; i < c->plan->program->values->len; i++)
    g_clear_pointer (&c->forms[i], g_array_unref);
  g_free (c->forms);
  g_free (c->forward);
  heddle_users_free (c->users, c->plan->program);
  g_free (c->done);
  g_free (c->wanted);
  g_array_unref (c->gradients);
  g_clear_error (&c->error);
}

HeddlePlan *
cuda_compile (HeddleDevice *device, HeddleProgram *program, GError **error)
{
  CudaPlan *plan = plan_new ((CudaDevice *) device, program);
  guint n = program->values->len;
  CudaCompiler c = { .device = plan->device, .plan = plan, .forms = g_new0 (GArray *, n + 1), .forward = g_new0 (HeddleVariable *, n + 1), .users = heddle_program_users (program),
                     .done = g_new0 (gboolean, program->ops->len + 1), .wanted = g_new0 (gboolean, n + 1), .gradients = g_array_new (FALSE, FALSE, sizeof (CudaGradient)) };
  c.images = image_layout (&c);
  choose_weight_layouts (&c);
  find_forwards (&c);
  find_wanted (&c);
  gboolean ok = cuda_use (plan->device, error) && lower_all (&c, error);
  for (guint i = 0; ok && i < program->outputs->len; i++)
    plan->outputs[i] = *cuda_made (&c, program->outputs->pdata[i]);
  ok = ok && cuda_place (plan, error);
  if (ok)
    {
      cuda_note_owners (&c);
      cuda_describe (&c);
      cuda_ranges_name (plan);
    }
  compiler_clear (&c);
  if (!ok)
    cuda_plan_free (&plan->base);
  return ok ? &plan->base : NULL;
}
