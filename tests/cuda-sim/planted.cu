/* cuda-sim/planted.cu: kernels that are right and kernels with a bug each, for the simulator's own test.  Must not know Heddle. */
#include <cuda_runtime.h>
#include <stdint.h>
#ifndef HEDDLE_EXPORT_KERNEL
#define HEDDLE_EXPORT_KERNEL(name)
#define HEDDLE_DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif

extern "C" __global__ void
axpy (const float *x, float *y, float a, int64_t n)
{
  for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t) gridDim.x * blockDim.x)
    y[i] += a * x[i];
}
HEDDLE_EXPORT_KERNEL (axpy)

extern "C" __global__ void
reverse (const float *x, float *y)
{
  __shared__ float block[256];
  block[threadIdx.x] = x[threadIdx.x];
  __syncthreads ();
  y[threadIdx.x] = block[255 - threadIdx.x];
}
HEDDLE_EXPORT_KERNEL (reverse)

extern "C" __global__ void
reverse_without_barrier (const float *x, float *y)
{
  __shared__ float block[256];
  block[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = block[255 - threadIdx.x];
}
HEDDLE_EXPORT_KERNEL (reverse_without_barrier)

/* one warp sums 32 numbers of each row of dynamic shared memory */
extern "C" __global__ void
row_sums (const float *x, float *y)
{
  HEDDLE_DYNAMIC_SHARED (float, tile);
  tile[threadIdx.y * 32 + threadIdx.x] = x[threadIdx.y * 32 + threadIdx.x];
  __syncthreads ();
  float v = tile[threadIdx.y * 32 + threadIdx.x];
  for (int o = 16; o; o >>= 1)
    v += __shfl_xor_sync (0xffffffffu, v, o);
  if (threadIdx.x == 0)
    y[threadIdx.y] = v;
}
HEDDLE_EXPORT_KERNEL (row_sums)

extern "C" __global__ void
divergent (float *y)
{
  if (threadIdx.x < 16)
    y[threadIdx.x] = __shfl_xor_sync (0xffffffffu, y[threadIdx.x], 1);
  else
    __syncthreads ();
  __syncthreads ();
}
HEDDLE_EXPORT_KERNEL (divergent)

extern "C" __global__ void
one_too_many (float *x, int n)
{
  int i = (int) (blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= n)
    x[i] = 1;
}
HEDDLE_EXPORT_KERNEL (one_too_many)

/* four numbers at once, from where the caller says */
struct alignas (16) Four { float v[4]; };
extern "C" __global__ void
four (const float *x, float *y, int64_t from)
{
  *(Four *) y = *(const Four *) (x + from);
}
HEDDLE_EXPORT_KERNEL (four)

/* nobody launches it but into a capture */
extern "C" __global__ void
never_run (float *x)
{
  *x = 1;
}
HEDDLE_EXPORT_KERNEL (never_run)

struct Much { char bytes[4104]; };
extern "C" __global__ void
much (Much m)
{
  (void) m;
}
HEDDLE_EXPORT_KERNEL (much)
