"""A client's polls: one parked request after another, between them nothing.

On the hub only, but for :class:`Parked`, which a request iterates: it holds no Flask
context and no database connection while it waits.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from ..hub import DONT_WAIT, Waiter
from ..protocol.session import RESTART
from ..protocol.wire import Data

if TYPE_CHECKING:
    from ..server.connection import Connection, Uid
    from ..server.worker import Server


UNDER_WAY = 6.0  # seconds for an answer that is being made; above the wait of a delayed close


def body(message: Data) -> bytes:
    """*message* as the body of an HTTP answer."""
    return message.encode() if isinstance(message, str) else message


class NoAnswer(bytes):
    """The connection of a poll ends instead of an answer; this one, where that is impossible."""


class Poller:
    """What stands for a client between and during its polls.

    A transport has a ``kind``, a ``wake()`` that sends what may leave and never blocks,
    and an ``end(code, reason)``.
    """

    __slots__ = (
        *("_connection", "_server", "_sock", "_waiter"),
        *("number", "takeover_window", "takeovers"),
    )

    kind = "ajax"
    proven = True
    reading = True
    closing = False

    def __init__(self, server: Server, connection: Connection) -> None:
        self._server = server
        self._connection = connection
        self._waiter: Waiter | None = None
        self._sock: socket.socket | None = None  # its request's, where nothing watches it
        self.number = -1  # of the last poll of a client that counts them
        self.takeovers = 0  # polls that released a parked one, in this second
        self.takeover_window = 0.0

    @property
    def parked(self) -> bool:
        """Whether a request of this client waits."""
        return self._waiter is not None

    def answer(self) -> bytes | None:
        """What may be given to a poll now."""
        connection = self._connection
        one = connection.session
        if one.behind and not one.outbox:
            self._server.history.catch_up(connection)
        upto = connection.served if self._notes else None
        return one.answer(body, self._server.delivery.frames, upto)

    @property
    def _notes(self) -> bool:
        """Whether the broker keeps this client's cursor."""
        return not self._connection.session.v1 and not self._server.broker.local

    def park(self, waiter: Waiter) -> None:
        """Let a request wait; an older one that still waits is released."""
        self.release()
        self._waiter = waiter
        self._sock = None

    def look_at(self, waiter: Waiter, sock: socket.socket) -> None:
        """See that the peer of *waiter* is there before it is answered."""
        if self._waiter is waiter:
            self._sock = sock

    def wake(self) -> None:
        """Answer the parked request, if there is one and anything to say."""
        if self._waiter is not None and self._sock is not None and _hung_up(self._sock):
            self.abandon(self._waiter)
        if self._waiter is not None:
            try:
                data = self.answer()
            except BaseException as error:
                self._server.unsendable(self._connection, self, error)
                return
            if data is not None:
                self._give(data)
            elif self._notes:
                self._server.polls.note_before_answer(self._connection)

    def finish(self) -> None:
        """Answer the parked request with what waits for its client, which is forgotten then.

        So the broker need not note it.
        """
        self.wake()
        if self._waiter is not None and self._notes:
            data = self._connection.session.answer(body, self._server.delivery.frames)
            if data is not None:
                self._give(data)

    def release(self) -> None:
        """Answer the parked request with an empty poll's end."""
        if self._waiter is not None:
            self._give(body(self._server.polls.end_of(self._connection)))

    def give_up(self) -> None:
        """Answer the parked request so that its client asks again: another process has it."""
        connection = self._connection
        composer = connection.session.composer
        self._give(body(composer.message(connection.generation.poll_end)))

    def _give(self, data: bytes) -> None:
        waiter, self._waiter = self._waiter, None
        self._sock = None
        if waiter is not None:
            waiter.set(data)
            self._server.polls.between_polls(self._connection)

    def expire(self, waiter: Waiter, at_once: bool) -> bytes | None:
        """The answer for *waiter*, whose time is over; None: it was answered just now.

        :param at_once: False: None, too, where it is about to be.
        """
        if self._waiter is not waiter or (self._connection.serving and not at_once):
            return None
        self._waiter = self._sock = None
        self._server.polls.between_polls(self._connection)
        self._server.polls.note_rest(self._connection)
        return body(self._server.polls.end_of(self._connection))

    def abandon(self, waiter: Waiter) -> None:
        """The request of *waiter* is gone."""
        if self._waiter is waiter:
            self._waiter = self._sock = None
            self._server.polls.between_polls(self._connection)

    def end(self, code: int, reason: str = "") -> None:
        """Tell the client to go, where it listens."""
        one, generation = self._connection.session, self._connection.generation
        if code == RESTART and self._notes and self._connection.serving and one.page():
            return  # events are being noted for this poll: they answer it
        if self._waiter is not None:
            self._server.closes.note(one.uid, code, reason)
        message = self._server.polls.close_message(one.composer, one.v1, generation, code, reason)
        said = body(message)
        self._give(NoAnswer(said) if generation.hang_up and code == RESTART else said)

    def mute(self) -> Callable[[int, str], None]:
        """Stop answering; the returned function tells the client to go."""
        return self.end

    def stalled(self, now: float) -> bool:
        """Never: what is not taken stays in the outbox."""
        return False

    def pause(self) -> None:
        """Nothing to stop: a full inbox refuses the next POST."""

    def resume(self) -> None:
        """The opposite."""


