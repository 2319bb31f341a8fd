/* tensor/tensors.h: what the core needs beyond the public views: names, printing, half conversions.
 * Must not know devices. */
#ifndef HEDDLE_TENSOR_TENSORS_H
#define HEDDLE_TENSOR_TENSORS_H

#include "base/error.h"
#include "tensor/tensor.h"

G_BEGIN_DECLS

gboolean heddle_dtype_from_name  (const char *name, HeddleDtype *dtype);   /* FALSE: no such dtype */
gsize    heddle_tensor_bytes     (HeddleDtype dtype, const HeddleShape *shape);

/* (transfer full) "64x1x28x28"; "scalar" for rank 0. */
char    *heddle_shape_print      (const HeddleShape *shape);
/* The shape that A and B broadcast to (NumPy's rule); FALSE when they do not. */
gboolean heddle_shape_broadcast  (const HeddleShape *a, const HeddleShape *b, HeddleShape *result);

/* IEEE 754 round to nearest even; overflow to infinity; subnormals kept; NaN stays NaN (quiet). */
guint16  heddle_f16_from_f32     (float x);
float    heddle_f32_from_f16     (guint16 h);
guint16  heddle_bf16_from_f32    (float x);
float    heddle_f32_from_bf16    (guint16 h);

/* Converts N elements between any two dtypes.  Float to integer truncates and saturates; integer to float rounds.
 * SRC and DST must not overlap. */
void     heddle_convert          (HeddleDtype dst_dtype, gpointer dst, HeddleDtype src_dtype, gconstpointer src, gsize n);

G_END_DECLS

#endif
