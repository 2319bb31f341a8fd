#!/bin/sh
# tests/errors/test-errors.sh: what a person reads when something is wrong: exit status and text against golden files.
# UPDATE=1 writes the golden files anew; read the difference before committing it.
. "$HEDDLE_SOURCE/tests/tap.sh"
golden=$HEDDLE_SOURCE/tests/errors/golden
cd "$scratch"

# expect NAME STATUS ARGS...: runs heddle ARGS and compares status and stderr
expect () {
  name=$1 status=$2
  shift 2
  "$HEDDLE" "$@" >out 2>err
  got=$?
  sed -e "s|$scratch|DIR|g" -e "s|$HEDDLE_BUILD|BUILD|g" -e '/^hint: searched /s/ .*/ .../' err | sed -e '/^hint: searched/s/.*/hint: searched .../' >err.clean
  echo "exit $got" >>err.clean
  [ -z "${UPDATE-}" ] || cp err.clean "$golden/$name.txt"
  if [ $got = "$status" ] && cmp -s err.clean "$golden/$name.txt"; then ok "$name"
  else diff -u "$golden/$name.txt" err.clean | sed 's/^/# /'; not_ok "$name"; fi
}

# script BODY: a whole script around a changed part; $data, $prefetch, $model, $loss, $opt, $train replace the usual lines
usual () {
  data='h.dataset "synthetic" { length = 64, shape = { 1, 8, 8 }, classes = 4 }'
  prefetch='h.prefetch { data, batch_size = 16, num_workers = 0 }'
  model='h.model "mlp" { batch.image, classes = batch.label.classes }'
  loss='h.loss "cross_entropy" { logits, batch.label }'
  opt='h.optimizer "sgd" { loss, lr = 0.1 }'
  train='h.train { step, device = "cpu" }'
  before=
}
write () {
  cat >s.lua <<LUA
local h = require "heddle"
$before
local data = $data
local batch = $prefetch
local logits = $model
local loss = $loss
local step = $opt
return $train
LUA
}

# ---- options
usual; prefetch='h.prefetch { data, bach_size = 16 }'; write; expect option-unknown 1 check s.lua
usual; prefetch='h.prefetch { data, batch_size = "many" }'; write; expect option-type 1 check s.lua
usual; prefetch='h.prefetch { data, batch_size = 0 }'; write; expect option-range 1 check s.lua
usual; opt='h.optimizer "sgd" { loss }'; write; expect option-required 1 check s.lua
usual; opt='h.optimizer "sgd" { loss, lr = 0.1, nesterov = true }'; write; expect option-contradiction 1 check s.lua --steps 1
usual; before='h.flags { tf32 = true, tf32_matmul = false }'; write; expect flags-contradiction 1 check s.lua --steps 1
usual; before='h.flags { tf23 = true }'; write; expect flags-unknown 1 check s.lua
usual; train='h.train { step, epoch_mode = "contine" }'; write; expect option-enum 1 check s.lua
usual; model='h.model "sequential" { batch.image, layers = { { type = "linaer", features = 4 } } }'; write; expect option-layer 1 check s.lua
usual; write; expect set-unknown-stage 2 check s.lua --set prefetsh.batch_size=8
usual; write; expect set-unknown-option 1 check s.lua --set prefetch.batch_sise=8
usual; write; expect set-syntax 2 check s.lua --set prefetch
usual; write; expect set-empty 1 check s.lua --set prefetch.batch_size=
usual; write; expect set-large 1 check s.lua --set prefetch.batch_size=99999999999999999999
usual; write; expect set-infinite 1 check s.lua --set optimizer.lr=1e999
usual; write; expect set-nan 1 check s.lua --set optimizer.lr=nan
# ---- the environment
misspelt_folder () { HEDDLE_PLUGIN_PATH=/nowhere "$HEDDLE" check s.lua >out 2>err; [ $? = 1 ] && grep -q '^hint: searched /nowhere (not there):' err; }
usual; model='h.model "mpl" { batch.image, classes = 4 }'; write; check "a plugin folder that is not there is named in the error" misspelt_folder
export HEDDLE_BACKEND_PATH=/nowhere
usual; write; expect backend-path 3 check s.lua --steps 1
unset HEDDLE_BACKEND_PATH
# ---- the script
usual; loss='h.loss "cross_entropy" { logit, batch.label }'; write; expect script-undefined 1 check s.lua
usual; before='counter = 1'; write; expect script-global 1 check s.lua
usual; before='local x = = 1'; write; expect script-syntax 1 check s.lua
usual; before='while true do end'; write; expect script-endless 1 check s.lua
usual; before='local s = "x" while true do s = s .. s end'; write; expect script-memory 1 check s.lua
usual; before='local f = os.execute'; write; expect script-door 1 check s.lua
usual; before='local io = require "io"'; write; expect script-require 1 check s.lua
printf '\033Lua bytecode' >s.lua; expect script-bytecode 1 check s.lua
echo 'return 1' >s.lua; expect script-returns 1 check s.lua
expect script-absent 1 check absent.lua
mkdir folder.lua; expect script-folder 1 check folder.lua
# /proc/self/mem opens and cannot be read from its start: a device error
expect script-unreadable 1 check /proc/self/mem
# without the capability that lets root read everything
echo 'return 1' >secret.lua; chmod 000 secret.lua
plain=$HEDDLE
if [ "$(id -u)" = 0 ]; then
  printf '#!/bin/sh\nexec setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -dac_override,-dac_read_search "%s" "$@"\n' "$plain" >as-user && chmod +x as-user
  HEDDLE=./as-user
