/* cpu/movement.c: permutations, slices, concatenation and padding, all of them copies between strided views; any dtype, row-major.
 * Must not know what the numbers mean. */
#include "cpu.h"
#include "program/rules.h"
#include "tensor/tensors.h"

#include <string.h>

#define SQUARE 16           /* elements: the side of a block that is transposed at a time */

/* SIZE elements per axis, read at FROM and written at TO plus the strides; all in elements of BYTES. */
typedef struct
{
  gint32 rank;
  gint64 size[HEDDLE_MAX_RANK + 2], src[HEDDLE_MAX_RANK + 2], dst[HEDDLE_MAX_RANK + 2];
  gint64 from, to;
  gsize  bytes;
  gint32 across;            /* the axis that is contiguous in the source while the last is in the result; -1: none */
} Copy;

/* ---- making a copy simple: no axes of one element, neighbours that are one run joined ---- */

static Copy
copy_new (const HeddleShape *s, HeddleDtype dtype, const gint64 *src, const gint64 *dst, gint64 from, gint64 to)
{
  Copy c = { .from = from, .to = to, .bytes = heddle_dtype_size (dtype), .across = -1 };
  for (gint32 i = 0; i < MIN (s->rank, HEDDLE_MAX_RANK); i++)
    {
      gint32 last = c.rank - 1;
      if (last >= 0 && c.src[last] == src[i] * s->size[i] && c.dst[last] == dst[i] * s->size[i])
        {
          c.size[last] *= s->size[i];
          c.src[last] = src[i];
          c.dst[last] = dst[i];
        }
      else if (s->size[i] != 1)
        {
          c.size[c.rank] = s->size[i];
          c.src[c.rank] = src[i];
          c.dst[c.rank++] = dst[i];
        }
    }
  if (c.rank == 0)
    {
      c.size[0] = c.src[0] = c.dst[0] = 1;
      c.rank = 1;
    }
  for (gint32 i = 0; i + 1 < c.rank; i++)
    if (c.src[i] == 1 && c.src[c.rank - 1] != 1)
      c.across = i;
  return c;
}

static void
strides_of (const HeddleShape *s, gint64 *stride)
{
  gint64 running = 1;
  for (gint32 i = s->rank - 1; i >= 0; i--)
    {
      stride[i] = running;
      running *= s->size[i];
    }
}

/* ---- running ---- */

#define COPY_ROW(T) \
  static void \
  row_##T (gconstpointer from, gpointer to, gint64 n, gint64 src, gint64 dst) \
  { \
    const T *x = from; \
    T *y = to; \
    for (gint64 i = 0; i < n; i++) \
      y[i * dst] = x[i * src]; \
  } \
  /* M x N: contiguous along M in the source, along N in the result */ \
  static void \
  square_##T (gconstpointer from, gpointer to, gint64 m, gint64 n, gint64 src, gint64 dst) \
  { \
    const T *x = from; \
    T *y = to; \
    for (gint64 i0 = 0; i0 < m; i0 += SQUARE) \
      for (gint64 j0 = 0; j0 < n; j0 += SQUARE) \
        for (gint64 i = i0; i < MIN (m, i0 + SQUARE); i++) \
          for (gint64 j = j0; j < MIN (n, j0 + SQUARE); j++) \
            y[i * dst + j] = x[i + j * src]; \
  }
COPY_ROW (guint8) COPY_ROW (guint16) COPY_ROW (guint32) COPY_ROW (guint64)

static void
copy_row (const Copy *c, const char *from, char *to)
{
  gint32 last = c->rank - 1;
  gint64 n = c->size[last], src = c->src[last], dst = c->dst[last];
  if (src == 1 && dst == 1)
    memcpy (to, from, (gsize) n * c->bytes);
  else
    (c->bytes == 1 ? row_guint8 : c->bytes == 2 ? row_guint16 : c->bytes == 4 ? row_guint32 : row_guint64) (from, to, n, src, dst);
}

static void
copy_square (const Copy *c, const char *from, char *to)
{
  gint32 last = c->rank - 1, a = c->across;
  (c->bytes == 1 ? square_guint8 : c->bytes == 2 ? square_guint16 : c->bytes == 4 ? square_guint32 : square_guint64) (from, to, c->size[a], c->size[last], c->src[last], c->dst[a]);
}

static void
copy_run (const Copy *c, const char *from, char *to)
{
  gint32 outer[HEDDLE_MAX_RANK + 2], n = 0;
  gint64 rows = 1, elements = c->size[c->rank - 1];
  gboolean squares = c->across >= 0 && c->dst[c->rank - 1] == 1;
  for (gint32 i = 0; i + 1 < c->rank; i++)
    if (!squares || i != c->across)
      {
        outer[n++] = i;
        rows *= c->size[i];
      }
    else
      elements *= c->size[i];
#pragma omp parallel for schedule(static) if (rows * elements >= PARALLEL_MIN)
  for (gint64 r = 0; r < rows; r++)
    {
      gint64 src = c->from, dst = c->to, rest = r;
      for (gint32 k = n - 1; k >= 0; k--)
        {
          gint64 i = rest % c->size[outer[k]];
          rest /= c->size[outer[k]];
          src += i * c->src[outer[k]];
          dst += i * c->dst[outer[k]];
        }
      (squares ? copy_square : copy_row) (c, from + src * (gint64) c->bytes, to + dst * (gint64) c->bytes);
    }
}

