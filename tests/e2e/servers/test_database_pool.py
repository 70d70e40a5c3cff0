"""A channel socket at rest holds no database connection, in whatever way it waits."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.peer import Peer
from tests.process import WAIT, eventually
from tests.servers import running

MANY = 20


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-run"])
def test_a_pool_of_one_serves_all_that_wait(kind: str, tmp_path: Path) -> None:
    env = {"DATABASE": str(tmp_path / "db"), "PYTHONPATH": "."}
    with running(kind, "tests.e2e.servers.database_app:app", tmp_path / "log", env) as server:
        other = Peer(server.port, uid="other")

        def get(path: str) -> str:
            status, text = other._http("GET", path, None, WAIT)
            assert status == 200, text
            return text

        pollers = [Peer(server.port, uid=f"p{number}", v="1") for number in range(MANY)]
        sockets = [Peer(server.port, uid=f"s{number}", v="1") for number in range(MANY)]
        posters = [Peer(server.port, uid=f"q{number}", v="1") for number in range(MANY)]
        for peer in pollers:
            peer.hello()
        for peer in sockets:
            peer.open()
        replies: list[Any] = []
        threads = [threading.Thread(target=peer.poll) for peer in pollers]
        threads += [
            threading.Thread(
                target=lambda peer=peer: replies.append(peer.post("[:test/later]", ":ajax"))
            )
            for peer in posters
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: json.loads(get("/stats"))["parked"] == MANY)
        eventually(lambda: get("/waiting") == str(MANY))
        assert [get("/query") for _ in range(5)] == ["42"] * 5
        get("/answer")
        for thread in threads:
            thread.join(WAIT)
        assert replies == ["now"] * MANY
        for peer in sockets:
            peer.cut()
        assert "QueuePool limit" not in server.log
        assert server.tracebacks == 0, server.log
