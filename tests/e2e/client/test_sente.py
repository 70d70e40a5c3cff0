"""Sente's functions and options, by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from flask_chsk import client
from flask_chsk.client import (
    EventMsg,
    RecvQueue,
    as_event,
    assert_event,
    cb_error,
    cb_success,
    chsk_destroy,
    chsk_reconnect,
    chsk_send,
    default_chsk_url,
    exp_backoff,
    is_event,
    is_event_msg,
    make_channel_socket,
    set_exp_backoff_timeout,
    set_logging_level,
    start_chsk_router,
    start_chsk_router_loop,
)
from flask_chsk.client.endpoint import location_of
from flask_chsk.errors import BadEvent, ConfigError
from flask_chsk.values import Keyword
from tests.e2e.client.conftest import TestServer
from tests.process import WAIT, eventually


@pytest.fixture
def parts(server: TestServer) -> Iterator[client.Parts]:
    made = make_channel_socket(server.url, {"type": Keyword("ws"), "ws-kalive-ms": 20000})
    made.chsk.wait_open()
    yield made
    chsk_destroy(made.chsk)


def lp_timeout(chsk: client.ChannelSocket) -> float:
    """Seconds that it waits for the end of a POST."""
    return chsk._engine._endpoint.post_timeout


def test_a_channel_socket_is_a_map_of_parts(parts: client.Parts) -> None:
    assert list(parts) == ["ch_recv", "send_fn", "state", "chsk"]
    assert parts["state"]["open"] is True
    replies: Queue[Any] = Queue()
    assert parts["send_fn"](["test/echo", 1], WAIT, replies.put_nowait) is True
    assert replies.get(timeout=WAIT) == 1
    with pytest.raises(KeyError):
        parts["nonsense"]


def test_chsk_send_has_three_forms(parts: client.Parts) -> None:
    replies: Queue[Any] = Queue()
    assert chsk_send(parts.chsk, ["test/note", ["seed", 1]]) is True
    assert chsk_send(parts.chsk, ["test/echo", 2], WAIT, replies) is True
    assert chsk_send(parts.chsk, ["test/echo", 3], {"timeout-ms": 30_000, "cb": replies}) is True
    assert [replies.get(timeout=WAIT) for _ in range(2)] == [
        [Keyword("test/echo.cb"), 2],
        [Keyword("test/echo.cb"), 3],
    ]
    with pytest.raises(ConfigError, match=r"not \['callback'\]"):
        chsk_send(parts.chsk, ["test/echo"], {"callback": print})


def test_chsk_reconnect_opens_again(parts: client.Parts) -> None:
    chsk_reconnect(parts.chsk)
    eventually(lambda: parts.state["open"] and not parts.state["first_open"])
    assert parts.state["last_close"]["reason"] == "requested-reconnect"


def test_options_may_be_spelt_as_the_seed_does(server: TestServer) -> None:
    asked: list[Any] = []

    def url(path: str, location: Any, websocket: bool) -> str:
        asked.append((path, location["search"], websocket))
        return default_chsk_url(path, location, websocket)

    queue = RecvQueue(3)
    opts = {
        "type": "ajax",
        "recv-buf-or-n": queue,
        "lp-timeout-ms": 3000,
        "chsk-url-fn": url,
        "packer": "json",
        "client-id": "me",
        "ajax-opts": {"headers": {"X-A": "b"}},
        "wrap-recv-evs?": False,
    }
    made = make_channel_socket(server.url + "?a=1", opts)
    try:
        made.chsk.wait_open()
        assert (made.ch_recv, made.chsk.client_id, lp_timeout(made.chsk)) == (queue, "me", 3.0)
        assert asked[0] == ("/chsk", "?a=1", False)
    finally:
        made.chsk.destroy()
    assert queue.dropped == len(["state", "state", "handshake", "state", "state"]) - 3


def test_deprecated_spellings_warn(server: TestServer) -> None:
    with pytest.warns(DeprecationWarning) as warned:
        made = make_channel_socket(
            server.url, {"connect": False}, {"client-uuid": "me", "lp-kalive-ms": 1000}
        )
    assert [str(one.message) for one in warned] == [
        "give all options in one mapping",
        "client_uuid is now client_id",
    ]
    assert (made.chsk.client_id, lp_timeout(made.chsk)) == ("me", 1.0)


def test_a_router_handles_what_is_in_ch_recv_until_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ch_recv, seen = RecvQueue(10), []

    def handle(ev: EventMsg) -> None:
        seen.append(ev.event)
        if ev.id == "a/bad":
            raise ValueError("logged, no more")

    set_logging_level("debug")
    stop = start_chsk_router(ch_recv, handle, {"trace-evs?": True})
    ch_recv.put(["a/bad", 1])
    ch_recv.put(EventMsg(as_event(["a/good"])))
    eventually(lambda: len(seen) == 2)
    stop()
    set_logging_level("info")
    assert seen == [("a/bad", 1), ("a/good", None)]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "handler of a/bad failed"
    ]
    assert "event Event(id=Keyword('a/good'), data=None)" in caplog.text


def test_the_deprecated_router_takes_its_arguments_in_reverse() -> None:
    ch_recv, seen = RecvQueue(10), []
    with pytest.warns(DeprecationWarning, match="use start_chsk_router"):
        stop = start_chsk_router_loop(lambda event, ch: seen.append((event, ch)), ch_recv)
    ch_recv.put(["a/b", 1])
    eventually(lambda: seen)
    stop()
    assert seen == [(("a/b", 1), ch_recv)]


def test_ch_recv_takes_events_only() -> None:
    with pytest.raises(BadEvent):
        RecvQueue(10).put("nonsense")


def test_events_are_told_from_what_is_none() -> None:
    assert is_event(["chat/say"]) and not is_event(["say"])
    assert as_event("nonsense") == ("chsk/bad-event", "nonsense")
    with pytest.raises(BadEvent):
        assert_event("nonsense")
    assert is_event_msg(EventMsg(as_event(["a/b"]))) and not is_event_msg(["a/b"])


def test_replies_are_told_from_the_three_words() -> None:
    words = [Keyword(f"chsk/{word}") for word in ("closed", "timeout", "error")]
    assert [cb_success(word) for word in words] == [False, False, False]
    assert [cb_error(word) for word in words] == [True, True, True]
    assert cb_success(None) and cb_success("chsk/closed")


def test_the_url_is_made_of_path_and_location() -> None:
    location = location_of("http://www.example.org:80/foo/bar?q=baz#bang")
    assert location == {
        "href": "http://www.example.org:80/foo/bar?q=baz#bang",
        "protocol": "http:",
        "hostname": "www.example.org",
        "host": "www.example.org:80",
        "pathname": "/foo/bar",
        "search": "?q=baz",
        "hash": "#bang",
    }
    assert default_chsk_url("/chsk", location, False) == "http://www.example.org:80/chsk"
    assert default_chsk_url("/chsk", location, True) == "ws://www.example.org:80/chsk"
    secure = location_of("wss://example.org/chsk")
    assert default_chsk_url("/chsk", secure, True) == "wss://example.org/chsk"
    assert default_chsk_url("https://a.b/c", location, True) == "wss://a.b/c"


@pytest.mark.parametrize("url", ["/chsk", "example.org/chsk", "ftp://example.org", "http://"])
def test_a_url_is_whole(url: str) -> None:
    with pytest.raises(ConfigError, match="give the whole URL"):
        make_channel_socket(url)


def test_a_call_is_put_off_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_chsk.client.sente.exp_backoff", lambda attempt: attempt * 0.01)
    called: list[int] = []
    set_exp_backoff_timeout(lambda: called.append(0))
    set_exp_backoff_timeout(lambda: called.append(1), 1)
    set_exp_backoff_timeout(lambda: called.append(1000), 1000)()
    eventually(lambda: len(called) == 2)
    assert sorted(called) == [0, 1]


def test_backoff_is_capped_and_jittered() -> None:
    waits = [exp_backoff(attempt, random=lambda: 1.0) for attempt in (0, 1, 2, 6, 99, 100, 5000)]
    assert waits == [0.5, 1.0, 2.0, 5.0, 5.0, 30.0, 30.0]


def test_functions_that_no_call_runs_are_refused(parts: client.Parts) -> None:
    async def never(*_: Any) -> None: ...

    for register in (
        lambda: parts.chsk.on("a/b", never),
        lambda: parts.chsk.on("a/b")(never),
        lambda: parts.chsk.watch(never),
        lambda: start_chsk_router(parts.ch_recv, never),
    ):
        with pytest.raises(ConfigError, match=r"never is async .* a thread of the client"):
            register()
