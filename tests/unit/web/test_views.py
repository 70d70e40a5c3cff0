"""The one URL: what each request is answered, in which order it is checked, and its headers."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import gevent
import pytest
from flask import Flask, Response, abort, make_response
from flask.testing import FlaskClient
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.test import TestResponse

from flask_chsk import Chsk
from flask_chsk.errors import Refused
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from flask_chsk.web import views as module
from flask_chsk.web.views import TEST_CLIENT, Body

OTHER = "https://other.example"
QUERY = {"client-id": "x", "packer": "edn"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@pytest.fixture(autouse=True)
def _each_refusal_is_new() -> None:
    module.rate_limited._kinds.clear()


Browser = Callable[..., TestResponse]


@pytest.fixture
def make(app: Flask) -> Callable[..., Chsk]:
    """A channel socket that wants no CSRF token, unless a test does."""

    def making(**options: Any) -> Chsk:
        chsk = Chsk(app, **{"csrf": False, "allowed_origins": [OTHER], **options})
        chsk.user_id(lambda: "ann")
        chsk.on("a/echo")(lambda ev: ev.data)
        return chsk

    return making


@pytest.fixture
def client(app: Flask, make: Callable[..., Chsk]) -> FlaskClient:
    make()
    return app.test_client()


def get(client: FlaskClient, **more: Any) -> TestResponse:
    """Ask for a handshake over Ajax."""
    query = {**QUERY, "handshake?": "1", **more.pop("query", {})}
    environ = {TEST_CLIENT: True, **more.pop("environ", {})}
    return client.get(f"/chsk?{urlencode(query)}", environ_overrides=environ, **more)


def post(client: FlaskClient, message: str = "[[:a/echo 7] :cb]", **more: Any) -> TestResponse:
    environ = {TEST_CLIENT: True, **more.pop("environ", {})}
    data = more.pop("data", {"ppstr": message, **QUERY})
    return client.post("/chsk", data=data, environ_overrides=environ, **more)


# Good answers ------------------------------------------------------------------------------


def test_a_handshake_is_answered_at_once_and_no_cache_keeps_it(client: FlaskClient) -> None:
    answer = get(client)
    assert (answer.status_code, answer.content_type) == (200, "application/edn")
    assert answer.text.startswith('[[:chsk/handshake ["ann" ')
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_post_is_answered_with_the_reply(client: FlaskClient) -> None:
    get(client)
    answer = post(client)
    assert (answer.status_code, answer.text.split()[0]) == (200, "[7")
    assert answer.headers["X-Accel-Buffering"] == "no"


def test_nobody_reads_a_head_so_nothing_is_taken(client: FlaskClient) -> None:
    answer = client.head(f"/chsk?{urlencode(QUERY)}")
    assert (answer.status_code, answer.data) == (200, b"")


def test_an_answer_has_the_type_of_its_packer(app: Flask, make: Callable[..., Chsk]) -> None:
    make(packers=["edn", "json", "msgpack"])
    for packer in ("edn", "json", "msgpack"):
        assert packer in get(app.test_client(), query={"packer": packer}).content_type


def test_a_page_of_a_listed_origin_may_read_the_answer(client: FlaskClient) -> None:
    answer = get(client, headers={"Origin": OTHER})
    assert answer.headers["Access-Control-Allow-Origin"] == OTHER
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in answer.vary
    assert "Access-Control-Allow-Origin" not in get(client).headers


def test_a_preflight_lists_the_headers_that_clients_send(client: FlaskClient) -> None:
    answer = client.options("/chsk", headers={"Origin": OTHER})
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST"
    allowed = answer.headers["Access-Control-Allow-Headers"].replace(" ", "").split(",")
    assert {"X-CSRF-Token", "Authorization", SECRET_HEADER, RESUME_HEADER} <= set(allowed)
    assert client.options("/chsk").headers.get("Access-Control-Allow-Origin") is None
    assert client.options("/chsk", headers={"Origin": "https://evil.example"}).status_code == 403


# Health ------------------------------------------------------------------------------------


def test_health_is_asked_only_where_the_application_wants_it(client: FlaskClient) -> None:
    assert client.get("/chsk/health").status_code == 404


def test_a_healthy_worker_says_ok_and_what_to_look_at(
    app: Flask, make: Callable[..., Chsk], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(health=True)
    worker = app.extensions["chsk"].worker()
    answer = app.test_client().get("/chsk/health")
    assert (answer.status_code, answer.text, answer.mimetype) == (200, "ok\n", "text/plain")
    assert answer.headers["Cache-Control"] == "no-store"
    monkeypatch.setattr(worker.broker, "note", lambda: "an old schema")
    assert app.test_client().get("/chsk/health").text == "ok\nan old schema\n"


def test_an_unhealthy_worker_says_why(
    app: Flask, make: Callable[..., Chsk], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(health=True)
    client, worker = app.test_client(), app.extensions["chsk"].worker()
    monkeypatch.setattr(worker, "broker_health", lambda: "no broker")
    assert (client.get("/chsk/health").status_code, client.get("/chsk/health").text) == (
        503,
        "no broker\n",
    )
    several = client.get("/chsk/health", environ_overrides={"wsgi.multiprocess": True})
    assert several.text.startswith("several workers share no broker")
    monkeypatch.setattr(worker.clients, "draining", True)
    assert client.get("/chsk/health").text == "draining\n"


# Refusals ----------------------------------------------------------------------------------


def test_a_refusal_is_one_line_of_text_that_no_cache_keeps(client: FlaskClient) -> None:
    answer = get(client, query={"client-id": ""})
    assert (answer.status_code, answer.content_type) == (400, "text/plain; charset=utf-8")
    assert answer.text.count("\n") == 1
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "status", "why"),
    [
        ({"client-id": "a b"}, 400, "client-id"),
        ({"client-id": "x" * 100}, 400, "client-id"),
        ({"packer": "yaml"}, 400, "unknown packer: this server speaks edn"),
    ],
)
def test_a_bad_query_is_refused(
    client: FlaskClient, query: dict[str, str], status: int, why: str
) -> None:
    answer = get(client, query=query)
    assert answer.status_code == status and why in answer.text


def test_a_query_that_is_no_utf8_is_refused(client: FlaskClient) -> None:
    answer = client.get("/chsk", environ_overrides={"QUERY_STRING": "client-id=\xff"})
    assert (answer.status_code, answer.text) == (400, "the query is not UTF-8: percent-encode it\n")


def test_a_strange_origin_is_refused_and_a_listed_one_may_read_why(client: FlaskClient) -> None:
    answer = get(client, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers
    answer = get(client, query={"client-id": ""}, headers={"Origin": OTHER})
    assert answer.headers["Access-Control-Allow-Origin"] == OTHER
    assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"


def test_a_refused_post_ends_its_connection(client: FlaskClient) -> None:
    get(client)
    answer = post(client, data=QUERY)
    assert (answer.status_code, answer.headers["Connection"]) == (400, "close")
    assert answer.text == "no message: POST it as ppstr=, form-urlencoded\n"
    assert "Connection" not in get(client, query={"client-id": ""}).headers


def test_a_message_that_cannot_be_read_is_refused_to_ours(client: FlaskClient) -> None:
    secret = {SECRET_HEADER: "s" * 22}
    ours = {**QUERY, "v": "1"}
    get(client, query=ours, headers=secret)
    answer = post(client, data={**ours, "ppstr": "[[[["}, headers=secret)
    assert answer.status_code == 400
    assert answer.text.startswith("the message cannot be read: POST one [event callback]")


def test_a_websocket_of_another_version_is_told_ours(client: FlaskClient) -> None:
    answer = client.get("/chsk", headers={**UPGRADE, "Sec-WebSocket-Version": "8"})
    assert (answer.status_code, answer.headers["Sec-WebSocket-Version"]) == (426, "13")


def test_a_head_that_is_kept_is_bounded(client: FlaskClient) -> None:
    get(client)
    answer = post(client, headers={"X-Long": "x" * module.MOST_KEPT})
    assert answer.status_code == 400 and "fewer cookies" in answer.text


def test_a_server_of_one_request_at_a_time_parks_no_poll(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.upgrade, "serves_one_at_a_time", lambda environ: True)
    answer = get(client)
    assert answer.status_code == 501 and "gunicorn -k gevent" in answer.text


def test_workers_that_share_no_broker_serve_nobody(client: FlaskClient) -> None:
    answer = get(client, environ={"wsgi.multiprocess": True})
    assert answer.status_code == 503 and "CHSK_BROKER_URL=redis://" in answer.text


def test_many_who_are_refused_at_once_do_not_come_back_at_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(refused: Refused, method: str = "GET") -> str | None:
        with client.application.test_request_context("/chsk", method=method):
            view = client.application.view_functions["chsk.poll"]
            return view.__self__._refuse(refused).headers.get("Retry-After")  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "randrange", lambda most: most - 1)
    assert refuse(Refused(503, "later", 2)) == str(2 + module.SPREAD - 1)
    assert refuse(Refused(503, "later", 2), "POST") == "2"
    assert refuse(Refused(429, "later", 2)) == "2"
    assert refuse(Refused(503, "later")) is None


def test_a_refusal_is_counted_and_logged_once_for_its_kind(
    app: Flask, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "flask_chsk")
    for _ in range(3):
        get(client, query={"packer": "yaml"})
    [record] = caplog.records
    assert record.getMessage().startswith("GET /chsk refused with 400: unknown packer")
    assert app.extensions["chsk"].stats()["refused_400"] == 3


# The application's own refusals ------------------------------------------------------------


@pytest.fixture
def chsk(make: Callable[..., Chsk]) -> Chsk:
    return make()


def test_what_a_hook_aborts_with_is_said_in_one_line(app: Flask, chsk: Chsk) -> None:
    chsk.user_id(lambda: abort(410, "gone for good"))
    answer = get(app.test_client())
    assert (answer.status_code, answer.text) == (410, "gone for good\n")


def test_a_response_of_a_hook_is_the_answer(app: Flask, chsk: Chsk) -> None:
    chsk.user_id(lambda: abort(make_response("<b>no</b>", 418, {"X-Own": "1"})))
    answer = get(app.test_client())
    assert (answer.status_code, answer.text, answer.headers["X-Own"]) == (418, "<b>no</b>", "1")


def test_nobody_is_let_in_whom_the_application_does_not_authorize(app: Flask, chsk: Chsk) -> None:
    chsk.authorize(lambda: False)
    answer = get(app.test_client())
    assert (answer.status_code, answer.text) == (401, "not authorized: sign in first\n")


@pytest.mark.parametrize(
    ("returned", "status", "text"),
    [
        ("banned", 403, "banned\n"),
        (True, 403, "rejected\n"),
        (Response("own", 451), 451, "own"),
        (None, 200, None),
    ],
)
def test_a_check_of_the_application_refuses(
    app: Flask, make: Callable[..., Chsk], returned: Any, status: int, text: str | None
) -> None:
    make().reject(lambda: returned)
    answer = get(app.test_client())
    assert answer.status_code == status
    assert text is None or answer.text == text


def test_a_hook_that_ends_is_an_error_and_ends_no_server(app: Flask, chsk: Chsk) -> None:
    @chsk.user_id
    def leave() -> str:
        raise SystemExit(3)

    app.testing = True
    with pytest.raises(RuntimeError, match=r"a hook of the channel socket raised SystemExit\(3\)"):
        get(app.test_client())


@pytest.mark.parametrize("error", [gevent.GreenletExit(), gevent.Timeout(1), ValueError("x")])
def test_an_error_of_a_hook_or_its_server_is_raised_as_it_is(
    app: Flask, chsk: Chsk, error: BaseException
) -> None:
    @chsk.user_id
    def fail() -> str:
        raise error

    app.testing = True
    with pytest.raises(type(error)):
        get(app.test_client())


# CSRF --------------------------------------------------------------------------------------


@pytest.fixture
def strict(app: Flask, make: Callable[..., Chsk]) -> FlaskClient:
    """A browser whose session has a token."""
    make(csrf=True)
    app.add_url_rule("/token", "token", lambda: app.extensions["chsk"].hooks.page_csrf_token())
    return app.test_client()


def ask(browser: FlaskClient, **how: Any) -> int:
    """The status of a POST of one of ours, as browsers send it."""
    headers = {SECRET_HEADER: "s" * 22, **how.pop("headers", {})}
    data = {**QUERY, "v": "1", **how.pop("data", {})}
    return browser.post("/chsk", data=data, headers=headers, **how).status_code


def test_a_post_needs_the_token_of_the_session(strict: FlaskClient) -> None:
    assert ask(strict) == 403  # no session
    token = strict.get("/token").text
    assert ask(strict) == 403
    assert ask(strict, headers={"X-CSRF-Token": "another"}) == 403
    with_token: list[dict[str, Any]] = [
        {"headers": {"X-CSRF-Token": token}},
        {"headers": {"X-XSRF-Token": token}},
        {"data": {"csrf-token": token}},
    ]
    # 400: no message, which is looked at last.
    assert [ask(strict, **how) for how in with_token] == [400, 400, 400]


def test_a_bearer_token_needs_none_unless_a_cookie_comes_too(strict: FlaskClient) -> None:
    bearer = {"Authorization": "Bearer x"}
    assert ask(strict, headers=bearer) == 400
    strict.set_cookie("any", "1")
    assert ask(strict, headers=bearer) == 403


# The body of a POST ------------------------------------------------------------------------


def posted(app: Flask, **how: Any) -> Any:
    """The message that an endpoint reads out of a POST, and the other fields of its form."""
    endpoint = app.view_functions["chsk.post"].__self__  # type: ignore[attr-defined]
    with app.test_request_context("/chsk" + how.pop("query", ""), method="POST", **how):
        return endpoint._posted()


def body_of(app: Flask, **how: Any) -> Any:
    """The message alone."""
    return posted(app, **how)[0]


def test_a_message_is_taken_from_a_form_or_is_the_body(app: Flask, chsk: Chsk) -> None:
    assert body_of(app, data={"ppstr": "[é]"}) == "[é]"
    assert body_of(app, data={"other": "1"}) is None
    assert body_of(app) is None
    assert body_of(app, data=b"\x00ppstr=", query="?binary%3F=true") == b"\x00ppstr="
    assert body_of(app, query="?ppstr=1") == "1"


def test_the_other_fields_of_a_form_come_with_its_message(app: Flask, chsk: Chsk) -> None:
    assert posted(app, data={"ppstr": "[1]", "v": "1", "client-id": "é"}) == (
        "[1]",
        {"v": "1", "client-id": "é"},
    )
    assert posted(app, data=b"[1]", query="?binary%3F=1") == (b"[1]", None)  # those of the query


def test_a_multipart_form_is_read_too(app: Flask, chsk: Chsk) -> None:
    parts = {"data": {"ppstr": "[1]"}, "content_type": "multipart/form-data"}
    assert body_of(app, **parts) == "[1]"


def refused(app: Flask, **how: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as raised:
        body_of(app, **how)
    return raised.value.status, str(raised.value)


def test_a_message_is_of_bounded_size(app: Flask, make: Callable[..., Chsk]) -> None:
    make(max_message_bytes=1024)
    assert body_of(app, data={"ppstr": "x" * 1024}) == "x" * 1024
    too_large = (413, "a message of at most 1024 bytes (CHSK_MAX_MESSAGE_BYTES)")
    for how in (
        {"data": {"ppstr": "x" * 1025}},
        {"data": b"x" * 1025, "query": "?binary%3F=1"},
        {"data": b"x" * 1_000_000},
    ):
        assert refused(app, **how) == too_large


def test_a_body_is_not_compressed(app: Flask, chsk: Chsk) -> None:
    assert refused(app, headers={"Content-Encoding": "gzip"})[0] == 400
    assert body_of(app, data={"ppstr": "1"}, headers={"Content-Encoding": "Identity"}) == "1"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError("the peer left"), 400),
        (ValueError("bad chunk"), 400),
        (RequestEntityTooLarge(), 413),
        (Refused(400, "late"), 400),
    ],
)
def test_a_body_that_breaks_off_is_the_clients_fault(
    app: Flask, chsk: Chsk, error: Exception, status: int
) -> None:
    class Stream(io.BytesIO):
        def readinto(self, *args: Any) -> int:
            raise error

    how = {"input_stream": Stream(b"0123456789"), "content_type": "text/plain"}
    assert refused(app, **how)[0] == status


def test_a_body_that_does_not_arrive_is_given_up(
    app: Flask, chsk: Chsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.01)

    class Slow(io.BytesIO):
        def readinto(self, *args: Any) -> int:
            gevent.sleep(60)
            return 0

    how = {"input_stream": Slow(b"0123456789")}
    status, why = gevent.spawn(refused, app, **how).get(timeout=60)
    assert (status, why) == (400, "the body did not arrive within 0.01 seconds")


def test_a_large_body_counts_while_it_arrives(app: Flask, chsk: Chsk) -> None:
    budget = app.extensions["chsk"].worker().budget
    counted: list[int] = []
    arriving = budget.arriving

    def note(body: Body, size: int) -> None:
        counted.append(size)
        arriving(body, size)

    budget.arriving = note
    assert body_of(app, data={"ppstr": "x" * 10}) == "x" * 10
    assert counted == []  # it came in one piece
    size = 2 * module.PIECE + 10
    data = b"ppstr=" + b"x" * (size - 6)
    how = {"data": data, "content_type": "application/x-www-form-urlencoded"}
    assert len(body_of(app, **how)) == size - 6
    assert counted == [module.PIECE, 2 * module.PIECE, size, 0]


def test_a_body_that_is_given_up_lets_its_bytes_go() -> None:
    told: list[int] = []
    worker: Any = SimpleNamespace(
        hub=SimpleNamespace(run=lambda fn, *args: fn(*args)),
        budget=SimpleNamespace(arriving=lambda body, size: told.append(size)),
    )
    body = Body(worker, b"one")
    body.give_up()
    with pytest.raises(Refused, match="too much is arriving") as raised:
        body.add(b"two")
    body.done()
    assert (raised.value.status, raised.value.retry_after) == (503, 1)
    assert (body.data, told) == (b"", [3])
