/* cuda-chain/test-operations.c: every elementwise operation as a generated kernel, compiled for the host, against the cpu device: in f32, f16 and bf16, with broadcasts,
 * odd sizes, addresses off by an element, images with channels last.  Must not know how sources are written.
 * Operations of one rounding each are the same bits.  Where the cpu device has polynomials or fused multiply-adds of its own, results differ by units in the
 * last place: BOUND is in units of 2^-24 of the result, SPREAD in the same units of the first input, where the formula subtracts from 1. */
#include "host.h"

#include "backend/backend.h"
#include "tensor/tensors.h"

#include <math.h>
#include <string.h>

typedef struct { double bound, spread; } Bound;

static HeddleDevice *device;
static GRand *numbers;

static Bound
bound_of (HeddleOpCode code)
{
  Bound b = { 0, 0 };
  switch (code)
    {
    case HEDDLE_OP_EXP: case HEDDLE_OP_EXPM1: case HEDDLE_OP_LOG: case HEDDLE_OP_SIGMOID: case HEDDLE_OP_TANH: b = (Bound) { 12, 0 }; break;
    case HEDDLE_OP_GELU: case HEDDLE_OP_SILU: case HEDDLE_OP_TANH_GRAD: case HEDDLE_OP_HARDSWISH_GRAD: b = (Bound) { 16, 8 }; break;
    case HEDDLE_OP_GELU_GRAD: case HEDDLE_OP_SILU_GRAD: b = (Bound) { 32, 32 }; break;
    case HEDDLE_OP_DEQUANTIZE: b = (Bound) { 4, 4 }; break;
    default: break;
    }
  return b;
}

/* ---- one program, two ways ---- */

#define MAX_INPUTS 4
typedef struct
{
  char          *name;
  HeddleProgram *program;       /* of the chains */
  HeddlePlan    *plan;          /* of the cpu device */
  Exec          *exec;
  guint          shift;
  gboolean       last;          /* channels last */
  Bound          bound;
} Case;

static GPtrArray *cases, *singles;
typedef void (*Emit) (HeddleBuilder *b, HeddleValue *const *in, gconstpointer data);

static HeddleProgram *
build (Emit emit, gconstpointer data, const HeddleTensor *in, guint n, GError **error)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("case", vars, TRUE, 7);
  HeddleValue *values[MAX_INPUTS];
  for (guint i = 0; i < n; i++)
    {
      g_autofree char *name = g_strdup_printf ("in%u", i);
      values[i] = heddle_builder_input (b, name, in[i].dtype, &in[i].shape);
    }
  emit (b, values, data);
  return heddle_builder_finish (b, error);
}

static Host *host;

static void
add_case (char *name, Emit emit, gconstpointer data, const HeddleTensor *in, guint n, guint shift, gboolean last, Bound bound)
{
  GError *error = NULL;
  ChainOptions options = { .order = last ? CHAIN_CHANNELS_LAST : CHAIN_ROWS };
  HeddleProgram *program = build (emit, data, in, n, NULL), *twin = build (emit, data, in, n, NULL);
  if (program)                  /* else a combination that the operation refuses */
    {
      Case *c = g_new0 (Case, 1);
      *c = (Case) { .name = name, .program = program, .plan = device->iface->compile (device, twin, &error), .shift = shift, .last = last, .bound = bound };
      g_assert_no_error (error);
      c->exec = exec_new (host, program, &options, shift);
      g_ptr_array_add (cases, c);
    }
  else
    g_free (name);
}

static const float special[] = { 0, -0.0f, 1, -1, INFINITY, -INFINITY, NAN, 65504, 65520, -65536, 1e-8f, 6e-8f, -3e-5f, 3.4e38f, 1e-40f, 255.5f, 300, 2.5f, 3, -3, 6, 88.8f, -88.8f, 0.5f };

static float
number (gint64 i, gint64 n)
{
  gboolean odd = i < (gint64) G_N_ELEMENTS (special) && n > 64;
  return odd ? special[i] : (float) (g_rand_double_range (numbers, -1, 1) * pow (10, g_rand_double_range (numbers, -3, 1.2)));
}

