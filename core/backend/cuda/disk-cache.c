/* cuda/disk-cache.c: files with a checksum in the user's cache folder, written whole or not at all.  Must not know what the bytes mean. */
#include "disk-cache.h"

#include <string.h>

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
  return bytes;
}

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
  g_byte_array_append (text, (const guint8 *) MAGIC, sizeof MAGIC - 1);
  g_byte_array_append (text, (const guint8 *) sum, SUM);
  g_byte_array_append (text, (const guint8 *) "\n", 1);
  g_byte_array_append (text, data, (guint) n);
  /* a file of another name, renamed when it is complete: a reader, or a second writer, sees the old or the new one */
  gboolean ok = g_mkdir_with_parents (folder, 0700) == 0 && g_file_set_contents (path, (const char *) text->data, (gssize) text->len, &error);
  if (!ok)
    tell_once (path, error);
  return ok;
}
