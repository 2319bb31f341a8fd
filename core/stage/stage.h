/* stage/stage.h: what a stage is: ports with contracts, options, and what it emits into a program.
 * Must not know the graph's storage or the script; those who wire stages call down into this. */
#ifndef HEDDLE_STAGE_STAGE_H
#define HEDDLE_STAGE_STAGE_H

#include "backend/backend.h"
#include "plugin/registry.h"
#include "stage/loader.h"

G_BEGIN_DECLS

/* X (CODE, nick): what can flow between stages. */
#define HEDDLE_PORT_KINDS(X) \
  X (DATASET, "dataset")       /* samples by index */ \
  X (TENSOR, "tensor")         /* a value of the program, with a contract */ \
  X (BATCH, "batch")           /* all fields of a prefetched batch; its fields are TENSOR ports */ \
  X (LOSS, "loss")             /* a scalar to minimise and its denominator */ \
  X (METRIC, "metric")         /* a scalar sum and its denominator */ \
  X (STEP, "step")             /* an optimizer's update */ \
  X (SCHEDULE, "schedule")     /* learning rate as a function of the update number */ \
  X (LOGGER, "logger") \
  X (RUN, "run")               /* what a script returns */

typedef enum
{
  HEDDLE_PORT_NONE = 0,
#define X(code, nick) HEDDLE_PORT_##code,
  HEDDLE_PORT_KINDS (X)
#undef X
} HeddlePortKind;

const char *heddle_port_kind_name (HeddlePortKind kind);

/* What a port promises about its tensor, beyond dtype and shape (which are the value's). */
typedef struct
{
  gint64 classes;                  /* class indices 0 .. classes - 1; 0 = not class indices */
  double low, high;                /* closed range of the numbers; low == high = unknown */
} HeddleContract;

typedef struct
{
  HeddlePortKind kind;
  char          *name;             /* "image"; owned */
  HeddleValue   *value;            /* TENSOR: the tensor; LOSS, METRIC: mean, or sum for a metric */
  HeddleValue   *weight;           /* LOSS, METRIC: the denominator */
  HeddleContract contract;
  const HeddleDatasetInfo *info;   /* DATASET: what the open data set declared */
} HeddlePort;

/* Built-in stages and the four kinds of plugin all appear to the graph as a class: a verb (h.prefetch), some with a variant (h.loss "mse"). */
typedef struct _HeddleStageClass HeddleStageClass;
typedef struct _HeddleStage      HeddleStage;

/* What emit gets, beside the builder. */
typedef struct
{
  HeddleBuilder *builder;
  gboolean       training;
  gint64         batch_size;       /* of this program; may be the short last batch's */
  const HeddleCore *core;
} HeddleEmit;

struct _HeddleStageClass
{
  const char       *verb;          /* "prefetch" */
  const char       *variant;       /* "cross_entropy", or NULL */
  const char       *summary;
  const char       *plugin_kind;   /* "model": the variant names a plugin whose options and instance are used; NULL for built-ins */
  HeddleOptionTable options;       /* of a built-in, or the core's own options beside the plugin's (optimizer) */
  gsize             instance_size;
  guint             min_inputs, max_inputs;
  const HeddlePortKind *input_kinds;   /* max_inputs of them */
  HeddlePortKind    output;        /* of its one port, or BATCH/TENSOR ports made by emit */
  /* Emits into the program and fills OUT (array of HeddlePort).  NULL for stages that emit nothing (train, logger, schedule). */
  gboolean        (*emit) (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error);
};

/* A stage with its options set. */
struct _HeddleStage
{
  const HeddleStageClass *class;
  gpointer                self;        /* class->instance_size bytes of built-in options, or NULL */
  HeddleInstance         *plugin;      /* or NULL */
  GHashTable             *set;         /* names of options that were given (not defaulted) */
  HeddleDatasetInfo       info;        /* dataset stages, once opened */
  char                   *place;       /* "fashion-mnist.lua:9: prefetch": for error prefixes */
};

/* The classes, one file each; plugin kinds included. */
const HeddleStageClass *heddle_stage_class_find (const char *verb, const char *variant, GError **error);   /* suggests near names */
guint                   heddle_stage_class_count (void);
const HeddleStageClass *heddle_stage_class_nth  (guint i);

/* REGISTRY resolves VARIANT for plugin kinds. */
HeddleStage *heddle_stage_new   (const HeddleStageClass *class, const char *variant, HeddleRegistry *registry, const char *place, GError **error);
void         heddle_stage_free  (HeddleStage *stage);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleStage, heddle_stage_free)
/* Both the class's and the plugin's options; unknown names suggest from both. */
gboolean     heddle_stage_set      (HeddleStage *stage, const char *name, GVariant *value, const char *base_dir, GError **error);
gboolean     heddle_stage_set_text (HeddleStage *stage, const char *name, const char *text, const char *base_dir, GError **error);
/* REQUIRED options given? */
gboolean     heddle_stage_complete (HeddleStage *stage, GError **error);

/* ---- what the built-in stages offer the run loop, one header section per file ---------------------------------- */

