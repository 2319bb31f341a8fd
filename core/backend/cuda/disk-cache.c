/* cuda/disk-cache.c: files with a checksum in the user's cache folder, written whole or not at all.  Must not know what the bytes mean. */
#include "disk-cache.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAGIC "heddle cache 1\n"
#define SUM   64               /* digits of a SHA-256 */
#define HEAD  (sizeof MAGIC - 1 + SUM + 1)

static char *
path_of (const char *kind, const char *key)
{
  g_autofree char *file = g_strconcat (key, ".bin", NULL);
  return g_build_filename (g_get_user_cache_dir (), "heddle", kind, file, NULL);
}

char *
cuda_cache_key (const char *const *parts)
{
  GChecksum *sum = g_checksum_new (G_CHECKSUM_SHA256);
  for (guint i = 0; parts[i]; i++)
    g_checksum_update (sum, (const guchar *) parts[i], (gssize) strlen (parts[i]) + 1);      /* with the NUL: no two lists run together */
  char *key = g_strdup (g_checksum_get_string (sum));
  g_checksum_free (sum);
  return key;
}

GBytes *
cuda_cache_read (const char *kind, const char *key)
{
  g_autofree char *path = path_of (kind, key), *text = NULL;
  gsize n = 0;
  GBytes *bytes = NULL;
  if (g_file_get_contents (path, &text, &n, NULL) && n > HEAD && memcmp (text, MAGIC, sizeof MAGIC - 1) == 0)
    {
      g_autofree char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) text + HEAD, n - HEAD);
      if (memcmp (sum, text + sizeof MAGIC - 1, SUM) == 0)
        bytes = g_bytes_new (text + HEAD, n - HEAD);
    }
  if (bytes)
    utimensat (AT_FDCWD, path, NULL, 0);       /* used now: many file systems do not note reading */
  return bytes;
}

/* ---- the cap ---- */

static guint64
cap_bytes (void)
{
  static gint told;
  const char *text = g_getenv ("HEDDLE_CUDA_CACHE_MIB");
  guint64 mib = CUDA_CACHE_MIB;
  if (text && !g_ascii_string_to_unsigned (text, 10, 0, G_MAXUINT32, &mib, NULL))
    {
      mib = CUDA_CACHE_MIB;
      if (g_atomic_int_compare_and_exchange (&told, 0, 1))
        g_printerr ("heddle: HEDDLE_CUDA_CACHE_MIB: \"%s\" is not a number of MiB; %d is taken\nhint: 0 keeps nothing\n", text, CUDA_CACHE_MIB);
    }
  return mib << 20;
}

typedef struct { char *path; gint64 used; guint64 bytes; } Kept;       /* USED: nanoseconds */

static void
kept_free (gpointer data)
{
  Kept *kept = data;
  g_free (kept->path);
  g_free (kept);
}

static gboolean
look (const char *path, gint64 *used, guint64 *bytes)
{
  struct stat s;
  gboolean ok = lstat (path, &s) == 0 && S_ISREG (s.st_mode);
  if (ok)
    {
      *used = (gint64) s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
      *bytes = (guint64) s.st_size;
    }
  return ok;
}

/* What lies in FOLDER; what a writer that was killed has left there ("KEY.bin.A1B2C3") goes once it is surely nobody's. */
static void
list_folder (const char *folder, GPtrArray *list)
{
  GDir *dir = g_dir_open (folder, 0, NULL);
  const gint64 hour_ago = (g_get_real_time () - (gint64) 3600 * 1000000) * 1000;
  const char *name;
  while (dir && (name = g_dir_read_name (dir)))
    {
      Kept kept = { g_build_filename (folder, name, NULL), 0, 0 };
      gboolean file = look (kept.path, &kept.used, &kept.bytes);
      if (file && g_str_has_suffix (name, ".bin"))
        g_ptr_array_add (list, heddle_memdup (&kept, sizeof kept));
      else
        {
          if (file && strstr (name, ".bin.") && kept.used < hour_ago)
            g_unlink (kept.path);
          g_free (kept.path);
        }
    }
  g_clear_pointer (&dir, g_dir_close);
}

