"""Every refusal: its status, and one line that says what to do. Never a 500, never a traceback."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.e2e.wire.conftest import APP, Wire
from tests.process import WAIT
from tests.servers import WsgiServer

TOKEN = "test-csrf-token"  # of the application
SIGNED = {"X-CSRF-Token": TOKEN}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
CONFIG = {
    "csrf": True,
    "max_message_bytes": 2048,
    "max_clients_per_uid": 2,
    "allowed_origins": ["https://app.example.org"],
    "rate": [5, 5],
}


def ask(
    wire: Any, method: str, params: dict[str, str], headers: dict[str, str], body: str | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", wire.port, timeout=WAIT)
    with contextlib.closing(connection):
        connection.request(method, f"/chsk?{urlencode(params)}", body, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers


C = {"client-id": "c1"}
REFUSED: list[tuple[str, dict[str, str], dict[str, str], int, str]] = [
    ("no client id", {}, SIGNED, 400, "no client-id: add one to the query"),
    ("a bad client id", {"client-id": "a b"}, SIGNED, 400, "bad client-id: [A-Za-z0-9_-]"),
    ("a long client id", {"client-id": "a" * 65}, SIGNED, 400, "at most 64 long"),
    ("an unknown packer", {**C, "packer": "yaml"}, SIGNED, 400, "speaks edn, json (CHSK_PACKERS)"),
    ("no token", C, {}, 403, "CSRF token missing: send it as X-CSRF-Token"),
    ("another token", C, {"X-CSRF-Token": "x"}, 403, "CSRF token is not this session's"),
    (
        "another origin",
        C,
        {**SIGNED, "Origin": "https://evil.example"},
        403,
        "Origin https://evil.example is not http://127.0.0.1:PORT: add it to CHSK_ALLOWED_ORIGINS",
    ),
    ("no origin at all", C, {**SIGNED, "Origin": "null"}, 403, "Origin null is not"),
    ("a page of another site", C, {**SIGNED, "Sec-Fetch-Site": "cross-site"}, 403, "another site"),
    ("authorize", {**C, "deny": "1"}, SIGNED, 401, "not authorized: sign in first"),
    ("reject", {**C, "reject": "closed today"}, SIGNED, 403, "closed today"),
    ("reject comes first", {"reject": "closed today"}, {}, 403, "closed today"),
    ("then the client id", {"packer": "yaml"}, {}, 400, "no client-id"),
    ("then the packer", {**C, "packer": "yaml"}, {"Origin": "x:y"}, 400, "unknown packer"),
    ("then the origin", C, {"Origin": "https://evil.example"}, 403, "Origin"),
    ("then the token", {**C, "deny": "1"}, {}, 403, "CSRF"),
]


@pytest.mark.parametrize("method", ["GET", "POST", "UPGRADE"])
@pytest.mark.parametrize(
    ("params", "headers", "status", "line"),
    [pytest.param(*more, id=what) for what, *more in REFUSED],
)
def test_it_is_refused_with_one_line(
    wire: Wire, method: str, params: dict[str, str], headers: dict[str, str], status: int, line: str
) -> None:
    body = None
    if method == "POST":
        body = urlencode({"ppstr": "[[:test/echo 1] :ajax]"})
        headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    elif method == "UPGRADE":
        headers = {**headers, **UPGRADE}
    got, text, sent = ask(wire, "POST" if method == "POST" else "GET", params, headers, body)
    assert (got, text.count("\n")) == (status, 1), text
    assert line.replace("PORT", str(wire.port)) in text
    assert sent["Content-Type"] == "text/plain; charset=utf-8"
    assert sent["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**UPGRADE, "Sec-WebSocket-Version": "8"}, 426),
        ({**UPGRADE, "Sec-WebSocket-Key": "short"}, 400),
        ({k: v for k, v in UPGRADE.items() if k != "Sec-WebSocket-Key"}, 400),
    ],
)
def test_a_malformed_upgrade_is_refused(wire: Wire, headers: dict[str, str], status: int) -> None:
    got, text, sent = ask(wire, "GET", C, {**SIGNED, **headers})
    assert (got, text.count("\n")) == (status, 1), text
    if status == 426:
        assert sent["Sec-WebSocket-Version"] == "13"


def post(
    wire: Wire, form: dict[str, str], **params: str
) -> tuple[int, str, http.client.HTTPMessage]:
    headers = {**SIGNED, "Content-Type": "application/x-www-form-urlencoded"}
    return ask(wire, "POST", {**C, **params}, headers, urlencode(form))


@pytest.mark.parametrize("size", [2049, 10_000, 40_000, 400_000])
def test_a_message_over_the_limit_is_refused(wire: Wire, size: int) -> None:
    got, text, _ = post(wire, {"ppstr": "x" * size}, uid="large")
    assert (got, text) == (413, "a message of at most 2048 bytes (CHSK_MAX_MESSAGE_BYTES)\n")


def test_a_post_without_a_message_is_told_how_to_send_one(wire: Wire) -> None:
    assert post(wire, {"x": "y"}, uid="empty")[:2] == (
        400,
        "no message: POST it as ppstr=, form-urlencoded\n",
    )


@pytest.mark.parametrize(
    "text", ["", "[", "[[:test/echo", "\x00", "#=(+ 1 2)", "[" * 500, "\ud800", "[[:a/b 1", "💥"]
)
def test_what_cannot_be_read_is_an_event_and_no_error(wire: Wire, text: str) -> None:
    form = {"ppstr": text.encode("utf-8", "surrogatepass")}
    headers = {**SIGNED, "Content-Type": "application/x-www-form-urlencoded"}
    got, answer, _ = ask(
        wire, "POST", {"client-id": f"bad{hash(text) % 1000}"}, headers, urlencode(form)
    )
    assert (got, answer) == (200, "[:chsk/dummy-cb-200 nil]")


@pytest.mark.parametrize(
    "params",
    [
        {"n": "9" * 300},
        {"n": "-1"},
        {"n": "x"},
        {"cursor": "x" * 100},
        {"cursor": "1:2:3"},
        {"v": "2"},
        {"udt": "x"},
        {"handshake?": ""},
        {"csrf-token": "ü"},
    ],
)
def test_odd_parameters_are_no_errors(wire: Wire, params: dict[str, str]) -> None:
    client_id = secrets.token_hex(8)
    headers = {**SIGNED, SECRET_HEADER: "s" * 22}
    got, text, _ = ask(wire, "GET", {"v": "1", "client-id": client_id, **params}, headers)
    assert (got, "chsk/handshake" in text) == (200, True), text


def test_too_many_clients_of_one_user_are_refused_for_now(wire: Wire) -> None:
    for number in (1, 2):
        params = {"client-id": f"crowd{number}", "uid": "crowd"}
        assert ask(wire, "GET", params, SIGNED)[0] == 200
    got, text, sent = ask(wire, "GET", {"client-id": "crowd3", "uid": "crowd"}, SIGNED)
    assert (got, text) == (429, "this user has 2 clients already (CHSK_MAX_CLIENTS_PER_UID)\n")
    assert int(sent["Retry-After"]) > 0
    params = {"client-id": "crowd1", "uid": "crowd", "handshake?": "1"}
    assert ask(wire, "GET", params, SIGNED)[0] == 200  # who is in may come again


def test_a_crowd_is_let_in_little_by_little(serve: Callable[..., Wire]) -> None:
    wire = serve(max_openings=5)
    params = {"handshake?": "1", "slowly": "4"}  # longer than all take to come

    def come(number: int) -> tuple[int, str, http.client.HTTPMessage]:
        upgrade = UPGRADE if number % 2 else {}
        return ask(wire, "GET", {"client-id": f"c{number}", **params}, {**SIGNED, **upgrade})

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(come, range(40)))
    refused = [(text, int(sent["Retry-After"])) for status, text, sent in answers if status == 503]
    assert sorted({status for status, _, _ in answers}) in ([101, 200, 503], [101, 503], [200, 503])
    assert {text for text, _ in refused} == {
        "too many clients connect at once (CHSK_MAX_OPENINGS)\n"
    }
    assert len(refused) >= 20
    waits = {seconds for _, seconds in refused}
    assert waits <= {1, 2, 3, 4, 5} and len(waits) > 1
    for number in range(10):  # there is room again
        assert ask(wire, "GET", {"client-id": f"d{number}", "handshake?": "1"}, SIGNED)[0] == 200


def test_posts_over_the_rate_are_refused_for_now(wire: Wire) -> None:
    assert ask(wire, "GET", {**C, "uid": "fast"}, SIGNED)[0] == 200
    batch = f"[[:chsk/batch [{'[:test/echo 1]' * 5}]] nil]"  # as many as there may be in a second
    answers = [post(wire, {"ppstr": batch}, uid="fast") for _ in range(10)]
    refused = [(text, sent) for status, text, sent in answers if status == 429]
    assert {status for status, _, _ in answers} == {200, 429}
    assert {text for text, _ in refused} == {"more events per second than CHSK_RATE\n"}
    assert all(int(sent["Retry-After"]) > 0 for _, sent in refused)


def test_a_hook_may_abort(wire: Wire) -> None:
    for headers in (SIGNED, {**SIGNED, **UPGRADE}):
        assert ask(wire, "GET", {**C, "forbid": "1"}, headers)[0] == 403


# Other origins --------------------------------------------------------------------------

LISTED = {"Origin": "https://app.example.org"}


def test_a_listed_origin_is_answered_with_its_cors_headers(wire: Wire) -> None:
    got, _, sent = ask(wire, "GET", {"client-id": "cors"}, {**SIGNED, **LISTED})
    assert got == 200
    assert sent["Access-Control-Allow-Origin"] == LISTED["Origin"]
    assert sent["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in sent["Vary"]


def test_a_listed_origins_preflight_is_answered(wire: Wire) -> None:
    got, text, sent = ask(wire, "OPTIONS", {}, LISTED)
    assert (got, text) == (204, "")
    assert sent["Access-Control-Allow-Origin"] == LISTED["Origin"]
    for header in ("X-CSRF-Token", SECRET_HEADER, RESUME_HEADER):
        assert header in sent["Access-Control-Allow-Headers"]
    assert ask(wire, "OPTIONS", {}, {"Origin": "https://evil.example"})[0] == 403


def test_any_origin_is_answered_without_credentials(serve: Callable[..., Wire]) -> None:
    wire = serve(allowed_origins="*")
    got, _, sent = ask(wire, "GET", C, {"Origin": "https://any.example"})
    assert got == 200
    assert sent["Access-Control-Allow-Origin"] == "*"
    assert sent["Access-Control-Allow-Credentials"] is None


# Several workers ------------------------------------------------------------------------


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[WsgiServer]:
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "2", "-b", "127.0.0.1:0"]
    server = WsgiServer([*command, APP], tmp_path / "log", {})
    yield server
    server.stop()
    assert server.tracebacks == 0, server.log


def test_two_workers_without_a_broker_refuse_and_say_the_remedy(two_workers: WsgiServer) -> None:
    for headers in ({}, UPGRADE):
        got, text, _ = ask(two_workers, "GET", C, headers)
        assert (got, text.count("\n")) == (503, 1)
        assert "CHSK_BROKER_URL=redis://" in text and "CHSK_ALLOW_UNSHARED" in text
