#!/bin/bash
# mixtrain as install_tool.sh has installed it.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$here/node/node_modules/.bin:$PATH"
exec node "$here/../../dist/src/cli/main.js" "$@"
