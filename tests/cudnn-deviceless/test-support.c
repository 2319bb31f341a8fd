/* cudnn-deviceless/test-support.c: the real cuDNN finishes plans for the graphs of our models, for devices that are not there: device description files stand for them, and a fake
 * libcuda.so.1, which this process alone opens, lets cuDNN load what it compiles.  What is supported where is compared with a committed table; HEDDLE_LONG_TESTS=1 builds
 * three or four graphs of each kind for each device and writes the table to the build folder, HEDDLE_LONG_TESTS=all all 2000 for each (hours); else each kind of graph is built
 * once, the devices taking turns. */
#include "config.h"
#include "base/memory.h"
#include "models.h"

#ifdef HAVE_CUDNN
#include <cudnn.h>
#endif
#include <dlfcn.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const devices[] = { "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120" };
#define N_DEVICES G_N_ELEMENTS (devices)
#define TABLE_VERSION 91900      /* the cuDNN that support.txt was made with */

static char *cache;              /* $XDG_CACHE_HOME of this process */
static char *why;                /* nothing can be built here */
static GPtrArray *graphs;        /* Wanted * */

/* One line of the table: a kind of graph in one mode. */
typedef struct { guint asked, built; } Count;
typedef struct { char *key; Count count[N_DEVICES]; GPtrArray *graphs; } Kind;
static GPtrArray *kinds;

static char *
source_file (const char *name)
{
  return g_build_filename (g_getenv ("HEDDLE_SOURCE"), "tests/cudnn-deviceless", name, NULL);
}

static CudaDnn *
open_device (const char *name, const HeddleFlags *flags, GError **error)
{
  g_autofree char *base = g_strdup_printf ("devices/%s.json", name), *file = source_file (base), *text = NULL;
  g_assert_true (g_file_get_contents (file, &text, NULL, NULL));
  return cuda_dnn_new (text, TRUE, flags, error);
}

static CudaDnn *
device (const char *name, HeddleFlags flags)
{
  GError *error = NULL;
  CudaDnn *dnn = open_device (name, &flags, &error);
  g_assert_no_error (error);
  return dnn;
}

static gboolean
skipped (void)
{
  if (why)
    g_test_skip (why);
  return why != NULL;
}

/* ---- what is supported where ---- */

static void
sort_kinds (void)
{
  kinds = g_ptr_array_new ();
  for (guint i = 0; i < graphs->len; i++)
    {
      const Wanted *w = graphs->pdata[i];
      g_autofree char *key = g_strdup_printf ("%s: %s", mode_names[w->mode], w->graph->name);
      Kind *kind = NULL;
      for (guint k = 0; k < kinds->len && !kind; k++)
        kind = strcmp (((Kind *) kinds->pdata[k])->key, key) == 0 ? kinds->pdata[k] : NULL;
      if (!kind)
        {
          kind = g_new0 (Kind, 1);
          kind->key = g_steal_pointer (&key);
          kind->graphs = g_ptr_array_new ();
          g_ptr_array_add (kinds, kind);
        }
      g_ptr_array_add (kind->graphs, (gpointer) w);
    }
}

static void
build_one (CudaDnn *const dnn[N_MODES], const Wanted *w, Count *count, const char *name)
{
  GError *error = NULL;
  g_autoptr (CudaDnnPlan) plan = cuda_dnn_build (dnn[w->mode], heddle_memdup (w->graph, sizeof *w->graph), &error);
  g_assert_no_error (error);
  count->asked++;
  count->built += plan != NULL;
  if (!plan)
    g_test_message ("%s %s (%s): %s", name, w->graph->name, w->model, cuda_dnn_reason (dnn[w->mode]));
  g_assert_true (plan || *cuda_dnn_reason (dnn[w->mode]));
  if (plan)
    g_assert_cmpuint (cuda_dnn_workspace (plan), <, (1ull << 30) + (1u << 28));
}

