#!/bin/sh
# fixtures/test-curves on the simulated CUDA device, by own kernels: LeNet, the transformers and MobileNet; HEDDLE_SIM_CURVES=all adds ResNet-20, which takes half a minute.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
set -- -s /fixtures/curves/resnet20
[ "${HEDDLE_SIM_CURVES:-}" != all ] || set --
HEDDLE_TEST_DEVICE=cuda exec "$HEDDLE_BUILD/tests/fixtures/test-curves" --tap -k "$@"
