/* cpu/isa.h: instruction sets: which one is in use, and how a loop or a file of kernels is compiled for each.  Must not know kernels, devices or plans. */
#ifndef HEDDLE_BACKEND_CPU_ISA_H
#define HEDDLE_BACKEND_CPU_ISA_H

#include <glib.h>

/* In ascending order: each has what stands before it.  Loops of our own know three; the last two concern products of bf16 numbers in oneDNN. */
typedef enum { CPU_GENERIC = 0, CPU_AVX2, CPU_AVX512, CPU_AVX512_BF16, CPU_AMX } CpuIsa;

/* What HEDDLE_CPU_ISA says, else the best for this processor; decided when the first device is opened, for the life of the process. */
extern CpuIsa cpu_isa;
gboolean      cpu_isa_choose  (GError **error);
/* For people: "AVX-512", and "AVX-512 BF16" for what the processor has whether it is in use or not. */
const char   *cpu_isa_name    (CpuIsa isa);
CpuIsa        cpu_isa_present (void);

#if defined (__x86_64__) && defined (__GNUC__)
#define CPU_PICK(f) (cpu_isa >= CPU_AVX512 ? f##_avx512 : cpu_isa == CPU_AVX2 ? f##_avx2 : f##_any)
/* The same in each-isa.h, whose pragmas take no macro. */
#define VECTOR_AVX2   __attribute__ ((target ("avx2,fma")))
#define VECTOR_AVX512 __attribute__ ((target ("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")))

/* A function compiled for each instruction set: VECTOR (float, dot, (const float *a, const float *b, gint64 n), (a, b, n)) { ... }.  Plain loops only: vector types
 * are lowered before the body is inlined; those go into a header for each-isa.h.  (target_clones chooses by the processor alone, once and for all.) */
#define VECTOR(type, name, parameters, arguments) \
  static inline __attribute__ ((always_inline)) type name##_body parameters; \
  static type name##_any parameters { return name##_body arguments; } \
  VECTOR_AVX2 static type name##_avx2 parameters { return name##_body arguments; } \
  VECTOR_AVX512 static type name##_avx512 parameters { return name##_body arguments; } \
  static type name parameters { return CPU_PICK (name) arguments; } \
  static inline __attribute__ ((always_inline)) type name##_body parameters
#else
#define CPU_PICK(f) f##_any
#define VECTOR(type, name, parameters, arguments) static type name parameters
#endif

#endif
