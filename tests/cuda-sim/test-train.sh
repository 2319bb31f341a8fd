#!/bin/sh
# Whole runs on the simulated CUDA device.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
exec "$HEDDLE_BUILD/tests/cuda-sim/test-train" --tap -k
