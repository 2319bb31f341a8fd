#!/bin/sh
# Every operation in f16 and bf16 against the double-precision reference, on the cpu device; by own kernels on the simulated one, where it was built.
. "$HEDDLE_SOURCE/tests/tap.sh"
for dtype in f16 bf16; do
  HEDDLE_TEST_DTYPE=$dtype
  export HEDDLE_TEST_DTYPE
  check "$dtype on the cpu" "$HEDDLE_BUILD/tests/reference/test-ops" --tap -k
  if [ -e "$HEDDLE_BUILD/tests/cuda-sim/lib/kernels.so" ]; then check "$dtype on the simulated device" sh "$HEDDLE_SOURCE/tests/cuda-sim/test-reference-ops.sh"
  else skip "$dtype on the simulated device" "built without the CUDA toolkit"; fi
done
plan
