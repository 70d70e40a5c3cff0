"""Memberships of users in topics, as Redis keeps them."""

from __future__ import annotations

from . import commands, scripts
from .calls import Redis
from .records import to_bytes, to_text


class RedisTopics:
    """As :class:`..contract.BrokerTopics`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def join(self, uid: str, topic: str) -> bool:
        return commands.join(self._redis, uid, topic)

    def rejoin(self, uid: str, topic: str) -> bool:
        return commands.rejoin(self._redis, uid, topic)

    def leave(self, uid: str, topic: str) -> bool:
        return commands.leave(self._redis, uid, topic)

    def members(self, topic: str) -> frozenset[str]:
        return frozenset(map(to_text, self._redis.call(scripts.MEMBERS, to_bytes(topic))))
