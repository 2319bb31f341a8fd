/* cuda/cuda.h: what the files of the cuda backend share: device, queue, operands, steps, plan, compiler.  Private to the module.
 * Must not know how any operation is computed. */
#ifndef HEDDLE_BACKEND_CUDA_H
#define HEDDLE_BACKEND_CUDA_H

#include "backend/backend.h"

#include <cuda_runtime_api.h>

typedef struct _CudaDevice   CudaDevice;
typedef struct _CudaPlan     CudaPlan;
typedef struct _CudaStep     CudaStep;
typedef struct _CudaCompiler CudaCompiler;
typedef struct _CudaKernel   CudaKernel;     /* one function on the device */

/* ---- the device ---- */

/* Images (N, C, H, W) and convolution weights (Cout, Cin/groups, Kh, Kw) of rank 4 may lie channels last; everything else is row-major.
 * HEADS: what attention takes and makes, (B, H, T, D), lying as (B, T, H, D).  PADDED: row-major, a row taking up a multiple of CUDA_PAD elements; those after the last number are nobody's, and 0 in a gradient.
 * SIGNS: no numbers, only which are positive: rows of a multiple of CUDA_SIGN_PAD bits, the lowest of a byte first, as cuBLASLt's epilogues leave and take them. */
typedef enum { CUDA_ROWS = 0, CUDA_CHANNELS_LAST, CUDA_HEADS, CUDA_PADDED, CUDA_SIGNS } CudaLayout;
#define CUDA_PAD      64         /* elements of 16 bits: 128 bytes */
#define CUDA_SIGN_PAD 128        /* bits */

/* The 16-bit copy of a flat parameter buffer, which casts of its windows read instead of being computed. */
typedef struct
{
  HeddleVariable *flat;
  HeddleDtype     dtype;
  gpointer        data;          /* NULL before the first run that reads it */
  gboolean        stale;         /* the f32 numbers have changed since it was written */
} CudaShadow;

/* Device memory that the inputs of a run are copied to; runs take turns. */
#define CUDA_SLOTS 2
typedef struct
{
  char       *memory;
  cudaEvent_t uploaded;          /* its copies are done */
  cudaEvent_t released;          /* the run that read it is done */
} CudaSlot;

/* Pinned memory that scalars, and what steps found wrong with their input, are copied to while the host goes on; snapshots take turns. */
#define CUDA_MAILS  16
#define CUDA_FAULTS 64
typedef struct
{
  float       value[HEDDLE_SNAPSHOT];
  guint32     fault[CUDA_FAULTS];
} CudaMail;

struct _CudaDevice
{
  HeddleDevice   base;
  HeddleFlags    flags;
  int            index;
  int            capability;     /* 90 */
  guint          processors;
  struct cudaDeviceProp *properties;
  gboolean       own;            /* own kernels for everything: no cuBLAS, no cuDNN, no generated kernels */
  cudaStream_t   compute, copy;
  GHashTable    *kernels;        /* name -> CudaKernel *, owned; those of the module itself */
  GHashTable    *generated;      /* CudaKernel *, owned: of images loaded later */
  GHashTable    *customs;        /* source -> CudaKernel *, borrowed: what plugins bring; or NULL */
  GPtrArray     *modules;        /* loaded images, unloaded with the device; the module's own first */
  guint          own_images;
  GPtrArray     *memory;         /* device memory that variables live in */
  GPtrArray     *shadows;        /* CudaShadow *, owned */
  GPtrArray     *plans;          /* CudaPlan *, borrowed */
  char          *arena;          /* one for all plans: only one runs at a time */
  gsize          arena_bytes, slot_bytes, staging_bytes;
  guint          epoch;          /* grows when memory that graphs point to has moved */
  CudaSlot       slots[CUDA_SLOTS];
  guint          turn;           /* of the slots */
  cudaEvent_t    pending;        /* upload of the last run, not known to be done; or NULL */
  char          *staging;        /* pinned, for what the host reads */
  CudaMail      *mails;
  cudaEvent_t    delivered[CUDA_MAILS];
  guint          mail_faults[CUDA_MAILS];     /* words in it */
  guint64        tickets;        /* given to snapshots so far */
  guint64        allocations, primitives, syncs, waited;
  gpointer       blas, dnn, rtc, chains;   /* of blas.c, dnn-steps.c and chain-steps.c; each made when first asked for */
  void         (*blas_free) (gpointer), (*dnn_free) (gpointer), (*rtc_free) (gpointer), (*chains_free) (gpointer);
};

