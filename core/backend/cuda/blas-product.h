/* cuda/blas-product.h: one matrix product through cuBLASLt: descriptors, the choice of an algorithm, a run.  Private to blas*.c.  Must not know operations or steps.
 * Everything is column-major here, as the library is: a row-major matrix (R, C) is its transpose (C, R). */
#ifndef HEDDLE_BACKEND_CUDA_BLAS_PRODUCT_H
#define HEDDLE_BACKEND_CUDA_BLAS_PRODUCT_H

#include "cuda.h"

#include <cublasLt.h>

/* D (m, n) = epilogue (op (A) (m, k) op (B) (k, n)); plain bytes, as it is the key under which the algorithm is kept. */
typedef struct
{
  gint64 m, n, k, batch, lda, ldb, ldd, stride_a, stride_b, stride_d;
  gint32 transpose_a, transpose_b, in, out, bias, epilogue;      /* IN, OUT: HeddleDtype; BIAS too, or 0: none */
  gint32 align_a, align_b, align_d, tf32;                        /* bytes that divide the addresses */
} BlasShape;

/* The epilogue leaves, or takes, which numbers are positive (CUDA_SIGNS). */
gboolean     blas_has_signs     (const BlasShape *shape);
/* It is applied to a gradient: what it is taken at comes in. */
gboolean     blas_is_slope      (const BlasShape *shape);

typedef struct _BlasProduct BlasProduct;
/* NULL without an error: the library has no algorithm for it, or none that is right.  OP: for messages. */
BlasProduct *blas_product       (CudaDevice *device, const BlasShape *shape, const HeddleOp *op, GError **error);
void         blas_product_free  (gpointer product);
const char  *blas_product_text  (const BlasProduct *product);     /* "algorithm 21, tile 20, stages 11, split 1; 3 of 8, 12.4 us" */
gsize        blas_product_workspace (const BlasProduct *product);
/* Puts it on QUEUE.  BIAS: what is added, or where column sums go; AUX: what the activation's gradient is taken at, or is left behind for it; or NULL. */
gboolean     blas_product_run   (BlasProduct *product, CudaQueue *queue, gconstpointer a, gconstpointer b, gpointer d, gpointer bias, gpointer aux, gpointer workspace, const HeddleOp *op, GError **error);

#endif
