"""What the clients of each server say, as bytes made beforehand.

A client is opened by a generator of steps, each bytes to send and a mark to wait for in what
comes back; it returns the steps of one request. Nothing is parsed: a reply, and an event that the
server pushed, is a mark that occurs in it once, which ``bytes.count`` finds at the speed of C.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from itertools import count
from typing import NamedTuple
from urllib.parse import quote

TEXT = "What a chat message says, in about as many words as it takes "
SAID = {"text": TEXT, "room": "general", "n": 42}  # some 128 bytes, packed, with its envelope
REPLY_MARK = b"general"
EVENT_MARK = b"pushed pushed pushed pushed"
LARGE = {**SAID, "text": TEXT * (65_536 // len(TEXT))}

MASK = b"\x37\xfa\x21\x3d"  # any will do; a server unmasks them all alike
ASKERS = 100_000  # uids from here on: those who ask for pushes to others
NOTHING = b""  # a mark that is not waited for


class Step(NamedTuple):
    """Bytes to send, and the mark of the answer to them."""

    data: bytes
    mark: bytes


# What a v=1 client of flask_chsk shows; the peers read past it.
SECRET = "X-Chsk-Secret: c2VjcmV0IG9mIDEyOCBiaXQ\r\n"

Opening = Generator[Step, bytes, list[Step]]


class Dialect(NamedTuple):
    """How clients of one kind of server open, what pings them, and what they answer."""

    open: Callable[[int], Opening]
    ping: bytes = NOTHING
    pong: bytes = NOTHING


def frame(text: str) -> bytes:
    """A text frame as browsers send it."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x81, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x81, 0x80 | 127)) + size.to_bytes(8, "big")
    masks = (MASK * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(masks, "big")
    return head + MASK + masked.to_bytes(size, "big")


def upgrade(path: str) -> bytes:
    """The opening request of a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{SECRET}Upgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def get(path: str) -> bytes:
    """A GET on a connection that stays."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{SECRET}\r\n".encode()


def post(path: str, body: str, kind: str) -> bytes:
    """A POST on a connection that stays."""
    data = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{SECRET}"
        f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


# flask_chsk: as chsk.js does, v=1 --------------------------------------------------------------


def edn(data: dict[str, object]) -> str:
    """*data* in an event that asks for a reply."""
    pairs = ", ".join(f":{key} {json.dumps(value)}" for key, value in data.items())
    return f'[[:bench/echo {{{pairs}}}] "c1"]'


def relay(n: int) -> str:
    """An event whose handler pushes another to a user: n, wherever they are connected."""
    return f'[[:bench/relay "u{n}"]]'


def _json(data: dict[str, object]) -> str:
    return json.dumps([["bench/echo", data], "c1"], separators=(",", ":"))


_client_ids = map("c{:x}".format, count())  # new for each, as for each page that is loaded


PONG = frame("[[:chsk/ws-pong] nil]")
JSON_PONG = frame('[["chsk/ws-pong"],null]')


def _chsk_websocket(packer: str, message: str) -> Callable[[int], Opening]:
    request = [Step(frame(message), REPLY_MARK)]

    def open(n: int) -> Opening:
        path = f"/chsk?client-id={next(_client_ids)}&uid=u{n}&v=1&packer={packer}"
        yield Step(upgrade(path), b"flask_chsk")
        return request

    return open


def _chsk_ajax(packer: str, message: str, kind: str) -> Callable[[int], Opening]:
    def open(n: int) -> Opening:
        client_id = next(_client_ids)
        path = f"/chsk?uid=u{n}&v=1&packer={packer}"
        yield Step(get(f"{path}&client-id={client_id}&handshake?=1"), b"flask_chsk")
        body = f"client-id={client_id}&ppstr={quote(message, safe='')}"
        return [Step(post(path, body, "application/x-www-form-urlencoded"), REPLY_MARK)]

    return open


def _chsk_poll(n: int) -> Opening:
    who = f"client-id={next(_client_ids)}&uid=u{n}"
    yield Step(get(f"/chsk?{who}&handshake?=1"), b"chsk/handshake")
    yield Step(get(f"/chsk?{who}"), NOTHING)  # parks
    return []


def _parked(n: int) -> Opening:
    yield Step(get("/pid"), b"\r\n\r\n")
    yield Step(get("/park"), NOTHING)
    return []


def _plain_flask(n: int) -> Opening:
    yield Step(get("/pid"), b"\r\n\r\n")
    return [Step(post("/plain", json.dumps(SAID), "application/json"), REPLY_MARK)]


def _chsk_relay(n: int) -> Opening:
    yield from _chsk_websocket("edn", "")(n + ASKERS)
    return [Step(frame(relay(n)), EVENT_MARK)]


CHSK_EDN = Dialect(_chsk_websocket("edn", edn(SAID)), b":chsk/ws-ping", PONG)
CHSK_JSON = Dialect(_chsk_websocket("json", _json(SAID)), b'"chsk/ws-ping"', JSON_PONG)
CHSK_LARGE = Dialect(_chsk_websocket("edn", edn(LARGE)), b":chsk/ws-ping", PONG)
CHSK_RELAY = Dialect(_chsk_relay, b":chsk/ws-ping", PONG)
CHSK_AJAX_EDN = Dialect(_chsk_ajax("edn", edn(SAID), "edn"))
CHSK_AJAX_JSON = Dialect(_chsk_ajax("json", _json(SAID), "json"))
CHSK_POLL = Dialect(_chsk_poll)
PARKED = Dialect(_parked)
PLAIN_FLASK = Dialect(_plain_flask)


# socket.io, whatever serves it -----------------------------------------------------------------


def _socketio_websocket(data: dict[str, object]) -> Callable[[int], Opening]:
    request = [Step(frame(f'420["echo",{json.dumps(data)}]'), REPLY_MARK)]

    def open(n: int) -> Opening:
        yield Step(upgrade(f"/socket.io/?EIO=4&transport=websocket&uid=u{n}"), b"0{")
        yield Step(frame("40"), b"40{")
        return request

    return open


def _socketio_relay(n: int) -> Opening:
    yield from _socketio_websocket({})(n + ASKERS)
    return [Step(frame(f'42["relay","u{n}"]'), EVENT_MARK)]


def _socketio_session(n: int) -> Generator[Step, bytes, str]:
    path = f"/socket.io/?EIO=4&transport=polling&uid=u{n}"
    answer = yield Step(get(path), b'"sid":"')
    while b'"' not in answer.partition(b'"sid":"')[2]:
        answer += yield Step(NOTHING, b'"')
    path += "&sid=" + answer.partition(b'"sid":"')[2].partition(b'"')[0].decode()
    yield Step(post(path, "40", "text/plain"), b"\r\n\r\n")
    yield Step(get(path), b"40{")
    return path


def _socketio_polling(n: int) -> Opening:
    path = yield from _socketio_session(n)
    message = f'420["echo",{json.dumps(SAID)}]'
    return [
        Step(post(path, message, "text/plain"), b"\r\n\r\n"),
        Step(get(path), REPLY_MARK),
    ]


def _socketio_parked(n: int) -> Opening:
    path = yield from _socketio_session(n)
    yield Step(get(path), NOTHING)
    return []


SOCKETIO = Dialect(_socketio_websocket(SAID), b"\x81\x012", frame("3"))
SOCKETIO_LARGE = Dialect(_socketio_websocket(LARGE), b"\x81\x012", frame("3"))
SOCKETIO_RELAY = Dialect(_socketio_relay, b"\x81\x012", frame("3"))
SOCKETIO_POLLING = Dialect(_socketio_polling)
SOCKETIO_PARKED = Dialect(_socketio_parked)


# no protocol -----------------------------------------------------------------------------------


def _bare(data: dict[str, object]) -> Callable[[int], Opening]:
    request = [Step(frame(json.dumps([["echo", data], 1])), REPLY_MARK)]

    def open(n: int) -> Opening:
        yield Step(upgrade(f"/ws?uid=u{n}"), b"hello")
        return request

    return open


BARE = Dialect(_bare(SAID))
BARE_LARGE = Dialect(_bare(LARGE))