static void
test_device (gconstpointer data)
{
  guint d = GPOINTER_TO_UINT (data);
  CudaDnn *dnn[N_MODES];
  gboolean whole = g_getenv ("HEDDLE_LONG_TESTS") != NULL, all = g_strcmp0 (g_getenv ("HEDDLE_LONG_TESTS"), "all") == 0;
  if (skipped ())
    return;
  for (Mode mode = 0; mode < N_MODES; mode++)
    dnn[mode] = device (devices[d], mode_flags (mode));
  for (guint k = 0; k < kinds->len; k++)
    {
      Kind *kind = kinds->pdata[k];
      guint n = kind->graphs->len, step = all ? 1 : MAX (1, (n - 1) / 2);
      for (guint i = 0; i < n; i += step)
        if (whole || (i == 0 && k % N_DEVICES == d))
          build_one (dnn, kind->graphs->pdata[i], &kind->count[d], devices[d]);
    }
  for (Mode mode = 0; mode < N_MODES; mode++)
    cuda_dnn_free (dnn[mode]);
}

static const char *
word (const Count *c)
{
  return c->asked == 0 ? "-" : c->built == c->asked ? "all" : c->built ? "some" : "none";
}

/* What the table says of KIND on device D: "all", "some", "none", or NULL. */
static char *
expected (const char *table, const Kind *kind, guint d)
{
  g_auto (GStrv) lines = g_strsplit (table, "\n", -1);
  char *found = NULL;
  for (guint i = 0; lines[i] && !found; i++)
    {
      g_auto (GStrv) part = g_strsplit (lines[i], " | ", -1);
      if (g_strv_length (part) == N_DEVICES + 1 && strcmp (g_strstrip (part[0]), kind->key) == 0)
        found = g_strdup (g_strstrip (part[d + 1]));
    }
  return found;
}

static char *
print_table (void)
{
  GString *s = g_string_new (NULL);
  g_string_append_printf (s, "# which graphs of our models cuDNN %d has plans for: all, some or none of a kind.  Made by HEDDLE_LONG_TESTS=1 test-support.\n", cuda_dnn_version ());
  g_string_append_printf (s, "%-48s", "# mode: graph");
  for (guint d = 0; d < N_DEVICES; d++)
    g_string_append_printf (s, " | %-6s", devices[d]);
  for (guint k = 0; k < kinds->len; k++)
    {
      const Kind *kind = kinds->pdata[k];
      g_string_append_printf (s, "\n%-48s", kind->key);
      for (guint d = 0; d < N_DEVICES; d++)
        g_string_append_printf (s, " | %-6s", word (&kind->count[d]));
    }
  g_string_append_c (s, '\n');
  return g_string_free (s, FALSE);
}

/* One built graph of several agrees with "all" and "some", one refused with "none" and "some".  Another cuDNN may support more, never less. */
static void
test_table (void)
{
  g_autofree char *file = source_file ("support.txt"), *table = NULL, *now = NULL, *made = NULL;
  gboolean same_version = !why && cuda_dnn_version () == TABLE_VERSION, whole = g_getenv ("HEDDLE_LONG_TESTS") != NULL, agree = TRUE;
  guint compared = 0;
  if (skipped ())
    return;
  now = print_table ();
  made = g_build_filename (g_getenv ("HEDDLE_BUILD"), "tests/cudnn-deviceless/support.txt", NULL);
  if (whole)
    g_assert_true (g_file_set_contents (made, now, -1, NULL));
  g_assert_true (g_file_get_contents (file, &table, NULL, NULL));
  if (!same_version)
    g_test_message ("this is cuDNN %d, the table is for %d: only what that one supports is required", cuda_dnn_version (), TABLE_VERSION);
  for (guint k = 0; k < kinds->len; k++)
    for (guint d = 0; d < N_DEVICES; d++)
      {
        const Kind *kind = kinds->pdata[k];
        const Count *c = &kind->count[d];
        g_autofree char *want = expected (table, kind, d);
        const char *got = word (c);
        if (c->asked == 0)
          continue;
        gboolean ok = want && (strcmp (got, want) == 0 || (!whole && strcmp (want, "some") == 0) || (!same_version && strcmp (want, "all") != 0));
        if (!ok)
          g_test_message ("%s on %s: %s, the table says %s", kind->key, devices[d], got, want ? want : "nothing");
        agree = agree && ok;
        compared++;
      }
  g_test_message ("%u kinds of graphs, %u graphs, %u entries compared\n%s", kinds->len, graphs->len, compared, now);
  g_assert_cmpuint (compared, >=, kinds->len);
  g_assert_true (agree);
}