/* What a step is given to put its work on. */
typedef struct
{
  CudaDevice     *device;
  cudaStream_t    stream;
  const HeddleOp *op;            /* in hand, for messages; may be NULL */
} CudaQueue;

/* ---- operands: where a step finds a tensor ---- */

typedef enum { CUDA_NOWHERE = 0, CUDA_ARENA, CUDA_VARIABLE, CUDA_INPUT, CUDA_CONSTANT, CUDA_SHADOW } CudaWhere;

typedef struct
{
  CudaWhere       where;
  guint           index;         /* ARENA: in plan->buffers; INPUT: in the program's inputs; CONSTANT: in plan->constants */
  HeddleVariable *variable;      /* VARIABLE, SHADOW */
  CudaShadow     *shadow;        /* SHADOW */
  double          constant;      /* CONSTANT: its number */
  HeddleDtype     dtype;
  HeddleShape     shape;
  CudaLayout      layout;
  gint64          first, pitch;  /* a window: columns from FIRST of a matrix in rows of PITCH elements; PITCH 0: none.  Only what asks for windows reads them; other readers have them copied out */
} CudaOperand;

typedef struct { const HeddleValue *value; char *form; } CudaOwner;   /* of a buffer: NULL for scratch; FORM "" as it was made */

typedef gboolean (*CudaRun) (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error);

struct _CudaStep
{
  CudaRun         run;           /* puts work on queue->stream; allocates nothing, waits for nothing: it is captured */
  const HeddleOp *op;            /* NULL for conversions */
  const char     *what;          /* kernel or implementation, for people; lives as long as the plan */
  gboolean        chosen;        /* an algorithm of a library, which WHAT names */
  guint           n_in, n_out, n_scratch, n_parts;
  CudaOperand    *in, *out, *scratch;
  guint           fault;         /* its place in plan->faults, plus 1; 0: none */
  gpointer        data;
  GDestroyNotify  data_free;
  cudaEvent_t     begin, finish; /* of timed runs, or NULL */
  gint64          start, end;
  const char     *range;         /* its name for profilers; NULL when none is there */
};

typedef struct { const HeddleOp *op; const char *what; } CudaFault;

#define CUDA_SMALL 64            /* bytes of an output that is fetched together with the others */

struct _CudaPlan
{
  HeddlePlan     base;
  CudaDevice    *device;
  HeddleProgram *program;
  GPtrArray     *steps;          /* CudaStep *, owned */
  GArray        *buffers;        /* HeddleRegion */
  GArray        *sharing;        /* HeddleTakeOver, in the order of steps */
  GArray        *owners;         /* CudaOwner, one per buffer */
  GArray        *constants;      /* float */
  GArray        *faults;         /* CudaFault */
  CudaOperand   *outputs;        /* of program->outputs */
  gsize         *input_offset;   /* of each input in a slot */
  gsize          input_bytes, arena_bytes;
  const char    *peak;
  guint          n_reorders;
  char         **described;      /* per op */
  GPtrArray     *strings;        /* owned texts that steps point to */
  /* running */
  float         *constant_memory;
  guint32       *fault_memory;   /* one word per fault: 1 + the position of the first bad element, or 0 */
  guint          slot;           /* of the run in hand */
  cudaGraphExec_t graphs[CUDA_SLOTS];
  guint          graph_epoch;    /* when GRAPHS were made */
  gboolean       uncaptured;     /* they cannot be made */
  gboolean       timed;
  gint64         timed_at;       /* host clock when the timed run began; 0: its times are taken already */
  cudaEvent_t    timed_from;
  guint64        runs, looked;   /* runs whose faults the host has, or will have with a snapshot */
  char          *numbers;        /* the host's copy of the small outputs, CUDA_SMALL bytes each, where FETCHED */
  gboolean       fetched;
  GPtrArray     *reads;          /* CudaShadow * that it reads */
  GPtrArray     *writes;         /* HeddleVariable *: flat parameters that it assigns */
  GPtrArray     *refreshes;      /* CudaShadow * that it writes itself along with their parameters */
};

