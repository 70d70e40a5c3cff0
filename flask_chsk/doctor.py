"""``flask chsk doctor``: what is wrong with an application's channel sockets, and what to do.

:func:`examine` looks at the application and its Redis. :func:`probe` asks the channel socket at a
URL, as a browser would, through whatever stands between. Both change nothing.
"""

from __future__ import annotations

import base64
import http.client
import platform
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from typing import NamedTuple
from urllib.parse import urlsplit

from flask import Flask

from .config import Config
from .errors import ChskError
from .inspector import Inspector
from .printable import printable
from .publisher import is_shared
from .state import State

PATIENCE = 10.0  # seconds for each answer
CLOCKS = 60.0  # seconds that clocks may differ, as for workers
SHORTEST_KEY = 16  # characters of a secret key that nobody guesses
# What a channel socket says to a request without a client id; the second, under gunicorn -k sync.
OURS = ("no client-id", "no long-polling here")
EXAMPLES = ("change me", "changeme", "dev", "secret", "for tests")


class Verdict(NamedTuple):
    """One line: *level* is ``"ok"``, ``"warn"`` or ``"error"``."""

    level: str
    text: str


class Answer(NamedTuple):
    """What came back: *text* is the first line of a plain body; *error*: nothing came."""

    status: int = 0
    text: str = ""
    server: str = ""
    location: str = ""
    error: str = ""


# the application -------------------------------------------------------------------------------


def examine(app: Flask) -> Iterator[Verdict]:
    """Look at the settings, the handlers and the broker of *app*."""
    found = [f"{name} {version(name)}" for name in ("Flask-Chsk", "Flask", "Werkzeug", "gevent")]
    yield Verdict("ok", ", ".join([*found, f"Python {platform.python_version()}"]))
    state: State = app.extensions["chsk"]
    yield _secret_key(app)
    yield from _settings(state.config)
    if state.router.handlers:
        yield Verdict("ok", f"{len(state.router.handlers)} handlers")
    else:
        yield Verdict("warn", "no handler is registered: is the module with @chsk.on(…) imported?")
    yield from _broker(state.config.broker_url)


def _secret_key(app: Flask) -> Verdict:
    key = app.secret_key
    if not key:
        return Verdict(
            "error",
            "app.secret_key is not set, and CSRF tokens live in the session: set it, the same in"
            " each process and after each start",
        )
    if len(key) < SHORTEST_KEY or key in EXAMPLES:
        return Verdict(
            "warn",
            "app.secret_key is short, or one of an example: whoever guesses it signs in as anybody."
            " python -c 'import secrets; print(secrets.token_hex())' makes one",
        )
    return Verdict("ok", "app.secret_key is set; it has to be the same in each process")


def _settings(config: Config) -> Iterator[Verdict]:
    if not config.csrf:
        yield Verdict("warn", "CHSK_CSRF is off: pages of other sites may act as your users")
    if "*" in (config.allowed_origins or ()):
        yield Verdict("warn", "CHSK_ALLOWED_ORIGINS has '*': any site's pages may connect")
    if config.allow_unshared:
        yield Verdict("warn", "CHSK_ALLOW_UNSHARED: events reach the clients of one worker only")


def _broker(url: str) -> Iterator[Verdict]:
    if not is_shared(url):
        yield Verdict("ok", "CHSK_BROKER_URL=memory://: for one worker. More need redis://…")
        return
    try:
        with Inspector(url) as inspector:
            redis = inspector.redis()
            workers = inspector.ask("stats")
    except (ChskError, ImportError) as error:
        yield Verdict("error", printable(str(error)))
        return
    yield Verdict("ok", f"Redis {redis.version} answers")
    if redis.policy not in ("", "noeviction"):
        yield Verdict(
            "error",
            f"Redis has maxmemory-policy {redis.policy}, so it may drop history without a word:"
            " set maxmemory-policy noeviction",
        )
    ahead = time.time() - redis.clock
    if abs(ahead) > CLOCKS:
        yield Verdict("warn", f"the clock here is {ahead:+.0f} s off that of Redis: use NTP")
    if not workers:
        yield Verdict("warn", "no worker serves at this Redis: another URL, database or prefix?")
    for name, answer in workers.items():
        if answer is None:
            yield Verdict("warn", f"worker {name} does not answer")
    answered = [one for one in workers.values() if one is not None]
    if answered:
        clients = sum(one.get("clients", 0) for one in answered)
        yield Verdict("ok", f"{len(answered)} workers with {clients} clients")


# the way to it ---------------------------------------------------------------------------------


