/* backend/backend.h: devices that run programs, and the loader of the modules that bring them.
 * Must not know plugins, stages or scripts. */
#ifndef HEDDLE_BACKEND_BACKEND_H
#define HEDDLE_BACKEND_BACKEND_H

#include "backend/flags.h"
#include "program/program.h"

G_BEGIN_DECLS

typedef struct _HeddleDevice HeddleDevice;
typedef struct _HeddlePlan   HeddlePlan;

/* What a backend module exports, as constant data, under the symbol "heddle_backend". */
typedef struct
{
  guint32       size;              /* sizeof (HeddleBackend) */
  const char   *kind;              /* "cpu", "cuda" */
  const char   *summary;
  /* Text lines for `heddle doctor`: "key: value"; must not fail on a machine without such a device.  (transfer full, free func g_free) */
  GPtrArray  *(*doctor) (void);
  HeddleDevice *(*open) (guint index, const HeddleFlags *flags, GError **error);
} HeddleBackend;

/* Bytes by owner, for the line printed before the first step. */
typedef struct
{
  gsize arena;                     /* activations and scratch of this plan */
  gsize params, grads, slots, states;   /* of the variables, once allocated */
  const char *peak;                /* name of the operation at which the arena is fullest */
} HeddleMemory;

typedef enum
{
  HEDDLE_COUNTER_ALLOCATIONS = 1,  /* device or arena allocations made so far */
  HEDDLE_COUNTER_PRIMITIVES,       /* library objects (oneDNN primitives, cuDNN plans) created so far */
  HEDDLE_COUNTER_SYNCS,            /* times the host waited for the device */
  HEDDLE_COUNTER_REORDERS,         /* layout conversions a run of the last compiled plan makes */
  HEDDLE_COUNTER_COPY              /* nanoseconds that runs have waited for their inputs to reach the device; 0 where inputs are read in place */
} HeddleCounter;

/* Scalars on their way from the device to the host, in the caller's memory: their values when everything handed over before is done. */
#define HEDDLE_SNAPSHOT 64
typedef struct
{
  guint           n;
  HeddleVariable *variable[HEDDLE_SNAPSHOT];     /* f32 scalars */
  float           value[HEDDLE_SNAPSHOT];        /* once ARRIVED */
  gboolean        arrived;
  guint64         ticket;          /* the device's */
} HeddleSnapshot;

/* One step of a plan: an operation, several that run as one, or a conversion between layouts or dtypes. */
typedef struct
{
  const HeddleOp *op;              /* the first operation it computes; of a conversion the one it is made for */
  const char     *what;            /* kernel or implementation, for people; lives as long as the plan */
  gboolean        conversion;      /* no operation of the program: numbers are only moved or converted */
  gboolean        chosen;          /* WHAT says which algorithm a library computes it with, one of several: for the run's log */
  gint64          start, end;      /* of the last timed run, ns of CLOCK_MONOTONIC; 0 before one */
} HeddlePlanStep;

/* One region of a plan's arena. */
typedef struct
{
  const HeddleValue *value;        /* whose numbers it holds; NULL: scratch */
  const char        *form;         /* "" for the value as it was made, else the layout or dtype of a copy, or what the scratch is for */
  gsize              offset, bytes;
  gint               first, last;  /* steps of the plan during which it is kept; first > last: never */
} HeddlePlanBuffer;

