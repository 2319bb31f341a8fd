/* program/print.c: programs as text, for people and golden files.  Must not change what it prints. */
#include "program/rules.h"
#include "tensor/tensors.h"

#include <string.h>

#define RULE(name) void heddle_print_rule_##name (const HeddleOp *op, GString *text)
#define ATTR(T) ((const T *) op->attr)

RULE (gelu) { g_string_append (text, ATTR (HeddleGeluAttr)->tanh_form ? " form=tanh" : ""); }
RULE (slope) { g_string_append_printf (text, " slope=%g", ATTR (HeddleSlopeAttr)->slope); }
RULE (clamp) { g_string_append_printf (text, " min=%g max=%g", ATTR (HeddleClampAttr)->min, ATTR (HeddleClampAttr)->max); }
RULE (cast) { g_string_append_printf (text, " to=%s", heddle_dtype_name (ATTR (HeddleCastAttr)->dtype)); }
RULE (dropout) { g_string_append_printf (text, " p=%g", ATTR (HeddleDropoutAttr)->probability); }
RULE (matmul) { g_string_append_printf (text, "%s%s", ATTR (HeddleMatmulAttr)->transpose_a ? " a^T" : "", ATTR (HeddleMatmulAttr)->transpose_b ? " b^T" : ""); }
RULE (axis) { g_string_append_printf (text, " axis=%d", ATTR (HeddleAxisAttr)->axis); }
RULE (top_k) { g_string_append_printf (text, " k=%d", (int) ATTR (HeddleTopKAttr)->k); }

RULE (param_sum) { g_string_append (text, ATTR (HeddleParamSumAttr)->squares ? " squares" : ""); }

RULE (shape)
{
  g_autofree char *shape = heddle_shape_print (&ATTR (HeddleShapeAttr)->shape);
  g_string_append_printf (text, " to=%s", shape);
}

RULE (reduce)
{
  const HeddleReduceAttr *a = op->attr;
  g_string_append (text, " axes=");
  if (!a->axes)
    g_string_append (text, "all");
  for (int i = 0; i < HEDDLE_MAX_RANK; i++)
    if (a->axes >> i & 1)
      g_string_append_printf (text, "%s%d", a->axes & ((1u << i) - 1) ? "," : "", i);
}

static void
pair (GString *text, const char *key, const gint64 v[2], gint64 usual)
{
  if (v[0] == v[1] && v[0] != usual)
    g_string_append_printf (text, " %s=%d", key, (int) v[0]);
  else if (v[0] != v[1])
    g_string_append_printf (text, " %s=%dx%d", key, (int) v[0], (int) v[1]);
}

RULE (conv)
{
  const HeddleConvAttr *a = op->attr;
  pair (text, "stride", a->stride, 1);
  pair (text, "padding", a->padding, 0);
  pair (text, "dilation", a->dilation, 1);
  if (a->groups != 1)
    g_string_append_printf (text, " groups=%d", (int) a->groups);
}

RULE (conv_transpose)
{
  heddle_print_rule_conv (op, text);
  pair (text, "output_padding", ATTR (HeddleConvAttr)->output_padding, 0);
}

RULE (upsample)
{
  pair (text, "size", ATTR (HeddleUpsampleAttr)->size, 0);
  g_string_append (text, ATTR (HeddleUpsampleAttr)->bilinear ? " bilinear" : " nearest");
}

RULE (smooth_l1) { g_string_append_printf (text, " beta=%g", ATTR (HeddleSmoothL1Attr)->beta); }
RULE (kl_div) { g_string_append_printf (text, "%s%s", ATTR (HeddleKlDivAttr)->log_target ? " log_target" : "", ATTR (HeddleKlDivAttr)->batch_mean ? " batch_mean" : ""); }

RULE (pool)
{
  const HeddlePoolAttr *a = op->attr;
  pair (text, "kernel", a->kernel, 0);
  pair (text, "stride", a->stride, 0);
  pair (text, "padding", a->padding, 0);
}

RULE (batch_norm)
{
  const HeddleBatchNormAttr *a = op->attr;
  g_string_append_printf (text, " eps=%g momentum=%g%s", a->eps, a->momentum, a->training ? "" : " eval");
}

