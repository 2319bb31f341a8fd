/* test-recompute.c: recompute = "blocks" against keeping everything: the same bits after training, a smaller arena, no effect run twice.
 * Winograd is off: its scratch, larger than these small activations, lies in the arena too and would hide them. */
#include <stdio.h>
#include <string.h>

#include "run.h"

#define BLOCK(c) "nn.residual { layers = { nn.conv2d { " #c ", kernel = 3, padding = 1 }, nn.batch_norm {}, nn.relu {}, nn.dropout { 0.3 }, nn.conv2d { " #c ", kernel = 3, padding = 1 }, nn.batch_norm {} } }, nn.relu {}, "
#define DEEP "h.model 'sequential' { batch.image, layers = { nn.conv2d { 8, kernel = 3, padding = 1 }, " BLOCK (8) BLOCK (8) BLOCK (8) BLOCK (8) BLOCK (8) BLOCK (8) \
  "nn.global_avg_pool {}, nn.linear { 4 } } }"
/* a residual in a residual, pooling with an index, gelu, softmax, reshapes */
#define MIXED "h.model 'sequential' { batch.image, layers = { nn.conv2d { 6, kernel = 3, padding = 1 }, nn.residual { layers = { nn.gelu {}, " \
  "nn.residual { layers = { nn.conv2d { 6, kernel = 1 }, nn.sigmoid {}, nn.dropout { 0.1 }, nn.conv2d { 6, kernel = 3, padding = 1, groups = 2 } } }, nn.max_pool { 3, stride = 1, padding = 1 } } }, " \
  "nn.flatten {}, nn.linear { 32 }, nn.residual { layers = { nn.softmax {}, nn.linear { 32 }, nn.tanh {} } }, nn.linear { 4 } } }"
#define RESNET "h.model 'resnet' { batch.image, depth = 20, classes = 4 }"
#define FLAT "h.model 'sequential' { batch.image, layers = { nn.flatten {}, nn.linear { 8 }, nn.relu {}, nn.linear { 4 } } }"

static char *folder;

typedef struct { guint64 hash; gsize arena; guint again, assigns; char *text, *error; } Outcome;

static guint
count (const char *text, const char *word)
{
  guint n = 0;
  for (const char *at = text; (at = strstr (at, word)); at++)
    n++;
  return n;
}

/* Reads the first program, "train", of the print. */
static void
look (Outcome *o, HeddlePipeline *p)
{
  o->text = heddle_pipeline_print_programs (p);
  const char *arena = strstr (o->text, "arena ");
  char *next = strstr (arena, "\nprogram ");
  g_assert_cmpint (sscanf (arena, "arena %" G_GSIZE_FORMAT, &o->arena), ==, 1);
  *next = 0;
  o->again = count (o->text, "recomputed");
  o->assigns = count (o->text, "assign ");
}

static Outcome
train (const char *model, const char *amp, const char *options)
{
  Outcome o = { 0 };
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal nn = require 'heddle.layers'\nh.flags { threads = 2, winograd = false }\n"
                                           "local data = h.dataset 'synthetic' { shape = { 3, 12, 12 }, classes = 4, length = 44, noise = 1.5 }\n"
                                           "local batch = h.prefetch { data, batch_size = 8, shuffle = true, num_workers = 0 }\nlocal logits = %s\n"
                                           "local loss = h.loss 'cross_entropy' { logits, batch.label }\n"
                                           "return h.train { h.optimizer 'adamw' { %s, lr = 0.003 }, epochs = 2, seed = 5, %s }\n", model, amp, options);
  TestRun r = test_run (folder, text, TEST_RAN);
  if (!r.error)
    {
      look (&o, r.pipeline);
      g_assert_true (heddle_pipeline_hash (r.pipeline, &o.hash, NULL));
    }
  o.error = r.error ? g_strdup (r.error->message) : NULL;
  test_run_clear (&r);
  return o;
}

static void
outcome_clear (Outcome *o)
{
  g_free (o->text);
  g_free (o->error);
}

typedef struct { const char *name, *model, *amp, *options; double shrinks; } Case;      /* SHRINKS: the arena is at most this part of the other */

#define F32 "loss"
#define F16 "h.amp { loss, dtype = 'f16' }"
#define BF16 "h.amp { loss, dtype = 'bf16' }"

static const Case cases[] = {
  { "deep/f32", DEEP, F32, "accumulate = 1", 0.75 }, { "deep/f16", DEEP, F16, "accumulate = 1", 0.75 }, { "deep/accumulate", DEEP, F32, "accumulate = 3", 0.75 },
  { "deep/f16 accumulate", DEEP, F16, "accumulate = 3", 0.75 }, { "deep/bf16", DEEP, BF16, "clip_norm = 1", 0.75 }, { "mixed/f32", MIXED, F32, "accumulate = 2", 1.05 },
  { "mixed/f16", MIXED, F16, "accumulate = 1", 1.05 }, { "resnet20/f32", RESNET, F32, "accumulate = 2", 0.8 }, { "resnet20/f16", RESNET, F16, "accumulate = 1", 0.8 },
};

