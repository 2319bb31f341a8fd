/* script/script.h: runs a Lua pipeline script in its sandbox and hands back the graph it describes.
 * The only layer that knows Lua; must not know how a graph is run. */
#ifndef HEDDLE_SCRIPT_SCRIPT_H
#define HEDDLE_SCRIPT_SCRIPT_H

#include "pipeline/graph.h"

G_BEGIN_DECLS

/* An argument the script declared with h.arg (name, default, help). */
typedef struct { char *name, *default_text, *help; int line; gboolean used; } HeddleScriptArg;

typedef struct
{
  const char *const *args;         /* NULL-terminated "name=value" from --arg */
  gboolean           unrestricted; /* lifts the sandbox (io, os, C modules; budgets) */
  gint64             instructions; /* budget; 0 = the default, 20 million */
  gint64             bytes;        /* memory budget; 0 = the default, 64 MiB */
  gboolean           help;         /* missing required arguments are no error: the graph may be NULL, the args are what matters */
} HeddleScriptOptions;

/* Loads FILE (text only) and returns its graph; NULL with an error that names script lines.  ARGS (or NULL) receives HeddleScriptArg * (transfer full)
 * even on failure.  An --arg the script does not declare is an error. */
HeddleGraph *heddle_script_load (const char *file, HeddleRegistry *registry, const HeddleScriptOptions *options, GPtrArray **args, GError **error);

G_END_DECLS

#endif
