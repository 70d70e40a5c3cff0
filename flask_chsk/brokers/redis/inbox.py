"""What workers tell a process that is no worker: the answers to its question.

A connection of its own, which hears one channel of Redis for as long as somebody waits.
"""

from __future__ import annotations

from ...errors import BrokerUnavailable
from .calls import FAILURES, Redis
from .records import to_bytes, to_text
from .schema import understood

CONFIRM = 3.0  # seconds to wait for a subscription; then Redis counts as away


class Inbox:
    """Hears what workers tell *name*, from ``with`` on.

    :raises BrokerUnavailable: Redis is away, or goes away.
    """

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._channel = redis.base.encode() + to_bytes(f"w:{name}")

    def __enter__(self) -> Inbox:
        self._connection = self._redis.connect()
        try:
            self._connection.wire.send_command("SUBSCRIBE", self._channel)
            if self._read(CONFIRM)[:1] != [b"subscribe"]:
                raise self._away("it did not confirm a subscription in time")
        except FAILURES as error:
            self._connection.close()
            raise self._away(error) from error
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        self._connection.close()

    def next(self, seconds: float) -> str | None:
        """The next text that a worker tells; None: none in *seconds*."""
        now = self._redis.runtime.now
        end = now() + seconds
        try:
            while message := self._read(end - now()):
                number, _, rest = message[-1].partition(b" ")
                if message[0] == b"message" and understood(int(number)) and rest[:2] == b"T ":
                    return to_text(rest[2:])
        except FAILURES as error:
            raise self._away(error) from error
        return None

    def _read(self, seconds: float) -> list[bytes]:
        """The next message; empty: none in *seconds*."""
        wire = self._connection.wire
        return wire.read_response() if wire.can_read(max(seconds, 0.0)) else []

    def _away(self, why: object) -> BrokerUnavailable:
        return BrokerUnavailable(f"Redis at {self._redis.where}: {why}")
