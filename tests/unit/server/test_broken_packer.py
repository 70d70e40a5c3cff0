"""A packer of the application's own that fails where it joins packed values: who is hurt by it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_chsk import Chsk
from flask_chsk.packers import custom
from flask_chsk.server.connection import Opening
from flask_chsk.server.worker import Worker
from tests.integration.test_half_entered import Quiet
from tests.process import eventually


class Breaks:
    """JSON, but for what says how it ends."""

    name = "breaks"
    content_type = "text/x-breaks"
    binary = False

    def pack(self, value: Any, /) -> str:
        return json.dumps(value)

    def unpack(self, data: str, /) -> Any:
        return json.loads(data)

    def array(self, parts: list[str]) -> str:
        text = ",".join(parts)
        for word, end in ENDS.items():
            if word in text:
                end()
        return f"[{text}]"


def raises() -> None:
    raise KeyError


ENDS: dict[str, Callable[[], object]] = {"error": raises, "exit": lambda: sys.exit(3)}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setattr(custom, "_registered", {})
    custom.register(Breaks())
    app = Flask(__name__)
    app.secret_key = "for tests"
    Chsk(app, packers=["edn", "breaks"])
    return app


@pytest.mark.parametrize("end", ENDS)
def test_only_its_client_is_closed(app: Flask, end: str) -> None:
    state = app.extensions["chsk"]
    server: Worker = state.worker()
    links = {}
    for number in range(6):
        packer = "breaks" if number == 2 else "edn"
        opening = Opening(f"u{number}", "c", state.composer(packer, state.config))
        entered = server.clients.enter(opening, "ws")
        links[number] = Quiet()
        server.hub.run(server.sockets.open, entered, links[number], b"")
    server.sending.broadcast(["a/b", end])
    text = f'[[[:a/b "{end}"]] nil]'.encode()
    eventually(lambda: all(text in links[number].written for number in (0, 1, 3, 4, 5)))
    assert b"\x03\xf3" in links[2].written  # 1011
    assert server.stats()["closed_1011"] == 1
