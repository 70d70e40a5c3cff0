"""What a worker serves whose handlers fork. Who one is, the uid parameter says."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage

logging.basicConfig()

app = Flask(__name__)
app.secret_key = "of the tests"
app.config.update(
    CHSK_CSRF=False,
    CHSK_HEALTH=True,
    CHSK_LP_TIMEOUT=float(os.environ.get("LP_TIMEOUT", "2.0")),
    CHSK_CLOSE_GRACE_WS=1.0,
    CHSK_CLOSE_GRACE_AJAX=1.0,
)
chsk = Chsk(app)
fork = multiprocessing.get_context("fork")
children: list[Any] = []


@chsk.user_id
def user_id() -> str | None:
    return request.values.get("uid")


def live(seconds: float) -> None:
    """A child that waits, so that all greenlets that it was born with have their turn."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.02)


def start(target: Any, *args: Any) -> int:
    child = fork.Process(target=target, args=args, daemon=True)
    child.start()
    children.append(child)
    assert child.pid is not None
    return child.pid


@chsk.on("test/fork")
def fork_one(ev: EventMessage) -> int:
    """Fork a child that lives for so many seconds."""
    return start(live, ev.data)


@chsk.on("test/pid")
def pid(ev: EventMessage) -> list[Any]:
    return [os.getpid(), ev.data]


@chsk.on("test/slow")
def slow(ev: EventMessage) -> list[Any]:
    """Wait, then send: a copy of this would send a second time."""
    time.sleep(0.3)
    chsk.send(ev.uid, ["test/item", ev.data])
    return [os.getpid(), ev.data]


@app.post("/send/<uid>")
def send(uid: str) -> ResponseReturnValue:
    numbers = range(int(request.args.get("first", 0)), int(request.args["last"]) + 1)
    return {"offsets": [chsk.send(uid, ["test/item", number]) for number in numbers]}


@app.get("/pid")
def process() -> ResponseReturnValue:
    return {"pid": os.getpid()}
