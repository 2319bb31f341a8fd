/* cuda/dnn-graphs.h: the building blocks that dnn-graphs.c and dnn-attention.c share.
 * Must not know cuDNN: a graph is data. */
#ifndef HEDDLE_CUDA_DNN_GRAPHS_H
#define HEDDLE_CUDA_DNN_GRAPHS_H

#include "dnn.h"

/* FLOOR: see CudaDnnGraph. */
CudaDnnGraph *dnn_graph_new (const char *name, HeddleDtype dtype, DnnProducts products, gint32 floor);
/* Tensors, by index. */
gint32 dnn_bound     (CudaDnnGraph *g, CudaDnnUid uid, gint32 dtype, const gint64 dim[4], const gint64 stride[4]);
gint32 dnn_virtual   (CudaDnnGraph *g, gint32 dtype, const gint64 dim[4], const gint64 stride[4]);
gint32 dnn_scratch   (CudaDnnGraph *g, gint32 dtype, const gint64 dim[4], const gint64 stride[4]);
gint32 dnn_constant  (CudaDnnGraph *g, double value);
gint32 dnn_like      (CudaDnnGraph *g, gint32 tensor, gint32 dtype);      /* a virtual tensor with TENSOR's dims and strides */
/* Operations. */
DnnOp *dnn_op        (CudaDnnGraph *g, DnnOpKind kind, gint32 mode, const gint32 *in, guint n_in, const gint32 *out, guint n_out);
void   dnn_pointwise (CudaDnnGraph *g, DnnPointwise mode, gint32 a, gint32 b, gint32 c, gint32 y);

#endif
