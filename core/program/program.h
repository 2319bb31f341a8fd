/* program/program.h: the static program: values, operations, variables, THE op table's type, and the core side of the builder.
 * Must not know backends: a program says what is computed, never how or where. */
#ifndef HEDDLE_PROGRAM_PROGRAM_H
#define HEDDLE_PROGRAM_PROGRAM_H

#include "base/error.h"
#include "program/layers.h"
#include "tensor/tensor.h"

G_BEGIN_DECLS

typedef struct _HeddleOp        HeddleOp;
typedef struct _HeddleOpInfo    HeddleOpInfo;
typedef struct _HeddleProgram   HeddleProgram;
typedef struct _HeddleVariable  HeddleVariable;
typedef struct _HeddleVariables HeddleVariables;
typedef struct _HeddleGroup     HeddleGroup;

/* ---- variables: what outlives a step ------------------------------------------------------------------------ */

typedef enum
{
  HEDDLE_ROLE_PARAM = 1,   /* trainable f32 master weight; a window of its group's flat PARAM buffer */
  HEDDLE_ROLE_GRAD,        /* its f32 gradient; a window of the group's flat GRAD buffer */
  HEDDLE_ROLE_SLOT,        /* optimizer state; a flat buffer as long as the group */
  HEDDLE_ROLE_STATE,       /* saved, not trained: running statistics */
  HEDDLE_ROLE_SCALAR       /* f32 scalar the core writes or the program keeps: lr, step, loss scale, counters */
} HeddleRole;

/* A variable is named memory that several programs (training, its short last batch, evaluation, update) share.
 * WINDOW variables lie inside the flat variable of their group; flat variables have shape (n). */
struct _HeddleVariable
{
  char           *name;        /* "layer1.0.conv1.weight"; flat ones "decay/param", "decay/grad", "decay/exp_avg" */
  HeddleRole      role;
  HeddleDtype     dtype;
  HeddleShape     shape;
  HeddleInit      init;
  float          *numbers;     /* owned: initial numbers that no formula gives (class weights), shape's count of them; NULL = INIT decides */
  HeddleGroup    *group;       /* PARAM, GRAD, SLOT; NULL until heddle_variables_group () */
  HeddleVariable *flat;        /* the flat variable this is a window of, or NULL */
  gint64          offset;      /* in elements, inside FLAT; a multiple of HEDDLE_FLAT_ALIGN */
  HeddleVariable *grad;        /* PARAM: its gradient window, NULL before grouping */
  gpointer        layout;      /* the backend's physical layout of a PARAM and of its GRAD and SLOT windows; NULL = row-major.
                                  Same number of elements as the row-major form, always. */
  gpointer        data;        /* the backend's address once allocated */
  gboolean        saved;       /* belongs in a checkpoint */
};

/* Windows start at multiples of this many elements (64 bytes of f32), so that vector loops need no heads. */
#define HEDDLE_FLAT_ALIGN 16

/* Parameters that one update rule treats alike; each of param, grad and every slot is ONE contiguous buffer. */
struct _HeddleGroup
{
  char           *name;        /* "decay", "no_decay" */
  GPtrArray      *params;      /* HeddleVariable *, in order of declaration */
  gint64          n;           /* elements of each flat buffer, gaps included; gaps hold zeros in param and grad */
  HeddleVariable *param, *grad;
  GPtrArray      *slots;       /* flat HeddleVariable *, one per slot the rule asked for */
  double          decay;       /* factor on the optimizer's weight decay: 1 or 0 */
};

HeddleVariables *heddle_variables_new   (void);
void             heddle_variables_free  (HeddleVariables *vars);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleVariables, heddle_variables_free)

/* Get or create; a second declaration must agree in role, dtype and shape (HEDDLE_ERROR_PROGRAM names both shapes). */
HeddleVariable  *heddle_variables_declare (HeddleVariables *vars, const char *name, HeddleRole role, HeddleDtype dtype,
                                           const HeddleShape *shape, const HeddleInit *init, GError **error);
/* A STATE with given NUMBERS (copied), not saved: constant tables such as class weights. */
HeddleVariable  *heddle_variables_table   (HeddleVariables *vars, const char *name, const HeddleShape *shape, const float *numbers, GError **error);
HeddleVariable  *heddle_variables_lookup  (HeddleVariables *vars, const char *name);
guint            heddle_variables_count   (HeddleVariables *vars);
HeddleVariable  *heddle_variables_nth     (HeddleVariables *vars, guint i);   /* in order of declaration; flat and windows too */