/* All slots: [main].  Every slot that can fail sets the error; "where" is added by the caller. */
typedef struct
{
  guint32       size;
  void        (*close)    (HeddleDevice *device);
  /* Lines for the run's header: each flag as resolved on this device, and those it cannot honour ("tf32: not on a CPU").  (transfer full) */
  GPtrArray  *(*report)   (HeddleDevice *device);
  /* Computes in DTYPE natively (not by converting to f32 and back). */
  gboolean    (*computes) (HeddleDevice *device, HeddleDtype dtype);
  /* Host memory the device copies from fastest (pinned for CUDA), 64-byte aligned. */
  gpointer    (*host_alloc) (HeddleDevice *device, gsize bytes, GError **error);
  void        (*host_free)  (HeddleDevice *device, gpointer memory, gsize bytes);

  /* Compiles PROGRAM (taken; freed with the plan).  The first plan that uses a PARAM chooses its layout, later plans follow.  Variables need
   * not be allocated yet.  Nothing is allocated or created after the first run of a plan. */
  HeddlePlan *(*compile)  (HeddleDevice *device, HeddleProgram *program, GError **error);
  void        (*plan_free) (HeddlePlan *plan);
  const HeddleProgram *(*program) (HeddlePlan *plan);
  void        (*memory)   (HeddlePlan *plan, HeddleMemory *memory);
  /* (transfer full) What `graph --program` adds to the line of operation I: layout, offset, implementation; may be NULL. */
  char       *(*describe) (HeddlePlan *plan, guint op);

  /* Gives every variable of VARS memory that has none yet (zeroed); flat ones first, windows point into them. */
  gboolean    (*allocate) (HeddleDevice *device, HeddleVariables *vars, GError **error);
  /* Host row-major to and from the variable's own layout; dtypes are converted.  TENSOR's element count must match.  A flat buffer (parameters,
   * gradients, a slot) is its parameters' windows, each row-major: what is read on one device can be written on any other. */
  gboolean    (*write)    (HeddleDevice *device, HeddleVariable *variable, const HeddleTensor *tensor, GError **error);
  gboolean    (*read)     (HeddleDevice *device, HeddleVariable *variable, HeddleTensor *tensor, GError **error);

  /* Runs the plan once.  INPUTS[i] is host memory for program->inputs[i], untouched until the next run that has inputs, or sync, of this device returns.
   * May return before the work is done (CUDA). */
  gboolean    (*run)      (HeddlePlan *plan, const gpointer *inputs, GError **error);
  /* Copies program->outputs[index] of the last run to TENSOR (converted to its dtype, row-major); waits for the device. */
  gboolean    (*fetch)    (HeddlePlan *plan, guint index, HeddleTensor *tensor, GError **error);
  gboolean    (*sync)     (HeddleDevice *device, GError **error);
  guint64     (*counter)  (HeddleDevice *device, HeddleCounter counter);

  /* ---- optional: look with HEDDLE_BACKEND_SLOT ---- */

  /* Whether the flag NAME of HeddleFlags (also "pin_memory") changes anything on this device.  Absent: every one does. */
  gboolean    (*honours)  (HeddleDevice *device, const char *name);
  /* From its next run on the plan notes (or no longer notes) when each step starts and ends.  Off, timing costs one branch per run. */
  void        (*timing)   (HeddlePlan *plan, gboolean on);
  /* Step I in order of execution, with its times in the last run (waits for the device if need be); FALSE past the end. */
  gboolean    (*step)     (HeddlePlan *plan, guint i, HeddlePlanStep *step);
  /* Region I of the arena; FALSE past the end. */
  gboolean    (*buffer)   (HeddlePlan *plan, guint i, HeddlePlanBuffer *buffer);
  /* (transfer full) The layout conversions that a run makes, a line each: "%12 plain -> nChw8c for conv2". */
  GPtrArray  *(*reorders) (HeddlePlan *plan);
  /* Named ranges for a profiler of the device's maker: they nest, each push has its pop with the same NAME, on the same thread; NAME lives until then.
   * Cheap where no profiler is. */
  void        (*range_push) (HeddleDevice *device, const char *name);
  void        (*range_pop)  (HeddleDevice *device, const char *name);
  /* Starts a snapshot and does not wait.  A device remembers the last 16.  Absent: reading needs no wait. */
  gboolean    (*snapshot) (HeddleDevice *device, HeddleSnapshot *snapshot, GError **error);
  /* Fills it if it has arrived, or WAITs for it; reports what steps handed over before it found wrong with their input. */
  gboolean    (*arrive)   (HeddleDevice *device, HeddleSnapshot *snapshot, gboolean wait, GError **error);
} HeddleDeviceIface;

/* Slot NAME, or NULL if the module was built before it existed. */
#define HEDDLE_BACKEND_SLOT(device, name) \
  ((device)->iface->size >= G_STRUCT_OFFSET (HeddleDeviceIface, name) + sizeof ((device)->iface->name) ? (device)->iface->name : NULL)

struct _HeddleDevice { const HeddleDeviceIface *iface; const HeddleBackend *backend; char *name; /* "cpu", "cuda:0" */ };
struct _HeddlePlan   { HeddleDevice *device; };

/* Opens "cpu", "cuda", "cuda:1" or "auto" (cuda if it works, else cpu, and *WHY says why not).  The module is searched in the build tree's or the
 * installed backend folder (overridable by HEDDLE_BACKEND_PATH).  If OMP_WAIT_POLICY is unset, sets it to passive and GOMP_SPINCOUNT, if unset,
 * to about a millisecond before the first module is opened. */
HeddleDevice *heddle_device_open   (const char *spec, const HeddleFlags *flags, char **why, GError **error);
void          heddle_device_close  (HeddleDevice *device);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleDevice, heddle_device_close)
void          heddle_plan_free     (HeddlePlan *plan);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddlePlan, heddle_plan_free)

/* For backends: ALLOCATE gives memory to each variable that has none yet and is no window; windows then have their place in their flat variable's. */
gboolean      heddle_variables_place (HeddleDevice *device, HeddleVariables *vars, gboolean (*allocate) (HeddleDevice *device, HeddleVariable *v, GError **error), GError **error);
/* For backends: V has memory, and TENSOR as many elements. */
gboolean      heddle_variable_holds  (const HeddleVariable *v, const HeddleTensor *tensor, GError **error);

/* Writes every variable's initial numbers (params, states, slots, scalars). */
gboolean      heddle_device_initialise (HeddleDevice *device, HeddleVariables *vars, guint64 seed, GError **error);
/* One f32 scalar in, out. */
gboolean      heddle_device_write_scalar (HeddleDevice *device, HeddleVariable *variable, double value, GError **error);
gboolean      heddle_device_read_scalar  (HeddleDevice *device, HeddleVariable *variable, double *value, GError **error);

/* Starts to read SNAPSHOT's variables; where reading needs no wait they arrive at once. */
gboolean      heddle_device_snapshot (HeddleDevice *device, HeddleSnapshot *snapshot, GError **error);
/* Looks whether it has arrived (snapshot->arrived), or WAITs for it. */
gboolean      heddle_device_arrive   (HeddleDevice *device, HeddleSnapshot *snapshot, gboolean wait, GError **error);

gboolean      heddle_device_honours      (HeddleDevice *device, const char *flag);

/* Backend modules found, for doctor: each with its file, or the reason it does not load.  (transfer full) */
typedef struct { char *kind, *file, *error; GPtrArray *lines; } HeddleBackendInfo;
GPtrArray    *heddle_backends_list (void);

G_END_DECLS

#endif
