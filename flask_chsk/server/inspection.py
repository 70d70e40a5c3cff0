"""Answers the command line's questions about this worker.

The broker brings them, so it is asked as far as the broker reaches. It refuses to change anything.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ..brokers.contract import Broker
from ..errors import BrokerError
from ..hub import Hub, on_hub
from ..logs import logger
from ..printable import printable, shown
from ..protocol.inspection import Finding, Inquiry
from .connection import Connection
from .registry import Registry
from .topics import Topics
from .trace import Happening, Trace

log = logger(__name__)

MOST = 1000  # lines of one answer; what is more is only counted
TAIL = 15.0  # seconds that a tail lasts unless it is asked for again
FLUSH = 0.25  # seconds between its answers


class Inspection:
    """The questions that are asked of this worker; on the hub.

    :ivar stats: gives the counters and gauges.
    """

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        registry: Registry[Connection],
        topics: Topics,
        trace: Trace,
        stats: Callable[[], dict[str, int]],
    ) -> None:
        self.hub = hub
        self.stats = stats
        self._broker = broker
        self._registry = registry
        self._topics = topics
        self._trace = trace
        self._tails: dict[str, Tail] = {}

    @on_hub
    def on_worker_message(self, text: str) -> bool:
        """Answer what is asked; False: nothing is."""
        inquiry = Inquiry.read(text)
        if inquiry is None:
            return False
        if inquiry.what == "tail":
            self._tail(inquiry)
        elif inquiry.what == "stats":
            self._answer(inquiry, self.stats())
        elif inquiry.what == "clients":
            self._answer(inquiry, self._clients(inquiry.uid))
        elif inquiry.what == "topics":
            self._answer(inquiry, self._members())
        return True

    def _clients(self, uid: str | None) -> list[dict[str, Any]]:
        """What this worker knows of a user's clients."""
        return [
            {
                "client_id": one.session.client_id,
                "state": one.state.value,
                "packer": one.session.composer.packer.name,
                "ours": one.session.v1,
                "waiting": len(one.session.outbox or ()),
            }
            for one in list(self._registry.of(uid))[:MOST]
        ]

    def _members(self) -> dict[str, int]:
        """How many users with a client here each topic has."""
        counts: Counter[str] = Counter()
        for topics in self._topics.snapshot().values():
            counts.update(topics)
        return dict(counts.most_common(MOST))

    def _tail(self, inquiry: Inquiry) -> None:
        tail = self._tails.get(inquiry.id)
        if tail is None:
            tail = self._tails[inquiry.id] = Tail(inquiry, self.hub.wall)
            self._trace.add(tail.take)
            self._answer(inquiry, {"lines": [], "missed": 0})
            self.hub.timer(FLUSH, lambda: self._flush(inquiry.id))
        tail.until = self.hub.now() + TAIL

    def _flush(self, id: str) -> None:
        tail = self._tails[id]
        if lines := tail.lines():
            self._answer(tail.inquiry, lines)
        if self.hub.now() < tail.until:
            self.hub.timer(FLUSH, lambda: self._flush(id))
        else:
            del self._tails[id]
            self._trace.remove(tail.take)

    def _answer(self, inquiry: Inquiry, value: Any) -> None:
        finding = Finding(inquiry.id, self._broker.name, value)
        self.hub.background(self._tell, inquiry.asker, finding.text())

    def _tell(self, name: str, text: str) -> None:
        try:
            self._broker.tell(name, text)
        except BrokerError as error:
            log.debug("an answer about this worker is lost: %s", error)


class Tail:
    """What happens, as far as somebody wants to see it.

    :ivar until: when it ends.
    """

    def __init__(self, inquiry: Inquiry, wall: Callable[[], float]) -> None:
        self.inquiry = inquiry
        self.until = 0.0
        self._wall = wall
        self._lines: deque[tuple[float, str, str | None]] = deque()
        self._missed = 0

    def take(self, one: Happening) -> None:
        """Note what happened, where it was asked for; from any thread."""
        wanted = self.inquiry
        if (
            (wanted.uid is not None and wanted.uid not in one.uids)
            or (wanted.topic is not None and wanted.topic != one.topic)
            or (wanted.event is not None and wanted.event != one.id)
        ):
            return
        if len(self._lines) >= MOST:
            self._missed += 1
            return
        payload = None
        if wanted.payload and one.payload is not None:
            payload = shown(one.payload)
        self._lines.append((self._wall(), printable(str(one)), payload))

    def lines(self) -> dict[str, Any] | None:
        """What was noted since the last call: time, line and payload of each; None: nothing."""
        if not self._lines:
            return None
        noted = [self._lines.popleft() for _ in range(len(self._lines))]
        missed, self._missed = self._missed, 0
        return {"lines": noted, "missed": missed}
