"""A client at the wire, for tests of the server: says and reads single messages of EDN.

It shares nothing with our clients but the packer, reconnects never, and sees frames as they are.
"""

from __future__ import annotations

import http.client
import secrets
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import websocket

from flask_chsk import Keyword
from flask_chsk.packers.edn import EdnPacker
from flask_chsk.security import RESUME_HEADER, SECRET_HEADER
from tests.process import WAIT

EDN = EdnPacker()


class Closed(Exception):
    """The server closed the WebSocket."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Peer:
    """One client of ``http(s)://127.0.0.1:port/chsk``."""

    def __init__(
        self,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        path: str = "/chsk",
        client_id: str | None = None,
        **params: str,
    ) -> None:
        self.port = port
        self.tls = tls
        self.path = path
        self.params = {"client-id": client_id or secrets.token_hex(8), **params}
        self.secret = secrets.token_urlsafe(16)
        self.cursor = self.resume = ""
        self.handshake: list[Any] = []
        self.number = 0
        self.socket: Any = None
        self.headers: dict[str, str] = {}  # of the last answer, names in lower case

    # WebSocket -----------------------------------------------------------------------------

    def open(self, headers: Sequence[str] = (), **params: str) -> list[Any]:
        """Open a WebSocket; the handshake's ``[uid csrf data extras?]``."""
        scheme = "wss" if self.tls else "ws"
        self.socket = websocket.create_connection(
            f"{scheme}://127.0.0.1:{self.port}{self.path}?{self.query(**params)}",
            timeout=WAIT,
            header=[*headers, *(f"{name}: {value}" for name, value in self.proofs().items())],
            sslopt={"context": self.tls} if self.tls else None,
        )
        self.headers = self.socket.getheaders()
        return self._greeted(self.read())

    def say(self, event: str, cb: str = "nil") -> None:
        """Send an event, as EDN, with a callback id, as EDN."""
        self.socket.send(f"[{event} {cb}]")

    def read(self) -> list[Any]:
        """The next message ``[value cb? third?]``.

        :raises Closed: with the code and reason.
        """
        opcode, data = self.socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big") if data else None
            raise Closed(code, data[2:].decode())
        message: list[Any] = EDN.unpack(data.decode())
        self._note(message)
        return message

    def ask(self, event: str) -> Any:
        """The reply to *event*; pushes that come before it are an error."""
        self.say(event, '"cb"')
        reply, cb, *_ = self.read()
        assert cb == "cb"
        return reply

    def events(self, count: int) -> list[Any]:
        """The next *count* pushed events."""
        events: list[Any] = []
        while len(events) < count:
            events += self.read()[0]
        return events

    def close(self) -> None:
        """Close as a browser does."""
        self.socket.close()

    def cut(self) -> None:
        """Be gone without a word."""
        if self.socket is not None:
            self.socket.shutdown()

    # Ajax ------------------------------------------------------------------------------------

    def get(self, timeout: float = 30.0, **params: str) -> tuple[int, str]:
        """GET: status and body."""
        return self._http("GET", f"{self.path}?{self.query(**params)}", None, timeout)

    def post(self, event: str, cb: str = "nil") -> Any:
        """POST an event; what answers it."""
        status, text = self.post_raw(f"[{event} {cb}]")
        assert status == 200, (status, text)
        return EDN.unpack(text)[0]

    def post_raw(self, message: str, **params: str) -> tuple[int, str]:
        """POST any text as a message: status and body."""
        form = urlencode({**self.params, "ppstr": message, **params})
        return self._http("POST", self.path, form, 30.0)

    def hello(self) -> list[Any]:
        """Open by Ajax; the handshake's ``[uid csrf data extras?]``."""
        status, text = self.get(**{"handshake?": "1"})
        assert status == 200, (status, text)
        return self._greeted(EDN.unpack(text))

    def poll(self) -> list[Any]:
        """One poll: the pushed events, or [] where it ended empty."""
        self.number += 1
        status, text = self.get(n=str(self.number))
        assert status == 200, (status, text)
        message = EDN.unpack(text)
        self._note(message)
        pushed = message[0]
        return [] if isinstance(pushed, Keyword) else list(pushed)

    def _http(self, method: str, path: str, form: str | None, timeout: float) -> tuple[int, str]:
        connection: http.client.HTTPConnection
        if self.tls:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = self.proofs()
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, form, headers)
            response = connection.getresponse()
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read().decode()
        finally:
            connection.close()

    # both ------------------------------------------------------------------------------------

    def proofs(self) -> dict[str, str]:
        """The headers by which the server knows this client again."""
        shown = {SECRET_HEADER: self.secret, RESUME_HEADER: self.resume}
        return {name: value for name, value in shown.items() if value}

    def query(self, **more: str) -> str:
        """The query string of a request."""
        mine = {**self.params, "cursor": self.cursor, **more}
        return urlencode({name: value for name, value in mine.items() if value})

    def _greeted(self, message: list[Any]) -> list[Any]:
        assert message[0][0] == "chsk/handshake", message
        self.handshake = message[0][1]
        if len(self.handshake) == 4:
            extras = self.handshake[3]
            self.cursor, self.resume = extras["cursor"], extras["resume"]
        return self.handshake

    def _note(self, message: list[Any]) -> None:
        if len(message) == 3 and isinstance(message[2], str):
            epoch, _, offsets = message[2].partition(":")
            self.cursor = f"{epoch}:{sum(int(offset) for offset in offsets.split(','))}"
