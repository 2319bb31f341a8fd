#!/bin/sh
# tests/gpu/check.sh: make check-gpu: on a real GPU: every operation in every dtype against the double-precision reference and PyTorch's tensors by each path, optimizers, training curves beside
# the cpu's, AMP beside f32, flags, graphs on and off bit for bit, a thousand steps without growth of memory.  Skipped with a reason where there is no GPU.  Prints TAP.
#   SANITIZE=1      also compute-sanitizer's memcheck, racecheck and initcheck; SANITIZE=only: nothing else; TOOLS=racecheck, SANITIZED=own (of train, generated, 16bit, own) narrow it
#   LIMIT=200       seconds that one test program may take; SANITIZE_LIMIT=100 those of one under the sanitizer
#   PARTS='ops runs'      of flags, ops, fixtures, runs, program; CASES='-p /ops/add' narrows the operations (options of the test program), RUNS='-p /gpu/curve' the whole runs, FLAGS='-p /gpu/sums' the flags, CORNERS='-p /gpu/nan' what libraries might do otherwise
#   PIPELINE, RUN_OPTIONS the script that part "program" trains (cifar-resnet20), further options of heddle run
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
started=$(date +%s)
# bf16 arithmetic needs compute capability 8.0
dtypes='f32 f16 bf16'
! grep -q '^ *cuda:0: .*compute capability [67]' "$scratch/doctor" || dtypes='f32 f16'

# limited SECONDS COMMAND...: a hang costs no more than that; 124 or 137 afterwards
limited () { if command -v timeout >/dev/null 2>&1; then timeout -k 10 "$@"; else shift; "$@"; fi; }
over () { [ "$1" = 124 ] || [ "$1" = 137 ]; }
now () { echo $(($(date +%s) - started)); }

# program NAME PATH DTYPE OPTIONS...: one test program by one path; its failures are shown, and what the cases measured where it says so
program () {
  name=$1 path=$2 dtype=$3
  shift 3
  title="$name${dtype:+ in $dtype} by ${path:-the libraries}"
  HEDDLE_CUDA_PATH=$path HEDDLE_TEST_DTYPE=${dtype:-f32} limited "${LIMIT:-200}" "$HEDDLE_BUILD/tests/$name" --tap -k "$@" >"$scratch/tap" 2>&1
  rc=$?
  passed=$(grep '^ok' "$scratch/tap" | grep -vc SKIP) skipped=$(grep -c '^ok.*SKIP' "$scratch/tap")
  case $name in gpu/*) grep '^# ' "$scratch/tap" | grep -v '^# \(Start\|End\|random\|heddle-DEBUG\)' ;; esac
  # own kernels in a library's place pass too: how often, and why, is worth knowing
  [ "$path" = own ] || sed -n 's/^# heddle-DEBUG: .*: \(cu[A-Z].*\)/\1/p' "$scratch/tap" | sort | uniq -c | sort -rn | head -8 | sed 's/^ */#   fell back: /'
  if [ $rc = 0 ] && [ "$passed" -gt 0 ] && ! grep -q '^not ok' "$scratch/tap"; then ok "$title ($passed cases$([ "$skipped" = 0 ] || echo ", $skipped skipped")), at $(now) s"
  else
    ! over $rc || echo "# it did not end within ${LIMIT:-200} s; the last lines show where"
    grep -v '^ok' "$scratch/tap" | grep -v '^# \(Start\|End\|heddle-DEBUG\)' | sed 's/^/# /' | tail -60
    not_ok "$title (status $rc), at $(now) s"
  fi
}

# losses OUT OPTIONS...: the losses of a short run of ResNet-20 by the program, one a line; flags that choose by the clock are off
losses () {
  out=$1; shift
  limited "${LIMIT:-200}" "$HEDDLE" run "$HEDDLE_SOURCE/pipelines/${PIPELINE:-cifar-resnet20}.lua" --arg dataset=synthetic --set train.max_steps=${STEPS:-40} --set logger.interval=${INTERVAL:-5} --set train.device=cuda \
    --set train.seed=1 --set flags.cudnn_benchmark=false ${RUN_OPTIONS-} "$@" >"$out" 2>"$out.err" || sed 's/^/# /' "$out.err"
  grep -o 'loss=[0-9.naif-]*' "$out" >"$out.loss"
}

