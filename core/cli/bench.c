/* cli/bench.c: heddle bench SCRIPT: how fast a script trains here, where its time goes, and what each technique gains.  Must not know how training works. */
#include "cli/cli.h"

#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static gboolean ablate, json;
static char *vs;
static gint64 repeats = 5, steps, warmup = 10;
static double seconds = 1;

static const GOptionEntry entries[] = {
  { "ablate", 0, 0, G_OPTION_ARG_NONE, &ablate, "Also measure each technique: the script with it over the script without it", NULL },
  { "vs", 0, 0, G_OPTION_ARG_FILENAME, &vs, "Also run another script in turn, pair by pair: SCRIPT over OTHER", "OTHER.lua" },
  { "repeats", 0, 0, G_OPTION_ARG_INT64, &repeats, "Measurements of each side; 5 unless given", "N" },
  { "steps", 0, 0, G_OPTION_ARG_INT64, &steps, "Batches of one measurement, in place of --seconds", "N" },
  { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &seconds, "Length of one measurement; 1 unless given", "S" },
  { "warmup", 0, 0, G_OPTION_ARG_INT64, &warmup, "Batches trained before anything is measured; 10 unless given", "N" },
  { "json", 0, 0, G_OPTION_ARG_NONE, &json, "As JSON", NULL },
  { 0 },
};

/* ---- one side ---- */

typedef struct { double median, least, most; } Spread;
typedef struct { HeddleGraph *graph; HeddlePipeline *pipeline; HeddleBench *bench; gint64 steps; } Side;

static void
side_clear (Side *side)
{
  heddle_bench_free (side->bench);
  heddle_pipeline_free (side->pipeline);
  heddle_graph_free (side->graph);
  *side = (Side) { 0 };
}

static void
progress (const char *what, gint64 i, gint64 n)
{
  if (isatty (STDERR_FILENO))
    {
      fprintf (stderr, "\r\033[K");
      if (what)
        fprintf (stderr, "%s %d/%d", what, (int) i, (int) n);
      fflush (stderr);
    }
}

/* As many batches as take --seconds, at the speed of the second half of the warm-up. */
static gboolean
warm_up (Side *side, GError **error)
{
  gint64 samples = 0, n = MAX (1, warmup - warmup / 2);
  double first = 0, time = 0;
  gboolean ok = (warmup < 2 || heddle_bench_run (side->bench, warmup / 2, &samples, &first, error)) && heddle_bench_run (side->bench, n, &samples, &time, error);
  side->steps = steps > 0 ? steps : (gint64) CLAMP (seconds / MAX (time / (double) n, 1e-7), 1, 1e9);
  return ok;
}

/* SCRIPT with SETS (NULL-terminated "stage.option=value"), compiled and warm. */
static gboolean
side_open (Side *side, HeddleScriptCommand *c, const char *const *sets, GError **error)
{
  *side = (Side) { .graph = heddle_script_graph (c, error) };
  gboolean ok = side->graph != NULL;
  for (guint i = 0; ok && sets && sets[i]; i++)
    ok = heddle_graph_override (side->graph, sets[i], error);
  ok = ok && (side->pipeline = heddle_pipeline_new (side->graph, error)) && heddle_pipeline_compile (side->pipeline, error)
       && (side->bench = heddle_bench_new (side->pipeline, error)) && warm_up (side, error);
  return ok;
}

static gboolean
measure (Side *side, double *rate, GError **error)
{
  gint64 samples = 0;
  double time = 0;
  gboolean ok = heddle_bench_run (side->bench, side->steps, &samples, &time, error);
  *rate = time > 0 ? (double) samples / time : 0;
  return ok;
}

static int
by_value (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;
  return x < y ? -1 : x > y;
}

static Spread
spread_of (double *values, gint64 n)
{
  qsort (values, (gsize) n, sizeof *values, by_value);
  return (Spread) { n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, values[0], values[n - 1] };
}

/* ---- two sides in turn ---- */

