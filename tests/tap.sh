# tests/tap.sh: sourced by the shell tests: TAP, a scratch folder that goes with the test, the program as $HEDDLE.
set -u
export LC_ALL=C
count=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/heddle-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
HEDDLE=${HEDDLE:?run by make check}
CC=${CC:-cc}

ok ()    { count=$((count + 1)); echo "ok $count - $1"; }
not_ok () { count=$((count + 1)); echo "not ok $count - $1"; }
skip ()  { count=$((count + 1)); echo "ok $count - $1 # SKIP $2"; }
# check NAME COMMAND...: passes when the command succeeds
check () { name=$1; shift; if "$@" >"$scratch/check.out" 2>&1; then ok "$name"; else sed 's/^/# /' "$scratch/check.out" | head -30; not_ok "$name"; fi; }
plan ()  { echo "1..$count"; }
