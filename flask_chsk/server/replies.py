"""The ways back to the client of one event: over its WebSocket, or as its POST's answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..hub import Hub
from ..protocol import session as s
from ..protocol.uids import ConnectedUids
from ..protocol.wire import Composer, Data
from ..transports.longpoll import body
from ..transports.transport import Transport
from .connection import Connection, Opening
from .delivery import Delivery
from .idempotency import CachedReply, Idempotency
from .router import Channel, EventMessage
from .sending import Sending
from .trace import Trace


class ConnectedUidsSource(Protocol):
    """Who knows who is connected."""

    @property
    def connected_uids(self) -> ConnectedUids:
        """Who is."""


@dataclass(frozen=True)
class Replies:
    """What all ways back to this worker's clients need."""

    hub: Hub
    sending: Sending
    presence: ConnectedUidsSource
    idempotency: Idempotency
    delivery: Delivery
    counters: Counter[str]
    trace: Trace
    max_bytes: int  # of one reply
    timeout: float  # seconds for which a client waits for a deferred one


class NoReplyChannel(Channel):
    """What an event that no client sent can do: send."""

    __slots__ = ("_presence", "_sending")

    def __init__(self, sending: Sending, presence: ConnectedUidsSource) -> None:
        self._sending = sending
        self._presence = presence

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        return self._sending.send(uid, event, **options)

    @property
    def connected_uids(self) -> ConnectedUids:
        return self._presence.connected_uids


class ReplyChannel(Channel):
    """The way back to the client of one event."""

    __slots__ = ()

    replies: Replies
    cb: Any
    kept: CachedReply | None

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        return self.replies.sending.send(uid, event, **options)

    @property
    def connected_uids(self) -> ConnectedUids:
        return self.replies.presence.connected_uids

    @property
    def composer(self) -> Composer:
        """How the client wants it packed."""
        raise NotImplementedError

    @property
    def v1(self) -> bool:
        """Whether the client is one of ours."""
        raise NotImplementedError

    @property
    def wants_reply(self) -> bool:  # type: ignore[override]
        return self.cb is not None

    def reply(self, value: Any) -> bool:
        return self._settle(self.composer.bounded(value, self.replies.max_bytes, "reply"), None)

    def replied(self, ev: EventMessage, value: Any) -> None:
        trace = self.replies.trace
        if trace.on:
            trace.client("reply", ev.uid, ev.client_id, ev.id, payload=value)

    def error(self, status: int, message: str) -> None:
        composer = self.composer
        # It may quote what the client sent, even half of a surrogate pair.
        message = message.encode("utf-8", "backslashreplace").decode()
        third = composer.piece({"status": status, "message": message}) if self.v1 else None
        self._settle(composer.piece(s.ERROR), third)

    def closed(self) -> None:
        """Answer ``:chsk/closed``: the server ends before the event was handled."""
        self.give(self.composer.piece(s.CLOSED), None)

    def expired(self) -> None:
        """Answer ``:chsk/timeout``."""
        self.give(self.composer.piece(s.TIMEOUT), None)

    def _settle(self, piece: Any, third: Any) -> bool:
        if self.kept is not None:
            replies = self.replies
            replies.hub.call(replies.idempotency.settled, self.kept, piece, third)
        return self.give(piece, third)

    def give(self, piece: Any, third: Any) -> bool:
        """Send what is packed already; False where nobody waits for it."""
        raise NotImplementedError

    def expire_later(self, ev: EventMessage) -> None:
        """See that the client gets ``:chsk/timeout`` where no reply comes."""
        raise NotImplementedError


