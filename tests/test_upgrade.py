"""The opening handshake, and the take-over: alone, and under every kind of server."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

import flask
import gevent
import pytest

from flask_chsk.errors import Refused
from flask_chsk.transports.link import Link
from flask_chsk.transports.upgrade import SwitchProtocols, accepts, check
from tests.process import eventually
from tests.servers import KINDS, SECURE_KINDS, WsgiServer, running, trusting

# RFC 6455 1.3 has this key and its answer.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A server's socket and its client's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    yield ours, theirs
    ours.close()
    theirs.close()


def environ(sock: socket.socket | None = None, **changes: Any) -> dict[str, Any]:
    """An opening request; *changes* to it, None takes away."""
    request: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "keep-alive, Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
        "werkzeug.socket": sock or object(),
        "wsgi.input": io.BytesIO(),
        **changes,
    }
    return {name: value for name, value in request.items() if value is not None}


# The request ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_CONNECTION": "upgrade"},
        {"CONTENT_LENGTH": "0"},
        {"CONTENT_LENGTH": ""},
    ],
)
def test_an_opening_request_has_its_key(changes: dict[str, Any]) -> None:
    assert (check(environ(**changes)), accepts(environ(**changes))) == (KEY, True)


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (400, {"REQUEST_METHOD": "POST"}),
        (400, {"SERVER_PROTOCOL": "HTTP/1.0"}),
        (400, {"SERVER_PROTOCOL": "HTTP/2.0"}),
        (400, {"SERVER_PROTOCOL": None}),
        (400, {"HTTP_UPGRADE": None}),
        (400, {"HTTP_UPGRADE": "h2c"}),
        (400, {"HTTP_UPGRADE": "websockets"}),
        (400, {"HTTP_CONNECTION": None}),
        (400, {"HTTP_CONNECTION": "close"}),
        (400, {"CONTENT_LENGTH": "5"}),
        (400, {"HTTP_TRANSFER_ENCODING": "chunked"}),
        (426, {"HTTP_SEC_WEBSOCKET_VERSION": None}),
        (426, {"HTTP_SEC_WEBSOCKET_VERSION": "8"}),
        (426, {"HTTP_SEC_WEBSOCKET_VERSION": "13,13"}),
        (400, {"HTTP_SEC_WEBSOCKET_KEY": None}),
        (400, {"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}),
        (400, {"HTTP_SEC_WEBSOCKET_KEY": "!" * 22 + "=="}),
        (400, {"HTTP_SEC_WEBSOCKET_KEY": f"{KEY},{KEY}"}),
        (501, {"werkzeug.socket": None}),
    ],
)
def test_a_request_that_opens_nothing_is_refused(status: int, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        check(environ(**changes))
    assert (refusal.value.status, "\n" in str(refusal.value)) == (status, False)
    assert not accepts(environ(**changes))


# The response -----------------------------------------------------------------------------


class Here:
    """A hub whose thread is every caller's."""

    loop = gevent.get_hub().loop

    def here(self) -> bool:
        return True

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        fn(*args)


class Opened:
    """Keeps the link it is given."""

    def __call__(self, link: Link, data: bytes) -> None:
        self.link, self.data = link, data


def started(*_: object) -> Callable[[bytes], object]:
    return lambda data: None


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_answer_carries_the_headers_of_the_application_but_no_cookie(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    opened = Opened()
    response = SwitchProtocols(opened, Here(), KEY, [("Sec-WebSocket-Protocol", "chsk.v1")])
    response.headers["X-Of-The-App"] = "yes"
    response.set_cookie("seen", "yes")
    response(environ(ours), started)
    assert theirs.recv(4096).decode().split("\r\n") == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}",
        "Sec-WebSocket-Protocol: chsk.v1",
        "X-Of-The-App: yes",
        "",
        "",
    ]
    opened.link.close()


