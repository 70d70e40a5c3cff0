"""A WebSocket of a client: one thread reads, and whoever has something to send writes.

It carries what the session decided, and reports what came; it decides nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from ..errors import ChskError
from ..interrupts import from_signal
from ..logs import logger
from ..protocol import frames
from ..protocol.frames import FrameReader
from . import upgrade
from .endpoint import Endpoint, refusal
from .http_client import FAILURES, Abort, NoAnswer, with_query
from .link import MAX_MESSAGE, Link, LinkClosed, Outgoing, Owner
from .stream import Stream
from .upgrade import NotUpgraded
from .waiting import ThreadGroup

log = logger(__name__)


class WebSocket:
    """Carries one link of kind ``"ws"``; see :class:`~.link.Transport`."""

    def __init__(
        self,
        owner: Owner,
        link: Link,
        endpoint: Endpoint,
        threads: ThreadGroup,
        lock: threading.RLock,
    ) -> None:
        self._owner = owner
        self._link = link
        self._endpoint = endpoint
        self._threads = threads
        self._lock = lock  # the owner's
        self._abort = Abort()
        self._queue: deque[bytes] = deque()
        self._writing = threading.Lock()
        self._stream: Stream | None = None
        self._closing = False

    def start(self) -> None:
        """Connect, and read until the end."""
        self._threads.start("websocket", self._run)

    # out -----------------------------------------------------------------------------

    def take(self, outgoing: Outgoing) -> bool:
        """Put a message in line; False where the WebSocket is closing."""
        if self._closing:
            return False
        data = outgoing.data
        build = frames.text_frame if isinstance(data, str) else frames.binary_frame
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
            self._owner.closed(self._link, LinkClosed(1006, why="ws-error", error=str(error)))
            self.cut()

    def restart(self) -> None:
        """Nothing: the session pings a WebSocket."""

    def hurry(self) -> None:
        """Nothing: no thread of a WebSocket waits for a reply."""

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
            with self._lock:
                self._stream = stream
                if self._closing:
                    return
            owner.opened(link)
            how = self._read(stream, leftover)
        except NotUpgraded as error:
            how = self._not_upgraded(error)
        except (*FAILURES, NoAnswer, ChskError) as error:
            how = LinkClosed(1006, why="ws-error", error=str(error) or type(error).__name__)
        except BaseException as error:  # of the application's credentials or URL
            if from_signal(error):
                raise
            log.exception("connecting failed")
            how = LinkClosed(why="ws-error", error=repr(error))
        finally:
            if stream is not None:
                stream.close()
            owner.finished(self)
        owner.closed(link, how)

    def _open(self) -> tuple[Stream, bytes]:
        """An open WebSocket, and the bytes that came behind the head of the answer.

        :raises NotUpgraded: where the server did not open one.
        """
        endpoint, http = self._endpoint, self._endpoint.http
        endpoint.ask_credentials()
        self._link.has_credentials = True
        url = with_query(endpoint.url(True), endpoint.link_params(self._link))
        connection = http.connection(url)
        try:
            with self._abort.guarding(connection):
                connection.connect()
                self._abort.connected()
                sock = connection.sock
                key = frames.new_key()
                headers = endpoint.headers(True) | http.cookie_header(url)
                sock.sendall(upgrade.request(url, key, headers))
                answer, leftover = upgrade.read_answer(sock)
                http.keep_cookies(url, answer)
                upgrade.check(answer, key)
                connection.sock = None  # it is the stream's now
                return Stream(sock), leftover
        finally:
            connection.close()

    def _not_upgraded(self, error: NotUpgraded) -> LinkClosed:
        answer, how = error.answer, LinkClosed()
        if answer is not None:
            how = self._endpoint.foreign(answer) or refusal(answer)
        return replace(how, why="ws-error", error=str(error))

    def _read(self, stream: Stream, data: bytes) -> LinkClosed:
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
                    return LinkClosed(message.code, message.reason, "clean")
            if reader.failed is not None:
                code, reason = reader.failed.code, str(reader.failed)
                self._close(frames.close_frame(code, reason, masked=True))
                return LinkClosed(code, reason, "ws-error", error=reason)
            data = stream.receive()
            if not data:
                return LinkClosed(1006, why="unexpected")

    def _close(self, frame: bytes) -> None:
        """Send *frame*, a close; nothing where one was sent before (RFC 6455, 5.5.1)."""
        if self._closing:
            return
        self._closing = True
        self._queue.append(frame)
        self.flush()
