"""What a worker serves whose handlers fork. Who one is, the uid parameter says."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import time
from typing import Any

import gevent
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
    """Wait, then send: a copy that goes on would send a second time."""
    time.sleep(0.2)
    chsk.send(ev.uid, ["test/item", ev.data])
    return [os.getpid(), ev.data]


def send_all(uid: str, victim: str) -> None:
    chsk.join(uid, "births")
    chsk.send(uid, ["test/item", 1])
    chsk.broadcast(["test/item", 2])
    chsk.publish("births", ["test/item", 3])
    chsk.close(victim)
    chsk.send(uid, ["test/item", 4])


@chsk.on("test/child-sends")
def child_sends(ev: EventMessage) -> int:
    return start(send_all, ev.uid, ev.data)


def tell_peers(told: Any) -> None:
    """The ports that the sockets of this process are connected to."""
    time.sleep(0.1)
    ports = []
    for name in os.listdir("/proc/self/fd"):
        with (
            contextlib.suppress(OSError, IndexError),
            socket.socket(fileno=os.dup(int(name))) as one,
        ):
            ports.append(one.getpeername()[1])
    told.send(ports)


@chsk.on("test/peers-of-a-child")
def peers_of_a_child(ev: EventMessage) -> Any:
    ours, theirs = fork.Pipe(duplex=False)
    start(tell_peers, theirs)
    return ours.recv()


@chsk.on("test/subprocess")
def run_a_program(ev: EventMessage) -> str:
    return subprocess.run(["echo", ev.data], stdout=subprocess.PIPE, text=True).stdout


@app.post("/send/<uid>")
def send(uid: str) -> ResponseReturnValue:
    numbers = range(int(request.args.get("first", 0)), int(request.args["last"]) + 1)
    return {"offsets": [chsk.send(uid, ["test/item", number]) for number in numbers]}


if os.environ.get("FORKS_ON_SIGNAL"):  # outside of any greenlet, as a server that forks workers

    def fork_in_hub(*_: Any) -> None:
        loop = gevent.get_hub().loop
        loop.run_callback(lambda: print("forked", os.fork(), flush=True))

    signal.signal(signal.SIGUSR2, fork_in_hub)

if os.environ.get("SAYS_AT_IMPORT"):
    chsk.broadcast(["test/item", 0])


@app.get("/pid")
def process() -> ResponseReturnValue:
    return {"pid": os.getpid()}
