/* test-cpus.c: how many threads "auto" means: the cgroup quota read from fake roots in every arrangement, the affinity mask set for real. */
#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>

#include "backend/backend.h"
#include "stage/loader.h"

/* ---- fake roots: FILES is "path=content" pairs, then NULL; "\n" ends every content, as the kernel writes it ---- */

static void
remove_tree (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir)))
    {
      g_autofree char *child = g_build_filename (path, name, NULL);
      remove_tree (child);
    }
  g_remove (path);
}

static void
expect (guint cpus, const char *const *files)
{
  g_autofree char *root = g_dir_make_tmp ("heddle-cpus-XXXXXX", NULL);
  for (guint i = 0; files[i]; i++)
    {
      const char *equals = strchr (files[i], '=');
      g_autofree char *path = g_strndup (files[i], (gsize) (equals - files[i])), *file = g_build_filename (root, path, NULL), *folder = g_path_get_dirname (file);
      g_autofree char *text = g_strconcat (equals + 1, "\n", NULL);
      g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
      g_assert_true (g_file_set_contents (file, text, -1, NULL));
    }
  g_assert_cmpuint (heddle_flags_quota (root), ==, cpus);
  remove_tree (root);
}

#define EXPECT(cpus, ...) expect (cpus, (const char *const[]) { __VA_ARGS__, NULL })
#define V2 "sys/fs/cgroup"
#define V1 "sys/fs/cgroup/cpu"
#define JOINT "sys/fs/cgroup/cpu,cpuacct"

static void
test_v2 (void)
{
  EXPECT (G_MAXUINT, "proc/self/cgroup=0::/");
  EXPECT (G_MAXUINT, "proc/self/cgroup=0::/", V2 "/cpu.max=max 100000");
  EXPECT (2, "proc/self/cgroup=0::/", V2 "/cpu.max=200000 100000");
  EXPECT (3, "proc/self/cgroup=0::/", V2 "/cpu.max=250000 100000");             /* rounded up */
  EXPECT (1, "proc/self/cgroup=0::/", V2 "/cpu.max=1000 100000");
  EXPECT (4, "proc/self/cgroup=0::/", V2 "/cpu.max=40000 10000");               /* another period */
  EXPECT (3, "proc/self/cgroup=0::/a/b", V2 "/a/b/cpu.max=300000 100000", V2 "/a/cpu.max=max 100000");
  EXPECT (2, "proc/self/cgroup=0::/a/b", V2 "/a/b/cpu.max=300000 100000", V2 "/a/cpu.max=200000 100000");
  EXPECT (5, "proc/self/cgroup=0::/a/b", V2 "/a/b/cpu.max=500000 100000", V2 "/a/c/cpu.max=100000 100000");   /* a sister's does not count */
  EXPECT (2, "proc/self/cgroup=0::/host/path", V2 "/cpu.max=200000 100000");    /* the path is the host's */
  EXPECT (G_MAXUINT, "proc/self/cgroup=0::/", V2 "/cpu.max=nonsense");
  EXPECT (G_MAXUINT, "proc/other=", V2 "/cpu.max=200000 100000");
}

static void
test_v1 (void)
{
  EXPECT (G_MAXUINT, "proc/self/cgroup=3:cpuset:/\n1:cpu:/\n0::/", V1 "/cpu.cfs_quota_us=-1", V1 "/cpu.cfs_period_us=100000");
  EXPECT (2, "proc/self/cgroup=3:cpuset:/\n1:cpu:/\n0::/", V1 "/cpu.cfs_quota_us=150000", V1 "/cpu.cfs_period_us=100000");
  EXPECT (2, "proc/self/cgroup=4:cpu,cpuacct:/job", JOINT "/job/cpu.cfs_quota_us=200000", JOINT "/job/cpu.cfs_period_us=100000");
  EXPECT (2, "proc/self/cgroup=4:cpu,cpuacct:/job", V1 "/job/cpu.cfs_quota_us=200000", V1 "/job/cpu.cfs_period_us=100000");
  EXPECT (1, "proc/self/cgroup=4:cpu,cpuacct:/job", JOINT "/job/cpu.cfs_quota_us=200000", JOINT "/job/cpu.cfs_period_us=100000", JOINT "/cpu.cfs_quota_us=50000",
          JOINT "/cpu.cfs_period_us=100000");
  EXPECT (G_MAXUINT, "proc/self/cgroup=4:cpuacct:/", "sys/fs/cgroup/cpuacct/cpu.cfs_quota_us=100000", "sys/fs/cgroup/cpuacct/cpu.cfs_period_us=100000");
  EXPECT (3, "proc/self/cgroup=4:memory:/\n0::/a", "sys/fs/cgroup/unified/a/cpu.max=300000 100000");      /* hybrid */
}

/* ---- the mask ---- */

static guint
report_threads (void)
{
  GError *error = NULL;
  HeddleFlags flags = { 0 };
  guint threads = 0;
  heddle_options_init (heddle_flags_options (), &flags);
  g_autoptr (HeddleDevice) device = heddle_device_open ("cpu", &flags, NULL, &error);
  g_assert_no_error (error);
  g_autoptr (GPtrArray) lines = device->iface->report (device);
  for (guint i = 0; i < lines->len; i++)
    if (g_str_has_prefix (lines->pdata[i], "threads = "))
      threads = (guint) g_ascii_strtoull ((char *) lines->pdata[i] + strlen ("threads = "), NULL, 10);
  return threads;
}

static guint
auto_workers (void)
{
  GError *error = NULL;
  HeddleSamplerSpec spec = { .length = 8, .batch_size = 4, .mode = HEDDLE_EPOCH_CONTINUE };
  HeddleDatasetInfo info = { .length = 8, .n_fields = 1, .field = { { .name = "x", .dtype = HEDDLE_F32, .shape = heddle_shape (2) } } };
  HeddlePrefetchOptions options;
  heddle_options_init (heddle_prefetch_options (), &options);
  options.batch_size = 4;
  g_autoptr (HeddleLoader) loader = heddle_loader_new (NULL, &info, heddle_sampler_new (&spec, &error), &options, 1, NULL, &error);
  g_assert_no_error (error);
  return heddle_loader_n_workers (loader);
}

static void
test_affinity (void)
{
  cpu_set_t before, mask;
  g_assert_cmpint (sched_getaffinity (0, sizeof before, &before), ==, 0);
  guint allowed = heddle_flags_cpus (), quota = heddle_flags_quota ("/"), all = (guint) CPU_COUNT (&before);
  g_assert_cmpuint (allowed, ==, MAX (1, MIN (all, quota)));
  g_assert_cmpuint (report_threads (), ==, allowed);
  g_assert_cmpuint (auto_workers (), ==, MIN (8, allowed));
  CPU_ZERO (&mask);
  for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT (&mask); i++)
    if (CPU_ISSET (i, &before))
      CPU_SET (i, &mask);
  g_assert_cmpint (sched_setaffinity (0, sizeof mask, &mask), ==, 0);
  g_assert_cmpuint (heddle_flags_cpus (), ==, 1);
  g_assert_cmpuint (report_threads (), ==, 1);
  g_assert_cmpuint (auto_workers (), ==, 1);
  g_assert_cmpint (sched_setaffinity (0, sizeof before, &before), ==, 0);
  g_assert_cmpuint (heddle_flags_cpus (), ==, allowed);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cpus/cgroup-v2", test_v2);
  g_test_add_func ("/cpus/cgroup-v1", test_v1);
  g_test_add_func ("/cpus/affinity", test_affinity);
  return g_test_run ();
}
