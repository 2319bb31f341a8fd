/* base/paths.h: where the program's own files are: installed, relocated, or in the build tree.  Knows no file formats. */
#ifndef HEDDLE_BASE_PATHS_H
#define HEDDLE_BASE_PATHS_H

#include <glib.h>

G_BEGIN_DECLS

/* Found once from /proc/self/exe: a ".heddle-build" file in the executable's folder or its parents (build tree; key file [build] source=, build=), else
 * relative to the executable ("../lib/heddle"), else the configured prefix.  All (transfer none), never NULL. */
const char        *heddle_paths_build_root  (void);      /* NULL outside a build tree */
const char        *heddle_paths_source_root (void);      /* NULL outside a build tree */
/* NULL-terminated folders to search, in order. */
const char *const *heddle_paths_backends    (void);      /* HEDDLE_BACKEND_PATH, build tree or installed */
const char *const *heddle_paths_plugins     (void);      /* build tree: each plugins/NAME/.libs; or installed */
const char *const *heddle_paths_lua         (void);      /* folders for require "heddle.x" */

G_END_DECLS

#endif
