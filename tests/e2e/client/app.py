"""The server of the client's tests: it answers, pushes, asks, keeps silent and closes."""

from __future__ import annotations

import threading
from itertools import count

from flask import Flask, request, session
from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage
from flask_chsk.packers.custom import register
from tests.e2e.client.literals import Literals

register(Literals())
app = Flask(__name__)
app.secret_key = "of the tests"
app.config.update(
    CHSK_PACKERS=["edn", "json", "transit", "msgpack", "gzip-msgpack", "literals", "gzip-literals"]
)
app.config.update(CHSK_CSRF=False, CHSK_LP_TIMEOUT=2.0, CHSK_REPLY_TIMEOUT=2.0)
chsk = Chsk(app)
numbers = count()
heard: list[list[object]] = []


@chsk.user_id
def user_id() -> str | None:
    return request.values.get("uid") or session.get("uid")


@chsk.handshake_data
def handshake_data() -> object:
    return {"hello": "there"}


@chsk.on("chat/say")
def say_in_chat(ev: EventMessage) -> object:
    ev.push(["chat/said", ev.data])
    return {"ok": True}


@chsk.on("test/echo")
def echo(ev: EventMessage) -> object:
    return ev.data


@chsk.on("test/never")
def never(ev: EventMessage) -> None:
    ev.defer()


@chsk.on("test/fail")
def fail(ev: EventMessage) -> None:
    from flask import abort

    abort(418, "a teapot")


@chsk.on("test/late", concurrent=True)
def late(ev: EventMessage) -> object:
    threading.Event().wait(ev.data)
    return "late"


@chsk.on("test/note")
def note(ev: EventMessage) -> None:
    heard.append(ev.data)


@chsk.on("test/slowly")
def slowly(ev: EventMessage) -> object:
    threading.Event().wait(0.02)
    heard.append(ev.data)
    return ev.data[1]


@chsk.on("test/noted")
def noted(ev: EventMessage) -> object:
    """What came with ``test/note`` under one token."""
    return [data for token, data in heard if token == ev.data]


@chsk.on("test/push", concurrent=True)
def push(ev: EventMessage) -> object:
    for _ in range(ev.data):
        chsk.send(ev.uid, ["test/pushed", next(numbers)])
    return True


@app.post("/login")
def login() -> ResponseReturnValue:
    session["uid"] = request.form["user_id"]
    return {"uid": session["uid"]}


@app.post("/say/<uid>/<int:times>")
def say(uid: str, times: int) -> ResponseReturnValue:
    first = request.args.get("first", type=int)
    said = [next(numbers) if first is None else first + n for n in range(times)]
    for number in said:
        chsk.send(uid, ["test/pushed", number])
    return said


@app.post("/ask/<uid>/<id>")
def ask(uid: str, id: str) -> ResponseReturnValue:
    from flask_chsk import AskError

    try:
        return {"answer": chsk.ask(uid, [f"test/{id}", {"n": 1}], timeout=25)}
    except AskError as error:
        return {"error": type(error).__name__, "message": str(error)}


@app.post("/close/<uid>/<int:reconnect>")
def close(uid: str, reconnect: int) -> ResponseReturnValue:
    chsk.close(uid, reconnect=bool(reconnect))
    return ""
