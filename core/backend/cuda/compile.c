/* cuda/compile.c: from a program to steps with memory.  Must not know what a kernel computes. */
#include "cuda.h"
#include "tensor/tensors.h"

#include <string.h>

/* ---- building blocks ---- */

guint
cuda_buffer_new (CudaPlan *plan, gsize bytes)
{
  CudaBuffer buffer = { MAX (bytes, 4), 0, G_MAXINT, -1 };
  g_array_append_val (plan->buffers, buffer);
  return plan->buffers->len - 1;
}

static CudaOperand
temporary (CudaPlan *plan, HeddleDtype dtype, const HeddleShape *shape, CudaOrder order)
{
  return (CudaOperand) { .where = CUDA_ARENA, .dtype = dtype, .shape = *shape, .order = order, .buffer = cuda_buffer_new (plan, heddle_tensor_bytes (dtype, shape)) };
}

CudaOperand
cuda_scratch (CudaPlan *plan, gsize bytes)
{
  return (CudaOperand) { .where = CUDA_ARENA, .dtype = HEDDLE_U8, .shape = heddle_shape ((gint64) bytes), .buffer = cuda_buffer_new (plan, bytes) };
}

static void
step_free (gpointer data)
{
  CudaStep *step = data;
  if (step->data_free)
    step->data_free (step->data);
  if (step->begin)
    cudaEventDestroy (step->begin);
  if (step->end)
    cudaEventDestroy (step->end);
  g_free (step->in);
  g_free (step->out);
  g_free (step);
}

CudaStep *
cuda_step_new (CudaPlan *plan, const HeddleOp *op, const char *what, CudaStepRun run)
{
  CudaStep *step = g_new0 (CudaStep, 1);
  step->op = op;
  step->what = what;
  step->run = run;
  step->in = g_new0 (CudaOperand, CUDA_STEP_OPERANDS);
  step->out = g_new0 (CudaOperand, CUDA_STEP_OPERANDS);
  g_ptr_array_add (plan->steps, step);
  return step;
}

void
cuda_step_in (CudaStep *step, CudaOperand operand)
{
  g_assert (step->n_in < CUDA_STEP_OPERANDS);
  step->in[step->n_in++] = operand;
}

void
cuda_step_out (CudaStep *step, CudaOperand operand)
{
  g_assert (step->n_out < CUDA_STEP_OPERANDS);
  step->out[step->n_out++] = operand;
}

void
cuda_may_share (CudaPlan *plan, const CudaOperand *in, const CudaOperand *out)
{
  if (in->where == CUDA_ARENA && out->where == CUDA_ARENA && in->buffer != out->buffer)
    g_array_append_val (plan->sharing, ((CudaSharing) { plan->steps->len - 1, in->buffer, out->buffer }));
}

gpointer
cuda_pointer (const CudaPlan *plan, const CudaOperand *o)
{
  gpointer p = NULL;
  switch (o->where)
    {
    case CUDA_NOWHERE: break;
    case CUDA_ARENA: p = plan->device->arena + g_array_index (plan->buffers, CudaBuffer, o->buffer).offset; break;
    case CUDA_VARIABLE: p = o->variable->data; break;
    case CUDA_INPUT: p = plan->staging[plan->turn] + plan->input_offset[o->buffer]; break;
    case CUDA_CONSTANT: p = plan->constants_on_device + o->buffer; break;
    }
  return p;
}

/* ---- forms: one value in several dtypes and orders ---- */

static gboolean
same_bytes (CudaOrder a, CudaOrder b, const HeddleShape *s)
{
  return a == b || s->rank != 4 || s->size[1] == 1 || s->size[2] * s->size[3] == 1;
}

static void
add_form (CudaCompiler *c, const HeddleValue *v, CudaOperand o)
{
  if (!c->forms[v->id])
    c->forms[v->id] = g_array_new (FALSE, FALSE, sizeof (CudaOperand));
  g_array_append_val (c->forms[v->id], o);
}

static guint
constant_index (CudaPlan *plan, float number)
{
  guint found = plan->constants->len;
  for (guint i = 0; i < plan->constants->len; i++)
    if (memcmp (&g_array_index (plan->constants, float, i), &number, sizeof number) == 0)
      found = i;
  if (found == plan->constants->len)
    g_array_append_val (plan->constants, number);
  return found;
}

