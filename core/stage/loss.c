/* stage/loss.c: h.loss "cross_entropy", "mse", "l1", "smooth_l1", "bce_with_logits", "kl_div": a scalar to minimise and its denominator.  Must not know models. */
#include "stage/classes.h"
#include "tensor/tensors.h"

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
table_value (HeddleEmit *emit, const HeddleFloatList *list, const char *option, const char *variable_name, gint64 classes, GError **error)
{
  HeddleShape shape = heddle_shape (classes);
  HeddleVariable *variable = NULL;
  if ((gint64) list->n != classes)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"%s\": %" G_GSIZE_FORMAT " weights for %" G_GINT64_FORMAT " classes", option, list->n, classes);
  else
    {
      g_autofree float *numbers = g_new (float, list->n);
      for (gsize i = 0; i < list->n; i++)
        numbers[i] = (float) list->items[i];
      variable = heddle_variables_table (heddle_builder_variables (emit->builder), variable_name, &shape, numbers, error);
    }
  return variable ? heddle_builder_variable (emit->builder, variable) : NULL;
}

static gboolean
emit_cross_entropy (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  const CrossEntropy *self = stage->self;
  HeddleCrossEntropyAttr attr = { self->label_smoothing, self->ignore_index };
  HeddleValue *values[2] = { NULL }, *inputs[3] = { NULL };
  (void) n_in;
  gboolean ok = heddle_check_classes (in[0], in[1], error);
  if (ok)
    heddle_flatten_classes (emit->builder, in, &inputs[0], &inputs[1]);
  if (ok && self->class_weights.n)
    ok = (inputs[2] = table_value (emit, &self->class_weights, "class_weights", "loss/class_weights", inputs[0]->shape.size[1], error)) != NULL;
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

/* A loss port of OP over prediction and target, which must agree in shape and be floating-point. */
static gboolean
emit_loss (HeddleEmit *emit, HeddleOpCode op, HeddleValue *const *inputs, guint n, gconstpointer attr, gsize size, GArray *out, GError **error)
{
  HeddleValue *values[2] = { NULL };
  emit->builder->iface->emit (emit->builder, op, "loss", inputs, n, attr, size, values, 2);
  gboolean ok = heddle_emit_ok (emit, error);
  if (ok)
    {
      HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_LOSS, "loss");
      port->value = values[0];
      port->weight = values[1];
    }
  return ok;
}

static gboolean
check_pair (HeddlePort *const *in, GError **error)
{
  const HeddleValue *x = in[0]->value, *t = in[1]->value;
  g_autofree char *a = heddle_shape_print (&x->shape), *b = heddle_shape_print (&t->shape);
  gboolean floats = heddle_dtype_is_float (x->dtype) && heddle_dtype_is_float (t->dtype), same = heddle_shape_equal (&x->shape, &t->shape);
  if (!floats)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "prediction and target must be floating-point, got %s and %s\nhint: class numbers go to h.loss \"cross_entropy\"",
                 heddle_dtype_name (x->dtype), heddle_dtype_name (t->dtype));
  else if (!same)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_GRAPH, "the prediction has shape %s, the target %s\nhint: both must have the same shape; nothing is broadcast", a, b);
  return floats && same;
}

