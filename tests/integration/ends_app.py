"""An application whose code ends, by ``sys.exit()`` say, and sends what cannot be sent.

The data of an event, and the parameter ``end`` of a request, say where and how: ``"parse exit"``.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

from flask import Flask, abort, request
from gevent import GreenletExit, Timeout

from flask_chsk import Chsk, PackError, uid_connected


class Ending(BaseException):
    """No Exception."""


def exits() -> None:
    sys.exit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


def ends() -> None:
    raise Ending


def is_killed() -> None:
    raise GreenletExit


def is_late() -> None:
    raise Timeout


WAYS = {"exit": exits, "ctrl-c": interrupts, "own": ends, "kill": is_killed, "late": is_late}

app = Flask(__name__)
app.secret_key = "for tests"
app.config.update(CHSK_CSRF=False, CHSK_CLOSE_GRACE_WS=0.2, CHSK_CLOSE_GRACE_AJAX=0.2)
chsk = Chsk(app)


def end(place: str, wanted: Any) -> None:
    """End where *wanted* says so."""
    wanted_place, _, way = str(wanted).partition(" ")
    if wanted_place == place:
        WAYS[way]()


def end_hook(place: str) -> None:
    end(place, request.values.get("end"))


@chsk.user_id
def user_id() -> Any:
    end_hook("user_id")
    uid = request.values.get("uid")
    return "\ud800" if uid == "half" else uid


@chsk.authorize
def authorize() -> bool:
    end_hook("authorize")
    return True


@chsk.reject
def reject() -> None:
    end_hook("reject")


UNPACKABLE = {"naive": datetime(2024, 1, 1), "half": "\ud800", "large": "x" * 3_000_000}


@chsk.handshake_data
def handshake_data() -> Any:
    end_hook("handshake_data")
    wanted = request.values.get("greet")
    return {"it": [UNPACKABLE[wanted]]} if wanted else None


class Unknown:
    """No packer knows it."""

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted


@chsk.pack_default
def pack_default(value: Any) -> Any:
    if isinstance(value, datetime):
        return NotImplemented
    if isinstance(value, Unknown):
        end("pack_default", value.wanted)
    return "packed"


def parse(data: Any) -> Any:
    end("parse", data)
    return data


@chsk.before_event
def before(ev: Any) -> None:
    end("before", ev.data)


@chsk.after_event
def after(ev: Any, value: Any) -> Any:
    end("after", ev.data)
    return value


@chsk.errorhandler(ZeroDivisionError)
def on_zero(ev: Any, error: Exception) -> None:
    end("errorhandler", ev.data)


@chsk.on("test/echo", parse=parse)
def echo(ev: Any) -> Any:
    end("handler", ev.data)
    if str(ev.data).startswith("errorhandler "):
        1 / 0  # noqa: B018
    if str(ev.data).startswith("pack_default "):
        return Unknown(ev.data)
    return ev.data


@chsk.on("test/beside", concurrent=True)
def beside(ev: Any) -> Any:
    end("beside", ev.data)
    return ev.data


@chsk.on("test/busy")
def busy(ev: Any) -> None:
    print("busy", flush=True)
    while True:
        pass


@chsk.on("test/large")
def large(ev: Any) -> str:
    return "x" * int(ev.data)


@chsk.on("test/deferred")
def deferred(ev: Any) -> None:
    ev.defer()
    try:
        ev.reply("x" * int(ev.data))
    except PackError as error:
        ev.reply(str(error))


@chsk.on("test/ask")
def ask(ev: Any) -> str:
    try:
        return str(chsk.ask(ev.uid, ["test/question", "x" * int(ev.data)]))
    except PackError as error:
        return str(error)


@chsk.on("test/abort")
def abort_with(ev: Any) -> None:
    abort(int(ev.data))


@chsk.on("test/fork")
def fork(ev: Any) -> int:
    pid = os.fork()
    if not pid:
        sys.exit(ev.data)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@uid_connected.connect_via(app)
def connected(sender: Any, uid: str) -> None:
    end("signal", uid)


def watch(old: Any, new: Any) -> None:
    for uid in new.any - old.any:
        end("watcher", uid)


@chsk.on("chsk/uidport-open")
def came(ev: Any) -> None:
    end("uidport", ev.data)


with app.app_context():
    chsk.watch(watch)
    ch_recv = chsk.ch_recv


def route(ev: Any) -> None:
    end("router", ev.data)
    ev.reply(ev.data)


@app.get("/route")
def start_route() -> dict[str, Any]:
    chsk.start_router(route)
    return {}


@app.get("/stats")
def stats() -> dict[str, int]:
    return chsk.stats()
