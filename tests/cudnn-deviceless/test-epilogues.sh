#!/bin/sh
# NaN passes through relu on the simulated CUDA device, with a cuDNN that computes what its graphs say.
. "$HEDDLE_SOURCE/tests/cudnn-deviceless/fake.sh"
"$HEDDLE_BUILD/tests/gpu/test-epilogues" --tap -k -p /gpu/nan
