/* cuda/blas-product.c: one matrix product through cuBLASLt: descriptors, the choice of an algorithm, a run.  Must not know operations or steps. */
#include "blas-product.h"
#include "timing.h"
#include "base/memory.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

#define WORKSPACE ((gsize) 32 << 20)      /* most that an algorithm may take: what NVIDIA recommends for Hopper */
#define CANDIDATES 32
#define RELUS      4                        /* of them, where they are not timed, to find one whose relu is ours */

typedef struct { cublasLtMatmulAlgo_t algo; gsize workspace; gboolean found; char text[96]; } Choice;
typedef struct { cublasLtHandle_t handle; GHashTable *choices; guint timed; } Blas;

struct _BlasProduct { cublasLtMatmulDesc_t desc; cublasLtMatrixLayout_t a, b, d; Choice choice; BlasShape shape; };
typedef BlasProduct Product;
typedef BlasShape   Shape;

static gboolean
blas_check (cublasStatus_t status, const char *call, const HeddleOp *op, GError **error)
{
  return status == CUBLAS_STATUS_SUCCESS || cuda_fail (call, (int) status, cublasLtGetStatusName (status), cublasLtGetStatusString (status), op, error);
}
#define LT(call, op, error) blas_check ((call), #call, (op), (error))

static void
blas_free (gpointer data)
{
  Blas *blas = data;
  if (blas->handle)
    cublasLtDestroy (blas->handle);
  g_hash_table_unref (blas->choices);
  g_free (blas);
}

static guint
shape_hash (gconstpointer key)
{
  const guint32 *words = key;
  guint hash = 5381;
  for (gsize i = 0; i < sizeof (Shape) / 4; i++)
    hash = hash * 33 ^ words[i];
  return hash;
}

static gboolean shape_equal (gconstpointer a, gconstpointer b) { return memcmp (a, b, sizeof (Shape)) == 0; }

static Blas *
context (CudaDevice *device, GError **error)
{
  if (!device->blas)
    {
      Blas *blas = g_new0 (Blas, 1);
      blas->choices = g_hash_table_new_full (shape_hash, shape_equal, g_free, g_free);
      if (LT (cublasLtCreate (&blas->handle), NULL, error))
        {
          device->blas = blas;
          device->blas_free = blas_free;
        }
      else
        blas_free (blas);
    }
  return device->blas;
}

/* ---- descriptors ---- */

