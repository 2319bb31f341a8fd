/* cudnn-deviceless/models.h: the graphs that our models' programs ask cuDNN for.
 * Must not know cuDNN. */
#ifndef HEDDLE_TESTS_DNN_MODELS_H
#define HEDDLE_TESTS_DNN_MODELS_H

#include "backend/cuda/dnn-ops.h"

typedef enum { MODE_F32, MODE_TF32, MODE_F16, MODE_BF16, N_MODES } Mode;
extern const char *const mode_names[N_MODES];
HeddleFlags mode_flags (Mode mode);

/* One graph, and the first model that has it. */
typedef struct { CudaDnnGraph *graph; Mode mode; const char *model; } Wanted;
/* (transfer full) Wanted *, each graph of each mode once; of training and of evaluation, in the shapes of docs' benchmarks. */
GPtrArray  *models_graphs (void);

#endif
