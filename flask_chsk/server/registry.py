"""Who is connected to this process: user -> client id -> connection.

Pure, and touched on the hub only. What others read, :class:`ConnectedUids`, is an
immutable snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ..protocol.uids import NOBODY, ConnectedUids

C = TypeVar("C")


class Registry(Generic[C]):
    """Finds connections; the key is ``(uid, client id)``, never the client id alone."""

    __slots__ = ("_clients", "_kinds", "_snapshot", "_version")

    def __init__(self) -> None:
        self._clients: dict[str | None, dict[str, C]] = {}
        # transport -> user -> number of their clients on it
        self._kinds: dict[str, dict[str, int]] = {"ws": {}, "ajax": {}}
        self._version = 0
        self._snapshot = (0, NOBODY)  # the version it shows, and itself

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def __iter__(self) -> Iterator[C]:
        for clients in list(self._clients.values()):
            yield from list(clients.values())

    def get(self, uid: str | None, client_id: str) -> C | None:
        """One connection."""
        clients = self._clients.get(uid)
        return clients.get(client_id) if clients else None

    def of(self, uid: str | None) -> Iterable[C]:
        """All connections of a user; with None, of everyone anonymous."""
        clients = self._clients.get(uid)
        return list(clients.values()) if clients else ()

    def count(self, uid: str | None) -> int:
        """How many clients a user has."""
        return len(self._clients.get(uid, ()))

    def add(self, uid: str | None, client_id: str, connection: C, kind: str) -> None:
        """A client came; *kind* is ``"ws"`` or ``"ajax"``."""
        self._clients.setdefault(uid, {})[client_id] = connection
        self._count(uid, kind, 1)

    def remove(self, uid: str | None, client_id: str, kind: str) -> None:
        """A client is gone."""
        clients = self._clients[uid]
        del clients[client_id]
        if not clients:
            del self._clients[uid]
        self._count(uid, kind, -1)

    def move(self, uid: str | None, old: str, new: str) -> None:
        """A client changed its transport."""
        if old != new:
            self._count(uid, old, -1)
            self._count(uid, new, 1)

    def _count(self, uid: str | None, kind: str, by: int) -> None:
        if uid is None:
            return
        users = self._kinds[kind]
        before = users.get(uid, 0)
        users[uid] = before + by
        if not users[uid]:
            del users[uid]
        if not before or uid not in users:
            self._version += 1

    @property
    def connected_uids(self) -> ConnectedUids:
        """The snapshot, made when read after a change; from any thread."""
        version = self._version
        shown, snapshot = self._snapshot
        if shown != version:
            ws, ajax = frozenset(self._kinds["ws"]), frozenset(self._kinds["ajax"])
            snapshot = ConnectedUids(ws, ajax, ws | ajax)
            self._snapshot = (version, snapshot)
        return snapshot
