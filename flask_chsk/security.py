"""Who may open a channel socket: checks as pure functions (docs/protocol.rst, "Refusals").

Each raises :class:`~flask_chsk.errors.Refused` with the status and one line that names what
came, what was expected, and the setting.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from . import origins
from .errors import Refused

SECRET_HEADER = "X-Chsk-Secret"
RESUME_HEADER = "X-Chsk-Resume"

HELD_RETRY = 2  # seconds until a held client id is worth another try: Sente's grace is 2.5

_PRIVATE = ("secret", "resume", "csrf", "auth")  # subprotocols that carry what opens something
_CLIENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,64}")  # 128 random bits in base64url, at least
_BEGAN = re.compile(r"([0-9a-f]{1,16})(?:\+([0-9a-f]{1,16}))?")
_SIGNATURE = 24  # characters: 144 bits in base64url
_PAGE = "page"  # begins no message of a resume token: they begin with "-" or "u"


def check_client_id(client_id: str | None) -> str:
    """The client id, where it is one.

    :raises Refused: 400.
    """
    if not client_id:
        raise Refused(400, "no client-id: add one to the query, [A-Za-z0-9_-], at most 64 long")
    if _CLIENT_ID.fullmatch(client_id) is None:
        raise Refused(400, "bad client-id: [A-Za-z0-9_-], at most 64 long")
    return client_id


def check_origin(
    origin: str | None,
    fetch_site: str | None,
    own: str,
    allowed: tuple[str, ...] | str | None,
    cookies: bool = False,
) -> str | None:
    """The foreign origin whose pages may read the answer; None: our own pages, or no browser.

    ``"*"`` where any origin may come, and for ``null`` without cookies, which any page can send
    from a sandboxed frame. Browsers let no page read such an answer to a request with cookies.

    :param own: our scheme and host, such as ``"https://example.org"``.
    :param fetch_site: the ``Sec-Fetch-Site`` header, which pages cannot set.
    :param cookies: whether the request has any.
    :raises Refused: 403.
    """
    if allowed == "*":
        return None if origin is None else "*"
    if fetch_site == "same-origin":
        return None  # says the browser, whatever a proxy made of Host; no page can make it lie
    if origin is None:
        if fetch_site == "cross-site":
            raise Refused(403, "a page of another site asked: list it in CHSK_ALLOWED_ORIGINS")
        return None
    given, own = origins.normal(origin), origins.normal(own)
    if given == own:
        return None
    if isinstance(allowed, tuple) and origins.matches(origin, allowed):
        if given != origins.NULL:
            return origin
        if cookies:
            raise Refused(
                403,
                "a page of the origin null came with cookies, and any page can be one: it is"
                " served without cookies only, with a bearer token",
            )
        return "*"
    hint = ""
    if given.partition("://")[2] == own.partition("://")[2]:
        hint = " (behind a TLS proxy: werkzeug's ProxyFix tells the application the real scheme)"
    elif origins.on_this_machine(given) and origins.on_this_machine(own):
        hint = " (behind a development server: its proxy has to pass Host on: no changeOrigin)"
    raise Refused(
        403,
        f"Origin {_shown(origin)} is not {own}{hint}:"
        " add it to CHSK_ALLOWED_ORIGINS if it is yours",
    )


def proves_same_origin(origin: str | None, fetch_site: str | None, own: str) -> bool:
    """Whether the browser says that a page of our own made the request. None can make it lie.

    :param own: as for :func:`check_origin`.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin"
    if origin is None:
        return False
    return origins.normal(origin) == origins.normal(own)


def _shown(text: str) -> str:
    return ascii(text)[1:-1][:100]


def check_csrf(given: str | None, expected: str | None) -> None:
    """Compare in constant time; the token's age is not judged.

    :raises Refused: 403.
    """
    if expected is None:
        raise Refused(
            403,
            "no CSRF token in this session: render {{ chsk_script() }} in the page first and"
            " keep its cookie, send a bearer token instead of cookies, or set CHSK_CSRF = False",
        )
    if not given:
        raise Refused(
            403,
            "CSRF token missing: send it as X-CSRF-Token, csrf-token= or the subprotocol"
            " csrf.<base64url> ({{ chsk_script() }} and chsk.js do), or set CHSK_CSRF = False",
        )
    if not hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    ):
        raise Refused(
            403, "CSRF token is not this session's: reload the page that {{ chsk_script() }} is in"
        )


def digest_of_secret(secret: str | None) -> str:
    """The digest of a client's secret: what servers and brokers keep of it.

    Each ``v=1`` client makes 128 random bits for its life and shows them with every request.
    Whoever shows the same bits is the same client, whatever process is asked: docs/protocol.rst,
    "Client ids, secrets and resume tokens".

    :raises Refused: 400 where *secret* is none.
    """
    if secret is None or _SECRET.fullmatch(secret) is None:
        raise Refused(
            400,
            f"a v=1 client needs a secret of its own: 128 random bits as {SECRET_HEADER}, or as"
            " the subprotocol secret.<base64url>; chsk.js and flask_chsk.client send one",
        )
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()[:16])[:22].decode()


