/* cli/main.c: the verb table.  Must not know what a verb does. */
#include "cli/cli.h"

#include <locale.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const HeddleVerb *const verbs[] = { &heddle_verb_run, &heddle_verb_check, &heddle_verb_graph, &heddle_verb_bench, &heddle_verb_inspect, &heddle_verb_doctor, &heddle_verb_help };

const HeddleVerb *
heddle_verb_nth (guint i)
{
  return i < G_N_ELEMENTS (verbs) ? verbs[i] : NULL;
}

/* Messages of the core go to stderr, one line each; debug only when asked for. */
static GLogWriterOutput
log_writer (GLogLevelFlags level, const GLogField *fields, gsize n, gpointer data)
{
  const char *text = "";
  (void) data;
  for (gsize i = 0; i < n; i++)
    if (g_str_equal (fields[i].key, "MESSAGE"))
      text = fields[i].value;
  gboolean quiet = level & G_LOG_LEVEL_DEBUG && !g_getenv ("G_MESSAGES_DEBUG");
  if (!quiet)
    fprintf (stderr, "heddle: %s%s\n", level & (G_LOG_LEVEL_WARNING | G_LOG_LEVEL_CRITICAL) ? "warning: " : "", text);
  return G_LOG_WRITER_HANDLED;
}

static void
print_usage (FILE *to)
{
  fprintf (to, "usage: heddle VERB ...\n\n");
  for (guint i = 0; i < G_N_ELEMENTS (verbs); i++)
    fprintf (to, "  %-9s %s\n", verbs[i]->name, verbs[i]->summary);
  fprintf (to, "\nheddle VERB --help says more; heddle --version prints the version.\n");
}

static int
unknown_verb (const char *name)
{
  const char *names[G_N_ELEMENTS (verbs) + 1] = { NULL };
  for (guint i = 0; i < G_N_ELEMENTS (verbs); i++)
    names[i] = verbs[i]->name;
  g_autofree char *near = heddle_suggestion (name, names);
  return heddle_cli_fail (g_error_new (HEDDLE_ERROR, HEDDLE_ERROR_USAGE, "no verb \"%s\"%s\nhint: heddle --help lists them", name, near));
}

/* oneDNN allocates and frees inside each call; a C library that gives the top of its heap back to the system each time costs a page fault again and
 * again (tests/pipeline/test-steady.c counts them). */
static void
keep_memory (void)
{
#ifdef __GLIBC__
  mallopt (M_TRIM_THRESHOLD, 1 << 30);
  mallopt (M_MMAP_THRESHOLD, 32 << 20);         /* the most that glibc takes */
#endif
}

int
main (int argc, char **argv)
{
  const HeddleVerb *verb = NULL;
  int status = 0;
  setlocale (LC_MESSAGES, "");
  g_log_set_writer_func (log_writer, NULL, NULL);
  keep_memory ();
  for (guint i = 0; argc > 1 && i < G_N_ELEMENTS (verbs); i++)
    if (g_str_equal (argv[1], verbs[i]->name))
      verb = verbs[i];
  if (verb)
    status = verb->run (argc - 1, argv + 1);
  else if (argc > 1 && (g_str_equal (argv[1], "--version") || g_str_equal (argv[1], "-V")))
    printf ("heddle %s\n", HEDDLE_VERSION);
  else if (argc > 1 && (g_str_equal (argv[1], "--help") || g_str_equal (argv[1], "-h")))
    print_usage (stdout);
  else if (argc > 1)
    status = unknown_verb (argv[1]);
  else
    {
      print_usage (stderr);
      status = 2;
    }
  if (fflush (stdout) != 0 || ferror (stdout))
    status = status ? status : 3;
  return status;
}
