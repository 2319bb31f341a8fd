/* program/custom.c: operations that plugins bring: their descriptor checked, and the op table's rules that hand on to it.  Must not know backends. */
#include "program/rules.h"

static const HeddleCustomOp *
descriptor (const HeddleOp *op)
{
  return ((const HeddleCustomAttr *) op->attr)->op;
}

static gconstpointer
data_of (const HeddleOp *op)
{
  return ((const HeddleCustomAttr *) op->attr)->data;
}

gboolean
heddle_custom_check (const HeddleCustomAttr *attr, GError **error)
{
  const HeddleCustomOp *d = attr ? attr->op : NULL;
  const char *wrong = NULL;
  if (!d)
    wrong = "has no descriptor";
  else if (d->size < sizeof (HeddleCustomOp))
    wrong = "has a descriptor of the wrong size\nhint: .size = sizeof (HeddleCustomOp)";
  else if (!d->plugin || !d->name)
    wrong = "has a descriptor without plugin or name";
  else if (d->min_in < 1 || d->min_in > d->max_in || d->max_in > HEDDLE_CUSTOM_INPUTS || d->n_out < 1 || d->n_out > HEDDLE_CUSTOM_OUTPUTS)
    wrong = "has impossible numbers of inputs or outputs\nhint: 1 to 6 inputs, 1 to 4 outputs";
  else if (d->attr_size > HEDDLE_CUSTOM_ATTR)
    wrong = "has too large an attribute\nhint: 256 bytes at most";
  else if (d->cuda && (d->cuda->size < sizeof (HeddleCustomCuda) || !d->cuda->source || !d->cuda->kernel))
    wrong = "has a CUDA kernel of the wrong size, or without source or name\nhint: .size = sizeof (HeddleCustomCuda)";
  else if (d->amp < HEDDLE_CUSTOM_KEEP || d->amp > HEDDLE_CUSTOM_F32)
    wrong = "has no AMP class\nhint: .amp = HEDDLE_CUSTOM_KEEP, _LOW or _F32";
  if (wrong && d && d->size >= sizeof (HeddleCustomOp) && d->plugin && d->name)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "\"%s\" of %s %s", d->name, d->plugin, wrong);
  else if (wrong)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "%s", wrong);
  return !wrong;
}

HeddleAmpClass
heddle_custom_amp (const HeddleCustomAttr *attr)
{
  return attr->op->amp == HEDDLE_CUSTOM_LOW ? HEDDLE_AMP_LOW : attr->op->amp == HEDDLE_CUSTOM_F32 ? HEDDLE_AMP_F32 : HEDDLE_AMP_KEEP;
}

gboolean
heddle_shape_rule_custom (HeddleOp *op, GError **error)
{
  const HeddleCustomOp *d = descriptor (op);
  HeddleTensor in[HEDDLE_CUSTOM_INPUTS] = { 0 }, out[HEDDLE_CUSTOM_OUTPUTS] = { 0 };
  GError *local = NULL;
  gboolean ok = op->n_in >= d->min_in && op->n_in <= d->max_in;
  if (!ok)
    g_set_error (&local, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "takes %u to %u inputs, got %u", d->min_in, d->max_in, op->n_in);
  for (guint i = 0; i < op->n_in; i++)
    in[i] = (HeddleTensor) { op->in[i]->dtype, op->in[i]->shape, NULL };
  for (guint i = 0; i < d->n_out; i++)
    out[i] = in[0];
  ok = ok && (!d->shape || d->shape (in, op->n_in, data_of (op), out, &local));
  for (guint i = 0; i < op->n_out; i++)
    {
      op->out[i]->dtype = out[i].dtype ? out[i].dtype : HEDDLE_F32;
      op->out[i]->shape = out[i].shape;
      if (i >= d->n_out)
        op->out[i]->kind = 0;            /* the table has room for more outputs than this one has: the rest goes */
    }
  op->n_out = d->n_out;
  if (!ok && !local)
    g_set_error (&local, HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM, "its shape rule failed and set no error");
  if (!ok)
    g_propagate_prefixed_error (error, local, "\"%s\" of %s: ", d->name, d->plugin);
  return ok;
}

void
heddle_gradient_rule_custom (HeddleBuilder *b, HeddleOp *op, HeddleGradients dy, const gboolean *want, HeddleValue **dx)
{
  const HeddleCustomOp *d = descriptor (op);
  if (d->gradient)
    d->gradient (b, data_of (op), op->in, op->n_in, op->out, dy, want, dx);
  else
    heddle_fail (b, "custom \"%s\": \"%s\" of %s has no gradient, but a parameter lies before it", op->name, d->name, d->plugin);
}

void
heddle_print_rule_custom (const HeddleOp *op, GString *text)
{
  const HeddleCustomOp *d = descriptor (op);
  g_string_append_printf (text, " %s:%s", d->plugin, d->name);
  if (d->print)
    d->print (data_of (op), text);
}
