# HEDDLE_CUDA([MIN-RUNTIME-VERSION = 11080], [MIN-CUDNN-VERSION = 80700])
# --------------------------------------------------------------------------
# Adds --with-cuda=DIR|yes|no|auto, --with-cuda-arch=LIST, --with-cudnn=DIR|yes|no|auto, --enable-nvtx=yes|no|auto
# Sets (AC_SUBST): NVCC NVCC_GENCODE NVCC_CCBIN CUDA_CPPFLAGS CUDA_LIBS CUDA_RPATH
#                  CUDNN_CPPFLAGS CUDNN_LIBS CUDA_VERSION_STR CUDNN_VERSION_STR
# Shell: have_cuda, have_cudnn, have_nvtx (yes/no).  AC_DEFINE: HAVE_CUDA HAVE_CUDNN.
# serial 1
AC_DEFUN([HEDDLE_CUDA],
[AC_REQUIRE([AC_PROG_CC])dnl
AC_REQUIRE([AC_PROG_SED])dnl
AC_REQUIRE([AC_PROG_GREP])dnl
AC_ARG_VAR([NVCC], [CUDA compiler driver])
AC_ARG_VAR([NVCCFLAGS], [extra flags for nvcc])
AC_ARG_VAR([NVCC_CCBIN], [host compiler given to nvcc -ccbin @<:@nvcc's default@:>@])
AC_ARG_WITH([cuda],
  [AS_HELP_STRING([--with-cuda@<:@=DIR|yes|no|auto@:>@],
     [build the cuda backend; DIR is the toolkit prefix @<:@auto@:>@])],
  [], [with_cuda=auto])
AC_ARG_WITH([cuda-arch],
  [AS_HELP_STRING([--with-cuda-arch=LIST],
     [comma separated compute capabilities: real ones (80), PTX (120+ptx), or all-major, native
      @<:@75+ptx,80,86,89,90,100,120+ptx@:>@])],
  [], [with_cuda_arch=75+ptx,80,86,89,90,100,120+ptx])
AC_ARG_WITH([cudnn],
  [AS_HELP_STRING([--with-cudnn@<:@=DIR|yes|no|auto@:>@],
     [use cuDNN in the cuda backend @<:@auto: when found@:>@])],
  [], [with_cudnn=auto])
AC_ARG_ENABLE([nvtx],
  [AS_HELP_STRING([--enable-nvtx@<:@=yes|no|auto@:>@],
     [name stages and operations for NVIDIA's profilers @<:@auto: when the toolkit has NVTX 3@:>@])],
  [], [enable_nvtx=auto])

have_cuda=no have_cudnn=no have_nvtx=no heddle_nvtx_headers=no heddle_cuda_why=
heddle_ccbin= NVCC_GENCODE= NVCC_COMPRESS= NVCC_LINEINFO= CUDA_CPPFLAGS= CUDA_LIBS= CUDA_RPATH= CUDNN_CPPFLAGS= CUDNN_LIBS= CUDA_RPATH_EXTRA=
CUDA_VERSION_STR= CUDNN_VERSION_STR= heddle_cuda_libdir=

AS_IF([test "x$with_cuda" != xno],
[ dnl ---- where is the toolkit
  AS_CASE([$with_cuda],
    [yes|auto], [heddle_cuda_dirs="$CUDA_HOME $CUDA_PATH /usr/local/cuda /opt/cuda"],
    [heddle_cuda_dirs="$with_cuda"])
  AS_IF([test -z "$NVCC"],
    [heddle_nvcc_path=
     for d in $heddle_cuda_dirs; do heddle_nvcc_path="$heddle_nvcc_path$d/bin$PATH_SEPARATOR"; done
     AS_CASE([$with_cuda], [yes|auto], [heddle_nvcc_path="$heddle_nvcc_path$PATH"])
     AC_PATH_PROG([NVCC], [nvcc], [], [$heddle_nvcc_path])])
  AS_IF([test -z "$NVCC"], [heddle_cuda_why="nvcc not found"])

  AS_IF([test -z "$heddle_cuda_why"],
  [ AC_CACHE_CHECK([for the CUDA toolkit's prefix], [heddle_cv_cuda_prefix],
      [heddle_cv_cuda_prefix=`$NVCC --dryrun -c -x cu /dev/null -o /dev/null 2>&1 | $SED -n 's/^#\$ TOP=//p' | $SED 1q`
       heddle_cv_cuda_prefix=`cd "$heddle_cv_cuda_prefix" 2>/dev/null && pwd -P`])
    AC_CACHE_CHECK([for the nvcc version], [heddle_cv_nvcc_version],
      [heddle_cv_nvcc_version=`$NVCC --version | $SED -n 's/.*release \(@<:@0-9@:>@*\.@<:@0-9@:>@*\).*/\1/p'`])
    AS_IF([test -z "$heddle_cv_cuda_prefix" || test -z "$heddle_cv_nvcc_version"],
      [heddle_cuda_why="$NVCC does not answer"])])

  AS_IF([test -z "$heddle_cuda_why"],
  [ AC_MSG_CHECKING([for the CUDA library folder])
    heddle_cuda_libdir=
    for d in lib64 lib targets/x86_64-linux/lib lib/x86_64-linux-gnu; do
      for e in so; do
        AS_IF([test -f "$heddle_cv_cuda_prefix/$d/libcudart.$e"], [heddle_cuda_libdir=$heddle_cv_cuda_prefix/$d; break 2])
      done
    done
    AC_MSG_RESULT([${heddle_cuda_libdir:-not found}])
    CUDA_CPPFLAGS="-isystem $heddle_cv_cuda_prefix/include"
    AS_IF([test -n "$heddle_cuda_libdir"], [CUDA_LIBS="-L$heddle_cuda_libdir"])
    heddle_save_CPPFLAGS=$CPPFLAGS heddle_save_LIBS=$LIBS heddle_save_LDFLAGS=$LDFLAGS
    CPPFLAGS="$CPPFLAGS $CUDA_CPPFLAGS"; LDFLAGS="$LDFLAGS $CUDA_LIBS"
    AC_CHECK_HEADERS([cuda_runtime_api.h cublas_v2.h cublasLt.h], [], [heddle_cuda_why="CUDA headers missing"; break])
    AS_IF([test -z "$heddle_cuda_why"],
      [AC_COMPUTE_INT([heddle_cudart_version], [CUDART_VERSION], [#include <cuda_runtime_api.h>], [heddle_cudart_version=0])
       AC_MSG_NOTICE([CUDA runtime header version $heddle_cudart_version])
       AS_IF([test "$heddle_cudart_version" -lt m4_default([$1], [11080])],
         [heddle_cuda_why="CUDA runtime $heddle_cudart_version older than m4_default([$1], [11080])"])
       CUDA_VERSION_STR=`expr $heddle_cudart_version / 1000`.`expr $heddle_cudart_version % 1000 / 10`])
    AS_IF([test -z "$heddle_cuda_why"],
      [LIBS=
       AC_CHECK_LIB([cudart], [cudaStreamBeginCapture], [CUDA_LIBS="$CUDA_LIBS -lcudart"],
         [heddle_cuda_why="libcudart not linkable (Debian: nvidia-cuda-toolkit)"])
       AC_CHECK_LIB([cublasLt], [cublasLtMatmul], [CUDA_LIBS="$CUDA_LIBS -lcublasLt"], [heddle_cuda_why="libcublasLt not linkable"])
       AC_CHECK_LIB([cublas], [cublasGemmEx], [CUDA_LIBS="$CUDA_LIBS -lcublas"], [heddle_cuda_why="libcublas not linkable"],
         [-lcublasLt])])
    dnl ---- device code generation list, each entry tried on its own
    AS_IF([test -z "$heddle_cuda_why"],
      [AS_CASE([$with_cuda_arch],
        [all-major|all|native], [NVCC_GENCODE="-arch=$with_cuda_arch"],
        [heddle_known= heddle_ptx=no
         for a in `AS_ECHO(["$with_cuda_arch"]) | $SED 's/,/ /g'`; do
           AS_CASE([$a], [*+ptx], [heddle_n=`AS_ECHO(["$a"]) | $SED 's/+ptx//'`; heddle_ptx=wanted], [heddle_n=$a])
           AS_IF([$NVCC --list-gpu-code 2>/dev/null | $GREP "^sm_`AS_ECHO([$heddle_n]) | $SED 's/@<:@af@:>@$//'`\$" >/dev/null],
             [AS_VAR_APPEND([NVCC_GENCODE], [" -gencode=arch=compute_$heddle_n,code=sm_$heddle_n"]); heddle_known=$heddle_n
              AS_CASE([$a], [*+ptx], [AS_VAR_APPEND([NVCC_GENCODE], [" -gencode=arch=compute_$heddle_n,code=compute_$heddle_n"]); heddle_ptx=there])],
             [AC_MSG_NOTICE([nvcc $heddle_cv_nvcc_version cannot target sm_$heddle_n: left out])])
         done
         dnl an old nvcc: PTX of the last architecture that it knows lets the driver compile for what came after
         AS_IF([test $heddle_ptx = wanted && test -n "$heddle_known"],
           [AS_VAR_APPEND([NVCC_GENCODE], [" -gencode=arch=compute_$heddle_known,code=compute_$heddle_known"])
            AC_MSG_NOTICE([PTX is made for compute_$heddle_known, the last of the list that nvcc $heddle_cv_nvcc_version knows])])])
       AS_IF([test -z "$NVCC_GENCODE"], [heddle_cuda_why="no usable --with-cuda-arch entry"])])
    dnl ---- does nvcc work at all with this host compiler?
    AS_IF([test -z "$heddle_cuda_why"],
      [AC_MSG_CHECKING([whether nvcc compiles with host compiler ${NVCC_CCBIN:-(default)}])
       AS_IF([test -n "$NVCC_CCBIN"], [heddle_ccbin="-ccbin $NVCC_CCBIN"], [heddle_ccbin=])
       cat >conftest.cu <<_TKEOF
#include <cuda_runtime.h>
extern "C" __global__ void k(float *a) { *a *= (float) threadIdx.x; }
_TKEOF
       dnl a host compiler that is newer than nvcc only preprocesses device code here: tried after the plain way
       heddle_cuda_why="nvcc cannot compile (see config.log; NVCC_CCBIN=g++-11 names an older host compiler)"
       for heddle_allow in "" " -allow-unsupported-compiler"; do
         AS_IF([test -n "$heddle_cuda_why" && $NVCC $heddle_ccbin$heddle_allow $NVCC_GENCODE $NVCCFLAGS -fatbin conftest.cu -o conftest.fatbin >&AS_MESSAGE_LOG_FD 2>&1 && test -s conftest.fatbin],
           [AC_MSG_RESULT([yes${heddle_allow:+, with$heddle_allow}]); heddle_ccbin=$heddle_ccbin$heddle_allow heddle_cuda_why=])
       done
       AS_IF([test -n "$heddle_cuda_why"], [AC_MSG_RESULT([no])])
       dnl drivers from before 12.4, which run what CUDA 11 and 12 compile, cannot unpack this; those of CUDA 13 can
       AS_CASE([$heddle_cv_nvcc_version], [11.*|12.*], [],
         [AS_IF([test -z "$heddle_cuda_why" && $NVCC $heddle_ccbin $NVCC_GENCODE --compress-mode=size -fatbin conftest.cu -o conftest.fatbin >&AS_MESSAGE_LOG_FD 2>&1],
           [NVCC_COMPRESS=--compress-mode=size])])
       dnl ptxas 11.8 crashes on some kernels for sm_90 when it is to keep line numbers
       AS_CASE([$heddle_cv_nvcc_version], [11.*], [], [NVCC_LINEINFO=-lineinfo])
       rm -f conftest.cu conftest.fatbin])
    dnl ---- cuDNN
    AS_IF([test -z "$heddle_cuda_why" && test "x$with_cudnn" != xno],
      [heddle_cudnn_ok=yes
       AS_CASE([$with_cudnn], [yes|auto], [],
        [AS_IF([test -f "$with_cudnn/include/cudnn.h"], [], [heddle_cudnn_ok=no])
         CUDNN_CPPFLAGS="-isystem $with_cudnn/include"
         for d in lib64 lib; do
           AS_IF([test -e "$with_cudnn/$d/libcudnn.so"], [CUDNN_LIBS="-L$with_cudnn/$d"; CUDA_RPATH_EXTRA=" -R $with_cudnn/$d"; break])
         done])
       CPPFLAGS="$CPPFLAGS $CUDNN_CPPFLAGS"; LDFLAGS="$CUDNN_LIBS $LDFLAGS"
       AS_IF([test $heddle_cudnn_ok = yes], [AC_CHECK_HEADER([cudnn.h],
         [AC_COMPUTE_INT([heddle_cudnn_version], [CUDNN_VERSION], [#include <cudnn.h>], [heddle_cudnn_version=0])
          dnl 8.x is 1000 * major, 9.x is 10000 * major
          AS_IF([test "$heddle_cudnn_version" -ge 90000],
            [CUDNN_VERSION_STR=`expr $heddle_cudnn_version / 10000`.`expr $heddle_cudnn_version / 100 % 100`.`expr $heddle_cudnn_version % 100`],
            [CUDNN_VERSION_STR=`expr $heddle_cudnn_version / 1000`.`expr $heddle_cudnn_version / 100 % 10`.`expr $heddle_cudnn_version % 100`; heddle_cudnn_version=`expr $heddle_cudnn_version / 1000 '*' 10000 + $heddle_cudnn_version % 1000`])
          AC_MSG_NOTICE([cuDNN header version $CUDNN_VERSION_STR])
          AS_IF([test "$heddle_cudnn_version" -ge m4_default([$2], [80700])],
            [LIBS=
             AC_CHECK_LIB([cudnn], [cudnnBackendExecute], [have_cudnn=yes; CUDNN_LIBS="$CUDNN_LIBS -lcudnn"])])])])
       AS_CASE([$with_cudnn:$have_cudnn], [auto:no], [], [*:no], [AC_MSG_ERROR([--with-cudnn=$with_cudnn: cuDNN >= 8.7 not usable])])])
    dnl ---- NVTX: headers only
    AS_IF([test -z "$heddle_cuda_why"], [AC_CHECK_HEADER([nvtx3/nvToolsExt.h], [heddle_nvtx_headers=yes])])
    AS_IF([test "x$enable_nvtx" != xno], [have_nvtx=$heddle_nvtx_headers])
    CPPFLAGS=$heddle_save_CPPFLAGS LIBS=$heddle_save_LIBS LDFLAGS=$heddle_save_LDFLAGS
  ])

  AS_IF([test -z "$heddle_cuda_why"],
    [have_cuda=yes
     AC_DEFINE([HAVE_CUDA], [1], [Define to 1 when the cuda backend is built])
     AS_IF([test $have_cudnn = yes], [AC_DEFINE([HAVE_CUDNN], [1], [Define to 1 when the cuda backend uses cuDNN])])
     CUDA_RPATH="-R $heddle_cuda_libdir$CUDA_RPATH_EXTRA"],
    [AS_CASE([$with_cuda],
       [auto], [AC_MSG_NOTICE([cuda backend off: $heddle_cuda_why])],
       [AC_MSG_ERROR([--with-cuda=$with_cuda: $heddle_cuda_why])])
     NVCC= CUDA_CPPFLAGS= CUDA_LIBS= CUDNN_LIBS= CUDNN_CPPFLAGS= have_cudnn=no have_nvtx=no])
],[AS_CASE([$with_cudnn], [auto|no], [], [AC_MSG_ERROR([--with-cudnn needs --with-cuda])])])
AC_SUBST([NVCC_HOSTFLAGS], [$heddle_ccbin]) AC_SUBST([NVCC_GENCODE]) AC_SUBST([NVCC_COMPRESS]) AC_SUBST([NVCC_LINEINFO]) AC_SUBST([CUDA_CPPFLAGS]) AC_SUBST([CUDA_LIBS]) AC_SUBST([CUDA_RPATH]) AC_SUBST([CUDA_LIBDIR], [$heddle_cuda_libdir])
AC_SUBST([CUDNN_CPPFLAGS]) AC_SUBST([CUDNN_LIBS]) AC_SUBST([CUDA_VERSION_STR]) AC_SUBST([CUDNN_VERSION_STR])
AM_CONDITIONAL([HAVE_CUDA], [test $have_cuda = yes])
AM_CONDITIONAL([HAVE_CUDNN], [test $have_cudnn = yes])
AS_CASE([$enable_nvtx:$have_nvtx], [yes:no], [AC_MSG_ERROR([--enable-nvtx needs the cuda backend and the toolkit's nvtx3/nvToolsExt.h])])
AM_CONDITIONAL([HAVE_NVTX], [test $have_nvtx = yes])
AM_CONDITIONAL([NVTX_HEADERS], [test $heddle_nvtx_headers = yes])
])
