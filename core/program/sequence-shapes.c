/* program/sequence-shapes.c: shape rules of norms over rows and groups, embeddings, movement and attention.  Must not know backends. */
#include "program/shape-rules.h"

/* ---- norms ---- */

static gboolean
matches (const HeddleOp *op, guint first, HeddleDtype dtype, const HeddleShape *shape, const char *expected, GError **error)
{
  gboolean ok = TRUE;
  for (guint i = first; ok && i < op->n_in; i++)
    ok = expect (op->in[i]->dtype == dtype && heddle_shape_equal (&op->in[i]->shape, shape), op, i, expected, error);
  return ok;
}

/* X's shape cut before its last AXES: rows and the shape of one. */
static gboolean
split_rows (const HeddleOp *op, const HeddleValue *x, HeddleShape *outer, HeddleShape *row, GError **error)
{
  gint32 axes = MAX (ATTR (HeddleLayerNormAttr)->axes, 1), rank = x->shape.rank;
  gboolean ok = axes <= rank || refuse (error, "cannot normalise %d axes of a tensor of rank %d", axes, rank);
  *outer = *row = (HeddleShape) { 0 };
  for (gint32 i = 0; ok && i < rank; i++)
    {
      HeddleShape *to = i < rank - axes ? outer : row;
      to->size[to->rank++] = x->shape.size[i];
    }
  return ok;
}

/* LAYER_NORM (three outputs) and RMS_NORM (two: no mean) */
RULE (layer_norm)
{
  HeddleShape outer, row;
  const HeddleValue *x = op->in[0];
  gboolean ok = expect (is_float (x), op, 0, "a floating-point tensor", error) && split_rows (op, x, &outer, &row, error)
                && matches (op, 1, x->dtype, &row, "the dtype and the last axes of input 1", error);
  set (op, 0, x->dtype, x->shape);
  for (guint i = 1; ok && i < op->n_out; i++)
    set (op, i, HEDDLE_F32, outer);
  return ok;
}

/* (dy, x[, mean], rstd[, scale]) */
RULE (layer_norm_grad)
{
  HeddleShape outer, row;
  const HeddleValue *x = op->in[1];
  guint scale = op->info->code == HEDDLE_OP_LAYER_NORM_GRAD ? 4 : 3;
  gboolean ok = expect (heddle_shape_equal (&op->in[0]->shape, &x->shape), op, 0, "the input's shape", error) && split_rows (op, x, &outer, &row, error)
                && matches (op, scale, x->dtype, &row, "the scale", error);
  for (guint i = 2; ok && i < scale; i++)
    ok = expect (op->in[i]->dtype == HEDDLE_F32 && heddle_shape_equal (&op->in[i]->shape, &outer), op, i, "f32, one number per row", error);
  set (op, 0, op->in[0]->dtype, x->shape);
  for (guint i = 1; ok && i < op->n_out; i++)
    set (op, i, op->in[0]->dtype, row);
  return ok;
}

static gboolean
channel_groups (const HeddleOp *op, guint input, GError **error)
{
  const HeddleShape *s = &op->in[input]->shape;
  gint64 groups = ATTR (HeddleGroupNormAttr)->groups;
  return expect (is_float (op->in[input]) && s->rank >= 2, op, input, "a floating-point tensor (N, C, ...)", error)
         && ((groups >= 1 && s->size[1] % groups == 0)
             || refuse (error, "%" G_GINT64_FORMAT " channels cannot be dealt into %" G_GINT64_FORMAT " groups\nhint: groups must divide the channels", s->size[1], groups));
}

RULE (group_norm)
{
  const HeddleValue *x = op->in[0];
  HeddleShape channels = heddle_shape (x->shape.size[1]);
  gboolean ok = channel_groups (op, 0, error) && matches (op, 1, x->dtype, &channels, "the dtype of input 1, one number per channel", error);
  set (op, 0, x->dtype, x->shape);
  for (guint i = 1; i < 3; i++)
    set (op, i, HEDDLE_F32, heddle_shape (x->shape.size[0], ATTR (HeddleGroupNormAttr)->groups));
  return ok;
}

