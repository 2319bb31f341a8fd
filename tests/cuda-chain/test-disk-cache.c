/* cuda-chain/test-disk-cache.c: what is kept on disk comes back or is made again: hit, miss, damage of every kind, a folder that cannot be written, several processes at once.
 * Must not know the form of the files beyond their being files. */
#include "backend/cuda/disk-cache.h"
#include "backend/cuda/rtc.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KERNEL "extern \"C\" __global__ void k (f32 *x) { *x = op_exp (*x); }\n"

static char *home;

static char *
file_of (const char *kind, const char *key)
{
  g_autofree char *name = g_strconcat (key, ".bin", NULL);
  return g_build_filename (home, "heddle", kind, name, NULL);
}

static GBytes *
letters (char letter, gsize n)
{
  char *text = g_malloc (n + 1);      /* never NULL */
  memset (text, letter, n);
  return g_bytes_new_take (text, n);
}

static void
test_keys (void)
{
  const char *a[] = { "one", "two", NULL }, *b[] = { "onet", "wo", NULL }, *c[] = { "one", "two", "", NULL };
  g_autofree char *x = cuda_cache_key (a), *again = cuda_cache_key (a), *y = cuda_cache_key (b), *z = cuda_cache_key (c);
  g_assert_cmpstr (x, ==, again);
  g_assert_cmpstr (x, !=, y);
  g_assert_cmpstr (x, !=, z);
}

static void
test_hit (void)
{
  g_autoptr (GBytes) bytes = letters ('a', 100001);
  g_autoptr (GBytes) nothing = letters ('b', 0);
  g_assert_null (cuda_cache_read ("hit", "key"));
  g_assert_true (cuda_cache_write ("hit", "key", bytes));
  g_autoptr (GBytes) back = cuda_cache_read ("hit", "key");
  g_assert_true (g_bytes_equal (back, bytes));
  g_assert_null (cuda_cache_read ("hit", "other key"));
  g_assert_null (cuda_cache_read ("other kind", "key"));
  g_assert_null (cuda_cache_read ("hit", "empty"));
  cuda_cache_write ("hit", "empty", nothing);        /* nothing to keep is not taken for something kept */
  g_assert_null (cuda_cache_read ("hit", "empty"));
}

static void
test_damaged (void)
{
  g_autoptr (GBytes) bytes = letters ('a', 5000);
  g_autofree char *file = file_of ("damaged", "key"), *good = NULL;
  gsize n;
  g_assert_true (cuda_cache_write ("damaged", "key", bytes));
  g_assert_true (g_file_get_contents (file, &good, &n, NULL));
  const gsize cuts[] = { 0, 1, 10, 60, 79, 80, 81, n - 1 }, flips[] = { 0, 5, 20, 70, 79, 80, 1000, n - 1 };
  for (guint i = 0; i < 2 * G_N_ELEMENTS (cuts); i++)
    {
      g_autofree char *bad = g_memdup2 (good, n);
      gboolean cut = i < G_N_ELEMENTS (cuts);
      gsize flip = flips[i % G_N_ELEMENTS (flips)];
      if (!cut)
        bad[flip] ^= 16;
      g_assert_true (g_file_set_contents (file, bad, (gssize) (cut ? cuts[i] : n), NULL));
      g_autoptr (GBytes) got = cuda_cache_read ("damaged", "key");
      gboolean newline = !cut && flip == 79;           /* between checksum and bytes: says nothing */
      g_assert_true (newline ? g_bytes_equal (got, bytes) : got == NULL);
    }
  g_assert_true (cuda_cache_write ("damaged", "key", bytes));
  g_autoptr (GBytes) back = cuda_cache_read ("damaged", "key");
  g_assert_true (g_bytes_equal (back, bytes));
}

/* A file stands where the folder should be: that stops root too. */
static void
test_unwritable (void)
{
  if (g_test_subprocess ())
    {
      g_autoptr (GBytes) bytes = letters ('a', 10);
      g_autofree char *heddle = g_build_filename (home, "heddle", NULL), *file = g_build_filename (heddle, "blocked", NULL);
      g_mkdir_with_parents (heddle, 0700);
      g_assert_true (g_file_set_contents (file, "", 0, NULL));
      for (guint i = 0; i < 3; i++)
        {
          g_assert_false (cuda_cache_write ("blocked", "key", bytes));
          g_assert_null (cuda_cache_read ("blocked", "key"));
        }
      return;
    }
  g_test_trap_subprocess (NULL, 0, 0);
  g_test_trap_assert_passed ();
  g_test_trap_assert_stderr ("*heddle: cannot keep *blocked/key.bin*hint: set XDG_CACHE_HOME*");
  g_test_trap_assert_stderr_unmatched ("*cannot keep*cannot keep*");      /* told once */
}

