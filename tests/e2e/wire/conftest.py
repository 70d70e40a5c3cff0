"""One server for the tests of a module, and a way to talk to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.peer import Peer
from tests.process import WAIT
from tests.servers import WsgiServer, running

APP = "tests.e2e.wire.app:app"


class Client(Peer):
    """A peer that has one socket at a time."""

    def open(self, headers: Sequence[str] = (), **params: str) -> list[Any]:
        self.cut()
        return super().open(headers, **params)


class Wire:
    """A running server of :mod:`tests.e2e.wire.app`."""

    def __init__(self, server: WsgiServer) -> None:
        self.server = server
        self.port = server.port
        self.peers: list[Client] = []
        self.expected_tracebacks = 0

    def peer(self, uid: str = "", **params: str) -> Client:
        """One of our clients (``v="1"``); *uid* "" is nobody. ``v=""``: one of Sente's."""
        mine: Any = {"v": "1", "uid": uid, **params}
        self.peers.append(Client(self.port, **mine))
        return self.peers[-1]

    def sente(self, uid: str = "", **params: str) -> Client:
        """One of Sente's clients."""
        return self.peer(uid, v="", **params)

    def get(self, path: str) -> Any:
        """What the application says of itself."""
        return self._json("GET", path)

    def do(self, path: str, **form: Any) -> Any:
        """Have the application do something."""
        return self._json("POST", path, urlencode(form))

    def _json(self, method: str, path: str, body: str | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status == 200, text
        return json.loads(text)

    def seen(self, **want: Any) -> list[str]:
        """Events that handlers saw, of those where all of *want* (uid, cid, cb) holds."""
        return [
            entry["ev"]
            for entry in self.get("/seen")
            if all(entry[name] == value for name, value in want.items())
        ]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Wire]]:
    """``serve(kind="gunicorn-gevent", scale=1, **config)``: a server until the module ends.

    A traceback in its log fails the last of the module's tests, unless it was expected.
    """
    started: list[tuple[Any, Wire]] = []

    def serve(
        kind: str = "gunicorn-gevent",
        *,
        scale: float = 1,
        app: str = APP,
        env: Mapping[str, str] | None = None,
        **config: Any,
    ) -> Wire:
        log = tmp_path_factory.mktemp("wire") / "log"
        mine = {"WIRE_CONFIG": json.dumps(config), "WIRE_SCALE": str(scale), **(env or {})}
        context = running(kind, app, log, mine)
        wire = Wire(context.__enter__())
        started.append((context, wire))
        return wire

    yield serve
    for _, wire in started:
        for peer in wire.peers:
            peer.cut()
    with ThreadPoolExecutor() as pool:  # each takes a second to end
        list(pool.map(lambda one: one[0].__exit__(None, None, None), started))
    for _, wire in started:
        assert wire.server.tracebacks == wire.expected_tracebacks, wire.server.log


@pytest.fixture(scope="module", params=["gunicorn-gevent", "flask-run"])
def wire(request: pytest.FixtureRequest, serve: Callable[..., Wire]) -> Wire:
    """A server of either kind: greenlets, and native threads with a hub in the background.

    The module's ``CONFIG`` has its settings.
    """
    return serve(request.param, **getattr(request.module, "CONFIG", {}))
