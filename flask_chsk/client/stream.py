"""A connected socket that several threads use: one reads, any may write, one at a time.

Plain and TLS sockets behave the same here, in threads and in greenlets. It knows no frames.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

from gevent.monkey import is_module_patched
from urllib3.util.wait import wait_for_read, wait_for_write

from .. import forks
from .http_client import shut_down

READ = 65_536
STALLED = 10.0  # seconds without taking a byte, after which a peer is given up


class Stream:
    """A connected socket, read by one thread and written by any, one at a time."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._ended = False
        self._closed = False
        # A closed descriptor's number may be another socket's: nobody shuts it down any more.
        self._closing = threading.Lock()
        # One native thread at a time may use an object of OpenSSL; greenlets take turns anyway.
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
        """The bytes that came; none at the end."""
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
        """Send nothing more; *hard*: receive nothing either. The reader ends and closes."""
        with self._closing:
            self._ended = True
            if not self._closed:
                shut_down(self._sock, socket.SHUT_RDWR if hard else socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket. The thread that reads it calls this."""
        with self._closing:
            self._closed = True
            self._sock.close()
