"""No answer of the channel socket carries a cookie or saves a session.

The head of an answer is made when its request comes, and a parked poll leaves twenty seconds
later. A cookie in it, or a session that it saved, would bring back what was true at its beginning:
a user who signed out meanwhile would be signed in again. So a change of the session by a hook or
by ``before_request`` holds for its request and is not saved, whatever keeps sessions; a cookie that
anything sets on such an answer is taken off. The first time, the log says so.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, current_app, request, request_finished

from .contexts import exchange_session
from .logs import logger

log = logger("flask_chsk.cookies")

PUT_ASIDE = "flask_chsk.session"  # in the environ: the session of a request that saves none
TOLD = 100  # names that are remembered, so that each is told once

# Flask and Flask-Login write these again with each request: nothing is lost.
REPEATED = {"_permanent", "_fresh"}

SESSION = (
    "session[%r] was changed in a request of the channel socket: the change holds for this request"
    " and is not saved, since an answer that waits would bring back what was true when it began."
    " Change the session in an ordinary route."
)
COOKIE = (
    "the cookie %r was set in a request of the channel socket: it is not sent, since an answer that"
    " waits would bring back what was true when it began. Ordinary routes can set it."
)


class Cookieless:
    """The channel sockets of one application: which requests are theirs, and what they may not."""

    def __init__(self, app: Flask) -> None:
        self.paths: set[str] = set()
        self.blueprints: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        # Flask calls these in reverse: ours is the last before it saves the session.
        app.after_request_funcs.setdefault(None, []).insert(0, self._put_session_aside)
        request_finished.connect(self._finish, app)  # after everything that could set a cookie

    def are_asked(self) -> bool:
        """Whether the current request is for a channel socket; those that are refused, too."""
        return request.path in self.paths or request.blueprint in self.blueprints

    def _put_session_aside(self, response: Response) -> Response:
        if self.are_asked() and PUT_ASIDE not in request.environ:
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
            interface = app.session_interface
            session = exchange_session(interface.make_null_session(app))  # which Flask saves not
            request.environ[PUT_ASIDE] = session
            if not interface.is_null_session(session) and getattr(session, "modified", True):
                for key in self._changed(app, session):
                    self._tell(SESSION, key)
        return response

    def _finish(self, sender: Flask, response: Response, **_: Any) -> None:
        if not self.are_asked():
            return
        session = request.environ.pop(PUT_ASIDE, None)
        if session is not None:
            exchange_session(session)  # for teardown functions
        for cookie in response.headers.getlist("Set-Cookie"):
            self._tell(COOKIE, cookie.partition("=")[0])
        response.headers.remove("Set-Cookie")
        if request.path in self.paths and response.status_code != 101:
            response.headers["Cache-Control"] = "no-store"

    def _changed(self, app: Flask, session: Any) -> list[str]:
        """The keys that this request has changed."""
        try:
            before = dict(app.session_interface.open_session(app, request) or {})
        except Exception:  # whatever keeps the sessions is away now; no reason to fail
            return []
        after = dict(session)
        keys = {**before, **after}
        missing = object()
        return [
            key
            for key in keys
            if key not in REPEATED and before.get(key, missing) != after.get(key, missing)
        ]

    def _tell(self, words: str, name: str) -> None:
        if (words, name) not in self._told and len(self._told) < TOLD:
            self._told.add((words, name))
            log.warning(words, name)
