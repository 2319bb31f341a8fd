/* cuda/launch.c: grids and blocks of the own kernels.  Must not know programs, plans or layouts. */
#include "backend/cuda/launch.h"

#include <string.h>

#define THREADS 256
#define BLOCKS_MAX (1 << 20)          /* of a loop over elements: each thread then takes more than one */
#define GRID_MAX 65535                /* blocks in y and in z, on any device */

static gint64
blocks_for (gint64 n)
{
  return CLAMP ((n + THREADS - 1) / THREADS, 1, BLOCKS_MAX);
}

/* Threads that share a row of N elements: whole warps, more only when each has enough to do. */
static guint
threads_for (gint64 n)
{
  return n <= 128 ? 32 : n <= 1024 ? 128 : THREADS;
}

static gboolean
launch_grid (CudaQueue *queue, const char *kernel, HeddleDtype dtype, const guint grid[3], const guint block[2], gconstpointer args, GError **error)
{
  char name[64];
  g_snprintf (name, sizeof name, dtype ? "%s_%s" : "%s", kernel, heddle_dtype_name (dtype));
  return cuda_launch_named (queue, name, &(CudaGrid) { .grid = { grid[0], grid[1], grid[2] }, .block = { block[0], block[1], 1 } }, args, error);
}

static gboolean
launch (CudaQueue *queue, const char *kernel, HeddleDtype dtype, gint64 blocks, guint threads, gconstpointer args, GError **error)
{
  return launch_grid (queue, kernel, dtype, (guint[3]) { (guint) blocks, 1, 1 }, (guint[2]) { threads, 1 }, args, error);
}

static gboolean
each (CudaQueue *queue, const char *kernel, HeddleDtype dtype, gint64 n, gconstpointer args, GError **error)
{
  return n == 0 || launch (queue, kernel, dtype, blocks_for (n), THREADS, args, error);
}

/* A block for each of ROWS rows of LENGTH elements */
static gboolean
rows (CudaQueue *queue, const char *kernel, HeddleDtype dtype, gint64 n, gint64 length, gconstpointer args, GError **error)
{
  return n == 0 || launch (queue, kernel, dtype, MIN (n, BLOCKS_MAX), threads_for (length), args, error);
}

gboolean cuda_launch_elementwise (CudaQueue *q, const HkElementwise *a, GError **error) { return each (q, "elementwise", 0, a->n, a, error); }
gboolean cuda_launch_dequantize (CudaQueue *q, const HkDequantize *a, GError **error) { return each (q, "dequantize", 0, a->n, a, error); }
gboolean cuda_launch_scaler (CudaQueue *q, const HkScaler *a, GError **error) { return launch (q, "scaler", 0, 1, 1, a, error); }

/* Halves everything that counts elements, and makes these twice as large. */
static void
join_pairs (HkCopy *a)
{
  a->bytes *= 2;
  a->n /= 2;
  a->from /= 2;
  a->to /= 2;
  a->size[a->rank - 1] /= 2;
  for (gint32 i = 0; i + 1 < a->rank; i++)
    {
      a->src[i] /= 2;
      a->dst[i] /= 2;
    }
}

/* Runs of contiguous elements move in units of up to 16 bytes, where all steps and both addresses are multiples of them: fewer transactions, and fewer divisions. */
gboolean
cuda_launch_copy (CudaQueue *queue, const HkCopy *args, GError **error)
{
  HkCopy a = *args;
  gint32 last = a.rank - 1;
  gboolean runs = last >= 0 && a.n > 0 && a.src[last] == 1 && a.dst[last] == 1;
  while (runs && a.bytes < 16)
    {
      gint64 steps = a.size[last] | a.from | a.to;
      for (gint32 i = 0; i < last; i++)
        steps |= a.src[i] | a.dst[i];
      runs = steps % 2 == 0 && ((guintptr) a.x | (guintptr) a.y) % (guintptr) (2 * a.bytes) == 0;
      if (runs)
        join_pairs (&a);
    }
  return each (queue, "copy", 0, a.n, &a, error);
}

