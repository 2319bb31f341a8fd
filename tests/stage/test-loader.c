/* test-loader.c: the loader against a plain loop: the same bytes for any number of workers, errors in their place, time-outs, cancelling, restarts. */
#include <stdlib.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "stage/loader.h"
#include "tensor/tensors.h"

#define LENGTH 103
#define WIDTH 7

/* A data set in this program: sample i is WIDTH floats of its own random stream, its index, and a label. */
static struct
{
  gint    fail_at;                 /* index whose read fails; -1 = none */
  gint    bad_label_at;
  gint    stuck_at;                /* index whose read waits until RELEASE */
  gint    release, reads;          /* atomic */
  gboolean silent;                 /* fails without an error */
  gint    sleep_us, burn_us;       /* of every read */
} behave;

static gboolean
fake_open (gpointer self, const HeddleCore *core, HeddleDatasetInfo *info, GError **error)
{
  info->length = LENGTH;
  info->n_fields = 3;
  info->field[0] = (HeddleField) { .name = "x", .dtype = HEDDLE_F32, .shape = heddle_shape (WIDTH) };
  info->field[1] = (HeddleField) { .name = "index", .dtype = HEDDLE_I64 };
  info->field[2] = (HeddleField) { .name = "label", .dtype = HEDDLE_U8, .classes = 10 };
  return TRUE;
}

static gboolean
fake_read (gpointer self, guint64 index, gpointer const *fields, HeddleRandom *random, GError **error)
{
  gboolean ok = (gint) index != behave.fail_at;
  g_atomic_int_inc (&behave.reads);
  while ((gint) index == behave.stuck_at && !g_atomic_int_get (&behave.release))
    g_usleep (1000);
  if (behave.sleep_us)
    g_usleep ((gulong) behave.sleep_us);
  struct timespec t;
  for (gint64 now = 0, until = 0; behave.burn_us && now <= until;)
    {
      clock_gettime (CLOCK_THREAD_CPUTIME_ID, &t);
      now = (gint64) t.tv_sec * 1000000000 + t.tv_nsec;
      until = until ? until : now + behave.burn_us * 1000;
    }
  for (guint i = 0; i < WIDTH; i++)
    ((float *) fields[0])[i] = heddle_random_float (random);
  *(gint64 *) fields[1] = (gint64) index;
  *(guint8 *) fields[2] = (gint) index == behave.bad_label_at ? 10 : (guint8) (index % 10);
  if (index % 5 == 0)
    g_thread_yield ();                         /* let workers overtake each other */
  if (!ok && !behave.silent)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA, "the disk is on fire");
  return ok;
}

static const HeddleDatasetIface iface = { sizeof (HeddleDatasetIface), fake_open, fake_read, NULL };
static const HeddlePlugin plugin = { .magic = { 'H', 'E', 'D', 'D', 'L', 'E', 'P', 'L' }, .abi = HEDDLE_ABI, .size = sizeof (HeddlePlugin), .kind = "dataset", .name = "fake", .version = "1",
                                     .summary = "s", .license = "MIT", .iface_size = sizeof iface, .instance_size = 8, .iface = &iface };
static HeddleRegistryEntry entry = { .file = (char *) "fake", .plugin = &plugin };

typedef struct { HeddleInstance *set; HeddleDatasetInfo info; HeddleLoader *loader; } Rig;

static HeddlePrefetchOptions
defaults (void)
{
  HeddlePrefetchOptions o = { 0 };
  heddle_options_init (heddle_prefetch_options (), &o);
  o.batch_size = 10;
  return o;
}

static void
rig_open (Rig *r, const HeddlePrefetchOptions *o, gint64 steps)
{
  GError *error = NULL;
  HeddleCore core = { .size = sizeof core };
  r->set = heddle_instance_new (&entry);
  g_assert_true (heddle_instance_open_dataset (r->set, &core, &r->info, &error));
  HeddleSamplerSpec spec = { r->info.length, o->batch_size, o->shuffle, o->drop_last, 11, steps, HEDDLE_EPOCH_CONTINUE };
  r->loader = heddle_loader_new (r->set, &r->info, heddle_sampler_new (&spec, &error), o, 11, NULL, &error);
  g_assert_no_error (error);
}

