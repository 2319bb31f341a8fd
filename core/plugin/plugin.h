/* plugin/plugin.h: what a plugin is: the descriptor, the four kinds of interface, and the services it gets.
 * The one header a plugin needs, installed (with what it includes) as <heddle/plugin.h>; a plugin links GLib and nothing of Heddle.
 * Must not know how plugins are found or who calls them. */
#ifndef HEDDLE_PLUGIN_PLUGIN_H
#define HEDDLE_PLUGIN_PLUGIN_H

#include <glib.h>
#include <string.h>

#include "base/error.h"
#include "base/option.h"
#include "base/random.h"
#include "program/layers.h"
#include "tensor/tensor.h"

G_BEGIN_DECLS

/* The ABI version.  A core accepts exactly its own number here; structures grow at their end, guarded by their sizes, without a new one. */
#define HEDDLE_ABI 1
#define HEDDLE_MAGIC "HEDDLEPL"   /* 8 bytes, no terminator */

/* Threads and states, used in brackets in the comments below:
 *   [main]    the thread that builds and trains            [loader]  any of the prefetch workers, several at once
 *   [logger]  this logger's own thread
 * Life of an instance: options filled -> open -> work -> close.  close is called exactly once after an open that succeeded, never after one that
 * failed (open cleans up after itself).  The core allocates the instance zeroed, fills the options' members, frees both. */

/* ---- services: what the core does for a plugin; reached through the inline functions below ---------------------- */
typedef struct _HeddleCore HeddleCore;
struct _HeddleCore
{
  guint32     size;                                                     /* sizeof (HeddleCore) of the core */
  const char *version;                                                  /* of the core */
  guint64     seed;                                                     /* the run's seed */
  const char *base_dir;                                                 /* the script's folder */
  /* One line for the person who runs the script; LEVEL is G_LOG_LEVEL_MESSAGE, _WARNING or _DEBUG.  [any thread] */
  void      (*message) (const HeddleCore *core, GLogLevelFlags level, const char *text);
};

static inline void G_GNUC_PRINTF (3, 4)
heddle_message (const HeddleCore *core, GLogLevelFlags level, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  core->message (core, level, text);
}

/* ---- dataset ------------------------------------------------------------------------------------------------------ */

/* One thing a sample consists of.  The numbers in the file stay as they are (bytes stay bytes); what they stand for is declared:
 *   real value = (number * scale - mean[c]) / std[c]        c: first axis of SHAPE
 * and is computed on the device.  Integer labels have scale 0 and declare CLASSES. */
typedef struct
{
  const char *name;                 /* "image", "label": the port's name in the script */
  HeddleDtype dtype;
  HeddleShape shape;                /* of one sample; rank 0 for a label */
  gint64      classes;              /* labels: numbers are 0 .. classes - 1; else 0 */
  double      scale;                /* 0: the numbers are used as they are */
  gint32      channels;             /* how many of mean and std count: 0 (none), 1 (all channels alike) or shape.size[0] */
  double      mean[HEDDLE_MAX_CHANNELS_NORMALISED], std[HEDDLE_MAX_CHANNELS_NORMALISED];
} HeddleField;

#define HEDDLE_MAX_FIELDS 8

typedef struct
{
  guint64     length;               /* samples; 0 is refused by the core */
  guint       n_fields;
  HeddleField field[HEDDLE_MAX_FIELDS];
} HeddleDatasetInfo;

typedef struct
{
  guint32    size;                  /* sizeof (HeddleDatasetIface) */
  /* [main] Opens files, checks them wholly (magic, counts, sizes), declares length and fields.  Names in INFO must live as long as the instance. */
  gboolean (*open)  (gpointer self, const HeddleCore *core, HeddleDatasetInfo *info, GError **error);
  /* [loader] Writes sample INDEX (< length): FIELDS[i] points to the place of field i inside the batch buffer, row-major, exactly its bytes.
   * Must be thread-safe and depend on (INDEX, RANDOM) alone; RANDOM is this sample's own stream, for augmentation. */
  gboolean (*read)  (gpointer self, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error);
  void     (*close) (gpointer self);                                    /* [main] may be NULL */
} HeddleDatasetIface;

/* ---- model -------------------------------------------------------------------------------------------------------- */

typedef struct
{
  guint32            size;
  const char *const *outputs;       /* NULL-terminated port names; NULL means one, "output" */
  /* [main] Emits the network for the given inputs (already f32 if the dataset declared a scale; the batch is axis 0).  Called once per program: training,
   * evaluation, and a last batch of another size; the same names give the same parameters.  OUTPUTS has room for the declared ports.
   * An error set after a call to the builder has failed says where in the model that was; the builder's own message follows it. */
  gboolean         (*build) (gpointer self, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error);
  /* [main] Optional: after options are filled, before build: checks that no single range can express. */
  gboolean         (*check) (gpointer self, GError **error);
} HeddleModelIface;

