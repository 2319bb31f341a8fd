/* program/builder.h: what the passes of this folder see of a builder.  Private to core/program. */
#ifndef HEDDLE_PROGRAM_BUILDER_H
#define HEDDLE_PROGRAM_BUILDER_H

#include "program/program.h"

HeddleProgram *heddle_builder_peek     (HeddleBuilder *b);     /* the program so far */
HeddleDtype    heddle_builder_autocast (HeddleBuilder *b);     /* what set_autocast was given */
/* Changes what has been built so far into what gives the same numbers for less work; before differentiation, so that the backward part profits too. */
void           heddle_program_simplify (HeddleProgram *p);
void           heddle_program_tidy     (HeddleProgram *p);     /* removes dead operations and values, numbers the rest, counts uses */

#endif