/* Deals the PARAMs into groups and makes the flat param and grad buffers; once, after the training program was built and before
 * gradients are asked for.  NO_DECAY_SMALL: parameters of rank <= 1 (biases, norms) go to a group of their own with decay 0. */
void             heddle_variables_group   (HeddleVariables *vars, gboolean no_decay_small);
guint            heddle_variables_n_groups (HeddleVariables *vars);
HeddleGroup     *heddle_variables_nth_group (HeddleVariables *vars, guint i);
/* A slot of GROUP, all elements INITIAL; the same name again returns the same slot. */
HeddleVariable  *heddle_group_slot        (HeddleVariables *vars, HeddleGroup *group, const char *name, double initial);
/* Writes VARIABLE's initial numbers, row-major f32, to DST (heddle_shape_count elements): a function of (seed, name, init). */
void             heddle_variable_initial  (const HeddleVariable *variable, guint64 seed, float *dst);
gint64           heddle_variables_n_params (HeddleVariables *vars);           /* trainable numbers, gaps not counted */

/* ---- values and operations ------------------------------------------------------------------------------------ */

typedef enum
{
  HEDDLE_VALUE_INPUT = 1,  /* bound to memory of the batch at every run */
  HEDDLE_VALUE_VARIABLE,
  HEDDLE_VALUE_CONSTANT,   /* f32 scalar known now */
  HEDDLE_VALUE_TEMP        /* made by an operation; lives in the arena */
} HeddleValueKind;

struct _HeddleValue
{
  guint           id;          /* index in program->values */
  HeddleValueKind kind;
  HeddleDtype     dtype;
  HeddleShape     shape;
  char           *name;        /* for people; may be NULL */
  HeddleOp       *producer;    /* TEMP */
  guint           port;        /* which output of the producer */
  HeddleVariable *variable;    /* VARIABLE */
  double          constant;    /* CONSTANT */
  guint           input;       /* INPUT: index in program->inputs */
  guint           n_uses;      /* readers among the operations; outputs of the program count one more */
};

typedef enum { HEDDLE_PHASE_FORWARD = 1, HEDDLE_PHASE_BACKWARD, HEDDLE_PHASE_UPDATE } HeddlePhase;

struct _HeddleOp
{
  guint               id;      /* index in program->ops, which is the order of execution */
  const HeddleOpInfo *info;
  char               *name;    /* scope and name, "layer1.0.conv1"; never NULL */
  char               *scope;   /* "layer1.0", also where the operation has no name of its own; "" outside; never NULL */
  gboolean            again;   /* a copy that heddle_program_recompute () made */
  HeddlePhase         phase;
  guint               n_in, n_out;
  HeddleValue       **in, **out;   /* an output nobody uses may still be there; optional inputs left out are not counted */
  gpointer            attr;    /* info->attr_size bytes, or NULL */
};

struct _HeddleProgram
{
  char            *name;       /* "train", "eval", "update decay": for people */
  HeddleVariables *vars;       /* borrowed */
  GPtrArray       *values;     /* HeddleValue *, owned */
  GPtrArray       *ops;        /* HeddleOp *, owned, in execution order */
  GPtrArray       *inputs;     /* HeddleValue *, borrowed */
  GPtrArray       *outputs;    /* HeddleValue *, borrowed: kept alive to the end of a run; fetched by index */
};

void heddle_program_free (HeddleProgram *program);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleProgram, heddle_program_free)

/* ---- THE op table ---------------------------------------------------------------------------------------------- */

/* How autocast treats an operation's floating inputs (research: PyTorch's autocast lists). */
typedef enum
{
  HEDDLE_AMP_KEEP = 1,   /* runs in its inputs' dtype; mixed inputs of elementwise operations are promoted to the widest */
  HEDDLE_AMP_LOW,        /* inputs cast to the low precision */
  HEDDLE_AMP_F32,        /* inputs cast to f32 */
  HEDDLE_AMP_WIDEST,     /* inputs cast to the widest among them, under autocast or not */
  HEDDLE_AMP_FIRST       /* only the first input's dtype counts, the others stay as they are (batch_norm: f32 statistics) */
} HeddleAmpClass;

