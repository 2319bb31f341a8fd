/* cuda/dnn.c: contexts, the choice of a plan for a graph, and running it.
 * Must not know what graphs compute nor which operations they stand for. */
#define _GNU_SOURCE             /* dladdr */
#include "dnn-private.h"
#include "disk-cache.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <string.h>

/* 8.7.0 is 8700 and 9.1.0 is 90100 in cuDNN's own count. */
gint
cuda_dnn_version (void)
{
  gint v = (gint) cudnnGetVersion ();
  return v >= 90000 ? v : v / 1000 * 10000 + v % 1000;
}

char *
cuda_dnn_describe (void)
{
  Dl_info info = { 0 };
  gint v = cuda_dnn_version ();
  gboolean found = dladdr ((gconstpointer) cudnnGetVersion, &info) && info.dli_fname;
  return g_strdup_printf ("%d.%d.%d, built with %d.%d.%d (%s)", v / 10000, v / 100 % 100, v % 100, CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL, found ? info.dli_fname : "?");
}

const char *
cuda_dnn_reason (CudaDnn *dnn)
{
  return dnn->reason ? dnn->reason : "";
}

guint64
cuda_dnn_built (const CudaDnn *dnn)
{
  return dnn->built;
}

static void G_GNUC_PRINTF (2, 3)
set_reason (CudaDnn *dnn, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_free (dnn->reason);
  dnn->reason = g_strdup_vprintf (format, args);
  va_end (args);
}

static gboolean
fail (GError **error, cudnnStatus_t status, const char *call, const char *what)
{
  char text[512];
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: %s: %s (%s)", what, call, cudnnGetErrorString (status), dnn_status_text (status, text, sizeof text));
  return FALSE;
}

/* ---- context ---- */

#if CUDNN_VERSION >= 90800
static gboolean
open_document (CudaDnn *dnn, GError **error)
{
  g_auto (DnnMaker) m;
  dnn_maker_init (&m);
  Descriptor d = dnn_make (&m, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  dnn_set (&m, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t) strlen (dnn->device), dnn->device);
  if (dnn_finish (&m, d))
    dnn->properties = dnn_take (&m, d);
  else
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "cuDNN refuses the device description: %s", m.reason);
  return dnn->properties != NULL;
}
#else
static gboolean
open_document (CudaDnn *dnn, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "plans without a device need cuDNN 9.8 or later; this was built with %d", CUDNN_VERSION);
  return FALSE;
}
#endif

static gboolean
open_handle (CudaDnn *dnn, GError **error)
{
  cudnnStatus_t status = cudnnCreate (&dnn->handle);
  if (status != CUDNN_STATUS_SUCCESS)
    fail (error, status, "cudnnCreate", "cuDNN does not start");
  return status == CUDNN_STATUS_SUCCESS;
}

CudaDnn *
cuda_dnn_new (const char *device, gboolean deviceless, const HeddleFlags *flags, GError **error)
{
  CudaDnn *dnn = g_new0 (CudaDnn, 1);
  dnn->device = g_strdup (device);
  dnn->flags = *flags;
  if (!(deviceless ? open_document (dnn, error) : open_handle (dnn, error)))
    g_clear_pointer (&dnn, cuda_dnn_free);
  return dnn;
}

void
cuda_dnn_free (CudaDnn *dnn)
{
  if (dnn)
    {
      if (dnn->properties)
        cudnnBackendDestroyDescriptor (dnn->properties);
      if (dnn->handle)
        cudnnDestroy (dnn->handle);
      g_free (dnn->device);
      g_free (dnn->reason);
      g_free (dnn);
    }
}

/* ---- which engines the flags allow ---- */

static guint32
notes_of (Descriptor engine)
{
  cudnnBackendNumericalNote_t notes[32];
  int64_t n = 0;
  guint32 set = 0;
  if (cudnnBackendGetAttribute (engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, G_N_ELEMENTS (notes), &n, notes) == CUDNN_STATUS_SUCCESS)
    for (int64_t i = 0; i < MIN (n, (int64_t) G_N_ELEMENTS (notes)); i++)
      set |= 1u << notes[i];
  return set;
}

