"""Bytes to a server and what comes back, with no manners in between."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any

from flask_chsk.packers.edn import EdnPacker
from flask_chsk.protocol.frames import BINARY, TEXT, Close, FrameReader, Message, build
from flask_chsk.security import SECRET_HEADER

EDN = EdnPacker()
WAIT = 60.0  # seconds for any answer: two busy cores
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x01\x02\x03\x04"
UPGRADE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


SECRET = "s" * 22  # what a v=1 client shows here where a test gives it none of its own


def head(target: str, headers: dict[str, str | None] | None = None, method: str = "GET") -> bytes:
    """A request's head; a header that is None is left out."""
    lines = [f"{method} {target} HTTP/1.1"]
    usual = {"Host": "127.0.0.1", "Connection": "close", SECRET_HEADER: SECRET}
    given = {**usual, **(headers or {})}
    lines += [f"{name}: {value}" for name, value in given.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def upgrade(target: str, headers: dict[str, str | None] | None = None) -> bytes:
    """The head of an upgrade, with *headers* changed or, by None, left out."""
    return head(target, {**UPGRADE, **(headers or {})})


def text(message: str | bytes) -> bytes:
    """One masked text frame."""
    return build(TEXT, message.encode() if isinstance(message, str) else message, mask=MASK)


def binary(message: bytes) -> bytes:
    """One masked binary frame."""
    return build(BINARY, message, mask=MASK)


class Wire:
    """A TCP connection to ``127.0.0.1:port``."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = FrameReader("client", 1 << 30)
        self.rest = b""
        self.messages: list[Message] = []

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Be gone with a RST, where it is still there."""
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def try_send(self, data: bytes) -> bool:
        """Send *data*; False where the server has hung up."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    # HTTP --------------------------------------------------------------------------------

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers and body of one HTTP answer; status 0 where the server hung up.

        A body without a length, and the end of a connection, go on to the end.
        """
        while b"\r\n\r\n" not in self.rest:
            if not self._more():
                return 0, {}, self.rest.decode("latin-1")
        top, _, self.rest = self.rest.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if status == 101:
            return status, headers, ""
        if "content-length" in headers:
            size = int(headers["content-length"])
            while len(self.rest) < size and self._more():
                pass
            body, self.rest = self.rest[:size], self.rest[size:]
        else:
            while self._more():
                pass
            body, self.rest = self.rest, b""
            if headers.get("transfer-encoding") == "chunked":
                body = b"".join(body.split(b"\r\n")[1::2])  # no body of ours has a CRLF in it
        return status, headers, body.decode("utf-8", "replace")

    def request(self, data: bytes) -> tuple[int, str]:
        """Status and body of what answers *data*."""
        self.try_send(data)
        try:
            status, _, body = self.answer()
        except ConnectionError:
            return 0, ""
        return status, body

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self.rest += data
        return bool(data)

    # WebSocket ---------------------------------------------------------------------------

    def open(self, target: str, headers: dict[str, str | None] | None = None) -> list[Any]:
        """Open a WebSocket: what its handshake says, ``[uid csrf data extras?]``."""
        self.send(upgrade(target, headers))
        status, _, body = self.answer()
        assert status == 101, (status, body)
        self.messages += self.reader.feed(self.rest)
        self.rest = b""
        [id, body] = EDN.unpack(self.read())[0]
        assert id == "chsk/handshake"
        greeting: list[Any] = body
        return greeting

    def read(self) -> Any:
        """The next message: text, bytes, Ping, Pong or Close; None where the server hung up."""
        while not self.messages:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.messages += self.reader.feed(data)
        return self.messages.pop(0)

    def closed(self) -> tuple[int, str] | None:
        """How the server closes, what comes before skipped; None: without a word."""
        try:
            while True:
                message = self.read()
                if message is None:
                    return None
                if isinstance(message, Close):
                    return message.code, message.reason
        except ConnectionResetError:
            return None

    def send_upgrade(self, target: str) -> None:
        """Open a WebSocket of any packer; its handshake is skipped."""
        self.send(upgrade(target))
        assert self.answer()[0] == 101
        self.messages += self.reader.feed(self.rest)
        self.rest = b""
        self.read()

    def ask(self, event: str) -> Any:
        """The reply to *event*, pushes and pings skipped."""
        self.send(text(f'[{event} "ask"]'))
        while True:
            message = self.read()
            assert isinstance(message, str), message
            value, cb, *_ = EDN.unpack(message)
            if cb == "ask":
                return value
