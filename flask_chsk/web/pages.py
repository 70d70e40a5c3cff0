"""From the page on: the cursor that a page carries to its channel socket (docs/pages.rst).

It stands at the start of the request: what was sent before is in the data that the view reads. What
is sent later follows the cursor. It is replayed when the page connects, or the page hears of a gap.
"""

from __future__ import annotations

from flask import has_request_context, request

from ..brokers.contract import Broker
from ..errors import BrokerError, UsageError
from ..logs import RateLimitedLogger, logger
from ..protocol.session import BEFORE_ALL
from ..security import page_cursor
from .contexts import in_event

rate_limited = RateLimitedLogger(logger(__name__))

# By this key in the environ: epoch and offset of where events were as the request began.
STARTED = "flask_chsk.started"


def note_start(broker: Broker) -> None:
    """Note where events are as a request begins; does not block."""
    epoch, offset = broker.epoch, broker.watermark()
    if epoch and epoch == broker.epoch:
        request.environ[STARTED] = epoch, offset


def assert_in_view() -> None:
    """
    :raises UsageError: where no view runs.
    """
    if not has_request_context() or in_event():
        raise UsageError("the cursor of a page is where its request began: ask for it in a view")


def cursor_of_page(broker: Broker, uid: str | None, grace: float, key: bytes) -> str:
    """The signed cursor of the page that the current request renders for *uid*.

    From now on events to that user are kept for *grace* seconds. Where the broker does not answer
    they are not kept, and the page hears of a gap if there are any.
    """
    if uid is not None:
        try:
            broker.clients.expect(uid, grace)
        except BrokerError as error:
            words = "events to uid %r are not kept while the page loads: %s"
            rate_limited.warning("grace", words, uid, error)
    started = request.environ.get(STARTED)
    cursor = BEFORE_ALL if started is None else "{}:{}".format(*started)
    return page_cursor(key, uid, cursor)
