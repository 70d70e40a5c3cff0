"""What cannot be sent, because of its size or of what is in it, is said to whoever sent it.

No client stays half let in, and no connection is closed for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import websocket

from tests.peer import Peer
from tests.process import eventually
from tests.servers import WsgiServer, running


@pytest.fixture(scope="module", params=["gunicorn-gevent", "gunicorn-gthread"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WsgiServer]:
    folder = tmp_path_factory.mktemp(request.param)
    with running(request.param, "tests.integration.ends_app:app", folder / "log") as server:
        yield server


@pytest.fixture
def new(server: WsgiServer) -> Iterator[Any]:
    peers: list[Peer] = []

    def make(uid: str, **params: str) -> Peer:
        peers.append(Peer(server.port, uid=uid, v="1", **params))
        return peers[-1]

    yield make
    for peer in peers:
        peer.cut()


def stats(peer: Peer) -> dict[str, int]:
    found: dict[str, int] = json.loads(peer._http("GET", "/stats", None, 10.0)[1])
    return found


def status_of(peer: Peer, packer: str) -> int:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        peer.open(packer=packer)
    return int(refused.value.status_code)


# Handshakes -----------------------------------------------------------------------------


@pytest.mark.parametrize("packer", ["edn", "json"])
@pytest.mark.parametrize(
    ("greet", "said"),
    [
        ("naive", 'PackError: handshake_data["it"][0]: naive datetime'),
        ("half", 'PackError: handshake_data["it"][0]: '),
        ("large", "PackError: handshake_data of 30000"),
    ],
)
def test_a_handshake_that_cannot_be_sent_lets_nobody_in(
    new: Any, server: WsgiServer, greet: str, said: str, packer: str
) -> None:
    before = stats(new("ann"))
    errors = server.log.count(said)
    for _ in range(3):
        assert status_of(new("ann", greet=greet), packer) == 500
        assert new("ann", greet=greet).get(packer=packer, **{"handshake?": "1"})[0] == 500
    eventually(lambda: server.log.count(said) == errors + 6)
    assert stats(new("ann")).get("opened", 0) == before.get("opened", 0)
    # More than CHSK_MAX_CLIENTS_PER_UID tries stand in nobody's way.
    for _ in range(65):
        new("ann", greet=greet).get(**{"handshake?": "1"})
    peer = new("ann")
    peer.open()
    assert peer.ask("[:test/echo 5]") == 5


def test_half_a_character_in_a_uid_is_refused(new: Any) -> None:
    assert status_of(new("half"), "edn") == 400
    assert new("half").get(**{"handshake?": "1"})[0] == 400
    assert new("half").post_raw("[[:test/echo 5] nil]")[0] == 400


def test_handshake_data_is_not_asked_for_a_post(new: Any) -> None:
    peer = new("bob")
    peer.hello()
    peer.params["greet"] = "naive"
    assert peer.post("[:test/echo 5]", ":ajax") == 5


# Replies --------------------------------------------------------------------------------

TOO_LARGE = "reply of 3000002 bytes: more than half of CHSK_MAX_OUTBOX_BYTES (4194304)"


@pytest.mark.parametrize("size", [3_000_000, 10_000_000])
def test_a_reply_that_is_too_large_is_an_error_of_its_handler(
    new: Any, server: WsgiServer, size: int
) -> None:
    peer = new(f"cec{size}")
    peer.open()
    tracebacks = server.tracebacks
    assert peer.ask(f"[:test/large {size}]") == "chsk/error"
    assert peer.post(f"[:test/large {size}]", ":ajax") == "chsk/error"
    assert peer.ask("[:test/echo 5]") == 5  # by the same connection
    line = f"handler of test/large failed, uid 'cec{size}': its reply of {size + 2} bytes"
    eventually(lambda: server.log.count(line) == 2)
    assert server.tracebacks == tracebacks


def test_a_deferred_reply_that_is_too_large_raises_where_it_is_given(new: Any) -> None:
    peer = new("dan")
    peer.open()
    assert peer.ask("[:test/deferred 3000000]") == TOO_LARGE
    assert peer.post("[:test/deferred 3000000]", ":ajax") == TOO_LARGE


def test_a_question_that_is_too_large_raises_where_it_is_asked(new: Any) -> None:
    peer = new("eve")
    peer.open()
    assert "more than half of CHSK_MAX_OUTBOX_BYTES" in peer.ask("[:test/ask 3000000]")


def test_two_megabytes_are_not_too_large(new: Any) -> None:
    peer = new("fay")
    peer.open()
    peer.say("[:test/large 2000000]", "1")
    assert len(peer.socket.recv()) == len('["" 1]') + 2_000_000


# Refusals -------------------------------------------------------------------------------


def test_each_error_reply_is_counted(new: Any) -> None:
    peer = new("gil")
    peer.open()
    for _ in range(3):
        assert peer.ask("[:test/abort 404]") == "chsk/error"
    assert stats(peer)["errors_404"] == 3
