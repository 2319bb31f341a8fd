/* cpu/elementwise.c: a chain of elementwise operations as one loop over cache-sized tiles.  Must not know layouts beyond their equality. */
#include "cpu.h"
#include "vecmath.h"
#include "base/random.h"
#include "tensor/tensors.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define TILE 1024           /* elements: 4 KiB of f32, so that a dozen registers fit the first-level cache */
#define MAX_REGISTERS 96

/* An argument is a register (a tile, or memory that is read and written in place) or a scalar. */
typedef struct { gboolean scalar; guint index; } Arg;

typedef void (*Kernel) (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr);

typedef enum { DO_KERNEL = 1, DO_LOAD, DO_STORE, DO_ROUND, DO_ASSIGN } Action;

typedef struct
{
  Action        action;
  Kernel        kernel;
  guint         dst;         /* KERNEL, LOAD, ROUND: register; STORE, ASSIGN: operand */
  guint         operand;     /* LOAD, STORE, ASSIGN */
  Arg           arg[3];
  guint         n_args;
  gboolean      conditional; /* ASSIGN: arg[1] is the skip scalar */
  HeddleDtype   dtype;       /* ROUND */
  gconstpointer attr;
} Instruction;

typedef struct
{
  GArray *code;                                 /* Instruction */
  GPtrArray *operands;                          /* Operand *, owned: memory of registers, loads, stores */
  guint   n_registers, n_scalars, n_tiles;
  gint    memory[MAX_REGISTERS];                /* operand index of a register that is f32 memory, or -1 - tile number */
  guint   scalar[MAX_REGISTERS];                /* operand index */
  Operand scratch;
  gsize   n;
  guint   threads;
} Loop;

/* ---- kernels ---- */

#define BINARY(name, expression) \
  VECTOR static void k_##name (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr) \
  { \
    (void) c; (void) attr; \
    if (scalar[0]) \
      { float x = a[0]; if (scalar[1]) { float y = b[0]; for (gsize i = 0; i < n; i++) d[i] = (expression); } else for (gsize i = 0; i < n; i++) { float y = b[i]; d[i] = (expression); } } \
    else if (scalar[1]) \
      { float y = b[0]; for (gsize i = 0; i < n; i++) { float x = a[i]; d[i] = (expression); } } \
    else \
      for (gsize i = 0; i < n; i++) { float x = a[i], y = b[i]; d[i] = (expression); } \
  }

#define UNARY(name, expression) \
  VECTOR static void k_##name (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr) \
  { \
    (void) b; (void) c; (void) attr; \
    if (scalar[0]) { float x = a[0]; for (gsize i = 0; i < n; i++) d[i] = (expression); } \
    else for (gsize i = 0; i < n; i++) { float x = a[i]; d[i] = (expression); } \
  }

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

/* One branch for a whole tile, not one for each number. */
static void
k_gelu (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr)
{
  (((const HeddleGeluAttr *) attr)->tanh_form ? k_gelu_tanh : k_gelu_erf) (d, a, b, c, scalar, n, attr);
}

