/* cuda/cuda.h: what the files of the cuda backend share: device, queue, operands, plan, steps, compiler.  Private to the module. */
#ifndef HEDDLE_BACKEND_CUDA_H
#define HEDDLE_BACKEND_CUDA_H

#include "backend/backend.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

/* ---- api.c: statuses of libraries become errors ---- */

/* TRUE when CODE is cudaSuccess; else the error names CALL, the operation (OP may be NULL) with its shape, and the remedy. */
gboolean cuda_check   (cudaError_t code, const char *call, const HeddleOp *op, GError **error);
gboolean cublas_check (cublasStatus_t code, const char *call, const HeddleOp *op, GError **error);
/* Out of memory: what was asked for, what is free, whose it was. */
gboolean cuda_no_memory (gsize bytes, const char *what, const char *peak, GError **error);

/* ---- device ---- */

typedef struct _CudaModules CudaModules;
typedef struct _CudaPlan CudaPlan;

typedef struct
{
  HeddleDevice     base;
  HeddleFlags      flags;
  int              ordinal;
  int              major, minor;      /* compute capability */
  guint            processors;
  char            *model;             /* "NVIDIA H100 80GB HBM3" */
  gboolean         own;               /* HEDDLE_CUDA_PATH=own: kernels of our own for everything */
  gboolean         graphs;            /* flag cuda_graphs */
  cudaStream_t     compute, copy;
  CudaModules     *modules;           /* loaded kernels */
  cublasLtHandle_t lt;                /* NULL on the own path */
  gpointer         workspace;         /* of cuBLASLt, WORKSPACE_BYTES */
  gpointer         libraries;         /* what further files of the module keep per device: cuDNN, NVRTC */
  GDestroyNotify   libraries_free;
  char            *arena;             /* one for all plans: only one runs at a time */
  gsize            arena_bytes;
  guint            arena_version;     /* counts its moves: captured graphs hold addresses */
  GPtrArray       *memory;            /* device blocks that variables live in */
  char            *mail;              /* pinned: small writes on their way, MAIL_SLOTS of MAIL_BYTES */
  guint            mail_next;
  cudaEvent_t      mail_passed[2];    /* after the last write of each half */
  gint64          *fault;             /* device, two words: 1 + id of the operation that found a bad index, and the index; 0: none */
  cudaEvent_t      sent[2];           /* after the copy of the inputs of the last two runs that had any */
  guint            sent_turn;
  CudaPlan        *last;              /* the plan that ran last, or NULL: whose operation the fault word means */
  guint64          allocations, primitives, syncs, reorders;
  gint64           copy_ns;
} CudaDevice;

#define CUDA_MAIL_BYTES 256
#define CUDA_MAIL_SLOTS 1024
#define CUDA_WORKSPACE  (32u << 20)   /* what NVIDIA recommends for Hopper, enough for older ones */
#define CUDA_ALIGN      256

/* What a launcher gets: where to put work, on which device, for which operation (messages; may be NULL). */
typedef struct { CudaDevice *device; cudaStream_t stream; const HeddleOp *op; } CudaQueue;

/* ---- kernels.c: code embedded in the module or generated, found by name ---- */
typedef const void *CudaKernel;       /* a cudaKernel_t; before CUDA 12.8, whose runtime has no libraries, the driver's CUfunction */
CudaModules *cuda_modules_new  (void);
void         cuda_modules_free (CudaModules *modules);
/* Loads CODE (fatbin, cubin or PTX; copied by the driver) and finds kernel NAME in it; valid until the device is closed. */
gboolean     cuda_modules_load (CudaDevice *device, gconstpointer code, const char *name, CudaKernel *kernel, GError **error);
/* A kernel of the module's own .cu files; loaded at its first use. */
gboolean     cuda_modules_find (CudaDevice *device, const char *name, CudaKernel *kernel, GError **error);
/* ARGS points to each parameter. */
gboolean     cuda_launch_kernel (CudaQueue *queue, CudaKernel kernel, const char *name, dim3 grid, dim3 block, gsize shared_bytes, void **args, GError **error);
/* The same for a kernel of the module's own. */
/* Blocks for N elements: enough to fill the device, each thread then takes every so-manieth. */
dim3         cuda_blocks       (const CudaDevice *device, gint64 n, guint threads);
gboolean     cuda_launch       (CudaQueue *queue, const char *name, dim3 grid, dim3 block, gsize shared_bytes, void **args, GError **error);

