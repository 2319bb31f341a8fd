/* cuda/blas.c: matrix products through cuBLASLt: descriptors, the choice of an algorithm, epilogues.  Must not know how steps are placed or run.
 * Everything is column-major here, as the library is: a row-major matrix (R, C) is its transpose (C, R). */
#include "blas.h"
#include "base/memory.h"
#include "tensor/tensors.h"

#include <cublasLt.h>
#include <math.h>
#include <string.h>

#define WORKSPACE ((gsize) 32 << 20)      /* most that an algorithm may take: what NVIDIA recommends for Hopper */
#define CANDIDATES 32
#define RELUS      4                        /* of them, where they are not timed, to find one whose relu keeps NaN */

/* D (m, n) = epilogue (op (A) (m, k) op (B) (k, n)); plain bytes, as it is the key under which the algorithm is kept. */
typedef struct
{
  gint64 m, n, k, batch, lda, ldb, ldd, stride_a, stride_b, stride_d;
  gint32 transpose_a, transpose_b, in, out, bias, epilogue;
  gint32 align_a, align_b, align_d, tf32;
} Shape;

typedef struct { cublasLtMatmulAlgo_t algo; gsize workspace; gboolean found; char text[96]; } Choice;
typedef struct { cublasLtHandle_t handle; GHashTable *choices; guint timed; } Blas;

/* Of one step */
typedef struct { cublasLtMatmulDesc_t desc; cublasLtMatrixLayout_t a, b, d; cublasLtMatmulAlgo_t algo; gsize workspace; Shape shape; } Product;

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

