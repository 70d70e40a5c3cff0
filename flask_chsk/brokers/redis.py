"""The broker of many processes and hosts: offsets, histories and presence in one Redis.

Publishing is one script, one round trip. Each process has one subscriber connection, and all
events reach its connections through that, in offset order; it comes back by itself, and
sessions then read from history what it missed. Presence is decided by scripts, so a client
may hop between processes with every request. Not for Redis Cluster; no KEYS, no PSUBSCRIBE,
no pickle.

Under a patched server the subscriber is a greenlet, else a native thread. What callers ask
blocks them alone; a native thread of a patched process hands its call to the hub, so that no
connection crosses hubs.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent.monkey import get_original, is_module_patched

from .. import forks
from ..config import Config
from ..errors import BrokerUnavailable, ConfigError, UnpackError, UsageError
from ..logs import Sparse, logger
from ..protocol.backoff import exp_backoff
from ..protocol.event import is_event
from ..protocol.push import CANONICAL, Push
from ..protocol.uids import ConnectedUids
from ..security import held_by_another
from . import scripts
from .connections import FAILURES, AnswerTimeout, Connection, Greeting, Redis
from .contract import (
    ANONYMOUS,
    EVERYONE,
    KEPT_BYTES,
    KEYS,
    MAX_TOPICS,
    Arrival,
    Listener,
    Page,
    begun_control,
    control,
    is_close,
    pubsub_of,
    too_many_clients,
)
from .schema import SCHEMA, understood

if TYPE_CHECKING:
    from ..hub import Hub, Waiter

log = logger(__name__)
sparse = Sparse(log)
T = TypeVar("T")

LEASE = 9.0  # seconds after which a worker that says nothing counts as dead
RENEW = 3.0  # seconds between leases; each sends a probe through the subscription
DEAF = 8.0  # seconds without a probe heard, after which the subscription is made anew
READY = 2.0  # seconds that a first request waits for Redis
AGREE = 1.0  # seconds for a subscription to hear of an epoch that other connections met
CONFIRM = 3.0  # seconds to wait for a subscription; then Redis counts as away
LINGER = 15.0  # seconds a subscription outlives its last client: clients hop and come back
REAPED = 100  # clients of a dead worker per call
AHEAD = 60.0  # seconds that an event may be ahead of what Redis last said, and be believed
CLOCKS = 60.0  # seconds that the clock of this host may differ from Redis' without a word
BATCH = 64  # messages of one turn of the hub: some 4 ms, then sockets have theirs
NO_DIGEST = "."  # in a record of Redis: a client of Sente's has no secret
CHANGES = "!"  # where it is told that users came or went
PERMANENT = (EVERYONE, CHANGES)  # subscriptions that end with the process


class RedisBroker:
    """Shared by all processes that name the same Redis, database and prefix.

    ``redis://host:6379/0?prefix=chsk``; ``rediss://`` for TLS.
    """

    local = False

    def __init__(self, config: Config) -> None:
        self.name = secrets.token_hex(8)
        self.counters: Counter[str] = Counter()
        self._config = config
        window = int(config.recovery_seconds * 1000)
        self._limits = (config.recovery_events, config.recovery_bytes, window)
        self._redis = Redis(
            config.broker_url, self._limits, self._greeted, self.name, lambda: self._offset
        )
        self._base = self._redis.base.encode()
        self._inbox = f"w:{self.name}"
        self._epoch = ""
        self._offset = 0  # read from the subscription up to here
        self._said = (0, 0.0)  # what Redis said its last offset is, when
        self._doubts = False  # an event was not believed: what it was, history knows
        self._leased_before = False
        self._clock = 0.0  # seconds that this host's clock is ahead of Redis'
        self._smaller = ""  # limits of another process that hold here, too
        self._refusal = ""  # why this Redis cannot be used at all
        self._error = ""  # why there is no subscription
        self._stopped = False
        self._retired = False
        self._waiting_for_epoch: list[Waiter] = []
        # Subscriptions, by name without the base; on the hub.
        self._wanted: dict[str, float] = {self._inbox: 0.0, EVERYONE: 0.0}
        self._confirmed: set[str] = set()
        self._unconfirmed: dict[str, list[_Confirmation]] = {}
        self._unused: dict[str, float] = {}
        self._to_send: deque[tuple[str, tuple[str, ...]]] = deque()
        self._sending = threading.Lock()  # gevent's where that is patched
        self._subscriber: Connection | None = None
        self._random = random.Random()
        self._probed = 0.0  # when a probe was last heard
        self._renewing = False
        self._unleased = ""  # why the lease was not renewed
        self._judges_from = 0.0  # since when it signs off others whose leases are over

    # life --------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """The name of the counter's life; empty until Redis was reached."""
        return self._epoch

    def start(self, hub: Hub, listener: Listener) -> None:
        self._hub = hub
        self._listener = listener
        self._cooperative = not hub.native_threads and is_module_patched("socket")
        if self._cooperative:
            hub.call(hub.soon, gevent.spawn, self._subscribe_forever)
        else:
            get_original("_thread", "start_new_thread")(self._subscribe_forever, ())
        hub.call(hub.deadline, self, hub.now() + RENEW)

    def due(self, now: float) -> float | None:
        """Renew the lease, and hear the probe that goes with it; on the hub."""
        if self._stopped or self._retired:
            return None
        if self._error:
            return now + 1.0
        if not self._renewing:
            self._renewing = True
            self._hub.background(self._renew)
        return now + RENEW

    def ready(self) -> None:
        """Wait until the epoch is known; at once, but for the first requests.

        :raises BrokerUnavailable: Redis is away, and was so ever since.
        :raises ConfigError: this Redis may forget what it was told.
        """
        if not self._epoch and not self._refusal:
            waiter = self._hub.waiter_here()
            self._hub.run(self._await_epoch, waiter)
            waiter.wait(READY)
        if self._refusal:
            raise ConfigError(self._refusal)
        if not self._epoch:
            raise BrokerUnavailable(self._error or "Redis was not reached yet")

    def _await_epoch(self, waiter: Waiter) -> None:
        if self._epoch or self._refusal:
            waiter.set(True)
        else:
            self._waiting_for_epoch.append(waiter)

    def listen(self) -> None:
        if EVERYONE not in self._confirmed:
            self._subscribe({EVERYONE})

    def retire(self, seconds: float) -> None:
        self._retired = True
        self._do(self._redis.call, scripts.RETIRE, self.name, int(seconds * 1000))

    def stop(self) -> None:
        self._stopped = True  # the subscriber looks every second or two
        self._redis.close()

    def _do(self, fn: Callable[..., T], *args: Any) -> T:
        """Call *fn* where connections may be used: here, but for a foreign native thread."""
        if not self._cooperative or self._hub.here():
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

    # epochs ------------------------------------------------------------------------------

    def _greeted(self, greeting: Greeting) -> None:
        """A connection was made: is it to the Redis that we know?"""
        if greeting.policy not in ("", "noeviction"):
            refusal = (
                f"Redis at {self._redis.where} has maxmemory-policy {greeting.policy}: it may"
                " drop history without a word, and clients would miss events unnoticed; set"
                " maxmemory-policy noeviction"
            )
            if not self._refusal:
                log.error("%s", refusal)
            self._refusal = refusal
        else:
            self._refusal = ""
        self._compare_clocks(greeting.clock)
        self._hub.call(self._in_epoch, greeting.epoch, greeting.offset, greeting.began)

    def _in_epoch(self, epoch: str, offset: int, began: int, heard: bool = False) -> None:
        """Redis itself said so; on the hub.

        :param heard: by the subscription, so that all of this epoch is heard after it.
        """
        if epoch not in self._redis.past:
            self._said = (offset, self._hub.now())
        waiting, self._waiting_for_epoch = self._waiting_for_epoch, []
        if epoch != self._epoch and epoch not in self._redis.past:
            first = not self._epoch
            self._redis.turn_to(epoch)
            self._epoch = epoch
            self._offset = offset if first else began  # history has what came since
            if not first:
                log.warning("Redis began anew (epoch %s): clients are told of the gap", epoch)
                self.counters["epochs"] += 1
            self._listener.reset(began)
            if not first:
                self._doubts = self._doubts or not heard  # perhaps there were events already
                self._listener.reattach(quiet=True)
        if self._doubts:  # what was not believed is in history, if it is true
            self._doubts = False
            self._listener.lapsed()
        for waiter in waiting:
            waiter.set(True)

    # subscribing ---------------------------------------------------------------------------

    def _subscribe_forever(self) -> None:
        forks.stay_behind(gevent.getcurrent())
        tries = 0
        while not self._stopped:
            connection = None
            try:
                connection = self._redis.connect()
                # Before anything of the new subscription: what it missed comes from history.
                self._hub.run(self._begin_listening, connection)
                self._flush()
                tries = 0
                self._listen(connection)
            except (BrokerUnavailable, *FAILURES) as error:
                if self._stopped:
                    break
                self._hub.run(self._deaf, str(error))
            except Exception as error:
                log.exception("the subscription failed")
                self._hub.run(self._deaf, repr(error))
            finally:
                if connection is not None:
                    connection.close()
            if self._stopped:
                break
            time.sleep(exp_backoff(tries, base=0.2, cap=2.0, random=self._random.random))
            tries += 1

    def _begin_listening(self, connection: Connection) -> None:
        again = self._subscriber is not None or bool(self._confirmed)
        self._subscriber = connection
        self._confirmed.clear()
        self._to_send.clear()
        self._to_send.append(("SUBSCRIBE", tuple(self._wanted)))
        self._probed = self._hub.now()
        self._error = ""
        if again:
            log.info("subscribed to Redis again")
        self._listener.lapsed()

    def _deaf(self, error: str) -> None:
        if not self._error:
            log.warning("no subscription: %s", error)
            self.counters["subscriptions_lost"] += 1
        self._error = error or "the subscription was lost"
        self._confirmed.clear()
        waiting, self._waiting_for_epoch = self._waiting_for_epoch, []
        for waiter in waiting:
            waiter.set(True)

    def _listen(self, connection: Connection) -> None:
        heard = 0  # since others had a turn for certain: a read that finds a message gives none
        agreed = self._hub.now()
        while not self._stopped:
            if connection.epoch == self._epoch:
                agreed = self._hub.now()
            elif self._hub.now() - agreed > AGREE:
                raise BrokerUnavailable("other connections reach a Redis that began anew")
            batch = self._read(connection.wire)
            if not batch:
                if self._hub.now() - self._probed > DEAF:
                    raise BrokerUnavailable("no probe came back for 8 seconds")
                continue
            self._hub.call(self._arrived, batch)
            heard += len(batch)
            if heard >= BATCH and self._cooperative:
                heard = 0
                gevent.sleep(0)

    def _read(self, wire: Any) -> list[Any]:
        """The messages that came; none after a second or two without any."""
        if self._cooperative:  # handing over is a call, so each goes as it comes
            try:
                return [wire.read_response(disconnect_on_error=False)]
            except AnswerTimeout:
                return []
        batch: list[Any] = []
        if wire.can_read(1.0):
            with self._sending:  # one at a time uses the socket: TLS wants it so
                while len(batch) < BATCH:
                    batch.append(wire.read_response())
                    if not wire.can_read(0):
                        break
        return batch

    def _flush(self) -> None:
        """Send what was decided on the hub, in that order; in a worker."""
        with self._sending:
            connection = self._subscriber
            while self._to_send:
                command, names = self._to_send.popleft()
                if connection is None:
                    return
                try:
                    connection.wire.send_command(
                        command, *[self._base + _bytes(name) for name in names]
                    )
                except FAILURES:
                    return  # the listener notices too, and subscribes to all of it again

    def _subscribe(self, names: Iterable[str]) -> bool:
        """See that *names* are heard; False where all were already.

        :raises BrokerUnavailable: not within CONFIRM seconds.
        """
        waiter = self._hub.waiter_here()
        missing, new = self._hub.run(self._want, set(names), waiter)
        if new:
            self._flush()
        if missing and waiter.wait(CONFIRM) is None:
            raise BrokerUnavailable(self._error or "Redis did not confirm a subscription in time")
        return missing

    def _want(self, names: set[str], waiter: Waiter) -> tuple[bool, bool]:
        if self._error:
            raise BrokerUnavailable(self._error)
        now = self._hub.now()
        new = [name for name in names if name not in self._wanted]
        for name in names:
            self._wanted[name] = now
            if name not in PERMANENT and name != self._inbox:
                self._unused.setdefault(name, now + LINGER)  # perhaps it is let in nowhere
        missing = names - self._confirmed
        if missing:
            confirmation = _Confirmation(missing, waiter)
            for name in missing:
                self._unconfirmed.setdefault(name, []).append(confirmation)
        if new:
            self._to_send.append(("SUBSCRIBE", tuple(new)))
        return bool(missing), bool(new)

    def unused(self, channel: str) -> None:
        name = pubsub_of(channel)
        if name in self._wanted and name not in PERMANENT:
            self._unused[name] = self._hub.now() + LINGER

    def sweep(self) -> None:
        now = self._hub.now()
        gone = []
        for name, when in list(self._unused.items()):
            if when > now:
                continue
            del self._unused[name]
            used = self._wanted.get(name)
            if used is None or self._listener.needs(name):
                continue
            if now - used < LINGER:  # a client is just being let in
                self._unused[name] = used + LINGER
                continue
            del self._wanted[name]
            self._confirmed.discard(name)
            gone.append(name)
        if gone:
            self._to_send.append(("UNSUBSCRIBE", tuple(gone)))
            self._hub.background(self._flush)

    # what arrives; on the hub ----------------------------------------------------------------

    def _arrived(self, batch: list[list[Any]]) -> None:
        for message in batch:
            try:
                kind, name = message[0], message[1][len(self._base) :]
                if kind == b"subscribe":
                    self._confirm(_str(name))
                elif kind == b"message":
                    self._message(name, message[2])
            except (ValueError, IndexError, TypeError, KeyError, UnpackError) as error:
                self.counters["malformed"] += 1
                words = "a malformed message in Redis was refused: %r"
                sparse.warning("malformed", words, error)
            except Exception:
                log.exception("error in a delivery")

    def _confirm(self, name: str) -> None:
        if name in self._wanted:
            self._confirmed.add(name)
        for confirmation in self._unconfirmed.pop(name, ()):
            confirmation.missing.discard(name)
            if not confirmation.missing:
                confirmation.waiter.set(True)

    def _message(self, name: bytes, data: bytes) -> None:
        if name == b"!":
            self._listener.changed()
            return
        number, _, data = data.partition(b" ")
        if not understood(int(number)):
            self.counters["foreign"] += 1
            sparse.warning(
                "foreign",
                "a message with schema %d was refused, this worker has %d: see docs/broker",
                int(number),
                SCHEMA,
            )
            return
        if data[:2] == b"E ":
            epoch, offset, run, *_ = data[2:].split()
            if self._subscriber is not None and self._subscriber.run == run.decode():
                # All keys were deleted there: no reason to go.
                self._in_epoch(epoch.decode(), int(offset), int(offset), heard=True)
                self._subscriber.epoch = self._epoch
            else:
                self._ask()
            return
        if name[:2] != b"w:":
            push = self._parsed(data)
            if push is not None:
                self._offset = push.offset
                self._listener.deliver(push)
            return
        kind, rest = data[:2], data[2:]
        if kind == b"P ":
            epoch, offset, *_ = rest.split()
            # So far the counter was, when all before was published.
            if self._is_current(epoch.decode()) and self._is_believable(int(offset)):
                self._offset = max(self._offset, int(offset))
            self._probed = self._hub.now()
        elif kind == b"R ":
            token, _, field = rest.partition(b" ")
            client_id, _, uid = _str(field).partition(":")
            self._listener.released(uid or None, client_id, token.decode())
        elif kind == b"T ":
            self._listener.told(_str(rest))
        elif int(number) == SCHEMA:
            raise ValueError(f"unknown kind {kind!r}")

    def _is_current(self, epoch: str) -> bool:
        if epoch == self._epoch:
            return True
        if epoch not in self._redis.past:
            self._ask()  # what is let go until the answer is before the gap that it brings
        return False

    def _is_believable(self, offset: int) -> bool:
        """Whether Redis can be there by now: else all that follows would look old.

        It is compared with what Redis answered, never with a clock of this host. What is not
        believed is not lost: Redis is asked, and clients read from history, which has it if it is.
        """
        said, when = self._said
        if offset > said + (self._hub.now() - when + AHEAD) * 1e6:
            self._doubts = True
            self._ask()
            return False
        return True

    def _ask(self) -> None:
        """Hear from Redis now in which epoch it is, and how far."""
        if not self._renewing:
            self._renewing = True
            self._hub.background(self._renew)

    def _parsed(self, data: bytes) -> Push | None:
        """An event as the publish script writes it; None for what is over.

        :raises ValueError: for what no script of ours wrote.
        """
        head, _, body = data.partition(b"\n")
        epoch, offset, channel, but, size, flush, *_ = head.split()
        a = int(channel)
        b = a + int(but)
        if len(body) != b + int(size):
            raise ValueError("lengths that do not fit")
        push = _push(body[:a], int(offset), 0, body[b:], body[a:b], flush == b"1")
        if not self._is_current(epoch.decode()):
            return None
        if not self._is_believable(push.offset):
            self.counters["doubted"] += 1
            return None
        if push.offset <= self._offset:
            self.counters["repeated"] += 1
            return None
        return push

    def watch(self) -> None:
        self._subscribe({CHANGES})

    def watermark(self) -> int:
        return self._offset

    # publishing and history --------------------------------------------------------------------

    def publish(
        self,
        channel: str,
        text: str,
        *,
        but: tuple[str | None, str] | None = None,
        flush: bool = False,
    ) -> int | None:
        excepted = "" if but is None else _but_text(but)
        heard_by = EVERYONE if is_close(text) else pubsub_of(channel)
        args = (channel, heard_by, text, excepted, str(int(flush)))
        offset = self._do(self._redis.publish, scripts.PUBLISH, *map(_bytes, args))
        return None if offset is None else int(offset)

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        return self._do(self._since, channels, cursor, page_bytes)

    def _since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        self._subscribe({pubsub_of(channel) for channel in channels})
        args: list[Any] = [cursor, page_bytes]
        for channel, joined in channels.items():
            args += [_bytes(channel), joined]
        epoch, end, more, complete, *rest = self._redis.call(scripts.SINCE, *args)
        if not complete or epoch.decode() != self._epoch:
            return Page((), int(end), False, False)
        high = int(end)
        found = [
            _push(channel, int(offset), int(before), text, but)
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
        self._subscribe({EVERYONE, *names})
        token = before or secrets.token_hex(8)
        answer = self._redis.call(
            scripts.ATTACH,
            _bytes(uid or ""),
            client_id,
            token,
            self.name,
            kind,
            int(v1),
            int(LEASE * 1000),
            self._config.max_clients_per_uid,
            before or "",
            digest or NO_DIGEST,
            int(quiet),
        )
        ended = {b"late": -1, b"full": -1, b"in": -2}.get(answer[0])
        if uid is not None and ended is not None and answer[ended]:
            self._hub.call(self._listener.presence, uid, False, int(answer[ended]))
        if answer[0] == b"late":
            return None
        if answer[0] == b"held":
            raise held_by_another()
        if answer[0] == b"full":
            raise too_many_clients(self._config.max_clients_per_uid)
        if answer[0] == b"farewell":
            return Arrival("", False, {}, farewell=_str(answer[1]))
        flat = answer[-1]
        topics = {_str(topic): int(joined) for topic, joined in zip(*[iter(flat)] * 2, strict=True)}
        if topics:
            try:
                self._subscribe({f"t:{topic}" for topic in topics})
            except BrokerUnavailable:
                if before is None:  # else it is let in again, with the same token
                    with suppress(BrokerUnavailable):
                        args = (_bytes(uid or ""), client_id, token)
                        went = int(self._redis.call(scripts.DETACH, *args))
                        self._tell_visit(uid, answer, went)
                raise
        if answer[0] == b"trial":
            return Arrival("", False, topics, offset=int(answer[1]), trial=True)
        _, offset, first, known, cursor, epoch, restored, began, _, _ = answer
        self._hub.run(self._in_epoch, epoch.decode(), int(offset), int(began))
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
        )

    def _tell_visit(self, uid: str | None, answer: list[Any], went: int) -> None:
        """A user could not be let in after all: tell what was decided of that."""
        if uid is not None and went and answer[0] == b"in":
            if answer[2]:
                self._hub.call(self._listener.presence, uid, True, int(answer[1]))
            self._hub.call(self._listener.presence, uid, False, went)

    def holder(self, uid: str | None, client_id: str) -> str | None:
        held = self._do(self._redis.call, scripts.HOLDER, _bytes(uid or ""), client_id)
        return None if held is None else _str(held).replace(NO_DIGEST, "")

    def detach(self, uid: str | None, client_id: str, token: str) -> int:
        args = (_bytes(uid or ""), client_id, token)
        return int(self._do(self._redis.call, scripts.DETACH, *args))

    def was_here(self, uid: str) -> int:
        return int(self._do(self._redis.call, scripts.WAS_HERE, _bytes(uid)))

    def take(self, uid: str | None, client_id: str, token: str, offset: int) -> bool:
        args = (_bytes(uid or ""), client_id, token, offset)
        return bool(self._do(self._redis.call, scripts.TAKE, *args))

    def claim(self, client: str, key: str, token: str) -> str | None:
        args = (_bytes(client), _bytes(key), token, KEYS, KEPT_BYTES)
        held = self._do(self._redis.call, scripts.CLAIM, *args)
        return None if held is None else _str(held[1:]) if held[:1] == b"=" else ""

    def settle(self, client: str, key: str, reply: str) -> None:
        args = (_bytes(client), _bytes(key), _bytes(reply), KEPT_BYTES)
        self._do(self._redis.call, scripts.SETTLE, *args)

    def _renew(self) -> None:
        """Go on living, and sign off who does not; in a worker.

        Who was late itself judges nobody for a lease: Redis may have been away from all of
        them, and each comes back in its own time.
        """
        if self._refusal:
            self._redis.close()  # a new connection is told whether it still stands
        try:
            lease = int(LEASE * 1000)
            epoch, offset, known, late, dead, began, clock, *limits = self._redis.call(
                scripts.LEASE, self.name, lease, *self._limits
            )
            self._unleased = ""
            self._compare_clocks(int(clock))
            self._compare_limits(limits)
            now = self._hub.now()
            if late:
                self._judges_from = now + LEASE
            self._hub.call(self._leased, epoch.decode(), int(offset), int(began), int(known))
            while dead and now >= self._judges_from:  # others do it, too: each takes its share
                dead, *gone = self._redis.call(scripts.REAP, REAPED)
                for uid, generation in zip(*[iter(gone)] * 2, strict=True):
                    self._hub.call(self._listener.presence, _str(uid), False, int(generation))
        except BrokerUnavailable as error:
            self._unleased = str(error)
            log.debug("no lease: %s", error)
        finally:
            self._renewing = False

    def _leased(self, epoch: str, offset: int, began: int, known: int) -> None:
        self._in_epoch(epoch, offset, began)
        first, self._leased_before = not self._leased_before, True
        if known < 0 or (known == 0 and not first):
            self._listener.reattach(False)

    def _compare_clocks(self, clock: int) -> None:
        """Nothing depends on it but what people read, and sessions that expire."""
        before, self._clock = self._clock, time.time() - clock / 1e6
        if abs(self._clock) > CLOCKS >= abs(before):
            log.warning("%s: set one of them", self.note())

    def _compare_limits(self, limits: list[int]) -> None:
        """Processes that differ go by the smallest, until all agree."""
        names = ("CHSK_RECOVERY_EVENTS", "CHSK_RECOVERY_BYTES", "CHSK_RECOVERY_SECONDS")
        scales = (1, 1, 1000)
        smaller = ", ".join(
            f"{name} is {mine / scale:g} here and {theirs / scale:g} in another process"
            for name, scale, mine, theirs in zip(names, scales, self._limits, limits, strict=True)
            if theirs != mine
        )
        if smaller and smaller != self._smaller:
            log.warning("%s: the smaller holds until all agree", smaller)
        self._smaller = smaller

    def connected(self) -> ConnectedUids:
        ws, ajax = (
            frozenset(map(_str, uids)) for uids in self._do(self._redis.call, scripts.CONNECTED)
        )
        return ConnectedUids(ws, ajax, ws | ajax)

    def clients(self, uid: str | None) -> frozenset[str]:
        ids = self._do(self._redis.call, scripts.CLIENTS, _bytes(uid or ""))
        return frozenset(map(_str, ids))

    def tell(self, name: str, text: str) -> None:
        self._do(self._redis.call, scripts.TELL, name, _bytes(text))

    # topics ------------------------------------------------------------------------------------

    def join(self, uid: str, topic: str) -> bool:
        return self._join(uid, topic, control(":chsk/joined", topic), again=False) > 0

    def rejoin(self, uid: str, topic: str) -> bool:
        return self._join(uid, topic, begun_control(topic), again=True) >= 0

    def _join(self, uid: str, topic: str, event: str, *, again: bool) -> int:
        args = (_bytes(uid), _bytes(topic), _bytes(event), MAX_TOPICS, int(again))
        joined: int = self._do(self._redis.call, scripts.JOIN, *args)
        if joined == -1:
            raise UsageError(f"uid {uid!r} is in {MAX_TOPICS} topics already")
        return joined

    def leave(self, uid: str, topic: str) -> bool:
        args = (_bytes(uid), _bytes(topic), _bytes(control(":chsk/left", topic)))
        return bool(self._do(self._redis.call, scripts.LEAVE, *args))

    def members(self, topic: str) -> frozenset[str]:
        found = self._do(self._redis.call, scripts.MEMBERS, _bytes(topic))
        return frozenset(map(_str, found))

    # looking -----------------------------------------------------------------------------------

    @property
    def deaf(self) -> bool:
        return bool(self._error)

    def health(self) -> str:
        return self._refusal or self._error or self._unleased

    def note(self) -> str:
        notes = [self._smaller]
        if abs(self._clock) > CLOCKS:
            way = "ahead of" if self._clock > 0 else "behind"
            notes.append(f"this host's clock is {abs(self._clock):.0f} s {way} that of Redis")
        return "; ".join(filter(None, notes))

    def stats(self) -> dict[str, int]:
        counted = {f"broker_{name}": value for name, value in self.counters.items()}
        gauges = {
            "subscriptions": len(self._confirmed),
            "broker_clock_ahead": round(self._clock),
            "broker_schema": SCHEMA,
        }
        return {**counted, **gauges}


class _Confirmation:
    """Subscriptions that somebody waits for."""

    __slots__ = ("missing", "waiter")

    def __init__(self, missing: set[str], waiter: Waiter) -> None:
        self.missing = set(missing)
        self.waiter = waiter


def _but_text(but: tuple[str | None, str]) -> str:
    uid, client_id = but
    return client_id if uid is None else f"{client_id}:{uid}"


def _push(
    channel: bytes, offset: int, before: int, text: bytes, but: bytes, flush: bool = False
) -> Push:
    """An event as it was kept.

    :raises ValueError: where it is none.
    """
    event = _str(text)
    if not is_event(CANONICAL.unpack(event)):
        raise ValueError("not an event")
    excepted = None
    if but:
        client_id, _, uid = _str(but).partition(":")
        excepted = (uid or None, client_id)
    return Push(_str(channel), event, offset, before, excepted, offset / 1e6, flush)


def _str(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