part () { case " ${PARTS-flags ops fixtures runs program} " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

check_programs () {
  # the quick ones first: what is wrong everywhere shows within seconds
  if part flags; then program gpu/test-flags '' '' ${FLAGS-}; program gpu/test-corners '' '' ${CORNERS-}; fi
  for path in own ''; do
    for dtype in $dtypes; do if part ops; then program reference/test-ops "$path" $dtype ${CASES-}; fi; done
    for name in fixtures/test-ops fixtures/test-optim fixtures/test-curves; do if part fixtures; then program $name "$path" ''; fi; done
    if part runs; then program gpu/test-runs "$path" '' ${RUNS-}; fi
  done
}

check_pipeline () {
  cd "$scratch"
  losses graphs --set amp.dtype=f32 --set flags.deterministic=true
  losses eager --set amp.dtype=f32 --set flags.deterministic=true --set flags.cuda_graphs=false
  if [ -s graphs.loss ] && cmp -s graphs.loss eager.loss; then ok "heddle run: graphs on and off print the same losses"
  else diff graphs.loss eager.loss | sed 's/^/# /'; not_ok "heddle run: graphs on and off print the same losses"; fi
  check "heddle run: every plan became a graph" sh -c '! grep "does not become a CUDA graph" graphs.err'
  for amp in ${dtypes#f32}; do
    losses $amp --set amp.dtype=$amp
    if paste graphs.loss $amp.loss | awk -F '[=\t]' 'NF >= 4 { n++; d = $2 - $4; if (!(d * d <= 0.04)) bad++ } END { exit !(n > 0 && !bad) }'; then ok "heddle run: $amp follows f32 to 0.2, at $(now) s"
    else paste graphs.loss $amp.loss | sed 's/^/# /'; not_ok "heddle run: $amp follows f32 to 0.2"; fi
  done
}

# Reports in a sanitizer's output: whose kernel each names, "ours" or "library".  NVIDIA's are known by their names; what names no kernel is ours.
judge='
function flush () { where = head " " kernel; if (open) print (where ~ /cudnn|cublas|cutlass|gemm|xmma|nvjet|convolve|wgrad|dgrad|sm[0-9]+_|ampere|hopper|flash_|fmha|bn_fw|bn_bw|nhwcToNchw|nchwToNhwc/ ? "library" : "ours"), head, kernel; open = 0 }
/^========= *(Invalid|Uninitialized|Error:|Warning:|Race|Misaligned|Barrier|Device Frame overflow)/ { flush (); open = 1; head = $0; kernel = ""; next }
open && kernel == "" && /^=========  *at / { kernel = $0 }
/^========= *$/ { flush () }
END { flush () }'

# sanitize TITLE TOOL PATH COMMAND...: no report may name a kernel of ours, and the program must have run under the tool: it prints TAP
sanitize () {
  title="compute-sanitizer $2: $1" tool=$2 path=$3
  shift 3
  HEDDLE_CUDA_PATH=$path HEDDLE_CUDA_CACHE_MIB=0 limited "${SANITIZE_LIMIT:-100}" compute-sanitizer --target-processes all --tool "$tool" --report-api-errors no --print-limit 50 --error-exitcode 9 "$@" \
    >"$scratch/sanitized" 2>&1
  rc=$?
  awk "$judge" "$scratch/sanitized" | sort | uniq -c | sort -rn >"$scratch/reports"
  ran=$(grep -c '^ok' "$scratch/sanitized")
  sed 's/^/# /' "$scratch/reports" | head -20
  if grep -q ' ours ' "$scratch/reports" || grep -q '^not ok' "$scratch/sanitized"; then
    grep -A12 '^========= *[A-Z]\|^not ok' "$scratch/sanitized" | sed 's/^/# /' | head -60
    not_ok "$title ($ran cases)"
  elif over $rc; then skip "$title" "not through within ${SANITIZE_LIMIT:-100} s; nothing was found in the $ran cases before"
  elif grep -q 'Device not supported\|Unable to find injection\|No attachable process\|not supported on' "$scratch/sanitized"; then skip "$title" "$(grep -m1 'supported\|injection\|attachable' "$scratch/sanitized")"
  elif [ "$ran" = 0 ]; then tail -20 "$scratch/sanitized" | sed 's/^/# /'; not_ok "$title: the program did not run (status $rc)"
  elif [ $rc != 0 ] && [ $rc != 9 ]; then tail -20 "$scratch/sanitized" | sed 's/^/# /'; not_ok "$title (status $rc)"
  elif [ $rc = 9 ] && [ ! -s "$scratch/reports" ]; then tail -20 "$scratch/sanitized" | sed 's/^/# /'; not_ok "$title: errors in a form that is not known here"
  else ok "$title ($ran cases), at $(now) s"; fi
}

ops_named () { for case in "$@"; do echo "-p /ops/$case"; done; }

# instrumented code is 10 to 50 times slower: small cases, and what has never run under a tool first
sanitize_all () {
  PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer
  ops=$HEDDLE_BUILD/tests/reference/test-ops runs=$HEDDLE_BUILD/tests/gpu/test-runs
  for tool in ${TOOLS-memcheck racecheck initcheck}; do
    if ! command -v compute-sanitizer >/dev/null 2>&1; then skip "compute-sanitizer $tool" "compute-sanitizer is not in PATH (it is in the toolkit's bin)"; continue; fi
    for what in ${SANITIZED-train generated 16bit own}; do
      case $what in
        train) sanitize "training steps by the libraries" $tool '' env HEDDLE_TEST_SMALL=1 "$runs" --tap -k -p /gpu/graphs/f32/lenet -p /gpu/graphs/f16/gpt ;;
        generated) sanitize "generated kernels" $tool '' "$ops" --tap -k $(ops_named chain chain/large relu6/chain gelu silu select dropout add/broadcast bce_with_logits) ;;
        16bit) sanitize "16 bits by own kernels" $tool own env HEDDLE_TEST_DTYPE=bf16 "$ops" --tap -k $(ops_named matmul conv2d/blocked attention/tiles layer_norm embedding permute sum) ;;
        own) sanitize "operations by own kernels" $tool own "$ops" --tap -k ${CASES-} ;;
      esac
    done
  done
}

if [ "${SANITIZE-}" != only ]; then
  check_programs
  if part program; then check_pipeline; fi
fi
[ -z "${SANITIZE-}" ] || sanitize_all
plan
exit $failed
