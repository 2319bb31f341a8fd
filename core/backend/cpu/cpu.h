/* cpu/cpu.h: what the files of the cpu backend share: device, layouts, plan, steps.  Private to the module. */
#ifndef HEDDLE_BACKEND_CPU_H
#define HEDDLE_BACKEND_CPU_H

#include "backend/backend.h"
#include "isa.h"
#include "waiting.h"

#include <dnnl.h>

/* ---- layouts: how a tensor's elements lie in memory; never padded, so the element count is always the shape's ---- */

typedef enum
{
  LAYOUT_PLAIN = 0,    /* row-major */
  LAYOUT_BLOCKED,      /* (N, C, H, W) as N, C/b, H, W, b: oneDNN's nChw8c or nChw16c */
  LAYOUT_WEIGHT        /* a descriptor that oneDNN chose for a convolution's weight */
} LayoutKind;

typedef struct
{
  LayoutKind         kind;
  dnnl_memory_desc_t md;      /* LAYOUT_WEIGHT */
} Layout;

typedef struct
{
  HeddleDevice   base;
  HeddleFlags    flags;
  dnnl_engine_t  engine;
  dnnl_stream_t  stream;
  guint          threads;
  CpuWaiting    *waiting;       /* NULL: nothing to choose */
  gboolean       led;           /* WAITING has been asked for: at the first run, by the thread that runs */
  gint           block;         /* channels of a block: 8 or 16 */
  guint64        allocations, primitives, reorders;
  char          *arena;         /* one for all plans: only one runs at a time */
  gsize          arena_bytes;
  GPtrArray     *memory;        /* aligned blocks that variables live in, freed with the device */
  GPtrArray     *layouts;       /* Layout *, owned: of variables */
} CpuDevice;

/* ---- operands: where a step finds a tensor ---- */

typedef enum { IN_NONE = 0, IN_ARENA, IN_VARIABLE, IN_INPUT, IN_CONSTANT } Where;

typedef struct
{
  Where           where;
  guint           buffer;       /* IN_ARENA: index in plan->buffers; IN_INPUT: index of the program's input; IN_CONSTANT: in plan->constants */
  HeddleVariable *variable;
  HeddleDtype     dtype;
  HeddleShape     shape;
  const Layout   *layout;       /* never NULL */
  guint           made;         /* of a form: steps of the plan before it */
} Operand;

typedef struct { const HeddleValue *value; char *form; } Owner;   /* of a buffer: NULL for scratch; FORM "" as it was made */

typedef struct _CpuPlan CpuPlan;
typedef struct _Step Step;
typedef void (*StepRun) (CpuPlan *plan, Step *step);

#define STEP_OPERANDS 8

struct _Step
{
  StepRun         run;
  const HeddleOp *op;            /* NULL for conversions */
  const char     *what;          /* kernel or implementation, for people */
  guint           n_in, n_out;
  Operand         in[STEP_OPERANDS], out[STEP_OPERANDS];
  const GPtrArray *more;         /* further Operand * it touches, or NULL */
  gpointer        data;          /* of the kernel */
  GDestroyNotify  data_free;
  gint64          start, end;    /* of the last timed run, ns of heddle_trace_clock */
  double          seconds;       /* of all timed runs */
};

struct _CpuPlan
{
  HeddlePlan     base;
  CpuDevice     *device;
  HeddleProgram *program;
  GPtrArray     *steps;          /* Step *, owned */
  GArray        *buffers;        /* HeddleRegion */
  GArray        *sharing;        /* HeddleTakeOver, in the order of steps */
  GArray        *owners;         /* Owner, one per buffer */
  GArray        *constants;      /* float */
  GPtrArray     *layouts;        /* Layout *, owned: of this plan's values */
  Operand       *outputs;        /* of program->outputs */
  gsize          arena_bytes;    /* of the device's arena that this plan uses */
  const char    *peak;
  guint          n_reorders;
  const gpointer *inputs;        /* of the run in hand */
  char         **described;      /* per op */
  gboolean       profile, timed; /* print the times when the plan is freed; take them */
  guint64        runs;
  char          *fault;          /* what a step found wrong with its input in the run in hand, or NULL */
};

/* ---- layouts.c ---- */
extern const Layout cpu_plain, cpu_blocked;
gboolean cpu_layout_equal (const Layout *a, const Layout *b);
/* Is this 4-d shape one that can be blocked without padding? */
gboolean cpu_blockable    (const CpuDevice *device, const HeddleShape *shape);
/* Blocked and plain are the same bytes when the image is 1 x 1. */
gboolean cpu_same_bytes   (const Layout *a, const Layout *b, const HeddleShape *shape);
gboolean cpu_layout_md    (const CpuDevice *device, const Layout *layout, HeddleDtype dtype, const HeddleShape *shape, dnnl_memory_desc_t *md);
dnnl_data_type_t cpu_dnnl_type (HeddleDtype dtype);
char    *cpu_layout_name  (const CpuDevice *device, const Layout *layout);
/* One conversion between layouts and dtypes, outside plans (variables read and written, outputs fetched). */
gboolean cpu_reorder_now  (CpuDevice *device, const dnnl_memory_desc_t *src_md, gpointer src, const dnnl_memory_desc_t *dst_md, gpointer dst, GError **error);
gboolean cpu_dnnl_check   (dnnl_status_t status, const char *call, const HeddleOp *op, GError **error);