def probe(url: str, config: Config, cookie_is_secure: bool) -> Iterator[Verdict]:
    """Ask the channel socket of the site at *url*, over both transports, through all proxies.

    :param cookie_is_secure: whether browsers send the session's cookie over HTTPS only.
    """
    path = urlsplit(url).path.rstrip("/") + config.path
    plain = _ask(url, path)
    yield judge_plain(plain, path)
    if not plain.text.startswith(OURS):
        return
    if plain.server.startswith("Werkzeug"):
        yield Verdict("warn", "this is Flask's server for development: use flask chsk serve")
    if cookie_is_secure and url.startswith("http:"):
        yield Verdict(
            "error",
            "SESSION_COOKIE_SECURE is on, and this URL is plain HTTP: no cookie comes back",
        )
    query = f"{path}?client-id=doctor-{secrets.token_hex(6)}"
    # A bearer token and no cookie: no page's CSRF token is needed, and nobody is signed in.
    headers = {"Origin": _origin(url), "Authorization": "Bearer of-the-doctor"}
    yield judge("long-polling", _ask(url, f"{query}&handshake?=true", headers))
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    yield judge("WebSocket", _ask(url, query, {**headers, **upgrade}))


def judge_plain(answer: Answer, path: str) -> Verdict:
    """What an answer to a request without a client id says of the way to the server."""
    status = answer.status
    if answer.error:
        return Verdict("error", f"no answer: {answer.error}")
    if answer.text.startswith(OURS):
        return Verdict("ok", f"{path} is the channel socket")
    if status == 400:
        return Verdict("error", f"{path} answers 400: {answer.text or 'is the scheme https?'}")
    if 300 <= status < 400:
        return Verdict(
            "error",
            f"{path} is answered by a redirect to {printable(answer.location)}: exempt it from what"
            " redirects to a login, or to HTTPS",
        )
    if status == 404:
        return Verdict(
            "error",
            f"nothing is at {path}: is CHSK_PATH another, or is the URL without a prefix?",
        )
    if status in (502, 504):
        return Verdict("error", f"a proxy answers {status}: it does not reach the application")
    if status == 403:
        return Verdict("error", f"{path} is refused: {answer.text or 'by a proxy, it seems'}")
    return Verdict("error", f"something else answers at {path}, with status {status}")


def judge(transport: str, answer: Answer) -> Verdict:
    """What an answer to a handshake says."""
    status, text = answer.status, answer.text
    websocket = transport == "WebSocket"
    if answer.error:
        return Verdict("error", f"{transport}: {answer.error}")
    if status == (101 if websocket else 200):
        return Verdict("ok", f"{transport} works")
    if status == 401:
        return Verdict("ok", f"{transport} gets through; nobody is signed in here: {text}")
    if websocket and (status in (200, 426) or "does a proxy drop it" in text):
        return Verdict(
            "warn",
            "WebSocket: the proxy drops the Upgrade, so pages use long-polling. nginx needs"
            " proxy_http_version 1.1 and the headers Upgrade and Connection (docs/deployment.rst)",
        )
    if status == 403 and text.startswith("Origin"):
        return Verdict(
            "error",
            f"{transport}: {text}. Let the proxy pass on Host and X-Forwarded-Proto, and the"
            " application believe them (ProxyFix, docs/deployment.rst)",
        )
    if status in (502, 504):
        return Verdict("error", f"{transport}: a proxy answers {status}")
    if status == 429:
        return Verdict("warn", f"{transport}: {text or 'too many requests'}")
    if status == 500:
        return Verdict("error", f"{transport}: a hook or the server failed, its log says why")
    return Verdict("error", f"{transport} is refused with {status}: {text or 'not by Flask-Chsk'}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _ask(url: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        with closing(connection):
            connection.request("GET", path, headers=headers or {})
            with connection.getresponse() as response:
                return _read(response)
    except ssl.SSLError as error:
        return Answer(error=f"no TLS with this host: {error.reason or error}")
    except TimeoutError:
        return Answer(error=f"none within {PATIENCE:g} seconds")
    except (OSError, http.client.HTTPException) as error:
        return Answer(error=printable(str(error) or type(error).__name__))


def _read(response: http.client.HTTPResponse) -> Answer:
    text = ""
    if response.status == 101:
        if not response.fp.read1(1):  # the handshake message: bytes flow
            return Answer(error="it opens, and nothing comes through")
    elif response.headers.get_content_type() == "text/plain":
        text = printable(response.read(2000).decode("utf-8", "replace").strip())
    server, location = (response.getheader(name, "") for name in ("Server", "Location"))
    return Answer(response.status, text, server, location)
