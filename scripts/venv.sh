#!/bin/sh
# venv.sh PYTHON VENV: make the virtualenv VENV with PYTHON, or keep the one that is there.
set -eu
python=$1
venv=$2
here=$(dirname "$0")

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))'
}

if [ -x "$venv/bin/python" ]; then
    new_enough "$venv/bin/python" || fail "$venv has a Python older than 3.10: remove $venv."
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
        fail "$venv has no pip: remove $venv, or choose another with VENV=..."
    exit 0
fi

command -v "$python" >/dev/null 2>&1 ||
    fail "$python: not found. Flask-Chsk needs Python 3.10 or newer; name one with PYTHON=..."
new_enough "$python" ||
    fail "$("$python" --version 2>&1) is too old. Flask-Chsk needs 3.10 or newer; name one with PYTHON=..."

# Debian and Ubuntu keep ensurepip apart from Python, in a package named after its version.
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    sh "$here/apt.sh" "$package" || fail "$python cannot make virtualenvs without $package."
fi

echo "making $venv with $("$python" --version)"
"$python" -m venv "$venv"
