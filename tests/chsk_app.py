"""The application that tests of the server talk to. Who one is, the uid parameter says."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import gevent
from flask import Flask, request, session
from greenlet import greenlet

from flask_chsk import Chsk

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(
    CHSK_CSRF=False,
    CHSK_LP_TIMEOUT=float(os.environ.get("LP_TIMEOUT", "1.0")),
    CHSK_CLOSE_GRACE_WS=0.5,
    CHSK_CLOSE_GRACE_AJAX=0.5,
)
chsk = Chsk(app)


@app.before_request
def touch() -> None:
    session.permanent = True  # so every ordinary response sets the cookie


@chsk.user_id
def user_id() -> Any:
    return request.values.get("uid")


@chsk.authorize
def authorize() -> bool:
    return "deny" not in request.values


@chsk.on("test/echo")
def echo(ev: Any) -> Any:
    return ev.data


@chsk.on("test/push")
def push(ev: Any) -> None:
    for number in range(ev.data):
        ev.push(["test/item", number])


@chsk.on("test/slow")
def slow(ev: Any) -> Any:
    gevent.sleep(ev.data)
    return "slow"


@chsk.on("test/close")
def close(ev: Any) -> None:
    chsk.close(ev.uid)


@app.get("/send/<uid>/<int:count>")
def send(uid: str, count: int) -> dict[str, Any]:
    return {"offsets": [chsk.send(uid, ["test/item", number]) for number in range(count)]}


numbers: dict[str, int] = {}


@app.get("/large/<uid>/<int:count>/<int:size>")
def large(uid: str, count: int, size: int) -> dict[str, Any]:
    for _ in range(count):
        number = numbers[uid] = numbers.get(uid, -1) + 1
        chsk.send(uid, ["test/large", [number, "x" * size]])
        gevent.sleep(0)
    return {}


@app.get("/stats")
def stats() -> dict[str, int]:
    gc.collect()
    # Pools keep some greenlets and threads for jobs (flask_chsk.hub.IDLE_WORKERS, 32 threads): how
    # many there are says how many jobs came at once.
    greenlets = sum(
        isinstance(one, greenlet) and not one.dead and type(one).__name__ != "_Worker"
        for one in gc.get_objects()
    )
    threads = sum(one.name != "flask_chsk handler" for one in threading.enumerate())
    return {**chsk.stats(), "tasks": greenlets + threads}