typedef struct { Spread a, b, ratio; gint64 saved; } Pair;     /* samples/s of both; a over b within each pair; bytes that a needs less than b */

static gint64
all_bytes (Side *side)
{
  HeddlePipelineMemory m;
  heddle_pipeline_memory (side->pipeline, &m);
  return (gint64) (m.arena + m.params + m.grads + m.slots + m.states + m.batches);
}

/* a b, b a, a b, ...: what drifts hits both alike. */
static gboolean
compare (Side *a, Side *b, const char *what, Pair *pair, GError **error)
{
  g_autofree double *x = g_new0 (double, repeats), *y = g_new0 (double, repeats), *ratio = g_new0 (double, repeats);
  gboolean ok = TRUE;
  for (gint64 i = 0; ok && i < repeats; i++)
    {
      progress (what, i + 1, repeats);
      ok = i % 2 ? measure (b, &y[i], error) && measure (a, &x[i], error) : measure (a, &x[i], error) && measure (b, &y[i], error);
      ratio[i] = y[i] > 0 ? x[i] / y[i] : 0;
    }
  *pair = (Pair) { spread_of (x, repeats), spread_of (y, repeats), spread_of (ratio, repeats), all_bytes (b) - all_bytes (a) };
  return ok;
}

/* ---- the script alone ---- */

typedef struct
{
  Spread               rate;
  HeddlePipelineMemory memory;
  double               part[HEDDLE_TIME_PARTS], whole, per_step, timed_cost;
  gint64               steps;
  guint64              rss;
} Alone;

static const char *const part_names[HEDDLE_TIME_PARTS] = { "wait", "copy", "forward", "backward", "update", "log" };

static gboolean
measure_alone (Side *side, Alone *alone, GError **error)
{
  g_autofree double *rates = g_new0 (double, repeats);
  struct rusage usage;
  gint64 samples = 0;
  double plain = 0;
  gboolean ok = TRUE;
  for (gint64 i = 0; ok && i < repeats; i++)
    {
      progress ("samples/s", i + 1, repeats);
      ok = measure (side, &rates[i], error);
    }
  alone->rate = spread_of (rates, repeats);
  alone->steps = side->steps;
  ok = ok && heddle_bench_run (side->bench, side->steps, &samples, &plain, error) && heddle_bench_split (side->bench, side->steps, alone->part, &alone->whole, error);
  alone->timed_cost = plain > 0 ? alone->whole / plain - 1 : 0;
  heddle_pipeline_memory (side->pipeline, &alone->memory);
  getrusage (RUSAGE_SELF, &usage);
  alone->rss = (guint64) usage.ru_maxrss * 1024;
  return ok;
}

/* ---- techniques ---- */

typedef struct { const char *name, *with, *without; Pair pair; char *not; } Row;      /* NOT: why it was not measured */

static HeddleNode *
node_of (HeddleGraph *graph, const char *verb)
{
  HeddleNode *found = NULL;
  for (guint i = 0; !found && i < graph->nodes->len; i++)
    if (g_str_equal (((HeddleNode *) graph->nodes->pdata[i])->stage->class->verb, verb))
      found = graph->nodes->pdata[i];
  return found;
}

