/* cuda-chain/host.c: programs run by generated kernels that a host compiler compiled; what is not in a chain is computed by plain loops in double precision.
 * Must not know which programs. */
#include "host.h"

#include "backend/cuda/rtc.h"
#include "tensor/tensors.h"

#include <glib/gstdio.h>
#include <gmodule.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Kernel) (unsigned blocks, unsigned threads, void **args);

struct _Host
{
  GPtrArray *sources, *names;
  GArray    *kernels;         /* Kernel */
  GModule   *module;
};

Host *
host_new (void)
{
  Host *h = g_new0 (Host, 1);
  h->sources = g_ptr_array_new_with_free_func (g_free);
  h->names = g_ptr_array_new_with_free_func (g_free);
  h->kernels = g_array_new (FALSE, FALSE, sizeof (Kernel));
  return h;
}

void
host_free (Host *h)
{
  g_clear_pointer (&h->module, g_module_close);
  g_ptr_array_unref (h->sources);
  g_ptr_array_unref (h->names);
  g_array_unref (h->kernels);
  g_free (h);
}

static guint
host_add (Host *h, const Chain *chain)
{
  guint i = 0;
  while (i < h->sources->len && strcmp (h->sources->pdata[i], chain->source))
    i++;
  if (i == h->sources->len)
    {
      g_ptr_array_add (h->sources, g_strdup (chain->source));
      g_ptr_array_add (h->names, g_strdup (chain->name));
    }
  return i;
}

static char *
whole_source (const Host *h)
{
  GString *text = g_string_new ("#include \"host.hpp\"\n");
  g_string_append (text, cuda_rtc_prelude ());
  for (guint i = 0; i < h->sources->len; i++)
    {
      g_auto (GStrv) parts = g_strsplit (h->sources->pdata[i], "extern \"C\" ", -1);       /* each in a namespace of its own */
      g_autofree char *kernel = g_strjoinv ("", parts);
      g_string_append_printf (text, "namespace k%u {\n%s}\nextern \"C\" void run_%u (unsigned blocks, unsigned threads, void **args) { launch (k%u::%s, blocks, threads, args); }\n", i, kernel, i, i,
                              (const char *) h->names->pdata[i]);
    }
  return g_string_free (text, FALSE);
}

gboolean
host_build (Host *h)
{
  g_autofree char *compiler = g_find_program_in_path ("g++"), *folder = compiler ? g_dir_make_tmp ("heddle-chain-XXXXXX", NULL) : NULL;
  if (compiler)
    {
      g_autofree char *source = g_build_filename (folder, "chains.cpp", NULL), *object = g_build_filename (folder, "chains.so", NULL), *text = whole_source (h), *errors = NULL;
      g_autofree char *include = g_strdup_printf ("-I%s/tests/cuda-chain", g_getenv ("HEDDLE_SOURCE"));
      const char *command[] = { compiler, "-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-w", "-shared", "-fPIC", include, "-o", object, source, NULL };
      int status = 0;
      g_assert_true (g_file_set_contents (source, text, -1, NULL));
      g_assert_true (g_spawn_sync (NULL, (char **) command, NULL, 0, NULL, NULL, NULL, &errors, &status, NULL));
      if (status != 0)
        g_error ("%s", errors);
      h->module = g_module_open (object, G_MODULE_BIND_LOCAL);
      g_assert_nonnull (h->module);
      for (guint i = 0; i < h->sources->len; i++)
        {
          g_autofree char *symbol = g_strdup_printf ("run_%u", i);
          Kernel kernel = NULL;
          g_assert_true (g_module_symbol (h->module, symbol, (gpointer *) &kernel));
          g_array_append_val (h->kernels, kernel);
        }
      g_remove (source);
      g_remove (object);
      g_rmdir (folder);
    }
  return compiler != NULL;
}

/* ---- programs ---- */

typedef struct { Chain *chain; guint kernel; const HeddleOp *op; } Step;

