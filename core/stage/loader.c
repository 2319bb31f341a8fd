/* stage/loader.c: worker threads that fill a ring of batch buffers, handed out in order.  Must not know programs or the graph.
 * POSIX threads rather than GLib's: thread checkers understand them. */
#include "stage/loader.h"
#include "backend/flags.h"
#include "stage/meter.h"
#include "tensor/tensors.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

typedef enum { SLOT_FREE = 0, SLOT_FILLING, SLOT_READY, SLOT_TAKEN } SlotState;

typedef struct
{
  SlotState   state;
  HeddleBatch batch;
  guint64     pass;
  guint64    *indices;
  GError     *error;
  double      share[HEDDLE_METER_PARTS];   /* what filling it was */
} Slot;

/* A thread that fills batches. */
typedef struct { HeddleLoader *loader; pthread_t thread; HeddleMeter meter; HeddleTrack *track; } Worker;

struct _HeddleLoader
{
  HeddleInstance       *dataset;
  HeddleDatasetInfo     info;
  HeddleSampler        *sampler;
  HeddlePrefetchOptions options;
  guint64               seed;
  HeddleHostMemory      memory;
  gsize                 stride[HEDDLE_MAX_FIELDS];   /* bytes of one sample's field */
  guint                 n_workers, n_slots, n_running;
  Slot                 *slots;
  Worker               *workers;                     /* without workers one: the training thread */
  pthread_mutex_t       lock;
  pthread_cond_t        filled, freed;
  /* under LOCK */
  guint64               next_claim, next_out, end, limit;   /* LIMIT: where non-persistent workers stop */
  gboolean              stop, cancelled, abandoned;
  double                waited, part[HEDDLE_WAIT_PARTS];
};

/* ---- one sample, one batch ---- */

static gint64
label_of (HeddleDtype dtype, gconstpointer p)
{
  gint64 label = 0;
  switch (dtype)
    {
    case HEDDLE_U8: label = *(const guint8 *) p; break;
    case HEDDLE_I32: label = *(const gint32 *) p; break;
    case HEDDLE_I64: label = *(const gint64 *) p; break;
    case HEDDLE_F32: case HEDDLE_F16: case HEDDLE_BF16: break;
    }
  return label;
}

static gboolean
check_labels (const HeddleLoader *l, gpointer const *fields, GError **error)
{
  gboolean ok = TRUE;
  for (guint f = 0; ok && f < l->info.n_fields; f++)
    {
      const HeddleField *field = &l->info.field[f];
      gint64 n = field->classes > 0 ? heddle_shape_count (&field->shape) : 0;
      for (gint64 i = 0; ok && i < n; i++)
        {
          gint64 label = label_of (field->dtype, (const char *) fields[f] + (gsize) i * heddle_dtype_size (field->dtype));
          ok = label >= 0 && label < field->classes;
          if (!ok)
            g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "%s %" G_GINT64_FORMAT " is out of range 0..%" G_GINT64_FORMAT "\nhint: is the dataset's number of classes right? Else the data is damaged",
                         field->name, label, field->classes - 1);
        }
    }
  return ok;
}

static gboolean
read_sample (const HeddleLoader *l, Slot *slot, guint i, GError **error)
{
  const HeddlePlugin *plugin = l->dataset->entry->plugin;
  const HeddleDatasetIface *iface = plugin->iface;
  gpointer fields[HEDDLE_MAX_FIELDS];
  GError *local = NULL;
  guint64 index = slot->indices[i];
  HeddleRandom random = heddle_random (l->seed, HEDDLE_STREAM_SAMPLE, slot->pass, (guint32) index);
  for (guint f = 0; f < l->info.n_fields; f++)
    fields[f] = (char *) slot->batch.field[f] + i * l->stride[f];
  gboolean ok = iface->read (l->dataset->self, index, fields, &random, &local) && check_labels (l, fields, &local);
  if (!ok && !local)
    g_set_error (&local, HEDDLE_ERROR, HEDDLE_ERROR_PLUGIN, "read failed and set no error");
  if (!ok)
    g_propagate_prefixed_error (error, local, "sample %" G_GUINT64_FORMAT " of dataset-%s: ", index, plugin->name);
  return ok;
}

