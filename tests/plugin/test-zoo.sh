#!/bin/sh
# tests/plugin/test-zoo.sh: every way a plugin can be bad is refused with its reason, without a crash, and leaves the good ones usable.
. "$HEDDLE_SOURCE/tests/tap.sh"
flags="-shared -fPIC -I$HEDDLE_BUILD/include $(pkg-config --cflags glib-2.0)"
libs=$(pkg-config --libs glib-2.0)
folder=$scratch/zoo
mkdir "$folder"

# make FAULT KIND-NAME [LIBS]
make_plugin () {
  $CC $flags -DFAULT="$1" -DNAME="\"${2#*-}\"" "$HEDDLE_SOURCE/tests/plugin/zoo.c" -o "$folder/$2.so" ${3-} $libs || echo "Bail out! $2 does not compile"
}
# refused KIND-NAME TEXT: inspect lists it among what did not load, with TEXT, and still succeeds
refused () {
  if "$HEDDLE" inspect --plugin-path "$folder" >"$scratch/out" 2>&1 && grep "$1.so" "$scratch/out" | grep -q -e "$2"; then ok "$1: $2"
  else grep "$1" "$scratch/out" | sed 's/^/# /'; not_ok "$1: $2"; fi
}

make_plugin GOOD model-good
make_plugin OLDER model-older
make_plugin WRONG_MAGIC model-wrong_magic
make_plugin WRONG_ABI model-wrong_abi
make_plugin SHORT_DESCRIPTOR model-short_descriptor
make_plugin MISSING_SLOT model-missing_slot
make_plugin NAME_MISMATCH model-name_mismatch
make_plugin BAD_OPTIONS model-bad_options
make_plugin NO_INSTANCE model-no_instance
make_plugin UNKNOWN_KIND model-unknown_kind
make_plugin NO_SYMBOL model-no_symbol
make_plugin WRONG_SIZE model-wrong_size
make_plugin UNDEFINED_SYMBOL model-undefined_symbol
make_plugin NO_LR optimizer-no_lr
echo 'int absent (void) { return 0; }' >"$scratch/absent.c"
$CC -shared -fPIC "$scratch/absent.c" -o "$scratch/libabsent.so"
make_plugin MISSING_LIBRARY model-missing_library "-L$scratch -labsent"
rm "$scratch/libabsent.so"
echo 'this is not a shared object' >"$folder/model-text.so"
: >"$folder/model-empty.so"
cp "$folder/model-good.so" "$folder/dataset-misnamed.so"

check "the good one is found" "$HEDDLE" inspect --plugin-path "$folder" --exists model-good
check "one built against shorter structures is accepted" "$HEDDLE" inspect --plugin-path "$folder" --exists model-older
refused model-wrong_magic 'magic'
refused model-wrong_abi 'built for plugin ABI 2; this Heddle takes ABI 1'
refused model-short_descriptor 'too short'
refused model-missing_slot 'required slot "build" of a model is missing'
refused model-name_mismatch 'calls itself model "other", so its file must be named model-other.so'
refused model-bad_options 'option table: "classes": default out of range'
refused model-no_instance 'instance size 0'
refused model-unknown_kind 'unknown kind "modle"'
refused model-no_symbol 'exports no symbol "heddle_plugin"'
refused model-wrong_size 'interface says it has'
refused optimizer-no_lr 'needs a FLOAT option "lr"'
refused model-missing_library 'libabsent.so: cannot open shared object file'
refused model-undefined_symbol 'undefined symbol: heddle_of_the_core'
refused model-text 'cannot be loaded'
refused model-empty 'cannot be loaded'
refused dataset-misnamed 'its file must be named model-good.so'

# an older folder's plugin of the same name is hidden, not loaded twice
mkdir "$scratch/first"
cp "$folder/model-good.so" "$scratch/first/"
"$HEDDLE" inspect --plugin-path "$scratch/first" --plugin-path "$folder" >"$scratch/out" 2>&1
check "the earlier folder wins" grep -q 'good .*hidden by an earlier folder' "$scratch/out"

# a script that names a refused plugin is told why
cat >"$scratch/s.lua" <<'LUA'
local h = require "heddle"
local b = h.prefetch { h.dataset "synthetic" {}, batch_size = 8 }
return h.train { h.optimizer "sgd" { h.loss "cross_entropy" { h.model "wrong_abi" { b.image }, b.label }, lr = 0.1 } }
LUA
"$HEDDLE" check "$scratch/s.lua" --plugin-path "$folder" >"$scratch/out" 2>&1
[ $? = 1 ] && grep -q 's.lua:3: model: .*built for plugin ABI 2' "$scratch/out" && ok "a script that asks for a refused plugin names line and reason" || { sed 's/^/# /' "$scratch/out"; not_ok "a script that asks for a refused plugin names line and reason"; }
sed -i 's/wrong_abi/older/; s/b.image }/b.image, classes = 10 }/' "$scratch/s.lua"
check "a plugin built against shorter structures trains" "$HEDDLE" check "$scratch/s.lua" --steps 2 --plugin-path "$folder"
# never from the current folder
cd "$folder" && "$HEDDLE" inspect --exists model-good && not_ok "plugins of the current folder are not picked up" || ok "plugins of the current folder are not picked up"
plan
