"""What a server says with its handshake, read with care: any of it may be missing or wrong.

Pure. A server of Sente says no more than uid, CSRF token and the application's data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..values import Keyword

BATCH_EVENTS = 64  # half of what our server lets wait for one client's handlers

_NIL_UIDS = ("sente/nil-uid", "taoensso.sente/nil-uid")


class ServerInfo:
    """What a server tells of itself, its limits, and where it stands."""

    __slots__ = ("_told",)

    def __init__(self, told: Any = None) -> None:
        self._told: dict[Any, Any] = told if isinstance(told, dict) else {}

    @property
    def knows_batches(self) -> bool:
        """Whether it reads ``chsk/batch``; Sente's servers do not."""
        return bool(self._told)

    @property
    def max_batch(self) -> int:
        """How many events may be in one message."""
        if not self.knows_batches:
            return 1
        most = self._positive("max-batch")
        return BATCH_EVENTS if most is None else min(most, BATCH_EVENTS)

    @property
    def max_bytes(self) -> int | None:
        """How many bytes one message may have; None: it did not say."""
        return self._positive("max-bytes")

    @property
    def poll_seconds(self) -> float:
        """For how long it lets a poll wait; 0: it did not say."""
        ms = self._told.get("lp-timeout-ms")
        return ms / 1000 if isinstance(ms, int) else 0.0

    @property
    def cursor(self) -> Any:
        """Where its events stand, such as ``"e7f3:1042"``."""
        return self._told.get("cursor")

    @property
    def recovered(self) -> Any:
        """Whether it still has what this client missed; None: it was not asked."""
        return self._told.get("recovered")

    def resume(self, known: str | None) -> str | None:
        """The token that proves who this client is; *known* where it sends no new one."""
        return self._told.get("resume", known)

    def _positive(self, name: str) -> int | None:
        value = self._told.get(name)
        return value if isinstance(value, int) and value > 0 else None


class Handshake(NamedTuple):
    """The body of ``[:chsk/handshake [uid csrf-token data server]]``."""

    uid: Any
    csrf_token: Any
    data: Any
    server: ServerInfo

    @classmethod
    def read(cls, body: list[Any]) -> Handshake:
        """*body*, which may be shorter than it should be."""
        uid, csrf_token, data, server = [*body, None, None, None, None][:4]
        nil = isinstance(uid, Keyword) and uid in _NIL_UIDS
        return cls(None if nil else uid, csrf_token, data, ServerInfo(server))
