/* cuda-chain/test-nvrtc.c: NVRTC compiles every generated kernel of our models' programs for every architecture (HEDDLE_LONG_TESTS=1; else for the oldest and the newest),
 * needs no GPU for it, and what it refuses is an error that quotes the line.  Must not know how sources are written. */
#include "backend/cuda/chain.h"
#include "backend/cuda/custom.h"
#include "backend/cuda/rtc.h"
#include "pipeline/internal.h"

#include <string.h>

#include "run.h"
#include "plugins/swish.h"

static CudaRtc *rtc;
static char *reason;             /* why there is none */
static GHashTable *sources;      /* source -> name, of all models */
static char *folder;

static const int wanted[] = { 75, 80, 86, 89, 90, 100, 120 };

#define LENET "{ shape = { 1, 28, 28 }, classes = 10, length = 16 }", "h.model 'lenet' { batch.image, classes = 10 }"
#define RESNET "{ shape = { 3, 32, 32 }, classes = 10, length = 16 }", "h.model 'resnet' { batch.image, depth = 20, classes = 10 }"
#define MOBILENET "{ shape = { 3, 32, 32 }, classes = 10, length = 16 }", "h.model 'mobilenet' { batch.image, classes = 10 }"

typedef struct { const char *data, *model, *optimizer, *options; gboolean gpt; } Model;
static const Model models[] = {
  { LENET, "sgd", "lr = 0.1, momentum = 0.9, weight_decay = 1e-4" }, { LENET, "adamw", "lr = 0.1" }, { LENET, "rmsprop", "momentum = 0.9, centered = true" }, { LENET, "lion", "weight_decay = 0.1" },
  { LENET, "lamb", "lr = 0.1" }, { RESNET, "sgd", "lr = 0.1, momentum = 0.9, nesterov = true" }, { MOBILENET, "rmsprop", "lr = 0.1" },
  { NULL, "h.model 'gpt' { batch.tokens, classes = batch.targets.classes, layers = 2, heads = 2, width = 32, context = 16, dropout = 0.1 }", "adamw", "lr = 0.1, decay = 'weights'", TRUE },
};
static const char *const dtypes[] = { "f32", "f16", "bf16" };

static void
collect (const HeddleProgram *p, ChainOrder order)
{
  ChainOptions options = { .order = order };
  for (guint i = 0; i < p->ops->len;)
    {
      guint end = chain_end (p, i, &options);
      if (end > i)
        {
          g_autoptr (Chain) c = chain_new (p, i, end, &options);
          g_hash_table_insert (sources, g_strdup (c->source), g_strdup (c->name));
        }
      i = MAX (end, i + 1);
    }
}

static void
collect_model (const Model *m, const char *dtype)
{
  g_autofree char *text_data = g_strdup_printf ("{ file = '%s/words.txt', window = 16, split = 'train' }", folder);
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nh.flags { threads = 1 }\nlocal data = h.dataset '%s' %s\nlocal batch = h.prefetch { data, batch_size = 4 }\n"
                                           "local loss = h.loss 'cross_entropy' { %s, batch.%s }\n"
                                           "return h.train { h.optimizer '%s' { h.amp { loss, dtype = '%s' }, %s }, epochs = 1, clip_norm = 1, accumulate = 2 }\n",
                                           m->gpt ? "text" : "synthetic", m->gpt ? text_data : m->data, m->model, m->gpt ? "targets" : "label", m->optimizer, dtype, m->options);
  TestRun r = test_run (folder, text, TEST_COMPILED);
  g_assert_no_error (r.error);
  const HeddlePipeline *p = r.pipeline;
  HeddlePlan *plans[] = { p->train[0][0].plan, p->train[0][1].plan, p->update };
  for (guint i = 0; i < G_N_ELEMENTS (plans); i++)
    if (plans[i])
      for (ChainOrder order = CHAIN_ROWS; order <= CHAIN_CHANNELS_LAST; order++)
        collect (p->device->iface->program (plans[i]), order);
  test_run_clear (&r);
}