const CudaOperand *
cuda_made (CudaCompiler *c, const HeddleValue *v)
{
  if (!c->forms[v->id])
    {
      CudaOperand o = { .dtype = v->dtype, .shape = v->shape };
      if (v->kind == HEDDLE_VALUE_VARIABLE)
        {
          o.where = CUDA_VARIABLE;
          o.variable = v->variable;
          o.order = v->variable->layout ? CUDA_CHANNELS_LAST : CUDA_ROWS;
        }
      else if (v->kind == HEDDLE_VALUE_INPUT)
        {
          o.where = CUDA_INPUT;
          o.buffer = v->input;
        }
      else if (v->kind == HEDDLE_VALUE_CONSTANT)
        {
          o.where = CUDA_CONSTANT;
          o.buffer = constant_index (c->plan, (float) v->constant);
        }
      else
        o = temporary (c->plan, v->dtype, &v->shape, CUDA_ROWS);      /* an output nobody made: never read */
      add_form (c, v, o);
    }
  return &g_array_index (c->forms[v->id], CudaOperand, 0);
}

CudaOperand
cuda_form (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaOrder order)
{
  CudaOperand result = *cuda_made (c, v);
  gboolean found = FALSE;
  for (guint i = 0; !found && i < c->forms[v->id]->len; i++)
    {
      const CudaOperand *o = &g_array_index (c->forms[v->id], CudaOperand, i);
      found = o->dtype == dtype && same_bytes (o->order, order, &v->shape);
      if (found)
        result = *o;
    }
  if (!found)
    {
      CudaOperand to = temporary (c->plan, dtype, &v->shape, order);
      c->plan->n_reorders += !same_bytes (result.order, order, &v->shape);
      cuda_emit_convert (c, &result, &to);
      add_form (c, v, to);
      result = to;
    }
  return result;
}

CudaOperand
cuda_plain (CudaCompiler *c, const HeddleValue *v)
{
  return cuda_form (c, v, v->dtype, CUDA_ROWS);
}

CudaOperand
cuda_target (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaOrder order)
{
  HeddleVariable *variable = c->forward[v->id];
  CudaOperand o;
  if (variable && dtype == v->dtype && same_bytes (variable->layout ? CUDA_CHANNELS_LAST : CUDA_ROWS, order, &v->shape))
    o = (CudaOperand) { .where = CUDA_VARIABLE, .variable = variable, .dtype = dtype, .shape = v->shape, .order = order };
  else
    {
      c->forward[v->id] = NULL;
      o = temporary (c->plan, dtype, &v->shape, order);
    }
  return o;
}

void
cuda_made_as (CudaCompiler *c, const HeddleValue *v, CudaOperand operand)
{
  if (operand.dtype != v->dtype)
    {
      CudaOperand to = temporary (c->plan, v->dtype, &v->shape, operand.order);
      cuda_emit_convert (c, &operand, &to);
      operand = to;
    }
  add_form (c, v, operand);
}

CudaStep *
cuda_simple (CudaCompiler *c, const HeddleOp *op, const char *what, CudaStepRun run)
{
  CudaOperand in[CUDA_STEP_OPERANDS];
  for (guint i = 0; i < op->n_in; i++)
    in[i] = cuda_plain (c, op->in[i]);
  CudaStep *step = cuda_step_new (c->plan, op, what, run);
  for (guint i = 0; i < op->n_in; i++)
    cuda_step_in (step, in[i]);
  for (guint i = 0; i < op->n_out; i++)
    {
      gboolean read = op->out[i]->n_uses > 0;
      CudaOperand out = read ? cuda_target (c, op->out[i], op->out[i]->dtype, CUDA_ROWS) : (CudaOperand) { .dtype = op->out[i]->dtype, .shape = op->out[i]->shape };
      cuda_step_out (step, out);
      if (read)
        cuda_made_as (c, op->out[i], out);
    }
  return step;
}

/* ---- users, and results written straight into the variable they are assigned to ---- */

static void
find_users (CudaCompiler *c)
{
  const HeddleProgram *p = c->plan->program;
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        {
          GPtrArray **users = &c->users[op->in[j]->id];
          *users = *users ? *users : g_ptr_array_new ();
          g_ptr_array_add (*users, (gpointer) op);
        }
    }
}

const HeddleOp *
cuda_only_user (const CudaCompiler *c, const HeddleValue *v)
{
  const GPtrArray *users = c->users[v->id];
  return c->device->flags.fusion && users && users->len == 1 && v->n_uses == 1 ? users->pdata[0] : NULL;
}

