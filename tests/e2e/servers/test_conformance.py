"""Autobahn's cases against a server's WebSockets."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator

import pytest

from tests.conformance import LIMITS, WRITTEN, Case, RawPeer, expected
from tests.servers import WsgiServer, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WsgiServer]:
    log = tmp_path_factory.mktemp("conformance") / "log"
    with running("gunicorn-gevent", "tests.frame_echo:app", log) as server:
        yield server
    assert server.tracebacks == 0, server.log


@pytest.fixture
def peer(server: WsgiServer) -> Iterator[RawPeer]:
    """A new connection, behind the server's first message."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET /chsk?client-id={os.urandom(8).hex()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        peer = RawPeer(sock, masked=True, read=head.partition(b"\r\n\r\n")[2])
        handshake = peer.read()
        assert handshake is not None and b":chsk/handshake" in handshake[1]
        yield peer


def named(value: Case | str) -> str:
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("case", "way"), WRITTEN, ids=named)
def test_case(peer: RawPeer, case: Case, way: str) -> None:
    assert peer.run(case, way) == expected(case)


@pytest.mark.parametrize("case", LIMITS, ids=named)
def test_limit(peer: RawPeer, case: Case) -> None:
    assert peer.run(case) == expected(case)