static void
product_free (gpointer data)
{
  Product *p = data;
  if (p->a)
    cublasLtMatrixLayoutDestroy (p->a);
  if (p->b)
    cublasLtMatrixLayoutDestroy (p->b);
  if (p->d)
    cublasLtMatrixLayoutDestroy (p->d);
  if (p->desc)
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

static gboolean
has_signs (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_RELU_AUX || s->epilogue == CUBLASLT_EPILOGUE_RELU_AUX_BIAS || s->epilogue == CUBLASLT_EPILOGUE_DRELU;
}

static gboolean
has_aux (const Shape *s)
{
  return has_signs (s) || s->epilogue == CUBLASLT_EPILOGUE_GELU_AUX || s->epilogue == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || s->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

/* It is applied to a gradient: what it is taken at comes in. */
static gboolean
is_slope (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_DRELU || s->epilogue == CUBLASLT_EPILOGUE_DGELU;
}

/* It makes 0 of what is not positive. */
static gboolean
is_relu (const Shape *s)
{
  return s->epilogue == CUBLASLT_EPILOGUE_RELU || s->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS || (has_signs (s) && !is_slope (s));
}

/* Of the auxiliary matrix: numbers of D's type, or bits */
static gint64
aux_pitch (const Shape *s)
{
  HeddleShape column = heddle_shape (s->m);
  return has_signs (s) ? cuda_pitch (&column, CUDA_SIGNS) : s->ldd;
}

static gsize
aux_bytes (const Shape *s)
{
  gsize n = (gsize) (s->n * aux_pitch (s));
  return has_signs (s) ? n / 8 : n * heddle_dtype_size ((HeddleDtype) s->out);
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
    g_clear_pointer (&p, product_free);
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

static gboolean
try_one (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  const float one = 1, zero = 0;
  return set_pointers (p, p->shape.bias ? bench->bias : NULL, has_aux (&p->shape) ? bench->aux : NULL, NULL, NULL)
         && cublasLtMatmul (blas->handle, p->desc, &one, bench->a, p->a, bench->b, p->b, &zero, bench->d, p->d, bench->d, p->d, &r->algo, bench->workspace, r->workspaceSize, device->compute)
            == CUBLAS_STATUS_SUCCESS;
}

/* D's first number, of an A that is nothing but NaN: all bits set, in every type. */
static gboolean
keeps_nan (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  HeddleDtype dtype = (HeddleDtype) p->shape.out;
  float number = 0;
  gpointer first = cuda_staging (device, sizeof (float), NULL);
  gboolean ok = first && try_one (device, blas, p, bench, r) && cudaMemcpyAsync (first, bench->d, heddle_dtype_size (dtype), cudaMemcpyDeviceToHost, device->compute) == cudaSuccess;
  ok = cudaStreamSynchronize (device->compute) == cudaSuccess && ok;
  if (ok)
    heddle_convert (HEDDLE_F32, &number, dtype, first, 1);
  cudaGetLastError ();
  return ok && isnan (number);
}

/* Relu leaves NaN what it is (op table), or a training that has failed would go on unseen; cuBLASLt does not say which of its kernels do.  How many of N do; they come first. */
static int
keep_honest (CudaDevice *device, Blas *blas, Product *p, Bench *bench, cublasLtMatmulHeuristicResult_t *results, int n)
{
  int kept = 0;
  gboolean ok = cudaMemsetAsync (bench->a, 0xff, bench->a_bytes, device->compute) == cudaSuccess;
  for (int i = 0; ok && i < n; i++)
    if (keeps_nan (device, blas, p, bench, &results[i]))
      results[kept++] = results[i];
  return cudaMemsetAsync (bench->a, 0, bench->a_bytes, device->compute) == cudaSuccess ? kept : 0;
}

/* Milliseconds of three runs after one that does not count; a candidate that fails takes forever. */
static float
time_one (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *r)
{
  float ms = G_MAXFLOAT;
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < 4; i++)
    {
      if (i == 1)
        cudaEventRecord (bench->from, device->compute);
      ok = try_one (device, blas, p, bench, r);
    }
  cudaEventRecord (bench->to, device->compute);
  if (cudaEventSynchronize (bench->to) != cudaSuccess || !ok || cudaEventElapsedTime (&ms, bench->from, bench->to) != cudaSuccess)
    ms = G_MAXFLOAT;
  cudaGetLastError ();
  return ms;
}

static int
fastest (CudaDevice *device, Blas *blas, Product *p, Bench *bench, const cublasLtMatmulHeuristicResult_t *results, int n, float *ms)
{
  int best = 0;
  for (int i = 0; i < n; i++)
    {
      float t = time_one (device, blas, p, bench, &results[i]);
      if (i == 0 || t < *ms)
        {
          best = i;
          *ms = t;
        }
    }
  blas->timed++;
  return best;
}

/* Which of the *N candidates, of which fewer may be left; *MS: 0 unless TIMED. */
static int
try_out (CudaDevice *device, Blas *blas, Product *p, gboolean timed, cublasLtMatmulHeuristicResult_t *results, int *n, float *ms)
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
    best = fastest (device, blas, p, &bench, results, *n, ms);
  if (*n < asked)
    g_debug ("cuBLASLt: relu of %d of %d algorithms keeps NaN", *n, asked);
  bench_clear (&bench);
  return best;
}

/* BEST of N candidates, in the library's own numbers (cublasLtMatmulTile_t, cublasLtMatmulStages_t); MS of its three runs, or 0 */
static void
take_choice (Choice *choice, const cublasLtMatmulHeuristicResult_t *results, int best, int n, float ms)
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
  if (ms > 0)
    g_string_append_printf (text, "; %d of %d, %.1f us", best + 1, n, (double) ms / 3 * 1000);
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
      float ms = 0;
      gboolean ok = candidates (device, blas, p, results, wanted, &n, op, error);
      if (ok && ((timed && n > 1) || (relu && n > 0)))
        best = try_out (device, blas, p, timed, results, &n, &ms);
      if (ok)
        {
          choice = g_new0 (Choice, 1);
          if (n > 0)
            take_choice (choice, results, best, n, ms);
          g_hash_table_insert (blas->choices, heddle_memdup (&p->shape, sizeof p->shape), choice);
        }
    }
  return choice;
}

/* ---- steps: in[0] A, in[1] B, then the bias or what the activation's gradient is taken at; out[0] D, out[1] what the epilogue leaves behind ---- */

