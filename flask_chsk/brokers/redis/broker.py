"""The broker of many processes and hosts: offsets, histories and presence in one Redis.

Publishing is one script, one round trip. Each process has one subscriber connection, and all
events reach its connections through that, in offset order; it comes back by itself, and
sessions then read from history what it missed. Presence is decided by scripts, so a client
may hop between processes with every request. Not for Redis Cluster; no KEYS, no PSUBSCRIBE,
no pickle.

A call blocks its caller alone; a native thread of a patched process hands its call to the hub,
so that no connection crosses hubs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...config import Config
from ...errors import BrokerUnavailable
from ...protocol.uids import ConnectedUids
from ...security import held_by_another
from ..contract import (
    ANONYMOUS,
    EVERYONE,
    KEPT_BYTES,
    KEYS,
    Arrival,
    Listener,
    Page,
    pubsub_of,
    too_many_clients,
)
from . import commands, lease, scripts
from .calls import Address, Redis
from .epoch import Epoch
from .lease import Lease
from .records import push_of, to_bytes, to_text
from .schema import SCHEMA
from .subscription import CHANGES, Subscription

if TYPE_CHECKING:
    from ...hub import Hub

T = TypeVar("T")

NO_DIGEST = "."  # in a record of Redis: a client of Sente's has no secret


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
        self._hub = hub
        self._listener = listener
        self.name = hub.token(8)
        self._redis = Redis(
            self._address,
            hub,
            self._limits,
            lambda greeting: self._lease.greeted(greeting),
            self.name,
            lambda: self._epoch.offset,
        )
        self._epoch = Epoch(hub, self._redis, listener, self.counters, self._renew_soon)
        self._lease = Lease(hub, self._redis, self._epoch, listener, self.name, self._limits)
        self._subscription = Subscription(
            hub, self._redis, self._epoch, listener, self.counters, self.name
        )
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
        self._do(self._redis.call, scripts.RETIRE, self.name, int(seconds * 1000))

    def stop(self) -> None:
        self._lease.end()
        self._subscription.stop()
        self._redis.close()

    def _do(self, fn: Callable[..., T], *args: Any) -> T:
        """Call *fn* where connections may be used: here, but for a foreign native thread."""
        if not self._hub.cooperative or self._hub.here():
            return fn(*args)
        waiter = self._hub.waiter_here()

        def there() -> None:
            try:
                result = (fn(*args), None)
            except BaseException as error:
                waiter.set((None, error))
            else:
                waiter.set(result)

        self._hub.call(self._hub.spawn, there)
        done = waiter.wait(30.0)  # above the sum of all waits in one call
        if done is None:
            raise BrokerUnavailable("the hub of this process does not answer")
        if done[1] is not None:
            raise done[1]
        return done[0]  # type: ignore[no-any-return]

    def watch(self) -> None:
        self._subscription.hear({CHANGES})

    def watermark(self) -> int:
        return self._epoch.offset

    # publishing and history --------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        text: str,
        *,
        but: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        call = partial(commands.publish, self._redis, channel, text, but=but, flush=flush)
        return self._do(call)

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        return self._do(self._since, channels, cursor, page_bytes)

    def _since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        self._subscription.hear({pubsub_of(channel) for channel in channels})
        args: list[Any] = [cursor, page_bytes]
        for channel, joined in channels.items():
            args += [to_bytes(channel), joined]
        epoch, end, more, complete, *rest = self._redis.call(scripts.SINCE, *args)
        if not complete or epoch.decode() != self._epoch.name:
            return Page((), int(end), False, False)
        high = int(end)
        found = [
            push_of(channel, int(offset), int(before), text, but)
            for channel, offset, before, text, but in rest[0]
            if int(offset) <= high
        ]
        found.sort(key=lambda push: push.offset)
        size = 0
        for count, push in enumerate(found):
            size += push.size
            if size > page_bytes and count:
                return Page(tuple(found[:count]), found[count - 1].offset, True, True)
        return Page(tuple(found), high, bool(more), True)

    # presence ----------------------------------------------------------------------------------

    def attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str = "ws",
        v1: bool = False,
        token: str | None = None,
        *,
        digest: str = "",
        quiet: bool = False,
    ) -> Arrival | None:
        return self._do(self._attach, uid, client_id, kind, v1, digest, token, quiet)

    def _attach(
        self,
        uid: str | None,
        client_id: str,
        kind: str,
        v1: bool,
        digest: str,
        before: str | None,
        quiet: bool,
    ) -> Arrival | None:
        names = {f"c:{client_id}", ANONYMOUS} if uid is None else {f"u:{uid}"}
        self._subscription.hear({EVERYONE, *names})
        token = before or self._hub.token(8)
        answer = self._redis.call(
            scripts.ATTACH,
            to_bytes(uid or ""),
            client_id,
            token,
            self.name,
            kind,
            int(v1),
            int(lease.LEASE * 1000),
            self._config.max_clients_per_uid,
            before or "",
            digest or NO_DIGEST,
            int(quiet),
        )
        self._tell_closing(uid, answer)
        if answer[0] == b"late":
            return None
        if answer[0] == b"held":
            raise held_by_another()
        if answer[0] == b"full":
            raise too_many_clients(self._config.max_clients_per_uid)
        if answer[0] == b"farewell":
            return Arrival("", False, {}, farewell=to_text(answer[1]))
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
            args = (to_bytes(uid or ""), client_id, token)
            went = int(self._redis.call(scripts.DETACH, *args))
            if uid is not None and went and answer[0] == b"in":
                if answer[2]:
                    self._hub.call(self._listener.user_presence_changed, uid, True, int(answer[1]))
                self._hub.call(self._listener.user_presence_changed, uid, False, went)

    def expect(self, uid: str, seconds: float) -> None:
        self._do(self._redis.call, scripts.EXPECT, to_bytes(uid), int(seconds * 1000))

    def holder(self, uid: str | None, client_id: str) -> str | None:
        held = self._do(self._redis.call, scripts.HOLDER, to_bytes(uid or ""), client_id)
        return None if held is None else to_text(held).replace(NO_DIGEST, "")

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        args = (to_bytes(uid or ""), client_id, token)
        return int(self._do(self._redis.call, scripts.DETACH, *args))

    def was_here(self, uid: str) -> int:
        return int(self._do(self._redis.call, scripts.WAS_HERE, to_bytes(uid)))

    def take(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        args = (to_bytes(uid or ""), client_id, token, offset)
        return bool(self._do(self._redis.call, scripts.TAKE, *args))

    def claim(self, client: str, key: str, token: str) -> str | None:
        args = (to_bytes(client), to_bytes(key), token, KEYS, KEPT_BYTES)
        held = self._do(self._redis.call, scripts.CLAIM, *args)
        return None if held is None else to_text(held[1:]) if held[:1] == b"=" else ""

    def settle(self, client: str, key: str, reply: str) -> None:
        args = (to_bytes(client), to_bytes(key), to_bytes(reply), KEPT_BYTES)
        self._do(self._redis.call, scripts.SETTLE, *args)

    def connected(self) -> ConnectedUids:
        ws, ajax = (
            frozenset(map(to_text, uids)) for uids in self._do(self._redis.call, scripts.CONNECTED)
        )
        return ConnectedUids(ws, ajax, ws | ajax)

    def clients(self, uid: str | None) -> frozenset[str]:
        return self._do(commands.clients, self._redis, uid)

    def tell(self, name: str, text: str) -> None:
        self._do(self._redis.call, scripts.TELL, name, to_bytes(text))

    # topics ------------------------------------------------------------------------------------

    def join(self, uid: str, topic: str) -> bool:
        return self._do(commands.join, self._redis, uid, topic)

    def rejoin(self, uid: str, topic: str) -> bool:
        return self._do(commands.rejoin, self._redis, uid, topic)

    def leave(self, uid: str, topic: str) -> bool:
        return self._do(commands.leave, self._redis, uid, topic)

    def members(self, topic: str) -> frozenset[str]:
        found = self._do(self._redis.call, scripts.MEMBERS, to_bytes(topic))
        return frozenset(map(to_text, found))

    # looking -----------------------------------------------------------------------------------

    def unused(self, channel: str) -> None:
        self._subscription.unused(channel)

    def sweep(self) -> None:
        self._subscription.sweep()

    @property
    def deaf(self) -> bool:
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
