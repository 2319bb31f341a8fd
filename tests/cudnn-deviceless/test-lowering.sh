#!/bin/sh
# Operations on the simulated CUDA device through cuDNN's graphs: a fake cuDNN reads the backend's descriptors and computes what they say, so that test-ops compares
# lowering, descriptors, layouts, addresses and workspaces with the double-precision reference.  Rows and channels last.
. "$HEDDLE_SOURCE/tests/cudnn-deviceless/fake.sh"
export HEDDLE_TEST_DEVICE=cuda HEDDLE_FAKE_CUDNN_LOG="$scratch/log"
groups=
for group in conv2d conv_transpose2d conv_relu_pool batch_norm layer_norm rms_norm max_pool avg_pool attention linear autocast; do groups="$groups -p /ops/$group"; done
# what comes out of the library in 16 bits is what check-gpu sees first on a GPU
for run in 'nchw f32' 'nhwc f32' 'nhwc f16' 'nhwc bf16'; do
  layout=${run% *} dtype=${run#* }
  : >"$scratch/log"
  HEDDLE_CUDA_LAYOUT=$layout HEDDLE_TEST_DTYPE=$dtype "$HEDDLE_BUILD/tests/reference/test-ops" --tap -k $groups >"$scratch/out" 2>&1
  status=$?
  grep '^ok' "$scratch/out" | grep -vc SKIP | sed 's/^/# operations that agree: /'
  if [ $status = 0 ] && ! grep -q '^not ok' "$scratch/out"; then ok "$run: they agree with the reference"
  else grep -v '^ok' "$scratch/out" | tail -20 | sed 's/^/# /'; not_ok "$run: they agree with the reference"; fi
  sort -u "$scratch/log" >>"$scratch/$layout"
done
version=$("$HEDDLE" doctor 2>/dev/null | sed -n 's/^ *cuDNN: \([0-9]*\)\.\([0-9]*\)\.\([0-9]*\).*/\1 \2 \3/p' | awk '{ print $1 * 10000 + $2 * 100 + $3 }')
# ran LAYOUT GRAPH [SINCE]: the graph, as its dtype and its operations, was run in that layout, if this cuDNN is not older than the graph's floor
ran () { if [ "$version" -lt "${3:-0}" ]; then skip "$1: ran $2" "this cuDNN is $version, the graph needs $3"; else did_run "$1" "$2"; fi; }
did_run () { if grep -qx "$2" "$scratch/$1"; then ok "$1: ran $2"; else sed 's/^/# /' "$scratch/$1"; not_ok "$1: ran $2"; fi; }
for layout in nchw nhwc; do
  for graph in 'f32 conv' 'f32 conv add' 'f32 conv add relu' 'f32 conv add add relu' 'f32 conv_data' 'f32 conv_weight' 'f32 avg_pool' 'f32 avg_pool_grad'; do ran $layout "$graph"; done
  for graph in 'f32 norm' 'f32 norm_grad' 'f32>f16 norm' 'f32>bf16 norm' 'f16>f32 norm_grad' 'bf16>f32 norm_grad'; do ran $layout "$graph" 80905; done
done
for graph in 'f32 max_pool' 'f32 max_pool_grad' 'f32 norm relu' 'f32 norm add relu' 'f32 greater mul norm_grad'; do ran nhwc "$graph"; done
for graph in 'f16 matmul mul row column greater_equal select maximum sub exp sum log add div matmul'; do ran nhwc "$graph" 91600; done
# candidates are timed within the budget of shapes: every convolution has three, the first two shapes are timed, others take the heuristics' first
cat >"$scratch/run.lua" <<'END'
local h, nn = require "heddle", require "heddle.layers"
h.flags { threads = 1, cudnn_benchmark = true, benchmark_shapes = 2 }
local data = h.dataset "synthetic" { shape = { 2, 12, 12 }, classes = 4, length = 16 }
local batch = h.prefetch { data, batch_size = 8 }
local logits = h.model "sequential" { batch.image, layers = { nn.conv2d { 4, kernel = 3 }, nn.conv2d { 4, kernel = 3 }, nn.relu {}, nn.flatten {}, nn.linear { 4 } } }
return h.train { h.optimizer "sgd" { h.loss "cross_entropy" { logits, batch.label }, lr = 0.1 }, epochs = 1, device = "cuda", log = { h.logger "jsonl" { path = "run.jsonl" } } }
END
"$HEDDLE" graph --program "$scratch/run.lua" >"$scratch/out" 2>&1 || sed 's/^/# /' "$scratch/out"
timed=$(grep -c '= conv2d.*cuDNN engine [0-2], timed: [0-9.]* us, best of 3' "$scratch/out") heuristic=$(grep -c '= conv2d.*cuDNN engine 0, heuristic' "$scratch/out")
if [ "$timed" = 2 ] && [ "$heuristic" = 3 ]; then ok "two shapes are timed, the others are not"; else sed 's/^/# /' "$scratch/out"; not_ok "two shapes are timed ($timed), the others are not ($heuristic)"; fi
# the run's log says which algorithm computes which operation
cd "$scratch"
"$HEDDLE" run run.lua >"$scratch/out" 2>&1 || sed 's/^/# /' "$scratch/out"
message=$(grep '"event":"message"' run.jsonl)
recorded () { case $message in *"$1"*) return 0 ;; *) echo "$message" | cut -c1-2000; return 1 ;; esac; }
check "the log names the algorithm of a convolution" recorded 'train: conv2d 0: cuDNN engine '
check "... of its gradient" recorded 'train: conv2d_grad_weight'
check "... of a product" recorded 'train: linear 4: cublasLt algorithm 0, tile 0, stages 0, split 0'
check "... and how it was chosen" recorded ', heuristic'
plan
