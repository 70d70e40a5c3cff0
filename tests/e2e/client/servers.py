"""Servers that behave in one odd way each, and a proxy that an office might have."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flask_chsk.protocol import frames
from flask_chsk.protocol.frames import FrameReader

HANDSHAKE = '[[:chsk/handshake ["ann" nil nil {:cursor "e1:1" :recovered nil :server "x"}]] nil]'


class Listening:
    """Answers each connection, in a thread, by :meth:`serve`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/chsk"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            self.serve(sock)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def serve(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def head_of(sock: socket.socket) -> tuple[str, bytes]:
    """The head of a request, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise OSError("ended inside a head")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


class Saying(Listening):
    """Answers whatever is asked with the same bytes; None: with nothing, and stays."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.heads: list[str] = []
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        self.heads.append(head_of(sock)[0])
        if self.answer is None:
            sock.recv(1)
        else:
            sock.sendall(self.answer)


class Closing(Listening):
    """Opens each WebSocket properly, pongs once, then closes it with *code*."""

    def __init__(self, code: int, reason: str = "") -> None:
        self.code, self.reason = code, reason
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        head, rest = head_of(sock)
        found = re.search(r"(?im)^sec-websocket-key: (\S+)", head)
        if found is None:
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        accept = frames.accept_key(found[1])
        # A browser fails where it offered subprotocols and the server selects none.
        selected = "Sec-WebSocket-Protocol: chsk.v1\r\n" if "chsk.v1" in head else ""
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept}\r\n{selected}\r\n".encode()
            + frames.text_frame(HANDSHAKE)
        )
        reader = FrameReader("server", 10_000)
        while not reader.feed(rest):
            rest = sock.recv(65536)
        sock.sendall(frames.text_frame('["pong" "ping"]'))
        sock.sendall(frames.close_frame(self.code, self.reason))
        while (data := sock.recv(65536)) and not any(
            isinstance(message, frames.Close) for message in reader.feed(data)
        ):
            pass  # then a server hangs up first (RFC 6455, 7.1.1)


Answer = tuple[int, dict[str, str], str]


class Polled:
    """An HTTP server whose answers a test decides: ``answer(method, params)``."""

    def __init__(self, answer: Callable[[str, dict[str, str]], Answer]) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        polled = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                text = urlsplit(self.path).query
                if self.command == "POST":
                    text += "&" + self.rfile.read(int(self.headers["Content-Length"])).decode()
                params = {name: values[-1] for name, values in parse_qs(text).items()}
                polled.asked.append((self.command, params, self.headers))
                status, headers, body = answer(self.command, params)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/chsk"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> Polled:
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class OfficeProxy(Listening):
    """An HTTP proxy: tunnels by CONNECT, forwards requests in absolute form, wants a password."""

    def __init__(self, password: str | None = None) -> None:
        self.password = password
        self.asked: list[str] = []
        super().__init__()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def serve(self, sock: socket.socket) -> None:
        head, rest = head_of(sock)
        method, target, _ = head.partition("\r\n")[0].split(" ")
        parts = urlsplit(target if "//" in target else f"//{target}")
        self.asked.append(f"{method} {parts.scheme}")
        if self.password and f"Proxy-Authorization: Basic {self.password}" not in head:
            sock.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection((parts.hostname, parts.port or 80)) as there:
            self._open.append(there)
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Go\r\n\r\n")
                there.sendall(rest)
            else:
                path = f"{parts.path}?{parts.query}"
                head = head.replace(target, path, 1) + "\r\nConnection: close"
                there.sendall(head.encode("latin-1") + b"\r\n\r\n" + rest)
            threading.Thread(target=self._relay, args=(there, sock), daemon=True).start()
            self._relay(sock, there)

    @staticmethod
    def _relay(here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
        with suppress(OSError):
            there.shutdown(socket.SHUT_WR)
