/* tensor/tensor.h: dtypes, shapes and views.  Must not know devices: a view is host memory, row-major and contiguous. */
#ifndef HEDDLE_TENSOR_TENSOR_H
#define HEDDLE_TENSOR_TENSOR_H

#include <glib.h>

G_BEGIN_DECLS

/* X (code, number, nick, bytes): the one list of dtypes.  The numbers never change (ABI). */
#define HEDDLE_DTYPES(X) \
  X (F32,  1, "f32",  4) \
  X (F16,  2, "f16",  2) \
  X (BF16, 3, "bf16", 2) \
  X (U8,   4, "u8",   1) \
  X (I32,  5, "i32",  4) \
  X (I64,  6, "i64",  8)

typedef enum
{
#define X(code, number, nick, bytes) HEDDLE_##code = number,
  HEDDLE_DTYPES (X)
#undef X
} HeddleDtype;

static inline gsize
heddle_dtype_size (HeddleDtype dtype)
{
  switch (dtype)
    {
#define X(code, number, nick, bytes) case HEDDLE_##code: return bytes;
      HEDDLE_DTYPES (X)
#undef X
    }
  return 0;
}

static inline const char *
heddle_dtype_name (HeddleDtype dtype)
{
  switch (dtype)
    {
#define X(code, number, nick, bytes) case HEDDLE_##code: return nick;
      HEDDLE_DTYPES (X)
#undef X
    }
  return "?";
}

static inline gboolean
heddle_dtype_is_16_bits (HeddleDtype dtype)
{
  return dtype == HEDDLE_F16 || dtype == HEDDLE_BF16;
}

static inline gboolean
heddle_dtype_is_float (HeddleDtype dtype)
{
  return dtype == HEDDLE_F32 || heddle_dtype_is_16_bits (dtype);
}

#define HEDDLE_MAX_RANK 6

/* Row-major sizes, outermost first; rank 0 is a scalar of one element.  Unused sizes are 0.
 * Images are (N, C, H, W); a sample of a dataset has no N. */
typedef struct
{
  gint32 rank;
  gint64 size[HEDDLE_MAX_RANK];
} HeddleShape;

/* heddle_shape (64, 1, 28, 28); heddle_scalar_shape () for rank 0. */
#define heddle_shape(...) \
  ((HeddleShape) { .rank = (gint32) (sizeof ((gint64[]) { __VA_ARGS__ }) / sizeof (gint64)), .size = { __VA_ARGS__ } })
#define heddle_scalar_shape() ((HeddleShape) { .rank = 0 })

static inline gint64
heddle_shape_count (const HeddleShape *shape)
{
  gint64 n = 1;
  for (gint32 i = 0; i < shape->rank; i++)
    n *= shape->size[i];
  return n;
}

static inline gboolean
heddle_shape_equal (const HeddleShape *a, const HeddleShape *b)
{
  gboolean equal = a->rank == b->rank;
  for (gint32 i = 0; equal && i < a->rank; i++)
    equal = a->size[i] == b->size[i];
  return equal;
}

/* A borrowed view of host memory. */
typedef struct
{
  HeddleDtype dtype;
  HeddleShape shape;
  gpointer    data;
} HeddleTensor;

G_END_DECLS

#endif
