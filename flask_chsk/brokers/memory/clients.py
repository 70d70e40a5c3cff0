"""Clients, and which users are there."""

from __future__ import annotations

from ...protocol.uids import ConnectedUids
from ...security import check_may_act
from ..contract import ANONYMOUS, Arrival, Listener, too_many_clients
from .journal import Journal
from .table import Client, ClientTable
from .topics import MemoryTopics


class MemoryClients:
    """As :class:`..contract.BrokerClients`.

    :param most: clients that one user may have.
    :param close_kept: seconds for which a close is kept for a client between two polls.
    """

    def __init__(
        self,
        journal: Journal,
        table: ClientTable,
        topics: MemoryTopics,
        listener: Listener,
        epoch: str,
        most: int,
        close_kept: float,
    ) -> None:
        self._journal = journal
        self._lock = journal.lock
        self._table = table
        self._topics = topics
        self._listener = listener
        self._epoch = epoch
        self._most = most
        self._close_kept = close_kept
        # user, client id -> its secret's digest, the event that closed it, until when it is kept
        self._closes: dict[tuple[str | None, str], tuple[str, str, float]] = {}
        self._connected: ConnectedUids | None = None  # until somebody comes or goes
        self._watched = False
        self._openings = 0
        self._generation = 0

    def expect(self, uid: str, seconds: float) -> None:
        until = self._journal.now() + min(seconds, self._journal.window)
        with self._lock:
            self._table.expect(uid, until)

    def attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str = "ws",
        v1: bool = False,
        token: str | None = None,
        *,
        digest: str = "",
        silent: bool = False,
    ) -> Arrival | None:
        with self._lock:
            said, text, _ = self._closes.get((uid, client_id), ("", "", 0.0))
            if kind == "poll" and text and said == digest:
                del self._closes[uid, client_id]
                return Arrival("", False, {}, missed_close=text)
            clients = self._table.of(uid)
            held = clients.get(client_id)
            check_may_act(uid, None if held is None else held.digest, digest)
            if held is None:
                if uid is not None and len(clients) >= self._most:
                    raise too_many_clients(self._most)
            elif kind == "poll" and held.kind == "ws":
                return None
            elif kind == "try" and held.kind == "ajax" and held.v1:
                journal = self._journal
                return Arrival(
                    "",
                    False,
                    self._topics.of(uid),
                    offset=journal.last,
                    trial=True,
                    dropped=journal.dropped_of(uid),
                )
            kind = "ws" if kind in ("ws", "try") else "ajax"
            return self._let_in(uid, client_id, kind, v1, digest)

    def _let_in(self, uid: str | None, client_id: str, kind: str, v1: bool, digest: str) -> Arrival:
        self._closes.pop((uid, client_id), None)  # the next close that it hears is a later one
        clients = self._table.of(uid)
        first, held = not clients, clients.get(client_id)
        self._openings += 1
        token = str(self._openings)
        cursor = None if held is None else held.served
        offset = self._journal.level()
        # What a WebSocket is given nobody notes: its cursor is known again when it is lost.
        kept = (offset if cursor is None else cursor) if kind == "ajax" and not v1 else None
        self._table.put(uid, client_id, Client(token, kind, v1, digest, kept))
        if uid is not None and (held is None or held.kind != kind):
            self._presence_changed()
        return Arrival(
            token,
            first,
            self._topics.of(uid),
            generation=self._next_generation() if first else 0,
            offset=offset,
            known=held is not None and held.v1 == v1,
            cursor=cursor,
            epoch=self._epoch,
            dropped=self._journal.dropped_of(uid),
        )

    def holder(self, uid: str | None, client_id: str) -> str | None:
        with self._lock:
            client = self._table.of(uid).get(client_id)
        return None if client is None else client.digest

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        with self._lock:
            client = self._table.of(uid).get(client_id)
            if client is None or client.token != token:
                return 0
            self._table.remove(uid, client_id, self._journal.now() + self._journal.window)
            if uid is not None:
                self._presence_changed()
            return 0 if self._table.of(uid) else self._next_generation()

    def _next_generation(self) -> int:
        self._generation = max(self._generation + 1, int(self._journal.now() * 1e6))
        return self._generation

    def was_here(self, uid: str) -> int:
        return 0  # it never begins anew

    def ack(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        with self._lock:
            held = self._table.of(uid).get(client_id)
            if held is None or held.token != token:
                return False
            self._table.of(uid)[client_id] = held._replace(served=offset)
            return True

    def watch(self) -> None:
        self._watched = True

    def _presence_changed(self) -> None:
        self._connected = None
        if self._watched:
            self._journal.hub.call(self._listener.changed)

    def connected(self) -> ConnectedUids:
        with self._lock:
            if self._connected is None:
                kinds = self._table.kinds()
                ws, ajax = (frozenset(u for u, k in kinds if k == one) for one in ("ws", "ajax"))
                self._connected = ConnectedUids(ws, ajax, ws | ajax)
            return self._connected

    def askable(self, uid: str | None) -> frozenset[str]:
        with self._lock:
            return frozenset(id for id, client in self._table.of(uid).items() if client.v1)

    def note_close(self, channel: str, text: str, now: float) -> None:
        """A client between two polls hears of a close by its next poll; with the lock held."""
        only, uids = None, list[str | None]()
        kind, _, rest = channel.partition(":")
        if kind == "c":
            only, _, owner = rest.partition(":")
            uids = [owner or None]
        elif kind == "u":
            uids = [rest]
        elif kind == "t":
            uids = [*self._topics.users(rest)]
        elif channel == ANONYMOUS:
            uids = [None]
        for uid in uids:
            for client_id, client in self._table.of(uid).items():
                if client.kind == "ajax" and client.v1 and only in (None, client_id):
                    self._closes[uid, client_id] = (client.digest, text, now + self._close_kept)

    def sweep(self, now: float) -> None:
        """Forget what is past its time; with the lock held."""
        self._table.sweep(now)
        for key in [key for key, (*_, until) in self._closes.items() if until <= now]:
            del self._closes[key]
