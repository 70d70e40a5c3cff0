"""Bytes in and out of one socket, on the gevent loop that owns it, without a greenlet.

A :class:`Link` is to its receiver what a transport of asyncio is to its protocol: bytes that
arrive are handed over in a watcher's callback, bytes to send go to the operating system at once,
and what it does not take waits here. At rest it is a socket, a watcher and one small object.
A :class:`CallLink` is the same over a socket that has to stay with the WSGI call that brought it.

It refuses to know what the bytes mean, to decide how much may wait unsent (the receiver looks at
:attr:`Link.unsent` and :attr:`Link.stalled_since`), to block, and to be called from any thread
but its loop's.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import TYPE_CHECKING, Protocol

import gevent.event
from gevent import monkey

from .. import forks
from ..internals import hub_of_thread
from ..interrupts import from_signal
from ..logs import logger

if TYPE_CHECKING:
    import socket
    from _socket import socket as NativeSocket

    from ..internals import IoWatcher, Loop, TimerWatcher

log = logger(__name__)

_READ, _WRITE = 1, 2  # libev's names for what a watcher waits for
_READ_SIZE = 65536
_READS_PER_TURN = 4  # then the loop's other sockets have their turn

# What a socket says that has nothing to give or to take just now; TLS may want the other direction
# first, and then says so when it is asked again.
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Links:
    """Those of this process."""

    def __init__(self) -> None:
        self.open: set[Link] = set()

    def forked(self) -> None:
        """They are the parent's, all of them."""
        hub = hub_of_thread()
        for link in self.open:
            link.forked(None if hub is None else hub.loop)
        self.open.clear()


_links = _Links()
forks.register(_links)


class Receiver(Protocol):
    """What a link calls, always on its loop's thread; none of it may block.

    An exception from any of them is logged, and closes the link.
    """

    def data_received(self, data: bytes, /) -> None:
        """Bytes arrived; how they are cut means nothing."""

    def link_writable(self) -> None:
        """Everything that waited unsent has been taken by the operating system."""

    def link_closed(self, error: Exception | None, /) -> None:
        """The last call, made once, from the loop: whoever closed it.

        :param error: what broke the connection; None where either side just closed it.
        """