static void
fill (const HeddleLoader *l, Slot *slot, Worker *w)
{
  gboolean ok = TRUE;
  heddle_meter_start (&w->meter);
  for (guint i = 0; ok && i < slot->batch.n; i++)
    ok = read_sample (l, slot, i, &slot->error);
  heddle_meter_stop (&w->meter);
  memcpy (slot->share, w->meter.share, sizeof slot->share);
  if (w->track)
    heddle_track_add (w->track, &(HeddleSpan) { .name = "read batch", .category = "read", .start = w->meter.wall, .end = w->meter.wall + w->meter.length, .number = (gint64) slot->batch.job });
}

/* Under LOCK: takes the next batch number and decides its samples; order of claims is order of batches. */
static Slot *
claim (HeddleLoader *l)
{
  Slot *slot = &l->slots[l->next_claim % l->n_slots];
  slot->state = SLOT_FILLING;
  slot->batch.job = l->next_claim++;
  slot->batch.n = heddle_sampler_batch (l->sampler, slot->batch.job, slot->indices, &slot->pass);
  slot->batch.indices = slot->indices;
  return slot;
}

/* ---- workers ---- */

static gboolean
more_to_do (const HeddleLoader *l)
{
  return !l->stop && (l->end == 0 || l->next_claim < l->end) && l->next_claim < l->limit;
}

static void *
worker (void *data)
{
  Worker *w = data;
  HeddleLoader *l = w->loader;
  heddle_meter_open (&w->meter, TRUE);
  pthread_mutex_lock (&l->lock);
  while (more_to_do (l))
    if (l->slots[l->next_claim % l->n_slots].state != SLOT_FREE)
      pthread_cond_wait (&l->freed, &l->lock);
    else
      {
        Slot *slot = claim (l);
        pthread_mutex_unlock (&l->lock);
        fill (l, slot, w);
        pthread_mutex_lock (&l->lock);
        slot->state = SLOT_READY;
        pthread_cond_broadcast (&l->filled);
      }
  pthread_mutex_unlock (&l->lock);
  heddle_meter_close (&w->meter);
  return NULL;
}

static gboolean
start_workers (HeddleLoader *l, GError **error)
{
  gboolean ok = TRUE;
  while (ok && l->n_running < l->n_workers)
    {
      int code = pthread_create (&l->workers[l->n_running].thread, NULL, worker, &l->workers[l->n_running]);
      ok = code == 0;
      if (ok)
        l->n_running++;
      else
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "worker %u of %u cannot be started: %s\nhint: fewer num_workers", l->n_running + 1, l->n_workers, g_strerror (code));
    }
  return ok;
}

/* Joins all workers.  One that is stuck inside a plugin after a time-out is left behind with what it uses. */
static void
stop_workers (HeddleLoader *l)
{
  pthread_mutex_lock (&l->lock);
  l->stop = TRUE;
  gboolean patient = !l->abandoned;
  pthread_cond_broadcast (&l->freed);
  pthread_mutex_unlock (&l->lock);
  gboolean all = TRUE;
  for (guint i = 0; i < l->n_running; i++)
    if (patient)
      pthread_join (l->workers[i].thread, NULL);
    else
      {
        struct timespec until;
        clock_gettime (CLOCK_REALTIME, &until);
        until.tv_sec += 1;
        if (pthread_timedjoin_np (l->workers[i].thread, NULL, &until) != 0)
          {
            pthread_detach (l->workers[i].thread);
            all = FALSE;
          }
      }
  l->n_running = 0;
  l->abandoned = !all;
}

static guint64
epoch_end (const HeddleLoader *l, guint64 job)
{
  guint64 steps = (guint64) heddle_sampler_steps_per_epoch (l->sampler);
  return (job / steps + 1) * steps;
}

/* ---- life ---- */

static gboolean
allocate_slot (HeddleLoader *l, Slot *slot, GError **error)
{
  gboolean ok = TRUE;
  slot->indices = g_new (guint64, (gsize) l->options.batch_size);
  for (guint f = 0; ok && f < l->info.n_fields; f++)
    {
      gsize bytes = l->stride[f] * (gsize) l->options.batch_size;
      void *memory = NULL;
      if (l->memory.alloc)
        memory = l->memory.alloc (l->memory.data, bytes, error);
      else if (posix_memalign (&memory, 64, (MAX (bytes, 1) + 63) / 64 * 64) != 0)
        {
          memory = NULL;
          g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "out of memory: a batch buffer of %" G_GSIZE_FORMAT " bytes\nhint: smaller batch_size, fewer workers or prefetch_factor", bytes);
        }
      slot->batch.field[f] = memory;
      ok = memory != NULL;
      if (ok)
        memset (memory, 0, bytes);
    }
  return ok;
}

