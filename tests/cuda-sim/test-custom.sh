#!/bin/sh
# Operations that plugins bring, by their CUDA kernels on the simulated device; the libraries' lowerings around them, so that layouts differ.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
exec "$HEDDLE_BUILD/tests/cuda-sim/test-custom" --tap -k
