"""The Flask contexts around a handler, and the request that stays behind an open socket.

A context lives as long as one event. What an idle connection keeps of its request is a few
hundred bytes, made a request again when a handler runs.
"""

from __future__ import annotations

import io
import marshal
import sys
from typing import Any

from flask import Flask, Request
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from ..logs import RateLimitedLogger, logger
from ..values import StrKey
from .internals import Context, UnroutedContext, current_context
from .readonly import ReadOnlySession

rate_limited = RateLimitedLogger(logger(__name__))

NO_RESPONSE = (
    "after_this_request(%s): not called, since the handler of %s returns no response; do it in the"
    " handler, or change the reply in @chsk.after_event"
)


#: Names of environments, shared by all requests that have the same: browsers send few sets of
#: headers. A request with other names than these keeps its own.
_SHARED: dict[tuple[str, ...], tuple[str, ...]] = {}
_MOST_SHARED = 64
_MOST_NAME_BYTES = 4096  # of a set that is shared: the table stays small whatever clients send


class HandshakeRequest:
    """The request that a WebSocket began with, kept in few bytes between its events."""

    __slots__ = ("_context", "_kept", "_names", "_rule")

    def __init__(self, environ: dict[str, Any], rule: Rule | None = None) -> None:
        kept = {k: v for k, v in environ.items() if type(v) is str and type(k) is str}
        self._names = _shared(tuple(kept))
        self._kept = marshal.dumps([*kept.values()] if self._names else [*kept.values(), *kept])
        self._rule = rule
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
            kept = marshal.loads(self._kept)
            names = self._names or map(sys.intern, kept[len(kept) // 2 :])
            environ = dict(zip(names, kept, strict=False))
            environ["wsgi.input"] = io.BytesIO()
            environ["wsgi.errors"] = sys.stderr
            environ["wsgi.version"] = (1, 0)
            environ["wsgi.multithread"] = environ["wsgi.multiprocess"] = False
            environ["wsgi.run_once"] = False
            request = app.request_class(environ)
            request.url_rule, request.view_args = self._rule, {}
            context = self._context = EventContext(app, request)
        elif context.entered:  # by a handler that runs beside this one
            context = EventContext(app, context.request)
        return context

    def rest(self) -> None:
        """Let the context go; it can be made again."""
        self._context = None


def _shared(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """*names* as the table has them; None where they are not in it and it takes no more."""
    found = _SHARED.get(names)
    if found is None and len(_SHARED) < _MOST_SHARED and sum(map(len, names)) <= _MOST_NAME_BYTES:
        found = _SHARED[names] = tuple(map(sys.intern, names))
    return found


class PostRequest(HandshakeRequest):
    """The request of one POST, without its body: thousands may wait for their handlers."""

    __slots__ = ()

    def __init__(self, environ: dict[str, Any], rule: Rule | None = None) -> None:
        super().__init__({key: environ[key] for key in environ if key not in _OF_THE_BODY}, rule)

    def context(self, app: Flask) -> EventContext:
        """A context for one event; nothing of it is kept for the events of the same POST."""
        context = super().context(app)
        self.rest()
        return context


_OF_THE_BODY = frozenset(["CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING"])


class EventContext(UnroutedContext, Context):
    """A request context for one event: no routing, and a session to read."""

    def __init__(self, app: Flask, request: Request) -> None:
        self._read_only = ReadOnlySession(app, request)
        super().__init__(app, request, self._read_only)

    def renew(self) -> None:
        """Make it as new: nothing of the event before is left."""
        self._read_only.forget()
        super().renew()

    def pop(self, *args: Any) -> None:
        """Leave it. An idle connection holds nothing of its last event."""
        try:
            super().pop(*args)
        finally:
            if not self.entered:
                self.renew()

    def value(self, value: Any, id: str) -> Any:
        """What a client gets for a handler's *value*, by :func:`response_value`.

        Functions that ``after_this_request`` was given change a response. Another value is none.
        """
        for fn in self.after_functions:
            if isinstance(value, Response):
                value = fn(value)
            else:
                name = getattr(fn, "__qualname__", repr(fn))
                rate_limited.warning(f"after_this_request in {id}", NO_RESPONSE, name, id)
        return response_value(value)

    def copy(self) -> EventContext:
        """Another one of the same request and session, as for ``copy_current_request_context``."""
        copied = EventContext(self.app, self.request)
        copied._read_only.take(self._read_only)
        return copied


def in_event() -> bool:
    """Whether the current request context is that of an event, not of a view."""
    return isinstance(current_context(), EventContext)


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
