"""Sends that their clients may repeat, and the replies to them."""

from __future__ import annotations

from ..contract import KEPT_BYTES, KEYS
from .journal import Journal

SEND_COST = 200  # bytes that a keyed send takes beside its key and its reply


class Send:
    """A keyed send, and the reply to it; empty until there is one."""

    __slots__ = ("reply", "token")

    def __init__(self, token: str) -> None:
        self.token = token
        self.reply = ""


class MemorySends:
    """As :class:`..contract.BrokerSends`: within limits of number, bytes and age.

    :param seconds: for which the sends of a client are remembered after its last one.
    """

    def __init__(self, journal: Journal, seconds: float) -> None:
        self._now = journal.now
        self._lock = journal.lock
        self._seconds = seconds
        self._clients: dict[str, dict[str, Send]] = {}  # the one that sent last comes last
        self._until: dict[str, float] = {}
        self._bytes = 0

    def claim(self, client: str, key: str, token: str) -> str | None:
        with self._lock:
            sends = self._clients.get(client, {})
            send = sends.get(key)
            if send is not None:
                return None if send.token == token and not send.reply else send.reply
            if len(sends) >= KEYS:
                oldest = next(iter(sends))
                self._bytes -= SEND_COST + len(oldest) + len(sends.pop(oldest).reply)
            sends[key] = Send(token)
            self._used(client, sends, SEND_COST + len(key))
            return None

    def keep_reply(self, client: str, key: str, reply: str) -> None:
        with self._lock:
            sends = self._clients.get(client, {})
            send = sends.get(key)
            if send is not None:
                grows = len(reply) - len(send.reply)
                send.reply = reply
                self._used(client, sends, grows)

    def sweep(self, now: float) -> None:
        """Forget the sends of clients that sent none for long; with the lock held."""
        while self._until and next(iter(self._until.values())) <= now:
            self._drop_oldest()

    def _used(self, client: str, sends: dict[str, Send], grows: int) -> None:
        self._clients.pop(client, None)
        self._until.pop(client, None)
        self._clients[client], self._until[client] = sends, self._now() + self._seconds
        self._bytes += grows
        while self._bytes > KEPT_BYTES and self._clients:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        client = next(iter(self._clients))
        del self._until[client]
        for key, send in self._clients.pop(client).items():
            self._bytes -= SEND_COST + len(key) + len(send.reply)
