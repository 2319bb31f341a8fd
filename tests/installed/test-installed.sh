#!/bin/sh
# tests/installed/test-installed.sh: an installed Heddle and plugins built out of tree, with nothing but what is installed.
# make check: installs into a scratch folder and builds one plugin of each kind; make installcheck sets INSTALLED=1 and the folders
# (DESTDIR in front), and builds every folder of plugins/ too, and one plugin by autotools with heddle.m4.
. "$HEDDLE_SOURCE/tests/tap.sh"
unset MAKEFLAGS MFLAGS MAKELEVEL HEDDLE_BACKEND_PATH
root=${DESTDIR-}
if [ -z "${INSTALLED-}" ]; then
  root=$scratch/root
  check "make install" ${MAKE:-make} -C "$HEDDLE_BUILD" install DESTDIR="$root"
fi
folder () { sed -n "s/^$1 = //p" "$HEDDLE_BUILD/tests/installed/folders"; }
bin=$root$(folder bindir) lib=$root$(folder libdir) share=$root$(folder datadir) man=$root$(folder mandir)
# heddle-1.0.pc as it is, except that a DESTDIR stands before the prefix
mkdir "$scratch/pc" && sed "s|^prefix=|prefix=$root|; s|^\(.*dir\)=\(/.*\)|\1=$root\2|" "$lib/pkgconfig/heddle-1.0.pc" >"$scratch/pc/heddle-1.0.pc"
PKG_CONFIG_PATH=$scratch/pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
XDG_DATA_HOME=$scratch/home
export PKG_CONFIG_PATH LD_LIBRARY_PATH XDG_DATA_HOME
heddle=$bin/heddle
cd "$scratch"

# ---- what is installed
check "the header, alone" $CC -fsyntax-only -Wall -Werror -x c $(pkg-config --cflags heddle-1.0) "$(pkg-config --variable=includedir heddle-1.0)/heddle-1.0/heddle/plugin.h" -Wno-unused-function
for file in "$man/man1/heddle.1" "$share/bash-completion/completions/heddle" "$share/aclocal/heddle.m4" "$share/heddle/lua/heddle/layers.lua"; do
  check "installed: ${file##*/}" test -s "$file"
