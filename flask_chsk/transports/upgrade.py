"""A WebSocket's socket, taken over from whatever WSGI server accepted it.

WSGI has no word for a connection that outlives its request. So :class:`SwitchProtocols` takes the
connection away and leaves the server's socket object with another end: one that takes what the
server still wants to write, and then reads as a client that hung up. Every server knows how to end
a request whose client hung up. Its slot, its thread and Flask's contexts are free at once; the
connection lives on as a :class:`~flask_chsk.transports.link.Link`, which needs neither.

Refuses to know frames, sessions and who may connect, and to take over what is not a plain socket:
a TLS connection stays in its WSGI call, which waits, its contexts popped, until the link is closed.
"""

from __future__ import annotations

import _socket
import base64
import contextlib
import hashlib
import io
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import gevent
import gevent.socket
from flask import Response
from gevent import monkey

from .. import errors
from ..interrupts import from_signal
from ..logs import logger
from .link import CallLink, Link

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from ..internals import Loop

log = logger(__name__)

VERSION = ("Sec-WebSocket-Version", "13")  # belongs into an answer of 426 (RFC 6455 4.4)

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64

# A response that switches protocols has no body to describe, and sets no cookie: the connection
# outlives what was true when it began.
_DROPPED = {
    "connection",
    "content-length",
    "content-type",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
}


class Hub(Protocol):
    """What owns the links of this process."""

    @property
    def loop(self) -> Loop:
        """The loop of the owning thread."""

    def here(self) -> bool:
        """The caller is on the owning thread."""

    def call(self, fn: Callable[..., object], /, *args: Any) -> object:
        """Run *fn* on the owning thread: at once where that is the caller's, else soon."""


def accepts(environ: Mapping[str, Any]) -> bool:
    """True for a request that can become a WebSocket: one that :func:`check` lets pass."""
    try:
        check(environ)
    except errors.Refused:
        return False
    return True


def check(environ: Mapping[str, Any]) -> str:
    """The key of an opening handshake, for :class:`SwitchProtocols` (RFC 6455 4.2.1).

    :raises Refused: 400 for a malformed one, 426 for another version (answer with :data:`VERSION`),
        501 from a server that lets no application have the connection.
    """
    if environ["REQUEST_METHOD"] != "GET" or environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        raise errors.Refused(400, "A WebSocket opens with a GET request of HTTP/1.1.")
    if "websocket" not in _tokens(environ, "HTTP_UPGRADE"):
        raise errors.Refused(400, 'A WebSocket opens with the header "Upgrade: websocket".')
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        raise errors.Refused(
            400, 'The header "Connection: Upgrade" is missing: does a proxy drop it?'
        )
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        raise errors.Refused(400, "A WebSocket's opening request has no body.")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != VERSION[1]:
        raise errors.Refused(426, "This server speaks version 13 of the WebSocket protocol.")
    key: str = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
    if not _KEY.fullmatch(key):
        raise errors.Refused(400, "Sec-WebSocket-Key has to be 16 bytes in base64.")
    if socket_of(environ) is None:
        raise errors.Refused(
            501, "No WebSockets under this server: use gunicorn -k gevent, or long-polling."
        )
    if not hasattr(_socket, "socketpair"):
        raise errors.Refused(501, "No WebSockets on Windows: use long-polling.")
    return key


class SwitchProtocols(Response):
    """What a view returns to turn its request into a link.

    Headers that Flask and the application add leave with the 101, but no cookies; none do under
    gevent-websocket's handler, which has sent its own before the application saw the request.
    """

    _made: ClassVar[dict[type[Response], type[SwitchProtocols]]] = {}

    def __init__(
        self,
        open: Callable[[Link, bytes], object],
        hub: Hub,
        key: str,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """
        :param open: gets the link, not started yet, and the bytes that were read past the request:
            what :meth:`Link.start` takes. Called on the hub's thread, behind the 101, and perhaps
            before the request's context is popped; must not block.
        :param key: what :func:`check` returned.
        :param headers: more of them, for example ``Sec-WebSocket-Protocol``.
        """
        super().__init__(status=101, headers=list(headers))
        self._open = open
        self._hub = hub
        self._key = key

    @classmethod
    def of(cls, response_class: type[Response]) -> type[SwitchProtocols]:
        """This class, as a subclass of the application's ``response_class``.

        Flask turns every response of another class into a plain *response_class*.
        """
        if issubclass(cls, response_class):
            return cls
        if response_class not in cls._made:
            cls._made[response_class] = type(cls.__name__, (cls, response_class), {})
        return cls._made[response_class]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sock = socket_of(environ)
        if sock is None:
            return Response("No socket to switch protocols on.\n", 501)(environ, start_response)
        headers = self._answer()
        head = _head(headers)
        websocket = environ.get("wsgi.websocket")
        if websocket is not None:
            head = b""  # sent by gevent-websocket
            websocket.closed = True  # else it sends a frame of its own to close
        void = _Void()
        start_response("101 Switching Protocols", headers)
        leftover = _leftover(environ, sock)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # Small frames in a row: none waits for the acknowledgement of the one before.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if type(sock) is gevent.socket.socket or type(sock) is _native_socket_class():
            taken = void.replace(sock)
            self._hand_over(Link(self._hub.loop, taken), head, leftover)
            return void
        link = CallLink(self._hub.loop, sock, self._hub.here())
        self._hand_over(link, head, leftover)
        return _Wait(self._hub, link, sock, void)

    def _answer(self) -> list[tuple[str, str]]:
        accept = base64.b64encode(
            hashlib.sha1(self._key.encode("ascii") + _GUID, usedforsecurity=False).digest()
        )
        rest = [(name, value) for name, value in self.headers if name.lower() not in _DROPPED]
        return [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept.decode("ascii")),
            *rest,
        ]

    def _hand_over(self, link: Link, head: bytes, leftover: bytes) -> None:
        try:
            self._hub.call(self._begin, link, head, leftover)
        except BaseException:
            link.close()  # nobody else has it
            raise

    def _begin(self, link: Link, head: bytes, leftover: bytes) -> None:
        link.write(head)
        try:
            self._open(link, leftover)
        except BaseException as error:
            link.close()
            if from_signal(error):
                raise
            log.exception("a WebSocket could not be opened")


