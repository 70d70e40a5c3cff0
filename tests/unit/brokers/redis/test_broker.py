"""The Redis broker of two workers, on a simulated hub over a model of Redis."""

from __future__ import annotations

import pytest

from flask_chsk.brokers.redis.lease import LEASE
from flask_chsk.errors import BrokerUnavailable, ConfigError, PublishUnknown
from tests.sim.redis import RedisNetwork
from tests.unit.brokers.redis.workers import ANN, PAGE, Worker

# Life --------------------------------------------------------------------------------------


def test_a_broker_has_its_name_and_epoch_once_it_is_started(worker: Worker) -> None:
    assert worker.broker.name
    assert worker.broker.epoch
    assert (worker.broker.health(), worker.broker.note()) == ("", "")


def test_without_redis_nobody_is_kept_waiting(network: RedisNetwork) -> None:
    network.away = True
    worker = Worker(network)
    with pytest.raises(BrokerUnavailable, match="is away: refused"):
        worker.ready()
    assert "is away" in worker.broker.health()
    network.away = False
    network.hub.loop.run(5.0)
    assert worker.ready() is None
    worker.die()


def test_a_redis_that_may_drop_keys_is_refused(network: RedisNetwork) -> None:
    network.model.policy = "allkeys-lru"
    worker = Worker(network)
    with pytest.raises(ConfigError, match="noeviction"):
        worker.ready()
    worker.die()


def test_clients_of_a_worker_that_retires_are_gone_for_the_others(
    worker: Worker, other: Worker
) -> None:
    worker.attach("ann", "c1")
    other.heard()
    worker.retire(1.0)
    worker.die()
    worker.hub.loop.run(2 * LEASE)
    assert [one for one in other.heard() if one[:3] == ("user_presence_changed", "ann", False)]
    assert other.connected().any == set()


# Events ------------------------------------------------------------------------------------


def test_an_event_is_heard_by_the_worker_of_its_user(worker: Worker, other: Worker) -> None:
    worker.attach("ann", "c1")
    offset = other.publish(ANN, "[:a/b 1]")
    assert worker.heard()[-1] == (ANN, "[:a/b 1]", offset)
    assert other.heard() == []
    assert worker.broker.watermark() == offset


def test_an_event_for_who_is_not_there_has_no_offset(worker: Worker) -> None:
    assert worker.publish(ANN, "[:a/b 1]") is None


def test_a_close_is_heard_by_all_whoever_is_there(worker: Worker, other: Worker) -> None:
    worker.listen()
    offset = other.publish(ANN, "[:chsk/close {}]")
    assert (ANN, "[:chsk/close {}]", offset) in worker.heard()


def test_history_is_what_followed_a_cursor(worker: Worker) -> None:
    first = worker.attach("ann", "c1").offset
    second, third = (worker.publish(ANN, f"[:a/b {n}]") for n in (2, 3))
    page = worker.since({ANN: 0}, first, PAGE)
    assert [push.offset for push in page.pushes] == [second, third]
    assert (page.complete, page.more) == (True, False)
    page = worker.since({ANN: 0}, first, 5)
    assert [push.offset for push in page.pushes] == [second]
    assert (page.end, page.more) == (second, True)
    assert not worker.since({ANN: 0}, 5, PAGE).complete


def test_a_publish_whose_answer_is_lost_happens_once(worker: Worker, network: RedisNetwork) -> None:
    worker.attach("ann", "c1")
    network.latency = lambda: 0.01
    result = worker.begin("publish", ANN, "[:a/b 1]")
    network.hub.loop.run(0.015)  # it has arrived, and the answer is on its way
    network.cut()
    offset = result()
    page = worker.since({ANN: 0}, offset - 2, PAGE)
    assert [push.offset for push in page.pushes] == [offset]


def test_whether_an_event_was_sent_is_unknown_where_redis_stays_away(
    worker: Worker, network: RedisNetwork
) -> None:
    worker.attach("ann", "c1")
    network.latency = lambda: 0.01
    result = worker.begin("publish", ANN, "[:a/b 1]")
    network.hub.loop.run(0.005)
    network.away = True
    network.cut()
    with pytest.raises(PublishUnknown):
        result()


def test_a_cut_is_told_and_what_was_missed_is_in_history(
    worker: Worker, other: Worker, network: RedisNetwork
) -> None:
    cursor = worker.attach("ann", "c1").offset
    worker.heard()
    network.away = True
    network.cut()
    network.hub.loop.run(0.01)
    assert worker.broker.disconnected
    network.away = False
    offset = None
    while offset is None:
        network.hub.loop.run(0.5)
        offset = other.publish(ANN, "[:a/b 1]")
    network.hub.loop.run(5.0)
    assert ("resync_required",) in worker.heard()
    assert not worker.broker.disconnected
    page = worker.since({ANN: 0}, cursor, PAGE)
    assert [push.offset for push in page.pushes] == [offset]


def test_a_redis_that_restarts_empty_is_a_new_epoch(worker: Worker, network: RedisNetwork) -> None:
    cursor = worker.attach("ann", "c1").offset
    before = worker.broker.epoch
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.broker.epoch != before
    told = [one[0] for one in worker.heard()]
    assert "reset" in told and "reattach" in told
    assert not worker.since({ANN: 0}, cursor, PAGE).complete


def test_a_word_reaches_one_worker(worker: Worker, other: Worker) -> None:
    other.tell(worker.broker.name, "zoë")
    assert worker.heard() == [("on_worker_message", "zoë")]
    assert other.heard() == []


# What is shown -----------------------------------------------------------------------------


def test_counters_and_gauges_are_shown(worker: Worker) -> None:
    worker.attach("ann", "c1")
    stats = worker.broker.stats()
    assert stats["subscriptions"] == 3  # its own, everyone's, ann's
    assert stats["broker_clock_ahead"] == 0


def test_a_channel_without_clients_is_heard_for_a_while(worker: Worker) -> None:
    arrival = worker.attach("ann", "c1")
    worker.detach("ann", "c1", arrival.token)
    worker.broker.unused(ANN)
    worker.hub.loop.run(60.0)
    worker.broker.sweep()
    worker.hub.loop.run(1.0)
    assert worker.broker.stats()["subscriptions"] == 2
