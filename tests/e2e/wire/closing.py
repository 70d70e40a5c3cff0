"""Views that close a user's connections, and end when they are told to.

Who one is, the uid parameter says. ``POST /close/<uid>/<how>`` closes, and then waits for
``POST /go/<uid>``; what it does then, *how* says.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from flask import Flask, copy_current_request_context, request, send_file
from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage

app = Flask(__name__)
app.secret_key = "of the tests"
app.config.update(
    CHSK_CSRF=False,
    CHSK_LP_TIMEOUT=float(os.environ.get("LP_TIMEOUT", "20.0")),
    CHSK_CLOSE_GRACE_WS=1.0,
    CHSK_CLOSE_GRACE_AJAX=10.0,
)
chsk = Chsk(app)
gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)


@chsk.user_id
def user_id() -> Any:
    return request.values.get("uid")


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@chsk.on("test/close")
def close_in_handler(ev: EventMessage) -> None:
    chsk.close(ev.uid, reconnect=False)


@app.post("/close/<uid>/<how>")
def close(uid: str, how: str) -> ResponseReturnValue:
    gate = gates[uid]  # before any worker can have told of the close
    client = request.values.get("client")
    later = copy_current_request_context(lambda: chsk.close(uid, client, reconnect=False))
    if how == "thread":
        thread = threading.Thread(target=later)
        thread.start()
        thread.join()
    else:
        chsk.close(uid, client, reconnect=False, now=how == "now")

    def stream() -> Iterator[bytes]:
        yield b"begin"
        gate.wait(20)
        yield b"end"

    if how == "stream":
        return app.response_class(stream())
    gate.wait(20)
    if how == "raise":
        raise ZeroDivisionError
    if how == "file":
        return send_file(__file__)
    if how == "empty":
        return "", 204
    return {"closed": uid}


@app.post("/go/<uid>")
def go(uid: str) -> ResponseReturnValue:
    gates.pop(uid).set()
    return {}


@app.post("/send/<uid>")
def send(uid: str) -> ResponseReturnValue:
    return {"offset": chsk.send(uid, ["test/item", request.values.get("number")])}


@app.post("/say-and-close/<uid>")
def say_and_close(uid: str) -> ResponseReturnValue:
    for number in range(3):
        chsk.send(uid, ["test/item", number])
    chsk.close(uid, reconnect=False)
    return {}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return {**chsk.stats(), "there": sorted(chsk.connected_uids.any)}
