"""The session in a handler: application code reads it, and no response saves a change of it.

Libraries write keys of their own whenever a request reads the session: Flask-Login marks a session
that is not fresh any more, Flask-WTF makes a token. Their keys change for one event and are then
dropped. A change of any other key raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask, Request
from flask.sessions import SessionMixin

from ..errors import UsageError
from ..logs import RateLimitedLogger, logger

log = logger(__name__)
rate_limited = RateLimitedLogger(log)

# Flask and Flask-Login write these again with each request: nothing is lost.
REPEATED = {"_permanent", "_fresh"}

DROPPED = (
    "session[%r] was changed in a handler: the change holds for this event and is not saved, since"
    " no response carries the cookie. Sign in and out, and flash(), in an ordinary route."
)


class ReadOnlySession(SessionMixin):
    """The session of a connection's request, opened when it is read.

    No response carries a changed cookie (the seed's note: a single request and session persists
    over the whole connection). A key that starts with ``_``, and the field of Flask-WTF's token,
    can be changed until :meth:`forget`. :raises UsageError: for any other.
    """

    def __init__(self, app: Flask, request: Request) -> None:
        self._app = app
        self._request = request
        self._opened: Any = None
        self._changed: dict[str, Any] | None = None  # what holds for this event, once it differs
        self.modified = False

    def _session(self) -> Any:
        if self._changed is not None:
            return self._changed
        return self._open()

    def _open(self) -> Any:
        if self._opened is None:
            interface = self._app.session_interface
            opened = interface.open_session(self._app, self._request)
            self._opened = interface.make_null_session(self._app) if opened is None else opened
        return self._opened

    def forget(self) -> None:
        """Open the session anew when it is read again."""
        self._opened = self._changed = None

    def take(self, other: ReadOnlySession) -> None:
        """Be what *other* is by now."""
        self._opened = other._opened
        self._changed = None if other._changed is None else dict(other._changed)

    def __getattr__(self, name: str) -> Any:
        # The session id of a session that is kept on the server, such as Flask-Session's `sid`.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._open(), name)

    def __getitem__(self, key: str) -> Any:
        return self._session()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._session())

    def __len__(self) -> int:
        return len(self._session())

    def __contains__(self, key: object) -> bool:
        return key in self._session()

    def __setitem__(self, key: str, value: Any) -> None:
        # Only Flask-Login's login_user() and confirm_login() make a session fresh.
        if key == "_fresh" and value:
            self._refuse(key)
        self._for_this_event(key)[key] = value

    def __delitem__(self, key: str) -> None:
        del self._for_this_event(key)[key]

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value of *key*, where there is one."""
        if key not in self:
            self[key] = default
        return self[key]

    def _for_this_event(self, key: str) -> dict[str, Any]:
        """Where *key* can be changed."""
        field = self._app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token")
        if not (isinstance(key, str) and (key.startswith("_") or key == field)):
            self._refuse(key)
        if self._changed is None:
            self._changed = dict(self._session())
        if key not in REPEATED:
            rate_limited.warning(f"session {key}", DROPPED, key)
        return self._changed

    def _refuse(self, key: str) -> None:
        raise UsageError(
            f"session[{key!r}] cannot be changed in a channel socket handler: no response"
            " carries the cookie. Change it in an ordinary route, then call chsk.reconnect()"
            " in the page"
        )
