"""Limits the memory that messages of all peers of a process take before a handler runs.

Each peer has limits of its own, for a message and an inbox. Thousands of peers that keep within
them could still fill the memory, with unfinished messages or with waiting events. This budget
counts both: unfinished messages by their bytes, waiting events by what they hold once they are
read. It does not know what the bytes mean, and holds none of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class Arrival(Protocol):
    """An unfinished message."""

    def give_up(self) -> None:
        """Drop what has come: too much is arriving in this process."""


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
        """The bytes of both."""
        return self._arrived + self.waiting

    @property
    def full(self) -> bool:
        """Whether nothing more should be taken in."""
        return self.bytes >= self._limit

    def arriving(self, arrival: Arrival, size: int) -> None:
        """*arrival* holds *size* bytes now; 0: it has ended.

        Above the limit the largest unfinished messages are dropped, one after another. Those of
        honest peers are not the largest.
        """
        self._arrived += size - self._arriving.pop(arrival, 0)
        if size:
            self._arriving[arrival] = size
        while self.bytes > self._limit and self._arriving:
            largest = max(self._arriving, key=self._arriving.__getitem__)
            self._arrived -= self._arriving.pop(largest)
            self._counters["arrivals_given_up"] += 1
            largest.give_up()
