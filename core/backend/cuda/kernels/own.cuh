/* kernels/own.cuh: numbers of all dtypes as f32, sums over warps and blocks, instantiation.  Must not know any operation. */
#pragma once
#include "backend/cuda/kernels/args.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#ifndef HEDDLE_EXPORT_KERNEL                  /* the simulated device keeps a list of kernels */
#define HEDDLE_EXPORT_KERNEL(name)
#define HEDDLE_DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#endif

/* NAME_f32, NAME_f16, NAME_bf16: NAME is a device function template over the storage type with one argument structure */
#define KERNEL_OF(name, T, suffix, Args) \
  extern "C" __global__ void name##_##suffix (const Args a) { name<T> (a); } \
  HEDDLE_EXPORT_KERNEL (name##_##suffix)
#define KERNEL(name, Args) KERNEL_OF (name, float, f32, Args) KERNEL_OF (name, __half, f16, Args) KERNEL_OF (name, __nv_bfloat16, bf16, Args)
/* one kernel whose operands say their dtypes */
#define KERNEL_PLAIN(name, Args) \
  extern "C" __global__ void name (const Args a) { name##_body (a); } \
  HEDDLE_EXPORT_KERNEL (name)

static __device__ __forceinline__ float to_float (float x) { return x; }
static __device__ __forceinline__ float to_float (__half x) { return __half2float (x); }
static __device__ __forceinline__ float to_float (__nv_bfloat16 x) { return __bfloat162float (x); }
template <class T> static __device__ __forceinline__ T from_float (float x);
template <> __device__ __forceinline__ float from_float<float> (float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half> (float x) { return __float2half_rn (x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16> (float x) { return __float2bfloat16_rn (x); }

template <class T> static __device__ __forceinline__ float ld (const void *p, int64_t i) { return to_float (((const T *) p)[i]); }
template <class T> static __device__ __forceinline__ void st (void *p, int64_t i, float x) { ((T *) p)[i] = from_float<T> (x); }

static __device__ __forceinline__ float
load_any (const void *p, int32_t dtype, int64_t i)
{
  switch (dtype)
    {
    case HK_F32: return ((const float *) p)[i];
    case HK_F16: return ld<__half> (p, i);
    case HK_BF16: return ld<__nv_bfloat16> (p, i);
    case HK_U8: return (float) ((const uint8_t *) p)[i];
    case HK_I32: return (float) ((const int32_t *) p)[i];
    default: return (float) ((const int64_t *) p)[i];
    }
}

static __device__ __forceinline__ int64_t
load_index (const void *p, int32_t dtype, int64_t i)
{
  return dtype == HK_U8 ? ((const uint8_t *) p)[i] : dtype == HK_I32 ? ((const int32_t *) p)[i] : ((const int64_t *) p)[i];
}

static __device__ __forceinline__ void
store_any (void *p, int32_t dtype, int64_t i, float x)
{
  switch (dtype)
    {
    case HK_F32: ((float *) p)[i] = x; break;
    case HK_F16: st<__half> (p, i, x); break;
    case HK_BF16: st<__nv_bfloat16> (p, i, x); break;
    case HK_U8: ((uint8_t *) p)[i] = (uint8_t) x; break;
    case HK_I32: ((int32_t *) p)[i] = (int32_t) x; break;
    default: ((int64_t *) p)[i] = (int64_t) x; break;
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
      int lane = (int) (threadIdx.x & 31), warps = (int) (blockDim.x >> 5);
      if (lane == 0)
        part[threadIdx.x >> 5] = v;
      __syncthreads ();
      v = lane < warps ? part[lane] : MAXIMUM ? part[0] : 0.0f;
      v = MAXIMUM ? warp_max (v) : warp_sum (v);
      __syncthreads ();
    }
  return v;
}
static __device__ float block_sum (float v) { return block_reduce<false> (v); }
static __device__ float block_max (float v) { return block_reduce<true> (v); }