fi
expect script-forbidden 1 check secret.lua
HEDDLE=$plain
usual; before='local a = h.arg ("rate", 0.1, "a rate")'; write; expect arg-unknown 2 check s.lua --arg raet=1
usual; before='local a = h.arg ("rate", 0.1, "a rate")'; write; expect arg-type 2 check s.lua --arg rate=fast
usual; before='local a = h.arg "root"'; write; expect arg-required 2 check s.lua
# ---- wiring and contracts
usual; loss='h.loss "cross_entropy" { logits }'; write; expect input-missing 1 check s.lua
usual; loss='h.loss "cross_entropy" { logits, batch }'; write; expect input-kind 1 check s.lua
usual; model='h.model "mlp" { data, classes = 4 }'; write; expect input-dataset 1 check s.lua
usual; loss='h.loss "cross_entropy" { logits, batch.lable }'; write; expect input-field 1 check s.lua
usual; loss='h.loss "cross_entropy" { logits, nil_value }'; before='local nil_value'; write; expect input-nil 1 check s.lua
usual; loss='h.loss "cross-entropy" { logits, batch.label }'; write; expect stage-variant 1 check s.lua
usual; model='h.modle "mlp" { batch.image, classes = 4 }'; write; expect stage-verb 1 check s.lua
usual; model='h.model "mpl" { batch.image, classes = 4 }'; write; expect plugin-unknown 1 check s.lua
usual; model='h.model "mlp" { batch.image, classes = 7 }'; write; expect contract-classes 1 check s.lua
usual; loss='h.loss "mse" { logits, batch.image }'; write; expect contract-shape 1 check s.lua
usual; loss='h.loss "cross_entropy" { logits, logits }'; write; expect contract-dtype 1 check s.lua
usual; model='h.model "sequential" { batch.image, layers = { { type = "conv2d", channels = 4, kernel = 9 } } }'; write; expect contract-kernel 1 check s.lua
usual; model='h.model "sequential" { batch.image, layers = { { type = "reshape", shape = { 4, 16 } }, { type = "residual", layers = { { type = "relu" }, { type = "attention", heads = 5 } } } } }'; write; expect contract-heads 1 check s.lua
usual; loss='h.loss "bce_with_logits" { logits, batch.label }'; write; expect loss-dtype 1 check s.lua
usual; loss='h.loss "smooth_l1" { logits, batch.image }'; write; expect loss-shape 1 check s.lua
usual; loss='h.loss "bce_with_logits" { logits, logits, pos_weight = { 1, 2, 3 } }'; write; expect loss-weights 1 check s.lua
usual; train='h.train { step, eval = { data = h.dataset "synthetic" { shape = { 1, 9, 9 }, classes = 4 } } }'; write; expect contract-eval 1 check s.lua
usual; train='h.train { step, eval = { accuracy = h.metric "accuracy" { logits, batch.label } } }'; write; expect eval-no-data 1 check s.lua
usual; train='h.train { step, eval = { data = data, h.metric "accuracy" { logits, batch.label } } }'; write; expect eval-nameless 1 check s.lua
usual; prefetch='h.prefetch { data, batch_size = 100, drop_last = true }'; write; expect data-smaller-than-batch 1 check s.lua
usual; prefetch='h.prefetch { data, batch_size = 9 }'; model='h.model "sequential" { batch.image, layers = { { type = "global_avg_pool" }, { type = "batch_norm" }, { type = "linear", features = 4 } } }'; write; expect batch-of-one 1 check s.lua
printf 'some text that is long enough for a window' >some.txt
usual; data='h.dataset "text" { file = "some.txt", window = 8 }'; prefetch='h.prefetch { data, batch_size = 4, num_workers = 0 }'
model='h.model "gpt" { batch.tokens, classes = batch.targets.classes, layers = 1, heads = 2, width = 8, context = 8 }'; loss='h.loss "cross_entropy" { logits, batch.targets }'
write; check "logits (B, T, classes) with targets (B, T)" "$HEDDLE" check s.lua --steps 1
model='h.model "gpt" { batch.tokens, classes = 99, layers = 1, heads = 2, width = 8, context = 8 }'; write; expect contract-vocabulary 1 check s.lua
model='h.model "gpt" { batch.tokens, classes = batch.targets.classes, layers = 1, heads = 2, width = 8, context = 7 }'; write; expect contract-context 1 check s.lua
model='h.model "mlp" { batch.tokens, classes = batch.targets.classes }'; write; expect contract-tokens-mlp 1 check s.lua
data='h.dataset "synthetic" { length = 64, shape = { 8 }, classes = 4, dtype = "u8" }'; model='h.model "gpt" { batch.image, classes = 4, layers = 1, heads = 2, width = 8, context = 8 }'; loss='h.loss "cross_entropy" { logits, batch.label }'
write; expect contract-tokens-image 1 check s.lua
data='h.dataset "npy" { fields = { tokens = { file = "tokens.npy", classes = 4 }, label = { file = "one-each.npy", classes = 4 } } }'
model='h.model "gpt" { batch.tokens, classes = 4, layers = 1, heads = 2, width = 8, context = 8 }'
python3 - <<'PY2'
for name, shape in (('tokens', (4, 8)), ('one-each', (4,))):
    text = repr ({ 'descr': '|u1', 'fortran_order': False, 'shape': shape }).encode ().ljust (117) + b'\n'
    open (name + '.npy', 'wb').write (b'\x93NUMPY\1\0' + bytes ((len (text), 0)) + text + bytes (shape[0] * (shape[1] if len (shape) > 1 else 1)))
