"""``ajax_call``: one HTTP request with Sente's options and its response map.

Failures of the network and errors of the server are in the map; they are not raised.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, overload
from urllib.parse import urljoin, urlsplit

from .. import forks, packers
from ..errors import ConfigError, UnpackError
from ..interrupts import from_signal
from ..logs import logger
from ..printable import masked
from .http_client import MAX_BODY, Abort, Answer, HttpClient, NoAnswer, cookie_jar, form, with_query

log = logger(__name__)

CALLS = 64  # with a callback at a time; then "xhr-pool-depleted"
REDIRECTS = 5  # that are followed, as a browser does
TIMEOUT = 60.0

Callback = Callable[[dict[str, Any]], object]


class _Calls(threading.BoundedSemaphore):
    """Counts the calls under way."""

    def forked(self) -> None:
        """This is a child process: its parent's calls are not under way here."""
        self.__init__(CALLS)  # type: ignore[misc]


_free = _Calls(CALLS)
forks.register(_free)
_OPTIONS = frozenset(
    "method params headers body resp_type timeout with_credentials cookies ssl_context".split()
)


class Call:
    """A call under way."""

    def __init__(self, abort: Abort) -> None:
        self._abort = abort

    def abort(self) -> None:
        """End it: its callback gets the error ``"abort"``."""
        self._abort.abort()


@overload
def ajax_call(url: str, opts: Mapping[str, Any] | None = None) -> dict[str, Any]: ...
@overload
def ajax_call(url: str, opts: Mapping[str, Any] | None, callback: Callback) -> Call | None: ...
def ajax_call(
    url: str, opts: Mapping[str, Any] | None = None, callback: Callback | None = None
) -> dict[str, Any] | Call | None:
    """Request *url*; return the response map, or call *callback* with it.

    The map: ``success``, ``status`` (None where no answer came), ``error``, ``content``,
    ``content_type``. ``error`` is None, the status, or one of ``"timeout"``, ``"abort"``,
    ``"http-error"`` (no answer), ``"no-content"`` (an empty answer), ``"exception"`` (content that
    its type cannot be read as), ``"xhr-pool-depleted"`` (64 calls are under way).

    :param opts: ``method`` ("get"), ``params`` (query, or a POST's form), ``headers``,
        ``body`` (bytes), ``resp_type`` ("auto", "text", "binary", or a packer's name),
        ``timeout`` (60 seconds; or ``timeout_ms``), ``cookies`` (mapping or jar),
        ``with_credentials`` (False: send no cookies), ``ssl_context``. Sente's spellings,
        such as ``"timeout-ms"``, are accepted too.
    :returns: with a *callback* a :class:`Call`, which can be aborted; None if it was not begun.
    """
    given = _options(opts or {})
    abort = Abort()
    if callback is None:
        return _call(url, given, abort)
    if not _free.acquire(blocking=False):
        callback(_response(error="xhr-pool-depleted"))
        return None

    def run() -> None:
        try:
            response = _call(url, given, abort)
        finally:
            _free.release()
        try:
            callback(response)
        except BaseException as error:
            if from_signal(error):
                raise
            log.exception("error in the callback of %s", masked(url))

    threading.Thread(target=run, name="flask_chsk.client ajax", daemon=True).start()
    return Call(abort)


def _options(opts: Mapping[str, Any]) -> dict[str, Any]:
    given = {str(key).replace("-", "_").rstrip("?"): value for key, value in opts.items()}
    if (ms := given.pop("timeout_ms", None)) is not None:
        given["timeout"] = ms / 1000
    if unknown := sorted(given.keys() - _OPTIONS):
        raise ConfigError(f"ajax_call takes {', '.join(sorted(_OPTIONS))}; not {unknown}")
    return given


def _response(**what: Any) -> dict[str, Any]:
    return {
        "success": False,
        "status": None,
        "error": None,
        "content": None,
        "content_type": None,
    } | what


def _call(url: str, given: Mapping[str, Any], abort: Abort) -> dict[str, Any]:
    cookies = given.get("cookies") if given.get("with_credentials", True) else None
    http = HttpClient(given.get("ssl_context"), cookie_jar(cookies, url))
    try:
        answer = _request(http, url, given, abort)
    except NoAnswer as error:
        return _response(error=error.kind if error.kind != "exception" else "http-error")
    finally:
        http.close()
    found = {"status": answer.status, "content_type": answer.content_type or None}
    ok = 200 <= answer.status < 300
    kind = str(given.get("resp_type", "auto")) if ok else "text"
    try:
        content = _content(answer, kind)
    except UnpackError as error:
        log.warning("%s: %s", masked(url), error)
        return _response(error="exception", content=_text(answer), **found)
    if not ok:
        return _response(error=answer.status, content=content, **found)
    if not answer.body and answer.status != 204:
        return _response(error="no-content", content=content, **found)
    return _response(success=True, content=content, **found)


def _request(http: HttpClient, url: str, given: Mapping[str, Any], abort: Abort) -> Answer:
    method = str(given.get("method", "get")).upper()
    params = given.get("params") or {}
    headers = dict(given.get("headers") or {})
    body = given.get("body")
    if method == "POST" and body is None:
        body = form(params)
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    else:
        url = with_query(url, params)
    for _ in range(REDIRECTS + 1):
        answer = http.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=given.get("timeout", TIMEOUT),
            abort=abort,
        )
        where = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not where:
            break
        there = urljoin(url, where)
        if urlsplit(there).netloc != urlsplit(url).netloc:
            headers.pop("Authorization", None)  # another server must not see them
            headers.pop("Cookie", None)
        url = there
        if answer.status == 303 or (answer.status < 303 and method == "POST"):
            method, body = "GET", None
            headers.pop("Content-Type", None)
    return answer


def _content(answer: Answer, kind: str) -> Any:
    """The body, read as *kind*; ``"auto"``: as its content type says."""
    if kind == "auto":
        found = re.search(r"edn|json|transit|msgpack", answer.content_type.partition(";")[0])
        kind = found[0] if found else "text"
        if kind in ("transit", "json") and "transit" in answer.content_type:
            kind = "transit"
    if kind == "binary":
        return answer.body
    if kind == "text":
        return _text(answer)
    if not answer.body:
        return None
    packer = packers.make(kind, max_bytes=MAX_BODY, max_values=None)
    return packer.unpack(answer.body if packer.binary else _text(answer))


def _text(answer: Answer) -> str:
    found = re.search(r"charset=\"?([\w-]+)", answer.content_type)
    try:
        return answer.body.decode(found[1] if found else "utf-8", "replace")
    except LookupError:
        return answer.body.decode("utf-8", "replace")
