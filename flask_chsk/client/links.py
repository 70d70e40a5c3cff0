"""The two transports of a client: what a link decided in session.py does on the network.

Each runs in threads of its own and tells its :class:`Owner` what came and how it ended,
once. ``take`` and ``end`` never block (they are called under the owner's lock); ``flush``
may, until the peer took what was given.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from http.client import parse_headers
from typing import Any, Protocol
from urllib.parse import urlsplit

from gevent.monkey import is_module_patched
from urllib3.util.wait import wait_for_read, wait_for_write

from .. import forks
from ..errors import ChskError
from ..interrupts import from_signal
from ..logs import logger
from ..protocol import frames
from ..protocol.frames import FrameReader
from ..protocol.session import ERROR, NORMAL, TIMEOUT
from ..protocol.wire import Data
from .session import Cut, Item, Link
from .waiting import Crew
from .web import FAILURES, Abort, Answer, Web, WebError, form, shut_down, with_query

log = logger("flask_chsk.client")

BATCH_BYTES = 65_536
EMPTY = 0.5  # seconds: polls that end empty do not follow each other faster
HANDSHAKE = 10.0  # seconds for the answer to a poll that is not parked
HEAD = 65_536  # bytes of the head of an answer to an upgrade
MAX_MESSAGE = 16 * 1024 * 1024  # bytes of one message from a server
POST_QUEUE = 1000  # events; a server that is so far behind is as good as closed
POST_TRIES = 5  # where the server says "later"
POSTS = 32  # that wait for their replies at a time
READ = 65_536
SLACK = 5.0  # seconds that a poll may take longer than the server parks it
STALLED = 10.0  # seconds without taking a byte, after which a peer is given up
TRIAL = 0.05  # seconds between two looks whether a trial is over


class Owner(Protocol):
    """Whoever owns links: :class:`~flask_chsk.client.ChannelSocket`."""

    lock: Any
    crew: Crew
    web: Web
    gone: threading.Event
    lp_timeout: float

    def trying(self) -> bool:
        """Whether a WebSocket that the server accepted is being tried."""

    def binary(self) -> bool:
        """Whether the packer is."""

    def server_lp_timeout(self) -> float:
        """Seconds for which the server parks polls."""

    def batches(self) -> bool:
        """Whether the server knows batches."""

    def max_batch(self) -> int:
        """How many events the server takes in one message."""

    def ask_credentials(self) -> None:
        """Ask the application for its credentials, anew."""

    def url(self, websocket: bool) -> str:
        """Where to go."""

    def params(self, link: Link | None) -> dict[str, Any]:
        """The query; that of a POST where there is no *link*."""

    def headers(self, websocket: bool) -> dict[str, str]:
        """Headers of the application, and credentials."""

    def foreign(self, what: str) -> Cut:
        """Something else than a channel socket answered: logged once, and tried again slowly."""

    def opened(self, link: Link) -> None:
        """The server accepted a WebSocket."""

    def received(self, link: Link, data: Data) -> str | None:
        """A message; the word that it is, if it is one."""

    def heard(self, link: Link) -> None:
        """A sign of life."""

    def lost(self, link: Link, cut: Cut) -> None:
        """*link* ended by itself."""

    def finished(self, transport: Any) -> None:
        """The threads of *transport* are done."""

    def posted(self, item: Item, data: Data) -> None:
        """The answer to a POST."""

    def cut_off(self, item: Item) -> None:
        """Whether *item* arrived is not known."""

    def replied(self, item: Item, reply: Any, details: Any = None) -> None:
        """*item* has its reply."""

    def wanted(self, item: Item) -> bool:
        """Whether *item* has no reply yet, or expects none."""

    def batch(self, items: list[Item]) -> Data:
        """Events as one message."""


class Unanswered(ChskError):
    """The server did not open a WebSocket."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


# WebSocket -------------------------------------------------------------------------------


