#!/bin/sh
# Whole runs on the simulated CUDA device through the libraries, cuDNN the one that computes what its graphs say: against the cpu device, under other schedules of streams, without
# graphs, and with every call failing in turn.
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
"$HEDDLE_BUILD/tests/cuda-sim/test-train" --tap -k
