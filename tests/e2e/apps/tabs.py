"""A page with a channel socket under a strict Content-Security-Policy, and views to push from.

``/?options={…}`` gives the socket options as JSON. What the page heard is ``window.heard``: data
of events and, where it was told of a gap, ``"gap"``. Settings come from the environment:
``TEST_CHSK_RECOVERY_EVENTS=10``. Views that tests call look at no cookie.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from flask import Flask, Response, redirect, render_template_string, request, session
from flask.typing import ResponseReturnValue

from flask_chsk import AskError, Chsk, EventMessage

app = Flask(__name__)
app.secret_key = "of the tests"
app.config.update(CHSK_CLOSE_GRACE_WS=2.0, CHSK_CLOSE_GRACE_AJAX=2.0)
app.config.from_prefixed_env("TEST")
chsk = Chsk(app)
pushed: Counter[str] = Counter()  # the last number for each user
presence: list[list[str]] = []
handled: list[int] = []

PAGE = """<!doctype html>
<title>Tab</title>
<link rel="icon" href="{{ url_for('static', filename='none.ico') }}">
{{ chsk_script() }}
<script type="module" src="{{ url_for('script') }}"></script>
"""

SCRIPT = """
import { ChannelSocket } from "{{ url_for('chsk.static', filename='chsk.js') }}";

const options = JSON.parse(new URLSearchParams(location.search).get("options") ?? "{}");
const heard = (window.heard = []);
const chsk = (window.chsk = new ChannelSocket(undefined, { backoff: () => 200, ...options }));
chsk.on("test/item", (ev) => { heard.push(ev.data); });
chsk.on("chsk/gap", () => { heard.push("gap"); });
chsk.on("test/double", async (ev) => ev.data * 2);
chsk.on("test/raise", () => { throw new Error("as asked"); });
chsk.on("test/never", () => new Promise(() => {}));
"""


@app.after_request
def strictly(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self'"
    )
    return response


@app.get("/")
def page() -> ResponseReturnValue:
    return render_template_string(PAGE)


@app.get("/tab.js")
def script() -> ResponseReturnValue:
    return render_template_string(SCRIPT), {"Content-Type": "text/javascript"}


@app.get("/login/<name>")
def login(name: str) -> ResponseReturnValue:
    session["uid"] = name
    return redirect(f"/?{request.query_string.decode()}")


@app.post("/logout")
def logout() -> ResponseReturnValue:
    chsk.close(session.pop("uid"), reconnect=False)
    return {}


# What tests call -----------------------------------------------------------------------


@app.post("/push/<uid>")
def push(uid: str) -> ResponseReturnValue:
    """Push the user's next ``?count=`` numbers, from 1 on; these."""
    numbers = [pushed[uid] + 1 + i for i in range(int(request.args.get("count", 1)))]
    for number in numbers:
        chsk.send(uid, ["test/item", number])
    pushed[uid] = numbers[-1]
    return numbers


@app.post("/ask/<uid>/<name>")
def ask(uid: str, name: str) -> ResponseReturnValue:
    timeout = float(request.args.get("timeout", 10))
    try:
        return {"answer": chsk.ask(uid, [f"test/{name}", 21], timeout=timeout)}
    except AskError as error:
        return {"error": type(error).__name__}


@app.get("/seen")
def seen() -> ResponseReturnValue:
    return {"presence": presence, "handled": handled, "stats": chsk.stats(), "pid": os.getpid()}


# Handlers -------------------------------------------------------------------------------


@chsk.on("test/step")
def step(ev: EventMessage) -> int:
    if ev.data % 2 == 0:
        time.sleep(0.3)
    handled.append(ev.data)
    return len(handled)


@chsk.on("test/echo")
def echo(ev: EventMessage) -> object:
    return [ev.uid, ev.data]


@chsk.on("test/slow")
def slow(ev: EventMessage) -> None:
    time.sleep(60)


@chsk.on("chsk/uidport-open")
def came(ev: EventMessage) -> None:
    presence.append(["came", str(ev.uid)])


@chsk.on("chsk/uidport-close")
def went(ev: EventMessage) -> None:
    presence.append(["went", str(ev.uid)])
