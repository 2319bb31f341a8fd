/* stage/loss.c: h.loss "cross_entropy" and "mse": a scalar to minimise and its denominator.  Must not know models. */
#include "stage/classes.h"

typedef struct
{
  double          label_smoothing;
  gint64          ignore_index;
  HeddleFloatList class_weights;
} CrossEntropy;

static const HeddleOption cross_entropy_options[] = {
  HEDDLE_FLOAT (CrossEntropy, label_smoothing, 0, 0, 1, "share of the target spread evenly over all classes"),
  HEDDLE_INT (CrossEntropy, ignore_index, -100, G_MININT64, G_MAXINT64, "label whose samples count neither in the loss nor in its mean"),
  HEDDLE_FLOAT_LIST (CrossEntropy, class_weights, NULL, 0, 1e9, "one weight per class; the mean is over the weights"),
  HEDDLE_OPTIONS_END
};

/* A table of weights lives with the variables, so that every program reads the same numbers. */
static HeddleValue *
weights_value (HeddleStage *stage, HeddleEmit *emit, gint64 classes, GError **error)
{
  const HeddleFloatList *list = &((CrossEntropy *) stage->self)->class_weights;
  HeddleShape shape = heddle_shape (classes);
  HeddleVariable *variable = NULL;
  if ((gint64) list->n != classes)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"class_weights\": %" G_GSIZE_FORMAT " weights for %" G_GINT64_FORMAT " classes", list->n, classes);
  else
    {
      g_autofree float *numbers = g_new (float, list->n);
      for (gsize i = 0; i < list->n; i++)
        numbers[i] = (float) list->items[i];
      variable = heddle_variables_table (heddle_builder_variables (emit->builder), "loss/class_weights", &shape, numbers, error);
    }
  return variable ? heddle_builder_variable (emit->builder, variable) : NULL;
}

static gboolean
emit_cross_entropy (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  const CrossEntropy *self = stage->self;
  HeddleCrossEntropyAttr attr = { self->label_smoothing, self->ignore_index };
  HeddleValue *values[2] = { NULL }, *inputs[3] = { in[0]->value, in[1]->value, NULL };
  (void) n_in;
  gboolean ok = heddle_check_classes (in[0], in[1], error);
  if (ok && self->class_weights.n)
    ok = (inputs[2] = weights_value (stage, emit, in[0]->value->shape.size[1], error)) != NULL;
  if (ok)
    emit->builder->iface->emit (emit->builder, HEDDLE_OP_CROSS_ENTROPY, "loss", inputs, inputs[2] ? 3 : 2, &attr, sizeof attr, values, 2);
  ok = ok && heddle_emit_ok (emit, error);
  if (ok)
    {
      HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_LOSS, "loss");
      port->value = values[0];
      port->weight = values[1];
    }
  return ok;
}

static gboolean
emit_mse (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  HeddleValue *values[2] = { NULL }, *inputs[2] = { in[0]->value, in[1]->value };
  (void) stage;
  (void) n_in;
  emit->builder->iface->emit (emit->builder, HEDDLE_OP_MSE, "loss", inputs, 2, NULL, 0, values, 2);
  gboolean ok = heddle_emit_ok (emit, error);
  if (ok)
    {
      HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_LOSS, "loss");
      port->value = values[0];
      port->weight = values[1];
    }
  return ok;
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_TENSOR, HEDDLE_PORT_TENSOR };

const HeddleStageClass heddle_stage_cross_entropy = {
  .verb = "loss", .variant = "cross_entropy", .summary = "Cross entropy of logits (N, classes) and class numbers (N)", .options = { cross_entropy_options, sizeof (HeddleOption) },
  .instance_size = sizeof (CrossEntropy), .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_cross_entropy,
};

const HeddleStageClass heddle_stage_mse = {
  .verb = "loss", .variant = "mse", .summary = "Mean of squared differences of two tensors of one shape", .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs,
  .output = HEDDLE_PORT_LOSS, .emit = emit_mse,
};
