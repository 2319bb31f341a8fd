#!/bin/sh
# Weights that lie channels last on the simulated CUDA device, with a cuDNN that computes what its graphs say.
. "$HEDDLE_SOURCE/tests/cudnn-deviceless/fake.sh"
"$HEDDLE_BUILD/tests/cuda-sim/test-layout" --tap -k
