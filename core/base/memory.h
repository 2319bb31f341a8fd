/* base/memory.h: what GLib has only since later versions than the oldest promised one (2.64).  Must not know anything else. */
#ifndef HEDDLE_BASE_MEMORY_H
#define HEDDLE_BASE_MEMORY_H

#include <glib.h>
#include <string.h>

/* A copy of SIZE bytes; NULL of NULL or of none.  As g_memdup2 of GLib 2.68. */
static inline gpointer
heddle_memdup (gconstpointer memory, gsize size)
{
  return memory && size ? memcpy (g_malloc (size), memory, size) : NULL;
}

#endif
