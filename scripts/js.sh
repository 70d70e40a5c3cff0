#!/bin/sh
# js.sh: the tests of the browser's side, under Node; npm packages only where tests/js asks for any.
set -eu
cd "$(dirname "$0")/../tests/js"

if ! command -v node >/dev/null 2>&1; then
    echo "node is missing: tests/js did not run" >&2
    [ -z "${CI:-}" ] && exit 0
    exit 1
fi
if [ -f package.json ] && [ package.json -nt node_modules/.stamp ]; then
    npm install --silent --no-audit --no-fund --no-package-lock </dev/null
    mkdir -p node_modules
    touch node_modules/.stamp
fi
exec node --test
