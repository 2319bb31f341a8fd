#!/bin/sh
# make bench: Heddle beside PyTorch; arguments go to compare.py.  Needs a Python with PyTorch: HEDDLE_TORCH_PYTHON names one, or several with colons.
here=$(cd "$(dirname "$0")" && pwd)
: "${HEDDLE_TORCH_PYTHON:=python3}"
export HEDDLE_TORCH_PYTHON
first=${HEDDLE_TORCH_PYTHON%%:*}
if ! "$first" -c 'import torch' 2>/dev/null; then
  echo "make bench: $first has no PyTorch" >&2
  echo "hint: apt install python3-torch, or set HEDDLE_TORCH_PYTHON to a Python that has it" >&2
  exit 1
fi
exec "$first" "$here/compare.py" "$@"
