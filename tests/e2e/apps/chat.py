"""One room: what anybody says, everybody hears, in the order it was said.

``POST /say?count=N`` speaks from a view, so that tests can have the server push while a browser
is cut off.
"""

from __future__ import annotations

import os
from itertools import count

from flask import Flask, redirect, render_template_string, request, session, url_for
from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage

app = Flask(__name__)
app.secret_key = "of the tests"
chsk = Chsk(
    app,
    ws_kalive=float(os.environ.get("CHAT_KALIVE", "25")),
    close_grace_ws=60.0,  # a browser may take some time to load a page again
    close_grace_ajax=60.0,
)
numbers = count()
presence: list[str] = []

PAGE = """<!doctype html>
<title>Chat</title>
{{ chsk_script() }}
<script type="module">
import { ChannelSocket } from "{{ url_for('chsk.static', filename='chsk.js') }}";
window.heard = [];
window.gaps = 0;
const type = new URLSearchParams(location.search).get("type") ?? "auto";
window.chsk = new ChannelSocket(undefined, { type, backoff: () => 200 });
window.ChannelSocket = ChannelSocket;
window.states = [];
window.chsk.watch((_, now) => window.states.push(now));
window.chsk.on("chat/said", (ev) => { window.heard.push(ev.data); });
window.chsk.on("chsk/gap", () => { window.gaps += 1; });
</script>
"""


@app.get("/")
def room() -> ResponseReturnValue:
    return render_template_string(PAGE)


@app.get("/login/<name>")
def login(name: str) -> ResponseReturnValue:
    session["uid"] = name
    return redirect(url_for("room", **request.args))


@app.post("/say")
def say_from_a_view() -> ResponseReturnValue:
    said = [next(numbers) for _ in range(int(request.args.get("count", 1)))]
    for number in said:
        chsk.broadcast(["chat/said", number])
    return said


@app.get("/presence")
def told() -> ResponseReturnValue:
    return presence


@chsk.on("chsk/uidport-open")
def came(ev: EventMessage) -> None:
    presence.append(f"{ev.uid} came")


@chsk.on("chsk/uidport-close")
def went(ev: EventMessage) -> None:
    presence.append(f"{ev.uid} went")


@chsk.on("chat/say")
def say(ev: EventMessage) -> object:
    chsk.broadcast(["chat/said", ev.data])
    return {"ok": True}
