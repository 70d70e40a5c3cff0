"""The events of one client on their way: packing, queue, replies, timeouts, what is sent again.

Pure. It emits :class:`~.effects.Replied` and :class:`~.effects.Dropped`; over which link an event
leaves is the session's decision. No event with a reply is answered twice, and only one with a key
is sent twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from ..errors import PackError
from ..protocol.event import Event
from ..protocol.session import BATCH, CLOSED, ERROR, TIMEOUT
from ..protocol.wire import Composer, Data
from ..values import Keyword
from .effects import Dropped, Effect, Replied
from .link import Link, Outgoing

MAX_WAITING = 1000  # requests that wait for an opening
KEY_SECONDS = 100.0  # for which a key holds: the server's 120 less what may be under way

UNKNOWN_USER: Any = object()  # a user of whom the server has not told yet
_WORDS = (CLOSED, TIMEOUT, ERROR)


class Requests:
    """What was sent and has no reply yet, and what waits to be sent."""

    def __init__(
        self, composer: Composer, emit: Callable[[Effect], object], offline_queue: int
    ) -> None:
        """
        :param emit: takes the effects.
        :param offline_queue: how many sends may wait for an opening; requests count apart.
        """
        self._composer = composer
        self._emit = emit
        self._offline_queue = offline_queue
        self._numbers = count(1)
        self._pending: dict[str, Outgoing] = {}
        self._deadlines: list[tuple[float, int, Outgoing]] = []
        self._offline: list[Outgoing] = []  # waits for an opening
        self._interrupted: list[Outgoing] = []  # to be sent again

    # packing -------------------------------------------------------------------------

    def pack(
        self,
        event: Event,
        cb: Any = None,
        timeout: float = 0.0,
        *,
        cb_id: str | None = None,
        key: str | None = None,
        waits: bool = False,
        max_bytes: int | None = None,
    ) -> Outgoing:
        """*event* packed; it expects a reply where it has a *cb*.

        :param key: needs a *cb*: only a reply tells that it need not be sent again.
        :param waits: it may wait for an opening, whatever ``offline_queue`` says.
        :param max_bytes: what the server takes.
        :raises PackError: for what cannot be packed, or is over the server's limit.
        """
        composer = self._composer
        id, data = event
        value = [Keyword(id)] if data is None else [Keyword(id), data]
        try:
            piece = composer.piece(value)
        except PackError as error:
            # The packed value is the event; users know its second element as ``data``.
            raise PackError(str(error).replace("data[1]", "data", 1)) from error.__cause__
        if cb_id is None and cb is not None:
            cb_id = f"c{next(self._numbers)}"
        message = composer.compose(
            piece,
            None if cb_id is None else composer.piece(cb_id),
            None if key is None else composer.piece({"key": key}),
        )
        if max_bytes is not None and len(message) * 4 > max_bytes:
            size = len(message.encode() if isinstance(message, str) else message)
            if size > max_bytes:
                raise PackError(f"data: {size} bytes, of the {max_bytes} that the server takes")
        return Outgoing(id, piece, message, None if cb is None else cb_id, cb, timeout, key, waits)

    def batch(self, events: list[Outgoing]) -> Data:
        """Events without callbacks as one message."""
        if len(events) == 1:
            return events[0].data
        composer = self._composer
        together = composer.array([outgoing.piece for outgoing in events])
        return composer.compose(composer.array([composer.piece(BATCH), together]))

    # replies -------------------------------------------------------------------------

    def expect(self, outgoing: Outgoing, now: float) -> None:
        """From now on *outgoing* waits for its reply, if it expects one."""
        if outgoing.id is None:
            return
        outgoing.due = now + outgoing.timeout
        self._pending[outgoing.id] = outgoing
        heapq.heappush(self._deadlines, (outgoing.due, next(self._numbers), outgoing))

    def is_wanted(self, outgoing: Outgoing) -> bool:
        """Whether it has no reply yet, or expects none: what was rejected is not sent."""
        return outgoing.id is None or outgoing.id in self._pending

    def answered(self, cb_id: Any, value: Any, details: Any) -> None:
        """A message of the server answers *cb_id*, if something with that id waits."""
        if isinstance(cb_id, str) and (outgoing := self._pending.get(cb_id)) is not None:
            self.reply(outgoing, value, details)

    def reply(self, outgoing: Outgoing, reply: Any, details: Any = None) -> None:
        """*outgoing* has its reply; only the first counts."""
        if outgoing.id is None or self._pending.pop(outgoing.id, None) is None:
            return
        if type(reply) is str and reply in _WORDS and not self._composer.has_keywords:
            reply = Keyword(reply)
        if outgoing in self._offline:
            self._offline.remove(outgoing)
        self._emit(Replied(outgoing, reply, details))

    def next_due(self) -> float | None:
        """When the next reply is overdue."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].id not in self._pending:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def expire(self, now: float) -> None:
        """Give up on replies that are overdue."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            outgoing = heapq.heappop(deadlines)[2]
            waits = outgoing in self._offline
            self.reply(outgoing, TIMEOUT, {"message": "not open yet"} if waits else None)

    # while no connection is open -----------------------------------------------------

    def enqueue(self, outgoing: Outgoing, user: Any) -> bool:
        """Let *outgoing* wait for an opening, as *user*'s; False where too many wait."""
        before = sum(other.waits == outgoing.waits for other in self._offline)
        if before >= (MAX_WAITING if outgoing.waits else self._offline_queue):
            return False
        outgoing.user = user
        self._offline.append(outgoing)
        return True

    def dequeue(self, user: Any) -> list[Outgoing]:
        """What waited for this opening, in order; what belongs to another user is dropped."""
        offline, self._offline = self._offline, []
        mine = []
        for outgoing in offline:
            if outgoing.user is UNKNOWN_USER or outgoing.user == user:
                mine.append(outgoing)
            else:
                self._emit(Dropped(outgoing, "the user changed"))
                self.reply(outgoing, CLOSED, {"message": "the user changed"})
        return mine

    def close(self, why: str) -> None:
        """Nothing is sent any more, and no reply comes."""
        for outgoing in list(self._pending.values()):
            self.reply(outgoing, CLOSED)
        for outgoing in self._offline:
            if outgoing.id is None:
                self._emit(Dropped(outgoing, why))
        self._offline.clear()
        self._interrupted.clear()

    # after a cut ---------------------------------------------------------------------

    def sent(
        self, outgoing: Outgoing, link: Link, scope: tuple[Any, ...], now: float, wall: float = 0.0
    ) -> None:
        """*outgoing* is given to *link*; the first time its key begins to hold, for *scope*.

        :param wall: the time of day minus *now*.
        """
        if outgoing.key is not None and outgoing.key_scope is None:
            outgoing.key_scope = scope
            outgoing.key_expires = now + KEY_SECONDS
            outgoing.key_wall = wall
        outgoing.via = link

    def sent_over(self, link: Link) -> list[Outgoing]:
        """What *link* was given and has no reply yet."""
        return [outgoing for outgoing in self._pending.values() if outgoing.via is link]

    def interrupted(self, outgoing: Outgoing, *, resend: bool) -> bool:
        """Note that *outgoing* may not have arrived; returns whether it will be sent again.

        :param resend: False: the client is at rest, and sends nothing again.
        """
        if outgoing.id not in self._pending:
            return False
        if outgoing in self._interrupted:
            return True
        if outgoing.key_scope is None or not resend:
            self.reply(outgoing, CLOSED)
            return False
        self._interrupted.append(outgoing)
        return True

    def resend(self, scope: tuple[Any, ...], now: float, wall: float = 0.0) -> list[Outgoing]:
        """What to send again now. An event whose key has expired is answered ``chsk/closed``.

        :param wall: the time of day minus *now*: while a machine sleeps, *now* may stand still.
        """
        interrupted, self._interrupted = self._interrupted, []
        again = []
        for outgoing in interrupted:
            if outgoing.id not in self._pending:
                continue
            slept = max(0.0, wall - outgoing.key_wall)
            if outgoing.key_scope == scope and now + slept < outgoing.key_expires:
                again.append(outgoing)
            else:
                self.reply(outgoing, CLOSED)
        return again