static gboolean
run_product (CudaPlan *plan, CudaStep *step, CudaQueue *queue, GError **error)
{
  Product *p = step->data;
  const float one = 1, zero = 0;
  const Blas *blas = queue->device->blas;
  gpointer third = step->n_in > 2 ? IN (2) : NULL, second = step->n_out > 1 ? OUT (1) : NULL;
  gboolean slope = is_slope (&p->shape), sums = p->shape.epilogue == CUBLASLT_EPILOGUE_BGRADB;
  gpointer bias = sums ? second : slope ? NULL : third, aux = slope ? third : sums ? NULL : second;
  return set_pointers (p, bias, aux, step->op, error)
         && LT (cublasLtMatmul (blas->handle, p->desc, &one, IN (0), p->a, IN (1), p->b, &zero, OUT (0), p->d, OUT (0), p->d, &p->algo, p->workspace ? SCRATCH (0) : NULL, p->workspace, queue->stream), step->op, error);
}

/* The largest power of two that divides the address: memory of its own begins at 256, windows at multiples of 16 elements. */
static gint32
alignment (const CudaOperand *o)
{
  const HeddleVariable *v = o->where == CUDA_VARIABLE || o->where == CUDA_SHADOW ? o->variable : NULL;
  guint64 bytes = v && v->flat ? (guint64) v->offset * heddle_dtype_size (o->dtype) : 0;
  return bytes ? (gint32) MIN (bytes & -bytes, 256) : 256;
}

/* The value in rows, or padded if it was made so. */
static CudaOperand
operand (CudaCompiler *c, const HeddleValue *v, gboolean single)
{
  return cuda_form (c, v, v->dtype, single && cuda_made (c, v)->layout == CUDA_PADDED ? CUDA_PADDED : CUDA_ROWS);
}

/* What follows the last row of W are parameters or zeros (cuda_shadow_bytes): it can be multiplied with zeros. */
static gboolean
goes_on (const CudaOperand *w)
{
  return w->where == CUDA_SHADOW && w->shape.rank == 2;
}

/* Leading dimensions of what is padded.  Tensor cores load and store 16 bytes at a time, and the library asks that of sizes too: where nothing is lost by it a product covers the padding, makes
 * numbers there that nobody reads, multiplies zeros with what follows the weight, or leaves rows after a gradient's last.  Returns the bytes that D then takes beyond its own. */
static gsize
cover_padding (Shape *s, const CudaOperand *a, const CudaOperand *b, const CudaOperand *d)
{
  gint64 wide = cuda_pitch (&d->shape, d->layout), deep = cuda_pitch (&b->shape, b->layout), n = s->n;
  gboolean plain = s->epilogue == CUBLASLT_EPILOGUE_DEFAULT;
  if (d->layout == CUDA_PADDED)
    {
      s->ldd = wide;
      s->m = plain && s->transpose_a && goes_on (a) ? wide : s->m;
    }
  if (b->layout == CUDA_PADDED)
    {
      s->ldb = deep;
      s->k = !s->transpose_a && !s->transpose_b && goes_on (a) ? deep : s->k;
      s->n = plain && s->transpose_b && d->where == CUDA_ARENA ? deep : s->n;
    }
  return (gsize) ((s->n - n) * s->ldd) * heddle_dtype_size (d->dtype);
}

/* What is to be emitted: operands by value, and the epilogue.  Signs are a form of the value whose signs they are, D or THIRD. */
typedef struct
{
  const HeddleOp    *op, *last;        /* LAST: the operation that the epilogue computes, or OP */
  const HeddleValue *a, *b, *third, *d, *second;
  Shape              shape;
} Wish;

