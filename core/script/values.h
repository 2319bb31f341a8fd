/* script/values.h: Lua values as GVariants.  Private to core/script. */
#ifndef HEDDLE_SCRIPT_VALUES_H
#define HEDDLE_SCRIPT_VALUES_H

#include "base/error.h"

#include <lua.h>

/* (transfer full) boolean "b", integer "x", number "d", text "s", list "av", names "a{sv}". */
GVariant *heddle_script_value (lua_State *L, int index, GError **error);

#endif
