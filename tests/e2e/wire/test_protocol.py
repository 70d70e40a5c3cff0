"""The examples of docs/protocol.rst, sent to a server of the application that the page shows."""

from __future__ import annotations

import base64
import http.client
import re
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
import websocket
from flask import Flask
from werkzeug.datastructures import ImmutableDict
from werkzeug.serving import make_server

from flask_chsk.hub import Hub
from tests.process import ROOT

PAGE = (ROOT / "docs/protocol.rst").read_text(encoding="utf-8")
BLOCK = re.compile(r"^\.\. code-block:: (\w+)\n   :name: (\S+)\n\n((?:   .*\n|\n)+)", re.M)
BLOCKS = {name: textwrap.dedent(code) for _, name, code in BLOCK.findall(PAGE)}
EXAMPLES = [name for language, name, _ in BLOCK.findall(PAGE) if language == "text"]

BEGIN = 0.001  # the time of day, which stands still: offsets follow it, from 1000 on
# The epoch, the name of the worker, the id of a question.
TOKENS = {4: "e7f3", 8: "a4c1e09b7d2f6358", 12: "6b1f0c9a2d5e47f8a3c1b2d4"}
QUICK = {"CHSK_LP_TIMEOUT": 0.2, "CHSK_WS_KALIVE": 0.2}  # of examples that wait for their end
SHOWN = {  # what the WebSocket of an example shows, where the example does not say it
    "query": {"client-id": "t1", "packer": "edn", "v": "1"},
    "secret": "Xq3PzO5wZcVw4S8jUGn2rA",
    "bearer": "ann",
}
WAIT = 20.0  # seconds for any answer

Serve = Callable[[dict[str, Any]], int]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(config)``: the port of a server of the page's application."""
    monkeypatch.setattr(Hub, "wall", lambda hub: BEGIN)
    monkeypatch.setattr(Hub, "token", lambda hub, size: TOKENS.get(size, "0" * 2 * size))
    stop: list[Callable[[], object]] = []

    def serve(config: dict[str, Any]) -> int:
        shown: dict[str, Any] = {"__name__": "protocol_page"}
        settings = ImmutableDict({**Flask.default_config, **config})
        monkeypatch.setattr(Flask, "default_config", settings)
        exec(BLOCKS["protocol.py"], shown)
        server = make_server("127.0.0.1", 0, shown["app"], threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stop.append(server.shutdown)
        stop.append(server.server_close)
        return int(server.server_port)

    yield serve
    for end in stop:
        end()


def steps(example: str) -> list[tuple[str, list[str]]]:
    """The lines of an example: what is sent, then what is received, and so on."""
    found: list[tuple[str, list[str]]] = []
    for line in BLOCKS[example].strip().splitlines():
        side, text = line[:1], line[2:]
        if side == " ":
            found[-1][1][-1] += " " + line.strip()
        elif found and found[-1][0] == side:
            found[-1][1].append(text)
        else:
            found.append((side, [text]))
    return found


def request(port: int, lines: list[str]) -> list[str]:
    """The answer to a request, as the page writes it: status and type, then the body."""
    first, *rest = lines
    method, target = first.split()
    path, _, query = target.partition("?")
    headers = dict(line.split(": ", 1) for line in rest if re.match(r"[A-Z][\w-]*: ", line))
    form = next((line for line in rest if line.startswith("client-id=")), None)
    if query:
        path += "?" + urlencode(parse_qsl(query))
    body = None
    if form is not None:
        fields, _, message = form.partition("&ppstr=")
        body = urlencode([*parse_qsl(fields), ("ppstr", message)])
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return [f"{answer.status} {answer.headers['Content-Type']}", answer.read().decode()]
    finally:
        connection.close()


def converse(port: int, example: str) -> None:
    """Make the requests of an example; their answers are what it shows."""
    asked: list[str] = []
    for side, lines in steps(example):
        if side == ">":
            asked = lines
        else:
            assert request(port, asked) == lines


def connect(port: int) -> Any:
    """A WebSocket that has got its handshake."""
    bearer = base64.urlsafe_b64encode(SHOWN["bearer"].encode()).decode().rstrip("=")
    socket = websocket.create_connection(
        f"ws://127.0.0.1:{port}/chsk?{urlencode(SHOWN['query'])}",
        timeout=WAIT,
        subprotocols=["chsk.v1", f"secret.{SHOWN['secret']}", f"auth.{bearer}"],
    )
    assert socket.subprotocol == "chsk.v1"
    assert socket.recv().startswith("[[:chsk/handshake ")
    return socket


def test_the_examples_over_http_are_one_conversation(serve: Serve) -> None:
    port = serve({})
    for example in (name for name in EXAMPLES if name.startswith("http-")):
        converse(port, example)


@pytest.mark.parametrize("example", [name for name in EXAMPLES if "-http-" in name])
def test_an_example_over_http_of_its_own(example: str, serve: Serve) -> None:
    converse(serve(QUICK), example)


def received(socket: Any, expected: str) -> str:
    """The next message. On a slow machine the server may have pinged once more."""
    message = socket.recv()
    while message.startswith("[:chsk/ws-ping ") and message != expected:
        message = socket.recv()
    return str(message)


@pytest.mark.parametrize("example", [name for name in EXAMPLES if "ws-" in name])
def test_an_example_on_a_websocket(example: str, serve: Serve) -> None:
    socket = connect(serve(QUICK if example.startswith("quick-") else {}))
    try:
        for side, lines in steps(example):
            for line in lines:
                if side == ">":
                    socket.send(line)
                else:
                    assert received(socket, line) == line
    finally:
        socket.close()
