"""The network between clients and the worker: segments, cuts, HTTP requests and their answers.

A :class:`Wire` is one TCP connection that became a WebSocket: the server's end looks like a socket
to the real :class:`~flask_chsk.transports.link.Link`, the client's end calls back. A :class:`Call`
is one HTTP request. What is lost, cut and delayed is decided by whoever holds the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, Protocol

from .runtime import READ, SimHub, Watcher

_filenos = count(10)


class Latency(Protocol):
    def __call__(self) -> float:
        """Seconds that the next segment takes."""


class ClientEnd(Protocol):
    """What a wire tells its client; not before it has arrived there."""

    def arrived(self, data: bytes) -> None:
        """Bytes came."""

    def ended(self, error: bool) -> None:
        """Nothing more comes: the server closed, or the connection broke."""


class Wire:
    """One connection; the object itself is the server's socket."""

    def __init__(self, hub: SimHub, latency: Latency, client: ClientEnd, capacity: int) -> None:
        """:param capacity: bytes that the network holds for a peer that does not read."""
        self.watchers: list[Watcher] = []
        self.reading = True  # the client reads
        self.cut = False  # no byte passes any more
        self._hub = hub
        self._latency = latency
        self._client = client
        self._capacity = capacity
        self._fileno = next(_filenos)
        hub.loop.sockets[self._fileno] = self
        self._to_server = _Pipe(hub, latency, self._at_server)
        self._to_client = _Pipe(hub, latency, self._at_client)
        self._received = bytearray()
        self._unread: deque[bytes | None] = deque()  # at the client that does not read
        self._unread_bytes = 0
        self._client_left = False
        self._error: OSError | None = None

    # the server's socket -------------------------------------------------------------------

    def fileno(self) -> int:
        return self._fileno

    def send(self, data: bytes | memoryview) -> int:
        if self._error is not None:
            raise self._error
        room = self._capacity - self._to_client.bytes - self._unread_bytes
        if room <= 0:
            raise BlockingIOError
        taken = bytes(data[:room])
        self._to_client.put(taken)
        return len(taken)

    def recv(self, size: int) -> bytes:
        if self._received:
            data = bytes(self._received[:size])
            del self._received[:size]
            return data
        if self._error is not None:
            raise self._error
        if self._client_left:
            return b""
        raise BlockingIOError

    def shutdown(self, how: int) -> None:
        if self._error is not None:
            raise self._error
        self._to_client.put(None)

    def close(self) -> None:
        self._hub.loop.sockets.pop(self._fileno, None)
        self._to_client.put(None)
        self._error = ConnectionResetError("closed")

    def ready(self, events: int) -> bool:
        if self._error is not None:
            return True
        if events == READ:
            return bool(self._received) or self._client_left
        return self._to_client.bytes + self._unread_bytes < self._capacity

    # the client's end ----------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Send *data* to the server."""
        self._to_server.put(data)

    def leave(self) -> None:
        """Say that no more will come."""
        self._to_server.put(None)

    def stall(self) -> None:
        """Read no more, until :meth:`read_on`."""
        self.reading = False

    def read_on(self) -> None:
        self.reading = True
        while self._unread and self.reading and not self.cut:
            self._give(self._unread.popleft())

    # faults --------------------------------------------------------------------------------

    def break_off(self, part: float, *, server_hears: bool, client_hears: bool) -> None:
        """Cut the connection in the middle of what is on its way.

        :param part: of the bytes on their way arrive, from 0.0 to 1.0.
        :param server_hears: at once; else only its own timeouts tell it.
        """
        if self.cut:
            return
        self._to_client.stop(part)
        self._to_server.stop(part)
        self.cut = True
        if server_hears:
            self._hub.later(self._latency(), self._server_hears)
        if client_hears:
            self._hub.later(self._latency(), self._client.ended, True)

    def _server_hears(self) -> None:
        self._error = ConnectionResetError("the network")
        self._look()

    def _at_server(self, data: bytes | None) -> None:
        if data is None:
            self._client_left = True
        else:
            self._received += data
        self._look()

    def _at_client(self, data: bytes | None) -> None:
        self._unread.append(data)
        self._unread_bytes += len(data or b"")
        if self.reading:
            self._give(self._unread.popleft())

    def _give(self, data: bytes | None) -> None:
        if data is None:
            self._client.ended(False)
        else:
            self._unread_bytes -= len(data)
            self._look()
            self._client.arrived(data)

    def _look(self) -> None:
        for watcher in self.watchers:
            self._hub.loop.look(watcher)


