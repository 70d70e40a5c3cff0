"""The broker of many processes and hosts: offsets, histories and presence in one Redis.

Publishing is one script, one round trip. Each process has one subscriber connection, and all
events reach its connections through that, in offset order; it comes back by itself, and
sessions then read from history what it missed. Presence is decided by scripts, so a client
may hop between processes with every request. Not for Redis Cluster; no KEYS, no PSUBSCRIBE,
no pickle.

A call blocks its caller alone. From ``start`` on ``clients``, ``topics`` and ``sends`` are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...config import Config
from ..contract import CLOSE_KEPT, EVERYONE, Listener, Page, page_of, pubsub_of
from . import commands, lease, scripts
from .calls import Address
from .clients import RedisClients
from .epoch import Epoch
from .lease import Lease
from .records import push_of, to_bytes
from .schema import SCHEMA
from .sends import RedisSends
from .subscription import Subscription
from .topics import RedisTopics
from .worker_redis import WorkerRedis

if TYPE_CHECKING:
    from ...hub import Hub


class RedisBroker:
    """Shared by all processes that name the same Redis, database and prefix.

    :param address: ``redis://host:6379/0?prefix=chsk``, as :func:`.calls.address_of` reads it.
    """

    local = False
    snapshot_seconds = 1.0  # the answer costs Redis as much as there are users

    def __init__(self, config: Config, address: Address) -> None:
        self.name = ""  # until start
        self.counters: Counter[str] = Counter()
        self._config = config
        self._address = address
        window = int(config.recovery_seconds * 1000)
        self._limits = (config.recovery_events, config.recovery_bytes, window)

    # life --------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The name of the counter's life; empty until Redis was reached."""
        return self._epoch.name

    def start(self, hub: Hub, listener: Listener) -> None:
        self.name = hub.token(8)
        self._redis = WorkerRedis(
            self._address,
            hub,
            self._limits,
            int(max(CLOSE_KEPT, self._config.close_grace_ajax) * 1000),
            lambda greeting: self._lease.greeted(greeting),
            self.name,
            lambda: self._epoch.offset,
        )
        self._epoch = Epoch(hub, self._redis, listener, self.counters, self._renew_soon)
        self._lease = Lease(hub, self._redis, self._epoch, listener, self.name, self._limits)
        self._subscription = Subscription(
            hub, self._redis, self._epoch, listener, self.counters, self.name
        )
        self.clients = RedisClients(
            hub,
            self._redis,
            self._epoch,
            self._subscription,
            listener,
            self.name,
            self._config.max_clients_per_uid,
        )
        self.topics = RedisTopics(self._redis)
        self.sends = RedisSends(self._redis)
        self._subscription.start()
        hub.call(hub.deadline, self._lease, hub.now() + lease.RENEW)

    def _renew_soon(self) -> None:
        self._lease.renew_soon()

    def ready(self) -> None:
        self._epoch.wait()

    def listen(self) -> None:
        if EVERYONE not in self._subscription.confirmed:
            self._subscription.hear({EVERYONE})

    def retire(self, seconds: float) -> None:
        self._lease.end()
        self._redis.call(scripts.RETIRE, self.name, int(seconds * 1000))

    def stop(self) -> None:
        self._lease.end()
        self._subscription.stop()
        self._redis.close()

    def watermark(self) -> int:
        return self._epoch.offset

    # publishing and history --------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        text: str,
        *,
        exclude: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        return commands.publish(self._redis, channel, text, exclude=exclude, flush=flush)

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        self._subscription.hear({pubsub_of(channel) for channel in channels})
        args: list[Any] = [cursor, page_bytes]
        for channel, joined in channels.items():
            args += [to_bytes(channel), joined]
        epoch, end, more, complete, *rest = self._redis.call(scripts.SINCE, *args)
        if not complete or epoch.decode() != self._epoch.name:
            return Page((), int(end), False, False)
        high = int(end)
        found = [
            push_of(channel, int(offset), int(before), text, exclude)
            for channel, offset, before, text, exclude in rest[0]
            if int(offset) <= high
        ]
        found.sort(key=lambda push: push.offset)
        return page_of(found, high, bool(more), page_bytes)

    def tell(self, name: str, text: str) -> None:
        commands.tell(self._redis, name, text)

    # looking -----------------------------------------------------------------------------------

    def unused(self, channel: str) -> None:
        self._subscription.unused(channel)

    def sweep(self) -> None:
        self._subscription.sweep()

    @property
    def disconnected(self) -> bool:
        return bool(self._epoch.error)

    def health(self) -> str:
        return self._epoch.refusal or self._epoch.error or self._lease.error

    def note(self) -> str:
        return self._lease.note()

    def stats(self) -> dict[str, int]:
        counted = {f"broker_{name}": value for name, value in self.counters.items()}
        gauges = {
            "subscriptions": len(self._subscription.confirmed),
            "broker_clock_ahead": round(self._lease.clock),
            "broker_schema": SCHEMA,
        }
        return {**counted, **gauges}
