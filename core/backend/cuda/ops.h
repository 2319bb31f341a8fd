/* cuda/ops.h: operations lowered to the own kernels, by family, and what those lowerings share.  Private to ops*.c and lower.c.
 * Must not know cuBLAS, cuDNN or generated code. */
#ifndef HEDDLE_BACKEND_CUDA_OPS_H
#define HEDDLE_BACKEND_CUDA_OPS_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/launch.h"

/* Each TRUE if OP is one of its operations; together they know every operation but custom ones. */
gboolean cuda_lower_elementwise (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-elementwise.c: elementwise, broadcast, assign */
gboolean cuda_lower_reduction   (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-reduction.c: sums, losses that are means over elements, windows */
gboolean cuda_lower_product     (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-product.c: matrices and convolutions */
gboolean cuda_lower_image       (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-image.c: pooling, resampling, batch norm */
gboolean cuda_lower_row         (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-row.c: softmax, cross entropy, top-k, norms over rows, attention */
gboolean cuda_lower_movement    (CudaCompiler *c, const HeddleOp *op, GError **error);   /* ops-movement.c: permutations, slices, embeddings, dropout, bytes, the loss scale */

/* Steps have their operands in the operation's order, the floating ones in DTYPE (0: as they were made), images in LAYOUT, and their outputs too.  An output that
 * nobody reads is nowhere unless bit i of NEEDED is set. */
CudaStep  *cuda_own_step   (CudaCompiler *c, const HeddleOp *op, const char *what, CudaRun run, HeddleDtype dtype, CudaLayout layout, guint needed);
/* The layout an image was made in: own kernels follow it. */
CudaLayout cuda_own_layout (CudaCompiler *c, const HeddleValue *image);
/* The sum of an image's elements in each channel: a bias' gradient.  x and y are the caller's to set. */
HkReduce   cuda_channel_sum (const HeddleShape *image, CudaLayout layout);
/* The same of the columns of a matrix (R, C), of any rank, in rows or padded */
HkReduce   cuda_column_sum  (const HeddleShape *matrix, CudaLayout layout);
/* A step that makes SUMS, a bias' gradient, of the elements of X as R says, for operation OP. */
void       cuda_sum_step    (CudaCompiler *c, const HeddleOp *op, const CudaOperand *x, const HkReduce *r, const HeddleValue *sums);
/* Strides of step->in[i] or out[i] as it lies */
#define cuda_operand_strides(operand, strides) cuda_strides (&(operand)->shape, (operand)->layout, (strides))

#endif