/* FALSE without an error: the library cannot. */
static gboolean
emit_one (CudaCompiler *c, const Wish *w, GError **error)
{
  Blas *blas = context (c->device, error);
  HeddleDtype in = w->a->dtype;
  Shape s = w->shape;
  gboolean ok = FALSE, signs = has_signs (&s), slope = is_slope (&s);
  if (blas)
    {
      if (w->last != w->op)
        c->forward[w->d->id] = NULL;      /* made before its turn: not in a variable that somebody in between may read */
      const HeddleVariable *target = c->forward[w->d->id];
      gboolean single = s.batch == 1;
      CudaOperand a = operand (c, w->a, FALSE), b = operand (c, w->b, single), third = { 0 };
      CudaOperand d = { .where = target ? CUDA_VARIABLE : CUDA_ARENA, .variable = (HeddleVariable *) target, .dtype = w->d->dtype, .shape = w->d->shape,
                        .layout = single && !target && w->last == w->op && cuda_pads_logits (c, w->d) ? CUDA_PADDED : CUDA_ROWS };
      gsize beyond = cover_padding (&s, &a, &b, &d);
      s.align_a = alignment (&a);
      s.align_b = alignment (&b);
      s.align_d = alignment (&d);
      s.in = (gint32) in;
      s.out = (gint32) w->d->dtype;
      s.tf32 = in == HEDDLE_F32 && c->device->flags.tf32_matmul && c->device->capability >= 80;
      Product *p = product_new (&s, w->op, error);
      const Choice *choice = p ? choose (c->device, blas, p, w->op, error) : NULL;
      ok = choice && choice->found;
      if (ok)
        {
          if (w->third)
            third = slope && signs ? *cuda_find_form (c, w->third, HEDDLE_U8, CUDA_SIGNS) : cuda_form (c, w->third, w->d->dtype, CUDA_ROWS);
          p->algo = choice->algo;
          p->workspace = choice->workspace;
          CudaStep *step = cuda_step_new (c, w->op, cuda_keep (c->plan, g_strdup_printf ("cublasLt%s%s %s", w->last != w->op ? "+" : "", w->last != w->op ? w->last->info->name : "", choice->text)), run_product);
          step->chosen = TRUE;
          cuda_step_data (step, p, product_free);
          cuda_step_in (step, a);
          cuda_step_in (step, b);
          if (w->third)
            cuda_step_in (step, third);
          if (p->workspace)
            cuda_step_scratch (c, step, p->workspace);
          cuda_step_out (c, step, w->d, w->d->dtype, d.layout, TRUE);
          if (beyond)
            g_array_index (c->plan->buffers, HeddleRegion, step->out[0].index).bytes += beyond;
          if (w->second)
            cuda_step_out (c, step, w->second, w->second->dtype, CUDA_ROWS, TRUE);
          else if (signs && !slope)
            cuda_step_form (c, step, w->d, HEDDLE_U8, CUDA_SIGNS);
          if (w->last != w->op)
            cuda_mark_done (c, w->last);
          c->device->primitives++;
        }
      else
        product_free (p);
    }
  return ok;
}

/* The first of them that the library can */
static gboolean
emit (CudaCompiler *c, const Wish *wishes, guint n, GError **error)
{
  GError *met = NULL;
  gboolean done = FALSE;
  for (guint i = 0; !done && !met && i < n; i++)
    done = emit_one (c, &wishes[i], &met);
  if (met)
    g_propagate_error (error, met);
  return done;
}

/* ---- operations ---- */

/* c (M, N) = a (M, K) b (K, N), row-major, is c^T = b^T a^T.  A matrix b that serves all of a makes one product of it where a's rows follow each other. */
static gboolean
lower_matmul (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleMatmulAttr *attr = op->attr;
  const HeddleShape *a = &op->in[0]->shape, *b = &op->in[1]->shape, *y = &op->out[0]->shape;
  gint64 rows = a->size[a->rank - 2], depth = b->size[b->rank - 2], m = y->size[y->rank - 2], n = cuda_last (y), k = attr->transpose_a ? rows : cuda_last (a);
  gint64 batch = heddle_shape_count (y) / MAX (m * n, 1);
  gboolean shared = b->rank == 2 && batch > 1;
  Shape s = { .m = n, .n = m, .k = k, .batch = batch, .lda = cuda_last (b), .ldb = cuda_last (a), .ldd = n, .stride_a = shared ? 0 : depth * cuda_last (b), .stride_b = rows * cuda_last (a), .stride_d = m * n,
              .transpose_a = attr->transpose_b, .transpose_b = attr->transpose_a, .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
  if (shared && !attr->transpose_a)
    {
      s.n = m * batch;
      s.batch = 1;
    }
  Wish w = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .shape = s };
  return emit (c, &w, 1, error);
}