/* The settings of TECHNIQUE switched on and off: "flags.fusion=true"; NULL with *NOT: it cannot be switched here. */
static gboolean
switches (Side *base, const char *technique, char **with, char **without, char **not)
{
  HeddleDevice *device = heddle_pipeline_device (base->pipeline);
  const HeddleNode *amp = node_of (base->graph, "amp"), *prefetch = node_of (base->graph, "prefetch");
  const HeddlePrefetchOptions *loading = prefetch->stage->self;
  const HeddleFlags *flags = &base->graph->flags;
  if (g_str_equal (technique, "threads"))
    {
      guint cpus = heddle_flags_cpus ();
      if (cpus == 1 && flags->threads <= 1)
        *not = g_strdup ("this machine allows one CPU");
      *with = flags->threads > 1 ? g_strdup_printf ("flags.threads=%d", (int) flags->threads) : g_strdup_printf ("flags.threads=%u", cpus);
      *without = g_strdup ("flags.threads=1");
    }
  else if (g_str_equal (technique, "workers"))
    {
      *with = loading->num_workers > 0 ? g_strdup_printf ("%s.num_workers=%d", prefetch->id, (int) loading->num_workers) : g_strdup_printf ("%s.num_workers=auto", prefetch->id);
      *without = g_strdup_printf ("%s.num_workers=0", prefetch->id);
    }
  else if (g_str_equal (technique, "amp"))
    {
      if (!amp)
        *not = g_strdup ("the script has no amp stage");
      else if (((const HeddleAmpOptions *) amp->stage->self)->dtype == 1 && !device->iface->computes (device, HEDDLE_BF16) && !device->iface->computes (device, HEDDLE_F16))
        *not = g_strdup ("not on this device");
      else
        {
          g_autofree char *dtype = heddle_options_print (amp->stage->class->options, amp->stage->self, "dtype");
          g_autofree char *plain = g_strdup (g_strstrip (g_strdelimit (dtype, "\"", ' ')));
          *with = g_strdup_printf ("%s.dtype=%s", amp->id, g_str_equal (plain, "f32") ? "auto" : plain);
          *without = g_strdup_printf ("%s.dtype=f32", amp->id);
        }
    }
  else if (!heddle_device_honours (device, technique))
    *not = g_strdup ("not on this device");
  else if (g_str_equal (technique, "pin_memory"))
    {
      *with = g_strdup_printf ("%s.pin_memory=true", prefetch->id);
      *without = g_strdup_printf ("%s.pin_memory=false", prefetch->id);
    }
  else
    {
      *with = g_strdup_printf ("flags.%s=true", technique);
      *without = g_strdup_printf ("flags.%s=false", technique);
    }
  return !*not;
}

static gboolean
measure_row (HeddleScriptCommand *c, Row *row, GError **error)
{
  Side a = { 0 }, b = { 0 };
  const char *with[] = { row->with, NULL }, *without[] = { row->without, NULL };
  gboolean ok = side_open (&a, c, with, error) && side_open (&b, c, without, error) && compare (&a, &b, row->name, &row->pair, error);
  side_clear (&a);
  side_clear (&b);
  return ok;
}

static void
row_clear (gpointer data)
{
  Row *row = data;
  g_free ((char *) row->with);
  g_free ((char *) row->without);
  g_free (row->not);
}

static gboolean
measure_rows (HeddleScriptCommand *c, Side *base, GArray *rows, GError **error)
{
  static const char *const techniques[] = { "fusion", "threads", "workers", "amp", "pin_memory", "tf32", "cudnn_benchmark" };
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < G_N_ELEMENTS (techniques); i++)
    {
      Row row = { .name = techniques[i] };
      char *with = NULL, *without = NULL;
      gboolean able = switches (base, techniques[i], &with, &without, &row.not);
      row.with = with;
      row.without = without;
      ok = !able || measure_row (c, &row, error);
      g_array_append_val (rows, row);
    }
  return ok;
}

/* ---- printing ---- */

static char *
bytes (gint64 n)
{
  return llabs (n) >= 10 << 20 ? g_strdup_printf ("%.1f MiB", (double) n / 1048576) : g_strdup_printf ("%.0f KiB", (double) n / 1024);
}

static void
print_memory (const Alone *r)
{
  const struct { const char *name; gsize n; } owners[] = { { "activations", r->memory.arena }, { "parameters", r->memory.params }, { "gradients", r->memory.grads }, { "optimizer", r->memory.slots },
                                                           { "other state", r->memory.states }, { "batches", r->memory.batches }, { "peak resident, whole process", r->rss } };
  printf ("memory:");
  for (guint i = 0; i < G_N_ELEMENTS (owners); i++)
    {
      g_autofree char *text = bytes ((gint64) owners[i].n);
      printf ("%s %s %s", i ? "," : "", owners[i].name, text);
    }
  printf ("\n");
}

