#!/bin/sh
# tests/cli/test-cli.sh: the verbs: what they print, and their exit status.
. "$HEDDLE_SOURCE/tests/tap.sh"
cd "$scratch"
mkdir pipelines && cp "$HEDDLE_SOURCE"/pipelines/*.lua pipelines/
fm="pipelines/fashion-mnist.lua --arg dataset=synthetic"

# says NAME PATTERN ARGS...: exit 0 and PATTERN in what it prints
says () {
  name=$1 pattern=$2
  shift 2
  if "$HEDDLE" "$@" >out 2>err && grep -q -e "$pattern" out; then ok "$name"; else sed 's/^/# /' err out | head -20; not_ok "$name"; fi
}
is_json () { python3 -c 'import json, sys; [json.loads (l) for l in (sys.stdin.read ().splitlines () if sys.argv[1] == "lines" else [sys.stdin.read ()])]' "$1"; }

says "--version" '^heddle [0-9]' --version
says "--help" 'usage: heddle VERB' --help
for verb in run check graph bench inspect doctor help; do
  says "$verb --help" 'Usage:' $verb --help
  says "$verb --version" '^heddle [0-9]' $verb --version
done
"$HEDDLE" >out 2>err; [ $? = 2 ] && ok "no verb at all is a usage error" || not_ok "no verb at all is a usage error"
says "a script's --help lists its arguments" 'epochs .*epochs to train \[5\]' run $fm --help
says "... and the options that --set reaches" 'batch_size .*integer 1..65536' run $fm --help
says "check shows shapes" 'model *output f32 64x10' check $fm
says "check counts parameters" '61706 parameters' check $fm
says "check --steps trains" 'trained 2 batches' check $fm --steps 2
says "--set reaches any option" 'image f32 32x1x28x28' check $fm --set prefetch.batch_size=32
says "--arg reaches the script" '\[E1 B1\]' run $fm --arg epochs=1 --set train.max_steps=2 --set logger.interval=1
says "graph draws text" 'prefetch .*<- dataset' graph $fm
says "graph --dot" '^digraph heddle' graph $fm --dot
says "graph --program shows layouts and offsets" 'linear .*\[.*@' graph $fm --program
"$HEDDLE" graph $fm --json >out 2>err && check "graph --json is JSON" is_json whole <out
"$HEDDLE" graph $fm --json --dot >out 2>err; [ $? = 2 ] && ok "one drawing at a time" || not_ok "one drawing at a time"
says "inspect lists plugins" 'lenet .*LeNet-5' inspect
says "inspect lists built-in stages" 'schedule "cosine"' inspect
says "inspect shows one plugin" 'weight_decay' inspect optimizer-sgd
says "inspect shows a built-in stage" 'prefetch_factor' inspect prefetch
says "inspect shows the flags" 'tf32_matmul' inspect flags
"$HEDDLE" inspect --json >out 2>err && check "inspect --json is JSON" is_json whole <out
check "inspect --exists" "$HEDDLE" inspect --exists model-lenet
check "inspect --exists --atleast" "$HEDDLE" inspect --exists model-lenet --atleast 0.9
"$HEDDLE" inspect --exists model-lenet --atleast 1.10 && not_ok "1.0 is older than 1.10" || ok "1.0 is older than 1.10"
"$HEDDLE" inspect --exists model-nothing && not_ok "a plugin that is not there" || ok "a plugin that is not there"
says "doctor names the library" 'oneDNN: 2' doctor
says "help --man is a man page" '^\.TH HEDDLE 1' help --man
says "help --completion completes verbs" 'compgen -W "run check graph bench inspect doctor help' help --completion
"$HEDDLE" help --completion >out && check "the completion is valid shell" sh -c 'command -v bash >/dev/null || exit 0; bash -n out'
if [ -f "$HEDDLE_SOURCE/docs/reference.md" ]; then
  "$HEDDLE" inspect --markdown >out 2>err; check "docs/reference.md is what inspect --markdown prints" cmp out "$HEDDLE_SOURCE/docs/reference.md"
fi

# ---- every pipeline loads and trains a few steps, on made-up data where the real data is not there
# Lua deals its tables in another order in every process
same_order () { for i in 1 2 3 4 5 6; do "$HEDDLE" check pipelines/mlp.lua --arg dataset=synthetic >order.$i || return 1; cmp order.1 order.$i || return 1; done; }
check "stages and metrics are listed in the same order in every run" same_order
for script in pipelines/*.lua; do
  args=
  grep -q 'h.arg ("dataset"' "$script" && args="--arg dataset=synthetic"
  grep -q 'h.arg ("layers"' "$script" && args="$args --arg layers=1"
  check "$(basename "$script") trains 3 steps" "$HEDDLE" check "$script" $args --steps 3
done
check "ResNet-20 in f16 with loss scaling" "$HEDDLE" check pipelines/cifar-resnet20.lua --arg dataset=synthetic --arg amp=f16 --steps 2
check "ResNet-20 in bf16" "$HEDDLE" check pipelines/cifar-resnet20.lua --arg dataset=synthetic --arg amp=bf16 --steps 2

# ---- loggers, in real runs
cat >log.lua <<'LUA'
local h = require "heddle"
local data = h.dataset "synthetic" { length = 80, shape = { 1, 8, 8 }, classes = 4 }
local batch = h.prefetch { data, batch_size = 16, num_workers = 2 }
local logits = h.model "mlp" { batch.image, classes = 4, hidden = { 8 } }
local step = h.optimizer "sgd" { h.loss "cross_entropy" { logits, batch.label }, lr = 0.1 }
return h.train { step, epochs = 2, device = "cpu", eval = { data = data, accuracy = h.metric "accuracy" { logits, batch.label } },
  log = { h.logger "progress" { interval = 2 }, h.logger "jsonl" { path = "run.jsonl", interval = 2 }, h.logger "csv" { path = "run.csv", interval = 1 } } }
LUA
"$HEDDLE" run log.lua >out 2>err
check "progress lines are greppable" grep -q -E '^\[E2 B4\] loss=[0-9.]+ acc=[0-9.]+' out
check "jsonl: one object per line" is_json lines <run.jsonl
check "jsonl: every kind of event" sh -c 'for e in run_start epoch_start batch eval epoch_end run_end; do grep -q "\"event\" *: *\"$e\"" run.jsonl || { echo $e; exit 1; }; done'
check "csv: header and rows" sh -c 'head -1 run.csv | grep -q loss && [ $(wc -l <run.csv) -ge 11 ]'
[ "$(grep -c '"event" *: *"batch"' run.jsonl)" = 4 ] && ok "jsonl: a batch event every interval" || not_ok "jsonl: a batch event every interval"
cat >bad-log.lua <<'LUA'
local h = require "heddle"
local batch = h.prefetch { h.dataset "synthetic" { length = 80 }, batch_size = 16 }
local step = h.optimizer "sgd" { h.loss "cross_entropy" { h.model "mlp" { batch.image, classes = 10 }, batch.label }, lr = 0.1 }
return h.train { step, device = "cpu", log = { h.logger "jsonl" { path = "/dev/full", interval = 1 } } }
LUA
"$HEDDLE" run bad-log.lua >out 2>err
[ $? = 0 ] && ok "a logger that fails never ends the run" || { sed 's/^/# /' err; not_ok "a logger that fails never ends the run"; }

# ---- docs/loggers.md: every event, field and column that a run writes is in its tables, and every event in the table is written
sed 's/h.loss "cross_entropy" { logits, batch.label }/h.amp { h.loss "cross_entropy" { logits, batch.label }, dtype = "f16" }/' log.lua >amp-log.lua
rm -f run.jsonl run.csv; "$HEDDLE" run amp-log.lua >out 2>err
cat >documented.py <<'PY'
import json, re, sys
page = open (sys.argv[1]).read ()
part = {title: page.split ("## " + title)[1].split ("\n## ")[0] for title in ("jsonl", "csv")}
names = lambda text: {n for row in re.findall (r"(?m)^\| (`[^|]*) \|", text) for n in re.findall (r"`([^`]+)`", row)}
lines = [json.loads (l) for l in open ("run.jsonl")]
written = {k for l in lines for k in l} | {l["event"] for l in lines}
undocumented = written - names (part["jsonl"]) - {"."}
columns = set (open ("run.csv").readline ().strip ().split (","))
undocumented |= columns - names (part["csv"]) - names (part["jsonl"])
always = {m[0] for m in re.findall (r"(?m)^\| `(\w+)` \| \w+ \|[^|]*\| (all) \|", part["jsonl"])}
missing = {k for k in always for l in lines if k not in l} | ({"scale", "lr", "wait_share", "text"} - written) | (set () if len (always) >= 10 else {"a table"})
print ("undocumented:", undocumented, "documented but not written:", missing)
sys.exit (bool (undocumented or missing))
PY
check "docs/loggers.md names what the loggers write" python3 documented.py "$HEDDLE_SOURCE/docs/loggers.md"

# ---- messages of plugins: on standard error, and once a run goes on in the loggers' files
$CC -shared -fPIC -I"$HEDDLE_BUILD/include" $(pkg-config --cflags glib-2.0) "$HEDDLE_SOURCE/tests/cli/dataset-talker.c" -o dataset-talker.so $(pkg-config --libs glib-2.0)
cat >talker.lua <<'LUA'
local h = require "heddle"
local batch  = h.prefetch { h.dataset "talker" {}, batch_size = 4, num_workers = 2 }
local logits = h.model "mlp" { batch.image, classes = 2, hidden = { 4 } }
local step   = h.optimizer "sgd" { h.loss "cross_entropy" { logits, batch.label }, lr = 0.1 }
return h.train { step, epochs = 2, device = "cpu", log = { h.logger "progress" { interval = 1 }, h.logger "jsonl" { path = "talker.jsonl" } } }
LUA
talks () {
  "$HEDDLE" run --plugin-path "$PWD" talker.lua >out 2>err || return 1
  cat err talker.jsonl
  [ "$(grep -c '^heddle: warning: talker 1 opens$' err)" = 1 ] && [ "$(grep -c '^heddle: talker reads [05]$' err)" -ge 4 ] \
    && [ "$(grep -c '"event":"message".*"text":"talker reads 5"' talker.jsonl)" -ge 1 ] && ! grep -q "talker [0-9r]" out
}
check "a plugin's messages reach standard error and the loggers" talks

# ---- stopping
sed 's/epochs = 2/epochs = 100000/; s/interval = 2 }, h.logger "jsonl".*$/interval = 100000 } } }/' log.lua >long.lua
"$HEDDLE" run long.lua >out 2>err &
pid=$!
sleep 2; kill -INT $pid; wait $pid; status=$?
[ $status = 130 ] && grep -q 'stopped by a signal after batch' err && ok "SIGINT finishes the batch, says where it stopped, exits 130" || { sed 's/^/# /' err; not_ok "SIGINT (status $status)"; }
"$HEDDLE" run long.lua >out 2>err &
pid=$!
sleep 1; kill -TERM $pid; wait $pid; [ $? = 130 ] && ok "SIGTERM exits 130 too" || not_ok "SIGTERM exits 130 too"
plan
