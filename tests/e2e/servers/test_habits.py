"""Servers that people start without thinking: flask run on Windows, sync workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.peer import Peer
from tests.process import ROOT
from tests.servers import running

# Servers and systems ---------------------------------------------------------------------


def test_without_what_windows_lacks_flask_run_serves_by_long_polling() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.windows"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == (
        "open by ajax\nreply True\npush True\n",
        0,
    ), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["gunicorn-sync", "flask-run-one"])
def test_a_server_of_one_request_at_a_time_has_websockets_and_refuses_polls(
    kind: str, tmp_path: Path
) -> None:
    with running(kind, "tests.chsk_app:app", tmp_path / "log") as server:
        ann, bob = Peer(server.port, uid="ann", v="1"), Peer(server.port, uid="bob", v="1")
        ann.open()
        for params in ({"handshake?": "1"}, {}):
            status, text = bob._http("GET", f"/chsk?{bob.query(**params)}", None, 10.0)
            assert (status, text) == (
                501,
                "no long-polling here: this server handles one request at a time, so one waiting"
                " poll would block it. Run gunicorn -k gevent, or -k gthread --threads 100"
                " (WebSockets work as it is)\n",
            )
        assert ann.ask("[:test/echo 1]") == 1
        assert ann.post("[:test/echo 2]", ":ajax") == 2
        bob.open()
        assert bob.ask("[:test/echo 3]") == 3
        ann.cut()
        bob.cut()
        assert "refused with 501: no long-polling here" in server.log
