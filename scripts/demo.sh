#!/bin/sh
# demo.sh VENV PORT: serve the example on this machine only.
set -eu
venv=$1
port=$2
cd "$(dirname "$0")/.."

case $venv in /*) ;; *) venv=./$venv ;; esac
# The same after a restart: a tab outlives the server that it talked to.
SECRET_KEY=${SECRET_KEY:-$("$venv/bin/python" -c 'import secrets; print(secrets.token_hex())')}
export SECRET_KEY
exec "$venv/bin/python" -m flask --app example_app chsk serve --port "$port" --no-access-log
