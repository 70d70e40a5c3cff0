"""Peers that do not take what they are sent: bounded, told, and never a corrupt stream."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_chsk.packers.edn import EdnPacker
from flask_chsk.protocol.frames import FrameReader
from tests.peer import Peer
from tests.process import eventually
from tests.servers import WsgiServer, running

EDN = EdnPacker()
SIZE = 20_000
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MiB = 1024 * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WsgiServer]:
    with running("gunicorn-gevent", "tests.chsk_app:app", tmp_path / "log") as server:
        yield server
        assert server.tracebacks == 0, server.log


def memory(server: WsgiServer) -> int:
    """Bytes that are the worker's own."""
    rollup = Path(f"/proc/{server.workers()[0]}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0]) * 1024


def connected(server: WsgiServer, uid: str, query: str = "") -> socket.socket:
    """A socket with the smallest receive buffer, behind the handshake's request."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(
        f"GET /chsk?client-id={uid}&uid={uid}{query} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return sock


def messages(sock: socket.socket) -> Iterator[Any]:
    """All that the server says, as long as it says something."""
    reader = FrameReader("client", 64 * MiB)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1024)
    yield from reader.feed(data.partition(b"\r\n\r\n")[2])
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return
        if not data:
            return
        yield from reader.feed(data)
        assert reader.failed is None, reader.failed


def ask(peer: Peer, path: str) -> Any:
    status, text = peer._http("GET", path, None, 60.0)
    assert status == 200, text
    return json.loads(text)


def test_one_that_never_reads_costs_its_limit_and_is_closed(server: WsgiServer) -> None:
    observer = Peer(server.port, uid="observer")
    sock = connected(server, "never")
    eventually(lambda: ask(observer, "/stats")["clients"] == 1)
    before = memory(server)
    for _ in range(10):
        ask(observer, f"/large/never/100/{SIZE}")  # 20 MB in all
    assert memory(server) - before < 24 * MiB  # outbox 4, history 1, and what Python keeps
    assert ask(observer, "/stats")["too_slow"] >= 1
    eventually(lambda: ask(observer, "/stats")["clients"] == 0, 60.0)
    sock.close()


def test_one_that_pauses_within_its_limit_gets_everything(server: WsgiServer) -> None:
    observer = Peer(server.port, uid="observer")
    sock = connected(server, "short")
    eventually(lambda: ask(observer, "/stats")["clients"] == 1)
    ask(observer, f"/large/short/150/{SIZE}")  # 3 MB: under CHSK_MAX_OUTBOX_BYTES
    seen: list[int] = []
    for message in messages(sock):
        value = EDN.unpack(message)[0] if isinstance(message, str) else []
        if value and value[0] != "chsk/handshake":
            for event in value:
                assert event[1][1] == "x" * SIZE
                seen.append(event[1][0])
        if len(seen) == 150:
            break
    assert seen == list(range(150))
    sock.close()
