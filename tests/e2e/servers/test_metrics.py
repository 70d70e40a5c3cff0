"""The application of docs/metrics.rst: of several workers any shows the figures of all."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.peer import Peer
from tests.process import ROOT, WAIT, Redis, Server, eventually
from tests.readme import named_blocks, write_files

FILES = named_blocks((ROOT / "docs/metrics.rst").read_text(encoding="utf-8"))
CLIENTS = 12


class Metrics:
    """What Prometheus would read."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        [value] = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(value)


def children(server: Server) -> set[int]:
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return {int(pid) for pid in text.split()}


def clients_of(peers: list[Peer]) -> list[Peer]:
    """Those whose worker still lives."""
    alive = []
    for peer in peers:
        try:
            assert peer.ask("[:order/add 1]") == {"ok": True}
        except Exception:
            peer.cut()
        else:
            alive.append(peer)
    return alive


def test_any_worker_shows_the_figures_of_all(
    tmp_path: Path, start_redis: Callable[[], Redis]
) -> None:
    write_files(FILES, tmp_path)
    folder = tmp_path / "metrics"
    folder.mkdir()
    command = shlex.split(FILES["run.sh"].splitlines()[-1])
    config = str(tmp_path / "gunicorn.conf.py")
    command = [config if word == "gunicorn.conf.py" else word for word in command]
    server = Server(
        [sys.executable, "-m", *command, "-b", "127.0.0.1:0"],
        tmp_path / "log",
        {
            "PYTHONPATH": str(tmp_path),
            "REDIS_URL": start_redis().url,
            "PROMETHEUS_MULTIPROC_DIR": str(folder),
        },
    )
    try:
        metrics = Metrics(server.port)
        peers = [Peer(server.port, v="1") for _ in range(CLIENTS)]
        for peer in peers:
            peer.open(["Authorization: Bearer x"])  # in place of a session with a CSRF token
            for _ in range(3):
                assert peer.ask("[:order/add 1]") == {"ok": True}
        handled = CLIENTS * 3
        # A worker that is not asked writes within a second. From then on each says the same.
        eventually(lambda: metrics("chsk_events_in_total") == handled)
        assert {metrics("chsk_events_in_total") for _ in range(12)} == {handled}
        eventually(lambda: metrics("chsk_clients") == CLIENTS)

        eventually(lambda: len(children(server)) == 4)
        before = children(server)
        os.kill(min(before), signal.SIGKILL)
        [new] = eventually(lambda: children(server) - before)
        eventually((folder / f"counter_{new}.db").exists)  # it can be told to end from now on
        alive = clients_of(peers)
        eventually(lambda: metrics("chsk_clients") == len(alive))
        # What the worker counted that was killed is counted still.
        eventually(lambda: metrics("chsk_events_in_total") == handled + len(alive))
        for peer in alive:
            peer.cut()
    finally:
        server.stop()
    assert server.tracebacks == 0, server.log
