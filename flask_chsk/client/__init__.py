"""Channel sockets for Python programs: services, workers, bots, tests, devices.

::

    from flask_chsk.client import ChannelSocket

    chsk = ChannelSocket("https://example.org/chsk", cookies=session.cookies)

    @chsk.on("chat/said")
    def said(ev):
        print(ev.data)

Needs the extra ``client``. It stores nothing: a new process starts at now.
"""

from __future__ import annotations

from ..backoff import exp_backoff
from ..errors import ChannelClosed, ReplyError, ReplyTimeout, RequestError
from ..event import as_event, assert_event, is_event
from ..logs import set_logging_level
from ..session import cb_error, cb_success
from .channel import ChannelSocket, EventMsg, RecvQueue, default_chsk_url, is_event_msg

__all__ = [
    "ChannelClosed",
    "ChannelSocket",
    "EventMsg",
    "RecvQueue",
    "ReplyError",
    "ReplyTimeout",
    "RequestError",
    "as_event",
    "assert_event",
    "cb_error",
    "cb_success",
    "default_chsk_url",
    "exp_backoff",
    "is_event",
    "is_event_msg",
    "set_logging_level",
]
