"""Requests that no honest client makes: heads, parameters, cookies, bodies.

The answers are those of docs/protocol.rst, "Refusals".
"""

from __future__ import annotations

import gzip
from urllib.parse import quote, urlencode

import pytest

from tests.e2e.hostile.conftest import Target
from tests.e2e.hostile.wire import Wire, head, text, upgrade
from tests.process import eventually

URL = "/chsk?client-id=attacker"
FORM = "application/x-www-form-urlencoded"


def post(body: bytes | str, headers: dict[str, str | None] | None = None, query: str = "") -> bytes:
    """A POST as a client makes it, but for *headers*."""
    data = body.encode() if isinstance(body, str) else body
    usual = {"Content-Type": FORM, "Content-Length": str(len(data))}
    return head(f"/chsk{query}", {**usual, **(headers or {})}, "POST") + data


def form(**fields: str) -> str:
    """A POST's body."""
    return urlencode({"client-id": "attacker", "ppstr": "[[:test/echo 1] :ajax]", **fields})


# Upgrades ----------------------------------------------------------------------------------

HANDSHAKES: dict[str, tuple[dict[str, str | None], int]] = {
    "no version": ({"Sec-WebSocket-Version": None}, 426),
    "version 8": ({"Sec-WebSocket-Version": "8"}, 426),
    "two versions": ({"Sec-WebSocket-Version": "13, 8"}, 426),
    "no key": ({"Sec-WebSocket-Key": None}, 400),
    "a short key": ({"Sec-WebSocket-Key": "AAAA"}, 400),
    "a key that is not base64": ({"Sec-WebSocket-Key": "!" * 22 + "=="}, 400),
    "a long key": ({"Sec-WebSocket-Key": "A" * 4000}, 400),
    "a body": ({"Content-Length": "5"}, 400),
    "a chunked body": ({"Transfer-Encoding": "chunked"}, 400),
}


