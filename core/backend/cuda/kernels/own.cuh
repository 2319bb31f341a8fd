/* cuda/kernels/own.cuh: what the own kernels share: access to any storage, sums over warps and blocks, instantiation.  Must not know any operation. */
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>

#include "backend/cuda/kernels/common.cuh"
#include "backend/cuda/kernels/args.h"

#ifndef HEDDLE_EXPORT_KERNEL                  /* the simulated device keeps a list of kernels */
#define HEDDLE_EXPORT_KERNEL(name)
#endif

#define MINUS_INFINITY (-bits_float (0x7f800000u))

/* NAME_f32, NAME_f16, NAME_bf16: NAME is a device function template over the storage type with one argument structure */
#define KERNEL_OF(name, T, Args) \
  extern "C" __global__ void name##_##T (const Args a) { name<T> (a); } \
  HEDDLE_EXPORT_KERNEL (name##_##T)
#define KERNEL(name, Args) KERNEL_OF (name, f32, Args) KERNEL_OF (name, f16, Args) KERNEL_OF (name, bf16, Args)
/* one kernel whose operands say their dtypes */
#define KERNEL_PLAIN(name, Args) \
  extern "C" __global__ void name (const Args a) { name##_body (a); } \
  HEDDLE_EXPORT_KERNEL (name)

template <class T> HD f32 ld (const void *p, int64_t i) { return to_float (((const T *) p)[i]); }
template <class T> HD void st (void *p, int64_t i, f32 x) { from_float (x, ((T *) p)[i]); }

static HD f32
load_any (const void *p, int32_t dtype, int64_t i)
{
  switch (dtype)
    {
    case HK_F32: return ld<f32> (p, i);
    case HK_F16: return ld<f16> (p, i);
    case HK_BF16: return ld<bf16> (p, i);
    case HK_U8: return ld<u8> (p, i);
    case HK_I32: return ld<i32> (p, i);
    default: return ld<i64> (p, i);
    }
}

static HD int64_t
load_index (const void *p, int32_t dtype, int64_t i)
{
  return dtype == HK_U8 ? ((const u8 *) p)[i] : dtype == HK_I32 ? ((const i32 *) p)[i] : ((const i64 *) p)[i];
}

static HD void
store_any (void *p, int32_t dtype, int64_t i, f32 x)
{
  switch (dtype)
    {
    case HK_F32: st<f32> (p, i, x); break;
    case HK_F16: st<f16> (p, i, x); break;
    case HK_BF16: st<bf16> (p, i, x); break;
    case HK_U8: st<u8> (p, i, x); break;
    case HK_I32: st<i32> (p, i, x); break;
    default: st<i64> (p, i, x); break;
    }
}

/* this thread's number in the grid, and how many there are */
static __device__ __forceinline__ int64_t first_index () { return (int64_t) blockIdx.x * blockDim.x + threadIdx.x; }
static __device__ __forceinline__ int64_t index_step () { return (int64_t) gridDim.x * blockDim.x; }

static __device__ __forceinline__ float
warp_sum (float v)
{
  for (int o = 16; o; o >>= 1)
    v += __shfl_xor_sync (0xffffffffu, v, o);
  return v;
}

static __device__ __forceinline__ float
warp_max (float v)
{
  for (int o = 16; o; o >>= 1)
    {
      float other = __shfl_xor_sync (0xffffffffu, v, o);
      v = other > v || other != other ? other : v;
    }
  return v;
}

/* The sum, or maximum, over a one-dimensional block of whole warps, for every thread; the order of additions is fixed. */
template <bool MAXIMUM> static __device__ float
block_reduce (float v)
{
  __shared__ float part[32];
  v = MAXIMUM ? warp_max (v) : warp_sum (v);
  if (blockDim.x > 32)
    {
      int warps = (int) (blockDim.x >> 5);
      if ((threadIdx.x & 31) == 0)
        part[threadIdx.x >> 5] = v;
      __syncthreads ();
      v = part[0];
      for (int w = 1; w < warps; w++)
        v = !MAXIMUM ? v + part[w] : part[w] > v || is_nan (part[w]) ? part[w] : v;
      __syncthreads ();
    }
  return v;
}
static __device__ float block_sum (float v) { return block_reduce<false> (v); }
static __device__ float block_max (float v) { return block_reduce<true> (v); }
