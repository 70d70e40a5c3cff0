"""A worker as a whole: what the broker tells it, how it ends, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable, ConfigError, Refused
from flask_chsk.protocol import session as s
from flask_chsk.protocol.push import CANONICAL
from flask_chsk.server.worker import DRAIN

from .fakes import FakeTransport, Office, texts, told


@pytest.fixture
def office() -> Office:
    return Office(recovery_seconds=60.0)


def test_an_event_of_the_broker_goes_to_its_clients(office: Office) -> None:
    one, two = office.connect("ann", "c1"), office.connect("bob", "c2")
    office.worker.sending.send("ann", ["a/b", 1])
    assert (texts(one), texts(two)) == (["[:a/b 1]"], [])


def test_a_control_is_done_and_not_delivered(office: Office) -> None:
    one = office.connect()
    office.broker.topics.join("ann", "news")
    assert texts(one) == []
    office.worker.sending.publish("news", ["a/b", 1])
    office.worker.history.catch_up(one)  # as its transport does
    office.hub.work()
    assert texts(one) == ["[:a/b 1]"]
    office.broker.topics.leave("ann", "news")
    office.worker.sending.publish("news", ["a/b", 2])
    assert texts(one) == ["[:a/b 1]"]


def test_a_worker_needs_the_channels_of_its_clients(office: Office) -> None:
    office.connect("ann", "c1")
    office.broker.topics.join("ann", "news")
    office.connect(None, "c2")
    controls = office.worker.controls.buffer("bob")
    needs = office.worker.needs
    assert all(needs(name) for name in ("u:ann", "t:news", "c:c2", "-", "u:bob"))
    assert not any(needs(name) for name in ("u:eve", "t:chat", "c:c9"))
    office.worker.controls.release("bob", controls)
    assert not needs("u:bob")


def test_words_of_other_workers_are_answers_or_of_closes(office: Office) -> None:
    told_of_closes: list[str] = []
    closes: Any = office.worker.delayed_closes
    closes.on_worker_message = told_of_closes.append
    office.worker.on_worker_message("close waits w t")
    office.worker.on_worker_message(CANONICAL.pack(["ann", "c1", "an ask", 7]))
    assert told_of_closes == ["waits w t"]
    assert office.worker.counters["answers_unasked"] == 1


def test_a_broker_that_cannot_be_used_refuses_requests(office: Office) -> None:
    office.worker.ready()
    assert office.worker.broker_health() == ""
    for error in (BrokerUnavailable("away"), ConfigError("set up wrongly")):

        def fail(error: Exception = error) -> None:
            raise error

        office.broker.ready = fail
        with pytest.raises(Refused) as refused:
            office.worker.ready()
        assert refused.value.status == 503
        assert office.worker.broker_health() == str(error)


def test_an_idle_worker_ends_at_once(office: Office) -> None:
    one = office.connect()
    office.worker.drain()
    office.worker.drain()
    assert told(one) == ["drain", "wake", (s.RESTART, "spread=2")]


def test_a_worker_lets_what_is_queued_be_handled_first(office: Office) -> None:
    one = office.connect()
    office.handlers.on("a/b")(lambda ev: None)
    office.worker.receiver.received(one, told_by(one), "[[:a/b 1] nil]")
    office.worker.drain()
    assert told(one) == ["drain"]
    office.hub.work()
    assert told(one) == ["drain", "wake", (s.RESTART, "spread=2")]


def test_a_worker_waits_for_handlers_no_longer_than_it_has(office: Office) -> None:
    one = office.connect()
    office.handlers.on("a/b")(lambda ev: None)
    office.worker.receiver.received(one, told_by(one), "[[:a/b 1] nil]")
    office.hub.later.clear()  # it never comes to it
    office.worker.drain()
    office.hub.sleep(DRAIN)
    assert told(one)[-1] == (s.RESTART, "spread=2")


def told_by(connection: Any) -> FakeTransport:
    transport: FakeTransport = connection.transport
    return transport


def test_a_worker_whose_application_is_gone_leaves_nothing(office: Office) -> None:
    one = office.connect()
    office.worker.retire()
    assert one.gone
    assert len(office.registry) == 0
    assert office.hub.sweeps == []


def test_what_is_past_its_time_is_forgotten_once_a_second(office: Office) -> None:
    office.connect()
    office.broker.publish("u:ann", "[:chsk/close {:code 4003}]")
    [sweep] = office.hub.sweeps
    office.hub.time += 61.0
    sweep(office.hub.time)
    assert office.worker.controls.closes == {}


def test_figures_are_counters_and_gauges(office: Office) -> None:
    office.connect("ann", "c1")
    office.park(office.poll("bob", "c2"))
    office.connect(None, "c3")
    stats = office.worker.stats()
    shown = ("clients", "parked", "uids", "uids_ws", "uids_ajax", "opened")
    assert [stats[name] for name in shown] == [3, 1, 2, 1, 1, 3]
