/* test-shapes.c: the shape rules: what each operation makes of its inputs, and what it refuses with which words. */
#include <string.h>

#include "program/program.h"
#include "tensor/tensors.h"

typedef struct { HeddleBuilder *b; HeddleVariables *vars; } Bench;

static Bench
bench_new (void)
{
  Bench t = { .vars = heddle_variables_new () };
  t.b = heddle_builder_new ("t", t.vars, TRUE, 1);
  return t;
}

static void
bench_free (Bench *t)
{
  heddle_builder_free (t->b);
  heddle_variables_free (t->vars);
}

static HeddleValue *
input (Bench *t, HeddleDtype dtype, HeddleShape shape)
{
  return heddle_builder_input (t->b, "x", dtype, &shape);
}

#define F(...) input (&t, HEDDLE_F32, heddle_shape (__VA_ARGS__))

static void
check (Bench *t, HeddleValue *y, const char *dtype, const char *shape)
{
  g_assert_no_error (heddle_builder_error (t->b));
  HeddleShape s = heddle_shape_of (t->b, y);
  g_autofree char *text = heddle_shape_print (&s);
  g_assert_cmpstr (text, ==, shape);
  g_assert_cmpstr (heddle_dtype_name (heddle_dtype_of (t->b, y)), ==, dtype);
}

static void
test_results (void)
{
  Bench t = bench_new ();
  HeddleBuilder *b = t.b;
  check (&t, heddle_add (b, F (2, 1, 4), F (3, 1)), "f32", "2x3x4");
  check (&t, heddle_add (b, input (&t, HEDDLE_BF16, heddle_shape (3)), F (3)), "f32", "3");
  check (&t, heddle_add (b, input (&t, HEDDLE_BF16, heddle_shape (3)), heddle_constant (b, 2)), "bf16", "3");
  check (&t, heddle_cast (b, F (3), HEDDLE_F16), "f16", "3");
  check (&t, heddle_reshape (b, F (2, 3, 4), heddle_shape (4, -1)), "f32", "4x6");
  check (&t, heddle_flatten (b, F (2, 3, 4)), "f32", "2x12");
  check (&t, heddle_sum (b, F (2, 3, 4), 1u << 1, FALSE), "f32", "2x4");
  check (&t, heddle_sum (b, F (2, 3, 4), 1u << 1, TRUE), "f32", "2x1x4");
  check (&t, heddle_mean (b, F (2, 3, 4), 0, FALSE), "f32", "scalar");
  check (&t, heddle_matmul (b, F (2, 3), F (4, 3), FALSE, TRUE), "f32", "2x4");
  check (&t, heddle_matmul (b, F (3, 2), F (3, 4), TRUE, FALSE), "f32", "2x4");
  /* (H + 2p - d (k - 1) - 1) / s + 1: (9 + 2 - 2 * 2 - 1) / 2 + 1 = 4, (11 + 2 - 4 - 1) / 2 + 1 = 5 */
  check (&t, heddle_conv2d (b, "c1", F (2, 4, 9, 11), .channels = 6, .kernel = 3, .stride = 2, .padding = 1, .dilation = 2, .groups = 2), "f32", "2x6x4x5");
  check (&t, heddle_conv2d (b, "c2", F (1, 1, 5, 5), .channels = 1, .kernel = 5), "f32", "1x1x1x1");
  check (&t, heddle_max_pool (b, F (2, 3, 7, 8), .kernel = 3, .stride = 2, .padding = 1), "f32", "2x3x4x4");
  check (&t, heddle_avg_pool (b, F (2, 3, 7, 8), .kernel = 2), "f32", "2x3x3x4");
  check (&t, heddle_global_avg_pool (b, F (2, 3, 7, 8)), "f32", "2x3");
  check (&t, heddle_linear (b, "fc", F (2, 3, 2, 2), .features = 5), "f32", "2x5");
  check (&t, heddle_softmax (b, F (2, 5), -1), "f32", "2x5");
  check (&t, heddle_batch_norm (b, "bn", F (2, 3, 4, 4)), "f32", "2x3x4x4");
  check (&t, heddle_linear (b, "fc3", F (2, 3, 4), .features = 5, .last_axis = TRUE), "f32", "2x3x5");
  check (&t, heddle_matmul (b, F (2, 5, 3), F (2, 3, 4), FALSE, FALSE), "f32", "2x5x4");
  check (&t, heddle_matmul (b, F (2, 3, 5), F (4, 3), TRUE, TRUE), "f32", "2x5x4");
  check (&t, heddle_layer_norm (b, "ln", F (2, 3, 4)), "f32", "2x3x4");
  check (&t, heddle_group_norm (b, "gn", F (2, 6, 4, 4), .groups = 3), "f32", "2x6x4x4");
  check (&t, heddle_embedding (b, "wte", input (&t, HEDDLE_I64, heddle_shape (2, 3)), .count = 7, .features = 5), "f32", "2x3x5");
  check (&t, heddle_permute (b, F (2, 3, 4), 2, 0, 1), "f32", "4x2x3");
  check (&t, heddle_transpose (b, F (2, 3, 4), -1, -2), "f32", "2x4x3");
  check (&t, heddle_concat (b, (HeddleValue *[]) { F (2, 3), F (2, 4) }, 2, -1), "f32", "2x7");
  check (&t, heddle_slice (b, F (2, 7), 1, 2, -1), "f32", "2x4");
  check (&t, heddle_slice_step (b, F (2, 7), 1, 1, 0, 4), "f32", "2x2");
  check (&t, heddle_pad (b, F (2, 7), 0, 1, 2, 0), "f32", "5x7");
  check (&t, heddle_scaled_dot_product_attention (b, F (2, 3, 5, 4), F (2, 3, 6, 4), F (2, 3, 6, 7), FALSE, 0), "f32", "2x3x5x7");
  bench_free (&t);
}