static void
rig_close (Rig *r)
{
  heddle_loader_free (r->loader);
  heddle_instance_free (r->set);
}

/* What batch JOB must hold, without any loader. */
static void
check_batch (const HeddleBatch *batch, HeddleSampler *sampler, guint64 job)
{
  guint64 indices[64], pass;
  guint n = heddle_sampler_batch (sampler, job, indices, &pass);
  g_assert_cmpuint (batch->job, ==, job);
  g_assert_cmpuint (batch->n, ==, n);
  for (guint f = 0; f < 3; f++)
    g_assert_cmpuint (GPOINTER_TO_SIZE (batch->field[f]) % 64, ==, 0);
  for (guint i = 0; i < n; i++)
    {
      HeddleRandom random = heddle_random (11, HEDDLE_STREAM_SAMPLE, pass, (guint32) indices[i]);
      for (guint k = 0; k < WIDTH; k++)
        g_assert_true (((float *) batch->field[0])[i * WIDTH + k] == heddle_random_float (&random));
      g_assert_cmpint (((gint64 *) batch->field[1])[i], ==, (gint64) indices[i]);
      g_assert_cmpint (((guint8 *) batch->field[2])[i], ==, (int) (indices[i] % 10));
      g_assert_cmpuint (batch->indices[i], ==, indices[i]);
    }
}

/* Workers 0, 1, 2, 8 x prefetch_factor 1, 4 x persistent or not, three epochs, whole and dropped last batches: equal to the plain loop. */
static void
test_bytes (void)
{
  static const gint64 workers[] = { 0, 1, 2, 8 }, factors[] = { 1, 4 };
  for (guint w = 0; w < 4; w++)
    for (guint f = 0; f < 2; f++)
      for (int persistent = 0; persistent < 2; persistent++)
        for (int drop = 0; drop < 2; drop++)
          {
            HeddlePrefetchOptions o = defaults ();
            GError *error = NULL;
            Rig r;
            o.num_workers = workers[w];
            o.prefetch_factor = factors[f];
            o.persistent_workers = persistent;
            o.drop_last = drop;
            o.shuffle = TRUE;
            rig_open (&r, &o, 0);
            HeddleSamplerSpec spec = { LENGTH, 10, TRUE, drop, 11, 0, HEDDLE_EPOCH_CONTINUE };
            g_autoptr (HeddleSampler) sampler = heddle_sampler_new (&spec, NULL);
            guint64 end = 3 * (guint64) heddle_sampler_steps_per_epoch (sampler);
            g_assert_true (heddle_loader_start (r.loader, 0, end, &error));
            for (guint64 j = 0; j < end; j++)
              {
                const HeddleBatch *batch = heddle_loader_next (r.loader, &error);
                g_assert_no_error (error);
                check_batch (batch, sampler, j);
                heddle_loader_release (r.loader, batch);
              }
            g_assert_null (heddle_loader_next (r.loader, &error));
            g_assert_no_error (error);
            rig_close (&r);
          }
}

/* Two batches in hand at once, released late; then begun again in the middle. */
static void
test_restart (void)
{
  HeddlePrefetchOptions o = defaults ();
  HeddleSamplerSpec spec = { LENGTH, 10, TRUE, FALSE, 11, 0, HEDDLE_EPOCH_CONTINUE };
  g_autoptr (HeddleSampler) sampler = heddle_sampler_new (&spec, NULL);
  GError *error = NULL;
  Rig r;
  o.num_workers = 2;
  o.shuffle = TRUE;
  rig_open (&r, &o, 0);
  for (guint64 from = 0; from < 30; from += 7)
    {
      g_assert_true (heddle_loader_start (r.loader, from, 0, &error));
      const HeddleBatch *a = heddle_loader_next (r.loader, &error), *b = heddle_loader_next (r.loader, &error);
      check_batch (a, sampler, from);
      check_batch (b, sampler, from + 1);
      heddle_loader_release (r.loader, a);
      heddle_loader_release (r.loader, b);
    }
  rig_close (&r);
}

