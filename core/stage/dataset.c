/* stage/dataset.c: h.dataset "NAME" { ... }: samples by index, from a plugin.  Must not know how they are batched. */
#include "stage/classes.h"

const HeddleStageClass heddle_stage_dataset = {
  .verb = "dataset", .summary = "Samples by index, from a dataset plugin", .plugin_kind = "dataset", .output = HEDDLE_PORT_DATASET,
};