def test_the_server_keeps_a_socket_whose_client_hung_up(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    opened = Opened()
    reader = ours.makefile("rb")
    theirs.sendall(b"GET\nearly")
    assert reader.readline() == b"GET\n"
    body = SwitchProtocols(opened, Here(), KEY)(environ(ours, **{"wsgi.input": reader}), started)
    head = theirs.recv(4096)
    assert (opened.data, reader.readline(), ours.recv(1)) == (b"early", b"", b"")
    ours.sendall(b"what the server thinks of the 101")
    assert (list(body), opened.link.write(b"on")) == ([b""], True)
    body.close()  # type: ignore[attr-defined]
    assert (head[:12], theirs.recv(4096)) == (b"HTTP/1.1 101", b"on")
    opened.link.close()
    reader.close()


def test_a_view_that_cannot_open_leaves_nothing_behind(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(link: Link, data: bytes) -> None:
        raise RuntimeError("a bug")

    ours, theirs = pair
    before = descriptors()
    body = SwitchProtocols(fail, Here(), KEY)(environ(ours), started)
    body.close()  # type: ignore[attr-defined]
    ours.close()
    assert (theirs.recv(12), descriptors()) == (b"HTTP/1.1 101", before - 1)
    assert [record.name for record in caplog.records] == ["flask_chsk.transports.upgrade"]


def test_a_hub_that_has_gone_leaves_nothing_behind(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    class Gone(Here):
        def call(self, fn: Callable[..., object], *args: Any) -> None:
            raise RuntimeError("the hub has ended")

    ours, _ = pair
    before = descriptors()
    with pytest.raises(RuntimeError):
        SwitchProtocols(Opened(), Gone(), KEY)(environ(ours), started)
    ours.close()
    assert descriptors() == before - 1


def test_a_server_that_refuses_the_headers_keeps_its_connection(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    def refuses(*_: object) -> Callable[[bytes], object]:
        raise ValueError("a header it does not like")

    ours, theirs = pair
    with pytest.raises(ValueError):
        SwitchProtocols(Opened(), Here(), KEY)(environ(ours), refuses)
    ours.sendall(b"HTTP/1.1 500")
    assert theirs.recv(4096) == b"HTTP/1.1 500"


@pytest.mark.parametrize("own_class", [False, True])
def test_a_view_may_return_it_whatever_the_response_class(own_class: bool) -> None:
    class OwnResponse(flask.Response):
        default_mimetype = "text/plain"

    app = flask.Flask(__name__)
    if own_class:
        app.response_class = OwnResponse
    made = SwitchProtocols.of(app.response_class)(Opened(), Here(), KEY)
    with app.test_request_context():
        kept = app.make_response(made)
    assert kept is made and isinstance(kept, SwitchProtocols)
    assert SwitchProtocols.of(app.response_class) is type(made)


def test_without_a_socket_it_is_a_plain_answer() -> None:
    app = flask.Flask(__name__)
    app.add_url_rule("/", view_func=lambda: SwitchProtocols(Opened(), Here(), KEY))
    assert app.test_client().get("/").status_code == 501


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


@pytest.fixture(scope="module", params=[*KINDS, *SECURE_KINDS])
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


e2e = pytest.mark.e2e


@e2e
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


@e2e
def test_bytes_behind_the_request_are_not_lost(site: Site) -> None:
    sock, _ = site.open(b"early")
    with sock:
        assert receive(sock, 5) == b"early"


@e2e
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


@e2e
def test_two_megabytes_come_back(site: Site) -> None:
    sock, _ = site.open()
    data = os.urandom(2 << 20)
    with sock:
        assert exchange(sock, data) == data


@e2e
def test_the_request_has_ended_while_its_link_is_open(site: Site) -> None:
    eventually(site.all_closed)
    popped = site.state()["popped"]
    sock, _ = site.open()
    with sock:
        sock.sendall(b"x")
        receive(sock, 1)
        assert eventually(lambda: site.state()["popped"] == popped + 1)
        assert site.state()["open"] == 1


@e2e
def test_a_client_that_leaves_is_noticed(site: Site) -> None:
    sock, _ = site.open()
    eventually(lambda: not site.all_closed())
    sock.close()
    eventually(site.all_closed)


@e2e
def test_a_client_that_breaks_off_is_noticed(site: Site) -> None:
    sock, _ = site.open()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()  # a reset
    eventually(site.all_closed)


@e2e
def test_a_close_by_the_server_is_seen(site: Site) -> None:
    sock, _ = site.open()
    with sock:
        sock.sendall(b"close")
        assert receive(sock, 3) == b"bye"
        with contextlib.suppress(ssl.SSLEOFError):
            assert sock.recv(1) == b""
    eventually(site.all_closed)


@e2e
def test_open_links_take_no_slots_of_the_server(site: Site) -> None:
    if site.tls is not None:
        pytest.skip("each TLS connection stays in its call")
    socks = [site.open()[0] for _ in range(25)]
    assert site.state()["open"] >= 25
    for sock in socks:
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        sock.close()
    eventually(site.all_closed)


@e2e
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
