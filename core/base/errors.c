/* base/errors.c: what an error means for the process's exit status.  Must not know who reports it. */
#include "base/options.h"

/* The codes of error.h; a GLib error that a layer passed on (a file that cannot be read) counts as the script's fault. */
int
heddle_error_exit_code (const GError *error)
{
  int code = 1;
  if (error && error->domain == HEDDLE_ERROR)
    switch ((HeddleError) error->code)
      {
      case HEDDLE_ERROR_USAGE: code = 2; break;
      case HEDDLE_ERROR_DEVICE:
      case HEDDLE_ERROR_RUN: code = 3; break;
      case HEDDLE_ERROR_INTERRUPTED: code = 130; break;
      case HEDDLE_ERROR_OPTION: case HEDDLE_ERROR_SCRIPT: case HEDDLE_ERROR_PLUGIN:
      case HEDDLE_ERROR_GRAPH: case HEDDLE_ERROR_PROGRAM: case HEDDLE_ERROR_DATA: break;
      }
  return error ? code : 0;
}
