#!/bin/sh
# pipelines/fashion-mnist.lua to its end on the simulated CUDA device, its log line by line against the same run on the cpu device.
. "$HEDDLE_SOURCE/tests/cuda-sim/sim.sh"
. "$HEDDLE_SOURCE/tests/tap.sh"
cd "$scratch"

# train DEVICE OPTIONS...: two epochs with an evaluation each, the last batch of which is short; every event to DEVICE.jsonl
train () {
  device=$1
  shift
  "$HEDDLE" run "$HEDDLE_SOURCE/pipelines/fashion-mnist.lua" --arg dataset=synthetic --arg epochs=2 --arg log="$scratch/$device.jsonl" --set train.device=$device --set train.steps_per_epoch=5 \
    --set dataset.length=300 --set dataset2.length=90 --set logger2.interval=1 --set flags.winograd=false "$@" >out 2>err || { cat err; return 1; }
}
# the same events in the same order, with the same counts and rates; losses within 1e-4, and as many right
cat >same.py <<'PY'
import json
def events (device): return [e for e in map (json.loads, open (device + ".jsonl")) if e["event"] in ("batch", "epoch_end", "eval")]
def values (e): return {k: v for k, v in {**e, **e.get ("values", {})}.items () if k in ("event", "epoch", "batch", "step", "updates", "samples", "skipped", "lr", "acc")}
cpu, cuda = events ("cpu"), events ("cuda")
assert len (cpu) == len (cuda) == 14, (len (cpu), len (cuda))
for a, b in zip (cpu, cuda):
    la, lb = (e.get ("loss", e.get ("values", {}).get ("loss")) for e in (a, b))
    assert values (a) == values (b) and len (values (a)) >= 7 and abs (la - lb) <= 1e-4 * la, (a, b)
PY
check "fashion-mnist.lua trains and evaluates on the cpu" train cpu
check "fashion-mnist.lua trains and evaluates on the simulated device" train cuda
check "their logs agree event by event" python3 same.py
# a GPU whose driver takes none of our code is found out before anything is trained on it
without_code () {
  HEDDLE_SIM_KERNELS=/nowhere "$HEDDLE" run "$HEDDLE_SOURCE/pipelines/fashion-mnist.lua" --arg dataset=synthetic --set train.device=$1 --set train.epochs=1 --set train.steps_per_epoch=1 \
    --set dataset.length=64 --set dataset2.length=64 >out 2>&1
}
auto_says_why () { without_code auto && grep -q 'on cpu: .*cuda' out || { cat out; return 1; }; }
cuda_ends () { ! without_code cuda && grep -q '^hint' out || { cat out; return 1; }; }
check "a device that takes no code: auto takes the cpu and says why" auto_says_why
check "a device that takes no code: cuda says why" cuda_ends
plan $count
