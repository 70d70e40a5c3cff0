"""What a server makes of a broker that others use, too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, request

from flask_chsk import Chsk
from flask_chsk.protocol.session import CLOSE, SIGNED_OUT
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.peer import EDN
from tests.process import eventually


def test_a_wrong_clock_is_told_by_health_and_stats(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 25 * 3600)
    app = Flask(__name__)
    app.secret_key = "of the test"
    Chsk(app, broker_url=f"{redis_url}?prefix={prefix}", csrf=False, health=True)
    answer = app.test_client().get("/chsk/health")
    assert (answer.status_code, answer.text) == (
        200,
        "ok\nthis host's clock is 90000 s behind that of Redis\n",
    )
    server = app.extensions["chsk"].worker()
    assert server.stats()["broker_clock_ahead"] == -90_000
    server.hub.run(server.retire)


def test_who_is_signed_out_while_they_are_let_in_is_not_served(redis_url: str, prefix: str) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    chsk = Chsk(app, broker_url=f"{redis_url}?prefix={prefix}", csrf=False)
    chsk.user_id(lambda: request.args.get("uid"))
    server = app.extensions["chsk"].worker()
    attach = server.broker.clients.attach

    def attach_and_be_signed_out(*args: Any, **more: Any) -> Any:
        arrival = attach(*args, **more)
        offset = server.sending.send("ann", [CLOSE, {"code": SIGNED_OUT, "reason": "signed out"}])
        eventually(lambda: server.hub.run(server.broker.watermark) >= offset)
        return arrival

    ask = "/chsk?client-id=c1&uid=ann&v=1&handshake?=1"
    server.broker.clients.attach = attach_and_be_signed_out
    shown = {SECRET_HEADER: "s" * 22}
    assert "chsk/handshake" not in app.test_client().get(ask, headers=shown).text
    eventually(lambda: not len(server.registry))
    server.broker.clients.attach = attach
    assert "chsk/handshake" in app.test_client().get(ask, headers=shown).text
    server.hub.run(server.retire)


class Site:
    """A server whose broker lets clients in when something else has happened first."""

    def __init__(self, url: str) -> None:
        self.app = app = Flask(__name__)
        app.secret_key = "for tests"
        chsk = Chsk(app, broker_url=url, csrf=False)
        chsk.user_id(lambda: request.args.get("uid"))
        self.server = app.extensions["chsk"].worker()
        self.client = app.test_client()

    def joined_while_let_in(self, uid: str, topic: str) -> None:
        """Whoever is let in from now on is a member before this process has the broker's answer."""
        attach = self.server.broker.clients.attach

        def attach_and_join(*args: Any, **more: Any) -> Any:
            arrival = attach(*args, **more)
            self.server.broker.topics.join(uid, topic)
            offset = self.server.sending.broadcast(
                ["test/item", 0]
            )  # heard after they are a member
            eventually(lambda: self.server.hub.run(self.server.broker.watermark) >= offset)
            self.server.broker.clients.attach = attach
            return arrival

        self.server.broker.clients.attach = attach_and_join

    def hello(self, uid: str, client_id: str) -> dict[str, str]:
        """Open by Ajax; the handshake's extras."""
        text = self._get(uid, client_id, {"handshake?": "1"})
        extras: dict[str, str] = EDN.unpack(text)[0][1][3]
        return extras

    def poll(self, uid: str, client_id: str, extras: dict[str, str]) -> Any:
        """What one poll is answered."""
        more = {"n": "1", "cursor": extras["cursor"]}
        return EDN.unpack(self._get(uid, client_id, more, extras["resume"]))[0]

    def _get(self, uid: str, client_id: str, more: dict[str, str], resume: str = "") -> str:
        query = {"client-id": client_id, "uid": uid, "v": "1", **more}
        headers = {SECRET_HEADER: client_id * 11, RESUME_HEADER: resume}
        return self.client.get("/chsk", query_string=query, headers=headers).text


@pytest.fixture
def site(redis_url: str, prefix: str) -> Iterator[Site]:
    site = Site(f"{redis_url}?prefix={prefix}")
    yield site
    site.server.hub.run(site.server.retire)


def test_who_is_joined_while_they_are_let_in_is_told_of_no_gap(site: Site) -> None:
    site.joined_while_let_in("ann", "news")
    extras = site.hello("ann", "c1")
    site.server.sending.publish("news", ["test/item", 1])
    assert site.poll("ann", "c1", extras) == [["test/item", 1]]


def test_who_is_let_in_before_a_topic_of_theirs_is_heard_misses_nothing_of_it(site: Site) -> None:
    site.hello("ann", "c1")  # polls no more: nobody asks for the topic's history
    site.joined_while_let_in("ann", "news")
    extras = site.hello("ann", "c2")
    site.server.sending.publish("news", ["test/item", 1])
    assert site.poll("ann", "c2", extras) == [["test/item", 1]]


@pytest.mark.parametrize("broker", ["memory", "redis"])
def test_a_membership_that_began_and_ended_between_two_polls_gives_its_events(
    broker: str, request: pytest.FixtureRequest, prefix: str
) -> None:
    app = Flask(__name__)
    app.secret_key = "for tests"
    url = "memory://"
    if broker == "redis":
        url = f"{request.getfixturevalue('redis_url')}?prefix={prefix}"
    chsk = Chsk(app, broker_url=url)
    with app.app_context():
        ann = chsk.test_client(uid="ann")
        bob = chsk.test_client(uid="bob")
        chsk.join("bob", "news")
        chsk.publish("news", ["news/item", "before"])
        chsk.join("ann", "news")
        chsk.publish("news", ["news/item", 1])
        chsk.publish("news", ["news/item", 2])
        chsk.leave("ann", "news")
        chsk.publish("news", ["news/item", "after"])
        chsk.broadcast(["all/done"])
        eventually(lambda: ["all/done", None] in ann.received)
        assert [event[1] for event in ann.received] == [1, 2, None]
        eventually(lambda: ["all/done", None] in bob.received)
        assert [event[1] for event in bob.received] == ["before", 1, 2, "after", None]
    server = app.extensions["chsk"].worker()
    server.hub.run(server.retire)
