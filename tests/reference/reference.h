/* tests/reference/reference.h: a program run in double precision by the plainest code there is: what every backend is compared with.
 * Must not share code with any backend. */
#ifndef HEDDLE_TESTS_REFERENCE_H
#define HEDDLE_TESTS_REFERENCE_H

#include "program/program.h"

typedef struct _Reference Reference;

Reference *reference_new      (const HeddleProgram *program);
void       reference_free     (Reference *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Reference, reference_free)
/* Numbers of input I, of VARIABLE, of VALUE (after a run): heddle_shape_count of them, owned by R. */
double    *reference_input    (Reference *r, guint i);
double    *reference_variable (Reference *r, HeddleVariable *variable);
double    *reference_value    (Reference *r, const HeddleValue *value);
void       reference_run      (Reference *r);
/* What the custom operation NAME computes, in double precision, so that the harness of test-ops.c checks it like a built-in one. */
typedef void (*ReferenceCustom) (const HeddleOp *op, gconstpointer attr, double **in, double **out);
void       reference_custom   (const char *name, ReferenceCustom f);

/* sequence.c: FALSE when OP is none of its operations; IN and OUT are the numbers of the operation's values */
gboolean   reference_sequence_op (const HeddleOp *op, double **in, double **out);
/* reference-vision.c: transposed convolution, resampling, losses that are means over elements; FALSE: another operation */
gboolean   reference_vision   (const HeddleOp *op, double **in, double **out);

#endif
