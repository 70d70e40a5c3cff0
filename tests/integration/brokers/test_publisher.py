"""A publisher asks, closes, joins and leaves as an application does, without being a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_chsk import ALL_USERS_WITHOUT_UID, Chsk
from flask_chsk.errors import (
    AskFailed,
    AskTimeout,
    BrokerUnavailable,
    ClientGone,
    NoClient,
    UsageError,
)
from flask_chsk.publisher import Publisher
from flask_chsk.testing import ChskTestClient, make_client
from tests.process import Redis, eventually


class Cluster:
    """Two workers that share a Redis, and a publisher at it."""

    def __init__(self, url: str) -> None:
        self.workers = []
        for _ in range(2):
            app = Flask(__name__)
            app.secret_key = "for tests"
            Chsk(app, broker_url=url)
            self.workers.append(app)
        self.publisher = Publisher(url)
        self.pages: list[ChskTestClient] = []

    def page(self, uid: str | None, worker: int = 0, answers: Any = None) -> ChskTestClient:
        """A page of *uid*; it answers ``test/ask`` with what *answers* makes of its data."""
        page = make_client(self.workers[worker], uid=uid)
        if answers is not None:
            page.on("test/ask", lambda ev: answers(ev.data))
        self.pages.append(page)
        return page

    def server(self, worker: int = 0) -> Any:
        return self.workers[worker].extensions["chsk"].worker()

    def end(self) -> None:
        for page in self.pages:
            page.close()
        self.publisher.disconnect()
        for worker in range(2):
            self.server(worker).hub.run(self.server(worker).retire)


@pytest.fixture
def cluster(redis_url: str, prefix: str) -> Iterator[Cluster]:
    cluster = Cluster(f"{redis_url}?prefix={prefix}")
    yield cluster
    cluster.end()


# Questions ---------------------------------------------------------------------------------


def test_a_page_answers(cluster: Cluster) -> None:
    cluster.page("ann", answers=lambda data: {"twice": data * 2})
    asked = cluster.publisher.ask("ann", ["test/ask", 21])
    assert asked == {"twice": 42}


def test_of_a_users_pages_at_several_workers_the_first_answer_wins(cluster: Cluster) -> None:
    def fails(data: Any) -> Any:
        raise ValueError("not mine")

    cluster.page("ann", 0, answers=fails)
    right = cluster.page("ann", 1, answers=lambda data: "mine")
    assert cluster.publisher.ask("ann", ["test/ask"]) == "mine"
    assert cluster.publisher.ask("ann", ["test/ask"], client_id=right.client_id) == "mine"


def test_many_threads_ask_at_once(cluster: Cluster) -> None:
    cluster.page("ann", answers=lambda data: data)
    with ThreadPoolExecutor(8) as pool:
        ask = cluster.publisher.ask
        assert list(pool.map(lambda n: ask("ann", ["test/ask", n]), range(24))) == [*range(24)]


def test_the_anonymous_can_be_asked(cluster: Cluster) -> None:
    cluster.page(None, answers=lambda data: "somebody")
    assert cluster.publisher.ask(ALL_USERS_WITHOUT_UID, ["test/ask"]) == "somebody"


def test_where_nobody_is_it_says_so_at_once(cluster: Cluster) -> None:
    cluster.page("ann")
    for args in (("bob", ["test/ask"]), ("ann", ["test/ask"], "another")):
        with pytest.raises(NoClient):
            cluster.publisher.ask(*args)


def test_no_answer_in_time_is_an_error(cluster: Cluster) -> None:
    cluster.page("ann")  # it does not poll
    with pytest.raises(AskTimeout, match=r"within 0\.2 s"):
        cluster.publisher.ask("ann", ["test/ask"], timeout=0.2)


def test_a_page_that_leaves_ends_the_question(cluster: Cluster) -> None:
    page = cluster.page("ann")
    server = cluster.server()

    def leave_when_asked() -> None:
        known = server.registry.get("ann", page.client_id)
        eventually(lambda: known.session.outbox)
        page.close()

    thread = threading.Thread(target=leave_when_asked)
    thread.start()
    with pytest.raises(ClientGone):
        cluster.publisher.ask("ann", ["test/ask"], timeout=30.0)
    thread.join()


def test_an_error_of_the_page_is_the_askers(cluster: Cluster) -> None:
    cluster.page("ann", answers=lambda data: 1 // data)
    with pytest.raises(AskFailed, match=r"test/ask: .*division"):
        cluster.publisher.ask("ann", ["test/ask", 0])


def test_a_redis_that_ends_while_somebody_asks_is_an_error(
    start_redis: Callable[..., Redis],
) -> None:
    redis = start_redis()
    cluster = Cluster(redis.url)
    cluster.page("ann", answers=lambda data: redis.stop())
    with pytest.raises(BrokerUnavailable):
        cluster.publisher.ask("ann", ["test/ask"], timeout=60.0)
    cluster.end()


# Closing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [0, 1])
def test_all_pages_of_a_user_are_closed_at_all_workers(cluster: Cluster, worker: int) -> None:
    ann, bob = cluster.page("ann", worker), cluster.page("bob", worker)
    cluster.publisher.close("ann", reconnect=False)
    server = cluster.server(worker)
    eventually(lambda: server.registry.count("ann") == 0)
    eventually(lambda: server.broker.clients.connected().any == {"bob"})
    assert server.stats().get("closed_4005") == 1
    assert not bob.closed
    del ann


def test_one_page_is_closed(cluster: Cluster) -> None:
    one, other = cluster.page("ann", 0), cluster.page("ann", 1)
    cluster.publisher.close("ann", client_id=one.client_id)
    eventually(lambda: cluster.server(0).registry.count("ann") == 0)
    cluster.publisher.send("ann", ["a/b", 1])
    eventually(lambda: other.received == [["a/b", 1]])


# Topics ------------------------------------------------------------------------------------


def test_a_user_joins_and_leaves(cluster: Cluster) -> None:
    ann = cluster.page("ann", 1)
    publisher = cluster.publisher
    publisher.publish("news", ["a/b", "before"])
    assert [publisher.join("ann", "news"), publisher.join("ann", "news")] == [True, False]
    publisher.publish("news", ["a/b", 1])
    assert [publisher.leave("ann", "news"), publisher.leave("ann", "news")] == [True, False]
    publisher.publish("news", ["a/b", "after"])
    publisher.send("ann", ["a/end"])
    eventually(lambda: ["a/end", None] in ann.received)
    assert ann.received == [["a/b", 1], ["a/end", None]]


def test_a_user_is_in_so_many_topics(cluster: Cluster) -> None:
    for number in range(100):
        cluster.publisher.join("ann", f"news {number}")
    with pytest.raises(UsageError, match="uid 'ann' is in 100 topics already"):
        cluster.publisher.join("ann", "one more")
    assert cluster.publisher.leave(ALL_USERS_WITHOUT_UID, "news 1") is False
    with pytest.raises(UsageError, match="anonymous clients cannot join"):
        cluster.publisher.join(ALL_USERS_WITHOUT_UID, "news 1")


def test_redis_that_is_away_is_an_error() -> None:
    publisher = Publisher("redis://127.0.0.1:1/0")
    calls: list[Callable[[], object]] = [
        lambda: publisher.ask("ann", ["test/ask"]),
        lambda: publisher.close("ann"),
        lambda: publisher.join("ann", "news"),
        lambda: publisher.leave("ann", "news"),
    ]
    for call in calls:
        with pytest.raises(BrokerUnavailable, match="away"):
            call()
