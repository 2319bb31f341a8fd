# tests/cuda-sim/sim.sh: sourced by the tests of the simulated device: puts the fake CUDA libraries in front, or skips the test.
lib=$HEDDLE_BUILD/tests/cuda-sim/lib
if [ ! -e "$lib/kernels.so" ]; then
  echo "1..0 # SKIP built without the CUDA toolkit: the simulated device needs its headers"
  exit 0
fi
case ${SANITIZER_CFLAGS:-} in *thread*) echo "1..0 # SKIP the simulated device's fibres are unknown to ThreadSanitizer"; exit 0 ;; esac
# one thread: a fibre's kernel is compared with the cpu backend, not timed
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" HEDDLE_SIM_KERNELS="$lib/kernels.so" HEDDLE_SIM_STRICT=1 OMP_NUM_THREADS=1
