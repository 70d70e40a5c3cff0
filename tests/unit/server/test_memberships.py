"""Topics of the users here, and what their clients are owed of them."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.contract import Arrival
from flask_chsk.server.delivery import Delivery
from flask_chsk.server.memberships import JOINED, LEFT, Memberships
from flask_chsk.server.topics import Topics
from flask_chsk.server.trace import Trace

from .fakes import Site, told


class Broker:
    """A broker that has given offsets up to 100."""

    def __init__(self) -> None:
        self.unused_channels: list[str] = []

    def watermark(self) -> int:
        return 100

    def unused(self, channel: str) -> None:
        self.unused_channels.append(channel)


class Scene(Site):
    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.topics = Topics(60.0)
        delivery = Delivery(
            self.hub, self.config, self.registry, self.topics, self.counters, Trace()
        )
        self.memberships = Memberships(self.broker, self.registry, self.topics, delivery)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_control_begins_and_ends_a_membership(scene: Scene) -> None:
    scene.memberships.control("ann", JOINED, "news", 5)
    scene.memberships.control("ann", JOINED, ["chat", 3], 6)
    assert dict(scene.topics.of("ann")) == {"news": 5, "chat": 3}
    scene.memberships.control("ann", LEFT, "news", 7)
    assert scene.memberships.of("ann") == ["chat"]
    assert scene.broker.unused_channels == ["t:news"]


def test_a_control_that_history_gives_again_is_no_news(scene: Scene) -> None:
    scene.memberships.control("ann", JOINED, "news", 5)
    scene.memberships.control("ann", LEFT, "news", 7)
    scene.memberships.control("ann", JOINED, "news", 5)
    assert scene.memberships.of("ann") == []


def test_clients_read_a_new_topic_from_its_history(scene: Scene) -> None:
    one = scene.connect(offset=5)
    scene.memberships.control("ann", JOINED, "news", 5)
    assert one.session.needs_replay
    assert told(one) == ["wake"]
    assert not one.gap_due


def test_clients_that_were_served_past_a_topic_are_owed_a_gap(scene: Scene) -> None:
    one = scene.connect(offset=5)
    one.session.start_at(2)
    one.session.ack(50)
    scene.memberships.control("ann", JOINED, "news", 20)
    assert one.gap_due


@pytest.mark.parametrize(
    ("whole", "complete", "left"),
    [
        (True, True, {"old": 9}),  # what the broker does not name has ended
        (True, False, {"old": 9, "mine": 1}),
        (False, True, {"old": 2, "mine": 1}),  # it began anew: that it says nothing says nothing
    ],
)
def test_what_the_broker_says_of_topics_holds(
    scene: Scene, whole: bool, complete: bool, left: dict[str, int]
) -> None:
    scene.topics.joined("ann", "old", 2)
    scene.topics.joined("ann", "mine", 1)
    arrival = Arrival("token", False, {"old": 9}, offset=50, whole=whole)
    scene.memberships.take("ann", arrival, complete=complete)
    assert dict(scene.topics.of("ann")) == left


def test_topics_of_an_arrival_from_before_the_epoch_begin_with_it(scene: Scene) -> None:
    arrival = Arrival("token", True, {"news": 3})
    scene.memberships.take_from_epoch("ann", arrival, began=40)
    assert dict(scene.topics.of("ann")) == {"news": 40}


def test_a_membership_that_could_not_be_kept_is_a_gap(scene: Scene) -> None:
    one = scene.connect()
    scene.topics.joined("ann", "news", 1)
    scene.memberships.lost("ann", "news")
    scene.memberships.lost("ann", "never joined")
    assert one.gap_due
    assert scene.memberships.of("ann") == []


def test_topics_that_nobody_here_has_any_more_are_unused(scene: Scene) -> None:
    for uid, topic in (("ann", "news"), ("ann", "chat"), ("bob", "chat")):
        scene.topics.joined(uid, topic, 1)
    scene.memberships.forget("ann")
    assert scene.broker.unused_channels == ["t:news"]
