"""The client that sent an event does not hear what is published with ``exclude=ev``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from flask_chsk import Chsk, EventMessage
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from flask_chsk.web.views import TEST_CLIENT
from tests.peer import EDN
from tests.process import eventually


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


class Page:
    """A page that polls, at whatever worker it is told to."""

    def __init__(self, worker: Flask, uid: str, client_id: str) -> None:
        self.http: FlaskClient = worker.test_client()
        self.params = {"client-id": client_id, "uid": uid, "v": "1"}
        self.headers = {SECRET_HEADER: client_id * 11}
        self.cursor = ""
        self.numbers = 0
        self.heard: list[Any] = []
        self.recovered: bool | None = None
        self.connect(worker)

    def connect(self, worker: Flask) -> None:
        self.http = worker.test_client()
        extras = self._get({"handshake?": "1"})[0][1][3]
        self.cursor, self.recovered = extras["cursor"], extras["recovered"]
        self.headers[RESUME_HEADER] = extras["resume"]

    def say(self, event: str) -> None:
        form = {**self.params, "ppstr": f"[{event} nil]"}
        answer = self.http.post(
            "/chsk", data=form, headers=self.headers, environ_overrides={TEST_CLIENT: True}
        )
        assert answer.status_code == 200, answer.text

    def poll(self) -> list[Any]:
        """Every event heard up to now, each poll adds to them."""
        self.numbers += 1
        pushed, _, *third = self._get({"n": str(self.numbers)})
        if isinstance(pushed, list):
            self.heard += pushed
            epoch, _, offsets = third[0].partition(":")
            self.cursor = f"{epoch}:{sum(map(int, offsets.split(',')))}"
        return self.heard

    def until(self, event: list[Any]) -> list[Any]:
        """Poll until *event* was heard: all that was."""
        eventually(lambda: event in self.poll())
        return self.heard

    def _get(self, more: dict[str, str]) -> list[Any]:
        query = urlencode({**self.params, "cursor": self.cursor, **more})
        answer = self.http.get(
            f"/chsk?{query}", headers=self.headers, environ_overrides={TEST_CLIENT: True}
        )
        assert answer.status_code == 200, answer.text
        message: list[Any] = EDN.unpack(answer.text)
        return message


@pytest.fixture(params=["memory", "redis"])
def workers(request: pytest.FixtureRequest, prefix: str) -> Iterator[tuple[Flask, Flask]]:
    """One worker, twice, or two that share a Redis."""
    if request.param == "memory":
        one = application("memory://")
        apps = (one, one)
    else:
        url = f"{request.getfixturevalue('redis_url')}?prefix={prefix}"
        apps = (application(url), application(url))
    yield apps
    for app in set(apps):
        server = app.extensions["chsk"].server()
        server.hub.run(server.retire)


def join(worker: Flask, *uids: str) -> None:
    for uid in uids:
        worker.extensions["chsk"].server().broker.join(uid, "news")


def test_a_topic_hears_it_but_the_client_that_sent_it(workers: tuple[Flask, Flask]) -> None:
    here, there = workers
    ann, tab, bob = Page(here, "ann", "a1"), Page(there, "ann", "a2"), Page(there, "bob", "b1")
    join(here, "ann", "bob")
    ann.say("[:news/say 1]")
    bob.say("[:news/say 2]")
    assert tab.until(["news/said", 2]) == [["news/said", 1], ["news/said", 2]]
    assert ann.until(["news/said", 2]) == [["news/said", 2]]
    ann.say("[:news/say 3]")
    assert bob.until(["news/said", 3]) == [["news/said", 1], ["news/said", 3]]


def test_a_users_other_pages_hear_it(workers: tuple[Flask, Flask]) -> None:
    here, there = workers
    ann, tab = Page(here, "ann", "a1"), Page(there, "ann", "a2")
    ann.say("[:mine/say 1]")
    ann.say("[:all/say 2]")
    tab.say("[:all/say 3]")
    assert tab.until(["all/said", 2]) == [["mine/said", 1], ["all/said", 2]]
    assert ann.until(["all/said", 3]) == [["all/said", 3]]


def test_a_client_that_comes_back_is_not_given_it_and_is_told_of_no_gap(
    workers: tuple[Flask, Flask],
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