class _Pipe:
    """One direction: segments arrive in order, each after its time; None is the end."""

    def __init__(
        self, hub: SimHub, latency: Latency, arrive: Callable[[bytes | None], object]
    ) -> None:
        self.bytes = 0  # on their way
        self._hub = hub
        self._latency = latency
        self._arrive = arrive
        self._segments: deque[bytes | None] = deque()
        self._last = 0.0  # when the last one arrives
        self._over = False

    def put(self, data: bytes | None) -> None:
        if self._over:
            self.bytes += len(data or b"")  # swallowed, as long as the network takes it
            return
        self._segments.append(data)
        self.bytes += len(data or b"")
        now = self._hub.loop.time
        self._last = max(self._last, now + self._latency())
        self._hub.later(self._last - now, self._next)

    def _next(self) -> None:
        if not self._segments:
            return  # they were cut off
        data = self._segments.popleft()
        self.bytes -= len(data or b"")
        self._arrive(data)

    def stop(self, part: float) -> None:
        """Deliver a part of what is on its way now, and nothing more ever."""
        self._over = True
        on_the_way = b"".join(data or b"" for data in self._segments)
        self._segments.clear()
        arrives = on_the_way[: int(len(on_the_way) * part)]
        if arrives:
            self._arrive(arrives)


class Answer:
    """What an HTTP request got; status 0: nothing, the connection broke."""

    def __init__(self, status: int, body: bytes = b"", retry_after: float | None = None) -> None:
        self.status = status
        self.body = body
        self.retry_after = retry_after


Serve = Callable[["Call"], "Answer | Iterable[bytes]"]


class Call:
    """One HTTP request, from the client's side and from the server's."""

    def __init__(
        self, hub: SimHub, latency: Latency, serve: Serve, process: SimHub | None = None
    ) -> None:
        """:param process: whose greenlets serve it, where that is not *hub*."""
        self.process = process or hub
        self.began: Callable[[], object] = lambda: None  # the answer's head came
        self._hub = hub
        self._latency = latency
        self._serve = serve
        self.aborted = False
        self.timed_out = False
        self._done = hub.waiter()
        self._cut = False
        self._lose = False
        self._hangups: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    # the client ----------------------------------------------------------------------------

    def wait(self, timeout: float, *, arrives: bool = True) -> Answer:
        """The answer; status 0 where there is none.

        :param arrives: False: the request is lost on its way.
        """
        if arrives:
            self._hub.later(self._latency(), self._begin)
        answer: Answer | None = self._done.wait(timeout)
        if answer is None:
            self.timed_out = True
            self._break(True)
            return Answer(0)
        return answer

    @property
    def over(self) -> bool:
        """Whether no answer comes any more."""
        return self._cut

    def abort(self) -> None:
        """End it from the client's side."""
        self.aborted = True
        self.break_off()

    def break_off(self, server_hears: bool = True) -> None:
        """Cut the connection, wherever the request or the answer is."""
        self._break(server_hears)
        self._done.set(Answer(0))

    def lose_answer(self) -> None:
        """Break the connection once the server has answered."""
        self._lose = True

    def _break(self, server_hears: bool) -> None:
        self._cut = True
        if server_hears:
            for fn, args in self._hangups:
                self._hub.later(self._latency(), self.process.loop.do, fn, *args)

    # the server ----------------------------------------------------------------------------

    def watch(self, fn: Callable[..., object], *args: Any) -> Call:
        """Call *fn* when the peer hangs up."""
        self._hangups.append((fn, args))
        return self

    def peer_is_gone(self) -> bool:
        """Never known before the watch says so."""
        return False

    def stop(self) -> None:
        """Watch no longer."""
        self._hangups.clear()

    def _begin(self) -> None:
        if not self._cut:
            self.process.spawn(self._run)

    def _run(self) -> None:
        made = self._serve(self)
        if not isinstance(made, Answer):
            made = Answer(200, self._read(made))
        if self._lose and not self._cut:
            self._hub.later(self._latency(), self.break_off)
        elif not self._cut:
            self._hub.later(self._latency(), self._done.set, made)

    def _read(self, body: Iterable[bytes]) -> bytes:
        """As a WSGI server: what is written to a peer that is gone is an error, and ends it."""
        data = b""
        try:
            for piece in body:
                if self._cut:
                    break
                data += piece
                self._hub.later(self._latency(), self.began)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        return data
