"""The ways back to the client of one event: over its WebSocket, or as its POST's answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..brokers import KEPT_BYTES, KEYS
from ..errors import BrokerError
from ..hub import Hub
from ..logs import Sparse, logger
from ..protocol import session as s
from ..protocol.push import CANONICAL
from ..protocol.uids import ConnectedUids
from ..protocol.wire import Composer, Data
from ..transports.longpoll import body
from ..transports.transport import Transport
from .connection import Connection, Opening, Owner
from .router import Channel, EventMessage

if TYPE_CHECKING:
    from .worker import Server

sparse = Sparse(logger(__name__))

AGAIN = 0.25  # seconds between looks whether another process has replied
KEPT_REPLY = 16 * 1024  # a larger reply is not kept for a repetition
KEPT_COST = 400  # bytes of one, besides its reply


class Kept:
    """A keyed send that was dispatched: its answer, or who waits for it."""

    __slots__ = ("answer", "client", "key", "repeats", "since", "waiting")

    def __init__(self, owner: Owner, key: str, since: float, repeats: Repeats) -> None:
        self.client = name_of(owner)
        self.key = key
        self.since = since
        self.repeats: Repeats | None = repeats  # None: forgotten
        self.answer: tuple[Any, Any] | None = None
        self.waiting: list[ReplyChannel] | None = None

    def repeat(self, channel: ReplyChannel) -> None:
        """The same send came again."""
        if self.answer is not None:
            channel.give(*self.answer)
        elif self.waiting is None:
            self.waiting = [channel]
        else:
            self.waiting.append(channel)

    @property
    def cost(self) -> int:
        """Bytes that it takes."""
        piece = None if self.answer is None else self.answer[0]
        return KEPT_COST + (len(piece) if isinstance(piece, str | bytes) else 0)

    def settle(self, piece: Any, third: Any) -> None:
        """The send was answered."""
        if not isinstance(piece, str | bytes) or len(piece) <= KEPT_REPLY:
            self.answer = (piece, third)
            if self.repeats is not None and isinstance(piece, str | bytes):
                self.repeats.bytes += len(piece)
        waiting, self.waiting = self.waiting, None
        for channel in waiting or ():
            channel.give(piece, third)


class Elsewhere(Channel):
    """What an event that no client sent can do: send."""

    __slots__ = ("server",)

    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, uid: Any, event: Any, **options: Any) -> int | None:
        return self.server.send(uid, event, **options)

    @property
    def connected_uids(self) -> ConnectedUids:
        return self.server.connected_uids


class ReplyChannel(Elsewhere):
    """The way back to the client of one event."""

    __slots__ = ()

    cb: Any
    kept: Kept | None

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
        most = self.server.config.max_outbox_bytes // 2
        return self._settle(self.composer.bounded(value, most, "reply"), None)

    def error(self, status: int, message: str) -> None:
        composer = self.composer
        # It may quote what the client sent, by whatever packer: half of a character, too.
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
            self.server.hub.call(self.server.inbound.settled, self.kept, piece, third)
        return self.give(piece, third)

    def give(self, piece: Any, third: Any) -> bool:
        """Send what is packed already; False where nobody waits for it."""
        raise NotImplementedError

    def expire_later(self, ev: EventMessage) -> None:
        """See that the client gets ``:chsk/timeout`` where no reply comes."""
        raise NotImplementedError


class SocketChannel(ReplyChannel):
    """Back over the WebSocket the event came by."""

    __slots__ = ("cb", "connection", "kept", "websocket")

    def __init__(
        self, server: Server, connection: Connection, websocket: Transport, cb: Any = None
    ) -> None:
        self.server = server
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
            self.server.counters["replies_undeliverable"] += 1
            return False
        composer = self.composer
        self.server.hub.call(self._say, composer.compose(piece, composer.piece(self.cb), third))
        return True

    def _say(self, message: Data) -> None:
        connection = self.connection
        if connection.transport is self.websocket:
            connection.session.say(message)
            if connection.session.overfull:
                self.server.delivery.overfull(connection)
            else:
                self.websocket.wake()

    def expire_later(self, ev: EventMessage) -> None:
        hub = self.server.hub
        hub.deadline(Expiry(self, ev), hub.now() + self.server.config.reply_timeout)

    def push(self, event: Any) -> int | None:
        one = self.connection.session
        return self.server.send(one.uid, event, one.client_id)


class Expiry:
    """The end of the wait for a deferred reply."""

    __slots__ = ("channel", "ev")

    def __init__(self, channel: ReplyChannel, ev: EventMessage) -> None:
        self.channel = channel
        self.ev = ev

    def due(self, now: float) -> None:
        if self.ev.wants_reply:
            self.ev.give_up()
            self.channel.expired()


class Pending:
    """The answer to a POST, as the body of its HTTP answer: its head leaves first.

    A client of ours takes the head as leave to go on, and lets its next POST go, which may reach
    another process: so the head waits until the handlers of this one are done. The reply may
    come sooner, or be a deferred one and come much later.
    """

    __slots__ = ("_answer", "_asked", "_head", "_hub", "_left", "_otherwise", "_seconds")

    def __init__(self, hub: Hub, asked: bool, otherwise: bytes, seconds: float, left: int) -> None:
        """
        :param asked: whether a reply is.
        :param otherwise: the answer where there is none after *seconds*.
        :param left: events that are to be handled.
        """
        self._hub = hub
        self._asked = asked
        self._head = hub.waiter()
        self._answer = hub.waiter()
        self._seconds = seconds
        self._otherwise = otherwise
        self._left = left

    def handled(self) -> None:
        """One of the events was; on the hub."""
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

    __slots__ = ("cb", "kept", "opening")

    def __init__(self, server: Server, opening: Opening, pending: Pending | None) -> None:
        self.server = server
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
        self.server.hub.call(self.cb.set, body(self.composer.compose(piece, None, third)))
        return True

    def expire_later(self, ev: EventMessage) -> None:
        """Nothing: the POST itself waits no longer than the reply timeout."""

    def push(self, event: Any) -> int | None:
        opening = self.opening
        if opening.generation.post_without_id and opening.uid is not None:
            return self.server.send(opening.uid, event)  # which client it is, it did not say
        return self.server.send(opening.uid, event, opening.client_id)


class Claim:
    """Whether a send that may come again is this process's to handle; the broker decides."""

    __slots__ = ("_channel", "_client", "_key", "_server", "_token")

    def __init__(self, server: Server, owner: Owner, key: str, channel: ReplyChannel) -> None:
        self._server = server
        self._client, self._key = name_of(owner), key
        self._channel = channel
        self._token = server.hub.token(8)

    def lost(self) -> bool:
        """Whether another process has it, and gave its reply, or will; waits for the broker."""
        server = self._server
        until = server.hub.now() + server.config.reply_timeout
        try:
            held = server.broker.claim(self._client, self._key, self._token)
            if held is None:
                return False
            server.hub.call(server.counters.update, ("repeated",))
            if self._channel.wants_reply:
                while not held and server.hub.now() < until:
                    server.hub.waiter_here().wait(AGAIN)
                    held = server.broker.claim(self._client, self._key, self._token)
                    if held is None:
                        break  # it was forgotten meanwhile
                if held:
                    self._channel.give(*CANONICAL.unpack(held))
                else:
                    self._channel.expired()
        except BrokerError as error:
            sparse.warning("claim", "whether a send came before is not known: %s", error)
            return False  # handlers go on without a broker
        return True