static void
test_case (gconstpointer data)
{
  const Case *c = data;
  g_autofree char *blocks = g_strconcat (c->options, ", recompute = 'blocks'", NULL), *none = g_strconcat (c->options, ", recompute = 'none'", NULL);
  Outcome kept = train (c->model, c->amp, none), again = train (c->model, c->amp, blocks);
  g_assert_cmpstr (kept.error, ==, NULL);
  g_assert_cmpstr (again.error, ==, NULL);
  g_assert_cmphex (again.hash, ==, kept.hash);
  g_assert_cmpuint (kept.again, ==, 0);
  g_assert_cmpuint (again.again, >, 0);
  g_assert_cmpuint (again.assigns, ==, kept.assigns);
  g_test_message ("arena %u -> %u bytes, %u operations recomputed", (guint) kept.arena, (guint) again.arena, again.again);
  g_assert_cmpfloat ((double) again.arena, <=, c->shrinks * (double) kept.arena);
  outcome_clear (&kept);
  outcome_clear (&again);
}

static void
test_print (void)
{
  Outcome o = train (RESNET, F32, "recompute = 'blocks'");
  g_assert_cmpstr (o.error, ==, NULL);
  g_assert_nonnull (strstr (o.text, "# layer1.0.conv1, recomputed"));
  g_assert_nonnull (strstr (o.text, "# layer3.2.bn1, recomputed"));
  g_assert_null (strstr (o.text, "# conv1, recomputed"));           /* the stem is no block */
  g_assert_null (strstr (o.text, "# fc, recomputed"));
  outcome_clear (&o);
}

static void
test_no_block (void)
{
  Outcome o = train (FLAT, F32, "recompute = 'blocks'");
  g_assert_nonnull (o.error);
  if (!strstr (o.error, "run.lua:8: train: recompute = \"blocks\": the model has no block whose inside backward needs\nhint: "))
    g_error ("%s", o.error);
  outcome_clear (&o);
}

/* ---- the pass alone ---- */

static const HeddleOp *
find (const HeddleProgram *p, HeddleOpCode code, gboolean again)
{
  const HeddleOp *found = NULL;
  for (guint i = 0; !found && i < p->ops->len; i++)
    if (((HeddleOp *) p->ops->pdata[i])->info->code == code && ((HeddleOp *) p->ops->pdata[i])->again == again)
      found = p->ops->pdata[i];
  return found;
}

/* In one block: a state is read, then assigned; sigmoid of what was read cannot be had again, exp of it can: from the kept sigmoid's input's copy. */
static void
test_changed_variable (void)
{
  g_autoptr (HeddleVariables) vars = heddle_variables_new ();
  GError *error = NULL;
  HeddleBuilder *b = heddle_builder_new ("t", vars, TRUE, 1);
  HeddleInit ones = { HEDDLE_INIT_CONSTANT, 1, 0 };
  HeddleShape shape = heddle_shape (4, 5);
  HeddleValue *x = heddle_builder_input (b, "x", HEDDLE_F32, &shape);
  heddle_push (b, "block_7");
  HeddleValue *w = heddle_param (b, "w", shape, ones), *state = heddle_state (b, "s", shape, 0), *t = heddle_tanh (b, heddle_mul (b, x, w));
  HeddleValue *read = heddle_sigmoid (b, heddle_mul (b, state, t)), *y = heddle_tanh (b, heddle_square (b, read));
  heddle_assign (b, state, heddle_neg (b, t));
  heddle_pop (b);
  HeddleValue *loss = heddle_sum (b, heddle_square (b, y), 0, FALSE);
  heddle_variables_group (vars, FALSE);
  g_assert_true (heddle_builder_backward (b, loss, heddle_constant (b, 1), FALSE, &error));
  g_autoptr (HeddleProgram) p = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (heddle_program_recompute (p), >, 0);
  g_assert_null (find (p, HEDDLE_OP_ASSIGN, TRUE));
  g_assert_nonnull (find (p, HEDDLE_OP_TANH, TRUE));
  for (guint i = 0; i < p->ops->len; i++)
    {
      const HeddleOp *op = p->ops->pdata[i];
      g_assert_cmpuint (op->id, ==, i);
      for (guint j = 0; j < op->n_in; j++)
        {
          const HeddleValue *v = op->in[j];
          g_assert_true (!op->again || v->kind != HEDDLE_VALUE_VARIABLE || v->variable->role != HEDDLE_ROLE_STATE);
          if (v->producer)
            g_assert_cmpuint (v->producer->id, <, i);       /* made before it is read */
          g_assert_true (v == p->values->pdata[v->id]);
        }
    }
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("heddle-recompute-XXXXXX", NULL);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autofree char *path = g_strconcat ("/recompute/", cases[i].name, NULL);
      g_test_add_data_func (path, &cases[i], test_case);
    }
  g_test_add_func ("/recompute/print", test_print);
  g_test_add_func ("/recompute/no-block", test_no_block);
  g_test_add_func ("/recompute/changed-variable", test_changed_variable);
  int status = g_test_run ();
  g_rmdir (folder);
  g_free (folder);
  return status;
}
