"""The application under attack. Who one is, the ``uid`` parameter or a Bearer token says.

Settings of one server come as JSON in ``HOSTILE_CONFIG``. What it logs begins with ``LOG``, so
that tests can count its lines.
"""

from __future__ import annotations

import gc
import json
import logging
import os
from typing import Any

import gevent
from flask import Flask, request, session
from greenlet import greenlet

from flask_chsk import Chsk

logging.basicConfig(format="LOG %(name)s %(message)s", level=logging.WARNING)

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(json.loads(os.environ.get("HOSTILE_CONFIG", "{}")))
chsk = Chsk(app)
seen: list[Any] = []


@chsk.user_id
def user_id() -> Any:
    bearer = request.authorization
    if bearer is not None and bearer.type == "bearer":
        return bearer.token
    return request.values.get("uid") or session.get("uid")


@chsk.on("test/echo")
def echo(ev: Any) -> Any:
    return ev.data


@chsk.on("test/note")
def note(ev: Any) -> None:
    seen.append([ev.uid, ev.client_id, ev.data])


@chsk.on("test/push")
def push(ev: Any) -> None:
    ev.push(["test/item", ev.data])


@chsk.on("test/sleep")
def sleep(ev: Any) -> str:
    gevent.sleep(ev.data)
    return "slept"


@chsk.on("test/ask")
def ask(ev: Any) -> Any:
    uid, data = ev.data
    return chsk.ask(uid, ["test/question", data], timeout=5.0)


@chsk.on("test/request")
def its_request(ev: Any) -> str:
    return str({**ev.request.environ, **ev.request.headers})


@app.get("/login/<name>")
def login(name: str) -> str:
    session["uid"] = name
    return str(chsk.script())


@app.get("/send/<uid>/<int:count>")
def send(uid: str, count: int) -> dict[str, Any]:
    size = request.args.get("size", 0, type=int)
    for number in range(count):
        chsk.send(uid, ["test/item", [number, "x" * size]])
    return {}


@app.get("/stats")
def stats() -> dict[str, Any]:
    if "collect" in request.args:
        gc.collect()
    greenlets = sum(1 for one in gc.get_objects() if isinstance(one, greenlet) and not one.dead)
    return {**chsk.stats(), "greenlets": greenlets}


@app.get("/seen")
def what_was_seen() -> list[Any]:
    return seen
