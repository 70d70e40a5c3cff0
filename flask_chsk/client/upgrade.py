"""The opening handshake of a WebSocket, a client's half (RFC 6455, 4.1).

It writes the request and reads the answer; endpoint.py says what a refusal means.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from http.client import parse_headers
from typing import Any
from urllib.parse import urlsplit

from ..errors import ChskError
from ..protocol import frames
from .http_client import Answer
from .stream import READ

MAX_HEAD = 65_536  # bytes of the head of an answer
MAX_REFUSAL = 1024  # bytes of the body of a refusal: its first line is shown


class NotUpgraded(ChskError):
    """The server did not open a WebSocket; *answer* is what it said, where that is HTTP."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message)
        self.answer = answer


def request(url: str, key: str, headers: Mapping[str, str]) -> bytes:
    """The request for a WebSocket.

    :raises ValueError: for a header with a line break.
    """
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


def read_answer(sock: Any) -> tuple[Answer, bytes]:
    """The head of an HTTP answer, and the bytes behind it; of a refusal those are its body.

    :raises NotUpgraded: where what comes is not HTTP.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(READ)
        data += more
        if not more or len(data) > MAX_HEAD or not data.startswith(b"HTTP/1."[: len(data)]):
            raise NotUpgraded("no HTTP answer")
    head, _, rest = data.partition(b"\r\n\r\n")
    first, _, fields = head.partition(b"\r\n")
    words = first.split(None, 2)
    if len(words) < 2 or len(words[1]) != 3 or not words[1].isdigit():
        raise NotUpgraded("no HTTP answer")
    answer = Answer(int(words[1]), parse_headers(io.BytesIO(fields + b"\r\n\r\n")))
    if answer.status != 101:
        length = answer.headers.get("content-length") or ""
        wanted = min(int(length) if length.isdigit() else 0, MAX_REFUSAL)
        while len(rest) < wanted and (more := sock.recv(READ)):
            rest += more
        answer.body, rest = rest, b""
    return answer, rest


def check(answer: Answer, key: str) -> None:
    """See that *answer* opens a WebSocket for *key*.

    :raises NotUpgraded: where it does not.
    """
    headers = answer.headers
    if answer.status != 101:
        raise NotUpgraded(f"HTTP {answer.status}", answer)
    if (
        headers.get("upgrade", "").lower() != "websocket"
        or "upgrade" not in headers.get("connection", "").lower()
        or headers.get("sec-websocket-accept") != frames.accept_key(key)
        or headers.get("sec-websocket-extensions")
        or headers.get("sec-websocket-protocol")
    ):
        raise NotUpgraded("something between does not let a WebSocket through")
