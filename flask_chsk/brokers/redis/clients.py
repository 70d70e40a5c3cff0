"""Clients of all workers, as Redis knows them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import BrokerUnavailable
from ...protocol.uids import ConnectedUids
from ...security import held_by_another
from ..contract import ANONYMOUS, EVERYONE, Arrival, Listener, too_many_clients
from . import commands, lease, scripts
from .calls import Redis
from .epoch import Epoch
from .records import to_bytes, to_text
from .subscription import CHANGES, Subscription

if TYPE_CHECKING:
    from ...hub import Hub

NO_DIGEST = "."  # in a record of Redis: a client of Sente's has no secret


class RedisClients:
    """As :class:`..contract.BrokerClients`, for the worker *name*.

    :param most: clients that one user may have.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        epoch: Epoch,
        subscription: Subscription,
        listener: Listener,
        name: str,
        most: int,
    ) -> None:
        self._hub = hub
        self._redis = redis
        self._epoch = epoch
        self._subscription = subscription
        self._listener = listener
        self._name = name
        self._most = most

    def expect(self, uid: str, seconds: float) -> None:
        self._redis.call(scripts.EXPECT, to_bytes(uid), int(seconds * 1000))

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
        names = {f"c:{client_id}", ANONYMOUS} if uid is None else {f"u:{uid}"}
        self._subscription.hear({EVERYONE, *names})
        before, token = token, token or self._hub.token(8)
        answer = self._redis.call(
            scripts.ATTACH,
            to_bytes(uid or ""),
            client_id,
            token,
            self._name,
            kind,
            int(v1),
            int(lease.LEASE * 1000),
            self._most,
            before or "",
            digest or NO_DIGEST,
            int(silent),
        )
        self._tell_closing(uid, answer)
        if answer[0] == b"late":
            return None
        if answer[0] == b"held":
            raise held_by_another()
        if answer[0] == b"full":
            raise too_many_clients(self._most)
        if answer[0] == b"closed":
            return Arrival("", False, {}, missed_close=to_text(answer[1]))
        pairs = zip(*[iter(answer[-1])] * 2, strict=True)
        topics = {to_text(topic): int(start) for topic, start in pairs}
        try:
            if topics:
                self._subscription.hear({f"t:{topic}" for topic in topics})
        except BrokerUnavailable:
            if before is None:  # else it is let in again, with the same token
                self._undo_attach(uid, client_id, token, answer)
            raise
        if answer[0] == b"trial":
            offset, dropped = map(int, answer[1:3])
            return Arrival("", False, topics, offset=offset, trial=True, dropped=dropped)
        return self._arrived(token, topics, answer)

    def _arrived(self, token: str, topics: dict[str, int], answer: list[Any]) -> Arrival:
        """The script let a client in."""
        _, offset, first, known, cursor, epoch, restored, began, dropped, _, _ = answer
        self._hub.run(self._epoch.enter, epoch.decode(), int(offset), int(began))
        return Arrival(
            token,
            bool(first),
            topics,
            generation=int(offset),
            offset=int(offset),
            known=bool(known),
            cursor=int(cursor) if cursor else None,
            epoch=epoch.decode(),
            whole=restored == b"",
            restored=int(restored or 0),
            dropped=int(dropped),
        )

    def _tell_closing(self, uid: str | None, answer: list[Any]) -> None:
        """Tell of the closing that belongs before this coming, where the script found one."""
        place = {b"late": -1, b"full": -1, b"in": -2}.get(answer[0])
        if uid is not None and place is not None and answer[place]:
            self._hub.call(self._listener.user_presence_changed, uid, False, int(answer[place]))

    def _undo_attach(self, uid: str | None, client_id: str, token: str, answer: list[Any]) -> None:
        """A client could not be let in after all: tell what was decided of its user."""
        with suppress(BrokerUnavailable):
            went = self.detach(uid, client_id, token)
            if uid is not None and went and answer[0] == b"in":
                if answer[2]:
                    self._hub.call(self._listener.user_presence_changed, uid, True, int(answer[1]))
                self._hub.call(self._listener.user_presence_changed, uid, False, went)

    def holder(self, uid: str | None, client_id: str) -> str | None:
        held = self._redis.call(scripts.HOLDER, to_bytes(uid or ""), client_id)
        return None if held is None else to_text(held).replace(NO_DIGEST, "")

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        return int(self._redis.call(scripts.DETACH, to_bytes(uid or ""), client_id, token))

    def was_here(self, uid: str) -> int:
        return int(self._redis.call(scripts.WAS_HERE, to_bytes(uid)))

    def ack(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        args = (to_bytes(uid or ""), client_id, token, offset)
        return bool(self._redis.call(scripts.ACK, *args))

    def watch(self) -> None:
        self._subscription.hear({CHANGES})

    def connected(self) -> ConnectedUids:
        return commands.connected(self._redis)

    def askable(self, uid: str | None) -> frozenset[str]:
        return commands.askable(self._redis, uid)
