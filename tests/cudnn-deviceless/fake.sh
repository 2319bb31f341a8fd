# tests/cudnn-deviceless/fake.sh: sourced by the tests that run the libraries' path on the simulated device with a cuDNN that computes what its graphs say; or skips the test.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
. "$HEDDLE_SOURCE/tests/tap.sh"
fake=$HEDDLE_BUILD/tests/cudnn-deviceless/lib
if ! ls "$fake"/libcudnn.so.* >/dev/null 2>&1; then
  echo "1..0 # SKIP built without cuDNN: the fake one needs its headers"
  exit 0
fi
export HEDDLE_FAKE_CUDNN=1 LD_LIBRARY_PATH="$fake:$LD_LIBRARY_PATH" XDG_CACHE_HOME="$scratch/cache"
