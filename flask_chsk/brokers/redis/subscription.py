"""The one subscriber connection of a worker.

The subscriber is a greenlet under a patched server, else a native thread. It connects again after a
cut. What it missed is read from history.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from ...errors import BrokerUnavailable, UnpackError
from ...hub import Hub, Waiter, on_hub
from ...logs import RateLimitedLogger, logger
from ...protocol.backoff import exp_backoff
from ..contract import EVERYONE, Listener, pubsub_of
from .calls import FAILURES, AnswerTimeout, Connection, Redis
from .epoch import Epoch
from .records import published_push, to_bytes, to_text
from .schema import SCHEMA, understood

log = logger(__name__)
rate_limited = RateLimitedLogger(log)

PROBE_TIMEOUT = 8.0  # seconds without a probe heard; then the subscription is made anew
AGREE = 1.0  # seconds for a subscription to hear of an epoch that other connections met
CONFIRM = 3.0  # seconds to wait for a subscription; then Redis counts as away
LINGER = 15.0  # seconds a subscription outlives its last client: clients hop and come back
BATCH = 64  # messages of one turn of the hub: some 4 ms, then sockets have theirs
CHANGES = "!"  # where it is told that users came or went
PERMANENT = (EVERYONE, CHANGES)  # subscriptions that end with the process


class Subscription:
    """Hears the channels of this worker's clients. Names are without the base of the keys.

    :param worker: the name of this worker, whose own channel is ``w:…``.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        epoch: Epoch,
        listener: Listener,
        counters: Counter[str],
        worker: str,
    ) -> None:
        self.confirmed: set[str] = set()
        self.hub = hub
        self._redis = redis
        self._base = redis.base.encode()
        self._epoch = epoch
        self._listener = listener
        self._counters = counters
        self._inbox = f"w:{worker}"
        self._wanted: dict[str, float] = {self._inbox: 0.0, EVERYONE: 0.0}
        self._unconfirmed: dict[str, list[Confirmation]] = {}
        self._unused: dict[str, float] = {}
        self._to_send: deque[tuple[str, tuple[str, ...]]] = deque()
        self._sending = hub.semaphore(1)
        self._connection: Connection | None = None
        self._probed = 0.0  # when a probe was last heard
        self._stopped = False

    def start(self) -> None:
        """Begin to listen."""
        self.hub.daemon(self._run)

    def stop(self) -> None:
        """End: the subscriber notices within two seconds."""
        self._stopped = True

    # the connection ------------------------------------------------------------------------

    def _run(self) -> None:
        tries = 0
        while not self._stopped:
            connection = None
            try:
                connection = self._redis.connect()
                # Before anything of the new subscription: what it missed comes from history.
                self.hub.run(self._begin, connection)
                self._flush()
                tries = 0
                self._listen(connection)
            except (BrokerUnavailable, *FAILURES) as error:
                if self._stopped:
                    break
                self.hub.run(self._lost, str(error))
            except Exception as error:
                log.exception("the subscription failed")
                self.hub.run(self._lost, repr(error))
            finally:
                if connection is not None:
                    connection.close()
            if self._stopped:
                break
            pause = exp_backoff(tries, base=0.2, cap=2.0, random=self.hub.random.random)
            self.hub.waiter_here().wait(pause)
            tries += 1

    @on_hub
    def _begin(self, connection: Connection) -> None:
        again = self._connection is not None or bool(self.confirmed)
        self._connection = connection
        self.confirmed.clear()
        self._to_send.clear()
        self._to_send.append(("SUBSCRIBE", tuple(self._wanted)))
        self._probed = self.hub.now()
        self._epoch.error = ""
        if again:
            log.info("subscribed to Redis again")
        self._listener.resync_required()

    @on_hub
    def _lost(self, error: str) -> None:
        if not self._epoch.error:
            log.warning("no subscription: %s", error)
            self._counters["subscriptions_lost"] += 1
        self.confirmed.clear()
        self._epoch.lost(error or "the subscription was lost")

    def _listen(self, connection: Connection) -> None:
        heard = 0  # since others had a turn for certain: a read that finds a message gives none
        agreed = self.hub.now()
        while not self._stopped:
            if connection.epoch == self._epoch.name:
                agreed = self.hub.now()
            elif self.hub.now() - agreed > AGREE:
                raise BrokerUnavailable("other connections reach a Redis that began anew")
            batch = self._read(connection.wire)
            if not batch:
                if self.hub.now() - self._probed > PROBE_TIMEOUT:
                    raise BrokerUnavailable("no probe came back for 8 seconds")
                continue
            self.hub.call(self._arrived, batch)
            heard += len(batch)
            if heard >= BATCH and self.hub.cooperative:
                heard = 0
                self.hub.yield_to_loop()

    def _read(self, wire: Any) -> list[Any]:
        """The messages that came; none after a second or two without any."""
        if self.hub.cooperative:  # handing over is a call, so each goes as it comes
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
        """Send what was decided on the hub, in that order; where connections may be used."""
        with self._sending:
            connection = self._connection
            while self._to_send:
                command, names = self._to_send.popleft()
                if connection is None:
                    return
                try:
                    connection.wire.send_command(
                        command, *[self._base + to_bytes(name) for name in names]
                    )
                except FAILURES:
                    return  # the listener notices too, and subscribes to all of it again

    # what is to be heard -------------------------------------------------------------------

    def hear(self, names: Iterable[str]) -> None:
        """Wait until *names* are heard; at once where they are already. From any thread.

        :raises BrokerUnavailable: not within CONFIRM seconds.
        """
        waiter = self.hub.waiter_here()
        missing, new = self.hub.run(self._want, set(names), waiter)
        if new and self.hub.cooperative and not self.hub.here():
            self.hub.call(self.hub.background, self._flush)
        elif new:
            self._flush()
        if missing and waiter.wait(CONFIRM) is None:
            raise BrokerUnavailable(
                self._epoch.error or "Redis did not confirm a subscription in time"
            )

    @on_hub
    def _want(self, names: set[str], waiter: Waiter) -> tuple[bool, bool]:
        if self._epoch.error:
            raise BrokerUnavailable(self._epoch.error)
        now = self.hub.now()
        new = [name for name in names if name not in self._wanted]
        for name in names:
            self._wanted[name] = now
            if name not in PERMANENT and name != self._inbox:
                self._unused.setdefault(name, now + LINGER)  # perhaps it is let in nowhere
        missing = names - self.confirmed
        if missing:
            confirmation = Confirmation(missing, waiter)
            for name in missing:
                self._unconfirmed.setdefault(name, []).append(confirmation)
        if new:
            self._to_send.append(("SUBSCRIBE", tuple(new)))
        return bool(missing), bool(new)

    @on_hub
    def unused(self, channel: str) -> None:
        """A channel may have lost its last client here."""
        name = pubsub_of(channel)
        if name in self._wanted and name not in PERMANENT:
            self._unused[name] = self.hub.now() + LINGER

    @on_hub
    def sweep(self) -> None:
        """End the subscriptions that nobody has needed for a while."""
        now = self.hub.now()
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
            self.confirmed.discard(name)
            gone.append(name)
        if gone:
            self._to_send.append(("UNSUBSCRIBE", tuple(gone)))
            self.hub.background(self._flush)

    # what arrives ------------------------------------------------------------------------------

    @on_hub
    def _arrived(self, batch: list[list[Any]]) -> None:
        for message in batch:
            try:
                kind, name = message[0], message[1][len(self._base) :]
                if kind == b"subscribe":
                    self._confirm(to_text(name))
                elif kind == b"message":
                    self._message(name, message[2])
            except (ValueError, IndexError, TypeError, KeyError, UnpackError) as error:
                self._counters["malformed"] += 1
                words = "a malformed message in Redis was refused: %r"
                rate_limited.warning("malformed", words, error)
            except Exception:
                log.exception("error in a delivery")

    def _confirm(self, name: str) -> None:
        if name in self._wanted:
            self.confirmed.add(name)
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
            self._counters["foreign"] += 1
            rate_limited.warning(
                "foreign",
                "a message with schema %d was refused, this worker has %d: see docs/broker",
                int(number),
                SCHEMA,
            )
        elif data[:2] == b"E ":
            self._new_epoch(data[2:])
        elif name[:2] == b"w:":
            self._word(data[:2], data[2:], int(number))
        else:
            self._event(data)

    def _new_epoch(self, data: bytes) -> None:
        epoch, offset, run, *_ = data.split()
        connection = self._connection
        if connection is not None and connection.run == run.decode():
            # All keys were deleted there: no reason to go.
            self._epoch.enter(epoch.decode(), int(offset), int(offset), heard=True)
            connection.epoch = self._epoch.name
        else:
            self._epoch.ask()

    def _event(self, data: bytes) -> None:
        epoch, push = published_push(data)
        if not self._epoch.is_current(epoch):
            return
        if not self._epoch.is_believable(push.offset):
            self._counters["doubted"] += 1
        elif push.offset <= self._epoch.offset:
            self._counters["repeated"] += 1
        else:
            self._epoch.offset = push.offset
            self._listener.deliver(push)

    def _word(self, kind: bytes, data: bytes, schema: int) -> None:
        """A message to this worker alone."""
        if kind == b"P ":
            epoch, offset, *_ = data.split()
            # So far the counter was, when all before was published.
            if self._epoch.is_current(epoch.decode()) and self._epoch.is_believable(int(offset)):
                self._epoch.offset = max(self._epoch.offset, int(offset))
            self._probed = self.hub.now()
        elif kind == b"R ":
            token, _, field = data.partition(b" ")
            client_id, _, uid = to_text(field).partition(":")
            self._listener.client_taken_over(uid or None, client_id, token.decode())
        elif kind == b"T ":
            self._listener.on_worker_message(to_text(data))
        elif schema == SCHEMA:
            raise ValueError(f"unknown kind {kind!r}")


class Confirmation:
    """Subscriptions that somebody waits for."""

    __slots__ = ("missing", "waiter")

    def __init__(self, missing: set[str], waiter: Waiter) -> None:
        self.missing = set(missing)
        self.waiter = waiter
