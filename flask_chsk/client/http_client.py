"""HTTP for the client: connections that verify, go through proxies, and can be cut off.

It uses urllib3's connection classes: they work in plain threads and, where those are patched, in
greenlets; they do TLS, proxies and tunnels; and a WebSocket can begin on such a connection. It
follows no redirect and repeats nothing: the caller decides about that.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.cookiejar
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit
from weakref import WeakSet

from .. import forks
from ..errors import ChskError, ConfigError

try:
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import (
        ConnectTimeoutError,
        HTTPError,
        NewConnectionError,
        ReadTimeoutError,
    )
    from urllib3.util import Url, parse_url
except ImportError as error:
    raise ImportError(
        "flask_chsk.client needs urllib3: pip install 'Flask-Chsk[client]'"
    ) from error

REUSED = 1.0  # seconds that a spare connection is used again: gunicorn keeps it for 2
SPARE = 4  # connections kept for the next request
RETRY_AFTER = 60.0  # seconds at most that a server may ask to wait
MAX_BODY = 64 * 1024 * 1024  # bytes of an answer

# What a request can end with, by the fault of a network, a proxy or a server.
FAILURES = (OSError, HTTPError, http.client.HTTPException, ValueError)
TIMEOUTS = (TimeoutError, ConnectTimeoutError, ReadTimeoutError)


class NoAnswer(ChskError):
    """No answer; *kind* is ``"timeout"``, ``"abort"`` or ``"exception"``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class Answer:
    """A whole HTTP answer; *headers* has a ``get`` that takes names in lower case."""

    status: int
    headers: Any
    body: bytes = b""

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", ""))

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked to wait, 60 at most; None where it asked for none."""
        value = self.headers.get("retry-after", "")
        seconds = float(value) if value.isascii() and value.isdecimal() else 0.0
        return min(seconds, RETRY_AFTER) or None

    @property
    def line(self) -> str:
        """The first line of a body that is plain text, for messages; else empty."""
        if not self.content_type.startswith("text/plain"):
            return ""
        return self.body[:300].decode("utf-8", "replace").strip().partition("\n")[0]


class Abort:
    """Ends a request from another thread, before it begins or while it waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self.is_set = False

    def abort(self) -> None:
        """End the request, and every later one: it raises :class:`NoAnswer` ``"abort"``."""
        with self._lock:
            self.is_set = True
            if self._connection is not None:
                shut_down(self._connection.sock)

    @contextlib.contextmanager
    def guarding(self, connection: HTTPConnection) -> Iterator[None]:
        """While *connection* is in use, :meth:`abort` shuts it down."""
        with self._lock:
            self._connection = connection
            aborted = self.is_set
        try:
            if aborted:
                raise NoAnswer("abort", "aborted")
            yield
        except FAILURES as error:
            if self.is_set:
                raise NoAnswer("abort", "aborted") from error
            raise
        finally:
            with self._lock:
                self._connection = None

    def connected(self) -> None:
        """Called when the connection has its socket: an abort may have come before."""
        if self.is_set:
            raise NoAnswer("abort", "aborted")


def shut_down(sock: Any, how: int = socket.SHUT_RDWR) -> None:
    """Shut *sock* down, so that the thread that uses it wakes up and closes it."""
    if sock is None:
        return
    with contextlib.suppress(OSError, ValueError):
        # Through another descriptor: shutdown() of a TLS object of the standard library drops
        # its state, while another thread reads from it.
        fd = os.dup(sock.fileno())
        with socket.socket(fileno=fd) as same:
            same.shutdown(how)


