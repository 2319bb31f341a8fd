/* cuda-chain/host.h: programs run by generated kernels that a host compiler compiled.  Must not know which programs. */
#ifndef HEDDLE_TESTS_CUDA_CHAIN_HOST_H
#define HEDDLE_TESTS_CUDA_CHAIN_HOST_H

#include "backend/cuda/chain.h"

/* A set of kernels: added one by one, compiled together, then run. */
typedef struct _Host Host;
Host    *host_new   (void);
void     host_free  (Host *host);
/* FALSE: there is no C++ compiler (the only case that is not an error of the sources, which aborts). */
gboolean host_build (Host *host);

/* A program taken apart into chains and other operations. */
typedef struct
{
  const HeddleProgram *program;
  ChainOptions         options;
  Host                *host;
  GPtrArray           *steps, *blocks;   /* Step *; memory */
  gpointer            *data;       /* by value id: of temporaries and constants; inputs are set by the caller */
  GHashTable          *variables;  /* flat or lone HeddleVariable * -> memory */
  GHashTable          *copies;     /* HeddleVariable * -> guint16 * */
  guint                shift;      /* bytes that every tensor's memory lies behind a multiple of 64 */
  guint                n_chains;
} Exec;
Exec    *exec_new   (Host *host, const HeddleProgram *program, const ChainOptions *options, guint shift);
void     exec_free  (Exec *exec);
void     exec_run   (Exec *exec);
/* The memory of VALUE; for temporaries and constants there from the start, for variables from the first call on. */
gpointer exec_data  (Exec *exec, const HeddleValue *value);
gpointer exec_variable (Exec *exec, HeddleVariable *variable);
/* How many chains have N elements, and the one at I */
guint    exec_count (const Exec *exec, gint64 n);
/* N bytes, at SHIFT behind a multiple of 64; lives as long as EXEC */
gpointer exec_alloc (Exec *exec, gsize n);

#endif