static void
expect_error (gint64 workers, int code, const char *says, guint good)
{
  HeddlePrefetchOptions o = defaults ();
  GError *error = NULL;
  guint n = 0;
  Rig r;
  const HeddleBatch *batch;
  o.num_workers = workers;
  rig_open (&r, &o, 0);
  g_assert_true (heddle_loader_start (r.loader, 0, 0, &error));
  while ((batch = heddle_loader_next (r.loader, &error)))
    {
      n++;
      heddle_loader_release (r.loader, batch);
    }
  g_assert_error (error, HEDDLE_ERROR, code);
  if (!strstr (error->message, says))
    g_error ("expected \"%s\" in: %s", says, error->message);
  g_assert_cmpuint (n, ==, good);              /* what came before the error was delivered */
  g_error_free (error);
  rig_close (&r);
}

static void
test_errors (void)
{
  static const gint64 workers[] = { 0, 1, 4 };
  for (guint i = 0; i < G_N_ELEMENTS (workers); i++)
    {
      behave.fail_at = 47;
      expect_error (workers[i], HEDDLE_ERROR_DATA, "sample 47 of dataset-fake: the disk is on fire", 4);
      behave.silent = TRUE;
      expect_error (workers[i], HEDDLE_ERROR_PLUGIN, "sample 47 of dataset-fake: read failed and set no error", 4);
      behave.silent = FALSE;
      behave.fail_at = -1;
      behave.bad_label_at = 25;
      expect_error (workers[i], HEDDLE_ERROR_DATA, "sample 25 of dataset-fake: label 10 is out of range 0..9", 2);
      behave.bad_label_at = -1;
    }
}