/* Each process writes its own letter; whoever reads sees one letter throughout. */
static void
write_and_read (char letter)
{
  g_autoptr (GBytes) bytes = letters (letter, 100000 + (gsize) letter);
  for (guint i = 0; i < 40; i++)
    {
      gboolean ok = cuda_cache_write ("race", "key", bytes);
      g_autoptr (GBytes) got = cuda_cache_read ("race", "key");
      gsize n = 0;
      const char *text = got ? g_bytes_get_data (got, &n) : NULL;
      ok = ok && text && n == 100000 + (gsize) text[0];
      for (gsize k = 0; ok && k < n; k++)
        ok = text[k] == text[0];
      if (!ok)
        _exit (1);
    }
  _exit (0);
}

static void
test_race (void)
{
  pid_t children[3];
  for (guint i = 0; i < G_N_ELEMENTS (children); i++)
    {
      children[i] = fork ();
      g_assert_cmpint (children[i], >=, 0);
      if (children[i] == 0)
        write_and_read ((char) ('a' + i));
    }
  for (guint i = 0; i < G_N_ELEMENTS (children); i++)
    {
      int status = 0;
      g_assert_cmpint (waitpid (children[i], &status, 0), ==, children[i]);
      g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
    }
}

static void
damage_all (const char *kind)
{
  g_autofree char *folder = g_build_filename (home, "heddle", kind, NULL);
  GDir *dir = g_dir_open (folder, 0, NULL);
  const char *name;
  guint n = 0;
  for (; (name = g_dir_read_name (dir)); n++)
    {
      g_autofree char *file = g_build_filename (folder, name, NULL);
      g_assert_true (g_file_set_contents (file, "damaged", -1, NULL));
    }
  g_dir_close (dir);
  g_assert_cmpuint (n, ==, 2);
}

static void
test_kernels (void)
{
  GError *error = NULL;
  gboolean compiled;
  g_autoptr (CudaRtc) rtc = cuda_rtc_open (NULL, &error);
  if (!rtc)
    g_test_skip (g_strdelimit (error->message, "\n", ' '));
  else
    {
      g_autoptr (GBytes) first = cuda_rtc_get (rtc, "k", KERNEL, 90, &compiled, &error);
      g_assert_no_error (error);
      g_assert_true (compiled);
      g_autoptr (GBytes) second = cuda_rtc_get (rtc, "k", KERNEL, 90, &compiled, &error);
      g_assert_false (compiled);
      g_assert_true (g_bytes_equal (first, second));
      g_autoptr (GBytes) other = cuda_rtc_get (rtc, "k", KERNEL, 120, &compiled, &error);
      g_assert_true (compiled);
      g_assert_false (g_bytes_equal (first, other));
      damage_all ("kernels");
      g_autoptr (GBytes) third = cuda_rtc_get (rtc, "k", KERNEL, 90, &compiled, &error);
      g_assert_true (compiled);
      g_assert_true (g_bytes_equal (first, third));
      g_autoptr (GBytes) fourth = cuda_rtc_get (rtc, "k", KERNEL, 90, &compiled, &error);
      g_assert_false (compiled);
      g_assert_null (cuda_rtc_get (rtc, "k", "not C", 90, &compiled, &error));
      g_assert_nonnull (error);
    }
  g_clear_error (&error);
}

static void
remove_tree (const char *path)
{
  GDir *dir = g_dir_open (path, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir)))
    {
      g_autofree char *inside = g_build_filename (path, name, NULL);
      remove_tree (inside);
    }
  g_clear_pointer (&dir, g_dir_close);
  g_remove (path);
}

int
main (int argc, char **argv)
{
  home = g_dir_make_tmp ("heddle-cache-XXXXXX", NULL);
  g_setenv ("XDG_CACHE_HOME", home, TRUE);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/cuda-chain/cache/keys", test_keys);
  g_test_add_func ("/cuda-chain/cache/hit and miss", test_hit);
  g_test_add_func ("/cuda-chain/cache/damaged", test_damaged);
  g_test_add_func ("/cuda-chain/cache/unwritable", test_unwritable);
  g_test_add_func ("/cuda-chain/cache/several processes", test_race);
  g_test_add_func ("/cuda-chain/cache/kernels", test_kernels);
  int status = g_test_run ();
  remove_tree (home);
  g_free (home);
  return status;
}
