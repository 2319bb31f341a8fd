/* cuda/dnn-cache.c: finished plans on disk, one file each, named by a hash of all that decides about the plan.
 * Must not know cuDNN: keys and payloads are text.  A file that is damaged or speaks of another key counts as none and is written anew. */
#include "dnn-private.h"

#include <string.h>

#define MAGIC "heddle cudnn plan 1\n"

static char *
file_of (const char *folder, const char *key)
{
  g_autofree char *sum = g_compute_checksum_for_string (G_CHECKSUM_SHA256, key, -1), *name = g_strconcat (sum, ".plan", NULL);
  return g_build_filename (folder, name, NULL);
}

/* Magic, the sha256 of what follows, then three texts that each say their length: key, plan's text, payload. */
static void
append (GString *s, const char *text)
{
  g_string_append_printf (s, "%" G_GSIZE_FORMAT "\n%s\n", strlen (text), text);
}

/* (transfer full) The next of the texts at *AT; NULL when the file ends before it does. */
static char *
next_text (const char **at, const char *end)
{
  char *after = NULL, *text = NULL;
  guint64 n = *at < end ? g_ascii_strtoull (*at, &after, 10) : 0;
  if (after && after > *at && after < end && *after == '\n' && n < (gsize) (end - after) - 1 && after[1 + n] == '\n')
    {
      text = g_strndup (after + 1, n);
      *at = after + n + 2;
    }
  return text;
}

char *
dnn_cache_load (const char *folder, const char *key, char **text)
{
  g_autofree char *file = file_of (folder, key), *content = NULL, *sum = NULL, *stored = NULL, *name = NULL;
  char *payload = NULL;
  gsize size = 0, head = strlen (MAGIC) + 65;
  if (g_file_get_contents (file, &content, &size, NULL) && size > head && memcmp (content, MAGIC, strlen (MAGIC)) == 0)
    {
      const char *at = content + head, *end = content + size;
      sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) at, size - head);
      if (memcmp (content + strlen (MAGIC), sum, 64) == 0 && (stored = next_text (&at, end)) && strcmp (stored, key) == 0 && (name = next_text (&at, end)))
        payload = next_text (&at, end);
    }
  if (payload)
    *text = g_steal_pointer (&name);
  return payload;
}

/* g_file_set_contents () writes another file and renames it: readers see the old one or the new one.  A cache that cannot be written is no error. */
void
dnn_cache_store (const char *folder, const char *key, const char *text, const char *payload)
{
  g_autofree char *file = file_of (folder, key), *sum = NULL;
  g_autoptr (GString) body = g_string_new (NULL), all = g_string_new (MAGIC);
  append (body, key);
  append (body, text);
  append (body, payload);
  sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, (const guchar *) body->str, body->len);
  g_string_append_printf (all, "%s\n", sum);
  g_string_append_len (all, body->str, (gssize) body->len);
  if (g_mkdir_with_parents (folder, 0700) == 0)
    g_file_set_contents (file, all->str, (gssize) all->len, NULL);
}