#define SIMPLE_LOSS(name, OP, attr, size) \
  static gboolean \
  emit_##name (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error) \
  { \
    HeddleValue *inputs[2] = { in[0]->value, in[1]->value }; \
    (void) stage; \
    (void) n_in; \
    return check_pair (in, error) && emit_loss (emit, HEDDLE_OP_##OP, inputs, 2, attr, size, out, error); \
  }

typedef struct { double beta; } SmoothL1;
static const HeddleOption smooth_l1_options[] = {
  HEDDLE_FLOAT (SmoothL1, beta, 1, 0, 1e9, "distance at which the square passes into the line; 0 is l1"),
  HEDDLE_OPTIONS_END
};

typedef struct { bool log_target; int reduction; } KlDiv;
static const HeddleEnumValue reductions[] = { { 0, "batchmean" }, { 1, "mean" }, { 0, NULL } };
static const HeddleOption kl_div_options[] = {
  HEDDLE_BOOL (KlDiv, log_target, FALSE, "the target holds logarithms of probabilities, as the prediction does"),
  HEDDLE_ENUM (KlDiv, reduction, 0, reductions, "what the sum is divided by: batchmean, the samples, which is the divergence itself; mean, the elements, as PyTorch's default"),
  HEDDLE_OPTIONS_END
};

typedef struct { HeddleFloatList pos_weight; } Bce;
static const HeddleOption bce_options[] = {
  HEDDLE_FLOAT_LIST (Bce, pos_weight, NULL, 0, 1e9, "weight of positives: one number, or one per index of the last axis"),
  HEDDLE_OPTIONS_END
};

SIMPLE_LOSS (mse, MSE, NULL, 0)
SIMPLE_LOSS (l1, L1, NULL, 0)
SIMPLE_LOSS (smooth_l1, SMOOTH_L1, (&(HeddleSmoothL1Attr) { ((const SmoothL1 *) stage->self)->beta }), sizeof (HeddleSmoothL1Attr))
SIMPLE_LOSS (kl_div, KL_DIV, (&(HeddleKlDivAttr) { ((const KlDiv *) stage->self)->log_target, ((const KlDiv *) stage->self)->reduction == 0 }), sizeof (HeddleKlDivAttr))

static gboolean
emit_bce (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  const HeddleFloatList *list = &((const Bce *) stage->self)->pos_weight;
  HeddleValue *inputs[3] = { in[0]->value, in[1]->value, NULL };
  const HeddleShape *s = &in[0]->value->shape;
  (void) n_in;
  gboolean ok = check_pair (in, error);
  if (ok && list->n == 1)
    inputs[2] = heddle_constant (emit->builder, list->items[0]);
  else if (ok && list->n)
    ok = (inputs[2] = table_value (emit, list, "pos_weight", "loss/pos_weight", s->rank ? s->size[s->rank - 1] : 1, error)) != NULL;
  return ok && emit_loss (emit, HEDDLE_OP_BCE_WITH_LOGITS, inputs, inputs[2] ? 3 : 2, NULL, 0, out, error);
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_TENSOR, HEDDLE_PORT_TENSOR };

const HeddleStageClass heddle_stage_cross_entropy = {
  .verb = "loss", .variant = "cross_entropy", .summary = "Cross entropy of logits (N, ..., classes) and class numbers (N, ...)", .options = { cross_entropy_options, sizeof (HeddleOption) },
  .instance_size = sizeof (CrossEntropy), .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_cross_entropy,
};

const HeddleStageClass heddle_stage_mse = {
  .verb = "loss", .variant = "mse", .summary = "Mean of squared differences of two tensors of one shape", .min_inputs = 2, .max_inputs = 2, .input_kinds = inputs,
  .output = HEDDLE_PORT_LOSS, .emit = emit_mse,
};

const HeddleStageClass heddle_stage_l1 = {
  .verb = "loss", .variant = "l1", .summary = "Mean of absolute differences of two tensors of one shape", .min_inputs = 2, .max_inputs = 2,
  .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_l1,
};

const HeddleStageClass heddle_stage_smooth_l1 = {
  .verb = "loss", .variant = "smooth_l1", .summary = "Mean of differences, squared where they are small, of two tensors of one shape", .options = { smooth_l1_options, sizeof (HeddleOption) }, .instance_size = sizeof (SmoothL1), .min_inputs = 2, .max_inputs = 2,
  .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_smooth_l1,
};

const HeddleStageClass heddle_stage_bce_with_logits = {
  .verb = "loss", .variant = "bce_with_logits", .summary = "Binary cross entropy of logits and targets in [0, 1] of one shape", .options = { bce_options, sizeof (HeddleOption) }, .instance_size = sizeof (Bce), .min_inputs = 2, .max_inputs = 2,
  .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_bce,
};

const HeddleStageClass heddle_stage_kl_div = {
  .verb = "loss", .variant = "kl_div", .summary = "Kullback-Leibler divergence of log probabilities from target probabilities of one shape", .options = { kl_div_options, sizeof (HeddleOption) }, .instance_size = sizeof (KlDiv), .min_inputs = 2, .max_inputs = 2,
  .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_kl_div,
};