typedef enum
{
  HEDDLE_OP_ELEMENTWISE = 1 << 0,   /* out[i] depends on the broadcast in[i] only: may join a fused loop */
  HEDDLE_OP_VIEW        = 1 << 1,   /* out is in's memory under another shape (reshape) */
  HEDDLE_OP_EFFECT      = 1 << 2,   /* never removed as dead: assign */
  HEDDLE_OP_REDUCTION   = 1 << 3
} HeddleOpFlags;

struct _HeddleOpInfo
{
  HeddleOpCode    code;
  const char     *name;
  guint           min_in, max_in, n_out;
  gsize           attr_size;
  HeddleAmpClass  amp;
  guint           flags;
  const char     *summary;     /* formula and its source, for the reference page */
  /* Checks op->in and attr, then fills dtype and shape of every op->out[i] (which exist, zeroed).  The error says which input and what was
   * expected; the builder puts the op's name and the script's place in front. */
  gboolean      (*shape)    (HeddleOp *op, GError **error);
  /* Emits the backward operations: grad_out[i] is NULL where no gradient flows; sets grad_in[j] (NULL = none).  WANT[j] says whether
   * input j's gradient is needed at all.  NULL slot: the operation has no gradient. */
  void          (*gradient) (HeddleBuilder *b, HeddleOp *op, HeddleValue *const *grad_out, const gboolean *want, HeddleValue **grad_in);
  /* Appends " stride=2 padding=1"; NULL when there is nothing to say. */
  void          (*print)    (const HeddleOp *op, GString *text);
};

const HeddleOpInfo *heddle_op_info (HeddleOpCode code);                 /* NULL: no such operation */
void                heddle_op_each (void (*f) (const HeddleOpInfo *info, gpointer data), gpointer data);

/* ---- the builder, core side ------------------------------------------------------------------------------------ */

/* A builder fills one program.  VARS outlives it. */
HeddleBuilder *heddle_builder_new        (const char *name, HeddleVariables *vars, gboolean training, guint64 seed);
void           heddle_builder_free       (HeddleBuilder *b);            /* with an unfinished program */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleBuilder, heddle_builder_free)

HeddleVariables *heddle_builder_variables (HeddleBuilder *b);
void           heddle_builder_set_phase  (HeddleBuilder *b, HeddlePhase phase);
/* From here on operations are autocast to LOW (F16 or BF16) by their AMP class; 0 switches it off.  A parameter is cast once
 * per program (the cast is shared by forward and backward). */
void           heddle_builder_set_autocast (HeddleBuilder *b, HeddleDtype low);
HeddleValue   *heddle_builder_input      (HeddleBuilder *b, const char *name, HeddleDtype dtype, const HeddleShape *shape);
/* The value that stands for VARIABLE in this program (one per variable). */
HeddleValue   *heddle_builder_variable   (HeddleBuilder *b, HeddleVariable *variable);
/* variable = value unless SKIP (or NULL) is not 0.  Reads of the variable emitted before see the old numbers, later ones the new. */
void           heddle_builder_assign     (HeddleBuilder *b, HeddleValue *variable, HeddleValue *value, HeddleValue *skip);
/* Every ASSIGN emitted from here on gets SKIP, unless it has one; NULL ends it.  How an update is made conditional on the device. */
void           heddle_builder_set_skip   (HeddleBuilder *b, HeddleValue *skip);
guint          heddle_builder_output     (HeddleBuilder *b, HeddleValue *value);   /* the index to fetch it by */
const GError  *heddle_builder_error      (HeddleBuilder *b);            /* the first error, or NULL */

/* Reverse-mode differentiation: emits the backward phase.  SEED (f32 scalar) is d objective / d loss.  Gradients of the PARAMs that
 * LOSS depends on are assigned to their grad variables (heddle_variables_group () must have run); ACCUMULATE adds to what is there.
 * A parameter LOSS does not depend on gets zeros.  Gradients of shared values are summed in a fixed order. */
gboolean       heddle_builder_backward   (HeddleBuilder *b, HeddleValue *loss, HeddleValue *seed, gboolean accumulate, GError **error);
/* d loss / d x for arbitrary values (tests, custom uses): GRADS[i] may come back NULL (no dependence). */
gboolean       heddle_builder_gradients  (HeddleBuilder *b, HeddleValue *loss, HeddleValue *seed, HeddleValue *const *wrt, guint n,
                                          HeddleValue **grads, GError **error);

