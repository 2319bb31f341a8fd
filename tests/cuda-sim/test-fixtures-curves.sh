#!/bin/sh
# fixtures/test-curves on the simulated CUDA device, by own kernels.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
HEDDLE_TEST_DEVICE=cuda exec "$HEDDLE_BUILD/tests/fixtures/test-curves" --tap -k