static void
fill (HeddleTensor *t)
{
  gint64 n = heddle_shape_count (&t->shape);
  g_autofree float *x = g_new (float, n);
  for (gint64 i = 0; i < n; i++)
    x[i] = number (i, n);
  heddle_convert (t->dtype, t->data, HEDDLE_F32, x, (gsize) n);
}

/* Images between (N, C, H, W) and (N, H, W, C) */
static void
reorder (const HeddleShape *s, gsize size, const char *rows, char *last, gboolean back)
{
  gint64 c = s->size[1], hw = s->size[2] * s->size[3];
  for (gint64 n = 0; n < s->size[0]; n++)
    for (gint64 k = 0; k < c; k++)
      for (gint64 i = 0; i < hw; i++)
        {
          gsize at = (gsize) ((n * c + k) * hw + i) * size, to = (gsize) ((n * hw + i) * c + k) * size;
          memcpy (back ? (char *) rows + at : last + to, back ? last + to : rows + at, size);
        }
}

static void
place (Case *c, const HeddleTensor *t, gpointer memory, gboolean back)
{
  gsize size = heddle_dtype_size (t->dtype);
  if (c->last && t->shape.rank == 4)
    reorder (&t->shape, size, t->data, memory, back);
  else
    memcpy (back ? t->data : memory, back ? memory : t->data, size * (gsize) heddle_shape_count (&t->shape));
}

/* Is MINE what THEIRS is, up to BOUND and, for 16-bit results, to the neighbour that rounding may choose?  X is the first input. */
static gboolean
near_enough (const Bound *b, HeddleDtype dtype, double mine, double theirs, double x)
{
  double unit = dtype == HEDDLE_F16 ? 0x1p-10 : dtype == HEDDLE_BF16 ? 0x1p-7 : 0, tiny = dtype == HEDDLE_F16 ? 0x1p-24 : 1e-37;
  gboolean exact = b->bound == 0;
  gboolean same = (isnan (mine) && isnan (theirs)) || (mine == theirs && signbit (mine) == signbit (theirs));
  double allowed = (b->bound * fabs (theirs) + b->spread * fabs (isfinite (x) ? x : 0)) * 0x1p-24 + unit * fabs (theirs) + tiny;
  gboolean overflow = !exact && dtype == HEDDLE_F16 && fabs (theirs) >= 65504 && fabs (mine) >= 65504;
  return same || overflow || (!exact && fabs (mine - theirs) <= allowed);
}