/* Ends building: fails with the sticky error, else removes dead operations, counts uses, numbers ops.  Consumes the builder. */
HeddleProgram *heddle_builder_finish     (HeddleBuilder *b, GError **error);

/* Activation checkpointing (T. Chen et al., arXiv 1604.06174), on a training program with its backward phase.  A block is the shortest scope whose
 * last name is a number or ends in _number: "layer1.0", "h.3", "encoder_layer_0"; blocks inside a block belong to it.  What backward needs of the
 * inside of a block is not kept: right before the block's first backward operation that needs any of it, its operations are run again from what
 * enters the block.  Kept all the same: what leaves the block (forward reads it outside), results of rank <= 1 (batch statistics: nearly
 * no memory), and what cannot be had twice: effects, and operations that read a variable which has been assigned by then (batch norm's running
 * statistics do not count: its output in training does not depend on them).  The results are the same bits.  Returns how many operations are
 * run twice; 0: no block has anything to recompute. */
guint          heddle_program_recompute  (HeddleProgram *program);

/* ---- passes and printing ---------------------------------------------------------------------------------------- */

/* Lifetime of each value by op index, views merged into what they view.  first > last: never live. */
typedef struct { gint first, last; } HeddleLifetime;
void           heddle_program_lifetimes  (const HeddleProgram *program, HeddleLifetime *lifetimes /* n values */);

/* Places N intervals of SIZES[i] bytes (0 = skip) alive from first[i] to last[i] inclusive so that no two that overlap in time overlap in
 * memory: greedy by size, best fit.  Writes OFFSETS (multiples of ALIGN), returns the arena's bytes. */
gsize          heddle_memory_plan        (const gsize *sizes, const HeddleLifetime *lifetimes, guint n, gsize align, gsize *offsets);

/* Which input axes a SUM, MEAN or SUM_TO sums, a bit each: by attribute, or for SUM_TO where the result has size 1 or no axis. */
guint32        heddle_op_summed_axes     (const HeddleOp *op);

/* A region of an arena: alive from step FIRST to step LAST inclusive; first > last: never. */
typedef struct { gsize bytes, offset; gint first, last; } HeddleRegion;
/* Step STEP may write region OUT over region IN, if it is the last to read that. */
typedef struct { guint step, in, out; } HeddleTakeOver;
/* heddle_memory_plan () of N regions, of which some take over the place of others where OVERS (in the order of steps) and lifetimes allow.  Writes every offset;
 * a region that takes over begins a step later from then on, because during that step the place still counts for what it takes over. */
gsize          heddle_memory_place       (HeddleRegion *regions, guint n, const HeddleTakeOver *overs, guint n_overs, gsize align);
/* (transfer full) By value id: const HeddleOp *, the operations that read the value, once for each input that is it; NULL where nobody does.  heddle_users_free () when done. */
GPtrArray    **heddle_program_users      (const HeddleProgram *program);
void           heddle_users_free         (GPtrArray **users, const HeddleProgram *program);
/* The step of N_STEPS during which most bytes are alive; -1: none ever are. */
gint           heddle_memory_peak        (const HeddleRegion *regions, guint n, guint n_steps);

/* Chains of elementwise operations that one loop can run: cluster[op id] = cluster number, or -1.  Members of a cluster are CONSECUTIVE in
 * execution order, all iterate over the same number of elements (scalars of rank 0 may be read by any), and ASSIGNs of whole variables belong to them. */
guint          heddle_program_clusters   (const HeddleProgram *program, gint *cluster /* n ops */);
/* One loop over operations FROM .. TO - 1 and OP would write a variable through one name and touch it through another: a window and its flat buffer. */
gboolean       heddle_program_conflicts  (const HeddleProgram *program, guint from, guint to, const HeddleOp *op);

/* (transfer full) One line per operation: "%12 f32 64x6x28x28 = conv2d %3 %4 stride=1 padding=2   # conv1". */
char          *heddle_program_print      (const HeddleProgram *program);
char          *heddle_op_print           (const HeddleOp *op);

G_END_DECLS

#endif
