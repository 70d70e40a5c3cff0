"""Questions to clients: who may still answer, and who waits for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from ..brokers.contract import Broker
from ..errors import ChskError
from ..hub import Hub, Waiter, on_hub
from ..logs import RateLimitedLogger, logger
from ..protocol import session as s
from ..protocol.event import assert_event
from ..protocol.question import (
    ASKED_STILL,
    Client,
    Question,
    asked_of,
    asking,
    read,
    value_of,
    written,
)
from ..transports.budget import MemoryBudget

log = logger(__name__)
rate_limited = RateLimitedLogger(log)

ASKER = re.compile(r"[0-9a-f]{16}")  # a process that asks, before the dot of an ask's id


class Asks:
    """The open questions of this process; on the hub, but for :meth:`ask`."""

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        send: Callable[[str | None, Any, str | None], object],
        budget: MemoryBudget,
        max_bytes: int,
        counters: Counter[str],
    ) -> None:
        """
        :param send: says an event to a user, or one client of theirs, at once.
        :param max_bytes: of one client's answers that are on their way to other processes.
        """
        self.hub = hub
        self._broker = broker
        self._send = send
        self._budget = budget
        self._max_bytes = max_bytes
        self._counters = counters
        self._leaving: Counter[Client] = Counter()  # bytes of answers to other processes
        self._open: dict[str, Question] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, uid: str | None, event: Any, client_id: str | None, timeout: float) -> Any:
        """Ask a client, or all of a user's, and block for the first answer; from any thread.

        :raises NoClient: at once, where nobody could answer.
        :raises ClientGone: when the last one asked went away.
        :raises AskTimeout: after *timeout* seconds.
        :raises AskFailed: when all that were asked answered with an error.
        """
        question = assert_event(event)
        asked = asked_of(uid, self._broker.clients.askable(uid), client_id)
        waiter = self.hub.waiter_here()
        ask_id = f"{self._broker.name}.{self.hub.token(12)}"
        self.hub.run(self._begin, ask_id, asked, waiter)
        try:
            self._send(uid, asking(ask_id, question), client_id)
            outcome = self._wait(ask_id, uid, waiter, timeout)
        finally:
            self.hub.call(self._open.pop, ask_id, None)
        return value_of(outcome, uid, question.id, timeout)

    @on_hub
    def answered(self, client: Client, answer: s.Answered, size: int = 0) -> bool:
        """A client answered; False where it was not asked that.

        :param size: bytes that the answer holds. Nobody waits for the broker with those of whoever
            answers what was never asked: over the limits they are dropped.
        """
        name, dot, _ = answer.id.partition(".")
        if dot and name != self._broker.name and ASKER.fullmatch(name):
            leaving = self._leaving[client]
            if self._budget.full or (leaving and leaving + size > self._max_bytes):
                self._counters["answers_dropped"] += 1
                words = "an answer of uid %r was dropped: too many wait for the broker"
                rate_limited.warning("dropped", words, client[0])
                return True
            self._count(client, size)
            self.hub.background(self._tell_asker, name, client, answer, size)
            return True
        return self._answered_here(client, answer)

    @on_hub
    def _count(self, client: Client, size: int) -> None:
        self._budget.waiting += size
        self._leaving[client] += size
        if not self._leaving[client]:
            del self._leaving[client]

    @on_hub
    def on_worker_message(self, text: str) -> bool:
        """A client of another process answered; False where it was not asked that."""
        return self._answered_here(*read(text))

    @on_hub
    def gone(self, client: Client) -> None:
        """A client will not answer any more."""
        for ask in [ask for ask in self._open.values() if client in ask.asked]:
            ask.gone(client)

    @on_hub
    def _begin(self, ask_id: str, asked: dict[Client, None], waiter: Waiter) -> None:
        self._open[ask_id] = Question(asked, waiter.set)

    def _answered_here(self, client: Client, answer: s.Answered) -> bool:
        ask = self._open.get(answer.id)
        return ask is not None and ask.answer(client, answer)

    def _tell_asker(self, name: str, client: Client, answer: s.Answered, size: int) -> None:
        try:
            self._broker.tell(name, written(client, answer))
        except ChskError as error:
            words = "an answer of uid %r did not get through: %s"
            rate_limited.warning("lost", words, client[0], error)
        finally:
            self.hub.call(self._count, client, -size)

    def _wait(self, ask_id: str, uid: str | None, waiter: Waiter, timeout: float) -> Any:
        until = self.hub.now() + timeout
        while True:
            left = until - self.hub.now()
            answer = waiter.wait(max(0.0, min(left, ASKED_STILL)))
            if answer is not None or left <= ASKED_STILL:
                return answer
            there = {(uid, one) for one in self._broker.clients.askable(uid)}
            self.hub.run(self._only, ask_id, there)

    @on_hub
    def _only(self, ask_id: str, there: set[Client]) -> None:
        """Of those asked, none but *there* can still answer."""
        ask = self._open.get(ask_id)
        if ask is not None:
            ask.only(there)
