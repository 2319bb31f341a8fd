/* cudnn-deviceless/interpret.h: what a cuDNN graph computes, in double precision, by the documented meaning of each operation.
 * Must not share code with whoever writes graphs. */
#ifndef HEDDLE_TESTS_INTERPRET_H
#define HEDDLE_TESTS_INTERPRET_H

#include "backend/cuda/dnn-graph.h"

/* MEMORY[i]: numbers of tensor I where its strides say they lie, room for dnn_tensor_bytes () of them; those of BOUND inputs are set.  Runs all operations.
 * FALSE with a complaint: something is read before it is written, or dimensions do not fit. */
gboolean interpret (const CudaDnnGraph *graph, double **memory, char **complaint);
/* Position of element INDEX (row-major over the dims) in memory. */
gint64   interpret_offset (const DnnTensor *tensor, gint64 index);

#endif
