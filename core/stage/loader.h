/* stage/loader.h: the sampler (which samples make batch number j) and the prefetch loader (workers, ring of batch buffers).
 * Must not know programs or the graph: it turns a dataset instance into batches in host memory. */
#ifndef HEDDLE_STAGE_LOADER_H
#define HEDDLE_STAGE_LOADER_H

#include "base/options.h"
#include "base/trace.h"
#include "plugin/registry.h"

G_BEGIN_DECLS

/* h.prefetch { dataset, ... }: PyTorch's names (torch.utils.data.DataLoader). */
typedef struct
{
  gint64 batch_size;
  bool   shuffle;
  gint64 num_workers;          /* "auto" (-1) = min (8, CPUs allowed); 0 = read on the training thread */
  bool   pin_memory;
  bool   persistent_workers;   /* keep the threads between epochs; never changes a result */
  gint64 prefetch_factor;      /* batches in flight per worker */
  bool   drop_last;
  double timeout;              /* seconds to wait for one batch; 0 = for ever */
  gint64 seed;                 /* "run" (-1) = the run's seed */
} HeddlePrefetchOptions;

HeddleOptionTable heddle_prefetch_options (void);

/* What an epoch of fewer steps than the data holds means. */
typedef enum
{
  HEDDLE_EPOCH_CONTINUE = 1,   /* the next epoch goes on where this one stopped: full coverage */
  HEDDLE_EPOCH_RESTART,        /* each epoch starts a new pass */
  HEDDLE_EPOCH_SUBSET          /* the same first steps x batch_size samples (of the first pass's order), shuffled inside */
} HeddleEpochMode;

/* ---- sampler: a pure function ------------------------------------------------------------------------------------- */

typedef struct
{
  guint64         length;            /* samples of the dataset */
  gint64          batch_size;
  gboolean        shuffle, drop_last;
  guint64         seed;
  gint64          steps_per_epoch;   /* 0 = one pass */
  HeddleEpochMode mode;
} HeddleSamplerSpec;

typedef struct _HeddleSampler HeddleSampler;

/* Errors: length 0; drop_last with length < batch_size; SUBSET with more steps than a pass has. */
HeddleSampler *heddle_sampler_new     (const HeddleSamplerSpec *spec, GError **error);
void           heddle_sampler_free    (HeddleSampler *sampler);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleSampler, heddle_sampler_free)
gint64         heddle_sampler_steps_per_epoch (HeddleSampler *sampler);
/* Samples in batch JOB (counted from 0 over the whole run), and which pass over the data (for augmentation streams) it belongs to.
 * INDICES has room for batch_size.  Keeps the permutation of the pass it was asked for last.  Not thread-safe. */
guint          heddle_sampler_batch   (HeddleSampler *sampler, guint64 job, guint64 *indices, guint64 *pass);
/* One line for the run's header: what part of the data an epoch covers. */
char          *heddle_sampler_describe (HeddleSampler *sampler);

/* ---- loader --------------------------------------------------------------------------------------------------------- */

typedef struct
{
  guint64        job;                /* batch number over the whole run */
  guint          n;                  /* samples in it: batch_size, or fewer in the last of a pass */
  gpointer       field[HEDDLE_MAX_FIELDS];   /* n samples, contiguous; 64-byte aligned */
  const guint64 *indices;
} HeddleBatch;

/* Where batch buffers come from (the device's pinned memory); both NULL = aligned heap. */
typedef struct
{
  gpointer (*alloc) (gpointer data, gsize bytes, GError **error);
  void     (*free)  (gpointer data, gpointer memory, gsize bytes);
  gpointer   data;
} HeddleHostMemory;

typedef struct _HeddleLoader HeddleLoader;

/* SAMPLER is taken.  DATASET is borrowed and open.  The ring (prefetch_factor x workers + 2 batches, at least 2) is allocated here, once. */
HeddleLoader *heddle_loader_new     (HeddleInstance *dataset, const HeddleDatasetInfo *info, HeddleSampler *sampler,
                                     const HeddlePrefetchOptions *options, guint64 run_seed, const HeddleHostMemory *memory, GError **error);
void          heddle_loader_free    (HeddleLoader *loader);       /* stops and joins the workers, whatever they do */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleLoader, heddle_loader_free)
/* Starts at batch JOB; batches up to (not including) END are prepared, END 0 = without end.  May be called again: what was prepared is dropped. */
gboolean      heddle_loader_start   (HeddleLoader *loader, guint64 job, guint64 end, GError **error);
/* The next batch in order, waiting for it; valid until released.  NULL: end (no error set) or error: "sample 4711 of dataset-idx: ..." from the
 * position of its batch; a time-out names the batch and what the workers do.  No allocation. */
const HeddleBatch *heddle_loader_next (HeddleLoader *loader, GError **error);
void          heddle_loader_release (HeddleLoader *loader, const HeddleBatch *batch);
/* Wakes a waiting heddle_loader_next, which returns HEDDLE_ERROR_INTERRUPTED.  Callable from any thread, not from a signal handler. */
void          heddle_loader_cancel  (HeddleLoader *loader);
guint         heddle_loader_n_workers (HeddleLoader *loader);
gsize         heddle_loader_bytes   (HeddleLoader *loader);       /* of the ring */
/* Seconds heddle_loader_next has waited so far, and by PART (or NULL) what for: what the workers did with the batches it waited for. */
double        heddle_loader_waited  (HeddleLoader *loader, double part[HEDDLE_WAIT_PARTS]);
/* Before the first start: each worker notes the batches it fills, CAPACITY of them, on a track "NAME worker 1", ... of TRACE. */
void          heddle_loader_set_trace (HeddleLoader *loader, HeddleTrace *trace, const char *name, guint capacity);

G_END_DECLS

#endif
