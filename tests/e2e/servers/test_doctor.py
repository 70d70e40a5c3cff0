"""``flask chsk doctor URL``: no alarm on the example; what real servers answer is understood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.process import ROOT
from tests.servers import WsgiServer, running


def examined(app: str, server: WsgiServer, path: str = "") -> list[str]:
    """The lines about the way to the server."""
    url = f"http://127.0.0.1:{server.port}{path}"
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", app, "chsk", "doctor", url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_example_is_healthy(tmp_path: Path) -> None:
    with running("flask-chsk-serve", "example_app", tmp_path / "log") as server:
        lines = examined("example_app", server)
        assert [line for line in lines if not line.startswith("ok ")] == []
        refused = "nobody is signed in here: not authorized: sign in first"
        assert lines[-3:] == [
            "ok    /chsk is the channel socket",
            f"ok    long-polling gets through; {refused}",
            f"ok    WebSocket gets through; {refused}",
        ]
        assert examined("example_app", server, "/no")[-1].startswith("error nothing is at /no/chsk")


def test_an_open_application_is_reached_over_both_transports(tmp_path: Path) -> None:
    with running("flask-chsk-serve", "tests.chsk_app:app", tmp_path / "log") as server:
        lines = examined("tests.chsk_app:app", server)
        assert lines[-2:] == ["ok    long-polling works", "ok    WebSocket works"]
        assert server.tracebacks == 0, server.log


def test_a_server_of_one_request_at_a_time_is_found(tmp_path: Path) -> None:
    with running("gunicorn-sync", "tests.chsk_app:app", tmp_path / "log") as server:
        lines = examined("tests.chsk_app:app", server)
        assert lines[-2].startswith("error long-polling is refused with 501: no long-polling here")
        assert lines[-1] == "ok    WebSocket works"


def test_workers_without_a_broker_are_found(tmp_path: Path) -> None:
    env = {"GUNICORN_CMD_ARGS": "--workers 2"}
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"]
    server = WsgiServer([*command, "tests.chsk_app:app"], tmp_path / "log", env)
    try:
        lines = examined("tests.chsk_app:app", server)
    finally:
        server.stop()
    assert "is refused with 503: several workers share no broker" in lines[-1]
