"""Single requests of Sente's generations: what is let in, refused, and how connections end."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import websocket

from tests.e2e.sente.generations import GENERATIONS, AjaxClient, WebSocketClient
from tests.process import WAIT, Server

BY_NAME = {one.name: one for one in GENERATIONS}
TOKEN_BY_HANDSHAKE = [one.name for one in GENERATIONS if not one.token_from_page]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-b", "127.0.0.1:0"]
    log = tmp_path_factory.mktemp("requests") / "log"
    server = Server([*command, "tests.e2e.sente.app:app"], log)
    yield server
    server.stop()
    assert server.tracebacks == 0, server.log


class Browser:
    """Sends requests with one cookie, and any headers."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.cookie = ""
        self.set_cookie: str | None = None

    def request(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, target, body, {"Cookie": self.cookie, **sent})
            answer = connection.getresponse()
            self.set_cookie = answer.headers["Set-Cookie"]
            if self.set_cookie and not self.cookie:
                self.cookie = self.set_cookie.partition(";")[0]
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> tuple[int, bytes]:
        return self.request("GET", target, **headers)

    def post(self, target: str, **form: str) -> tuple[int, bytes]:
        kind = "application/x-www-form-urlencoded"
        named = {
            name.replace("_id", "-id").replace("_token", "-token"): form[name] for name in form
        }
        body = urlencode(named).encode()
        return self.request("POST", target, body, Content_Type=kind, Origin=self.origin)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def browser(server: Server) -> Browser:
    return Browser(server)


# CSRF --------------------------------------------------------------------------------------

OLD = "/chsk-1.0?_=1&client-id=abc&handshake%3F=true"


@pytest.mark.parametrize("proof", [{"Sec_Fetch_Site": "same-origin"}, {"Origin": "own"}])
def test_the_handshake_of_our_own_page_brings_the_sessions_token(
    browser: Browser, proof: dict[str, str]
) -> None:
    token = browser.get("/page?uid=ann")[1].decode()
    proof = {name: value.replace("own", browser.origin, 1) if value == "own" else value
             for name, value in proof.items()}  # fmt: skip
    expected = f'-[:chsk/handshake ["ann" "{token}"]]'.encode()
    assert browser.get(OLD, **proof) == (200, expected)
    assert browser.set_cookie is None


def test_a_handshake_makes_no_token(browser: Browser) -> None:
    browser.get("/no-page?uid=bob")
    answer = browser.get(OLD, Sec_Fetch_Site="same-origin")
    assert answer == (200, b'-[:chsk/handshake ["bob" nil]]')
    assert browser.set_cookie is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://elsewhere.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Referer": "own"},
    ],
)
def test_a_handshake_without_proof_needs_the_token(
    browser: Browser, headers: dict[str, str]
) -> None:
    browser.get("/page?uid=ann")
    if "Referer" in headers:
        headers = {"Referer": f"{browser.origin}/page"}
    status, text = browser.get(OLD, **headers)
    assert status == 403, text


@pytest.mark.parametrize("path", ["/chsk", "/chsk-1.18", "/chsk-1.17"])
def test_later_generations_bring_a_token_in_any_case(browser: Browser, path: str) -> None:
    browser.get("/page?uid=ann")
    status, text = browser.get(f"{path}?udt=1&client-id=abc", Sec_Fetch_Site="same-origin")
    assert (status, b"CSRF token missing" in text) == (403, True)


def test_a_wrong_token_is_refused_whatever_the_proof(browser: Browser) -> None:
    browser.get("/page?uid=ann")
    status, _ = browser.get(f"{OLD}&csrf-token=wrong", Sec_Fetch_Site="same-origin")
    assert status == 403


@pytest.mark.parametrize("client_id", [{}, {"client_id": "abc"}])
def test_a_post_needs_the_token_though_our_own_page_sends_it(
    browser: Browser, client_id: dict[str, str]
) -> None:
    token = browser.get("/page?uid=ann")[1].decode()
    form = {"_": "1", "ppstr": "+[[:test/echo 1] 0]", **client_id}
    assert browser.post("/chsk-1.0", **form)[0] == 403
    assert browser.post("/chsk-1.0", csrf_token="wrong", **form)[0] == 403
    assert browser.post("/chsk-1.0", csrf_token=token, **form) == (200, b"-1")


# Client ids ----------------------------------------------------------------------------------


def test_a_post_without_an_id_is_bound_by_the_rate_of_its_address(browser: Browser) -> None:
    token = browser.get("/page?uid=carl")[1].decode()
    form = {"_": "1", "csrf_token": token, "ppstr": "+[[:test/echo 1] 0]"}
    answers = [browser.post("/chsk-1.0", **form)[0] for _ in range(150)]
    assert answers[:90] == [200] * 90  # other tests have taken some of the hundred
    assert 429 in answers


