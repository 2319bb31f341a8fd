#!/bin/sh
# tests/style/test-style.sh: the house rules of style.awk hold in this tree, and style.awk catches each kind of breach.
. "$HEDDLE_SOURCE/tests/tap.sh"
rules=$HEDDLE_SOURCE/tests/style/style.awk
cd "$HEDDLE_SOURCE"
files=$(find core plugins tests lua pipelines -type f | grep -E '\.(c|h|cu|lua|sh|py|awk)$' | sort)
n=$(echo "$files" | wc -l)
[ "$n" -gt 100 ] && ok "there are files to look at" || not_ok "there are files to look at ($n)"
check "layers, Lua, CUDA, structures, lengths and heads" ${AWK:-awk} -f "$rules" $files
cd "$scratch"

head='/* pipeline/x.c: something.  Must not know anything. */'
# planted FILE WHAT LINE...: a file with these lines is refused with WHAT, at the last line unless it says "1:"
planted () {
  file=$1 what=$2
  shift 2
  mkdir -p "$(dirname "$file")"
  printf '%s\n' "$@" >"$file"
  if ${AWK:-awk} -f "$rules" "$file" >out; then not_ok "caught: $file: $what"
  elif [ "$(wc -l <out)" = 1 ] && grep -q "^$file:[0-9]*: .*$what" out; then ok "caught: $file: $what"
  else sed 's/^/# /' out; not_ok "caught: $file: $what"; fi
}
# fine FILE LINE...: a file with these lines is not refused
fine () {
  file=$1
  shift
  mkdir -p "$(dirname "$file")"
  printf '%s\n' "$@" >"$file"
  check "not refused: $file" ${AWK:-awk} -f "$rules" "$file"
}
title () { echo "/* $1: something.  Must not know $2. */"; }

# every pair of neighbouring layers, upwards refused, downwards not
below=
for layer in base tensor program backend plugin stage pipeline script cli; do
  [ -z "$below" ] || planted core/$below/up.c "$below is below $layer" "$(title $below/up.c it)" "#include \"$layer/y.h\""
  [ -z "$below" ] || fine core/$layer/down.c "$(title $layer/down.c it)" "#include \"$below/y.h\"" '#include "same-folder.h"' '#include <glib.h>'
  below=$layer
done
planted core/base/far.h 'base is below cli' "$(title base/far.h it)" '#  include "cli/y.h"'
planted core/backend/cpu/up.c 'backend is below plugin' "$(title cpu/up.c it)" '#include "plugin/plugin.h"'
planted core/stage/none.c 'in no layer' "$(title stage/none.c it)" '#include "utils/y.h"'
planted core/stage/relative.c 'relative path' "$(title stage/relative.c it)" '#include "../cli/cli.h"'
planted core/stage/made.c 'made from core' "$(title stage/made.c it)" '#include <heddle/plugin.h>'
planted core/cli/lua.c 'only core/script knows Lua' "$(title cli/lua.c it)" '#include <lua.h>'
planted core/pipeline/lua.c 'only core/script knows Lua' "$(title pipeline/lua.c it)" '#include <lua5.4/lauxlib.h>'
planted plugins/model-x/lua.c 'only core/script knows Lua' "$(title plugins/model-x/lua.c it)" '#include <lualib.h>'
fine core/script/lua.c "$(title script/lua.c it)" '#include <lua.h>'
for header in cuda.h cuda_runtime_api.h cublasLt.h cudnn.h nvrtc.h; do
  planted core/backend/gpu.c 'only core/backend/cuda knows CUDA' "$(title backend/gpu.c it)" "#include <$header>"
done
planted core/backend/cpu/gpu.h 'only core/backend/cuda knows CUDA' "$(title cpu/gpu.h it)" '#include <cuda_fp16.h>'
planted plugins/model-x/gpu.c 'only core/backend/cuda knows CUDA' "$(title plugins/model-x/gpu.c it)" '#include <cuda_runtime.h>'
fine core/backend/cuda/gpu.c "$(title cuda/gpu.c it)" '#include <cuda.h>'
planted plugins/model-x/core.c 'sees <heddle/plugin.h> only' "$(title plugins/model-x/core.c it)" '#include "program/build.h"'
planted core/tensor/inside.h 'changes under #if' "$(title tensor/inside.h it)" '#ifndef HEDDLE_TENSOR_INSIDE_H' '#define HEDDLE_TENSOR_INSIDE_H' 'typedef struct' '{' '  int a;' '#ifdef HAVE_CUDA' '  int b;' '#endif' '} Inside;' '#endif'
planted core/tensor/around.h 'exists under #if' "$(title tensor/around.h it)" '#ifndef HEDDLE_TENSOR_AROUND_H' '#define HEDDLE_TENSOR_AROUND_H' '#if DEBUG' 'struct _Around' '{' '  int a;' '};' '#endif' '#endif'
planted core/tensor/line.h 'exists under #if' "$(title tensor/line.h it)" '#ifndef HEDDLE_TENSOR_LINE_H' '#define HEDDLE_TENSOR_LINE_H' '#ifdef DEBUG' 'typedef struct { int a; } Line;' '#endif' '#endif'
fine core/tensor/good.h "$(title tensor/good.h it)" '#ifndef HEDDLE_TENSOR_GOOD_H' '#define HEDDLE_TENSOR_GOOD_H' '#ifdef __GNUC__' '#define FAST 1' '#endif' 'typedef struct' '{' '  int a;' '} Good;' '#if FAST' 'static inline int f (void) { return 1; }' '#endif' '#endif'
planted core/base/long.c '801 lines' "$(title base/long.c it)" "$(yes '/* */' | head -800)"
fine core/base/full.c "$(title base/full.c it)" "$(yes '/* */' | head -799)"
planted tests/base/long.py '900 lines' "$(yes '#' | head -900)"
planted core/base/headless.c 'begin with a head' '#include <glib.h>' '/* Must not know heads. */'
planted core/base/other.c 'head names base/another.c' "$(title base/another.c it)"
planted core/base/half.c 'must not know' '/* base/half.c: something. */' 'static int must_not_know;'
planted plugins/model-x/x.c 'must not know' '/* plugins/model-x/x.c: something.' ' * More of it. */'
plan
