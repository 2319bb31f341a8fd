/* backend/flags.c: the option table of the flags, their contradictions, and how many CPUs this process may use.
 * Must not know the libraries that honour the flags. */
#include "backend/flags.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

static const HeddleEnumValue precisions[] = {
  { HEDDLE_PRECISION_HIGHEST, "highest", "products in full f32" },
  { HEDDLE_PRECISION_HIGH, "high", "TF32 products where the device has them" },
  { HEDDLE_PRECISION_MEDIUM, "medium", "as high on CUDA; elsewhere bf16 products where the device has them" },
  { 0, NULL, NULL },
};

static const HeddleOption options[] = {
  HEDDLE_BOOL (HeddleFlags, cudnn_benchmark, FALSE, "time cuDNN's candidates once per shape and keep the fastest"),
  HEDDLE_INT (HeddleFlags, benchmark_limit, 10, 0, 1000, "most candidates timed per operation; 0 = all"),
  HEDDLE_INT (HeddleFlags, benchmark_shapes, 64, 1, 100000, "most distinct shapes timed; later ones take the heuristics' first choice"),
  HEDDLE_INT (HeddleFlags, workspace_limit, 1024, 0, 1048576, "scratch memory an algorithm may take", .unit = "MiB"),
  HEDDLE_BOOL (HeddleFlags, tf32, FALSE, "TF32 for matrix products and convolutions: both of the next two"),
  HEDDLE_BOOL (HeddleFlags, tf32_matmul, FALSE, "TF32 products in matmul and linear"),
  HEDDLE_BOOL (HeddleFlags, tf32_conv, FALSE, "TF32 products in convolutions"),
  HEDDLE_ENUM (HeddleFlags, matmul_precision, HEDDLE_PRECISION_HIGHEST, precisions, "precision of f32 matrix products"),
  HEDDLE_BOOL (HeddleFlags, deterministic, FALSE, "deterministic algorithms only"),
  HEDDLE_BOOL (HeddleFlags, fusion, TRUE, "join elementwise operations with the operations before them"),
  HEDDLE_BOOL (HeddleFlags, winograd, TRUE, "3x3 convolutions by Winograd's F(4x4, 3x3) where that is faster (CPU: AVX-512); rounding errors are about ten times those of direct convolution"),
  HEDDLE_INT (HeddleFlags, threads, 0, 1, 1024, "CPU threads for arithmetic; auto: what the affinity mask and the cgroup quota allow", .word = "auto", .word_value = 0),
  HEDDLE_OPTIONS_END
};

HeddleOptionTable
heddle_flags_options (void)
{
  return HEDDLE_OPTION_TABLE (options);
}

static gboolean
given (GHashTable *set, const char *name)
{
  return set && g_hash_table_contains (set, name);
}

static gboolean
contradiction (GError **error, const char *a, const char *b)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s contradicts %s\nhint: leave one of them out", a, b);
  return FALSE;
}

gboolean
heddle_flags_resolve (HeddleFlags *f, GHashTable *set, GError **error)
{
  gboolean ok = TRUE;
  if (given (set, "tf32") && given (set, "tf32_matmul") && f->tf32 != f->tf32_matmul)
    ok = contradiction (error, "tf32", "tf32_matmul");
  else if (given (set, "tf32") && given (set, "tf32_conv") && f->tf32 != f->tf32_conv)
    ok = contradiction (error, "tf32", "tf32_conv");
  else if (given (set, "matmul_precision") && f->matmul_precision == HEDDLE_PRECISION_HIGHEST && ((given (set, "tf32") && f->tf32) || (given (set, "tf32_matmul") && f->tf32_matmul)))
    ok = contradiction (error, "matmul_precision = \"highest\"", f->tf32 ? "tf32 = true" : "tf32_matmul = true");
  else if (given (set, "matmul_precision") && f->matmul_precision != HEDDLE_PRECISION_HIGHEST && given (set, "tf32_matmul") && !f->tf32_matmul)
    ok = contradiction (error, "matmul_precision other than \"highest\"", "tf32_matmul = false");
  if (ok)
    {
      f->tf32_matmul |= f->tf32 || f->matmul_precision != HEDDLE_PRECISION_HIGHEST;
      f->tf32_conv |= f->tf32;
      if (f->tf32_matmul && f->matmul_precision == HEDDLE_PRECISION_HIGHEST)
        f->matmul_precision = HEDDLE_PRECISION_HIGH;
      f->tf32 = f->tf32_matmul && f->tf32_conv;
    }
  return ok;
}

/* CPUs by quota: cgroup v2 "max 100000" or "200000 100000"; v1 in two files; G_MAXUINT without a quota. */
static guint
quota (void)
{
  guint cpus = G_MAXUINT;
  g_autofree char *text = NULL, *v1_quota = NULL, *v1_period = NULL;
  long long q = -1, period = 0;
  if (g_file_get_contents ("/sys/fs/cgroup/cpu.max", &text, NULL, NULL))
    {
      if (sscanf (text, "%lld %lld", &q, &period) != 2)
        q = -1;
    }
  else if (g_file_get_contents ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &v1_quota, NULL, NULL)
           && g_file_get_contents ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &v1_period, NULL, NULL))
    {
      q = g_ascii_strtoll (v1_quota, NULL, 10);
      period = g_ascii_strtoll (v1_period, NULL, 10);
    }
  if (q > 0 && period > 0)
    cpus = (guint) MAX (1, (q + period - 1) / period);
  return cpus;
}

guint
heddle_flags_cpus (void)
{
  cpu_set_t mask;
  guint n = g_get_num_processors ();
  if (sched_getaffinity (0, sizeof mask, &mask) == 0)
    n = (guint) CPU_COUNT (&mask);
  return MAX (1, MIN (n, quota ()));
}
