"""One scenario, from the opening to the close, under every server a Flask user has."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from tests.peer import Closed, Peer
from tests.process import WAIT, eventually
from tests.servers import KINDS, SECURE_KINDS, WsgiServer, running, trusting

CONNECTS = int(os.environ.get("CONNECTS", "20"))  # of each of two rounds

# These serve one request at a time and refuse polls: tests/integration/test_habits.py.
ONE_AT_A_TIME = ("gunicorn-sync", "flask-run-one")
SERVERS = [kind for kind in {**KINDS, **SECURE_KINDS} if kind not in ONE_AT_A_TIME]


@pytest.fixture(scope="module", params=SERVERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WsgiServer]:
    folder = tmp_path_factory.mktemp(kind)
    with running(kind, "tests.chsk_app:app", folder / "log") as server:
        yield server
    assert server.tracebacks == 0, server.log


@pytest.fixture
def new(server: WsgiServer, kind: str) -> Iterator[Any]:
    tls = trusting(Path(server.log_path).parent) if kind in SECURE_KINDS else None
    peers: list[Peer] = []

    def make(uid: str, **params: str) -> Peer:
        peers.append(Peer(server.port, tls=tls, uid=f"{uid}-{kind}", v="1", **params))
        return peers[-1]

    yield make
    for peer in peers:
        peer.cut()


def fetch(peer: Peer, path: str) -> Any:
    status, text = peer._http("GET", path, None, WAIT)
    assert status == 200
    return json.loads(text)


def test_open_reply_push_and_ping(new: Any) -> None:
    peer = new("ann")
    assert peer.open()[0] == peer.params["uid"]
    assert peer.ask("[:test/echo {:a [1 2.5 nil]}]") == {"a": [1, 2.5, None]}
    assert peer.ask("[:chsk/ws-ping]") == "pong"
    peer.say("[:test/push 3]")
    assert peer.events(3) == [["test/item", number] for number in range(3)]
    peer.close()


def test_two_megabytes_come_and_go(new: Any) -> None:
    peer = new("large")
    peer.open()
    text = "x" * 1_000_000
    assert peer.ask(f'[:test/echo "{text}"]') == text
    assert peer.post(f'[:test/echo "{text}"]', ":ajax") == text
    peer.close()


def test_poll_and_post(new: Any) -> None:
    peer = new("bob")
    peer.hello()
    assert peer.post("[:test/echo 5]", ":ajax") == 5
    assert peer.post("[:test/push 2]") == "chsk/dummy-cb-200"
    seen: list[Any] = []
    while len(seen) < 2:
        seen += peer.poll()
    assert seen == [["test/item", 0], ["test/item", 1]]
    assert peer.poll() == []  # parked, then ended by CHSK_LP_TIMEOUT


def test_fall_back_to_polls_and_return_losing_nothing(new: Any) -> None:
    peer = new("cec")
    uid = peer.params["uid"]
    peer.open()
    fetch(peer, f"/send/{uid}/3")
    assert [event[1] for event in peer.events(3)] == [0, 1, 2]
    peer.cut()
    fetch(peer, f"/send/{uid}/3")
    assert peer.hello()[3]["recovered"] is True
    seen: list[Any] = []
    while len(seen) < 3:
        seen += peer.poll()
    fetch(peer, f"/send/{uid}/3")
    assert peer.open()[3]["recovered"] is True
    peer.say("[:chsk/ws-ping]", '"p"')  # what makes the server trust it
    seen_again: list[Any] = []
    while len(seen_again) < 3:
        message = peer.read()
        if message[0] != "pong":
            seen_again += message[0]
    assert [event[1] for event in seen + seen_again] == [0, 1, 2, 0, 1, 2]
    peer.close()


def test_close_by_the_application(new: Any) -> None:
    peer = new("dan")
    peer.open()
    peer.say("[:test/close]")
    with pytest.raises(Closed) as closed:
        peer.read()
    assert closed.value.code == 4003


BODIES = {
    "a size that is no number": b"zz\r\nhello\r\n0\r\n\r\n",
    "a size below nothing": b"-5\r\nhello\r\n0\r\n\r\n",
    "more than the size": b"5\r\nhello, you\r\n0\r\n\r\n",
    "an end that is missing": b"5\r\nhel",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_malformed_body_is_refused(new: Any, body: bytes) -> None:
    peer = new("fay")
    if peer.tls and body == BODIES["an end that is missing"]:
        return  # a TLS socket cannot end and listen
    wire = socket.create_connection(("127.0.0.1", peer.port), WAIT)
    if peer.tls:
        wire = peer.tls.wrap_socket(wire, server_hostname="127.0.0.1")
    with wire:
        head = f"POST /chsk?{peer.query()} HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\n"
        form = "Content-Type: application/x-www-form-urlencoded\r\n"
        wire.sendall((head + form + "Transfer-Encoding: chunked\r\n\r\n").encode() + body)
        if body == BODIES["an end that is missing"]:
            wire.shutdown(socket.SHUT_WR)
        answer = wire.recv(65536).decode("latin-1")
    assert answer.startswith("HTTP/1.1 400 ")
    assert "x-content-type-options: nosniff" in answer.lower()


def test_refused_before_the_101(new: Any, kind: str) -> None:
    peer = new("eve", deny="1")
    # gevent-websocket sends its 101 before the application sees the request.
    after = kind in ("gunicorn-gevent-websocket", "pywsgi-websocket")
    errors = (websocket.WebSocketException, ConnectionError, Closed, http.client.HTTPException)
    with pytest.raises(errors) as refused:
        peer.open()
    if not after:
        assert isinstance(refused.value, websocket.WebSocketBadStatusException)
        assert refused.value.status_code == 401
    status, text = peer.get()
    assert (status, text) == (401, "not authorized: sign in first\n")


def test_no_answer_of_the_channel_socket_sets_a_cookie(new: Any) -> None:
    peer = new("fay")
    fetch(peer, "/stats")
    assert peer.headers["set-cookie"].startswith("session=")
    answers: dict[str, Callable[[], object]] = {
        "101": peer.open,
        "handshake": peer.hello,
        "reply": lambda: peer.post("[:test/echo 1]", ":ajax"),
        "no reply": lambda: peer.post("[:test/push 1]"),
        "poll": peer.poll,
        "parked": peer.poll,
        "refused": lambda: peer.get(deny="1"),
    }
    for name, ask in answers.items():
        ask()
        assert "set-cookie" not in peer.headers, name
        if name == "101":
            peer.close()


def test_nothing_is_left_of_those_who_went(new: Any, server: WsgiServer) -> None:
    some = new("last")
    left: list[tuple[int, int]] = []
    for _ in range(2):
        for number in range(CONNECTS):
            peer = new(f"many{number % 40}")
            if number % 5 == 0:
                peer.hello()
                continue
            peer.open()
            if number % 2:
                peer.cut()
            else:
                peer.close()
        eventually(lambda: fetch(some, "/stats")["clients"] == 0)
        left.append((server.descriptors(), fetch(some, "/stats")["tasks"]))
    descriptors, tasks = left[0]
    eventually(lambda: server.descriptors() <= descriptors + 2)
    eventually(lambda: fetch(some, "/stats")["tasks"] <= tasks + 4)
