#!/bin/sh
# js.sh: the tests of the browser's side, under Node; npm packages only where tests/js asks for any.
set -eu
cd "$(dirname "$0")/../tests/js"

if ! command -v node >/dev/null 2>&1; then
    echo "node is missing: tests/js did not run" >&2
    [ -z "${CI:-}" ] && exit 0
    exit 1
fi
stamp=node_modules/.stamp
if [ -f package.json ] && { [ ! -f $stamp ] || [ package.json -nt $stamp ]; }; then
    if [ -f package-lock.json ]; then
        npm ci --silent --no-audit --no-fund </dev/null
    else
        npm install --silent --no-audit --no-fund --no-package-lock </dev/null
    fi
    mkdir -p node_modules
    touch $stamp
fi
exec node --test --test-reporter=spec