static gboolean
touches (const HeddleOp *op, const HeddleVariable *v)
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
      gboolean ok = v && v->kind == HEDDLE_VALUE_TEMP && v->n_uses == 1 && v->dtype == op->in[0]->dtype && !(v->producer->info->flags & (HEDDLE_OP_VIEW | HEDDLE_OP_ELEMENTWISE));
      for (guint j = ok ? v->producer->id : i; ok && j < i; j++)
        ok = !touches (p->ops->pdata[j], op->in[0]->variable);
      if (ok)
        c->forward[v->id] = op->in[0]->variable;
    }
}

/* Is the assignment done, because its value was made in the variable's own memory? */
static gboolean
assigned_already (CudaCompiler *c, const HeddleOp *op)
{
  const HeddleValue *v = op->n_in == 2 ? op->in[1] : NULL;
  return op->info->code == HEDDLE_OP_ASSIGN && v && c->forward[v->id] == op->in[0]->variable && c->forms[v->id] && cuda_made (c, v)->where == CUDA_VARIABLE
         && cuda_made (c, v)->variable == op->in[0]->variable;
}

/* ---- operations ---- */

static void
emit_view (CudaCompiler *c, const HeddleOp *op)
{
  CudaOperand o = cuda_plain (c, op->in[0]);
  o.shape = op->out[0]->shape;
  add_form (c, op->out[0], o);
}

static gboolean
emit_op (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  static const CudaLower libraries[] = { NULL };
  gboolean ok = TRUE, taken = FALSE;
  for (guint i = 0; ok && !taken && !c->device->own && libraries[i]; i++)
    ok = libraries[i] (c, op, &taken, error);
  if (ok && !taken)
    ok = cuda_lower_own (c, op, &taken, error);
  if (ok && !taken)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "the cuda backend has no kernel for %s \"%s\"\nhint: device = \"cpu\" computes it", op->info->name, op->name);
      ok = FALSE;
    }
  return ok;
}

static gboolean
emit_all (CudaCompiler *c, GError **error)
{
  const HeddleProgram *p = c->plan->program;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      if (c->done[i] || assigned_already (c, op))
        c->done[i] = TRUE;
      else if (op->info->flags & HEDDLE_OP_VIEW)
        emit_view (c, op);
      else
        ok = emit_op (c, op, error);
    }
  return ok;
}

/* ---- the arena ---- */

static void
touch (CudaPlan *plan, const CudaOperand *o, gint at)
{
  if (o->where == CUDA_ARENA)
    {
      CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, o->buffer);
      b->first = MIN (b->first, at);
      b->last = MAX (b->last, at);
    }
}

static void
find_lifetimes (CudaPlan *plan)
{
  for (guint i = 0; i < plan->steps->len; i++)
    {
      const CudaStep *step = plan->steps->pdata[i];
      for (guint j = 0; j < step->n_in; j++)
        touch (plan, &step->in[j], (gint) i);
      for (guint j = 0; j < step->n_out; j++)
        touch (plan, &step->out[j], (gint) i);
    }
  for (guint i = 0; i < plan->program->outputs->len; i++)
    touch (plan, &plan->outputs[i], (gint) plan->steps->len);
}

static void
name_peak (CudaPlan *plan)
{
  gsize best = 0;
  for (guint i = 0; i < plan->steps->len; i++)
    {
      gsize live = 0;
      for (guint j = 0; j < plan->buffers->len; j++)
        {
          const CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, j);
          live += b->first <= (gint) i && b->last >= (gint) i ? b->bytes : 0;
        }
      const CudaStep *step = plan->steps->pdata[i];
      if (live > best)
        {
          best = live;
          plan->peak = step->op ? step->op->name : step->what;
        }
    }
}

static guint
root_of (const guint *same_as, guint buffer)
{
  while (same_as[buffer] != buffer)
    buffer = same_as[buffer];
  return buffer;
}

/* SAME_AS[buffer] leads to the buffer whose place it takes over, whose lifetime grows. */
static void
share_memory (const CudaPlan *plan, HeddleLifetime *lives, gsize *sizes, guint *same_as)
{
  for (guint i = 0; i < plan->buffers->len; i++)
    same_as[i] = i;
  for (guint i = 0; plan->device->flags.fusion && i < plan->sharing->len; i++)
    {
      const CudaSharing *s = &g_array_index (plan->sharing, CudaSharing, i);
      guint root = root_of (same_as, s->in);
      gboolean ends = lives[root].last == (gint) s->step, begins = lives[s->out].first == (gint) s->step && same_as[s->out] == s->out;
      if (ends && begins && root != s->out && sizes[s->out] <= sizes[root])
        {
          same_as[s->out] = root;
          lives[root].last = lives[s->out].last;
          sizes[s->out] = 0;
        }
    }
}

