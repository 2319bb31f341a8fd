/* stage/prefetch.c: h.prefetch { dataset, ... }: batches: their options, and what a batch is in a program.  Must not know the loader's threads. */
#include "stage/classes.h"

#include <string.h>

static const HeddleOption options[] = {
  HEDDLE_INT (HeddlePrefetchOptions, batch_size, 1, 1, 65536, "samples of a batch", .unit = "samples"),
  HEDDLE_BOOL (HeddlePrefetchOptions, shuffle, FALSE, "a new order for every pass over the data"),
  HEDDLE_INT (HeddlePrefetchOptions, num_workers, -1, 0, 1024, "reading threads; auto: as many as CPUs allowed, at most 8; 0: read on the training thread", .word = "auto", .word_value = -1),
  HEDDLE_BOOL (HeddlePrefetchOptions, pin_memory, FALSE, "batch buffers in page-locked memory, which a GPU copies from faster"),
  HEDDLE_BOOL (HeddlePrefetchOptions, persistent_workers, TRUE, "keep the threads between epochs; never changes a result"),
  HEDDLE_INT (HeddlePrefetchOptions, prefetch_factor, 2, 1, 1024, "batches prepared ahead per worker", .unit = "batches"),
  HEDDLE_BOOL (HeddlePrefetchOptions, drop_last, FALSE, "leave out the last batch of a pass if it is not full"),
  HEDDLE_FLOAT (HeddlePrefetchOptions, timeout, 0, 0, 1e6, "longest wait for one batch; 0 = for ever", .unit = "s"),
  HEDDLE_INT (HeddlePrefetchOptions, seed, -1, 0, G_MAXINT64, "of order and augmentation; run: the run's seed", .word = "run", .word_value = -1),
  HEDDLE_OPTIONS_END
};

HeddleOptionTable
heddle_prefetch_options (void)
{
  return HEDDLE_OPTION_TABLE (options);
}

static HeddleValue *
dequantize (HeddleEmit *emit, const HeddleField *f, HeddleValue *x)
{
  HeddleDequantizeAttr attr = { .scale = f->scale, .channels = MAX (f->channels, 1), .mean = { 0 }, .std = { 1 } };
  if (f->channels)
    {
      memcpy (attr.mean, f->mean, sizeof attr.mean);
      memcpy (attr.std, f->std, sizeof attr.std);
    }
  return heddle_emit (emit->builder, HEDDLE_OP_DEQUANTIZE, f->name, &x, 1, &attr, sizeof attr);
}

static HeddleContract
contract_of (const HeddleField *f)
{
  HeddleContract c = { .classes = f->classes };
  if (f->scale != 0 && f->dtype == HEDDLE_U8)
    {
      double mean = f->channels ? f->mean[0] : 0, std = f->channels ? f->std[0] : 1;
      c.low = -mean / std;
      c.high = (255 * f->scale - mean) / std;
    }
  return c;
}

static gboolean
emit_prefetch (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  const HeddleDatasetInfo *info = in[0]->info;
  (void) stage;
  (void) n_in;
  for (guint i = 0; i < info->n_fields; i++)
    {
      const HeddleField *f = &info->field[i];
      HeddleShape shape = { .rank = f->shape.rank + 1, .size = { emit->batch_size } };
      memcpy (shape.size + 1, f->shape.size, (gsize) f->shape.rank * sizeof shape.size[0]);
      HeddleValue *x = heddle_builder_input (emit->builder, f->name, f->dtype, &shape);
      HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_TENSOR, f->name);
      port->value = f->scale != 0 ? dequantize (emit, f, x) : x;
      port->contract = contract_of (f);
    }
  return heddle_emit_ok (emit, error);
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_DATASET };

const HeddleStageClass heddle_stage_prefetch = {
  .verb = "prefetch", .summary = "Batches of a data set, read ahead by worker threads", .options = { options, sizeof (HeddleOption) },
  .instance_size = sizeof (HeddlePrefetchOptions), .min_inputs = 1, .max_inputs = 1, .input_kinds = inputs, .output = HEDDLE_PORT_BATCH, .emit = emit_prefetch,
};
