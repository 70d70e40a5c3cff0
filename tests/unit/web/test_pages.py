"""The cursor of a page: where it stands, whose it is, and what it has the broker keep."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, session

from flask_chsk import Chsk
from flask_chsk.errors import BrokerUnavailable, UsageError
from flask_chsk.security import read_page_cursor
from flask_chsk.web import pages
from tests.process import eventually


@pytest.fixture(autouse=True)
def _each_warning_is_new() -> None:
    pages.rate_limited._kinds.clear()


@pytest.fixture
def page(app: Flask, chsk: Chsk) -> Callable[..., tuple[str, int]]:
    """``page(uid, queries)``: epoch and offset of the cursor that a view is given."""

    def page(uid: str | None = None, queries: Callable[[], Any] = lambda: None) -> tuple[str, int]:
        with app.test_request_context():

            def view() -> str:
                if uid is not None:
                    session["uid"] = uid
                queries()
                return chsk.page_cursor()

            app.view_functions["page"] = view
        text = app.test_client().get("/").text
        cursor = read_page_cursor(state(app).resume_keys, text, uid)
        assert cursor is not None
        epoch, _, offset = cursor.partition(":")
        return epoch, int(offset)

    app.add_url_rule("/", "page", lambda: "")
    return page


def state(app: Flask) -> Any:
    return app.extensions["chsk"]


def publish(app: Flask, uid: str = "ann") -> int | None:
    offset: int | None = state(app).worker().broker.publish(f"u:{uid}", "[:a/b 1]")
    return offset


def test_a_cursor_stands_where_the_request_began(
    app: Flask, page: Callable[..., tuple[str, int]]
) -> None:
    broker = state(app).worker().broker
    before = broker.publish("*", "[:a/b 0]")
    eventually(lambda: broker.watermark() >= before)
    sent: list[int] = []
    epoch, offset = page(queries=lambda: sent.append(broker.publish("*", "[:a/b 1]")))
    assert epoch == broker.epoch
    assert before <= offset < sent[0]


def test_a_page_has_the_events_of_its_user_kept(
    app: Flask, page: Callable[..., tuple[str, int]]
) -> None:
    assert publish(app) is None
    page("ann")
    assert publish(app) is not None
    assert publish(app, "bob") is None


def test_what_was_before_the_first_page_of_a_process_is_not_known(
    app: Flask, page: Callable[..., tuple[str, int]]
) -> None:
    assert page() == ("0", 0)
    assert page()[0] == state(app).worker().broker.epoch


def test_a_page_has_its_cursor_where_the_broker_is_away(
    app: Flask,
    page: Callable[..., tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = state(app).worker().broker

    def away(uid: str, seconds: float) -> None:
        raise BrokerUnavailable("Redis is away")

    monkeypatch.setattr(broker.clients, "expect", away)
    with caplog.at_level(logging.WARNING, "flask_chsk"):
        assert page("ann")[0] == page("ann")[0] == broker.epoch
    assert caplog.text.count("events to uid 'ann' are not kept while the page loads") == 1


def test_a_page_without_a_user_asks_the_broker_for_nothing(
    app: Flask, page: Callable[..., tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = state(app).worker().broker.clients
    monkeypatch.setattr(clients, "expect", lambda *_: pytest.fail("asked"))
    page()


def test_the_script_brings_a_cursor_where_it_is_asked_to(app: Flask, chsk: Chsk) -> None:
    state(app).worker()
    with app.test_request_context():
        app.preprocess_request()
        assert "data-cursor" not in chsk.script()
        assert 'data-cursor="0:0.' in chsk.script(from_request=True)


def test_a_cursor_is_for_views(app: Flask, chsk: Chsk) -> None:
    with app.app_context(), pytest.raises(UsageError, match="ask for it in a view"):
        chsk.page_cursor()

    @chsk.on("page/cursor")
    def cursor(ev: Any) -> str:
        return chsk.page_cursor()

    with pytest.raises(Exception, match="the handler failed"):
        chsk.test_client(uid="ann").request(["page/cursor"])