/* Why an engine may not run, or NULL.  Sums are in f32 whatever the data; f32 products are TF32 on tensor cores. */
static const char *
refused (const CudaDnn *dnn, const CudaDnnGraph *graph, guint32 notes)
{
  const HeddleFlags *f = &dnn->flags;
  gboolean products = graph->dtype == HEDDLE_F32 && graph->products != DNN_PRODUCTS_NONE, tf32 = graph->products == DNN_PRODUCTS_CONV ? f->tf32_conv : f->tf32_matmul;
  guint32 winograd = 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4 | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6 | 1u << CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13;
  const char *why = NULL;
  if (notes & 1u << CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
    why = "sums below f32";
  else if (f->deterministic && notes & 1u << CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)
    why = "not deterministic";
  else if (products && !tf32 && notes & (1u << CUDNN_NUMERICAL_NOTE_TENSOR_CORE | 1u << CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS))
    why = "TF32";
  else if (!f->winograd && notes & winograd)
    why = "Winograd";
  return why;
}

/* ---- a configuration that the heuristics proposed ---- */

static Descriptor
engine_of (DnnMaker *m, Descriptor config)
{
  Descriptor engine = dnn_make (m, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  int64_t n = 0;
  if (engine)
    cudnnBackendGetAttribute (config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine);
  return engine;
}

static void
print_knobs (GString *s, DnnMaker *m, Descriptor config)
{
  Descriptor knob[32];
  int64_t n = 0;
  for (guint i = 0; i < G_N_ELEMENTS (knob); i++)
    knob[i] = dnn_make (m, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
  if (m->status != CUDNN_STATUS_SUCCESS || cudnnBackendGetAttribute (config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, G_N_ELEMENTS (knob), &n, knob) != CUDNN_STATUS_SUCCESS)
    n = 0;
  for (int64_t i = 0; i < MIN (n, (int64_t) G_N_ELEMENTS (knob)); i++)
    {
      cudnnBackendKnobType_t type = 0;
      int64_t value = 0, one = 0;
      cudnnBackendGetAttribute (knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &one, &type);
      cudnnBackendGetAttribute (knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &one, &value);
      g_string_append_printf (s, "%s%d=%" G_GINT64_FORMAT, i ? " " : " (", (int) type, (gint64) value);
    }
  if (n > 0)
    g_string_append_c (s, ')');
}

/* "engine 35 (2=1 4=0)": cuDNN has no names for engines, but these numbers say which one it was. */
static char *
config_text (DnnMaker *m, Descriptor config, Descriptor engine)
{
  GString *s = g_string_new ("cuDNN engine ");
  int64_t index = -1, n = 0;
  cudnnBackendGetAttribute (engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &index);
  g_string_append_printf (s, "%" G_GINT64_FORMAT, (gint64) index);
  print_knobs (s, m, config);
  return g_string_free (s, FALSE);
}

/* ---- plans ---- */

#define ALIGN(n) (((n) + 255) & ~(gsize) 255)

void
cuda_dnn_plan_free (CudaDnnPlan *plan)
{
  if (plan)
    {
      if (plan->pack)
        cudnnBackendDestroyDescriptor (plan->pack);
      if (plan->plan)
        cudnnBackendDestroyDescriptor (plan->plan);
      g_free (plan->text);
      g_free (plan);
    }
}

const char *
cuda_dnn_plan_text (const CudaDnnPlan *plan)
{
  return plan->text;
}

gsize
cuda_dnn_workspace (const CudaDnnPlan *plan)
{
  return plan->total;
}

static gsize
own_workspace (Descriptor plan)
{
  int64_t bytes = 0, n = 0;
  cudnnBackendGetAttribute (plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &bytes);
  return (gsize) MAX (bytes, 0);
}

/* The sums that a kernel adds to with atomics start at zero; from 9.6 on cuDNN sees to it itself. */
static CudaDnnPlan *
plan_new (Descriptor descriptor, const CudaDnnGraph *graph, const char *text)
{
  CudaDnnPlan *plan = g_new0 (CudaDnnPlan, 1);
  plan->plan = descriptor;
  plan->text = g_strdup (text);
  for (gint32 i = 0; i < graph->n_tensors; i++)
    if (graph->tensor[i].kind != DNN_TENSOR_VIRTUAL)
      {
        const DnnTensor *t = &graph->tensor[i];
        DnnBinding *b = &plan->binding[plan->n++];
        *b = (DnnBinding) { t->uid, t->kind, plan->scratch, t->value, t->kind == DNN_TENSOR_SCRATCH && cuda_dnn_version () < 90600, dnn_tensor_bytes (t) };
        plan->scratch += t->kind == DNN_TENSOR_SCRATCH ? ALIGN (b->bytes) : 0;
      }
  plan->total = plan->scratch + ALIGN (own_workspace (descriptor));
  return plan;
}

/* An EXECUTION_PLAN for CONFIG, or one read from JSON.  Not finished. */
static Descriptor
plan_descriptor (CudaDnn *dnn, DnnMaker *m)
{
  Descriptor d = dnn_make (m, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (dnn->handle)
    dnn_set (m, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn->handle);
#if CUDNN_VERSION >= 90800
  else
    dnn_set_link (m, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, dnn->properties);
#endif
  return d;
}

/* What went wrong with the candidates: how many for each reason. */
static void
complain (GHashTable *complaints, const char *why)
{
  g_autofree char *key = g_strndup (why, 300);
  guint n = GPOINTER_TO_UINT (g_hash_table_lookup (complaints, key));
  g_hash_table_insert (complaints, g_steal_pointer (&key), GUINT_TO_POINTER (n + 1));
}

/* A finished plan for CONFIG if the flags allow its engine and its workspace, or NULL with a complaint. */
static CudaDnnPlan *
try_config (CudaDnn *dnn, const CudaDnnGraph *graph, Descriptor config, GHashTable *complaints)
{
  g_auto (DnnMaker) m;
  dnn_maker_init (&m);
  Descriptor engine = engine_of (&m, config);
  const char *why = m.reason ? m.reason : refused (dnn, graph, notes_of (engine));
  CudaDnnPlan *plan = NULL;
  if (why)
    complain (complaints, why);
  else
    {
      Descriptor d = plan_descriptor (dnn, &m);
      dnn_set_link (&m, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
      if (!dnn_finish (&m, d))
        complain (complaints, m.reason);
      else if (own_workspace (d) > (gsize) MAX (dnn->flags.workspace_limit, 1) << 20)
        complain (complaints, "workspace above workspace_limit");
      else
        {
          g_autofree char *text = config_text (&m, config, engine);
          plan = plan_new (dnn_take (&m, d), graph, text);
        }
    }
  return plan;
}

/* ---- choice ---- */

/* The configurations that MODE proposes, best first.  Owned by M. */
static void
propose (CudaDnn *dnn, DnnMaker *m, Descriptor graph, cudnnBackendHeurMode_t mode, GPtrArray *configs, GHashTable *complaints)
{
  char text[512];
  Descriptor h = dnn_make (m, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  int64_t n = 0, got = 0;
  dnn_set_link (m, h, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  dnn_set (m, h, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
#if CUDNN_VERSION >= 90800
  dnn_set_link (m, h, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, dnn->properties);
#endif
  if (dnn_finish (m, h) && cudnnBackendGetAttribute (h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL) == CUDNN_STATUS_SUCCESS && n > 0)
    {
      g_autofree Descriptor *config = g_new0 (Descriptor, n);
      for (int64_t i = 0; i < n; i++)
        config[i] = dnn_make (m, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      cudnnBackendGetAttribute (h, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &got, config);
      for (int64_t i = 0; i < MIN (n, got); i++)
        g_ptr_array_add (configs, config[i]);
    }
  if (m->reason || configs->len == 0)
    complain (complaints, m->reason ? m->reason : dnn_status_text (CUDNN_STATUS_NOT_SUPPORTED, text, sizeof text));
}

/* Up to WANTED plans from the proposals of heuristics, then of the fallback list. */
static void
collect (CudaDnn *dnn, const CudaDnnGraph *graph, Descriptor lowered, guint wanted, GPtrArray *plans, GHashTable *complaints)
{
  static const cudnnBackendHeurMode_t modes[] = { CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK };
  for (guint k = 0; k < G_N_ELEMENTS (modes) && plans->len == 0; k++)
    {
      g_auto (DnnMaker) m;
      g_autoptr (GPtrArray) configs = g_ptr_array_new ();
      dnn_maker_init (&m);
      propose (dnn, &m, lowered, modes[k], configs, complaints);
      for (guint i = 0; i < configs->len && plans->len < wanted; i++)
        {
          CudaDnnPlan *plan = try_config (dnn, graph, configs->pdata[i], complaints);
          if (plan)
            g_ptr_array_add (plans, plan);
        }
    }
}

/* Whether this shape's candidates are to be timed: a device, the flag, and some budget left. */
static gboolean
timing (CudaDnn *dnn)
{
  return dnn->flags.cudnn_benchmark && dnn->handle && dnn->timed < dnn->flags.benchmark_shapes;
}

static CudaDnnPlan *
choose (CudaDnn *dnn, const CudaDnnGraph *graph, GPtrArray *plans, GError **error)
{
  gint best = 0;
  double us = 0;
  const char *how = "heuristic";
  if (timing (dnn) && plans->len > 0)
    {
      dnn->timed++;
      best = dnn_fastest (dnn, graph, (CudaDnnPlan *const *) plans->pdata, plans->len, &us, error);
      how = us > 0 ? "timed" : "heuristic";
    }
  CudaDnnPlan *plan = best >= 0 && plans->len ? plans->pdata[best] : NULL;
  if (plan)
    {
      g_autofree char *text = us > 0 ? g_strdup_printf ("%s, %s: %.1f us, best of %u", plan->text, how, us, plans->len) : g_strdup_printf ("%s, %s", plan->text, how);
      plans->pdata[best] = NULL;
      g_free (plan->text);
      plan->text = g_steal_pointer (&text);
    }
  return plan;
}

static void
explain (CudaDnn *dnn, GHashTable *complaints)
{
  g_autoptr (GString) s = g_string_new (NULL);
  g_autoptr (GList) keys = g_list_sort (g_hash_table_get_keys (complaints), (GCompareFunc) strcmp);
  for (GList *k = keys; k; k = k->next)
    g_string_append_printf (s, "%s%u: %s", s->len ? "; " : "", GPOINTER_TO_UINT (g_hash_table_lookup (complaints, k->data)), (char *) k->data);
  set_reason (dnn, "no engine (%s)", s->str);
}

static void
free_plans (gpointer plans)
{
  for (guint i = 0; i < ((GPtrArray *) plans)->len; i++)
    cuda_dnn_plan_free (((GPtrArray *) plans)->pdata[i]);
  g_ptr_array_unref (plans);
}

static CudaDnnPlan *
search (CudaDnn *dnn, const CudaDnnGraph *graph, GError **error)
{
  g_auto (DnnMaker) m;
  g_autoptr (GHashTable) complaints = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  GPtrArray *plans = g_ptr_array_new ();
  CudaDnnPlan *plan = NULL;
  dnn_maker_init (&m);
  Descriptor lowered = dnn_lower (&m, dnn->handle, graph);
  guint wanted = !timing (dnn) ? 1 : dnn->flags.benchmark_limit > 0 ? (guint) dnn->flags.benchmark_limit : G_MAXUINT;
  if (lowered)
    {
      collect (dnn, graph, lowered, wanted, plans, complaints);
      plan = choose (dnn, graph, plans, error);
      if (!plan)
        explain (dnn, complaints);
    }
  else
    set_reason (dnn, "%s", m.reason);
  free_plans (plans);
  return plan;
}

/* ---- the cache: finished plans, kernels and all, as cuDNN itself writes them ---- */

#define KIND "cudnn-plans"
#define DESCRIBED 2      /* grows when dnn-descriptors.c tells cuDNN something else of the same graph */

/* All that decides about a plan.  A timed choice is kept apart from the heuristics'. */
static char *
cache_text (CudaDnn *dnn, const CudaDnnGraph *graph, gboolean timed)
{
  g_autofree char *text = dnn_graph_print (graph);
  const HeddleFlags *f = &dnn->flags;
  gboolean tf32 = graph->products == DNN_PRODUCTS_CONV ? f->tf32_conv : graph->products == DNN_PRODUCTS_MATMUL && f->tf32_matmul;
  return g_strdup_printf ("cudnn %d described %d\ndevice %s\ntf32 %d deterministic %d winograd %d workspace %" G_GINT64_FORMAT " MiB timed %" G_GINT64_FORMAT "\n%s", cuda_dnn_version (), DESCRIBED, dnn->device,
                          tf32, f->deterministic, f->winograd, f->workspace_limit, timed ? f->benchmark_limit : -1, text);
}

static char *
cache_key (const char *text)
{
  return cuda_cache_key ((const char *const[]) { text, NULL });
}

/* What is kept is three texts, each with its NUL: what it is for, the plan's text, cuDNN's JSON.  A file that speaks of another plan counts as none. */
static CudaDnnPlan *
from_cache (CudaDnn *dnn, const CudaDnnGraph *graph, const char *text)
{
  g_auto (DnnMaker) m;
  g_autofree char *key = cache_key (text);
  g_autoptr (GBytes) bytes = cuda_cache_read (KIND, key);
  gsize n = 0, head = strlen (text) + 1;
  const char *data = bytes ? g_bytes_get_data (bytes, &n) : NULL;
  CudaDnnPlan *plan = NULL;
  dnn_maker_init (&m);
  if (n > head && data[n - 1] == 0 && memcmp (data, text, head) == 0 && head + strlen (data + head) + 1 < n)
    {
      const char *json = data + head + strlen (data + head) + 1;
      Descriptor d = plan_descriptor (dnn, &m);
      dnn_set (&m, d, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t) strlen (json), json);
      if (dnn_finish (&m, d))
        plan = plan_new (dnn_take (&m, d), graph, data + head);
    }
  return plan;
}

static void
to_cache (const CudaDnnPlan *plan, const char *text)
{
  int64_t n = 0;
  if (cudnnBackendGetAttribute (plan->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &n, NULL) == CUDNN_STATUS_SUCCESS && n > 0)
    {
      g_autofree char *key = cache_key (text), *json = g_malloc0 ((gsize) n + 1);
      if (cudnnBackendGetAttribute (plan->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, n, &n, json) == CUDNN_STATUS_SUCCESS)
        {
          g_autoptr (GString) all = g_string_new (text);
          g_string_append_c (all, 0);
          g_string_append_printf (all, "%s, cached", plan->text);
          g_string_append_c (all, 0);
          g_string_append_len (all, json, (gssize) strlen (json) + 1);
          g_autoptr (GBytes) bytes = g_bytes_new (all->str, all->len);
          cuda_cache_write (KIND, key, bytes);
        }
    }
}

CudaDnnPlan *
cuda_dnn_build (CudaDnn *dnn, CudaDnnGraph *graph, GError **error)
{
  g_autofree CudaDnnGraph *g = graph;
  CudaDnnPlan *plan = NULL;
  if (!g)
    set_reason (dnn, "cannot be expressed");
  else if (cuda_dnn_version () < g->floor)
    set_reason (dnn, "needs cuDNN %d.%d.%d; this is %d.%d.%d", g->floor / 10000, g->floor / 100 % 100, g->floor % 100, cuda_dnn_version () / 10000, cuda_dnn_version () / 100 % 100,
                cuda_dnn_version () % 100);
  else if (cuda_dnn_version () >= g->broken && cuda_dnn_version () < g->mended)
    set_reason (dnn, "not right before cuDNN %d.%d.%d", g->mended / 10000, g->mended / 100 % 100, g->mended % 100);
  else
    {
      /* what was timed once is taken whatever is left of the budget */
      gboolean timed = dnn->flags.cudnn_benchmark && dnn->handle;
      g_autofree char *best = cache_text (dnn, g, TRUE), *first = cache_text (dnn, g, FALSE);
      plan = timed ? from_cache (dnn, g, best) : NULL;
      timed = timed && timing (dnn);
      if (!plan && !timed)
        plan = from_cache (dnn, g, first);
      if (!plan && (plan = search (dnn, g, error)))
        to_cache (plan, timed ? best : first);
    }
  dnn->built += plan != NULL;
  return plan;
}

/* ---- running ---- */

static gpointer
address (const DnnBinding *b, const gpointer *pointers, gpointer workspace)
{
  return b->kind == DNN_TENSOR_CONSTANT ? (gpointer) &b->value : b->kind == DNN_TENSOR_SCRATCH ? (char *) workspace + b->offset : pointers[b->uid];
}

/* The pack of addresses is made anew only when an address changed: a step that runs again creates nothing. */
static gboolean
bind (CudaDnnPlan *plan, const gpointer *pointers, gpointer workspace, GError **error)
{
  gboolean same = plan->pack && plan->workspace == workspace, ok = TRUE;
  int64_t uid[DNN_MAX_TENSORS];
  for (gint32 i = 0; i < plan->n; i++)
    {
      gpointer now = address (&plan->binding[i], pointers, workspace);
      same = same && plan->address[i] == now;
      plan->address[i] = now;
      uid[i] = plan->binding[i].uid;
    }
  if (!same)
    {
      g_auto (DnnMaker) m;
      gpointer own = (char *) workspace + plan->scratch;
      dnn_maker_init (&m);
      Descriptor d = dnn_make (&m, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
      dnn_set (&m, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, plan->n, plan->address);
      dnn_set (&m, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, plan->n, uid);
      dnn_set (&m, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &own);
      ok = dnn_finish (&m, d);
      if (plan->pack)
        cudnnBackendDestroyDescriptor (plan->pack);
      plan->pack = ok ? dnn_take (&m, d) : NULL;
      plan->workspace = workspace;
      if (!ok)
        g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: the addresses are refused: %s", plan->text, m.reason);
    }
  return ok;
}

static gboolean
clear_sums (const CudaDnnPlan *plan, gpointer stream, gpointer workspace, GError **error)
{
  cudaError_t status = cudaSuccess;
  for (gint32 i = 0; i < plan->n && status == cudaSuccess; i++)
    if (plan->binding[i].cleared)
      status = cudaMemsetAsync ((char *) workspace + plan->binding[i].offset, 0, plan->binding[i].bytes, stream);
  if (status != cudaSuccess)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s: cudaMemsetAsync: %s", plan->text, cudaGetErrorString (status));
  return status == cudaSuccess;
}

gboolean
cuda_dnn_run (CudaDnn *dnn, CudaDnnPlan *plan, gpointer stream, const gpointer pointers[CUDA_DNN_N_UIDS], gpointer workspace, GError **error)
{
  gboolean ok = bind (plan, pointers, workspace, error) && clear_sums (plan, stream, workspace, error);
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (ok && dnn->stream != stream)
    {
      status = cudnnSetStream (dnn->handle, stream);
      dnn->stream = status == CUDNN_STATUS_SUCCESS ? stream : NULL;
    }
  if (ok && status == CUDNN_STATUS_SUCCESS)
    status = cudnnBackendExecute (dnn->handle, plan->plan, plan->pack);
  if (ok && status != CUDNN_STATUS_SUCCESS)
    ok = fail (error, status, "cudnnBackendExecute", plan->text);
  return ok;
}
