/* swish.h: an operation of a plugin's own, y = x sigmoid (beta x), and its gradient as a second one.  Included after <heddle/plugin.h>. */
#include <math.h>

typedef struct { double beta; } SwishAttr;

/* ---- on a CPU ---- */

static void
swish_part (HeddleCustomRun *run, gint64 from, gint64 to)
{
  const float *x = run->in[0].data, beta = (float) ((const SwishAttr *) run->attr)->beta;
  float *y = run->out[0].data;
  for (gint64 i = from; i < to; i++)
    y[i] = x[i] / (1 + expf (-beta * x[i]));
}

/* (dy, x): dy (s + beta x s (1 - s)), s = sigmoid (beta x) */
static void
swish_grad_part (HeddleCustomRun *run, gint64 from, gint64 to)
{
  const float *dy = run->in[0].data, *x = run->in[1].data, beta = (float) ((const SwishAttr *) run->attr)->beta;
  float *dx = run->out[0].data;
  for (gint64 i = from; i < to; i++)
    {
      float s = 1 / (1 + expf (-beta * x[i]));
      dx[i] = dy[i] * (s + beta * x[i] * s * (1 - s));
    }
}

static void swish_cpu (HeddleCustomRun *run) { run->parallel (run, heddle_shape_count (&run->in[0].shape), swish_part); }
static void swish_grad_cpu (HeddleCustomRun *run) { run->parallel (run, heddle_shape_count (&run->in[0].shape), swish_grad_part); }

/* ---- on a GPU: one source with both kernels; each thread takes every so-manieth element ---- */

static const char swish_source[] =
  "struct SwishAttr { double beta; };\n"
  "#define EACH(i, n) (long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x; i < n; i += (long long) gridDim.x * blockDim.x)\n"
  "\n"
  "extern \"C\" __global__ void\n"
  "swish (heddle_run run)\n"
  "{\n"
  "  const float *x = (const float *) run.in[0].data, beta = (float) ((const SwishAttr *) run.attr)->beta;\n"
  "  float *y = (float *) run.out[0].data;\n"
  "  for EACH (i, run.out[0].count)\n"
  "    y[i] = x[i] / (1 + expf (-beta * x[i]));\n"
  "}\n"
  "\n"
  "extern \"C\" __global__ void\n"
  "swish_grad (heddle_run run)\n"
  "{\n"
  "  const float *dy = (const float *) run.in[0].data, *x = (const float *) run.in[1].data, beta = (float) ((const SwishAttr *) run.attr)->beta;\n"
  "  float *dx = (float *) run.out[0].data;\n"
  "  for EACH (i, run.out[0].count)\n"
  "    {\n"
  "      float s = 1 / (1 + expf (-beta * x[i]));\n"
  "      dx[i] = dy[i] * (s + beta * x[i] * s * (1 - s));\n"
  "    }\n"
  "}\n";

static const HeddleCustomCuda swish_cuda = { .size = sizeof (HeddleCustomCuda), .source = swish_source, .kernel = "swish" };
static const HeddleCustomCuda swish_grad_cuda = { .size = sizeof (HeddleCustomCuda), .source = swish_source, .kernel = "swish_grad" };

/* ---- the operations ---- */

static void swish_print (gconstpointer attr, GString *text) { g_string_append_printf (text, " beta=%g", ((const SwishAttr *) attr)->beta); }

static const HeddleCustomOp swish_grad = {
  .size = sizeof (HeddleCustomOp), .plugin = "model-swish", .name = "swish_grad", .min_in = 2, .max_in = 2, .n_out = 1, .attr_size = sizeof (SwishAttr),
  .amp = HEDDLE_CUSTOM_KEEP, .print = swish_print, .cpu = swish_grad_cpu, .cuda = &swish_grad_cuda,
};

static void
swish_gradient (HeddleBuilder *b, gconstpointer attr, HeddleValue *const *in, guint n_in, HeddleValue *const *out, HeddleValue *const *grad_out, const gboolean *want, HeddleValue **grad_in)
{
  HeddleValue *inputs[] = { grad_out[0], in[0] };
  heddle_custom (b, NULL, &swish_grad, inputs, 2, attr, sizeof (SwishAttr), grad_in, 1);
}

static const HeddleCustomOp swish = {
  .size = sizeof (HeddleCustomOp), .plugin = "model-swish", .name = "swish", .min_in = 1, .max_in = 1, .n_out = 1, .attr_size = sizeof (SwishAttr),
  .amp = HEDDLE_CUSTOM_KEEP, .gradient = swish_gradient, .print = swish_print, .cpu = swish_cpu, .cuda = &swish_cuda,
};
