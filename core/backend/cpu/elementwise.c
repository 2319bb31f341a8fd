/* cpu/elementwise.c: a chain of elementwise operations as one loop over strips in the first-level cache.  Must not know layouts beyond their equality. */
#include "cpu.h"
#include "base/memory.h"
#include "vecmath.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Elements that one instruction handles before the next has its turn.  So few that the processor, which looks hundreds of instructions ahead, works on several
 * instructions and on the strip behind at the same time: loads from memory, divisions and roots of different instructions overlap as in one hand-written loop,
 * which with tiles of a thousand they cannot.  So many that the call of a kernel does not count. */
#define STRIP 128
#define SPAN (32 * STRIP)   /* elements a thread takes at a time */
#define AHEAD (4 * STRIP)   /* elements by which memory is asked for before its turn: one strip's worth of every operand is read while others are computed with */
#define MAX_REGISTERS 96    /* that the operations of a loop may name; half the table: conversions name a second one each */

typedef void (*Kernel) (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr);

/* Everything a kernel reads or writes is a register: a strip in the first-level cache, memory, or a scalar that was repeated to a whole strip before the loop began. */
typedef enum { TEMPORARY = 1, MEMORY, SCALAR } Kind;
typedef struct
{
  Kind     kind;
  guint    index;       /* of the strip, or of the operand */
  gsize    step;        /* MEMORY: bytes from element to element */
  gboolean fetch;       /* MEMORY of a long loop that no register before it names */
} Register;

typedef struct
{
  Kernel        kernel;
  guint         dst, n_args, arg[3];
  gconstpointer attr;
} Instruction;

typedef struct
{
  GArray *code;                                 /* Instruction */
  GPtrArray *operands;                          /* Operand *, owned: memory and scalars */
  Register reg[2 * MAX_REGISTERS];
  guint   n_registers, n_scalars, n_strips;     /* N_STRIPS: temporaries at a time */
  Operand scratch;                              /* scalars, then the temporaries of each thread */
  gsize   n;
} Loop;

/* ---- kernels ---- */

#define EACH(statement) \
  do { \
    if (n == STRIP) for (gsize i = 0; i < STRIP; i++) { statement; } \
    else for (gsize i = 0; i < n; i++) { statement; } \
  } while (0)