/* ---- api.c: every status becomes a GError with the call, the operation, its shape and the remedy ---- */
gboolean cuda_check       (cudaError_t status, const char *call, const HeddleOp *op, GError **error);
#define CUDA(call, op, error) cuda_check ((call), #call, (op), (error))
/* "cublasLtMatmul: CUBLAS_STATUS_...": a status of another library; NAME and REASON may be NULL */
gboolean cuda_fail        (const char *call, int status, const char *name, const char *reason, const HeddleOp *op, GError **error);
/* Makes DEVICE current in the calling thread. */
gboolean cuda_use         (CudaDevice *device, GError **error);
/* Device memory; WHAT: "the arena of \"train\", fullest at conv1".  HINT may be NULL. */
gpointer cuda_malloc      (CudaDevice *device, gsize bytes, const char *what, GError **error);

/* ---- kernels.c: functions on the device ---- */
/* A kernel of the module by name.  NULL with an error. */
CudaKernel *cuda_kernel      (CudaDevice *device, const char *name, GError **error);
/* Kernel NAME of an image (cubin, fatbin or PTX) that stays in memory as long as the device.  For generated code; once per kernel. */
CudaKernel *cuda_kernel_load (CudaDevice *device, gconstpointer image, const char *name, GError **error);
typedef struct { guint grid[3], block[3]; guint shared; } CudaGrid;     /* 0 in GRID and BLOCK counts as 1; SHARED: dynamic, bytes */
gboolean cuda_launch         (CudaQueue *queue, CudaKernel *kernel, const CudaGrid *grid, void **args, GError **error);
/* A kernel of kernels/: its one argument structure by value. */
gboolean cuda_launch_named   (CudaQueue *queue, const char *kernel, const CudaGrid *grid, gconstpointer args, GError **error);
/* Blocks of THREADS for N elements, each thread taking every so-manieth, but no more than fill the device. */
CudaGrid cuda_grid           (const CudaDevice *device, gint64 n, guint threads);

/* ---- compile.c, forms.c: what lowerings call ---- */

/* Lowers OP, and perhaps operations after it (cuda_mark_done), to steps.  TRUE: done.  FALSE without an error: it is not for this lowering, nothing was
 * emitted, the next one is asked.  FALSE with an error: compilation ends. */
typedef gboolean (*CudaLowering) (CudaCompiler *c, const HeddleOp *op, GError **error);
/* lower.c: in the order in which they are asked, NULL-terminated; the second list alone when device->own */
extern const CudaLowering cuda_lowerings_library[], cuda_lowerings_own[];

/* A 16-bit gradient that is yet to be brought to its f32 window, or added to it. */
typedef struct { const HeddleOp *op; CudaOperand from, to; gboolean add; } CudaGradient;

struct _CudaCompiler
{
  CudaDevice *device;
  CudaPlan   *plan;
  GArray    **forms;             /* by value id: CudaOperand, every form in which the value exists */
  HeddleVariable **forward;      /* by value id: the variable whose memory a value is made in, or NULL */
  GPtrArray **users;             /* by value id: const HeddleOp *, the operations that read it */
  gboolean   *done;              /* by op id: part of a step made earlier */
  gboolean   *wanted;            /* by value id: somebody reads it */
  GArray     *gradients;         /* CudaGradient: they wait for each other */
  gsize       gradient_bytes;    /* of them, in 16 bits */
  CudaLayout  images;            /* how convolutions like their images in this program */
  GError     *error;             /* what cuda_form and its like met; ends the compilation */
};

/* The value as it was made. */
const CudaOperand *cuda_made (CudaCompiler *c, const HeddleValue *v);
/* The value in a dtype and layout; emits the conversion if it does not exist yet. */
CudaOperand cuda_form     (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout);
/* The form in which V exists already, or NULL. */
const CudaOperand *cuda_find_form (const CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout);
#define cuda_rows(c, v) cuda_form ((c), (v), (v)->dtype, CUDA_ROWS)
/* Memory for a value that the next step makes: the arena, or the variable that it is assigned to.  Then cuda_made_as. */
CudaOperand cuda_target   (CudaCompiler *c, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout);
void     cuda_made_as     (CudaCompiler *c, const HeddleValue *v, CudaOperand operand);
/* Memory in the arena for SHAPE */
CudaOperand cuda_temporary (CudaCompiler *c, HeddleDtype dtype, const HeddleShape *shape, CudaLayout layout);
/* V is OPERAND, in a dtype that holds the same numbers; whoever asks for another form has it converted. */
void     cuda_stands_for  (CudaCompiler *c, const HeddleValue *v, CudaOperand operand);
CudaLayout cuda_variable_layout (const HeddleVariable *v);
/* The first plan that uses a parameter chooses its layout, before the parameter has memory and before the plan has forms of it; nothing happens where that is past.
 * Its gradient's window lies alike, and through the flat buffers every slot. */
