"""What an application gives to a client, and what it may call from where it is called back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf, nan
from typing import Any
from uuid import uuid4

import pytest

from flask_chsk.client import (
    ChannelClosed,
    ChannelSocket,
    EventMsg,
    RecvQueue,
    RequestError,
    dispatch,
    options,
)
from flask_chsk.client.dispatch import RECV_BYTES
from flask_chsk.errors import BadEvent, ConfigError
from flask_chsk.protocol.event import Event
from flask_chsk.values import Keyword
from tests.e2e.client.conftest import TestServer
from tests.e2e.client.servers import HANDSHAKE, Polled
from tests.process import WAIT, eventually

Open = Callable[..., ChannelSocket]
URL = "http://127.0.0.1:1/chsk"


# Options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"auth": "tök€n"}, "auth must be a string of ASCII characters"),
        ({"auth": "a\nb"}, "auth must be a string of ASCII characters"),
        ({"csrf_token": 7}, "csrf_token must be a string of ASCII characters"),
        ({"ws_kalive": "25"}, "ws_kalive is in seconds, and at least 0: not '25'"),
        ({"lp_timeout": nan}, "lp_timeout is in seconds, and at least 0: not nan"),
        ({"lp_kalive": -1}, "lp_timeout is in seconds, and at least 0: not -1"),
        ({"connect_timeout": 0}, "connect_timeout is in seconds, and more than 0: not 0"),
        ({"ws_ping_timeout": None}, "ws_ping_timeout is in seconds, and at least 0: not None"),
        ({"client_id": "a b"}, "client_id is 1 to 64 of A-Za-z0-9_-, not 'a b'"),
        ({"recv_buf": 0}, "recv_buf is a number, and at least 1: not 0"),
        ({"offline_queue": "9"}, "offline_queue is a number, and at least 0: not '9'"),
    ],
)
def test_an_option_that_cannot_be_is_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ChannelSocket(URL, connect=False, **given)
    assert line in str(raised.value)
    assert "tök" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("backof", "there is no option backof: did you mean backoff?"),
        ("csrfToken", "there is no option csrfToken: did you mean csrf_token?"),
        ("client", "there is no option client: did you mean client_id?"),
        ("verify", "there is no option verify: there are url, type, packer, client_id, "),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_one(given: str, line: str) -> None:
    with pytest.raises(TypeError) as raised:
        ChannelSocket(URL, connect=False, **{given: 1})  # type: ignore[arg-type]
    assert str(raised.value).startswith(line)


def test_a_subclass_may_have_options_of_its_own() -> None:
    class Chat(ChannelSocket):
        def __init__(self, room: str, **options: Any) -> None:
            super().__init__(URL, **options)
            self.room = room

    class Quiet(ChannelSocket):
        def __init__(self, *, quiet: bool) -> None:
            super().__init__(URL, connect=False)

    assert Chat(room="a", connect=False).room == "a"
    assert Quiet(quiet=True).state["open"] is False
    with pytest.raises(TypeError, match="no option quite: did you mean quiet"):
        Quiet(quite=True)  # type: ignore[call-arg]


@pytest.mark.parametrize("call", ["send", "request"])
def test_data_beside_the_event_is_no_timeout(call: str) -> None:
    chsk = ChannelSocket(URL, connect=False)
    with pytest.raises(BadEvent, match=r'an event is one argument, \["chat/say", data\], not'):
        getattr(chsk, call)("chat/say", {"text": "hi"})


def test_none_counts_as_left_out(server: TestServer) -> None:
    given: dict[str, Any] = {"packer": None, "backoff": None, "chsk_url": None, "auth": None}
    with ChannelSocket(server.url, **given) as chsk:
        assert chsk.request(["test/echo", 1]) == 1
        chsk.break_connection()
        chsk.wait_open()


@pytest.mark.parametrize("type", ["ws", "ajax"])
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"auth": lambda: "tök€n"}, "auth must be a string of ASCII"),
        ({"csrf_token": lambda: 1 / 0}, "csrf_token: ZeroDivisionError"),
        ({"auth": lambda: time.sleep(1)}, "auth returned nothing within 0.2 s"),
        ({"chsk_url": lambda *args: None}, "chsk_url must return a URL, not None"),
    ],
)
def test_a_function_that_says_nothing_of_use_is_named_and_asked_again(
    type: str,
    given: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(options, "ASK", 0.2)
    chsk = ChannelSocket(URL, type=type, backoff=lambda attempt: 0.01, **given)
    try:
        eventually(lambda: line in str((chsk.state["last_close"] or {}).get("message")))
        assert chsk.state["status"] in ("connecting", "waiting")
    finally:
        chsk.destroy()
        caplog.clear()


def test_a_function_that_never_returns_is_called_once_for_all_who_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(options, "ASK", 0.05)
    calls: list[int] = []
    go = threading.Event()

    def auth() -> str:
        calls.append(1)
        go.wait(WAIT)
        return "token"

    failed: list[Any] = []
    chsk = ChannelSocket(URL, type="ajax", auth=auth, backoff=lambda n: failed.append(n) or 0.01)  # type: ignore[func-returns-value]
    try:
        eventually(lambda: len(failed) > 3)
        assert len(calls) == 1
    finally:
        go.set()
        chsk.destroy()
        caplog.clear()


@pytest.mark.parametrize("wrong", [nan, None, -1, "soon"])
def test_a_backoff_that_returns_no_seconds_is_replaced(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wait = options.checked_backoff(lambda attempt: wrong)
    assert 0 <= wait(0) <= 0.5
    assert "backoff is in seconds" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_a_wait_may_have_no_end(open_client: Open, type: str) -> None:
    chsk = open_client(type=type, ws_kalive=inf, lp_timeout=inf, backoff=lambda attempt: inf)
    assert chsk.request(["test/echo", 1], timeout=inf) == 1
    chsk.break_connection()
    assert chsk.state["status"] == "waiting"
    chsk.reconnect()
    chsk.wait_open(inf)


@pytest.mark.parametrize("timeout", ["5", nan, -1])
def test_a_timeout_is_in_seconds(timeout: Any) -> None:
    chsk = ChannelSocket(URL, connect=False)
    for call in (chsk.request, chsk.send):
        with pytest.raises(ConfigError, match="timeout is in seconds, and at least 0"):
            call(["test/echo"], timeout)
    chsk.destroy()


@pytest.mark.parametrize("id", ["connect", "disconnect", "say", ":chat/say", "", None])
def test_a_handler_that_would_never_be_called_is_refused_with_the_right_way(id: Any) -> None:
    chsk = ChannelSocket(URL, connect=False)
    with pytest.raises(BadEvent, match=r'as in on\("chat/say"\); .*watch\(fn\)'):
        chsk.on(id, print)
    with pytest.raises(BadEvent):
        chsk.on(id)
    chsk.destroy()


# What nobody waits for --------------------------------------------------------------------


@pytest.mark.parametrize("end", ["destroy", "disconnect"])
def test_a_request_that_was_rejected_is_not_posted(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    def answer(method: str, params: dict[str, str]) -> tuple[int, dict[str, str], str]:
        if method == "GET" and "handshake?" in params:
            return 200, {}, HANDSHAKE
        go.wait(WAIT)
        return 200, {}, '["late" nil]' if method == "POST" else "[:chsk/timeout nil]"

    with Polled(answer) as server, ThreadPoolExecutor(6) as pool:
        chsk = ChannelSocket(server.url, type="ajax")
        chsk.wait_open()

        def ask(number: int) -> str:
            try:
                chsk.request(["test/echo", number])
            except RequestError as error:
                return type(error).__name__
            return "answered"

        asked = [pool.submit(ask, number) for number in range(6)]
        eventually(lambda: any(method == "POST" for method, *_ in server.asked))
        eventually(lambda: len(chsk._engine.session.requests._pending) == 6)
        getattr(chsk, end)()
        go.set()
        assert [one.result() for one in asked] == ["ChannelClosed"] * 6
        chsk.destroy()
        assert sum(method == "POST" for method, *_ in server.asked) == 1
    caplog.clear()


def test_what_waited_is_told_when_it_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    chsk = ChannelSocket(URL, offline_queue=5)
    assert chsk.send(["chat/say", 1])
    chsk.disconnect()
    assert "closed: chat/say, which waited, is dropped" in caplog.text
    chsk.destroy()
    caplog.clear()


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_what_waited_arrives_before_what_is_sent_on_opening(
    open_client: Open, server: TestServer, type: str
) -> None:
    heard: list[Any] = []
    chsk = ChannelSocket(server.url, type=type, offline_queue=5, connect=False)
    replied = threading.Event()
    chsk.on("chsk/handshake", lambda ev: chsk.send(["test/echo", "B"], WAIT, last))

    def last(reply: Any) -> None:
        heard.append(reply)
        replied.set()

    chsk.connect()
    chsk.send(["test/echo", "A"], WAIT, heard.append)
    assert replied.wait(WAIT)
    assert heard == ["A", "B"]
    chsk.destroy()


# What nobody takes ------------------------------------------------------------------------


def test_what_nobody_takes_is_bounded_in_bytes_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = RecvQueue(2048)
    for number in range(3000):
        queue.put(["a/x", number], 20_000)
    assert 800 < len(queue) <= RECV_BYTES // 20_000
    assert queue.dropped == 3000 - len(queue)
    assert [one.getMessage() for one in caplog.records] == [
        "events that nobody takes are dropped: register on(id), or read ch_recv"
    ]
    caplog.clear()
    queue.put(["a/x", "large"], 2 * RECV_BYTES)
    assert len(queue) == 1  # the newest stays, however large
    assert queue.get().data == "large"
    for number in range(10):
        queue.put(["a/x", number], RECV_BYTES)
        assert queue.get().data == number  # and what was taken counts no more


def test_handlers_that_are_too_slow_hold_a_bounded_number_of_bytes(
    open_client: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "EVENTS_BYTES", 100_000)
    chsk = open_client()
    heard: list[Any] = []
    go, done = threading.Event(), threading.Event()

    def slow(ev: EventMsg) -> None:
        go.wait(WAIT)
        heard.append(ev.data)
        if ev.data == 99:
            done.set()

    chsk.on("a/x", slow)
    chsk.on("chsk/gap", lambda ev: heard.append("gap"))
    for number in range(100):
        chsk._dispatcher.deliver(Event(Keyword("a/x"), number), True, 10_000)
    go.set()
    assert done.wait(WAIT)
    assert "gap" in heard and len(heard) <= 13
    assert "handlers are too slow" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("type", ["ws", "ajax"])
def test_events_count_as_what_they_came_as(
    open_client: Open, server: TestServer, type: str
) -> None:
    uid = uuid4().hex
    chsk = open_client(uid, type=type)
    server.post(f"say/{uid}/3")
    eventually(lambda: len(chsk.ch_recv) == 6)
    assert 3 * len("[:test/pushed 1]") <= chsk.ch_recv._bytes < 1000


# Calls from anywhere ----------------------------------------------------------------------

CALLS: dict[str, tuple[Callable[[ChannelSocket], object], str]] = {
    "connect": (lambda chsk: chsk.connect(), "open"),
    "reconnect": (lambda chsk: chsk.reconnect(), "open"),
    "disconnect": (lambda chsk: chsk.disconnect(), "closed"),
    "destroy": (lambda chsk: chsk.destroy(), "destroyed"),
    "break_connection": (lambda chsk: chsk.break_connection(), "open"),
    "send": (lambda chsk: chsk.send(["test/echo", 1], 1, lambda reply: None), "open"),
    "request": (lambda chsk: chsk.request(["test/echo", 1], 0.2), "open"),
    "on": (lambda chsk: chsk.on("a/b", print), "open"),
    "watch": (lambda chsk: chsk.watch(lambda old, new: None), "open"),
    "put": (lambda chsk: chsk.put(["a/b", 1]), "open"),
}
PLACES = [
    *(f"watch {status}" for status in ("connecting", "open", "waiting")),
    *(f"state {status}" for status in ("connecting", "open", "waiting")),
    *("handshake", "handler", "reply", "rejected", "backoff", "csrf_token", "chsk_url"),
]


class Life:
    """A client to which all happens that may, and that makes one call at one place, once."""

    def __init__(self, url: str, type: str, place: str, call: Callable[[ChannelSocket], Any]):
        self.place = place
        self.call = call
        self.calls = 0
        self.chsk = chsk = ChannelSocket(
            url,
            type=type,
            connect=False,
            backoff=lambda attempt: self.at("backoff", 0.05),
            csrf_token=lambda: self.at("csrf_token", None),
            chsk_url=lambda path, location, websocket: self.at(
                "chsk_url", f"{'ws' if websocket else 'http'}://{location['host']}{path}"
            ),
        )
        chsk.watch(lambda old, new: self.at(f"watch {new['status']}"))
        chsk.on("chsk/state", lambda ev: self.at(f"state {ev.data['status']}"))
        chsk.on("chsk/handshake", lambda ev: self.at("handshake"))
        chsk.on("a/x", lambda ev: self.at("handler"))

    def at(self, place: str, value: Any = None) -> Any:
        if place == self.place and not self.calls:
            self.calls += 1
            with suppress(RequestError):
                self.call(self.chsk)
        return value

    def live(self) -> None:
        chsk = self.chsk
        chsk.connect()
        for event in ("first", "second"):
            with suppress(ChannelClosed):
                chsk.wait_open(WAIT)
            chsk.send(["test/echo", event], WAIT, lambda reply: self.at("reply"))
            chsk.put(["a/x", 1])
            with suppress(RequestError):
                chsk.request(["test/echo", event])
            chsk.break_connection()
            chsk.send(["test/echo", event], WAIT, lambda reply: self.at("rejected"))

    def left(self) -> tuple[str, int]:
        """Its status, and how many links it has."""
        return self.chsk.state["status"], len(self.chsk._engine._transports)


@pytest.mark.parametrize("type", ["ws", "ajax"])
@pytest.mark.parametrize("name", CALLS)
def test_an_application_may_call_anything_from_anywhere(
    server: TestServer, type: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    call, status = CALLS[name]
    lives = [Life(server.url, type, place, call) for place in PLACES]
    try:
        with ThreadPoolExecutor(len(lives)) as pool:
            list(pool.map(Life.live, lives))
        for life in lives:
            eventually(lambda life=life: life.calls == 1)  # type: ignore[misc]
            wanted = (status, 1 if status == "open" else 0)
            eventually(lambda life=life, wanted=wanted: life.left() == wanted)  # type: ignore[misc]
    finally:
        for life in lives:
            life.chsk.destroy()
    blocked = name == "request"
    assert ("request() blocks, which a backoff must not" in caplog.text) is blocked
    wrong = [one for one in caplog.records if one.levelname == "ERROR"]
    assert len(wrong) == blocked
    caplog.clear()