done
check "the man page is roff" sh -c "! command -v man >/dev/null || man --warnings -l '$man/man1/heddle.1' 2>&1 >/dev/null | grep . >warnings; ! test -s warnings"
"$heddle" doctor >out 2>&1
grep -q 'run from the build tree' out && not_ok "the installed program does not use the build tree" || ok "the installed program does not use the build tree"
grep -q "backend cpu: /" out && ok "the installed backend is found" || { sed 's/^/# /' out; not_ok "the installed backend is found"; }
kinds=$(ls -d "$HEDDLE_SOURCE"/plugins/*/ | wc -l)
[ "$("$heddle" inspect --json | grep -o '"file" *:' | wc -l)" -ge "$kinds" ] && ok "all plugins are installed" || not_ok "all plugins are installed"

# ---- the examples: the files here, and the model of README.md
# block PAGE FILE: the C block after the line `FILE` (README.md: the first C block)
block () { awk -v name="$2" '/^```/ { if (inside) exit; inside = $0 == "```c" && marked; next } inside { print; next } $0 == "`" name "`" { marked = 1 }' "$HEDDLE_SOURCE/docs/$1"; }
readme_model () { awk '/^```/ { if (inside) exit; inside = $0 == "```c"; next } inside' "$HEDDLE_SOURCE/README.md"; }
mkdir src plugins
cp "$HEDDLE_SOURCE"/tests/installed/*-*.c src/
readme_model >src/model-tiny.c
check "README.md has a model" grep -q 'HEDDLE_PLUGIN ("model"' src/model-tiny.c
for file in src/*.c; do
  plug=$(basename "$file" .c)
  check "$plug builds with pkg-config alone" $CC -shared -fPIC -Wall -Werror $(pkg-config --cflags heddle-1.0) "$file" -o plugins/$plug.so $(pkg-config --libs heddle-1.0)
  block plugins.md $plug.c >block
  check "$plug in docs/plugins.md is this file" diff block "$file"
done
mkdir custom
for file in swish.h model-swish.c; do
  block custom-operations.md $file >custom/$file
  check "$file in docs/custom-operations.md is the tests' file" diff custom/$file "$HEDDLE_SOURCE/tests/plugins/$file"
done
check "model-swish builds from that page" $CC -shared -fPIC -Wall -Werror $(pkg-config --cflags heddle-1.0) custom/model-swish.c -o plugins/model-swish.so $(pkg-config --libs heddle-1.0)
# alone FILE: needs nothing of Heddle
alone () { readelf -d "$1" >needed && ! grep -q 'NEEDED.*heddle' needed; }
for file in plugins/*.so; do check "$(basename $file) does not link libheddle" alone $file; done

write () {
  cat >s.lua <<LUA
local h = require "heddle"
local batch  = h.prefetch { h.dataset "${1:-synthetic}" { $2 }, batch_size = 16 }
local logits = h.model "${3:-mlp}" { batch.image, classes = batch.label.classes }
local step   = h.optimizer "${4:-sgd}" { h.loss "cross_entropy" { logits, batch.label }, lr = 0.05 }
return h.train { step, epochs = 4, seed = 1, device = "cpu", log = { $5 } }
LUA
}
# uses WHERE: the four examples are found, inspected and trained with
uses () {
  for plug in dataset-stripes model-tiny optimizer-plain logger-tsv; do
    check "$1: $plug is found" "$heddle" inspect --exists $plug
    check "$1: $plug is inspected" sh -c "'$heddle' inspect $plug | grep -q 1.0"
  done
  write stripes 'length = 128' tiny plain 'h.logger "tsv" { path = "log.tsv", interval = 1 }'
  rm -f log.tsv
  check "$1: all four train" "$heddle" run s.lua
  awk -F '\t' '$1 == 3 && $3 == "loss" { if (!first) first = $4; last = $4; n++ } END { exit !(n == 32 && last < first / 2) }' log.tsv && ok "$1: the loss fell" || { sed 's/^/# /' log.tsv | head -40; not_ok "$1: the loss fell"; }
}
"$heddle" inspect --exists model-tiny && not_ok "not found before it is put anywhere" || ok "not found before it is put anywhere"
HEDDLE_PLUGIN_PATH=$scratch/plugins; export HEDDLE_PLUGIN_PATH
uses HEDDLE_PLUGIN_PATH
write synthetic '' swish sgd ''
check "the operation of docs/custom-operations.md trains" "$heddle" run s.lua
HEDDLE_PLUGIN_PATH=
mkdir -p home/heddle && mv plugins home/heddle/plugins
uses "the user's data folder"

if [ -n "${INSTALLED-}" ]; then
  # ---- every folder of plugins/, from its own sources
  mkdir own
  for folder in "$HEDDLE_SOURCE"/plugins/*/; do
    plug=$(basename "$folder") extra=
    case $plug in dataset-idx) extra=zlib ;; logger-jsonl) extra=json-glib-1.0 ;; esac
    cp -R "$folder" copy && chmod -R u+w copy
    check "$plug builds out of tree" sh -c "$CC -shared -fPIC -O1 $(pkg-config --cflags heddle-1.0 $extra) copy/*.c -o own/$plug.so $(pkg-config --libs heddle-1.0 $extra)"
    check "$plug does not link libheddle" alone own/$plug.so
    HEDDLE_PLUGIN_PATH=$scratch/own "$heddle" inspect "$plug" >out 2>&1
    grep -q "$scratch/own/$plug.so" out && ok "$plug is found where it was built" || { sed 's/^/# /' out; not_ok "$plug is found where it was built"; }
    rm -rf copy
  done
  # ---- autotools, with heddle.m4
  if command -v autoconf >/dev/null && command -v aclocal >/dev/null; then
    mkdir auto && cp src/model-tiny.c auto/ && cd auto
    printf 'AC_INIT([tiny],[1])\nAC_PROG_CC\nPKG_PROG_PKG_CONFIG\nHEDDLE_PLUGIN([>= 0.1])\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n' >configure.ac
    printf 'model-tiny.so: model-tiny.c\n\t@CC@ -shared -fPIC @HEDDLE_CFLAGS@ model-tiny.c -o $@ @HEDDLE_LIBS@\nfolder:\n\t@echo @heddle_plugindir@\n' >Makefile.in
    check "heddle.m4: configures and builds" sh -c "aclocal -I '$share/aclocal' && autoconf && ./configure && make"
    [ "$(make -s folder 2>/dev/null)" = "$(pkg-config --variable=plugindir heddle-1.0)" ] && ok "heddle.m4: knows the plugin folder" || not_ok "heddle.m4: knows the plugin folder"
    sed -i 's/>= 0.1/>= 99/' configure.ac
    check "heddle.m4: a version that is not there is refused" sh -c "aclocal -I '$share/aclocal' && autoconf && ! ./configure"
    cd ..
  else skip "heddle.m4" "there is no autoconf"; fi
fi
plan