HeddleLoader *
heddle_loader_new (HeddleInstance *dataset, const HeddleDatasetInfo *info, HeddleSampler *sampler, const HeddlePrefetchOptions *options, guint64 run_seed,
                   const HeddleHostMemory *memory, GError **error)
{
  HeddleLoader *l = g_new0 (HeddleLoader, 1);
  pthread_condattr_t attr;
  gboolean ok = TRUE;
  l->dataset = dataset;
  l->info = *info;
  l->sampler = sampler;
  l->options = *options;
  l->seed = options->seed >= 0 ? (guint64) options->seed : run_seed;
  l->memory = memory ? *memory : (HeddleHostMemory) { 0 };
  l->n_workers = options->num_workers >= 0 ? (guint) options->num_workers : MIN (8, heddle_flags_cpus ());
  l->n_slots = MAX (2, l->n_workers * (guint) options->prefetch_factor + 2);
  l->workers = g_new0 (Worker, MAX (l->n_workers, 1));
  for (guint i = 0; i < MAX (l->n_workers, 1); i++)
    l->workers[i].loader = l;
  if (l->n_workers == 0)
    heddle_meter_open (&l->workers[0].meter, FALSE);
  l->slots = g_new0 (Slot, l->n_slots);
  pthread_mutex_init (&l->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&l->filled, &attr);
  pthread_cond_init (&l->freed, &attr);
  pthread_condattr_destroy (&attr);
  for (guint f = 0; f < info->n_fields; f++)
    l->stride[f] = heddle_tensor_bytes (info->field[f].dtype, &info->field[f].shape);
  for (guint i = 0; ok && i < l->n_slots; i++)
    ok = allocate_slot (l, &l->slots[i], error);
  if (!ok)
    g_clear_pointer (&l, heddle_loader_free);
  return l;
}

void
heddle_loader_free (HeddleLoader *l)
{
  if (l)
    {
      stop_workers (l);
      if (!l->abandoned)
        {
          for (guint i = 0; i < l->n_slots; i++)
            {
              for (guint f = 0; f < l->info.n_fields; f++)
                if (l->memory.free && l->slots[i].batch.field[f])
                  l->memory.free (l->memory.data, l->slots[i].batch.field[f], l->stride[f] * (gsize) l->options.batch_size);
                else
                  free (l->slots[i].batch.field[f]);
              g_free (l->slots[i].indices);
              g_clear_error (&l->slots[i].error);
            }
          pthread_mutex_destroy (&l->lock);
          pthread_cond_destroy (&l->filled);
          pthread_cond_destroy (&l->freed);
          heddle_sampler_free (l->sampler);
          g_free (l->slots);
          g_free (l->workers);
          g_free (l);
        }
    }
}

gboolean
heddle_loader_start (HeddleLoader *l, guint64 job, guint64 end, GError **error)
{
  stop_workers (l);
  for (guint i = 0; i < l->n_slots; i++)
    {
      l->slots[i].state = SLOT_FREE;
      g_clear_error (&l->slots[i].error);
    }
  l->stop = l->cancelled = FALSE;
  l->next_claim = l->next_out = job;
  l->end = end;
  l->limit = l->options.persistent_workers ? G_MAXUINT64 : epoch_end (l, job);
  return start_workers (l, error);
}

/* ---- the consumer ---- */

static struct timespec
deadline (double seconds)
{
  struct timespec t;
  clock_gettime (CLOCK_MONOTONIC, &t);
  t.tv_sec += (time_t) seconds;
  t.tv_nsec += (long) ((seconds - (double) (time_t) seconds) * 1e9);
  if (t.tv_nsec >= 1000000000)
    {
      t.tv_sec++;
      t.tv_nsec -= 1000000000;
    }
  return t;
}

static void
set_timeout_error (HeddleLoader *l, GError **error)
{
  guint filling = 0;
  for (guint i = 0; i < l->n_slots; i++)
    filling += l->slots[i].state == SLOT_FILLING;
  l->abandoned = TRUE;
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN, "batch %" G_GUINT64_FORMAT " did not come within %g s: %u of %u workers are inside dataset-%s\nhint: raise timeout, or look at what the data set waits for",
               l->next_out, l->options.timeout, filling, l->n_workers, l->dataset->entry->plugin->name);
}