/* ---- optimizer ---------------------------------------------------------------------------------------------------- */

/* The update of one group of parameters; all tensors are flat, shape (n), f32.  The gradient is unscaled, clipped and averaged already. */
typedef struct _HeddleUpdate HeddleUpdate;
struct _HeddleUpdate
{
  HeddleValue *param, *grad;
  HeddleValue *step;                /* f32 scalar: 1 at the first applied update; skipped steps do not count */
  double       decay;               /* factor on weight decay: 1, or 0 for the group that is not decayed */
  /* The option NAME as a value: a device scalar if the option is RUNTIME (schedules move it), a constant otherwise. */
  HeddleValue *(*hyper) (HeddleUpdate *u, HeddleBuilder *b, const char *name);
  /* State as long as the group, created with every element INITIAL, saved in checkpoints. */
  HeddleValue *(*slot)  (HeddleUpdate *u, HeddleBuilder *b, const char *name, double initial);
};

static inline HeddleValue *
heddle_hyper (HeddleUpdate *u, HeddleBuilder *b, const char *name)
{
  return u->hyper (u, b, name);
}

static inline HeddleValue *
heddle_slot (HeddleUpdate *u, HeddleBuilder *b, const char *name, double initial)
{
  return u->slot (u, b, name, initial);
}

/* ---- what a rule may do beyond single elements: one number per parameter ----
 * All parameters of a group lie in ONE flat tensor (n), with small gaps between them; these three go from (n) to one number for each of the group's P
 * parameters and back, still as one operation per group.  What lies in the gaps never counts.  LAMB's trust ratio, all of it:
 *   HeddleValue *ratio = heddle_div (b, heddle_param_norm (u, b, u->param), heddle_param_norm (u, b, step));     (P)
 *   step = heddle_mul (b, step, heddle_param_spread (u, b, ratio));                                              (n) */

/* x (n) -> (P): the sum of X over each parameter */
static inline HeddleValue *
heddle_param_sum (HeddleUpdate *u, HeddleBuilder *b, HeddleValue *x)
{
  HeddleParamSumAttr attr = { 0 };
  HeddleValue *in[] = { x, u->param };
  return heddle_emit (b, HEDDLE_OP_PARAM_SUM, NULL, in, 2, &attr, sizeof attr);
}

/* x (n) -> (P): the Euclidean norm of X over each parameter */
static inline HeddleValue *
heddle_param_norm (HeddleUpdate *u, HeddleBuilder *b, HeddleValue *x)
{
  HeddleParamSumAttr attr = { .squares = 1 };
  HeddleValue *in[] = { x, u->param };
  return heddle_sqrt (b, heddle_emit (b, HEDDLE_OP_PARAM_SUM, NULL, in, 2, &attr, sizeof attr));
}

/* v (P) -> (n): each parameter's number in all its elements */
static inline HeddleValue *
heddle_param_spread (HeddleUpdate *u, HeddleBuilder *b, HeddleValue *v)
{
  HeddleValue *in[] = { v, u->param };
  return heddle_emit (b, HEDDLE_OP_PARAM_SPREAD, NULL, in, 2, NULL, 0);
}

/* An optimizer has a FLOAT option "lr" flagged RUNTIME: the learning rate that schedules scale. */
typedef struct
{
  guint32    size;
  /* [main] Emits the rule with elementwise operations, the sums over parameters above, and heddle_assign () to u->param and the slots; the core makes it one loop or one kernel per group,
   * conditional on the loss scaler's verdict. */
  gboolean (*update) (gpointer self, HeddleBuilder *b, HeddleUpdate *u, GError **error);
  gboolean (*check)  (gpointer self, GError **error);                   /* [main] optional, as for models */
} HeddleOptimizerIface;

/* ---- logger ------------------------------------------------------------------------------------------------------- */

typedef enum
{
  HEDDLE_EVENT_RUN_START = 1,       /* text: one header line per '\n' */
  HEDDLE_EVENT_EPOCH_START,
  HEDDLE_EVENT_BATCH,               /* values since the last BATCH event of this logger: means weighted by samples */
  HEDDLE_EVENT_EVAL,                /* values over the whole evaluation set */
  HEDDLE_EVENT_EPOCH_END,           /* values over the epoch */
  HEDDLE_EVENT_RUN_END,             /* text: "finished", "interrupted" or the error */
  HEDDLE_EVENT_MESSAGE              /* text; level */
} HeddleEventType;

typedef struct
{
  const char *name;                 /* "loss", "accuracy", "top5", "lr", "scale", "skipped" */
  const char *brief;                /* "loss", "acc", "top5", "lr", ...: for progress lines */
  double      value;
} HeddleEventValue;