/* stage/amp.c: h.amp { loss, dtype = "auto", init_scale = 65536, ... } */
typedef struct
{
  int    dtype;                    /* auto, f32, f16, bf16 */
  int    scaler;                   /* auto (on for f16), on, off */
  double init_scale, growth_factor, backoff_factor, min_scale;
  gint64 growth_interval;
  gint64 max_skips;                /* consecutive skipped updates after which the run stops with a diagnosis; 0 = never */
} HeddleAmpOptions;

typedef struct
{
  HeddleDtype  low;                /* 0: no autocast */
  gboolean     scaling;
  char        *why;                /* what "auto" chose and why, for the header */
  const HeddleAmpOptions *options;
} HeddleAmp;

/* Resolves "auto" for DEVICE: bf16 where the device computes it, f16 on an older GPU, else f32 with a line that says so. */
void heddle_amp_resolve (HeddleStage *amp, HeddleDevice *device, HeddleAmp *result);

/* stage/optimizer.c: the core's options beside the plugin's. */
typedef struct
{
  int decay;                       /* all, weights (parameters of rank <= 1 are not decayed) */
} HeddleOptimizerOptions;

/* The scalars a training run keeps on the device. */
typedef struct
{
  HeddleVariable *scale, *tracker;          /* GradScaler; NULL without scaling */
  HeddleVariable *skip;                     /* 1: this update is skipped */
  HeddleVariable *skipped;                  /* updates skipped so far */
  HeddleVariable *consecutive;              /* ... in a row */
  HeddleVariable *updates;                  /* updates applied */
  HeddleVariable *denominator;              /* sum of loss denominators of the accumulation window */
  HeddleVariable *norm;                     /* last total gradient norm, unscaled, before clipping */
  GPtrArray      *hypers;                   /* HeddleVariable *, one per RUNTIME option; named "hyper/lr" */
  /* A schedule that counts applied updates, which only the device knows: it looks its rates up.  WINDOW and CYCLES are set before the program is made. */
  gint64          window;                   /* counts that the tables have; 0: no tables, the host writes the hypers */
  gboolean        cycles;                   /* the schedule moves momentum too */
  HeddleVariable *first;                    /* the count that the tables begin with */
  HeddleVariable *rates, *momenta;          /* f32 (window); NULL: none, or the optimizer has no momentum */
} HeddleUpdateState;

/* Declares the scalars, emits: unscale and average, NORM_STATS per group, found-inf, clip coefficient min (1, clip / (norm + 1e-6)), the rule under skip,
 * scaler update.  Order and formulas: GradScaler and clip_grad_norm_ (research/semantics 4.1, 4.7).  NOMINAL is the window's nominal denominator
 * (batch size x accumulation), by which backward's seed was divided. */
HeddleProgram *heddle_optimizer_program (HeddleStage *optimizer, const HeddleAmp *amp, HeddleVariables *vars, double clip_norm, double nominal,
                                         const HeddleCore *core, HeddleUpdateState *state, GError **error);

/* stage/schedule.c: h.schedule "cosine" { ... }.  UPDATE counts from 0; TOTAL is the planned number of updates.  The factor is on the base value. */
typedef struct { double lr, momentum; } HeddleScheduleFactors;       /* momentum: NaN = leave alone (absolute value otherwise) */
/* Once, before training: PER_EPOCH updates make an epoch (step and multistep count epochs by default). */
gboolean heddle_schedule_validate (HeddleStage *schedule, gint64 total, gint64 per_epoch, GError **error);
HeddleScheduleFactors heddle_schedule_at (HeddleStage *schedule, gint64 update, gint64 total, double base_lr);
/* Plateau: told the metric at each evaluation (or epoch end); returns TRUE when the rate was lowered. */
gboolean heddle_schedule_report (HeddleStage *schedule, double metric);

typedef enum { HEDDLE_RECOMPUTE_NONE = 1, HEDDLE_RECOMPUTE_BLOCKS } HeddleRecompute;

/* stage/train.c: h.train { step, ... }: the options of the root stage; the run loop (pipeline) reads them. */
typedef struct
{
  gint64 epochs;
  gint64 steps_per_epoch;          /* 0 = one pass over the data */
  int    epoch_mode;               /* HeddleEpochMode */
  gint64 max_steps;                /* stop after so many batches; 0 = no limit */
  gint64 accumulate;               /* batches per update */
  double clip_norm;                /* 0 = no clipping */
  int    schedule_on;              /* applied (skipped updates do not move the schedule), all */
  char  *device;                   /* "auto", "cpu", "cuda:1" */
  gint64 seed;
  int    recompute;                /* HeddleRecompute: what is computed again in backward rather than kept */
  gint64 stop_on_nonfinite;        /* consecutive non-finite losses (not under a loss scaler) that stop the run; 0 = never */
  /* eval = { data = ..., NAME = metric, every = N, batch_size = N, best = "NAME" } */
  gint64 eval_every;               /* epochs between evaluations */
  gint64 eval_batch_size;          /* 0 = the training batch size */
  char  *eval_best;                /* metric whose best value is kept; NULL = the first one */
} HeddleTrainOptions;

G_END_DECLS

#endif