static void
step_free (gpointer data)
{
  Step *s = data;
  g_clear_pointer (&s->chain, chain_free);
  g_free (s);
}

gpointer
exec_alloc (Exec *e, gsize n)
{
  void *memory = NULL;
  g_assert_cmpint (posix_memalign (&memory, 64, n + 128), ==, 0);
  memset (memory, 0, n + 128);
  g_ptr_array_add (e->blocks, memory);
  return (char *) memory + e->shift;
}

gpointer
exec_variable (Exec *e, HeddleVariable *v)
{
  HeddleVariable *whole = v->flat ? v->flat : v;
  char *memory = g_hash_table_lookup (e->variables, whole);
  if (!memory)
    {
      memory = exec_alloc (e, heddle_tensor_bytes (whole->dtype, &whole->shape));
      g_hash_table_insert (e->variables, whole, memory);
    }
  return memory + (v->flat ? (gsize) v->offset * heddle_dtype_size (v->dtype) : 0);
}

gpointer
exec_data (Exec *e, const HeddleValue *v)
{
  while (v->producer && v->producer->info->flags & HEDDLE_OP_VIEW)
    v = v->producer->in[0];
  return v->kind == HEDDLE_VALUE_VARIABLE ? exec_variable (e, v->variable) : e->data[v->id];
}

Exec *
exec_new (Host *host, const HeddleProgram *p, const ChainOptions *options, guint shift)
{
  Exec *e = g_new0 (Exec, 1);
  e->program = p;
  e->options = *options;
  e->host = host;
  e->shift = shift;
  e->steps = g_ptr_array_new_with_free_func (step_free);
  e->blocks = g_ptr_array_new_with_free_func (free);
  e->data = g_new0 (gpointer, p->values->len);
  e->variables = g_hash_table_new (NULL, NULL);
  e->copies = g_hash_table_new (NULL, NULL);
  for (guint i = 0; i < p->values->len; i++)
    {
      const HeddleValue *v = p->values->pdata[i];
      if (v->kind == HEDDLE_VALUE_TEMP || v->kind == HEDDLE_VALUE_CONSTANT)
        e->data[i] = exec_alloc (e, heddle_tensor_bytes (v->dtype, &v->shape));
      if (v->kind == HEDDLE_VALUE_CONSTANT)
        *(float *) e->data[i] = (float) v->constant;
    }
  for (guint i = 0; i < p->ops->len;)
    {
      guint end = chain_end (p, i, &e->options);
      Step *s = g_new0 (Step, 1);
      s->op = p->ops->pdata[i];
      if (end > i)
        {
          s->chain = chain_new (p, i, end, &e->options);
          s->kernel = host_add (host, s->chain);
          e->n_chains++;
        }
      g_ptr_array_add (e->steps, s);
      i = MAX (end, i + 1);
    }
  return e;
}

void
exec_free (Exec *e)
{
  g_ptr_array_unref (e->steps);
  g_ptr_array_unref (e->blocks);
  g_hash_table_unref (e->variables);
  g_hash_table_unref (e->copies);
  g_free (e->data);
  g_free (e);
}

guint
exec_count (const Exec *e, gint64 n)
{
  guint count = 0;
  for (guint i = 0; i < e->steps->len; i++)
    {
      const Step *s = e->steps->pdata[i];
      count += s->chain && s->chain->n == n;
    }
  return count;
}

static guint16 *
copy_of (Exec *e, HeddleVariable *v)
{
  guint16 *memory = g_hash_table_lookup (e->copies, v);
  if (!memory)
    {
      memory = exec_alloc (e, 2 * (gsize) heddle_shape_count (&v->shape));
      g_hash_table_insert (e->copies, v, memory);
    }
  return memory;
}

