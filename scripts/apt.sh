#!/bin/sh
# apt.sh PACKAGE...: install Debian packages as root or by a sudo that asks nothing, or say how.
set -eu

by_hand() {
    printf '%s; install by hand: %s\n' "$1" "$packages" >&2
    exit 1
}

packages=$*
command -v apt-get >/dev/null 2>&1 || by_hand "no apt-get here"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    by_hand "apt-get needs root"
fi

apt_get() {
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=120 "$@" \
        >"$log" 2>&1 </dev/null
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing $packages"
# The lists of a fresh machine or container are stale or absent: then fetch them, and once more.
if ! apt_get install --no-install-recommends "$@"; then
    apt_get update || true
    if ! apt_get install --no-install-recommends "$@"; then
        tail -n 20 "$log" >&2
        by_hand "apt-get failed"
    fi
fi