class Shown(NamedTuple):
    """What a request shows to open something; None where it does not."""

    secret: str | None
    resume: str | None
    csrf: str | None
    bearer: str | None

    @classmethod
    def take(cls, environ: dict[str, Any]) -> Shown:
        """Take it out of a request: handlers get that, and reports of errors quote its headers.

        Headers that are the application's stay: ``Authorization``, ``X-CSRF-Token``.
        """
        offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
        shown = cls(
            environ.pop(_in_environ(SECRET_HEADER), "") or subprotocol(offered, "secret"),
            environ.pop(_in_environ(RESUME_HEADER), "") or subprotocol_value(offered, "resume"),
            subprotocol_value(offered, "csrf"),
            subprotocol_value(offered, "auth"),
        )
        if offered is not None:
            names = [one.strip() for one in offered.split(",")]
            rest = [one for one in names if one.partition(".")[0] not in _PRIVATE]
            environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = ", ".join(rest)
        return shown


def _in_environ(header: str) -> str:
    return f"HTTP_{header.upper().replace('-', '_')}"


def check_may_act(uid: str | None, held: str | None, digest: str) -> None:
    """Let a request act for a client id: the one rule, for each transport and each process.

    A user's requests are the user's, who is proved by the session or a token of the application.
    An anonymous client has nothing but its secret. Sente's clients have none: whoever knows the
    client id of an anonymous one may act for it (docs/security.rst).

    :param held: the digest of the client that has this id, ``""`` for one of Sente's; None where
        nobody has it.
    :param digest: of the secret that the request shows; ``""`` where it is not of ``v=1``.
    :raises Refused: 409 with Retry-After.
    """
    if uid is None and held is not None and not hmac.compare_digest(held, digest):
        raise held_by_another()


def held_by_another() -> Refused:
    """The refusal of a client id that an anonymous client with another secret has."""
    return Refused(
        409,
        "this client id is held by another client: take a new one, or try again when it is gone",
        retry_after=HELD_RETRY,
    )


def subprotocol(offered: str | None, name: str) -> str | None:
    """What follows ``<name>.`` among the offered subprotocols, as it stands."""
    for protocol in (offered or "").split(","):
        prefix, _, rest = protocol.strip().partition(".")
        if prefix == name and rest:
            return rest
    return None


def subprotocol_value(offered: str | None, name: str) -> str | None:
    """The text in ``<name>.<base64url>`` among the offered subprotocols."""
    encoded = subprotocol(offered, name)
    if encoded is None:
        return None
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        return base64.b64decode(padded, b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return None


def offers(offered: str | None, protocol: str) -> bool:
    """Whether *protocol* is among the offered subprotocols."""
    return any(one.strip() == protocol for one in (offered or "").split(","))


def resume_key(secret_key: str | bytes) -> bytes:
    """The key of resume tokens and page cursors, made from the application's secret key."""
    secret = secret_key.encode() if isinstance(secret_key, str) else secret_key
    return hmac.digest(secret, b"flask_chsk resume", "sha256")


class Began(NamedTuple):
    """Where a client's time began, as offsets.

    ``since``: of what is sent to its user, to topics or to everybody: at the cursor of its page,
    where that had one. ``own``: of what is sent to this client alone: at its first handshake.
    """

    since: int
    own: int

    def __str__(self) -> str:
        return f"{self.since:x}" + (f"+{self.own - self.since:x}" if self.own > self.since else "")


def resume_token(key: bytes, uid: str | None, client_id: str, digest: str, began: Began) -> str:
    """A proof of the offsets at which a client began. Unlike a cursor it holds in each epoch.

    docs/protocol.rst, "Client ids, secrets and resume tokens".

    With it, and with the secret of *digest*, a client gets what came after *began*. A client that
    takes an id which is free again gets nothing of the clients that had it before.
    """
    return f"{began}.{_signed(key, _named(uid), client_id, digest, str(began))}"


def read_resume_token(
    keys: Iterable[bytes], token: str | None, uid: str | None, client_id: str, digest: str
) -> Began | None:
    """What *token* was made with; None where it is not this client's.

    :param keys: the present one, and those of secret keys that were replaced.
    """
    text, _, signature = (token or "").partition(".")
    found = _BEGAN.fullmatch(text)
    if found is None:
        return None
    since = int(found[1], 16)
    words = _named(uid), client_id, digest, text
    if not _is_signed(keys, signature, *words):
        return None
    return Began(since, since + int(found[2] or "0", 16))


def page_cursor(key: bytes, uid: str | None, cursor: str) -> str:
    """*cursor*, signed for the user of the page that carries it.

    docs/protocol.rst, "From the page on". Of another user it opens nothing.
    """
    return f"{cursor}.{_signed(key, _PAGE, _named(uid), cursor)}"


def is_page_cursor(text: str) -> bool:
    """Whether *text* is shaped as a page's cursor, whoever signed it."""
    return len(text.partition(".")[2]) == _SIGNATURE


def read_page_cursor(keys: Iterable[bytes], text: str | None, uid: str | None) -> str | None:
    """The cursor that *text* was made of; None where it is not of a page of this user."""
    cursor, _, signature = (text or "").partition(".")
    return cursor if _is_signed(keys, signature, _PAGE, _named(uid), cursor) else None


def _named(uid: str | None) -> str:
    return "-" if uid is None else f"u{uid}"


def _signed(key: bytes, *words: str) -> str:
    message = "\0".join(words).encode("utf-8", "surrogatepass")
    return base64.urlsafe_b64encode(hmac.digest(key, message, hashlib.sha256)[:18]).decode()


def _is_signed(keys: Iterable[bytes], signature: str, *words: str) -> bool:
    if len(signature) != _SIGNATURE or not signature.isascii():
        return False
    return any(hmac.compare_digest(signature, _signed(key, *words)) for key in keys)