static void
compare (const Case *c, guint k, const HeddleTensor *mine, const HeddleTensor *theirs, const HeddleTensor *x)
{
  gint64 n = heddle_shape_count (&mine->shape), nx = heddle_shape_count (&x->shape);
  g_autofree double *a = g_new (double, n), *b = g_new (double, n), *first = g_new (double, nx);
  float *f = g_new (float, MAX (n, nx));
  const HeddleTensor *from[] = { mine, theirs, x };
  double *to[] = { a, b, first };
  for (guint i = 0; i < 3; i++)
    {
      gint64 count = i < 2 ? n : nx;
      heddle_convert (HEDDLE_F32, f, from[i]->dtype, from[i]->data, (gsize) count);
      for (gint64 j = 0; j < count; j++)
        to[i][j] = (double) f[j];
    }
  g_free (f);
  for (gint64 i = 0; i < n; i++)
    if (!near_enough (&c->bound, mine->dtype, a[i], b[i], nx == n ? first[i] : 16))
      g_error ("%s: output %u, element %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT ": %.9g, the cpu device has %.9g (first input %.9g)", c->name, k, i, n, a[i], b[i], nx == n ? first[i] : NAN);
}

static void
run_case (Case *c)
{
  GError *error = NULL;
  HeddleTensor in[MAX_INPUTS] = { { 0 } };
  gpointer pointers[MAX_INPUTS];
  for (guint i = 0; i < c->program->inputs->len; i++)
    {
      const HeddleValue *v = c->program->inputs->pdata[i];
      gsize n = heddle_tensor_bytes (v->dtype, &v->shape);
      in[i] = (HeddleTensor) { v->dtype, v->shape, g_malloc0 (n) };
      fill (&in[i]);
      if (i == 1 && g_str_has_prefix (c->name, "dropout/"))
        *(float *) in[i].data = 12345;       /* the step */
      pointers[i] = in[i].data;
      c->exec->data[v->id] = exec_alloc (c->exec, n);
      place (c, &in[i], c->exec->data[v->id], FALSE);
    }
  g_assert_true (device->iface->run (c->plan, pointers, &error));
  exec_run (c->exec);
  for (guint k = 0; k < c->program->outputs->len; k++)
    {
      const HeddleValue *v = c->program->outputs->pdata[k];
      gsize n = heddle_tensor_bytes (v->dtype, &v->shape);
      HeddleTensor mine = { v->dtype, v->shape, g_malloc0 (n) }, theirs = { v->dtype, v->shape, g_malloc0 (n) };
      place (c, &mine, exec_data (c->exec, v), TRUE);
      g_assert_true (device->iface->fetch (c->plan, k, &theirs, &error));
      compare (c, k, &mine, &theirs, &in[0]);
      g_free (mine.data);
      g_free (theirs.data);
    }
  for (guint i = 0; i < c->program->inputs->len; i++)
    g_free (in[i].data);
}

static void
case_free (gpointer data)
{
  Case *c = data;
  exec_free (c->exec);
  heddle_plan_free (c->plan);
  heddle_program_free (c->program);
  g_free (c->name);
  g_free (c);
}

/* ---- single operations ---- */

typedef struct { const HeddleOpInfo *info; union { HeddleGeluAttr gelu; HeddleSlopeAttr slope; HeddleClampAttr clamp; HeddleCastAttr cast; HeddleDropoutAttr dropout; HeddleDequantizeAttr dequantize; HeddleShapeAttr shape; } attr; } Single;

static void
emit_single (HeddleBuilder *b, HeddleValue *const *in, gconstpointer data)
{
  const Single *s = data;
  HeddleValue *out = NULL;
  guint n = s->info->code == HEDDLE_OP_SELECT ? 3 : s->info->min_in;
  b->iface->emit (b, s->info->code, NULL, in, n, s->info->attr_size ? &s->attr : NULL, s->info->attr_size, &out, 1);
  heddle_builder_output (b, out);
}

#define N_DTYPES 3
static const HeddleDtype floats[N_DTYPES] = { HEDDLE_F32, HEDDLE_F16, HEDDLE_BF16 };

static Single *
single_new (const HeddleOpInfo *info)
{
  Single *s = g_new0 (Single, 1);
  g_ptr_array_add (singles, s);
  s->info = info;
  if (info->code == HEDDLE_OP_LEAKY_RELU || info->code == HEDDLE_OP_LEAKY_RELU_GRAD)
    s->attr.slope.slope = 0.01;
  if (info->code == HEDDLE_OP_CLAMP || info->code == HEDDLE_OP_CLAMP_GRAD)
    s->attr.clamp = (HeddleClampAttr) { -0.7, 6 };
  return s;
}

static void
add_single (Single *s, const HeddleTensor *in, guint n, const char *what, guint shift, gboolean last)
{
  add_case (g_strdup_printf ("%s/%s/%s%s", s->info->name, heddle_dtype_name (in[0].dtype), what, last ? "/channels last" : ""), emit_single, s, in, n, shift, last, bound_of (s->info->code));
}

static void
each_operation (const HeddleOpInfo *info, gpointer data)
{
  const HeddleShape shape = heddle_shape (3, 5, 7, 11);
  if (!(info->flags & HEDDLE_OP_ELEMENTWISE) || info->code == HEDDLE_OP_CAST)
    return;
  for (guint d = 0; d < N_DTYPES; d++)
    for (guint form = 0; form < (info->code == HEDDLE_OP_GELU || info->code == HEDDLE_OP_GELU_GRAD ? 2 : 1); form++)
      {
        Single *s = single_new (info);
        HeddleTensor in[3] = { { floats[d], shape, NULL }, { floats[d], shape, NULL }, { floats[d], shape, NULL } };
        if (form)
          s->attr.gelu.tanh_form = 1;
        add_single (s, in, info->max_in, form ? "tanh" : "whole", 0, FALSE);
        if (d == 0)
          add_single (s, in, info->max_in, "off by 4 bytes", 4, FALSE);
      }
}

static void
add_broadcasts (void)
{
  const struct { HeddleShape a, b; } pairs[] = {
    { heddle_shape (6, 64), heddle_shape (64) }, { heddle_shape (6, 64), heddle_shape (6, 1) }, { heddle_shape (5, 7), heddle_shape (7) }, { heddle_shape (5, 7), heddle_shape (5, 1) },
    { heddle_shape (2, 8, 3, 5), heddle_shape (8, 1, 1) }, { heddle_shape (2, 8, 3, 5), heddle_shape (1, 8, 1, 1) }, { heddle_shape (2, 8, 4, 8), heddle_shape (2, 8, 1, 1) },
    { heddle_shape (2, 8, 4, 8), heddle_shape (4, 8) }, { heddle_shape (2, 8, 4, 8), heddle_shape (2, 1, 4, 8) }, { heddle_shape (2, 8, 4, 8), heddle_shape (1, 8, 4, 8) },
    { heddle_shape (2, 3, 4, 5), heddle_shape (2, 1, 4, 1) }, { heddle_shape (1, 8, 4, 8), heddle_shape (8, 4, 8) }, { heddle_shape (8, 4, 8), heddle_shape (1, 8, 4, 8) }, { heddle_shape (4, 1, 6), heddle_shape (4, 5, 6) }, { heddle_shape (4, 1), heddle_shape (1, 8) }, { heddle_shape (1, 1), heddle_shape (9, 16) },
    { heddle_scalar_shape (), heddle_shape (33) }, { heddle_shape (33), heddle_scalar_shape () }, { heddle_shape (1), heddle_scalar_shape () }, { heddle_scalar_shape (), heddle_scalar_shape () },
  };
  for (guint i = 0; i < G_N_ELEMENTS (pairs); i++)
    for (guint d = 0; d < N_DTYPES; d++)
      {
        g_autofree char *a = heddle_shape_print (&pairs[i].a), *b = heddle_shape_print (&pairs[i].b), *what = g_strdup_printf ("%s with %s", a, b);
        HeddleTensor in[2] = { { floats[d], pairs[i].a, NULL }, { floats[d], pairs[i].b, NULL } };
        HeddleShape whole;
        g_assert_true (heddle_shape_broadcast (&pairs[i].a, &pairs[i].b, &whole));
        add_single (single_new (heddle_op_info (HEDDLE_OP_SUB)), in, 2, what, 0, FALSE);
        if (whole.rank == 4)
          add_single (single_new (heddle_op_info (HEDDLE_OP_SUB)), in, 2, what, 0, TRUE);
        Single *s = single_new (heddle_op_info (HEDDLE_OP_BROADCAST));
        s->attr.shape.shape = whole;
        add_single (s, in, 1, what, 0, FALSE);
      }
}

static void
add_casts (void)
{
  static const HeddleDtype all[] = { HEDDLE_F32, HEDDLE_F16, HEDDLE_BF16, HEDDLE_U8, HEDDLE_I32, HEDDLE_I64 };
  for (guint i = 0; i < G_N_ELEMENTS (all); i++)
    for (guint j = 0; j < G_N_ELEMENTS (all); j++)
      {
        Single *s = single_new (heddle_op_info (HEDDLE_OP_CAST));
        HeddleTensor in = { all[i], heddle_shape (7, 101), NULL };
        g_autofree char *what = g_strconcat ("to ", heddle_dtype_name (all[j]), NULL);
        s->attr.cast.dtype = all[j];
        add_single (s, &in, 1, what, 0, FALSE);
      }
}

static void
add_dropouts (void)
{
  const HeddleShape shapes[] = { heddle_shape (3, 5, 7, 11), heddle_shape (4, 64), heddle_shape (2, 8, 4, 4), heddle_scalar_shape () };
  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++)
    for (guint d = 0; d < N_DTYPES; d++)
      {
        Single *s = single_new (heddle_op_info (HEDDLE_OP_DROPOUT));
        g_autofree char *what = heddle_shape_print (&shapes[i]);
        HeddleTensor in[2] = { { floats[d], shapes[i], NULL }, { HEDDLE_F32, heddle_scalar_shape (), NULL } };
        s->attr.dropout = (HeddleDropoutAttr) { 0.3, 0x123456789abcdefull, 0xfedcba9876543ull };
        add_single (s, in, 2, what, 0, FALSE);
        if (shapes[i].rank == 4)
          add_single (s, in, 2, what, 0, TRUE);
      }
}