/* The activation that can be computed along with a linear layer: relu of what nobody else reads, or gelu in its tanh form, whose argument is then kept for its gradient. */
static const HeddleOp *
activation_of (CudaCompiler *c, const HeddleValue *v)
{
  const HeddleOp *op = cuda_only_user (c, v);
  const GPtrArray *users = c->users[v->id];
  for (guint i = 0; !op && c->device->flags.fusion && users && i < users->len; i++)
    op = ((const HeddleOp *) users->pdata[i])->info->code == HEDDLE_OP_GELU ? users->pdata[i] : NULL;
  gboolean relu = op && op->info->code == HEDDLE_OP_RELU, gelu = op && op->info->code == HEDDLE_OP_GELU && ((const HeddleGeluAttr *) op->attr)->tanh_form;
  return (relu || gelu) && op->out[0]->dtype == v->dtype && !cuda_is_done (c, op) ? op : NULL;
}

/* Relu's gradient alone takes what LINEAR_GRAD_INPUT makes: a product that can have it as epilogue. */
static gboolean
is_relu_after (const CudaCompiler *c, const HeddleOp *product, const HeddleOp *slope)
{
  return product && product->info->code == HEDDLE_OP_LINEAR_GRAD_INPUT && slope && slope == cuda_only_user (c, product->out[0]) && slope->info->code == HEDDLE_OP_RELU_GRAD
         && slope->in[0] == product->out[0] && slope->out[0]->dtype == product->out[0]->dtype;
}

/* Such a gradient will be taken at what RELU makes: its signs are worth keeping. */
static gboolean
wants_signs (const CudaCompiler *c, const HeddleOp *relu)
{
  const HeddleValue *y = relu->out[0];
  const GPtrArray *users = c->users[y->id];
  gboolean wanted = FALSE;
  for (guint i = 0; relu->info->code == HEDDLE_OP_RELU && !wanted && users && i < users->len; i++)
    {
      const HeddleOp *slope = users->pdata[i];
      wanted = slope->n_in == 2 && slope->in[1] == y && slope->out[0]->dtype == y->dtype && is_relu_after (c, slope->in[0]->producer, slope);
    }
  return wanted;
}

static gint32
epilogue_of (const HeddleOp *activation, gboolean bias, gboolean keep)
{
  static const cublasLtEpilogue_t table[2][2][2] = { { { CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_RELU_BIAS }, { CUBLASLT_EPILOGUE_RELU_AUX, CUBLASLT_EPILOGUE_RELU_AUX_BIAS } },
                                                     { { CUBLASLT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU_BIAS }, { CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS } } };
  cublasLtEpilogue_t plain = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  return activation ? table[activation->info->code == HEDDLE_OP_GELU][keep][bias] : plain;
}

/* y (R, O) = x (R, I) w (O, I)^T + bias, with the activation that follows: at best it leaves behind what its gradient is taken at. */
static gboolean
lower_linear (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *x = &op->in[0]->shape;
  const HeddleValue *y = op->out[0], *bias = op->n_in > 2 ? op->in[2] : NULL;
  gint64 in = cuda_last (x), out = op->in[1]->shape.size[0];
  const HeddleOp *activation = activation_of (c, y);
  gboolean keep = activation && cuda_only_user (c, y) == NULL, signs = activation && wants_signs (c, activation);
  Shape s = { .m = out, .n = cuda_height (x), .k = in, .batch = 1, .lda = in, .ldb = in, .ldd = out, .transpose_a = TRUE, .bias = bias ? (gint32) y->dtype : 0 };
  s.epilogue = epilogue_of (NULL, bias != NULL, FALSE);
  Wish plain = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .third = bias, .d = y, .shape = s }, wishes[3];
  guint n = 0;
  for (gint kept = signs; activation && kept >= 0; kept--)
    {
      Wish *w = &wishes[n++];
      *w = plain;
      w->last = activation;
      w->d = activation->out[0];
      w->second = keep ? y : NULL;
      w->shape.epilogue = epilogue_of (activation, bias != NULL, keep || kept);
    }
  wishes[n++] = plain;
  return emit (c, wishes, n, error);
}