/* ---- operands: where a step finds a tensor ---- */

typedef enum { CUDA_NOWHERE = 0, CUDA_ARENA, CUDA_VARIABLE, CUDA_INPUT, CUDA_CONSTANT } CudaWhere;
/* How a tensor of rank 4 (N, C, H, W) lies in memory: row-major, or as N, H, W, C.  Others are row-major. */
typedef enum { CUDA_ROWS = 0, CUDA_CHANNELS_LAST } CudaOrder;

typedef struct
{
  CudaWhere       where;
  guint           buffer;       /* ARENA: index in plan->buffers; INPUT: of the program's input; CONSTANT: in plan->constants */
  HeddleVariable *variable;
  HeddleDtype     dtype;
  HeddleShape     shape;        /* as the program says, whatever the order */
  CudaOrder       order;
} CudaOperand;

typedef struct { gsize bytes, offset; gint first, last; } CudaBuffer;
typedef struct { guint step, in, out; } CudaSharing;

typedef struct _CudaStep CudaStep;
/* Puts the step's work into QUEUE; called while capturing, and at every run without graphs.  Must not wait, allocate or copy from pageable memory. */
typedef gboolean (*CudaStepRun) (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error);

#define CUDA_STEP_OPERANDS 48

struct _CudaStep
{
  CudaStepRun     run;
  const HeddleOp *op;           /* NULL for conversions */
  const char     *what;         /* kernel or implementation, for people; lives as long as the plan */
  guint           n_in, n_out;
  CudaOperand    *in, *out;     /* room for CUDA_STEP_OPERANDS while compiling */
  gpointer        data;         /* of the kernel */
  GDestroyNotify  data_free;
  cudaEvent_t     begin, end;   /* of timed runs, made when timing is switched on */
};

struct _CudaPlan
{
  HeddlePlan      base;
  CudaDevice     *device;
  HeddleProgram  *program;
  GPtrArray      *steps;        /* CudaStep *, owned */
  GArray         *buffers;      /* CudaBuffer */
  GArray         *sharing;      /* CudaSharing */
  GPtrArray      *owners;       /* const HeddleValue * of each buffer, or NULL */
  GArray         *constants;    /* float */
  float          *constants_on_device;
  CudaOperand    *outputs;
  gsize           arena_bytes;
  const char     *peak;
  char          **described;    /* per operation */
  guint           n_reorders;
  /* inputs: two places on the device each, filled in turn on the copy stream */
  char           *staging[2];
  gsize          *input_offset;
  cudaEvent_t     consumed[2];  /* after the last run that read that place */
  guint           turn;         /* which of the two the run in hand uses */
  guint64         runs;
  cudaGraphExec_t graph[2];     /* captured steps for each turn, or NULL */
  guint           graph_version;/* device->arena_version at the capture */
  gboolean        timed;
};

/* ---- compile.c: what lowerings call ---- */

typedef struct
{
  CudaDevice *device;
  CudaPlan   *plan;
  GArray    **forms;            /* by value id: CudaOperand, every form in which the value exists */
  GPtrArray **users;            /* by value id: const HeddleOp *, the operations that read it */
  gboolean   *done;             /* by operation: made together with an earlier one */
  HeddleVariable **forward;     /* by value id: the variable whose memory a value is made in, or NULL */
} CudaCompiler;