PY2
write; expect contract-rows 1 check s.lua
# ---- devices and runs
usual; train='h.train { step, device = "cuda:1" }'; write
HEDDLE_BACKEND_PATH=$HEDDLE_BUILD/core/backend/cpu/.libs; export HEDDLE_BACKEND_PATH; expect device-cuda 3 run s.lua; unset HEDDLE_BACKEND_PATH
no_gpu () {
  CUDA_VISIBLE_DEVICES= "$HEDDLE" run s.lua >out 2>&1; status=$?
  cat out
  [ $status = 3 ] && grep -Eq '^heddle: s.lua:8: train: device: (no NVIDIA driver on this machine|cudaGetDeviceCount: no CUDA-capable device)' out && grep -q '^hint: ' out
}
falls_back () { CUDA_VISIBLE_DEVICES= "$HEDDLE" run s.lua >out 2>&1; status=$?; cat out; [ $status = 0 ] && grep -Eq 'on cpu.*no (NVIDIA driver|CUDA-capable device)' out; }
if [ -e "$HEDDLE_BUILD/core/backend/cuda/.libs/cuda.so" ]; then
  check "device = cuda without a GPU" no_gpu
  usual; train='h.train { step, device = "auto", log = { h.logger "progress" {} } }'; write; check "device = auto without a GPU" falls_back
else
  skip "device = cuda without a GPU" "no cuda module"
  skip "device = auto without a GPU" "no cuda module"
fi
usual; train='h.train { step, device = "gpu" }'; write; expect device-unknown 3 run s.lua
usual; train='h.train { step, device = "cpu:1" }'; write; expect device-index 3 run s.lua
usual; write
HEDDLE_CPU_ISA=avx; export HEDDLE_CPU_ISA; expect device-isa 3 run s.lua; unset HEDDLE_CPU_ISA
usual; opt='h.optimizer "sgd" { loss, lr = 1e6 }'; train='h.train { step, epochs = 40, device = "cpu", seed = 1 }'; write; expect run-not-finite 3 run s.lua
# ---- data files
python3 - <<'PY'
import gzip, struct
def idx (dims, data, magic=None):
    return struct.pack ('>I', magic if magic is not None else 0x0800 + len (dims)) + b''.join (struct.pack ('>I', d) for d in dims) + data
images = idx ((20, 4, 4), bytes (range (160)) * 2)
labels = idx ((20,), bytes (i % 10 for i in range (20)))
import os
def put (name, i, l):
    os.makedirs (name, exist_ok=True)
    open (name + '/train-images-idx3-ubyte', 'wb').write (i)
    open (name + '/train-labels-idx1-ubyte', 'wb').write (l)
