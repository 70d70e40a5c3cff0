"""Whom a close reaches: who was asked for before it, wherever they are let in, and nobody later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from flask import Flask, Response, request
from redis import Redis as RedisClient

from flask_chsk import Chsk
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.process import Redis, eventually

EDN = EdnPacker()
Start = Callable[..., Chsk]


@pytest.fixture
def start(prefix: str) -> Iterator[Start]:
    """``start(url)``: one more process; the same keys for all of a test."""
    apps: list[Flask] = []

    def start(url: str, **hooks: Callable[[], Any]) -> Chsk:
        app = Flask(__name__)
        app.secret_key = "for tests"
        more = "" if url == "memory://" else f"?prefix={prefix}"
        chsk = Chsk(app, broker_url=url + more, csrf=False, lp_timeout=0.2, close_grace_ajax=30.0)
        chsk.user_id(lambda: request.args.get("uid"))
        for name, hook in hooks.items():
            getattr(chsk, name)(hook)
        apps.append(app)
        return chsk

    yield start
    for app in apps:
        server = app.extensions["chsk"].running()
        if server is not None:
            server.hub.run(server.retire)


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")


def app_of(chsk: Chsk) -> Flask:
    [state] = chsk._states
    return state.app


def until(condition: Callable[[], object]) -> None:
    """The hub is this thread's, so it has to run meanwhile."""
    eventually(lambda: gevent.sleep(0.01) or condition())


def ask(worker: Chsk, shown: dict[str, str] | None = None, **query: str) -> Response:
    shown = shown or {SECRET_HEADER: "s" * 22}
    return app_of(worker).test_client().get("/chsk", query_string=query, headers=shown)


class Page:
    """A page that polls, each time at whatever worker."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.shown = {SECRET_HEADER: "s" * 22}
        self.cursor = ""

    def open(self, worker: Chsk, uid: str = "ann") -> str:
        return self._get(worker, uid, **{"handshake?": "1"})

    def poll(self, worker: Chsk, uid: str = "ann") -> str:
        return self._get(worker, uid, n=str(next(self.numbers)), cursor=self.cursor)

    def _get(self, worker: Chsk, uid: str, **more: str) -> str:
        query = {"client-id": "c1", "uid": uid, "v": "1", **more}
        answer = ask(worker, self.shown, **query)
        assert answer.status_code == 200, answer.text
        value = EDN.unpack(answer.text)[0]
        if value == "chsk/timeout":
            return "nothing"
        [id, body] = value if isinstance(value[0], str) else value[0]
        if id == "chsk/handshake":
            self.cursor, self.shown[RESUME_HEADER] = body[3]["cursor"], body[3]["resume"]
        return str(id)


def test_who_came_back_after_a_close_is_not_closed_by_it_again(url: str, start: Start) -> None:
    worker, page = start(url), Page()
    assert page.open(worker) == "chsk/handshake"
    worker.close("ann", reconnect=False)
    server = app_of(worker).extensions["chsk"].worker()
    until(lambda: not len(server.registry))
    assert page.open(worker) == "chsk/handshake"  # signed in again
    assert page.poll(worker) == "nothing"


def test_who_came_back_at_another_worker_is_not_closed_again(redis_url: str, start: Start) -> None:
    one, two, page = start(redis_url), start(redis_url), Page()
    assert page.open(one) == "chsk/handshake"
    one.close("ann", reconnect=False)
    until(lambda: one.stats().get("closed_4005") == 1)
    assert page.open(two) == "chsk/handshake"
    assert page.poll(one) == "nothing"
    assert page.poll(two) == "nothing"


def test_who_did_not_come_back_hears_it_at_any_worker(redis_url: str, start: Start) -> None:
    one, two, page = start(redis_url), start(redis_url), Page()
    page.open(one)
    one.close("ann", reconnect=False)
    until(lambda: one.stats().get("closed_4005") == 1)
    assert page.poll(two) == "chsk/close"


@pytest.mark.parametrize("hook", ["authorize", "user_id", "handshake_data"])
@pytest.mark.parametrize("where", ["memory", "redis", "another worker"])
def test_a_close_concerns_who_is_just_being_let_in(
    request: pytest.FixtureRequest, start: Start, hook: str, where: str
) -> None:
    """Their request asked who they are before; what it was answered holds no more."""
    url = "memory://" if where == "memory" else request.getfixturevalue("redis_url")
    asked, go_on = gevent.event.Event(), gevent.event.Event()

    def slow() -> str:
        asked.set()
        go_on.wait()
        return "ann"

    worker = start(url, **{hook: slow})
    closing = start(url) if where == "another worker" else worker
    for one in (worker, closing):
        app_of(one).extensions["chsk"].worker().ready()
    opening = gevent.spawn(Page().open, worker)
    asked.wait()
    closing.close("ann", reconnect=False)
    server = app_of(worker).extensions["chsk"].worker()
    until(lambda: "u:ann" in server.controls.closes)
    go_on.set()
    assert opening.get() == "nothing"
    assert len(server.registry) == 0
    page = Page()
    assert page.open(worker) == "chsk/handshake"  # asked again
    assert page.poll(worker) == "nothing"


def test_who_is_let_in_while_the_broker_is_lost_asks_again(
    start: Start, start_redis: Callable[..., Redis]
) -> None:
    """A close may have gone by unheard."""
    asked, go_on = gevent.event.Event(), gevent.event.Event()

    def slow() -> str:
        asked.set()
        go_on.wait()
        return "ann"

    redis = start_redis()
    worker = start(redis.url, user_id=slow)
    opening = gevent.spawn(ask, worker, **{"client-id": "c1", "v": "1", "handshake?": "1"})
    asked.wait()
    server = app_of(worker).extensions["chsk"].worker()
    with RedisClient.from_url(redis.url) as client:
        client.client_kill_filter(_type="pubsub")
    until(lambda: server.controls.lapses == 2 and not server.broker.health())
    go_on.set()
    refused = opening.get()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert Page().open(worker) == "chsk/handshake"