def _hung_up(sock: socket.socket) -> bool:
    """Whether the peer is known to be gone; without waiting, and from any thread."""
    if not DONT_WAIT or sock.gettimeout():  # it would wait
        return False
    try:
        return not _socket.socket.recv(sock, 1, socket.MSG_PEEK | DONT_WAIT)
    except (BlockingIOError, InterruptedError, TypeError):  # TypeError: a socket of gevent's
        return False
    except OSError:
        return True


class Parked:
    """The body of an HTTP answer that is not known yet; a WSGI server iterates and closes it.

    Thousands wait at a time, so it holds nothing of its request. One that is dropped unread, as
    where an ``after_request`` function raises or answers something else, is as good as closed.
    """

    __slots__ = ("_answered", "_key", "_seconds", "_server", "_sock", "_waiter")

    def __init__(
        self,
        server: Server,
        key: tuple[Uid, str],
        waiter: Waiter,
        sock: socket.socket | None,
        seconds: float,
    ) -> None:
        """
        :param sock: is watched for a peer that hangs up.
        :param seconds: until the poll ends with no events.
        """
        self._seconds = seconds
        self._server = server
        self._key = key
        self._waiter = waiter
        self._answered = False
        self._sock = sock

    def __iter__(self) -> Iterator[bytes]:
        server, waiter = self._server, self._waiter
        sock, self._sock = self._sock, None
        # Not before: while it is read, and no longer, the server keeps the socket open.
        hangup = None if sock is None else server.hub.watch_hangup(sock, waiter.set, b"")
        if hangup is None and sock is not None:
            server.hub.call(server.polls.look_at, self._key, waiter, sock)
        try:
            data = waiter.wait(self._seconds)
        finally:
            if hangup is not None:
                hangup.stop()
        if data is None:
            data = server.hub.run(server.polls.expire, self._key, waiter)
        if data is None:  # answered while we gave up, or about to be: with events, or a close
            data = waiter.wait(UNDER_WAY)
        if data is None:
            data = server.hub.run(server.polls.expire, self._key, waiter, True)
        if data:
            self._answered = True
        if isinstance(data, NoAnswer) and sock is not None:
            with suppress(OSError):  # the peer may be gone
                sock.shutdown(socket.SHUT_RDWR)
            data = b""
        yield data or b""

    def close(self) -> None:
        """Called by the WSGI server, in the end or when the peer went away."""
        self._abandon(self._server.hub.call)

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the loop may be gone
            self._abandon(self._server.hub.soon)

    def _abandon(self, call: Callable[..., object]) -> None:
        if not self._answered:
            self._answered = True
            call(self._server.polls.abandon, self._key, self._waiter)
