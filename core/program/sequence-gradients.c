/* program/sequence-gradients.c: backward rules of norms over rows and groups, embeddings, movement and attention.  Must not know backends. */
#include "program/rules.h"

#define RULE(name) void heddle_gradient_rule_##name (HeddleBuilder *b, HeddleOp *op, HeddleGradients dy, const gboolean *want, HeddleValue **dx)
#define X(i) (op->in[i])

/* One operation (dy, x, statistics..., [scale]) gives the gradients by x, scale and shift. */
static void
norm_gradients (HeddleBuilder *b, HeddleOp *op, HeddleOpCode code, HeddleGradients dy, const gboolean *want, HeddleValue **dx)
{
  HeddleValue *in[5] = { dy[0], X (0) }, *out[3] = { NULL };
  guint n = 2, n_stats = op->n_out - 1;
  for (guint i = 0; i < n_stats; i++)
    in[n++] = op->out[1 + i];
  if (op->n_in > 1)
    in[n++] = X (1);
  if (dy[0])
    b->iface->emit (b, code, op->name, in, n, op->attr, op->info->attr_size, out, n_stats + 1);
  for (guint i = 0; i < op->n_in; i++)
    dx[i] = want[i] ? out[i] : NULL;
}

RULE (layer_norm) { norm_gradients (b, op, HEDDLE_OP_LAYER_NORM_GRAD, dy, want, dx); }
RULE (rms_norm) { norm_gradients (b, op, HEDDLE_OP_RMS_NORM_GRAD, dy, want, dx); }
RULE (group_norm) { norm_gradients (b, op, HEDDLE_OP_GROUP_NORM_GRAD, dy, want, dx); }

RULE (embedding)
{
  HeddleShapeAttr attr = { X (1)->shape };
  HeddleValue *in[] = { dy[0], X (0) };
  if (want[1])
    dx[1] = heddle_emit (b, HEDDLE_OP_EMBEDDING_GRAD, op->name, in, 2, &attr, sizeof attr);
}

RULE (permute)
{
  (void) want;
  const HeddlePermuteAttr *a = op->attr;
  HeddlePermuteAttr inverse = { { 0 } };
  for (gint32 i = 0; i < X (0)->shape.rank; i++)
    inverse.axes[a->axes[i]] = i;
  dx[0] = heddle_emit (b, HEDDLE_OP_PERMUTE, NULL, dy, 1, &inverse, sizeof inverse);
}

RULE (concat)
{
  gint32 axis = heddle_axis_index (((const HeddleAxisAttr *) op->attr)->axis, X (0)->shape.rank);
  gint64 at = 0;
  for (guint i = 0; i < op->n_in; i++)
    {
      gint64 size = X (i)->shape.size[axis];
      dx[i] = want[i] ? heddle_slice (b, dy[0], axis, at, at + size) : NULL;
      at += size;
    }
}

RULE (slice)
{
  (void) want;
  HeddleSliceAttr attr = *(const HeddleSliceAttr *) op->attr;
  attr.input = X (0)->shape;
  dx[0] = heddle_emit (b, HEDDLE_OP_SLICE_GRAD, NULL, dy, 1, &attr, sizeof attr);
}

RULE (pad)
{
  (void) want;
  const HeddlePadAttr *a = op->attr;
  HeddleSliceAttr attr = { .begin = { 0 } };
  for (gint32 i = 0; i < X (0)->shape.rank; i++)
    {
      attr.begin[i] = a->before[i];
      attr.end[i] = a->before[i] + X (0)->shape.size[i];
    }
  dx[0] = heddle_emit (b, HEDDLE_OP_SLICE, NULL, dy, 1, &attr, sizeof attr);
}

RULE (attention)
{
  HeddleValue *in[] = { dy[0], X (0), X (1), X (2), op->out[0], op->out[1] }, *out[3] = { NULL };
  if (dy[0])
    b->iface->emit (b, HEDDLE_OP_ATTENTION_GRAD, op->name, in, 6, op->attr, op->info->attr_size, out, 3);
  for (guint i = 0; i < 3; i++)
    dx[i] = want[i] ? out[i] : NULL;
}
