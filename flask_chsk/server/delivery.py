"""From a published event to the transports: who gets it, and when what they have leaves.

An event goes into the outbox of each receiver at once, so that order holds. It is sent at once if
nothing was sent during the last window; otherwise with all that gathers until the window ends
(docs/protocol.rst, "Pushes"). A crowd is served in slices, between which the hub does other work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..brokers.contract import ANONYMOUS, EVERYONE
from ..config import Config
from ..hub import Hub, on_hub
from ..protocol import session as s
from ..protocol.push import Push
from .connection import Connection
from .registry import Registry
from .topics import Topics
from .trace import Trace


class Delivery:
    """Puts events into outboxes and wakes transports; on the hub."""

    def __init__(
        self,
        hub: Hub,
        config: Config,
        registry: Registry[Connection],
        topics: Topics,
        counters: Counter[str],
        trace: Trace,
    ) -> None:
        self.hub = hub
        self._registry = registry
        self._topics = topics
        self._counters = counters
        self._trace = trace
        self.frames: dict[Any, bytes] = {}  # batches of this tick, by what they hold
        self.windows = {"ws": config.send_buf_ws, "ajax": config.send_buf_ajax}
        self._dirty: dict[str, dict[Connection, None]] = {"ws": {}, "ajax": {}}

    @on_hub
    def receivers(self, channel: str) -> list[Connection]:
        """The connections here that *channel* reaches."""
        if channel == EVERYONE:
            return list(self._registry)
        if channel == ANONYMOUS:
            return list(self._registry.of(None))
        kind, _, rest = channel.partition(":")
        if kind == "u":
            return list(self._registry.of(rest))
        if kind == "c":
            client_id, _, uid = rest.partition(":")
            connection = self._registry.get(uid or None, client_id)
            return [] if connection is None else [connection]
        receivers: list[Connection] = []
        for uid in self._topics.members(rest):
            receivers += self._registry.of(uid)
        return receivers

    @on_hub
    def deliver(self, push: Push) -> None:
        """Hand an event to the connections it is for; in the broker's order."""
        channel = push.channel
        receivers = self.receivers(channel)
        if self._trace.on:
            self._trace.push(push, [one.session.uid for one in receivers])
        if channel in (EVERYONE, ANONYMOUS) or channel[0] == "t":
            self._deliver_to_many(push, receivers, self.hub.now())
        else:
            for connection in receivers:
                if connection.session.deliver(push):
                    self.wake(connection)

    @on_hub
    def wake(self, connection: Connection) -> None:
        """Send what a connection has, if its window is over."""
        if not self.waits(connection, self.hub.now()):
            transport = connection.transport
            if transport is not None:
                transport.wake()

    @on_hub
    def waits(self, connection: Connection, now: float) -> bool:
        """Whether what was put into the outbox waits for the window's end."""
        transport = connection.transport
        if connection.session.overfull:
            self.overfull(connection)
            return True
        if transport is None:
            return True  # for the client to come back
        kind = connection.kind
        if connection.may_flush(now, self.windows[kind]):
            return False
        dirty = self._dirty[kind]
        if not dirty:
            self.hub.timer(self.windows[kind], lambda: self._end_window(kind))
        dirty[connection] = None
        return True

    @on_hub
    def flush(self, channel: str) -> None:
        """Let what *channel* reaches leave now, whatever its window."""
        for connection in self.receivers(channel):
            if connection.transport is not None:
                connection.note_flush(self.hub.now())
                connection.transport.wake()

    @on_hub
    def overfull(self, connection: Connection) -> None:
        """A client that cannot be told of a gap has too much waiting (close code 4002)."""
        one = connection.session
        if one.v1:
            one.fall_behind()  # its pushes come again, from history
        self._counters["dropped_slow"] += one.drop_outbox()
        transport = connection.transport
        if transport is not None and not transport.closing:
            self._counters["too_slow"] += 1
            transport.end(s.TOO_SLOW, "too slow: its outbox passed CHSK_MAX_OUTBOX_BYTES")

    def _deliver_to_many(self, push: Push, receivers: list[Connection], now: float) -> None:
        leaving = [
            connection
            for connection in receivers
            if connection.session.deliver(push) and not self.waits(connection, now)
        ]
        if not leaving:
            return

        def wake() -> Iterator[None]:
            for connection in leaving:
                transport = connection.transport
                if transport is not None:
                    transport.wake()
                yield

        self.hub.sliced(wake)

    @on_hub
    def _end_window(self, kind: str) -> None:
        dirty, self._dirty[kind] = self._dirty[kind], {}
        now = self.hub.now()

        def flush() -> Iterator[None]:
            for connection in dirty:
                connection.note_flush(now)
                if connection.transport is not None:
                    connection.transport.wake()
                yield
            self.frames.clear()

        self.hub.sliced(flush)
