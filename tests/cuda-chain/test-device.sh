#!/bin/sh
# Generated kernels in plans of the cuda module, on the simulated device; compiled anew each time, in a cache of this test's own.
HEDDLE_CUDA_PATH= HEDDLE_CUDA_CACHE_MIB=64
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
cache=$(mktemp -d) || exit 1
trap 'rm -rf "$cache"' EXIT
export XDG_CACHE_HOME="$cache"
"$HEDDLE_BUILD/tests/cuda-chain/test-device" --tap -k
