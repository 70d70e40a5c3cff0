"""Whether a view of the application is at work, and when its response has ended."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, after_this_request, has_request_context, request

from .contexts import in_event
from .cookieless import Cookieless


def responds(cookieless: Cookieless) -> bool:
    """Whether a server waits for the response of a view here.

    Not in a handler of an event, whose reply is no response; nor in a hook, where a poll would
    wait for its own end; nor under Flask's test client or ``test_request_context``.
    """
    if not has_request_context() or in_event() or cookieless.are_asked():
        return False
    return "SERVER_SOFTWARE" in request.environ  # which every WSGI server sets, and no test client


def after_response(fn: Callable[[], object]) -> None:
    """Call *fn* when the response to the current request was handed to the server, or given up."""

    @after_this_request
    def attach(response: Response) -> Response:
        # A file that is passed through would be closed without us.
        response.direct_passthrough = False
        response.call_on_close(fn)
        return response
