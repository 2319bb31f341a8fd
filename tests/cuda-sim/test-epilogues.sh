#!/bin/sh
# Activations computed along with products on the simulated CUDA device.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
exec "$HEDDLE_BUILD/tests/gpu/test-epilogues" --tap -k
