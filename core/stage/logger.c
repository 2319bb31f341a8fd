/* stage/logger.c: h.logger "NAME" { ... }: where events go, from a plugin.  Must not know what happens. */
#include "stage/classes.h"

const HeddleStageClass heddle_stage_logger = {
  .verb = "logger", .summary = "Receives what happens during a run, from a logger plugin", .plugin_kind = "logger", .output = HEDDLE_PORT_LOGGER,
};
