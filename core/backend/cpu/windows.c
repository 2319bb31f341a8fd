/* cpu/windows.c: sums over each parameter of a group, and numbers spread over them.  Must not know what they are for.
 * Work is cut into blocks that no thread count changes; sums of blocks are joined in order. */
#include "cpu.h"

#include <string.h>

#define BLOCK 16384       /* elements; a multiple of HEDDLE_FLAT_ALIGN */

typedef struct { gint64 from, n, gap; guint param; } Block;     /* gap: elements between its end and the next window */

static GArray *
blocks_of (const HeddleGroup *group)
{
  GArray *blocks = g_array_new (FALSE, FALSE, sizeof (Block));
  for (guint p = 0; p < group->params->len; p++)
    {
      const HeddleVariable *v = group->params->pdata[p];
      gint64 n = heddle_shape_count (&v->shape), next = p + 1 < group->params->len ? ((const HeddleVariable *) group->params->pdata[p + 1])->offset : group->n;
      for (gint64 at = 0; at < n; at += BLOCK)
        {
          gboolean last = n - at <= BLOCK;
          Block block = { v->offset + at, last ? n - at : BLOCK, last ? next - v->offset - n : 0, p };
          g_array_append_val (blocks, block);
        }
    }
  return blocks;
}

/* In 16 lanes of f32 over 4096 elements at a time, joined in double */
VECTOR (double, block_sum, (const float *x, gint64 n, gboolean squares), (x, n, squares))
{
  double sum = 0;
  for (gint64 k = 0; k < n; k += 4096)
    {
      float lanes[16] = { 0 };
      gint64 end = MIN (n, k + 4096), i = k;
      for (; squares && i + 16 <= end; i += 16)
        for (int l = 0; l < 16; l++)
          lanes[l] += x[i + l] * x[i + l];
      for (; i + 16 <= end; i += 16)
        for (int l = 0; l < 16; l++)
          lanes[l] += x[i + l];
      for (; i < end; i++)
        sum += squares ? (double) x[i] * x[i] : x[i];
      for (int l = 0; l < 16; l++)
        sum += lanes[l];
    }
  return sum;
}

static void
run_sum (CpuPlan *plan, Step *step)
{
  const GArray *blocks = step->data;
  gboolean squares = ((const HeddleParamSumAttr *) step->op->attr)->squares != 0;
  const float *x = IN (0);
  float *y = OUT (0);
  double *sums = IN (2), total = 0;
#pragma omp parallel for schedule(static) if (heddle_shape_count (&step->in[0].shape) >= PARALLEL_MIN)
  for (guint k = 0; k < blocks->len; k++)
    {
      const Block *b = &g_array_index (blocks, Block, k);
      sums[k] = block_sum (x + b->from, b->n, squares);
    }
  for (guint k = 0; k < blocks->len; k++)
    {
      const Block *b = &g_array_index (blocks, Block, k);
      gboolean first = k == 0 || b->param != g_array_index (blocks, Block, k - 1).param;
      total = first ? sums[k] : total + sums[k];
      y[b->param] = (float) total;
    }
}

static void
run_spread (CpuPlan *plan, Step *step)
{
  const GArray *blocks = step->data;
  const float *v = IN (0);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (heddle_shape_count (&step->out[0].shape) >= PARALLEL_MIN)
  for (guint k = 0; k < blocks->len; k++)
    {
      const Block *b = &g_array_index (blocks, Block, k);
      float number = v[b->param];
      for (gint64 i = 0; i < b->n; i++)
        y[b->from + i] = number;
      memset (y + b->from + b->n, 0, (gsize) b->gap * sizeof (float));
    }
}

static void
free_blocks (gpointer data)
{
  g_array_unref (data);
}

gboolean
cpu_emit_windows (CpuCompiler *c, const HeddleOp *op)
{
  gboolean sum = op->info->code == HEDDLE_OP_PARAM_SUM, ok = sum || op->info->code == HEDDLE_OP_PARAM_SPREAD;
  if (ok)
    {
      GArray *blocks = blocks_of (op->in[1]->variable->group);
      HeddleShape sums = heddle_shape ((gint64) blocks->len * 2);
      Operand scratch = sum ? cpu_temp (c->plan, HEDDLE_F32, &sums, &cpu_plain) : (Operand) { 0 };
      Step *step = cpu_simple (c, op, "windows", sum ? run_sum : run_spread, &cpu_plain);
      if (sum)
        step->in[step->n_in++] = scratch;
      step->data = blocks;
      step->data_free = free_blocks;
    }
  return ok;
}
