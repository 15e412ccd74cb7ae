#!/bin/bash
# Installs mixtrain for a run of VNN-COMP, on a bare Debian or Ubuntu: install_tool.sh v1
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "expected the version string v1, found '${1:-}'" >&2; exit 1; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
major() { node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0; }

if [ "$(major)" -lt 20 ]; then
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root apt-get update
  $as_root apt-get install -y --no-install-recommends nodejs npm ca-certificates
fi
if [ "$(major)" -lt 20 ]; then
  # Debian's Node is older: npm has the runtime as a package.
  npm install --prefix "$here/node" --no-save node@22
  export PATH="$here/node/node_modules/.bin:$PATH"
fi
[ "$(major)" -ge 20 ] || { echo "Node 20 or later is needed, found $(node --version)" >&2; exit 1; }
cd "$root"
[ -d node_modules ] || npm ci --omit=optional
[ -f dist/src/cli/main.js ] || npm run build
node dist/src/cli/main.js --version
