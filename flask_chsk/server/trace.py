"""What happens in a worker, told as it happens: events, replies, opens, closes, refusals.

The log has it at DEBUG, and taps get it. Where nobody listens it costs one look at
:attr:`Trace.on`. The log shows no payload; a tap may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ..brokers.contract import ANONYMOUS, EVERYONE
from ..logs import logger
from ..protocol.push import CANONICAL, Push
from .connection import Uid

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    :ivar what: ``"in"``, ``"out"``, ``"reply"``, ``"open"``, ``"lost"``, ``"gone"``, ``"close"`` or
        ``"refused"``.
    :ivar whose: the client, user or topic, in words.
    :ivar uids: the users in this worker whom it concerns.
    :ivar id: the event's; empty where there is none.
    :ivar about: the rest, in words.
    :ivar topic: where the event was published to one.
    :ivar payload: the event's data, or the reply.
    """

    what: str
    whose: str
    uids: Collection[Uid]
    id: str = ""
    about: str = ""
    topic: str | None = None
    payload: Any = None

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.what:7}", self.whose, self.id, self.about)))


Tap = Callable[[Happening], object]


class Trace:
    """Where the parts of a worker tell what they do; from any thread.

    :ivar on: whether anybody listens: to be asked before something is told.
    """

    __slots__ = ("_taps", "on")

    def __init__(self) -> None:
        self._taps: tuple[Tap, ...] = ()
        self.look()

    def look(self) -> None:
        """See whether the log wants to be told; once a second, since it costs more than `on`."""
        self.on = bool(self._taps) or log.isEnabledFor(logging.DEBUG)

    def add(self, tap: Tap) -> None:
        """Call *tap* with each happening from now on, on the thread where it happens."""
        self._taps = (*self._taps, tap)
        self.look()

    def remove(self, tap: Tap) -> None:
        """Undo :meth:`add`."""
        self._taps = tuple(one for one in self._taps if one != tap)
        self.look()

    def tell(self, happening: Happening) -> None:
        """Tell what happened."""
        log.debug("%s", happening)
        for tap in self._taps:
            tap(happening)

    def client(
        self,
        what: str,
        uid: Uid,
        client_id: str | None,
        id: str = "",
        about: str = "",
        payload: Any = None,
    ) -> None:
        """Tell what one client did, or what was done to it."""
        whose = "anonymous" if uid is None else f"uid {uid!r}"
        if client_id is not None:
            whose += f" client {client_id}"
        self.tell(Happening(what, whose, (uid,), id, about, None, payload))

    def push(self, push: Push, uids: Collection[Uid]) -> None:
        """Tell of an event that goes to the clients here of *uids*, a uid for each client."""
        id, *data = CANONICAL.unpack(push.text)
        whose, topic = _receivers(push.channel)
        about = f"to {len(uids)} client{'' if len(uids) == 1 else 's'} here, offset {push.offset}"
        payload = data[0] if data else None
        self.tell(Happening("out", whose, uids, str(id), about, topic, payload))


def _receivers(channel: str) -> tuple[str, str | None]:
    """Whom a channel reaches, in words, and its topic."""
    kind, _, rest = channel.partition(":")
    if channel == EVERYONE:
        return "everybody", None
    if channel == ANONYMOUS:
        return "anonymous", None
    if kind == "t":
        return f"topic {rest!r}", rest
    if kind == "u":
        return f"uid {rest!r}", None
    client_id, _, uid = rest.partition(":")
    return (f"uid {uid!r}" if uid else "anonymous") + f" client {client_id}", None
