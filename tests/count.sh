#!/bin/sh
# count.sh FOLDER: adds up the TAP results of the logs under FOLDER; the last line is "N passed, N failed, N skipped".
# Fails when a test failed, a program ended badly, or nothing passed.
folder=${1:-.}
passed=0 failed=0 skipped=0
for trs in $(find "$folder/tests" -name '*.trs' | sort); do
  p=$(grep -c '^:test-result: PASS' "$trs") || :
  s=$(grep -c '^:test-result: SKIP' "$trs") || :
  f=$(grep -c -E '^:test-result: (FAIL|XPASS|ERROR)' "$trs") || :
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  [ "$f" = 0 ] || grep -E '^:test-result: (FAIL|XPASS|ERROR)' "$trs" | sed "s|^:test-result:|$(basename "$trs" .trs):|"
  [ "$s" = 0 ] || grep '^:test-result: SKIP' "$trs" | sed "s|^:test-result:|$(basename "$trs" .trs):|"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
