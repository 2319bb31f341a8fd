# HEDDLE_LUA
# ----------------------------------------------------------------------
# Lua 5.4 under any of the names distributions give its pkg-config file.  Sets LUA_CFLAGS, LUA_LIBS, LUA_VERSION_STR.
# serial 1
AC_DEFUN([HEDDLE_LUA],
[AC_REQUIRE([PKG_PROG_PKG_CONFIG])dnl
heddle_lua_name=
for n in lua5.4 lua-5.4 lua54 lua; do
  AS_IF([test -z "$heddle_lua_name" && $PKG_CONFIG --exists "$n >= 5.4.0"], [heddle_lua_name=$n])
done
AS_IF([test -z "$heddle_lua_name"], [AC_MSG_ERROR([Lua 5.4 not found; on Debian and Ubuntu: apt install liblua5.4-dev])])
PKG_CHECK_MODULES([LUA], [$heddle_lua_name >= 5.4.0])
LUA_VERSION_STR=`$PKG_CONFIG --modversion $heddle_lua_name`
])
