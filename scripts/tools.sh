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

# need COMMAND [CHECK]: its Debian package is given by the name of the command.
need() {
    case $1 in node) package=nodejs ;; *) package=$1 ;; esac
    "${2:-have}" "$1" || sh "$here/apt.sh" "$package"
    "${2:-have}" "$1" || missing="$missing $1"
}

node_18() { # the first with a test runner
    have node && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'
}

browser() {
    "$venv/bin/python" -m tests.e2e.chromium >/dev/null 2>&1
}

playwright_install() {
    "$venv/bin/python" -m playwright install --no-shell "$@" chromium >/dev/null 2>&1 </dev/null
}

need redis-server
need node node_18
need npm
need nginx

# Ubuntu's chromium is a snap, which containers cannot run: take Playwright's own there.
if ! browser; then
    grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null || sh "$here/apt.sh" chromium
fi
if ! browser; then
    echo "installing Playwright's chromium"
    playwright_install --with-deps || playwright_install
    browser || missing="$missing chromium"
fi

if have npm; then
    sh "$here/js.sh" install || missing="$missing npm-packages"
fi

[ -n "$missing" ] || exit 0
echo "missing:$missing (node is needed in version 18 or newer)" >&2
if [ -n "${CI:-}" ]; then
    exit 1
fi
echo "the tests that need them are skipped" >&2
