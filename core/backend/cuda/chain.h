/* cuda/chain.h: a run of elementwise operations becomes the source of one kernel.
 * Must not know plans, devices or CUDA's libraries: a program goes in, text and a list of arguments come out. */
#ifndef HEDDLE_BACKEND_CUDA_CHAIN_H
#define HEDDLE_BACKEND_CUDA_CHAIN_H

#include "program/program.h"

#define CHAIN_THREADS 256
#define CHAIN_MAX_ARGS 48

/* How the elements of tensors of rank 4 (N, C, H, W) follow each other in memory; all of a chain are alike.  Others are row-major. */
typedef enum { CHAIN_ROWS = 0, CHAIN_CHANNELS_LAST } ChainOrder;

typedef struct
{
  ChainOrder order;
  /* The dtype of a second, rounded copy that every assignment of VARIABLE writes too (CHAIN_COPY), or 0; may be NULL. */
  HeddleDtype (*copy) (const HeddleVariable *variable, gpointer data);
  gpointer     data;
} ChainOptions;

typedef enum { CHAIN_VALUE = 1, CHAIN_COPY, CHAIN_NUMBER } ChainArgKind;

/* One parameter of the kernel. */
typedef struct
{
  ChainArgKind       kind;
  const HeddleValue *value;     /* VALUE: whose memory; COPY: the variable whose 16-bit copy is written */
  HeddleDtype        dtype;     /* of that memory */
  gboolean           read, written;
  gboolean           dense;     /* thread i touches element i alone: an output may take the place of an input of the same dtype's size */
  guint64            number;    /* NUMBER: a 32-bit word, or the count */
  guint              bytes;     /* NUMBER: 4 or 8 */
} ChainArg;

typedef struct
{
  char   *name;                 /* of the kernel: "chain_mul_add_sub_5d2a0c3e4b"; no other source has it */
  char   *source;               /* CUDA C++; the text of kernels/common.cuh and kernels/elementwise.cuh goes in front */
  GArray *args;                 /* ChainArg, in the order of the kernel's parameters */
  gint64  n;                    /* elements; 1 for a chain of scalars */
  guint   width;                /* elements a thread takes at a time */
} Chain;

void   chain_free    (Chain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Chain, chain_free)

/* One past the last operation that can run in one kernel together with operation FROM; FROM itself when that is not elementwise. */
guint  chain_end     (const HeddleProgram *program, guint from, const ChainOptions *options);
/* (transfer full) The kernel of operations FROM .. TO - 1, TO <= chain_end ().  Views among them cost nothing. */
Chain *chain_new     (const HeddleProgram *program, guint from, guint to, const ChainOptions *options);
/* Blocks to launch on a device with PROCESSORS multiprocessors: enough to fill it, each thread then takes every so-manieth element. */
guint  chain_blocks  (const Chain *chain, guint processors);
/* Threads of a block. */
guint  chain_threads (const Chain *chain);

#endif
