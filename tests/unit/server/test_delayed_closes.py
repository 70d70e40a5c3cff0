"""Pages hear of their close when the response of the closing view has ended."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.protocol.session import CLOSED_BY_APP
from flask_chsk.server.delayed_closes import (
    ARRIVAL,
    PREFIX,
    TIMEOUT,
    Close,
    DelayedCloses,
    PendingResponse,
)

from .fakes import FakeHub


class Network:
    """Workers that hear each other, while the broker is there."""

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.away = False

    def add(self, name: str) -> Worker:
        self.workers[name] = Worker(self, name)
        return self.workers[name]

    def work(self) -> None:
        while any(worker.hub.later for worker in self.workers.values()):
            for worker in self.workers.values():
                worker.hub.work()


class Worker:
    """The delayed closes of one worker, and its broker."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.hub: Any = FakeHub()
        self.counters: Counter[str] = Counter()
        self.told: list[str] = []
        broker: Any = self
        self.closes = DelayedCloses(self.hub, broker, self.counters)

    def tell(self, name: str, text: str) -> None:
        if self.network.away:
            raise BrokerUnavailable("away")
        other = self.network.workers[name]
        other.closes.on_worker_message(text.removeprefix(PREFIX))

    def wait_for(self, response: PendingResponse, client: str) -> None:
        self.closes.when_ended(response, lambda: self.told.append(client))


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.mark.parametrize(
    ("text", "close"),
    [
        ('[:chsk/close {:code 4005 :reason "out"}]', Close(4005, "out", None)),
        (
            '[:chsk/close {:code 4003 :reason "x" :after ["w" "t"]}]',
            Close(4003, "x", PendingResponse("w", "t")),
        ),
        ('[:chsk/close {:code 4003 :after ["w"]}]', Close(4003, "", None)),
        ("[:chsk/close {:code 1000}]", Close(CLOSED_BY_APP, "", None)),
        ("[:chsk/close]", Close(CLOSED_BY_APP, "", None)),
        ("[:chsk/close 4]", Close(CLOSED_BY_APP, "", None)),
    ],
)
def test_a_close_is_read_from_its_event(text: str, close: Close) -> None:
    assert Close.read(text) == close


def test_clients_are_told_a_moment_after_the_response(network: Network) -> None:
    one = network.add("one")
    response = one.closes.expect_response()
    one.wait_for(response, "ann")
    assert len(one.closes) == 1
    one.closes.response_ended(response)
    one.hub.sleep(ARRIVAL / 2)
    assert one.told == []
    one.hub.sleep(ARRIVAL)
    assert (one.told, len(one.closes)) == (["ann"], 0)


def test_clients_are_told_at_once_where_the_response_has_ended(network: Network) -> None:
    one = network.add("one")
    response = one.closes.expect_response()
    one.closes.cancel(response)
    one.wait_for(response, "ann")
    assert one.told == ["ann"]


def test_no_client_waits_longer_than_the_limit(network: Network) -> None:
    one = network.add("one")
    one.wait_for(one.closes.expect_response(), "ann")
    one.hub.sleep(TIMEOUT + 0.1)
    assert one.told == ["ann"]
    assert one.counters == {"closes_timed_out": 1}


def test_clients_of_other_workers_are_told_too(network: Network) -> None:
    one, two = network.add("one"), network.add("two")
    response = one.closes.expect_response()
    two.wait_for(response, "ann")
    two.wait_for(response, "ben")
    network.work()
    one.closes.cancel(response)
    network.work()
    assert two.told == ["ann", "ben"]
    assert not two.counters["closes_timed_out"]


def test_a_worker_that_asks_too_late_is_answered(network: Network) -> None:
    one, two = network.add("one"), network.add("two")
    response = one.closes.expect_response()
    one.closes.cancel(response)
    two.wait_for(response, "ann")
    network.work()
    assert two.told == ["ann"]


def test_clients_of_other_workers_are_told_though_that_worker_is_not_heard(
    network: Network,
) -> None:
    one, two = network.add("one"), network.add("two")
    response = one.closes.expect_response()
    network.away = True
    two.wait_for(response, "ann")
    two.hub.sleep(TIMEOUT + 0.1)
    assert two.told == ["ann"]


def test_a_worker_that_ends_tells_all(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    one = network.add("one")
    response = one.closes.expect_response()

    def fail() -> None:
        raise KeyError

    one.closes.when_ended(response, fail)
    one.wait_for(response, "ann")
    one.closes.release_all()
    assert one.told == ["ann"]
    assert "could not be told" in caplog.text
