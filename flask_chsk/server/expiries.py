"""Ends the connections of identities that have expired (``Identity.expires_at``).

Only connections whose identity expires are known here, so the others cost nothing. They are kept by
the second in which they expire, and looked at once a second. Times are those of ``Hub.now``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ..hub import Hub, on_hub
from .connection import Connection


class Expiries:
    """When the identities behind this worker's connections expire; on the hub."""

    def __init__(self, hub: Hub, expire: Callable[[Connection], object]) -> None:
        """:param expire: called with each connection whose identity has expired."""
        self.hub = hub
        self._expire = expire
        self._second: dict[Connection, int] = {}
        self._connections: dict[int, dict[Connection, None]] = {}  # by that second

    def __len__(self) -> int:
        return len(self._second)

    @on_hub
    def note(self, connection: Connection, expires_at: float | None) -> None:
        """The latest request of a connection has an identity until *expires_at*; None: for ever."""
        self.forget(connection)
        if expires_at is not None:
            second = self._second[connection] = math.ceil(expires_at)
            self._connections.setdefault(second, {})[connection] = None

    @on_hub
    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        second = self._second.pop(connection, None)
        if second is not None:
            connections = self._connections[second]
            del connections[connection]
            if not connections:
                del self._connections[second]

    @on_hub
    def sweep(self, now: float) -> None:
        """End those whose time has come."""
        due = [
            connection
            for second, connections in self._connections.items()
            if second <= now
            for connection in connections
        ]
        if due:
            self.hub.sliced(lambda: self._end(due, now))

    def _end(self, due: list[Connection], now: float) -> Iterator[None]:
        for connection in due:
            second = self._second.get(connection)
            if second is not None and second <= now:  # else it was renewed meanwhile, or is gone
                self.forget(connection)
                self._expire(connection)
            yield
