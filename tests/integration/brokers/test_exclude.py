"""The client that sent an event does not hear what is published with ``exclude=ev``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, request

from flask_chsk import Chsk, EventMessage
from tests.integration.brokers.conftest import Pair
from tests.integration.brokers.pages import Page


def application(url: str) -> Flask:
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=url, csrf=False)
    chsk.user_id(lambda: request.values.get("uid"))

    @chsk.on("news/say")
    def say(ev: EventMessage) -> None:
        chsk.publish("news", ["news/said", ev.data], exclude=ev)

    @chsk.on("all/say")
    def say_to_all(ev: EventMessage) -> None:
        chsk.broadcast(["all/said", ev.data], exclude=ev)

    @chsk.on("mine/say")
    def say_to_my_other_pages(ev: EventMessage) -> None:
        ev.send(ev.uid, ["mine/said", ev.data], exclude=ev)

    return app


@pytest.fixture
def workers(pair: Callable[[Callable[[str], Flask]], Pair]) -> Pair:
    return pair(application)


def join(worker: Flask, *uids: str) -> None:
    for uid in uids:
        worker.extensions["chsk"].worker().broker.topics.join(uid, "news")


def test_a_topic_hears_it_but_the_client_that_sent_it(workers: Pair) -> None:
    here, there = workers
    ann, tab, bob = Page(here, "ann", "a1"), Page(there, "ann", "a2"), Page(there, "bob", "b1")
    join(here, "ann", "bob")
    ann.say("[:news/say 1]")
    bob.say("[:news/say 2]")
    assert tab.until(["news/said", 2]) == [["news/said", 1], ["news/said", 2]]
    assert ann.until(["news/said", 2]) == [["news/said", 2]]
    ann.say("[:news/say 3]")
    assert bob.until(["news/said", 3]) == [["news/said", 1], ["news/said", 3]]


def test_a_users_other_pages_hear_it(workers: Pair) -> None:
    here, there = workers
    ann, tab = Page(here, "ann", "a1"), Page(there, "ann", "a2")
    ann.say("[:mine/say 1]")
    ann.say("[:all/say 2]")
    tab.say("[:all/say 3]")
    assert tab.until(["all/said", 2]) == [["mine/said", 1], ["all/said", 2]]
    assert ann.until(["all/said", 3]) == [["all/said", 3]]


def test_a_client_that_comes_back_is_not_given_it_and_is_told_of_no_gap(
    workers: Pair,
) -> None:
    """Neither by the worker that it was at, nor by another, which reads history."""
    here, there = workers
    ann, bob = Page(here, "ann", "a1"), Page(there, "bob", "b1")
    join(here, "ann", "bob")
    for number, worker in enumerate((there, here)):
        ann.say(f"[:news/say {number}]")
        ann.say(f"[:all/say {number}]")
        bob.until(["all/said", number])
        bob.say(f"[:news/say {number + 10}]")
        ann.connect(worker)
        assert ann.recovered is True
        assert ann.until(["news/said", number + 10])[number:] == [["news/said", number + 10]]
    assert ann.heard == [["news/said", 10], ["news/said", 11]]
