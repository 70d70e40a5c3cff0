"""A real server for the client's tests."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_chsk.client import ChannelSocket
from flask_chsk.packers import make
from tests.process import WAIT
from tests.servers import WsgiServer, running

APP = "tests.e2e.client.app:app"


class TestServer:
    """A server of ``tests.e2e.client.app``, and what a test asks it beside the channel socket."""

    __test__ = False

    def __init__(self, server: WsgiServer) -> None:
        self.process = server
        self.port = server.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/chsk"

    def post(self, path: str) -> Any:
        """What ``POST /path`` answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method="POST")
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            text = answer.read().decode()
        return make("json").unpack(text) if text else None


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """Wait longer by default than applications do: a busy machine may stall."""
    calls = (ChannelSocket.wait_open, ChannelSocket.request)
    with pytest.MonkeyPatch.context() as patch:
        for call in calls:
            patch.setattr(call, "__defaults__", (WAIT,))
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """One server under gunicorn's gevent worker, for all tests that do not stop it."""
    with running("gunicorn-gevent", APP, tmp_path_factory.mktemp("client") / "log") as process:
        yield TestServer(process)


@pytest.fixture
def open_client(server: TestServer) -> Iterator[Callable[..., ChannelSocket]]:
    """``open_client(uid=None, url=None, **options)``: an open client, destroyed after the test."""
    clients: list[ChannelSocket] = []

    def open_client(
        uid: str | None = None, url: str | None = None, **options: Any
    ) -> ChannelSocket:
        options.setdefault("params", {"uid": uid})
        client = ChannelSocket(url or server.url, **options)
        clients.append(client)
        client.wait_open()
        return client

    yield open_client
    for client in clients:
        client.destroy()
