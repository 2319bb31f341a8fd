# tests/cuda-sim/sim.sh: sourced by the tests of the simulated device: puts the fake CUDA libraries in front, or skips the test.
lib=$HEDDLE_BUILD/tests/cuda-sim/lib
if [ ! -e "$lib/kernels.so" ]; then
  echo "1..0 # SKIP built without the CUDA toolkit: the simulated device needs its headers"
  exit 0
fi
case ${SANITIZER_CFLAGS:-} in *thread*) echo "1..0 # SKIP the simulated device's fibres are unknown to ThreadSanitizer"; exit 0 ;; esac
for HEDDLE_SIM_CUDART in "$lib"/libcudart.so.*; do case $HEDDLE_SIM_CUDART in *.map) ;; *) break ;; esac; done
# nothing generated is kept between tests, which compile for this device as it is now (HEDDLE_CUDA_CACHE_MIB)
# own kernels unless a test says otherwise; one thread: nothing is timed; the cpu device that is compared with computes products of bf16 numbers in f32, as kernels here do
export HEDDLE_SIM_CUDART LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" HEDDLE_CUDA_LIBPATH="$lib" HEDDLE_SIM_KERNELS="$lib/kernels.so" HEDDLE_SIM_STRICT=1 \
  HEDDLE_CUDA_CACHE_MIB="${HEDDLE_CUDA_CACHE_MIB-0}" HEDDLE_CUDA_PATH="${HEDDLE_CUDA_PATH-own}" HEDDLE_CPU_ISA=generic OMP_NUM_THREADS=1
