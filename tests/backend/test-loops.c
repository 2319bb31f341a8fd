/* test-loops.c: the cpu device's elementwise loops and reductions at lengths around a strip, a span and the limit for threads, against the double-precision
 * reference: tails, 16 bits, assignments that are conditional, read again or overwritten later, NaN and infinity; and no number of threads changes a bit. */
#include "backend/backend.h"
#include "base/random.h"
#include "reference/reference.h"

#include <math.h>
#include <string.h>

#define RUNS 3

typedef struct { HeddleShape shape; guint32 axes; gboolean mean, skip; float special; gint64 at; } Case;
typedef void (*Build) (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c);      /* emits outputs */

static HeddleDevice *devices[3];      /* of 1, 2 and 3 threads */

static void
open_devices (void)
{
  GError *error = NULL;
  for (gint64 i = 0; i < 3; i++)
    {
      HeddleFlags flags = { 0 };
      heddle_options_init (heddle_flags_options (), &flags);
      flags.threads = i + 1;
      g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
      devices[i] = heddle_device_open ("cpu", &flags, NULL, &error);
      g_assert_no_error (error);
    }
}

static float *
numbers (const Case *c, guint stream)
{
  gint64 n = heddle_shape_count (&c->shape);
  float *x = g_new (float, (gsize) n);
  HeddleRandom r = heddle_random (5, HEDDLE_STREAM_USER, stream, 0);
  for (gint64 k = 0; k < n; k++)
    x[k] = (float) (heddle_random_double (&r) * 4 - 2);
  if (stream == 0 && c->at >= 0)
    x[c->at] = c->special;
  return x;
}

static HeddleProgram *
program_of (Build f, const Case *c, HeddleVariables *vars)
{
  GError *error = NULL;
  HeddleBuilder *b = heddle_builder_new ("loops", vars, TRUE, 1);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &c->shape), *y = heddle_builder_input (b, "y", HEDDLE_F32, &c->shape);
  f (b, x, y, c);
  HeddleProgram *p = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return p;
}

/* (transfer full) outputs and variables after RUNS runs */
static GArray *
run_on (HeddleDevice *device, Build f, const Case *c)
{
  GError *error = NULL;
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleProgram *p = program_of (f, c, vars);
  g_autofree float *x = numbers (c, 0), *y = numbers (c, 1);
  gconstpointer inputs[] = { x, y };
  GArray *all = g_array_new (FALSE, FALSE, sizeof (float));
  g_autoptr (HeddlePlan) plan = device->iface->compile (device, p, &error);
  g_assert_no_error (error);
  g_assert_true (device->iface->allocate (device, vars, &error) && heddle_device_initialise (device, vars, 0, &error));
  for (guint i = 0; i < RUNS; i++)
    g_assert_true (device->iface->run (plan, (const gpointer *) inputs, &error));
  for (guint i = 0; i < p->outputs->len + heddle_variables_count (vars); i++)
    {
      HeddleVariable *variable = i < p->outputs->len ? NULL : heddle_variables_nth (vars, i - p->outputs->len);
      const HeddleShape *shape = variable ? &variable->shape : &((const HeddleValue *) p->outputs->pdata[i])->shape;
      guint at = all->len;
      g_array_set_size (all, at + (guint) heddle_shape_count (shape));
      HeddleTensor t = { HEDDLE_F32, *shape, &g_array_index (all, float, at) };
      g_assert_true (variable ? device->iface->read (device, variable, &t, &error) : device->iface->fetch (plan, i, &t, &error));
    }
  return all;
}

static GArray *
run_reference (Build f, const Case *c)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  g_autoptr (HeddleProgram) p = program_of (f, c, vars);
  g_autoptr (Reference) r = reference_new (p);
  GArray *all = g_array_new (FALSE, FALSE, sizeof (double));
  for (guint i = 0; i < 2; i++)
    {
      g_autofree float *x = numbers (c, i);
      for (gint64 k = 0; k < heddle_shape_count (&c->shape); k++)
        reference_input (r, i)[k] = x[k];
    }
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    for (gint64 k = 0; k < heddle_shape_count (&heddle_variables_nth (vars, i)->shape); k++)
      reference_variable (r, heddle_variables_nth (vars, i))[k] = heddle_variables_nth (vars, i)->init.a;
  for (guint i = 0; i < RUNS; i++)
    reference_run (r);
  for (guint i = 0; i < p->outputs->len; i++)
    g_array_append_vals (all, reference_value (r, p->outputs->pdata[i]), (guint) heddle_shape_count (&((const HeddleValue *) p->outputs->pdata[i])->shape));
  for (guint i = 0; i < heddle_variables_count (vars); i++)
    g_array_append_vals (all, reference_variable (r, heddle_variables_nth (vars, i)), (guint) heddle_shape_count (&heddle_variables_nth (vars, i)->shape));
  return all;
}