#define REFUSED(says, expression) \
  do { \
    Bench t = bench_new (); \
    HeddleBuilder *b = t.b; \
    g_assert_null (expression); \
    g_assert_error (heddle_builder_error (b), HEDDLE_ERROR, HEDDLE_ERROR_PROGRAM); \
    if (!strstr (heddle_builder_error (b)->message, says)) \
      g_error ("expected \"%s\" in: %s", says, heddle_builder_error (b)->message); \
    bench_free (&t); \
  } while (0)

static HeddleValue *
cross_entropy (HeddleBuilder *b, HeddleValue *x, HeddleValue *labels)
{
  HeddleCrossEntropyAttr attr = { 0, -100 };
  HeddleValue *in[] = { x, labels };
  return heddle_emit (b, HEDDLE_OP_CROSS_ENTROPY, "loss", in, 2, &attr, sizeof attr);
}

static HeddleValue *
top_k (HeddleBuilder *b, HeddleValue *x, HeddleValue *labels, gint64 k)
{
  HeddleTopKAttr attr = { k };
  HeddleValue *in[] = { x, labels };
  return heddle_emit (b, HEDDLE_OP_TOP_K, "metric", in, 2, &attr, sizeof attr);
}

static void
test_refusals (void)
{
  REFUSED ("2x3", heddle_add (b, F (2, 3), F (2)));
  REFUSED ("matmul", heddle_matmul (b, F (2, 3), F (4, 3), FALSE, FALSE));
  REFUSED ("conv2d \"c\": expects (N, C, H, W), got rank 2", heddle_conv2d (b, "c", F (2, 3), .channels = 4, .kernel = 3));
  REFUSED ("c", heddle_conv2d (b, "c", F (1, 1, 4, 4), .channels = 4, .kernel = 7));
  REFUSED ("groups", heddle_conv2d (b, "c", F (1, 3, 8, 8), .channels = 4, .kernel = 3, .groups = 2));
  REFUSED ("padding", heddle_max_pool (b, F (1, 1, 8, 8), .kernel = 2, .padding = 2));
  REFUSED ("pool", heddle_max_pool (b, F (1, 1, 2, 2), .kernel = 5));
  REFUSED ("255", heddle_max_pool (b, F (1, 1, 40, 40), .kernel = 17));
  REFUSED ("reshape", heddle_reshape (b, F (2, 3), heddle_shape (4, -1)));
  REFUSED ("reshape", heddle_reshape (b, F (2, 3), heddle_shape (7)));
  REFUSED ("axis", heddle_softmax (b, F (2, 3), 2));
  REFUSED ("label", cross_entropy (b, F (2, 3), F (2)));
  REFUSED ("loss", cross_entropy (b, F (2, 3), input (&t, HEDDLE_I64, heddle_shape (3))));
  REFUSED ("k", top_k (b, F (2, 3), input (&t, HEDDLE_I64, heddle_shape (2)), 4));
  REFUSED ("a matrix, or the leading axes", heddle_matmul (b, F (2, 5, 3), F (3, 3, 4), FALSE, FALSE));
  REFUSED ("features", heddle_linear_op (b, F (2, 5, 3), F (4, 2), NULL));
  REFUSED ("layer_norm \"ln\": cannot normalise 3 axes of a tensor of rank 2", heddle_layer_norm (b, "ln", F (2, 3), .axes = 3, .no_affine = TRUE));
  REFUSED ("6 channels cannot be dealt into 4 groups", heddle_group_norm (b, "gn", F (2, 6, 4, 4), .groups = 4));
  REFUSED ("integer indices", heddle_embedding (b, "wte", F (2, 3), .count = 7, .features = 5));
  REFUSED ("was a required member", heddle_embedding (b, "wte", input (&t, HEDDLE_I64, heddle_shape (2)), .features = 5));
  REFUSED ("named once", heddle_permute (b, F (2, 3, 4), 2, 0, 2));
  REFUSED ("2 axes for a tensor of rank 3", heddle_permute (b, F (2, 3, 4), 1, 0));
  REFUSED ("axes 0 and 3", heddle_transpose (b, F (2, 3, 4), 0, 3));
  REFUSED ("sizes but for the axis", heddle_concat (b, (HeddleValue *[]) { F (2, 3), F (3, 3) }, 2, 1));
  REFUSED ("takes 1 to 8 inputs", heddle_concat (b, (HeddleValue *[]) { F (2), F (2), F (2), F (2), F (2), F (2), F (2), F (2), F (2) }, 9, 0));
  REFUSED ("3:2:1 takes nothing", heddle_slice (b, F (2, 7), 1, 3, 2));
  REFUSED ("or more than, 7 elements", heddle_slice (b, F (2, 7), 1, 3, 8));
  REFUSED ("at least 0", heddle_pad (b, F (2, 7), 1, -1, 0, 0));
  REFUSED ("one value per key", heddle_scaled_dot_product_attention (b, F (2, 3, 5, 4), F (2, 3, 6, 4), F (2, 3, 5, 4), FALSE, 0));
  REFUSED ("batch and heads", heddle_scaled_dot_product_attention (b, F (2, 3, 5, 4), F (2, 2, 6, 4), F (2, 2, 6, 4), FALSE, 0));
  REFUSED ("exp", heddle_exp (b, input (&t, HEDDLE_U8, heddle_shape (3))));
}

