"""``ajax_call``: what is asked, where it is redirected, and every word of the response map."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from flask_chsk.client import ajax as module
from flask_chsk.client.ajax import ajax_call
from flask_chsk.client.http_client import Answer, NoAnswer
from flask_chsk.errors import ConfigError

URL = "http://example.org/api"
OK = Answer(200, {}, b"ok")

Serve = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Have requests answered in turn, the last answer again and again; they are noted."""

    def serving(*answers: Answer | NoAnswer) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        class Http:
            def __init__(self, ssl_context: Any, cookies: Any) -> None:
                self.cookies = {cookie.name: cookie.value for cookie in cookies}

            def request(self, method: str, url: str, **how: Any) -> Answer:
                answer = answers[min(len(asked), len(answers) - 1)]
                how["headers"] = dict(how["headers"])
                asked.append({"method": method, "url": url, "cookies": self.cookies, **how})
                if isinstance(answer, NoAnswer):
                    raise answer
                return answer

            def close(self) -> None: ...

        monkeypatch.setattr(module, "HttpClient", Http)
        return asked

    return serving


def response(**what: Any) -> dict[str, Any]:
    fields = ("status", "error", "content", "content_type")
    return {"success": False, **dict.fromkeys(fields), **what}


def typed(content_type: str, body: bytes, status: int = 200) -> Answer:
    return Answer(status, {"content-type": content_type}, body)


# What is asked -----------------------------------------------------------------------------


def test_params_are_the_query_of_a_get(serve: Serve) -> None:
    asked = serve(OK)
    ajax_call(f"{URL}?a=1", {"params": {"b": "c d", "none": None}, "headers": {"X-One": "1"}})
    [request] = asked
    assert (request["method"], request["url"]) == ("GET", f"{URL}?a=1&b=c%20d")
    assert (request["headers"], request["body"]) == ({"X-One": "1"}, None)
    assert request["timeout"] == module.TIMEOUT


def test_params_are_the_form_of_a_post(serve: Serve) -> None:
    asked = serve(OK)
    ajax_call(URL, {"method": "post", "params": {"b": "c d"}})
    [request] = asked
    assert (request["method"], request["url"], request["body"]) == ("POST", URL, b"b=c+d")
    assert request["headers"] == {"Content-Type": "application/x-www-form-urlencoded"}


def test_a_body_leaves_params_to_the_query(serve: Serve) -> None:
    asked = serve(OK)
    ajax_call(URL, {"method": "put", "body": b"\x00", "params": {"a": 1}})
    ajax_call(URL, {"method": "post", "body": b"{}", "params": {"a": 1}})
    assert [(one["method"], one["url"], one["body"], one["headers"]) for one in asked] == [
        ("PUT", f"{URL}?a=1", b"\x00", {}),
        ("POST", f"{URL}?a=1", b"{}", {}),
    ]


def test_options_may_have_the_spelling_of_sente(serve: Serve) -> None:
    asked = serve(typed("application/edn", b"[1]"))
    opts = {"timeout-ms": 1500, "resp-type": "text", "with-credentials?": True, "cookies": {}}
    assert ajax_call(URL, opts)["content"] == "[1]"
    assert asked[0]["timeout"] == 1.5


def test_cookies_stay_here_where_credentials_are_not_wanted(serve: Serve) -> None:
    asked = serve(OK)
    for wanted in (True, False):
        ajax_call(URL, {"cookies": {"a": "1"}, "with_credentials": wanted})
    assert [one["cookies"] for one in asked] == [{"a": "1"}, {}]


def test_an_option_that_is_none_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"ajax_call takes body, .*; not \['retries'\]"):
        ajax_call(URL, {"retries": 3})


# Redirects ---------------------------------------------------------------------------------


def moved(status: int, location: str = "/there") -> Answer:
    return Answer(status, {"location": location})


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "post", ("GET", None)),
        (302, "post", ("GET", None)),
        (303, "post", ("GET", None)),
        (303, "put", ("GET", None)),
        (307, "post", ("POST", b"body")),
        (308, "post", ("POST", b"body")),
        (302, "put", ("PUT", b"body")),
        (302, "get", ("GET", b"body")),
    ],
)
def test_a_redirect_keeps_the_method_or_makes_it_a_get(
    serve: Serve, status: int, method: str, then: tuple[str, bytes | None]
) -> None:
    asked = serve(moved(status), OK)
    headers = {"Content-Type": "text/plain"}
    assert ajax_call(URL, {"method": method, "body": b"body", "headers": headers})["success"]
    _, second = asked
    assert (second["method"], second["body"]) == then
    assert second["url"] == "http://example.org/there"
    assert ("Content-Type" in second["headers"]) is (second["body"] is not None)


