/* cuda-chain/test-disk-cache.c: what is kept on disk comes back or is made again: hit, miss, damage of every kind, a folder that cannot be written, several processes at once, too much of it.
 * Must not know the form of the files beyond their being files. */
#include "backend/cuda/disk-cache.h"
#include "base/memory.h"
#include "backend/cuda/rtc.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
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
      g_autofree char *bad = heddle_memdup (good, n);
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

/* ---- the cap: each in a process of its own, whose cache is empty ---- */

#define PIECE 100000             /* ten fit under a cap of 1 MiB; a trim leaves seven */

static void
write_piece (const char *kind, guint i)
{
  g_autofree char *key = g_strdup_printf ("k%02u", i);
  g_autoptr (GBytes) bytes = letters ((char) ('a' + i), PIECE);
  g_assert_true (cuda_cache_write (kind, key, bytes));
}

static void
make_old (const char *file, gint64 hours)
{
  struct timespec t = { g_get_real_time () / 1000000 - hours * 3600, 0 };
  g_assert_cmpint (utimensat (AT_FDCWD, file, (struct timespec[2]) { t, t }, 0), ==, 0);
}

static char *
piece_file (const char *kind, guint i)
{
  g_autofree char *key = g_strdup_printf ("k%02u", i);
  return file_of (kind, key);
}

static guint64
bytes_of_all (void)
{
  static const char *const kinds[] = { "kernels", "plans" };
  guint64 total = 0;
  for (guint k = 0; k < G_N_ELEMENTS (kinds); k++)
    {
      g_autofree char *folder = g_build_filename (home, "heddle", kinds[k], NULL);
      GDir *dir = g_dir_open (folder, 0, NULL);
      const char *name;
      while (dir && (name = g_dir_read_name (dir)))
        {
          g_autofree char *file = g_build_filename (folder, name, NULL);
          GStatBuf s;
          total += g_stat (file, &s) == 0 ? (guint64) s.st_size : 0;
        }
      g_clear_pointer (&dir, g_dir_close);
    }
  return total;
}

/* In a process of its own, under a cap of 1 MiB */
static gboolean
alone (const char *cap)
{
  if (g_test_subprocess ())
    g_setenv ("HEDDLE_CUDA_CACHE_MIB", cap, TRUE);
  else
    {
      g_test_trap_subprocess (NULL, 0, 0);
      g_test_trap_assert_passed ();
    }
  return g_test_subprocess ();
}

/* Two kinds share the cap.  The oldest is read, the next oldest four go; files that are not the cache's stay. */
static void
test_trimmed (void)
{
  if (!alone ("1"))
    {
      g_test_trap_assert_stderr ("");
      return;
    }
  g_autofree char *left = file_of ("kernels", "left.bin.A1B2C3"), *fresh = NULL, *foreign = NULL;
  for (guint i = 0; i < 8; i++)
    {
      const char *kind = i % 2 ? "plans" : "kernels";
      write_piece (kind, i);
      g_autofree char *file = piece_file (kind, i);
      make_old (file, 20 - i);
    }
  left[strlen (left) - 4] = 0;                                 /* as g_file_set_contents leaves it: no suffix of its own */
  fresh = g_strconcat (left, "X", NULL);
  foreign = g_build_filename (home, "heddle", "kernels", "notes.txt", NULL);
  g_assert_true (g_file_set_contents (left, "part", -1, NULL) && g_file_set_contents (fresh, "part", -1, NULL) && g_file_set_contents (foreign, "mine", -1, NULL));
  make_old (left, 2);
  make_old (foreign, 1000);
  g_autoptr (GBytes) used = cuda_cache_read ("kernels", "k00");
  g_assert_nonnull (used);
  write_piece ("kernels", 8);
  write_piece ("plans", 9);
  g_assert_cmpuint (bytes_of_all (), >, 10 * PIECE);           /* not yet */
  write_piece ("kernels", 10);
  for (guint i = 0; i <= 10; i++)
    {
      g_autofree char *file = piece_file (i % 2 ? "plans" : "kernels", i);
      g_assert_cmpint (g_file_test (file, G_FILE_TEST_EXISTS), ==, i == 0 || i > 4);
    }
  g_assert_false (g_file_test (left, G_FILE_TEST_EXISTS));
  g_assert_true (g_file_test (fresh, G_FILE_TEST_EXISTS) && g_file_test (foreign, G_FILE_TEST_EXISTS));
}