static gboolean
agree (float got, double want, double tolerance)
{
  return isnan (want) ? isnan (got) : isinf (want) || fabs (want) > G_MAXFLOAT ? isinf (got) && (got > 0) == (want > 0) : fabs (got - want) <= tolerance * (1 + fabs (want));
}

static void
check (const char *name, Build f, Case c, double tolerance)
{
  g_autoptr (GArray) want = run_reference (f, &c), one = NULL;
  for (guint i = 0; i < 3; i++)
    {
      g_autoptr (GArray) got = run_on (devices[i], f, &c);
      g_assert_cmpuint (got->len, ==, want->len);
      for (guint k = 0; k < got->len; k++)
        if (!agree (g_array_index (got, float, k), g_array_index (want, double, k), tolerance))
          g_error ("%s: %d numbers, element %u: expected %.9g, got %.9g", name, (int) heddle_shape_count (&c.shape), k, g_array_index (want, double, k), (double) g_array_index (got, float, k));
      if (one)
        g_assert_cmpmem (got->data, got->len * sizeof (float), one->data, one->len * sizeof (float));
      else
        one = g_array_ref (got);
    }
}

/* ---- elementwise loops ---- */

/* one strip is 128, one span 4096, threads begin at 32768 */
static const gint64 lengths[] = { 1, 15, 16, 17, 127, 128, 129, 255, 257, 4095, 4096, 4097, 32767, 32768, 32769, 70001 };

static HeddleValue *
scalar (HeddleBuilder *b, const char *name, double number)
{
  HeddleShape shape = heddle_scalar_shape ();
  HeddleInit init = { HEDDLE_INIT_CONSTANT, number, 0 };
  HeddleVariable *v = heddle_variables_declare (heddle_builder_variables (b), name, HEDDLE_ROLE_SCALAR, HEDDLE_F32, &shape, &init, NULL);
  return heddle_builder_variable (b, v);
}

static HeddleValue *
slot (HeddleBuilder *b, const char *name, const HeddleShape *shape, double number)
{
  HeddleInit init = { HEDDLE_INIT_CONSTANT, number, 0 };
  return heddle_builder_variable (b, heddle_variables_declare (heddle_builder_variables (b), name, HEDDLE_ROLE_STATE, HEDDLE_F32, shape, &init, NULL));
}

/* scalars on either side, a choice, a root, a division, two results of which one is read again */
static void
chain (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *s = scalar (b, "s", 0.75), *root = heddle_sqrt (b, heddle_abs (b, heddle_mul (b, s, x)));
  HeddleValue *ratio = heddle_div (b, heddle_sub (b, heddle_constant (b, 1), y), heddle_offset (b, root, 0.5));
  heddle_builder_output (b, ratio);
  heddle_builder_output (b, heddle_select (b, heddle_greater (b, x, y), heddle_tanh (b, ratio), heddle_max (b, s, y)));
}

static void
narrow (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *low = heddle_cast (b, x, HEDDLE_BF16), *sum = heddle_add (b, low, heddle_cast (b, y, HEDDLE_BF16));
  heddle_builder_output (b, sum);
  heddle_builder_output (b, heddle_mul (b, heddle_cast (b, sum, HEDDLE_F32), y));
}

/* A moment that is read before and after it is assigned, a parameter that follows it, both left alone when SKIP says so. */
static void
update (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *m = slot (b, "m", &c->shape, 0.5), *p = slot (b, "p", &c->shape, 2), *skip = c->at < 0 ? NULL : scalar (b, "skip", c->skip);
  HeddleValue *before = heddle_mul (b, m, y), *next = heddle_add (b, heddle_scale (b, m, 0.9), heddle_scale (b, x, 0.1));
  heddle_builder_assign (b, m, next, skip);
  heddle_builder_assign (b, p, heddle_sub (b, p, heddle_mul (b, heddle_constant (b, 0.01), heddle_add (b, next, before))), skip);
  heddle_builder_output (b, heddle_add (b, next, before));
}

/* What is assigned first is still read when the variable has other numbers already. */
static void
overwritten (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *v = slot (b, "v", &c->shape, 1), *w = slot (b, "w", &c->shape, 3), *first = heddle_add (b, v, x), *old = heddle_scale (b, w, 2);
  heddle_builder_assign (b, v, first, NULL);
  heddle_builder_assign (b, v, heddle_mul (b, heddle_builder_variable (b, ((HeddleValue *) v)->variable), y), NULL);
  heddle_builder_assign (b, w, heddle_scale (b, heddle_add (b, first, old), 0.25), NULL);
  heddle_builder_output (b, heddle_mul (b, first, old));
}

