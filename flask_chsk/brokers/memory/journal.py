"""Offsets, and the latest events of each channel."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping

from ...config import Config
from ...hub import Hub, on_hub
from ...protocol.push import Push
from ..contract import DROPPED, Page, page_of


class History:
    """The last events of one channel, within limits of number, bytes and age."""

    __slots__ = ("bytes", "last", "pushes", "until")

    def __init__(self) -> None:
        self.pushes: deque[Push] = deque()
        self.bytes = 0
        self.last = 0  # offset of the last event there was, kept or not
        self.until = 0.0  # when the last event is past its time

    def add(self, push: Push, max_events: int, max_bytes: int) -> None:
        self.pushes.append(push)
        self.bytes += push.size
        self.last = push.offset
        while self.pushes and (len(self.pushes) > max_events or self.bytes > max_bytes):
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self.bytes -= self.pushes.popleft().size

    def after(self, offset: int) -> tuple[list[Push], bool]:
        """Events above *offset*, and whether none of them is missing."""
        if self.last <= offset:
            return [], True
        pushes = list(self.pushes)
        found = pushes[bisect_right(pushes, offset, key=lambda push: push.offset) :]
        return found, bool(found) and found[0].before <= offset


class Journal:
    """Gives events their offsets, keeps them for a while, and delivers them in order.

    Methods are called with ``lock`` held, where their docstring does not say otherwise.

    :param deliver: is given each event, on the hub.
    """

    def __init__(self, hub: Hub, config: Config, deliver: Callable[[Push], object]) -> None:
        self.hub = hub
        self.now = hub.wall
        self.lock = hub.native_lock()
        self.window = config.recovery_seconds
        self._max_events = config.recovery_events
        self._max_bytes = config.recovery_bytes
        self._deliver = deliver
        self.last = 0  # the last offset given
        self._delivered = 0  # the last offset delivered
        self._forgotten = 0  # the last offset of all histories that are gone
        self._histories: dict[str, History] = {}
        # User -> offset of the last event that was kept nowhere; the latest comes last
        self._dropped: dict[str, int] = {}
        self._dropped_before = 0  # the highest offset of those that are forgotten
        self._arrived: deque[Push] = deque()
        self._delivering = False

    def append(
        self,
        channel: str,
        text: str,
        exclude: tuple[str | None, str] | None,
        now: float,
        flush: bool = False,
    ) -> int:
        """Keep an event; its offset. :meth:`deliver_soon` is to follow."""
        history = self._histories.get(channel)
        if history is None:
            history = self._histories[channel] = History()
        offset = self.next_offset(now)
        push = Push(channel, text, offset, history.last, exclude, now, flush)
        history.add(push, self._max_events, self._max_bytes)
        history.until = now + self.window
        self._arrived.append(push)
        return offset

    def next_offset(self, now: float) -> int:
        """An offset that is no event's; the one before is none's either.

        There a client can be told of a gap between what it has and the next event.
        """
        self.last = max(self.last + 2, int(now * 1e6))
        return self.last

    def level(self) -> int:
        """The last offset, raised to the time: what is appended next is above it."""
        self.last = max(self.last, int(self.now() * 1e6))
        return self.last

    def drop(self, uid: str, now: float) -> None:
        """An event to nobody gets an offset, and nothing else is kept of it."""
        self._dropped.pop(uid, None)
        self._dropped[uid] = self.next_offset(now)
        if len(self._dropped) > DROPPED:
            self._forget_dropped()

    def _forget_dropped(self) -> None:
        self._dropped_before = self._dropped.pop(next(iter(self._dropped)))

    def dropped_of(self, uid: str | None) -> int:
        """The offset above which no event to a user was dropped."""
        return 0 if uid is None else self._dropped.get(uid, self._dropped_before)

    def deliver_soon(self) -> None:
        """Deliver what was appended; without ``lock``."""
        self.hub.call(self._drain)

    @on_hub
    def _drain(self) -> None:
        if self._delivering:
            return  # a delivery that publishes: its event comes after the one being delivered
        self._delivering = True
        try:
            arrived = self._arrived
            while arrived:
                push = arrived[0]
                self._delivered = push.offset
                try:
                    self._deliver(push)
                finally:
                    arrived.popleft()
        finally:
            self._delivering = False

    def watermark(self) -> int:
        """The offset up to which everything was delivered."""
        if not self._arrived:  # else what is about to be delivered would count as had
            self._delivered = self.level()
        return self._delivered

    def since(self, channels: Mapping[str, int], cursor: int, page_bytes: int) -> Page:
        """As :meth:`..contract.Broker.since`."""
        end = self.last
        # Where the clock went back, offsets and cursors are ahead of it: their age says little.
        oldest = max((self.now() - self.window) * 1e6, self._forgotten)
        complete = oldest <= cursor <= end + 1  # one more: where it was told of a gap
        found: list[Push] = []
        for channel, joined in channels.items():
            history = self._histories.get(channel)
            if history is not None:
                pushes, whole = history.after(max(cursor, joined))
                found += pushes
                complete = complete and whole
        if not complete:
            return Page((), end, False, False)
        found.sort(key=lambda push: push.offset)
        return page_of(found, max(end, cursor), False, page_bytes)

    def sweep(self, now: float) -> None:
        """Forget what is past its time."""
        oldest = now - self.window
        while self._dropped and next(iter(self._dropped.values())) < oldest * 1e6:
            self._forget_dropped()
        for channel, history in list(self._histories.items()):
            if history.until <= now:
                del self._histories[channel]
                self._forgotten = max(self._forgotten, history.last)
            else:
                while history.pushes and history.pushes[0].time < oldest:
                    history.drop_oldest()