guint        cuda_buffer_new  (CudaPlan *plan, gsize bytes);
/* Scratch of BYTES, alive during the steps that have it among their operands. */
CudaOperand  cuda_scratch     (CudaPlan *plan, gsize bytes);
CudaStep    *cuda_step_new    (CudaPlan *plan, const HeddleOp *op, const char *what, CudaStepRun run);
void         cuda_step_in     (CudaStep *step, CudaOperand operand);
void         cuda_step_out    (CudaStep *step, CudaOperand operand);
/* The newest step reads each element of IN before it writes the same one of OUT, and never again: they may be one place in the arena. */
void         cuda_may_share   (CudaPlan *plan, const CudaOperand *in, const CudaOperand *out);
/* VALUE as DTYPE in ORDER, with a conversion step if need be. */
CudaOperand  cuda_form        (CudaCompiler *c, const HeddleValue *value, HeddleDtype dtype, CudaOrder order);
/* VALUE as it is: its own dtype, row-major. */
CudaOperand  cuda_plain       (CudaCompiler *c, const HeddleValue *value);
const CudaOperand *cuda_made  (CudaCompiler *c, const HeddleValue *value);
/* Where a result is to be written, and, when the step is there, that it is. */
CudaOperand  cuda_target      (CudaCompiler *c, const HeddleValue *value, HeddleDtype dtype, CudaOrder order);
void         cuda_made_as     (CudaCompiler *c, const HeddleValue *value, CudaOperand operand);
/* A step of OP with every input as it is and every output in its own dtype, row-major; an output that nobody reads is CUDA_NOWHERE. */
CudaStep    *cuda_simple      (CudaCompiler *c, const HeddleOp *op, const char *what, CudaStepRun run);
const HeddleOp *cuda_only_user (const CudaCompiler *c, const HeddleValue *value);
/* The device address during a run; NULL for CUDA_NOWHERE. */
gpointer     cuda_pointer     (const CudaPlan *plan, const CudaOperand *operand);
#define CUDA_IN(i)  cuda_pointer (plan, &step->in[i])
#define CUDA_OUT(i) cuda_pointer (plan, &step->out[i])

/* ---- lowerings.  Each looks at operation OP and emits steps for it (and perhaps for operations after it, marking them done).  *TAKEN says whether it did;
 *      FALSE is an error.  Tried in this order: generated chains, cuDNN, cuBLASLt, own kernels; on the own path own kernels alone. ---- */
typedef gboolean (*CudaLower) (CudaCompiler *c, const HeddleOp *op, gboolean *taken, GError **error);
gboolean cuda_lower_own   (CudaCompiler *c, const HeddleOp *op, gboolean *taken, GError **error);      /* ops-own.c: every operation of the table */

/* Conversion between dtypes and orders: ops-own.c.  Adds the step. */
void     cuda_emit_convert (CudaCompiler *c, const CudaOperand *from, const CudaOperand *to);

/* ---- compile.c, run.c, inspect.c: slots ---- */
HeddlePlan *cuda_compile     (HeddleDevice *device, HeddleProgram *program, GError **error);
void        cuda_plan_free   (HeddlePlan *plan);
gboolean    cuda_plan_run    (HeddlePlan *plan, const gpointer *inputs, GError **error);
gboolean    cuda_plan_fetch  (HeddlePlan *plan, guint index, HeddleTensor *tensor, GError **error);
gboolean    cuda_device_sync (HeddleDevice *device, GError **error);
void        cuda_plan_memory (HeddlePlan *plan, HeddleMemory *memory);
char       *cuda_plan_describe (HeddlePlan *plan, guint op);
void        cuda_plan_timing (HeddlePlan *plan, gboolean on);
gboolean    cuda_plan_step   (HeddlePlan *plan, guint i, HeddlePlanStep *step);
gboolean    cuda_plan_buffer (HeddlePlan *plan, guint i, HeddlePlanBuffer *buffer);
/* Device to host, waiting: counted as one synchronisation. */
gboolean    cuda_copy_out    (CudaDevice *device, gpointer host, gconstpointer from, gsize bytes, GError **error);
gpointer    cuda_memory_new  (CudaDevice *device, gsize bytes, const char *what, GError **error);
/* Rearranges N x C x PIXELS numbers of SIZE bytes between row-major and channels-last, on the host. */
void        cuda_swap_order  (const HeddleShape *shape, gsize size, gboolean to_rows, const char *from, char *to);

#endif
