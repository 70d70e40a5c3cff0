"""The floor of a parked poll: a Flask view whose answer waits, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flask import Flask, Response
from gevent.event import Event

app = Flask(__name__)
never = Event()


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.get("/park")
def park() -> Response:
    return Response(waiting())


def waiting() -> Iterator[bytes]:
    never.wait(55)
    yield b"nothing"
