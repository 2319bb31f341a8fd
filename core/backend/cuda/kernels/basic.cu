/* cuda/kernels/basic.cu: filling, and converting between dtypes and orders. */
#include "common.cuh"
#include "export.cuh"

extern "C" __global__ void
fill_f32 (f32 *y, f32 value, i64 n)
{
  for (i64 i = (i64) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64) gridDim.x * blockDim.x)
    y[i] = value;
}
HEDDLE_EXPORT_KERNEL (fill_f32)

/* y[i] = x[i] as another dtype.  ROWS, COLUMNS > 0: x is batches of ROWS x COLUMNS and y their transposes, which is how N, C, (H, W) becomes N, (H, W), C and back. */
template <class From, class To> HD void
convert (const From *x, To *y, i64 n, i64 rows, i64 columns)
{
  for (i64 i = (i64) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64) gridDim.x * blockDim.x)
    {
      i64 from = i;
      if (rows)
        {
          i64 matrix = i / (rows * columns), rest = i % (rows * columns);
          from = (matrix * rows + rest % rows) * columns + rest / rows;
        }
      from_float (to_float (x[from]), y[i]);
    }
}

#define CONVERT(from, to) \
  extern "C" __global__ void convert_##from##_##to (const from *x, to *y, i64 n, i64 rows, i64 columns) { convert (x, y, n, rows, columns); } \
  HEDDLE_EXPORT_KERNEL (convert_##from##_##to)
#define CONVERT_TO(to) CONVERT (f32, to) CONVERT (f16, to) CONVERT (bf16, to) CONVERT (u8, to) CONVERT (i32, to) CONVERT (i64, to)
CONVERT_TO (f32)
CONVERT_TO (f16)
CONVERT_TO (bf16)

/* the same integers in another order: no rounding through f32 */
#define REORDER(type) \
  extern "C" __global__ void convert_##type##_##type (const type *x, type *y, i64 n, i64 rows, i64 columns) \
  { \
    for (i64 i = (i64) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (i64) gridDim.x * blockDim.x) \
      y[i] = rows ? x[(i / (rows * columns) * rows + i % (rows * columns) % rows) * columns + i % (rows * columns) / rows] : x[i]; \
  } \
  HEDDLE_EXPORT_KERNEL (convert_##type##_##type)
REORDER (u8)
REORDER (i32)
REORDER (i64)