static void
add_dequantize (void)
{
  for (gint32 channels = 1; channels <= 3; channels += 2)
    for (guint last = 0; last < 2; last++)
      {
        Single *s = single_new (heddle_op_info (HEDDLE_OP_DEQUANTIZE));
        HeddleTensor in = { HEDDLE_U8, heddle_shape (4, 3, 5, 7), NULL };
        s->attr.dequantize = (HeddleDequantizeAttr) { 1 / 255.0, channels, { 0.4914, 0.4822, 0.4465 }, { 0.247, 0.243, 0.261 } };
        add_single (s, &in, 1, channels == 1 ? "one mean" : "three means", 0, last);
      }
}

/* ---- several at once ---- */

/* 16-bit results are rounded inside a chain as they are outside; scalars are computed where they are needed; what is used twice is stored once. */
static void
emit_mixed (HeddleBuilder *b, HeddleValue *const *in, gconstpointer data)
{
  HeddleDtype low = *(const HeddleDtype *) data;
  HeddleValue *scale = heddle_offset (b, heddle_sqrt (b, heddle_abs (b, in[1])), 0.25);
  HeddleValue *x = heddle_cast (b, in[0], low), *y = heddle_mul (b, x, x), *z = heddle_add (b, y, x);
  HeddleValue *wide = heddle_mul (b, heddle_cast (b, z, HEDDLE_F32), scale);
  HeddleValue *flat = heddle_reshape (b, heddle_max (b, wide, in[0]), heddle_shape (-1));
  HeddleValue *back = heddle_reshape (b, heddle_neg (b, flat), heddle_shape (9, -1));
  heddle_builder_output (b, y);
  heddle_builder_output (b, scale);
  heddle_builder_output (b, flat);
  heddle_builder_output (b, heddle_relu (b, back));
}