/* A thread writes 16 bytes at a time. */
gboolean cuda_launch_fill (CudaQueue *q, const HkFill *a, GError **error) { return a->n == 0 || each (q, "fill_bytes", 0, (a->n * a->bytes + 15) / 16, a, error); }

/* As many blocks for each window as the longest has work for: four times eight numbers a thread, so that few blocks of short windows find none. */
gboolean
cuda_launch_widen (CudaQueue *queue, const HkWiden *a, guint n, gint64 longest, GError **error)
{
  return launch_grid (queue, "widen", 0, (guint[3]) { n, (guint) CLAMP (longest / (32 * THREADS), 1, 1024), 1 }, (guint[2]) { THREADS, 1 }, a, error);
}

/* ---- sums ---- */

/* Neighbouring outputs are neighbours in memory: a block takes 32 of them.  The number of such blocks, or 0. */
static gint64
column_blocks (const HkReduce *a)
{
  gint32 last = a->kept - 1;
  gboolean columns = (a->kept == 1 || a->kept == 2) && a->reduced == 1 && a->kept_stride[last] == 1 && a->kept_size[last] >= 32;
  return columns ? (a->kept_size[last] + 31) / 32 * (a->kept == 2 ? a->kept_size[0] : 1) : 0;
}

/* Few blocks of many elements each sum in parts, so that all of the device has work. */
static gint
reduce_parts (const HkReduce *a)
{
  gint64 columns = column_blocks (a), blocks = columns ? columns : a->n_out, least = columns ? 512 : 4096;
  return blocks >= 512 || a->n_reduced < 2 * least ? 1 : (gint) CLAMP (MIN (a->n_reduced / least, 1024 / MAX (blocks, 1)), 1, 256);
}

gsize
cuda_reduce_scratch (const HkReduce *a)
{
  gint parts = reduce_parts (a);
  return parts > 1 ? (gsize) (a->n_out * parts) : 0;
}

gboolean
cuda_launch_reduce (CudaQueue *queue, HeddleDtype dtype, const HkReduce *args, float *scratch, GError **error)
{
  HkReduce a = *args;
  HkParts p = { scratch, a.y, (gint32) dtype, reduce_parts (&a), a.n_out };
  gint64 columns = column_blocks (&a);
  gboolean ok;
  a.parts = p.parts;
  if (a.parts > 1)
    a.y = scratch;
  if (columns)
    ok = launch_grid (queue, "reduce_columns", dtype, (guint[3]) { (guint) columns, (guint) a.parts, 1 }, (guint[2]) { 32, 8 }, &a, error);
  else
    ok = a.n_out == 0
         || launch_grid (queue, "reduce", dtype, (guint[3]) { (guint) MIN (a.n_out, BLOCKS_MAX), (guint) a.parts, 1 }, (guint[2]) { threads_for (a.n_reduced / a.parts), 1 }, &a, error);
  return ok && (a.parts == 1 || each (queue, "reduce_parts", 0, a.n_out, &p, error));
}

gsize
cuda_terms_scratch (gint64 n)
{
  return (gsize) CLAMP (n / (8 * THREADS), 1, CUDA_TERM_PARTS_MAX);
}

gboolean
cuda_launch_terms (CudaQueue *queue, const HkTerms *a, GError **error)
{
  return launch (queue, "terms", 0, (gint64) cuda_terms_scratch (a->n), THREADS, a, error);
}

gboolean
cuda_launch_finish (CudaQueue *queue, const HkFinish *a, GError **error)
{
  return launch (queue, "finish", 0, 1, threads_for (a->n), a, error);
}

#define WINDOW_PARTS 32

gsize
cuda_window_scratch (gint64 windows)
{
  return (gsize) windows * WINDOW_PARTS;
}

/* Windows FIRST on of ALL, as many as fit into the arguments of one kernel */
static gint64
take_windows (HkWindows *a, const HkWindow *all, gint64 first, gint64 n)
{
  gint64 taken = MIN (n - first, HK_WINDOWS);
  memcpy (a->window, all + first, (gsize) taken * sizeof *all);
  a->first = (gint32) first;
  return taken;
}