static GPtrArray *
list_all (void)
{
  g_autofree char *root = g_build_filename (g_get_user_cache_dir (), "heddle", NULL);
  GPtrArray *list = g_ptr_array_new_with_free_func (kept_free);
  GDir *dir = g_dir_open (root, 0, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name (dir)))
    {
      g_autofree char *folder = g_build_filename (root, name, NULL);
      list_folder (folder, list);
    }
  g_clear_pointer (&dir, g_dir_close);
  return list;
}

static int
least_recent_first (gconstpointer a, gconstpointer b)
{
  const Kept *x = *(Kept *const *) a, *y = *(Kept *const *) b;
  return x->used != y->used ? (x->used < y->used ? -1 : 1) : strcmp (x->path, y->path);
}

/* Unless another process has used it meanwhile.  A reader that has it open reads on; TRUE when it is not there any more. */
static gboolean
drop (const Kept *kept)
{
  gint64 used = 0;
  guint64 bytes;
  gboolean unchanged = !look (kept->path, &used, &bytes) || used == kept->used;
  return unchanged && (g_unlink (kept->path) == 0 || errno == ENOENT);
}

/* Bytes that are left.  A quarter of the cap is freed at once, so that the folder is not gone through for every file. */
static guint64
trim (guint64 cap)
{
  g_autoptr (GPtrArray) list = list_all ();
  guint64 total = 0;
  for (guint i = 0; i < list->len; i++)
    total += ((const Kept *) list->pdata[i])->bytes;
  gboolean full = total > cap;
  if (full)
    g_ptr_array_sort (list, least_recent_first);
  for (guint i = 0; full && i < list->len && total > cap - cap / 4; i++)
    if (drop (list->pdata[i]))
      total -= ((const Kept *) list->pdata[i])->bytes;
  return total;
}

/* BYTES more have been written.  Other processes write too: this one looks again after every sixteenth of the cap, so that N of them exceed it by N sixteenths at most. */
static void
keep_within (guint64 cap, guint64 bytes)
{
  static GMutex mutex;
  static guint64 there = G_MAXUINT64 / 2, written;      /* as if full: the first look is due */
  g_mutex_lock (&mutex);
  written += bytes;
  if (there + written > cap || written > cap / 16)
    {
      there = trim (cap);
      written = 0;
    }
  g_mutex_unlock (&mutex);
}

/* ---- writing ---- */

static void
tell_once (const char *path, const GError *error)
{
  static gint told;
  if (g_atomic_int_compare_and_exchange (&told, 0, 1))
    g_printerr ("heddle: cannot keep %s: %s; it is made anew in every run\nhint: set XDG_CACHE_HOME to a folder that can be written\n", path, error ? error->message : "the folder cannot be made");
}

gboolean
cuda_cache_write (const char *kind, const char *key, GBytes *bytes)
{
  g_autofree char *path = path_of (kind, key), *folder = g_path_get_dirname (path);
  g_autofree char *sum = g_compute_checksum_for_bytes (G_CHECKSUM_SHA256, bytes);
  g_autoptr (GByteArray) text = g_byte_array_new ();
  g_autoptr (GError) error = NULL;
  gsize n;
  gconstpointer data = g_bytes_get_data (bytes, &n);
  guint64 cap = cap_bytes ();
  g_byte_array_append (text, (const guint8 *) MAGIC, sizeof MAGIC - 1);
  g_byte_array_append (text, (const guint8 *) sum, SUM);
  g_byte_array_append (text, (const guint8 *) "\n", 1);
  g_byte_array_append (text, data, (guint) n);
  /* a file of another name, renamed when it is complete: a reader, or a second writer, sees the old or the new one */
  gboolean small = text->len <= cap - cap / 4;
  gboolean ok = small && g_mkdir_with_parents (folder, 0700) == 0 && g_file_set_contents (path, (const char *) text->data, (gssize) text->len, &error);
  if (ok)
    keep_within (cap, text->len);
  else if (small)
    tell_once (path, error);
  return ok;
}