/* ---- device.c ---- */
/* At least BYTES for free (), aligned, of huge pages where there are some; NULL: out of memory */
gpointer cpu_memory       (gsize bytes);

/* ---- compile.c: what kernels' builders call ---- */
guint    cpu_buffer_new   (CpuPlan *plan, gsize bytes);
Operand  cpu_temp         (CpuPlan *plan, HeddleDtype dtype, const HeddleShape *shape, const Layout *layout);
Step    *cpu_step_new     (CpuPlan *plan, const HeddleOp *op, const char *what, StepRun run);
/* The newest step reads each element of IN before it writes the same one of OUT, and never again: they may be one place in the arena. */
void     cpu_may_share    (CpuPlan *plan, const Operand *in, const Operand *out);
gpointer cpu_pointer      (CpuPlan *plan, const Operand *operand);
/* A step found data that it cannot work with: the run ends after it with this error.  From the thread that runs the plan. */
void     cpu_fault        (CpuPlan *plan, const Step *step, const char *format, ...) G_GNUC_PRINTF (3, 4);
#define IN(i)  cpu_pointer (plan, &step->in[i])
#define OUT(i) cpu_pointer (plan, &step->out[i])

/* ---- dnn.c: convolutions, and products of bf16 numbers, through oneDNN ---- */
typedef struct _CpuCompiler CpuCompiler;
/* y (batch, m, n) = op (a) (batch, m, k) op (b) (batch, or 1 with SHARED, k, n) + bias (n) or NULL; WIDE: y is made in f32, and rounded after */
typedef struct { const HeddleValue *a, *b, *bias; gint64 batch, m, n, k; gboolean ta, tb, shared, wide; } CpuProduct;
/* The first output of OP */
gboolean cpu_emit_bf16_product (CpuCompiler *c, const HeddleOp *op, const CpuProduct *product, GError **error);
gboolean cpu_emit_conv    (CpuCompiler *c, const HeddleOp *op, GError **error);
/* LINEAR with bias and, where its only reader adds a tensor, that sum; FALSE: oneDNN has no kernel with an epilogue for it */
gboolean cpu_emit_dense   (CpuCompiler *c, const HeddleOp *op);
/* transposed.c: adds what conv_transpose2d has beyond a convolution's gradient */
void     cpu_emit_channel_bias (CpuCompiler *c, const HeddleOp *op);
/* direct.c: small convolutions of our own */
gboolean cpu_direct_fits  (const CpuDevice *device, const HeddleConvAttr *attr, const HeddleShape *x, const HeddleShape *w);
void     cpu_emit_direct  (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_direct_takes_pooled (const CpuCompiler *c, const HeddleOp *max_pool_grad);
void     cpu_emit_reorder (CpuCompiler *c, const Operand *src, const Operand *dst);
void     cpu_emit_convert (CpuCompiler *c, const Operand *from, const Operand *to);      /* the dtype; compile.c */

struct _CpuCompiler
{
  CpuDevice *device;
  CpuPlan   *plan;
  GArray   **forms;             /* by value id: Operand, every form in which the value exists */
  HeddleVariable **forward;     /* by value id: the variable whose memory a value is made in, or NULL */
  gint      *cluster;
  GPtrArray **users;            /* by value id: const HeddleOp *, the operations that read it */
  gboolean  *done;              /* by operation: made together with an earlier one, or left out because all its readers take its inputs instead */
  GError    *error;
};

/* ---- what can be made together; all answer no when the flag "fusion" is off ---- */
/* The one operation that reads VALUE, or NULL when there are more or the program gives it away. */
const HeddleOp *cpu_only_user (const CpuCompiler *c, const HeddleValue *value);
void     cpu_mark_done    (CpuCompiler *c, const HeddleOp *op);
/* The operation that would have made VALUE if it had not been left out, or NULL. */
const HeddleOp *cpu_left_out (const CpuCompiler *c, const HeddleValue *value);

/* VALUE as DTYPE in LAYOUT, converting if need be. */
Operand  cpu_form         (CpuCompiler *c, const HeddleValue *value, HeddleDtype dtype, const Layout *layout);
/* The form VALUE was made in. */
const Operand *cpu_made   (CpuCompiler *c, const HeddleValue *value);
/* Where an f32 result of VALUE in LAYOUT is to be written; cpu_made_as () afterwards tells the compiler (and converts to 16 bit if that is its dtype). */
Operand  cpu_target       (CpuCompiler *c, const HeddleValue *value, HeddleDtype dtype, const Layout *layout);
void     cpu_made_as      (CpuCompiler *c, const HeddleValue *value, Operand operand);
const Layout *cpu_keep_layout (CpuPlan *plan, const Layout *layout);
/* The first operation that uses a parameter, in whatever plan, decides how it and its gradient lie: LAYOUT; nothing happens where that is past.  A convolution asks before
 * it takes a form of its weight; whoever takes a form without asking has rows. */
void          cpu_adopt_layout (CpuCompiler *c, HeddleVariable *parameter, const Layout *layout);

/* ---- views.c: tensors read and written where they lie in others ---- */
typedef struct { gint64 offset, stride[HEDDLE_MAX_RANK]; } CpuView;                   /* in elements of the tensor it lies in */
typedef struct { const HeddleValue *value; Operand operand; CpuView view; } CpuTarget; /* VALUE is made when OPERAND is written as VIEW says */
#define CPU_VIEW_PARTS 3
/* Can OP, which only moves numbers, be left out because all who read its result take views? */
gboolean cpu_view_instead (CpuCompiler *c, const HeddleOp *op);
/* The f32 tensor that V lies in */
Operand  cpu_view_of      (CpuCompiler *c, const HeddleValue *v, CpuView *view);
/* Where the maker of V (or of a permutation of it that is left out) writes; then cpu_made_as (target.value). */
CpuTarget cpu_view_target (CpuCompiler *c, const HeddleValue *v);
/* The same for N values that are moved to become parts of one tensor and nothing else; FALSE: they are not. */
gboolean cpu_view_parts   (CpuCompiler *c, HeddleValue *const *v, guint n, CpuTarget *targets);

/* ---- inspect.c ---- */
void       cpu_note_owners   (CpuCompiler *c);     /* once the buffers are known, while the forms are */
gboolean   cpu_plan_step     (HeddlePlan *plan, guint i, HeddlePlanStep *step);
void       cpu_plan_timing   (HeddlePlan *plan, gboolean on);
gboolean   cpu_plan_buffer   (HeddlePlan *plan, guint i, HeddlePlanBuffer *buffer);
GPtrArray *cpu_plan_reorders (HeddlePlan *plan);

/* ---- convert.c ---- */
void     cpu_convert      (HeddleDtype to, gpointer y, HeddleDtype from, gconstpointer x, gsize n);     /* as heddle_convert () */

/* ---- product.c ---- */
#define CPU_PRODUCT_COLUMNS 32      /* b (k, n) with n a multiple of these is read where it lies; else, and when transposed, through PACKED (k, cpu_product_pitch (n)) */
gint64   cpu_product_pitch (gint64 n);
/* Y (k, PITCH), zeros behind its N columns = X (n, k) transposed: what a product makes of a transposed b, to be made once for several */
void     cpu_product_transpose (const float *x, gint64 ldx, gint64 n, gint64 k, float *y, gint64 pitch);
/* c (m, n) = factor op (a) op (b) (+ c), row-major; for operands that fit the first-level cache */
void     cpu_product      (gboolean ta, gboolean tb, gint64 m, gint64 n, gint64 k, float factor, const float *a, gint64 lda, const float *b, gint64 ldb,
                           gboolean add, float *c, gint64 ldc, float *packed);

/* ---- elementwise.c ---- */
void     cpu_emit_cluster (CpuCompiler *c, guint from, guint to);
void     cpu_run_expand   (CpuPlan *plan, Step *step);     /* in[0] repeated to out[0]'s shape, row-major */
/* ---- kernels.c and the files it hands on to; FALSE: no kernel for this operation ---- */
gboolean cpu_emit_kernel  (CpuCompiler *c, const HeddleOp *op, GError **error);
gboolean cpu_emit_norm    (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_norm_takes   (CpuCompiler *c, const HeddleOp *gradient);      /* of relu, clamp or max pooling */
gboolean cpu_emit_pool    (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_pool_is_2x2  (const HeddlePoolAttr *attr);     /* windows of 2 x 2 side by side */
gboolean cpu_emit_loss    (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_shape   (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_reduction (CpuCompiler *c, const HeddleOp *op);     /* reduce.c */
gboolean cpu_emit_row_norm (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_sum_norm (CpuCompiler *c, const HeddleOp *sum);     /* together with the layer or RMS norm that comes next */
gboolean cpu_emit_embedding (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_movement (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_attention (CpuCompiler *c, const HeddleOp *op);
gboolean cpu_emit_mean_loss (CpuCompiler *c, const HeddleOp *op);     /* losses.c */
gboolean cpu_emit_upsample (CpuCompiler *c, const HeddleOp *op);      /* upsample.c */
gboolean cpu_emit_windows (CpuCompiler *c, const HeddleOp *op);
/* A step whose floating inputs and outputs are f32, images in LAYOUT and everything else row-major; an output nobody reads is not made (NULL). */
Step    *cpu_simple       (CpuCompiler *c, const HeddleOp *op, const char *what, StepRun run, const Layout *layout);

/* Work below this many elements stays on one thread. */
#define PARALLEL_MIN 32768

#endif