gboolean
cuda_launch_window_sum (CudaQueue *queue, const float *x, float *y, const HkWindow *all, gint64 n, gboolean squares, float *scratch, GError **error)
{
  HkWindows a = { .x = x, .y = scratch, .parts = WINDOW_PARTS, .squares = squares };
  HkParts p = { scratch, y, HK_F32, WINDOW_PARTS, n };
  gboolean ok = TRUE;
  for (gint64 first = 0; ok && first < n; first += HK_WINDOWS)
    {
      gint64 taken = take_windows (&a, all, first, n);
      ok = launch_grid (queue, "window_sum", 0, (guint[3]) { (guint) taken, WINDOW_PARTS, 1 }, (guint[2]) { 128, 1 }, &a, error);
    }
  return ok && each (queue, "reduce_parts", 0, n, &p, error);
}

gboolean
cuda_launch_window_spread (CudaQueue *queue, const float *v, float *y, const HkWindow *all, gint64 n, GError **error)
{
  HkWindows a = { .x = v, .y = y };
  gboolean ok = TRUE;
  for (gint64 first = 0; ok && first < n; first += HK_WINDOWS)
    {
      gint64 taken = take_windows (&a, all, first, n);
      ok = launch_grid (queue, "window_spread", 0, (guint[3]) { (guint) taken, WINDOW_PARTS, 1 }, (guint[2]) { THREADS, 1 }, &a, error);
    }
  return ok;
}

/* ---- movement ---- */

gboolean cuda_launch_dropout (CudaQueue *q, HeddleDtype t, const HkDropout *a, GError **error) { return each (q, "dropout", t, (a->n + 3) / 4, a, error); }
gboolean cuda_launch_embedding (CudaQueue *q, HeddleDtype t, const HkEmbedding *a, GError **error) { return each (q, "embedding", t, a->n * a->width, a, error); }

gboolean
cuda_launch_embedding_grad (CudaQueue *queue, HeddleDtype dtype, const HkEmbedding *a, GError **error)
{
  return launch_grid (queue, "embedding_grad", dtype, (guint[3]) { (guint) ((a->rows + HK_EMBEDDING_ROWS - 1) / HK_EMBEDDING_ROWS), (guint) ((a->width + 511) / 512), 1 }, (guint[2]) { 128, 1 }, a, error);
}

/* ---- products ---- */

gboolean
cuda_launch_matmul (CudaQueue *queue, HeddleDtype dtype, const HkMatmul *a, GError **error)
{
  return launch_grid (queue, "matmul", dtype, (guint[3]) { (guint) ((a->n + 63) / 64), (guint) MIN ((a->m + 63) / 64, GRID_MAX), (guint) MIN (a->batch, GRID_MAX) }, (guint[2]) { THREADS, 1 }, a, error);
}

gboolean cuda_launch_conv_forward (CudaQueue *q, HeddleDtype t, const HkConv *a, GError **error) { return each (q, "conv_forward", t, (gint64) a->N * a->O * a->I * a->J, a, error); }
gboolean cuda_launch_conv_grad_input (CudaQueue *q, HeddleDtype t, const HkConv *a, GError **error) { return each (q, "conv_grad_input", t, (gint64) a->N * a->C * a->H * a->W, a, error); }

gboolean
cuda_launch_conv_grad_weight (CudaQueue *queue, HeddleDtype dtype, const HkConv *a, GError **error)
{
  gint64 weights = (gint64) a->O * (a->C / a->groups) * a->P * a->Q;
  return launch (queue, "conv_grad_weight", dtype, MIN (weights, BLOCKS_MAX), weights >= 2048 ? 32 : 128, a, error);      /* one warp each where that keeps the device busy */
}

/* ---- pooling and resampling ---- */

static gint64 outputs (const HkPool *a) { return (gint64) a->N * a->C * a->I * a->J; }
static gint64 inputs (const HkPool *a) { return (gint64) a->N * a->C * a->H * a->W; }
gboolean cuda_launch_max_pool (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "max_pool", t, outputs (a), a, error); }
gboolean cuda_launch_avg_pool (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "avg_pool", t, outputs (a), a, error); }
gboolean cuda_launch_max_pool_grad (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "max_pool_grad", t, inputs (a), a, error); }
gboolean cuda_launch_avg_pool_grad (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "avg_pool_grad", t, inputs (a), a, error); }
gboolean cuda_launch_upsample (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "upsample", t, outputs (a), a, error); }
gboolean cuda_launch_upsample_grad (CudaQueue *q, HeddleDtype t, const HkPool *a, GError **error) { return each (q, "upsample_grad", t, inputs (a), a, error); }

