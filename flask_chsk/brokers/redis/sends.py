"""Sends that their clients may repeat, as Redis keeps them."""

from __future__ import annotations

from ..contract import KEPT_BYTES, KEYS
from . import scripts
from .calls import Redis
from .records import to_bytes, to_text


class RedisSends:
    """As :class:`..contract.BrokerSends`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def claim(self, client: str, key: str, token: str) -> str | None:
        args = (to_bytes(client), to_bytes(key), token, KEYS, KEPT_BYTES)
        held = self._redis.call(scripts.CLAIM, *args)
        return None if held is None else to_text(held[1:]) if held[:1] == b"=" else ""

    def keep_reply(self, client: str, key: str, reply: str) -> None:
        args = (to_bytes(client), to_bytes(key), to_bytes(reply), KEPT_BYTES)
        self._redis.call(scripts.KEEP_REPLY, *args)