put ('good', images, labels)
put ('truncated', images[:-7], labels)
put ('oversized', images + b'more', labels)
put ('empty', b'', labels)
put ('magic', idx ((20, 4, 4), bytes (320), 0x12345678), labels)
put ('swapped', labels, images)
put ('count', images, idx ((19,), bytes (19)))
put ('labels', images, idx ((20,), bytes (10) + b'\x0c' + bytes (9)))
os.makedirs ('gz', exist_ok=True)
z = bytearray (gzip.compress (images)); z[len (z) // 2] ^= 0xff
open ('gz/train-images-idx3-ubyte.gz', 'wb').write (bytes (z))
open ('gz/train-labels-idx1-ubyte.gz', 'wb').write (gzip.compress (labels))
os.makedirs ('gzcut', exist_ok=True)
open ('gzcut/train-images-idx3-ubyte.gz', 'wb').write (gzip.compress (images)[:-12])
open ('gzcut/train-labels-idx1-ubyte.gz', 'wb').write (gzip.compress (labels))
os.makedirs ('cifar', exist_ok=True)
for n in range (1, 6): open ('cifar/data_batch_%d.bin' % n, 'wb').write (bytes (3073 * 2 - 5))
PY
for kind in truncated oversized empty magic swapped count labels gz gzcut; do
  usual; data="h.dataset \"idx\" { root = \"$kind\" }"; write; expect idx-$kind 1 check s.lua --steps 1
done
usual; data='h.dataset "idx" { root = "nowhere" }'; write; expect idx-absent 1 check s.lua
usual; data='h.dataset "cifar" { root = "cifar" }'; write; expect cifar-truncated 1 check s.lua
usual; data='h.dataset "idx" { root = "good" }'; write; check "the same files unharmed are read" "$HEDDLE" check s.lua --steps 1
# ---- text and arrays
printf 'caf\351 au lait, and some more of it' >latin1.txt; : >empty.txt; echo short >short.txt
python3 - <<'PY'
def npy (name, descr, shape, data, fortran=False, version=1):
    text = repr ({ 'descr': descr, 'fortran_order': fortran, 'shape': shape }).encode ()
    text += b' ' * (117 - len (text)) + b'\n'
    open (name, 'wb').write (b'\x93NUMPY' + bytes ((version, 0, len (text), 0)) + text + data)
npy ('x.npy', '<f4', (4, 2), bytes (32))
npy ('short.npy', '<f4', (4, 2), bytes (31))
npy ('fortran.npy', '<f4', (4, 2), bytes (32), True)
npy ('big.npy', '>f4', (4, 2), bytes (32))
npy ('complex.npy', '<c8', (4, 2), bytes (64))
npy ('version.npy', '<f4', (4, 2), bytes (32), version=9)
npy ('three.npy', '<i8', (3,), bytes (24))
npy ('labels.npy', '<i8', (4,), bytes (8) + b'\7' + bytes (23))
open ('zip.npy', 'wb').write (b'PK\3\4 an archive')
PY
for kind in latin1 empty short absent; do
  usual; data="h.dataset \"text\" { file = \"$kind.txt\" }"; write; expect text-$kind 1 check s.lua --steps 1
done
for kind in short fortran big complex version zip absent; do
  usual; data="h.dataset \"npy\" { fields = { image = \"$kind.npy\" } }"; write; expect npy-$kind 1 check s.lua --steps 1
done
usual; data='h.dataset "npy" { fields = { image = "x.npy", label = { file = "three.npy", classes = 2 } } }'; write; expect npy-lengths 1 check s.lua --steps 1
usual; data='h.dataset "npy" { fields = { image = "x.npy", label = { file = "labels.npy", classes = 2 } } }'; prefetch='h.prefetch { data, batch_size = 4, num_workers = 0 }'; write
expect npy-label 1 check s.lua --steps 1
train='h.train { step, device = "cpu", epochs = 1 }'; write; expect npy-label-run 1 run s.lua
usual; data='h.dataset "npy" { fields = { image = "x.npy", label = { file = "labels.npy", clases = 2 } } }'; write; expect npy-option 1 check s.lua --steps 1
usual; data='h.dataset "npy" { fields = { image = "x.npy", label = { file = "labels.npy", classes = 8 } } }'; prefetch='h.prefetch { data, batch_size = 4, num_workers = 0 }'; write
check "arrays unharmed are read" "$HEDDLE" check s.lua --steps 1
# ---- the command line
expect verb-unknown 2 rnu
expect verb-option 2 run --frobnicate s.lua
expect verb-no-script 2 run
expect inspect-unknown 1 inspect model-lenett
plan