@pytest.mark.parametrize(("headers", "status"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_a_malformed_upgrade_is_refused(
    target: Target, headers: dict[str, str | None], status: int
) -> None:
    with target.counts(f"refused_{status}"):
        assert target.request(upgrade(URL, headers))[0] == status


@pytest.mark.parametrize(
    "protocols", ["csrf.", "auth.!!!", "auth.gA", ",,,,", "chsk.v1" + ",x" * 2000]
)
def test_odd_subprotocols_are_only_not_selected(target: Target, protocols: str) -> None:
    with target.wire() as wire:
        wire.send(upgrade(URL, {"Sec-WebSocket-Protocol": protocols}))
        status, headers, _ = wire.answer()
    selected = "chsk.v1" if protocols.startswith("chsk.v1,") else None
    assert (status, headers.get("sec-websocket-protocol")) == (101, selected)


def test_extensions_are_not_negotiated(target: Target) -> None:
    with target.wire() as wire:
        offer = "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"
        wire.send(upgrade(URL, {"Sec-WebSocket-Extensions": offer}))
        status, headers, _ = wire.answer()
    assert (status, headers.get("sec-websocket-extensions")) == (101, None)


def test_an_upgrade_keeps_no_heap_of_headers(target: Target) -> None:
    """A client's request stays as long as its socket: so it must be small."""
    heap: dict[str, str | None] = {f"X-{number}": "x" * 4000 for number in range(10)}
    assert target.request(upgrade(URL, heap))[0] == 400


def test_an_upgrade_that_the_connection_does_not_name_is_a_plain_get(target: Target) -> None:
    # A client of its own: one that polls, and is known, would hear of no handshake.
    url = "/chsk?client-id=plain"
    status, body = target.request(upgrade(url, {"Connection": "close"}))
    assert (status, body[:16]) == (200, "[[:chsk/handshak")


# Parameters --------------------------------------------------------------------------------

CLIENT_IDS = [
    "",
    " ",
    "a b",
    "a/b",
    "a:b",
    "é",
    "\0",
    "\r\nX: y",
    "' OR 1=1",
    "../../etc",
    "x" * 65,
    "nil",  # fine, as any other
]


@pytest.mark.parametrize("client_id", CLIENT_IDS)
def test_odd_client_ids_are_refused(target: Target, client_id: str) -> None:
    status = 101 if client_id == "nil" else 400
    query = f"/chsk?client-id={quote(client_id, safe='')}"
    assert target.request(upgrade(query))[0] == status
    assert target.request(head(query))[0] == (200 if status == 101 else 400)
    body = urlencode({"client-id": client_id, "ppstr": "[[:test/echo 1] nil]"})
    assert target.request(post(body))[0] == (200 if status == 101 else 400)


ODD_UIDS = [
    'a"b\\c',
    "a\nb\r\n",
    "\0",
    "\u2028\u2029\x85",
    "Ω😀",
    "a:b:c",
    "u:a",
    "*",
    ":sente/nil-uid",
    "nil",
    "__proto__",
    " ",
    "%s %d {0} $(id)",
    "x" * 255,
]


@pytest.mark.parametrize("uid", ODD_UIDS)
def test_a_uid_of_any_characters_is_one_user(target: Target, uid: str) -> None:
    query = f"&uid={quote(uid, safe='')}"
    with target.wire() as wire:
        assert wire.open(f"{URL}{query}")[0] == uid
        wire.send(text("[[:test/push 1] nil]"))
        assert wire.read() == "[[[:test/item 1]] nil]"
        assert (
            target.get(f"/send/{quote(uid, safe='')}/1" if "/" not in uid else "/seen") is not None
        )


def test_a_uid_that_is_too_long_is_refused(target: Target) -> None:
    assert target.request(upgrade(f"{URL}&uid={'x' * 256}"))[0] == 400
    assert target.request(post(form(uid="x" * 10_000)))[0] == 400


PARAMETERS = [
    "packer=no-such-packer",
    "packer=../edn",
    "packer=" + "x" * 3000,
    "packer=%00",
    "n=" + "9" * 3000,
    "n=-1",
    "n=%D9%A3",
    "n=1e9",
    "v=1&cursor=" + "9" * 3000,
    "v=1&cursor=a:" + "9" * 15,
    "v=1&cursor=%FF",
    "v=%00",
    "handshake%3F=%FF%FE",
    "csrf-token=%FF%FE%00",
    "client-id=other&client-id=another",
    "udt=" + "&" * 3000,
    "%",
    "%zz=%zz",
    "=",
    ";" * 1000,
    b"\x7f\x01".hex(),
]


@pytest.mark.parametrize("query", PARAMETERS, ids=range(len(PARAMETERS)))
def test_odd_parameters_are_refused_or_ignored(target: Target, query: str) -> None:
    fields = f"{query}&ppstr={quote('[[:test/echo 1] :ajax]')}&client-id=attacker"
    answers = [
        target.request(upgrade(f"{URL}&{query}"))[0],
        target.request(head(f"{URL}&handshake%3F=1&{query}"))[0],
        target.request(post(fields))[0],
    ]
    # 409: of v=1 or not, while the upgrade's client, of the other kind, is still there
    assert set(answers) <= {101, 200, 400, 409}, answers


def test_a_query_that_is_not_utf8_is_refused(target: Target) -> None:
    """Not escaped: Werkzeug raises where it is read."""
    raw = f"{URL}&x=\xff"
    assert target.request(upgrade(raw))[0] == 400
    assert target.request(head(raw))[0] == 400
    body = form()
    length = str(len(body))
    headers: dict[str, str | None] = {"Content-Type": FORM, "Content-Length": length}
    assert target.request(head(raw, headers, "POST") + body.encode())[0] == 400


def test_a_number_too_long_for_int_is_no_number(target: Target) -> None:
    # A client of its own: of another test's WebSocket the worker may not have seen the end yet.
    fields = {"client-id": "counter", "n": "9" * 5000}
    assert target.request(post(form(**fields)))[0] == 200


# Headers and cookies -------------------------------------------------------------------------

HEADERS: list[dict[str, str | None]] = [
    {"Cookie": "session=" + "x" * 4000},
    {"Cookie": "session=eyJ1aWQiOiJhbm4ifQ.ZZZZZZ.forged"},
    {"Cookie": ";;;=;=;\x01"},
    {"Cookie": "session=.eJx" + "A" * 2000 + ".a.b"},  # compressed, it claims
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer \xff\xfe"},
    {"Authorization": "Basic " + "!" * 100},
    {"Authorization": "Negotiate"},
    {"Host": "a b"},
    {"Host": "\xff"},
    {"Host": "127.0.0.1:999999"},
    {"Origin": ""},
    {"X-CSRF-Token": "\xff" * 100},
    {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "evil"},
    {"Accept-Encoding": "gzip;q=\xff"},
    {"Range": "bytes=0-,-1"},
    {"If-None-Match": "*"},
    {"Content-Type": "text/html; charset=\xff"},
    {"Sec-Fetch-Site": "\xff"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
def test_odd_headers_are_refused_or_ignored(target: Target, headers: dict[str, str | None]) -> None:
    answers = [
        target.request(upgrade(URL, headers))[0],
        target.request(head(f"{URL}&handshake%3F=1", headers))[0],
        target.request(post(form(), headers))[0],
    ]
    assert set(answers) <= {101, 200, 400, 401, 403}, answers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_not_allowed(target: Target, method: str) -> None:
    assert target.request(head(URL, {"Content-Length": "0"}, method))[0] in (400, 405)


def test_a_head_of_a_poll_takes_nothing_and_closes_no_connection(target: Target) -> None:
    """Its answer is not read: what watches the connection of a poll must not close it later."""
    target.request(head(URL + "&handshake%3F=1"))
    assert target.request(head(URL, {"Connection": "close"}, "HEAD"))[0] == 200
    other = target.opened("other")  # has the number of the descriptor that was closed
    assert other.ask("[:test/echo 1]") == 1
    assert target.stats()["parked"] == 0
    eventually(lambda: target.stats()["clients"] == 2)  # this one and the bystander


def test_head_and_options_answer_without_a_body(target: Target) -> None:
    assert target.request(head(URL, {"Connection": "close"}, "HEAD"))[0] == 200
    assert target.request(head(URL, method="OPTIONS"))[0] == 204


# Bodies --------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_unread(target: Target) -> None:
    with target.within(16):
        size = str(10 * 1024**3)
        assert target.request(post(b"", {"Content-Length": size}))[0] == 413
        assert target.request(post(form(ppstr="x" * (1024 * 1024 + 1))))[0] == 413
        raw = {"Content-Type": "application/octet-stream"}
        binary = "?client-id=attacker&binary%3F=true"
        assert target.request(post(b"x" * (1024 * 1024 + 1), raw, binary))[0] == 413


def test_a_body_without_a_length_ends_at_the_limit(target: Target) -> None:
    headers: dict[str, str | None] = {"Transfer-Encoding": "chunked", "Content-Length": None}
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with target.within(32), target.wire() as wire:
        wire.send(post(b"", headers))
        wire.try_send(b"client-id=attacker&ppstr=".join([b"19\r\n", b"\r\n"]))
        for _ in range(200):
            if not wire.try_send(chunk):
                break
        assert wire.request(b"0\r\n\r\n")[0] in (0, 413)  # 0: the answer drowned in our bytes


BODIES: dict[str, tuple[bytes, dict[str, str | None], set[int]]] = {
    "nothing": (b"", {}, {400}),
    "no message": (b"client-id=attacker", {}, {400}),
    "no client id": (b"ppstr=x", {}, {400}),
    "no known type": (form().encode(), {"Content-Type": "text/plain"}, {400}),
    "JSON": (b'{"client-id":"attacker"}', {"Content-Type": "application/json"}, {400}),
    "noise": (bytes(range(256)) * 10, {}, {400}),
    "some fields more": (b"a=b&" * 50 + form().encode(), {}, {200}),
    "a thousand fields": (b"a=b&" * 1000 + form().encode(), {}, {400}),
    "a million fields": (b"a&" * 1_500_000 + form().encode(), {}, {400}),
    "a million escapes": (form().encode() + b"%41" * 1_000_000, {}, {200, 413}),
    "a million escapes beside it": (form().encode() + b"&x=" + b"%ff" * 1_000_000, {}, {400}),
    "a million escapes in a name": (form().encode() + b"&" + b"%ff" * 1_000_000, {}, {400}),
    "a million escapes, no message": (b"x=" + b"%ff" * 1_000_000, {}, {400}),
    "no escapes": (form().encode() + b"&ppstr=%zz", {}, {200}),
    "half an escape": (form(ppstr="").encode() + b"%4", {}, {400}),
    "compressed": (gzip.compress(form().encode()), {"Content-Encoding": "gzip"}, {400}),
    "a bomb": (gzip.compress(b"x" * 50_000_000), {"Content-Encoding": "gzip"}, {400}),
    "deflated, it says": (form().encode(), {"Content-Encoding": "deflate, br"}, {400}),
    "no boundary": (b"--x", {"Content-Type": "multipart/form-data"}, {400}),
    "a broken boundary": (
        b'--x\r\nContent-Disposition: form-data; name="client-id"\r\n\r\nattacker\r\n--',
        {"Content-Type": "multipart/form-data; boundary=x"},
        {400, 413},
    ),
    "a thousand parts": (
        b"".join(
            b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n%d\r\n' % n
            for n in range(2000)
        )
        + b"--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
        {400, 413},
    ),
    "another charset": (
        form().encode("utf-16"),
        {"Content-Type": f"{FORM}; charset=utf-16"},
        {400},
    ),
    "a broken length": (form().encode(), {"Content-Length": "x"}, {400}),
    "a negative length": (form().encode(), {"Content-Length": "-5"}, {400}),
    "two lengths": (form().encode(), {"Content-Length": "5, 6"}, {400}),
}


@pytest.mark.parametrize(("body", "headers", "statuses"), BODIES.values(), ids=BODIES)
def test_an_unreadable_post_is_refused(
    target: Target, body: bytes, headers: dict[str, str | None], statuses: set[int]
) -> None:
    with target.within(32):
        assert target.request(post(body, headers))[0] in statuses


def test_a_binary_body_is_no_form_whatever_its_type(target: Target) -> None:
    body = "[[:test/note :binary] nil] ;&uid=mallory"  # the rest is a comment in EDN
    assert target.request(post(body, query="?client-id=attacker&binary%3F=true"))[0] == 200
    eventually(lambda: [None, "attacker", "binary"] in target.get("/seen"))


@pytest.mark.parametrize("message", ["", "[", "nil", "[nil]", "\0", "[[:a 1] :ajax]", "é" * 100])
def test_a_post_of_no_event_is_taken_as_a_bad_one(target: Target, message: str) -> None:
    """As on a WebSocket: handlers may look at it, and the client is told that none did."""
    assert target.request(post(form(ppstr=message)))[0] == 200


def test_a_post_cut_short_is_forgotten(target: Target) -> None:
    for _ in range(50):
        wire = Wire(target.port)
        wire.send(post(form())[:-10])
        wire.reset()
    assert target.request(post(form()))[0] == 200


def test_a_smuggled_request_is_none(target: Target) -> None:
    """What follows an upgrade is frames, whatever it looks like."""
    with target.wire() as wire:
        wire.send(upgrade(URL) + head("/seen"))
        assert wire.answer()[0] == 101
        wire.messages += wire.reader.feed(wire.rest)
        closed = wire.closed()
    assert closed is not None
    assert closed[0] == 1002
