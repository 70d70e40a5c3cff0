"""Where a client goes, what goes along, and what answers instead of a channel socket."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from flask_chsk.client.endpoint import Endpoint, refusal
from flask_chsk.client.handshake import ServerInfo
from flask_chsk.client.http_client import Answer, HttpClient
from flask_chsk.client.link import Link, LinkClosed
from flask_chsk.client.options import Credentials
from flask_chsk.client.policy import Options
from flask_chsk.client.session import ClientSession
from flask_chsk.client.waiting import ThreadGroup
from flask_chsk.errors import ConfigError
from flask_chsk.packers import make
from flask_chsk.protocol.wire import WIRES, Composer
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER


def endpoint(url: str = "https://example.org/chsk", **given: Any) -> tuple[Endpoint, ClientSession]:
    session = ClientSession(
        Composer(make(given.pop("packer", "edn")), WIRES["1.21"]),
        Options(),
        random=lambda: 0.5,
        new_id=lambda: "id0",
    )
    credentials = Credentials(ThreadGroup(), given.pop("csrf_token", None), given.pop("auth", None))
    options = {"chsk_url": None, "ajax_opts": None, "params": None, "headers": None, **given}
    return Endpoint(
        url, session, credentials, HttpClient(), threading.RLock(), 25.0, **options
    ), session


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("https://example.org/chsk", ("wss://example.org/chsk", "https://example.org/chsk")),
        (
            "ws://example.org:8000/a?b=1",
            ("ws://example.org:8000/a?b=1", "http://example.org:8000/a?b=1"),
        ),
    ],
)
def test_a_url_is_of_one_scheme_for_each_transport(given: str, urls: tuple[str, str]) -> None:
    made, _ = endpoint(given)
    assert (made.url(True), made.url(False)) == urls


@pytest.mark.parametrize("returned", [None, "", 7])
def test_a_url_function_has_to_return_a_url(returned: Any) -> None:
    made, _ = endpoint(chsk_url=lambda *args: returned)
    with pytest.raises(ConfigError, match="chsk_url must return a URL"):
        made.url(True)


@pytest.mark.parametrize("given", ["/chsk", "example.org/chsk", "ftp://example.org/"])
def test_a_program_has_no_page_to_be_relative_to(given: str) -> None:
    with pytest.raises(ConfigError, match="give the whole URL"):
        endpoint(given)


def test_polls_are_numbered_and_tell_the_cursor_of_now() -> None:
    made, session = endpoint(params={"tab": 2}, ajax_opts={"params": {"ajax": 1}})
    link = session.trial = Link("ajax", None)
    first = made.link_params(link)
    session._cursor.advance("e1", 7)
    link.confirmations_left = 0
    second = made.link_params(link)
    del first["udt"], second["udt"]
    common = {"tab": 2, "ajax": 1, "client-id": "id0", "packer": "edn", "v": 1}
    assert first == {**common, "cursor": None, "n": 1, "handshake?": 1}
    assert second == {**common, "cursor": "e1:7", "n": 2}


def test_a_websocket_has_no_parameters_of_ajax_and_the_cursor_of_its_beginning() -> None:
    made, session = endpoint(ajax_opts={"params": {"ajax": 1}, "headers": {"X-Ajax": "1"}})
    session._cursor.advance("e1", 9)
    params = made.link_params(Link("ws", "e1:7"))
    assert params["cursor"] == "e1:7" and "ajax" not in params and "handshake?" not in params
    assert "X-Ajax" not in made.headers(True)
    assert made.headers(False)["X-Ajax"] == "1"


def test_what_proves_who_it_is_travels_in_headers() -> None:
    made, session = endpoint(csrf_token="csrf", auth=lambda: "bearer")
    session.resume = "resume"
    made.ask_credentials()
    headers = made.headers(True)
    assert (headers["X-CSRF-Token"], headers["Authorization"]) == ("csrf", "Bearer bearer")
    assert headers[RESUME_HEADER] == "resume"
    assert len(headers[SECRET_HEADER]) == 22
    shown = str(made.link_params(Link("ajax", None))) + made.url(False)
    assert [one for one in headers.values() if one in shown] == []


def test_a_poll_is_waited_for_longer_than_the_server_lets_it_wait() -> None:
    made, session = endpoint()
    link = Link("ajax", None)
    assert made.poll_timeout(link) == 10.0
    link.confirmations_left = 0
    assert made.poll_timeout(link) == 25.0
    session.server = ServerInfo({"lp-timeout-ms": 40_000})
    assert made.poll_timeout(link) == 45.0


def test_a_message_is_bytes_for_a_binary_packer() -> None:
    answer = Answer(200, {}, b"\xff")
    assert endpoint(packer="msgpack")[0].message_of(answer) == b"\xff"
    assert endpoint()[0].message_of(answer) == "\ufffd"


REDIRECT = Answer(302, {"location": "/login?next=/chsk"})
PAGE = Answer(200, {"content-type": "text/html; charset=utf-8"}, b"<html>")


@pytest.mark.parametrize(
    ("answer", "what"), [(REDIRECT, "a redirect to /login"), (PAGE, "a page of HTML")]
)
def test_a_login_page_is_logged_once_and_retried_slowly(
    answer: Answer, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = endpoint()
    message = f"https://example.org/chsk is answered by {what}: exempt it from what redirects"
    with caplog.at_level(logging.WARNING):
        first, second = made.foreign(answer), made.foreign(answer)
    assert first == LinkClosed(message=f"{message} to a login")
    assert second == LinkClosed(message=f"{message} to a login", retry_after=15.0)
    assert len(caplog.records) == 1
    assert caplog.records[0].name == "flask_chsk.client.endpoint"


@pytest.mark.parametrize("status", [200, 204, 302, 401, 500])
def test_other_answers_are_a_channel_sockets(status: int) -> None:
    assert endpoint()[0].foreign(Answer(status, {"content-type": "text/plain"})) is None


def test_a_refusal_says_why_and_how_long_to_wait() -> None:
    headers = {"content-type": "text/plain", "retry-after": "7"}
    how = refusal(Answer(503, headers, b"try later\nand more"))
    assert how == LinkClosed(status=503, message="try later", retry_after=7.0)
    assert refusal(Answer(500, {})) == LinkClosed(status=500, message="HTTP 500")
