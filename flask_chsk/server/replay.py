"""Gives connections that are behind what they missed, from the broker's history.

What a client is told: docs/protocol.rst, "Cursors and recovery".

On the hub, except what says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ..brokers.contract import (
    ANONYMOUS,
    EVERYONE,
    Broker,
    Page,
    client_channel,
    topic_channel,
    user_channel,
)
from ..errors import BrokerError
from ..hub import Hub, on_hub
from ..logs import RateLimitedLogger, logger
from ..protocol import session as s
from ..protocol.push import Push
from ..protocol.session import ServerSession
from .connection import Connection
from .delivery import Delivery
from .topics import Topics

rate_limited = RateLimitedLogger(logger(__name__))

CONTROLS = ("[:chsk/close", "[:chsk/joined", "[:chsk/left")  # done once, not delivered
RETRY = 1.0  # seconds until history is asked again, after the broker did not answer

Position = tuple[dict[str, int], int]
"""Channels, each with the offset at which it begins, and what is had of all of them."""


class History:
    """What connections missed, page by page, or that there is a gap."""

    def __init__(
        self,
        hub: Hub,
        broker: Broker,
        topics: Topics,
        delivery: Delivery,
        counters: Counter[str],
        control: Callable[[Push, Connection], object],
    ) -> None:
        """:param control: does what a control says to one client."""
        self.hub = hub
        self._control = control
        self._reading: set[Connection] = set()  # whose next page is being read
        self._broker = broker
        self._topics = topics
        self._delivery = delivery
        self._counters = counters

    @on_hub
    def catch_up(self, connection: Connection) -> None:
        """Give a session that is behind its next page of history, or tell it of the gap.

        The page comes later; then the transport is woken.
        """
        if connection not in self._reading:
            self._reading.add(connection)
            self.hub.background(self._catch_up, connection)

    def _catch_up(self, connection: Connection) -> None:
        try:
            if not self.next_page(connection):
                self.hub.run(self.gap, connection)
        except BrokerError as error:
            uid = connection.session.uid
            rate_limited.warning("history", "history of uid %r cannot be read: %s", uid, error)
            if self._broker.disconnected:
                return  # all ask again once it hears
            self.hub.call(self.hub.timer, RETRY, lambda: self._delivery.wake(connection))
            return
        finally:
            self._reading.discard(connection)
        self.hub.call(self._delivery.wake, connection)

    @on_hub
    def is_reading(self, connection: Connection) -> bool:
        """Whether a page of history is on its way to a client."""
        return connection in self._reading

    def next_page(self, connection: Connection) -> bool:
        """Read and take in a page; may wait for the broker. False: there is a gap."""
        position = self.hub.run(self._position, connection)
        page = self._broker.since(*position, s.PAGE_BYTES)
        return self.hub.run(self._take_page, connection, position, page)

    @on_hub
    def _position(self, connection: Connection) -> Position:
        return self._channels(connection), connection.session.queued

    @on_hub
    def _take_page(self, connection: Connection, position: Position, page: Page) -> bool:
        one = connection.session
        if not one.needs_replay or self._position(connection) != position:
            # Meanwhile the client came back with another cursor, or joined a topic, so this page
            # may lack something. The session still needs a replay, and asks again.
            return True
        if connection.gap_due or not page.complete:
            now = self._broker.watermark()
            # Above all that the client may have had from any process, or it would not hear of it.
            after_page = connection.session.after_page
            connection.start_at(max(now, page.end + 1), after_page=after_page)
            return False
        pushes: list[Push] = []
        for push in page.pushes:
            if not push.text.startswith(CONTROLS):
                if self._is_owed(one, push):
                    pushes.append(push)
            elif push.offset > connection.since:  # perhaps this process heard nothing then
                self._control(push, connection)
        if self._position(connection) != position:
            return True  # it joined a topic, or left one: its channels are others now
        self._counters["recovered"] += len(pushes)
        one.caught_up(pushes, page.end, more=page.more)
        return True

    def _is_owed(self, one: ServerSession, push: Push) -> bool:
        """False for an event of a topic from after its user had left it."""
        kind, _, topic = push.channel.partition(":")
        if kind != "t" or one.uid is None:
            return True
        return self._topics.was_member(one.uid, topic, push.offset)

    @on_hub
    def gap(self, connection: Connection) -> None:
        """Tell a client that it missed something before now."""
        self._counters["gaps"] += 1
        one = connection.session
        one.gap(max(self._broker.watermark(), one.queued, one.given))

    @on_hub
    def page_gap(self, connection: Connection) -> None:
        """Tell a client that has begun at now that something is missing since its page was made."""
        one = connection.session
        begins_behind = one.needs_replay  # of topics that this worker may not hear yet
        self.gap(connection)
        if begins_behind:
            one.fall_behind()

    def _channels(self, connection: Connection) -> dict[str, int]:
        one = connection.session
        uid = one.uid
        channels = {EVERYONE: 0, client_channel(uid, one.client_id): connection.own}
        if uid is None:
            channels[ANONYMOUS] = 0
        else:
            channels[user_channel(uid)] = 0
            for topic, joined in self._topics.to_read(uid, one.queued).items():
                channels[topic_channel(topic)] = joined
        return channels
