"""No answer of the channel socket carries a cookie or saves a session.

The headers of a poll's answer are made when the poll begins, and the browser gets them up to
twenty seconds later. A session cookie among them would restore the session of that beginning, and
sign a user in again who has signed out in between. So a change of the session in a hook or in
``before_request`` holds for its request and is not saved, whichever session interface is used.
Cookies that anything else sets on such an answer are removed. The log names each once.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, current_app, request, request_finished

from ..logs import logger
from .internals import call_last, swap_session

log = logger(__name__)

PUT_ASIDE = "flask_chsk.protocol.session"  # in the environ: the session that is not saved
TOLD = 100  # names that are remembered, to log each once

# Flask and Flask-Login write these again with each request: nothing is lost.
REPEATED = {"_permanent", "_fresh"}

SESSION = (
    "session[%r] was changed in a request of the channel socket: the change holds for this request"
    " and is not saved, since an answer that waits could restore a session that has ended."
    " Change the session in an ordinary route."
)
COOKIE = (
    "the cookie %r was set in a request of the channel socket: it is not sent, since an answer that"
    " waits could restore a session that has ended. Ordinary routes can set it."
)


class Cookieless:
    """The requests for one application's channel sockets, and the cookies they do not get."""

    def __init__(self, app: Flask) -> None:
        self.paths: set[str] = set()
        self.blueprints: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        call_last(app, self._put_session_aside)
        request_finished.connect(self._finish, app)  # after everything that could set a cookie

    def own_request(self) -> bool:
        """Whether the current request is for a channel socket, accepted or refused."""
        return request.path in self.paths or request.blueprint in self.blueprints

    def _put_session_aside(self, response: Response) -> Response:
        if self.own_request() and PUT_ASIDE not in request.environ:
            app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
            interface = app.session_interface
            session = swap_session(interface.make_null_session(app))  # Flask skips a null session
            request.environ[PUT_ASIDE] = session
            if not interface.is_null_session(session) and getattr(session, "modified", True):
                for key in self._changed(app, session):
                    self._tell(SESSION, key)
        return response

    def _finish(self, sender: Flask, response: Response, **_: Any) -> None:
        if not self.own_request():
            return
        session = request.environ.pop(PUT_ASIDE, None)
        if session is not None:
            swap_session(session)  # for teardown functions
        for cookie in response.headers.getlist("Set-Cookie"):
            self._tell(COOKIE, cookie.partition("=")[0])
        response.headers.remove("Set-Cookie")
        response.headers["X-Content-Type-Options"] = "nosniff"  # an answer may quote its request
        if request.path in self.paths and response.status_code != 101:
            response.headers["Cache-Control"] = "no-store"

    def _changed(self, app: Flask, session: Any) -> list[str]:
        """The keys that this request has changed."""
        try:
            before = dict(app.session_interface.open_session(app, request) or {})
        except Exception:  # the store of sessions is away
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
