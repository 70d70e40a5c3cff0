"""What clients see when a server ends: close code 1012 (`flask chsk serve`: test_serve.py, too)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peer import Closed, Peer
from tests.process import WAIT, eventually
from tests.servers import WsgiServer, running

APP = "tests.chsk_app:app"
Start = Callable[..., WsgiServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    stack: list[Any] = []

    def start(kind: str = "gunicorn-gevent", args: str = "") -> WsgiServer:
        env = {
            "GUNICORN_CMD_ARGS": f"--no-control-socket --graceful-timeout 5 {args}",
            "LP_TIMEOUT": "20",
        }
        block = running(kind, APP, tmp_path / "log", env)
        server = block.__enter__()
        stack.append((block, server))
        return server

    yield start
    for block, server in stack:
        block.__exit__(None, None, None)
        assert server.tracebacks == 0, server.log


def ending(peer: Peer) -> Closed:
    """How the server closes; what it pushes before is read."""
    with pytest.raises(Closed) as closed:
        while True:
            peer.read()
    peer.cut()
    return closed.value


def opened(server: WsgiServer, count: int = 3) -> list[Peer]:
    peers = [Peer(server.port, uid=f"u{number}", v="1") for number in range(count)]
    for peer in peers:
        peer.open()
    return peers


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT],
    ids=lambda number: signal.Signals(number).name,
)
def test_a_signal_to_the_master_closes_with_1012(start: Start, number: int) -> None:
    server = start()
    peers = opened(server)
    server.kill(number)
    for peer in peers:
        closed = ending(peer)
        assert (closed.code, closed.reason) == (1012, "spread=2")


def test_a_worker_that_ends_closes_with_1012(start: Start) -> None:
    server = start()
    peers = opened(server)
    import os

    os.kill(server.workers()[0], signal.SIGTERM)
    assert [ending(peer).code for peer in peers] == [1012] * 3


def test_max_requests_closes_with_1012(start: Start) -> None:
    server = start(args="--max-requests 5")
    peers = opened(server, 2)
    for _ in range(6):
        peers[0].get(**{"client-id": "other", "handshake?": "1"})
    assert [ending(peer).code for peer in peers] == [1012] * 2


def test_preload_closes_with_1012(start: Start) -> None:
    server = start(args="--preload")
    peers = opened(server)
    server.kill(signal.SIGTERM)
    assert [ending(peer).code for peer in peers] == [1012] * 3


def test_the_masters_death_closes_with_1012(start: Start) -> None:
    server = start()
    peers = opened(server)
    server.kill(signal.SIGKILL)
    assert [ending(peer).code for peer in peers] == [1012] * 3


def test_flask_run_closes_with_1012_at_ctrl_c(start: Start) -> None:
    server = start("flask-run")
    peers = opened(server)
    server.kill(signal.SIGINT)
    assert [ending(peer).code for peer in peers] == [1012] * 3
    eventually(lambda: not server.running)


def test_a_second_ctrl_c_ends_flask_run_whatever_handlers_do(start: Start) -> None:
    server = start("flask-run")
    [peer] = opened(server, 1)
    peer.say("[:test/slow 60]", '"cb"')
    assert peer.ask("[:chsk/ws-ping]") == "pong"  # it has been read, then
    server.kill(signal.SIGINT)
    assert ending(peer).code == 1012
    server.kill(signal.SIGINT)
    eventually(lambda: not server.running)


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-chsk-serve"])
def test_parked_polls_are_answered(start: Start, kind: str) -> None:
    server = start(kind)
    ours, sentes = Peer(server.port, uid="a", v="1"), Peer(server.port, uid="b")
    answers: dict[str, Any] = {}
    threads = []
    for name, peer in (("ours", ours), ("sentes", sentes)):
        peer.hello()
        thread = threading.Thread(
            target=lambda name=name, peer=peer: answers.update({name: peer.get(n="1")})
        )
        thread.start()
        threads.append(thread)
    observer = Peer(server.port, uid="c")
    observer.open()
    eventually(lambda: '"parked":2' in observer._http("GET", "/stats", None, WAIT)[1])
    server.kill(signal.SIGTERM)
    for thread in threads:
        thread.join(WAIT)
    assert answers == {
        "ours": (200, '[[[:chsk/close {:code 1012 :reason "spread=2"}]] nil]'),
        "sentes": (200, "[:chsk/timeout nil]"),
    }
    observer.cut()


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "flask-chsk-serve"])
def test_queued_events_are_handled_or_answered_closed(start: Start, kind: str) -> None:
    server = start(kind)
    [peer] = opened(server, 1)
    numbers = [str(number) for number in range(30)]  # six seconds of them
    for number in numbers:
        peer.say("[:test/slow 0.2]", f'"{number}"')
    assert peer.ask("[:chsk/ws-ping]") == "pong"
    server.kill(signal.SIGTERM)
    replies = []
    with pytest.raises(Closed) as closed:
        while True:
            reply, cb, *_ = peer.read()
            replies.append((cb, reply))
    peer.cut()
    assert closed.value.code == 1012
    words = dict(replies)
    handled = [cb for cb in words if words[cb] == "slow"]
    closed_unhandled = [cb for cb in words if words[cb] == "chsk/closed"]
    # The one that ran as the time was over is answered by its client: the socket closed.
    assert handled == numbers[: len(handled)]
    assert closed_unhandled == numbers[len(handled) + 1 :]
    assert 1 <= len(handled) < len(numbers) - 1
