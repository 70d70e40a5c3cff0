"""Answers to what other processes asked: on their way they wait for the broker."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.hub import Hub
from flask_chsk.logs import RateLimitedLogger
from flask_chsk.protocol.session import Answered
from flask_chsk.server import asks as module
from flask_chsk.server.asks import Asks
from flask_chsk.transports.budget import MemoryBudget

SIZE = 1000
ELSEWHERE = Answered(f"{'0' * 16}.x", "value")
MALLORY, ANN = ("mallory", "m"), ("ann", "a")


class SlowBroker:
    """Its calls wait, and may fail then."""

    name = "f" * 16

    def __init__(self) -> None:
        self.there = gevent.event.Event()
        self.error: Exception | None = None
        self.told = 0

    def tell(self, name: str, text: str) -> None:
        self.there.wait()
        if self.error is not None:
            raise self.error
        self.told += 1


class Process:
    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.budget = MemoryBudget(100 * SIZE, self.counters)
        self.broker: Any = SlowBroker()
        say: Callable[..., object] = lambda *args: None  # noqa: E731
        self.asks = Asks(Hub(), self.broker, say, self.budget, 10 * SIZE, self.counters)

    def answer(self, client: Any, count: int) -> None:
        for _ in range(count):
            assert self.asks.answered(client, ELSEWHERE, SIZE)
        gevent.sleep(0)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(module, "rate_limited", RateLimitedLogger(module.log))
    made: Process = gevent.spawn(Process).get()  # in a greenlet, as a gevent server's
    yield made
    made.broker.there.set()
    gevent.sleep(0)


def test_so_many_of_a_client_wait_and_the_rest_is_dropped(process: Process) -> None:
    process.answer(MALLORY, 50)
    assert process.counters["answers_dropped"] == 40
    assert process.budget.waiting == 10 * SIZE
    process.answer(ANN, 1)
    process.broker.there.set()
    gevent.sleep(0.01)
    assert (process.broker.told, process.budget.waiting) == (11, 0)
    process.answer(MALLORY, 1)
    gevent.sleep(0.01)
    assert process.broker.told == 12


def test_so_many_of_all_clients_wait(process: Process) -> None:
    for number in range(200):
        process.answer(("mallory", str(number)), 1)
    assert process.budget.waiting == 100 * SIZE
    assert process.counters["answers_dropped"] == 100


def test_one_of_any_size_may_wait(process: Process) -> None:
    assert process.asks.answered(ANN, ELSEWHERE, 50 * SIZE)
    assert process.counters["answers_dropped"] == 0


def test_what_does_not_get_through_is_logged_once_a_minute(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    process.broker.error = BrokerUnavailable("away")
    process.broker.there.set()
    with caplog.at_level(logging.WARNING, "flask_chsk.server.asks"):
        process.answer(MALLORY, 5)
        gevent.sleep(0.01)
    assert caplog.messages == ["an answer of uid 'mallory' did not get through: away"]
    assert process.budget.waiting == 0
