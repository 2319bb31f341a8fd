/* cuda-sim/fake-cublas.cpp: matrix products of cuBLAS and cuBLASLt as plain loops, enqueued on the simulated stream.  TF32 rounds its inputs as the
 * tensor cores do.  Must not know who asks. */
#include "fake.h"
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

/* ---- one product: D = epilogue (alpha op (A) op (B) + beta C), column-major unless said otherwise ---- */

struct Matrix { const void *data; cudaDataType_t type; int64_t rows, columns, ld, stride; bool row_major; };

struct Product
{
  Matrix a, b, c, d;
  bool transpose_a, transpose_b, tf32;
  int batches, epilogue;
  float alpha, beta;
  const float *device_alpha, *device_beta;
  bool narrow, hides_nan, marks_zero;
  const void *bias;
  cudaDataType_t bias_type;
  void *aux;
  int64_t aux_ld;
};

static size_t size_of (cudaDataType_t t) { return t == CUDA_R_32F ? 4 : t == CUDA_R_16F || t == CUDA_R_16BF ? 2 : 0; }

static float
load (const void *p, cudaDataType_t type, int64_t i)
{
  return type == CUDA_R_32F ? ((const float *) p)[i] : type == CUDA_R_16F ? __half2float (((const __half *) p)[i]) : __bfloat162float (((const __nv_bfloat16 *) p)[i]);
}

static void
store (void *p, cudaDataType_t type, int64_t i, float v)
{
  if (type == CUDA_R_32F)
    ((float *) p)[i] = v;
  else if (type == CUDA_R_16F)
    ((__half *) p)[i] = __float2half (v);
  else
    ((__nv_bfloat16 *) p)[i] = __float2bfloat16 (v);
}

static float
rounded (cudaDataType_t type, float v)
{
  uint32_t place;
  store (&place, type, 0, v);
  return load (&place, type, 0);
}

static int64_t
index_of (const Matrix &m, int64_t i, int64_t j)
{
  return m.row_major ? i * m.ld + j : j * m.ld + i;
}

/* 10 bits of mantissa, to nearest even */
static float
as_tf32 (float x)
{
  uint32_t u;
  memcpy (&u, &x, 4);
  if ((u & 0x7f800000u) != 0x7f800000u)
    u = (u + 0xfffu + (u >> 13 & 1)) & ~0x1fffu;
  memcpy (&x, &u, 4);
  return x;
}

static float
entry (const Product &p, const Matrix &m, int batch, bool transpose, int64_t i, int64_t j)
{
  float v = load (m.data, m.type, batch * m.stride + (transpose ? index_of (m, j, i) : index_of (m, i, j)));
  return p.tf32 ? as_tf32 (v) : v;
}

static float gelu (float x) { return 0.5f * x * (1 + tanhf (0.7978845608f * (x + 0.044715f * x * x * x))); }     /* cuBLAS's is the tanh form */