/* ---- one graph ---- */

static CudaDnnGraph *
conv_graph (CudaDnnDirection direction, HeddleDtype dtype, CudaDnnLayout layout)
{
  HeddleConvAttr attr = { .stride = { 1, 1 }, .padding = { 1, 1 }, .dilation = { 1, 1 }, .groups = 1 };
  CudaDnnConv conv = { direction, dtype, layout, heddle_shape (64, 64, 56, 56), heddle_shape (64, 64, 3, 3), heddle_shape (64, 64, 56, 56), attr };
  return cuda_dnn_graph_conv (&conv);
}

static CudaDnnPlan *
build_plan (CudaDnn *dnn, CudaDnnGraph *graph)
{
  GError *error = NULL;
  CudaDnnPlan *plan = cuda_dnn_build (dnn, graph, &error);
  g_assert_no_error (error);
  return plan;
}

static char *
plan_text (HeddleFlags flags, CudaDnnGraph *graph)
{
  g_autoptr (CudaDnn) dnn = device ("sm_90", flags);
  g_autoptr (CudaDnnPlan) plan = build_plan (dnn, graph);
  char *text = g_strdup (plan ? cuda_dnn_plan_text (plan) : cuda_dnn_reason (dnn));
  char *cached = strstr (text, ", cached");
  if (cached)
    *cached = 0;
  return text;
}

/* TF32 and strict f32, deterministic or not: other engines, chosen by cuDNN's own notes. */
static void
test_flags (void)
{
  if (skipped ())
    return;
  HeddleFlags strict = mode_flags (MODE_F32), tf32 = mode_flags (MODE_TF32), same = strict, matmul = strict;
  same.deterministic = true;
  matmul.tf32_matmul = true;
  g_autofree char *a = plan_text (strict, conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC)), *b = plan_text (tf32, conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC));
  g_autofree char *c = plan_text (strict, conv_graph (CUDA_DNN_GRAD_WEIGHT, HEDDLE_F32, CUDA_DNN_NCHW)), *d = plan_text (same, conv_graph (CUDA_DNN_GRAD_WEIGHT, HEDDLE_F32, CUDA_DNN_NCHW));
  g_autofree char *e = plan_text (matmul, conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC));
  g_assert_true (g_str_has_prefix (a, "cuDNN engine ") && g_str_has_suffix (a, ", heuristic"));
  g_assert_cmpstr (a, !=, b);
  g_assert_cmpstr (a, ==, e);        /* TF32 for products is not TF32 for convolutions */
  g_assert_cmpstr (c, !=, d);
  CudaDnnMatmul product = { .dtype = HEDDLE_F32, .m = 256, .n = 256, .k = 256 };
  g_autofree char *refused = plan_text (strict, cuda_dnn_graph_matmul (&product)), *taken = plan_text (tf32, cuda_dnn_graph_matmul (&product));
  g_assert_nonnull (strstr (refused, "TF32"));
  g_assert_true (g_str_has_prefix (taken, "cuDNN engine "));
}

static void
test_workspace (void)
{
  if (skipped ())
    return;
  HeddleFlags flags = mode_flags (MODE_F32);
  g_autoptr (CudaDnn) roomy = device ("sm_90", flags);
  flags.workspace_limit = 1;
  g_autoptr (CudaDnn) tight = device ("sm_90", flags);
  g_autoptr (CudaDnnPlan) large = build_plan (roomy, conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC)), small = build_plan (tight, conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NHWC));
  g_assert_cmpuint (cuda_dnn_workspace (large), >, 1u << 20);
  g_assert_true (small ? cuda_dnn_workspace (small) <= 1u << 20 : strstr (cuda_dnn_reason (tight), "workspace above workspace_limit") != NULL);
}