def name_of(owner: Owner) -> str:
    """A client that sends with keys, as all processes know it."""
    uid, client_id, digest = owner
    return f"{client_id}:{digest}:{uid or ''}"


class Repeats:
    """Keyed sends, which a client may send again after a cut: dispatched once.

    docs/protocol.rst, "Keyed sends".
    """

    def __init__(self) -> None:
        self._kept: dict[Owner, dict[str, Kept]] = {}
        self.bytes = 0

    def came_before(self, owner: Owner, key: str, channel: ReplyChannel, now: float) -> bool:
        """Whether *owner* sent this before; then its reply is, or will be, given again."""
        kept = self._kept.setdefault(owner, {})
        before = kept.get(key)
        if before is None:
            if len(kept) >= KEYS:
                self._drop(kept.pop(next(iter(kept))))
            channel.kept = kept[key] = Kept(owner, key, now, self)
            self.bytes += KEPT_COST
            while self.bytes > KEPT_BYTES:
                oldest = next(iter(self._kept))
                for one in self._kept.pop(oldest).values():
                    self._drop(one)
            return False
        before.repeat(channel)
        return True

    def forget(self, before: float) -> None:
        """Let go of what came before that time."""
        for owner, kept in list(self._kept.items()):
            for key in [key for key, one in kept.items() if one.since < before]:
                self._drop(kept.pop(key))
            if not kept:
                del self._kept[owner]

    def _drop(self, kept: Kept) -> None:
        self.bytes -= kept.cost
        kept.repeats = None
