/* stage/classes.h: the stage classes, one file each.  Private to core/stage. */
#ifndef HEDDLE_STAGE_CLASSES_H
#define HEDDLE_STAGE_CLASSES_H

#include "stage/stage.h"

extern const HeddleStageClass heddle_stage_dataset, heddle_stage_prefetch, heddle_stage_model, heddle_stage_cross_entropy, heddle_stage_mse, heddle_stage_l1, heddle_stage_smooth_l1, heddle_stage_bce_with_logits, heddle_stage_kl_div, heddle_stage_accuracy,
  heddle_stage_top_k, heddle_stage_amp, heddle_stage_optimizer, heddle_stage_logger, heddle_stage_train, heddle_stage_constant, heddle_stage_step,
  heddle_stage_multistep, heddle_stage_cosine, heddle_stage_linear, heddle_stage_one_cycle, heddle_stage_plateau;

/* Appends a port to OUT; NAME is copied. */
HeddlePort *heddle_port_add (GArray *out, HeddlePortKind kind, const char *name);
/* FALSE with the builder's first error, if it has one. */
gboolean heddle_emit_ok (HeddleEmit *emit, GError **error);
/* Logits (N, ..., K) and labels (N, ...) with K classes, or an error that names both. */
gboolean heddle_check_classes (const HeddlePort *logits, const HeddlePort *labels, GError **error);
/* ... as the operations take them: LOGITS (rows, K), LABELS (rows). */
void heddle_flatten_classes (HeddleBuilder *b, HeddlePort *const *in, HeddleValue **logits, HeddleValue **labels);

#endif
