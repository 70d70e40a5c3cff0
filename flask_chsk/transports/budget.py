"""What peers have sent and no handler has taken yet, counted over a whole process.

One peer's limits are its own: a message, an inbox. Thousands of peers who each stay within them
could still fill the memory, with messages that never end or with events that wait. Here both are
counted together: what arrives by its bytes, what waits by what it holds once it is read. It
refuses to know what the bytes mean, and holds none of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class Arrival(Protocol):
    """Something of which a part has come."""

    def give_up(self) -> None:
        """Let go of what has come: too much is arriving in this process."""


class MemoryBudget:
    """Bytes that are arriving, and bytes that wait; on the hub only.

    :ivar waiting: bytes that events hold which wait for their handlers.
    """

    def __init__(self, limit: int, counters: Counter[str]) -> None:
        self._limit = limit
        self._counters = counters
        self._arriving: dict[Arrival, int] = {}
        self._arrived = 0
        self.waiting = 0

    @property
    def bytes(self) -> int:
        """All there is."""
        return self._arrived + self.waiting

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken in."""
        return self.bytes >= self._limit

    def arriving(self, arrival: Arrival, size: int) -> None:
        """*arrival* holds *size* bytes by now; 0: no more.

        Over the limit the largest is given up, one after another: whoever sends what honest
        peers send is not the largest.
        """
        self._arrived += size - self._arriving.pop(arrival, 0)
        if size:
            self._arriving[arrival] = size
        while self.bytes > self._limit and self._arriving:
            largest = max(self._arriving, key=self._arriving.__getitem__)
            self._arrived -= self._arriving.pop(largest)
            self._counters["arrivals_given_up"] += 1
            largest.give_up()