RULE (group_norm_grad)
{
  const HeddleValue *x = op->in[1];
  HeddleShape channels = heddle_shape (x->shape.size[1]);
  gboolean ok = channel_groups (op, 1, error) && expect (heddle_shape_equal (&op->in[0]->shape, &x->shape), op, 0, "the input's shape", error)
                && matches (op, 4, x->dtype, &channels, "the scale", error);
  set (op, 0, op->in[0]->dtype, x->shape);
  set (op, 1, op->in[0]->dtype, channels);
  set (op, 2, op->in[0]->dtype, channels);
  return ok;
}

/* ---- embedding ---- */

static gboolean
is_index (const HeddleValue *v)
{
  return v->dtype == HEDDLE_I64 || v->dtype == HEDDLE_I32 || v->dtype == HEDDLE_U8;
}

RULE (embedding)
{
  const HeddleValue *indices = op->in[0], *table = op->in[1];
  HeddleShape y = indices->shape;
  gboolean ok = expect (is_index (indices) && y.rank < HEDDLE_MAX_RANK, op, 0, "integer indices (i64, i32 or u8)", error)
                && expect (is_float (table) && table->shape.rank == 2, op, 1, "a table (rows, features)", error);
  if (ok)
    y.size[y.rank++] = table->shape.size[1];
  set (op, 0, table->dtype, y);
  return ok;
}

RULE (embedding_grad)
{
  const HeddleValue *dy = op->in[0], *indices = op->in[1];
  const HeddleShape *table = &ATTR (HeddleShapeAttr)->shape;
  HeddleShape y = indices->shape;
  gboolean ok = expect (is_index (indices) && y.rank < HEDDLE_MAX_RANK, op, 1, "integer indices", error);
  if (ok)
    y.size[y.rank++] = table->size[1];
  ok = ok && expect (is_float (dy) && heddle_shape_equal (&dy->shape, &y), op, 0, "one row per index", error);
  set (op, 0, dy->dtype, *table);
  return ok;
}

/* ---- movement: any dtype ---- */

