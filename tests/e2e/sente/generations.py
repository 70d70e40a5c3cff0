"""What each generation of Sente's clients says and expects, as a table and as scripted clients.

From docs/protocol.rst, "Sente's generations", and the recordings in tests/vectors. A scripted
client says the bytes of its generation, reads the server's bytes literally, and decides as its
generation does.
"""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import websocket

LP_TIMEOUT = 1.0  # the server's settings
KALIVE = 1.0
PING_TIMEOUT = 2.0  # two dozen clients of one process may stand still for some of it
POLL_TIMEOUT = 4.0  # in place of the 25 s after which clients of 1.3 to 1.8 end an idle poll
PATIENCE = 60.0  # seconds for anything that is to come


@dataclass(frozen=True)
class Generation:
    """One generation: its bytes in both directions, and what it does after each."""

    name: str
    wire: str
    buster: str = "udt"  # the parameter against caches
    handshake: str | None = "true"  # handshake?=, with which it opens by Ajax
    nil_uid: str = ":sente/nil-uid"
    post_id: bool = True  # its POSTs say client-id
    token_from_page: bool = True  # False: from the handshake
    token_in_get: bool = True
    token_in_form: bool = True
    token_in_header: bool = True
    asks: str = "0"  # the callback of a POST that asks
    ping: str | None = None  # what it says to keep a WebSocket alive
    pong: str | None = None  # what it answers to the server's ping
    ends_idle_polls: bool = False  # itself; and throws at any answer but a vector of events
    clean_close_is_final: bool = False

    @property
    def path(self) -> str:
        return "/chsk" if self.wire == "1.21" else f"/chsk-{self.wire}"

    def says(self, event: str, cb: str | None = None) -> str:
        """The bytes of an event, with the id of a callback."""
        if self.wire == "1.21":
            return f"[{event} {cb or 'nil'}]"
        prefix = "" if self.wire == "1.18" else "+"
        return f"{prefix}[{event}]" if cb is None else f"{prefix}[{event} {cb}]"

    def hears(self, value: str, cb: str | None = None) -> str:
        """The server's bytes for a value."""
        if self.wire == "1.0" and cb is None:
            return f"-{value}"
        return self.says(value, cb)


OLD = {"wire": "1.0", "nil_uid": ":taoensso.sente/nil-uid"}
NO_TOKEN = {"token_from_page": False, "token_in_get": False}
POLLS_ALONE = {"buster": "_", "ends_idle_polls": True}
PING = "[:chsk/ws-ping]"

GENERATIONS = [
    Generation(
        "1.3",
        handshake=None,
        post_id=False,
        token_in_header=False,
        ping=PING,
        **OLD,
        **NO_TOKEN,
        **POLLS_ALONE,
    ),
    Generation(
        "1.5", post_id=False, token_in_header=False, ping=PING, **OLD, **NO_TOKEN, **POLLS_ALONE
    ),
    Generation("1.7", token_in_header=False, ping=PING, **OLD, **NO_TOKEN, **POLLS_ALONE),
    Generation("1.9", clean_close_is_final=True, **OLD, **NO_TOKEN),
    Generation("1.11", clean_close_is_final=True, ping=PING, **OLD, **NO_TOKEN),
    Generation("1.14", clean_close_is_final=True, ping=PING, **OLD),
    Generation(
        "1.17", "1.17", clean_close_is_final=True, ping=PING, nil_uid=":taoensso.sente/nil-uid"
    ),
    Generation("1.18", "1.18", ping=f'{PING} "ping"'),
    Generation("1.19", "1.18", ping=f'{PING} "ping"', pong="[:chsk/ws-pong]"),
    Generation(
        "1.21",
        "1.21",
        handshake="1",
        token_in_form=False,
        asks=":ajax",
        ping=f'{PING} "ping"',
        pong="[:chsk/ws-pong]",
    ),
]


class Final(AssertionError):
    """This client never comes back."""