/* Under LOCK.  What the wait was for: the same as what filling the batch was. */
static void
note_wait (HeddleLoader *l, const Slot *slot, gint64 start)
{
  double seconds = (double) (heddle_trace_clock () - start) * 1e-9;
  l->waited += seconds;
  l->part[HEDDLE_WAIT_READ] += seconds * slot->share[HEDDLE_METER_BLOCKED];
  l->part[HEDDLE_WAIT_CONVERT] += seconds * slot->share[HEDDLE_METER_COMPUTING];
  l->part[HEDDLE_WAIT_CPU] += seconds * slot->share[HEDDLE_METER_NO_CORE];
}

/* Under LOCK, until the slot is ready.  FALSE: cancelled or timed out. */
static gboolean
wait_ready (HeddleLoader *l, Slot *slot, GError **error)
{
  struct timespec until = deadline (l->options.timeout);
  gboolean ok = TRUE;
  gint64 start = heddle_trace_clock ();
  while (ok && !(slot->state == SLOT_READY && slot->batch.job == l->next_out))
    if (l->cancelled)
      {
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_INTERRUPTED, "interrupted while waiting for batch %" G_GUINT64_FORMAT, l->next_out);
        ok = FALSE;
      }
    else if (l->options.timeout <= 0)
      pthread_cond_wait (&l->filled, &l->lock);
    else if (pthread_cond_timedwait (&l->filled, &l->lock, &until) == ETIMEDOUT && slot->state != SLOT_READY)
      {
        set_timeout_error (l, error);
        ok = FALSE;
      }
  note_wait (l, slot, start);
  return ok;
}

/* Workers that do not persist are joined at the end of an epoch and started anew. */
static gboolean
renew_workers (HeddleLoader *l, GError **error)
{
  gboolean ok = TRUE;
  if (l->n_workers && l->next_out == l->limit)
    {
      stop_workers (l);
      l->stop = FALSE;
      l->limit = epoch_end (l, l->next_out);
      ok = start_workers (l, error);
    }
  return ok;
}

static void
fill_here (HeddleLoader *l)
{
  gint64 start = heddle_trace_clock ();
  Slot *slot = claim (l);
  fill (l, slot, &l->workers[0]);
  slot->state = SLOT_READY;
  note_wait (l, slot, start);
}

const HeddleBatch *
heddle_loader_next (HeddleLoader *l, GError **error)
{
  const HeddleBatch *batch = NULL;
  gboolean at_end = l->end != 0 && l->next_out >= l->end;
  if (!at_end && renew_workers (l, error))
    {
      Slot *slot = &l->slots[l->next_out % l->n_slots];
      if (l->n_workers == 0)
        fill_here (l);
      pthread_mutex_lock (&l->lock);
      gboolean ok = wait_ready (l, slot, error);
      if (ok && slot->error)
        g_propagate_error (error, g_steal_pointer (&slot->error));
      else if (ok)
        {
          slot->state = SLOT_TAKEN;
          l->next_out++;
          batch = &slot->batch;
        }
      pthread_mutex_unlock (&l->lock);
    }
  return batch;
}

void
heddle_loader_release (HeddleLoader *l, const HeddleBatch *batch)
{
  pthread_mutex_lock (&l->lock);
  l->slots[batch->job % l->n_slots].state = SLOT_FREE;
  pthread_cond_broadcast (&l->freed);
  pthread_mutex_unlock (&l->lock);
}

void
heddle_loader_cancel (HeddleLoader *l)
{
  pthread_mutex_lock (&l->lock);
  l->cancelled = TRUE;
  pthread_cond_broadcast (&l->filled);
  pthread_mutex_unlock (&l->lock);
}

guint
heddle_loader_n_workers (HeddleLoader *l)
{
  return l->n_workers;
}

gsize
heddle_loader_bytes (HeddleLoader *l)
{
  gsize bytes = 0;
  for (guint f = 0; f < l->info.n_fields; f++)
    bytes += l->stride[f];
  return bytes * (gsize) l->options.batch_size * l->n_slots;
}

double
heddle_loader_waited (HeddleLoader *l, double part[HEDDLE_WAIT_PARTS])
{
  if (part)
    memcpy (part, l->part, sizeof l->part);
  return l->waited;
}

void
heddle_loader_set_trace (HeddleLoader *l, HeddleTrace *trace, const char *name, guint capacity)
{
  for (guint i = 0; i < l->n_workers; i++)
    l->workers[i].track = heddle_trace_track (trace, capacity, "%s worker %u", name, i + 1);
}
