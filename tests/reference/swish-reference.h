/* tests/reference/swish-reference.h: the operation of plugins/swish.h and its gradient, in double precision; to be included after it.  Must not know how a plugin computes them. */
#ifndef HEDDLE_TESTS_SWISH_REFERENCE_H
#define HEDDLE_TESTS_SWISH_REFERENCE_H

#include "program/program.h"

#include <math.h>

static void
reference_swish (const HeddleOp *op, gconstpointer attr, double **in, double **out)
{
  for (gint64 i = 0; i < heddle_shape_count (&op->out[0]->shape); i++)
    out[0][i] = in[0][i] / (1 + exp (-((const SwishAttr *) attr)->beta * in[0][i]));
}
static void
reference_swish_grad (const HeddleOp *op, gconstpointer attr, double **in, double **out)
{
  double beta = ((const SwishAttr *) attr)->beta;
  for (gint64 i = 0; i < heddle_shape_count (&op->out[0]->shape); i++)
    {
      double s = 1 / (1 + exp (-beta * in[1][i]));
      out[0][i] = in[0][i] * (s + beta * in[1][i] * s * (1 - s));
    }
}

#endif