/* A plugin that never returns: the time-out says so; freeing does not hang. */
static void
test_timeout (void)
{
  HeddlePrefetchOptions o = defaults ();
  GError *error = NULL;
  Rig r;
  behave.stuck_at = 3;
  o.num_workers = 2;
  o.timeout = 0.2;
  rig_open (&r, &o, 0);
  g_assert_true (heddle_loader_start (r.loader, 0, 0, &error));
  g_assert_null (heddle_loader_next (r.loader, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_RUN);
  g_assert_nonnull (strstr (error->message, "batch 0 did not come within 0.2 s"));
  g_assert_nonnull (strstr (error->message, "dataset-fake"));
  g_clear_error (&error);
  g_atomic_int_set (&behave.release, 1);
  rig_close (&r);
  behave.stuck_at = -1;                        /* only now has the worker stopped reading it */
}

static gpointer
cancel_soon (gpointer loader)
{
  g_usleep (50000);
  heddle_loader_cancel (loader);
  return NULL;
}

static void
test_cancel (void)
{
  HeddlePrefetchOptions o = defaults ();
  GError *error = NULL;
  Rig r;
  behave.release = 0;
  behave.stuck_at = 3;
  o.num_workers = 1;
  rig_open (&r, &o, 0);
  g_assert_true (heddle_loader_start (r.loader, 0, 0, &error));
  pthread_t thread;
  pthread_create (&thread, NULL, (void *(*) (void *)) cancel_soon, r.loader);
  g_assert_null (heddle_loader_next (r.loader, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_INTERRUPTED);
  g_clear_error (&error);
  g_atomic_int_set (&behave.release, 1);
  pthread_join (thread, NULL);
  rig_close (&r);
  behave.stuck_at = -1;
}

/* The ring bounds what is read ahead: factor x workers + 2 batches. */
static void
test_bounded (void)
{
  HeddlePrefetchOptions o = defaults ();
  GError *error = NULL;
  Rig r;
  g_atomic_int_set (&behave.reads, 0);
  o.num_workers = 2;
  o.prefetch_factor = 2;
  rig_open (&r, &o, 0);
  g_assert_cmpuint (heddle_loader_bytes (r.loader), ==, (2 * 2 + 2) * 10 * (WIDTH * 4 + 8 + 1));
  g_assert_true (heddle_loader_start (r.loader, 0, 0, &error));
  while (g_atomic_int_get (&behave.reads) < 60)
    g_usleep (1000);
  g_usleep (20000);
  g_assert_cmpint (g_atomic_int_get (&behave.reads), ==, 60);
  g_assert_cmpuint (heddle_loader_n_workers (r.loader), ==, 2);
  rig_close (&r);
}

/* Memory of the caller's making, given back. */
static gint live;
static gpointer
take (gpointer data, gsize bytes, GError **error)
{
  live++;
  void *memory = NULL;
  g_assert_cmpint (posix_memalign (&memory, 64, MAX (bytes, 1)), ==, 0);
  return memset (memory, 0, bytes);
}

static void
give (gpointer data, gpointer memory, gsize bytes)
{
  live--;
  free (memory);
}

static gpointer
refuse (gpointer data, gsize bytes, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "no pinned memory left");
  return NULL;
}

static void
test_memory (void)
{
  HeddlePrefetchOptions o = defaults ();
  HeddleHostMemory good = { take, give, NULL }, bad = { refuse, give, NULL };
  HeddleSamplerSpec spec = { LENGTH, 10, FALSE, FALSE, 11, 0, HEDDLE_EPOCH_CONTINUE };
  GError *error = NULL;
  HeddleCore core = { .size = sizeof core };
  HeddleDatasetInfo info;
  g_autoptr (HeddleInstance) set = heddle_instance_new (&entry);
  g_assert_true (heddle_instance_open_dataset (set, &core, &info, &error));
  o.num_workers = 1;
  HeddleLoader *l = heddle_loader_new (set, &info, heddle_sampler_new (&spec, NULL), &o, 11, &good, &error);
  g_assert_cmpint (live, ==, 3 * 4);
  heddle_loader_free (l);
  g_assert_cmpint (live, ==, 0);
  g_assert_null (heddle_loader_new (set, &info, heddle_sampler_new (&spec, NULL), &o, 11, &bad, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE);
  g_clear_error (&error);
}

/* What the consumer waited for is what filling the batches was; the parts sum to the whole. */
static void
check_wait (gint workers, gint sleep_us, gint burn_us, HeddleWaitPart expected)
{
  Rig r;
  HeddlePrefetchOptions o = defaults ();
  double part[HEDDLE_WAIT_PARTS], sum = 0;
  behave.sleep_us = sleep_us;
  behave.burn_us = burn_us;
  o.num_workers = workers;
  rig_open (&r, &o, 0);
  g_assert_true (heddle_loader_start (r.loader, 0, 4, NULL));
  for (guint j = 0; j < 4; j++)
    heddle_loader_release (r.loader, heddle_loader_next (r.loader, NULL));
  double waited = heddle_loader_waited (r.loader, part);
  for (guint i = 0; i < HEDDLE_WAIT_PARTS; i++)
    sum += part[i];
  g_assert_cmpfloat_with_epsilon (sum, waited, 1e-9);
  g_assert_true (waited > 0 && part[HEDDLE_WAIT_COPY] == 0);
  /* a busy machine may keep a worker from its core, never make a sleeper compute */
  g_assert_cmpfloat (part[expected], >, part[expected == HEDDLE_WAIT_READ ? HEDDLE_WAIT_CONVERT : HEDDLE_WAIT_READ]);
  rig_close (&r);
  behave.sleep_us = behave.burn_us = 0;
}

static void
test_wait (void)
{
  for (gint workers = 0; workers < 2; workers++)
    check_wait (workers, 2000, 0, HEDDLE_WAIT_READ);
  check_wait (1, 0, 2000, HEDDLE_WAIT_CONVERT);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  behave.fail_at = behave.bad_label_at = behave.stuck_at = -1;
  g_test_add_func ("/loader/bytes", test_bytes);
  g_test_add_func ("/loader/restart", test_restart);
  g_test_add_func ("/loader/errors", test_errors);
  g_test_add_func ("/loader/timeout", test_timeout);
  g_test_add_func ("/loader/cancel", test_cancel);
  g_test_add_func ("/loader/bounded", test_bounded);
  g_test_add_func ("/loader/memory", test_memory);
  g_test_add_func ("/loader/wait", test_wait);
  return g_test_run ();
}