/* An operation that does not exist, and attributes of a later size, as a plugin of another version might send. */
static void
test_foreign_calls (void)
{
  struct { HeddleCastAttr known; gint64 later; } attr = { { HEDDLE_F16 }, 1 };
  REFUSED ("operation", (heddle_emit (b, (HeddleOpCode) 9999, NULL, (HeddleValue *[]) { F (3) }, 1, NULL, 0)));
  REFUSED ("does not know", (heddle_emit (b, HEDDLE_OP_CAST, NULL, (HeddleValue *[]) { F (3) }, 1, &attr, sizeof attr)));
  REFUSED ("input", (heddle_emit (b, HEDDLE_OP_ADD, NULL, (HeddleValue *[]) { F (3) }, 1, NULL, 0)));
}

/* Every row of the table has what printing and running need. */
static void
check_row (const HeddleOpInfo *info, gpointer data)
{
  guint *n = data;
  g_assert_true (info->name && *info->name && info->summary && *info->summary && info->shape);
  g_assert_true (heddle_op_info (info->code) == info);
  g_assert_cmpuint (info->min_in, <=, info->max_in);
  g_assert_true (info->amp >= HEDDLE_AMP_KEEP && info->amp <= HEDDLE_AMP_FIRST);
  ++*n;
}

static void
test_table (void)
{
  guint n = 0, listed = 0;
  heddle_op_each (check_row, &n);
#define X(code, number, nick) listed++; g_assert_cmpstr (heddle_op_info (HEDDLE_OP_##code)->name, ==, #nick);
  HEDDLE_OPS (X)
#undef X
  g_assert_cmpuint (n, ==, listed);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/shapes/results", test_results);
  g_test_add_func ("/shapes/refusals", test_refusals);
  g_test_add_func ("/shapes/foreign-calls", test_foreign_calls);
  g_test_add_func ("/shapes/table", test_table);
  return g_test_run ();
}
