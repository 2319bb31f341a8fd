#!/bin/sh
# fixtures/test-curves on the simulated CUDA device, by own kernels: LeNet and the transformers; HEDDLE_SIM_CURVES=all adds ResNet-20, which takes half a minute.
# Not MobileNet: it amplifies the last bits of f32 (PyTorch's own f32 strays from double precision by 5e-5 after one step), and another order of sums falls on either side of the bound.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
set -- -s /fixtures/curves/resnet20
[ "${HEDDLE_SIM_CURVES:-}" != all ] || set --
HEDDLE_TEST_DEVICE=cuda exec "$HEDDLE_BUILD/tests/fixtures/test-curves" --tap -k "$@" -s /fixtures/curves/mobilenet