#define HEDDLE_MAX_EVENT_VALUES 16

/* What training waited for when it waited for input. */
typedef enum
{
  HEDDLE_WAIT_READ = 0,             /* a data set's read that was blocked: disk, network, sleep */
  HEDDLE_WAIT_CONVERT,              /* a data set's read that computed: decoding, converting, augmenting */
  HEDDLE_WAIT_CPU,                  /* a worker that had no core to run on */
  HEDDLE_WAIT_COPY,                 /* the batch's way to the device */
  HEDDLE_WAIT_PARTS
} HeddleWaitPart;

/* Plain data; every pointer in it stays valid until event () returns. */
typedef struct
{
  guint32          size;
  HeddleEventType  type;
  gint64           epoch;           /* from 1; 0 before the first */
  gint64           epochs;          /* planned */
  gint64           batch;           /* from 1, inside this epoch */
  gint64           batches;         /* planned for this epoch; 0 = unknown */
  gint64           step;            /* batches done since the run began */
  gint64           updates;         /* optimizer updates applied */
  gint64           samples;         /* samples trained since the run began */
  gint64           skipped;         /* updates skipped because of non-finite gradients, since the run began */
  double           seconds;         /* since the run began */
  double           samples_per_second;   /* over the interval; 0 = not measured */
  double           wait_share;      /* share of the interval spent waiting for input, 0..1 */
  double           scale;           /* loss scale; 0 without a scaler */
  guint            n_values;
  HeddleEventValue values[HEDDLE_MAX_EVENT_VALUES];
  GLogLevelFlags   level;
  const char      *text;            /* NULL unless the type says so */
  double           wait_part[HEDDLE_WAIT_PARTS];   /* what wait_share is made of: shares of the interval that sum to it */
} HeddleEvent;

typedef struct
{
  guint32    size;
  gboolean (*open)     (gpointer self, const HeddleCore *core, GError **error);          /* [main] opens its file */
  /* [logger] An error detaches this logger, never the run. */
  gboolean (*event)    (gpointer self, const HeddleEvent *event, GError **error);
  void     (*close)    (gpointer self);                                                 /* [main] flushes; after the last event */
  /* [main] Batches between BATCH events; 0 = none wanted.  NULL slot = none. */
  guint    (*interval) (gpointer self);
} HeddleLoggerIface;

/* ---- the descriptor ----------------------------------------------------------------------------------------------- */

/* Exported as constant data under the one symbol "heddle_plugin".  The first 16 bytes never change.  Nothing of the plugin runs before magic, ABI,
 * sizes and required slots have been accepted; scanning a folder runs no plugin code at all.  The file is <kind>-<name>.so. */
typedef struct
{
  char                magic[8];     /* HEDDLE_MAGIC */
  guint32             abi;          /* HEDDLE_ABI */
  guint32             size;         /* sizeof (HeddlePlugin) */
  const char         *kind;         /* "dataset", "model", "optimizer", "logger" */
  const char         *name;         /* "idx" */
  const char         *version;      /* "1.0" */
  const char         *summary;      /* one sentence without a full stop */
  const char         *license;      /* SPDX identifier */
  const char         *build;        /* NULL, or what it was built with, for people: "libjpeg 6b" */
  const HeddleOption *options;      /* ends with HEDDLE_OPTIONS_END; NULL without options */
  guint32             option_size;  /* sizeof (HeddleOption) */
  guint32             iface_size;   /* sizeof of the interface, equal to its first member */
  gsize               instance_size;
  const void         *iface;        /* HeddleDatasetIface, HeddleModelIface, HeddleOptimizerIface or HeddleLoggerIface */
} HeddlePlugin;

#define HEDDLE_EXPORT __attribute__ ((visibility ("default")))

/* HEDDLE_PLUGIN ("dataset", HeddleDatasetIface, iface, Idx, options, .name = "idx", .version = "1.0", .summary = "...", .license = "MIT"); */
#define HEDDLE_PLUGIN(kind_, Iface, iface_, Instance, options_, ...) \
  HEDDLE_EXPORT extern const HeddlePlugin heddle_plugin; \
  HEDDLE_EXPORT const HeddlePlugin heddle_plugin = { \
    .magic = { 'H', 'E', 'D', 'D', 'L', 'E', 'P', 'L' }, .abi = HEDDLE_ABI, .size = sizeof (HeddlePlugin), .kind = (kind_), \
    .options = (options_), .option_size = sizeof (HeddleOption), .iface_size = sizeof (Iface), .instance_size = sizeof (Instance), \
    .iface = &(iface_), __VA_ARGS__ }

G_END_DECLS

#endif