/* Plans of one device take turns, so the largest need is enough for all. */
static gboolean
grow_arena (CudaPlan *plan, GError **error)
{
  CudaDevice *device = plan->device;
  gboolean ok = TRUE;
  if (!device->arena || device->arena_bytes < plan->arena_bytes)
    {
      void *arena = NULL;
      ok = cuda_device_sync (&device->base, error);
      if (ok)
        {
          cudaFree (device->arena);
          device->arena = NULL;
          device->arena_bytes = 0;
          cudaError_t code = cudaMalloc (&arena, MAX (plan->arena_bytes, CUDA_ALIGN));
          ok = code == cudaErrorMemoryAllocation ? cuda_no_memory (plan->arena_bytes, "the arena for activations", plan->peak, error) : cuda_check (code, "cudaMalloc (arena)", NULL, error);
        }
      if (ok)
        {
          device->arena = arena;
          device->arena_bytes = MAX (plan->arena_bytes, CUDA_ALIGN);
          device->arena_version++;
          device->allocations++;
        }
    }
  return ok;
}

static gboolean
make_arena (CudaPlan *plan, GError **error)
{
  guint n = plan->buffers->len;
  g_autofree gsize *sizes = g_new (gsize, n + 1), *offsets = g_new0 (gsize, n + 1);
  g_autofree HeddleLifetime *lives = g_new (HeddleLifetime, n + 1);
  g_autofree guint *same_as = g_new (guint, n + 1);
  find_lifetimes (plan);
  for (guint i = 0; i < n; i++)
    {
      const CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, i);
      sizes[i] = b->bytes;
      lives[i] = (HeddleLifetime) { b->first, b->last };
    }
  share_memory (plan, lives, sizes, same_as);
  plan->arena_bytes = heddle_memory_plan (sizes, lives, n, CUDA_ALIGN, offsets);
  for (guint i = 0; i < n; i++)
    {
      CudaBuffer *b = &g_array_index (plan->buffers, CudaBuffer, i);
      b->offset = offsets[root_of (same_as, i)];
      b->first += same_as[i] != i && b->first < b->last;      /* during that step the place still counts for what it takes over */
    }
  name_peak (plan);
  return grow_arena (plan, error);
}

