"""From the page on: what brokers keep for users who are not there yet, and what they remember."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.brokers.contract import DROPPED, Broker, client_channel, topic_channel, user_channel
from flask_chsk.brokers.memory import journal
from tests.integration.brokers.conftest import Ears
from tests.process import eventually

ANN = user_channel("ann")
PAGE = 256 * 1024
SOON = 0.05  # seconds of a grace that a test waits for the end of

Start = Callable[..., Ears]


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    found: str = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def ears(start: Start, url: str) -> Ears:
    ears = start(url)
    ears.broker.ready()
    return ears


@pytest.fixture
def broker(ears: Ears) -> Broker:
    return ears.broker


def dropped(broker: Broker, uid: str | None, kind: str = "ws") -> int:
    arrival = broker.clients.attach(uid, "1", kind, True, digest="d")
    assert arrival is not None
    return arrival.dropped


def now(broker: Broker) -> int:
    """An offset that the broker gave just now."""
    offset = broker.publish("*", "[:a/now]")
    assert offset is not None
    return offset


def test_an_event_that_finds_nobody_leaves_its_offset(broker: Broker) -> None:
    before = now(broker)
    assert broker.publish(ANN, "[:a/b 1]") is None
    assert broker.publish(ANN, "[:a/b 2]") is None
    last = now(broker)
    assert broker.publish(user_channel("bob"), "[:a/b 3]") is None
    assert before < dropped(broker, "ann") < last < dropped(broker, "bob")
    assert dropped(broker, "eve") < before
    assert dropped(broker, None) < before


def test_a_websocket_on_trial_hears_of_it_too(broker: Broker) -> None:
    before = now(broker)
    assert broker.publish(ANN, "[:a/b 1]") is None
    polling = dropped(broker, "ann", "ajax")
    assert dropped(broker, "ann", "try") == polling > before


def test_of_an_event_to_one_client_nothing_is_remembered(broker: Broker) -> None:
    before = now(broker)
    broker.clients.expect("ann", 15.0)
    assert broker.publish(client_channel("ann", "1"), "[:a/b 1]") is None
    assert dropped(broker, "ann") < before


def test_events_to_an_expected_user_are_kept(broker: Broker) -> None:
    page = now(broker)
    broker.clients.expect("ann", 15.0)
    kept = broker.publish(ANN, "[:a/b 1]")
    assert dropped(broker, "ann") < page
    read = broker.since({ANN: 0}, page, PAGE)
    assert [(push.text, push.offset) for push in read.pushes] == [("[:a/b 1]", kept)]
    assert read.complete


def test_an_expected_user_is_not_connected(ears: Ears) -> None:
    ears.broker.clients.expect("ann", 15.0)
    assert ears.broker.clients.connected() == (set(), set(), set())
    assert ears.happened.count(("presence", "ann", True)) == 0
    arrival = ears.broker.clients.attach("ann", "1")
    assert arrival is not None
    assert arrival.first


def test_the_grace_of_a_page_ends(broker: Broker) -> None:
    broker.clients.expect("ann", SOON)
    eventually(lambda: broker.publish(ANN, "[:a/b 1]") is None)
    last = now(broker)
    assert dropped(broker, "ann") < last


def test_a_later_page_makes_the_grace_longer(broker: Broker) -> None:
    broker.clients.expect("ann", SOON)
    broker.clients.expect("ann", 15.0)
    broker.clients.expect("bob", SOON)
    eventually(lambda: broker.publish(user_channel("bob"), "[:a/b 1]") is None)
    assert broker.publish(ANN, "[:a/b 1]") is not None


def test_the_grace_is_no_longer_than_the_window(start: Start, url: str) -> None:
    broker = start(url, recovery_seconds=0).broker
    broker.ready()
    before = now(broker)
    broker.clients.expect("ann", 15.0)
    assert broker.publish(ANN, "[:a/b 1]") is None
    assert dropped(broker, "ann") > before


def test_a_client_that_came_and_went_leaves_its_own_grace(broker: Broker) -> None:
    broker.clients.expect("ann", SOON)
    arrival = broker.clients.attach("ann", "1")
    assert arrival is not None
    broker.clients.detach("ann", "1", arrival.token)
    broker.clients.expect("bob", SOON)
    eventually(lambda: broker.publish(user_channel("bob"), "[:a/b 1]") is None)
    assert broker.publish(ANN, "[:a/b 1]") is not None


def test_topics_that_an_expected_user_joins_are_read_from_there(broker: Broker) -> None:
    page = now(broker)
    broker.clients.expect("ann", 15.0)
    broker.publish(topic_channel("news"), "[:a/b 1]")
    broker.topics.join("ann", "news")
    broker.publish(topic_channel("news"), "[:a/b 2]")
    arrival = broker.clients.attach("ann", "1")
    assert arrival is not None
    channels = {topic_channel(topic): since for topic, since in arrival.topics.items()}
    read = broker.since(channels, page, PAGE)
    assert [push.text for push in read.pushes] == ["[:a/b 2]"]


def test_topics_of_a_user_who_is_away_are_kept_whoever_expects_them(broker: Broker) -> None:
    broker.topics.join("ann", "news")
    page = now(broker)
    broker.publish(topic_channel("news"), "[:a/b 1]")
    arrival = broker.clients.attach("ann", "1")
    assert arrival is not None
    assert arrival.dropped < page
    read = broker.since({topic_channel("news"): arrival.topics["news"]}, page, PAGE)
    assert [push.text for push in read.pushes] == ["[:a/b 1]"]


def test_those_who_are_forgotten_may_have_missed_something(
    broker: Broker, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now(broker)
    broker.publish(ANN, "[:a/b 1]")
    last = dropped(broker, "ann")
    assert last > before
    if url == "memory://":
        monkeypatch.setattr(journal, "DROPPED", 2)
        for name in ("bob", "eve"):
            broker.publish(user_channel(name), "[:a/b 2]")
    else:
        keys = connection(url)
        others = {f"u{n}": last + n for n in range(1, DROPPED)}
        keys.zadd(f"{prefix}:0:dropped", others)
        broker.publish(user_channel("bob"), "[:a/b 2]")
    assert dropped(broker, "kim") == last == dropped(broker, "ann")  # of kim nothing is known


@pytest.mark.usefixtures("hasty")
def test_offsets_that_are_older_than_the_window_are_forgotten(start: Start, url: str) -> None:
    ears = start(url, recovery_seconds=SOON)
    ears.broker.ready()
    ears.broker.publish(ANN, "[:a/b 1]")
    last = dropped(ears.broker, "ann")

    def forgotten() -> bool:
        ears.hub.run(ears.broker.sweep)
        return dropped(ears.broker, "kim") == last

    eventually(forgotten)


def test_what_redis_lost_may_have_held_anybody(start: Start, redis_url: str, prefix: str) -> None:
    broker = start(redis_url).broker
    broker.ready()
    broker.publish(ANN, "[:a/b 1]")
    connection(redis_url).delete(f"{prefix}:0:dropped")
    last = now(broker)
    assert dropped(broker, "ann") > last
    assert dropped(broker, "bob") > last


def connection(url: str) -> Any:
    return pytest.importorskip("redis").Redis.from_url(url)
