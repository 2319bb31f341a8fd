/* base/suggest.c: the nearest valid name to a mistyped one.  Must not know what the names stand for. */
#include "base/options.h"

#include <string.h>

#define LONGEST 64

/* Optimal string alignment distance: Damerau-Levenshtein without repeated edits of one place. */
static guint
distance (const char *a, const char *b)
{
  guint n = (guint) strlen (a), m = (guint) strlen (b), result = LONGEST;
  guint row[3][LONGEST + 1];
  if (n <= LONGEST && m <= LONGEST)
    {
      guint *before = row[0], *last = row[1], *now = row[2];
      for (guint j = 0; j <= m; j++)
        last[j] = before[j] = j;
      for (guint i = 1; i <= n; i++)
        {
          now[0] = i;
          for (guint j = 1; j <= m; j++)
            {
              now[j] = MIN (MIN (last[j] + 1, now[j - 1] + 1), last[j - 1] + (a[i - 1] != b[j - 1]));
              if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = MIN (now[j], before[j - 2] + 1);
            }
          guint *spare = before;
          before = last;
          last = now;
          now = spare;
        }
      result = last[m];
    }
  return result;
}

const char *
heddle_suggest (const char *word, const char *const *candidates)
{
  const char *best = NULL;
  guint limit = MAX (1, (guint) strlen (word) / 3), best_distance = limit + 1;
  for (guint i = 0; candidates && candidates[i]; i++)
    {
      guint d = distance (word, candidates[i]);
      if (d < best_distance)
        {
          best = candidates[i];
          best_distance = d;
        }
    }
  return best;
}

char *
heddle_suggestion (const char *word, const char *const *candidates)
{
  const char *best = heddle_suggest (word, candidates);
  return best ? g_strdup_printf ("; did you mean \"%s\"?", best) : g_strdup ("");
}