class SocketChannel(ReplyChannel):
    """Back over the WebSocket the event came by."""

    __slots__ = ("cb", "connection", "kept", "replies", "websocket")

    def __init__(
        self, replies: Replies, connection: Connection, websocket: Transport, cb: Any = None
    ) -> None:
        self.replies = replies
        self.connection = connection
        self.websocket = websocket
        self.cb = cb
        self.kept = None

    @property
    def composer(self) -> Composer:
        return self.connection.session.composer

    @property
    def v1(self) -> bool:
        return self.connection.session.v1

    def give(self, piece: Any, third: Any) -> bool:
        if self.cb is None:
            return False
        if self.connection.transport is not self.websocket:
            self.replies.counters["replies_undeliverable"] += 1
            return False
        composer = self.composer
        self.replies.hub.call(self._say, composer.compose(piece, composer.piece(self.cb), third))
        return True

    def _say(self, message: Data) -> None:
        connection = self.connection
        if connection.transport is self.websocket:
            connection.session.say(message)
            if connection.session.overfull:
                self.replies.delivery.overfull(connection)
            else:
                self.websocket.wake()

    def expire_later(self, ev: EventMessage) -> None:
        hub = self.replies.hub
        hub.deadline(Expiry(self, ev), hub.now() + self.replies.timeout)

    def push(self, event: Any) -> int | None:
        one = self.connection.session
        return self.replies.sending.send(one.uid, event, one.client_id)


class Expiry:
    """The end of the wait for a deferred reply."""

    __slots__ = ("channel", "ev")

    def __init__(self, channel: ReplyChannel, ev: EventMessage) -> None:
        self.channel = channel
        self.ev = ev

    def due(self, now: float) -> None:
        if self.ev.wants_reply:
            self.ev._give_up()
            self.channel.expired()


class Pending:
    """The answer to a POST, as the body of its HTTP answer: its head leaves first.

    When the head arrives, a client of ours sends its next POST, which may reach another worker. So
    the head leaves when the handlers of this POST are done. The reply may come sooner, or, if it
    is deferred, much later.
    """

    __slots__ = ("_answer", "_asked", "_head", "_hub", "_left", "_otherwise", "_seconds")

    def __init__(self, hub: Hub, asked: bool, otherwise: bytes, seconds: float, left: int) -> None:
        """
        :param asked: whether the client asked for a reply.
        :param otherwise: the answer if there is no reply after *seconds*.
        :param left: the number of events to be handled.
        """
        self._hub = hub
        self._asked = asked
        self._head = hub.waiter()
        self._answer = hub.waiter()
        self._seconds = seconds
        self._otherwise = otherwise
        self._left = left

    def handled(self) -> None:
        """One of the events was handled; on the hub."""
        self._left -= 1
        if not self._left:
            self._head.set(b"" if self._asked else self._otherwise)

    def set(self, data: bytes) -> None:
        """Give the answer; a second one is ignored. On the hub."""
        self._answer.set(data)
        self._head.set(data)

    def __iter__(self) -> Iterator[bytes]:
        until = self._hub.now() + self._seconds
        data = self._head.wait(self._seconds)
        if data == b"":
            data = self._answer.wait(0.0)
            if data is None:
                yield b""  # nothing but the head
                data = self._answer.wait(max(0.0, until - self._hub.now()))
        yield self._otherwise if data is None else data


class PostChannel(ReplyChannel):
    """Back as the answer of the POST the event came by; *pending* is None where none waits."""

    __slots__ = ("cb", "kept", "opening", "replies")

    def __init__(self, replies: Replies, opening: Opening, pending: Pending | None) -> None:
        self.replies = replies
        self.opening = opening
        self.cb = pending
        self.kept = None

    @property
    def composer(self) -> Composer:
        return self.opening.composer

    @property
    def v1(self) -> bool:
        return self.opening.v1

    def give(self, piece: Any, third: Any) -> bool:
        if self.cb is None:
            return False
        self.replies.hub.call(self.cb.set, body(self.composer.compose(piece, None, third)))
        return True

    def expire_later(self, ev: EventMessage) -> None:
        """Nothing: the POST itself waits no longer than the reply timeout."""

    def push(self, event: Any) -> int | None:
        opening = self.opening
        if opening.generation.post_without_id and opening.uid is not None:
            return self.replies.sending.send(
                opening.uid, event
            )  # which client it is, it did not say
        return self.replies.sending.send(opening.uid, event, opening.client_id)
