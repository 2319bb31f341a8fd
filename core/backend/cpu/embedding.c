/* cpu/embedding.c: rows of a table by index, and the dense gradient of the table.  Must not know what runs around them. */
#include "cpu.h"

#include <string.h>

#define COLUMNS 64          /* of the table that one thread adds to, for all rows in order: the same sums for any number of threads */

static gint64
index_at (HeddleDtype dtype, gconstpointer indices, gint64 i)
{
  return dtype == HEDDLE_I64 ? ((const gint64 *) indices)[i] : dtype == HEDDLE_I32 ? ((const gint32 *) indices)[i] : ((const guint8 *) indices)[i];
}

static void
run_embedding (CpuPlan *plan, Step *step)
{
  const Operand *indices = &step->in[0];
  gint64 n = heddle_shape_count (&indices->shape), rows = step->in[1].shape.size[0], width = step->in[1].shape.size[1], bad = -1;
  gconstpointer index = IN (0);
  const float *table = IN (1);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (n * width >= PARALLEL_MIN) reduction(max:bad)
  for (gint64 i = 0; i < n; i++)
    {
      gint64 row = index_at (indices->dtype, index, i);
      if (row >= 0 && row < rows)
        memcpy (y + i * width, table + row * width, (gsize) width * sizeof (float));
      else
        bad = MAX (bad, i);
    }
  if (bad >= 0)
    cpu_fault (plan, step, "index %" G_GINT64_FORMAT " at position %" G_GINT64_FORMAT " is out of range 0..%" G_GINT64_FORMAT "\nhint: the table has %" G_GINT64_FORMAT
               " rows; give the model as many as the data has values", index_at (indices->dtype, index, bad), bad, rows - 1, rows);
}

VECTOR (void, add_row, (float *restrict sum, const float *x, gint64 n), (sum, x, n))
{
  for (gint64 j = 0; j < n; j++)
    sum[j] += x[j];
}

static void
run_embedding_grad (CpuPlan *plan, Step *step)
{
  const Operand *indices = &step->in[1];
  gint64 n = heddle_shape_count (&indices->shape), rows = step->out[0].shape.size[0], width = step->out[0].shape.size[1];
  gconstpointer index = IN (1);
  const float *dy = IN (0);
  float *table = OUT (0);
#pragma omp parallel for schedule(static) if ((n + rows) * width >= PARALLEL_MIN)
  for (gint64 j = 0; j < width; j += COLUMNS)
    {
      gint64 m = MIN (COLUMNS, width - j);
      for (gint64 row = 0; row < rows; row++)
        memset (table + row * width + j, 0, (gsize) m * sizeof (float));
      for (gint64 i = 0; i < n; i++)
        {
          gint64 row = index_at (indices->dtype, index, i);
          if (row >= 0 && row < rows)           /* the forward step has ended the run otherwise */
            add_row (table + row * width + j, dy + i * width + j, m);
        }
    }
}

gboolean
cpu_emit_embedding (CpuCompiler *c, const HeddleOp *op)
{
  gboolean ok = TRUE;
  if (op->info->code == HEDDLE_OP_EMBEDDING)
    cpu_simple (c, op, "embedding", run_embedding, &cpu_plain);
  else if (op->info->code == HEDDLE_OP_EMBEDDING_GRAD)
    cpu_simple (c, op, "embedding", run_embedding_grad, &cpu_plain);
  else
    ok = FALSE;
  return ok;
}
