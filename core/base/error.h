/* base/error.h: the one error domain and its codes.  Knows nothing of what fails, only how failing is classed. */
#ifndef HEDDLE_BASE_ERROR_H
#define HEDDLE_BASE_ERROR_H

#include <glib.h>

G_BEGIN_DECLS

/* Every function that can fail takes a GError ** as its last argument and reports in this domain (or in a
 * GLib domain it passes on, such as G_FILE_ERROR).  The sentence is: where, what, why; then, on a line of
 * its own that starts with "hint: ", the remedy.  A layer puts its place in front once (g_prefix_error). */
#define HEDDLE_ERROR (heddle_error_quark ())

typedef enum
{
  HEDDLE_ERROR_OPTION = 1,   /* unknown, ill-typed, out-of-range or missing option             exit 1 */
  HEDDLE_ERROR_SCRIPT,       /* the Lua script: syntax, undefined global, budget spent         exit 1 */
  HEDDLE_ERROR_PLUGIN,       /* a plugin cannot be loaded, or breaks its contract              exit 1 */
  HEDDLE_ERROR_GRAPH,        /* stages wired wrongly: input missing, contract not met          exit 1 */
  HEDDLE_ERROR_PROGRAM,      /* an operation refuses its inputs: shape, dtype, attribute       exit 1 */
  HEDDLE_ERROR_DATA,         /* a data file is truncated, corrupt, has labels out of range     exit 1 */
  HEDDLE_ERROR_USAGE,        /* the command line                                               exit 2 */
  HEDDLE_ERROR_DEVICE,       /* no such device, out of memory, a library call failed           exit 3 */
  HEDDLE_ERROR_RUN,          /* the run itself: non-finite loss, time-out, disk full           exit 3 */
  HEDDLE_ERROR_INTERRUPTED   /* stopped by a signal after finishing its batch                  exit 130 */
} HeddleError;

/* Inline, so that a plugin needs no symbol of the core. */
static inline GQuark
heddle_error_quark (void)
{
  return g_quark_from_static_string ("heddle-error-quark");
}

G_END_DECLS

#endif
