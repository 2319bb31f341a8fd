#!/bin/sh
# tests/cli/test-measure.sh: bench, run --profile, graph --program and what a step waited for.  No time is asserted.
. "$HEDDLE_SOURCE/tests/tap.sh"
measure=$HEDDLE_SOURCE/tests/cli/measure.py
cd "$scratch"
cat >log.lua <<'LUA'
local h = require "heddle"
local nn = require "heddle.layers"
local data = h.dataset "synthetic" { length = 80, shape = { 1, 8, 8 }, classes = 4 }
local batch = h.prefetch { data, batch_size = 16, num_workers = 2 }
local layers = { nn.conv2d { 8, kernel = 3 }, nn.batch_norm {}, nn.relu {}, nn.flatten {}, nn.linear { h.arg ("width", 16, "hidden units") }, nn.relu {}, nn.linear { 4 } }
local logits = h.model "sequential" { batch.image, layers = layers }
local loss = h.loss "cross_entropy" { logits, batch.label }
local step = h.optimizer "sgd" { h.amp { loss, dtype = "bf16" }, lr = 0.01, momentum = 0.9 }
return h.train { step, epochs = 2, max_steps = 8, device = "cpu", eval = { data = data, accuracy = h.metric "accuracy" { logits, batch.label } },
  log = { h.logger "progress" { interval = 2 }, h.logger "jsonl" { path = "run.jsonl", interval = 1 } } }
LUA
sed 's/"width", 16/"width", 64/' log.lua >wide.lua

quick="--repeats 3 --steps 3 --warmup 2"
"$HEDDLE" bench log.lua $quick >out 2>err
check "bench prints speed with its spread" grep -q -E '^log.lua on cpu: [0-9]+ samples/s \([0-9]+\.\.[0-9]+\), 3 repeats of 3 batches' out
check "... where the time goes" grep -q -E 'wait [0-9.]+ %, copy [0-9.]+ %, forward [0-9.]+ %, backward [0-9.]+ %, update [0-9.]+ %, log [0-9.]+ %' out
check "... and memory by owner" grep -q -E '^memory: activations .* parameters .* gradients .* optimizer .* batches .* peak resident' out
[ ! -e run.jsonl ] && ok "bench leaves the script's log files alone" || not_ok "bench leaves the script's log files alone"
[ ! -s err ] && ok "no progress where stderr is no terminal" || { sed 's/^/# /' err; not_ok "no progress where stderr is no terminal"; }
"$HEDDLE" bench log.lua $quick --ablate >out 2>err
check "--ablate names both sides of a ratio" grep -q -E '^fusion +[0-9.]+x \(.* flags.fusion=true over flags.fusion=false' out
check "--ablate says what a CPU has not" grep -q -E '^tf32 +not on this device$' out
"$HEDDLE" bench log.lua $quick --ablate --json >out 2>err; check "--ablate --json" python3 "$measure" ablation out
"$HEDDLE" bench log.lua $quick --vs wide.lua --json >out 2>err; check "--vs --json" python3 "$measure" versus out
"$HEDDLE" bench log.lua $quick --vs wide.lua >out 2>err; check "--vs names its baseline" grep -q -E '^log.lua over wide.lua: [0-9.]+x \([0-9.]+\.\.[0-9.]+\)' out
"$HEDDLE" bench log.lua --repeats 0 >out 2>err; [ $? = 2 ] && ok "no repeats is a usage error" || not_ok "no repeats is a usage error"
"$HEDDLE" bench log.lua $quick --vs absent.lua >out 2>err; [ $? = 1 ] && grep -q absent.lua err && ok "--vs of a script that is not there" || not_ok "--vs of a script that is not there"
"$HEDDLE" bench log.lua $quick --set prefetch.num_workers=0 --arg width=8 >out 2>err && ok "--set and --arg" || not_ok "--set and --arg"

"$HEDDLE" graph log.lua --program >program 2>err; check "graph --program: arena, lifetimes, peak, reorders" python3 "$measure" program program
"$HEDDLE" graph log.lua --program --set amp.dtype=f32 >program2 2>err; check "... and in f32" python3 "$measure" program program2

"$HEDDLE" run log.lua --profile out.json --profile-steps 3 >out 2>err
check "run --profile: valid, nested, all threads, the program's operations" python3 "$measure" profile out.json program
check "the header says whose the memory is" grep -q -E '^memory: .*; fullest at .*, most of it (%|scratch)' out
"$HEDDLE" run log.lua --profile nowhere/out.json >out 2>err; [ $? = 3 ] && grep -q 'hint: ' err && ok "a profile that cannot be written is an error before training" || not_ok "a profile that cannot be written"
"$HEDDLE" run log.lua --profile out.json --profile-steps 0 >out 2>err; [ $? = 2 ] && ok "a profile of no steps is a usage error" || not_ok "a profile of no steps"
"$HEDDLE" run log.lua --profile /dev/full --profile-steps 3 >out 2>err; [ $? = 3 ] && grep -q 'profile: /dev/full' err && ok "a full disk is an error that names the file" || { sed 's/^/# /' err; not_ok "a full disk"; }

# ---- a data set much slower than the step
mkdir plugins
$CC -shared -fPIC -I"$HEDDLE_BUILD/include" $(pkg-config --cflags glib-2.0) "$HEDDLE_SOURCE/tests/cli/slow.c" -o plugins/dataset-slow.so $(pkg-config --libs glib-2.0) || echo "Bail out! slow.c does not compile"
sed -e 's/h.dataset "synthetic" {.*/h.dataset "slow" { sleep_us = h.arg ("sleep", 0, "us"), burn_us = h.arg ("burn", 0, "us") }/' -e 's/interval = 2 }/interval = 1 }/' -e 's/eval = {.*} },$//' -e 's/max_steps = 8/max_steps = 3/' log.lua >slow.lua
for workers in 0 1; do
  "$HEDDLE" run slow.lua --plugin-path plugins --arg sleep=20000 --set prefetch.num_workers=$workers >out 2>err
  check "$workers workers: a sleeping data set is waited for: read" python3 "$measure" waits run.jsonl =read
  check "$workers workers: the progress line says so" grep -q -E '^\[E1 B[23]\] .* wait=[0-9]+% \(read\)' out
done
"$HEDDLE" run slow.lua --plugin-path plugins --arg burn=5000 --set prefetch.num_workers=0 >out 2>err
check "a computing data set is waited for: convert" grep -q -E ' wait=[0-9]+% \((convert|read)\)' out
plan
