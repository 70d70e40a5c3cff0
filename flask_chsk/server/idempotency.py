"""Keyed sends, which a client may send again after a cut, run once and give the same reply.

Within one worker the cache tells a repetition; between workers the broker decides which of them
handles a send (docs/protocol.rst, "Keyed sends").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ..brokers.contract import KEPT_BYTES, KEYS, Broker
from ..errors import BrokerError
from ..hub import Hub, on_hub
from ..logs import RateLimitedLogger, logger
from ..protocol.push import CANONICAL
from .connection import Owner

rate_limited = RateLimitedLogger(logger(__name__))

AGAIN = 0.25  # seconds between looks whether another process has replied
KEPT_REPLY = 16 * 1024  # a larger reply is not kept for a repetition
KEPT_COST = 400  # bytes of one, besides its reply


class Way(Protocol):
    """The way back to the client of one send."""

    kept: CachedReply | None

    @property
    def wants_reply(self) -> bool:
        """Whether the client waits for a reply."""

    def give(self, piece: Any, third: Any) -> object:
        """Send what is packed already."""

    def expired(self) -> object:
        """Answer ``:chsk/timeout``."""


class CachedReply:
    """A keyed send that was dispatched: its answer, or who waits for it."""

    __slots__ = ("answer", "cache", "claimed", "client", "key", "since", "waiting")

    def __init__(self, owner: Owner, key: str, since: float, cache: IdempotencyCache) -> None:
        self.client = name_of(owner)
        self.key = key
        self.since = since
        self.cache: IdempotencyCache | None = cache  # None: forgotten
        self.claimed = False  # other workers ask the broker for the answer
        self.answer: tuple[Any, Any] | None = None
        self.waiting: list[Way] | None = None

    def repeat(self, way: Way) -> None:
        """The same send came again."""
        if self.answer is not None:
            way.give(*self.answer)
        elif self.waiting is None:
            self.waiting = [way]
        else:
            self.waiting.append(way)

    @property
    def cost(self) -> int:
        """Bytes that it takes."""
        piece = None if self.answer is None else self.answer[0]
        return KEPT_COST + (len(piece) if isinstance(piece, str | bytes) else 0)

    def settle(self, piece: Any, third: Any) -> None:
        """The send was answered."""
        if not isinstance(piece, str | bytes) or len(piece) <= KEPT_REPLY:
            self.answer = (piece, third)
            if self.cache is not None and isinstance(piece, str | bytes):
                self.cache.bytes += len(piece)
        waiting, self.waiting = self.waiting, None
        for way in waiting or ():
            way.give(piece, third)


def name_of(owner: Owner) -> str:
    """A client that sends with keys, as all processes know it."""
    uid, client_id, digest = owner
    return f"{client_id}:{digest}:{uid or ''}"


class IdempotencyCache:
    """The keyed sends of this worker's clients, within limits of number, bytes and age."""

    def __init__(self) -> None:
        self._kept: dict[Owner, dict[str, CachedReply]] = {}
        self.bytes = 0

    def came_before(self, owner: Owner, key: str, way: Way, now: float) -> bool:
        """Whether *owner* sent this before; then its reply is, or will be, given again."""
        kept = self._kept.setdefault(owner, {})
        before = kept.get(key)
        if before is None:
            if len(kept) >= KEYS:
                self._drop(kept.pop(next(iter(kept))))
            way.kept = kept[key] = CachedReply(owner, key, now, self)
            self.bytes += KEPT_COST
            while self.bytes > KEPT_BYTES:
                oldest = next(iter(self._kept))
                for one in self._kept.pop(oldest).values():
                    self._drop(one)
            return False
        before.repeat(way)
        return True

    def forget(self, before: float) -> None:
        """Let go of what came before that time."""
        for owner, kept in list(self._kept.items()):
            for key in [key for key, one in kept.items() if one.since < before]:
                self._drop(kept.pop(key))
            if not kept:
                del self._kept[owner]

    def _drop(self, kept: CachedReply) -> None:
        self.bytes -= kept.cost
        kept.cache = None


class Idempotency:
    """Tells sends that come again from new ones, in this worker and in others."""

    def __init__(
        self, hub: Hub, broker: Broker, counters: Counter[str], reply_timeout: float
    ) -> None:
        """:param reply_timeout: seconds for which another worker's reply is waited for."""
        self.hub = hub
        self._broker = broker
        self._counters = counters
        self._reply_timeout = reply_timeout
        self._cache = IdempotencyCache()

    @on_hub
    def came_before(self, owner: Owner, key: str, way: Way) -> bool:
        """Whether this worker has the send already; then its reply is given again. On the hub."""
        came = self._cache.came_before(owner, key, way, self.hub.now())
        self._counters["repeated"] += came
        return came

    def handled_elsewhere(self, owner: Owner, key: str, way: Way) -> Callable[[], bool] | None:
        """What asks whether another worker has the send; None: there is no other.

        The result may wait for the broker. It tells *way* the reply of the other worker.
        """
        if self._broker.local:
            return None  # the cache of this worker knows every send
        if way.kept is not None:
            way.kept.claimed = True
        token = self.hub.token(8)
        return partial(self._ask_elsewhere, name_of(owner), key, way, token)

    def _ask_elsewhere(self, client: str, key: str, way: Way, token: str) -> bool:
        try:
            held = self._broker.sends.claim(client, key, token)
        except BrokerError as error:
            rate_limited.warning("claim", "whether a send came before is not known: %s", error)
            return False  # handlers go on without a broker
        if held is None:
            return False
        self.hub.call(self._counters.update, ("repeated",))
        if way.wants_reply:
            held = held or self._reply_of_another(client, key, token)
            if held:
                way.give(*CANONICAL.unpack(held))
            else:
                way.expired()
        return True

    def _reply_of_another(self, client: str, key: str, token: str) -> str | None:
        """The reply of the worker that handles a send; None where there is none in time."""
        hub = self.hub
        until = hub.now() + self._reply_timeout
        held: str | None = ""
        while not held and hub.now() < until:
            hub.waiter_here().wait(AGAIN)
            with suppress(BrokerError):  # that one handles it, whatever becomes of the broker
                held = self._broker.sends.claim(client, key, token)
            if held is None:
                break  # it was forgotten meanwhile
        return held

    @on_hub
    def settled(self, kept: CachedReply, piece: Any, third: Any) -> None:
        """A send that may come again, here or elsewhere, was answered. On the hub."""
        kept.settle(piece, third)
        if kept.claimed and kept.answer is not None and isinstance(piece, str | bytes):
            self.hub.background(self._settle, kept, CANONICAL.pack([piece, third]))

    def _settle(self, kept: CachedReply, reply: str) -> None:
        try:
            self._broker.sends.keep_reply(kept.client, kept.key, reply)
        except BrokerError as error:
            rate_limited.warning("settle", "a reply will not be given again: %s", error)

    @on_hub
    def forget(self, before: float) -> None:
        """Let go of what came before that time. On the hub."""
        self._cache.forget(before)
