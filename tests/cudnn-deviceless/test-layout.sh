#!/bin/sh
# Weights that lie channels last on the simulated CUDA device, with a cuDNN that computes what its graphs say.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
fake=$HEDDLE_BUILD/tests/cudnn-deviceless/lib
if ! ls "$fake"/libcudnn.so.* >/dev/null 2>&1; then
  echo "1..0 # SKIP built without cuDNN: the fake one needs its headers"
  exit 0
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/heddle-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
export LD_LIBRARY_PATH="$fake:$LD_LIBRARY_PATH" XDG_CACHE_HOME="$scratch"
"$HEDDLE_BUILD/tests/cuda-sim/test-layout" --tap -k
