/* plugins/model-gpt/gpt.c: a decoder-only transformer: GPT-2's layers, parameter names and initialisation; the output layer shares wte's table.  Must not know where tokens come from or how the network is trained.
 * A. Radford et al., "Language models are unsupervised multitask learners", 2019.  Weights are (out, in), as in PyTorch's Linear: those of a GPT-2
 * checkpoint (Conv1D) are the transposed ones.  Dropout: after the embeddings and on both branches of a block, not on attention's probabilities. */
#include <heddle/plugin.h>

typedef struct { gint64 classes, layers, heads, width, context; double dropout; } Gpt;

static const HeddleOption options[] = {
  HEDDLE_INT (Gpt, classes, 0, 1, 10000000, "Size of the vocabulary: tokens in, logits out", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_INT (Gpt, layers, 12, 1, 1000, "Blocks of attention and MLP"),
  HEDDLE_INT (Gpt, heads, 12, 1, 1000, "Attention heads; must divide width"),
  HEDDLE_INT (Gpt, width, 768, 1, 1000000, "Length of a token's vector; the MLP is 4 times as wide"),
  HEDDLE_INT (Gpt, context, 1024, 1, 10000000, "Positions that are known: the longest input", .unit = "tokens"),
  HEDDLE_FLOAT (Gpt, dropout, 0.1, 0, 0.99, "Probability of dropping a number of the embeddings and of each block's branches"),
  HEDDLE_OPTIONS_END
};

/* x (B, T, I) -> (B, T, features); bias 0 */
static HeddleValue *
project (HeddleBuilder *b, const char *name, HeddleValue *x, gint64 features, double deviation)
{
  HeddleShape in = heddle_shape_of (b, x);
  HeddleValue *inputs[3] = { x };
  heddle_push (b, name);
  inputs[1] = heddle_param (b, "weight", heddle_shape (features, in.size[2]), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, deviation });
  inputs[2] = heddle_param (b, "bias", heddle_shape (features), (HeddleInit) { HEDDLE_INIT_CONSTANT, 0, 0 });
  heddle_pop (b);
  return heddle_emit (b, HEDDLE_OP_LINEAR, name, inputs, 3, NULL, 0);
}

/* x (B, T, W); what is added to the residual stream starts smaller, the deeper the network: 0.02 / sqrt (2 layers) */
static HeddleValue *
block (const Gpt *self, HeddleBuilder *b, HeddleValue *x)
{
  double residual = 0.02 / sqrt (2.0 * (double) self->layers);
  HeddleValue *y = heddle_layer_norm (b, "ln_1", x);
  heddle_push (b, "attn");
  y = heddle_self_attention (b, project (b, "c_attn", y, 3 * self->width, 0.02), self->heads, TRUE);
  y = heddle_dropout (b, "resid_dropout", project (b, "c_proj", y, self->width, residual), self->dropout);
  heddle_pop (b);
  x = heddle_add (b, x, y);
  y = heddle_layer_norm (b, "ln_2", x);
  heddle_push (b, "mlp");
  y = project (b, "c_proj", heddle_gelu_tanh (b, project (b, "c_fc", y, 4 * self->width, 0.02)), self->width, residual);
  y = heddle_dropout (b, "dropout", y, self->dropout);
  heddle_pop (b);
  return heddle_add (b, x, y);
}

static HeddleValue *
table (HeddleBuilder *b, const char *name, gint64 rows, gint64 width)
{
  heddle_push (b, name);
  HeddleValue *weight = heddle_param (b, "weight", heddle_shape (rows, width), (HeddleInit) { HEDDLE_INIT_NORMAL, 0, 0.02 });
  heddle_pop (b);
  return weight;
}

/* inputs[0]: tokens (B, T) of any integer dtype; outputs[0]: logits of the next token (B, T, classes) */
static gboolean
build (gpointer data, HeddleBuilder *b, HeddleValue *const *inputs, guint n_inputs, HeddleValue **outputs, GError **error)
{
  const Gpt *self = data;
  HeddleShape tokens = heddle_shape_of (b, inputs[0]);
  if (tokens.rank != 2 || heddle_dtype_is_float (heddle_dtype_of (b, inputs[0])))
    heddle_fail (b, "gpt expects token numbers (batch, positions), got %s of rank %d\nhint: h.model \"gpt\" { batch.tokens, ... } of dataset \"text\"",
                 heddle_dtype_name (heddle_dtype_of (b, inputs[0])), tokens.rank);
  else if (tokens.size[1] > self->context)
    heddle_fail (b, "the input has %" G_GINT64_FORMAT " positions, context is %" G_GINT64_FORMAT "\nhint: set the model's context to the data set's window", tokens.size[1], self->context);
  HeddleValue *wte = table (b, "wte", self->classes, self->width), *wpe = table (b, "wpe", self->context, self->width);
  HeddleValue *x = heddle_emit (b, HEDDLE_OP_EMBEDDING, "wte", (HeddleValue *[]) { inputs[0], wte }, 2, NULL, 0);     /* (B, T, W) */
  x = heddle_add (b, x, tokens.size[1] < self->context ? heddle_slice (b, wpe, 0, 0, tokens.size[1]) : wpe);
  x = heddle_dropout (b, "drop", x, self->dropout);
  for (gint64 i = 0; i < self->layers; i++)
    {
      g_autofree char *name = g_strdup_printf ("h.%" G_GINT64_FORMAT, i);
      heddle_push (b, name);
      x = block (self, b, x);
      heddle_pop (b);
    }
  x = heddle_layer_norm (b, "ln_f", x);
  outputs[0] = heddle_emit (b, HEDDLE_OP_LINEAR, "lm_head", (HeddleValue *[]) { x, wte }, 2, NULL, 0);
  return TRUE;
}

static gboolean
check (gpointer data, GError **error)
{
  const Gpt *self = data;
  gboolean ok = self->width % self->heads == 0;
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "option \"heads\": %" G_GINT64_FORMAT " heads do not divide width = %" G_GINT64_FORMAT
                 "\nhint: GPT-2 has heads of 64: 12 for 768", self->heads, self->width);
  return ok;
}

static const HeddleModelIface iface = { sizeof iface, NULL, build, check };

HEDDLE_PLUGIN ("model", HeddleModelIface, iface, Gpt, options, .name = "gpt", .version = "1.0",
               .summary = "Decoder-only transformer, GPT-2's names and initialisation", .license = "MIT");
