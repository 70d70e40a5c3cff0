"""What ends a handler, or any other code of the application, ends nothing else.

The worker goes on, the same client's next event is handled, and the client hears of an error.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.integration.ends_app import WAYS
from tests.peer import Peer
from tests.process import eventually
from tests.servers import WsgiServer, running

SERVERS = ["gunicorn-gevent", "gunicorn-gthread", "pywsgi", "flask-run"]


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WsgiServer]:
    folder = tmp_path_factory.mktemp(request.param)
    with running(request.param, "tests.integration.ends_app:app", folder / "log") as server:
        Peer(server.port)._http("GET", "/route", None, 10.0)
        workers = server.workers()
        yield server
        assert server.workers() == workers


@pytest.fixture
def new(server: WsgiServer) -> Iterator[Any]:
    peers: list[Peer] = []

    def make(uid: str, **params: str) -> Peer:
        peers.append(Peer(server.port, uid=uid, v="1", **params))
        return peers[-1]

    yield make
    for peer in peers:
        peer.cut()


PLACES = ["handler", "parse", "before", "after", "errorhandler", "pack_default"]


@pytest.mark.parametrize(("place", "way"), list(product(PLACES, WAYS)))
def test_a_handler(new: Any, place: str, way: str) -> None:
    peer = new("ann")
    peer.open()
    assert peer.ask(f'[:test/echo "{place} {way}"]') == "chsk/error"
    assert peer.post(f'[:test/echo "{place} {way}"]', ":ajax") == "chsk/error"
    assert peer.ask("[:test/echo 5]") == 5


@pytest.mark.parametrize("way", WAYS)
def test_a_concurrent_handler(new: Any, way: str) -> None:
    peer = new("ann")
    peer.open()
    for _ in range(40):  # native threads are 32
        assert peer.ask(f'[:test/beside "beside {way}"]') == "chsk/error"
    assert peer.ask("[:test/beside 5]") == 5


@pytest.mark.parametrize("way", WAYS)
def test_a_router_of_ch_recv(new: Any, way: str) -> None:
    peer = new("ann")
    peer.open()
    peer.say(f'[:test/unknown "router {way}"]')
    assert peer.ask("[:test/unknown 5]") == 5


@pytest.mark.parametrize(("place", "way"), list(product(["signal", "watcher", "uidport"], WAYS)))
def test_who_hears_of_a_coming(new: Any, server: WsgiServer, place: str, way: str) -> None:
    def errors() -> int:
        return server.log.count("error in") + server.log.count("handler of")

    before = errors()
    peer = new(f"{place} {way}")
    peer.open()
    assert peer.ask("[:test/echo 5]") == 5
    eventually(lambda: errors() > before)


HOOKS = ["user_id", "authorize", "reject", "handshake_data"]


@pytest.mark.parametrize(("place", "way"), list(product(HOOKS, ["exit", "ctrl-c", "own"])))
def test_a_hook_of_the_handshake(new: Any, server: WsgiServer, place: str, way: str) -> None:
    peer = new("ann", end=f"{place} {way}")
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        peer.open()
    assert refused.value.status_code == 500
    assert peer.get(**{"handshake?": "1"})[0] == 500
    if place != "handshake_data":  # not asked for a POST
        assert peer.post_raw("[[:test/echo 5] :ajax]")[0] == 500
    assert "a hook of the channel socket raised" in server.log
    other = new("ann")
    other.open()
    assert other.ask("[:test/echo 5]") == 5


@pytest.mark.parametrize("kind", ["pywsgi", "gunicorn-gevent"])
def test_a_child_that_a_handler_forked_ends_by_sys_exit(kind: str, tmp_path: Path) -> None:
    with running(kind, "tests.integration.ends_app:app", tmp_path / "log") as server:
        peer = Peer(server.port, uid="ann", v="1")
        peer.open()
        assert peer.ask("[:test/fork 7]") == 7
        assert peer.ask("[:test/echo 5]") == 5
        peer.cut()


@pytest.mark.parametrize("kind", ["pywsgi", "flask-run"])
def test_ctrl_c_ends_the_server_whatever_it_hits(kind: str, tmp_path: Path) -> None:
    with running(kind, "tests.integration.ends_app:app", tmp_path / "log") as server:
        peer = Peer(server.port, uid="ann", v="1")
        peer.open()
        peer.say("[:test/busy]")
        server.wait_for_log("busy")
        server.kill(signal.SIGINT)
        eventually(lambda: not server.running, 60.0)
        peer.cut()