static cudaDataType_t
type_of (gint32 dtype)
{
  return dtype == HEDDLE_F16 ? CUDA_R_16F : dtype == HEDDLE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

void
blas_product_free (gpointer data)
{
  Product *p = data;
  if (p && p->a)
    cublasLtMatrixLayoutDestroy (p->a);
  if (p && p->b)
    cublasLtMatrixLayoutDestroy (p->b);
  if (p && p->d)
    cublasLtMatrixLayoutDestroy (p->d);
  if (p && p->desc)
    cublasLtMatmulDescDestroy (p->desc);
  g_free (p);
}

static gboolean
make_layout (cublasLtMatrixLayout_t *layout, const Shape *s, gint32 dtype, gint64 rows, gint64 columns, gint64 ld, gint64 stride, const HeddleOp *op, GError **error)
{
  gint32 batch = (gint32) s->batch;
  return LT (cublasLtMatrixLayoutCreate (layout, type_of (dtype), (guint64) rows, (guint64) columns, ld), op, error)
         && LT (cublasLtMatrixLayoutSetAttribute (*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch), op, error)
         && LT (cublasLtMatrixLayoutSetAttribute (*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride), op, error);
}

static gboolean
set_desc (Product *p, cublasLtMatmulDescAttributes_t what, gconstpointer value, gsize size, const HeddleOp *op, GError **error)
{
  return LT (cublasLtMatmulDescSetAttribute (p->desc, what, value, size), op, error);
}

gboolean
blas_has_signs (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_RELU_AUX || s->epilogue == CUBLASLT_EPILOGUE_RELU_AUX_BIAS || s->epilogue == CUBLASLT_EPILOGUE_DRELU;
}

static gboolean
has_aux (const Shape *s)
{
  return blas_has_signs (s) || s->epilogue == CUBLASLT_EPILOGUE_GELU_AUX || s->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || s->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

gboolean
blas_is_slope (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_DRELU || s->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

/* It makes 0 of what is not positive. */
static gboolean
is_relu (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_RELU || s->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS || (blas_has_signs (s) && !blas_is_slope (s));
}

/* Of the auxiliary matrix: numbers of D's type, or bits */
static gint64
aux_pitch (const Shape *s)
{
  HeddleShape column = heddle_shape (s->m);
  return blas_has_signs (s) ? cuda_pitch (&column, CUDA_SIGNS) : s->ldd;
}

static gsize
aux_bytes (const Shape *s)
{
  gsize n = (gsize) (s->n * aux_pitch (s));
  return blas_has_signs (s) ? n / 8 : n * heddle_dtype_size ((HeddleDtype) s->out);
}

/* What an epilogue needs besides its pointers; those are set at each run. */
static gboolean
set_epilogue (Product *p, const HeddleOp *op, GError **error)
{
  const Shape *s = &p->shape;
  guint32 epilogue = (guint32) s->epilogue;
  gint32 bias = type_of (s->bias);
  gint64 ld = aux_pitch (s);
  gboolean ok = set_desc (p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, op, error);
  if (ok && s->bias)
    ok = set_desc (p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias, sizeof bias, op, error);
  if (ok && has_aux (s))
    ok = set_desc (p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld, sizeof ld, op, error);
  return ok;
}

static Product *
product_new (const Shape *s, const HeddleOp *op, GError **error)
{
  Product *p = g_new0 (Product, 1);
  cublasComputeType_t compute = s->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  gint32 ta = s->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, tb = s->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  p->shape = *s;
  gboolean ok = LT (cublasLtMatmulDescCreate (&p->desc, compute, CUDA_R_32F), op, error) && set_desc (p, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta, op, error)
                && set_desc (p, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb, op, error) && set_epilogue (p, op, error)
                && make_layout (&p->a, s, s->in, s->transpose_a ? s->k : s->m, s->transpose_a ? s->m : s->k, s->lda, s->stride_a, op, error)
                && make_layout (&p->b, s, s->in, s->transpose_b ? s->n : s->k, s->transpose_b ? s->k : s->n, s->ldb, s->stride_b, op, error)
                && make_layout (&p->d, s, s->out, s->m, s->n, s->ldd, s->stride_d, op, error);
  if (!ok)
    g_clear_pointer (&p, blas_product_free);
  return p;
}

static gboolean
set_pointers (Product *p, gpointer bias, gpointer aux, const HeddleOp *op, GError **error)
{
  return (!bias || set_desc (p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias, op, error))
         && (!aux || set_desc (p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &aux, sizeof aux, op, error));
}

/* While an algorithm is chosen there is no memory yet: addresses that nobody reads, aligned as the real ones are, since the library may look at that. */
#define UNREAD(wanted) ((wanted) ? GSIZE_TO_POINTER (HEDDLE_FLAT_ALIGN * 2) : NULL)

/* ---- the choice of an algorithm ---- */

static gboolean
prefer (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t what, gconstpointer value, gsize size, const HeddleOp *op, GError **error)
{
  return LT (cublasLtMatmulPreferenceSetAttribute (preference, what, value, size), op, error);
}

/* Those of N candidates that the library vouches for come first.  How many they are. */
static int
keep_sound (cublasLtMatmulHeuristicResult_t *results, int n)
{
  int kept = 0;
  for (int i = 0; i < n; i++)
    if (results[i].state == CUBLAS_STATUS_SUCCESS)
      results[kept++] = results[i];
  return kept;
}

/* How many candidates the library has, best guess first.  Partial sums of a product that is split along K are f32 too: nothing is summed in 16 bits. */
static gboolean
candidates (CudaDevice *device, Blas *blas, Product *p, cublasLtMatmulHeuristicResult_t *results, int wanted, int *n, const HeddleOp *op, GError **error)
{
  cublasLtMatmulPreference_t preference = NULL;
  const Shape *s = &p->shape;
  gsize workspace = MIN (WORKSPACE, (gsize) device->flags.workspace_limit << 20);
  guint32 a = (guint32) s->align_a, b = (guint32) s->align_b, d = (guint32) s->align_d, sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  gboolean ok = LT (cublasLtMatmulPreferenceCreate (&preference), op, error) && prefer (preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace, op, error)
                && prefer (preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, 4, op, error) && set_pointers (p, UNREAD (s->bias), UNREAD (has_aux (s)), op, error)
                && prefer (preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, 4, op, error) && prefer (preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, 4, op, error)
                && prefer (preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &d, 4, op, error) && prefer (preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d, 4, op, error);
  *n = 0;
  if (ok)
    {
      cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic (blas->handle, p->desc, p->a, p->b, p->d, p->d, preference, wanted, results, n);
      if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)      /* no algorithm, or not for such sizes: the caller has another way */
        *n = 0;
      else
        ok = LT (status, op, error);
      *n = keep_sound (results, *n);
      if (ok && *n == 0)
        g_debug ("%s \"%s\": cuBLASLt: %s", op->info->name, op->name, status ? cublasLtGetStatusString (status) : "no algorithm");
    }
  if (preference)
    cublasLtMatmulPreferenceDestroy (preference);
  return ok;
}

/* Device memory to try candidates in; as much as one product touches. */
typedef struct { char *a, *b, *d, *bias, *aux, *workspace; gsize a_bytes; cudaEvent_t from, to; } Bench;

static gboolean
bench_init (Bench *bench, CudaDevice *device, const Shape *s, GError **error)
{
  gsize in = heddle_dtype_size ((HeddleDtype) s->in), out = heddle_dtype_size ((HeddleDtype) s->out), batch = (gsize) s->batch;
  gsize bytes[] = { batch * (gsize) ((s->transpose_a ? s->m : s->k) * s->lda) * in, batch * (gsize) ((s->transpose_b ? s->k : s->n) * s->ldb) * in, batch * (gsize) (s->n * s->ldd) * out,
                    s->bias ? (gsize) MAX (s->m, s->n) * 4 : 4, has_aux (s) ? aux_bytes (s) : 4, WORKSPACE };
  char **memory[] = { &bench->a, &bench->b, &bench->d, &bench->bias, &bench->aux, &bench->workspace };
  bench->a_bytes = bytes[0];
  gboolean ok = CUDA (cudaEventCreate (&bench->from), NULL, error) && CUDA (cudaEventCreate (&bench->to), NULL, error);
  for (guint i = 0; ok && i < G_N_ELEMENTS (memory); i++)
    {
      *memory[i] = cuda_malloc (device, bytes[i], "trying matrix products", error);
      ok = *memory[i] && CUDA (cudaMemsetAsync (*memory[i], 0, bytes[i], device->compute), NULL, error);
    }
  return ok;
}

static void
bench_clear (Bench *bench)
{
  gpointer memory[] = { bench->a, bench->b, bench->d, bench->bias, bench->aux, bench->workspace };
  for (guint i = 0; i < G_N_ELEMENTS (memory); i++)
    cudaFree (memory[i]);
  if (bench->from)
    cudaEventDestroy (bench->from);
  if (bench->to)
    cudaEventDestroy (bench->to);
}

typedef struct { CudaDevice *device; Blas *blas; Product *product; Bench *bench; const cublasLtMatmulHeuristicResult_t *result; } Candidate;

static gboolean
try_one (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  const float one = 1, zero = 0;
  return set_pointers (p, p->shape.bias ? bench->bias : NULL, has_aux (&p->shape) ? bench->aux : NULL, NULL, NULL)
         && cublasLtMatmul (blas->handle, p->desc, &one, bench->a, p->a, bench->b, p->b, &zero, bench->d, p->d, bench->d, p->d, &r->algo, bench->workspace, r->workspaceSize, device->compute)
            == CUBLAS_STATUS_SUCCESS;
}

/* The first BYTES at FROM after a product of an A that is nothing but bytes of value A */
static gboolean
probe (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r, int a, gconstpointer from, gpointer to, gsize bytes)
{
  gpointer first = cuda_staging (device, bytes, NULL);
  gboolean ok = first && cudaMemsetAsync (bench->a, a, bench->a_bytes, device->compute) == cudaSuccess && try_one (device, blas, p, bench, r)
                && cudaMemcpyAsync (first, from, bytes, cudaMemcpyDeviceToHost, device->compute) == cudaSuccess;
  ok = cudaStreamSynchronize (device->compute) == cudaSuccess && ok;
  if (ok)
    memcpy (to, first, bytes);
  cudaGetLastError ();
  return ok;
}

/* All bits set are NaN in every type. */
static gboolean
keeps_nan (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  HeddleDtype dtype = (HeddleDtype) p->shape.out;
  guint32 raw = 0;
  float number = 0;
  gboolean ok = probe (device, blas, p, bench, r, 0xff, bench->d, &raw, heddle_dtype_size (dtype));
  heddle_convert (HEDDLE_F32, &number, dtype, &raw, 1);
  return ok && isnan (number);
}

/* 0 is not positive. */
static gboolean
marks_no_zero (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  guint8 signs = 0;
  return cudaMemsetAsync (bench->aux, 0xff, aux_bytes (&p->shape), device->compute) == cudaSuccess && probe (device, blas, p, bench, r, 0, bench->aux, &signs, 1) && !(signs & 1);
}

/* Relu leaves NaN what it is (op table), or a training that has failed would go on unseen, and its gradient at 0 is 0; cuBLASLt does not say which of its kernels do so.  How many of N do; they come first. */
static int
keep_honest (CudaDevice *device, Blas *blas, Product *p, Bench *bench, cublasLtMatmulHeuristicResult_t *results, int n)
{
  int kept = 0;
  for (int i = 0; i < n; i++)
    if (keeps_nan (device, blas, p, bench, &results[i]) && (!blas_has_signs (&p->shape) || marks_no_zero (device, blas, p, bench, &results[i])))
      results[kept++] = results[i];
  return cudaMemsetAsync (bench->a, 0, bench->a_bytes, device->compute) == cudaSuccess ? kept : 0;
}

static gboolean
run_candidate (gpointer data)
{
  const Candidate *c = data;
  return try_one (c->device, c->blas, c->product, c->bench, c->result);
}

/* -1: none of them runs. */
static int
fastest (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *results, int n, double *us)
{
  int best = -1;
  for (int i = 0; i < n; i++)
    {
      Candidate c = { device, blas, p, bench, &results[i] };
      double t = cuda_timing_microseconds (&(CudaTiming) { device->compute, bench->from, bench->to, run_candidate, &c });
      if (t >= 0 && (best < 0 || t < *us))
        {
          best = i;
          *us = t;
        }
    }
  cudaGetLastError ();
  blas->timed++;
  return best;
}

/* Which of the *N candidates, of which fewer may be left; *US: 0 unless TIMED. */
static int
try_out (CudaDevice *device, Blas *blas, Product *p, gboolean timed, cublasLtMatmulHeuristicResult_t *results, int *n, double *us)
{
  g_autoptr (GError) short_of_memory = NULL;
  Bench bench = { 0 };
  int best = 0, asked = *n;
  gboolean ok = bench_init (&bench, device, &p->shape, &short_of_memory);
  if (!ok)
    g_debug ("matrix products are not tried: %s", short_of_memory->message);
  if (is_relu (&p->shape))
    *n = ok ? keep_honest (device, blas, p, &bench, results, *n) : 0;
  if (ok && timed && *n > 1)
    best = fastest (device, blas, p, &bench, results, *n, us);
  if (best < 0)
    best = *n = 0;
  if (*n < asked)
    g_debug ("cuBLASLt: relu is ours in %d of %d algorithms: it keeps NaN and is flat at 0", *n, asked);
  bench_clear (&bench);
  return best;
}

/* BEST of N candidates, in the library's own numbers (cublasLtMatmulTile_t, cublasLtMatmulStages_t); US: its time, or 0 */
static void
take_choice (Choice *choice, const cublasLtMatmulHeuristicResult_t *results, int best, int n, double us)
{
  static const struct { cublasLtMatmulAlgoConfigAttributes_t what; const char *name; } parts[] = { { CUBLASLT_ALGO_CONFIG_ID, "algorithm" }, { CUBLASLT_ALGO_CONFIG_TILE_ID, "tile" },
                                                                                                 { CUBLASLT_ALGO_CONFIG_STAGES_ID, "stages" }, { CUBLASLT_ALGO_CONFIG_SPLITK_NUM, "split" } };
  g_autoptr (GString) text = g_string_new (NULL);
  *choice = (Choice) { .algo = results[best].algo, .workspace = results[best].workspaceSize, .found = TRUE };
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    {
      gint32 number = 0;
      gsize written = 0;
      if (cublasLtMatmulAlgoConfigGetAttribute (&choice->algo, parts[i].what, &number, sizeof number, &written) == CUBLAS_STATUS_SUCCESS)
        g_string_append_printf (text, "%s%s %d", i ? ", " : "", parts[i].name, number);
    }
  if (us > 0)
    g_string_append_printf (text, "; %d of %d, %.1f us", best + 1, n, us);
  g_strlcpy (choice->text, text->str, sizeof choice->text);
}

/* NULL with an error; a choice that is not FOUND: the library has no algorithm. */
static const Choice *
choose (CudaDevice *device, Blas *blas, Product *p, const HeddleOp *op, GError **error)
{
  const HeddleFlags *f = &device->flags;
  Choice *choice = g_hash_table_lookup (blas->choices, &p->shape);
  if (!choice)
    {
      cublasLtMatmulHeuristicResult_t results[CANDIDATES];
      gboolean timed = f->cudnn_benchmark && blas->timed < (guint) f->benchmark_shapes, relu = is_relu (&p->shape);
      int n = 0, best = 0, wanted = timed ? (f->benchmark_limit ? (int) MIN (f->benchmark_limit, CANDIDATES) : CANDIDATES) : relu ? RELUS : 1;
      double us = 0;
      gboolean ok = candidates (device, blas, p, results, wanted, &n, op, error);
      if (ok && ((timed && n > 1) || (relu && n > 0)))
        best = try_out (device, blas, p, timed, results, &n, &us);
      if (ok)
        {
          choice = g_new0 (Choice, 1);
          if (n > 0)
            take_choice (choice, results, best, n, us);
          g_hash_table_insert (blas->choices, heddle_memdup (&p->shape, sizeof p->shape), choice);
        }
    }
  return choice;
}

/* ---- a product that can run ---- */

/* cuBLASLt refuses an auxiliary matrix of numbers unless 16 bytes of 16 bits divide its columns; and a single row or column is known to fail (NVIDIA, nvmath-python: "K=1 is not supported"). */
static gboolean
is_possible (const Shape *s)
{
  gboolean sums = s->epilogue == CUBLASLT_EPILOGUE_BGRADB;
  return (!has_aux (s) || blas_has_signs (s) || s->ldd % 8 == 0) && !(blas_is_slope (s) && s->k == 1) && !(sums && (s->n == 1 || (s->k == 1 && cublasLtGetVersion () < 120304)));
}

BlasProduct *
blas_product (CudaDevice *device, const BlasShape *shape, const HeddleOp *op, GError **error)
{
  Blas *blas = is_possible (shape) ? context (device, error) : NULL;
  Product *p = blas ? product_new (shape, op, error) : NULL;
  const Choice *choice = p ? choose (device, blas, p, op, error) : NULL;
  if (choice && choice->found)
    p->choice = *choice;
  else
    g_clear_pointer (&p, blas_product_free);
  return p;
}

const char *
blas_product_text (const BlasProduct *p)
{
  return p->choice.text;
}

gsize
blas_product_workspace (const BlasProduct *p)
{
  return p->choice.workspace;
}

gboolean
blas_product_run (BlasProduct *p, CudaQueue *queue, gconstpointer a, gconstpointer b, gpointer d, gpointer bias, gpointer aux, gpointer workspace, const HeddleOp *op, GError **error)
{
  const float one = 1, zero = 0;
  const Blas *blas = queue->device->blas;
  return set_pointers (p, bias, aux, op, error)
         && LT (cublasLtMatmul (blas->handle, p->desc, &one, a, p->a, b, p->b, &zero, d, p->d, d, p->d, &p->choice.algo, workspace, p->choice.workspace, queue->stream), op, error);
}