class Link:
    """A connected socket whose bytes go to a receiver, and whose writes never wait."""

    __slots__ = (
        "_close_timer",
        "_error",
        "_loop",
        "_reader",
        "_reading",
        "_receiver",
        "_sock",
        "_stalled_since",
        "_unsent",
        "_writer",
    )

    def __init__(self, loop: Loop, sock: NativeSocket | socket.socket) -> None:
        """:param sock: native and non-blocking; the link's own from now on."""
        self._loop = loop
        self._sock: NativeSocket | socket.socket | None = sock  # None: closed
        self._receiver: Receiver | None = None  # None: not started, or told of the end
        self._reader: IoWatcher | None = None  # None: not started, or closed
        self._reading = True  # False: paused
        self._writer: IoWatcher | None = None  # only while something is unsent
        self._unsent: deque[memoryview] | None = None  # only while something is unsent
        self._stalled_since: float | None = None
        self._close_timer: TimerWatcher | None = None  # close_when_flushed: the time that it has
        self._error: Exception | None = None  # what ended it
        _links.open.add(self)

    def forked(self, loop: object) -> None:
        """This is a child, and the connection its parent's: close no more than a descriptor.

        :param loop: that of the thread which is left.
        """
        sock, self._sock = self._sock, None
        self._receiver = None
        if self._loop is loop:  # else nobody runs it, and it may have been at its watchers
            self._stop_watching()
        if sock is not None:
            self._leave(sock)

    def start(self, receiver: Receiver, data: bytes = b"") -> None:
        """Begin to read for *receiver*.

        :param data: bytes that were read before; delivered first, before this returns.
        """
        self._receiver = receiver
        if self._sock is None:  # broken by a write before anybody listened
            self._loop.run_callback(self._tell_end)
            return
        if data and self._close_timer is None:
            self._deliver(data)
        self._watch_reads()

    def write(self, data: bytes) -> bool:
        """Send *data*; what the operating system does not take at once waits its turn.

        The result is True where it took everything. Otherwise `link_writable` is called when
        nothing waits any more. On a link that was closed, by whomever, *data* is dropped.
        """
        if self._unsent is not None:
            if data and self._close_timer is None:
                self._unsent.append(memoryview(data))
            return False
        if self._sock is None or self._close_timer is not None:
            return False
        try:
            sent = self._sock.send(data)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            self._end(error)
            return False
        if sent == len(data):
            return True
        self._unsent = deque((memoryview(data)[sent:],))
        self._stalled_since = self._loop.now()
        self._writer = self._loop.io(self._sock.fileno(), _WRITE)
        self._writer.start(self._on_writable)
        return False

    @property
    def unsent(self) -> int:
        """Bytes that the operating system has not taken yet."""
        return sum(map(len, self._unsent)) if self._unsent else 0

    @property
    def stalled_since(self) -> float | None:
        """The loop's time at which it last took a byte of what waits; None where nothing waits."""
        return self._stalled_since

    @property
    def reading(self) -> bool:
        """Not paused."""
        return self._reading

    @property
    def closed(self) -> bool:
        """No byte goes in or out any more."""
        return self._sock is None

    def pause(self) -> None:
        """Stop reading, so that the peer has to wait; its leaving is not noticed meanwhile."""
        if self._close_timer is not None:  # reads only to notice that
            return
        self._reading = False
        if self._reader is not None:
            self._reader.stop()

    def resume(self) -> None:
        """Read again."""
        self._reading = True
        if self._receiver is not None:
            self._watch_reads()

    def close(self) -> None:
        """Close at once; what waits unsent is dropped. Closing twice is closing once."""
        self._end(None)

    def close_when_flushed(self, timeout: float) -> None:
        """Send what waits, then say that no more will come, and close when the peer has, too.

        What the peer still sends is read and thrown away: closing a socket with unread bytes
        would reset the connection, and take from the peer what it has not read yet.

        :param timeout: seconds for all of it; then it is closed as by :meth:`close`.
        """
        if self._sock is None or self._close_timer is not None:
            return
        self._close_timer = self._loop.timer(timeout)
        self._close_timer.start(self._end, None)
        self._reading = True
        self._watch_reads()
        if self._unsent is None:
            self._half_close()

    # Callbacks of the loop ----------------------------------------------------------------

    def _on_readable(self) -> None:
        for _ in range(_READS_PER_TURN):
            if self._sock is None or not self._reading:  # a delivery closed or paused it
                return
            try:
                data = self._sock.recv(_READ_SIZE)
            except _NOT_NOW:
                return
            except OSError as error:
                self._end(error)
                return
            if not data:
                self._end(None)
                return
            if self._close_timer is None:
                self._deliver(data)
            if len(data) < _READ_SIZE:  # that was all, or the watcher says so again
                return

    def _on_writable(self) -> None:
        assert self._sock is not None and self._unsent is not None and self._writer is not None
        unsent = self._unsent
        try:
            while unsent:
                sent = self._sock.send(unsent[0])
                if sent:
                    self._stalled_since = self._loop.now()
                if sent < len(unsent[0]):
                    unsent[0] = unsent[0][sent:]
                    return
                unsent.popleft()
        except _NOT_NOW:
            return
        except OSError as error:
            self._end(error)
            return
        self._writer.stop()
        self._writer.close()
        self._writer = self._unsent = self._stalled_since = None
        if self._close_timer is not None:
            self._half_close()
        elif self._receiver is not None:
            try:
                self._receiver.link_writable()
            except BaseException as error:
                self._receiver_failed(error)

    # Steps --------------------------------------------------------------------------------

    def _watch_reads(self) -> None:
        if self._sock is None or not self._reading:
            return
        if self._reader is None:
            self._reader = self._loop.io(self._sock.fileno(), _READ)
        self._reader.start(self._on_readable)

    def _deliver(self, data: bytes) -> None:
        assert self._receiver is not None
        try:
            self._receiver.data_received(data)
        except BaseException as error:
            self._receiver_failed(error)

    def _receiver_failed(self, error: BaseException) -> None:
        if from_signal(error):
            raise error
        # Left to the loop, the exception would stop the watcher and leave the socket open and deaf.
        log.exception("a link's receiver failed; its connection is closed")
        self._end(error if isinstance(error, Exception) else None)

    def _half_close(self) -> None:
        assert self._sock is not None
        try:
            self._sock.shutdown(1)  # SHUT_WR
        except OSError as error:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        _links.open.discard(self)
        self._stop_watching()
        self._unsent = self._stalled_since = None
        self._error = error
        self._let_go(sock)
        if self._receiver is not None:
            self._loop.run_callback(self._tell_end)

    def _stop_watching(self) -> None:
        for watcher in (self._reader, self._writer, self._close_timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._reader = self._writer = self._close_timer = None

    def _let_go(self, sock: NativeSocket | socket.socket) -> None:
        sock.close()

    def _leave(self, sock: NativeSocket | socket.socket) -> None:
        sock.close()

    def _tell_end(self) -> None:
        receiver, self._receiver = self._receiver, None
        error, self._error = self._error, None
        assert receiver is not None
        try:
            receiver.link_closed(error)
        except BaseException as failure:
            if from_signal(failure):
                raise
            log.exception("a link's receiver failed at its end")


class CallLink(Link):
    """A link over a socket that stays with its WSGI call, which waits in :meth:`wait`.

    For what cannot be taken over: a TLS connection is more than its descriptor. The call's
    greenlet or thread only waits; all reading and writing happens on the loop, so that one thread
    touches the TLS state.
    """

    __slots__ = ("_done",)

    def __init__(self, loop: Loop, sock: socket.socket, here: bool) -> None:
        """
        :param here: the call runs on the loop's own thread (in a greenlet), not in another one.
        """
        sock.settimeout(0.0)
        super().__init__(loop, sock)
        self._done = gevent.event.Event() if here else _ThreadLatch()

    def wait(self) -> None:
        """Block the calling greenlet or thread until the link is closed; for the call only.

        The socket still stands then: closing it is up to the server.
        """
        self._done.wait()  # both kinds return at once when it is over

    def _let_go(self, sock: NativeSocket | socket.socket) -> None:
        self._done.set()

    def _leave(self, sock: NativeSocket | socket.socket) -> None:
        forks.silence(sock.fileno())  # the copy of the call waits on, and closes nothing


class _ThreadLatch:
    """What `gevent.event.Event` is between greenlets of a thread, between two threads."""

    def __init__(self) -> None:
        # Native even where threading is patched: the loop's thread may not be the one that waits.
        self._lock = monkey.get_original("_thread", "allocate_lock")()
        self._lock.acquire()

    def set(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        with self._lock:
            pass
