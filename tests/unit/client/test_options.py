"""What an application gives to a client is checked, and an error names the option."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from flask_chsk.client.options import (
    LONGEST,
    Credentials,
    assert_known,
    checked_backoff,
    count,
    handler_id,
    page_cursor,
    positive,
    seconds,
    session_options,
    token,
)
from flask_chsk.client.waiting import ThreadGroup
from flask_chsk.errors import BadEvent, ConfigError

GIVEN: dict[str, Any] = {
    "type": "auto",
    "ws_kalive": 25,
    "ws_ping_timeout": 10.0,
    "connect_timeout": 30,
    "offline_queue": 0,
    "backoff": None,
    "client_id": None,
}


@pytest.mark.parametrize(("given", "kept"), [(0, 0.0), (1.5, 1.5), (math.inf, LONGEST)])
def test_seconds_are_a_number_of_bounded_size(given: Any, kept: float) -> None:
    assert seconds("timeout", given) == kept


@pytest.mark.parametrize("given", [-1, True, None, "5", math.nan, -math.inf])
def test_what_is_no_time_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="timeout is in seconds, and at least 0"):
        seconds("timeout", given)


@pytest.mark.parametrize("given", [0, 0.0])
def test_some_times_are_more_than_none(given: Any) -> None:
    with pytest.raises(ConfigError, match="ws_kalive is in seconds, and more than 0"):
        positive("ws_kalive", given)


def test_a_number_of_things_has_a_least() -> None:
    assert (count("queue", 0, 0), count("queue", 5, 5)) == (0, 5)
    for given in (4, True, 5.0, "5", None):
        with pytest.raises(ConfigError, match="queue is a number, and at least 5"):
            count("queue", given, 5)


@pytest.mark.parametrize("given", [None, "", "abc", "a b~"])
def test_a_token_can_travel_in_a_header(given: Any) -> None:
    assert token("auth", given) == given


@pytest.mark.parametrize("given", ["zoë-secret", "a\nsecret", b"secret", 7])
def test_a_token_that_cannot_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigError, match="auth must be a string of ASCII") as refused:
        token("auth", given)
    assert "secret" not in str(refused.value)


def test_a_handler_is_for_an_id_or_for_all_others() -> None:
    assert (handler_id("chat/say"), handler_id("*")) == ("chat/say", "*")
    for given in ("say", "", None, 7):
        with pytest.raises(BadEvent, match='on\\("chat/say"\\)'):
            handler_id(given)


def test_options_are_kept_as_they_are_given() -> None:
    options = session_options(**GIVEN)
    assert (options.type, options.ws_kalive, options.client_id) == ("auto", 25.0, None)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("type", "websocket"),
        ("ws_kalive", 0),
        ("ws_ping_timeout", 0),
        ("connect_timeout", -1),
        ("offline_queue", -1),
        ("client_id", ""),
        ("client_id", "a b"),
        ("client_id", "x" * 65),
        ("client_id", 7),
    ],
)
def test_an_option_that_cannot_be_is_named(name: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is "):
        session_options(**{**GIVEN, name: given})


def test_a_cursor_is_what_a_view_returned() -> None:
    assert [page_cursor(given) for given in (None, "", "e1:5.x")] == [None, None, "e1:5.x"]
    with pytest.raises(ConfigError, match=r"^cursor is what chsk.page_cursor\(\) returned, not 5"):
        page_cursor(5)


def test_a_backoff_of_the_application_is_asked() -> None:
    assert [checked_backoff(lambda attempt: attempt * 2)(n) for n in (0, 3)] == [0.0, 6.0]


@pytest.mark.parametrize("backoff", [lambda n: 1 / 0, lambda n: -1, lambda n: None, lambda: 1])
def test_where_it_fails_the_default_takes_its_place(
    backoff: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert 0.0 <= checked_backoff(backoff)(0) <= 0.5
    assert "backoff failed" in caplog.text


def test_an_unknown_option_is_answered_with_the_one_most_like_it() -> None:
    def connect(self: Any, timeout: float, client_id: str) -> None: ...

    assert_known(connect, ["timeout", "client_id"])
    with pytest.raises(TypeError, match=r"no option clientid: did you mean client_id\?"):
        assert_known(connect, ["clientid"])
    with pytest.raises(TypeError, match="no option xyz: there are timeout, client_id"):
        assert_known(connect, ["xyz"])
    assert_known(lambda **more: None, ["anything"])


# Credentials -------------------------------------------------------------------------------


def credentials(csrf_token: Any = None, auth: Any = None) -> Credentials:
    return Credentials(ThreadGroup(), csrf_token, auth)


def test_tokens_are_given_or_asked_for_anew() -> None:
    tokens = iter("abc")
    asked = credentials("csrf", lambda: next(tokens))
    assert [asked.ask() for _ in range(2)] == [("csrf", "a"), ("csrf", "b")]
    assert credentials().ask() == (None, None)


def test_a_function_is_asked_in_a_thread_of_its_own() -> None:
    threads: list[int] = []
    credentials(auth=lambda: threads.append(threading.get_ident())).ask()
    assert threads and threads != [threading.get_ident()]


def test_a_token_that_cannot_travel_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="csrf_token must be"):
        credentials(csrf_token="é")


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda: 1 / 0, "auth: ZeroDivisionError"), (lambda: 7, "auth must be a string")],
)
def test_a_function_that_gives_no_token_is_named(function: Any, words: str) -> None:
    asked = credentials(auth=function)
    for _ in range(2):
        with pytest.raises(ConfigError, match=words):
            asked.ask()
