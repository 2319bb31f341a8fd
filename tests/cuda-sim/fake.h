/* cuda-sim/fake.h: what the fake libraries share: a place in a stream, and what tests may ask the simulated device.
 * Must not know any kernel. */
#pragma once
#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Appends RUN (DATA) to the work of STREAM; it returns 0 or a cudaError_t.  DATA (BYTES of it) is copied, and kept when the work is captured. */
cudaError_t heddle_sim_enqueue (cudaStream_t stream, int (*run) (const void *data), const void *data, size_t bytes);
/* A message for the error that the work in hand is about to return. */
void        heddle_sim_message (const char *text);
/* Is [P, P + N) device memory? */
int         heddle_sim_is_device (const void *p, size_t n);
/* A product of 16-bit matrices was handed over whose rows tensor cores cannot load 16 bytes at a time. */
void        heddle_sim_unaligned (void);
/* Counters: "allocations", "launches", "syncs", "graph_launches", "operations", "live" (bytes), "peak" (bytes), "calls" (that can be made to fail), "failing" and "failing_allocation" (calls until one fails),
 * "contexts" (a bit for each device that something was asked of), "unaligned" (heddle_sim_unaligned); -1: no such. */
long        heddle_sim_counter (const char *name);
/* From now on the N-th allocation (of device or pinned memory), or the N-th call of any kind that can fail, fails; 0: none does. */
void        heddle_sim_fail_allocation (long n);
void        heddle_sim_fail_call (long n);
/* From now on nothing that is launched can be captured, or it can again. */
void        heddle_sim_no_captures (int on);
/* Device memory in bytes that are free and that there are. */
void        heddle_sim_limit (size_t bytes);
/* "lazy", "eager", "greedy" or "random"; see fake-cudart.cpp */
void        heddle_sim_schedule (const char *name);

#ifdef __cplusplus
}
#endif
