"""Clients of two workers, as Redis knows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_chsk.errors import BrokerUnavailable, Refused
from tests.sim.redis import RedisNetwork
from tests.unit.brokers.redis.workers import Worker


def test_a_client_that_goes_to_another_worker_is_told_to_the_first(
    worker: Worker, other: Worker
) -> None:
    first = worker.attach("ann", "c1", v1=True)
    worker.heard()
    second = other.attach("ann", "c1", v1=True)
    assert (first.first, second.first, second.known) == (True, False, True)
    assert ("client_taken_over", "ann", "c1", first.token) in worker.heard()
    assert worker.detach("ann", "c1", first.token) == 0
    assert other.detach("ann", "c1", second.token) > second.generation


def test_an_anonymous_client_belongs_to_who_has_its_secret(worker: Worker) -> None:
    worker.attach(None, "c1", digest="secret")
    assert worker.holder(None, "c1") == "secret"
    assert worker.holder(None, "c2") is None
    with pytest.raises(Refused):
        worker.attach(None, "c1", digest="another")


def test_a_user_has_so_many_clients(start: Callable[..., Worker]) -> None:
    worker = start(max_clients_per_uid=2)
    for id in ("c1", "c2"):
        worker.attach("ann", id)
    with pytest.raises(Refused, match="2 clients already"):
        worker.attach("ann", "c3")


def test_a_poll_learns_of_the_close_that_it_missed(worker: Worker) -> None:
    worker.attach("ann", "c1", "ajax", True, digest="d")
    worker.publish("c:c1:ann", "[:chsk/close {}]")
    assert worker.attach("ann", "c1", "poll", True, digest="d").missed_close == "[:chsk/close {}]"


def test_a_late_poll_changes_nothing_and_a_websocket_begins_with_a_trial(worker: Worker) -> None:
    worker.attach("ann", "c1", "ws", True)
    assert worker.attach("ann", "c1", "poll", True) is None
    worker.attach("ann", "c2", "ajax", True)
    assert worker.attach("ann", "c2", "try", True).trial


def test_a_client_without_a_cursor_is_served_by_one_worker(worker: Worker, other: Worker) -> None:
    first = worker.attach("ann", "c1", "ajax")
    assert worker.ack("ann", "c1", first.token, 7)
    second = other.attach("ann", "c1", "ajax")
    assert second.cursor == 7
    assert not worker.ack("ann", "c1", first.token, 8)


def test_who_is_connected_and_how_is_known_everywhere(worker: Worker, other: Worker) -> None:
    other.watch()
    worker.attach("ann", "c1", "ws", True)
    worker.attach("ben", "c2", "ajax")
    assert other.heard() == [("changed",), ("changed",)]
    connected = other.connected()
    assert (connected.ws, connected.ajax) == ({"ann"}, {"ben"})
    assert (other.askable("ann"), other.askable("ben")) == ({"c1"}, set())


def test_a_user_who_went_while_redis_was_away_has_a_closing(
    worker: Worker, network: RedisNetwork
) -> None:
    network.restart()
    network.hub.loop.run(5.0)
    assert worker.was_here("ann") > 0
    assert worker.was_here("ann") == 0


def test_a_client_that_cannot_be_heard_is_not_let_in(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.join("ann", "news")
    hear = worker.broker._subscription.hear

    def deaf_to_topics(names: Any) -> None:
        if "t:news" in names:
            raise BrokerUnavailable("no")
        hear(names)

    monkeypatch.setattr(worker.broker._subscription, "hear", deaf_to_topics)
    with pytest.raises(BrokerUnavailable):
        worker.attach("ann", "c1")
    assert worker.connected().any == set()
    assert [one[2] for one in worker.heard() if one[0] == "user_presence_changed"] == [True, False]