static float
gelu_slope (float x)
{
  float t = tanhf (0.7978845608f * (x + 0.044715f * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

enum { RELU = 2, BIAS = 4, GELU = 32, AUX = 128, D_RELU = 8, D_GELU = 64, BGRAD = 16 };      /* cublasLtEpilogue_t is made of these bits */

static float
finish (const Product &p, float v, int batch, int64_t i, int64_t j)
{
  int64_t at = batch * p.aux_ld * p.d.columns + j * p.aux_ld + i;
  unsigned char *mask = (unsigned char *) p.aux + (at >> 3);
  unsigned char bit = (unsigned char) (1 << (at & 7));
  if (p.epilogue & BIAS && p.bias)
    v += load (p.bias, p.bias_type, i);
  if (p.epilogue & D_RELU)
    v = *mask & bit ? v : 0;
  else if (p.epilogue & D_GELU)
    v *= gelu_slope (load (p.aux, p.d.type, at));
  else
    {
      if (p.epilogue & AUX && p.epilogue & GELU)
        store (p.aux, p.d.type, at, v);
      if (p.epilogue & AUX && p.epilogue & RELU)
        *mask = (unsigned char) (v > 0 || (p.marks_zero && v == 0) ? *mask | bit : *mask & ~bit);
      v = p.epilogue & RELU ? (v < 0 || (p.hides_nan && v != v) ? 0 : v) : p.epilogue & GELU ? gelu (v) : v;
    }
  return v;
}

static void
column_sums (const Product &p)
{
  bool of_a = p.epilogue == (int) CUBLASLT_EPILOGUE_BGRADA, of_b = p.epilogue == (int) CUBLASLT_EPILOGUE_BGRADB;
  int64_t m = p.d.rows, n = p.d.columns, k = p.transpose_a ? p.a.rows : p.a.columns, sums = of_b ? n : m;
  for (int64_t i = 0; i < sums; i++)
    {
      float sum = 0;
      for (int64_t l = 0; l < (of_a || of_b ? k : n); l++)
        sum += of_a ? entry (p, p.a, 0, p.transpose_a, i, l) : of_b ? entry (p, p.b, 0, p.transpose_b, l, i) : load (p.d.data, p.d.type, index_of (p.d, i, l));
      store ((void *) p.bias, p.bias_type, i, sum);
    }
}

static int
run (const void *data)
{
  Product p;
  memcpy (&p, data, sizeof p);
  int64_t k = p.transpose_a ? p.a.rows : p.a.columns;
  bool sums = p.epilogue == (int) CUBLASLT_EPILOGUE_BGRADA || p.epilogue == (int) CUBLASLT_EPILOGUE_BGRADB;
  float alpha = p.device_alpha ? *p.device_alpha : p.alpha, beta = p.device_beta ? *p.device_beta : p.beta;
  for (int batch = 0; batch < p.batches; batch++)
    for (int64_t j = 0; j < p.d.columns; j++)
      for (int64_t i = 0; i < p.d.rows; i++)
        {
          float sum = 0;
          for (int64_t l = 0; l < k; l++)
            {
              sum += entry (p, p.a, batch, p.transpose_a, i, l) * entry (p, p.b, batch, p.transpose_b, l, j);
              sum = p.narrow ? rounded (p.d.type, sum) : sum;
            }
          sum *= alpha;
          if (beta != 0)
            sum += beta * load (p.c.data, p.c.type, batch * p.c.stride + index_of (p.c, i, j));
          store ((void *) p.d.data, p.d.type, batch * p.d.stride + index_of (p.d, i, j), sums ? sum : finish (p, sum, batch, i, j));
        }
  if (p.epilogue > 0 && p.epilogue & (BGRAD | 256 | 512) && p.bias)
    column_sums (p);
  return 0;
}

static bool
inside (const Matrix &m, int batches)
{
  int64_t last = (m.row_major ? m.rows : m.columns) - 1, length = m.row_major ? m.columns : m.rows;
  return heddle_sim_is_device (m.data, (size_t) ((batches - 1) * m.stride + last * m.ld + length) * size_of (m.type));
}

static bool
aux_inside (const Product &p)
{
  size_t n = (size_t) (p.aux_ld * p.d.columns * p.batches), bytes = p.epilogue & (RELU | D_RELU) ? n / 8 : n * size_of (p.d.type);
  return !(p.epilogue & AUX) || heddle_sim_is_device (p.aux, bytes);
}

/* What NVIDIA asks for full speed on tensor cores (cuBLAS, "Tensor Core Usage"): address, leading dimension and inner size of each matrix are multiples of 16 bytes. */
static bool
aligned (const Matrix &m)
{
  size_t size = size_of (m.type);
  return (uintptr_t) m.data % 16 == 0 && m.ld * size % 16 == 0 && (m.row_major ? m.columns : m.rows) * size % 16 == 0;
}

static cublasStatus_t
enqueue (cudaStream_t stream, const Product &p)
{
  if (size_of (p.a.type) == 2 && !(aligned (p.a) && aligned (p.b) && aligned (p.d)))
    heddle_sim_unaligned ();
  int64_t k = p.transpose_a ? p.a.rows : p.a.columns, k2 = p.transpose_b ? p.b.columns : p.b.rows;
  bool ok = size_of (p.a.type) && p.a.type == p.b.type && size_of (p.d.type) && k == k2 && p.d.rows == (p.transpose_a ? p.a.columns : p.a.rows)
            && p.d.columns == (p.transpose_b ? p.b.rows : p.b.columns) && inside (p.a, p.batches) && inside (p.b, p.batches) && inside (p.d, p.batches) && aux_inside (p);
  if (!ok)
    return CUBLAS_STATUS_INVALID_VALUE;
  return heddle_sim_enqueue (stream, run, &p, sizeof p) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

/* ---- cuBLAS ---- */

struct cublasContext { cudaStream_t stream; cublasMath_t math; cublasPointerMode_t pointers; };
static long handles;

static bool
is_tf32 (const cublasContext *h, cublasComputeType_t compute, cudaDataType_t type)
{
  return type == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F_FAST_TF32 || (h && h->math == CUBLAS_TF32_TENSOR_OP_MATH));
}

extern "C" {
cublasStatus_t cublasCreate_v2 (cublasHandle_t *h) { *h = new cublasContext (); handles++; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasDestroy_v2 (cublasHandle_t h) { delete h; handles--; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream_v2 (cublasHandle_t h, cudaStream_t s) { h->stream = s; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetStream_v2 (cublasHandle_t h, cudaStream_t *s) { *s = h->stream; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode (cublasHandle_t h, cublasMath_t m) { h->math = m; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetMathMode (cublasHandle_t h, cublasMath_t *m) { *m = h->math; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetPointerMode_v2 (cublasHandle_t h, cublasPointerMode_t m) { h->pointers = m; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetWorkspace_v2 (cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasGetVersion_v2 (cublasHandle_t, int *v) { *v = CUBLAS_VERSION; return CUBLAS_STATUS_SUCCESS; }
size_t cublasGetCudartVersion (void) { return CUDART_VERSION; }
const char *cublasGetStatusString (cublasStatus_t s) { return s ? "refused by the simulated cuBLAS" : "success"; }
const char *cublasGetStatusName (cublasStatus_t s) { return s ? "CUBLAS_STATUS_FAKE" : "CUBLAS_STATUS_SUCCESS"; }
cublasStatus_t cublasGetProperty (libraryPropertyType t, int *v) { *v = t == MAJOR_VERSION ? CUBLAS_VER_MAJOR : t == MINOR_VERSION ? CUBLAS_VER_MINOR : CUBLAS_VER_PATCH; return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t
cublasGemmStridedBatchedEx (cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda, long long a_stride,
                            const void *b, cudaDataType b_type, int ldb, long long b_stride, const void *beta, void *c, cudaDataType c_type, int ldc, long long c_stride, int batches,
                            cublasComputeType_t compute, cublasGemmAlgo_t)
{
  Product p = {};
  bool device = h->pointers == CUBLAS_POINTER_MODE_DEVICE;
  p.transpose_a = ta != CUBLAS_OP_N;
  p.transpose_b = tb != CUBLAS_OP_N;
  p.a = { a, a_type, p.transpose_a ? k : m, p.transpose_a ? m : k, lda, a_stride, false };
  p.b = { b, b_type, p.transpose_b ? n : k, p.transpose_b ? k : n, ldb, b_stride, false };
  p.c = p.d = { c, c_type, m, n, ldc, c_stride, false };
  p.tf32 = is_tf32 (h, compute, a_type);
  p.batches = batches;
  p.epilogue = 1;
  p.device_alpha = device ? (const float *) alpha : nullptr;
  p.device_beta = device ? (const float *) beta : nullptr;
  p.alpha = device ? 0 : *(const float *) alpha;
  p.beta = device ? 0 : *(const float *) beta;
  return enqueue (h->stream, p);
}

cublasStatus_t
cublasGemmEx (cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b, cudaDataType b_type,
              int ldb, const void *beta, void *c, cudaDataType c_type, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t algo)
{
  return cublasGemmStridedBatchedEx (h, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algo);
}

/* ---- cuBLASLt: descriptors are attributes by number ---- */
}

struct Descriptor { std::map<int, std::string> attributes; cublasComputeType_t compute; };

template <class T> static T
attribute (const Descriptor *d, int number, T otherwise)
{
  auto it = d->attributes.find (number);
  if (it != d->attributes.end () && it->second.size () >= sizeof (T))
    memcpy (&otherwise, it->second.data (), sizeof (T));
  return otherwise;
}

template <class T> static void
give (Descriptor *d, int number, T value)
{
  d->attributes[number] = std::string ((const char *) &value, sizeof value);
}

static cublasStatus_t
set (void *descriptor, int number, const void *p, size_t n)
{
  ((Descriptor *) descriptor)->attributes[number] = std::string ((const char *) p, n);
  return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t
get (void *descriptor, int number, void *p, size_t n, size_t *written)
{
  const std::string &bytes = ((Descriptor *) descriptor)->attributes[number];
  memcpy (p, bytes.data (), bytes.size () < n ? bytes.size () : n);
  if (written)
    *written = bytes.size ();
  return CUBLAS_STATUS_SUCCESS;
}

static Matrix
matrix_of (const void *data, cublasLtMatrixLayout_t layout)
{
  const Descriptor *d = (const Descriptor *) layout;
  return { data, attribute (d, CUBLASLT_MATRIX_LAYOUT_TYPE, CUDA_R_32F), (int64_t) attribute<uint64_t> (d, CUBLASLT_MATRIX_LAYOUT_ROWS, 0),
           (int64_t) attribute<uint64_t> (d, CUBLASLT_MATRIX_LAYOUT_COLS, 0), attribute<int64_t> (d, CUBLASLT_MATRIX_LAYOUT_LD, 0),
           attribute<int64_t> (d, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, 0), attribute<int32_t> (d, CUBLASLT_MATRIX_LAYOUT_ORDER, CUBLASLT_ORDER_COL) == CUBLASLT_ORDER_ROW };
}

extern "C" {
cublasStatus_t cublasLtCreate (cublasLtHandle_t *h) { *h = (cublasLtHandle_t) new int; handles++; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy (cublasLtHandle_t h) { delete (int *) h; handles--; return CUBLAS_STATUS_SUCCESS; }
size_t cublasLtGetVersion (void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion (void) { return CUDART_VERSION; }
const char *cublasLtGetStatusString (cublasStatus_t s) { return cublasGetStatusString (s); }
const char *cublasLtGetStatusName (cublasStatus_t s) { return cublasGetStatusName (s); }

cublasStatus_t
cublasLtMatrixLayoutCreate (cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld)
{
  Descriptor *d = new Descriptor ();
  give (d, CUBLASLT_MATRIX_LAYOUT_TYPE, type);
  give (d, CUBLASLT_MATRIX_LAYOUT_ROWS, rows);
  give (d, CUBLASLT_MATRIX_LAYOUT_COLS, columns);
  give (d, CUBLASLT_MATRIX_LAYOUT_LD, ld);
  *l = (cublasLtMatrixLayout_t) d;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy (const cublasLtMatrixLayout_t l) { delete (Descriptor *) l; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatrixLayoutSetAttribute (cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a, const void *p, size_t n) { return set (l, a, p, n); }
cublasStatus_t cublasLtMatrixLayoutGetAttribute (const cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a, void *p, size_t n, size_t *w) { return get (l, a, p, n, w); }

cublasStatus_t
cublasLtMatmulDescCreate (cublasLtMatmulDesc_t *m, cublasComputeType_t compute, cudaDataType_t)
{
  Descriptor *d = new Descriptor ();
  d->compute = compute;
  *m = (cublasLtMatmulDesc_t) d;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy (const cublasLtMatmulDesc_t d) { delete (Descriptor *) d; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute (cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, const void *p, size_t n) { return set (d, a, p, n); }
cublasStatus_t cublasLtMatmulDescGetAttribute (const cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t a, void *p, size_t n, size_t *w) { return get (d, a, p, n, w); }
cublasStatus_t cublasLtMatmulPreferenceCreate (cublasLtMatmulPreference_t *p) { *p = (cublasLtMatmulPreference_t) new Descriptor (); return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceDestroy (const cublasLtMatmulPreference_t p) { delete (Descriptor *) p; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute (cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, const void *v, size_t n) { return set (p, a, v, n); }
cublasStatus_t cublasLtMatmulPreferenceGetAttribute (const cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t a, void *v, size_t n, size_t *w) { return get (p, a, v, n, w); }

static int number (const char *variable) { const char *text = getenv (variable); return text ? atoi (text) : 0; }

/* Two candidates, as if the library had a choice; they sum in the output's type where nobody forbids it, the relu of the first HEDDLE_SIM_HIDE_NAN of them makes 0 of NaN, and HEDDLE_SIM_MARK_ZERO of them call 0 positive.  The epilogue HEDDLE_SIM_REFUSE has no algorithm.  Sizes and auxiliary matrices that cuBLASLt has no kernel for are refused as it does. */
cublasStatus_t
cublasLtMatmulAlgoGetHeuristic (cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t ld, cublasLtMatmulPreference_t preference,
                                int wanted, cublasLtMatmulHeuristicResult_t *results, int *n)
{
  const Descriptor *m = (const Descriptor *) desc;
  uint32_t sums = attribute<uint32_t> ((const Descriptor *) preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_MASK);
  uint32_t epilogue = attribute<uint32_t> (m, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  int64_t aux = attribute<int64_t> (m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 0), rows = (int64_t) attribute<uint64_t> ((const Descriptor *) ld, CUBLASLT_MATRIX_LAYOUT_ROWS, 0);
  bool bits = epilogue & (RELU | D_RELU), needs_bias = epilogue & (BIAS | BGRAD | 256 | 512);
  *n = 0;
  if (epilogue == (uint32_t) number ("HEDDLE_SIM_REFUSE"))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (epilogue & AUX && (aux % (bits ? 128 : 8) || aux < rows || !attribute<void *> (m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, nullptr)))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (needs_bias && !attribute<void *> (m, CUBLASLT_MATMUL_DESC_BIAS_POINTER, nullptr))
    return CUBLAS_STATUS_NOT_SUPPORTED;
  *n = wanted < 2 ? wanted : 2;
  for (int i = 0; i < *n; i++)
    {
      memset (&results[i], 0, sizeof results[i]);
      results[i].algo.data[0] = (uint64_t) i + 1;
      results[i].algo.data[1] = sums & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
      results[i].algo.data[2] = (i < number ("HEDDLE_SIM_HIDE_NAN")) | (i < number ("HEDDLE_SIM_MARK_ZERO")) << 1;
      results[i].state = CUBLAS_STATUS_SUCCESS;
      results[i].wavesCount = 1;
    }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCapGetAttribute (const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoCapAttributes_t, void *p, size_t n, size_t *w) { memset (p, 0, n); if (w) *w = n; return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute (const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoConfigAttributes_t, void *p, size_t n, size_t *w) { memset (p, 0, n); if (w) *w = n; return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t
cublasLtMatmul (cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void *alpha, const void *a, cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta, const void *c,
                cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t *algo, void *, size_t, cudaStream_t stream)
{
  const Descriptor *m = (const Descriptor *) desc;
  bool device = attribute<int32_t> (m, CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_HOST) == CUBLASLT_POINTER_MODE_DEVICE;
  Product p = {};
  p.a = matrix_of (a, la);
  p.b = matrix_of (b, lb);
  p.c = matrix_of (c, lc);
  p.d = matrix_of (d, ld);
  p.transpose_a = attribute<int32_t> (m, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_N) != CUBLAS_OP_N;
  p.transpose_b = attribute<int32_t> (m, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N) != CUBLAS_OP_N;
  p.batches = attribute<int32_t> ((Descriptor *) ld, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, 1);
  p.epilogue = (int) attribute<uint32_t> (m, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_DEFAULT);
  p.bias = attribute<const void *> (m, CUBLASLT_MATMUL_DESC_BIAS_POINTER, nullptr);
  p.bias_type = (cudaDataType_t) attribute<int32_t> (m, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.d.type);
  p.aux = attribute<void *> (m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, nullptr);
  p.aux_ld = attribute<int64_t> (m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.d.rows);
  p.tf32 = is_tf32 (nullptr, m->compute, p.a.type);
  p.narrow = algo && algo->data[1];
  p.hides_nan = algo && algo->data[2] & 1;
  p.marks_zero = algo && algo->data[2] & 2;
  p.device_alpha = device ? (const float *) alpha : nullptr;
  p.device_beta = device ? (const float *) beta : nullptr;
  p.alpha = device ? 0 : *(const float *) alpha;
  p.beta = device ? 0 : *(const float *) beta;
  return enqueue (stream, p);
}
}