#define BINARY(name, expression) \
  VECTOR (void, k_##name, (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr), (d, a, b, c, n, attr)) \
  { (void) c; (void) attr; EACH (float x = a[i]; float y = b[i]; d[i] = (expression)); }

#define UNARY(name, expression) \
  VECTOR (void, k_##name, (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr), (d, a, b, c, n, attr)) \
  { (void) b; (void) c; (void) attr; EACH (float x = a[i]; d[i] = (expression)); }

BINARY (add, x + y)
BINARY (sub, x - y)
BINARY (mul, x * y)
BINARY (div, x / y)
BINARY (max, (x > y) | (x != x) ? x : y)
BINARY (min, (x < y) | (x != x) ? x : y)
BINARY (greater, x > y ? 1.0f : 0.0f)
BINARY (relu_grad, y > 0 ? x : 0.0f)
BINARY (sigmoid_grad, x * y * (1.0f - y))
BINARY (tanh_grad, x * (1.0f - y * y))
UNARY (copy, x)
UNARY (neg, -x)
UNARY (abs, fabsf (x))
UNARY (sign, (float) (x > 0) - (float) (x < 0))
UNARY (exp, vm_exp (x))
UNARY (expm1, vm_expm1 (x))
UNARY (log, logf (x))
UNARY (sqrt, sqrtf (x))
UNARY (rsqrt, 1.0f / sqrtf (x))
UNARY (square, x * x)
UNARY (reciprocal, 1.0f / x)
UNARY (relu, x < 0 ? 0.0f : x)             /* NaN stays NaN */
UNARY (sigmoid, vm_sigmoid (x))
UNARY (tanh, vm_tanh (x))

/* (1 + tanh u) / 2 = sigmoid (2 u): one exponential, and no digits lost to the sum where tanh u is near -1.  1.59577 = 2 sqrt (2 / pi), 0.3989 = 1 / sqrt (2 pi) */
static inline __attribute__ ((always_inline)) float
gelu_tanh (float x)
{
  return x * vm_sigmoid (1.5957691216057308f * (x + 0.044715f * x * x * x));
}

static inline __attribute__ ((always_inline)) float
gelu_tanh_slope (float x)
{
  float s = vm_sigmoid (1.5957691216057308f * (x + 0.044715f * x * x * x));
  return s + x * s * (1.0f - s) * (1.5957691216057308f * (1.0f + 3 * 0.044715f * x * x));
}

static inline __attribute__ ((always_inline)) float
gelu_erf (float x)
{
  return 0.5f * x * (1.0f + vm_erf (x * 0.7071067811865476f));
}

static inline __attribute__ ((always_inline)) float
gelu_erf_slope (float x)
{
  return 0.5f * (1.0f + vm_erf (x * 0.7071067811865476f)) + x * 0.3989422804014327f * vm_exp (-0.5f * x * x);
}

UNARY (gelu_erf, gelu_erf (x))
UNARY (gelu_tanh, gelu_tanh (x))
BINARY (gelu_erf_grad, x * gelu_erf_slope (y))
BINARY (gelu_tanh_grad, x * gelu_tanh_slope (y))

/* One branch for a whole strip, not one for each number. */
static void
k_gelu (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  (((const HeddleGeluAttr *) attr)->tanh_form ? k_gelu_tanh : k_gelu_erf) (d, a, b, c, n, attr);
}

static void
k_gelu_grad (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  (((const HeddleGeluAttr *) attr)->tanh_form ? k_gelu_tanh_grad : k_gelu_erf_grad) (d, a, b, c, n, attr);
}

#define CLAMPED(x, lo, hi) ((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))      /* NaN stays NaN */
#define BOUND(side) ((float) ((const HeddleClampAttr *) attr)->side)
#define SLOPE ((float) ((const HeddleSlopeAttr *) attr)->slope)
UNARY (silu, x * vm_sigmoid (x))
UNARY (hardswish, x * CLAMPED (x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f))
UNARY (leaky_relu, x > 0 ? x : SLOPE * x)
UNARY (clamp, CLAMPED (x, BOUND (min), BOUND (max)))
BINARY (silu_grad, x * vm_sigmoid (y) * (1.0f + y * (1.0f - vm_sigmoid (y))))
BINARY (hardswish_grad, y <= -3.0f ? 0.0f : y >= 3.0f ? x : x * (y * (1.0f / 3.0f) + 0.5f))
BINARY (leaky_relu_grad, y > 0 ? x : SLOPE * x)
BINARY (clamp_grad, y > BOUND (min) && y < BOUND (max) ? x : 0.0f)

VECTOR (void, k_select, (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr), (d, a, b, c, n, attr))
{
  (void) attr;
  EACH (d[i] = a[i] != 0 ? b[i] : c[i]);
}

/* A is assigned to D unless the scalar B says skip. */
static void
k_assign_unless (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  if (*b == 0)
    k_copy (d, a, b, c, n, attr);
}

/* From the dtype that ATTR points to, to it, and to it and back. */
static void
k_load (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  cpu_convert (HEDDLE_F32, d, *(const HeddleDtype *) attr, a, n);
}

static void
k_store (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  cpu_convert (*(const HeddleDtype *) attr, d, HEDDLE_F32, a, n);
}

static void
k_round (float *restrict d, const float *a, const float *b, const float *c, gsize n, gconstpointer attr)
{
  guint64 narrow[STRIP];
  cpu_convert (*(const HeddleDtype *) attr, narrow, HEDDLE_F32, a, n);
  cpu_convert (HEDDLE_F32, d, *(const HeddleDtype *) attr, narrow, n);
}

static Kernel
kernel_of (HeddleOpCode code)
{
  Kernel k = NULL;
  switch (code)
    {
#define K(CODE, name) case HEDDLE_OP_##CODE: k = k_##name; break;
      K (ADD, add) K (SUB, sub) K (MUL, mul) K (DIV, div) K (MAX, max) K (MIN, min) K (GREATER, greater) K (SELECT, select)
      K (NEG, neg) K (ABS, abs) K (SIGN, sign) K (EXP, exp) K (EXPM1, expm1) K (LOG, log) K (SQRT, sqrt) K (RSQRT, rsqrt) K (SQUARE, square)
      K (RECIPROCAL, reciprocal) K (RELU, relu) K (SIGMOID, sigmoid) K (TANH, tanh) K (GELU, gelu) K (CAST, copy)
      K (RELU_GRAD, relu_grad) K (SIGMOID_GRAD, sigmoid_grad) K (TANH_GRAD, tanh_grad) K (GELU_GRAD, gelu_grad)
      K (SILU, silu) K (HARDSWISH, hardswish) K (LEAKY_RELU, leaky_relu) K (CLAMP, clamp)
      K (SILU_GRAD, silu_grad) K (HARDSWISH_GRAD, hardswish_grad) K (LEAKY_RELU_GRAD, leaky_relu_grad) K (CLAMP_GRAD, clamp_grad)
#undef K
    default: break;
    }
  return k;
}

/* ---- running ---- */

static void
fetch_ahead (const Loop *l, const guintptr *at)
{
  for (guint r = 0; r < l->n_registers; r++)
    for (gsize line = 0; l->reg[r].fetch && line < STRIP * l->reg[r].step; line += 64)
      __builtin_prefetch ((const char *) (at[r] + AHEAD * l->reg[r].step + line));
}

/* Elements FROM..TO; BASE: of each register its first element, or the offset of a temporary's strip in STRIPS. */
static void
run_span (const Loop *l, const guintptr *base, float *strips, gsize from, gsize to)
{
  guintptr at[2 * MAX_REGISTERS];
  for (guint r = 0; r < l->n_registers; r++)
    at[r] = base[r] + (l->reg[r].kind == TEMPORARY ? (guintptr) strips : from * l->reg[r].step);
  for (; from < to; from += STRIP)
    {
      const Instruction *in = (const Instruction *) l->code->data, *end = in + l->code->len;
      fetch_ahead (l, at);
      for (; in < end; in++)
        in->kernel ((float *) at[in->dst], (const float *) at[in->arg[0]], (const float *) at[in->arg[1]], (const float *) at[in->arg[2]], MIN (STRIP, to - from), in->attr);
      for (guint r = 0; r < l->n_registers; r++)
        at[r] += STRIP * l->reg[r].step;
    }
}

/* A scalar's number, repeated. */
static void
spread (float *strip, const Operand *o, gconstpointer number, gsize n)
{
  float x;
  cpu_convert (HEDDLE_F32, &x, o->dtype, number, 1);
  for (gsize i = 0; i < n; i++)
    strip[i] = x;
}

static void
run_loop (CpuPlan *plan, Step *step)
{
  const Loop *l = step->data;
  guintptr base[2 * MAX_REGISTERS];
  float *strips = cpu_pointer (plan, &l->scratch);
  for (guint r = 0; r < l->n_registers; r++)
    {
      const Register *reg = &l->reg[r];
      const Operand *o = reg->kind == TEMPORARY ? NULL : l->operands->pdata[reg->index];
      base[r] = o ? (guintptr) cpu_pointer (plan, o) : reg->index * STRIP * sizeof (float);
      if (reg->kind == SCALAR)
        {
          spread (strips, o, (gconstpointer) base[r], MIN (STRIP, l->n));
          base[r] = (guintptr) strips;
          strips += STRIP;
        }
    }
#pragma omp parallel for schedule(static) if (l->n >= PARALLEL_MIN)
  for (gsize at = 0; at < l->n; at += SPAN)
    run_span (l, base, strips + (gsize) omp_get_thread_num () * l->n_strips * STRIP, at, MIN (at + SPAN, l->n));
}

static void
loop_free (gpointer data)
{
  Loop *l = data;
  g_array_unref (l->code);
  g_ptr_array_unref (l->operands);
  g_free (l);
}

/* ---- building ---- */

typedef struct
{
  CpuCompiler  *c;
  Loop         *l;
  guint         from, to;
  HeddleShape   shape;
  const Layout *layout;
  GHashTable   *registers;      /* HeddleValue * -> register + 1 */
} Build;

static guint
add_operand (Loop *l, Operand o)
{
  g_ptr_array_add (l->operands, heddle_memdup (&o, sizeof o));
  return l->operands->len - 1;
}

static guint
new_register (Loop *l, Kind kind, guint index)
{
  l->reg[l->n_registers] = (Register) { kind, index, 0, FALSE };
  return l->n_registers++;
}

static guint
new_memory (Loop *l, Operand o)
{
  guint r = new_register (l, MEMORY, add_operand (l, o));
  l->reg[r].step = heddle_dtype_size (o.dtype);
  l->reg[r].fetch = l->n >= PARALLEL_MIN;
  for (guint i = 0; i < r; i++)
    {
      const Operand *other = l->reg[i].kind == MEMORY ? l->operands->pdata[l->reg[i].index] : NULL;
      l->reg[r].fetch &= !(other && other->where == o.where && other->buffer == o.buffer && other->variable == o.variable);
    }
  return r;
}

static const HeddleDtype *
dtype_of (const Loop *l, guint r)
{
  return &((const Operand *) l->operands->pdata[l->reg[r].index])->dtype;
}

static guint
add_instruction (Loop *l, Kernel kernel, guint dst, guint n_args, const guint *arg, gconstpointer attr)
{
  Instruction in = { .kernel = kernel, .dst = dst, .n_args = n_args, .attr = attr };
  memcpy (in.arg, arg, n_args * sizeof *arg);
  g_array_append_val (l->code, in);
  return dst;
}

static gboolean
made_inside (const Build *b, const HeddleValue *v)
{
  return v->kind == HEDDLE_VALUE_TEMP && v->producer->id >= b->from && v->producer->id < b->to;
}

/* N elements of SIZE bytes, all equal to the one at X */
static void
repeat_element (char *y, const char *x, gsize n, gsize size)
{
  if (size == 4)
    {
      guint32 one, *to = (guint32 *) y;
      memcpy (&one, x, sizeof one);
      for (gsize i = 0; i < n; i++)
        to[i] = one;
    }
  else
    for (gsize i = 0; i < n; i++)
      memcpy (y + i * size, x, size);
}

/* Copies X, repeated by NumPy's rule, to a row-major tensor of the loop's shape: in runs of the last axes that are whole in X, or of one element. */
void
cpu_run_expand (CpuPlan *plan, Step *step)
{
  const HeddleShape *from = &step->in[0].shape, *to = &step->out[0].shape;
  const char *x = IN (0);
  char *y = OUT (0);
  gsize size = heddle_dtype_size (step->in[0].dtype), n = (gsize) heddle_shape_count (to), run = 1;
  gint64 stride[HEDDLE_MAX_RANK] = { 0 }, running = 1;
  gint32 outer = to->rank;
  for (gint32 i = 1; i <= from->rank; i++)
    {
      stride[to->rank - i] = from->size[from->rank - i] == 1 ? 0 : running;
      running *= from->size[from->rank - i];
    }
  gboolean whole = outer > 0 && stride[outer - 1] == 1;
  while (outer > 0 && (whole ? stride[outer - 1] == (gint64) run : stride[outer - 1] == 0))
    run *= (gsize) to->size[--outer];
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
  for (gsize i = 0; i < n / MAX (run, 1); i++)
    {
      gint64 at = 0, rest = (gint64) i;
      for (gint32 a = outer - 1; a >= 0; rest /= to->size[a--])
        at += rest % to->size[a] * stride[a];
      if (whole)
        memcpy (y + i * run * size, x + (gsize) at * size, run * size);
      else
        repeat_element (y + i * run * size, x + (gsize) at * size, run, size);
    }
}

static Operand
expanded (Build *b, const HeddleValue *v)
{
  Operand to = cpu_temp (b->c->plan, v->dtype, &b->shape, &cpu_plain), from = cpu_form (b->c, v, v->dtype, &cpu_plain);
  Step *step = cpu_step_new (b->c->plan, NULL, "expand", cpu_run_expand);
  step->in[step->n_in++] = from;
  step->out[step->n_out++] = to;
  return to;
}

static guint
argument (Build *b, const HeddleValue *v)
{
  Loop *l = b->l;
  guint r = GPOINTER_TO_UINT (g_hash_table_lookup (b->registers, v));
  if (!r)
    {
      if (v->shape.rank == 0 && (b->shape.rank > 0 || v->kind == HEDDLE_VALUE_CONSTANT))
        {
          r = new_register (l, SCALAR, add_operand (l, *cpu_made (b->c, v)));
          l->n_scalars++;
        }
      else
        r = new_memory (l, heddle_shape_equal (&v->shape, &b->shape) ? cpu_form (b->c, v, v->dtype, b->layout) : expanded (b, v));
      if (l->reg[r].kind == MEMORY && *dtype_of (l, r) != HEDDLE_F32)
        r = add_instruction (l, k_load, new_register (l, TEMPORARY, 0), 1, &r, dtype_of (l, r));
      g_hash_table_insert (b->registers, (gpointer) v, GUINT_TO_POINTER (++r));
    }
  return r - 1;
}

static guint
uses_inside (const Build *b, const HeddleValue *v)
{
  guint n = 0;
  for (guint i = b->from; i < b->to; i++)
    {
      const HeddleOp *op = b->c->plan->program->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        n += op->in[j] == v;
    }
  return n;
}

static void
build_kernel (Build *b, const HeddleOp *op)
{
  Loop *l = b->l;
  const HeddleValue *y = op->out[0];
  guint arg[3];
  for (guint i = 0; i < op->n_in; i++)
    arg[i] = argument (b, op->in[i]);
  gboolean outside = y->n_uses > uses_inside (b, y) || b->c->forward[y->id], wide = y->dtype == HEDDLE_F32;
  Operand target = outside ? cpu_target (b->c, y, y->dtype, b->layout) : (Operand) { 0 };
  guint dst = outside && wide ? new_memory (l, target) : new_register (l, TEMPORARY, 0);
  add_instruction (l, kernel_of (op->info->code), dst, op->n_in, arg, op->attr);
  if (!wide)
    add_instruction (l, k_round, dst, 1, &dst, &y->dtype);
  if (outside && !wide)
    add_instruction (l, k_store, new_memory (l, target), 1, &dst, &y->dtype);
  if (outside)
    cpu_made_as (b->c, y, target);
  g_hash_table_insert (b->registers, (gpointer) y, GUINT_TO_POINTER (dst + 1));
}

/* Converted copies of a variable are stale once it is assigned. */
static void
forget_copies (CpuCompiler *c, const HeddleVariable *v)
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
build_assign (Build *b, const HeddleOp *op)
{
  Loop *l = b->l;
  HeddleVariable *v = op->in[0]->variable;
  if (b->c->forward[op->in[1]->id] != v)
    {
      guint arg[2] = { argument (b, op->in[1]), op->n_in > 2 ? argument (b, op->in[2]) : 0 };
      add_instruction (l, op->n_in > 2 ? k_assign_unless : k_copy, new_memory (l, *cpu_made (b->c, op->in[0])), op->n_in - 1, arg, NULL);
    }
  forget_copies (b->c, v);
}

static void
prefer (const Layout **best, const Layout *candidate)
{
  if (candidate->kind > (*best)->kind)
    *best = candidate;
}

/* The layout most operands have already: a weight's own, else blocked, else plain. */
static const Layout *
loop_layout (Build *b)
{
  const Layout *best = &cpu_plain;
  gboolean broadcasts = FALSE;
  for (guint i = b->from; i < b->to; i++)
    {
      const HeddleOp *op = b->c->plan->program->ops->pdata[i];
      for (guint j = 0; j < op->n_in; j++)
        {
          const HeddleValue *v = op->in[j];
          gboolean full = heddle_shape_equal (&v->shape, &b->shape);
          if (full && !made_inside (b, v))
            prefer (&best, cpu_made (b->c, v)->layout);
          broadcasts |= !full && v->shape.rank > 0;
        }
    }
  /* a variable can only be written in its own layout */
  for (guint i = b->from; i < b->to; i++)
    {
      const HeddleOp *op = b->c->plan->program->ops->pdata[i];
      if (op->info->code == HEDDLE_OP_ASSIGN)
        best = cpu_made (b->c, op->in[0])->layout;
    }
  return broadcasts ? &cpu_plain : best;
}

/* Registers a loop of operations FROM..TO may need, at most. */
static guint
demand (const HeddleProgram *p, guint from, guint to)
{
  guint n = 0;
  for (guint i = from; i < to; i++)
    n += ((const HeddleOp *) p->ops->pdata[i])->n_in + 1;
  return n;
}

static gboolean
reads (const Instruction *in, guint r)
{
  gboolean yes = FALSE;
  for (guint j = 0; j < in->n_args; j++)
    yes |= in->arg[j] == r;
  return yes;
}

/* The last instruction that reads register R, or -1. */
static gint
last_read (const Loop *l, guint r)
{
  gint last = -1;
  for (guint i = 0; i < l->code->len; i++)
    if (reads (&g_array_index (l->code, Instruction, i), r))
      last = (gint) i;
  return last;
}

/* Temporaries that live one after the other get the same strip.  One is free again only behind the instruction that reads it last: no kernel writes what it reads. */
static void
pack_strips (Loop *l)
{
  gboolean busy[2 * MAX_REGISTERS] = { FALSE }, placed[2 * MAX_REGISTERS] = { FALSE };
  for (guint i = 0; i < l->code->len; i++)
    {
      guint dst = g_array_index (l->code, Instruction, i).dst, strip = 0;
      if (l->reg[dst].kind == TEMPORARY && !placed[dst])
        {
          while (busy[strip])
            strip++;
          busy[strip] = placed[dst] = TRUE;
          l->n_strips = MAX (l->n_strips, strip + 1);
          l->reg[dst].index = strip;
        }
      for (guint r = 0; r < l->n_registers; r++)
        if (placed[r] && last_read (l, r) == (gint) i)
          busy[l->reg[r].index] = FALSE;
    }
}

static gboolean
written (const Loop *l, guint r)
{
  gboolean yes = FALSE;
  for (guint i = 0; i < l->code->len; i++)
    yes |= g_array_index (l->code, Instruction, i).dst == r;
  return yes;
}

/* A result may take the place of an input that is not read any more once it is written. */
static void
offer_sharing (CpuPlan *plan, const Loop *l)
{
  for (guint i = 0; i < l->code->len; i++)
    {
      guint to = g_array_index (l->code, Instruction, i).dst;
      for (guint r = 0; l->reg[to].kind == MEMORY && r < l->n_registers; r++)
        if (l->reg[r].kind == MEMORY && l->reg[r].step == l->reg[to].step && !written (l, r) && last_read (l, r) <= (gint) i)
          cpu_may_share (plan, l->operands->pdata[l->reg[r].index], l->operands->pdata[l->reg[to].index]);
    }
}

static void
emit_loop (CpuCompiler *c, guint from, guint to)
{
  const HeddleOp *first = c->plan->program->ops->pdata[from];
  Loop *l = g_new0 (Loop, 1);
  Build b = { .c = c, .l = l, .from = from, .to = to, .registers = g_hash_table_new (NULL, NULL) };
  b.shape = first->info->code == HEDDLE_OP_ASSIGN ? first->in[0]->shape : first->out[0]->shape;
  b.layout = loop_layout (&b);
  l->code = g_array_new (FALSE, FALSE, sizeof (Instruction));
  l->operands = g_ptr_array_new_with_free_func (g_free);
  l->n = (gsize) heddle_shape_count (&b.shape);
  for (guint i = from; i < to; i++)
    {
      const HeddleOp *op = c->plan->program->ops->pdata[i];
      if (op->info->code == HEDDLE_OP_ASSIGN)
        build_assign (&b, op);
      else
        build_kernel (&b, op);
    }
  g_hash_table_unref (b.registers);
  pack_strips (l);
  if (l->code->len)
    {
      HeddleShape strips = heddle_shape (STRIP * (gint64) (l->n_scalars + l->n_strips * (l->n >= PARALLEL_MIN ? c->device->threads : 1)));
      l->scratch = cpu_temp (c->plan, HEDDLE_F32, &strips, &cpu_plain);
      Step *step = cpu_step_new (c->plan, first, "loop", run_loop);
      step->in[step->n_in++] = l->scratch;
      step->more = l->operands;
      step->data = l;
      step->data_free = loop_free;
      offer_sharing (c->plan, l);
    }
  else
    loop_free (l);
}

void
cpu_emit_cluster (CpuCompiler *c, guint from, guint to)
{
  for (guint start = from; start < to;)
    {
      guint end = start + 1;
      while (end < to && demand (c->plan->program, start, end + 1) <= MAX_REGISTERS)
        end++;
      emit_loop (c, start, end);
      start = end;
    }
}
