# HEDDLE_PLUGIN
# ----------------------------------------------------------------------
# For authors of Heddle plugins: finds the header and the folder that plugins are installed to.
# Sets (AC_SUBST): HEDDLE_CFLAGS HEDDLE_LIBS heddle_plugindir
# serial 1
AC_DEFUN([HEDDLE_PLUGIN],
[AC_REQUIRE([PKG_PROG_PKG_CONFIG])dnl
PKG_CHECK_MODULES([HEDDLE], [heddle-1.0 m4_default_nblank([$1], [>= 0.1])])
AS_VAR_SET([heddle_plugindir], ["`$PKG_CONFIG --variable=plugindir heddle-1.0`"])
AC_SUBST([heddle_plugindir])
])
