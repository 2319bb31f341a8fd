/* cuda/launch.h: the own kernels as C functions: each checks nothing, chooses grid and block and enqueues one kernel, or two.
 * Must not know programs, plans or layouts: pointers, sizes and strides come in kernels/args.h's structures. */
#ifndef HEDDLE_BACKEND_CUDA_LAUNCH_H
#define HEDDLE_BACKEND_CUDA_LAUNCH_H

#include "backend/cuda/cuda.h"
#include "backend/cuda/kernels/args.h"

/* Scratch that a kernel needs, in floats; 0: none.  A caller gives as much as it says. */
gsize    cuda_reduce_scratch  (const HkReduce *args);
gsize    cuda_terms_scratch   (gint64 n);                       /* HkTerms.partial and .bad, each */
gsize    cuda_window_scratch  (gint64 windows);
#define  CUDA_TERM_PARTS_MAX 1024

/* ---- kernels whose operands say their dtypes ---- */
gboolean cuda_launch_elementwise (CudaQueue *queue, const HkElementwise *args, GError **error);
gboolean cuda_launch_copy        (CudaQueue *queue, const HkCopy *args, GError **error);
gboolean cuda_launch_fill        (CudaQueue *queue, const HkFill *args, GError **error);
gboolean cuda_launch_dequantize  (CudaQueue *queue, const HkDequantize *args, GError **error);
/* N windows, the longest of LONGEST elements */
gboolean cuda_launch_widen       (CudaQueue *queue, const HkWiden *args, guint n, gint64 longest, GError **error);
gboolean cuda_launch_scaler      (CudaQueue *queue, const HkScaler *args, GError **error);
/* partial[0 .. cuda_terms_scratch ()) and bad; then cuda_launch_finish () adds them up */
gboolean cuda_launch_terms       (CudaQueue *queue, const HkTerms *args, GError **error);
gboolean cuda_launch_finish      (CudaQueue *queue, const HkFinish *args, GError **error);
/* N windows of ALL; y[i] = sum over window i */
gboolean cuda_launch_window_sum    (CudaQueue *queue, const float *x, float *y, const HkWindow *all, gint64 n, gboolean squares, float *scratch, GError **error);
/* y in window i = v[i]; what lies between windows is left alone */
gboolean cuda_launch_window_spread (CudaQueue *queue, const float *v, float *y, const HkWindow *all, gint64 n, GError **error);

/* ---- kernels of one storage dtype (f32, f16, bf16), f32 arithmetic ---- */
gboolean cuda_launch_reduce             (CudaQueue *queue, HeddleDtype dtype, const HkReduce *args, float *scratch, GError **error);
gboolean cuda_launch_dropout            (CudaQueue *queue, HeddleDtype dtype, const HkDropout *args, GError **error);
gboolean cuda_launch_embedding          (CudaQueue *queue, HeddleDtype dtype, const HkEmbedding *args, GError **error);
gboolean cuda_launch_embedding_grad     (CudaQueue *queue, HeddleDtype dtype, const HkEmbedding *args, GError **error);
gboolean cuda_launch_matmul             (CudaQueue *queue, HeddleDtype dtype, const HkMatmul *args, GError **error);
gboolean cuda_launch_conv_forward       (CudaQueue *queue, HeddleDtype dtype, const HkConv *args, GError **error);
gboolean cuda_launch_conv_grad_input    (CudaQueue *queue, HeddleDtype dtype, const HkConv *args, GError **error);
gboolean cuda_launch_conv_grad_weight   (CudaQueue *queue, HeddleDtype dtype, const HkConv *args, GError **error);
gboolean cuda_launch_max_pool           (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_avg_pool           (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_max_pool_grad      (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_avg_pool_grad      (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_upsample           (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_upsample_grad      (CudaQueue *queue, HeddleDtype dtype, const HkPool *args, GError **error);
gboolean cuda_launch_batch_norm         (CudaQueue *queue, HeddleDtype dtype, const HkBatchNorm *args, GError **error);
gboolean cuda_launch_batch_norm_grad    (CudaQueue *queue, HeddleDtype dtype, const HkBatchNorm *args, GError **error);
gboolean cuda_launch_norm               (CudaQueue *queue, HeddleDtype dtype, const HkNorm *args, GError **error);
gboolean cuda_launch_norm_grad          (CudaQueue *queue, HeddleDtype dtype, const HkNorm *args, GError **error);
gboolean cuda_launch_softmax            (CudaQueue *queue, HeddleDtype dtype, const HkSoftmax *args, GError **error);
gboolean cuda_launch_cross_entropy      (CudaQueue *queue, HeddleDtype dtype, const HkCrossEntropy *args, GError **error);
gboolean cuda_launch_cross_entropy_grad (CudaQueue *queue, HeddleDtype dtype, const HkCrossEntropy *args, GError **error);
gboolean cuda_launch_top_k              (CudaQueue *queue, HeddleDtype dtype, const HkCrossEntropy *args, GError **error);
gboolean cuda_launch_attention          (CudaQueue *queue, HeddleDtype dtype, const HkAttention *args, GError **error);
gboolean cuda_launch_attention_grad     (CudaQueue *queue, HeddleDtype dtype, const HkAttention *args, GError **error);

#endif