static void
run_chain (Exec *e, const Step *s)
{
  const Chain *c = s->chain;
  gpointer pointers[CHAIN_MAX_ARGS], args[CHAIN_MAX_ARGS];
  g_assert_cmpuint (c->args->len, <=, CHAIN_MAX_ARGS);
  for (guint i = 0; i < c->args->len; i++)
    {
      ChainArg *a = &g_array_index (c->args, ChainArg, i);
      if (a->kind == CHAIN_NUMBER)
        args[i] = &a->number;
      else
        {
          pointers[i] = a->kind == CHAIN_COPY ? (gpointer) copy_of (e, a->value->variable) : exec_data (e, a->value);
          g_assert_nonnull (pointers[i]);
          args[i] = &pointers[i];
        }
    }
  g_array_index (e->host->kernels, Kernel, s->kernel) (chain_blocks (c, 1), chain_threads (c), args);
}

/* ---- what is in no chain ---- */

static void
norm_stats (Exec *e, const HeddleOp *op)
{
  const float *x = exec_data (e, op->in[0]);
  double sum = 0;
  gboolean finite = TRUE;
  for (gint64 i = 0; i < heddle_shape_count (&op->in[0]->shape); i++)
    {
      sum += (double) x[i] * x[i];
      finite &= isfinite (x[i]);
    }
  *(float *) exec_data (e, op->out[0]) = (float) sum;
  *(float *) exec_data (e, op->out[1]) = finite ? 0 : 1;
}

static void
param_sum (Exec *e, const HeddleOp *op)
{
  const float *x = exec_data (e, op->in[0]);
  float *y = exec_data (e, op->out[0]);
  const GPtrArray *params = op->in[1]->variable->group->params;
  for (guint k = 0; k < params->len; k++)
    {
      const HeddleVariable *v = params->pdata[k];
      double sum = 0;
      for (gint64 i = v->offset; i < v->offset + heddle_shape_count (&v->shape); i++)
        sum += ((const HeddleParamSumAttr *) op->attr)->squares ? (double) x[i] * x[i] : x[i];
      y[k] = (float) sum;
    }
}

static void
param_spread (Exec *e, const HeddleOp *op)
{
  const float *x = exec_data (e, op->in[0]);
  float *y = exec_data (e, op->out[0]);
  const GPtrArray *params = op->in[1]->variable->group->params;
  memset (y, 0, sizeof (float) * (gsize) heddle_shape_count (&op->out[0]->shape));
  for (guint k = 0; k < params->len; k++)
    {
      const HeddleVariable *v = params->pdata[k];
      for (gint64 i = v->offset; i < v->offset + heddle_shape_count (&v->shape); i++)
        y[i] = x[k];
    }
}

/* torch/amp/grad_scaler.py */
static void
scaler_update (Exec *e, const HeddleOp *op)
{
  const HeddleScalerAttr *a = op->attr;
  float scale = *(float *) exec_data (e, op->in[0]), tracker = *(float *) exec_data (e, op->in[1]), skip = *(float *) exec_data (e, op->in[2]);
  gboolean grows = skip == 0 && tracker + 1 >= (float) a->growth_interval;
  if (skip != 0)
    scale = MAX (scale * (float) a->backoff_factor, (float) a->min_scale);
  else if (grows)
    scale *= (float) a->growth_factor;
  *(float *) exec_data (e, op->out[0]) = scale;
  *(float *) exec_data (e, op->out[1]) = skip != 0 || grows ? 0 : tracker + 1;
}

void
exec_run (Exec *e)
{
  for (guint i = 0; i < e->steps->len; i++)
    {
      const Step *s = e->steps->pdata[i];
      if (s->chain)
        run_chain (e, s);
      else
        switch (s->op->info->code)
          {
          case HEDDLE_OP_NORM_STATS: norm_stats (e, s->op); break;
          case HEDDLE_OP_PARAM_SUM: param_sum (e, s->op); break;
          case HEDDLE_OP_PARAM_SPREAD: param_spread (e, s->op); break;
          case HEDDLE_OP_SCALER_UPDATE: scaler_update (e, s->op); break;
          default: g_assert_true (s->op->info->flags & HEDDLE_OP_VIEW); break;
          }
    }
}
