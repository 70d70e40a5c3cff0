"""One client's side of the protocol as values: what comes in, what goes out, and when.

No socket, clock, greenlet, Flask, logging: data and ``now`` (seconds, any steady clock) go
in, messages and what they mean come out. A session outlives its transports: a client that
comes back over another socket, or over long-polling, finds its outbox as it left it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import UnpackError
from ..values import Keyword
from .event import Event, as_event, is_event
from .push import Push
from .wire import Composer, Data

# docs/protocol.rst, "Close codes". --------------------------------------------------------------

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
TOO_BIG = 1009
INTERNAL_ERROR = 1011
RESTART = 1012
TRY_LATER = 1013
PING_UNANSWERED = 4000
REPLACED = 4001
TOO_SLOW = 4002
CLOSED_BY_APP = 4003
FLOODING = 4004
SIGNED_OUT = 4005
EXPIRED = "expired"  # as the reason of 4005: our clients come back with a fresh token

# Ids of our own namespace. ---------------------------------------------------------------

HANDSHAKE = Keyword("chsk/handshake")
WS_PING = Keyword("chsk/ws-ping")
WS_PONG = Keyword("chsk/ws-pong")
BATCH = Keyword("chsk/batch")
ASK = Keyword("chsk/ask")
ANSWER = Keyword("chsk/answer")
GAP = Keyword("chsk/gap")
CLOSE = Keyword("chsk/close")
BAD_EVENT = Keyword("chsk/bad-event")
BAD_PACKAGE = Keyword("chsk/bad-package")
UIDPORT_OPEN = Keyword("chsk/uidport-open")
UIDPORT_CLOSE = Keyword("chsk/uidport-close")

CLOSED = Keyword("chsk/closed")
TIMEOUT = Keyword("chsk/timeout")
ERROR = Keyword("chsk/error")
DUMMY_CB_200 = Keyword("chsk/dummy-cb-200")

BAD_PACKAGE_SHOWN = 1024  # characters of a bad package that handlers get to see
SHARED_FRAMES = 256  # batches remembered within one tick, at most a page each
BATCHED = 1000  # events in one message: our clients gather 64
KEY_LENGTH = 64  # of a send that may be repeated
PAGE_BYTES = 256 * 1024  # of pushes in one answer to a poll, or one event if larger
# The same for a frame. A client waits 5 s for the next sign of life of a new WebSocket: on a slow
# network a larger frame would come too late.
FRAME_BYTES = 16 * 1024


def cb_success(reply: object) -> bool:
    """Whether *reply* is a real one: none of ``chsk/closed``, ``chsk/timeout``, ``chsk/error``."""
    return not (isinstance(reply, Keyword) and reply in (CLOSED, TIMEOUT, ERROR))


def cb_error(reply: object) -> bool:
    """The opposite of :func:`cb_success`."""
    return not cb_success(reply)


# Cursors ---------------------------------------------------------------------------------

_CURSOR = re.compile(r"([a-z0-9]{1,20}):(0|[1-9][0-9]{0,15})")


#: A cursor of no epoch: whoever comes with it hears of a gap.
BEFORE_ALL = "0:0"


def read_cursor(text: str | None, epoch: str, since: int = 0) -> int | None:
    """The offset in a cursor such as ``"e7f3:1042"``.

    None where it is not of *epoch*, or from before the client's time, which began at *since*.
    """
    if not text or len(text) > 40:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None or found[1] != epoch:
        return None
    offset = int(found[2])
    return offset if offset >= since else None


# What the application does ---------------------------------------------------------------


def closing(reconnect: bool, after: Iterable[str] | None = None) -> list[Any]:
    """The event by which an application closes connections.

    :param reconnect: whether the clients may come back.
    :param after: the response that the clients are told after: the worker's name, and a token.
    """
    code, reason = (
        (CLOSED_BY_APP, "closed by the application") if reconnect else (SIGNED_OUT, "signed out")
    )
    data: dict[str, Any] = {"code": code, "reason": reason}
    if after is not None:
        data["after"] = [*after]
    return [CLOSE, data]


# What came in ----------------------------------------------------------------------------


class Received(NamedTuple):
    """An event for the application; *cb* is None where no reply was asked.

    One with a *key* may come again after a cut, and is dispatched once: docs/protocol.rst,
    "Keyed sends".
    """

    event: Event
    cb: Any = None
    key: str | None = None


class Pinged(NamedTuple):
    """The client asked whether we live; *cb* is None where it wants no ``"pong"``."""

    cb: Any = None


class Ponged(NamedTuple):
    """The client answered our ping."""


class Answered(NamedTuple):
    """The client answered an ask; *error* says why there is no *value*."""

    id: str
    value: Any = None
    error: str | None = None


class Batched(NamedTuple):
    """Several events without callbacks, in one message."""

    events: tuple[Received, ...]


Incoming = Received | Pinged | Ponged | Answered | Batched


@dataclass(frozen=True)
class Rules:
    """The numbers a session goes by (config.py has their reasons)."""

    epoch: str
    kalive: float = 25.0
    ping_timeout: float = 10.0
    cursor_every: float = 30.0  # a quarter of the recovery window: a cursor never goes stale
    max_outbox_bytes: int = 4 * 1024 * 1024


PING, DEAD = "ping", "dead"  # what a check may find due

Encode = Callable[[Data], bytes]  # a transport's dress for a message


class Outbox:
    """What waits for one client, and up to which event it has all.

    ``acked``: nothing at or below this offset is owed. ``given``: the client may have got up to
    here already. ``queued``: the offset of the last push taken in. ``needs_replay``: pushes were
    let go, and history has to give them again (:meth:`caught_up`). ``after_page``: they were sent
    after the client's page was made. ``start``: the client is owed no event up to here, of any
    channel; 0 where this process does not know.
    """

    __slots__ = (
        "acked",
        "after_page",
        "client_id",
        "given",
        "last_skipped_offset",
        "needs_replay",
        "outbox",
        "outbox_bytes",
        "queued",
        "rules",
        "start",
        "uid",
        "v1",
    )

    def __init__(
        self, uid: str | None, client_id: str, rules: Rules, *, v1: bool = False, offset: int = 0
    ) -> None:
        self.uid = uid
        self.client_id = client_id
        self.rules = rules
        self.v1 = v1
        self.outbox: list[Push | Data] | None = None  # None at rest: an empty list is 56 bytes
        self.outbox_bytes = 0
        self.acked = offset
        self.queued = offset
        self.start = offset
        self.given = 0  # the last offset in an answer that is not acknowledged
        self.needs_replay = False
        self.after_page = False
        self.last_skipped_offset = 0  # the last offset that came while behind

    def say(self, message: Data) -> None:
        """Put a message of ours (a reply, a ping) behind what is already waiting."""
        if self.outbox is None:
            self.outbox = []
        self.outbox.append(message)
        self.outbox_bytes += len(message)

    def deliver(self, push: Push) -> bool:
        """Take an event in; False where it is not news to this client.

        A ``v=1`` client that falls behind its limit lets its pushes go and becomes
        ``needs_replay``. Of others :attr:`overfull` says that they must be closed.
        """
        if push.offset <= self.queued:
            return False
        if self.needs_replay:
            self.last_skipped_offset = push.offset  # history has it, and will be read past it
            return False
        if push.exclude is not None and push.exclude == (self.uid, self.client_id):
            self.queued = push.offset
            return False
        waiting = self.outbox_bytes
        if self.v1 and waiting and waiting + push.size > self.rules.max_outbox_bytes:
            self.fall_behind()
            return True
        if self.outbox is None:
            self.outbox = []
        self.outbox.append(push)
        self.outbox_bytes += push.size
        self.queued = push.offset
        return True

    @property
    def overfull(self) -> bool:
        """Whether more is waiting than may wait."""
        return self.outbox_bytes > self.rules.max_outbox_bytes

    def advance_to(self, watermark: int) -> None:
        """Note that nothing up to *watermark* is owed, where nothing waits."""
        if self.nothing_owed:
            self.acked = self.queued = max(self.queued, watermark)

    def fall_behind(self) -> None:
        """Let waiting pushes go; history gives them again."""
        self._drop_pushes()
        self.queued = self._covered(self.acked)
        self.needs_replay = True

    def _drop_pushes(self) -> None:
        # A gap is told by a push of no channel: no history gives it again.
        rest = [
            x
            for x in self.outbox or ()
            if not isinstance(x, Push) or (not x.channel and x.offset > self.acked)
        ]
        self.outbox = rest or None
        self.outbox_bytes = sum(x.size if isinstance(x, Push) else len(x) for x in rest)

    def _covered(self, offset: int) -> int:
        """*offset*, or the one of a gap that waits: nothing before it is owed any more."""
        gaps = [x.offset for x in self.outbox or () if isinstance(x, Push) and not x.channel]
        return max(offset, *gaps) if gaps else offset

    def drop_outbox(self) -> int:
        """Let everything go that waits; how many pushes and messages those were."""
        outbox, self.outbox = self.outbox, None
        self.outbox_bytes = 0
        return len(outbox or ())

    def begin_epoch(self, rules: Rules) -> None:
        """The broker counts anew, so offsets that were taken in or given mean nothing."""
        self.rules = rules
        self.queued = self.given = 0
        self.after_page = False

    def _forget_messages(self) -> None:
        pushes = [item for item in self.outbox or () if isinstance(item, Push)]
        self.outbox = [*pushes] or None
        self.outbox_bytes = sum(push.size for push in pushes)

    def start_at(self, offset: int, *, after_page: bool = False) -> None:
        """Begin at *offset*: what was before is not owed.

        :param after_page: a gap that is told now concerns what was sent after the page was made.
        """
        self.after_page = after_page
        self.outbox = None
        self.outbox_bytes = 0
        self.needs_replay = False
        self.given = 0
        self.acked = self.queued = self.start = offset

    def resume_unknown(self, offset: int, *, after_page: bool = False) -> None:
        """Begin where a client says it is that we know nothing of: history has the rest."""
        self.after_page = after_page
        self.given = 0
        self.acked = offset
        self._drop_pushes()
        self.queued = self._covered(offset)
        self.start = 0
        self.needs_replay = True

    def resume(self, offset: int) -> None:
        """Go on from where the client says it is."""
        self.given = 0
        if offset >= self.acked:
            self.ack(offset)
        else:
            self.acked = offset
            if offset < self.start:
                self.start = 0
            self.fall_behind()

    def ack(self, offset: int) -> None:
        """Forget pushes at or below *offset*: the client has them."""
        if offset <= self.acked:
            return
        self.acked = offset
        self.queued = max(self.queued, offset)
        outbox = self.outbox
        if outbox:
            rest = [x for x in outbox if not isinstance(x, Push) or x.offset > offset]
            if len(rest) != len(outbox):
                self.outbox = rest or None
                self.outbox_bytes = sum(x.size if isinstance(x, Push) else len(x) for x in rest)

    def caught_up(self, pushes: Iterable[Push], end: int, *, more: bool) -> None:
        """Take a page of history in: everything for this client up to *end*."""
        self.needs_replay = False
        for push in pushes:
            if push.offset > self.queued:
                waiting = self.outbox_bytes
                if waiting and waiting + push.size > self.rules.max_outbox_bytes:
                    self.needs_replay = True  # the rest of the page is read again
                    return
                self.deliver(push)
        self.queued = max(self.queued, end)
        self.needs_replay = more or self.last_skipped_offset > self.queued
        self.after_page = self.after_page and self.needs_replay

    def gap(self, now_offset: int) -> None:
        """History cannot give what was missed: the client is told, and starts at now."""
        rest = [item for item in self.outbox or () if not isinstance(item, Push)]
        self.outbox = [*rest] or None
        self.outbox_bytes = sum(map(len, rest))
        self.needs_replay = False
        self.given = 0
        self.acked = self.queued = now_offset - 1
        self.start = now_offset
        if self.v1:
            data = '{:reason "page"}' if self.after_page else "nil"
            self.deliver(Push("", f"[:chsk/gap {data}]", now_offset))
        else:
            self.acked = self.queued = now_offset
        self.after_page = False

    @property
    def begins_with_gap(self) -> bool:
        """Whether the client has yet to confirm that it was told of a gap."""
        return self.acked < self.start

    def page(self) -> list[Push]:
        """The pushes that one answer to a poll has room for."""
        batch: list[Push] = []
        size = 0
        for item in self.outbox or ():
            if isinstance(item, Push):
                if batch and size + item.size > PAGE_BYTES:
                    break
                batch.append(item)
                size += item.size
        return batch

    @property
    def nothing_owed(self) -> bool:
        """Whether nothing is owed, so that the client may be told the watermark."""
        return not self.outbox and not self.needs_replay


class ServerSession(Outbox):
    """What the server knows of one client: its outbox, how it speaks, and what is due when."""

    __slots__ = (
        "composer",
        "cursor_sent_at",
        "last_received_at",
        "ping_overdue",
        "pinged_at",
        "retain_until_ack",
    )

    def __init__(
        self,
        uid: str | None,
        client_id: str,
        composer: Composer,
        rules: Rules,
        now: float,
        *,
        v1: bool = False,
        offset: int = 0,
    ) -> None:
        super().__init__(uid, client_id, rules, v1=v1, offset=offset)
        self.composer = composer
        self.retain_until_ack = False  # pushes stay until acknowledged: a v=1 poller
        self.last_received_at = now
        self.pinged_at: float | None = None  # the ping that is not answered yet
        self.ping_overdue = False  # that was judged once
        self.cursor_sent_at = now

    def change_transport(self, kind: str, now: float) -> None:
        """Another transport carries what waits: replies and pings were for the one before."""
        self.retain_until_ack = self.v1 and kind == "ajax"
        self.alive(now)
        if self.outbox:
            self._forget_messages()

    def change_composer(self, composer: Composer, v1: bool) -> None:
        """The client came back, and may speak another way."""
        self.composer = composer
        self.v1 = v1

    # in ------------------------------------------------------------------------------

    def receive(self, data: Data, now: float) -> tuple[Incoming, int]:
        """What one message from the client means, and the bytes that it holds."""
        self.last_received_at = now
        self.pinged_at = None
        return read_sized(self.composer, data)

    def alive(self, now: float) -> None:
        """Note a sign of life that is no message, such as a protocol-level pong."""
        self.last_received_at = now
        self.pinged_at = None

    # out -----------------------------------------------------------------------------

    def handshake(
        self, data: Any, *, csrf_token: Any = None, extras: dict[Any, Any] | None = None
    ) -> Data:
        """``[:chsk/handshake [uid csrf data extras?]]``, packed.

        docs/protocol.rst, "The handshake".

        :param data: the application's, packed already: a piece of this composer, or None.
        :param csrf_token: the same.
        """
        composer = self.composer
        wire, piece = composer.wire, composer.piece
        uid = self.uid
        shown: Any = uid if uid is not None or self.v1 else Keyword(wire.nil_uid)
        body = [piece(shown), composer.nil if csrf_token is None else csrf_token]
        if data is not None or wire.data_always:
            body.append(composer.nil if data is None else data)
        if self.v1:
            body.append(piece(extras))
        return composer.compose(composer.array((piece(HANDSHAKE), composer.array(body))))

    def drain(self, encode: Encode, frames: dict[Any, bytes]) -> bytes:
        """What leaves a WebSocket now: whole frames, about a page of them, in order.

        Consecutive pushes share a frame. *frames* keeps frames of this tick, so that
        connections with the same batch share the bytes too.
        """
        outbox = self.outbox
        if not outbox:
            return b""
        if len(outbox) == 1:  # the usual case
            item = outbox[0]
            self.outbox = None
            self.outbox_bytes = 0
            if isinstance(item, Push):
                push = item
                self.acked = push.offset
                return push.frame(
                    (encode, self.composer.key, self.v1), lambda: encode(self._batch([push]))
                )
            return encode(item)
        out: list[bytes] = []
        size = batched = taken = 0
        batch: list[Push] = []
        for item in outbox:
            taken += 1
            if isinstance(item, Push):
                batch.append(item)
                batched += item.size
                size += item.size
                self.outbox_bytes -= item.size
                if batched >= FRAME_BYTES:
                    out.append(self._batch_frame(batch, encode, frames))
                    batch, batched = [], 0
            else:
                if batch:
                    out.append(self._batch_frame(batch, encode, frames))
                    batch, batched = [], 0
                out.append(encode(item))
                size += len(item)
                self.outbox_bytes -= len(item)
            if size >= PAGE_BYTES:
                break
        if batch:
            out.append(self._batch_frame(batch, encode, frames))
        if taken == len(outbox):
            self.outbox = None
        else:
            del outbox[:taken]
        return b"".join(out)

    def answer(
        self, encode: Encode, frames: dict[Any, bytes], upto: int | None = None
    ) -> bytes | None:
        """What answers a poll now: one message of pushes, about a page; None: nothing waits.

        To a ``v=1`` client they are given again until its next cursor acknowledges them.

        :param upto: nothing above this offset.
        """
        batch = self.page()
        if upto is not None:
            batch = [push for push in batch if push.offset <= upto]
        if not batch:
            return None
        if not self.retain_until_ack:
            self.ack(batch[-1].offset)
        return self._batch_frame(batch, encode, frames)

    def _batch_frame(self, batch: list[Push], encode: Encode, frames: dict[Any, bytes]) -> bytes:
        if self.retain_until_ack:
            self.given = max(self.given, batch[-1].offset)
        else:
            self.acked = batch[-1].offset
        first = batch[0].channel or batch[0].text  # two gaps at one offset may have two reasons
        key = (encode, self.composer.key, self.v1, first, *[push.offset for push in batch])
        frame = frames.get(key)
        if frame is None:
            frame = encode(self._batch(batch))
            if len(frames) < SHARED_FRAMES:
                frames[key] = frame
        return frame

    def _batch(self, batch: list[Push]) -> Data:
        composer = self.composer
        pieces = composer.array([push.piece(composer) for push in batch])
        if not self.v1:
            return composer.compose(pieces)
        return composer.compose(pieces, None, composer.piece(self._cursor(batch)))

    def _cursor(self, batch: list[Push]) -> str:
        last = batch[0].offset
        parts = [f"{self.rules.epoch}:{last}"]
        for push in batch[1:]:
            parts.append(f"+{push.offset - last}")
            last = push.offset
        return ",".join(parts)

    # time ----------------------------------------------------------------------------

    def renew_rest(self, watermark: int, now: float) -> bool:
        """Note that nothing up to *watermark* is owed, where a kept cursor would go stale else.

        True where :attr:`acked` is to be kept now in place of a cursor of the client's own.
        """
        if not self.nothing_owed or now - self.cursor_sent_at < self.rules.cursor_every:
            return False
        self.cursor_sent_at = now
        self.advance_to(watermark)
        return True

    def cursor(self, watermark: int, now: float) -> str | None:
        """A cursor to tell an idle client, or None where it must not have one."""
        if not self.v1 or not self.nothing_owed:
            return None
        self.cursor_sent_at = now
        self.acked = self.queued = max(self.queued, watermark)
        return f"{self.rules.epoch}:{self.acked}"

    def check(self, now: float, *, reading: bool = True) -> tuple[str | None, float]:
        """What is due on a WebSocket (docs/protocol.rst, "Keep-alive"), and when to ask again.

        *reading* is False while the socket is not read: then silence proves nothing. An
        unanswered ping is judged twice, a sweep apart, so that a server that was itself
        stalled reads first what is waiting.
        """
        rules = self.rules
        if not reading:
            self.last_received_at = now
            self.pinged_at = None
        if self.pinged_at is not None:
            due = self.pinged_at + rules.ping_timeout
            if now < due:
                return None, due
            if not self.composer.wire.pongs:
                self.pinged_at = None
                self.last_received_at = now
                return None, now + rules.kalive
            if self.ping_overdue:  # the second judgement
                return DEAD, now
            self.ping_overdue = True
            return None, now
        due = self.last_received_at + rules.kalive
        if self.v1:
            due = min(due, self.cursor_sent_at + rules.cursor_every)
        if now < due:
            return None, due
        self.pinged_at = now
        self.ping_overdue = False
        self.cursor_sent_at = now
        return PING, now + rules.ping_timeout

    def ping(self, watermark: int, now: float) -> Data:
        """``[:chsk/ws-ping nil cursor?]``, packed."""
        return self.composer.message(WS_PING, None, self.cursor(watermark, now))


def is_unreadable(incoming: Incoming) -> bool:
    """Whether it is no message at all, which the application hears as ``chsk/bad-package``."""
    return isinstance(incoming, Received) and incoming.event.id == BAD_PACKAGE


def read_message(composer: Composer, data: Data) -> Incoming:
    """One message of a client, by POST or frame, as what it means.

    docs/protocol.rst, "Events from clients".
    """
    return read_sized(composer, data)[0]


def read_sized(composer: Composer, data: Data, padded: bool = False) -> tuple[Incoming, int]:
    """The same, and about the bytes that it holds in memory, now that it is read.

    :param padded: NUL bytes may follow a binary message.
    """
    try:
        value, cb, third, size = composer.read_sized(data, padded)
    except UnpackError:
        begin = data[:BAD_PACKAGE_SHOWN]
        shown = begin if isinstance(begin, str) else begin.decode("latin-1")
        return Received(Event(BAD_PACKAGE, shown)), len(shown)
    incoming = _meaning(value, cb, composer.has_keywords)
    if third is not None and type(third) is dict and isinstance(incoming, Received):
        key = third.get("key")
        if isinstance(key, str) and len(key) <= KEY_LENGTH:
            return incoming._replace(key=str(key)), size
    return incoming, size


def _meaning(value: Any, cb: Any, keywords: bool) -> Incoming:
    if not is_event(value) or (keywords and not isinstance(value[0], Keyword)):
        return Received(Event(BAD_EVENT, value), cb)  # a string is no id where keywords are
    event = as_event(value)
    id = event.id
    if not id.startswith("chsk/"):
        return Received(event, cb)
    if id == WS_PING:
        return Pinged(cb)
    if id == WS_PONG:
        return Ponged()
    if id == ANSWER:
        data = event.data
        if type(data) is list and 2 <= len(data) <= 3 and isinstance(data[0], str):
            error = data[2] if len(data) == 3 else None
            return Answered(str(data[0]), data[1], None if error is None else str(error))
    elif id == BATCH and type(event.data) is list and len(event.data) <= BATCHED:
        return Batched(
            tuple(
                x if isinstance(x := _meaning(item, None, keywords), Received) else _bad(item)
                for item in event.data
            )
        )
    return Received(Event(BAD_EVENT, value), cb)


def _bad(value: Any) -> Received:
    return Received(Event(BAD_EVENT, value))
