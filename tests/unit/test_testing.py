"""The test client that users get: in process, no port, no sleep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, request, session

from flask_chsk import Chsk, Reply
from flask_chsk.errors import AskFailed, ReplyError
from flask_chsk.testing import ChskTestClient, Refusal, chsk_client
from tests.process import eventually

__all__ = ["chsk_client"]  # a fixture

Make = Callable[..., ChskTestClient]


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    chsk = Chsk(app)
    came: list[Any] = []
    app.extensions["came"] = came
    app.extensions["its chsk"] = chsk

    @chsk.on("chat/say")
    def say(ev: Any) -> Any:
        chsk.broadcast(["chat/said", ev.data], exclude=ev)
        return {"ok": True}

    @chsk.on("chat/echo")
    def echo(ev: Any) -> Any:
        ev.push(["chat/echoed", ev.data])
        return ev.data

    @chsk.on("chat/forbidden")
    def forbidden(ev: Any) -> None:
        abort(403, "not yours")

    @chsk.on("chat/early")
    def early(ev: Any) -> None:
        raise Reply("early")

    @chsk.on("chat/broken")
    def broken(ev: Any) -> None:
        raise ZeroDivisionError

    @chsk.on("chat/number", parse=int)
    def number(ev: Any) -> Any:
        return ev.data + 1

    @chsk.on("chat/session")
    def in_session(ev: Any) -> Any:
        return session["uid"]

    @chsk.on("chat/write")
    def write(ev: Any) -> None:
        session["x"] = 1

    @chsk.on("chsk/uidport-open")
    def opened(ev: Any) -> None:
        came.append(("open", ev.uid))

    @chsk.on("chsk/uidport-close")
    def closed(ev: Any) -> None:
        came.append(("close", ev.uid))

    @app.post("/orders")
    def order() -> Any:
        chsk.send(session["uid"], ["order/created", {"id": 7}])
        return "", 201

    return app


def test_request_returns_the_handlers_reply(chsk_client: Make) -> None:
    assert chsk_client(uid="ann").request(["chat/say", {"text": "hi"}]) == {"ok": True}


def test_received_holds_what_others_sent(chsk_client: Make) -> None:
    ann, bob = chsk_client(uid="ann"), chsk_client(uid="bob")
    ann.send(["chat/say", "one"])
    ann.send(["chat/say", "two"])
    assert bob.received == [["chat/said", "one"], ["chat/said", "two"]]
    assert ann.received == []


def test_push_from_an_ordinary_view(app: Flask, chsk_client: Make) -> None:
    flask_client = app.test_client()
    ann = chsk_client(flask_client, uid="ann")
    assert flask_client.post("/orders").status_code == 201
    assert ann.received == [["order/created", {"id": 7}]]


def test_an_anonymous_client_is_pushed_to(chsk_client: Make) -> None:
    nobody = chsk_client()
    assert nobody.uid is None
    assert nobody.request(["chat/echo", 1]) == 1
    assert nobody.received == [["chat/echoed", 1]]


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        (["chat/forbidden"], 403, "not yours"),
        (["chat/broken"], 500, "the handler failed"),
        (["chat/nobody"], 404, "no handler for chat/nobody"),
        (["chat/number", "x"], 400, "invalid literal for int() with base 10: 'x'"),
        (["chat/write"], 500, "the handler failed"),
    ],
)
def test_errors_are_answered(chsk_client: Make, event: Any, status: int, message: str) -> None:
    with pytest.raises(ReplyError) as raised:
        chsk_client(uid="ann").request(event)
    assert (raised.value.status, str(raised.value)) == (status, message)


def test_replies_end_handlers_and_parse_makes_data(chsk_client: Make) -> None:
    ann = chsk_client(uid="ann")
    assert ann.request(["chat/early"]) == "early"
    assert ann.request(["chat/number", "41"]) == 42
    assert ann.request(["chat/session"]) == "ann"


def test_presence_is_told_once_per_user(app: Flask, chsk_client: Make) -> None:
    first, second = chsk_client(uid="ann"), chsk_client(uid="ann")
    first.close()
    assert app.extensions["came"] == [("open", "ann")]
    second.close()
    assert app.extensions["came"] == [("open", "ann"), ("close", "ann")]


def test_a_refused_handshake_raises(app: Flask) -> None:
    chsk = Chsk()
    other = Flask("other")
    other.secret_key = "x"
    chsk.init_app(other)
    chsk.authorize(lambda: False)
    with pytest.raises(Refusal) as raised:
        chsk.test_client()
    assert raised.value.status == 401


# Answering -------------------------------------------------------------------------------


def test_it_answers_what_the_test_asks(app: Flask, chsk_client: Make) -> None:
    chsk = app.extensions["its chsk"]
    ann = chsk_client(uid="ann")

    @ann.on("page/confirm")
    def confirm(ev: Any) -> Any:
        return {"really": ev.data}

    @ann.on("page/broken")
    def broken(ev: Any) -> None:
        raise ValueError("a bug of the page")

    assert chsk.ask("ann", ["page/confirm", 7]) == {"really": 7}
    with pytest.raises(AskFailed, match="a bug of the page"):
        chsk.ask("ann", ["page/broken"])
    with pytest.raises(AskFailed, match=r'no handler for page/none: add @client.on\("page/none"\)'):
        chsk.ask("ann", ["page/none"])
    assert ann.received == []


def test_it_answers_while_a_view_or_a_handler_waits(app: Flask, chsk_client: Make) -> None:
    chsk = app.extensions["its chsk"]

    @app.post("/delete")
    def delete() -> str:
        return str(chsk.ask("ann", ["page/confirm", "delete"]))

    @chsk.on("order/delete")
    def delete_order(ev: Any) -> Any:
        return chsk.ask(ev.uid, ["page/confirm", "order"], ev.client_id)

    browser = app.test_client()
    ann = chsk_client(browser, uid="ann")
    ann.on("page/confirm", lambda ev: f"yes, {ev.data}")
    assert browser.post("/delete").text == "yes, delete"
    assert ann.request(["order/delete"]) == "yes, order"


def test_its_handlers_hear_events_which_are_received_too(app: Flask, chsk_client: Make) -> None:
    chsk = app.extensions["its chsk"]
    ann = chsk_client(uid="ann")
    heard: list[Any] = []
    ann.on("a/b", heard.append)
    ann.on("*", heard.append)
    for event in (["a/b", 1], ["a/c", 2]):
        chsk.send("ann", event)
    eventually(lambda: [tuple(one) for one in heard] == [("a/b", 1), ("a/c", 2)])
    assert ann.received == [["a/b", 1], ["a/c", 2]]


def test_headers_come_with_each_request(app: Flask, chsk_client: Make) -> None:
    chsk = app.extensions["its chsk"]
    chsk.user_id(lambda: request.headers.get("X-Token"))
    ann = chsk_client(headers={"X-Token": "ann"})
    assert ann.uid == "ann"
    ann.on("page/who", lambda ev: "ann")
    assert ann.request(["chat/say", 1]) == {"ok": True}
    assert chsk.ask("ann", ["page/who"]) == "ann"
