"""A proxy between clients and their servers that a test cuts, hangs and restores.

It relays TCP on 127.0.0.1, one backend for each connection in turn, from a thread of its own:
what a test calls has happened when the call returns. Of HTTP it knows only the head of the first
request on a connection, to tell WebSocket upgrades (browsers never send one on a used connection).
It does no TLS, and nothing for a client that waits for the server to speak first. Other protocols
pass unread (``http=False``).
"""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal

Upgrades = Literal["pass", "refuse", "hang", "strip", "mute", "drop"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
BUFFER = 256 * 1024  # bytes held in one direction before its source is no longer read
HEAD = 64 * 1024  # bytes of a request's head; longer ones pass unread
TICK = 0.05  # seconds between two looks for idle connections
UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*(\r\n|$)", re.IGNORECASE)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST instead of FIN


class Proxy:
    """Stands at :attr:`url` for the servers on the ports *backends*.

    These may be set at any time, for the connections that come next:

    :ivar backends: ports of 127.0.0.1, taken in turn; none: connections are reset.
    :ivar upgrades: what becomes of a WebSocket upgrade: ``"pass"``; ``"refuse"`` with the status
        :attr:`refusal`; ``"hang"``, no answer at all; ``"strip"``, it arrives as a plain GET;
        ``"mute"``, the 101 comes back, and after it nothing; ``"drop"``, the server answers, and
        the connection is reset before the client hears of it.
    :ivar ws_life: seconds after which each upgraded connection is reset; None for never.
    :ivar ws_delay: seconds for which what the server says on an upgraded connection is held back
        at its beginning.
    :ivar idle: seconds without a byte after which a connection is closed; None for never.
    :ivar one_request: each connection carries one request, so that requests, not connections,
        take turns among the backends.
    """

    def __init__(
        self,
        *backends: int,
        upgrades: Upgrades = "pass",
        refusal: int = 501,
        idle: float | None = None,
        one_request: bool = False,
        http: bool = True,
        ws_life: float | None = None,
        ws_delay: float = 0.0,
    ) -> None:
        self.backends = list(backends)
        self.upgrades: Upgrades = upgrades
        self.refusal = refusal
        self.idle = idle
        self.one_request = one_request
        self.http = http
        self.ws_life = ws_life
        self.ws_delay = ws_delay
        self.accepted = 0  # connections taken in, those that a cut turned away not counted
        self.upgraded = 0  # upgrade requests seen, whatever became of them
        self.turned_away = 0  # connections that came while cut

        self._cut = self._hung = self._closed = False
        self._turn = 0
        self._links: set[_Link] = set()
        self._ghosts: list[socket.socket] = []  # server ends whose client has vanished
        self._calls: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, READ, self._woken)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._selector.register(self._listener, READ, self._accept)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def open(self) -> int:
        """Connections now relayed or held."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every connection at both ends, and each new one at once, until :meth:`restore`."""

        def cut() -> None:
            self._cut, self._hung = True, False
            self._watch_listener()
            for link in list(self._links):
                link.abort()

        self._call(cut)

    def cut_one(self) -> None:
        """Reset one connection, whichever, at both ends."""

        def cut() -> None:
            if self._links:
                random.choice(list(self._links)).abort()

        self._call(cut)

    def hang(self) -> None:
        """Move no byte and close nothing until :meth:`restore`; what is under way then arrives."""
        self._call(lambda: self._set_hung(True))

    def vanish(self) -> None:
        """Reset every connection towards its client; the servers hear nothing of it.

        New connections pass: a client that woke up in another network.
        """

        def vanish() -> None:
            for link in list(self._links):
                link.abandon()

        self._call(vanish)

    def restore(self) -> None:
        """Let new connections, and those that hang, pass again."""

        def restore() -> None:
            self._cut = False
            self._set_hung(False)

        self._call(restore)

    def close(self) -> None:
        """End the proxy and all that goes through it; a second call does nothing."""
        if self._thread.is_alive():
            self._call(self._end)
            self._thread.join()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The thread's side ------------------------------------------------------------------

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()
        self._calls.append((function, done))
        self._wake_out.send(b"!")
        if not done.wait(60):
            raise RuntimeError("the proxy's thread has ended")

    def _woken(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.recv(4096)
        while self._calls:
            function, done = self._calls.popleft()
            function()
            done.set()

    def _run(self) -> None:
        while not self._closed:
            for key, mask in self._selector.select(TICK):
                if self._closed:
                    break
                key.data(mask)
            if self.idle is not None and not self._hung:
                latest = time.monotonic() - self.idle
                for link in [link for link in self._links if link.used < latest]:
                    link.close()
            if not self._hung:
                self._look_at_upgraded(time.monotonic())

    def _look_at_upgraded(self, now: float) -> None:
        for link in [link for link in self._links if link.upgraded is not None]:
            if self.ws_life is not None and now - link.upgraded > self.ws_life:
                link.abort()
            elif now - link.upgraded > self.ws_delay:
                link.release()

    def _end(self) -> None:
        self._closed = True
        for link in list(self._links):
            link.abort()
        for sock in [*self._ghosts, self._listener, self._wake_in, self._wake_out]:
            sock.close()
        self._selector.close()

    def _set_hung(self, hung: bool) -> None:
        self._hung = hung
        self._watch_listener()
        for link in list(self._links):
            link.watch()

    def _watch_listener(self) -> None:
        self._interest(self._listener, 0 if self._hung else READ, self._accept)

    def _accept(self, mask: int) -> None:
        with contextlib.suppress(OSError):  # gone again while it waited
            client, _ = self._listener.accept()
            if self._cut:
                self.turned_away += 1
                _reset(client)
            else:
                self.accepted += 1
                self._links.add(_Link(self, client))

    def _next_backend(self) -> int:
        """:raises ConnectionRefusedError: where there is none, as where nothing listens."""
        backends = self.backends  # a test may set others meanwhile
        if not backends:
            raise ConnectionRefusedError
        self._turn += 1
        return backends[self._turn % len(backends)]

    def _interest(self, sock: socket.socket, events: int, call: Callable[[int], None]) -> None:
        """Watch *sock* for *events*, for nothing where that is 0."""
        registered = self._selector.get_map().get(sock)
        if registered is None:
            if events:
                self._selector.register(sock, events, call)
        elif not events:
            self._selector.unregister(sock)
        elif registered.events != events:
            self._selector.modify(sock, events, call)


class _Link:
    """One client's connection, and the one to its backend once the first head was read."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.proxy = proxy
        self.client = _Side(client)
        self.backend = _Side(None)
        self.head: bytearray | None = bytearray()  # None: complete, and passed on
        self.mute = False  # of the answer, only the head reaches the client
        self.drop = False  # the answer resets it
        self.answer: bytearray | None = bytearray()  # as far as that head; None behind it
        self.upgraded: float | None = None  # since when it is
        self.held: bytearray | None = None  # from the server, to be released later
        self.used = time.monotonic()
        self.watch()

    def watch(self) -> None:
        """Tell the selector what this link waits for, now that something has changed."""
        for end, other, call in (
            (self.client, self.backend, self._client_ready),
            (self.backend, self.client, self._backend_ready),
        ):
            if end.sock is not None:
                events = 0
                if not self.proxy._hung:
                    events |= READ if not end.ended and len(other.waiting) < BUFFER else 0
                    events |= WRITE if end.waiting else 0
                self.proxy._interest(end.sock, events, call)

    def _client_ready(self, mask: int) -> None:
        self._move(self.client, mask, self._from_client)

    def _backend_ready(self, mask: int) -> None:
        self._move(self.backend, mask, self._from_backend)

    def _move(self, end: _Side, mask: int, take: Callable[[bytes], None]) -> None:
        if end.sock is None:  # closed by another call of the same round
            return
        try:
            if mask & WRITE and end.waiting:
                del end.waiting[: end.sock.send(end.waiting)]
            if mask & READ and not end.ended:
                data = end.sock.recv(65536)
                end.ended = not data
                if data:
                    take(data)
            self.used = time.monotonic()
            self._pass_on_ends()
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if self._over():
            self.close()
        else:
            self.watch()

    def _over(self) -> bool:
        client, backend = self.client, self.backend
        if client.waiting or backend.waiting or not client.ended:
            return False
        return backend.ended or backend.sock is None

    def _pass_on_ends(self) -> None:
        for end, other in ((self.client, self.backend), (self.backend, self.client)):
            if end.ended and not other.waiting and other.sock is not None and not other.shut:
                other.shut = True
                other.sock.shutdown(socket.SHUT_WR)

    def release(self) -> None:
        if self.held is not None:
            self.client.waiting += self.held
            self.held = None
            self.watch()

    def _from_backend(self, data: bytes) -> None:
        if self.drop:
            self.abort()
        elif self.held is not None:
            self.held += data
        elif not self.mute:
            self.client.waiting += data
        elif self.answer is not None:
            self.answer += data
            head, blank, _ = bytes(self.answer).partition(b"\r\n\r\n")
            if blank:
                self.client.waiting += head + blank
                self.answer = None

    def _from_client(self, data: bytes) -> None:
        if self.head is None:
            if self.backend.sock is not None:
                self.backend.waiting += data
            return  # else: an upgrade that hangs or was refused
        self.head += data
        if not self.proxy.http or b"\r\n\r\n" in self.head or len(self.head) > HEAD:
            request, self.head = bytes(self.head), None
            self._first_request(request)

    def _first_request(self, request: bytes) -> None:
        head, blank, body = request.partition(b"\r\n\r\n")
        proxy = self.proxy
        upgrade = (
            re.search(rb"(?im)^upgrade:\s*websocket\s*$", head.replace(b"\r", b"")) is not None
        )
        if upgrade:
            proxy.upgraded += 1
            if proxy.upgrades == "hang":
                return
            if proxy.upgrades == "refuse":
                self.client.waiting += (
                    f"HTTP/1.1 {proxy.refusal} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                ).encode()
                self.backend.ended = True
                return
            if proxy.upgrades == "strip":
                head = _without(head, b"upgrade", b"connection") + b"\r\nConnection: close"
            self.mute = proxy.upgrades == "mute"
            self.drop = proxy.upgrades == "drop"
            self.upgraded = time.monotonic()
            if proxy.ws_delay:
                self.held = bytearray()
        elif proxy.one_request:
            head = _without(head, b"connection") + b"\r\nConnection: close"
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.backend.sock = sock
        self.backend.waiting += head + blank + body
        # A refused connection shows when it is first written to: the client is reset then.
        sock.connect_ex(("127.0.0.1", proxy._next_backend()))

    def _release(self, end: _Side) -> socket.socket | None:
        self.proxy._links.discard(self)
        if end.sock is None:
            return None
        self.proxy._interest(end.sock, 0, self._client_ready)
        sock, end.sock = end.sock, None
        return sock

    def close(self) -> None:
        for end in (self.client, self.backend):
            if sock := self._release(end):
                sock.close()

    def abort(self) -> None:
        for end in (self.client, self.backend):
            if sock := self._release(end):
                _reset(sock)

    def abandon(self) -> None:
        if sock := self._release(self.client):
            _reset(sock)
        if sock := self._release(self.backend):
            self.proxy._ghosts.append(sock)


class _Side:
    """One socket of a link."""

    def __init__(self, sock: socket.socket | None) -> None:
        self.sock = sock
        self.waiting = bytearray()  # bytes to be written to it
        self.ended = False  # it said that it will send no more
        self.shut = False  # it was told so


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def _without(head: bytes, *names: bytes) -> bytes:
    """*head* without the header fields *names* (lower case)."""
    request, *fields = head.split(b"\r\n")
    kept = [field for field in fields if field.partition(b":")[0].strip().lower() not in names]
    return b"\r\n".join([request, *kept])
