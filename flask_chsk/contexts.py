"""The Flask contexts around a handler, and the request that stays behind an open socket.

A context lives as long as one event. What an idle connection keeps of its request is a few
hundred bytes, made a request again when a handler runs.
"""

from __future__ import annotations

import io
import marshal
import sys
from collections.abc import Iterator
from typing import Any

from flask import Flask, Request
from flask.ctx import RequestContext
from flask.globals import request_ctx
from flask.sessions import SessionMixin
from werkzeug.wrappers import Response

from .errors import UsageError
from .values import StrKey


class HandshakeRequest:
    """The request that a WebSocket began with, small while nobody looks at it."""

    __slots__ = ("_context", "_kept")

    def __init__(self, environ: dict[str, Any]) -> None:
        kept = [(k, v) for k, v in environ.items() if type(v) is str and type(k) is str]
        self._kept = marshal.dumps(kept)
        self._context: EventContext | None = None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return len(self._kept)

    def context(self, app: Flask) -> EventContext:
        """A context for one event.

        The same object for one event after another, until :meth:`rest`: to make one costs
        a third of what an event costs.
        """
        context = self._context
        if context is None:
            environ = {sys.intern(key): value for key, value in marshal.loads(self._kept)}
            environ["wsgi.input"] = io.BytesIO()
            environ["wsgi.errors"] = sys.stderr
            environ["wsgi.version"] = (1, 0)
            environ["wsgi.multithread"] = environ["wsgi.multiprocess"] = False
            environ["wsgi.run_once"] = False
            context = self._context = EventContext(app, app.request_class(environ))
        elif context.entered:  # by a handler that runs beside this one
            context = EventContext(app, context.request)
        else:
            context.renew()
        return context

    def rest(self) -> None:
        """Let the context go; it can be made again."""
        self._context = None


class PostRequest(HandshakeRequest):
    """The request of one POST, without its body: thousands may wait for their handlers."""

    __slots__ = ()

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__({key: environ[key] for key in environ if key not in _OF_THE_BODY})

    def context(self, app: Flask) -> EventContext:
        """A context for one event; nothing of it is kept for the events of the same POST."""
        context = super().context(app)
        self.rest()
        return context


_OF_THE_BODY = frozenset(["CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING"])


class ReadOnlySession(SessionMixin):
    """The session of a connection's request, opened when read; writing it raises.

    There is no response on which a changed cookie could travel (the seed's note: a single
    request and session persists over the whole connection).
    """

    def __init__(self, app: Flask, request: Request) -> None:
        self._app = app
        self._request = request
        self._opened: Any = None
        self.modified = False

    def _session(self) -> Any:
        if self._opened is None:
            interface = self._app.session_interface
            opened = interface.open_session(self._app, self._request)
            self._opened = interface.make_null_session(self._app) if opened is None else opened
        return self._opened

    def forget(self) -> None:
        """Open the session anew when it is read again."""
        self._opened = None

    def __getitem__(self, key: str) -> Any:
        return self._session()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session())

    def __len__(self) -> int:
        return len(self._session())

    def __contains__(self, key: object) -> bool:
        return key in self._session()

    def __setitem__(self, key: str, value: Any) -> None:
        self._refuse(key)

    def __delitem__(self, key: str) -> None:
        self._refuse(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of *key*, where there is one."""
        if key not in self:
            self._refuse(key)
        return self[key]

    def _refuse(self, key: str) -> None:
        raise UsageError(
            f"session[{key!r}] cannot be changed in a channel socket handler: no response"
            " carries the cookie. Change it in an ordinary route, then call chsk.reconnect()"
            " in the page"
        )


class EventContext(RequestContext):
    """A request context for one event: no routing, and a session to read."""

    def __init__(self, app: Flask, request: Request) -> None:
        self._read_only = ReadOnlySession(app, request)
        super().__init__(app, request.environ, request, self._read_only)

    @property
    def entered(self) -> bool:
        """Whether a handler runs in it."""
        return bool(self._cv_tokens)

    def renew(self) -> None:
        """Make it as new: nothing of the event before is left."""
        self._read_only.forget()
        self.flashes = None
        self._after_request_functions = []

    def match_request(self) -> None:
        """The request was routed when it came."""


def swap_session(session: SessionMixin) -> SessionMixin:
    """Set the current request's session; returns the one before."""
    context: Any = request_ctx._get_current_object()  # type: ignore[attr-defined]
    name = "_session" if hasattr(context, "_session") else "session"  # since Flask 3.1.3
    before: SessionMixin = getattr(context, name)
    setattr(context, name, session)
    return before


def in_event() -> bool:
    """Whether the current request context is that of an event, not of a view."""
    return isinstance(request_ctx._get_current_object(), EventContext)  # type: ignore[attr-defined]


def response_value(value: Any) -> Any:
    """A handler's value; an HTTP response as ``{status, headers, body}``.

    So an existing view serves as a handler: ``return app.make_response(view())``. The body
    is what the JSON says, else text, else bytes; header names are in lower case.
    """
    if not isinstance(value, Response):
        return value
    body: Any
    if value.is_json:
        body = value.get_json()
    else:
        body = value.get_data()
        if (value.mimetype or "").startswith("text/") or value.mimetype in _TEXTS:
            body = body.decode(value.mimetype_params.get("charset", "utf-8"), "replace")
    headers = {StrKey(name.lower()): text for name, text in value.headers.items()}
    return {"status": value.status_code, "headers": headers, "body": body}


_TEXTS = ("application/xml", "application/javascript", "application/x-www-form-urlencoded")
