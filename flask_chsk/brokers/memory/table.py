"""Which clients are there, and which users were there a moment ago."""

from __future__ import annotations

from typing import NamedTuple

from ..contract import client_channel, user_channel


class Client(NamedTuple):
    """A client that was let in."""

    token: str  # of its opening
    kind: str  # "ws" or "ajax"
    v1: bool
    digest: str  # of its secret
    served: int | None  # the offset up to which a client without a cursor was served


class ClientTable:
    """The clients by user and client id, and for whom events are kept besides."""

    def __init__(self) -> None:
        self._clients: dict[str | None, dict[str, Client]] = {}
        # Channel of a user or client who is gone -> until when its events are kept
        self._grace: dict[str, float] = {}
        self._expected: dict[str, float] = {}  # user with a page on its way -> until when

    def of(self, uid: str | None) -> dict[str, Client]:
        """The clients of a user, by their ids."""
        return self._clients.get(uid, {})

    def put(self, uid: str | None, client_id: str, client: Client) -> None:
        """A client is there."""
        self._clients.setdefault(uid, {})[client_id] = client
        if uid is not None:
            self._grace.pop(user_channel(uid), None)

    def remove(self, uid: str | None, client_id: str, until: float) -> None:
        """A client is gone; its events, and those of a user who went with it, are kept *until*."""
        clients = self._clients[uid]
        del clients[client_id]
        self._grace[client_channel(uid, client_id)] = until
        if not clients:
            del self._clients[uid]
            if uid is not None:
                self._grace[user_channel(uid)] = until

    def expect(self, uid: str, until: float) -> None:
        """A page was rendered for a user."""
        self._expected[uid] = max(until, self._expected.get(uid, 0.0))

    def is_there(self, channel: str, now: float) -> bool:
        """Whether events of a channel are for somebody who is there, or was, or is expected."""
        kind, _, rest = channel.partition(":")
        if kind == "u":
            there = rest in self._clients or self._expected.get(rest, 0.0) > now
        elif kind == "c":
            client_id, _, uid = rest.partition(":")
            there = client_id in self._clients.get(uid or None, ())
        else:
            return True
        return there or self._grace.get(channel, 0.0) > now

    def kinds(self) -> set[tuple[str, str]]:
        """Users, and by what they are connected."""
        return {
            (uid, client.kind)
            for uid, clients in self._clients.items()
            if uid is not None
            for client in clients.values()
        }

    def sweep(self, now: float) -> None:
        """Forget what is past its time."""
        for times in (self._grace, self._expected):
            for key in [key for key, until in times.items() if until <= now]:
                del times[key]
