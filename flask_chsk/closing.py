"""Closes that wait for a response: the words that tell a page are held back until it has ended.

A page that hears ``signed-out`` goes elsewhere, and its browser then gives up the request that
signed it out: the cookie of the answer would be lost. So a close takes effect at once, no event
reaches the connections that it ends; and what tells their clients leaves after the response of the
view that closed them. The process of that view says when, by the broker where the connections are
elsewhere. Nothing waits longer than :data:`MOST` seconds, whoever dies or streams meanwhile.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from .brokers import Broker
from .errors import ChskError
from .hub import Hub
from .logs import logger

log = logger("flask_chsk.closing")

MOST = 5.0  # seconds: then a page hears of it, however long the response takes
ARRIVAL = 0.25  # seconds for the response to arrive, which has another connection to itself

PREFIX = "close "  # of what processes tell each other about closes


class Wait(NamedTuple):
    """What a close waits for: a response of the process *name*."""

    name: str
    token: str

    @classmethod
    def of(cls, data: object) -> Wait | None:
        """A wait as it comes with an event; None for what is none."""
        if isinstance(data, list) and len(data) == 2 and all(isinstance(one, str) for one in data):
            return cls(str(data[0]), str(data[1]))
        return None


class Closing:
    """The responses of this process that closes wait for, and the words that wait here."""

    hub: Hub  # from `start`

    def __init__(self, broker: Broker, counters: Counter[str]) -> None:
        self._broker = broker
        self._counters = counters
        self._open: dict[str, set[str]] = {}  # ours, and who has words that wait for them
        self._held: dict[Wait, list[Callable[[], object]]] = {}

    def start(self, hub: Hub) -> None:
        """Begin to live on *hub*."""
        self.hub = hub

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    # where the response is -----------------------------------------------------------------

    def begin(self) -> Wait:
        """A new wait, for a response of this process; from any thread."""
        wait = Wait(self._broker.name, secrets.token_urlsafe(12))
        self.hub.run(self._begin, wait)
        return wait

    def _begin(self, wait: Wait) -> None:
        self._open[wait.token] = set()
        self.hub.timer(MOST, partial(self._end, wait, late=True))

    def ended(self, wait: Wait) -> None:
        """The response has left; from any thread."""
        self.hub.call(self.hub.timer, ARRIVAL, partial(self._end, wait))

    def end(self, wait: Wait) -> None:
        """There is nothing to wait for; from any thread."""
        self.hub.call(self._end, wait)

    def _end(self, wait: Wait, late: bool = False) -> None:
        names = self._open.pop(wait.token, None)
        if names is None:
            return  # it has ended before
        self._let_go(wait, late)
        for name in names:
            self.hub.background(self._tell, name, f"ended {wait.name} {wait.token}")

    # where the connections are -------------------------------------------------------------

    def hold(self, wait: Wait, say: Callable[[], object]) -> None:
        """Call *say* when *wait* is over, which may be now. On the hub."""
        ours = wait.name == self._broker.name
        if ours and wait.token not in self._open:
            say()
            return
        held = self._held.get(wait)
        if held is None:
            held = self._held[wait] = []
            if not ours:
                self.hub.timer(MOST, partial(self._let_go, wait, True))
                text = f"waits {self._broker.name} {wait.token}"
                self.hub.background(self._tell, wait.name, text)
        held.append(say)

    def let_all_go(self) -> None:
        """This process ends: say all that waits. On the hub."""
        for wait in list(self._held):
            self._let_go(wait)

    def _let_go(self, wait: Wait, late: bool = False) -> None:
        for say in self._held.pop(wait, ()):
            self._counters["closes_untimely"] += late
            try:
                say()
            except Exception:
                log.exception("a client could not be told that it was closed")

    # between processes ---------------------------------------------------------------------

    def told(self, text: str) -> None:
        """Another process said this, after :data:`PREFIX`. On the hub."""
        what, name, token = text.split()
        if what == "ended":
            self._let_go(Wait(name, token))
        elif token in self._open:
            self._open[token].add(name)
        else:
            wait = Wait(self._broker.name, token)
            self.hub.background(self._tell, name, f"ended {wait.name} {wait.token}")

    def _tell(self, name: str, text: str) -> None:
        try:
            self._broker.tell(name, PREFIX + text)
        except ChskError as error:
            log.debug("a close waits its full time: %s", error)