class WebSocket:
    """A WebSocket of a client: one thread reads, whoever has something to say writes."""

    def __init__(self, owner: Owner, link: Link) -> None:
        self._owner = owner
        self._link = link
        self._abort = Abort()
        self._queue: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._stream: Stream | None = None
        self._closing = False

    def start(self) -> None:
        """Connect, and read until the end."""
        self._owner.crew.start("websocket", self._run)

    # out -----------------------------------------------------------------------------

    def take(self, item: Item) -> bool:
        """Put a message in line; False where none leaves any more."""
        if self._closing:
            return False
        data = item.data
        text = isinstance(data, str)
        build = frames.text_frame if text else frames.binary_frame
        self._queue.append(build(data, masked=True))  # type: ignore[arg-type]
        return True

    def end(self, code: int) -> None:
        """Close with *code*; :meth:`flush` sends it."""
        if self._closing:
            return
        self._closing = True
        if self._stream is None:
            self._abort.abort()
        else:
            self._queue.append(frames.close_frame(code, masked=True))

    def flush(self) -> None:
        """Send what is in line, whoever put it there, in that order."""
        stream = self._stream
        if stream is None:
            return
        try:
            while self._queue:
                with self._writing:
                    some = []
                    while self._queue:
                        some.append(self._queue.popleft())
                    stream.send(b"".join(some))
            if self._closing:
                stream.finish()
        except FAILURES as error:
            self._owner.lost(self._link, Cut(1006, why="ws-error", error=str(error)))
            self.cut()

    def again(self) -> None:
        """Nothing: a WebSocket is pinged."""

    def hurry(self) -> None:
        """Nothing: nobody waits here."""

    def cut(self) -> None:
        """End at once, from any thread."""
        self._closing = True
        self._abort.abort()
        if self._stream is not None:
            self._stream.finish(hard=True)

    # in ------------------------------------------------------------------------------

    def _run(self) -> None:
        owner, link = self._owner, self._link
        stream = None
        try:
            stream, leftover = self._open()
            with owner.lock:
                self._stream = stream
                if self._closing:
                    return
            owner.opened(link)
            cut = self._read(stream, leftover)
        except Unanswered as error:
            cut = Cut(why="ws-error", error=str(error))
            if error.answer is not None and error.answer.status != 101:
                what = _foreign(error.answer)
                cut = owner.foreign(what) if what else _refusal(error.answer)
                cut = replace(cut, why="ws-error", error=str(error))
        except (*FAILURES, WebError, ChskError) as error:
            cut = Cut(1006, why="ws-error", error=str(error) or type(error).__name__)
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("connecting failed")
            cut = Cut(why="ws-error", error=repr(error))
        finally:
            if stream is not None:
                stream.close()
            owner.finished(self)
        owner.lost(link, cut)

    def _open(self) -> tuple[Stream, bytes]:
        """A WebSocket, and what the server said behind its head.

        :raises Unanswered: where the server did not open one.
        """
        owner = self._owner
        owner.ask_credentials()
        self._link.asked = True
        url = with_query(owner.url(True), owner.params(self._link))
        connection = owner.web.connection(url)
        try:
            with self._abort.guarding(connection):
                connection.connect()
                self._abort.connected()
                sock = connection.sock
                key = frames.new_key()
                sock.sendall(_upgrade(url, key, owner.headers(True) | owner.web.cookie_header(url)))
                answer, leftover = _read_answer(sock)
                owner.web.keep_cookies(url, answer)
                _check_upgrade(answer, key)
                connection.sock = None  # it is ours now
                return Stream(sock), leftover
        finally:
            connection.close()

    def _read(self, stream: Stream, data: bytes) -> Cut:
        owner, link = self._owner, self._link
        reader = FrameReader("client", MAX_MESSAGE)
        while True:
            for message in reader.feed(data) if data else ():
                if isinstance(message, str | bytes):
                    owner.received(link, message)
                elif isinstance(message, frames.Ping):
                    owner.heard(link)
                    if not self._closing:
                        self._queue.append(frames.pong_frame(message.payload, masked=True))
                        self.flush()
                elif isinstance(message, frames.Pong):
                    owner.heard(link)
                else:
                    self._close(frames.close_frame(message.code, masked=True))
                    return Cut(message.code, message.reason, "clean", clean=True)
            if reader.failed is not None:
                code, reason = reader.failed.code, str(reader.failed)
                self._close(frames.close_frame(code, reason, masked=True))
                return Cut(code, reason, "ws-error", error=reason)
            data = stream.receive()
            if not data:
                return Cut(1006, why="unexpected")

    def _close(self, frame: bytes) -> None:
        """Send *frame*, a close; nothing where one was sent (RFC 6455 5.5.1)."""
        if self._closing:
            return
        self._closing = True
        self._queue.append(frame)
        self.flush()


