"""Sockets taken over from every kind of server, as bytes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import struct
from collections.abc import Iterator

import pytest

from tests.process import eventually
from tests.servers import KINDS, SECURE_KINDS, WsgiServer, running, trusting

# RFC 6455 1.3 has this key and its answer.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# Real servers -----------------------------------------------------------------------------

REQUEST = (
    "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


class Site:
    """A running server of the echo application, and its clients."""

    def __init__(self, kind: str, server: WsgiServer, tls: ssl.SSLContext | None) -> None:
        self.kind = kind
        self.server = server
        self.tls = tls

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
        return sock if self.tls is None else self.tls.wrap_socket(sock, server_hostname="127.0.0.1")

    def open(self, more: bytes = b"") -> tuple[socket.socket, bytes]:
        """A connection with its 101, and the head of that."""
        sock = self.connect()
        sock.sendall(REQUEST + more)
        return sock, head_of(sock)

    def state(self) -> dict[str, int]:
        """How many links are open, how many requests of theirs have ended."""
        with self.connect() as sock:
            sock.sendall(b"GET /open HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            head_of(sock)
            state: dict[str, int] = json.loads(b"".join(iter(lambda: sock.recv(4096), b"")))
            return state

    def all_closed(self) -> bool:
        return self.state()["open"] == 0


def head_of(sock: socket.socket) -> bytes:
    """A response's head, and no byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, head
        head += byte
    return head


def receive(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        assert part
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send *data* while reading as much: no side may wait for the other to read first."""
    sock.setblocking(False)  # and no threads: OpenSSL allows one at a time
    not_now = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    unsent, got = memoryview(data), bytearray()
    while len(got) < len(data):
        assert any(select.select([sock], [sock] if unsent else [], [], 20)), "stuck"
        with contextlib.suppress(*not_now):
            unsent = unsent[sock.send(unsent[:65536]) :]
        with contextlib.suppress(*not_now):
            while len(got) < len(data):
                part = sock.recv(65536)
                assert part
                got += part
    return bytes(got)


# These serve applications of the extension, which tests.echo is not: test_every_server.py has them.
OF_THE_EXTENSION = {"flask-chsk-serve", "chsk-run", "flask-chsk-serve-tls"}
SERVERS = [kind for kind in {**KINDS, **SECURE_KINDS} if kind not in OF_THE_EXTENSION]


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    # Ten slots: those who stay open must not need them.
    env = {"GUNICORN_CMD_ARGS": "--worker-connections 10 --graceful-timeout 1"}
    with running(kind, "tests.echo:app", folder / "log", env) as server:
        site = Site(kind, server, trusting(folder) if kind in SECURE_KINDS else None)
        yield site
        left_open, _ = site.open()
        server.stop()
        left_open.close()
        assert "Traceback" not in server.log, server.log


def test_bytes_come_back(site: Site) -> None:
    sock, head = site.open()
    with sock:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
    lines = head.decode().split("\r\n")
    assert (lines[0], f"Sec-WebSocket-Accept: {ACCEPT}" in lines) == (
        "HTTP/1.1 101 Switching Protocols",
        True,
    )
    assert "set-cookie" not in head.decode().lower()  # though the view wrote to its session
    if "websocket" not in site.kind:  # it has sent its own head before the view ran
        assert "X-Chsk-Test: yes" in lines


def test_bytes_behind_the_request_are_not_lost(site: Site) -> None:
    sock, _ = site.open(b"early")
    with sock:
        assert receive(sock, 5) == b"early"


def test_a_connection_may_have_served_requests_before(site: Site) -> None:
    with site.connect() as sock:
        sock.sendall(b"GET /open HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = head_of(sock).lower()
        if b"connection: close" in head:
            pytest.skip("keeps no connection alive")
        receive(sock, int(head.split(b"content-length: ")[1].split()[0]))
        sock.sendall(REQUEST)
        assert head_of(sock).startswith(b"HTTP/1.1 101")
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"


def test_two_megabytes_come_back(site: Site) -> None:
    sock, _ = site.open()
    data = os.urandom(2 << 20)
    with sock:
        assert exchange(sock, data) == data


def test_the_request_has_ended_while_its_link_is_open(site: Site) -> None:
    eventually(site.all_closed)
    popped = site.state()["popped"]
    sock, _ = site.open()
    with sock:
        sock.sendall(b"x")
        receive(sock, 1)
        assert eventually(lambda: site.state()["popped"] == popped + 1)
        eventually(lambda: site.state()["open"] == 1)


def test_a_client_that_leaves_is_noticed(site: Site) -> None:
    sock, _ = site.open()
    eventually(lambda: not site.all_closed())
    sock.close()
    eventually(site.all_closed)


def test_a_client_that_breaks_off_is_noticed(site: Site) -> None:
    sock, _ = site.open()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()  # a reset
    eventually(site.all_closed)


def test_a_close_by_the_server_is_seen(site: Site) -> None:
    sock, _ = site.open()
    with sock:
        sock.sendall(b"close")
        assert receive(sock, 3) == b"bye"
        with contextlib.suppress(ssl.SSLEOFError):
            assert sock.recv(1) == b""
    eventually(site.all_closed)


def test_open_links_take_no_slots_of_the_server(site: Site) -> None:
    if site.tls is not None:
        pytest.skip("each TLS connection stays in its call")
    socks = [site.open()[0] for _ in range(25)]
    eventually(lambda: site.state()["open"] >= 25)  # the last view may still be returning
    for sock in socks:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        sock.close()
    eventually(site.all_closed)


def test_two_hundred_connections_leave_no_descriptor(site: Site) -> None:
    def visit() -> None:
        sock, _ = site.open()
        sock.close()

    visit()
    eventually(site.all_closed)
    before = site.server.descriptors()
    for _ in range(200):
        visit()
    eventually(site.all_closed)
    eventually(lambda: site.server.descriptors() <= before)