static void
print_alone (const Alone *r, const char *script, const char *device)
{
  double other = r->whole;
  printf ("%s on %s: %.0f samples/s (%.0f..%.0f), %d repeats of %d batches\ntime of a step (timed apart, %+.1f %%):", script, device, r->rate.median, r->rate.least, r->rate.most, (int) repeats,
          (int) r->steps, 100 * r->timed_cost);
  for (guint i = 0; i < HEDDLE_TIME_PARTS; i++)
    {
      printf (" %s %.1f %%,", part_names[i], 100 * r->part[i] / r->whole);
      other -= r->part[i];
    }
  printf (" other %.1f %%; %.3f ms in all\n", 100 * MAX (other, 0) / r->whole, r->whole / (double) r->steps * 1e3);
  print_memory (r);
}

static void
print_rows (const GArray *rows)
{
  printf ("\ntechnique        speed-up              memory saved   samples/s with  without   with over without, all else as the script says\n");
  for (guint i = 0; i < rows->len; i++)
    {
      const Row *r = &g_array_index (rows, Row, i);
      g_autofree char *saved = bytes (r->pair.saved);
      if (r->not)
        printf ("%-16s %s\n", r->name, r->not);
      else
        printf ("%-16s %.2fx (%.2f..%.2f) %17s %14.0f %9.0f   %s over %s\n", r->name, r->pair.ratio.median, r->pair.ratio.least, r->pair.ratio.most, saved, r->pair.a.median, r->pair.b.median, r->with, r->without);
    }
}

static void
print_vs (const Pair *p, const char *script)
{
  g_autofree char *saved = bytes (p->saved);
  printf ("\n%s over %s: %.2fx (%.2f..%.2f), %.0f over %.0f samples/s, memory saved %s\n", script, vs, p->ratio.median, p->ratio.least, p->ratio.most, p->a.median, p->b.median, saved);
}

static void
add_spread (JsonBuilder *b, const char *name, Spread s)
{
  json_builder_set_member_name (b, name);
  json_builder_begin_object (b);
  json_builder_add_double_value (json_builder_set_member_name (b, "median"), s.median);
  json_builder_add_double_value (json_builder_set_member_name (b, "min"), s.least);
  json_builder_add_double_value (json_builder_set_member_name (b, "max"), s.most);
  json_builder_end_object (b);
}

static void
add_int (JsonBuilder *b, const char *name, gint64 n)
{
  json_builder_add_int_value (json_builder_set_member_name (b, name), n);
}

static void
add_string (JsonBuilder *b, const char *name, const char *text)
{
  json_builder_add_string_value (json_builder_set_member_name (b, name), text);
}

static void
add_pair (JsonBuilder *b, const Pair *p, const char *with, const char *without)
{
  add_string (b, "numerator", with);
  add_string (b, "baseline", without);
  add_spread (b, "speedup", p->ratio);
  add_spread (b, "samples_per_second", p->a);
  add_spread (b, "baseline_samples_per_second", p->b);
  add_int (b, "memory_saved_bytes", p->saved);
}

static void
add_alone (JsonBuilder *b, const Alone *r)
{
  add_int (b, "repeats", repeats);
  add_int (b, "steps", r->steps);
  add_spread (b, "samples_per_second", r->rate);
  json_builder_begin_object (json_builder_set_member_name (b, "seconds_per_step"));
  for (guint i = 0; i < HEDDLE_TIME_PARTS; i++)
    json_builder_add_double_value (json_builder_set_member_name (b, part_names[i]), r->part[i] / (double) r->steps);
  json_builder_add_double_value (json_builder_set_member_name (b, "all"), r->whole / (double) r->steps);
  json_builder_end_object (b);
  json_builder_begin_object (json_builder_set_member_name (b, "memory_bytes"));
  add_int (b, "activations", (gint64) r->memory.arena);
  add_int (b, "parameters", (gint64) r->memory.params);
  add_int (b, "gradients", (gint64) r->memory.grads);
  add_int (b, "optimizer", (gint64) r->memory.slots);
  add_int (b, "other_state", (gint64) r->memory.states);
  add_int (b, "batches", (gint64) r->memory.batches);
  add_int (b, "peak_resident", (gint64) r->rss);
  json_builder_end_object (b);
}