void     cuda_prefer_layout (HeddleVariable *parameter, CudaLayout layout);

CudaStep *cuda_step_new   (CudaCompiler *c, const HeddleOp *op, const char *what, CudaRun run);
/* Inputs are brought into form BEFORE the step is made, so that their conversions come before it. */
void     cuda_step_in     (CudaStep *step, CudaOperand operand);
void     cuda_step_out_at (CudaStep *step, CudaOperand operand);     /* an output whose place is given: the variable of an ASSIGN */
/* Adds the target of value V as the next output: cuda_target, cuda_made_as.  A value that nobody reads is left CUDA_NOWHERE unless NEEDED. */
void     cuda_step_out    (CudaCompiler *c, CudaStep *step, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout, gboolean needed);
/* Adds another form of V, which is made already, as an output in the arena. */
void     cuda_step_form   (CudaCompiler *c, CudaStep *step, const HeddleValue *v, HeddleDtype dtype, CudaLayout layout);
/* Memory that lives during the step only.  The index in step->scratch. */
guint    cuda_step_scratch (CudaCompiler *c, CudaStep *step, gsize bytes);
void     cuda_step_data   (CudaStep *step, gpointer data, GDestroyNotify data_free);
/* The step checks its input and leaves 1 + position in a word on the device; WHAT: "index out of range". */
void     cuda_step_fault  (CudaCompiler *c, CudaStep *step, const char *what);
/* The newest step reads each element of in[IN] before it writes the same one of out[OUT], and never again: they may be one place in the arena. */
void     cuda_may_share   (CudaCompiler *c, const CudaStep *step, guint in, guint out);
/* TEXT (taken) lives as long as the plan. */
const char *cuda_keep     (CudaPlan *plan, char *text);

/* The only operation that reads V, or NULL: what may be made together with it.  NULL when fusion is off. */
const HeddleOp *cuda_only_user (const CudaCompiler *c, const HeddleValue *v);
/* Every operation that reads V is one that MAY, and the host does not read it. */
typedef gboolean (*CudaMay) (const CudaCompiler *c, const HeddleOp *op, const HeddleValue *v);
gboolean cuda_read_by     (const CudaCompiler *c, const HeddleValue *v, CudaMay may);
void     cuda_mark_done   (CudaCompiler *c, const HeddleOp *op);
/* OP reads or writes V, or what shares memory with it. */
gboolean cuda_touches     (const HeddleOp *op, const HeddleVariable *v);
gboolean cuda_is_done     (const CudaCompiler *c, const HeddleOp *op);
/* This plan writes the 16-bit copy of FLAT in DTYPE itself, where the device has such a copy: its operand; else where = NOWHERE. */
CudaOperand cuda_shadow_target (CudaCompiler *c, HeddleVariable *variable, HeddleDtype dtype);
CudaShadow *cuda_shadow   (CudaDevice *device, const HeddleVariable *variable, HeddleDtype dtype, gboolean make);
/* Its numbers, and zeros behind them: from where any of its matrices begins, CUDA_PAD - 1 more rows can be read than it has. */
gsize    cuda_shadow_bytes (const CudaShadow *shadow);

gpointer cuda_pointer     (CudaPlan *plan, const CudaOperand *operand);
guint32 *cuda_fault_word  (CudaPlan *plan, const CudaStep *step);
gboolean cuda_is_image    (const HeddleShape *shape);           /* of rank 4 */
gboolean cuda_same_bytes  (CudaLayout a, CudaLayout b, const HeddleShape *shape);
/* Elements (SIGNS: bits) from one row to the next: the last axis, padded where LAYOUT is. */
gint64   cuda_pitch       (const HeddleShape *shape, CudaLayout layout);
/* The strides, in elements, of a tensor of any rank in a layout. */
void     cuda_strides     (const HeddleShape *shape, CudaLayout layout, gint64 *strides);
gsize    cuda_bytes       (const CudaOperand *o);
/* A shape as a matrix: the length of its rows, and how many there are. */
static inline gint64 cuda_last   (const HeddleShape *s) { return s->size[s->rank - 1]; }
static inline gint64 cuda_height (const HeddleShape *s) { return heddle_shape_count (s) / MAX (cuda_last (s), 1); }
#define IN(i)      cuda_pointer (plan, &step->in[i])
#define OUT(i)     cuda_pointer (plan, &step->out[i])
#define SCRATCH(i) cuda_pointer (plan, &step->scratch[i])