def _proxy_of(scheme: str, host: str) -> Url | None:
    """The proxy that the environment names for *host*.

    :raises ConfigError: for one that is not reached by ``http://``.
    """
    if urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    plain = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    text = proxies.get(plain) or proxies.get("all")
    if not text:
        return None
    proxy = parse_url(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.host:
        raise ConfigError(f"a proxy of the environment is {proxy.scheme}://, not http://")
    return proxy


@dataclass(eq=False)
class HttpClient:
    """Makes requests of one user: with TLS, cookies, and a few spare connections.

    :ivar cookies: a jar; cookies that servers set go in there too.
    """

    ssl_context: ssl.SSLContext | None = None
    cookies: http.cookiejar.CookieJar = field(default_factory=http.cookiejar.CookieJar)
    connect_timeout: float = 5.0
    _spare: list[tuple[str, float, HTTPConnection]] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)
    _closed: bool = False
    _made: WeakSet[HTTPConnection] = field(default_factory=WeakSet)

    def __post_init__(self) -> None:
        forks.register(self)

    def forked(self) -> None:
        """This is a child process: the connections are its parent's."""
        for connection in self._made:
            if connection.sock is not None:
                forks.silence(connection.sock.fileno())

    def connection(self, url: str) -> HTTPConnection:
        """A connection to the server of *url*, or to the proxy before it; not connected yet.

        :raises ConfigError: for what is no URL.
        """
        parts = urlsplit(url)
        scheme, host = parts.scheme, parts.hostname
        if scheme not in ("http", "https", "ws", "wss") or not host:
            raise ConfigError(f"{url!r} is not a URL such as https://example.org/chsk")
        secure = scheme in ("https", "wss")
        port = parts.port or (443 if secure else 80)
        proxy = _proxy_of(scheme, f"{host}:{port}")
        if proxy is None:
            connection = self._connection(host, port, secure)
            self._made.add(connection)
            return connection
        assert proxy.host is not None
        connection = self._connection(proxy.host, proxy.port or 80, secure)
        self._made.add(connection)
        if scheme != "http":
            connection.set_tunnel(host, port, _proxy_headers(proxy))
        return connection

    def _connection(self, host: str, port: int, secure: bool) -> HTTPConnection:
        if not secure:
            return HTTPConnection(host, port, timeout=self.connect_timeout)
        if self.ssl_context is None:
            self.ssl_context = ssl.create_default_context()
        return HTTPSConnection(
            host, port, timeout=self.connect_timeout, ssl_context=self.ssl_context
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 60.0,
        abort: Abort | None = None,
        begun: Callable[[], object] | None = None,
    ) -> Answer:
        """The answer, whatever its status.

        :param timeout: seconds without a byte, once it is connected.
        :param begun: called when the head of an answer with status 200 has come.
        :raises NoAnswer: where none comes.
        """
        abort = abort or Abort()
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}"
        connection = self._take(place) or self.connection(url)
        try:
            with abort.guarding(connection):
                if connection.sock is None:
                    connection.connect()
                abort.connected()
                connection.timeout = timeout
                connection.sock.settimeout(timeout)
                answer, keep = self._exchange(connection, method, url, headers, body, begun)
        except FAILURES as error:
            connection.close()
            # urllib3 derives its error for "connection refused" from its timeout.
            late = isinstance(error, TIMEOUTS) and not isinstance(error, NewConnectionError)
            kind = "timeout" if late else "exception"
            raise NoAnswer(kind, str(error) or type(error).__name__) from error
        except BaseException:
            connection.close()
            raise
        if keep:
            self._give(place, connection)
        else:
            connection.close()
        return answer

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        begun: Callable[[], object] | None,
    ) -> tuple[Answer, bool]:
        parts = urlsplit(url)
        target = parts.path or "/"
        if parts.query:
            target += f"?{parts.query}"
        all_headers = {**(headers or {}), **self.cookie_header(url)}
        proxy = _proxy_of(parts.scheme, parts.netloc) if parts.scheme == "http" else None
        if proxy is not None:
            target = f"{parts.scheme}://{parts.netloc}{target}"
            all_headers.update(_proxy_headers(proxy))
            all_headers["Host"] = parts.netloc
        connection.request(method, target, body=body, headers=all_headers, preload_content=False)
        response = connection.getresponse()
        if begun is not None and response.status == 200:
            begun()
        content = response.read(MAX_BODY + 1)
        if len(content) > MAX_BODY:
            raise ValueError(f"an answer of over {MAX_BODY} bytes")
        self.keep_cookies(url, response)
        found = {name.lower(): value for name, value in response.headers.items()}
        keep = "close" not in found.get("connection", "").lower() and response.version >= 11
        return Answer(response.status, found, content), keep

    def _take(self, place: str) -> HTTPConnection | None:
        """A spare connection to *place* that is still open; others that are not are closed."""
        now = time.monotonic()
        with self._lock:
            spare, self._spare = self._spare, []
        found = None
        for at, since, connection in spare:
            if now - since > REUSED or not connection.is_connected:
                connection.close()
            elif at == place and found is None:
                found = connection
            else:
                with self._lock:
                    self._spare.append((at, since, connection))
        return found

    def _give(self, place: str, connection: HTTPConnection) -> None:
        with self._lock:
            if not self._closed and len(self._spare) < SPARE:
                self._spare.append((place, time.monotonic(), connection))
                return
        connection.close()

    def close(self) -> None:
        """Close the spare connections; requests under way keep theirs."""
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, []
        for _, _, connection in spare:
            connection.close()

    # cookies ---------------------------------------------------------------------------

    def cookie_header(self, url: str) -> dict[str, str]:
        """The ``Cookie`` header for *url*; empty where there is none."""
        request = urllib.request.Request(_http(url))
        self.cookies.add_cookie_header(request)
        value = request.get_header("Cookie")
        return {} if value is None else {"Cookie": value}

    def keep_cookies(self, url: str, response: Any) -> None:
        """Put the cookies of a response into the jar."""
        request = urllib.request.Request(_http(url))
        self.cookies.extract_cookies(_Headers(response.headers), request)  # type: ignore[arg-type]


