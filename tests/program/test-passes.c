/* test-passes.c: the memory plan against brute force on random lifetimes; lifetimes through views; clusters. */
#include "base/random.h"
#include "program/program.h"

/* No two that live at once share a byte; the arena is no larger than the sum, no smaller than the fullest moment. */
static void
test_memory (void)
{
  for (guint64 seed = 0; seed < 300; seed++)
    {
      HeddleRandom r = heddle_random (seed, HEDDLE_STREAM_USER, 0, 0);
      guint n = 1 + heddle_random_below (&r, 60);
      g_autofree gsize *sizes = g_new (gsize, n), *offsets = g_new (gsize, n);
      g_autofree HeddleLifetime *l = g_new (HeddleLifetime, n);
      gsize sum = 0, fullest = 0;
      for (guint i = 0; i < n; i++)
        {
          sizes[i] = heddle_random_below (&r, 10) ? heddle_random_below (&r, 5000) : 0;
          l[i].first = (gint) heddle_random_below (&r, 40);
          l[i].last = l[i].first + (gint) heddle_random_below (&r, 20) - 2;       /* some never live */
          if (l[i].first <= l[i].last)
            sum += (sizes[i] + 63) / 64 * 64;
        }
      gsize arena = heddle_memory_plan (sizes, l, n, 64, offsets);
      for (gint t = 0; t < 60; t++)
        {
          gsize now = 0;
          for (guint i = 0; i < n; i++)
            if (l[i].first <= t && t <= l[i].last)
              now += (sizes[i] + 63) / 64 * 64;
          fullest = MAX (fullest, now);
        }
      g_assert_cmpuint (arena, <=, sum);
      g_assert_cmpuint (arena, >=, fullest);
      for (guint i = 0; i < n; i++)
        {
          g_assert_cmpuint (offsets[i] % 64, ==, 0);
          for (guint j = 0; j < i; j++)
            if (sizes[i] && sizes[j] && l[i].first <= l[i].last && l[j].first <= l[j].last && l[i].first <= l[j].last && l[j].first <= l[i].last)
              g_assert_true (offsets[i] + sizes[i] <= offsets[j] || offsets[j] + sizes[j] <= offsets[i]);
        }
    }
}

static guint
index_of (const HeddleProgram *p, HeddleOpCode code)
{
  for (guint i = 0; i < p->ops->len; i++)
    if (((HeddleOp *) p->ops->pdata[i])->info->code == code)
      return i;
  g_error ("no such operation in the program");
}

/* A view keeps alive what it views; an output lives to the end. */
static void
test_lifetimes (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (2, 6);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *e = heddle_exp (b, x), *v = heddle_reshape (b, e, heddle_shape (3, 4));
  HeddleValue *t = heddle_tanh (b, x), *s = heddle_sum (b, v, 0, FALSE);
  heddle_builder_output (b, s);
  heddle_builder_output (b, t);
  g_autoptr (HeddleProgram) p = heddle_builder_finish (b, NULL);
  g_autofree HeddleLifetime *l = g_new (HeddleLifetime, p->values->len);
  heddle_program_lifetimes (p, l);
  HeddleOp *exp_op = p->ops->pdata[index_of (p, HEDDLE_OP_EXP)], *tanh_op = p->ops->pdata[index_of (p, HEDDLE_OP_TANH)];
  g_assert_cmpint (l[exp_op->out[0]->id].first, ==, (gint) exp_op->id);
  g_assert_cmpint (l[exp_op->out[0]->id].last, ==, (gint) index_of (p, HEDDLE_OP_SUM));
  g_assert_cmpint (l[tanh_op->out[0]->id].last, ==, (gint) p->ops->len);
}

/* Elementwise neighbours of one shape are one cluster; another shape or a reduction begins a new one. */
static void
test_clusters (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (2, 6);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *y = heddle_scale (b, heddle_exp (b, heddle_neg (b, x)), 2);
  HeddleValue *s = heddle_sum (b, y, 0, FALSE);
  heddle_builder_output (b, heddle_square (b, s));
  g_autoptr (HeddleProgram) p = heddle_builder_finish (b, NULL);
  g_autofree gint *cluster = g_new (gint, p->ops->len);
  g_assert_cmpuint (heddle_program_clusters (p, cluster), ==, 2);
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_NEG)], ==, 0);
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_EXP)], ==, 0);
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_MUL)], ==, 0);
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_SUM)], ==, -1);
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_SQUARE)], ==, 1);
}

/* A scalar between two operations of one loop goes before the loop when it depends on nothing in it, and stays when it does. */
static void
test_scalars (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleShape shape = heddle_shape (4, 6), scalar = heddle_scalar_shape ();
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape), *s = heddle_builder_input (b, "s", HEDDLE_F32, &scalar);
  HeddleValue *y = heddle_exp (b, x), *free_scalar = heddle_sqrt (b, s), *z = heddle_mul (b, y, free_scalar);
  HeddleValue *sum = heddle_sum (b, z, 0, FALSE), *bound = heddle_square (b, sum);
  heddle_builder_output (b, heddle_tanh (b, heddle_mul (b, z, bound)));
  g_autoptr (HeddleProgram) p = heddle_builder_finish (b, NULL);
  g_autofree gint *cluster = g_new (gint, p->ops->len);
  heddle_program_clusters (p, cluster);
  g_assert_cmpuint (index_of (p, HEDDLE_OP_SQRT), <, index_of (p, HEDDLE_OP_EXP));
  g_assert_cmpint (cluster[index_of (p, HEDDLE_OP_EXP)], ==, cluster[index_of (p, HEDDLE_OP_MUL)]);
  g_assert_cmpuint (index_of (p, HEDDLE_OP_SQUARE), >, index_of (p, HEDDLE_OP_SUM));
  for (guint i = 0; i < p->ops->len; i++)
    g_assert_cmpuint (((HeddleOp *) p->ops->pdata[i])->id, ==, i);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/passes/memory", test_memory);
  g_test_add_func ("/passes/lifetimes", test_lifetimes);
  g_test_add_func ("/passes/clusters", test_clusters);
  g_test_add_func ("/passes/scalars", test_scalars);
  return g_test_run ();
}