class Client:
    """What the two transports have in common."""

    def __init__(self, generation: Generation, port: int, uid: str) -> None:
        self.generation = generation
        self.port = port
        self.uid = uid
        self.client_id = secrets.token_hex(8)
        self.items: list[int] = []  # of the events that were pushed
        self.token = self.cookie = ""
        page = self.http("GET", f"/page?uid={uid}")[1]
        if generation.token_from_page:
            self.token = page

    def http(
        self, method: str, target: str, body: str | None = None, timeout: float = PATIENCE
    ) -> tuple[int, str]:
        """A request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Cookie": self.cookie, "X-Requested-With": "XMLHTTPRequest"}
        headers |= {"Sec-Fetch-Site": "same-origin"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
            if self.token and self.generation.token_in_header:
                headers["X-CSRF-Token"] = self.token
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            if cookie := answer.headers["Set-Cookie"]:
                self.cookie = cookie.partition(";")[0]
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def query(self, **more: str) -> str:
        """Of a GET, or a WebSocket."""
        params = {"client-id": self.client_id, **more}
        if self.generation.token_in_get:
            params["csrf-token"] = self.token
        return f"{self.generation.path}?{urlencode(params)}"

    def cut(self) -> None:
        """Be gone without a word."""

    def greeted(self, text: str) -> None:
        """Read a handshake."""
        one = self.generation
        for csrf in ["nil", f'"{self.token}"'] if one.token_from_page else ["CSRF"]:
            data = " nil" if one.wire == "1.21" else ""
            expected = one.hears(f'[:chsk/handshake ["{self.uid}" {csrf}{data}]]')
            if text == expected:
                return
        before, _, after = expected.partition("CSRF")
        assert text.startswith(before), (text, expected)
        assert text.endswith(after), (text, expected)
        self.token = text[len(before) + 1 : -len(after) - 1]
        assert len(self.token) > 20, text

    def pushed(self, text: str) -> bool:
        """Read numbered events; False: it is something else."""
        head, _, rest = self.generation.hears("[[:test/item *]]").partition("*")
        if not text.startswith(head):
            return False
        self.items += [int(part.partition("]")[0]) for part in text.split(":test/item ")[1:]]
        assert text.endswith(rest), text
        return True


class WebSocketClient(Client):
    """A client of one generation by WebSocket."""

    socket: Any = None

    def open(self) -> None:
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{self.port}{self.query()}",
            timeout=PATIENCE,
            cookie=self.cookie,
            origin=f"http://127.0.0.1:{self.port}",
        )
        self.greeted(self.recv())

    def recv(self) -> str:
        """The next message.

        :raises ConnectionError: for an end that is not final.
        """
        try:
            opcode, data = self.socket.recv_data()
        except websocket.WebSocketConnectionClosedException:
            raise ConnectionError("the stream ended") from None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            if self.generation.clean_close_is_final:
                raise Final(f"closed with {data!r}")
            raise ConnectionError("closed")
        return str(data, "utf-8")

    def hear(self, *expected: str) -> str:
        """Read until one of *expected*, what pushes hold, and answer pings."""
        one = self.generation
        ping = one.hears(":chsk/ws-ping")
        while True:
            text = self.recv()
            if text in expected:
                return text
            if text == ping:
                if one.pong is not None:
                    self.socket.send(one.says(one.pong))
            elif not self.pushed(text):
                raise AssertionError(f"{text!r} instead of {expected}")
            elif not expected:
                return ""

    def send(self, event: str) -> None:
        self.socket.send(self.generation.says(event))

    def ask(self, event: str, reply: str) -> None:
        one = self.generation
        self.socket.send(one.says(event, '"cb1"'))
        self.hear(one.hears(reply, '"cb1"'))

    def wait_for_items(self, count: int) -> None:
        while len(self.items) < count:
            self.hear()

    def idle(self) -> None:
        """Stay for two of the server's pings, and say what one's own timer says."""
        one = self.generation
        for _ in range(2):
            self.hear(one.hears(":chsk/ws-ping"))
            if one.pong is not None:
                self.socket.send(one.says(one.pong))
        time.sleep(PING_TIMEOUT + 0.3)  # who has no pong is not closed
        if one.ping is not None:
            event, _, cb = one.ping.partition(" ")
            self.socket.send(one.says(event, cb or None))
            if cb:
                self.hear(one.hears('"pong"', cb))

    def come_back(self, restarted: threading.Event) -> None:
        """Stay until the server ends the connection, and open another."""
        try:
            while True:
                self.hear()
        except ConnectionError:
            self.socket.shutdown()
        assert restarted.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < end, "it was not let in again"
            try:
                self.open()
                return
            except (OSError, websocket.WebSocketException):
                time.sleep(0.2)

    def close(self) -> None:
        self.socket.close()

    def cut(self) -> None:
        if self.socket is not None:
            self.socket.shutdown()


class AjaxClient(Client):
    """A client of one generation by Ajax."""

    idle_polls = 0
    ended = 0  # polls that ended without an answer, or with an error

    def open(self) -> None:
        opening = {} if self.generation.handshake is None else {"handshake?": "true"}
        if self.generation.handshake == "1":
            opening = {"handshake?": "1"}
        status, text = self.http("GET", self.target(**opening))
        if status != 200:
            raise ConnectionError(text)
        self.greeted(text)

    def target(self, **more: str) -> str:
        return self.query(**{self.generation.buster: str(int(time.time() * 1000)), **more})

    def poll(self) -> bool:
        """One poll; False: it failed, and the client opens again after a moment."""
        one = self.generation
        try:
            timeout = POLL_TIMEOUT if one.ends_idle_polls else PATIENCE
            status, text = self.http("GET", self.target(), timeout=timeout)
        except TimeoutError:
            assert one.ends_idle_polls, "an idle poll was not ended"
            self.idle_polls += 1
            return True
        except (OSError, http.client.HTTPException):
            return False
        if status != 200:
            return False
        if one.ends_idle_polls:
            if not text.startswith("-[:chsk/handshake"):
                assert text == "-[]" or self.pushed(text), f"deaf from now on: {text!r}"
        elif text == one.hears(":chsk/timeout"):
            self.idle_polls += 1
        elif not self.pushed(text):
            self.greeted(text)
        return True

    def post(self, event: str, cb: str | None = None) -> str:
        one = self.generation
        form = {one.buster: str(int(time.time() * 1000))}
        if one.post_id:
            form["client-id"] = self.client_id
        if one.token_in_form:
            form["csrf-token"] = self.token
        form["ppstr"] = one.says(event, cb)
        status, text = self.http("POST", one.path, urlencode(form))
        assert status == 200, (status, text)
        return text

    def send(self, event: str) -> None:
        assert self.post(event) == self.generation.hears(":chsk/dummy-cb-200")

    def ask(self, event: str, reply: str) -> None:
        assert self.post(event, self.generation.asks) == self.generation.hears(reply)

    def wait_for_items(self, count: int) -> None:
        end = time.monotonic() + PATIENCE
        while len(self.items) < count:
            assert time.monotonic() < end, f"only {self.items}"
            assert self.poll(), "a poll failed"

    def idle(self) -> None:
        """Two polls to which nothing comes."""
        before = self.idle_polls
        while self.idle_polls < before + 2:
            assert self.poll(), "an idle poll failed"

    def come_back(self, restarted: threading.Event) -> None:
        """Poll on while the server restarts, and open again where a poll fails."""
        while self.poll() and not restarted.wait(0):
            pass
        assert restarted.wait(PATIENCE)
        now = time.monotonic()
        if self.poll():
            return
        while True:
            assert time.monotonic() < now + PATIENCE, "it was not let in again"
            try:
                if self.generation.handshake is not None:
                    self.open()
                    return
                if self.poll():
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.2)

    def close(self) -> None:
        """It just stops polling."""
