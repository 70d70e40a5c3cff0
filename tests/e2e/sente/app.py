"""What scripted clients of all generations talk to: a path for each wire, one page, one login."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, render_template_string, request, session

from flask_chsk import Chsk, EventMessage
from tests.e2e.sente.generations import KALIVE, LP_TIMEOUT, PING_TIMEOUT

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(
    CHSK_LP_TIMEOUT=LP_TIMEOUT,
    CHSK_WS_KALIVE=KALIVE,
    CHSK_WS_PING_TIMEOUT=PING_TIMEOUT,
    CHSK_PACKERS=["edn", "json", "msgpack", "gzip"],
    CHSK_CSRF="NO_CSRF" not in os.environ,
    CHSK_ALLOWED_ORIGINS=os.environ.get("ORIGINS", "").split() or None,
    CHSK_RATE=(1, 100),
)
chsk = Chsk(app)
for wire in ("1.18", "1.17", "1.0"):
    chsk.init_app(app, path=f"/chsk-{wire}", wire=wire)
chsk.init_app(app, path="/chsk-msgpack", packer="msgpack")


@app.get("/page")
def page() -> str:
    """Sign in, and get the session's token."""
    if "uid" in request.args:
        session["uid"] = request.args["uid"]
    return render_template_string("{{ chsk_csrf_token() }}")


@app.get("/no-page")
def no_page() -> str:
    """Sign in, and get no token."""
    session["uid"] = request.args["uid"]
    return ""


@app.post("/close/<uid>")
def close(uid: str) -> str:
    chsk.close(uid)
    return ""


@app.get("/stats")
def stats() -> dict[str, int]:
    return chsk.stats()


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@chsk.on("test/push")
def push(ev: EventMessage) -> None:
    """Send numbered events to the user who asks."""
    for number in range(ev.data["n"]):
        chsk.send(ev.uid, ["test/item", number])


@chsk.on("test/push-me")
def push_me(ev: EventMessage) -> None:
    ev.push(["test/item", 7])


@chsk.on("test/push-and-close")
def push_and_close(ev: EventMessage) -> None:
    chsk.send(ev.uid, ["test/item", 7])
    chsk.close(ev.uid)


@chsk.on("test/close")
def close_me(ev: EventMessage) -> None:
    chsk.send(ev.uid, ["chsk/close"])


@chsk.on("chsk/ws-ping")
@chsk.on("chsk/ws-pong")
def noted(ev: EventMessage) -> None: ...
