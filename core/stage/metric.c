/* stage/metric.c: h.metric "accuracy" and "top_k": sums and counts over samples.  Must not know when they are asked for. */
#include "stage/classes.h"

typedef struct { gint64 k; } TopK;

static const HeddleOption top_k_options[] = {
  HEDDLE_INT (TopK, k, 5, 1, 1000000, "a sample counts when its label is among the k largest logits", .unit = "classes"),
  HEDDLE_OPTIONS_END
};

static gboolean
emit_metric (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  HeddleTopKAttr attr = { stage->self ? ((TopK *) stage->self)->k : 1 };
  HeddleValue *values[2] = { NULL }, *inputs[2] = { NULL };
  (void) n_in;
  gboolean ok = heddle_check_classes (in[0], in[1], error);
  if (ok)
    {
      heddle_flatten_classes (emit->builder, in, &inputs[0], &inputs[1]);
      emit->builder->iface->emit (emit->builder, HEDDLE_OP_TOP_K, stage->class->variant, inputs, 2, &attr, sizeof attr, values, 2);
    }
  ok = ok && heddle_emit_ok (emit, error);
  if (ok)
    {
      HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_METRIC, stage->class->variant);
      port->value = values[0];
      port->weight = values[1];
    }
  return ok;
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_TENSOR, HEDDLE_PORT_TENSOR };

const HeddleStageClass heddle_stage_accuracy = {
  .verb = "metric", .variant = "accuracy", .summary = "Share of samples whose largest logit is their label's", .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs,
  .output = HEDDLE_PORT_METRIC, .emit = emit_metric,
};

const HeddleStageClass heddle_stage_top_k = {
  .verb = "metric", .variant = "top_k", .summary = "Share of samples whose label is among the k largest logits", .options = { top_k_options, sizeof (HeddleOption) },
  .instance_size = sizeof (TopK), .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs, .output = HEDDLE_PORT_METRIC, .emit = emit_metric,
};
