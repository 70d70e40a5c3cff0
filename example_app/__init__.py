"""The example: a chat to keep open and learn from.

Start reading in ``chat.py`` (events from pages) and ``pages.py`` (routes that push), then
``static/app.js`` (the page's half) and ``test_app.py`` (how such a thing is tested). It keeps
the last lines in memory and asks nobody for a password: a real application would not.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from flask import Flask, Response, abort, request

from . import chat, pages, source, wire
from .sockets import chsk

chsk.register(chat.handlers)
chsk.register(wire.handlers)

# Scripts, styles and sockets come from this server only, and nothing is inline.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def create_app(**config: Any) -> Flask:
    """An application of its own, such as a test wants."""
    app = Flask(__name__)
    app.config.from_mapping(
        # Without SECRET_KEY everybody signs in again after a restart.
        SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.config.from_mapping(config)
    app.before_request(refuse_foreign_forms)
    app.after_request(secure)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(source.blueprint)
    chat.init_app(app)
    chsk.init_app(app)
    chsk.bind(app).watch(chat.tell_presence)
    return app


def refuse_foreign_forms() -> None:
    """Refuse a form that another site's page posts here; channel sockets see to themselves."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") in (
        "cross-site",
        "same-site",
    ):
        abort(403)


def secure(response: Response) -> Response:
    """Tell browsers what our pages may load."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


app = create_app()