/* ---- gradients.c: casts of 16-bit gradients to f32, many in one launch ---- */
/* CAST brings a gradient to its window, which nobody looks at afterwards: cuda_lower_gradient () takes it. */
gboolean cuda_is_gradient     (const CudaCompiler *c, const HeddleOp *cast);
/* Like a lowering; the step comes with cuda_flush_gradients (), at the end if not before. */
gboolean cuda_lower_gradient  (CudaCompiler *c, const HeddleOp *op);
void     cuda_flush_gradients (CudaCompiler *c);

/* ---- logits.c: cross entropy and top-k read logits of 16 bits as they are, and padded ---- */
/* V, which a matrix product makes in the arena, is to lie PADDED: nobody but these operations reads it, and its rows are long and begin at odd places. */
gboolean cuda_pads_logits     (const CudaCompiler *c, const HeddleValue *v);
/* CAST widens what only such operations read: cuda_lower_logits () takes it, where that is not in a variable. */
gboolean cuda_is_logits       (const CudaCompiler *c, const HeddleOp *cast);
/* Like a lowering, without a step */
gboolean cuda_lower_logits    (CudaCompiler *c, const HeddleOp *op);
/* Which input of OP the logits are */
guint    cuda_logits_of       (const HeddleOp *op);
/* The logits in the form that OP is to read, before its step is made.  GRADIENT: the first value it is to make, in the same dtype and layout if OP is the gradient: a cast of its own output may
 * be done with it. */
CudaOperand cuda_take_logits  (CudaCompiler *c, const HeddleOp *op, const HeddleValue **gradient);

/* ---- ops-movement.c: the sum of gradients of slices that make up a whole ---- */
/* OP is one of them, or adds them: cuda_lower_part () takes it. */
gboolean cuda_is_part         (const CudaCompiler *c, const HeddleOp *op);
/* Like a lowering; the step comes with the last addition. */
gboolean cuda_lower_part      (CudaCompiler *c, const HeddleOp *op);

/* ---- forms.c: conversions on a queue ---- */
gboolean cuda_convert     (CudaQueue *queue, gpointer dst, HeddleDtype to, gconstpointer src, HeddleDtype from, gint64 n, GError **error);
gboolean cuda_fill        (CudaQueue *queue, gpointer dst, HeddleDtype dtype, gint64 n, double value, GError **error);

/* ---- slots of the interface, by file ---- */
HeddlePlan *cuda_compile  (HeddleDevice *device, HeddleProgram *program, GError **error);
void     cuda_plan_free   (HeddlePlan *plan);
gboolean cuda_run         (HeddlePlan *plan, const gpointer *inputs, GError **error);
gboolean cuda_fetch       (HeddlePlan *plan, guint index, HeddleTensor *tensor, GError **error);
gboolean cuda_sync        (HeddleDevice *device, GError **error);
gboolean cuda_snapshot    (HeddleDevice *device, HeddleSnapshot *snapshot, GError **error);
gboolean cuda_arrive      (HeddleDevice *device, HeddleSnapshot *snapshot, gboolean wait, GError **error);
/* Waits until everything handed over is done; reports what steps found wrong with their input. */
gboolean cuda_settle      (CudaDevice *device, GError **error);
/* Host memory, pinned, of at least BYTES for what the host reads next. */
gpointer cuda_staging     (CudaDevice *device, gsize bytes, GError **error);
void     cuda_plan_drop   (CudaPlan *plan);                     /* graphs, events and memory of its own */
void     cuda_plan_timing (HeddlePlan *plan, gboolean on);
gboolean cuda_plan_step   (HeddlePlan *plan, guint i, HeddlePlanStep *step);
gboolean cuda_plan_buffer (HeddlePlan *plan, guint i, HeddlePlanBuffer *buffer);
GPtrArray *cuda_plan_reorders (HeddlePlan *plan);
void     cuda_plan_memory (HeddlePlan *plan, HeddleMemory *memory);
char    *cuda_plan_describe (HeddlePlan *plan, guint op);
void     cuda_note_owners (CudaCompiler *c);
void     cuda_describe    (CudaCompiler *c);
gboolean cuda_place       (CudaPlan *plan, GError **error);     /* arena.c: offsets of all buffers, memory for them */
GPtrArray *cuda_doctor    (void);

#endif
