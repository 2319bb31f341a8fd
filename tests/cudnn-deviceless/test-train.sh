#!/bin/sh
# Whole runs on the simulated CUDA device through the libraries, cuDNN the one that computes what its graphs say: against the cpu device, under other schedules of streams, without
# graphs, and with every call failing in turn.
. "$HEDDLE_SOURCE/tests/cudnn-deviceless/fake.sh"
"$HEDDLE_BUILD/tests/cuda-sim/test-train" --tap -k
