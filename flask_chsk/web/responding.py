"""Tells whether a view of the application runs, and when its response has ended."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, after_this_request, has_request_context, request

from .contexts import in_event
from .cookieless import Cookieless


def responds(cookieless: Cookieless) -> bool:
    """Whether the current request has a response that a WSGI server will send.

    False in a handler, whose reply is no response; in a hook, where a poll would wait for its own
    end; under Flask's test client and ``test_request_context``.
    """
    if not has_request_context() or in_event() or cookieless.own_request():
        return False
    return "SERVER_SOFTWARE" in request.environ  # set by WSGI servers only


def after_response(fn: Callable[[], object]) -> None:
    """Call *fn* when the server has sent the current request's response, or has given it up."""

    @after_this_request
    def attach(response: Response) -> Response:
        # Werkzeug does not call `call_on_close` functions of a file that is passed through.
        response.direct_passthrough = False
        response.call_on_close(fn)
        return response