static void
collect_all (void)
{
  GString *text = g_string_new (NULL);
  g_autofree char *words = g_build_filename (folder, "words.txt", NULL);
  for (guint i = 0; i < 400; i++)
    g_string_append_printf (text, "%u plus %u makes %u\n", i, i, 2 * i);
  g_assert_true (g_file_set_contents (words, text->str, -1, NULL));
  g_string_free (text, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (models); i++)
    for (guint d = 0; d < G_N_ELEMENTS (dtypes); d++)
      collect_model (&models[i], dtypes[d]);
  g_remove (words);
}

static gboolean
no_nvrtc (void)
{
  if (!rtc)
    g_test_skip (reason);
  return rtc == NULL;
}

static gboolean
knows (int arch)
{
  guint n;
  const int *archs = cuda_rtc_archs (rtc, &n);
  gboolean found = FALSE;
  for (guint i = 0; i < n; i++)
    found |= archs[i] == arch;
  return found;
}

static void
test_arch (gconstpointer data)
{
  int arch = GPOINTER_TO_INT (data);
  GHashTableIter iter;
  gpointer source, name;
  guint n = 0;
  if (no_nvrtc ())
    return;
  if (!knows (arch))
    {
      g_test_skip ("this NVRTC does not know the architecture");
      return;
    }
  g_hash_table_iter_init (&iter, sources);
  for (; g_hash_table_iter_next (&iter, &source, &name); n++)
    {
      GError *error = NULL;
      gsize size = 0;
      g_autoptr (GBytes) code = cuda_rtc_compile (rtc, name, source, arch, &error);
      g_assert_no_error (error);
      g_assert_cmpint (memcmp (g_bytes_get_data (code, &size), "\177ELF", 4), ==, 0);
      g_assert_cmpuint (size, >, 1000);
    }
  g_test_message ("sm_%d: %u kernels", arch, n);
  g_assert_cmpuint (n, >, 50);
}

/* The example of docs/custom-operations.md */
static void
test_custom (void)
{
  if (no_nvrtc ())
    return;
  const HeddleCustomCuda *kernels[] = { swish.cuda, swish_grad.cuda };
  for (guint k = 0; k < G_N_ELEMENTS (kernels); k++)
    for (guint i = 0; i < G_N_ELEMENTS (wanted); i++)
      if (knows (wanted[i]))
        {
          GError *error = NULL;
          g_autofree char *source = cuda_custom_source (kernels[k]);
          g_autoptr (GBytes) code = cuda_rtc_compile_behind (rtc, cuda_custom_prelude (), kernels[k]->kernel, source, wanted[i], &error);
          g_assert_no_error (error);
          g_assert_cmpint (memcmp (g_bytes_get_data (code, NULL), "\177ELF", 4), ==, 0);
          g_assert_true (memmem (g_bytes_get_data (code, NULL), g_bytes_get_size (code), kernels[k]->kernel, strlen (kernels[k]->kernel)) != NULL);
        }
}

/* What is launched with one argument takes one; names of the backend's own sources are free for authors. */
static void
test_custom_refused (void)
{
  if (no_nvrtc ())
    return;
  static const struct { const char *source, *says; } cases[] = {
    { "extern \"C\" __global__ void k (float *x, float *y) { *y = *x; }\n", "k is to return void and to take one heddle_run" },
    { "extern \"C\" __global__ void other (heddle_run run) { }\n", "identifier \"k\" is undefined" },
    { "extern \"C\" __global__ void\nk (heddle_run run)\n{\n  run.input[0].data = 0;\n}\n", "in the line:   run.input[0].data = 0;" },
    { "typedef float f32;\nstruct pack { f32 load; };\nextern \"C\" __global__ void k (const heddle_run run) { pack p; p.load = 1; *(f32 *) run.out[0].data = p.load; }\n", NULL },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      GError *error = NULL;
      HeddleCustomCuda cuda = { sizeof cuda, cases[i].source, "k", NULL };
      g_autofree char *source = cuda_custom_source (&cuda);
      g_autoptr (GBytes) code = cuda_rtc_compile_behind (rtc, cuda_custom_prelude (), "k", source, 90, &error);
      g_assert_true ((code != NULL) == (cases[i].says == NULL));
      if (cases[i].says && !strstr (error->message, cases[i].says))
        g_error ("expected \"%s\" in: %s", cases[i].says, error->message);
      g_clear_error (&error);
    }
}

