"""A WebSocket of the client, over a pair of sockets: what it reports, and what it answers."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flask_chsk.client.link import Link, LinkClosed, Outgoing
from flask_chsk.client.websocket import WebSocket
from flask_chsk.protocol import frames
from flask_chsk.protocol.frames import (
    FrameReader,
    Pong,
    binary_frame,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from tests.unit.client.fakes import Bench, FarEnd

KEY = base64.b64encode(b"0123456789abcdef").decode()
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
).decode()
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n"
).encode()
OPEN = SWITCH + b"\r\n"


class Opening(Bench):
    """A WebSocket whose server has said all that it will say before it is asked."""

    def __init__(self, greeting: bytes, **given: Any) -> None:
        super().__init__(**given)
        self.far_end = FarEnd(greeting=greeting)
        self.data = b""  # that the server heard
        self.link = Link("ws", "e1:7")
        self.http.connection = lambda url: self.far_end.Connection("example.org")  # type: ignore[method-assign]
        self.socket = WebSocket(*self.parts)

    def when(self, message: Any, do: Callable[[], object]) -> None:
        """Do something when a message has been received, or "opened"."""
        received, opened = self.owner.received, self.owner.opened

        def receive(link: Link, data: Any) -> str | None:
            received(link, data)
            return None if data != message else do() and None

        def open_(link: Link) -> None:
            opened(link)
            if message == "opened":
                do()

        self.owner.received = receive  # type: ignore[method-assign]
        self.owner.opened = open_  # type: ignore[method-assign]

    def run(self, ends: bool = True) -> list[Any]:
        """What it reports, until its server ends."""
        connect = self.far_end.Connection.connect

        def connect_and_end(connection: Any) -> None:
            connect(connection)
            if ends:
                connection.far.shutdown(socket.SHUT_WR)

        self.far_end.Connection.connect = connect_and_end  # type: ignore[method-assign]
        self.socket.start()
        return self.owner.told

    def heard(self) -> list[Any]:
        """The frames that the server got."""
        self.data += self.far_end.heard()
        _, _, sent = self.data.partition(b"\r\n\r\n")
        return FrameReader("server", 1 << 20).feed(sent)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Opening]]:
    monkeypatch.setattr(frames, "new_key", lambda: KEY)
    made: list[Opening] = []

    def make(*said: bytes, head: bytes = OPEN, **given: Any) -> Opening:
        made.append(Opening(head + b"".join(said), **given))
        return made[-1]

    yield make
    for one in made:
        one.far_end.close()


Make = Callable[..., Opening]
GONE = LinkClosed(1006, why="unexpected")


def outgoing(data: str | bytes) -> Outgoing:
    return Outgoing("a/b", None, data)


# In ----------------------------------------------------------------------------------------


def test_it_asks_for_a_websocket_and_shows_its_cursor(opening: Make) -> None:
    one = opening(csrf_token=lambda: "csrf")
    one.run()
    head = one.far_end.heard().decode()
    assert head.startswith("GET /chsk?client-id=id0&")
    assert "cursor=e1%3A7" in head.partition(" HTTP")[0]
    assert f"\r\nSec-WebSocket-Key: {KEY}\r\n" in head and "\r\nX-CSRF-Token: csrf\r\n" in head
    assert one.link.has_credentials


def test_messages_are_reported_in_order_even_those_behind_the_head(opening: Make) -> None:
    one = opening(text_frame("one"), binary_frame(b"two"), text_frame("three"))
    assert one.run() == ["opened", "one", b"two", "three", "finished", GONE]


def test_a_ping_is_answered_and_is_a_sign_of_life(opening: Make) -> None:
    one = opening(ping_frame(b"x"), pong_frame())
    assert one.run() == ["opened", "heard", "heard", "finished", GONE]
    assert one.heard() == [Pong(b"x")]


def test_a_close_is_echoed(opening: Make) -> None:
    one = opening(close_frame(4002, "too slow"), text_frame("late"))
    assert one.run() == ["opened", "finished", LinkClosed(4002, "too slow", "clean")]
    assert [message.code for message in one.heard()] == [4002]


def test_a_breach_of_the_protocol_is_answered_with_its_code(opening: Make) -> None:
    one = opening(text_frame("good"), b"\xc1\x00")
    reason = "RSV bit without an extension that uses it"
    assert one.run() == [
        "opened",
        "good",
        "finished",
        LinkClosed(1002, reason, "ws-error", error=reason),
    ]
    [close] = one.heard()
    assert (close.code, close.reason) == (1002, reason)


def test_cookies_of_the_opening_are_kept(opening: Make) -> None:
    one = opening(head=SWITCH + b"Set-Cookie: a=1; Path=/\r\n\r\n")
    one.run()
    assert one.http.cookie_header("http://example.org/chsk") == {"Cookie": "a=1"}


# Out ---------------------------------------------------------------------------------------


def test_what_was_taken_leaves_in_order(opening: Make) -> None:
    one = opening()

    def send() -> None:
        for data in ("one", b"two"):
            assert one.socket.take(outgoing(data))
        assert one.heard() == []
        one.socket.flush()

    one.when("opened", send)
    one.run()
    assert one.heard() == ["one", b"two"]


def test_nothing_leaves_before_it_is_open(opening: Make) -> None:
    one = opening()
    assert one.socket.take(outgoing("early"))
    one.socket.flush()
    one.when("opened", one.socket.flush)
    one.run()
    assert one.heard() == ["early"]


def test_an_end_of_ours_is_one_close_and_the_last_frame(opening: Make) -> None:
    one = opening(text_frame("go"), ping_frame(b"late"), close_frame(1000))

    def end() -> None:
        for code in (1000, 4000):
            one.socket.end(code)
        assert one.socket.take(outgoing("late")) is False
        one.socket.flush()

    one.when("go", end)
    assert one.run() == ["opened", "go", "heard", "finished", LinkClosed(1000, "", "clean")]
    assert [message.code for message in one.heard()] == [1000]


def test_an_end_before_it_is_open_opens_nothing(opening: Make) -> None:
    one = opening()
    one.socket.end(1000)
    assert one.run() == ["finished", LinkClosed(1006, why="ws-error", error="aborted")]
    assert one.far_end.connected == []


def test_an_end_while_it_opens_reads_nothing(opening: Make) -> None:
    one = opening(text_frame("one"), csrf_token=lambda: one.socket.cut())
    [finished, how] = one.run()
    assert (finished, how.code, how.why) == ("finished", 1006, "ws-error")


def test_a_cut_ends_at_once(opening: Make) -> None:
    one = opening(text_frame("one"), text_frame("two"))
    one.when("one", one.socket.cut)
    assert one.run(ends=False)[-2:] == ["finished", GONE]
    assert one.heard() == []


def test_a_peer_that_takes_nothing_ends_the_link(opening: Make) -> None:
    one = opening()

    def send() -> None:
        one.far_end.socks[0].close()
        one.socket.take(outgoing("lost"))
        one.socket.flush()

    one.when("opened", send)
    opened, how, *_, finished, _ = one.run(ends=False)
    assert (opened, how.code, how.why, finished) == ("opened", 1006, "ws-error", "finished")
    assert "Broken pipe" in how.error or "reset" in how.error


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "how"),
    [
        (
            b"HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\nRetry-After: 7\r\n"
            b"Content-Length: 5\r\n\r\nlater",
            LinkClosed(status=503, message="later", retry_after=7.0, error="HTTP 503"),
        ),
        (b"HTTP/1.1 403 No\r\n\r\n", LinkClosed(status=403, message="HTTP 403", error="HTTP 403")),
        (b"nonsense\r\n\r\n", LinkClosed(error="no HTTP answer")),
        (
            SWITCH + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            LinkClosed(error="something between does not let a WebSocket through"),
        ),
    ],
)
def test_a_refusal_says_what_the_server_said(opening: Make, head: bytes, how: LinkClosed) -> None:
    assert opening(head=head).run() == ["finished", replace(how, why="ws-error")]


def test_a_login_page_is_named(opening: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = opening(head=b"HTTP/1.1 302 Found\r\nLocation: /login?next=chsk\r\n\r\n")
    _, how = one.run()
    assert (how.why, how.error) == ("ws-error", "HTTP 302")
    assert how.message.startswith("http://example.org/chsk is answered by a redirect to /login:")


def test_what_the_application_raises_is_logged(
    opening: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = opening(chsk_url=lambda *args: 1 // 0)
    error = repr(ZeroDivisionError("integer division or modulo by zero"))
    assert one.run() == ["finished", LinkClosed(why="ws-error", error=error)]
    assert caplog.messages == ["connecting failed"]
