"""Applies to this worker's clients what is heard of their users' topics; on the hub."""

from __future__ import annotations

from typing import Any

from ..brokers.contract import Arrival, Broker, topic_channel
from ..values import Keyword
from .connection import Connection
from .delivery import Delivery
from .registry import Registry
from .topics import Topics

JOINED, LEFT = Keyword("chsk/joined"), Keyword("chsk/left")


class Memberships:
    """Who of the users here is a member of what, and what their clients are owed of it."""

    def __init__(
        self,
        broker: Broker,
        registry: Registry[Connection],
        topics: Topics,
        delivery: Delivery,
    ) -> None:
        self._broker = broker
        self._registry = registry
        self._topics = topics
        self._delivery = delivery

    def of(self, uid: str) -> list[str]:
        """A user's topics."""
        return list(self._topics.of(uid))

    def control(self, uid: str, id: str, data: Any, offset: int) -> None:
        """``[:chsk/joined topic]`` or ``[:chsk/left topic]`` of a user with clients here."""
        if id == JOINED:
            # With its offset where it is told after it began.
            topic, since = data if isinstance(data, list) else (data, offset)
            if topic not in self._topics.of(uid):
                self._joined(uid, topic, since)
        elif id == LEFT:
            self._left(uid, data, offset)

    def take(self, uid: str, arrival: Arrival, *, complete: bool) -> None:
        """What the broker knows of a user's topics holds.

        That it began anew and does not know a topic says nothing, nor does when it was joined.

        :param complete: those that it does not name have ended.
        """
        for topic, joined in arrival.topics.items():
            if arrival.whole or topic not in self._topics.of(uid):
                self._joined(uid, topic, joined)
        if complete and arrival.whole:
            for topic in [one for one in self._topics.of(uid) if one not in arrival.topics]:
                self._left(uid, topic, arrival.offset)

    def take_from_epoch(self, uid: str, arrival: Arrival, began: int) -> None:
        """The broker began anew at *began*, after it said this of a user's topics."""
        for topic in arrival.topics:
            self._topics.joined(uid, topic, began)

    def lost(self, uid: str, topic: str) -> None:
        """A membership could not be kept: what its user misses from now on is told as a gap."""
        if topic in self._topics.of(uid):
            self._left(uid, topic, self._broker.watermark())
            for connection in self._registry.of(uid):
                connection.owe_gap()
                self._delivery.wake(connection)

    def forget(self, uid: str) -> None:
        """A user has no client here any more."""
        for topic in self._topics.gone(uid):
            self._broker.unused(topic_channel(topic))

    def _joined(self, uid: str, topic: str, offset: int) -> None:
        if self._topics.joined(uid, topic, offset):
            for connection in self._registry.of(uid):
                one = connection.session
                one.advance_to(min(offset, self._broker.watermark()))
                if max(one.acked, one.given) > max(offset, one.start):
                    # It was served past events of this topic, which nobody here knew to be its own.
                    connection.owe_gap()
                else:
                    one.fall_behind()  # read from the topic's history
                self._delivery.wake(connection)

    def _left(self, uid: str, topic: str, offset: int) -> None:
        if self._topics.left(uid, topic, offset):
            self._broker.unused(topic_channel(topic))