/* An architecture that is not known yet gets PTX, which a newer driver translates. */
static void
test_newer (void)
{
  if (no_nvrtc ())
    return;
  GError *error = NULL;
  g_autoptr (GBytes) code = cuda_rtc_compile (rtc, "later", "extern \"C\" __global__ void later (f32 *x) { *x = op_exp (*x); }\n", 990, &error);
  g_assert_no_error (error);
  g_assert_nonnull (strstr (g_bytes_get_data (code, NULL), ".entry later"));
}

static void
test_refused (void)
{
  if (no_nvrtc ())
    return;
  GError *error = NULL;
  GBytes *code = cuda_rtc_compile (rtc, "wrong", "extern \"C\" __global__ void\nwrong (f32 *x)\n{\n  *x = op_nothing (*x);\n}\n", 90, &error);
  g_assert_null (code);
  g_assert_true (g_error_matches (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE));
  g_assert_nonnull (strstr (error->message, "kernel wrong: NVRTC "));
  g_assert_nonnull (strstr (error->message, "identifier \"op_nothing\" is undefined"));
  g_assert_nonnull (strstr (error->message, "in the line:   *x = op_nothing (*x);"));
  g_clear_error (&error);
}

/* A folder without the library, and a file that is none: a clear reason, no crash. */
static void
test_absent (void)
{
  GError *error = NULL;
  g_autofree char *file = g_build_filename (folder, "libnvrtc.so.13", NULL);
  const char *folders[] = { folder, NULL };
  g_assert_true (g_file_set_contents (file, "no library", -1, NULL));
  CudaRtc *other = cuda_rtc_open (folders, &error);
  if (other)             /* found where the loader looks */
    g_assert_cmpstr (cuda_rtc_path (other), !=, file);
  else
    g_assert_nonnull (strstr (error->message, "hint: put the folder of libnvrtc.so"));
  g_clear_pointer (&other, cuda_rtc_close);
  g_clear_error (&error);
  g_remove (file);
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  gboolean whole = g_getenv ("HEDDLE_LONG_TESTS") != NULL;
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("heddle-nvrtc-XXXXXX", NULL);
  rtc = cuda_rtc_open (NULL, &error);
  reason = error ? g_strdelimit (g_strdup (error->message), "\n", ' ') : NULL;
  g_clear_error (&error);
  sources = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  if (rtc)
    collect_all ();
  for (guint i = 0; i < G_N_ELEMENTS (wanted); i++)
    if (whole || i == 0 || i + 1 == G_N_ELEMENTS (wanted))
      {
        g_autofree char *path = g_strdup_printf ("/cuda-chain/nvrtc/sm_%d", wanted[i]);
        g_test_add_data_func (path, GINT_TO_POINTER (wanted[i]), test_arch);
      }
  g_test_add_func ("/cuda-chain/nvrtc/an architecture to come", test_newer);
  g_test_add_func ("/cuda-chain/nvrtc/refused", test_refused);
  g_test_add_func ("/cuda-chain/nvrtc/a plugin's kernel", test_custom);
  g_test_add_func ("/cuda-chain/nvrtc/a plugin's kernel refused", test_custom_refused);
  g_test_add_func ("/cuda-chain/nvrtc/absent", test_absent);
  int status = g_test_run ();
  g_hash_table_unref (sources);
  g_clear_pointer (&rtc, cuda_rtc_close);
  g_rmdir (folder);
  g_free (folder);
  g_free (reason);
  return status;
}
