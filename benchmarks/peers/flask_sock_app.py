"""flask-sock under gunicorn: a WebSocket in Flask, and no protocol; users are a dict."""

from __future__ import annotations

import json
import os
from typing import Any

import gevent
from flask import Flask, request
from flask_sock import Sock

TEXT = "pushed " * 4

app = Flask(__name__)
sock = Sock(app)
everyone: dict[Any, str | None] = {}
users: dict[str, Any] = {}


@sock.route("/ws")
def echo(ws: Any) -> None:
    uid = request.args.get("uid")
    everyone[ws] = uid
    if uid is not None:
        users[uid] = ws
    ws.send("hello")
    try:
        while True:
            ws.send(json.dumps(json.loads(ws.receive())))
    finally:
        del everyone[ws]
        users.pop(uid or "", None)


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/broadcast/<int:count>/<int:gap_ms>")
def broadcast(count: int, gap_ms: int) -> str:
    for number in range(count):
        text = json.dumps(["event", {"text": TEXT, "n": number}])
        for ws in list(everyone):
            ws.send(text)
        gevent.sleep(gap_ms / 1000)
    return "done"


@app.get("/push/<int:count>/<int:among>")
def push(count: int, among: int) -> str:
    for number in range(count):
        text = json.dumps(["event", {"text": TEXT, "n": number}])
        users[f"u{number * 7919 % among}"].send(text)
        if number % 20 == 19:
            gevent.sleep(0)
    return "done"