RULE (cross_entropy)
{
  const HeddleCrossEntropyAttr *a = op->attr;
  if (a->label_smoothing > 0)
    g_string_append_printf (text, " label_smoothing=%g", a->label_smoothing);
}

RULE (layer_norm)
{
  const HeddleLayerNormAttr *a = op->attr;
  g_string_append_printf (text, " eps=%g", a->eps);
  if (a->axes > 1)
    g_string_append_printf (text, " axes=%d", a->axes);
}

RULE (group_norm)
{
  const HeddleGroupNormAttr *a = op->attr;
  g_string_append_printf (text, " groups=%d eps=%g", (int) a->groups, a->eps);
}

RULE (permute)
{
  for (gint32 i = 0; i < op->in[0]->shape.rank; i++)
    g_string_append_printf (text, "%s%d", i ? "," : " axes=", ATTR (HeddlePermuteAttr)->axes[i]);
}

/* Axes that are taken whole are not mentioned. */
RULE (slice)
{
  const HeddleSliceAttr *a = op->attr;
  const HeddleShape *x = a->input.rank ? &a->input : &op->in[0]->shape;
  for (gint32 i = 0; i < x->rank; i++)
    {
      gint64 begin, step, count;
      heddle_slice_axis (a, i, x->size[i], &begin, &step, &count);
      if (count != x->size[i])
        g_string_append_printf (text, " axis%d=%d:%d%s%.0d", i, (int) begin, (int) (a->end[i] <= 0 ? a->end[i] + x->size[i] : a->end[i]), step > 1 ? ":" : "", step > 1 ? (int) step : 0);
    }
}

RULE (pad)
{
  const HeddlePadAttr *a = op->attr;
  for (gint32 i = 0; i < op->in[0]->shape.rank; i++)
    if (a->before[i] || a->after[i])
      g_string_append_printf (text, " axis%d=%d,%d", i, (int) a->before[i], (int) a->after[i]);
  if (a->value != 0)
    g_string_append_printf (text, " value=%g", a->value);
}

RULE (attention)
{
  const HeddleAttentionAttr *a = op->attr;
  if (a->scale != 0)
    g_string_append_printf (text, " scale=%g", a->scale);
  g_string_append (text, a->causal ? " causal" : "");
}

/* ---- lines ---- */

static void
append_value (GString *text, const HeddleValue *v)
{
  if (v->kind == HEDDLE_VALUE_CONSTANT)
    g_string_append_printf (text, "%g", v->constant);
  else if (v->kind == HEDDLE_VALUE_VARIABLE)
    g_string_append (text, v->variable->name);
  else if (v->kind == HEDDLE_VALUE_INPUT && v->name)
    g_string_append_printf (text, "@%s", v->name);
  else
    g_string_append_printf (text, "%%%u", v->id);
}

char *
heddle_op_print (const HeddleOp *op)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < op->n_out; i++)
    if (i == 0 || op->out[i]->n_uses)
      {
        g_autofree char *shape = heddle_shape_print (&op->out[i]->shape);
        g_string_append_printf (text, "%s%%%u %s %s", i ? ", " : "", op->out[i]->id, heddle_dtype_name (op->out[i]->dtype), shape);
      }
  g_string_append_printf (text, "%s%s", op->n_out ? " = " : "", op->info->name);
  for (guint i = 0; i < op->n_in; i++)
    {
      g_string_append_c (text, ' ');
      append_value (text, op->in[i]);
    }
  if (op->info->print)
    op->info->print (op, text);
  gboolean named = op->name && *op->name && !g_str_equal (op->name, op->info->name);
  if (named || op->again)
    g_string_append_printf (text, "   # %s%s%s", named ? op->name : "", named && op->again ? ", " : "", op->again ? "recomputed" : "");
  return g_string_free (text, FALSE);
}

char *
heddle_program_print (const HeddleProgram *program)
{
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < program->ops->len; i++)
    {
      g_autofree char *line = heddle_op_print (program->ops->pdata[i]);
      g_string_append_printf (text, "%s\n", line);
    }
  return g_string_free (text, FALSE);
}