static void
print_json (const Alone *r, const GArray *rows, const Pair *pair, const char *script, const char *device)
{
  g_autoptr (JsonBuilder) b = json_builder_new ();
  json_builder_begin_object (b);
  add_string (b, "script", script);
  add_string (b, "device", device);
  add_alone (b, r);
  if (ablate)
    {
      json_builder_begin_array (json_builder_set_member_name (b, "ablation"));
      for (guint i = 0; i < rows->len; i++)
        {
          const Row *row = &g_array_index (rows, Row, i);
          json_builder_begin_object (b);
          add_string (b, "technique", row->name);
          if (row->not)
            add_string (b, "not", row->not);
          else
            add_pair (b, &row->pair, row->with, row->without);
          json_builder_end_object (b);
        }
      json_builder_end_array (b);
    }
  if (vs)
    {
      json_builder_begin_object (json_builder_set_member_name (b, "vs"));
      add_pair (b, pair, script, vs);
      json_builder_end_object (b);
    }
  json_builder_end_object (b);
  g_autoptr (JsonNode) root = json_builder_get_root (b);
  g_autofree char *text = json_to_string (root, TRUE);
  printf ("%s\n", text);
}

/* ---- the verb ---- */

static gboolean
measure_vs (HeddleScriptCommand *c, Side *base, Pair *pair, GError **error)
{
  HeddleScriptCommand other = *c;
  Side side = { 0 };
  other.script = vs;
  gboolean ok = side_open (&side, &other, NULL, error) && compare (base, &side, "vs", pair, error);
  side_clear (&side);
  return ok;
}

static gboolean
bench (HeddleScriptCommand *c, GError **error)
{
  Side base = { 0 };
  Alone alone = { 0 };
  Pair pair = { 0 };
  g_autoptr (GArray) rows = g_array_new (FALSE, FALSE, sizeof (Row));
  g_array_set_clear_func (rows, row_clear);
  progress ("compiling", 1, 1);
  gboolean ok = side_open (&base, c, NULL, error) && measure_alone (&base, &alone, error) && (!vs || measure_vs (c, &base, &pair, error)) && (!ablate || measure_rows (c, &base, rows, error));
  progress (NULL, 0, 0);
  const char *device = ok ? heddle_pipeline_device (base.pipeline)->name : "";
  if (ok && json)
    print_json (&alone, rows, &pair, c->script, device);
  else if (ok)
    {
      print_alone (&alone, c->script, device);
      if (vs)
        print_vs (&pair, c->script);
      if (ablate)
        print_rows (rows);
    }
  side_clear (&base);
  return ok;
}

static int
run (int argc, char **argv)
{
  HeddleScriptCommand c = { 0 };
  GError *error = NULL;
  int status;
  if (heddle_script_command (&c, &heddle_verb_bench, argc, argv, entries, &status))
    {
      if (repeats < 1 || repeats > 100000 || steps < 0 || warmup < 0 || !(seconds > 0 && seconds <= 86400))
        status = heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "bench: out of range\nhint: --repeats 1..100000, --steps and --warmup from 0, --seconds above 0"));
      else if (!bench (&c, &error))
        status = heddle_cli_fail (error);
    }
  heddle_script_clear (&c);
  return status;
}

const HeddleVerb heddle_verb_bench = { "bench", "SCRIPT", "Measure how fast a script trains, where its time goes and what each technique gains", run, entries };
