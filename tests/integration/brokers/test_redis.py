"""What only many processes have: clients that hop, workers that die, a Redis that fails."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
import redis

from flask_chsk.brokers.contract import (
    ANONYMOUS,
    Broker,
    client_channel,
    topic_channel,
    user_channel,
)
from flask_chsk.brokers.redis import calls, lease, scripts, subscription
from flask_chsk.brokers.redis.schema import SCHEMA
from flask_chsk.brokers.urls import make
from flask_chsk.config import Config
from flask_chsk.errors import (
    BadEvent,
    BrokerUnavailable,
    ConfigError,
    PackError,
    PublishUnknown,
    Refused,
    UsageError,
)
from flask_chsk.hub import Hub
from flask_chsk.protocol.uids import ALL_USERS_WITHOUT_UID
from flask_chsk.publisher import Publisher
from tests.e2e.proxy import Proxy
from tests.integration.brokers.conftest import Ears
from tests.process import ROOT, WAIT, Redis, eventually, free_port

ANN = user_channel("ann")
LIMITS = (256, 1 << 20, 120_000)  # events, bytes, milliseconds
Start = Callable[..., Ears]


@pytest.fixture
def pair(start: Start, redis_url: str) -> tuple[Ears, Ears]:
    """Two processes of one cluster; each hears what is said to it alone, and to all."""
    one, two = start(redis_url), start(redis_url)
    for ears in (one, two):
        ears.broker.ready()
        ears.broker.listen()
    return one, two


@pytest.fixture
def published(redis_url: str, prefix: str) -> Iterator[Publisher]:
    with Publisher(f"{redis_url}?prefix={prefix}") as publisher:
        yield publisher


Scripted = Callable[..., Any]


@pytest.fixture
def scripted(hub: Hub, redis_url: str, prefix: str) -> Iterator[Scripted]:
    """Scripts as they are, on keys of this test."""
    address = calls.address_of(f"{redis_url}?prefix={prefix}")
    connections_ = calls.Redis(address, hub, (256, 1 << 20, 120_000))
    yield connections_.call
    connections_.close()


def attached(broker: Broker, uid: str | None, client_id: str, kind: str = "ws", v1: bool = True):  # type: ignore[no-untyped-def]
    arrival = broker.clients.attach(uid, client_id, kind, v1)
    assert arrival is not None
    return arrival


# processes -----------------------------------------------------------------------------------


def test_an_event_is_heard_where_its_user_is_and_only_there(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    attached(one.broker, "ann", "1")
    attached(two.broker, "bob", "1")
    two.broker.publish(ANN, "[:a/b 1]")
    one.broker.publish(user_channel("bob"), "[:a/b 2]")
    assert one.texts(1) == ["[:a/b 1]"]
    assert two.texts(1) == ["[:a/b 2]"]


def test_a_publish_is_one_command_and_one_message_for_each_process(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one, two = start(server.url), start(server.url)
    for ears in (one, two):
        ears.broker.ready()
        for n in range(5):
            attached(ears.broker, f"user{n}", f"{id(ears)}")
    for n in range(5):
        one.broker.topics.join(f"user{n}", "news")
    for ears in (one, two):
        ears.broker.since({"t:news": 0}, ears.watermark(), 1000)  # subscribes, as a server would
    one.broker.publish("t:news", "[:a/b 1]")  # Redis knows the script now
    admin = redis.Redis.from_url(server.url)
    eventually(lambda: {one.heard[-1].text, two.heard[-1].text} == {"[:a/b 1]"})
    before = len(one.heard), len(two.heard), admin.info("commandstats")
    one.broker.publish("t:news", "[:a/b 2]")
    one.broker.publish("*", "[:a/b 3]")
    eventually(lambda: {one.heard[-1].text, two.heard[-1].text} == {"[:a/b 3]"})
    after = len(one.heard), len(two.heard), admin.info("commandstats")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2)
    calls = [stats["cmdstat_evalsha"]["calls"] for *_, stats in (before, after)]
    assert 2 <= calls[1] - calls[0] <= 4  # the leases of two processes may fall between
    published = [stats["cmdstat_publish"]["calls"] for *_, stats in (before, after)]
    assert 2 <= published[1] - published[0] <= 4


def test_a_window_is_trimmed_an_eighth_at_a_time_and_stays_complete(
    start: Start, redis_url: str, prefix: str
) -> None:
    one = start(redis_url, recovery_events=16)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    kept = []
    offsets = []
    for n in range(60):
        offsets.append(one.broker.publish(ANN, f"[:a/b {n}]") or 0)
        kept.append(redis.Redis.from_url(redis_url).xlen(f"{prefix}:0:s:{ANN}"))
    assert (max(kept), min(kept[16:])) == (18, 16)
    for missed in (1, 16):
        page = one.broker.since({ANN: 0}, offsets[-missed - 1], 1 << 20)
        assert (page.complete, len(page.pushes)) == (True, missed)
    assert not one.broker.since({ANN: 0}, offsets[0], 1 << 20).complete


def test_whoever_had_a_client_is_told_that_it_hopped(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    here = attached(one.broker, "ann", "1", "ajax")
    there = attached(two.broker, "ann", "1", "poll")
    one.wait("released", "ann", "1", here.token)
    assert (here.first, there.first, there.known) == (True, False, True)
    assert not one.broker.clients.detach("ann", "1", here.token)
    assert two.broker.clients.detach("ann", "1", there.token)


def test_a_late_poll_does_not_displace_a_websocket(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    attached(one.broker, "ann", "1", "ws")
    assert two.broker.clients.attach("ann", "1", "poll", True) is None
    assert two.broker.clients.attach("ann", "1", "ajax", True) is not None


def test_a_websocket_is_tried_while_its_client_polls(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    attached(one.broker, "ann", "1", "ajax")
    assert attached(two.broker, "ann", "1", "try").trial
    assert one.broker.clients.connected().ajax == {"ann"}
    assert not attached(two.broker, "ann", "1", "ws").trial
    eventually(lambda: one.broker.clients.connected() == ({"ann"}, set(), {"ann"}))


def test_whom_another_process_has_by_now_is_not_taken_back(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    mine = attached(one.broker, "ann", "1")
    theirs = attached(two.broker, "ann", "1")
    assert one.broker.clients.attach("ann", "1", "ws", True, mine.token) is None
    assert two.broker.clients.attach("ann", "1", "ws", True, theirs.token) is not None


def test_a_client_without_a_cursor_goes_on_where_it_was_served(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    here = attached(one.broker, "ann", "1", "ajax", v1=False)
    offset = one.broker.publish(ANN, "[:a/b 1]") or 0
    assert one.broker.clients.ack("ann", "1", here.token, offset) is True
    there = attached(two.broker, "ann", "1", "poll", v1=False)
    assert (there.known, there.cursor) == (True, offset)
    assert one.broker.clients.ack("ann", "1", here.token, offset + 1) is False


def test_what_a_websocket_got_nobody_noted_until_it_was_lost(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    socket = attached(one.broker, "ann", "1", "ws", v1=False)
    assert attached(two.broker, "ann", "1", "ws", v1=False).cursor is None
    again = attached(one.broker, "ann", "1", "ws", v1=False)
    one.broker.clients.ack("ann", "1", again.token, 42)
    assert attached(two.broker, "ann", "1", "ws", v1=False).cursor == 42
    assert socket.cursor is None


def test_a_word_reaches_one_process(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    one.broker.tell(two.broker.name, "[1 2]")
    two.wait("told", "[1 2]")


def test_a_send_that_comes_again_is_one_processs_and_its_reply_is_kept(
    pair: tuple[Ears, Ears],
) -> None:
    one, two = pair
    assert one.broker.sends.claim("1:ann", "k", "first") is None
    assert one.broker.sends.claim("1:ann", "k", "first") is None  # its answer was lost: asked again
    assert two.broker.sends.claim("1:ann", "k", "second") == ""
    one.broker.sends.keep_reply("1:ann", "k", "[1]")
    assert two.broker.sends.claim("1:ann", "k", "second") == "[1]"
    assert two.broker.sends.claim("1:bob", "k", "second") is None


def test_clients_that_can_be_asked_are_known_everywhere(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    attached(one.broker, "ann", "1")
    attached(two.broker, "ann", "2", v1=False)
    assert two.broker.clients.askable("ann") == {"1"}


def test_the_clients_of_a_user_are_limited_over_all(start: Start, redis_url: str) -> None:
    brokers = [start(redis_url, max_clients_per_uid=2).broker for _ in range(2)]
    for number, broker in enumerate(brokers):
        broker.ready()
        attached(broker, "ann", str(number))
    with pytest.raises(Refused) as refused:
        brokers[0].clients.attach("ann", "3")
    assert refused.value.status == 429


def test_who_is_connected_is_known_everywhere(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    ann = attached(one.broker, "ann", "1", "ws")
    attached(two.broker, "ann", "2", "ajax")
    attached(two.broker, None, "3", "ajax")
    eventually(lambda: one.broker.clients.connected() == ({"ann"}, {"ann"}, {"ann"}))
    one.broker.clients.detach("ann", "1", ann.token)
    eventually(lambda: two.broker.clients.connected() == (set(), {"ann"}, {"ann"}))


def test_an_unused_subscription_ends_unless_it_is_needed(
    pair: tuple[Ears, Ears], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "LINGER", 0.0)
    one, two = pair
    for uid in ("ann", "bob"):
        attached(one.broker, uid, "1")
    one.needed = {"u:bob"}
    one.hub.run(one.broker.unused, ANN)
    one.hub.run(one.broker.unused, user_channel("bob"))
    time.sleep(0.01)
    one.hub.run(one.broker.sweep)
    eventually(lambda: one.broker.stats()["subscriptions"] == 3)  # its own, "*", bob
    admin = redis.Redis.from_url(redis_url)
    channel = one.broker._subscription._base + ANN.encode()  # type: ignore[attr-defined]
    eventually(lambda: admin.pubsub_numsub(channel)[0][1] == 0)
    two.broker.publish(ANN, "[:a/b 1]")
    two.broker.publish(user_channel("bob"), "[:a/b 2]")
    assert one.texts(1) == ["[:a/b 2]"]
    attached(one.broker, "ann", "1")
    two.broker.publish(ANN, "[:a/b 3]")
    assert one.texts(2) == ["[:a/b 2]", "[:a/b 3]"]


def test_the_subscription_of_a_request_that_was_late_ends(
    pair: tuple[Ears, Ears], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "LINGER", 0.05)
    one, two = pair
    attached(one.broker, "ann", "1", kind="ws")
    assert two.broker.clients.attach("ann", "1", "poll", True) is None
    assert two.broker.stats()["subscriptions"] == 3  # its own, "*", ann
    time.sleep(0.2)
    two.hub.run(two.broker.sweep)
    eventually(lambda: two.broker.stats()["subscriptions"] == 2)


def test_that_an_event_waits_for_no_window_is_told_with_it(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    attached(one.broker, "ann", "1")
    for flush in (False, True):
        two.broker.publish(ANN, "[:a/b 1]", flush=flush)
    one.texts(2)
    assert [push.flush for push in one.heard] == [False, True]


def test_who_watches_is_told_of_comings_and_nobody_else_is(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    two.broker.clients.watch()
    attached(one.broker, "ann", "1")
    two.wait("changed")
    one.broker.publish("*", "[:a/b 1]")
    one.texts(1)
    assert ("changed",) not in one.happened


@pytest.mark.usefixtures("hasty")
def test_a_dead_process_is_signed_off_by_another(start: Start, redis_url: str) -> None:
    one, two = start(redis_url), start(redis_url)
    one.broker.ready()
    two.broker.ready()
    attached(one.broker, "ann", "1")
    attached(one.broker, "bob", "1")
    attached(two.broker, "bob", "2")
    one.broker.stop()
    two.wait("presence", "ann", False)
    eventually(lambda: two.broker.clients.connected().any == {"bob"})
    assert [what for what in two.happened if what[0] == "presence"] == [("presence", "ann", False)]


@pytest.mark.usefixtures("hasty")
def test_a_dead_process_with_a_crowd_is_signed_off_to_the_last(
    start: Start, redis_url: str
) -> None:
    one, two = start(redis_url), start(redis_url)
    one.broker.ready()
    two.broker.ready()
    for n in range(2500):
        attached(one.broker, f"user{n}", "1")
    one.broker.stop()
    eventually(lambda: len(two.happened) >= 2500)
    gone = [what[1] for what in two.happened if what[0] == "presence"]
    assert sorted(gone) == sorted(f"user{n}" for n in range(2500))
    assert two.broker.clients.connected().any == set()


def test_a_process_that_others_began_to_sign_off_is_told_whoever_it_lets_in_before(
    scripted: Scripted,
) -> None:
    for n in range(3):
        scripted(scripts.ATTACH, f"u{n}", f"id{n}", f"t{n}", "slow", "ws", 1, 9000, 64, "", ".")
    assert scripted(scripts.LEASE, "slow", 9000, *LIMITS)[2:5] == [1, 0, 0]
    scripted(scripts.RETIRE, "slow", -1)  # its lease is over
    more, *gone = scripted(scripts.REAP, 1)
    assert (more, len(gone)) == (1, 2)  # one user, and when
    scripted(scripts.ATTACH, "new", "id", "t", "slow", "ws", 1, 9000, 64, "", ".")
    known = [scripted(scripts.LEASE, "slow", 9000, *LIMITS)[2] for _ in range(2)]
    assert known == [-1, 1]
    assert scripted(scripts.REAP, 1) == [0]


@pytest.mark.usefixtures("hasty")
def test_nobody_is_signed_off_because_redis_stood_still(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    ears = [start(server.url) for _ in range(3)]
    for n, one in enumerate(ears):
        one.broker.ready()
        attached(one.broker, f"user{n}", "1")
        time.sleep(0.15)  # their leases end one after another
    server.kill(signal.SIGSTOP)
    time.sleep(2.5)  # longer than a lease
    server.kill(signal.SIGCONT)
    time.sleep(3.0)  # and until each may judge again
    said = [what for one in ears for what in one.happened if what[0] in ("presence", "reattach")]
    assert said == []
    assert ears[0].broker.clients.connected().any == {"user0", "user1", "user2"}


@pytest.mark.usefixtures("hasty")
def test_who_was_taken_for_dead_lets_its_clients_in_again(start: Start, redis_url: str) -> None:
    one = start(redis_url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    prefix = one.broker._redis.base  # type: ignore[attr-defined]
    eventually(lambda: one.broker._lease.leased_before)  # type: ignore[attr-defined]
    redis.Redis.from_url(redis_url).delete(f"{prefix}leases")
    one.wait("reattach", False)


# faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6379", "is not known"),
        ("http://localhost", "is not known"),
        ("redis://localhost:abc/0", "number of a database in the end"),
        ("redis://localhost/x", "number of a database"),
        ("redis://localhost/0?prefx=a", "one of prefx"),
    ],
)
def test_a_url_that_cannot_be_used_is_said_before_anything_begins(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(Config(broker_url=url))


def test_without_redis_everything_fails_at_once(start: Start) -> None:
    broker = start("redis://127.0.0.1:1").broker
    with pytest.raises(BrokerUnavailable, match="away"):
        broker.ready()
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(BrokerUnavailable, match="away"):
            broker.publish(ANN, "[:a/b 1]")
        with pytest.raises(BrokerUnavailable):
            broker.clients.attach("ann", "1")
    assert time.monotonic() - began < 20.0  # forty calls
    assert broker.health()


def test_a_redis_that_comes_later_is_found(start: Start, start_redis: Callable[..., Redis]) -> None:
    port = free_port()
    one = start(f"redis://127.0.0.1:{port}/0")
    with pytest.raises(BrokerUnavailable, match="away"):
        one.broker.ready()
    start_redis(port)
    eventually(lambda: not one.broker.health())
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    assert one.texts(1) == ["[:a/b 1]"]


def test_an_empty_redis_after_a_restart_is_a_new_epoch(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    cursor = one.broker.publish(ANN, "[:a/b 1]") or 0
    one.texts(1)
    epoch = one.broker.epoch
    server.stop()
    eventually(one.broker.health)
    with pytest.raises(BrokerUnavailable):
        one.broker.publish(ANN, "[:a/b 2]")
    start_redis(server.port)
    eventually(lambda: one.broker.epoch != epoch)
    one.wait("reattach", True)
    eventually(lambda: not one.broker.health())
    attached(one.broker, "ann", "1")
    assert not one.broker.since({ANN: 0}, cursor, 1000).more
    offset = one.broker.publish(ANN, "[:a/b 3]") or 0
    assert offset > cursor
    assert one.texts(2) == ["[:a/b 1]", "[:a/b 3]"]


def test_keys_that_were_deleted_are_a_new_epoch(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one, two = start(server.url), start(server.url)
    one.broker.ready()
    two.broker.ready()
    epoch = one.broker.epoch
    redis.Redis.from_url(server.url).flushall()
    attached(one.broker, "ann", "1")
    eventually(lambda: one.broker.epoch != epoch)
    attached(two.broker, "ann", "2")
    two.wait("reattach", True)
    one.broker.publish(ANN, "[:a/b 1]")
    assert two.texts(1) == ["[:a/b 1]"]
    assert two.broker.epoch == one.broker.epoch


def test_whoever_left_since_the_counter_began_anew_is_not_joined_again(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one, two = start(server.url), start(server.url)
    for ears in (one, two):
        ears.broker.ready()
        attached(ears.broker, "ann", f"{id(ears)}")
    for topic in ("left", "kept"):
        one.broker.topics.join("ann", topic)
    redis.Redis.from_url(server.url).flushall()
    two.broker.topics.leave("ann", "left")
    assert all(one.broker.topics.rejoin("ann", topic) for topic in ("left", "kept"))
    assert [one.broker.topics.members(topic) for topic in ("left", "kept")] == [set(), {"ann"}]
    assert one.broker.topics.join("ann", "left")  # on purpose


def test_nothing_is_dropped_while_clients_are_let_in_again(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    assert one.broker.publish(ANN, "[:a/b 0]") is None  # not there
    attached(one.broker, "ann", "1")
    redis.Redis.from_url(server.url).flushall()
    assert one.broker.publish(ANN, "[:a/b 1]") is not None
    assert one.texts(1) == ["[:a/b 1]"]


def test_letting_in_again_may_be_asked_for_twice(start: Start, redis_url: str) -> None:
    one = start(redis_url)
    one.broker.ready()
    mine = attached(one.broker, "ann", "1")
    for _ in range(2):  # as where the answer was lost
        again = one.broker.clients.attach("ann", "1", "ws", True, mine.token)
        assert again is not None
        assert again.token == mine.token


def test_a_lost_subscription_comes_back_and_says_so(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    redis.Redis.from_url(server.url).client_kill_filter(_type="pubsub")
    missed = one.broker.publish(ANN, "[:a/b 1]") or 0
    eventually(lambda: one.happened.count(("lapsed",)) == 2)
    page = one.broker.since({ANN: 0}, missed - 1, 1000)
    assert [push.text for push in page.pushes] == ["[:a/b 1]"]
    one.broker.publish(ANN, "[:a/b 2]")
    eventually(lambda: [push.text for push in one.heard][-1:] == ["[:a/b 2]"])
    assert one.broker.stats()["broker_subscriptions_lost"] == 1


def test_a_deaf_subscription_is_noticed_by_its_probe(
    start: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW", 0.1)
    monkeypatch.setattr(subscription, "PROBE_TIMEOUT", 2.0)
    one = start(redis_url)
    one.broker.ready()
    eventually(lambda: one.broker.stats()["subscriptions"] == 2)
    admin = redis.Redis.from_url(redis_url)
    heard: Any = one.broker._subscription  # type: ignore[attr-defined]
    name = heard._base + heard._inbox.encode()
    # Redis takes the subscription away, and the connection stays.
    lapses = one.happened.count(("lapsed",))
    heard._connection.wire.send_command("UNSUBSCRIBE", name)
    eventually(lambda: one.happened.count(("lapsed",)) > lapses)
    eventually(lambda: admin.pubsub_numsub(name)[0][1] == 1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lease is renewed: a broker's one connection is its test's."""
    monkeypatch.setattr(lease, "RENEW", 3600.0)
    monkeypatch.setattr(subscription, "PROBE_TIMEOUT", 3600.0)


