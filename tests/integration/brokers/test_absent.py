"""``@chsk.absent`` hears of sends that found nobody, in the whole cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, request

from flask_chsk import Chsk, Event
from flask_chsk.publisher import Publisher
from tests.integration.brokers.conftest import Pair
from tests.integration.brokers.pages import Page
from tests.process import eventually


def application(url: str, **config: float) -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=url, csrf=False, **config)
    chsk.user_id(lambda: request.values.get("uid"))
    app.extensions["told"] = []
    chsk.absent(lambda uid, event: app.extensions["told"].append((uid, event)))
    app.extensions["send"] = chsk.bind(app).send
    app.extensions["close"] = chsk.bind(app).close
    return app


@pytest.fixture
def workers(pair: Callable[[Callable[[str], Flask]], Pair]) -> Pair:
    return pair(application)


def told(worker: Flask) -> list[tuple[str, Event]]:
    found: list[tuple[str, Event]] = worker.extensions["told"]
    return found


def test_the_worker_that_sent_tells_it_once(workers: Pair) -> None:
    here, there = workers
    Page(there, "bob", "b1")
    assert here.extensions["send"]("ann", ["a/b", 1]) is None
    assert told(here) == [("ann", Event("a/b", 1))]
    if there is not here:
        assert told(there) == []


def test_a_user_who_is_at_another_worker_is_there(workers: Pair) -> None:
    here, there = workers
    ann = Page(there, "ann", "a1")
    here.extensions["send"]("ann", ["a/b", 1])
    assert ann.until(["a/b", 1]) == [["a/b", 1]]
    assert told(here) == told(there) == []


def test_an_event_that_waits_for_the_users_return_is_not_for_nobody(workers: Pair) -> None:
    here, there = workers
    ann = Page(there, "ann", "a1")
    there.extensions["close"]("ann", now=True)
    server = there.extensions["chsk"].worker()
    eventually(lambda: not server.broker.clients.connected().any)
    here.extensions["send"]("ann", ["a/b", 1])
    ann.connect(here)
    assert ann.recovered is True
    assert ann.until(["a/b", 1]) == [["a/b", 1]]
    assert told(here) == told(there) == []


def test_a_user_whose_window_is_over_is_absent(
    pair: Callable[[Callable[[str], Flask]], Pair],
) -> None:
    here, there = pair(lambda url: application(url, recovery_seconds=1.0))
    Page(there, "ann", "a1")
    there.extensions["close"]("ann", now=True)
    eventually(lambda: here.extensions["send"]("ann", ["a/b", 1]) is None)
    assert told(here) == [("ann", Event("a/b", 1))]


def test_a_publisher_says_so_by_its_return_value_only(redis_url: str, prefix: str) -> None:
    url = f"{redis_url}?prefix={prefix}"
    worker = application(url)
    worker.extensions["chsk"].worker().ready()
    with Publisher(url) as publisher:
        assert publisher.send("ann", ["a/b", 1]) is None
    assert told(worker) == []
    server = worker.extensions["chsk"].worker()
    server.hub.run(server.retire)