/* ---- norms ---- */

gboolean
cuda_launch_batch_norm (CudaQueue *queue, HeddleDtype dtype, const HkBatchNorm *a, GError **error)
{
  gboolean ok = a->training ? launch (queue, "batch_norm_stats", dtype, a->C, threads_for (a->N * a->P), a, error) : each (queue, "batch_norm_given", 0, a->C, a, error);
  return ok && (!a->y || each (queue, "batch_norm_apply", dtype, a->N * a->C * a->P, a, error));
}

gboolean
cuda_launch_batch_norm_grad (CudaQueue *queue, HeddleDtype dtype, const HkBatchNorm *a, GError **error)
{
  return launch (queue, "batch_norm_grad_sums", dtype, a->C, threads_for (a->N * a->P), a, error) && (!a->y || each (queue, "batch_norm_grad_apply", dtype, a->N * a->C * a->P, a, error));
}

gboolean cuda_launch_norm (CudaQueue *q, HeddleDtype t, const HkNorm *a, GError **error) { return rows (q, "norm", t, a->rows, a->length, a, error); }

gboolean
cuda_launch_norm_grad (CudaQueue *queue, HeddleDtype dtype, const HkNorm *a, GError **error)
{
  gboolean grouped = a->pixels != 1 || a->groups != 1, ok = !a->y || rows (queue, "norm_grad", dtype, a->rows, a->length, a, error);
  if (ok && (a->dscale || a->dshift) && grouped)
    ok = launch (queue, "norm_grad_channels", dtype, a->params, threads_for (a->rows / a->groups * a->pixels), a, error);
  else if (ok && (a->dscale || a->dshift))
    ok = launch_grid (queue, "norm_grad_columns", dtype, (guint[3]) { (guint) ((a->params + 31) / 32), 1, 1 }, (guint[2]) { 32, 8 }, a, error);
  return ok;
}

/* ---- softmax and losses ---- */

gboolean cuda_launch_softmax (CudaQueue *q, HeddleDtype t, const HkSoftmax *a, GError **error) { return rows (q, "softmax", t, a->rows, a->length, a, error); }
gboolean cuda_launch_cross_entropy (CudaQueue *q, HeddleDtype t, const HkCrossEntropy *a, GError **error) { return rows (q, "cross_entropy", t, a->rows, a->classes, a, error); }
gboolean cuda_launch_cross_entropy_grad (CudaQueue *q, HeddleDtype t, const HkCrossEntropy *a, GError **error) { return rows (q, "cross_entropy_grad", t, a->rows, a->classes, a, error); }
gboolean cuda_launch_top_k (CudaQueue *q, HeddleDtype t, const HkCrossEntropy *a, GError **error) { return rows (q, "top_k", t, a->rows, a->classes, a, error); }

/* ---- attention: a warp for each row, 256 columns of the result at a time ---- */

static gboolean
attend (CudaQueue *queue, const char *kernel, HeddleDtype dtype, gint64 n, gint64 columns, const HkAttention *a, GError **error)
{
  return launch_grid (queue, kernel, dtype, (guint[3]) { (guint) n, (guint) ((columns + 255) / 256), 1 }, (guint[2]) { 32, 1 }, a, error);
}

gboolean cuda_launch_attention (CudaQueue *q, HeddleDtype t, const HkAttention *a, GError **error) { return attend (q, "attention", t, a->heads * a->T, a->E, a, error); }

gboolean
cuda_launch_attention_grad (CudaQueue *queue, HeddleDtype dtype, const HkAttention *a, GError **error)
{
  return (!a->dq || attend (queue, "attention_grad_query", dtype, a->heads * a->T, a->D, a, error))
         && ((!a->dk && !a->dv) || attend (queue, "attention_grad_key", dtype, a->heads * a->S, MAX (a->D, a->E), a, error));
}