/* dx (R, I) = dy (R, O) w (O, I); with the gradient of the relu or tanh gelu that x came from, where that alone reads dx */
static gboolean
lower_grad_input (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *dy = &op->in[0]->shape;
  gint64 out = cuda_last (dy), in = cuda_last (&op->in[1]->shape);
  const HeddleOp *next = cuda_only_user (c, op->out[0]);
  gboolean gelu = next && next->info->code == HEDDLE_OP_GELU_GRAD && next->in[0] == op->out[0] && ((const HeddleGeluAttr *) next->attr)->tanh_form && next->out[0]->dtype == op->out[0]->dtype
                  && next->in[1]->dtype == op->out[0]->dtype && c->forms[next->in[1]->id];
  gboolean relu = is_relu_after (c, op, next) && cuda_find_form (c, next->in[1], HEDDLE_U8, CUDA_SIGNS);
  Shape s = { .m = in, .n = cuda_height (dy), .k = out, .batch = 1, .lda = in, .ldb = out, .ldd = in, .epilogue = CUBLASLT_EPILOGUE_DEFAULT };
  Wish plain = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .shape = s }, wishes[2];
  guint n = 0;
  if (gelu || relu)
    {
      Wish *w = &wishes[n++];
      *w = plain;
      w->last = next;
      w->third = next->in[1];
      w->d = next->out[0];
      w->shape.epilogue = gelu ? CUBLASLT_EPILOGUE_DGELU : CUBLASLT_EPILOGUE_DRELU;
    }
  wishes[n++] = plain;
  return emit (c, wishes, n, error);
}

/* dw (O, I) = dy (R, O)^T x (R, I), and the column sums of dy.  FALSE also where only the sums are wanted, or the library does not make them: own kernels do both. */
static gboolean
lower_grad_weight (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  const HeddleShape *dy = &op->in[0]->shape, *x = &op->in[1]->shape;
  gint64 out = cuda_last (dy), in = cuda_last (x);
  gboolean sums = op->n_out > 1 && c->wanted[op->out[1]->id];
  Shape s = { .m = in, .n = out, .k = cuda_height (dy), .batch = 1, .lda = in, .ldb = out, .ldd = in, .transpose_b = TRUE, .bias = sums ? (gint32) op->out[1]->dtype : 0,
              .epilogue = sums ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_DEFAULT };
  Wish w = { .op = op, .last = op, .a = op->in[1], .b = op->in[0], .d = op->out[0], .second = sums ? op->out[1] : NULL, .shape = s };
  return c->wanted[op->out[0]->id] && emit (c, &w, 1, error);
}

gboolean
cuda_lower_blas (CudaCompiler *c, const HeddleOp *op, GError **error)
{
  gboolean product = op->n_in > 1 && heddle_dtype_is_float (op->in[0]->dtype) && op->in[0]->dtype == op->in[1]->dtype && op->n_out && heddle_shape_count (&op->out[0]->shape) > 0, done = FALSE;
  switch (product ? op->info->code : 0)
    {
    case HEDDLE_OP_MATMUL: done = lower_matmul (c, op, error); break;
    case HEDDLE_OP_LINEAR: done = lower_linear (c, op, error); break;
    case HEDDLE_OP_LINEAR_GRAD_INPUT: done = lower_grad_input (c, op, error); break;
    case HEDDLE_OP_LINEAR_GRAD_WEIGHT: done = lower_grad_weight (c, op, error); break;
    default: break;
    }
  return done;
}
