"""The opening handshake of a WebSocket, without a network."""

from __future__ import annotations

from typing import Any

import pytest

from flask_chsk.client import upgrade
from flask_chsk.client.upgrade import NotUpgraded
from flask_chsk.protocol.frames import accept_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Sock:
    """Gives what it has, in pieces of five bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def recv(self, size: int) -> bytes:
        piece, self.data = self.data[:5], self.data[5:]
        return piece


def head(status: str = "101 Switching Protocols", **fields: str) -> bytes:
    given = {"Upgrade": "websocket", "Connection": "Upgrade", **fields}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    return ("\r\n".join([f"HTTP/1.1 {status}", *lines]) + "\r\n\r\n").encode()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://example.org:80/chsk?v=1", "example.org"),
        ("ws://example.org:8080/chsk?v=1", "example.org:8080"),
        ("wss://ann:secret@example.org:443/chsk?v=1", "example.org"),
    ],
)
def test_a_request_names_host_and_target(url: str, host: str) -> None:
    lines = upgrade.request(url, KEY, {"X-Me": "me"}).decode().split("\r\n")
    assert lines[:2] == ["GET /chsk?v=1 HTTP/1.1", f"Host: {host}"]
    assert f"Sec-WebSocket-Key: {KEY}" in lines
    assert lines[-3:] == ["X-Me: me", "", ""]


def test_a_header_cannot_bring_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        upgrade.request("ws://example.org/", KEY, {"X-Me": "me\r\nX-You: you"})


def test_what_comes_behind_the_head_is_kept() -> None:
    sock = Sock(head(Sec_WebSocket_Accept=accept_key(KEY)) + b"frames")
    answer, rest = upgrade.read_answer(sock)
    upgrade.check(answer, KEY)
    assert (answer.status, rest + sock.data) == (101, b"frames")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"Sec_WebSocket_Accept": accept_key("other")},
        {"Sec_WebSocket_Accept": accept_key(KEY), "Upgrade": "h2c"},
        {"Sec_WebSocket_Accept": accept_key(KEY), "Connection": "close"},
        {"Sec_WebSocket_Accept": accept_key(KEY), "Sec_WebSocket_Extensions": "x"},
        {"Sec_WebSocket_Accept": accept_key(KEY), "Sec_WebSocket_Protocol": "x"},
    ],
)
def test_an_answer_that_is_not_ours_opens_nothing(wrong: dict[str, Any]) -> None:
    answer, _ = upgrade.read_answer(Sock(head(**wrong)))
    with pytest.raises(NotUpgraded, match="does not let a WebSocket through") as raised:
        upgrade.check(answer, KEY)
    assert raised.value.answer is None


def test_a_refusal_has_its_body() -> None:
    refused = head("403 Forbidden", Content_Type="text/plain", Content_Length="8")
    answer, rest = upgrade.read_answer(Sock(refused + b"sign in\n"))
    assert (answer.status, answer.line, rest) == (403, "sign in", b"")
    with pytest.raises(NotUpgraded, match="HTTP 403") as raised:
        upgrade.check(answer, KEY)
    assert raised.value.answer is answer


@pytest.mark.parametrize(
    "data",
    [b"", b"SSH-2.0", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1." + b"x" * 70_000],
)
def test_what_is_no_http_is_no_answer(data: bytes) -> None:
    with pytest.raises(NotUpgraded, match="no HTTP answer"):
        upgrade.read_answer(Sock(data))
