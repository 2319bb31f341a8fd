/* test-sequence.c: what the cpu device promises of sequence operations beyond their numbers: the same bits for any number of threads, and an
 * index out of range ends the run with words. */
#include <string.h>

#include "backend/backend.h"
#include "base/random.h"

#define TOKENS (4 * 96)

typedef struct { HeddleDevice *device; HeddleVariables *vars; HeddlePlan *plan; gint64 index[TOKENS], label[TOKENS]; } Net;

/* embedding, norm, attention, norm, a loss: the indices are below 50 */
static HeddleValue *
transformer (HeddleBuilder *b, HeddleValue *index, HeddleValue *label)
{
  HeddleCrossEntropyAttr attr = { 0.1, -100 };
  HeddleValue *x = heddle_embedding (b, "wte", index, .count = 50, .features = 96), *h = heddle_layer_norm (b, "ln", x);
  h = heddle_permute (b, heddle_reshape (b, h, heddle_shape (4, 96, 8, 12)), 0, 2, 1, 3);
  h = heddle_permute (b, heddle_scaled_dot_product_attention (b, h, h, h, TRUE, 0), 0, 2, 1, 3);
  x = heddle_add (b, x, heddle_reshape (b, h, heddle_shape (4, 96, 96)));
  x = heddle_linear (b, "head", heddle_gelu (b, heddle_rms_norm (b, "ln_f", x)), .features = 100, .last_axis = TRUE);
  HeddleValue *in[] = { heddle_reshape (b, x, heddle_shape (TOKENS, 100)), label };
  return heddle_emit (b, HEDDLE_OP_CROSS_ENTROPY, "loss", in, 2, &attr, sizeof attr);
}

static void
net_open (Net *n, gint64 threads)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  HeddleShape tokens = heddle_shape (4, 96), flat = heddle_shape (TOKENS);
  heddle_options_init (heddle_flags_options (), &flags);
  flags.threads = threads;
  g_assert_true (heddle_flags_resolve (&flags, NULL, &error));
  n->device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  n->vars = heddle_variables_new ();
  HeddleBuilder *b = heddle_builder_new ("net", n->vars, TRUE, 1);
  HeddleValue *index = heddle_builder_input (b, "index", HEDDLE_I64, &tokens), *label = heddle_builder_input (b, "label", HEDDLE_I64, &flat);
  HeddleValue *loss = transformer (b, index, label);
  heddle_variables_group (n->vars, FALSE);
  heddle_builder_backward (b, loss, heddle_constant (b, 1), FALSE, &error);
  g_assert_no_error (error);
  heddle_builder_output (b, loss);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  n->plan = n->device->iface->compile (n->device, program, &error);
  g_assert_no_error (error);
  g_assert_true (n->device->iface->allocate (n->device, n->vars, &error));
  g_assert_true (heddle_device_initialise (n->device, n->vars, 3, &error));
  for (guint i = 0; i < TOKENS; i++)
    {
      n->index[i] = i * 7919 % 50;
      n->label[i] = i * 104729 % 100;
    }
}

static gboolean
net_run (Net *n, GError **error)
{
  gconstpointer inputs[] = { n->index, n->label };
  return n->device->iface->run (n->plan, (const gpointer *) inputs, error);
}

static void
net_close (Net *n)
{
  heddle_plan_free (n->plan);
  heddle_device_close (n->device);
  heddle_variables_free (n->vars);
}

/* The loss and every gradient */
static GArray *
bits_of (gint64 threads)
{
  Net n;
  GError *error = NULL;
  GArray *bits = g_array_new (FALSE, FALSE, sizeof (float));
  net_open (&n, threads);
  g_assert_true (net_run (&n, &error));
  g_array_set_size (bits, 1);
  HeddleTensor loss = { HEDDLE_F32, heddle_scalar_shape (), bits->data };
  g_assert_true (n.device->iface->fetch (n.plan, 0, &loss, &error));
  for (guint i = 0; i < heddle_variables_count (n.vars); i++)
    {
      HeddleVariable *v = heddle_variables_nth (n.vars, i);
      guint at = bits->len;
      if (v->role == HEDDLE_ROLE_PARAM && v->grad)
        {
          g_array_set_size (bits, at + (guint) heddle_shape_count (&v->shape));
          HeddleTensor grad = { HEDDLE_F32, v->shape, &g_array_index (bits, float, at) };
          g_assert_true (n.device->iface->read (n.device, v->grad, &grad, &error));
        }
    }
  net_close (&n);
  return bits;
}

static void
test_threads (void)
{
  g_autoptr (GArray) one = bits_of (1), two = bits_of (2), three = bits_of (3);
  g_assert_cmpuint (one->len, >, 50 * 96 + 96 * 100);
  g_assert_cmpmem (one->data, one->len * sizeof (float), two->data, two->len * sizeof (float));
  g_assert_cmpmem (one->data, one->len * sizeof (float), three->data, three->len * sizeof (float));
}

static void
refused (Net *n, guint at, gint64 index, const char *says)
{
  g_autoptr (GError) error = NULL;
  gint64 kept = n->index[at];
  n->index[at] = index;
  g_assert_false (net_run (n, &error));
  g_assert_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DATA);
  g_assert_nonnull (strstr (error->message, says));
  g_assert_nonnull (strstr (error->message, "hint: "));
  n->index[at] = kept;
}

/* Afterwards the device works on. */
static void
test_index_range (void)
{
  Net n;
  GError *error = NULL;
  net_open (&n, 2);
  refused (&n, 5, 50, "embedding \"wte\": index 50 at position 5 is out of range 0..49");
  refused (&n, 9, -1, "index -1 at position 9");
  refused (&n, 0, G_GINT64_CONSTANT (1) << 40, "index 1099511627776 at position 0");
  g_assert_true (net_run (&n, &error));
  g_assert_no_error (error);
  net_close (&n);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/sequence/threads", test_threads);
  g_test_add_func ("/sequence/index-range", test_index_range);
  return g_test_run ();
}
