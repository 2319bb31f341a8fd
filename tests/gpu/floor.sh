#!/bin/sh
# floor.sh CUDA [CUDNN [FOLDER]]: builds Heddle in FOLDER against the toolkit and the cuDNN in these prefixes, warnings being errors, and runs there what needs no GPU: the module loads, NVRTC
# compiles every generated kernel, the simulated device computes and trains.  For versions other than those of the machine; no part of make check; TESTS='...' narrows it.  A prefix has bin, include, lib64 (or lib).
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
cuda=${1:?the prefix of a CUDA toolkit} cudnn=${2:-no}
folder=${3:-$(mktemp -d "${TMPDIR:-/tmp}/heddle-floor-XXXXXX")}
mkdir -p "$folder" && cd "$folder"
echo "# in $folder"
"$source/configure" --with-cuda="$cuda" --with-cudnn="$cudnn" >configure.out 2>&1 || { tail -3 configure.out; exit 1; }
grep -E 'nvcc|PTX|cuda backend|cuDNN  ' configure.out
${MAKE:-make} -j"${JOBS:-2}" CFLAGS='-g -O2 -Werror' >make.out 2>&1 || { grep -E 'error|Error|\*\*\*' make.out | head -20; exit 1; }
./heddle doctor | awk '/^backend/ { cuda = /^backend cuda/ } /^plugins/ { exit } cuda'
./heddle doctor | grep -q '^ *CUDA runtime: ' || { echo "the module does not load"; exit 1; }
tests='cuda-chain/test-nvrtc cuda-chain/test-device.sh cudnn-deviceless/test-graphs cudnn-deviceless/test-lowering.sh cudnn-deviceless/test-corners.sh'
for name in sim reference-ops fixtures-ops fixtures-optim corners train; do tests="$tests cuda-sim/test-$name.sh"; done
tests=$(for name in ${TESTS-$tests}; do printf 'tests/%s ' "$name"; done)
HEDDLE_LONG_TESTS=1 ${MAKE:-make} -j"${JOBS:-2}" check CFLAGS='-g -O2 -Werror' TESTS="$tests" >check.out 2>&1 || { grep -E '^(FAIL|ERROR)|error:' check.out; exit 1; }
grep -E '^SKIP|^# (TOTAL|PASS|SKIP|FAIL|ERROR)' check.out