/* No plan is no error, and cuDNN's words say why; neither is a graph that is newer than the library. */
static void
test_unsupported (void)
{
  if (skipped ())
    return;
  g_autoptr (CudaDnn) dnn = device ("sm_90", mode_flags (MODE_F32));
  CudaDnnPool pool = { HEDDLE_F32, CUDA_DNN_NCHW, heddle_shape (2, 8, 8, 8), heddle_shape (2, 8, 4, 4), { .kernel = { 2, 2 }, .stride = { 2, 2 } }, FALSE };
  g_assert_null (build_plan (dnn, cuda_dnn_graph_pool_grad (&pool)));
  g_assert_true (strlen (cuda_dnn_reason (dnn)) > 20);
  CudaDnnGraph *later = conv_graph (CUDA_DNN_FORWARD, HEDDLE_F32, CUDA_DNN_NCHW);
  later->floor = 990102;
  g_assert_null (build_plan (dnn, later));
  g_assert_true (g_str_has_prefix (cuda_dnn_reason (dnn), "needs cuDNN 99.1.2; this is "));
  g_assert_null (build_plan (dnn, NULL));
  g_assert_cmpuint (cuda_dnn_built (dnn), ==, 0);
}

static void
test_bad_device (void)
{
  if (skipped ())
    return;
  GError *error = NULL;
  HeddleFlags flags = mode_flags (MODE_F32);
  g_assert_null (cuda_dnn_new ("{}", TRUE, &flags, &error));
  g_assert_true (g_error_matches (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE));
  g_assert_nonnull (strstr (error->message, "cuDNN refuses the device description: "));
  g_clear_error (&error);
}

/* ---- the plan cache ---- */

static GPtrArray *
cached_files (void)
{
  g_autofree char *folder = g_build_filename (cache, "heddle", "cudnn-plans", NULL);
  GPtrArray *files = g_ptr_array_new_with_free_func (g_free);
  GDir *dir = g_dir_open (folder, 0, NULL);
  for (const char *name = dir ? g_dir_read_name (dir) : NULL; name; name = g_dir_read_name (dir))
    g_ptr_array_add (files, g_build_filename (folder, name, NULL));
  if (dir)
    g_dir_close (dir);
  return files;
}

static void
empty_cache (void)
{
  g_autoptr (GPtrArray) files = cached_files ();
  for (guint i = 0; i < files->len; i++)
    g_remove (files->pdata[i]);
}

static CudaDnnGraph *
norm_graph (gint64 width)
{
  CudaDnnRowNorm norm = { .dtype = HEDDLE_F16, .y = HEDDLE_F16, .rows = 512, .width = width, .eps = 1e-5 };
  return cuda_dnn_graph_row_norm (&norm);
}

/* Whether the plan came from the cache. */
static gboolean
hit (const char *name, HeddleFlags flags, gint64 width)
{
  g_autoptr (CudaDnn) dnn = device (name, flags);
  g_autoptr (CudaDnnPlan) plan = build_plan (dnn, norm_graph (width));
  g_assert_nonnull (plan);
  g_assert_cmpuint (cuda_dnn_built (dnn), ==, 1);
  return g_str_has_suffix (cuda_dnn_plan_text (plan), ", cached");
}

/* Kernel and all: the second time nothing is compiled.  Another device, other flags, another graph are other plans. */
static void
test_cache (void)
{
  if (skipped ())
    return;
  HeddleFlags flags = mode_flags (MODE_F16), other = flags;
  other.deterministic = true;
  empty_cache ();
  g_assert_false (hit ("sm_90", flags, 768));
  g_assert_true (hit ("sm_90", flags, 768));
  g_assert_false (hit ("sm_80", flags, 768));
  g_assert_false (hit ("sm_90", other, 768));
  g_assert_false (hit ("sm_90", flags, 1024));
  g_autoptr (GPtrArray) files = cached_files ();
  g_assert_cmpuint (files->len, ==, 4);
}

