"""The names of redis-py that its documentation does not promise: no other module uses any.

``tests/matrix/internals.py`` looks at them with the lowest and the newest redis-py.
"""

from __future__ import annotations

import socket
from typing import Any

import redis.connection


def plain_parser() -> Any:
    """The class that reads answers in Python, whatever is installed.

    hiredis polls before it reads, which costs more. redis-py's own choice, where it has no such
    class.
    """
    try:
        from redis._parsers import _RESP2Parser
    except ImportError:
        return redis.connection.DefaultParser
    return _RESP2Parser


def socket_of(connection: redis.connection.AbstractConnection) -> socket.socket | None:
    """The socket of a connection; None while it has none."""
    sock: socket.socket | None = getattr(connection, "_sock", None)
    return sock
