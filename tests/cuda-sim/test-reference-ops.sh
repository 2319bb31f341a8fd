#!/bin/sh
# reference/test-ops on the simulated CUDA device, by own kernels.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
HEDDLE_TEST_DEVICE=cuda exec "$HEDDLE_BUILD/tests/reference/test-ops" --tap -k
