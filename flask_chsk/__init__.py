"""Channel sockets for Flask.

One event channel between clients and the users of a Flask application, over WebSocket where
it works and long-polling where it does not, in plain blocking code on gevent.

Names from above the protocol are imported when they are first used, so that
``import flask_chsk.publisher`` loads neither Flask nor gevent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from .logs import set_logging_level
from .protocol.event import Event, as_event, assert_event, is_event
from .protocol.uids import ALL_USERS_WITHOUT_UID, ConnectedUids, Identity
from .values import Char, FrozenMap, Keyword, StrKey, Symbol, Tagged

if TYPE_CHECKING:
    from .extension import Chsk
    from .protocol.session import cb_error, cb_success
    from .server.router import EventMessage, Handlers, Reply, is_event_msg
    from .state import uid_connected, uid_disconnected

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
    "Identity",
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

_HOMES = {
    "Chsk": "extension",
    "EventMessage": "server.router",
    "Handlers": "server.router",
    "Reply": "server.router",
    "cb_error": "protocol.session",
    "cb_success": "protocol.session",
    "is_event_msg": "server.router",
    "uid_connected": "state",
    "uid_disconnected": "state",
}

if not TYPE_CHECKING:  # for type checkers a module with a __getattr__ has every name

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
