#!/bin/bash
# One instance: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULT TIMEOUT. RESULT gets unsat, sat and a counterexample, unknown, timeout or error. ONNX is a file or, for a property of
# several networks, NAME=FILE for each, with commas between, or a list [("NAME", "FILE"), ...].
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "expected the version string v1, found '${1:-}'" >&2; exit 1; }
[ $# -ge 6 ] || { echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULT TIMEOUT" >&2; exit 1; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
category=$2 onnx=$3 vnnlib=$4 result=$5 timeout=$6
echo "mixtrain on $category: $onnx, $vnnlib, $timeout s"

# What is left of the time once the runtime has started and before it must have ended.
limit=$(awk -v t="$timeout" 'BEGIN { s = t > 4 ? t - 1 : 0.75 * t; print s < 0.1 ? 0.1 : s }')
if [ -f "$onnx" ]; then
  arguments=("$onnx" "$vnnlib")
else
  arguments=("$vnnlib")
  pairs=$(echo "$onnx" | sed -E "s/[][ \"']//g; s/\),\(/\n/g; s/[()]//g" | sed -E '/=/!s/,/=/; s/,/\n/g')
  while read -r pair; do [ -n "$pair" ] && arguments+=(--network "$pair"); done <<< "$pairs"
fi

# The competition runs a counterexample by onnxruntime: where that is installed, nothing is sat that it does not confirm.
replay=off
for package in onnxruntime-node onnxruntime-web; do
  [ -d "$here/../../node_modules/$package" ] && replay=require
done
answer=$(mktemp)
trap 'rm -f "$answer" "$here/last.pid"' EXIT
"$here/mixtrain.sh" verify "${arguments[@]}" --timeout "$limit" --replay "$replay" >"$answer" &
echo $! > "$here/last.pid"
wait $!
code=$?
if [ $code -ne 0 ]; then
  echo error > "$result"
else
  sed '1s/^timed-out$/timeout/' "$answer" > "$result"
fi
head -1 "$result"
