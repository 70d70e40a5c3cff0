"""HTTP of the client: what is sent, which connections are used again, and how a request ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from typing import Any

import pytest
from urllib3.connection import HTTPSConnection

from flask_chsk.client import http_client as module
from flask_chsk.client.http_client import (
    Abort,
    Answer,
    HttpClient,
    NoAnswer,
    cookie_jar,
    form,
    with_query,
)
from flask_chsk.errors import ConfigError
from tests.process import eventually
from tests.unit.client.fakes import FarEnd

URL = "http://example.org/chsk"

Serve = Callable[..., FarEnd]


def said(body: str = "ok", status: int = 200, version: str = "1.1", **headers: str) -> bytes:
    """An HTTP answer as it goes over the wire."""
    fields = {"Content-Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"HTTP/{version} {status} OK\r\n{''.join(lines)}\r\n{body}".encode()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    made: list[FarEnd] = []

    def serving(*answers: bytes | None) -> FarEnd:
        far_end = FarEnd(*answers)
        monkeypatch.setattr(module, "HTTPConnection", far_end.Connection)
        made.append(far_end)
        return far_end

    yield serving
    for far_end in made:
        far_end.close()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def http() -> Iterator[HttpClient]:
    client = HttpClient()
    yield client
    client.close()


# Requests and answers ----------------------------------------------------------------------


def test_a_request_has_the_query_of_its_url_and_its_headers(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said())
    http.request("POST", f"{URL}?a=1", headers={"X-One": "1"}, body=b"body")
    head, _, body = far_end.heard().partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    assert (first, body) == ("POST /chsk?a=1 HTTP/1.1", b"body")
    assert {"Host: example.org", "X-One: 1", "Content-Length: 4"} <= set(fields)
    assert far_end.connected == [("example.org", 80)]


def test_a_url_without_a_path_asks_for_the_root(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said())
    http.request("GET", "http://example.org:8000")
    assert far_end.heard().startswith(b"GET / HTTP/1.1\r\nHost: example.org:8000\r\n")


def test_an_answer_has_its_headers_in_lower_case(http: HttpClient, serve: Serve) -> None:
    serve(said("hi", 404, Content_Type="text/plain", X_Odd="1"))
    answer = http.request("GET", URL)
    assert (answer.status, answer.body, answer.content_type) == (404, b"hi", "text/plain")
    assert answer.headers == {"content-length": "2", "content-type": "text/plain", "x-odd": "1"}


def test_a_redirect_is_an_answer(http: HttpClient, serve: Serve) -> None:
    serve(said("", 302, Location="/login"))
    assert http.request("GET", URL).headers["location"] == "/login"


@pytest.mark.parametrize(("status", "begun"), [(200, [200]), (503, [])])
def test_the_head_of_a_good_answer_is_told(
    http: HttpClient, serve: Serve, status: int, begun: list[int]
) -> None:
    serve(said(status=status))
    told: list[int] = []
    http.request("GET", URL, begun=lambda: told.append(status))
    assert told == begun


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "3600"}, module.RETRY_AFTER),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "7.5"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
    ],
)
def test_a_server_asks_for_a_bounded_number_of_whole_seconds(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert Answer(503, headers).retry_after == seconds


@pytest.mark.parametrize(
    ("content_type", "body", "line"),
    [
        ("text/plain; charset=utf-8", b" too many\nmore", "too many"),
        ("text/plain", b"\xff", "\ufffd"),
        ("text/plain", b"x" * 1000, "x" * 300),
        ("text/html", b"<html>", ""),
    ],
)
def test_the_first_line_of_plain_text_is_shown(content_type: str, body: bytes, line: str) -> None:
    assert Answer(400, {"content-type": content_type}, body).line == line


# Connections that are used again -----------------------------------------------------------


def test_a_spare_connection_is_used_again(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said("1"), said("2"))
    assert [http.request("GET", URL).body for _ in range(2)] == [b"1", b"2"]
    assert len(far_end.connected) == 1


@pytest.mark.parametrize(
    "answer", [said(Connection="close"), said(Connection="Close, x"), said(version="1.0")]
)
def test_a_connection_that_its_server_ends_is_not_kept(
    http: HttpClient, serve: Serve, answer: bytes
) -> None:
    far_end = serve(answer, said())
    for _ in range(2):
        http.request("GET", URL)
    assert len(far_end.connected) == 2


def test_a_connection_that_ended_meanwhile_is_not_used(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said(), said())
    http.request("GET", URL)
    far_end.socks[0].close()
    http.request("GET", URL)
    assert len(far_end.connected) == 2


def test_an_old_connection_is_not_used(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REUSED", -1.0)
    far_end = serve(said(), said())
    for _ in range(2):
        http.request("GET", URL)
    assert len(far_end.connected) == 2


def test_a_connection_serves_one_place(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said(), said(), said())
    for url in (URL, "http://example.com/chsk", URL):
        http.request("GET", url)
    assert far_end.connected == [("example.org", 80), ("example.com", 80)]


def test_few_connections_are_kept(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPARE", 1)
    far_end = serve(said(), said())
    for host in ("a", "b"):
        http.request("GET", f"http://{host}/")
    assert [far_end.socks[0].recv(1_000) != b"", far_end.heard(1)[:3]] == [True, b"GET"]
    assert far_end.socks[1].recv(1) == b""  # the second was closed, the first is kept
    http.close()
    assert far_end.socks[0].recv(1) == b""


def test_a_closed_client_keeps_none(http: HttpClient, serve: Serve) -> None:
    far_end = serve(said())
    http.close()
    assert http.request("GET", URL).body == b"ok"
    assert far_end.heard() and far_end.socks[0].recv(1) == b""


# Ends --------------------------------------------------------------------------------------


def ends(http: HttpClient, **how: Any) -> NoAnswer:
    with pytest.raises(NoAnswer) as ended:
        http.request("GET", URL, **how)
    return ended.value


def test_silence_ends_a_request(http: HttpClient, serve: Serve) -> None:
    far_end = serve(None)
    assert ends(http, timeout=0.01).kind == "timeout"
    assert far_end.heard() and far_end.socks[0].recv(1) == b""


def test_nobody_at_the_address_is_no_timeout(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(connection: Any) -> None:
        raise module.NewConnectionError(connection, "refused")

    monkeypatch.setattr(serve().Connection, "connect", connect)
    assert ends(http).kind == "exception"


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 twice OK\r\n\r\n"])
def test_what_is_no_http_ends_a_request(http: HttpClient, serve: Serve, answer: bytes) -> None:
    far_end = serve(answer)
    assert ends(http).kind == "exception"
    assert far_end.heard() and far_end.socks[0].recv(1) == b""


def test_an_answer_is_bounded(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 10)
    serve(said("x" * 10), said("x" * 11))
    assert http.request("GET", URL).body == b"x" * 10
    assert str(ends(http)) == "an answer of over 10 bytes"


def test_a_request_is_aborted_before_it_begins(http: HttpClient, serve: Serve) -> None:
    far_end = serve()
    abort = Abort()
    abort.abort()
    assert ends(http, abort=abort).kind == "abort"
    assert far_end.connected == []


def test_a_request_is_aborted_while_it_connects(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    far_end, abort = serve(), Abort()
    connect = far_end.Connection.connect

    def connect_late(connection: Any) -> None:
        abort.abort()  # there is no socket yet that it could shut down
        connect(connection)

    monkeypatch.setattr(far_end.Connection, "connect", connect_late)
    assert ends(http, abort=abort).kind == "abort"
    assert far_end.socks[0].recv(1) == b""  # nothing was sent


def test_a_request_is_aborted_while_it_waits(http: HttpClient, serve: Serve) -> None:
    far_end, abort = serve(None), Abort()
    ended: list[str] = []
    waiting = threading.Thread(target=lambda: ended.append(ends(http, abort=abort).kind))
    waiting.start()
    eventually(lambda: far_end.socks)
    assert far_end.socks[0].recv(3) == b"GET"
    abort.abort()
    waiting.join(60)
    assert ended == ["abort"]


def test_what_is_no_failure_of_the_network_is_raised_as_it_is(
    http: HttpClient, serve: Serve
) -> None:
    far_end = serve(said())

    def begun() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        http.request("GET", URL, begun=begun)
    assert far_end.heard() and far_end.socks[0].recv(1) == b""


def test_in_a_child_process_the_connections_are_the_parents(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    silenced: list[int] = []
    monkeypatch.setattr(module.forks, "silence", silenced.append)
    serve(said())
    http.forked()
    http.request("GET", URL)
    [(_, _, connection)] = http._spare
    http.forked()
    assert silenced == [connection.sock.fileno()]


# Which server ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://example.org/", ("example.org", 80, False)),
        ("https://example.org/", ("example.org", 443, True)),
        ("ws://example.org:8000/", ("example.org", 8000, False)),
        ("wss://[::1]/", ("::1", 443, True)),
    ],
)
def test_a_scheme_has_its_port_and_may_be_secure(
    http: HttpClient, url: str, place: tuple[str, int, bool]
) -> None:
    made = http.connection(url)
    assert (made.host, made.port, isinstance(made, HTTPSConnection)) == place
    assert made.timeout == http.connect_timeout


def test_certificates_are_verified_unless_the_application_says_otherwise(http: HttpClient) -> None:
    made = http.connection("https://example.org/")
    assert isinstance(made, HTTPSConnection) and made.ssl_context is not None
    assert made.ssl_context.check_hostname and made.ssl_context.verify_mode.name == "CERT_REQUIRED"
    again = http.connection("https://example.org/")
    assert isinstance(again, HTTPSConnection) and again.ssl_context is made.ssl_context


@pytest.mark.parametrize("url", ["/chsk", "example.org/chsk", "ftp://example.org/", "http://"])
def test_what_is_no_url_of_a_server_is_refused(http: HttpClient, url: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a URL such as https://example\.org/chsk"):
        http.connection(url)


# Proxies -----------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_the_whole_url(
    http: HttpClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:s%2Fcret@proxy:3128")
    far_end = serve(said())
    http.request("GET", f"{URL}?a=1")
    first, *fields = far_end.heard().decode().split("\r\n")
    assert (far_end.connected, first) == (
        [("proxy", 3128)],
        "GET http://example.org/chsk?a=1 HTTP/1.1",
    )
    assert {"Host: example.org", "Proxy-Authorization: Basic bWU6cy9jcmV0"} <= set(fields)


@pytest.mark.parametrize(
    ("scheme", "variable", "port"),
    [("https", "https_proxy", 443), ("wss", "https_proxy", 443), ("ws", "http_proxy", 80)],
)
def test_a_tunnel_through_the_proxy_carries_what_it_must_not_change(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str, port: int
) -> None:
    monkeypatch.setenv(variable, "proxy:3128")
    made = http.connection(f"{scheme}://example.org/chsk")
    assert (made.host, made.port) == ("proxy", 3128)
    assert (made._tunnel_host, made._tunnel_port) == ("example.org", port)  # type: ignore[attr-defined]


def test_an_exception_to_the_proxy_is_reached_directly(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://proxy")
    monkeypatch.setenv("no_proxy", "example.org:8000,localhost")
    hosts = ["example.org:8000", "example.org", "localhost"]
    assert [http.connection(f"http://{host}/").host for host in hosts] == [
        "example.org",
        "proxy",
        "localhost",
    ]


@pytest.mark.parametrize("proxy", ["socks5://proxy:1080", "https://proxy", "http://"])
def test_a_proxy_of_another_kind_is_refused(
    http: HttpClient, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(ConfigError, match="a proxy of the environment is"):
        http.connection(URL)


# Cookies, queries, forms -------------------------------------------------------------------


def test_a_cookie_of_an_answer_goes_along_from_then_on(serve: Serve) -> None:
    far_end = serve(said(Set_Cookie="b=2; Path=/"), said())
    http = HttpClient(cookies=cookie_jar({"a": "1"}, URL))
    heard = []
    for _ in range(2):
        http.request("GET", URL)
        heard.append(far_end.heard())
    assert [b"Cookie: a=1\r\n" in heard[0], b"Cookie: a=1; b=2\r\n" in heard[1]] == [True, True]
    assert http.cookie_header("ws://example.org/other") == {"Cookie": "a=1; b=2"}
    assert http.cookie_header("http://example.com/chsk") == {}
    http.close()


@pytest.mark.parametrize("host", ["localhost", "example.org", "127.0.0.1", "[::1]"])
def test_cookies_are_for_the_host_of_the_url(host: str) -> None:
    url = f"http://{host}:8000/chsk"
    http = HttpClient(cookies=cookie_jar({"a": "1"}, url))
    assert http.cookie_header(url) == {"Cookie": "a=1"}
    assert http.cookie_header("http://elsewhere.org/chsk") == {}


def test_a_jar_is_shared_with_the_application() -> None:
    jar = CookieJar()
    assert cookie_jar(jar, URL) is jar
    assert list(cookie_jar(None, URL)) == []


def test_parameters_follow_the_query_of_the_url() -> None:
    params = {"a b": "c&d", "none": None, "yes": True, "no": False, "n": 1}
    assert with_query(URL, params) == f"{URL}?a%20b=c%26d&yes=true&no=false&n=1"
    assert with_query(f"{URL}?x=1", {"y": 2}) == f"{URL}?x=1&y=2"
    assert with_query(URL, {"none": None}) == URL
    assert form(params) == b"a+b=c%26d&yes=true&no=false&n=1"
