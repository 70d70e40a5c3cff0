"""One chat, once for each way in which Flask applications keep sessions: ``/<kind>/``.

Each does what brings old sessions back where it can: it writes to the session, or sets its cookie
again, before every request.
"""

from __future__ import annotations

import secrets
import time
from copy import deepcopy
from typing import Any

from flask import Flask, Response, redirect, render_template_string, session
from flask.sessions import SessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_chsk import Chsk

PAGE = """<!doctype html>
<title>{{ uid or "nobody" }}</title>
<link rel="icon" href="data:,">
{{ chsk_script() }}
<form name="login" method="post" action="login"></form>
<form name="logout" method="post" action="logout"></form>
<script type="module" src="page.js"></script>
"""

# Who is signed out leaves at once, and with that gives up whatever the page still waits for.
SCRIPT = """
import { ChannelSocket } from "./chsk/static/chsk.js";

const type = sessionStorage.getItem("type") ?? "ajax";
const chsk = (window.chsk = new ChannelSocket(undefined, { type, backoff: () => 100 }));
window.ticks = 0;
chsk.on("test/tick", () => { window.ticks += 1; });
chsk.watch((old, now) => {
  if (now.lastClose?.reason === "signed-out") location.assign(location.href);
});
"""


class User(UserMixin):
    def __init__(self, id: str) -> None:
        self.id = id


class Stored(dict[str, Any], SessionMixin):
    sid = ""


class Store(SessionInterface):
    """Sessions in this process, each under an id that changes with who one is."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def open_session(self, app: Flask, request: Any) -> Stored:
        sid = request.cookies.get("server", "")
        stored = Stored(deepcopy(self._kept.get(sid, {})))
        stored.sid = sid if sid in self._kept else secrets.token_hex(8)
        return stored

    def save_session(self, app: Flask, session: Any, response: Response) -> None:
        before = self._kept.get(session.sid, {})
        if before.get("uid") != session.get("uid"):
            self._kept.pop(session.sid, None)
            session.sid = secrets.token_hex(8)
        self._kept[session.sid] = dict(session)
        response.set_cookie("server", session.sid, httponly=True)


def make(kind: str) -> Flask:
    app = Flask(__name__)
    app.secret_key = "of the tests"
    app.config.update(
        SESSION_COOKIE_NAME=kind,
        CHSK_CLOSE_GRACE_WS=1.0,
        CHSK_CLOSE_GRACE_AJAX=1.0,
        REMEMBER_COOKIE_REFRESH_EACH_REQUEST=True,
    )
    chsk = Chsk(app)
    if kind == "server":
        app.session_interface = Store()
    if kind == "login":
        LoginManager(app).user_loader(User)

    @app.before_request
    def touch() -> None:
        session.permanent = kind == "permanent"
        if kind in ("cookie", "server"):
            session["seen"] = time.time()

    def uid() -> str | None:
        return current_user.get_id() if kind == "login" else session.get("uid")

    @app.get("/")
    def page() -> ResponseReturnValue:
        return render_template_string(PAGE, uid=uid())

    @app.get("/page.js")
    def script() -> ResponseReturnValue:
        return SCRIPT, {"Content-Type": "text/javascript", "Cache-Control": "max-age=600"}

    @app.post("/login")
    def login() -> ResponseReturnValue:
        if kind == "login":
            login_user(User("ann"), remember=True)
        else:
            session["uid"] = "ann"
        return redirect("./")

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        leaving = uid()
        logout_user() if kind == "login" else session.pop("uid")
        chsk.close(leaving, reconnect=False)
        time.sleep(0.02)  # a commit
        return redirect("./")

    @app.get("/whoami")
    def whoami() -> ResponseReturnValue:
        return {"uid": uid()}

    @app.post("/tick")
    def tick() -> ResponseReturnValue:
        return {"offset": chsk.broadcast(["test/tick"])}

    return app


KINDS = ("cookie", "permanent", "server", "login")
site = DispatcherMiddleware(NotFound(), {f"/{kind}": make(kind) for kind in KINDS})
