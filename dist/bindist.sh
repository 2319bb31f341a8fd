#!/bin/sh
# bindist.sh SOURCE BUILD VERSION: make bindist: heddle-VERSION-x86_64.tar.gz, which runs where nothing can be installed: the program, plugins, backends, tests, benchmarks and the
# libraries they need that are not the C library's, the compiler's or NVIDIA's.  Those of NVIDIA are found on the machine: in the usual prefixes, or inside a Python's nvidia packages.
# Run from the build folder after everything is built.  Nothing is patched: env.sh sets the library path, the program finds the rest relative to itself.
set -eu
source=$1 build=$2 name=heddle-$3-$(uname -m)
rm -rf "$name" "$name.stage"
mkdir -p "$name/lib" "$name/source" "$name/build"
${MAKE:-make} -C "$build" install DESTDIR="$PWD/$name.stage" >"$name.log" 2>&1 || { tail -20 "$name.log" >&2; exit 1; }
prefix=$(sed -n 's/^prefix = //p' "$build/Makefile" | head -1)
for folder in bin lib share; do cp -a "$name.stage$prefix/$folder" "$name/"; done
rm -rf "$name.stage" "$name.log"
find "$name/lib" -name '*.la' -exec rm {} +

# tests and benchmarks: the programs behind libtool's scripts, and what they read
copy_program () { [ ! -e "$build/$1" ] || { mkdir -p "$name/build/${1%/*}"; real=${1%/*}/.libs/${1##*/}; [ ! -e "$build/$real" ] || set -- "$1" "$real"; cp "$build/${2-$1}" "$name/build/$1"; }; }
for program in $(grep -o '[a-z]*/test-[a-z]*' "$source/tests/gpu/check.sh" | sort -u) backend/test-device bench/bench-loader bench/bench-update; do copy_program tests/$program; done
[ ! -e "$build/tests/bench/.libs/dataset-resident.so" ] || { mkdir -p "$name/build/tests/bench/.libs"; cp "$build/tests/bench/.libs/dataset-resident.so" "$name/build/tests/bench/.libs/"; }
(cd "$source" && tar cf - pipelines README.md COPYING tests/tap.sh tests/fixtures/*.txt tests/gpu tests/bench docs) | tar xf - -C "$name/source"

# libraries: everything the loader takes from elsewhere, except what each machine has of its own
find "$name" -type f \( -name '*.so*' -o -perm -100 \) | while read -r file; do
  LD_LIBRARY_PATH=$name/lib ldd "$file" 2>/dev/null | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do
  case ${library##*/} in
    libc.so.*|libm.so.*|libdl.so.*|librt.so.*|libpthread.so.*|ld-linux*|libstdc++.so.*|libgcc_s.so.*) ;;
    libcuda*|libcudart*|libcublas*|libcudnn*|libnvrtc*|libnccl*|libnvJitLink*) ;;
    libheddle.so.*) ;;
    *) cp -L "$library" "$name/lib/" ;;
  esac
done

cat >"$name/env.sh" <<'ENV'
# . ./env.sh in the bundle's folder, or with HEDDLE_HOME set to it
HEDDLE_HOME=${HEDDLE_HOME:-$PWD}
# Python's first: PyTorch, which Heddle is compared with, uses the same
heddle_python=${HEDDLE_TORCH_PYTHON:-python3}
heddle_cuda=$("${heddle_python%%:*}" - 2>/dev/null <<'PY'
import glob, os, sys
for base in sys.path:
    for folder in sorted (glob.glob (os.path.join (base, "nvidia", "*", "lib"))):
        print (":" + folder, end = "")
PY
)
for folder in /usr/local/cuda/lib64 /usr/local/cuda/lib /opt/cuda/lib64 /usr/lib/x86_64-linux-gnu; do
  ! ls "$folder"/libcudart.so* >/dev/null 2>&1 || heddle_cuda=$heddle_cuda:$folder
done
# what other programs are to be started with: PyTorch brings libraries of its own
HEDDLE_OUTER_LIBRARY_PATH=${HEDDLE_OUTER_LIBRARY_PATH-${LD_LIBRARY_PATH-}}
HEDDLE_CUDA_LIBPATH=${heddle_cuda#:}
LD_LIBRARY_PATH=$HEDDLE_HOME/lib$heddle_cuda${HEDDLE_OUTER_LIBRARY_PATH:+:$HEDDLE_OUTER_LIBRARY_PATH}
PATH=$HEDDLE_HOME/bin:$PATH
HEDDLE=$HEDDLE_HOME/bin/heddle HEDDLE_SOURCE=$HEDDLE_HOME/source HEDDLE_BUILD=$HEDDLE_HOME/build
HEDDLE_BACKEND_PATH=$HEDDLE_HOME/lib/heddle/backends HEDDLE_PLUGIN_PATH=$HEDDLE_HOME/lib/heddle/plugins HEDDLE_BENCH_PROGRAMS=$HEDDLE_HOME/build/tests/bench
export HEDDLE_HOME HEDDLE_OUTER_LIBRARY_PATH HEDDLE_CUDA_LIBPATH LD_LIBRARY_PATH PATH HEDDLE HEDDLE_SOURCE HEDDLE_BUILD HEDDLE_BACKEND_PATH HEDDLE_PLUGIN_PATH HEDDLE_BENCH_PROGRAMS
unset heddle_cuda heddle_python folder
ENV
built_with=$(sed -n 's/^CUDA_VERSION_STR = //p' "$build/Makefile") cudnn=$(sed -n 's/^CUDNN_VERSION_STR = //p' "$build/Makefile")
cat >"$name/README" <<TEXT
Built with CUDA ${built_with:-none} and cuDNN ${cudnn:-none}: the machine's libraries must be of the same major versions, its driver no older than they ask for.

TEXT
cat >>"$name/README" <<'TEXT'
Unpack anywhere, then in this folder:

  . ./env.sh
  heddle doctor
  heddle run source/pipelines/fashion-mnist.lua --arg dataset=synthetic
  sh source/tests/gpu/check.sh                     the tests that need a GPU (SANITIZE=1: compute-sanitizer too)
  python3 source/tests/bench/gpu/gpu.py            the GPU benchmark beside this machine's PyTorch
  source/docs/gpu.md                               in which order, in how much time, and how to narrow them

glibc, libstdc++ and libgcc are the machine's; NVIDIA's libraries are looked for in the nvidia packages of python3 (or of
HEDDLE_TORCH_PYTHON, set before env.sh is read: the Python with PyTorch), then in the usual prefixes.
TEXT
tar czf "$name.tar.gz" "$name"
rm -rf "$name"
ls -l "$name.tar.gz"