RULE (permute)
{
  const HeddlePermuteAttr *a = ATTR (HeddlePermuteAttr);
  HeddleShape y = op->in[0]->shape;
  guint32 seen = 0;
  gboolean ok = TRUE;
  for (gint32 i = 0; ok && i < y.rank; i++)
    {
      gint32 from = a->axes[i];
      ok = (from >= 0 && from < y.rank && !(seen >> from & 1)) || refuse (error, "axis %d of the result is axis %d of the input: every axis of rank %d must be named once", i, from, y.rank);
      seen |= ok ? 1u << from : 0;
      y.size[i] = ok ? op->in[0]->shape.size[from] : 0;
    }
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

RULE (concat)
{
  HeddleShape y = op->in[0]->shape;
  gint32 axis = heddle_axis_index (ATTR (HeddleAxisAttr)->axis, y.rank);
  gboolean ok = axis >= 0 || refuse (error, "axis %d of a tensor of rank %d", ATTR (HeddleAxisAttr)->axis, y.rank);
  for (guint i = 1; ok && i < op->n_in; i++)
    {
      HeddleShape s = op->in[i]->shape;
      gint64 more = s.rank == y.rank ? s.size[axis] : 0;
      s.size[axis] = y.size[axis];
      ok = expect (op->in[i]->dtype == op->in[0]->dtype && heddle_shape_equal (&s, &y), op, i, "the dtype of input 1 and its sizes but for the axis", error);
      y.size[axis] += more;
    }
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

static gboolean
slice_output (const HeddleSliceAttr *a, const HeddleShape *x, HeddleShape *y, GError **error)
{
  gboolean ok = TRUE;
  *y = *x;
  for (gint32 i = 0; ok && i < x->rank; i++)
    {
      gint64 begin, step;
      ok = heddle_slice_axis (a, i, x->size[i], &begin, &step, &y->size[i])
           || refuse (error, "axis %d: %" G_GINT64_FORMAT ":%" G_GINT64_FORMAT ":%" G_GINT64_FORMAT " takes nothing from, or more than, %" G_GINT64_FORMAT " elements", i, a->begin[i], a->end[i],
                      MAX (a->step[i], 1), x->size[i]);
    }
  return ok;
}

RULE (slice)
{
  HeddleShape y;
  gboolean ok = slice_output (ATTR (HeddleSliceAttr), &op->in[0]->shape, &y, error);
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

RULE (slice_grad)
{
  const HeddleSliceAttr *a = ATTR (HeddleSliceAttr);
  HeddleShape y;
  gboolean ok = slice_output (a, &a->input, &y, error) && expect (heddle_shape_equal (&y, &op->in[0]->shape), op, 0, "the slice's shape", error);
  set (op, 0, op->in[0]->dtype, a->input);
  return ok;
}

RULE (pad)
{
  const HeddlePadAttr *a = ATTR (HeddlePadAttr);
  HeddleShape y = op->in[0]->shape;
  gboolean ok = expect (is_float (op->in[0]), op, 0, "a floating-point tensor", error);
  for (gint32 i = 0; ok && i < y.rank; i++)
    {
      ok = (a->before[i] >= 0 && a->after[i] >= 0) || refuse (error, "axis %d: padding must be at least 0", i);
      y.size[i] += a->before[i] + a->after[i];
    }
  set (op, 0, op->in[0]->dtype, y);
  return ok;
}

/* ---- attention ---- */

/* q (B, H, T, D), k (B, H, S, D), v (B, H, S, E), counted from input FIRST */
static gboolean
queries_keys_values (const HeddleOp *op, guint first, GError **error)
{
  const HeddleShape *q = &op->in[first]->shape, *k = &op->in[first + 1]->shape, *v = &op->in[first + 2]->shape;
  gboolean ok = expect (is_float (op->in[first]) && q->rank == 4, op, first, "queries (batch, heads, T, D)", error);
  for (guint i = first; ok && i < first + 3; i++)
    {
      const HeddleShape *s = &op->in[i]->shape;
      ok = expect (op->in[i]->dtype == op->in[first]->dtype && s->rank == 4 && s->size[0] == q->size[0] && s->size[1] == q->size[1], op, i,
                   "the queries' dtype, batch and heads", error);
    }
  return ok && expect (k->size[3] == q->size[3], op, first + 1, "keys as long as the queries", error) && expect (v->size[2] == k->size[2], op, first + 2, "one value per key", error);
}

static HeddleShape
attention_output (const HeddleOp *op, guint first)
{
  HeddleShape y = op->in[first]->shape;
  y.size[3] = op->in[first + 2]->shape.size[3];
  return y;
}

RULE (attention)
{
  gboolean ok = queries_keys_values (op, 0, error);
  HeddleShape y = attention_output (op, 0);
  set (op, 0, op->in[0]->dtype, y);
  set (op, 1, HEDDLE_F32, heddle_shape (y.size[0], y.size[1], y.size[2]));
  return ok;
}

RULE (attention_grad)
{
  gboolean ok = queries_keys_values (op, 1, error);
  HeddleShape y = attention_output (op, 1);
  ok = ok && expect (heddle_shape_equal (&op->in[0]->shape, &y), op, 0, "the output's shape", error) && expect (heddle_shape_equal (&op->in[4]->shape, &y), op, 4, "the output", error)
       && expect (op->in[5]->dtype == HEDDLE_F32 && op->in[5]->shape.rank == 3, op, 5, "f32, one number per query", error);
  for (guint i = 0; i < 3; i++)
    set (op, i, op->in[0]->dtype, op->in[1 + i]->shape);
  return ok;
}
