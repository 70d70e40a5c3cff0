#!/bin/sh
# js.sh [install]: the tests of the browser's side, under Node; "install": only the npm packages
# that they and some tests of pytest ask for.
set -eu
cd "$(dirname "$0")/../tests/js"

if ! command -v node >/dev/null 2>&1; then
    echo "node is missing: tests/js did not run" >&2
    [ -z "${CI:-}" ] && exit 0
    exit 1
fi
stamp=node_modules/.stamp
if [ ! -f $stamp ] || [ package-lock.json -nt $stamp ]; then
    npm ci --silent --no-audit --no-fund </dev/null
    touch $stamp
fi
[ "${1:-}" = install ] || exec node --test --test-reporter=spec *.test.mjs
