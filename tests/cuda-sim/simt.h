/* cuda-sim/simt.h: lets g++ compile a .cu file as plain C++ whose kernels run on the CPU: g++ -x c++ -include simt.h.
 * Must not know any kernel, nor the runtime that launches them. */
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#ifdef SIMT_PLAIN            /* generated kernels, which include nothing: the toolkit's headers take a second to read */
#include <vector_types.h>
#else
#include <cuda_runtime.h>
#endif
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#define __global__
#define __device__
#define __host__
#define __shared__ static    /* blocks run one after another: a function's static is its block's memory */
#define __constant__ static
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __noinline__

namespace simt
{
struct Fibre;
/* One CUDA thread of the block in hand. */
struct Thread { uint3 tid; unsigned number, lane, warp, parity; int state; unsigned mask; Fibre *fibre; const char *where; };

extern Thread *cur;
extern uint3 block_index;
extern dim3 block_size, grid_size;
extern char *dynamic_memory;
extern uint64_t slots[2][32][32];    /* parity, warp, lane: what a shuffle hands over */

void sync_block (const char *where);
int  sync_block_vote (int value, int what, const char *where);
void sync_warp (unsigned mask, const char *where);

typedef void (*Entry) (void **arguments);
struct Kernel { const char *name; Entry entry; int n; const size_t *sizes; Kernel *next; };
extern "C" Kernel *simt_registry (void);
extern "C" void simt_register (Kernel *kernel);
/* 0, or a cudaError_t and TEXT */
extern "C" int simt_launch (const Kernel *kernel, dim3 grid, dim3 block, void **arguments, size_t dynamic, char *text, size_t text_size);

template <class... A, size_t... I> inline void
call_with (void (*f) (A...), void **a, std::index_sequence<I...>)
{
  f (*reinterpret_cast<std::remove_const_t<A> *> (a[I])...);
}
template <class... A> inline void call (void (*f) (A...), void **a) { call_with (f, a, std::index_sequence_for<A...> {}); }
template <class... A> struct Sizes
{
  static const size_t *get () { static const size_t s[] = { sizeof (A)..., 0 }; return s; }
  static const int n = sizeof... (A);
};
template <class... A> inline Sizes<A...> sizes_of (void (*) (A...)) { return {}; }
struct Registration
{
  Kernel kernel;
  Registration (const char *name, Entry entry, int n, const size_t *sizes) { kernel = { name, entry, n, sizes, nullptr }; simt_register (&kernel); }
};

template <class T> inline T
shuffle (unsigned mask, T value, unsigned from, const char *where)
{
  static_assert (sizeof (T) <= 8, "a shuffle moves at most 8 bytes");
  unsigned parity = cur->parity;
  uint64_t bits = 0;
  memcpy (&bits, &value, sizeof value);
  slots[parity][cur->warp][cur->lane] = bits;
  cur->parity ^= 1;
  sync_warp (mask, where);
  T result = value;
  if (from < 32 && (mask >> from & 1))
    {
      bits = slots[parity][cur->warp][from];
      memcpy (&result, &bits, sizeof result);
    }
  return result;
}
}

#define HEDDLE_EXPORT_KERNEL(name) \
  static simt::Registration simt_registration_##name (#name, [] (void **a) { simt::call (name, a); }, decltype (simt::sizes_of (name))::n, \
                                                      decltype (simt::sizes_of (name))::get ());
/* of planted bugs only: Heddle's kernels have no dynamic shared memory */
#define HEDDLE_DYNAMIC_SHARED(T, name) T *name = reinterpret_cast<T *> (simt::dynamic_memory)
#define SIMT_TEXT2(x) #x
#define SIMT_TEXT(x) SIMT_TEXT2 (x)
#define SIMT_HERE __FILE__ ":" SIMT_TEXT (__LINE__)
#define threadIdx (simt::cur->tid)
#define blockIdx (simt::block_index)
#define blockDim (simt::block_size)
#define gridDim (simt::grid_size)
#define warpSize 32
#define __syncthreads() simt::sync_block (SIMT_HERE)
#define __syncthreads_or(x) simt::sync_block_vote (!!(x), 0, SIMT_HERE)
#define __syncthreads_and(x) simt::sync_block_vote (!!(x), 1, SIMT_HERE)
#define __syncthreads_count(x) simt::sync_block_vote (!!(x), 2, SIMT_HERE)
#define __syncwarp(...) simt::sync_warp (0xffffffffu, SIMT_HERE)
#define __shfl_xor_sync(m, v, o) simt::shuffle (m, v, simt::cur->lane ^ (unsigned) (o), SIMT_HERE)
#define __shfl_down_sync(m, v, o) simt::shuffle (m, v, simt::cur->lane + (unsigned) (o), SIMT_HERE)
#define __shfl_up_sync(m, v, o) simt::shuffle (m, v, simt::cur->lane - (unsigned) (o), SIMT_HERE)
#define __shfl_sync(m, v, s) simt::shuffle (m, v, (unsigned) (s) & 31u, SIMT_HERE)
template <class T> static inline T atomicAdd (T *p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicMax (T *p, T v) { T old = *p; if (v > old) *p = v; return old; }
static inline unsigned atomicOr (unsigned *p, unsigned v) { unsigned old = *p; *p = old | v; return old; }
template <class T> static inline T __ldg (const T *p) { return *p; }
static inline void __threadfence () {}
template <class T> static inline T min (T a, T b) { return b < a ? b : a; }
template <class T> static inline T max (T a, T b) { return a < b ? b : a; }
using std::isfinite;
using std::isnan;
static inline float rsqrtf (float x) { return 1.0f / sqrtf (x); }
static inline float __fdividef (float a, float b) { return a / b; }
static inline unsigned __umulhi (unsigned a, unsigned b) { return (unsigned) ((uint64_t) a * b >> 32); }