typedef struct { Copy copies[HEDDLE_MAX_CONCAT]; gboolean fill; float value; } Movement;

static void
run_movement (CpuPlan *plan, Step *step)
{
  const Movement *m = step->data;
  gsize n = (gsize) heddle_shape_count (&step->out[0].shape), bytes = heddle_dtype_size (step->out[0].dtype);
  char *to = OUT (0);
  if (m->fill && m->value == 0)
    memset (to, 0, n * bytes);
  else if (m->fill)
    {
      char one[8];
      cpu_convert (step->out[0].dtype, one, HEDDLE_F32, &m->value, 1);
      for (gsize i = 0; i < n; i++)
        memcpy (to + i * bytes, one, bytes);
    }
  for (guint i = 0; i < step->n_in; i++)
    copy_run (&m->copies[i], IN (i), to);
}

/* ---- building ---- */

static void
permute_copy (const HeddleOp *op, Copy *c)
{
  const HeddlePermuteAttr *a = op->attr;
  const HeddleShape *x = &op->in[0]->shape, *y = &op->out[0]->shape;
  gint64 in[HEDDLE_MAX_RANK] = { 0 }, src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 };
  strides_of (x, in);
  strides_of (y, dst);
  for (gint32 i = 0; i < y->rank; i++)
    src[i] = in[a->axes[i]];
  *c = copy_new (y, op->in[0]->dtype, src, dst, 0, 0);
}

static void
concat_copies (const HeddleOp *op, Copy *c)
{
  const HeddleShape *y = &op->out[0]->shape;
  gint32 axis = heddle_axis_index (((const HeddleAxisAttr *) op->attr)->axis, y->rank);
  gint64 src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 }, at = 0;
  strides_of (y, dst);
  for (guint i = 0; i < op->n_in; i++)
    {
      const HeddleShape *x = &op->in[i]->shape;
      strides_of (x, src);
      c[i] = copy_new (x, op->in[i]->dtype, src, dst, 0, at * dst[axis]);
      at += x->size[axis];
    }
}

/* SLICE reads what is taken; SLICE_GRAD writes it. */
static void
slice_copy (const HeddleOp *op, Copy *c)
{
  const HeddleSliceAttr *a = op->attr;
  gboolean backward = op->info->code == HEDDLE_OP_SLICE_GRAD;
  const HeddleShape *whole = backward ? &op->out[0]->shape : &op->in[0]->shape, *part = backward ? &op->in[0]->shape : &op->out[0]->shape;
  gint64 taken[HEDDLE_MAX_RANK] = { 0 }, own[HEDDLE_MAX_RANK] = { 0 }, first = 0;
  strides_of (whole, taken);
  strides_of (part, own);
  for (gint32 i = 0; i < whole->rank; i++)
    {
      gint64 begin, step, count;
      heddle_slice_axis (a, i, whole->size[i], &begin, &step, &count);
      first += begin * taken[i];
      taken[i] *= step;
    }
  *c = backward ? copy_new (part, op->in[0]->dtype, own, taken, 0, first) : copy_new (part, op->in[0]->dtype, taken, own, first, 0);
}

static void
pad_copy (const HeddleOp *op, Copy *c)
{
  const HeddlePadAttr *a = op->attr;
  const HeddleShape *x = &op->in[0]->shape;
  gint64 src[HEDDLE_MAX_RANK] = { 0 }, dst[HEDDLE_MAX_RANK] = { 0 }, first = 0;
  strides_of (x, src);
  strides_of (&op->out[0]->shape, dst);
  for (gint32 i = 0; i < x->rank; i++)
    first += a->before[i] * dst[i];
  *c = copy_new (x, op->in[0]->dtype, src, dst, 0, first);
}

/* A step whose operands keep their dtypes: nothing is computed. */
static Step *
movement_step (CpuCompiler *c, const HeddleOp *op)
{
  Operand in[STEP_OPERANDS];
  for (guint i = 0; i < op->n_in; i++)
    in[i] = cpu_form (c, op->in[i], op->in[i]->dtype, &cpu_plain);
  Operand out = cpu_target (c, op->out[0], op->out[0]->dtype, &cpu_plain);
  Step *step = cpu_step_new (c->plan, op, "copy", run_movement);
  memcpy (step->in, in, op->n_in * sizeof *in);
  step->n_in = op->n_in;
  step->out[step->n_out++] = out;
  cpu_made_as (c, op->out[0], out);
  return step;
}

gboolean
cpu_emit_movement (CpuCompiler *c, const HeddleOp *op)
{
  Movement *m = g_new0 (Movement, 1);
  gboolean ok = TRUE;
  switch (op->info->code)
    {
    case HEDDLE_OP_PERMUTE: permute_copy (op, m->copies); break;
    case HEDDLE_OP_CONCAT: concat_copies (op, m->copies); break;
    case HEDDLE_OP_SLICE: slice_copy (op, m->copies); break;
    case HEDDLE_OP_SLICE_GRAD: slice_copy (op, m->copies); m->fill = TRUE; break;
    case HEDDLE_OP_PAD:
      pad_copy (op, m->copies);
      m->fill = TRUE;
      m->value = (float) ((const HeddlePadAttr *) op->attr)->value;
      break;
    default: ok = FALSE; break;
    }
  if (ok)
    {
      Step *step = movement_step (c, op);
      step->data = m;
      step->data_free = g_free;
    }
  else
    g_free (m);
  return ok;
}
