"""Ordinary Flask routes: signing in and out, the page, and a form that pushes."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from .sockets import chsk

blueprint = Blueprint("pages", __name__)

NAME = re.compile(r"\w(?:[\w .'-]{0,22}\w)?")


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """The chat, for who signed in."""
    if "uid" not in session:
        return redirect(url_for(".login"))
    return render_template("index.html", uid=session["uid"])


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """Keep the name in the session: from now on the channel socket knows this browser by it."""
    if request.method == "GET":
        return render_template("login.html")
    name = request.form.get("name", "").strip()
    if NAME.fullmatch(name) is None:
        return render_template("login.html", name=name, refused=True), 400
    session.clear()
    session["uid"] = name
    session["since"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return redirect(url_for(".index"))


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """Forget the name, and close the user's connections for good: their pages are told."""
    uid = session.pop("uid", None)
    session.clear()
    if uid is not None:
        chsk.close(uid, reconnect=False)
    return redirect(url_for(".login"))


@blueprint.post("/notices")
def notice() -> ResponseReturnValue:
    """Push from a view: it needs the user's name, and no connection of its own."""
    if "uid" not in session:
        return "Sign in first.\n", 401
    to, text = request.form.get("to", ""), request.form.get("text", "").strip()[:200]
    if not to or not text:
        return "A notice needs a name and a text.\n", 400
    offset = chsk.send(to, ["notice/new", {"from": session["uid"], "text": text}])
    if offset is None:
        return f"{to} is not here: nothing was sent.\n", 404
    return f"Sent to {to}.\n", {"Content-Type": "text/plain; charset=utf-8"}
