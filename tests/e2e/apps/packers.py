"""A page that speaks the packer and transport its URL names: ``/?packer=transit&type=ws``."""

from __future__ import annotations

from datetime import datetime, timezone

from flask import Flask, render_template_string
from flask.typing import ResponseReturnValue

from flask_chsk import Chsk, EventMessage

app = Flask(__name__)
app.secret_key = "of the tests"
chsk = Chsk(app, packers=["edn", "json", "transit", "msgpack"])

PAGE = """<!doctype html>
<title>Packers</title>
<link rel="icon" href="data:,">
{{ chsk_script() }}
<script type="module" src="{{ url_for('script') }}"></script>
"""

# Packers of their own modules are loaded by the page that uses them, and by no other.
SCRIPT = """
import { ChannelSocket } from "{{ url_for('chsk.static', filename='chsk.js') }}";

const { packer: name, type } = Object.fromEntries(new URLSearchParams(location.search));
const packer = /edn|json/.test(name)
  ? name
  : (await import(`{{ url_for('chsk.static', filename='') }}${name}.js`))[name];
window.heard = [];
window.chsk = new ChannelSocket(undefined, { packer, type });
window.chsk.on("test/pushed", (ev) => { window.heard.push(ev.data); });
"""


@app.get("/")
def page() -> ResponseReturnValue:
    return render_template_string(PAGE)


@app.get("/packers.js")
def script() -> ResponseReturnValue:
    return render_template_string(SCRIPT), {"Content-Type": "text/javascript"}


@chsk.on("test/echo")
def echo(ev: EventMessage) -> object:
    ev.push(["test/pushed", {"again": ev.data}])
    return ev.data


@chsk.on("test/types")
def types(ev: EventMessage) -> object:
    """What Python makes of each value, and one instant back."""
    names = {key: type(value).__name__ for key, value in ev.data.items()}
    return {"names": names, "at": datetime(2024, 2, 29, 12, tzinfo=timezone.utc)}
