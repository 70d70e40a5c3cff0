"""The server as one client reaches it: where it is, and what goes along with each request.

It asks the application for URL and credentials, and tells answers of a channel socket from those
of something else, such as a login page. It opens no connection.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..logs import logger
from ..printable import masked
from ..protocol.wire import Data
from ..security import RESUME_HEADER, SECRET_HEADER
from .http_client import Answer, HttpClient
from .link import Link, LinkClosed
from .options import Credentials
from .session import ClientSession

log = logger(__name__)

FOREIGN_RETRY = 15.0  # seconds till the next try where a login page answers: it stays for a while
HANDSHAKE = 10.0  # seconds for the answer to a poll that does not wait for events
SLACK = 5.0  # seconds that a poll may take longer than the server lets it wait

UrlFunction = Callable[[str, Mapping[str, str], bool], str]


def default_chsk_url(path: str, location: Mapping[str, str], websocket: bool) -> str:
    """Where the server is: *path* on the host of *location*, over ``ws(s)`` or ``http(s)``.

    *path* may be a whole URL.

    :param location: ``href protocol hostname host pathname search hash``, as a browser's
        ``window.location`` has them, of the URL that was given.
    """
    whole = path if "://" in path else f"{location['protocol']}//{location['host']}{path}"
    return f"ws{whole[4:]}" if websocket and whole.startswith("http") else whole


def location_of(url: str) -> dict[str, str]:
    """*url* in the parts of a browser's ``window.location``.

    :raises ConfigError: for what is no whole URL.
    """
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"{url!r}: a program has no page to be relative to, so give the whole URL,"
            " such as https://example.org/chsk"
        )
    return {
        "href": url,
        "protocol": f"{scheme}:",
        "hostname": parts.hostname,
        "host": parts.netloc.rpartition("@")[2],
        "pathname": parts.path or "/",
        "search": f"?{parts.query}" if parts.query else "",
        "hash": f"#{parts.fragment}" if parts.fragment else "",
    }


class Endpoint:
    """One server for one client.

    :ivar http: makes connections.
    :ivar shown: the URL without what is secret in it, for logs.
    """

    def __init__(
        self,
        url: str,
        session: ClientSession,
        credentials: Credentials,
        http: HttpClient,
        lock: threading.RLock,
        lp_timeout: float,
        chsk_url: UrlFunction | None,
        ajax_opts: Mapping[str, Any] | None,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        """
        :param lock: the client's; it is held while the session is used.
        :raises ConfigError: for a URL that is none, or unknown *ajax_opts*.
        """
        ajax = ajax_opts or {}
        if unknown := set(ajax) - {"params", "headers"}:
            raise ConfigError(f"ajax_opts has params and headers, not {sorted(unknown)}")
        self.http = http
        self.shown = masked(url)
        self._location = location_of(url)
        self._session = session
        self._lock = lock
        self._credentials = credentials
        self._secret = secrets.token_urlsafe(16)  # proves that all requests are one client's
        self._chsk_url = chsk_url or default_chsk_url
        self._ajax_params = dict(ajax.get("params") or {})
        self._ajax_headers = dict(ajax.get("headers") or {})
        self._params = dict(params or {})
        self._headers = dict(headers or {})
        self._lp_timeout = lp_timeout
        self._requests = 0  # numbers them, so that no cache takes one for another
        self._warned_foreign = False

    def ask_credentials(self) -> None:
        """Ask the application for its credentials, anew; it may block."""
        csrf, auth = self._credentials.ask()
        with self._lock:
            self._session.csrf, self._session.auth = csrf, auth

    @property
    def knows_batches(self) -> bool:
        """Whether the server reads several events in one message."""
        return self._session.server.knows_batches

    @property
    def max_batch(self) -> int:
        """How many events it takes in one message."""
        return self._session.server.max_batch

    @property
    def post_timeout(self) -> float:
        """Seconds to wait for the answer to a POST of events that expect no reply."""
        return self._lp_timeout

    def poll_timeout(self, link: Link) -> float:
        """Seconds to wait for the answer to a poll."""
        if link.confirmations_left:
            return HANDSHAKE
        return max(self._lp_timeout, self._session.server.poll_seconds + SLACK)

    # requests ------------------------------------------------------------------------

    def url(self, websocket: bool) -> str:
        """Where to go.

        :raises ConfigError: where the application's ``chsk_url`` returned no URL.
        """
        location = self._location
        url = self._chsk_url(location["pathname"], location, websocket)
        if not isinstance(url, str) or not url:
            raise ConfigError(f"chsk_url must return a URL, not {url!r}")
        scheme, _, rest = url.partition("://")
        secure = scheme in ("https", "wss")
        wanted = ("wss" if secure else "ws") if websocket else ("https" if secure else "http")
        query = location["search"][1:]
        if query and "?" not in rest:
            rest += f"?{query}"
        return f"{wanted}://{rest}"

    def link_params(self, link: Link) -> dict[str, Any]:
        """The query of the request that opens *link*, or of its next poll."""
        ajax = link.kind == "ajax"
        params = self._common_params(ajax)
        session = self._session
        with self._lock:
            self._requests += 1
            if ajax:
                link.cursor = session.cursor
            params.update(cursor=link.cursor, n=self._requests)
        if ajax and session.asks_for_handshake(link):
            params["handshake?"] = 1
        return params

    def post_params(self) -> dict[str, Any]:
        """The form of a POST, or its query where the body is bytes."""
        return self._common_params(ajax=True)

    def _common_params(self, ajax: bool) -> dict[str, Any]:
        session = self._session
        return {
            **self._params,
            **(self._ajax_params if ajax else {}),
            "client-id": session.client_id,
            "udt": int(time.time() * 1000),
            "packer": session.composer.packer.name,
            "v": 1,
        }

    def headers(self, websocket: bool) -> dict[str, str]:
        """Headers of the application, and credentials: what proves who this is is in no URL."""
        session = self._session
        headers = {} if websocket else dict(self._ajax_headers)
        headers.update(self._headers)
        headers[SECRET_HEADER] = self._secret
        if session.resume:
            headers[RESUME_HEADER] = session.resume
        if session.csrf:
            headers["X-CSRF-Token"] = session.csrf
        if session.auth:
            headers["Authorization"] = f"Bearer {session.auth}"
        return headers

    # answers -------------------------------------------------------------------------

    def message_of(self, answer: Answer) -> Data:
        """The message in the body of *answer*, as the packer reads it."""
        binary = self._session.composer.packer.binary
        return answer.body if binary else answer.body.decode("utf-8", "replace")

    def foreign(self, answer: Answer) -> LinkClosed | None:
        """How *answer* ends a link if it is no channel socket's; logged once, retried slowly."""
        if 300 <= answer.status < 400 and "location" in answer.headers:
            what = f"a redirect to {answer.headers['location'][:200].partition('?')[0]}"
        elif answer.status == 200 and "html" in answer.content_type:
            what = "a page of HTML"
        else:
            return None
        message = f"{self.shown} is answered by {what}: exempt it from what redirects to a login"
        if self._warned_foreign:
            return LinkClosed(message=message, retry_after=FOREIGN_RETRY)
        self._warned_foreign = True
        log.warning("%s, or look at what stands between", message)
        return LinkClosed(message=message)


def refusal(answer: Answer) -> LinkClosed:
    """How an answer of the server that lets nobody in ends a link."""
    message = answer.line or f"HTTP {answer.status}"
    return LinkClosed(status=answer.status, message=message, retry_after=answer.retry_after)
