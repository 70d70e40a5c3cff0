"""The epoch that this worker is in, and the offset up to which it has heard its events.

Offsets compare within one epoch only. A new epoch begins where the counter was lost: Redis
restarted empty, its keys were deleted, or a replica without the latest writes took over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...errors import BrokerUnavailable, ConfigError
from ...hub import Hub, Waiter, on_hub
from ...logs import logger
from ..contract import Listener
from .calls import Redis

log = logger(__name__)

READY = 2.0  # seconds that a first request waits for Redis
AHEAD = 60.0  # seconds that an event may be ahead of what Redis last said, and be believed


class Epoch:
    """The epoch that this worker is in.

    :param ask: asks Redis for its epoch and its last offset.
    """

    def __init__(
        self,
        hub: Hub,
        redis: Redis,
        listener: Listener,
        counters: Counter[str],
        ask: Callable[[], object],
    ) -> None:
        self.name = ""  # until Redis was reached
        self.offset = 0  # read from the subscription up to here
        self.refusal = ""  # why this Redis cannot be used at all
        self.error = ""  # why there is no subscription
        self.hub = hub
        self._redis = redis
        self._listener = listener
        self._counters = counters
        self.ask = ask
        self._said = (0, 0.0)  # what Redis said its last offset is, when
        self._doubts = False  # an event was not believed: what it was, history knows
        self._waiting: list[Waiter] = []

    def wait(self) -> None:
        """Wait until the epoch is known; at once, but for the first requests. From any thread.

        :raises BrokerUnavailable: Redis was not reached yet.
        :raises ConfigError: this Redis may forget what it was told.
        """
        if not self.name and not self.refusal:
            waiter = self.hub.waiter_here()
            self.hub.run(self._await, waiter)
            waiter.wait(READY)
        if self.refusal:
            raise ConfigError(self.refusal)
        if not self.name:
            raise BrokerUnavailable(self.error or "Redis was not reached yet")

    @on_hub
    def _await(self, waiter: Waiter) -> None:
        if self.name or self.refusal:
            waiter.set(True)
        else:
            self._waiting.append(waiter)

    @on_hub
    def lost(self, error: str) -> None:
        """There is no subscription: nobody waits for the epoch any longer."""
        self.error = error
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.set(True)

    @on_hub
    def enter(self, epoch: str, offset: int, began: int, heard: bool = False) -> None:
        """Redis said that it is in *epoch*, at *offset*.

        :param began: the offset at which the epoch began.
        :param heard: by the subscription, so that all of this epoch is heard after it.
        """
        over = epoch in self._redis.past
        if not over:
            self._said = (offset, self.hub.now())
        if epoch != self.name and not over:
            first = not self.name
            self._redis.turn_to(epoch)
            self.name = epoch
            self.offset = offset if first else began  # history has what came since
            if not first:
                log.warning("Redis began anew (epoch %s): clients are told of the gap", epoch)
                self._counters["epochs"] += 1
            self._listener.reset(began)
            if not first:
                self._doubts = self._doubts or not heard  # perhaps there were events already
                self._listener.reattach(silent=True)
        if self._doubts:  # what was not believed is in history, if it is true
            self._doubts = False
            self._listener.resync_required()
        self._wake()

    @on_hub
    def is_current(self, epoch: str) -> bool:
        """Whether what is said of *epoch* concerns this worker now."""
        if epoch == self.name:
            return True
        if epoch not in self._redis.past:
            self.ask()  # what is let go until the answer is before the gap that it brings
        return False

    @on_hub
    def is_believable(self, offset: int) -> bool:
        """Whether Redis can be there by now: else all that follows would look old.

        It is compared with what Redis answered, never with a clock of this host. What is not
        believed is not lost: Redis is asked, and clients read from history, which has it if it is.
        """
        said, when = self._said
        if offset > said + (self.hub.now() - when + AHEAD) * 1e6:
            self._doubts = True
            self.ask()
            return False
        return True