/* A product of a variable with itself must not be made where it still reads. */
static void
squared (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *w = slot (b, "w", &c->shape, 0.125);
  heddle_builder_assign (b, w, heddle_matmul (b, heddle_add (b, w, x), x, FALSE, TRUE), NULL);
  heddle_builder_assign (b, w, heddle_matmul (b, heddle_builder_variable (b, ((HeddleValue *) w)->variable), w, FALSE, FALSE), NULL);
  heddle_builder_output (b, heddle_add (b, x, y));
}

static void
test_squared (void)
{
  for (gint64 n = 2; n < 40; n += 9)
    check ("squared", squared, (Case) { .shape = heddle_shape (n, n), .at = -1 }, 1e-4);
}

static void
test_lengths (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++)
    {
      Case c = { .shape = heddle_shape (lengths[i]), .at = -1 };
      check ("chain", chain, c, 2e-6);
      check ("overwritten", overwritten, c, 2e-6);
      check ("update", update, c, 2e-6);
      check ("narrow", narrow, c, 1.0 / 128);
    }
}

static void
test_skipped (void)
{
  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++)
    for (guint skip = 0; skip < 2; skip++)
      check ("skip", update, (Case) { .shape = heddle_shape (lengths[i]), .skip = skip, .at = 0, .special = 1 }, 2e-6);
}

static void
test_special (void)
{
  const float special[] = { NAN, INFINITY, -INFINITY, -0.0f, 1e-40f, 3e38f };
  for (guint i = 0; i < G_N_ELEMENTS (special); i++)
    for (gint64 at = 0; at < 300; at += 149)
      check ("special", chain, (Case) { .shape = heddle_shape (300), .special = special[i], .at = at }, 2e-6);
}

/* ---- reductions ---- */

static void
reduce (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  heddle_builder_output (b, c->mean ? heddle_mean (b, x, c->axes, FALSE) : heddle_sum (b, x, c->axes, TRUE));
  heddle_builder_output (b, heddle_mean (b, heddle_mul (b, x, y), c->axes, FALSE));
}

static void
norm (HeddleBuilder *b, HeddleValue *x, HeddleValue *y, const Case *c)
{
  HeddleValue *out[2] = { NULL };
  b->iface->emit (b, HEDDLE_OP_NORM_STATS, "norm", &x, 1, NULL, 0, out, 2);
  heddle_builder_output (b, out[0]);
  heddle_builder_output (b, out[1]);
}

#define S(...) heddle_shape (__VA_ARGS__)

static void
test_reductions (void)
{
  const HeddleShape shapes[] = { S (1), S (7), S (129), S (70001), S (1, 1), S (3, 5, 7), S (200, 300), S (2, 40000), S (40000, 3), S (40001, 1), S (9, 33, 1, 257), S (17, 1, 5, 3, 2, 65), S (3, 11, 2, 1, 2, 2) };
  for (guint i = 0; i < G_N_ELEMENTS (shapes); i++)
    for (guint32 axes = 0; axes < 1u << shapes[i].rank; axes++)
      check ("reduce", reduce, (Case) { .shape = shapes[i], .axes = axes, .mean = axes & 1, .at = -1 }, 1e-6);
}

static void
test_reduced_special (void)
{
  const float special[] = { NAN, INFINITY, -INFINITY, 1e38f };
  const gint64 places[] = { 0, 15, 16, 69999, 70000 };
  for (guint i = 0; i < G_N_ELEMENTS (special); i++)
    for (guint k = 0; k < G_N_ELEMENTS (places); k++)
      {
        Case c = { .shape = S (70001), .special = special[i], .at = places[k] };
        check ("reduce", reduce, c, 1e-6);
        check ("norm", norm, c, 1e-6);
        c.shape = S (7, 10001);
        for (c.axes = 1; c.axes < 3; c.axes++)
          check ("reduce", reduce, c, 1e-6);
      }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  open_devices ();
  g_test_add_func ("/loops/lengths", test_lengths);
  g_test_add_func ("/loops/skipped", test_skipped);
  g_test_add_func ("/loops/squared", test_squared);
  g_test_add_func ("/loops/special", test_special);
  g_test_add_func ("/loops/reductions", test_reductions);
  g_test_add_func ("/loops/reduced-special", test_reduced_special);
  int status = g_test_run ();
  for (guint i = 0; i < 3; i++)
    heddle_device_close (devices[i]);
  return status;
}
