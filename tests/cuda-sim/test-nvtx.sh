#!/bin/sh
# Ranges for NVIDIA's profilers, by a profiler of our own on the simulated device: they nest, balance, and name stages and operations; where there is nobody to see them there are none.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
. "$HEDDLE_SOURCE/tests/tap.sh"
if [ ! -e "$lib/nvtx-record.so" ]; then
  echo "1..0 # SKIP the CUDA toolkit has no nvtx3/nvToolsExt.h"
  exit 0
fi
export HEDDLE_NVTX_LOG="$scratch/log"
cat >"$scratch/run.lua" <<'LUA'
local h = require 'heddle'
local nn = require 'heddle.layers'
h.flags { threads = 1 }
local data = h.dataset 'synthetic' { shape = { 2, 8, 8 }, classes = 4, length = 24, noise = 1 }
local test = h.dataset 'synthetic' { shape = { 2, 8, 8 }, classes = 4, length = 8, noise = 1 }
local batch = h.prefetch { data, batch_size = 8 }
local logits = h.model 'sequential' { batch.image, layers = { nn.conv2d { 4, kernel = 3 }, nn.relu {}, nn.flatten {}, nn.linear { 4 } } }
return h.train { h.optimizer 'sgd' { h.loss 'cross_entropy' { logits, batch.label }, lr = 0.05 }, epochs = 2, device = 'cuda', eval = { data = test } }
LUA

# record ARGUMENT...: a run under the profiler; $scratch/log
record () { rm -f "$scratch/log"; NVTX_INJECTION64_PATH="$lib/nvtx-record.so" "$HEDDLE" run "$scratch/run.lua" "$@" >"$scratch/out" 2>&1; }
# paths: each range with what encloses it, "step/train/..."; fails unless all are of one thread and of our domain, nest and balance
paths () {
  awk '{ if (NR > 1 && $1 != thread) bad = "another thread"; thread = $1 }
       $2 == "push" { sub (/^[0-9]+ push /, ""); if (!sub (/^Heddle: /, "")) bad = "domain: " $0; path[++depth] = depth > 1 ? path[depth - 1] "/" $0 : $0; print path[depth] }
       $2 == "pop" { if (--depth < 0) bad = "popped too often, line " NR }
       END { if (depth) bad = depth " left open"; if (bad) { print bad >"/dev/stderr"; exit 1 } }' "$scratch/log" >"$scratch/paths"
}
# occurs N PATTERN: that many ranges have such a path
occurs () { n=$(grep -c -- "$2" "$scratch/paths"); [ "$n" = "$1" ] || { echo "$n times: $2"; sort "$scratch/paths" | uniq -c; return 1; }; }
# fewer N PATTERN: some, but not N
fewer () { n=$(grep -c -- "$2" "$scratch/paths"); [ "$n" -gt 0 ] && [ "$n" -lt "$1" ]; }

if ! "$HEDDLE" doctor | grep -q 'NVTX: yes'; then
  check "a run of a build without NVTX" record
  check "records nothing" test ! -e "$scratch/log"
  plan
  exit 0
fi

# 6 steps, 2 evaluations; the file of --profile is another account of the same operations
check "a run, its steps put one by one" record --set flags.cuda_graphs=false
check "its ranges nest and balance" paths
check "six steps" occurs 6 '^step$'
check "the input of each" occurs 6 '^step/prefetch$'
check "forward and backward of each" occurs 6 '^step/train$'
check "the update of each" occurs 6 '^step/optimizer$'
check "the loggers of each" occurs 6 '^step/log$'
check "two evaluations" occurs 2 '^evaluate$'
check "a convolution in each step" occurs 6 '^step/train/conv2d 0 \['
check "its gradient too" occurs 6 '^step/train/conv2d_grad_weight 0 \['
check "and in each evaluation" occurs 2 '^evaluate/conv2d 0 \['
check "nothing is captured" occurs 0 capture

check "a run under --profile" record --profile="$scratch/p.json" --profile-steps=6 --set train.max_steps=6 --set train.eval_every=100
check "its ranges nest and balance too" paths
sed -n 's/.*"cat":"op","name":"\([^"]*\)".*"of":"\([^"]*\)","kernel":"\([^"]*\)".*/\1 \2 [\3]/p; s/.*"cat":"conversion","name":"\([^"]*\)".*"of":"\([^"]*\)".*/\1 for \2/p' "$scratch/p.json" | sort >"$scratch/expected"
sed -n 's,^step/\(train\|optimizer\)/,,p' "$scratch/paths" | sort >"$scratch/found"
[ "$(wc -l <"$scratch/expected")" -gt 60 ] && ok "the timeline has operations" || not_ok "the timeline has operations"
check "and each is a range, named alike" diff "$scratch/expected" "$scratch/found"

# the first run of a plan puts its steps, then captures them, for each of the two places a batch may lie in; later ones replay
check "a run with graphs" record
check "nests and balances" paths
check "has a range per step" occurs 6 '^step/train$'
check "captures once" occurs 1 '^step/train/capture$'
check "an operation runs by itself once" occurs 1 '^step/train/conv2d 0 \['
check "and is captured twice" occurs 2 '^step/train/capture/conv2d 0 \['
check "an update has no input: once" occurs 1 '^step/optimizer/capture/add add \['

# a call that fails, in the middle: every range is closed all the same
for n in 180 200 222 260 301; do
  HEDDLE_SIM_FAIL_CALL=$n record --set flags.cuda_graphs=false
  status=$?
  [ $status = 3 ] && ok "call $n fails" || not_ok "call $n fails ($status)"
  check "and ranges balance" paths
  check "in a step that is not the last" fewer 6 '^step$'
done

rm -f "$scratch/log"
check "without a profiler" "$HEDDLE" run "$scratch/run.lua"
check "on the cpu" env NVTX_INJECTION64_PATH="$lib/nvtx-record.so" "$HEDDLE" run "$scratch/run.lua" -d cpu
check "nothing is recorded" test ! -e "$scratch/log"
plan
