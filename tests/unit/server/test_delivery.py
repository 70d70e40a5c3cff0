"""From a published event to the outboxes, and when these leave."""

from __future__ import annotations

import pytest

from flask_chsk.protocol.push import Push
from flask_chsk.protocol.session import TOO_SLOW
from flask_chsk.server.connection import Connection
from flask_chsk.server.delivery import Delivery
from flask_chsk.server.topics import Topics
from flask_chsk.server.trace import Trace

from .fakes import Site, texts, told


class Scene(Site):
    def __init__(self) -> None:
        super().__init__(send_buf_ws=0.5, max_outbox_bytes=100)
        self.topics = Topics(60.0)
        self.delivery = Delivery(
            self.hub, self.config, self.registry, self.topics, self.counters, Trace()
        )
        self.offset = 10

    def publish(self, channel: str, size: int = 0, flush: bool = False) -> None:
        self.offset += 1
        text = f"[:a/b {self.offset}]".ljust(size)
        push = Push(channel, text, self.offset, flush=flush)
        self.delivery.deliver(push)
        if flush:
            self.delivery.flush(channel)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def names(connections: list[Connection]) -> list[str]:
    return [f"{one.session.uid}:{one.session.client_id}" for one in connections]


@pytest.mark.parametrize(
    ("channel", "reached"),
    [
        ("*", ["ann:c1", "ann:c2", "bob:c3", "None:c4"]),
        ("-", ["None:c4"]),
        ("u:ann", ["ann:c1", "ann:c2"]),
        ("u:nobody", []),
        ("c:c2:ann", ["ann:c2"]),
        ("c:c2:bob", []),
        ("c:c4", ["None:c4"]),
        ("t:news", ["bob:c3"]),
        ("t:none", []),
    ],
)
def test_a_channel_reaches_those_it_is_for(scene: Scene, channel: str, reached: list[str]) -> None:
    for uid, client_id in (("ann", "c1"), ("ann", "c2"), ("bob", "c3"), (None, "c4")):
        scene.connect(uid, client_id)
    scene.topics.joined("bob", "news", 1)
    assert names(scene.delivery.receivers(channel)) == reached


def test_an_event_leaves_at_once_and_the_next_with_its_window(scene: Scene) -> None:
    one = scene.connect()
    scene.publish("u:ann")
    assert told(one) == ["wake"]
    scene.publish("u:ann")
    scene.publish("u:ann")
    assert told(one) == ["wake"]
    scene.hub.sleep(0.5)
    assert told(one) == ["wake", "wake"]
    assert texts(one) == ["[:a/b 11]", "[:a/b 12]", "[:a/b 13]"]  # the fake takes nothing


def test_an_event_after_the_window_leaves_at_once(scene: Scene) -> None:
    one = scene.connect()
    scene.publish("u:ann")
    scene.hub.sleep(0.6)
    scene.publish("u:ann")
    assert told(one) == ["wake", "wake"]


def test_an_event_that_flushes_waits_for_no_window(scene: Scene) -> None:
    one = scene.connect()
    scene.publish("u:ann")
    scene.publish("u:ann", flush=True)
    assert told(one) == ["wake", "wake"]


def test_a_crowd_is_served_whoever_of_it_is_gone(scene: Scene) -> None:
    one, two = scene.connect("ann", "c1"), scene.connect("bob", "c2")
    two.lose(scene.hub.now())
    scene.publish("*")
    assert told(one) == ["wake"]
    assert texts(two) == ["[:a/b 11]"]  # for it to come back


def test_an_event_that_is_no_news_wakes_nobody(scene: Scene) -> None:
    one = scene.connect(offset=50)
    scene.publish("u:ann")
    assert told(one) == []


def test_a_client_that_cannot_be_told_of_a_gap_is_closed_when_too_much_waits(
    scene: Scene,
) -> None:
    one = scene.connect(v1=False)
    scene.publish("u:ann", size=60)
    scene.publish("u:ann", size=60)
    assert told(one)[-1] == (TOO_SLOW, "too slow: its outbox passed CHSK_MAX_OUTBOX_BYTES")
    assert texts(one) == []
    assert scene.counters == {"dropped_slow": 2, "too_slow": 1}


def test_a_client_of_ours_falls_behind_when_too_much_waits(scene: Scene) -> None:
    one = scene.connect()
    scene.publish("u:ann", size=60)
    scene.publish("u:ann", size=60)
    assert one.session.needs_replay
    assert scene.counters == {}
