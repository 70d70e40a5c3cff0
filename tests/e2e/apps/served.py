"""What ``flask chsk serve`` serves besides channel sockets: slow views, a WebSocket of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, request

from flask_chsk import Chsk

app = Flask(__name__)
app.secret_key = "for tests"
chsk = Chsk(app, csrf=False)


@chsk.user_id
def user_id() -> Any:
    return request.values.get("uid")


@app.get("/quick")
def quick() -> str:
    return "done"


@app.get("/slow")
def slow() -> Any:
    def parts() -> Iterator[str]:
        yield "begun "
        time.sleep(1.0)  # the server is told to end meanwhile
        yield "done"

    return parts()


@app.get("/endless")
def endless() -> Any:
    def parts() -> Iterator[str]:
        while True:
            yield "more "
            time.sleep(0.1)

    return parts()


@app.route("/own", websocket=True)
def own() -> str:
    socket = request.environ["wsgi.websocket"]  # gevent-websocket's
    while (text := socket.receive()) is not None:
        socket.send(f"own {text}")
    return ""


if __name__ == "__main__":
    chsk.run(app, port=0)  # not patched: it says how to start it