static void
k_gelu_grad (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr)
{
  (((const HeddleGeluAttr *) attr)->tanh_form ? k_gelu_tanh_grad : k_gelu_erf_grad) (d, a, b, c, scalar, n, attr);
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

static void
k_select (float *restrict d, const float *a, const float *b, const float *c, const gboolean scalar[3], gsize n, gconstpointer attr)
{
  (void) attr;
  for (gsize i = 0; i < n; i++)
    d[i] = a[scalar[0] ? 0 : i] != 0 ? b[scalar[1] ? 0 : i] : c[scalar[2] ? 0 : i];
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

typedef struct { float *reg[MAX_REGISTERS]; float scalar[MAX_REGISTERS]; char *operand[2 * MAX_REGISTERS]; } Frame;

static void
run_tile (const Loop *l, const Frame *f, float *tiles, gsize at, gsize n)
{
  float *reg[MAX_REGISTERS];
  for (guint r = 0; r < l->n_registers; r++)
    reg[r] = l->memory[r] >= 0 ? (float *) f->operand[l->memory[r]] + at : tiles + (gsize) (-1 - l->memory[r]) * TILE;
  for (guint i = 0; i < l->code->len; i++)
    {
      const Instruction *in = &g_array_index (l->code, Instruction, i);
      const float *a[3] = { NULL };
      gboolean scalar[3] = { FALSE };
      for (guint j = 0; j < in->n_args; j++)
        {
          scalar[j] = in->arg[j].scalar;
          a[j] = scalar[j] ? &f->scalar[in->arg[j].index] : reg[in->arg[j].index];
        }
      const Operand *o = in->action == DO_KERNEL || in->action == DO_ROUND ? NULL : l->operands->pdata[in->operand];
      char *memory = o ? f->operand[in->operand] + at * heddle_dtype_size (o->dtype) : NULL;
      switch (in->action)
        {
        case DO_KERNEL: in->kernel (reg[in->dst], a[0], a[1], a[2], scalar, n, in->attr); break;
        case DO_LOAD: heddle_convert (HEDDLE_F32, reg[in->dst], o->dtype, memory, n); break;
        case DO_STORE: heddle_convert (o->dtype, memory, HEDDLE_F32, a[0], n); break;
        case DO_ROUND:
          {
            guint64 narrow[TILE];
            heddle_convert (in->dtype, narrow, HEDDLE_F32, reg[in->dst], n);
            heddle_convert (HEDDLE_F32, reg[in->dst], in->dtype, narrow, n);
          }
          break;
        case DO_ASSIGN:
          if (!(in->conditional && *a[1] != 0) && scalar[0])
            for (gsize k = 0; k < n; k++)
              ((float *) memory)[k] = *a[0];
          else if (!(in->conditional && *a[1] != 0))
            memcpy (memory, a[0], n * sizeof (float));
          break;
        }
    }
}

static void
run_loop (CpuPlan *plan, Step *step)
{
  const Loop *l = step->data;
  Frame f;
  for (guint i = 0; i < l->operands->len; i++)
    f.operand[i] = cpu_pointer (plan, l->operands->pdata[i]);
  for (guint i = 0; i < l->n_scalars; i++)
    {
      const Operand *o = l->operands->pdata[l->scalar[i]];
      heddle_convert (HEDDLE_F32, &f.scalar[i], o->dtype, f.operand[l->scalar[i]], 1);
    }
  float *tiles = cpu_pointer (plan, &l->scratch);
  gsize per_thread = (gsize) MAX (l->n_tiles, 1) * TILE;
#pragma omp parallel for schedule(static) if (l->n >= PARALLEL_MIN)
  for (gsize at = 0; at < l->n; at += TILE)
    run_tile (l, &f, tiles + (gsize) omp_get_thread_num () * per_thread, at, MIN (TILE, l->n - at));
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
  GHashTable   *scalars;        /* HeddleValue * -> scalar + 1 */
} Build;

static guint
add_operand (Loop *l, Operand o)
{
  g_ptr_array_add (l->operands, g_memdup2 (&o, sizeof o));
  return l->operands->len - 1;
}

static guint
new_tile (Loop *l)
{
  l->memory[l->n_registers] = -1 - (gint) l->n_tiles++;
  return l->n_registers++;
}

static guint
new_memory (Loop *l, Operand o)
{
  l->memory[l->n_registers] = (gint) add_operand (l, o);
  return l->n_registers++;
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

static Arg
argument (Build *b, const HeddleValue *v)
{
  Loop *l = b->l;
  Arg arg = { FALSE, 0 };
  guint known = GPOINTER_TO_UINT (g_hash_table_lookup (b->registers, v)), known_scalar = GPOINTER_TO_UINT (g_hash_table_lookup (b->scalars, v));
  if (known)
    arg.index = known - 1;
  else if (known_scalar)
    arg = (Arg) { TRUE, known_scalar - 1 };
  else if (v->shape.rank == 0 && (b->shape.rank > 0 || v->kind == HEDDLE_VALUE_CONSTANT))
    {
      l->scalar[l->n_scalars] = add_operand (l, *cpu_made (b->c, v));
      arg = (Arg) { TRUE, l->n_scalars++ };
      g_hash_table_insert (b->scalars, (gpointer) v, GUINT_TO_POINTER (arg.index + 1));
    }
  else
    {
      gboolean full = heddle_shape_equal (&v->shape, &b->shape);
      Operand o = full ? cpu_form (b->c, v, v->dtype, b->layout) : expanded (b, v);
      if (o.dtype == HEDDLE_F32)
        arg.index = new_memory (l, o);
      else
        {
          Instruction load = { .action = DO_LOAD, .dst = new_tile (l), .operand = add_operand (l, o) };
          g_array_append_val (l->code, load);
          arg.index = load.dst;
        }
      g_hash_table_insert (b->registers, (gpointer) v, GUINT_TO_POINTER (arg.index + 1));
    }
  return arg;
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
  Instruction in = { .action = DO_KERNEL, .kernel = kernel_of (op->info->code), .n_args = op->n_in, .attr = op->attr };
  for (guint i = 0; i < op->n_in; i++)
    in.arg[i] = argument (b, op->in[i]);
  gboolean outside = y->n_uses > uses_inside (b, y) || b->c->forward[y->id], wide = y->dtype == HEDDLE_F32;
  Operand target = outside ? cpu_target (b->c, y, y->dtype, b->layout) : (Operand) { 0 };
  in.dst = outside && wide ? new_memory (l, target) : new_tile (l);
  g_array_append_val (l->code, in);
  if (!wide)
    {
      Instruction round = { .action = DO_ROUND, .dst = in.dst, .dtype = y->dtype };
      g_array_append_val (l->code, round);
    }
  if (outside && !wide)
    {
      Instruction store = { .action = DO_STORE, .operand = add_operand (l, target), .arg = { { FALSE, in.dst } }, .n_args = 1 };
      g_array_append_val (l->code, store);
    }
  if (outside)
    cpu_made_as (b->c, y, target);
  g_hash_table_insert (b->registers, (gpointer) y, GUINT_TO_POINTER (in.dst + 1));
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
      Operand target = *cpu_made (b->c, op->in[0]);
      Instruction in = { .action = DO_ASSIGN, .n_args = op->n_in - 1, .conditional = op->n_in > 2 };
      for (guint i = 1; i < op->n_in; i++)
        in.arg[i - 1] = argument (b, op->in[i]);
      in.operand = add_operand (l, target);
      g_array_append_val (l->code, in);
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

/* Does instruction I read or write register R? */
static gboolean
mentions (const Instruction *in, guint r)
{
  gboolean yes = (in->action == DO_KERNEL || in->action == DO_LOAD || in->action == DO_ROUND) && in->dst == r;
  for (guint j = 0; j < in->n_args; j++)
    yes |= !in->arg[j].scalar && in->arg[j].index == r;
  return yes;
}

/* Registers that live one after the other get the same tile, so that a long loop stays in the first-level cache.  A tile is free again only behind the
 * instruction that reads it last: no kernel writes what it reads. */
static void
pack_tiles (Loop *l)
{
  gint last[MAX_REGISTERS];
  gboolean busy[MAX_REGISTERS] = { FALSE };
  guint tiles = 0;
  for (guint r = 0; r < l->n_registers; r++)
    for (guint i = 0; i < l->code->len; i++)
      if (i == 0 || mentions (&g_array_index (l->code, Instruction, i), r))
        last[r] = (gint) i;
  for (guint i = 0; i < l->code->len; i++)
    {
      const Instruction *in = &g_array_index (l->code, Instruction, i);
      if ((in->action == DO_KERNEL || in->action == DO_LOAD) && l->memory[in->dst] < 0)
        {
          guint t = 0;
          while (busy[t])
            t++;
          busy[t] = TRUE;
          tiles = MAX (tiles, t + 1);
          l->memory[in->dst] = -1 - (gint) t;
        }
      for (guint r = 0; r < l->n_registers; r++)
        if (l->memory[r] < 0 && last[r] == (gint) i && mentions (in, r))
          busy[-1 - l->memory[r]] = FALSE;
    }
  l->n_tiles = tiles;
}

/* The last instruction that reads register R, or -1; G_MAXINT when the loop writes it. */
static gint
last_read (const Loop *l, guint r)
{
  gint last = -1;
  for (guint i = 0; i < l->code->len; i++)
    {
      const Instruction *in = &g_array_index (l->code, Instruction, i);
      for (guint j = 0; j < in->n_args; j++)
        if (!in->arg[j].scalar && in->arg[j].index == r)
          last = MAX (last, (gint) i);
      if (in->action == DO_KERNEL && in->dst == r)
        last = G_MAXINT;
    }
  return last;
}

/* A result may take the place of an input that is not read any more once it is written. */
static void
offer_sharing (CpuPlan *plan, const Loop *l)
{
  for (guint i = 0; i < l->code->len; i++)
    {
      const Instruction *in = &g_array_index (l->code, Instruction, i);
      gint to = in->action == DO_KERNEL ? l->memory[in->dst] : -1;
      for (guint r = 0; to >= 0 && r < l->n_registers; r++)
        if (l->memory[r] >= 0 && last_read (l, r) <= (gint) i)
          cpu_may_share (plan, l->operands->pdata[l->memory[r]], l->operands->pdata[to]);
    }
}

static void
emit_loop (CpuCompiler *c, guint from, guint to)
{
  const HeddleOp *first = c->plan->program->ops->pdata[from];
  Loop *l = g_new0 (Loop, 1);
  Build b = { .c = c, .l = l, .from = from, .to = to, .registers = g_hash_table_new (NULL, NULL), .scalars = g_hash_table_new (NULL, NULL) };
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
  g_hash_table_unref (b.scalars);
  pack_tiles (l);
  if (l->code->len)
    {
      HeddleShape tiles = heddle_shape ((gint64) MAX (l->n_tiles, 1) * TILE * (l->n >= PARALLEL_MIN ? c->device->threads : 1));
      l->scratch = cpu_temp (c->plan, HEDDLE_F32, &tiles, &cpu_plain);
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
