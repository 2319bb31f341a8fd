#!/bin/sh
# The simulated device's own test, and that it catches planted bugs.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
unset HEDDLE_SIM_STRICT
HEDDLE_SIM_KERNELS=$lib/planted.so exec "$HEDDLE_BUILD/tests/cuda-sim/test-sim" --tap -k
