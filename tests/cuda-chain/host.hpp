// host.hpp: generated kernels as host code: a kernel is a function, called once per thread.  Enough for kernels without barriers; must not know what they compute.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
static struct { unsigned x; } threadIdx, blockIdx, blockDim, gridDim;

template <class... A, size_t... I> static void
call (void (*kernel) (A...), void **args, std::index_sequence<I...>)
{
  kernel (*(A *) args[I]...);
}

// Threads in reverse order: nothing may depend on who comes first.
template <class... A> static void
launch (void (*kernel) (A...), unsigned blocks, unsigned threads, void **args)
{
  gridDim.x = blocks;
  blockDim.x = threads;
  for (blockIdx.x = blocks; blockIdx.x-- > 0;)
    for (threadIdx.x = threads; threadIdx.x-- > 0;)
      call (kernel, args, std::index_sequence_for<A...> {});
}
