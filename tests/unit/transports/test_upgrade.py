"""The opening handshake, and the take-over: alone, and under every kind of server."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import flask
import gevent
import pytest

from flask_chsk.errors import Refused
from flask_chsk.transports.link import Link
from flask_chsk.transports.upgrade import SwitchProtocols, accepts, check

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
