/* cpu/each-isa.h: includes KERNELS, a header of loops over vectors of W floats whose functions are called NAME (f), once for each instruction set: f_any, f_avx2, f_avx512.
 * CPU_PICK (f) is the one in use.  Must not know what the loops compute. */
#define W 8
#define NAME(f) f##_any
#include KERNELS
#undef NAME
#if defined (__x86_64__) && defined (__GNUC__)
#pragma GCC push_options
#pragma GCC target ("avx2,fma")
#define NAME(f) f##_avx2
#include KERNELS
#undef NAME
#pragma GCC pop_options
#undef W
#define W 16
#pragma GCC push_options
#pragma GCC target ("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")
#define NAME(f) f##_avx512
#include KERNELS
#undef NAME
#pragma GCC pop_options
#endif
#undef W
#undef KERNELS
