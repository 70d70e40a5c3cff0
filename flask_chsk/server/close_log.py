"""Every close that this server decides, counted each time and told once a minute of each kind.

A close that only its client hears of is a mystery to whoever runs the server.
"""

from __future__ import annotations

import logging
from collections import Counter

from ..logs import RateLimitedLogger, logger
from ..protocol import session as s
from .trace import Trace

log = logger(__name__)

REPLACED = "replaced by a newer connection of this client"

# What clients and applications do every day; the others are refusals.
ORDINARY = {s.NORMAL, s.GOING_AWAY, s.RESTART, s.REPLACED, s.CLOSED_BY_APP, s.SIGNED_OUT}


class CloseLog:
    """``closed_<code>`` of :meth:`~flask_chsk.Chsk.stats`, and the lines about them."""

    def __init__(self, counters: Counter[str], trace: Trace) -> None:
        self._counters = counters
        self._trace = trace
        self._sparse = RateLimitedLogger(log)

    def note(self, uid: str | None, client_id: str, code: int, reason: str) -> None:
        """A client is told to go with *code* and *reason*."""
        self._counters[f"closed_{code}"] += 1
        if self._trace.on:
            self._trace.client("close", uid, client_id, about=f"{code} {reason}".rstrip())
        ordinary = code in ORDINARY or reason == REPLACED
        self._sparse.log(
            logging.INFO if ordinary else logging.WARNING,
            f"{code} {ordinary}",
            "a connection of uid %r was closed with %d: %s",
            uid,
            code,
            reason or "normally",
        )
