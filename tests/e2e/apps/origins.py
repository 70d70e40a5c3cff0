"""An API and its page, which may stand at different origins; two ways to say who one is.

``ORIGINS``: the listed ones, with commas between. ``SESSIONS=server``: sessions that live here,
so that one tab's login changes what another one's connection was opened with.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from flask import Flask, Request, Response, render_template_string, request, session
from flask.sessions import SessionInterface, SessionMixin

from flask_chsk import Chsk, EventMessage

TOKENS = {"token-of-ann": "ann", "token-of-bob": "bob"}

PAGE = """<!doctype html>
<title>Origins</title>
{% if own %}{{ chsk_script() }}{% endif %}
<script type="module">
import { ChannelSocket } from "{{ url_for('chsk.static', filename='chsk.js') }}";
window.heard = [];
window.asked = [];
window.open = (path, options = {}, tokens = null) => {
  const auth = tokens && (async () => {
    const token = tokens.length > 1 ? tokens.shift() : tokens[0];
    window.asked.push(token);
    return token;
  });
  window.chsk = new ChannelSocket(path ?? undefined, { backoff: () => 200, ...options, auth });
  window.chsk.on("test/pushed", (ev) => { window.heard.push(ev.data); });
};
window.ready = true;
</script>
"""


class ServerSession(dict[str, Any], SessionMixin):
    """What one cookie stands for."""

    modified = accessed = True

    def __init__(self) -> None:
        super().__init__()
        self.sid = secrets.token_hex(8)


class ServerSessions(SessionInterface):
    """Sessions in this process's memory."""

    def __init__(self) -> None:
        self._sessions: dict[str, ServerSession] = {}

    def open_session(self, app: Flask, request: Request) -> ServerSession:
        known = self._sessions.get(request.cookies.get("sid", ""))
        return ServerSession() if known is None else known

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        if session or session.sid in self._sessions:
            self._sessions[session.sid] = session
            response.set_cookie("sid", session.sid, httponly=True, samesite="Lax")


app = Flask(__name__)
app.secret_key = "of the tests"
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
if os.environ.get("SESSIONS") == "server":
    app.session_interface = ServerSessions()
listed = [origin for origin in os.environ.get("ORIGINS", "").split(",") if origin]
chsk = Chsk(app, allowed_origins=listed or None)


@chsk.user_id
def user_id() -> str | None:
    bearer = request.authorization
    if bearer is not None and bearer.type == "bearer":
        return TOKENS.get(bearer.token or "")
    uid: str | None = session.get("uid")
    return uid


@chsk.authorize
def authorize() -> bool:
    bearer = request.authorization
    return bearer is None or bearer.token in TOKENS


@chsk.on("test/whoami")
def whoami(ev: EventMessage) -> list[Any]:
    return [ev.uid, "session" in ev.request.cookies or "sid" in ev.request.cookies]


@app.get("/page")
def page() -> str:
    """A page that knows nothing of its server, as another site's."""
    return render_template_string(PAGE, own=False)


@app.get("/own")
def own() -> str:
    """A page with the token of its session."""
    return render_template_string(PAGE, own=True)


@app.get("/login/<name>")
def login(name: str) -> str:
    session["uid"] = name
    return name


@app.get("/logout")
def logout() -> str:
    uid = session.pop("uid")
    if "quietly" not in request.args:
        chsk.close(uid, reconnect=False)
    return "gone"


@app.get("/push/<uid>/<int:number>")
def push(uid: str, number: int) -> list[Any]:
    return [chsk.send(uid, ["test/pushed", number])]


@app.get("/stats")
def stats() -> dict[str, int]:
    return chsk.stats()
