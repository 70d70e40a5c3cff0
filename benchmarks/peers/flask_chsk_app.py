"""flask_chsk with all that an application has: Flask's contexts, a handler, a user, packers."""

from __future__ import annotations

import os
from typing import Any

import gevent
from flask import Flask, request

from flask_chsk import Chsk

TEXT = "pushed " * 4

app = Flask(__name__)
app.secret_key = "no secret: a benchmark"
app.config.update(
    CHSK_CSRF=False,
    CHSK_LP_TIMEOUT=55.0,
    CHSK_WS_KALIVE=300.0,  # idle connections are to be idle
)
chsk = Chsk(app)  # CHSK_BROKER_URL may be in the environment


@chsk.user_id
def user_id() -> str | None:
    return request.args.get("uid")


@chsk.on("bench/echo")
def echo(ev: Any) -> Any:
    return ev.data


@chsk.on("bench/relay")
def relay(ev: Any) -> None:
    chsk.send(ev.data, ["bench/event", {"text": TEXT, "n": 0}])


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/stats")
def stats() -> dict[str, int]:
    return chsk.stats()


@app.get("/broadcast/<int:count>/<int:gap_ms>")
def broadcast(count: int, gap_ms: int) -> str:
    for number in range(count):
        chsk.broadcast(["bench/event", {"text": TEXT, "n": number}])
        if gap_ms:
            gevent.sleep(gap_ms / 1000)
    return "done"


@app.get("/push/<int:count>/<int:users>")
def push(count: int, users: int) -> str:
    for number in range(count):
        chsk.send(f"u{number * 7919 % users}", ["bench/event", {"text": TEXT, "n": number}])
        if number % 20 == 19:  # as requests would come: the sockets have their turn between them
            gevent.sleep(0)
    return "done"


@app.get("/absent/<int:count>")
def absent(count: int) -> str:
    for number in range(count):
        chsk.send(f"absent{number}", ["bench/event", {"text": TEXT, "n": number}])
        if number % 100 == 99:
            gevent.sleep(0)
    return "done"


@app.post("/plain")
def plain() -> Any:
    """What the same answer costs as an ordinary Flask view: the floor of Ajax."""
    return request.get_json()
