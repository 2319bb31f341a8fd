/* cuda/kernels/export.cuh: what the simulated device of the tests defines otherwise: registration of kernels, and shared memory of a size known at launch. */
#ifndef HEDDLE_EXPORT_KERNEL
#define HEDDLE_EXPORT_KERNEL(name)
#define HEDDLE_DYN_SMEM(T, name) extern __shared__ T name[]
#endif