@pytest.mark.usefixtures("alone")
def test_an_answer_that_was_lost_is_asked_for_and_nothing_happens_twice(
    start: Start, redis_url: str
) -> None:
    one = start(redis_url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    [connection] = one.broker._redis._idle  # type: ignore[attr-defined]
    read = connection.wire.read_response

    def lose(*args: object, **kwargs: object) -> object:
        read(*args, **kwargs)
        raise redis.ConnectionError("cut behind the question")

    connection.wire.read_response = lose
    offset = one.broker.publish(ANN, "[:a/b 2]")
    one.broker.publish(ANN, "[:a/b 3]")
    assert one.texts(3) == ["[:a/b 1]", "[:a/b 2]", "[:a/b 3]"]
    assert one.heard[1].offset == offset


@pytest.mark.usefixtures("alone")
def test_an_answer_that_cannot_be_had_is_unknown(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    [connection] = one.broker._redis._idle  # type: ignore[attr-defined]

    def lose(*args: object, **kwargs: object) -> object:
        server.stop()
        raise redis.ConnectionError("cut behind the question")

    connection.wire.read_response = lose
    with pytest.raises(PublishUnknown, match="may have been sent"):
        one.broker.publish(ANN, "[:a/b 2]")


def test_a_request_that_arrives_after_its_repetition_happens_once(
    start: Start, redis_url: str, scripted: Scripted
) -> None:
    one = start(redis_url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    asked = (scripts.PUBLISH, ANN, ANN, "[:a/b 1]", "", "0", "slot", 7)
    assert scripted(*asked) == scripted(*asked)
    one.broker.publish(ANN, "[:a/b 2]")
    assert one.texts(2) == ["[:a/b 1]", "[:a/b 2]"]


@pytest.mark.usefixtures("alone")
def test_a_connection_that_rested_long_is_not_trusted(
    start: Start, start_redis: Callable[..., Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    admin = redis.Redis.from_url(server.url)

    def connections_made_by(publishes: int) -> int:
        before = admin.info("stats")["total_connections_received"]
        for _ in range(publishes):
            one.broker.publish(ANN, "[:a/b 1]")
        return int(admin.info("stats")["total_connections_received"] - before)

    assert connections_made_by(3) == 0
    monkeypatch.setattr(calls, "IDLE", 0.0)
    assert connections_made_by(3) == 3


def test_a_redis_that_was_left_is_not_sent_to_though_it_answers(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    first, second = start_redis(), start_redis()
    with Proxy(first.port, http=False) as proxy:
        one = start(f"redis://127.0.0.1:{proxy.port}/0")
        one.broker.ready()
        attached(one.broker, "ann", "1")
        one.broker.publish(ANN, "[:a/b 1]")
        one.texts(1)
        epoch = one.broker.epoch
        proxy.backends = [second.port]  # as when a name is moved: what is open stays open
        redis.Redis.from_url(first.url).client_kill_filter(_type="pubsub")
        eventually(lambda: one.broker.epoch != epoch)
        eventually(lambda: not one.broker.health())
        attached(one.broker, "ann", "1")
        one.broker.publish(ANN, "[:a/b 2]")
        assert one.texts(2) == ["[:a/b 1]", "[:a/b 2]"]


def test_a_redis_that_stands_still_is_waited_for_a_moment_and_hears_nothing_twice(
    start: Start, start_redis: Callable[..., Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "ANSWER", 1.0)
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    server.kill(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(PublishUnknown, match="may have been sent"):
        one.broker.publish(ANN, "[:a/b 2]")
    with pytest.raises(BrokerUnavailable, match="away"):
        one.broker.publish(ANN, "[:a/b never]")
    assert time.monotonic() - began < 20.0
    monkeypatch.setattr(calls, "ANSWER", WAIT)
    server.kill(signal.SIGCONT)

    def sent() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            return one.broker.publish(ANN, "[:a/b 3]") is not None
        return False

    eventually(sent)
    eventually(lambda: one.heard[-1].text == "[:a/b 3]")
    assert [push.text for push in one.heard] == ["[:a/b 1]", "[:a/b 2]", "[:a/b 3]"]


@pytest.fixture
def replicated(start_redis: Callable[..., Redis]) -> Iterator[tuple[Redis, Redis, Proxy]]:
    """A Redis, its replica, and an address that is the first one's till a test says otherwise."""
    first, second = start_redis(), start_redis()
    redis.Redis.from_url(first.url).config_set("repl-diskless-sync-delay", 0)
    admin = redis.Redis.from_url(second.url)
    admin.replicaof("127.0.0.1", first.port)
    eventually(lambda: admin.info("replication")["master_link_status"] == "up")
    with Proxy(first.port, http=False) as proxy:
        yield first, second, proxy


def has_it_all(replica: Redis, of: Redis) -> bool:
    """Not by WAIT: on a connection that wrote nothing it waits for nothing."""
    there = redis.Redis.from_url(replica.url).info("replication")["slave_repl_offset"]
    return bool(there >= redis.Redis.from_url(of.url).info("replication")["master_repl_offset"])


@pytest.mark.parametrize("lost", [False, True], ids=["nothing lost", "the last writes lost"])
def test_a_replica_that_takes_over_is_a_new_epoch(
    start: Start, replicated: tuple[Redis, Redis, Proxy], lost: bool
) -> None:
    first, second, proxy = replicated
    one = start(f"redis://127.0.0.1:{proxy.port}/0")
    one.broker.ready()
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    eventually(lambda: has_it_all(second, first))
    if lost:
        redis.Redis.from_url(second.url).replicaof("no", "one")
    cursor = one.broker.publish(ANN, "[:a/b 2]") or 0
    one.texts(2)
    epoch = one.broker.epoch
    first.stop(signal.SIGKILL)
    redis.Redis.from_url(second.url).replicaof("no", "one")
    proxy.backends = [second.port]
    eventually(lambda: one.broker.epoch != epoch)
    one.wait("reattach", True)  # who was connected there is, without coming anew
    eventually(lambda: not one.broker.health())
    offset = one.broker.publish(ANN, "[:a/b 3]") or 0
    assert offset > cursor
    assert one.texts(3) == ["[:a/b 1]", "[:a/b 2]", "[:a/b 3]"]


def test_a_redis_that_became_a_replica_is_left_for_the_one_at_its_address(
    start: Start, replicated: tuple[Redis, Redis, Proxy]
) -> None:
    first, second, proxy = replicated
    one = start(f"redis://127.0.0.1:{proxy.port}/0")
    one.broker.ready()
    attached(one.broker, "ann", "1")
    one.broker.publish(ANN, "[:a/b 1]")
    eventually(lambda: has_it_all(second, first))
    proxy.backends = [second.port]  # connections that there are stay where they are
    redis.Redis.from_url(second.url).replicaof("no", "one")
    redis.Redis.from_url(first.url).replicaof("127.0.0.1", second.port)
    with pytest.raises(BrokerUnavailable, match="read only replica"):
        one.broker.publish(ANN, "[:a/b 2]")
    assert one.broker.publish(ANN, "[:a/b 3]")
    eventually(lambda: one.happened.count(("lapsed",)) == 2)  # the subscription has moved, too
    eventually(lambda: one.broker.stats()["subscriptions"] == 3)
    one.broker.publish(ANN, "[:a/b 4]")
    eventually(lambda: one.heard[-1].text == "[:a/b 4]")
    page = one.broker.since({ANN: 0}, one.heard[-1].offset - 1, 1000)
    assert (page.complete, [push.text for push in page.pushes]) == (True, ["[:a/b 4]"])


def test_the_permissions_that_the_docs_name_are_enough(
    start: Start, start_redis: Callable[..., Redis], prefix: str
) -> None:
    text = (ROOT / "docs" / "broker.rst").read_text(encoding="utf-8")
    found = re.search(r"``(ACL SETUSER [^`]*)``", text)
    assert found is not None
    server = start_redis()
    redis.Redis.from_url(server.url).execute_command(found[1].replace("chsk:", f"{prefix}:"))
    one = start(server.url.replace("//", "//chat:password@"))
    two = start(server.url.replace("//", "//chat:password@"))
    one.broker.ready()
    two.broker.ready()
    arrival = attached(one.broker, "ann", "1")
    cursor = two.broker.publish(ANN, "[:a/b 1]") or 0
    one.texts(1)
    assert one.broker.topics.join("ann", "news")
    assert two.broker.topics.members("news") == {"ann"}
    assert two.broker.since({ANN: 0}, cursor - 1, 1000).complete
    two.broker.clients.watch()
    assert one.broker.clients.detach("ann", "1", arrival.token)
    two.wait("changed")
    assert one.broker.topics.leave("ann", "news")
    one.broker.stop()
    two.hub.run(two.broker._lease.due, 0.0)  # type: ignore[attr-defined]
    two.broker.retire(0.0)
    assert not two.broker.health()


@pytest.mark.usefixtures("hasty")
def test_a_full_redis_refuses_and_nothing_was_sent(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one = start(server.url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    admin = redis.Redis.from_url(server.url)
    admin.config_set("maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match=r"refuses: .*maxmemory'\.$"):
        one.broker.publish(ANN, "[:a/b 1]")
    eventually(one.broker.health)
    admin.config_set("maxmemory", "0")
    one.broker.publish(ANN, "[:a/b 2]")
    assert one.texts(1) == ["[:a/b 2]"]
    eventually(lambda: not one.broker.health())


def test_a_redis_that_may_forget_is_refused_until_it_may_not(
    start: Start, start_redis: Callable[..., Redis], hasty: None
) -> None:
    server = start_redis()
    admin = redis.Redis.from_url(server.url)
    admin.config_set("maxmemory-policy", "allkeys-lru")
    one = start(server.url)
    with pytest.raises(ConfigError, match="set maxmemory-policy noeviction"):
        one.broker.ready()
    assert "noeviction" in one.broker.health()
    admin.config_set("maxmemory-policy", "noeviction")
    eventually(lambda: not one.broker.health())
    one.broker.ready()


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"EPOCH 99999999999999999 5 0 8 0\nu:ann[:a/b 1]", "doubted"),
        (b"EPOCH OFFSET 5 0 8\nu:ann[:a/b 1]", "malformed"),
        (b"EPOCH OFFSET 5 0 900 0\nu:ann[:a/b 1]", "malformed"),
        (b"EPOCH OFFSET 5 0 8 0\nu:ann[:a/b 1", "malformed"),
        (b"EPOCH OFFSET 5 0 8 0\nu:ann[:a 12]]", "malformed"),
        (b"EPOCH OFFSET 5 0 2 0\nu:ann\xff\xff", "malformed"),
    ],
)
def test_what_a_foreign_writer_said_wrongly_is_refused_and_counted(
    start: Start, redis_url: str, text: bytes, counted: str
) -> None:
    one = start(redis_url)
    one.broker.ready()
    attached(one.broker, "ann", "1")
    base = one.broker._redis.base  # type: ignore[attr-defined]
    wrong = text.replace(b"EPOCH", b"%d %s" % (SCHEMA, one.broker.epoch.encode()))
    wrong = wrong.replace(b"OFFSET", b"%d" % (one.watermark() + 1))
    redis.Redis.from_url(redis_url).publish(f"{base}u:ann", wrong)
    one.broker.publish(ANN, "[:a/b 2]")
    assert one.texts(1) == ["[:a/b 2]"]
    stats = one.broker.stats()
    assert {name: stats.get(f"broker_{name}", 0) for name in ("malformed", "doubted")} == {
        "malformed": 0,
        "doubted": 0,
        counted: 1,
    }


# from outside --------------------------------------------------------------------------------


def test_a_publisher_reaches_clients(pair: tuple[Ears, Ears], published: Publisher) -> None:
    one, two = pair
    attached(one.broker, "ann", "1")
    attached(two.broker, "bob", "1")
    offsets = [
        published.send("ann", ["order/shipped", {"id": 7}]),
        published.send("ann", ["order/shipped", 8], client_id="1"),
        published.broadcast(["news/all", 1]),
    ]
    assert one.texts(3) == ["[:order/shipped {:id 7}]", "[:order/shipped 8]", "[:news/all 1]"]
    assert [push.offset for push in one.heard] == offsets
    assert two.texts(1) == ["[:news/all 1]"]


def test_a_publisher_says_who_is_not_there(
    start: Start, redis_url: str, published: Publisher
) -> None:
    start(redis_url).broker.ready()
    assert published.send("nobody", ["a/b", 1]) is None


def test_a_publisher_raises_when_redis_is_away() -> None:
    publisher = Publisher("redis://127.0.0.1:1/0")
    with pytest.raises(BrokerUnavailable, match="away"):
        publisher.send("ann", ["a/b", 1])


def test_a_publisher_packs_what_pack_default_knows(
    start: Start, redis_url: str, prefix: str
) -> None:
    one = start(redis_url)
    attached(one.broker, "ann", "1")
    noon = datetime(2026, 7, 1, 12)
    with pytest.raises(PackError, match="naive datetime; give it a zone"):
        Publisher(redis_url).send("ann", ["order/shipped", noon])
    with Publisher(f"{redis_url}?prefix={prefix}", pack_default=datetime.isoformat) as publisher:
        publisher.send("ann", ["order/shipped", noon])
    assert one.texts(1) == ['[:order/shipped "2026-07-01T12:00:00"]']


def test_a_publisher_gives_a_zone_to_datetimes_that_have_none(
    start: Start, redis_url: str, prefix: str
) -> None:
    one = start(redis_url)
    attached(one.broker, "ann", "1")
    url = f"{redis_url}?prefix={prefix}"
    noon = datetime(2026, 7, 1, 12)
    for zone in ("UTC", timezone.utc, "Europe/Berlin"):
        with Publisher(url, naive_datetimes=zone, pack_default=str) as publisher:
            publisher.send("ann", ["order/shipped", [noon, type]])
    utc, berlin = "2026-07-01T12:00:00.000-00:00", "2026-07-01T10:00:00.000-00:00"
    assert one.texts(3) == [
        f'[:order/shipped [#inst "{noon}" "<class \'type\'>"]]' for noon in (utc, utc, berlin)
    ]
    with pytest.raises(ConfigError, match="naive_datetimes: there is no zone 'Mars'"):
        Publisher(url, naive_datetimes="Mars")


def test_a_publisher_checks_before_it_sends(published: Publisher) -> None:
    with pytest.raises(BadEvent):
        published.send("ann", ["no-namespace"])
    with pytest.raises(BadEvent):
        published.send("ann", ["chsk/close"])
    with pytest.raises(ConfigError, match="redis://"):
        Publisher("memory://")
    for uid in (None, True, 1.5, b"ann", ["ann"], ""):
        with pytest.raises(UsageError, match="a uid "):
            published.send(uid, ["a/b", 1])


def test_a_publisher_reaches_the_anonymous_by_their_name(
    start: Start, redis_url: str, published: Publisher
) -> None:
    one = start(redis_url)
    one.broker.ready()
    attached(one.broker, None, "1")
    published.send(ALL_USERS_WITHOUT_UID, ["a/b", 1])
    assert one.texts(1) == ["[:a/b 1]"]


def test_a_poller_hears_anywhere_why_it_was_closed(pair: tuple[Ears, Ears]) -> None:
    one, two = pair
    close = '[:chsk/close {:code 4005, :reason "signed out"}]'
    for client_id in ("1", "2", "3"):
        attached(one.broker, "ann", client_id, "ajax")
    attached(one.broker, "ann", "4", "ws")
    one.broker.publish(client_channel("ann", "1"), close)
    assert (
        attached(two.broker, "ann", "1", "poll").missed_close == close
    )  # one is still to hear of it
    assert attached(two.broker, "ann", "1", "poll").missed_close is None  # once
    assert (
        attached(two.broker, "ann", "2", "poll").missed_close is None
    )  # it was of the other client
    one.broker.publish(ANN, close)
    assert attached(two.broker, "ann", "2", "poll").missed_close == close
    other = two.broker.clients.attach("ann", "3", "poll", True, digest="another's")
    assert other is not None and other.missed_close is None
    attached(two.broker, "ann", "1", "ajax")  # opened again: the next close is a later one
    assert attached(one.broker, "ann", "1", "poll").missed_close is None
    attached(two.broker, "ann", "4", "ajax")
    assert (
        attached(one.broker, "ann", "4", "poll").missed_close is None
    )  # a WebSocket hears it itself


def test_a_close_of_a_topic_or_of_the_anonymous_is_heard_by_its_pollers(
    pair: tuple[Ears, Ears],
) -> None:
    one, two = pair
    for uid, client_id in (("ann", "1"), ("news", "2"), (None, "3")):
        attached(one.broker, uid, client_id, "ajax")
    one.broker.topics.join("ann", "news")
    one.broker.publish(topic_channel("news"), "[:chsk/close]")
    one.broker.publish(ANONYMOUS, "[:chsk/close]")
    assert attached(two.broker, "ann", "1", "poll").missed_close == "[:chsk/close]"
    assert attached(two.broker, "news", "2", "poll").missed_close is None  # a user of the same name
    assert attached(two.broker, None, "3", "poll").missed_close == "[:chsk/close]"


def test_an_anonymous_id_that_was_taken_while_redis_began_anew_goes_back_to_its_owner(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    server = start_redis()
    one, two = start(server.url), start(server.url)
    one.broker.ready()
    two.broker.ready()
    mine = one.broker.clients.attach(None, "1", "ws", True, digest="mine")
    assert mine is not None
    redis.Redis.from_url(server.url).flushall()
    taken = two.broker.clients.attach(None, "1", "ws", True, digest="another's")
    assert taken is not None
    assert one.broker.clients.attach(None, "1", "ws", True, mine.token, digest="mine") is not None
    two.wait("released", None, "1", taken.token)
    assert two.broker.clients.holder(None, "1") == "mine"


def test_an_anonymous_id_that_was_taken_while_its_worker_passed_for_dead_goes_back_to_its_owner(
    pair: tuple[Ears, Ears],
) -> None:
    one, two = pair
    mine = one.broker.clients.attach(None, "1", "ws", True, digest="mine")
    assert mine is not None
    one.broker.clients.detach(
        None, "1", mine.token
    )  # as another worker does when the lease is over
    taken = two.broker.clients.attach(None, "1", "ws", True, digest="another's")
    assert taken is not None
    assert one.broker.clients.attach(None, "1", "ws", True, mine.token, digest="mine") is not None
    two.wait("released", None, "1", taken.token)
    assert two.broker.clients.holder(None, "1") == "mine"


def test_under_gevent_greenlets_and_native_threads_publish(redis_url: str, prefix: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.brokers.patched", redis_url, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heard = ["[:from/greenlet]", *[f"[:from/thread {n}]" for n in range(3)]]
    assert done.stdout == f"{heard} 5\n"
