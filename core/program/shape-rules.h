/* program/shape-rules.h: the few words that shape rules are written in.  Must not know any operation. */
#ifndef HEDDLE_PROGRAM_SHAPE_RULES_H
#define HEDDLE_PROGRAM_SHAPE_RULES_H

#include "program/rules.h"
#include "tensor/tensors.h"

#include <stdarg.h>

#define RULE(name) gboolean heddle_shape_rule_##name (HeddleOp *op, GError **error)
#define ATTR(T) ((const T *) op->attr)

static inline gboolean G_GNUC_PRINTF (2, 3)
refuse (GError **error, const char *format, ...)
{
  va_list args;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, text);
  return FALSE;
}

static inline char *
describe (const HeddleValue *v)
{
  g_autofree char *shape = heddle_shape_print (&v->shape);
  return g_strdup_printf ("%s %s", heddle_dtype_name (v->dtype), shape);
}

static inline gboolean
expect (gboolean condition, const HeddleOp *op, guint input, const char *expected, GError **error)
{
  if (!condition)
    {
      g_autofree char *got = describe (op->in[input]);
      refuse (error, "input %u: expected %s, got %s", input + 1, expected, got);
    }
  return condition;
}

static inline gboolean
is_float (const HeddleValue *v)
{
  return heddle_dtype_is_float (v->dtype);
}

static inline void
set (HeddleOp *op, guint i, HeddleDtype dtype, HeddleShape shape)
{
  op->out[i]->dtype = dtype;
  op->out[i]->shape = shape;
}

static inline gboolean
same_float (HeddleOp *op, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < op->n_in; i++)
    ok = expect (is_float (op->in[i]) && op->in[i]->dtype == op->in[0]->dtype, op, i, "floating-point tensors of one dtype", error);
  return ok;
}

#endif
