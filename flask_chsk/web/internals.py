"""Names that the documentation of Flask and Werkzeug does not promise: no other module uses any.

Flask keeps a request in one of two shapes:

- Flask 3.1 has a ``RequestContext`` beside an ``AppContext``, which makes ``g`` when it is pushed.
- Flask 3.2 has one ``AppContext``, which may hold a request, and which makes ``g`` when it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import flask.ctx
import flask.globals
from flask import Flask, Request, Response
from flask.sessions import SessionMixin
from werkzeug._reloader import StatReloaderLoop

# Not getattr(): Flask 3.2 answers to the names of 3.1, with a warning.
_CTX = vars(flask.ctx)
_GLOBALS = vars(flask.globals)

if TYPE_CHECKING:
    from flask.ctx import RequestContext

    Context = RequestContext
else:
    Context = _CTX.get("RequestContext", _CTX["AppContext"])


class UnroutedContext:
    """For classes of request contexts: *request* was routed before, *session* is given.

    Stands before :data:`Context` among the bases.
    """

    _cv_tokens: Any = None  # Flask 3.1
    _cv_token: Any = None  # Flask 3.2
    _merged: bool  # the shape of Flask 3.2
    _after_request_functions: list[Any]

    def __init_subclass__(cls) -> None:
        cls._merged = hasattr(cls, "from_environ")

    def __init__(self, app: Flask, request: Request, session: SessionMixin) -> None:
        given: dict[str, Any] = {"request": request, "session": session}
        if not self._merged:
            given["environ"] = request.environ
        super().__init__(app, **given)  # type: ignore[call-arg]

    @property
    def entered(self) -> bool:
        """Whether the context is pushed."""
        return bool(self._cv_tokens) or self._cv_token is not None

    def renew(self) -> None:
        """Leave nothing of the use before: no flashed messages, no functions, an empty ``g``."""
        context: Any = self
        context._after_request_functions = []
        if self._merged:
            context._flashes = None
            context.g = context.app.app_ctx_globals_class()
        else:
            context.flashes = None

    @property
    def after_functions(self) -> list[Callable[[Any], Any]]:
        """What ``after_this_request`` was given: functions of a response that return a response."""
        return self._after_request_functions

    def match_request(self) -> None:
        """Route nothing."""


def current_context() -> Any:
    """The current request context.

    :raises RuntimeError: where there is none.
    """
    name = "request_ctx" if "request_ctx" in _GLOBALS else "app_ctx"
    return _GLOBALS[name]._get_current_object()


def current_request() -> Request:
    """The current request itself: an access through Flask's proxy costs a lookup each time.

    :raises RuntimeError: where there is none.
    """
    request: Request = _GLOBALS["request"]._get_current_object()
    return request


def swap_session(session: SessionMixin) -> SessionMixin:
    """Set the current request's session; returns the one before."""
    context = current_context()
    name = "_session" if hasattr(context, "_session") else "session"  # before Flask 3.1.3
    before: SessionMixin = getattr(context, name)
    setattr(context, name, session)
    return before


def call_last(app: Flask, fn: Callable[[Response], Response]) -> None:
    """Call *fn* after all other ``after_request`` functions, before the session is saved."""
    # Flask calls these in reverse order.
    app.after_request_funcs.setdefault(None, []).insert(0, fn)


def wait_for_change() -> None:
    """Return when a file of the program has changed, and say in Werkzeug's log which."""
    with suppress(SystemExit), StatReloaderLoop() as reloader:
        reloader.run()
