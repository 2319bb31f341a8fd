/* cpu/transposed.c: the bias of a transposed convolution; the convolution itself is conv2d's gradient by its input, in dnn.c and direct.c.
 * Must not know how that was computed. */
#include "cpu.h"

VECTOR (void, add_rows, (float *restrict y, const float *bias, gint64 pixels, gint lanes), (y, bias, pixels, lanes))
{
  for (gint64 i = 0; i < pixels; i++)
    for (gint l = 0; l < lanes; l++)
      y[i * lanes + l] += bias[l];
}

/* in place: Y is in[0] and out[0] */
static void
run_channel_bias (CpuPlan *plan, Step *step)
{
  const HeddleShape *s = &step->out[0].shape;
  gint lanes = step->out[0].layout->kind == LAYOUT_BLOCKED ? plan->device->block : 1;
  gint64 blocks = s->size[1] / lanes, pixels = s->size[2] * s->size[3];
  const float *bias = IN (1);
  float *y = OUT (0);
#pragma omp parallel for schedule(static) if (heddle_shape_count (s) >= PARALLEL_MIN)
  for (gint64 k = 0; k < s->size[0] * blocks; k++)
    add_rows (y + k * pixels * lanes, bias + k % blocks * lanes, pixels, lanes);
}

/* A 16-bit result is rounded twice: by the convolution, and once more after this. */
void
cpu_emit_channel_bias (CpuCompiler *c, const HeddleOp *op)
{
  Operand made = *cpu_made (c, op->out[0]), bias = cpu_form (c, op->in[2], HEDDLE_F32, &cpu_plain), y = made;
  if (made.dtype != HEDDLE_F32)
    {
      y = cpu_temp (c->plan, HEDDLE_F32, &made.shape, made.layout);
      cpu_emit_convert (c, &made, &y);
    }
  Step *step = cpu_step_new (c->plan, op, "bias", run_channel_bias);
  step->in[step->n_in++] = y;
  step->in[step->n_in++] = bias;
  step->out[step->n_out++] = y;
  if (made.dtype != HEDDLE_F32)
    cpu_emit_convert (c, &y, &made);
}
