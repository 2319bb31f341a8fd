#!/bin/sh
# tests/sanitize/valgrind.sh: run by make check-valgrind: the program's verbs and the tests that handle the most memory under memcheck.
# Not the whole suite: 30 to 50 times slower.  Prints one line per run; exits 1 if memcheck found anything.
command -v valgrind >/dev/null || { echo "check-valgrind: valgrind is missing; on Debian and Ubuntu: apt install valgrind" >&2; exit 1; }
cd "$HEDDLE_BUILD"
status=0
# memcheck knows no AVX-512; one thread, because GNU OpenMP's pool is never given back
export OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 G_SLICE=always-malloc G_DEBUG=gc-friendly,fatal-criticals
clean () {
  log=$(mktemp)
  if "$LIBTOOL" --quiet --mode=execute valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \
      --trace-children=no --keep-debuginfo=yes --suppressions="$HEDDLE_SOURCE/tests/sanitize/valgrind.supp" "$@" >"$log" 2>&1; then echo "clean: $*"
  else echo "not clean: $*"; grep '^==' "$log" | head -60; status=1; fi
  rm -f "$log"
}
script=$HEDDLE_SOURCE/pipelines/fashion-mnist.lua
for verb in "check $script --arg dataset=synthetic --steps 2 --set prefetch.batch_size=8" "graph $script --arg dataset=synthetic --program" inspect "inspect --json" doctor "help --man"; do
  clean ./heddle $verb
done
for t in base/test-options tensor/test-tensor program/test-builder stage/test-loader pipeline/test-events plugins/test-datasets script/test-script; do
  clean tests/$t
done
# a run on the simulated CUDA device, where there is one
if [ -e tests/cuda-sim/lib/kernels.so ]; then
  . "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
  clean tests/cuda-sim/test-train --tap -k -p "/sim/train/batch norm"
fi
exit $status
