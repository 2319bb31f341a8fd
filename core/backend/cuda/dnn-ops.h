/* cuda/dnn-ops.h: which operations of a program a cuDNN graph computes.
 * Must not know how programs are compiled into steps, nor whether cuDNN has a plan. */
#ifndef HEDDLE_CUDA_DNN_OPS_H
#define HEDDLE_CUDA_DNN_OPS_H

#include "dnn.h"
#include "program/program.h"

G_BEGIN_DECLS

/* (B, T, H, D) to (B, H, T, D), or back */
static inline gboolean
cuda_swaps_heads (const HeddleOp *op)
{
  const HeddlePermuteAttr *a = op->info->code == HEDDLE_OP_PERMUTE && op->out[0]->shape.rank == 4 ? op->attr : NULL;
  return a && a->axes[0] == 0 && a->axes[1] == 2 && a->axes[2] == 1 && a->axes[3] == 3;
}

/* Queries, keys or values that are columns FIRST.. of each row of WHOLE (B, T, PITCH), as a product made them: attention reads them where they are.  Their gradients alike. */
typedef struct
{
  const HeddleOp    *slice, *view, *permute;       /* of which nothing need be computed; for a gradient SLICE is its gradient */
  const HeddleValue *whole;
  gint64             first, pitch;
} CudaWindow;
/* V, (B, H, T, D), is one, and only attention reads it. */
gboolean      cuda_window_of    (const HeddleProgram *program, const HeddleValue *v, CudaWindow *window);

#define CUDA_DNN_MATCH_OPS 3
/* A graph for N_OPS operations, which can run where the first of them stands: all they read is there by then.  What lies between them and is not in VALUE is
 * never in memory. */
typedef struct
{
  CudaDnnGraph      *graph;                        /* owned; cuda_dnn_build () takes it */
  guint              n_ops;
  const HeddleOp    *op[CUDA_DNN_MATCH_OPS];       /* in order of execution; others may stand between them */
  CudaDnnLayout      layout;                       /* of every rank-4 image, convolution weight or operand of attention in VALUE */
  const HeddleValue *value[CUDA_DNN_N_UIDS];       /* what each pointer is; an output may be one that nobody reads: it needs memory all the same */
  gboolean           windows, grad_windows;        /* Q, K and V, DQ, DK and DV are windows */
  CudaWindow         into[3];                      /* then DQ, DK and DV, of which nobody reads anything else */
  const HeddleValue *bias_grad;                    /* not in the graph, the caller's: the sum of DY over all but its channels; or NULL */
} CudaDnnMatch;

void          cuda_dnn_match_clear (CudaDnnMatch *match);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (CudaDnnMatch, cuda_dnn_match_clear)
/* The most operations, PROGRAM's I and those that alone read its result, MOST at most, that one graph computes with images in LAYOUT; FALSE: none, or own kernels
 * do better.
 * Without a plan for it, ask again with MOST one below its n_ops. */
gboolean      cuda_dnn_match    (const HeddleProgram *program, guint i, guint most, CudaDnnLayout layout, const HeddleFlags *flags, CudaDnnMatch *match);

G_END_DECLS

#endif
