# HEDDLE_ONEDNN
# ----------------------------------------------------------------------
# oneDNN (v2 C API, 2.6 is Debian 12's); it ships no pkg-config file there.  Sets DNNL_LIBS.
# serial 1
AC_DEFUN([HEDDLE_ONEDNN],
[AC_CHECK_HEADERS([dnnl.h], [], [AC_MSG_ERROR([oneDNN's dnnl.h not found; on Debian and Ubuntu: apt install libdnnl-dev])])
AC_CHECK_LIB([dnnl], [dnnl_engine_create], [DNNL_LIBS=-ldnnl], [AC_MSG_ERROR([libdnnl not found; on Debian and Ubuntu: apt install libdnnl-dev])])
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <dnnl.h>
]], [[dnnl_convolution_desc_t desc; (void) desc; return DNNL_VERSION_MAJOR - 2;]])], [],
  [AC_MSG_ERROR([this oneDNN is not of the 2.x series, whose C API the cpu backend is written to])])
AC_SUBST([DNNL_LIBS])
])
