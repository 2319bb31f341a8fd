#!/bin/sh
# tests/gpu/check.sh: make check-gpu: on a real GPU: every operation against the double-precision reference and PyTorch's tensors by each path, optimizers, training curves, flags,
# graphs on and off, AMP beside f32; SANITIZE=1 also runs compute-sanitizer over the operations by own kernels.  Skipped with a reason where there is no GPU.  Prints TAP.
. "$HEDDLE_SOURCE/tests/tap.sh"
# run by hand: the status too says whether all passed
failed=0
not_ok () { count=$((count + 1)) failed=1; echo "not ok $count - $1"; }
"$HEDDLE" doctor 2>&1 | awk '/^backend/ { cuda = /^backend cuda/ } /^plugins/ { exit } cuda' >"$scratch/doctor"
sed 's/^/# /' "$scratch/doctor"
if ! grep -q '^ *cuda:[0-9]*: .*compute capability' "$scratch/doctor"; then
  # a GPU that is there and not reached is no reason to skip
  if nvidia-smi -L 2>/dev/null | grep '^GPU' >"$scratch/there"; then
    sed 's/^/# /' "$scratch/there"
    echo "Bail out! nvidia-smi sees a GPU and Heddle does not: the lines above say why"
    exit 1
  fi
  echo "1..0 # SKIP no GPU answers: the lines above say why"
  exit 0
fi
HEDDLE_TEST_DEVICE=cuda
export HEDDLE_TEST_DEVICE

# program NAME PATH: one test program by one path; its failures are shown
program () {
  if HEDDLE_CUDA_PATH=$2 "$HEDDLE_BUILD/tests/$1" --tap -k >"$scratch/tap" 2>&1 && ! grep -q '^not ok' "$scratch/tap"; then ok "$1 by ${2:-the libraries} ($(grep -c '^ok' "$scratch/tap") cases)"
  else grep -v '^ok' "$scratch/tap" | sed 's/^/# /' | head -60; not_ok "$1 by ${2:-the libraries}"; fi
}
for path in own ''; do
  for name in reference/test-ops fixtures/test-ops fixtures/test-optim fixtures/test-curves; do program $name "$path"; done
done
program gpu/test-flags ''

# losses OUT OPTIONS...: the losses of a short run of ResNet-20, one a line
losses () {
  out=$1; shift
  "$HEDDLE" run "$HEDDLE_SOURCE/pipelines/cifar-resnet20.lua" --arg dataset=synthetic --set train.max_steps=${STEPS:-40} --set logger.interval=5 --set train.device=cuda --set train.seed=1 "$@" >"$out" 2>"$out.err" || sed 's/^/# /' "$out.err"
  grep -o 'loss=[0-9.naif-]*' "$out" >"$out.loss"
}
cd "$scratch"
losses graphs --set flags.deterministic=true
losses eager --set flags.deterministic=true --set flags.cuda_graphs=false
[ -s graphs.loss ] && cmp -s graphs.loss eager.loss && ok "graphs on and off: the same losses" || { diff graphs.loss eager.loss | sed 's/^/# /'; not_ok "graphs on and off: the same losses"; }
check "every plan became a graph" sh -c '! grep "does not become a CUDA graph" graphs.err'
for amp in f16 bf16; do
  losses $amp --arg amp=$amp
  paste graphs.loss $amp.loss | awk -F '[=\t]' 'NF >= 4 { n++; d = $2 - $4; if (d * d > 0.04) bad++ } END { exit !(n > 0 && !bad) }' && ok "$amp follows f32 to 0.2" || { paste graphs.loss $amp.loss | sed 's/^/# /'; not_ok "$amp follows f32 to 0.2"; }
done
if [ -n "${SANITIZE-}" ]; then
  for tool in memcheck racecheck initcheck; do
    check "compute-sanitizer: $tool" env HEDDLE_CUDA_PATH=own compute-sanitizer --target-processes all --tool $tool --error-exitcode 9 "$HEDDLE_BUILD/tests/reference/test-ops" --tap -k
  done
fi
plan
exit $failed
