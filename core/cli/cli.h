/* cli/cli.h: what the verbs share.  Private to the program. */
#ifndef HEDDLE_CLI_CLI_H
#define HEDDLE_CLI_CLI_H

#include "pipeline/pipeline.h"
#include "script/script.h"

#include <stdio.h>

/* ARGV[0] is the verb.  Returns the exit status. */
typedef struct
{
  const char *name, *usage, *summary;
  int       (*run) (int argc, char **argv);
  const GOptionEntry *entries;          /* for the man page and completion */
} HeddleVerb;

extern const HeddleVerb heddle_verb_run, heddle_verb_check, heddle_verb_graph, heddle_verb_bench, heddle_verb_inspect, heddle_verb_doctor, heddle_verb_help;

/* The verb table, in order; NULL past its end. */
const HeddleVerb *heddle_verb_nth (guint i);

/* Options that every verb with a script takes. */
typedef struct
{
  char   **plugin_path, **args, **sets;
  gboolean unrestricted, help;
  char    *script;
  HeddleRegistry *registry;
} HeddleScriptCommand;

/* The same entries for parsing and for the man page. */
GOptionEntry *heddle_script_entries (HeddleScriptCommand *c);

/* Parses, prints what is wrong to stderr.  FALSE: return *STATUS. */
gboolean     heddle_cli_parse       (const HeddleVerb *verb, int *argc, char ***argv, const GOptionEntry *own, const GOptionEntry *shared, int *status);
gboolean     heddle_script_command  (HeddleScriptCommand *c, const HeddleVerb *verb, int argc, char **argv, const GOptionEntry *own, int *status);
void         heddle_script_clear    (HeddleScriptCommand *c);
/* The script's graph with --set applied; NULL: ERROR is set. */
HeddleGraph *heddle_script_graph    (HeddleScriptCommand *c, GError **error);
/* What SCRIPT --help says: its arguments and every option that --set reaches. */
int          heddle_script_help     (HeddleScriptCommand *c);
/* Prints the error (and frees it), returns its exit status. */
int          heddle_cli_fail        (GError *error);
/* One table of options, as aligned lines or as a Markdown table. */
void         heddle_cli_options     (GString *text, HeddleOptionTable table, gboolean markdown);

#endif
