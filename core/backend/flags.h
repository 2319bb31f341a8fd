/* backend/flags.h: how numbers are computed: the one home of the performance and precision flags.
 * Must not know the libraries that honour them. */
#ifndef HEDDLE_BACKEND_FLAGS_H
#define HEDDLE_BACKEND_FLAGS_H

#include "base/options.h"

G_BEGIN_DECLS

typedef enum { HEDDLE_PRECISION_HIGHEST = 1, HEDDLE_PRECISION_HIGH, HEDDLE_PRECISION_MEDIUM } HeddleMatmulPrecision;

/* h.flags { ... }: members are the Lua keys. */
typedef struct
{
  bool   cudnn_benchmark;          /* time the candidates once per shape, while compiling */
  gint64 benchmark_limit;          /* most candidates tried per operation; 0 = all */
  gint64 benchmark_shapes;         /* most distinct shapes timed; later ones take the heuristics' first choice */
  gint64 workspace_limit;          /* MiB an algorithm may take as scratch */
  bool   tf32;                     /* both of the next two */
  bool   tf32_matmul, tf32_conv;
  int    matmul_precision;         /* HeddleMatmulPrecision */
  bool   deterministic;            /* deterministic algorithms only */
  bool   fusion;                   /* join elementwise operations with the operations before them */
  bool   cuda_graphs;              /* CUDA: a step is captured once and replayed */
  bool   winograd;                 /* 3x3 convolutions in fewer products where it is faster; rounds coarser */
  gint64 threads;                  /* CPU threads for arithmetic; "auto" (0) = what the affinity mask and cgroup allow */
} HeddleFlags;

HeddleOptionTable heddle_flags_options (void);
/* Contradictions are refused: tf32_matmul with matmul_precision "highest" set by hand, ...: SET holds the names given by the user. */
gboolean          heddle_flags_resolve (HeddleFlags *flags, GHashTable *set, GError **error);
/* CPUs this process may use: the calling thread's affinity mask and the cgroup quota (v1, v2; of its own group and those above), at least 1.
 * What threads = "auto" and num_workers = "auto" (at most 8) mean. */
guint             heddle_flags_cpus    (void);
/* The quota alone, rounded up; G_MAXUINT without one.  ROOT is "/", or the folder under which a test has laid proc/ and sys/. */
guint             heddle_flags_quota   (const char *root);

G_END_DECLS

#endif
