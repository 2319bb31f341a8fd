/* pipeline/rates.c: the tables of rates and momenta that the update program looks up by the device's own count of applied updates.  Must not know the run loop.
 * A table has the updates of one epoch: at the next the host waits for the device anyway, and a plateau moves only between epochs. */
#include "pipeline/internal.h"

#include <math.h>

#define WINDOW 16384            /* counts at most: an epoch of more updates waits once in so many */

void
heddle_rates_prepare (HeddlePipeline *p)
{
  gint64 per_epoch = (p->steps_per_epoch + p->options->accumulate - 1) / p->options->accumulate;
  if (p->schedule && p->amp_choice.scaling && p->options->schedule_on == 1)
    {
      p->update_state.window = CLAMP (per_epoch, 1, WINDOW);
      p->update_state.cycles = !isnan (heddle_schedule_at (p->schedule->stage, 0, 1, 1).momentum);
    }
}

static gboolean
write_table (HeddlePipeline *p, HeddleVariable *table, float *numbers, GError **error)
{
  HeddleTensor tensor = { HEDDLE_F32, table ? table->shape : heddle_scalar_shape (), numbers };
  return !table || p->device->iface->write (p->device, table, &tensor, error);
}

gboolean
heddle_rates_fill (HeddlePipeline *p, gint64 planned, double base_lr, GError **error)
{
  const HeddleUpdateState *s = &p->update_state;
  g_autofree float *rates = g_new (float, s->window), *momenta = g_new (float, s->window);
  double count = 0;
  gboolean ok = heddle_device_read_scalar (p->device, s->updates, &count, error);
  for (gint64 i = 0; ok && i < s->window; i++)
    {
      HeddleScheduleFactors f = heddle_schedule_at (p->schedule->stage, MIN ((gint64) count + i, planned - 1), planned, base_lr);
      rates[i] = (float) (f.lr * base_lr);
      momenta[i] = (float) f.momentum;
    }
  return ok && write_table (p, s->rates, rates, error) && write_table (p, s->momenta, momenta, error) && (!s->first || heddle_device_write_scalar (p->device, s->first, count, error));
}
