"""From the page on, over each broker: what follows a page's cursor, and what nobody gets by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, jsonify, session

from flask_chsk import ALL_USERS_WITHOUT_UID, Chsk
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER, page_cursor
from flask_chsk.testing import ChskTestClient, make_client
from tests.process import eventually

GAP = ["chsk/gap", {"reason": "page"}]


class Site:
    """An application whose view reads rows; *during* is called when it has read them."""

    def __init__(self, url: str) -> None:
        self.app = Flask(__name__)
        self.app.secret_key = "for tests"
        self.chsk = Chsk(self.app, broker_url=url)
        self.during: Callable[[], Any] = lambda: None
        self.app.add_url_rule("/page", "page", self._page)
        self.app.add_url_rule("/login/<uid>", "login", lambda uid: session.update(uid=uid) or "")
        self._state = self.app.extensions["chsk"]
        self._state.worker().ready()
        self.to = self.chsk.bind(self.app)
        self.level()

    def _page(self) -> Any:
        self.during()
        return jsonify(self.chsk.page_cursor())

    def level(self) -> None:
        """Wait until this worker has heard all that was sent: pages begin there then."""
        broker = self._state.worker().broker
        sent = self.to.broadcast(["test/level"])
        eventually(lambda: broker.watermark() >= sent)

    def browser(self, uid: str | None = "ann") -> Any:
        browser = self.app.test_client()
        if uid is not None:
            browser.get(f"/login/{uid}")
        return browser

    def open(self, browser: Any, cursor: str | None) -> ChskTestClient:
        return make_client(self.app, browser, cursor=cursor)

    def raw(self, client_id: str, cursor: str, secret: str, **headers: str) -> str:
        """The answer to an anonymous handshake."""
        query = {"client-id": client_id, "packer": "edn", "v": "1", "cursor": cursor}
        text: str = (
            self.app.test_client()
            .get(
                "/chsk",
                query_string={**query, "handshake?": "1"},
                headers={SECRET_HEADER: secret * 22, **headers},
                environ_overrides={"flask_chsk.test_client": True},
            )
            .text
        )
        return text


@pytest.fixture(params=["memory", "redis"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "memory":
        return Site("memory://")
    number = re.sub(r"\W", "", request.node.name)
    return Site(f"{request.getfixturevalue('redis_url')}?prefix=pages-{number}")


def heard(client: ChskTestClient, count: int = 1) -> list[Any]:
    """What a page has heard, when it is *count* at least."""
    eventually(lambda: len(client.received) >= count)
    return client.received


def test_what_is_sent_before_the_rendering_ends_is_a_gap_for_an_absent_user(site: Site) -> None:
    site.during = lambda: site.to.send("ann", ["row/added", 1])
    ann = site.browser()
    page = site.open(ann, ann.get("/page").json)
    assert heard(page) == [GAP]
    site.to.send("ann", ["row/added", 2])
    assert heard(page, 2) == [GAP, ["row/added", 2]]


def test_what_is_sent_while_the_view_runs_arrives_where_the_user_is_there(site: Site) -> None:
    ann = site.browser()
    tab = site.open(ann, None)
    site.during = lambda: site.to.send("ann", ["row/added", 1])
    page = site.open(ann, ann.get("/page").json)
    assert heard(page) == heard(tab) == [["row/added", 1]]


def test_what_is_sent_between_page_and_connection_arrives_once(site: Site) -> None:
    ann = site.browser()
    cursor = ann.get("/page").json
    assert site.to.send("ann", ["row/added", 1]) is not None
    site.to.broadcast(["row/added", 2])
    page = site.open(ann, cursor)
    assert heard(page, 2) == [["row/added", 1], ["row/added", 2]]
    site.to.send("ann", ["row/added", 3])
    assert heard(page, 3)[2:] == [["row/added", 3]]


def test_topics_of_the_user_are_covered_from_the_joining_on(site: Site) -> None:
    site.to.join("ann", "news")
    ann = site.browser()
    site.level()
    cursor = ann.get("/page").json
    site.to.publish("news", ["row/added", 1])
    site.to.publish("sport", ["row/added", 2])
    site.to.join("ann", "sport")
    site.to.publish("sport", ["row/added", 3])
    page = site.open(ann, cursor)
    assert heard(page, 2) == [["row/added", 1], ["row/added", 3]]


def test_a_page_without_a_user_gets_what_is_for_everybody(site: Site) -> None:
    anyone = site.browser(None)
    site.level()
    cursor = anyone.get("/page").json
    site.to.broadcast(["row/added", 1])
    site.to.send(ALL_USERS_WITHOUT_UID, ["row/added", 2])
    site.to.send("ann", ["row/added", 3])
    assert heard(site.open(anyone, cursor), 2) == [["row/added", 1], ["row/added", 2]]


def test_a_page_whose_events_nobody_lost_hears_of_no_gap(site: Site) -> None:
    ann = site.browser()
    site.level()
    page = site.open(ann, ann.get("/page").json)
    site.to.send("ann", ["row/added", 1])
    assert heard(page) == [["row/added", 1]]


@pytest.mark.parametrize("whose", ["bob's", "a forged one", "an anonymous one"])
def test_nobody_gets_anything_by_the_cursor_of_another(site: Site, whose: str) -> None:
    ann = site.browser()
    owner = {"bob's": "bob", "a forged one": "ann", "an anonymous one": None}[whose]
    cursor = site.browser(owner).get("/page").json
    if whose == "a forged one":
        cursor = page_cursor(b"another key", "ann", cursor.partition(".")[0])
    ann.get("/page")  # so that events to her are kept
    for uid in ("ann", "bob"):
        site.to.send(uid, ["row/added", uid])
    page = site.open(ann, cursor)
    assert heard(page) == [GAP]
    site.to.send("ann", ["row/added", 1])
    assert heard(page, 2) == [GAP, ["row/added", 1]]


def test_a_cursor_of_an_epoch_that_is_over_is_a_gap(site: Site) -> None:
    ann = site.browser()
    key = site.app.extensions["chsk"].resume_keys[0]
    offset = ann.get("/page").json.partition(".")[0].partition(":")[2]
    page = site.open(ann, page_cursor(key, "ann", f"0ld0:{offset}"))
    assert heard(page) == [GAP]


def test_by_a_page_nobody_gets_what_was_sent_to_a_former_client_of_that_id(site: Site) -> None:
    cursor = site.browser(None).get("/page").json
    site.raw("c1", "", "a")
    site.to.send(ALL_USERS_WITHOUT_UID, ["row/added", "secret"], client_id="c1")
    worker = site.app.extensions["chsk"].worker()
    worker.hub.run(worker.clients.close, None, "c1")
    eventually(lambda: worker.broker.clients.holder(None, "c1") is None)
    site.to.broadcast(["row/added", 1])
    greeting = site.raw("c1", cursor, "b")
    here, resume = re.findall(r':cursor "([^"]+)" :resume "([^"]+)"', greeting)[0]
    assert here == cursor.partition(".")[0]
    poll = {"client-id": "c1", "packer": "edn", "v": "1", "cursor": here}
    answers = [
        site.app.test_client()
        .get(
            "/chsk",
            query_string=poll,
            headers={SECRET_HEADER: "b" * 22, RESUME_HEADER: resume},
            environ_overrides={"flask_chsk.test_client": True},
        )
        .text
        for _ in range(2)
    ]
    again = site.raw("c1", here, "b", **{RESUME_HEADER: resume})
    assert ":recovered true" in again
    assert "secret" not in "".join([*answers, again])
    assert any("[:row/added 1]" in answer for answer in answers)


def test_a_gap_is_told_by_whichever_worker_the_page_asks_next(redis_url: str) -> None:
    url = f"{redis_url}?prefix=pages-workers"
    first, second = Site(url), Site(url)
    key = first.app.extensions["chsk"].resume_keys[0]
    greeting = first.raw("c1", page_cursor(key, None, "0ld0:1"), "a")
    assert ":recovered nil" in greeting  # the gap follows, at the first worker
    here, resume = re.findall(r':cursor "([^"]+)" :resume "([^"]+)"', greeting)[0]
    assert ":recovered false" in second.raw("c1", here, "a", **{RESUME_HEADER: resume})
