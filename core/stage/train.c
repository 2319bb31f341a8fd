/* stage/train.c: h.train { step, ... }: the options of a run.  Must not know how it is run: that is the pipeline's. */
#include "stage/classes.h"

static const HeddleEnumValue epoch_modes[] = {
  { HEDDLE_EPOCH_CONTINUE, "continue", "the next epoch goes on where this one stopped: every sample is seen" },
  { HEDDLE_EPOCH_RESTART, "restart", "each epoch starts a new pass over the data" },
  { HEDDLE_EPOCH_SUBSET, "subset", "every epoch takes the same samples, shuffled" },
  { 0, NULL, NULL },
};
static const HeddleEnumValue schedule_modes[] = {
  { 1, "applied", "the schedule counts updates that were applied" }, { 2, "all", "skipped updates move the schedule too, as in plain PyTorch" }, { 0, NULL, NULL },
};

static const HeddleEnumValue recomputes[] = {
  { HEDDLE_RECOMPUTE_NONE, "none", "backward reads what forward kept" },
  { HEDDLE_RECOMPUTE_BLOCKS, "blocks", "each block's inside is computed again from its inputs, right before its backward; same results, less memory, about a third more arithmetic" }, { 0, NULL, NULL },
};

static const HeddleOption options[] = {
  HEDDLE_INT (HeddleTrainOptions, epochs, 1, 1, 1000000, "epochs to train", .unit = "epochs"),
  HEDDLE_INT (HeddleTrainOptions, steps_per_epoch, 0, 0, G_MAXINT32, "batches of an epoch; 0 = one pass over the data", .unit = "batches"),
  HEDDLE_ENUM (HeddleTrainOptions, epoch_mode, HEDDLE_EPOCH_CONTINUE, epoch_modes, "what an epoch of fewer batches than the data holds means"),
  HEDDLE_INT (HeddleTrainOptions, max_steps, 0, 0, G_MAXINT64, "stop after so many batches; 0 = no limit", .unit = "batches"),
  HEDDLE_INT (HeddleTrainOptions, accumulate, 1, 1, 65536, "batches whose gradients make one update", .unit = "batches"),
  HEDDLE_FLOAT (HeddleTrainOptions, clip_norm, 0, 0, 1e30, "largest norm of the whole gradient; 0 = no clipping"),
  HEDDLE_ENUM (HeddleTrainOptions, schedule_on, 1, schedule_modes, "which updates the schedule counts"),
  HEDDLE_STRING (HeddleTrainOptions, device, "auto", "auto, cpu, cuda, cuda:1, ..."),
  HEDDLE_INT (HeddleTrainOptions, seed, 0, 0, G_MAXINT64, "of initial parameters, order, augmentation and dropout"),
  HEDDLE_ENUM (HeddleTrainOptions, recompute, HEDDLE_RECOMPUTE_NONE, recomputes, "activations to compute again rather than keep; a block is what a model names by a number: layer1.0, h.3, encoder_layer_0, a residual layer of sequential"),
  HEDDLE_INT (HeddleTrainOptions, stop_on_nonfinite, 5, 0, 1000000, "losses in a row that are not finite after which the run stops (without a loss scaler); 0 = never", .unit = "batches"),
  HEDDLE_INT (HeddleTrainOptions, eval_every, 1, 1, 1000000, "epochs from one evaluation to the next; in the script: eval = { every = N }", .unit = "epochs"),
  HEDDLE_INT (HeddleTrainOptions, eval_batch_size, 0, 0, 65536, "batch of the evaluation, 0 = as in training; in the script: eval = { batch_size = N }", .unit = "samples"),
  HEDDLE_STRING (HeddleTrainOptions, eval_best, NULL, "metric whose best value is reported, the first one if unset; in the script: eval = { best = NAME }"),
  HEDDLE_OPTIONS_END
};

static const HeddlePortKind inputs[] = { HEDDLE_PORT_STEP };

const HeddleStageClass heddle_stage_train = {
  .verb = "train", .summary = "The run: epochs, accumulation, clipping, schedule, evaluation, loggers", .options = { options, sizeof (HeddleOption) },
  .instance_size = sizeof (HeddleTrainOptions), .min_inputs = 1, .max_inputs = 1, .input_kinds = inputs, .output = HEDDLE_PORT_RUN,
};
