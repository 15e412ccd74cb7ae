#!/bin/bash
# Before each instance: prepare_instance.sh v1 CATEGORY ONNX VNNLIB. There is nothing to convert; a file that cannot be read is told here. A process that
# outlived the last instance is ended, by the id that run_instance.sh left.
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "expected the version string v1, found '${1:-}'" >&2; exit 1; }
[ $# -ge 4 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -f "$here/last.pid" ]; then
  last=$(cat "$here/last.pid")
  if grep -qs "dist/src/cli/main.js" "/proc/$last/cmdline"; then kill -9 "$last"; fi
  rm -f "$here/last.pid"
fi
[ -r "$4" ] || { echo "$4 cannot be read" >&2; exit 1; }
"$here/mixtrain.sh" --version >/dev/null
