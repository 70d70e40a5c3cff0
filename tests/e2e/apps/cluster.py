"""What several workers serve in tests. Who one is, the uid parameter says."""

from __future__ import annotations

import os
import time
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_chsk import AskError, BrokerError, Chsk, EventMessage
from flask_chsk.protocol.uids import ConnectedUids

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "of the tests")
app.config.update(
    CHSK_CSRF=False,
    CHSK_HEALTH=True,
    CHSK_LP_TIMEOUT=float(os.environ.get("LP_TIMEOUT", "2.0")),
    # A storm sends a user over a hundred a second: away for two, the default of 256 is a gap.
    CHSK_RECOVERY_EVENTS=int(os.environ.get("RECOVERY_EVENTS", "100000")),
    CHSK_RECOVERY_BYTES=64 * 1024 * 1024,
    CHSK_RECOVERY_SECONDS=float(os.environ.get("RECOVERY_SECONDS", "120.0")),
    CHSK_CLOSE_GRACE_WS=float(os.environ.get("CLOSE_GRACE", "1.0")),
    CHSK_CLOSE_GRACE_AJAX=float(os.environ.get("CLOSE_GRACE", "1.0")),
)
chsk = Chsk(app)
unanswered: dict[str, EventMessage] = {}
watched: list[tuple[ConnectedUids, ConnectedUids]] = []


@chsk.user_id
def user_id() -> str | None:
    return request.values.get("uid")


@chsk.on("test/echo")
def echo(ev: EventMessage) -> Any:
    return ev.data


@chsk.on("test/turn")
def turn(ev: EventMessage) -> Any:
    """Numbered events: even ones are slow."""
    if ev.data % 2 == 0:
        time.sleep(0.02)
    ev.push(["test/item", ev.data])
    return ev.data


@chsk.on("test/once")
def once(ev: EventMessage) -> Any:
    """Who handled it, when."""
    time.sleep(ev.data or 0)
    return [os.getpid(), time.time()]


@chsk.on("test/note")
def note(ev: EventMessage) -> None:
    ev.push(["test/item", ev.data])


@chsk.on("test/later")
def later(ev: EventMessage) -> None:
    """Answered by ``POST /reply/<name>``."""
    ev.defer()
    unanswered[ev.data] = ev


@chsk.on("chsk/uidport-open")
def came(ev: EventMessage) -> None:
    app.logger.warning("came %s %d", ev.uid, ev.generation)
    if "lobby" in str(ev.uid):
        chsk.join(ev.uid, "lobby")


@chsk.on("chsk/uidport-close")
def went(ev: EventMessage) -> None:
    app.logger.warning("went %s %d", ev.uid, ev.generation)


@app.errorhandler(BrokerError)
def unavailable(error: BrokerError) -> ResponseReturnValue:
    return {"error": type(error).__name__}, 503


@app.post("/send/<uid>")
def send(uid: str) -> ResponseReturnValue:
    numbers = range(int(request.args.get("first", 0)), int(request.args["last"]) + 1)
    return {"offsets": [chsk.send(uid, ["test/item", number]) for number in numbers]}


@app.post("/reply/<name>")
def reply(name: str) -> ResponseReturnValue:
    unanswered.pop(name).reply(name)
    return {}


@app.post("/broadcast/<int:number>")
def broadcast(number: int) -> ResponseReturnValue:
    return {"offset": chsk.broadcast(["test/item", number])}


@app.post("/ask/<uid>")
def ask(uid: str) -> ResponseReturnValue:
    try:
        timeout = float(request.args.get("timeout", 25.0))
        return {"answer": chsk.ask(uid, ["test/question", 42], timeout=timeout)}
    except AskError as error:
        return {"error": type(error).__name__}


@app.post("/close/<uid>")
def close(uid: str) -> ResponseReturnValue:
    chsk.close(uid, reconnect=False)
    return {}


@app.post("/join/<uid>/<topic>")
def join(uid: str, topic: str) -> ResponseReturnValue:
    return {"joined": chsk.join(uid, topic)}


@app.post("/leave/<uid>/<topic>")
def leave(uid: str, topic: str) -> ResponseReturnValue:
    return {"left": chsk.leave(uid, topic)}


@app.post("/publish/<topic>/<int:number>")
def publish(topic: str, number: int) -> ResponseReturnValue:
    return {"offset": chsk.publish(topic, ["test/item", number])}


@app.get("/who")
def who() -> ResponseReturnValue:
    connected = chsk.connected_uids
    return {"ws": sorted(connected.ws), "ajax": sorted(connected.ajax), "pid": os.getpid()}


@app.post("/watch")
def watch() -> ResponseReturnValue:
    """Begin to watch who is there."""
    chsk.watch(lambda old, new: watched.append((old, new)))
    return {}


@app.get("/watched")
def watched_so_far() -> ResponseReturnValue:
    """What watchers were told: users before and after, each time."""
    return {"told": [[sorted(old.any), sorted(new.any)] for old, new in watched]}


@app.get("/members/<topic>")
def members(topic: str) -> ResponseReturnValue:
    return {"members": sorted(chsk.members(topic))}


@app.get("/stats")
def stats() -> ResponseReturnValue:
    return {**chsk.stats(), "pid": os.getpid()}
