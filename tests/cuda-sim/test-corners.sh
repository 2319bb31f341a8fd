#!/bin/sh
# Corners at which libraries and kernels might differ from the cpu device, on the simulated CUDA device.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
exec "$HEDDLE_BUILD/tests/gpu/test-corners" --tap -k
