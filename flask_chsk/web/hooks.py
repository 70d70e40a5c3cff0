"""The application's answers about a request: who may come, who it is, what it gets.

A hook that returns nothing, or something of the wrong type, lets nobody in: the request is refused,
or an error names the hook and what it has to return. An HTTP error of a hook
(``abort(403, "why")``) refuses the request; other exceptions go to Flask's error handling.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from inspect import isroutine
from typing import Any

from flask import current_app, session
from werkzeug.wrappers import Response

from ..errors import ConfigError, Refused, UsageError
from ..logs import RateLimitedLogger, logger
from ..plain import REMEDY, did_not_run
from ..protocol.event import Event
from ..protocol.uids import Identity, as_uid, is_text

log = logger(__name__)

CSRF_SESSION_KEY = "_chsk_csrf"
MILLISECONDS = 1e11  # since 1970: as seconds they are far from now, and would never expire


@dataclass
class Hooks:
    """The functions of one application; where it has none, the defaults are here."""

    user_id: Callable[[], Any] | None = None
    handshake_data: Callable[[], Any] | None = None
    csrf_token: Callable[[], str | None] | None = None
    authorize: Callable[[], Any] | None = None
    reject: Callable[[], Any] | None = None
    pack_default: Callable[[Any], Any] | None = None
    absent: Callable[[str, Event], object] | None = None
    rate_limited: RateLimitedLogger = field(
        default_factory=lambda: RateLimitedLogger(log), init=False, repr=False
    )

    def uid(self) -> str | None:
        """Who is behind the current request; None: nobody known.

        :raises UsageError: for an answer that is no uid.
        """
        return self.identity()[0]

    def identity(self) -> tuple[str | None, float | None]:
        """Who is behind the current request, and for how many seconds more; None: for ever.

        :raises UsageError: for an answer that is no uid.
        """
        uid, source = self._identified()
        if not isinstance(uid, Identity):
            return self._uid(uid, source), None
        return self._uid(uid.uid, source), _seconds_left(uid.expires_at, source)

    def _identified(self) -> tuple[Any, str]:
        """What the application says of the current request, and what said it."""
        if self.user_id is not None:
            return self._answer("user_id", self.user_id), "@chsk.user_id"
        if hasattr(current_app, "login_manager"):
            from flask_login import current_user

            return current_user.get_id(), "get_id() of Flask-Login's user"
        return session.get("uid"), 'session["uid"]'

    @staticmethod
    def _uid(uid: Any, source: str) -> str | None:
        if uid is None or uid == "":
            return None
        if isinstance(uid, str) and len(uid) > 255:  # users choose their names
            raise Refused(400, "this user's uid is over 255 characters")
        if isinstance(uid, str) and not is_text(uid):
            raise Refused(400, "this user's uid is no text: half of a surrogate pair is in it")
        try:
            return as_uid(uid)
        except UsageError:
            raise UsageError(
                f"{source} is {_shown(uid)}: it has to be a str, an int or a UUID,"
                " an Identity of one, or None for a visitor who is nobody known"
            ) from None

    def lets_in(self) -> bool:
        """Whether the application lets the current request in."""
        if self.authorize is None:
            return True
        answer = self.authorize()
        if answer is True:
            return True
        # These are true in Python, but no answer: coroutines, functions that were not called, the
        # return values of a view, and Flask-Login's user object, which visitors have, too.
        meant = not (
            did_not_run(answer) or isroutine(answer) or isinstance(answer, Response | tuple)
        )
        if meant and answer and getattr(answer, "is_authenticated", True):
            return True
        if answer is not False:
            kind = f"authorize {type(answer).__name__}"
            words = "authorize returned %s: return True to let in"
            self.rate_limited.warning(kind, words, _shown(answer))
        return False

    def refusal(self) -> Any:
        """What ``@chsk.reject`` says of the current request; false: nothing against it."""
        return None if self.reject is None else self._answer("reject", self.reject)

    def greeting(self) -> Any:
        """The data of the handshake."""
        if self.handshake_data is None:
            return None
        return self._answer("handshake_data", self.handshake_data)

    def page_csrf_token(self) -> str:
        """The token for a page; made where the session has none."""
        if self.csrf_token is not None:
            token = self._own_csrf_token()
            if not token:
                raise UsageError(
                    "@chsk.csrf_token returned nothing for a page: it has to return the token of"
                    " the current session, and make one where there is none"
                )
            return token
        if "csrf" in current_app.extensions:
            from flask_wtf.csrf import generate_csrf

            return str(generate_csrf())
        if not current_app.secret_key:
            raise ConfigError(
                "the CSRF token lives in the session, which needs app.secret_key: set it, or"
                " CHSK_CSRF = False"
            )
        if CSRF_SESSION_KEY not in session:
            session[CSRF_SESSION_KEY] = secrets.token_urlsafe(24)
        return str(session[CSRF_SESSION_KEY])

    def expected_csrf_token(self) -> str | None:
        """The token that the current request has to bring; None: there is none yet."""
        if self.csrf_token is not None:
            return self._own_csrf_token()
        return session.get(CSRF_SESSION_KEY)

    def _own_csrf_token(self) -> str | None:
        assert self.csrf_token is not None
        token = self._answer("csrf_token", self.csrf_token)
        if token is None or isinstance(token, str):
            return token
        raise UsageError(f"@chsk.csrf_token returned {_shown(token)}: it has to return a str")

    def csrf_matches(self, given: str) -> bool | None:
        """Flask-WTF's verdict without its age limit; None where it is not in use."""
        if self.csrf_token is not None or "csrf" not in current_app.extensions:
            return None
        from itsdangerous import BadData, URLSafeTimedSerializer

        field = current_app.config["WTF_CSRF_FIELD_NAME"]
        config = current_app.config
        secret = config.get("WTF_CSRF_SECRET_KEY") or current_app.secret_key or ""
        # The newest key is the last one, for itsdangerous.
        keys = [*(config.get("SECRET_KEY_FALLBACKS") or ()), secret]
        try:
            token = URLSafeTimedSerializer(keys, salt="wtf-csrf-token").loads(given)
        except BadData:
            return False
        return hmac.compare_digest(str(token), str(session.get(field, "")))

    @staticmethod
    def _answer(name: str, hook: Callable[[], Any]) -> Any:
        answer = hook()
        if did_not_run(answer):
            raise UsageError(f"@chsk.{name} returned {_shown(answer)}: {REMEDY}")
        return answer


def _seconds_left(expires_at: Any, source: str) -> float | None:
    if expires_at is None:
        return None
    if isinstance(expires_at, datetime) and expires_at.tzinfo is not None:
        return expires_at.timestamp() - time.time()
    if type(expires_at) in (int, float) and 0 <= expires_at < MILLISECONDS:
        return float(expires_at) - time.time()
    raise UsageError(
        f"expires_at of the Identity of {source} is {_shown(expires_at)}: it has to be seconds"
        " since 1970, such as the exp of a JWT, or a datetime with a zone"
    )


def _shown(answer: object) -> str:
    """*answer* in a short line."""
    text = ascii(answer)
    return text if len(text) <= 100 else f"{text[:100]}..."
