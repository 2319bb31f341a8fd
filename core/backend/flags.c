/* backend/flags.c: the option table of the flags, their contradictions, and how many CPUs this process may use.
 * Must not know the libraries that honour the flags. */
#include "backend/flags.h"

#include <sched.h>
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
  HEDDLE_BOOL (HeddleFlags, cuda_graphs, TRUE, "CUDA: capture the work of a step once and replay it, rather than hand it over piece by piece"),
  HEDDLE_BOOL (HeddleFlags, winograd, TRUE, "3x3 convolutions by Winograd's F(4x4, 3x3) where that is faster (CPU: AVX-512; CUDA: whether cuDNN may choose it); rounding errors are about ten times those of direct convolution"),
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

/* ---- how many CPUs ---- */

/* "200000 100000" (quota and period in microseconds) as CPUs, rounded up; "max 100000" and -1 are no quota: G_MAXUINT. */
static guint
cpus_of (const char *quota, const char *period)
{
  gint64 q = quota ? g_ascii_strtoll (quota, NULL, 10) : 0, p = period ? g_ascii_strtoll (period, NULL, 10) : 0;
  return q > 0 && p > 0 ? (guint) MIN ((q - 1) / p + 1, G_MAXINT32) : G_MAXUINT;
}

static guint
quota_v2 (const char *folder)
{
  g_autofree char *file = g_build_filename (folder, "cpu.max", NULL), *text = NULL;
  const char *period = g_file_get_contents (file, &text, NULL, NULL) ? strchr (text, ' ') : NULL;
  return cpus_of (text, period);
}

static guint
quota_v1 (const char *folder)
{
  g_autofree char *q = g_build_filename (folder, "cpu.cfs_quota_us", NULL), *p = g_build_filename (folder, "cpu.cfs_period_us", NULL), *quota = NULL, *period = NULL;
  g_file_get_contents (q, &quota, NULL, NULL);
  g_file_get_contents (p, &period, NULL, NULL);
  return cpus_of (quota, period);
}

/* The smallest quota of MOUNT/PATH and every group above it.  A container may see the path that its group has on the host: folders that are
 * not there are passed over, and the mount itself is the container's own group. */
static guint
smallest_quota (const char *mount, const char *path, guint (*quota) (const char *folder))
{
  g_autofree char *at = g_strdup (path);
  guint cpus = G_MAXUINT;
  for (char *slash = at + strlen (at); slash; slash = strrchr (at, '/'))
    {
      *slash = 0;
      g_autofree char *folder = g_build_filename (mount, at, NULL);
      guint here = quota (folder);
      cpus = MIN (cpus, here);
    }
  return cpus;
}

/* One line of /proc/self/cgroup: "0::/path" is v2's (also beside v1 controllers, then mounted as "unified"); "4:cpu,cpuacct:/path" is v1's. */
static guint
line_quota (const char *mounts, const char *line)
{
  g_auto (GStrv) part = g_strsplit (line, ":", 3);
  guint cpus = G_MAXUINT;
  if (g_strv_length (part) == 3 && !*part[1])
    {
      g_autofree char *unified = g_build_filename (mounts, "unified", NULL);
      guint pure = smallest_quota (mounts, part[2], quota_v2), hybrid = smallest_quota (unified, part[2], quota_v2);
      cpus = MIN (pure, hybrid);
    }
  else if (g_strv_length (part) == 3)
    {
      g_auto (GStrv) controllers = g_strsplit (part[1], ",", -1);
      g_autofree char *alone = g_build_filename (mounts, "cpu", NULL), *joint = g_build_filename (mounts, part[1], NULL);
      if (g_strv_contains ((const char *const *) controllers, "cpu"))
        {
          guint a = smallest_quota (alone, part[2], quota_v1), b = smallest_quota (joint, part[2], quota_v1);
          cpus = MIN (a, b);
        }
    }
  return cpus;
}

guint
heddle_flags_quota (const char *root)
{
  g_autofree char *file = g_build_filename (root, "proc/self/cgroup", NULL), *mounts = g_build_filename (root, "sys/fs/cgroup", NULL), *text = NULL;
  guint cpus = G_MAXUINT;
  if (g_file_get_contents (file, &text, NULL, NULL))
    {
      g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
      for (guint i = 0; lines[i]; i++)
        {
          guint here = line_quota (mounts, lines[i]);
          cpus = MIN (cpus, here);
        }
    }
  return cpus;
}

/* CPUs in the calling thread's mask, however many the machine has: a set that is too small is refused by the kernel. */
static guint
affinity (void)
{
  guint n = 0;
  for (guint size = 1024; !n && size <= 1u << 20; size *= 2)
    {
      cpu_set_t *mask = CPU_ALLOC (size);
      if (mask && sched_getaffinity (0, CPU_ALLOC_SIZE (size), mask) == 0)
        n = (guint) CPU_COUNT_S (CPU_ALLOC_SIZE (size), mask);
      CPU_FREE (mask);
    }
  return n ? n : g_get_num_processors ();
}

guint
heddle_flags_cpus (void)
{
  guint mask = affinity (), quota = heddle_flags_quota ("/");
  return MAX (1, MIN (mask, quota));
}
