"""The application of these tests: the one behind the recorded traces, and what else is asked.

``WIRE_CONFIG`` in the environment, JSON, holds the settings of its Chsk. Who a client is, its
``uid`` parameter says. What handlers saw is read back over HTTP, so that a test needs no log.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

import gevent
from flask import Flask, abort, request
from flask.typing import ResponseReturnValue

from flask_chsk import ALL_USERS_WITHOUT_UID, Chsk, Event, EventMessage, Keyword, Reply
from flask_chsk.packers.edn import EdnPacker

EDN = EdnPacker()
CONFIG: dict[str, Any] = {"csrf": False, **json.loads(os.environ.get("WIRE_CONFIG", "{}"))}
SCALE = float(os.environ.get("WIRE_SCALE", "1"))  # of the recorded seconds

app = Flask(__name__)
app.secret_key = "for tests"
chsk = Chsk(app, **CONFIG)

seen: list[dict[str, Any]] = []  # what handlers saw, in order
deferred: list[EventMessage] = []
patched = gevent.monkey.is_module_patched("time")


def sleep(seconds: float) -> None:
    """Wait as a handler does: in its greenlet, or its thread."""
    (gevent.sleep if patched else time.sleep)(seconds)


@chsk.user_id
def user_id() -> Any:
    return request.values.get("uid")


@chsk.authorize
def authorize() -> bool | None:
    if "slowly" in request.values:
        sleep(float(request.values["slowly"]))
    if "forbid" in request.values:
        abort(403, "not you")
    return "deny" not in request.values


@chsk.reject
def reject() -> Any:
    return request.values.get("reject")


@chsk.handshake_data
def handshake_data() -> Any:
    data = request.values.get("hsdata")
    return None if data is None else EDN.unpack(data)


@chsk.csrf_token
def csrf_token() -> str:
    return "test-csrf-token"


@chsk.before_event
def note(ev: EventMessage) -> None:
    event = list(ev.event) if ev.event.data is not None else [ev.id]
    entry = {"ev": EDN.pack(event), "uid": ev.uid, "cid": ev.client_id, "cb": ev.wants_reply}
    seen.append(entry)


# What the traces' application does -------------------------------------------------------


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@chsk.on("test/nil")
def nil(ev: EventMessage) -> None: ...


@chsk.on("test/push")
def push(ev: EventMessage) -> Any:
    what, count = ev.data, ev.data["n"]
    for number in range(count):
        data = what.get("data", number)
        chsk.send(what["to"], ["test/item", data], flush=what.get("flush?", False))
        if "gap" in what:
            sleep(what["gap"] / 1000 * SCALE)
    return {"pushed": count}


@chsk.on("test/double-reply")
def double_reply(ev: EventMessage) -> None:
    ev.reply(Keyword("one"))
    ev.reply(Keyword("two"))


@chsk.on("test/no-reply")
def no_reply(ev: EventMessage) -> None:
    ev.defer()


@chsk.on("test/slow")
def slow(ev: EventMessage) -> Any:
    sleep(ev.data["ms"] / 1000 * SCALE)
    return "slow"


@chsk.on("test/close")
def close(ev: EventMessage) -> None:
    chsk.send(ev.uid, ["chsk/close"])


@chsk.on("chsk/ws-ping")
@chsk.on("chsk/ws-pong")
@chsk.on("chsk/uidport-open")
@chsk.on("chsk/uidport-close")
def noted(ev: EventMessage) -> None: ...


@chsk.on("chsk/bad-event")
@chsk.on("chsk/bad-package")
def bad(ev: EventMessage) -> None:
    abort(400, "cannot read that")


# What else is asked ----------------------------------------------------------------------


@chsk.on("test/turn")
def turn(ev: EventMessage) -> None:
    """Numbered events: even ones are slow."""
    if ev.data % 2 == 0:
        sleep(0.02)
    ev.push(["test/turned", ev.data])


@chsk.on("test/beside", concurrent=True)
def beside(ev: EventMessage) -> Any:
    sleep(ev.data)
    return "beside"


@chsk.on("test/sleep")
def asleep(ev: EventMessage) -> Any:
    sleep(ev.data)
    return "slept"


@chsk.on("test/abort")
def aborts(ev: EventMessage) -> None:
    abort(ev.data, "not yours")


@chsk.on("test/raise")
def raises(ev: EventMessage) -> None:
    errors = {"value": ValueError("a secret"), "exit": gevent.GreenletExit("a secret")}
    raise errors.get(ev.data) or gevent.Timeout()


@chsk.on("test/raise-reply")
def raises_reply(ev: EventMessage) -> None:
    raise Reply({"early": ev.data})


@chsk.on("test/unpackable")
def unpackable(ev: EventMessage) -> Any:
    return {"when": [object()]}


@chsk.on("test/parsed", parse=lambda data: Event(data["id"], int(data["n"])))
def parsed(ev: EventMessage) -> Any:
    return ev.data.data + 1


@chsk.on("test/defer")
def defer(ev: EventMessage) -> None:
    ev.defer()
    deferred.append(ev)


@chsk.on("test/broadcast")
def broadcast(ev: EventMessage) -> None:
    chsk.broadcast(["test/said", ev.data], exclude=ev)


@chsk.on("test/tell-me")
def tell_me(ev: EventMessage) -> Any:
    ev.push(["test/told", ev.data])
    return "told"


@chsk.on("test/reply-large")
def reply_large(ev: EventMessage) -> str:
    return "x" * int(ev.data)


@app.get("/seen")
def get_seen() -> ResponseReturnValue:
    return seen


@app.post("/deferred")
def answer_deferred() -> ResponseReturnValue:
    """Reply to all that waits; how many took it."""
    taken = [ev.reply({"late": ev.data}) for ev in deferred]
    deferred.clear()
    return {"replied": taken}


@app.get("/uids")
def uids() -> ResponseReturnValue:
    return {name: sorted(uids) for name, uids in chsk.connected_uids._asdict().items()}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return {**chsk.stats(), "rss": pages * os.sysconf("SC_PAGESIZE")}


@app.post("/send")
def send() -> ResponseReturnValue:
    """Send numbered events, *of* bytes each, *every* seconds, to a *to*."""
    values = request.values
    start, count = int(values.get("start", 0)), int(values["count"])
    filler, every = "x" * int(values.get("of", 0)), float(values.get("every", 0))
    uid: Any = values.get("to") or ALL_USERS_WITHOUT_UID
    offsets = []
    for number in range(start, start + count):
        offsets.append(chsk.send(uid, ["test/item", [number, filler] if filler else number]))
        if every:
            sleep(every)
    return {"offsets": offsets}


@app.post("/close")
def close_user() -> ResponseReturnValue:
    values = request.values
    chsk.close(values["to"], values.get("client"), reconnect="signed-out" not in values)
    return {}


@app.post("/send-from/<where>")
def send_from(where: str) -> ResponseReturnValue:
    """Send from some place, and go on there until the file *until* is."""
    to, until = request.values["to"], request.values["until"]
    bound = chsk.bind(app)
    done = threading.Event()

    def send() -> None:
        bound.send(to, ["test/from", where])
        end = time.monotonic() + 20
        while not os.path.exists(until) and time.monotonic() < end:
            if where.endswith("busy"):
                sum(range(1000))
            else:
                time.sleep(0.01)
        done.set()

    if where.startswith("view"):
        send()
    elif where == "greenlet":
        gevent.spawn(send).join()
    elif where == "threadpool":
        gevent.get_hub().threadpool.apply(send)
    elif where == "native-thread":
        gevent.monkey.get_original("_thread", "start_new_thread")(send, ())
        while not done.is_set():
            sleep(0.01)
    elif where == "thread":
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
    return {}
