"""The lease of this worker, which it renews every few seconds, and the end of dead workers.

Each renewal answers with the epoch, the clock of Redis and the limits in force. It publishes a
probe, which the subscription of the worker has to hear.
"""

from __future__ import annotations

from ...errors import BrokerUnavailable
from ...hub import Hub, on_hub
from ...logs import logger
from ..contract import Listener
from . import scripts
from .calls import Greeting, Redis
from .epoch import Epoch
from .records import to_text

log = logger(__name__)

LEASE = 9.0  # seconds after which a worker that says nothing counts as dead
RENEW = 3.0  # seconds between leases; each sends a probe through the subscription
REAPED = 100  # clients of a dead worker per call
CLOCKS = 60.0  # seconds that the clock of this host may differ from Redis' without a word


class Lease:
    """The lease of the worker *name*.

    :param limits: events, bytes and milliseconds of history that this worker is set to keep.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        epoch: Epoch,
        listener: Listener,
        name: str,
        limits: tuple[int, int, int],
    ) -> None:
        self.clock = 0.0  # seconds that this host's clock is ahead of Redis'
        self.error = ""  # why the lease was not renewed
        self.leased_before = False
        self.hub = hub
        self._redis = redis
        self._epoch = epoch
        self._listener = listener
        self._name = name
        self._limits = limits
        self._smaller = ""  # limits of another process that hold here, too
        self._renewing = False
        self._judges_from = 0.0  # since when it signs off others whose leases are over
        self._over = False

    def end(self) -> None:
        """Stop renewing it."""
        self._over = True

    @on_hub
    def due(self, now: float) -> float | None:
        """Renew the lease; the time of the next renewal."""
        if self._over:
            return None
        if self._epoch.error:
            return now + 1.0
        self.renew_soon()
        return now + RENEW

    @on_hub
    def renew_soon(self) -> None:
        """Renew it now; also to ask Redis for its epoch and its last offset."""
        if not self._renewing:
            self._renewing = True
            self.hub.background(self.renew)

    def renew(self) -> None:
        """Renew the lease, and sign off the clients of workers whose leases are over; may block.

        A worker whose own lease lapsed does not sign off other workers for one lease period:
        Redis may have been away from all of them, and each comes back in its own time.
        """
        if self._epoch.refusal:
            self._redis.close()  # a new connection is told whether it still stands
        try:
            epoch, offset, known, late, dead, began, clock, *limits = self._redis.call(
                scripts.LEASE, self._name, int(LEASE * 1000), *self._limits
            )
            self.error = ""
            self._compare_clocks(int(clock))
            self._compare_limits(limits)
            now = self.hub.now()
            if late:
                self._judges_from = now + LEASE
            self.hub.call(self._leased, epoch.decode(), int(offset), int(began), int(known))
            while dead and now >= self._judges_from:  # others do it, too: each takes its share
                dead, *gone = self._redis.call(scripts.REAP, REAPED)
                for uid, generation in zip(*[iter(gone)] * 2, strict=True):
                    self.hub.call(
                        self._listener.user_presence_changed, to_text(uid), False, int(generation)
                    )
        except BrokerUnavailable as error:
            self.error = str(error)
            log.debug("no lease: %s", error)
        finally:
            self._renewing = False

    @on_hub
    def _leased(self, epoch: str, offset: int, began: int, known: int) -> None:
        self._epoch.enter(epoch, offset, began)
        first, self.leased_before = not self.leased_before, True
        if known < 0 or (known == 0 and not first):
            self._listener.reattach(False)

    def greeted(self, greeting: Greeting) -> None:
        """A connection was made: check that this Redis can be used, and enter its epoch."""
        if greeting.policy not in ("", "noeviction"):
            refusal = (
                f"Redis at {self._redis.where} has maxmemory-policy {greeting.policy}: it may"
                " drop history without a word, and clients would miss events unnoticed; set"
                " maxmemory-policy noeviction"
            )
            if not self._epoch.refusal:
                log.error("%s", refusal)
            self._epoch.refusal = refusal
        else:
            self._epoch.refusal = ""
        self._compare_clocks(greeting.clock)
        self.hub.call(self._epoch.enter, greeting.epoch, greeting.offset, greeting.began)

    def _compare_clocks(self, clock: int) -> None:
        """Warn if they differ: sessions expire by the host's clock. Nothing else depends on it."""
        before, self.clock = self.clock, self.hub.time_of_day() - clock / 1e6
        if abs(self.clock) > CLOCKS >= abs(before):
            log.warning("%s: set one of them", self.note())

    def _compare_limits(self, limits: list[int]) -> None:
        """Warn if another worker has smaller limits: the smallest are in force."""
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

    def note(self) -> str:
        """A warning in one line; empty: none."""
        notes = [self._smaller]
        if abs(self.clock) > CLOCKS:
            way = "ahead of" if self.clock > 0 else "behind"
            notes.append(f"this host's clock is {abs(self.clock):.0f} s {way} that of Redis")
        return "; ".join(filter(None, notes))
