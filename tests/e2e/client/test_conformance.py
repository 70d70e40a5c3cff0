"""Autobahn's cases against the Python client's WebSocket: its frames, without a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_chsk.client.link import LinkClosed
from flask_chsk.client.stream import Stream
from flask_chsk.client.websocket import WebSocket
from tests.conformance import CLOSE, LIMITS, PING, WRITTEN, Case, Frame, RawPeer, code_of, expected
from tests.process import WAIT, eventually


class Echo(WebSocket):
    """A client's WebSocket that is open already, and says what it hears."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ends: list[LinkClosed] = []
        self.opened = threading.Event()
        owner: Any = SimpleNamespace(
            opened=lambda link: self.opened.set(),
            received=lambda link, data: self._say(data),
            heard=lambda link: None,
            finished=lambda transport: None,
            closed=lambda link, how: self.ends.append(how),
        )
        nothing: Any = None
        super().__init__(owner, nothing, nothing, nothing, threading.Lock())

    def _open(self) -> tuple[Stream, bytes]:
        return Stream(self.sock), b""

    def _say(self, data: Any) -> None:
        item: Any = SimpleNamespace(data=data)
        self.take(item)
        self.flush()


@pytest.fixture
def echo_and_peer() -> Iterator[tuple[Echo, RawPeer]]:
    ours, theirs = socket.socketpair()
    echo = Echo(ours)
    thread = threading.Thread(target=echo._run)
    thread.start()
    with theirs:
        yield echo, RawPeer(theirs, masked=False)
    thread.join(WAIT)
    assert not thread.is_alive()


def named(value: Case | str) -> str:
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("case", "way"), WRITTEN, ids=named)
def test_case(echo_and_peer: tuple[Echo, RawPeer], case: Case, way: str) -> None:
    _, peer = echo_and_peer
    assert peer.run(case, way) == expected(case)


@pytest.mark.parametrize("case", LIMITS, ids=named)
def test_limit(echo_and_peer: tuple[Echo, RawPeer], case: Case) -> None:
    _, peer = echo_and_peer
    assert peer.run(case) == expected(case)


@pytest.mark.parametrize(
    ("then", "how"),
    [
        ((), LinkClosed(1000, "", "clean")),
        ((Frame(PING, b"late"),), LinkClosed(1000, "", "clean")),
        (
            (Frame(3),),
            LinkClosed(1002, "reserved opcode 0x3", "ws-error", error="reserved opcode 0x3"),
        ),
    ],
    ids=["close", "ping", "violation"],
)
def test_a_client_that_has_closed_says_no_more(
    echo_and_peer: tuple[Echo, RawPeer], then: tuple[Frame, ...], how: LinkClosed
) -> None:
    echo, peer = echo_and_peer
    assert echo.opened.wait(WAIT)
    echo.end(1000)
    echo.flush()
    assert peer.run(Case("", then)) == [(CLOSE, code_of(b""))]
    assert eventually(lambda: echo.ends) == [how]
