"""Flask-SocketIO under gunicorn: with gevent-websocket's worker, or with simple-websocket."""

from __future__ import annotations

import os
from typing import Any

import gevent
from flask import Flask, request
from flask_socketio import SocketIO, join_room

TEXT = "pushed " * 4

app = Flask(__name__)
app.secret_key = "no secret: a benchmark"
socketio = SocketIO(
    app,
    async_mode="gevent",
    ping_interval=300,
    ping_timeout=60,
    message_queue=os.environ.get("MESSAGE_QUEUE"),
)


@socketio.on("connect")
def connect(auth: Any = None) -> None:
    uid = request.args.get("uid")
    if uid is not None:
        join_room(uid)


@socketio.on("echo")
def echo(data: Any) -> Any:
    return data


@socketio.on("relay")
def relay(uid: str) -> None:
    socketio.emit("event", {"text": TEXT, "n": 0}, to=uid)


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/broadcast/<int:count>/<int:gap_ms>")
def broadcast(count: int, gap_ms: int) -> str:
    for number in range(count):
        socketio.emit("event", {"text": TEXT, "n": number})
        if gap_ms:
            gevent.sleep(gap_ms / 1000)
    return "done"


@app.get("/push/<int:count>/<int:users>")
def push(count: int, users: int) -> str:
    for number in range(count):
        socketio.emit("event", {"text": TEXT, "n": number}, to=f"u{number * 7919 % users}")
        if number % 20 == 19:
            gevent.sleep(0)
    return "done"
