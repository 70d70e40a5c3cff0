"""Sente's functions by their names: what they return, how options are spelt, and their routers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from flask_chsk.client import (
    EventMsg,
    Parts,
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
    sente,
    set_exp_backoff_timeout,
    set_logging_level,
    start_chsk_router,
    start_chsk_router_loop,
)
from flask_chsk.client.endpoint import location_of
from flask_chsk.errors import BadEvent, ConfigError
from flask_chsk.values import Keyword
from tests.process import eventually
from tests.unit.client.fakes import URL, NotedLink, confirm

Make = Callable[..., Parts]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    NotedLink.take_the_place_of_all(monkeypatch)
    made: list[Parts] = []

    def making(*args: Any, **options: Any) -> Parts:
        made.append(make_channel_socket(URL, *args, **options))
        return made[-1]

    yield making
    for parts in made:
        chsk_destroy(parts.chsk)


@pytest.fixture
def parts(make: Make) -> Parts:
    """The parts of an open channel socket."""
    parts = make({"type": Keyword("ws")})
    confirm(parts.chsk)
    return parts


# Parts and options -------------------------------------------------------------------------


def test_the_parts_are_a_map_whose_state_is_that_of_now(parts: Parts) -> None:
    assert list(parts) == ["ch_recv", "send_fn", "state", "chsk"] and len(parts) == 4
    chsk = parts["chsk"]
    assert (parts["ch_recv"], parts["send_fn"]) == (chsk.ch_recv, chsk.send)
    assert (parts["state"]["open"], parts.state["uid"]) == (True, "ann")
    chsk.disconnect()
    assert parts["state"]["open"] is False
    with pytest.raises(KeyError):
        parts["nonsense"]


def test_options_may_be_spelt_as_sente_does(make: Make) -> None:
    queue = RecvQueue(3)
    opts = {
        "type": "ajax",
        "recv-buf-or-n": queue,
        "lp-timeout-ms": 3000,
        "chsk-url-fn": lambda path, location, websocket: f"http://other.org{path}",
        "client-id": "me",
        "ajax-opts": {"headers": {"X-A": "b"}},
        "wrap-recv-evs?": False,
    }
    parts = make(opts)
    endpoint = parts.chsk._engine._endpoint
    assert (parts.ch_recv, parts.chsk.client_id, endpoint.post_timeout) == (queue, "me", 3.0)
    assert (endpoint.url(False), endpoint.headers(False)["X-A"]) == ("http://other.org/chsk", "b")
    assert NotedLink.made[-1].link.kind == "ajax"


def test_keyword_arguments_come_last(make: Make) -> None:
    with pytest.warns(DeprecationWarning, match="give all options in one mapping"):
        parts = make({"client-id": "first"}, {"connect": False, "client-id": "me"})
    assert (parts.chsk.client_id, parts.state["status"]) == ("me", "closed")
    assert make({"client-id": "first"}, client_id="me").chsk.client_id == "me"


@pytest.mark.parametrize("url", ["/chsk", "example.org/chsk", "ftp://example.org", "http://"])
def test_a_url_is_whole(url: str) -> None:
    with pytest.raises(ConfigError, match="give the whole URL"):
        make_channel_socket(url)


# Functions ---------------------------------------------------------------------------------


def test_functions_call_the_channel_socket(parts: Parts) -> None:
    link = NotedLink.made[-1]
    assert chsk_send(parts.chsk, ["a/b"]) is True
    replies: Queue[Any] = Queue()
    assert chsk_send(parts.chsk, ["a/b"], {"timeout-ms": 10_000, "cb": replies}) is True
    parts.chsk._engine.received(link.link, '[1 "c1"]')
    assert replies.get(timeout=60) == [Keyword("a/b.cb"), 1]
    chsk_reconnect(parts.chsk)
    assert parts.state["last_close"]["reason"] == "requested-reconnect"
    chsk_destroy(parts.chsk)
    assert parts.state["status"] == "destroyed"


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
    assert seen == [("a/bad", 1), ("a/good", None)]
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "handler of a/bad failed"
    ]
    assert "event Event(id=Keyword('a/good'), data=None)" in caplog.text


def started(start: Callable[[], Callable[[], None]]) -> tuple[Callable[[], None], threading.Thread]:
    """What *start* returns, and the thread that it started."""
    before = set(threading.enumerate())
    stop = start()
    [thread] = set(threading.enumerate()) - before
    return stop, thread


def test_a_stopped_router_leaves_what_comes_to_the_next() -> None:
    class Late(RecvQueue):
        """Gives an event while its reader is being stopped."""

        def get(self, *args: Any, **how: Any) -> EventMsg:
            asked.set()
            stopped.wait(60)
            return super().get(*args, **how)

    asked, stopped, seen = threading.Event(), threading.Event(), []
    ch_recv = Late(10)
    ch_recv.put(["a/b", 1])
    stop, router = started(lambda: start_chsk_router(ch_recv, seen.append))
    asked.wait(60)
    stop()
    stopped.set()
    router.join(60)
    assert (ch_recv.get(timeout=60).event, seen) == (("a/b", 1), [])


def test_a_router_ends_with_its_channel() -> None:
    ch_recv = RecvQueue(10)
    _, router = started(lambda: start_chsk_router(ch_recv, print))
    ch_recv.close()
    router.join(60)
    assert not router.is_alive()


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


def test_a_call_is_put_off_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sente, "exp_backoff", lambda attempt: attempt * 0.01)
    called: list[int] = []
    set_exp_backoff_timeout(lambda: called.append(0))
    set_exp_backoff_timeout(lambda: called.append(1), 1)
    set_exp_backoff_timeout(lambda: called.append(1000), 1000)()
    eventually(lambda: len(called) == 2)
    assert sorted(called) == [0, 1]


def test_backoff_is_capped_and_jittered() -> None:
    waits = [exp_backoff(attempt, random=lambda: 1.0) for attempt in (0, 1, 2, 6, 99, 100, 5000)]
    assert waits == [0.5, 1.0, 2.0, 5.0, 5.0, 30.0, 30.0]


def test_a_handler_that_no_call_runs_is_refused() -> None:
    async def never(*_: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"never is async .* a thread of the client"):
        start_chsk_router(RecvQueue(1), never)
