/* script/sandbox.h: a Lua state with budgets and without doors.  Private to core/script. */
#ifndef HEDDLE_SCRIPT_SANDBOX_H
#define HEDDLE_SCRIPT_SANDBOX_H

#include "base/error.h"

#include <lua.h>

typedef struct
{
  lua_State *L;
  gboolean   unrestricted;
  gint64     instructions, bytes;             /* budgets */
  gint64     spent, used;
  enum { TRIP_NONE = 0, TRIP_INSTRUCTIONS, TRIP_MEMORY } tripped;
  GError    *error;                           /* the GError behind the message that was raised last */
  gpointer   data;                            /* of the verbs */
} HeddleSandbox;

HeddleSandbox *heddle_sandbox_new   (gint64 instructions, gint64 bytes, gboolean unrestricted);
void           heddle_sandbox_free  (HeddleSandbox *box);
HeddleSandbox *heddle_sandbox_of    (lua_State *L);
/* Loads FILE as text under the chunk name CHUNK; a function on the stack, or FALSE. */
gboolean       heddle_sandbox_load  (HeddleSandbox *box, const char *file, const char *chunk, GError **error);
/* Calls what is on the stack with N_ARGS arguments, one result. */
gboolean       heddle_sandbox_call  (HeddleSandbox *box, int n_args, GError **error);
/* Raises ERROR (taken) as a Lua error; never returns. */
int            heddle_sandbox_raise (lua_State *L, GError *error);
/* After everything a script may see is in place: an undefined global is an error from here on. */
void           heddle_sandbox_seal  (HeddleSandbox *box);

#endif
