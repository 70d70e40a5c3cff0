"""Servers and networks that are not what they should be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any
from uuid import uuid4

import pytest

from flask_chsk.client import ChannelClosed, ChannelSocket, ReplyError, endpoint, policy
from tests.e2e.client.conftest import APP, TestServer
from tests.e2e.client.servers import HANDSHAKE, Closing, OfficeProxy, Polled, Saying
from tests.e2e.proxy import Proxy
from tests.process import WAIT, eventually
from tests.servers import running, trusting

Connect = Callable[..., ChannelSocket]
KINDS = ("ws", "ajax")
EMPTY = "[:chsk/timeout nil]"


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(url, **options)``: a client that is not waited for, destroyed after the test."""
    clients: list[ChannelSocket] = []

    def connect(url: str, **options: Any) -> ChannelSocket:
        options.setdefault("backoff", lambda attempt: 60.0)
        clients.append(ChannelSocket(url, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.destroy()


def waiting(chsk: ChannelSocket) -> dict[str, Any]:
    """Its last close, once it waits for its next try."""
    eventually(lambda: chsk.state["status"] == "waiting")
    close = dict(chsk.state["last_close"])
    del close["udt"]
    return close


# What servers answer --------------------------------------------------------------------

PORTAL = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 1000,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[",
        PORTAL,
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_what_is_no_channel_socket_is_tried_again_later(
    connect: Connect, kind: str, answer: bytes
) -> None:
    with Saying(answer) as server:
        chsk = connect(server.url, type=kind)
        close = waiting(chsk)
    assert close["reason"] == ("ws-error" if kind == "ws" else "unexpected")
    assert chsk.state["ever_opened"] is False


def test_in_a_captive_portal_both_transports_are_tried(connect: Connect) -> None:
    with Saying(PORTAL) as server:
        chsk = connect(server.url)
        assert waiting(chsk) == {
            "reason": "unexpected",
            "message": f"{server.url} is answered by a page of HTML: exempt it from what redirects"
            " to a login",
            "retry_after_ms": 15_000,
        }
    assert ["Upgrade: websocket" in head for head in server.heads] == [True, False]


@pytest.mark.parametrize(
    ("status", "headers", "what"),
    [
        (302, {"Location": "/login?next=/chsk"}, "a redirect to /login"),
        (200, {"Content-Type": "text/html; charset=utf-8"}, "a page of HTML"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_login_page_is_told_once_and_tried_again_slowly(
    connect: Connect,
    kind: str,
    status: int,
    headers: dict[str, str],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(endpoint, "FOREIGN_RETRY", 0.1)
    with Polled(lambda method, params: (status, headers, "<html>Sign in")) as server:
        chsk = connect(server.url, type=kind, backoff=lambda attempt: 0.1)
        message = f"{server.url} is answered by {what}: exempt it from what redirects to a login"
        told = {key: waiting(chsk)[key] for key in ("reason", "message")}
        assert told == {"reason": "ws-error" if kind == "ws" else "unexpected", "message": message}
        eventually(lambda: len(server.asked) >= 3)
    warned = [one.getMessage() for one in caplog.records if "is answered by" in one.getMessage()]
    assert warned[0] == f"{message}, or look at what stands between"
    assert len([one for one in warned if one.endswith("between")]) == 1


@pytest.mark.parametrize("kind", ["auto", *KINDS])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_asks_for_credentials_once_more_then_rests(
    connect: Connect, kind: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = iter(["old", "new", "never"])
    text = {"Content-Type": "text/plain"}
    with Polled(lambda method, params: (status, text, "sign in first\n")) as server:
        chsk = connect(server.url, type=kind, csrf_token=lambda: next(tokens))
        eventually(lambda: chsk.state["status"] == "refused")
        given = [headers["X-CSRF-Token"] for _, _, headers in server.asked]
    assert given == ["old", "new"]
    with pytest.raises(ChannelClosed, match=r"refused \(refused: sign in first\)"):
        chsk.wait_open()
    assert "sign in first" in caplog.text


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_a_server_that_says_later_is_asked_later(connect: Connect, kind: str) -> None:
    with Polled(lambda method, params: (503, {"Retry-After": "50"}, "")) as server:
        chsk = connect(server.url, type=kind)
        assert waiting(chsk)["status"] == 503
        seconds = chsk.state["udt_next_reconnect"] / 1000 - time.time()
        assert 40 < seconds <= 50
        assert len(server.asked) == 1


def test_a_silent_server_is_not_waited_for(connect: Connect) -> None:
    with Saying(None) as server:
        chsk = connect(server.url, type="ws", connect_timeout=0.2)
        assert waiting(chsk) == {
            "reason": "ws-error",
            "message": "no answer within connect_timeout",
        }


def test_destroyed_while_a_server_is_silent_it_leaves_no_thread(connect: Connect) -> None:
    before = set(threading.enumerate())
    with Saying(None) as server:
        mine = set(threading.enumerate())
        clients = [connect(server.url, type=kind) for kind in KINDS]
        eventually(lambda: server.connections == 2)
        theirs = {thread for thread in threading.enumerate() if "client" in thread.name} - mine
        for chsk in clients:
            chsk.destroy()
        eventually(lambda: not any(thread.is_alive() for thread in theirs))
    assert before <= set(threading.enumerate()) | before


def test_nobody_there_is_tried_again_later(connect: Connect) -> None:
    with Saying(b"") as server:
        url = server.url
    close = waiting(connect(url, type="ws"))
    assert "refused" in close["message"]


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        (1000, "closed", "clean"),
        (1002, "waiting", "clean"),
        (1009, "waiting", "clean"),
        (1011, "waiting", "clean"),
        (1012, "waiting", "clean"),
        (1013, "waiting", "clean"),
        (4000, "waiting", "clean"),
        (4001, "closed", "replaced"),
        (4002, "waiting", "clean"),
        (4003, "waiting", "clean"),
        (4004, "waiting", "clean"),
        (4005, "closed", "signed-out"),
    ],
)
def test_the_code_of_a_close_frame_is_told(
    connect: Connect, code: int, status: str, reason: str
) -> None:
    with Closing(code, "spread=60" if code == 1012 else "because") as server:
        chsk = connect(server.url, type="ws")
        eventually(lambda: chsk.state["status"] == status and chsk.state["ever_opened"])
    state = chsk.state
    assert (state["last_close"]["reason"], state["last_close"]["code"]) == (reason, code)
    assert (state["last_ws_close"]["reason"], state["last_ws_close"]["code"]) == ("clean", code)


# POSTs ----------------------------------------------------------------------------------


def posts(answers: list[tuple[int, dict[str, str], str]]) -> Callable[..., Any]:
    """A server whose polls are empty, and whose POSTs get *answers* in turn."""

    def answer(method: str, params: dict[str, str]) -> tuple[int, dict[str, str], str]:
        if method == "POST":
            return answers.pop(0)
        return 200, {}, HANDSHAKE if "handshake?" in params else EMPTY

    return answer


def test_a_post_over_the_limit_is_an_error(connect: Connect) -> None:
    text = {"Content-Type": "text/plain"}
    with Polled(posts([(413, text, "a message of at most 10 bytes\n")])) as server:
        chsk = connect(server.url, type="ajax")
        chsk.wait_open()
        with pytest.raises(ReplyError, match="a message of at most 10 bytes") as raised:
            chsk.request(["chat/say", "hi"])
        assert raised.value.status == 413


@pytest.mark.parametrize("status", [429, 503])
def test_a_post_that_comes_too_early_is_repeated(connect: Connect, status: int) -> None:
    later = (status, {"Retry-After": "0"}, "")
    with Polled(posts([later, later, (200, {}, "[:ok nil]")])) as server:
        chsk = connect(server.url, type="ajax")
        chsk.wait_open()
        assert chsk.request(["chat/say", "hi"]) == "ok"


def test_a_refused_post_brings_a_new_token(connect: Connect) -> None:
    tokens = iter(["old", "new"])
    with Polled(posts([(403, {}, ""), (200, {}, "[:ok nil]")])) as server:
        chsk = connect(server.url, type="ajax", csrf_token=lambda: next(tokens))
        chsk.wait_open()
        assert chsk.request(["chat/say", "hi"]) == "ok"
        given = [h["X-CSRF-Token"] for method, _, h in server.asked if method == "POST"]
        assert given == ["old", "new"]


def test_cookies_headers_and_params_go_along(connect: Connect) -> None:
    set_cookie = {"Set-Cookie": "route=b; Path=/"}
    answers = [(200, set_cookie, "[:ok nil]"), (200, {}, "[:ok nil]")]
    with Polled(posts(answers)) as server:
        chsk = connect(
            server.url + "?room=1",
            type="ajax",
            cookies={"session": "s1"},
            headers={"X-Me": "me"},
            params={"tab": 2},
            auth="secret",
            ajax_opts={"headers": {"X-Ajax": "yes"}, "params": {"ajax": "too"}},
        )
        chsk.wait_open()
        chsk.request(["chat/say"])
        chsk.request(["chat/say"])
    _, params, headers = server.asked[0]
    assert (params["room"], params["tab"], params["ajax"]) == ("1", "2", "too")
    assert (headers["X-Me"], headers["X-Ajax"]) == ("me", "yes")
    assert headers["Authorization"] == "Bearer secret"
    cookies = [headers["Cookie"] for method, _, headers in server.asked if method == "POST"]
    assert cookies == ["session=s1", "session=s1; route=b"]


# The network ----------------------------------------------------------------------------


@pytest.mark.parametrize("upgrades", ["refuse", "hang", "strip", "mute"])
def test_where_no_websocket_passes_polls_do_and_later_it_returns(
    connect: Connect, server: TestServer, monkeypatch: pytest.MonkeyPatch, upgrades: Any
) -> None:
    monkeypatch.setattr(policy, "UPGRADE", 0.3)
    monkeypatch.setattr(policy, "UPGRADE_CAP", 0.3)
    uid = uuid4().hex
    with Proxy(server.port, upgrades=upgrades) as proxy:
        chsk = connect(f"{proxy.url}/chsk", params={"uid": uid}, connect_timeout=0.3)
        data: list[Any] = []
        chsk.on("test/pushed", lambda ev: data.append(ev.data))
        chsk.wait_open()
        assert chsk.state["type"] == "ajax"
        assert chsk.state["last_close"]["reason"] == "downgrading-ws-to-ajax"
        seen = proxy.upgraded
        eventually(lambda: proxy.upgraded > seen + 1)
        assert chsk.request(["test/echo", 1]) == 1
        said = server.post(f"say/{uid}/3")
        proxy.upgrades = "pass"
        while chsk.state["type"] != "ws":
            said += server.post(f"say/{uid}/1")
            time.sleep(0.02)  # a server keeps 256 events, and mute links swallow some
        said += server.post(f"say/{uid}/3")
        eventually(lambda: len(data) >= len(said))
        assert data == said
        assert chsk.request(["test/echo", 2]) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_was_cut_loses_nothing(
    connect: Connect, server: TestServer, kind: str
) -> None:
    uid = uuid4().hex
    with Proxy(server.port) as proxy:
        chsk = connect(
            f"{proxy.url}/chsk", type=kind, params={"uid": uid}, backoff=lambda attempt: 0.1
        )
        data: list[Any] = []
        gaps: list[Any] = []
        chsk.on("test/pushed", lambda ev: data.append(ev.data))
        chsk.on("chsk/gap", gaps.append)
        chsk.wait_open()
        said = server.post(f"say/{uid}/2")
        for _ in range(3):
            proxy.cut()
            said += server.post(f"say/{uid}/3")
            eventually(lambda: not chsk.state["open"])
            proxy.restore()
            said += server.post(f"say/{uid}/3")
            chsk.wait_open()
            said += server.post(f"say/{uid}/3")
        eventually(lambda: len(data) >= len(said))
        assert (data, gaps) == (said, [])


def test_a_network_that_hangs_is_noticed(connect: Connect, server: TestServer) -> None:
    with Proxy(server.port) as proxy:
        chsk = connect(
            f"{proxy.url}/chsk",
            type="ws",
            ws_kalive=0.2,
            ws_ping_timeout=0.2,
            backoff=lambda attempt: 0.1,
        )
        chsk.wait_open()
        proxy.hang()
        eventually(lambda: not chsk.state["open"])
        assert chsk.state["last_close"]["reason"] == "ws-ping-timeout"
        proxy.restore()
        chsk.wait_open()


@pytest.mark.parametrize("kind", KINDS)
def test_a_restarted_server_is_come_back_to_and_the_gap_told(
    connect: Connect, tmp_path: Any, kind: str
) -> None:
    with Proxy() as proxy:
        with running("gunicorn-gevent", APP, tmp_path / "one") as first:
            proxy.backends = [first.port]
            chsk = connect(
                f"{proxy.url}/chsk",
                type=kind,
                params={"uid": "ann"},
                backoff=lambda attempt: 0.1,
            )
            told: Queue[Any] = Queue()
            chsk.wait_open()
            chsk.watch(lambda old, new: told.put(new["status"]))
            chsk.on("chsk/gap", lambda ev: told.put("gap"))
        with running("gunicorn-gevent", APP, tmp_path / "two") as second:
            proxy.backends = [second.port]
            chsk.wait_open()
            while told.get(timeout=WAIT) != "gap":
                pass
            assert chsk.request(["test/echo", 1]) == 1
            assert chsk.state["first_open"] is False


# TLS and proxies ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The URL of a server with TLS, and a context that trusts it."""
    folder = tmp_path_factory.mktemp("tls")
    with running("gunicorn-gevent-tls", APP, folder / "log") as server:
        yield f"https://127.0.0.1:{server.port}/chsk", trusting(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_that_is_not_trusted_is_refused(
    connect: Connect, secure: tuple[str, Any], kind: str
) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in waiting(connect(secure[0], type=kind))["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_over_tls_many_threads_talk_at_once(
    connect: Connect, secure: tuple[str, Any], kind: str
) -> None:
    url, context = secure
    chsk = connect(url, type=kind, ssl_context=context)
    chsk.wait_open()
    wrong: list[Any] = []

    def talk(name: int) -> None:
        for number in range(30 if kind == "ws" else 3):
            text = f"{name} {number} " * 1000
            if chsk.request(["test/echo", text], WAIT) != text:
                wrong.append((name, number))

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tls", [False, True])
def test_the_proxy_of_the_environment_is_gone_through(
    connect: Connect,
    server: TestServer,
    secure: tuple[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    tls: bool,
) -> None:
    url, context = secure if tls else (server.url, None)
    with OfficeProxy(password="YW5uOnNlY3JldA==") as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://ann:secret@{proxy.address}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        chsk = connect(url, type=kind, ssl_context=context)
        chsk.wait_open()
        assert chsk.request(["test/echo", 1]) == 1
        chsk.destroy()
    if kind == "ajax" and not tls:
        assert set(proxy.asked) == {"GET http", "POST http"}
    else:
        assert set(proxy.asked) == {"CONNECT "}


def test_where_the_environment_names_none_there_is_no_proxy(
    connect: Connect, server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    chsk = connect(server.url)
    chsk.wait_open()
    assert chsk.request(["test/echo", 1]) == 1
