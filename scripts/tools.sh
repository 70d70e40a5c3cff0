#!/bin/sh
# tools.sh VENV: see that the programs which the tests run are here, installing what is missing.
#
# What cannot be installed is named. Under CI that is an error; elsewhere the tests that need it
# skip, and say so.
set -u
venv=$1
here=$(dirname "$0")
PATH=$PATH:/usr/sbin:/sbin # nginx, for users other than root
missing=

have() {
    command -v "$1" >/dev/null 2>&1
}

node_18() {
    have node && node -e 'process.exit(parseInt(process.versions.node) < 18)'
}

browser() {
    "$venv/bin/python" -m tests.e2e.browser >/dev/null 2>&1
}

have redis-server || sh "$here/apt.sh" redis-server
have redis-server || missing="$missing redis-server"

node_18 && have npm || sh "$here/apt.sh" nodejs npm
node_18 && have npm || missing="$missing nodejs(>=18)+npm"

have nginx || sh "$here/apt.sh" nginx-light
have nginx || missing="$missing nginx"

# Ubuntu's chromium is a snap, which containers cannot run: take Playwright's own there.
if ! browser; then
    grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null || sh "$here/apt.sh" chromium
    browser || "$venv/bin/python" -m playwright install --with-deps chromium </dev/null ||
        "$venv/bin/python" -m playwright install chromium </dev/null
    browser || missing="$missing chromium"
fi

[ -n "$missing" ] || exit 0
echo "missing:$missing" >&2
if [ -n "${CI:-}" ]; then
    exit 1
fi
echo "the tests that need them are skipped" >&2