@pytest.mark.parametrize("path", ["/chsk", "/chsk-1.18", "/chsk-1.17"])
def test_later_generations_need_an_id(browser: Browser, path: str) -> None:
    token = browser.get("/page?uid=ann")[1].decode()
    status, text = browser.post(path, udt="1", csrf_token=token, ppstr="[[:test/echo 1] 0]")
    assert (status, text[:12]) == (400, b"no client-id")


def test_clients_of_before_1_3_are_told_that_they_are_not_supported(
    browser: Browser,
) -> None:
    browser.get("/page?uid=ann")
    own = {"Sec_Fetch_Site": "same-origin"}
    status, text = browser.get("/chsk-1.0?_=1&ajax-client-uuid=abc", **own)
    assert (status, b"from 1.3 on" in text) == (400, True)
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(
            f"ws://127.0.0.1:{browser.port}/chsk-1.0", cookie=browser.cookie, origin=browser.origin
        )
    assert refused.value.status_code == 400
    assert b"from 1.3 on" in (refused.value.resp_body or b"")


@pytest.mark.parametrize("name", ["1.5", "1.7", "1.21"])
def test_a_push_to_whoever_posted_reaches_their_poll(server: Server, name: str) -> None:
    client = AjaxClient(BY_NAME[name], server.port, f"pushed-{name}")
    client.open()
    client.send("[:test/push-me]")
    client.wait_for_items(1)
    assert client.items == [7]


# Ends ----------------------------------------------------------------------------------------


def end_of(client: WebSocketClient) -> int | None:
    """The code of the close frame; None: the stream just ended."""
    try:
        while True:
            opcode, data = client.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big")
    except websocket.WebSocketConnectionClosedException:
        return None
    finally:
        client.cut()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_close_that_a_reconnect_shall_follow_is_not_clean_where_that_is_final(
    server: Server, name: str
) -> None:
    client = WebSocketClient(BY_NAME[name], server.port, f"closed-{name}")
    client.open()
    client.http("POST", f"/close/{client.uid}", "")
    assert end_of(client) == (None if BY_NAME[name].wire in ("1.0", "1.17") else 1000)


@pytest.mark.parametrize("name", BY_NAME)
def test_what_the_application_closes_as_sente_does_is_closed_with_1000(
    server: Server, name: str
) -> None:
    client = WebSocketClient(BY_NAME[name], server.port, f"close-{name}")
    client.open()
    client.send("[:test/close]")
    assert end_of(client) == 1000


@pytest.mark.parametrize("name", ["1.9", "1.17", "1.18", "1.21"])
def test_an_end_for_what_a_client_did_wrong(server: Server, name: str) -> None:
    one = BY_NAME[name]
    client = WebSocketClient(one, server.port, f"wrong-{name}")
    client.open()
    client.socket.sock.sendall(b"\xff\xff")  # no frame
    assert end_of(client) == (None if one.clean_close_is_final else 1002)


@pytest.mark.parametrize("name", ["1.3", "1.7"])
def test_a_newer_poll_ends_the_older_one_with_what_its_generation_reads(
    server: Server, name: str
) -> None:
    client = AjaxClient(BY_NAME[name], server.port, f"twice-{name}")
    client.open()
    older = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT)
    older.request("GET", client.target(), headers={"Cookie": client.cookie,
                                                   "Sec-Fetch-Site": "same-origin"})  # fmt: skip
    with pytest.raises(TimeoutError):
        client.http("GET", client.target(), timeout=0.5)
    assert older.getresponse().read() == b"-[]"
    older.close()


# MessagePack --------------------------------------------------------------------------------

# As 1.21 and 1.22 post it: [[:test/echo :a/1] :ajax], and the rest of the client's buffer.
POSTED = bytes.fromhex("9292c70900") + b"test/echo" + bytes.fromhex("81d4006101d600") + b"ajax"


def post_msgpack(browser: Browser, body: bytes) -> tuple[int, bytes]:
    token = browser.get("/page?uid=ann")[1].decode()
    query = "client-id=abc&udt=1&binary%3F=true"
    return browser.request(
        "POST",
        f"/chsk-msgpack?{query}",
        body,
        Content_Type="application/octet-stream",
        X_CSRF_Token=token,
    )


@pytest.mark.parametrize("padding", [0, 1, 4096])
def test_nul_bytes_after_a_binary_post_are_padding(browser: Browser, padding: int) -> None:
    status, answer = post_msgpack(browser, POSTED + bytes(padding))
    assert (status, answer.hex()) == (200, "92" + "81d4006101" + "c0")


@pytest.mark.parametrize("rest", [b"\1", b"\0\1", b"\xc0", bytes(100) + b"a"])
def test_other_bytes_after_a_binary_post_are_an_error(browser: Browser, rest: bytes) -> None:
    _, answer = post_msgpack(browser, POSTED + rest)
    assert answer.hex() != "92" + "81d4006101" + "c0"
