#!/bin/sh
# check.sh itself, before the day of a GPU: every part of it on the simulated device with few and tiny cases, and its verdict on what a sanitizer prints.
HEDDLE_CUDA_PATH=
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
. "$HEDDLE_SOURCE/tests/tap.sh"
export HEDDLE_TEST_SMALL=1 STEPS=1 INTERVAL=1 PIPELINE=amp RUN_OPTIONS='--set prefetch.batch_size=2 --set train.epochs=1 --set dataset.length=8 --set dataset2.length=2'
export CASES='-p /ops/add/scalar' RUNS='-p /gpu/graphs/f32/lenet -p /gpu/steady/f32/lenet' FLAGS='-p /gpu/sums' CORNERS='-p /gpu/nan/linear'
gpu=$HEDDLE_SOURCE/tests/gpu/check.sh

PARTS='flags ops runs program' sh "$gpu" >"$scratch/all" 2>&1
rc=$?
sed 's/^/# /' "$scratch/all"
says () { grep -q "$1" "$scratch/all"; }
check "all that was asked for passes" test $rc = 0
check "14 results and their plan" says '^1\.\.14$'
check "16 bits are summed in f32" says '^ok.*gpu/test-flags by the libraries (2 cases)'
for dtype in f32 f16 bf16; do for path in own 'the libraries'; do check "operations in $dtype by $path" says "^ok.*reference/test-ops in $dtype by $path (1 cases)"; done; done
check "what was measured is shown" says '^# lenet, f32, 20 steps: device free [1-9]'
check "what fell back is counted" says '^#   fell back: [0-9]* cuDNN'

# a sanitizer that runs what it is given and prints $REPORT, or does not run it
mkdir "$scratch/bin"
cat >"$scratch/bin/compute-sanitizer" <<'FAKE'
#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do case $1 in --target-processes|--tool|--report-api-errors|--print-limit|--error-exitcode) shift ;; esac; shift; done
[ -n "${NOT_RUN-}" ] || "$@" || exit
printf '%b' "${REPORT-}"
echo "========= ERROR SUMMARY: ${ERRORS:-0} errors"
[ "${ERRORS:-0}" = 0 ] || exit 9
FAKE
chmod +x "$scratch/bin/compute-sanitizer"
# verdict NAME STATUS PATTERN VARIABLE=VALUE...: check.sh under that sanitizer
verdict () {
  name=$1 want=$2 pattern=$3
  shift 3
  env PATH="$scratch/bin:$PATH" SANITIZE=only TOOLS=memcheck SANITIZED=own CASES='-p /ops/add/scalar' "$@" sh "$gpu" >"$scratch/all" 2>&1
  rc=$?
  if [ $rc = "$want" ] && says "$pattern"; then ok "$name"; else sed 's/^/# /' "$scratch/all"; not_ok "$name (status $rc)"; fi
}
at='=========     at conv_forward_f32+0x50\n=========     by thread (0,0,0)\n'
verdict "a clean run" 0 '^ok 1 - compute-sanitizer memcheck: .* (1 cases)' ERRORS=0
verdict "a report of one of our kernels fails" 1 '^not ok 1' ERRORS=1 REPORT="========= Invalid __global__ read of size 4 bytes\n$at"
verdict "a race in one of our kernels fails" 1 '^not ok 1' ERRORS=1 REPORT='========= Error: Race reported between Write access at conv_forward_f32+0x280 and Read access at conv_forward_f32+0x2a0 [4 hazards]\n'
verdict "a library's kernel is its own business" 0 '^ok 1' ERRORS=1 REPORT='========= Uninitialized __global__ memory read of size 16 bytes\n=========     at sm90_xmma_fprop_implicit_gemm+0x50\n'
verdict "a program that did not run proves nothing" 1 '^not ok 1.*did not run' NOT_RUN=1
verdict "errors in an unknown form fail" 1 '^not ok 1.*not known' ERRORS=3
mkdir "$scratch/slow"
printf '#!/bin/sh\nsleep 20\n' >"$scratch/slow/compute-sanitizer"
chmod +x "$scratch/slow/compute-sanitizer"
verdict "out of time is a skip that says so" 0 '^ok 1.*SKIP not through within 1 s' PATH="$scratch/slow:$PATH" SANITIZE_LIMIT=1
command -v compute-sanitizer >/dev/null || verdict "no sanitizer is a skip that says so" 0 '^ok 1.*SKIP compute-sanitizer is not in PATH' PATH="$PATH"
HEDDLE_SIM_DEVICES=0 sh "$gpu" >"$scratch/all" 2>&1
check "no GPU is a skip" says '^1\.\.0 # SKIP no GPU answers'
plan
