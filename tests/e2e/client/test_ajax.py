"""``ajax_call``: every option, and every word of its response map."""

from __future__ import annotations

import threading
from queue import Queue
from typing import Any

import pytest

from flask_chsk.client import ajax, ajax_call
from flask_chsk.errors import ConfigError
from tests.e2e.client.servers import Polled, Saying
from tests.process import WAIT, eventually

EDN = {"Content-Type": "application/edn; charset=utf-8"}
JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain; charset=latin-1"}


@pytest.mark.parametrize(
    ("answer", "opts", "expected"),
    [
        ((200, EDN, "{:a [1 nil]}"), {}, (True, 200, None, {"a": [1, None]})),
        ((200, JSON, '{"a": [1, null]}'), {}, (True, 200, None, {"a": [1, None]})),
        ((200, TEXT, "hi"), {}, (True, 200, None, "hi")),
        ((200, {}, "hi"), {}, (True, 200, None, "hi")),
        ((200, TEXT, "{:a 1}"), {"resp-type": "edn"}, (True, 200, None, {"a": 1})),
        ((200, EDN, "{:a 1}"), {"resp_type": "text"}, (True, 200, None, "{:a 1}")),
        ((200, EDN, "{:a 1}"), {"resp_type": "binary"}, (True, 200, None, b"{:a 1}")),
        ((204, {}, ""), {}, (True, 204, None, "")),
        ((200, EDN, ""), {}, (False, 200, "no-content", None)),
        ((200, JSON, "{"), {}, (False, 200, "exception", "{")),
        ((404, JSON, "{"), {}, (False, 404, 404, "{")),
        ((500, TEXT, "oops"), {}, (False, 500, 500, "oops")),
    ],
)
def test_an_answer_is_read_as_what_it_is(
    answer: Any, opts: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    with Polled(lambda method, params: answer) as server:
        response = ajax_call(server.url, opts)
    assert response == {
        **dict(zip(("success", "status", "error", "content"), expected, strict=True)),
        "content_type": answer[1].get("Content-Type"),
    }


def test_params_are_the_query_of_a_get_and_the_form_of_a_post() -> None:
    with Polled(lambda method, params: (200, TEXT, method)) as server:
        params = {"username": "Rich Hickey", "type": "&=", "none": None}
        opts = {"params": params, "headers": {"Foo": "Bar"}}
        got = ajax_call(server.url + "?a=1", opts)["content"]
        posted = ajax_call(server.url, {**opts, "method": "post"})["content"]
        asked = [(method, params, headers["Foo"]) for method, params, headers in server.asked]
    assert (got, posted) == ("GET", "POST")
    assert asked == [
        ("GET", {"a": "1", "username": "Rich Hickey", "type": "&="}, "Bar"),
        ("POST", {"username": "Rich Hickey", "type": "&="}, "Bar"),
    ]


def test_a_callback_gets_the_map_and_the_call_can_be_aborted() -> None:
    responses: Queue[Any] = Queue()
    with Saying(None) as server:
        call = ajax_call(server.url, {}, responses.put)
        assert call is not None
        eventually(lambda: server.heads)
        call.abort()
        assert responses.get(timeout=WAIT) == {
            "success": False,
            "status": None,
            "error": "abort",
            "content": None,
            "content_type": None,
        }


def test_no_answer_is_a_timeout_or_an_http_error() -> None:
    with Saying(None) as server:
        assert ajax_call(server.url, {"timeout-ms": 100})["error"] == "timeout"
    assert ajax_call(server.url, {})["error"] == "http-error"
    with Saying(b"nonsense\r\n\r\n") as server:
        assert ajax_call(server.url, {})["error"] == "http-error"


def test_too_many_calls_at_a_time_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ajax, "_free", threading.BoundedSemaphore(1))
    responses: Queue[Any] = Queue()
    with Saying(None) as server:
        first = ajax_call(server.url, {}, responses.put)
        assert ajax_call(server.url, {}, responses.put) is None
        assert responses.get(timeout=WAIT)["error"] == "xhr-pool-depleted"
        assert first is not None
        first.abort()
        assert responses.get(timeout=WAIT)["error"] == "abort"


def test_redirects_are_followed_and_strangers_get_no_credentials() -> None:
    with Polled(lambda method, params: (200, TEXT, method)) as stranger:
        there = {"Location": stranger.url.replace("127.0.0.1", "localhost")}
        with Polled(lambda method, params: (303, there, "")) as server:
            opts = {"method": "post", "headers": {"Authorization": "Bearer x"}}
            assert ajax_call(server.url, opts)["content"] == "GET"
            (_, _, first), (_, _, then) = server.asked[0], stranger.asked[0]
    assert (first["Authorization"], then["Authorization"]) == ("Bearer x", None)


def test_cookies_go_along_unless_credentials_shall_not() -> None:
    with Polled(lambda method, params: (200, TEXT, "ok")) as server:
        ajax_call(server.url, {"cookies": {"a": "1"}})
        ajax_call(server.url, {"cookies": {"a": "1"}, "with-credentials?": False})
        assert [headers["Cookie"] for _, _, headers in server.asked] == ["a=1", None]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not \['respType'\]"):
        ajax_call("http://127.0.0.1:9/", {"respType": "edn"})