class _Void:
    """The other end for a server whose connection was taken, and the body of its response.

    Reads end at once, and what is written vanishes for as long as this object stands: a server
    that wants to send its own idea of the 101 does so in peace, logs it, and sees the end after.
    """

    def __init__(self) -> None:
        self._server_end, self._our_end = _socket.socketpair()
        self._our_end.setblocking(False)
        self._our_end.shutdown(socket.SHUT_WR)

    def replace(self, sock: socket.socket) -> _socket.socket:
        """The connection of *sock*, native and non-blocking; *sock* continues with the void.

        The connection keeps its descriptor: an epoll that still knows it by that number does no
        harm, where a duplicate would leave it waking up for the old one.
        """
        family, kind, protocol = sock.family, sock.type, sock.proto
        taken = _socket.socket(family, kind, protocol, sock.detach())
        base = gevent.socket.socket
        if not isinstance(sock, base):
            base = _native_socket_class()
        end = self._server_end
        base.__init__(sock, end.family, end.type, end.proto, end.detach())
        taken.setblocking(False)
        return taken

    def __iter__(self) -> Iterator[bytes]:
        return iter((b"",))  # makes most servers write their headers now, while this stands

    def close(self) -> None:
        # Closed over unread bytes, it would make the server's next read an error instead of an end.
        with contextlib.suppress(OSError):  # nothing there, or closed already
            self._our_end.recv(65536)
        self._our_end.close()
        self._server_end.close()

    __del__ = close  # not every server closes its body, nor does one whose start_response raised


class _Wait:
    """The body of a response whose call keeps the socket: empty, once the link is closed."""

    def __init__(self, hub: Hub, link: CallLink, sock: socket.socket, void: _Void) -> None:
        self._hub = hub
        self._link = link
        self._sock: socket.socket | None = sock
        self._void = void

    def __iter__(self) -> Iterator[bytes]:
        try:
            self._link.wait()
        finally:
            self._leave()
        yield b""

    def close(self) -> None:
        self._leave()
        self._void.close()

    def _leave(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._hub.call(self._link.close)
        self._link.wait()
        with contextlib.suppress(OSError):  # the peer may be gone
            sock.shutdown(socket.SHUT_RDWR)  # drops the TLS state: sock is a plain one from here on
        self._void.replace(sock).close()


def _tokens(environ: Mapping[str, Any], name: str) -> list[str]:
    return [token.strip() for token in environ.get(name, "").lower().split(",")]


def _head(headers: Iterable[tuple[str, str]]) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _native_socket_class() -> type[socket.socket]:
    """Python's own `socket.socket`, whether gevent has put its own in that place or not."""
    return cast("type[socket.socket]", monkey.get_original("socket", "socket"))


def socket_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket of a request: each server has a place of its own for it."""
    websocket = environ.get("wsgi.websocket")
    if websocket is not None:  # gevent-websocket
        found = getattr(getattr(websocket, "handler", None), "socket", None)
    else:
        found = (
            environ.get("gunicorn.socket")
            or environ.get("werkzeug.socket")
            or getattr(getattr(_reader_of(environ), "raw", None), "_sock", None)  # pywsgi
        )
    return cast("socket.socket | None", found)


def serves_one_at_a_time(environ: Mapping[str, Any]) -> bool:
    """Whether the server takes its next request when this one has ended, as gunicorn's sync does.

    A server whose socket is not known is not judged.
    """
    return (
        socket_of(environ) is not None
        and not environ.get("wsgi.multithread")
        and not isinstance(gevent.getcurrent(), gevent.Greenlet)
    )


def plain_socket(environ: Mapping[str, Any]) -> socket.socket | None:
    """The socket of a request, where it can be looked at behind the server's back."""
    sock = socket_of(environ)
    plain = type(sock) is gevent.socket.socket or type(sock) is _native_socket_class()
    return sock if plain else None


def _reader_of(environ: Mapping[str, Any]) -> io.BufferedReader | None:
    """What the server reads the connection through; None for gunicorn, which has its own kind."""
    websocket = environ.get("wsgi.websocket")
    stream = environ.get("wsgi.input") if websocket is None else websocket.handler
    reader = getattr(stream, "rfile", stream)  # pywsgi: one of the two, by the header's spelling
    return reader if isinstance(reader, io.BufferedReader) else None


def _leftover(environ: Mapping[str, Any], sock: socket.socket) -> bytes:
    """Bytes behind the request's head that the server has read; *sock* does not block any more."""
    sock.settimeout(0.0)
    unreader = getattr(getattr(environ["wsgi.input"], "reader", None), "unreader", None)
    if unreader is not None:  # gunicorn
        data: bytes = unreader.buf.getvalue()
        unreader.buf = io.BytesIO()
        return data
    reader = _reader_of(environ)
    if reader is None:
        return b""
    with contextlib.suppress(
        OSError
    ):  # TLS has nothing yet; a broken connection shows itself later
        return reader.read1() or b""
    return b""