class Stream:
    """A connected socket, read by one thread and written by any, one at a time."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._ended = False
        self._closed = False
        self._closing = threading.Lock()  # whoever shuts a closed descriptor hits another's
        # OpenSSL's objects bear one native thread at a time; greenlets take turns anyway.
        alone = not isinstance(sock, ssl.SSLSocket) or is_module_patched("socket")
        self._turns = None if alone else threading.Lock()
        sock.settimeout(STALLED if self._turns is None else 0.0)
        forks.register(self)

    def forked(self) -> None:
        """The connection is the parent's."""
        if not self._closed:
            forks.silence(self._sock.fileno())

    def send(self, data: bytes) -> None:
        """Send all of it.

        :raises OSError: TimeoutError where the peer takes none of it for ten seconds.
        """
        if self._turns is None:
            view = memoryview(data)
            while view:
                view = view[self._sock.send(view) :]
            return
        rest = data
        while rest:
            with self._turns:
                try:
                    rest = rest[self._sock.send(rest) :]
                    continue
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    pass
            if not wait_for_write(self._sock, STALLED):
                raise TimeoutError("the peer takes nothing")

    def receive(self) -> bytes:
        """What came; nothing at the end."""
        while True:
            try:
                if self._turns is None:
                    return self._sock.recv(READ)  # type: ignore[no-any-return]
                with self._turns:
                    return self._sock.recv(READ)  # type: ignore[no-any-return]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                wait_for_read(self._sock, STALLED)
            except TimeoutError:
                pass
            if self._ended:
                return b""

    def finish(self, hard: bool = False) -> None:
        """Say no more; *hard*: nor listen. The reader then ends, and closes."""
        with self._closing:
            self._ended = True
            if not self._closed:
                shut_down(self._sock, socket.SHUT_RDWR if hard else socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; by the thread that reads it."""
        with self._closing:
            self._closed = True
            self._sock.close()


def _upgrade(url: str, key: str, headers: Mapping[str, str]) -> bytes:
    """The request for a WebSocket (RFC 6455, 4.1)."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "wss" else 80
    host = parts.netloc.rpartition("@")[2]
    if parts.port == default:
        host = host.rpartition(":")[0]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header with a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _read_answer(sock: Any) -> tuple[Answer, bytes]:
    """The head of an HTTP answer, and what came behind it; of a refusal, as its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(READ)
        data += more
        if not more or len(data) > HEAD or not data.startswith(b"HTTP/1."[: len(data)]):
            raise Unanswered("no HTTP answer")
    head, _, rest = data.partition(b"\r\n\r\n")
    first, _, fields = head.partition(b"\r\n")
    words = first.split(None, 2)
    if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise Unanswered("no HTTP answer")
    parsed = parse_headers(io.BytesIO(fields + b"\r\n\r\n"))
    answer = Answer(int(words[1]), parsed)
    if answer.status != 101:
        length = answer.headers.get("content-length") or ""
        wanted = min(int(length) if length.isdigit() else 0, 1024)
        while len(rest) < wanted and (more := sock.recv(READ)):
            rest += more
        answer.body, rest = rest, b""
    return answer, rest


def _check_upgrade(answer: Answer, key: str) -> None:
    headers = answer.headers
    if answer.status != 101:
        raise Unanswered(f"HTTP {answer.status}", answer)
    if (
        headers.get("upgrade", "").lower() != "websocket"
        or "upgrade" not in headers.get("connection", "").lower()
        or headers.get("sec-websocket-accept") != frames.accept_key(key)
        or headers.get("sec-websocket-extensions")
        or headers.get("sec-websocket-protocol")
    ):
        raise Unanswered("something between does not let a WebSocket through")


# Long-polling ----------------------------------------------------------------------------


class Polling:
    """A series of polls of a client, and its POSTs: each leaves when the last was handled."""

    def __init__(self, owner: Owner, link: Link) -> None:
        self._owner = owner
        self._link = link
        self._queue: deque[Item] = deque()
        self._leaving = False
        self._poll = Abort()
        self._ended = threading.Event()
        self._waiting = threading.BoundedSemaphore(POSTS)
        self._posts: dict[Abort, bool] = {}  # and whether they wait for a reply

    def start(self) -> None:
        """Poll until the end."""
        self._owner.crew.start("polls", self._run)

    def end(self, code: int) -> None:
        """Poll no more; what was taken still leaves."""
        self._ended.set()
        self._poll.abort()

    def again(self) -> None:
        """Begin the poll anew."""
        self._poll.abort()

    def hurry(self) -> None:
        """Nobody waits for replies any more."""
        self._abort_posts(waiting=True)

    def cut(self) -> None:
        """End at once, POSTs too, from any thread."""
        self.end(NORMAL)
        self._abort_posts()

    def _abort_posts(self, waiting: bool = False) -> None:
        with self._owner.lock:
            posts = [post for post, waits in self._posts.items() if waits or not waiting]
        for post in posts:
            post.abort()

    # polls ---------------------------------------------------------------------------

    def _run(self) -> None:
        owner, link = self._owner, self._link
        try:
            owner.ask_credentials()
            cut = self._poll_on()
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("polling failed")
            cut = Cut(message=repr(error))
        self._ended.set()
        self._settle()
        if cut is not None:
            owner.lost(link, cut)

    def _settle(self) -> None:
        with self._owner.lock:
            if self._ended.is_set() and not self._leaving and not self._posts:
                self._owner.finished(self)

    def _poll_on(self) -> Cut | None:
        """Poll until something ends it; None where that was this end."""
        owner, link = self._owner, self._link
        while not self._ended.is_set():
            self._poll = Abort()
            if self._ended.is_set():
                break
            began = time.monotonic()
            shakes = bool(link.wants)
            timeout = HANDSHAKE
            if not shakes:
                timeout = max(owner.lp_timeout, owner.server_lp_timeout() + SLACK)
            try:
                answer = owner.web.request(
                    "GET",
                    with_query(owner.url(False), owner.params(link)),
                    headers=owner.headers(False),
                    timeout=timeout,
                    abort=self._poll,
                )
            except WebError as error:
                if error.kind == "abort":
                    continue
                return Cut(message=str(error))
            if what := _foreign(answer):
                if answer.status == 200:
                    owner.received(link, self._data(answer))  # a bad package to the application
                return owner.foreign(what)
            if answer.status != 200:
                return _refusal(answer)
            said = owner.received(link, self._data(answer))
            if said == ERROR:
                return Cut(message="not a channel socket's answer")
            if said == TIMEOUT:
                self._ended.wait(EMPTY - (time.monotonic() - began))
            # A new poll would take the client back from a WebSocket that is being tried.
            while owner.trying() and not self._ended.wait(TRIAL):
                pass
        return None

    def _data(self, answer: Answer) -> Data:
        return answer.body if self._owner.binary() else answer.body.decode("utf-8", "replace")

    # posts ---------------------------------------------------------------------------

    def take(self, item: Item) -> bool:
        """Put an event in line; False where too many are."""
        if len(self._queue) >= POST_QUEUE or self._owner.gone.is_set():
            return False
        self._queue.append(item)
        self._link.busy = True
        return True

    def flush(self) -> None:
        """Let what is in line leave."""
        with self._owner.lock:
            if self._leaving or not self._queue:
                return
            self._leaving = True
        self._owner.crew.start("posts", self._leave)

    def _leave(self) -> None:
        owner = self._owner
        while True:
            with owner.lock:
                while self._queue and not owner.wanted(self._queue[0]):
                    self._queue.popleft()
                if not self._queue:
                    self._link.busy = self._leaving = False
                    self._settle()
                    return
                items = self._next_batch()
            if items[0].id is None:
                self._post(items)
            else:
                # Its reply may take long: later events wait for the head of the answer, which
                # comes when it was handled. Another server than ours has no such head.
                begun = threading.Event()
                self._waiting.acquire()
                owner.crew.start("post", partial(self._post_and_wait, items, begun.set))
                if owner.batches():
                    begun.wait(items[0].timeout)

    def _next_batch(self) -> list[Item]:
        queue = self._queue
        items = [queue.popleft()]
        most = self._owner.max_batch()
        if items[0].id is None:
            size = len(items[0].data)
            while queue and queue[0].id is None and len(items) < most:
                size += len(queue[0].data)
                if size > BATCH_BYTES:
                    break
                items.append(queue.popleft())
        return items

    def _post_and_wait(self, items: list[Item], begun: Callable[[], object]) -> None:
        try:
            self._post(items, begun)
        finally:
            begun()
            self._waiting.release()

    def _post(self, items: list[Item], begun: Callable[[], object] | None = None) -> None:
        try:
            self._post_until_answered(items, begun)
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("a POST of %s failed", items[0].name)
            self._owner.replied(items[0], ERROR, {"message": repr(error)})

    def _post_until_answered(self, items: list[Item], begun: Callable[[], object] | None) -> None:
        owner = self._owner
        item = items[0]
        data = owner.batch(items)
        for tries in range(1, POST_TRIES + 1):
            if not owner.wanted(item):
                return
            try:
                answer = self._post_once(item, data, begun)
            except WebError as error:
                log.warning("a POST of %s failed: %s", item.name, error)
                if error.kind == "timeout":
                    owner.replied(item, TIMEOUT)
                else:
                    owner.cut_off(item)
                return
            if what := _foreign(answer):
                details = {"status": answer.status, "message": owner.foreign(what).message}
                owner.replied(item, ERROR, details)
                return
            if answer.status == 200:
                owner.posted(item, self._data(answer))
                return
            # These were not looked at, so they may be said again.
            if answer.status in (401, 403) and tries == 1:
                owner.ask_credentials()
            elif answer.status in (429, 503) and tries < POST_TRIES:
                wait = answer.retry_after
                if owner.gone.wait(1.0 if wait is None else wait):
                    return
            else:
                break
        log.warning("a POST of %s failed: HTTP %d %s", item.name, answer.status, answer.line)
        message = answer.line or f"HTTP {answer.status}"
        owner.replied(item, ERROR, {"status": answer.status, "message": message})

    def _post_once(self, item: Item, data: Data, begun: Callable[[], object] | None) -> Answer:
        owner = self._owner
        url, headers, params = owner.url(False), owner.headers(False), owner.params(None)
        if isinstance(data, bytes):
            url = with_query(url, {**params, "binary?": True})
            headers["Content-Type"] = "application/octet-stream"
            body = data
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = form({**params, "ppstr": data})
        post = Abort()
        with owner.lock:
            self._posts[post] = item.id is not None
            if owner.gone.is_set() and item.id is not None:
                post.abort()
        try:
            return owner.web.request(
                "POST",
                url,
                headers=headers,
                body=body,
                timeout=item.timeout if item.id is not None else owner.lp_timeout,
                abort=post,
                begun=begun,
            )
        finally:
            with owner.lock:
                del self._posts[post]
            self._settle()


def _foreign(answer: Answer) -> str:
    """What answered that is no channel socket: a login page, a portal; empty where it is one."""
    if 300 <= answer.status < 400 and "location" in answer.headers:
        return f"a redirect to {answer.headers['location'][:200].partition('?')[0]}"
    return "a page of HTML" if answer.status == 200 and "html" in answer.content_type else ""


def _refusal(answer: Answer) -> Cut:
    message = answer.line or f"HTTP {answer.status}"
    return Cut(status=answer.status, message=message, retry_after=answer.retry_after)