/* Files that other processes have written since this one looked are found, though what this one knows of is far below the cap. */
static void
test_others (void)
{
  if (!alone ("1"))
    {
      g_test_trap_assert_stderr ("");
      return;
    }
  g_autofree char *text = g_strnfill (PIECE, 'z');
  write_piece ("kernels", 0);
  for (guint i = 1; i < 15; i++)
    {
      g_autofree char *file = piece_file ("kernels", i);
      g_assert_true (g_file_set_contents (file, text, PIECE, NULL));
      make_old (file, 1);
    }
  write_piece ("kernels", 20);
  g_assert_cmpuint (bytes_of_all (), <=, 1 << 20);
  g_autoptr (GBytes) first = cuda_cache_read ("kernels", "k00");
  g_autoptr (GBytes) last = cuda_cache_read ("kernels", "k20");
  g_assert_true (first && last);
}

/* What alone exceeds the cap is not kept, and drives nothing else out. */
static void
test_too_large (void)
{
  if (!alone ("1"))
    {
      g_test_trap_assert_stderr ("");
      return;
    }
  g_autoptr (GBytes) large = letters ('x', 2 << 20);
  g_autoptr (GBytes) small = letters ('y', 10);
  write_piece ("kernels", 0);
  g_assert_false (cuda_cache_write ("kernels", "large", large));
  g_assert_null (cuda_cache_read ("kernels", "large"));
  g_autoptr (GBytes) other = cuda_cache_read ("kernels", "k00");
  g_assert_nonnull (other);
  g_setenv ("HEDDLE_CUDA_CACHE_MIB", "0", TRUE);
  g_assert_false (cuda_cache_write ("kernels", "small", small));
  g_assert_null (cuda_cache_read ("kernels", "small"));
}

static void
test_bad_cap (void)
{
  if (!alone ("much"))
    {
      g_test_trap_assert_stderr ("*heddle: HEDDLE_CUDA_CACHE_MIB: \"much\" is not a number of MiB; 256 is taken*hint: 0 keeps nothing*");
      g_test_trap_assert_stderr_unmatched ("*256 is taken*256 is taken*");
      return;
    }
  for (guint i = 0; i < 20; i++)
    write_piece ("kernels", i);
  g_assert_cmpuint (bytes_of_all (), >, 20 * PIECE);           /* far below the usual cap: all stay */
}

/* Keys of all processes; each reads what any of them wrote, which is whole or not there. */
static void
crowd (guint me)
{
  gboolean ok = TRUE;
  for (guint i = 0; ok && i < 60; i++)
    {
      guint other = (7 * i + 5 * me) % 60;
      char letter = (char) ('A' + (i + me) % 26);
      g_autofree char *key = g_strdup_printf ("%u", i), *others = g_strdup_printf ("%u", other);
      g_autoptr (GBytes) bytes = letters (letter, PIECE + (gsize) letter);
      ok = cuda_cache_write ("kernels", key, bytes);
      g_autoptr (GBytes) got = cuda_cache_read ("kernels", others);
      gsize n = 0;
      const char *text = got ? g_bytes_get_data (got, &n) : NULL;
      ok = ok && (!text || n == PIECE + (gsize) text[0]);
      for (gsize k = 0; ok && k < n; k++)
        ok = text[k] == text[0];
    }
  _exit (ok ? 0 : 1);
}

static void
test_crowd (void)
{
  if (!alone ("1"))
    {
      g_test_trap_assert_stderr ("");
      return;
    }
  pid_t children[4];
  for (guint i = 0; i < G_N_ELEMENTS (children); i++)
    if ((children[i] = fork ()) == 0)
      crowd (i);
  for (guint i = 0; i < G_N_ELEMENTS (children); i++)
    {
      int status = 0;
      g_assert_cmpint (waitpid (children[i], &status, 0), ==, children[i]);
      g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
    }
  g_assert_cmpuint (bytes_of_all (), <=, (1 << 20) + G_N_ELEMENTS (children) * (PIECE + 200));     /* here a piece is more than a sixteenth */
  write_piece ("plans", 0);
  g_assert_cmpuint (bytes_of_all (), <=, 1 << 20);
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
  g_test_add_func ("/cuda-chain/cache/trimmed", test_trimmed);
  g_test_add_func ("/cuda-chain/cache/others write too", test_others);
  g_test_add_func ("/cuda-chain/cache/too large", test_too_large);
  g_test_add_func ("/cuda-chain/cache/no number", test_bad_cap);
  g_test_add_func ("/cuda-chain/cache/a crowd", test_crowd);
  int status = g_test_run ();
  remove_tree (home);
  g_free (home);
  return status;
}
