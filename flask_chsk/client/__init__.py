"""Channel sockets for Python programs: services, workers, bots, tests, devices.

::

    from flask_chsk.client import ChannelSocket

    chsk = ChannelSocket("https://example.org/chsk", cookies=session.cookies)

    @chsk.on("chat/said")
    def said(ev):
        print(ev.data)

Needs the extra ``client``. It stores nothing: a new process gets the events from its start on.
"""

from __future__ import annotations

from ..errors import ChannelClosed, ReplyError, ReplyTimeout, RequestError
from ..logs import set_logging_level
from ..protocol.backoff import exp_backoff
from ..protocol.event import as_event, assert_event, is_event
from ..protocol.session import cb_error, cb_success
from .ajax import ajax_call
from .channel import ChannelSocket
from .dispatch import EventMsg, RecvQueue, is_event_msg
from .endpoint import default_chsk_url
from .sente import (
    Parts,
    chsk_destroy,
    chsk_reconnect,
    chsk_send,
    make_channel_socket,
    set_exp_backoff_timeout,
    start_chsk_router,
    start_chsk_router_loop,
)

__all__ = [
    "ChannelClosed",
    "ChannelSocket",
    "EventMsg",
    "Parts",
    "RecvQueue",
    "ReplyError",
    "ReplyTimeout",
    "RequestError",
    "ajax_call",
    "as_event",
    "assert_event",
    "cb_error",
    "cb_success",
    "chsk_destroy",
    "chsk_reconnect",
    "chsk_send",
    "default_chsk_url",
    "exp_backoff",
    "is_event",
    "is_event_msg",
    "make_channel_socket",
    "set_exp_backoff_timeout",
    "set_logging_level",
    "start_chsk_router",
    "start_chsk_router_loop",
]