def test_another_server_gets_no_credentials(serve: Serve) -> None:
    asked = serve(moved(302), moved(302, "http://example.com/"), OK)
    ajax_call(URL, {"headers": {"Authorization": "Bearer x", "Cookie": "a=1", "X-One": "1"}})
    all_of_them = ["Authorization", "Cookie", "X-One"]
    assert [list(one["headers"]) for one in asked] == [all_of_them, all_of_them, ["X-One"]]


def test_redirects_come_to_an_end(serve: Serve) -> None:
    asked = serve(moved(302))
    assert ajax_call(URL) == response(status=302, error=302, content="")
    assert len(asked) == module.REDIRECTS + 1


# The response map --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "content"),
    [
        ("application/edn; charset=utf-8", b"{:a [1 nil]}", {"a": [1, None]}),
        ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
        ("application/problem+json", b"[]", []),
        ("application/transit+json", b'["^ ","~:a",1]', {"a": 1}),
        ("application/msgpack", b"\x91\x01", [1]),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; charset="utf-8"', "é".encode(), "é"),
        ("text/plain; charset=klingon", "é".encode(), "é"),
        ("text/plain; title=json", b"{", "{"),
        ("", b"\xff", "\ufffd"),
    ],
)
def test_content_is_read_by_its_type(
    serve: Serve, content_type: str, body: bytes, content: Any
) -> None:
    serve(typed(content_type, body))
    assert ajax_call(URL) == response(
        success=True, status=200, content=content, content_type=content_type or None
    )


@pytest.mark.parametrize(
    ("kind", "content"), [("text", "{:a 1}"), ("binary", b"{:a 1}"), ("edn", {"a": 1})]
)
def test_the_application_may_say_how_content_is_read(serve: Serve, kind: str, content: Any) -> None:
    serve(typed("application/octet-stream", b"{:a 1}"))
    assert ajax_call(URL, {"resp_type": kind})["content"] == content


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (typed("application/json", b"{"), {"error": "exception", "content": "{"}),
        (typed("application/json", b""), {"error": "no-content"}),
        (typed("application/json", b"[1]", 404), {"error": 404, "content": "[1]"}),
        (typed("text/plain", b"oops", 500), {"error": 500, "content": "oops"}),
    ],
)
def test_an_answer_that_is_no_success_says_why(
    serve: Serve, answer: Answer, what: dict[str, Any]
) -> None:
    serve(answer)
    found = {"status": answer.status, "content_type": answer.content_type}
    assert ajax_call(URL) == response(**found, **what)


def test_an_answer_may_be_empty_by_its_status(serve: Serve) -> None:
    serve(Answer(204, {}))
    assert ajax_call(URL) == response(success=True, status=204, content="")


@pytest.mark.parametrize(
    ("kind", "error"), [("timeout", "timeout"), ("abort", "abort"), ("exception", "http-error")]
)
def test_without_an_answer_the_error_says_so(serve: Serve, kind: str, error: str) -> None:
    serve(NoAnswer(kind, "no answer"))
    assert ajax_call(URL) == response(error=error)


# Callbacks ---------------------------------------------------------------------------------


def test_a_callback_gets_the_map(serve: Serve) -> None:
    serve(OK)
    responses: Queue[Any] = Queue()
    assert ajax_call(URL, None, responses.put) is not None
    assert responses.get(timeout=60) == response(success=True, status=200, content="ok")


def test_a_call_is_aborted_by_what_it_returns(serve: Serve) -> None:
    asked = serve(OK)
    responses: Queue[Any] = Queue()
    call = ajax_call(URL, None, responses.put)
    assert call is not None
    responses.get(timeout=60)
    call.abort()
    assert asked[0]["abort"].is_set


def test_the_number_of_calls_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(OK)
    free = module._Calls(1)
    monkeypatch.setattr(module, "_free", free)
    responses: Queue[Any] = Queue()
    assert free.acquire()  # as a call under way does
    assert ajax_call(URL, None, responses.put) is None
    assert responses.get(timeout=60) == response(error="xhr-pool-depleted")
    free.release()
    assert ajax_call(URL, None, responses.put) is not None
    assert (responses.get(timeout=60)["success"], len(asked)) == (True, 1)


def test_calls_of_a_parent_are_not_under_way_in_its_child() -> None:
    free = module._Calls(1)
    assert free.acquire()
    free.forked()
    assert free.acquire(blocking=False)


def test_an_error_of_a_callback_is_logged_without_what_is_secret(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(OK)
    free = module._Calls(1)
    monkeypatch.setattr(module, "_free", free)
    logged: Queue[str] = Queue()
    monkeypatch.setattr(module.log, "exception", lambda text, *args: logged.put(text % args))
    ajax_call("http://me:secret@example.org/?token=secret", None, lambda response: 1 / 0)
    text = logged.get(timeout=60)
    assert text.startswith("error in the callback of http://") and "secret" not in text
    assert free.acquire(timeout=60)  # its place is free again
