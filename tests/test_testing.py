"""The test client that users get: in process, no port, no sleep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort, session

from flask_chsk import Chsk, Reply
from flask_chsk.errors import ReplyError
from flask_chsk.testing import ChskTestClient, Refusal, chsk_client

__all__ = ["chsk_client"]  # a fixture

Make = Callable[..., ChskTestClient]


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "secret"
    chsk = Chsk(app)
    came: list[Any] = []
    app.extensions["came"] = came

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
