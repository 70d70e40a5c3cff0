"""Looks at the workers of an application from outside: the commands ``flask chsk …`` that show.

It asks each worker by way of their Redis, and changes nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ConfigError
from .protocol.inspection import Finding, Inquiry
from .publisher import Connections, is_shared

if TYPE_CHECKING:
    from .protocol.uids import ConnectedUids

PATIENCE = 3.0  # seconds that a worker has to answer
RENEW = 2.0  # seconds between two times that a tail is asked for


class Line(NamedTuple):
    """A line of a tail."""

    worker: str
    at: float  # seconds since 1970
    text: str
    payload: str | None


class RedisFacts(NamedTuple):
    """Its version, what it does when its memory is full, and its clock, seconds since 1970."""

    version: str
    policy: str
    clock: float


class Inspector:
    """Asks the workers at one Redis.

    :param broker_url: the application's ``CHSK_BROKER_URL``.
    :raises ConfigError: for a URL that only one process could use.
    """

    def __init__(self, broker_url: str) -> None:
        if not is_shared(broker_url):
            raise ConfigError(
                "only the process that serves knows this: other processes can ask it where"
                " CHSK_BROKER_URL is redis://… (with memory:// look at chsk.stats() there, and at"
                ' its log: flask_chsk.set_logging_level("debug"))'
            )
        self._connections = Connections(broker_url)

    def __enter__(self) -> Inspector:
        return self

    def __exit__(self, *args: object) -> None:
        self._connections.redis.close()

    def redis(self) -> RedisFacts:
        """What the Redis says of itself.

        :raises BrokerUnavailable: it is away.
        """
        from .brokers.redis import commands

        return RedisFacts(*commands.facts(self._connections.redis))

    def uids(self) -> ConnectedUids:
        """Who is connected, at whatever worker."""
        from .brokers.redis import commands

        return commands.connected(self._connections.redis)

    def ask(self, what: str, uid: str | None = None) -> dict[str, Any]:
        """What each worker answers, by its name; None: it did not within three seconds.

        :raises BrokerUnavailable: Redis is away.
        """
        from .brokers.redis import commands
        from .brokers.redis.inbox import Inbox

        redis, asker = self._connections.redis, secrets.token_hex(8)
        inquiry = Inquiry(asker, secrets.token_hex(8), what, uid=uid)
        with Inbox(redis, asker) as inbox:
            found: dict[str, Any] = dict.fromkeys(commands.workers(redis))
            for worker in found:
                commands.tell(redis, worker, inquiry.text())
            end = time.monotonic() + PATIENCE
            while None in found.values() and (left := end - time.monotonic()) > 0:
                finding = Finding.read(inbox.next(left) or "")
                if finding is not None and finding.id == inquiry.id:
                    found[finding.worker] = finding.value
        return found

    def tail(self, **wanted: Any) -> Iterator[Line | str]:
        """What happens from now on, at all workers: lines, and words about workers. Never ends.

        :param wanted: fields of :class:`~flask_chsk.protocol.inspection.Inquiry`.
        """
        from .brokers.redis import commands
        from .brokers.redis.inbox import Inbox

        redis, asker = self._connections.redis, secrets.token_hex(8)
        inquiry = replace(Inquiry(asker, secrets.token_hex(8), "tail"), **wanted)
        heard: set[str] = set()
        asked_at = 0.0
        with Inbox(redis, asker) as inbox:
            while True:
                if time.monotonic() - asked_at >= RENEW:
                    asked_at = time.monotonic()
                    for worker in commands.workers(redis):  # those that came since, too
                        commands.tell(redis, worker, inquiry.text())
                finding = Finding.read(inbox.next(1.0) or "")
                if finding is None or finding.id != inquiry.id:
                    continue
                if finding.worker not in heard:
                    heard.add(finding.worker)
                    yield f"worker {finding.worker} is shown"
                for at, text, payload in finding.value["lines"]:
                    yield Line(finding.worker, at, text, payload)
                if finding.value["missed"]:
                    yield f"worker {finding.worker}: {finding.value['missed']} more were too many"
