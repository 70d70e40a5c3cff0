"""The server of a soak: each user has numbers of their own, pushed in order from nought."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from typing import Any

from flask import Flask, request
from greenlet import greenlet

from flask_chsk import Chsk, EventMessage

logging.basicConfig(format="LOG %(name)s %(message)s", level=logging.WARNING)

app = Flask(__name__)
app.secret_key = "of the soak"
# A short recovery window is full early, so that memory is flat from then on.
app.config.update(CHSK_CSRF=False, CHSK_LP_TIMEOUT=10.0, CHSK_RECOVERY_SECONDS=30)
chsk = Chsk(app)
said: Counter[str] = Counter()


@chsk.user_id
def user_id() -> str | None:
    return request.values.get("uid")


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@app.post("/say/<uid>/<int:times>")
def say(uid: str, times: int) -> list[int]:
    """Push the next *times* numbers to a user, each with ``size`` bytes."""
    filling = "x" * request.args.get("size", 0, type=int)
    numbers = [*range(said[uid], said[uid] + times)]
    for number in numbers:
        chsk.send(uid, ["test/pushed", [number, filling]])
    said[uid] += times
    return numbers


@app.get("/stats")
def stats() -> dict[str, int]:
    gc.collect()
    alive = sum(isinstance(one, greenlet) and not one.dead for one in gc.get_objects())
    return {**chsk.stats(), "greenlets": alive}
