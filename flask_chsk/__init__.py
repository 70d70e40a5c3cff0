"""Channel sockets for Flask.

One event channel between clients and the users of a Flask application, over WebSocket where
it works and long-polling where it does not, in plain blocking code on gevent.
"""

from .errors import (
    AskError,
    AskFailed,
    AskTimeout,
    BadEvent,
    BrokerError,
    BrokerUnavailable,
    ChannelClosed,
    ChskError,
    ClientGone,
    ConfigError,
    NoClient,
    PackError,
    PublishUnknown,
    ReplyError,
    ReplyTimeout,
    RequestError,
    UnpackError,
    UsageError,
)
from .event import Event, as_event, assert_event, is_event
from .extension import Chsk, uid_connected, uid_disconnected
from .logs import set_logging_level
from .registry import ConnectedUids
from .router import EventMessage, Handlers, Reply, is_event_msg
from .session import cb_error, cb_success
from .uids import ALL_USERS_WITHOUT_UID
from .values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

__version__ = "0.1.0"

__all__ = [
    "ALL_USERS_WITHOUT_UID",
    "AskError",
    "AskFailed",
    "AskTimeout",
    "BadEvent",
    "BrokerError",
    "BrokerUnavailable",
    "ChannelClosed",
    "Char",
    "Chsk",
    "ChskError",
    "ClientGone",
    "ConfigError",
    "ConnectedUids",
    "Event",
    "EventMessage",
    "FrozenMap",
    "Handlers",
    "Keyword",
    "NoClient",
    "PackError",
    "PublishUnknown",
    "Reply",
    "ReplyError",
    "ReplyTimeout",
    "RequestError",
    "StrKey",
    "Symbol",
    "Tagged",
    "UnpackError",
    "UsageError",
    "as_event",
    "assert_event",
    "cb_error",
    "cb_success",
    "is_event",
    "is_event_msg",
    "set_logging_level",
    "uid_connected",
    "uid_disconnected",
]
