"""A client's polls: one parked request after another, between them nothing.

On the hub only, but for :class:`Parked`, which a request iterates: it holds no Flask
context and no database connection while it waits.
"""

from __future__ import annotations

import _socket
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Generic, Protocol, TypeVar

from ..hub import DONT_WAIT, Hub, Waiter
from ..protocol.session import RESTART
from ..protocol.wire import Data
from .transport import Client

C = TypeVar("C", bound=Client)
Key = tuple[str | None, str]
"""The uid and the client id."""

UNDER_WAY = 6.0  # seconds for an answer that is being made; above the wait of a delayed close


def body(message: Data) -> bytes:
    """*message* as the body of an HTTP answer."""
    return message.encode() if isinstance(message, str) else message


class NoAnswer(bytes):
    """The connection of a poll ends instead of an answer; this one, where that is impossible."""


class PollOwner(Protocol[C]):
    """To whom the polls of a client report."""

    def outgoing(self, client: C, poller: Poller[C], last: bool) -> bytes | None:
        """The answer to the parked poll; None: nothing may leave now.

        :param last: the client is about to be forgotten, so nothing is kept for its next poll.
        """

    def close_answer(self, client: C, code: int, reason: str) -> bytes | None:
        """The answer that tells the client to go; None: the poll is answered with events soon."""

    def unparked(self, client: C, poller: Poller[C]) -> None:
        """The parked request was answered, or is gone."""


class Requests(Protocol):
    """To whom a parked request reports."""

    hub: Hub

    def expire(self, key: Key, waiter: Waiter, at_once: bool = False) -> bytes | None:
        """The answer of a poll whose time is over; None: it was answered just now.

        :param at_once: False: None, too, where it is about to be.
        """

    def abandon(self, key: Key, waiter: Waiter) -> None:
        """The peer of a poll went away."""

    def look_at(self, key: Key, waiter: Waiter, peer_is_gone: Callable[[], bool]) -> None:
        """See that the peer of a poll is there before it is answered."""


class Poller(Generic[C]):
    """The transport of a client between and during its polls."""

    __slots__ = (
        *("_client", "_owner", "_peer_is_gone", "_waiter"),
        *("brief", "number", "takeover_window", "takeovers"),
    )

    kind = "ajax"
    reading = True
    closing = False

    def __init__(self, owner: PollOwner[C], client: C) -> None:
        self._owner = owner
        self._client = client
        self._waiter: Waiter | None = None
        self._peer_is_gone: Callable[[], bool] | None = None  # of its request
        self.brief = False  # the parked request waits for what is on its way only (tests)
        self.number = -1  # of the last poll of a client that counts them
        self.takeovers = 0  # polls that released a parked one, in this second
        self.takeover_window = 0.0

    @property
    def parked(self) -> bool:
        """Whether a request of this client waits."""
        return self._waiter is not None

    def waits(self, waiter: Waiter) -> bool:
        """Whether the parked request is that of *waiter*."""
        return self._waiter is waiter

    def park(self, waiter: Waiter) -> None:
        """Let a request wait; none waits."""
        self._waiter = waiter
        self._peer_is_gone = None

    def look_at(self, waiter: Waiter, peer_is_gone: Callable[[], bool]) -> None:
        """See that the peer of *waiter* is there before it is answered."""
        if self._waiter is waiter:
            self._peer_is_gone = peer_is_gone

    def wake(self) -> None:
        self._answer(last=False)

    def flush(self) -> None:
        self._answer(last=True)

    def _answer(self, last: bool) -> None:
        if self._waiter is not None and self._peer_is_gone is not None and self._peer_is_gone():
            self.abandon(self._waiter)
        if self._waiter is not None:
            data = self._owner.outgoing(self._client, self, last)
            if data is not None:
                self.give(data)

    def give(self, data: bytes) -> None:
        """Answer the parked request, if there is one."""
        waiter, self._waiter = self._waiter, None
        self._peer_is_gone = None
        if waiter is not None:
            waiter.set(data)
            self._owner.unparked(self._client, self)

    def abandon(self, waiter: Waiter) -> None:
        """The request of *waiter* is gone."""
        if self._waiter is waiter:
            self._waiter = self._peer_is_gone = None
            self._owner.unparked(self._client, self)

    def end(self, code: int, reason: str = "") -> None:
        if self._waiter is not None:
            said = self._owner.close_answer(self._client, code, reason)
            if said is not None:
                self.give(said)

    def mute(self) -> Callable[[int, str], None]:
        return self.end  # nobody wakes it meanwhile

    def replaced(self, code: int, reason: str) -> None:
        """Answer the parked request so that its client polls again."""
        composer, generation = self._client.session.composer, self._client.generation
        self.give(body(composer.message(generation.poll_end)))

    def drain(self, reason: str) -> None:
        self.end(RESTART, reason)

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

    __slots__ = ("_answered", "_key", "_requests", "_seconds", "_sock", "_waiter")

    def __init__(
        self,
        requests: Requests,
        key: Key,
        waiter: Waiter,
        sock: socket.socket | None,
        seconds: float,
    ) -> None:
        """
        :param sock: is watched for a peer that hangs up.
        :param seconds: until the poll ends with no events.
        """
        self._requests = requests
        self._seconds = seconds
        self._key = key
        self._waiter = waiter
        self._answered = False
        self._sock = sock

    def __iter__(self) -> Iterator[bytes]:
        requests, waiter = self._requests, self._waiter
        hub = requests.hub
        sock, self._sock = self._sock, None
        # Not before: while it is read, and no longer, the server keeps the socket open.
        hangup = None if sock is None else hub.watch_hangup(sock, waiter.set, b"")
        if sock is not None:
            # A watch tells it in a later turn of the loop: events may come before.
            gone = partial(_hung_up, sock) if hangup is None else hangup.peer_is_gone
            hub.call(requests.look_at, self._key, waiter, gone)
        try:
            data = waiter.wait(self._seconds)
        finally:
            if hangup is not None:
                hangup.stop()
        if data is None:
            data = hub.run(requests.expire, self._key, waiter)
        if data is None:  # answered while we gave up, or about to be: with events, or a close
            data = waiter.wait(UNDER_WAY)
        if data is None:
            data = hub.run(requests.expire, self._key, waiter, True)
        if data:
            self._answered = True
        if isinstance(data, NoAnswer) and sock is not None:
            with suppress(OSError):  # the peer may be gone
                sock.shutdown(socket.SHUT_RDWR)
            data = b""
        yield data or b""

    def close(self) -> None:
        """Called by the WSGI server, in the end or when the peer went away."""
        self._abandon(self._requests.hub.call)

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the loop may be gone
            self._abandon(self._requests.hub.call_soon)

    def _abandon(self, call: Callable[..., object]) -> None:
        if not self._answered:
            self._answered = True
            call(self._requests.abandon, self._key, self._waiter)