/* Both places of every input in one block, and the constants. */
static gboolean
make_staging (CudaPlan *plan, GError **error)
{
  gsize bytes = 0;
  gboolean ok = TRUE;
  plan->input_offset = g_new0 (gsize, plan->program->inputs->len + 1);
  for (guint i = 0; i < plan->program->inputs->len; i++)
    {
      const HeddleValue *v = plan->program->inputs->pdata[i];
      plan->input_offset[i] = bytes;
      bytes += (heddle_tensor_bytes (v->dtype, &v->shape) + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
    }
  for (guint i = 0; ok && i < 2; i++)
    ok = (bytes == 0 || (plan->staging[i] = cuda_memory_new (plan->device, bytes, "the place of a batch", error)))
         && cuda_check (cudaEventCreateWithFlags (&plan->consumed[i], cudaEventDisableTiming), "cudaEventCreateWithFlags", NULL, error);
  if (ok && plan->constants->len)
    {
      ok = (plan->constants_on_device = cuda_memory_new (plan->device, plan->constants->len * sizeof (float), "constants", error))
           && cuda_check (cudaMemcpyAsync (plan->constants_on_device, plan->constants->data, plan->constants->len * sizeof (float), cudaMemcpyHostToDevice, plan->device->compute),
                          "cudaMemcpyAsync (constants)", NULL, error);
      ok = ok && cuda_check (cudaStreamSynchronize (plan->device->compute), "cudaStreamSynchronize", NULL, error);
    }
  return ok;
}

/* ---- descriptions ---- */

static void
note_owners (CudaCompiler *c)
{
  CudaPlan *plan = c->plan;
  g_ptr_array_set_size (plan->owners, (gint) plan->buffers->len);
  for (guint v = 0; v < plan->program->values->len; v++)
    for (guint i = 0; c->forms[v] && i < c->forms[v]->len; i++)
      {
        const CudaOperand *o = &g_array_index (c->forms[v], CudaOperand, i);
        if (o->where == CUDA_ARENA && !plan->owners->pdata[o->buffer])
          plan->owners->pdata[o->buffer] = plan->program->values->pdata[v];
      }
}

static void
describe_op (CudaCompiler *c, guint i)
{
  CudaPlan *plan = c->plan;
  const HeddleOp *op = plan->program->ops->pdata[i];
  const CudaOperand *o = op->n_out && c->forms[op->out[0]->id] ? &g_array_index (c->forms[op->out[0]->id], CudaOperand, 0) : NULL;
  GString *text = g_string_new (o && o->order == CUDA_CHANNELS_LAST ? "nhwc" : "");
  if (o && o->where == CUDA_ARENA)
    g_string_append_printf (text, " @%" G_GSIZE_FORMAT, g_array_index (plan->buffers, CudaBuffer, o->buffer).offset);
  else if (o && o->where == CUDA_VARIABLE)
    g_string_append_printf (text, " in %s", o->variable->name);
  for (guint s = 0; s < plan->steps->len; s++)
    if (((const CudaStep *) plan->steps->pdata[s])->op == op)
      g_string_append_printf (text, " %s", ((const CudaStep *) plan->steps->pdata[s])->what);
  plan->described[i] = g_strdup (g_strstrip (text->str));
  g_string_free (text, TRUE);
}

/* ---- life ---- */

void
cuda_plan_free (HeddlePlan *base)
{
  CudaPlan *plan = (CudaPlan *) base;
  if (plan->runs)
    cudaStreamSynchronize (plan->device->compute);
  for (guint i = 0; i < 2; i++)
    {
      if (plan->graph[i])
        cudaGraphExecDestroy (plan->graph[i]);
      if (plan->consumed[i])
        cudaEventDestroy (plan->consumed[i]);
      cudaFree (plan->staging[i]);
    }
  cudaFree (plan->constants_on_device);
  if (plan->device->last == plan)
    plan->device->last = NULL;
  for (guint i = 0; plan->described && i < plan->program->ops->len; i++)
    g_free (plan->described[i]);
  g_free (plan->described);
  g_ptr_array_unref (plan->steps);
  g_array_unref (plan->buffers);
  g_array_unref (plan->sharing);
  g_ptr_array_unref (plan->owners);
  g_array_unref (plan->constants);
  g_free (plan->outputs);
  g_free (plan->input_offset);
  heddle_program_free (plan->program);
  g_free (plan);
}

static CudaPlan *
plan_new (HeddleDevice *device, HeddleProgram *program)
{
  CudaPlan *plan = g_new0 (CudaPlan, 1);
  plan->base.device = device;
  plan->device = (CudaDevice *) device;
  plan->program = program;
  plan->steps = g_ptr_array_new_with_free_func (step_free);
  plan->buffers = g_array_new (FALSE, FALSE, sizeof (CudaBuffer));
  plan->sharing = g_array_new (FALSE, FALSE, sizeof (CudaSharing));
  plan->owners = g_ptr_array_new ();
  plan->constants = g_array_new (FALSE, FALSE, sizeof (float));
  plan->outputs = g_new0 (CudaOperand, program->outputs->len + 1);
  plan->described = g_new0 (char *, program->ops->len + 1);
  return plan;
}

static void
compiler_clear (CudaCompiler *c, guint n)
{
  for (guint i = 0; i < n; i++)
    {
      g_clear_pointer (&c->forms[i], g_array_unref);
      g_clear_pointer (&c->users[i], g_ptr_array_unref);
    }
  g_free (c->forms);
  g_free (c->users);
  g_free (c->done);
  g_free (c->forward);
}

HeddlePlan *
cuda_compile (HeddleDevice *device, HeddleProgram *program, GError **error)
{
  CudaPlan *plan = plan_new (device, program);
  guint n = program->values->len;
  CudaCompiler c = { .device = plan->device, .plan = plan, .forms = g_new0 (GArray *, n + 1), .users = g_new0 (GPtrArray *, n + 1), .done = g_new0 (gboolean, program->ops->len + 1),
                     .forward = g_new0 (HeddleVariable *, n + 1) };
  gboolean ok = cuda_check (cudaSetDevice (plan->device->ordinal), "cudaSetDevice", NULL, error);
  find_users (&c);
  find_forwards (&c);
  ok = ok && emit_all (&c, error);
  for (guint i = 0; ok && i < program->outputs->len; i++)
    plan->outputs[i] = *cuda_made (&c, program->outputs->pdata[i]);
  ok = ok && make_arena (plan, error) && make_staging (plan, error);
  note_owners (&c);
  for (guint i = 0; ok && i < program->ops->len; i++)
    describe_op (&c, i);
  plan->device->reorders = plan->n_reorders;
  compiler_clear (&c, n);
  if (!ok)
    cuda_plan_free (&plan->base);
  return ok ? &plan->base : NULL;
}