class _Headers:
    """A response as ``http.cookiejar`` reads its headers."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def info(self) -> Any:
        return self._headers


def _http(url: str) -> str:
    return "http" + url[2:] if url.startswith("ws") else url


def _proxy_headers(proxy: Url) -> dict[str, str]:
    if not proxy.auth:
        return {}
    auth = base64.b64encode(unquote(proxy.auth).encode()).decode()
    return {"Proxy-Authorization": f"Basic {auth}"}


def cookie_jar(
    cookies: http.cookiejar.CookieJar | Mapping[str, str] | None, url: str
) -> http.cookiejar.CookieJar:
    """*cookies* if it is a jar, else a new jar of names and values for the host of *url*."""
    if isinstance(cookies, http.cookiejar.CookieJar):
        return cookies
    jar = http.cookiejar.CookieJar()
    host = urlsplit(url).hostname or ""
    domain = f"[{host}]" if ":" in host else host
    if "." not in domain:
        domain += ".local"  # as http.cookiejar spells it
    for name, value in (cookies or {}).items():
        jar.set_cookie(
            http.cookiejar.Cookie(
                version=0,
                name=name,
                value=value,
                port=None,
                port_specified=False,
                domain=domain,
                domain_specified=False,
                domain_initial_dot=False,
                path="/",
                path_specified=True,
                secure=False,
                expires=None,
                discard=True,
                comment=None,
                comment_url=None,
                rest={},
            )
        )
    return jar


def with_query(url: str, params: Mapping[str, Any]) -> str:
    """*url* with *params* behind its own query; values that are None are left out."""
    text = urlencode(_texts(params), quote_via=quote)
    if not text:
        return url
    return f"{url}{'&' if '?' in url else '?'}{text}"


def form(params: Mapping[str, Any]) -> bytes:
    """*params* as the body of a form; values that are None are left out."""
    return urlencode(_texts(params)).encode()


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    words = {True: "true", False: "false"}
    return {
        name: words[value] if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }
