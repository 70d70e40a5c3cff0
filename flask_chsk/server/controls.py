"""Remembers what was decided of clients while they are being let in; on the hub.

A request first asks the application who its user is. The client has no connection here until it is
registered, but a close or a join that comes in between applies to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..brokers.contract import is_close, pubsub_of
from ..protocol.push import Push
from .connection import Asked

OPENING = 60.0  # seconds that a request may take from who it is to its connection


class Controls:
    """Controls that came while clients were being let in.

    :ivar closes: channel -> when its latest close was heard, and that close.
    :ivar lapses: how often this process may have missed a close.
    """

    def __init__(self) -> None:
        self.lapses = 0
        self.closes: dict[str, tuple[float, Push]] = {}
        self._pending: dict[str, list[list[Push]]] = {}  # user (or client) -> what came since

    def asked(self, watermark: int) -> Asked:
        """The present moment, for a request that is about to ask who its user is."""
        return Asked(watermark, self.lapses)

    def buffer(self, who: str) -> list[Push]:
        """Keep what is decided about a user, or an anonymous client, until :meth:`release`."""
        controls: list[Push] = []
        self._pending.setdefault(who, []).append(controls)
        return controls

    def release(self, who: str, controls: list[Push]) -> None:
        """The client was registered, or refused."""
        rest = [one for one in self._pending.get(who, ()) if one is not controls]
        if rest:
            self._pending[who] = rest
        else:
            self._pending.pop(who, None)

    def awaits(self, who: str) -> bool:
        """Whether a client of this user, or this anonymous client, is being let in."""
        return who in self._pending

    def note(self, push: Push, now: float) -> None:
        """A control was heard."""
        for controls in self._pending.get(pubsub_of(push.channel)[2:], ()):
            controls.append(push)
        if is_close(push.text):
            self.closes.pop(push.channel, None)
            self.closes[push.channel] = now, push

    def closes_after(self, offset: int, channels: Iterable[str]) -> Iterator[Push]:
        """The latest closes of *channels* that came after *offset*."""
        for channel in channels:
            if channel in self.closes and self.closes[channel][1].offset > offset:
                yield self.closes[channel][1]

    def begin_epoch(self) -> None:
        """The broker counts anew."""
        self.closes.clear()

    def sweep(self, now: float) -> None:
        """Let go of closes that concern no request any more."""
        for channel, (when, _) in list(self.closes.items()):
            if now - when < OPENING:
                break
            del self.closes[channel]