/* A file that is cut, changed, or another plan's is ignored and written anew. */
static void
test_cache_damaged (void)
{
  if (skipped ())
    return;
  HeddleFlags flags = mode_flags (MODE_F16);
  g_autofree char *good = NULL, *foreign = NULL;
  gsize n, n_foreign;
  empty_cache ();
  g_assert_false (hit ("sm_90", flags, 1024));
  g_autoptr (GPtrArray) others = cached_files ();
  g_assert_true (g_file_get_contents (others->pdata[0], &foreign, &n_foreign, NULL));
  g_remove (others->pdata[0]);
  g_assert_false (hit ("sm_90", flags, 768));
  g_autoptr (GPtrArray) files = cached_files ();
  g_assert_cmpuint (files->len, ==, 1);
  g_assert_true (g_file_get_contents (files->pdata[0], &good, &n, NULL));
  for (guint damage = 0; damage < 3; damage++)
    {
      g_autofree char *bad = heddle_memdup (good, n);
      bad[n / 2] ^= damage == 1;
      g_assert_true (damage == 2 ? g_file_set_contents (files->pdata[0], foreign, (gssize) n_foreign, NULL) : g_file_set_contents (files->pdata[0], bad, (gssize) (damage ? n : n / 2), NULL));
      g_assert_false (hit ("sm_90", flags, 768));
      g_assert_true (hit ("sm_90", flags, 768));
    }
}

/* ---- */

/* Before anything asks for a driver: the name is then taken.  cuDNN 8 is not even asked for its version: without the libraries it opens by name it ends the process. */
static char *
prepare (void)
{
#if defined CUDNN_VERSION && CUDNN_VERSION < 90800
  return g_strdup_printf ("plans without a device need cuDNN 9.8 or later; this was built with %d", CUDNN_VERSION);
#else
  g_autofree char *fake = g_build_filename (g_getenv ("HEDDLE_BUILD"), "tests/cudnn-deviceless/libcuda.so.1", NULL);
  HeddleFlags flags = mode_flags (MODE_F32);
  g_autoptr (GError) error = NULL;
  char *reason = NULL;
  if (cuda_dnn_version () == 0)
    reason = g_strdup ("built without cuDNN");
  else if (!dlopen (fake, RTLD_NOW | RTLD_GLOBAL))
    reason = g_strdup_printf ("the fake driver cannot be opened: %s", dlerror ());
  else
    cuda_dnn_free (open_device ("sm_90", &flags, &error));
  return error ? g_strdelimit (g_strdup (error->message), "\n", ' ') : reason;
#endif
}

#ifdef __SANITIZE_ADDRESS__
/* The compiler libraries that cuDNN opens and closes again leak a few hundred bytes each; closed, they have no name that a suppression could give. */
const char *__asan_default_options (void);
const char *__asan_default_options (void) { return "detect_leaks=0"; }
#endif

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  cache = g_dir_make_tmp ("heddle-cudnn-XXXXXX", NULL);
  g_setenv ("XDG_CACHE_HOME", cache, TRUE);
  why = prepare ();
  graphs = why ? g_ptr_array_new () : models_graphs ();
  sort_kinds ();
  g_test_add_func ("/cudnn/deviceless/flags", test_flags);
  g_test_add_func ("/cudnn/deviceless/workspace", test_workspace);
  g_test_add_func ("/cudnn/deviceless/unsupported", test_unsupported);
  g_test_add_func ("/cudnn/deviceless/bad device", test_bad_device);
  g_test_add_func ("/cudnn/deviceless/cache", test_cache);
  g_test_add_func ("/cudnn/deviceless/cache damaged", test_cache_damaged);
  for (guint d = 0; d < N_DEVICES; d++)
    {
      g_autofree char *path = g_strdup_printf ("/cudnn/deviceless/%s", devices[d]);
      g_test_add_data_func (path, GUINT_TO_POINTER (d), test_device);
    }
  g_test_add_func ("/cudnn/deviceless/table", test_table);
  int status = g_test_run ();
  empty_cache ();
  g_autofree char *plans = g_build_filename (cache, "heddle", "cudnn-plans", NULL), *own = g_build_filename (cache, "heddle", NULL);
  g_rmdir (plans);
  g_rmdir (own);
  g_rmdir (cache);
  for (guint k = 0; k < kinds->len; k++)
    {
      Kind *kind = kinds->pdata[k];
      g_free (kind->key);
      g_ptr_array_unref (kind->graphs);
      g_free (kind);
    }
  g_ptr_array_unref (kinds);
  g_ptr_array_unref (graphs);
  g_free (cache);
  g_free (why);
  return status;
}
