#!/bin/sh
# Corners at which cuDNN might differ from the cpu device, on the simulated CUDA device with a cuDNN that computes what its graphs say.
. "$HEDDLE_SOURCE/tests/cudnn-deviceless/fake.sh"
"$HEDDLE_BUILD/tests/gpu/test-corners" --tap -k
