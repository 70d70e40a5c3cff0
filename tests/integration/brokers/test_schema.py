"""Versions that meet at one Redis: neighbours work together, others are refused with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from flask_chsk.brokers.contract import user_channel
from flask_chsk.brokers.redis import subscription
from flask_chsk.brokers.redis.schema import SCHEMA
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.logs import RateLimitedLogger
from flask_chsk.publisher import Publisher
from tests.integration.brokers.conftest import Ears
from tests.process import eventually
from tests.versions import run, version

ANN = user_channel("ann")
Start = Callable[..., Ears]

PUBLISH = """
import sys
from flask_chsk.publisher import Publisher
print(Publisher(sys.argv[1]).send("ann", ["test/item", 2]))
"""

# A worker of that version: reads what was kept, hears what comes, takes a client over and back.
WORK = """
import sys
from flask_chsk.brokers.contract import user_channel
from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.hub import Hub
from tests.integration.brokers.conftest import Ears
from tests.process import eventually

url, cursor = sys.argv[1:]
broker, hub = make(Config(broker_url=url)), Hub()
ears = Ears(broker, hub)
hub.run(broker.start, hub, ears)
broker.ready()
page = broker.since({user_channel("ann"): 0}, int(cursor), 1 << 20)
assert page.complete, page
print([push.text for push in page.pushes])
arrival = broker.clients.attach("ann", "1", "ajax", False)
print(arrival.known, arrival.first)
broker.publish(user_channel("ann"), "[:test/item 3]")
ears.texts(1)
print(ears.heard[0].text, broker.stats().get("broker_malformed", 0))
assert broker.clients.ack("ann", "1", arrival.token, arrival.offset + 1)
broker.stop()
"""


@pytest.fixture
def later(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """``later(1)``: the folder of the next version."""
    return lambda ahead: version(tmp_path_factory.getbasetemp(), ahead)


def malformed(ears: Ears) -> int:
    stats = ears.broker.stats()
    return stats.get("broker_malformed", 0) + stats.get("broker_foreign", 0)


def test_neighbours_read_each_others_history_messages_and_clients(
    start: Start, redis_url: str, prefix: str, later: Callable[[int], Path]
) -> None:
    url = f"{redis_url}?prefix={prefix}"
    ears = start(redis_url)
    ears.broker.ready()
    arrival = ears.broker.clients.attach("ann", "1", "ajax", False)
    assert arrival is not None
    ears.broker.publish(ANN, "[:test/item 1]")
    assert int(run(later(1), PUBLISH, url)) > arrival.offset
    said = run(later(1), WORK, url, str(arrival.offset)).splitlines()
    assert said == [
        "['[:test/item 1]', '[:test/item 2]']",
        "True False",
        "[:test/item 3] 0",
    ]
    ears.wait("released", "ann", "1", arrival.token)
    assert ears.texts(3) == [f"[:test/item {n}]" for n in (1, 2, 3)]
    page = ears.broker.since({ANN: 0}, arrival.offset, 1 << 20)
    assert (page.complete, len(page.pushes)) == (True, 3)
    again = ears.broker.clients.attach("ann", "1", "ajax", False)
    assert again is not None
    assert again.known
    assert again.cursor is not None
    assert ears.broker.clients.ack("ann", "1", again.token, again.offset)
    assert malformed(ears) == 0


def test_a_version_two_ahead_is_refused_while_workers_live(
    start: Start, redis_url: str, prefix: str, later: Callable[[int], Path]
) -> None:
    ears = start(redis_url)
    ears.broker.ready()
    ears.broker.clients.attach("ann", "1", "ws", True)
    said = run(later(2), PUBLISH, f"{redis_url}?prefix={prefix}")
    assert "BrokerUnavailable: workers with schema" in said
    assert f"{SCHEMA} serve at the Redis" in said
    assert "end those workers first, or deploy a version between" in said
    assert ears.broker.publish(ANN, "[:test/item 1]")
    assert ears.texts(1) == ["[:test/item 1]"]
    assert malformed(ears) == 0


def test_keys_two_behind_are_refused_until_they_are_deleted(
    redis_url: str, prefix: str, later: Callable[[int], Path]
) -> None:
    url = f"{redis_url}?prefix={prefix}"
    with Publisher(url) as publisher:
        publisher.broadcast(["test/item", 1])
    said = run(later(2), PUBLISH, url)
    assert f"the keys {prefix}:0:*" in said
    assert "delete these keys, or set another ?prefix=" in said
    client = redis.Redis.from_url(redis_url)
    client.delete(*client.scan_iter(f"{prefix}:0:*"))
    assert run(later(2), PUBLISH, url).isdigit()
    with Publisher(url) as publisher, pytest.raises(BrokerUnavailable, match="a version between"):
        publisher.broadcast(["test/item", 1])


def test_keys_without_a_number_are_refused(start: Start, redis_url: str, prefix: str) -> None:
    client = redis.Redis.from_url(redis_url)
    client.hset(f"{prefix}:0:m", mapping={"epoch": "abc", "run": "def", "o": "1"})
    ears = start(redis_url)
    with pytest.raises(BrokerUnavailable, match="have schema before numbers"):
        ears.broker.ready()
    assert "before numbers" in ears.broker.health()
    assert client.hget(f"{prefix}:0:m", "epoch") == b"abc"
    client.delete(f"{prefix}:0:m")
    eventually(lambda: not ears.broker.health())
    ears.broker.ready()


def test_a_worker_that_others_have_overtaken_says_so_until_they_are_gone(
    start: Start, redis_url: str, prefix: str
) -> None:
    ears = start(redis_url)
    ears.broker.ready()
    ears.broker.clients.attach("ann", "1", "ws", True)
    client = redis.Redis.from_url(redis_url)
    epoch = client.hget(f"{prefix}:0:m", "epoch")
    # Its lease was over as they came.
    client.delete(f"{prefix}:0:schemas")
    client.hset(f"{prefix}:0:schemas", str(SCHEMA + 2), "9" * 13)
    client.hset(f"{prefix}:0:m", "span", f"{SCHEMA + 2} {SCHEMA + 2}")
    with pytest.raises(BrokerUnavailable, match="end those workers first"):
        ears.broker.publish(ANN, "[:test/item 1]")
    eventually(lambda: "end those workers first" in ears.broker.health())
    assert client.hkeys(f"{prefix}:0:schemas") == [str(SCHEMA + 2).encode()]
    client.delete(f"{prefix}:0:schemas")
    client.hset(f"{prefix}:0:m", "span", f"{SCHEMA + 1} {SCHEMA + 1}")
    eventually(lambda: not ears.broker.health())
    assert ears.broker.publish(ANN, "[:test/item 2]")
    assert ears.texts(1) == ["[:test/item 2]"]
    assert client.hget(f"{prefix}:0:m", "epoch") == epoch


def test_a_message_of_a_foreign_schema_is_counted_and_not_called_malformed(
    start: Start,
    redis_url: str,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = RateLimitedLogger(subscription.log)  # other tests use up what the module's may say
    monkeypatch.setattr(subscription, "rate_limited", own)
    ears = start(redis_url)
    ears.broker.listen()
    client = redis.Redis.from_url(redis_url)
    for _ in range(3):
        client.publish(f"{prefix}:0:*", f"{SCHEMA + 5} whatever they have come to")
    eventually(lambda: ears.broker.stats().get("broker_foreign") == 3)
    assert "broker_malformed" not in ears.broker.stats()
    assert caplog.text.count(f"a message with schema {SCHEMA + 5} was refused") == 1