static void
add_mixed (void)
{
  for (guint d = 0; d < N_DTYPES; d++)
    {
      HeddleTensor in[2] = { { HEDDLE_F32, heddle_shape (3, 9, 13), NULL }, { HEDDLE_F32, heddle_scalar_shape (), NULL } };
      add_case (g_strdup_printf ("mixed/%s", heddle_dtype_name (floats[d])), emit_mixed, &floats[d], in, 2, 0, FALSE, (Bound) { 0, 0 });
    }
}

static void
test_all (void)
{
  guint ran = 0;
  for (guint i = 0; i < cases->len; i++, ran++)
    run_case (cases->pdata[i]);
  g_test_message ("%u cases", ran);
  g_assert_cmpuint (ran, >, 150);
}

static void
test_one_launch (void)
{
  for (guint i = 0; i < cases->len; i++)
    {
      const Case *c = cases->pdata[i];
      g_assert_cmpuint (c->exec->n_chains, ==, 1);
    }
}

static void
test_no_compiler (void)
{
  g_test_skip ("no g++");
}

int
main (int argc, char **argv)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  g_test_init (&argc, &argv, NULL);
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = 1;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  numbers = g_rand_new_with_seed (11);
  cases = g_ptr_array_new_with_free_func (case_free);
  singles = g_ptr_array_new_with_free_func (g_free);
  host = host_new ();
  heddle_op_each (each_operation, NULL);
  add_broadcasts ();
  add_casts ();
  add_dropouts ();
  add_dequantize ();
  add_mixed ();
  if (host_build (host))
    {
      g_test_add_func ("/cuda-chain/operations against the cpu device", test_all);
      g_test_add_func ("/cuda-chain/one kernel each", test_one_launch);
    }
  else
    g_test_add_func ("/cuda-chain/operations against the cpu device", test_no_compiler);
  int status = g_test_run ();
  g_ptr_array_unref (cases);
  g_ptr_array_unref (singles);
  host_free (host);
  g_rand_free (numbers);
  heddle_device_close (device);
  return status;
}
