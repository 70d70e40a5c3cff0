"""What Redis holds is bounded, whoever sends what, and ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from flask_chsk.brokers.contract import (
    EVERYONE,
    KEPT_BYTES,
    KEYS,
    client_channel,
    topic_channel,
    user_channel,
)
from flask_chsk.brokers.redis import scripts
from flask_chsk.brokers.redis import sends as module
from tests.integration.brokers.conftest import Ears
from tests.integration.brokers.test_redis import attached
from tests.process import Redis

Start = Callable[..., Ears]
REPLY = "x" * 15_000
DAY = 86_400


class Memory:
    """A Redis of one broker alone."""

    def __init__(self, server: Redis, ears: Ears) -> None:
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.ears = ears
        self.base = ears.broker._redis.base  # type: ignore[attr-defined]

    @property
    def used(self) -> int:
        return int(self.client.info("memory")["used_memory"])

    def names(self) -> set[str]:
        return {key.removeprefix(self.base) for key in self.client.scan_iter(count=1000)}

    def kinds(self) -> set[str]:
        return {key.partition(":")[0] for key in self.names()}

    def wait(self, seconds: int) -> None:
        """As if so many had passed: for the broker, and for keys that expire."""
        self.client.hincrby(f"{self.base}m", "shift", seconds * 10**6)
        for key in self.client.scan_iter(count=1000):
            left = self.client.pttl(key)
            if left > seconds * 1000:
                self.client.pexpire(key, left - seconds * 1000)
            elif left > 0:
                self.client.delete(key)

    def look(self) -> None:
        """What each process does every three seconds."""
        self.ears.broker._lease.renew()  # type: ignore[attr-defined]


@pytest.fixture
def memory(start: Start, start_redis: Callable[..., Redis]) -> Iterator[Memory]:
    server = start_redis()
    ears = start(server.url)
    ears.broker.ready()
    yield Memory(server, ears)


def test_keyed_sends_of_one_client_are_bounded(memory: Memory) -> None:
    broker, before = memory.ears.broker, memory.used
    for number in range(2000):
        assert broker.sends.claim("tab:ann", f"key {number}", "token") is None
        broker.sends.keep_reply("tab:ann", f"key {number}", REPLY)
    assert memory.used - before < 1.5 * KEYS * len(REPLY)
    assert broker.sends.claim("tab:ann", f"key {2000 - KEYS}", "other") == REPLY
    assert broker.sends.claim("tab:ann", f"key {1999 - KEYS}", "other") is None
    memory.wait(1000)
    assert not any(key.startswith("y:") for key in memory.names())


def test_keyed_sends_of_all_clients_are_bounded(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEPT_BYTES == 64 * 1024 * 1024
    monkeypatch.setattr(module, "KEPT_BYTES", 1_000_000)
    broker, before = memory.ears.broker, memory.used
    for number in range(1000):
        broker.sends.claim(f"tab{number}:", "key", "token")
        broker.sends.keep_reply(f"tab{number}:", "key", REPLY)
    assert memory.used - before < 1_500_000
    assert broker.sends.claim("tab999:", "key", "other") == REPLY
    assert broker.sends.claim("tab0:", "key", "other") is None
    counted = memory.client.hgetall(f"{memory.base}yb")
    assert int(counted.pop("")) == sum(map(int, counted.values()))


def test_a_client_that_is_back_after_its_sends_expired_is_counted_anew(memory: Memory) -> None:
    broker = memory.ears.broker
    for _ in range(3):
        broker.sends.claim("tab:ann", "key", "token")
        broker.sends.keep_reply("tab:ann", "key", REPLY)
        memory.client.delete(f"{memory.base}y:tab:ann")
    broker.sends.claim("tab:ann", "key", "token")
    assert int(memory.client.hget(f"{memory.base}yb", "")) < 1000


def test_events_to_ever_new_anonymous_clients_are_bounded(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "'ha') > 10000" in scripts.PUBLISH.text
    small = scripts.Script("")
    small.text = scripts.PUBLISH.text.replace("'ha') > 10000", "'ha') > 100")
    small.sha = hashlib.sha1(small.text.encode()).hexdigest()
    monkeypatch.setattr(scripts, "PUBLISH", small)
    broker = memory.ears.broker
    cursor = broker.publish(EVERYONE, "[:a/b 0]") or 0
    for number in range(150):
        token = attached(broker, None, f"id{number}").token
        assert broker.publish(client_channel(None, f"id{number}"), "[:a/b 1]")
        broker.clients.detach(None, f"id{number}", token)
    assert sum(key.startswith("s:c:") for key in memory.names()) == 100
    for number, complete in ((0, False), (149, True)):
        channel = client_channel(None, f"id{number}")
        assert broker.since({channel: 0}, cursor, 1000).complete is complete


def test_a_topic_ends_with_its_last_member(memory: Memory) -> None:
    broker = memory.ears.broker
    for number in range(200):
        token = attached(broker, f"user{number}", "1").token
        broker.topics.join(f"user{number}", "news")
        broker.topics.join(f"user{number}", f"topic-{number}")
        broker.clients.detach(f"user{number}", "1", token)
    broker.topics.join("absent", "news")
    attached(broker, "user7", "1")
    memory.wait(DAY - 100)
    memory.look()
    assert len(broker.topics.members("news")) == 201
    memory.wait(200)
    for _ in range(3):
        memory.look()
    assert broker.topics.members("news") == {"user7"}
    assert {key for key in memory.names() if key[0] in "kj"} == {
        "k:news",
        "k:topic-7",
        "j:user7",
    }


def test_all_of_it_ends(memory: Memory) -> None:
    """A flood of each thing that makes keys, and then a day and nothing."""
    broker = memory.ears.broker
    memory.look()
    began = memory.kinds()
    for number in range(300):
        uid = f"user{number}"
        tab = attached(broker, uid, "tab", "ajax", v1=False)
        visitor = attached(broker, None, f"visitor{number}")
        broker.topics.join(uid, f"topic-{number % 30}")
        broker.publish(user_channel(uid), "[:a/b 1]")
        broker.publish(client_channel(uid, "tab"), "[:a/b 2]")
        broker.publish(client_channel(None, f"visitor{number}"), "[:a/b 3]")
        broker.publish(topic_channel(f"topic-{number % 30}"), "[:a/b 4]")
        broker.clients.ack(uid, "tab", tab.token, tab.offset)
        broker.sends.claim(f"tab:{uid}", "key", "token")
        broker.sends.keep_reply(f"tab:{uid}", "key", "[1]")
        broker.topics.leave(uid, "another")
        page = attached(broker, uid, "page", "ajax")
        broker.publish(user_channel(uid), "[:chsk/close]")
        broker.clients.detach(uid, "page", page.token)
        if number % 2:
            broker.topics.leave(uid, f"topic-{number % 30}")
        broker.clients.detach(uid, "tab", tab.token)
        broker.clients.detach(None, f"visitor{number}", visitor.token)
    assert {"s", "h", "g", "j", "k", "l", "x", "y", "r", "b", "ha", "js", "ys", "yb"} <= (
        memory.kinds()
    )
    assert not {"c", "w"} & memory.kinds()  # nobody is there
    memory.wait(DAY + 1)
    for _ in range(20):
        memory.look()
    broker.sends.claim("last:", "key", "token")
    left = memory.kinds() - began
    assert left <= {"y", "ys", "yb"}  # of that last one
    assert memory.client.zcard(f"{memory.base}ys") <= 300
