"""Keyed sends that come again: within one worker, and between workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.brokers.contract import KEPT_BYTES, KEYS
from flask_chsk.errors import BrokerUnavailable
from flask_chsk.server import idempotency
from flask_chsk.server.idempotency import (
    KEPT_COST,
    KEPT_REPLY,
    CachedReply,
    Idempotency,
    IdempotencyCache,
)

from .fakes import FakeHub, Waiter

ANN = ("ann", "c1", "digest")


class Way:
    """A way back that remembers."""

    def __init__(self, *, wants_reply: bool = True) -> None:
        self.wants_reply = wants_reply
        self.kept: CachedReply | None = None
        self.given: list[Any] = []

    def give(self, piece: Any, third: Any) -> None:
        self.given.append((piece, third))

    def expired(self) -> None:
        self.given.append("expired")


class Broker:
    """Has claims, for several workers."""

    local = False

    def __init__(self) -> None:
        self.sends = self
        self.claims: dict[tuple[str, str], str] = {}
        self.replies: dict[tuple[str, str], str] = {}
        self.away = False
        self.on_claim: Callable[[], object] = lambda: None

    def claim(self, client: str, key: str, token: str) -> str | None:
        if self.away:
            raise BrokerUnavailable("away")
        self.on_claim()
        if self.claims.setdefault((client, key), token) == token:
            return None
        return self.replies.get((client, key), "")

    def keep_reply(self, client: str, key: str, reply: str) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.replies[client, key] = reply


class Worker:
    def __init__(self, broker: Any) -> None:
        self.hub: Any = FakeHub()
        self.counters: Counter[str] = Counter()
        self.idempotency = Idempotency(self.hub, broker, self.counters, reply_timeout=1.0)

    def send(self, key: str, way: Way) -> str:
        """What becomes of a send: repeated here, handled elsewhere, or handled here."""
        if self.idempotency.came_before(ANN, key, way):
            return "repeated"
        elsewhere = self.idempotency.handled_elsewhere(ANN, key, way)
        return "elsewhere" if elsewhere is not None and elsewhere() else "handled"

    def reply(self, way: Way, piece: str) -> None:
        assert way.kept is not None
        self.idempotency.settled(way.kept, piece, None)
        way.give(piece, None)
        self.hub.work()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def one(broker: Broker) -> Worker:
    return Worker(broker)


@pytest.fixture
def two(broker: Broker) -> Worker:
    return Worker(broker)


def test_a_repetition_gets_the_reply_that_was_given(one: Worker) -> None:
    first, second = Way(), Way()
    assert one.send("k", first) == "handled"
    one.reply(first, "[1]")
    assert one.send("k", second) == "repeated"
    assert second.given == [("[1]", None)]
    assert one.counters["repeated"] == 1


def test_repetitions_wait_for_a_reply_that_is_to_come(one: Worker) -> None:
    ways = [Way() for _ in range(3)]
    for way in ways:
        one.send("k", way)
    one.reply(ways[0], "[1]")
    assert [way.given for way in ways] == [[("[1]", None)]] * 3


def test_keys_are_their_clients_own(one: Worker) -> None:
    cache = IdempotencyCache()
    others = [ANN, ("bob", "c1", "digest"), ("ann", "c2", "digest"), ("ann", "c1", "other")]
    assert not any(cache.came_before(owner, "k", Way(), 0.0) for owner in others)
    assert all(cache.came_before(owner, "k", Way(), 0.0) for owner in others)


def test_the_last_keys_of_a_client_are_remembered() -> None:
    cache = IdempotencyCache()
    for number in range(KEYS + 1):
        cache.came_before(ANN, str(number), Way(), 0.0)
    assert cache.came_before(ANN, "1", Way(), 0.0)
    assert not cache.came_before(ANN, "0", Way(), 0.0)


def test_what_is_past_its_time_is_forgotten() -> None:
    cache = IdempotencyCache()
    cache.came_before(ANN, "old", Way(), 1.0)
    cache.came_before(ANN, "new", Way(), 2.0)
    cache.forget(2.0)
    assert cache.bytes == KEPT_COST
    assert not cache.came_before(ANN, "old", Way(), 3.0)
    assert cache.came_before(ANN, "new", Way(), 3.0)


def test_over_the_limit_the_client_that_came_first_loses_its_keys() -> None:
    cache = IdempotencyCache()
    reply = "x" * KEPT_REPLY
    for number in range(KEPT_BYTES // (KEPT_REPLY + KEPT_COST) + 2):
        way = Way()
        cache.came_before((f"u{number}", "c", ""), "k", way, 0.0)
        assert way.kept is not None
        way.kept.settle(reply, None)
    assert cache.bytes <= KEPT_BYTES + KEPT_REPLY
    assert not cache.came_before(("u0", "c", ""), "k", Way(), 0.0)


def test_a_large_reply_is_not_kept(one: Worker) -> None:
    first, second, third = Way(), Way(), Way()
    one.send("k", first)
    one.send("k", second)
    one.reply(first, "x" * (KEPT_REPLY + 1))
    assert len(second.given) == 1  # it waited
    assert one.send("k", third) == "repeated"
    assert third.given == []


def test_one_worker_of_several_handles_a_send(one: Worker, two: Worker) -> None:
    first, second = Way(), Way()
    assert one.send("k", first) == "handled"
    one.reply(first, "[1]")
    assert two.send("k", second) == "elsewhere"
    assert second.given == [("[1]", None)]
    assert two.counters["repeated"] == 1


def test_a_worker_waits_for_the_reply_of_another(
    broker: Broker, one: Worker, two: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Way(), Way()
    one.send("k", first)
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            one.reply(first, "[1]")

    broker.on_claim = look
    assert two.send("k", second) == "elsewhere"
    assert second.given == [("[1]", None)]


def test_a_reply_that_does_not_come_in_time_is_a_timeout(one: Worker, two: Worker) -> None:
    class Clock(Waiter):
        def wait(self, timeout: float) -> None:
            two.hub.time += timeout

    two.hub.waiter_here = Clock
    one.send("k", Way())
    way = Way()
    assert two.send("k", way) == "elsewhere"
    assert way.given == ["expired"]


def test_nobody_waits_where_no_reply_is_wanted(one: Worker, two: Worker) -> None:
    one.send("k", Way(wants_reply=False))
    way = Way(wants_reply=False)
    assert two.send("k", way) == "elsewhere"
    assert way.given == []


def test_a_send_is_handled_though_the_broker_is_away(
    broker: Broker, one: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.away = True
    way = Way()
    assert one.send("k", way) == "handled"
    one.reply(way, "[1]")
    assert one.send("k", Way()) == "repeated"  # here it is remembered
    assert all(record.name == idempotency.__name__ for record in caplog.records)


def test_a_send_that_another_worker_handles_stays_there_while_the_broker_is_away(
    broker: Broker, one: Worker, two: Worker
) -> None:
    first, second = Way(), Way()
    one.send("k", first)
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise BrokerUnavailable("away")
        if len(looks) == 3:
            one.reply(first, "[1]")

    broker.on_claim = look
    assert two.send("k", second) == "elsewhere"
    assert second.given == [("[1]", None)]


def test_with_one_worker_no_broker_is_asked() -> None:
    class Local:
        local = True

    alone = Worker(Local())
    way = Way()
    assert alone.send("k", way) == "handled"
    alone.reply(way, "[1]")
    assert alone.hub.later == type(alone.hub.later)()
