#!/bin/sh
# tests/backend/test-isa.sh: the instruction sets that this machine would not choose: the most telling tests again under each.
. "$HEDDLE_SOURCE/tests/tap.sh"
# what the tests themselves say is read only when they fail
unset G_TEST_BUILDDIR G_TEST_SRCDIR || :

cat >"$scratch/s.lua" <<'LUA'
local h = require "heddle"
local batch = h.prefetch { h.dataset "synthetic" { length = 64, shape = { 3, 32, 32 }, classes = 10 }, batch_size = 16, num_workers = 0 }
local loss = h.loss "cross_entropy" { h.model "resnet" { batch.image, depth = 20, classes = 10 }, batch.label }
return h.train { h.optimizer "sgd" { loss, lr = 0.1 }, device = "cpu" }
LUA

cat >"$scratch/amp.lua" <<'LUA'
local h = require "heddle"
local batch = h.prefetch { h.dataset "synthetic" { length = 1600, shape = { 1, 28, 28 }, classes = 10 }, batch_size = 32, shuffle = true, num_workers = 0 }
local loss = h.amp { h.loss "cross_entropy" { h.model (h.arg ("model", "lenet", "")) { batch.image, classes = 10 }, batch.label }, dtype = h.arg ("dtype", "auto", "") }
return h.train { h.optimizer "sgd" { loss, lr = 0.02, momentum = 0.9 }, device = "cpu", epochs = 2, log = { h.logger "jsonl" { path = "run.jsonl", interval = 1000 } } }
LUA

# losses ISA DTYPE FILE: the mean loss of each of two epochs
losses () { (cd "$scratch" && HEDDLE_CPU_ISA=$1 "$HEDDLE" run amp.lua --arg dtype=$2 >out 2>&1 && python3 -c '
import json
for line in open ("run.jsonl"):
    e = json.loads (line)
    if e["event"] == "epoch_end": print (e["loss"])' >"$3" && test -s "$3"); }

# trained ISA: a network trained in bf16 stays within 2 % of the first loss of the one in f32, and does learn
trained () { losses $1 f32 a && losses $1 bf16 b && (cd "$scratch" && paste a b | tee curve && python3 -c '
rows = [[float (x) for x in line.split ()] for line in open ("curve")]
assert rows[-1][0] < 0.8 * rows[0][0], rows
assert all (abs (a - b) < 0.02 * rows[0][0] for a, b in rows), rows'); }

# auto ISA DTYPE: what dtype = "auto" comes to
auto () { losses $1 auto c && grep -o "instructions = [^;]*; \|amp: [^\\]*" "$scratch/run.jsonl" && grep -q "amp: $2 (auto" "$scratch/run.jsonl"; }

# blocked ISA BLOCK: images lie in blocks of as many channels as the set's vectors have lanes
blocked () { HEDDLE_CPU_ISA=$1 "$HEDDLE" graph --program "$scratch/s.lua" >"$scratch/graph"; grep "conv2d" "$scratch/graph" | head -3; grep -q "nChw$2c" "$scratch/graph" && ! grep -q "nChw$3c" "$scratch/graph"; }

run () { HEDDLE_CPU_ISA=$1; export HEDDLE_CPU_ISA; shift; check "$HEDDLE_CPU_ISA: $*" "$HEDDLE_BUILD/tests/$@"; unset HEDDLE_CPU_ISA; }

for isa in generic avx2 avx512_bf16; do
  if HEDDLE_CPU_ISA=$isa "$HEDDLE" doctor | grep -q "cannot be used"; then skip "$isa" "not on this processor"
  else
    case $isa in
      avx512_bf16) check "$isa: blocks of 16" blocked $isa 16 8; check "$isa: auto is bf16" auto $isa bf16 ;;
      *) check "$isa: blocks of 8" blocked $isa 8 16; check "$isa: auto is f32" auto $isa f32 ;;
    esac
    [ $isa = generic ] || check "$isa: LeNet-5 in bf16 trains as in f32" trained $isa
    run $isa backend/test-device -p /device/transposed -p /device/variables
    run $isa backend/test-fusion
    run $isa backend/test-bf16
    run $isa backend/test-vision
    run $isa backend/test-sequence
    run $isa fixtures/test-ops
    run $isa fixtures/test-autocast
    run $isa reference/test-ops -p /ops/conv2d/small -p /ops/conv2d/blocked -p /ops/conv2d/first -p /ops/conv2d/stride -p /ops/relu6 -p /ops/batch_norm -p /ops/max_pool/3 \
      -p /ops/avg_pool -p "/ops/attention/causal tiles" -p /ops/layer_norm/long -p /ops/softmax -p /ops/cross_entropy -p /ops/gelu -p /ops/norm_stats -p /ops/dequantize \
      -p "/ops/transformer block" -p /ops/cast -p /ops/autocast
  fi
done
plan
