/* cudnn-deviceless/models.c: programs of our models, built by their plugins as training builds them, without a device. */
#include "models.h"
#include "base/memory.h"
#include "pipeline/internal.h"
#include "run.h"

const char *const mode_names[N_MODES] = { "f32", "tf32", "f16", "bf16" };

#define IMAGES(c, side, n) "{ shape = { " #c ", " #side ", " #side " }, classes = 10, length = " #n " }"
static const struct { const char *name, *data, *model; gint64 batch; } models[] = {
  { "lenet", IMAGES (1, 28, 64), "h.model 'lenet' { batch.image, classes = 10 }", 64 },
  { "batch-norm CNN", IMAGES (1, 28, 64), "h.model 'sequential' { batch.image, layers = L.chain (L.conv_bn (32), L.conv_bn (64), { L.max_pool { kernel = 2 }, L.conv2d { channels = 64, kernel = 3 }, L.relu (), "
    "L.avg_pool { kernel = 2 }, L.flatten (), L.linear { features = 64 }, L.silu (), L.linear { features = 10 } }) }", 64 },
  { "resnet-20", IMAGES (3, 32, 512), "h.model 'resnet' { batch.image, depth = 20, classes = 10 }", 512 },
  { "resnet-18", IMAGES (3, 224, 256), "h.model 'resnet' { batch.image, depth = 18, classes = 10 }", 256 },
  { "resnet-50", IMAGES (3, 224, 256), "h.model 'resnet' { batch.image, depth = 50, classes = 10 }", 256 },
  { "mobilenet", IMAGES (3, 32, 128), "h.model 'mobilenet' { batch.image, classes = 10 }", 128 },
  { "mobilenet 224", IMAGES (3, 224, 64), "h.model 'mobilenet' { batch.image, classes = 10 }", 64 },
  { "vit", IMAGES (3, 32, 64), "h.model 'vit' { batch.image, classes = 10, patch = 4, layers = 1, heads = 3, width = 192 }", 64 },
  { "vit 224", IMAGES (3, 224, 64), "h.model 'vit' { batch.image, classes = 10, layers = 1 }", 64 },
  { "gpt", NULL, "h.model 'gpt' { batch.tokens, classes = batch.targets.classes, layers = 1, dropout = 0 }", 16 },
};

HeddleFlags
mode_flags (Mode mode)
{
  return (HeddleFlags) { .fusion = true, .winograd = true, .workspace_limit = 1024, .benchmark_limit = 10, .benchmark_shapes = 64, .tf32 = mode == MODE_TF32, .tf32_conv = mode == MODE_TF32,
                         .tf32_matmul = mode == MODE_TF32, .matmul_precision = mode == MODE_TF32 ? HEDDLE_PRECISION_HIGH : HEDDLE_PRECISION_HIGHEST };
}

/* Images lie as the backend lays them for the mode.  Every graph on the way from the most operations to the fewest: what is asked for when cuDNN has no plan for more. */
static void
collect (const HeddleProgram *p, Mode mode, const char *model, GHashTable *seen, GPtrArray *all)
{
  HeddleFlags flags = mode_flags (mode);
  for (guint i = 0; i < p->ops->len; i++)
    {
      gboolean going = TRUE;
      for (guint most = G_MAXUINT; going && most > 0;)
        {
          g_auto (CudaDnnMatch) m = { NULL };
          going = cuda_dnn_match (p, i, most, mode == MODE_F32 ? CUDA_DNN_NCHW : CUDA_DNN_NHWC, &flags, &m);
          most = m.n_ops - 1;
          if (going)
            {
              g_autofree char *text = dnn_graph_print (m.graph), *key = g_strdup_printf ("%s %s", mode_names[mode], text);
              Wanted w = { m.graph, mode, model };
              if (g_hash_table_add (seen, g_steal_pointer (&key)))
                {
                  g_ptr_array_add (all, heddle_memdup (&w, sizeof w));
                  m.graph = NULL;
                }
            }
        }
    }
}

static HeddleProgram *
program_of (HeddlePipeline *p, HeddleVariables *vars, gboolean training, Mode mode)
{
  GError *error = NULL;
  Emitted e;
  HeddleBuilder *b = heddle_builder_new ("test", vars, training, 7);
  heddle_pipeline_emit (p, b, training, p->batch_size, &p->train_info, mode == MODE_F16 ? HEDDLE_F16 : mode == MODE_BF16 ? HEDDLE_BF16 : 0, NULL, &e, &error);
  g_assert_no_error (error);
  if (training)
    {
      heddle_variables_group (vars, FALSE);
      heddle_builder_backward (b, e.loss.value, heddle_constant (b, 1), FALSE, &error);
      g_assert_no_error (error);
    }
  else
    heddle_builder_output (b, e.loss.value);
  HeddleProgram *program = heddle_builder_finish (b, &error);
  g_assert_no_error (error);
  return program;
}

static void
collect_model (guint i, const char *folder, GHashTable *seen, GPtrArray *all)
{
  const char *data = models[i].data;
  g_autofree char *words = g_strdup_printf ("{ file = '%s/words.txt', window = 1024, split = 'train' }", folder);
  g_autofree char *text = g_strdup_printf ("local h = require 'heddle'\nlocal L = require 'heddle.layers'\nlocal data = h.dataset '%s' %s\nlocal batch = h.prefetch { data, batch_size = %d }\nlocal loss = h.loss 'cross_entropy' { %s, batch.%s }\n"
                                           "return h.train { h.optimizer 'sgd' { loss, lr = 0.1 }, epochs = 1 }\n",
                                           data ? "synthetic" : "text", data ? data : words, (int) models[i].batch, models[i].model, data ? "label" : "targets");
  TestRun r = test_run (folder, text, TEST_BUILT);
  g_assert_no_error (r.error);
  for (Mode mode = 0; mode < N_MODES; mode++)
    for (guint training = 0; training < 2; training++)
      {
        g_autoptr (HeddleVariables) vars = heddle_variables_new ();
        g_autoptr (HeddleProgram) program = program_of (r.pipeline, vars, training, mode);
        collect (program, mode, models[i].name, seen, all);
      }
  test_run_clear (&r);
}

static void
wanted_free (gpointer data)
{
  g_free (((Wanted *) data)->graph);
  g_free (data);
}

GPtrArray *
models_graphs (void)
{
  GPtrArray *all = g_ptr_array_new_with_free_func (wanted_free);
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autoptr (GString) text = g_string_new (NULL);
  g_autofree char *folder = g_dir_make_tmp ("heddle-models-XXXXXX", NULL), *words = g_build_filename (folder, "words.txt", NULL);
  for (guint i = 0; i < 4000; i++)
    g_string_append_printf (text, "%u plus %u makes %u\n", i, i, 2 * i);
  g_assert_true (g_file_set_contents (words, text->str, -1, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (models); i++)
    collect_model (i, folder, seen, all);
  g_remove (words);
  g_rmdir (folder);
  return all;
}
