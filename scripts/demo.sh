#!/bin/sh
# demo.sh VENV PORT: serve the example on this machine only.
set -eu
venv=$1
port=$2
cd "$(dirname "$0")/.."

case $venv in /*) ;; *) venv=./$venv ;; esac
if ! "$venv/bin/python" - "$port" <<'PYTHON'
import socket
import sys

with socket.socket() as probe:
    # As gunicorn does: an address whose last connections still linger is free.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(sys.argv[1])))
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"port {sys.argv[1]} of 127.0.0.1: {error}")
PYTHON
then
    echo "Choose another port: make demo PORT=8000" >&2
    exit 1
fi
echo "The example: http://127.0.0.1:$port (ctrl-c ends it)"
# The same for each worker: a tab outlives the one that it talked to.
SECRET_KEY=${SECRET_KEY:-$("$venv/bin/python" -c 'import secrets; print(secrets.token_hex())')}
export SECRET_KEY
exec "$venv/bin/python" -m gunicorn --worker-class gevent --workers 1 --bind "127.0.0.1:$port" \
    --log-level warning example_app:app
