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

# blocked ISA BLOCK: images lie in blocks of as many channels as the set's vectors have lanes
blocked () { HEDDLE_CPU_ISA=$1 "$HEDDLE" graph --program "$scratch/s.lua" >"$scratch/graph"; grep "conv2d" "$scratch/graph" | head -3; grep -q "nChw$2c" "$scratch/graph" && ! grep -q "nChw$3c" "$scratch/graph"; }

run () { HEDDLE_CPU_ISA=$1; export HEDDLE_CPU_ISA; shift; check "$HEDDLE_CPU_ISA: $*" "$HEDDLE_BUILD/tests/$@"; unset HEDDLE_CPU_ISA; }

for isa in generic avx2 avx512_bf16; do
  if HEDDLE_CPU_ISA=$isa "$HEDDLE" doctor | grep -q "cannot be used"; then skip "$isa" "not on this processor"
  else
    case $isa in
      avx512_bf16) check "$isa: blocks of 16" blocked $isa 16 8 ;;
      *) check "$isa: blocks of 8" blocked $isa 8 16 ;;
    esac
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
